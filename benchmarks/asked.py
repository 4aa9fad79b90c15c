"""What the gradient asks of an architecture that stays undecided, while theta learns.

    python -m benchmarks.asked --space darts --seed 0 --data DIR --out OUT --shrink --steps 260 --nasbench301 FOLDER
    python -m benchmarks.asked --data DIR --out OUT --shrink --among sep_conv_3x3,dil_conv_3x3
    python -m benchmarks.asked --data DIR --out OUT --shrink --kept

The search is the product's, with plain logits in phi's place (method.variant=table) that hardly move: at a rate of 1e-6
and without momentum they are, after n steps, minus 1e-6 times the sum of n gradients, while all operations stay equally
probable but for xi; with --among these operations are, and what is asked of others is not told; with --kept every set
of as many inputs as a node keeps is equally probable too, and what is asked of an input is minus that of its `none`,
less the mean of the node. What is asked in a part of the steps is the difference of two sums. A table tells it for
every part: the mean over edges of what is asked of each operation (less their mean), how steady that is, and the cell
that it would be, with what --csv or --nasbench301 says of it. OUT gets SPACE_SEED.npz: `steps` and for each cell the
sums so far, float32 [times, edges, ops], every thirteen steps, signed so that what is asked for is positive.
"""

import argparse
import pathlib
from collections.abc import Collection

import jax.numpy as jnp
import numpy as np

from benchmarks.step import Parser, run
from benchmarks.variants import CONFIGS, EVERY, rated
from vimnas_jax import api, data, methods, spaces
from vimnas_jax import config as config_lib
from vimnas_jax.errors import UserError
from vimnas_jax.methods import inputs
from vimnas_jax.runs import parallel
from vimnas_jax.verbs import search

RATE = 1e-6
STILL = {'method.name': 'vimnas', 'method.variant': 'table', 'method.bound': 0.0, 'method.sharpen': 1.0,
         'method.sharpen_last': 1.0, 'method.node_inputs': 'all', 'phi.optimizer': 'sgd', 'phi.lr': RATE,
         'phi.lr_end': RATE, 'phi.steps': 0, 'phi.fall': 0.0, 'phi.until': 1.0, 'phi.momentum': 0.0,
         'phi.weight_decay': 0.0, 'pretrain.epochs': 0.0, 'devices': 1}
PARTS = 4  # of the steps, told one by one
ABSENT = -8.0  # the logit of an operation that is not among those asked about: xi does not reach it
SHARP = 3.0  # the length that an edge's row has in the mean, as logits, where a cell is read off


def sums(one: search._Run, steps: int, rate: float = RATE, among: Collection[str] = ()):
  """(Steps, {cell: float32 [times, edges, ops]}, losses [times]): the sums of minus the gradient after these steps of a
  search that is as STILL says, phi's `rate` apart. Where some operations are `among` those asked about, others have the
  mean of these.
  """
  (held, index), now = one.batches(), one.start()
  asked = {name: np.array([[not among or op in among for op in ops] for ops in cell.ops])
           for name, cell in one.space.cells.items()}
  now = now.replace(phi={**now.phi, 'params': {name: {'mu': jnp.asarray(np.where(mask, 0, ABSENT)[None], jnp.float32)}
                                               for name, mask in asked.items()}})
  at, found, losses = [], [], []
  program = one.step(0).lower(now, held, index(0)).compile()
  for i in range(steps):
    now, metrics = program(now, held, index(i))
    if i % EVERY == EVERY - 1 or i + 1 == steps:
      at.append(i + 1)
      moved = {name: np.asarray(params['mu'][0]) / rate for name, params in now.phi['params'].items()}
      found.append({name: np.where(mask, moved[name], moved[name].mean(-1, keepdims=True, where=mask))
                    for name, mask in asked.items()})
      losses.append(float(metrics['loss']))
  return np.array(at), {name: np.array([each[name] for each in found], np.float32) for name in found[0]}, losses


def read(space, asked, kept: bool = False) -> spaces.Genotype:
  """The cell of what is `asked` for, {cell: [edges, ops]}; of inputs too where these are `kept` as the space says."""
  probs = {}
  for name, rows in asked.items():
    rows = rows - rows.mean(-1, keepdims=True)
    rows = SHARP * rows / max(np.linalg.norm(rows, axis=-1).mean(), 1e-12)
    probs[name] = np.exp(rows - rows.max(-1, keepdims=True))
    probs[name] /= probs[name].sum(-1, keepdims=True)
    if kept:
      probs[name] = np.asarray(inputs.mixed(space.cells[name], space.kept, probs[name]))
  return space.genotype(probs)


def steadiness(found) -> float:
  """How much a sum [times, edges, ops] is above what steps that agree by chance alone give: the mean over edges and
  operations of |sum of the parts| / (standard deviation of the parts * square root of their number). NaN for one part.
  """
  parts = np.diff(found, axis=0)
  if len(parts) < 2:
    return float('nan')
  return float(np.mean(np.abs(parts.sum(0)) / np.maximum(parts.std(0, ddof=1) * len(parts) ** 0.5, 1e-12)))


def prepared(args) -> search._Run:
  """The search of the command's options, its length as the steps. Raises UserError."""
  changes = STILL | {'seed': args.seed, 'data.dir': args.data}
  changes |= {'data.shrink': 2, 'data.pad': 2} if args.shrink else {}
  changes |= {'space.channels': args.channels} if args.channels else {}
  changes |= {'method.node_inputs': 'kept'} if args.kept else {}
  config = config_lib.resolve(api.configure(CONFIGS[args.space], changes | {'epochs': float(args.epochs)}))
  space = spaces.get(args.space)
  return search._Run(config, space, methods.get(config.method, space), data.get(config.data),
                     parallel.mesh(1, config.batch_size, 1))


def main(argv) -> int:
  """Records one seed and prints its table."""
  parser = Parser(prog='python -m benchmarks.asked', description=__doc__,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--space', default='darts', choices=CONFIGS)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--data', required=True, help='a TFDS data dir with CIFAR-10')
  parser.add_argument('--out', required=True, type=pathlib.Path)
  parser.add_argument('--epochs', type=float, default=1.0, help='the length of the schedule of theta')
  parser.add_argument('--steps', type=int, help='how many of its steps are recorded; default: all')
  parser.add_argument('--csv', help='test accuracies of NAS-Bench-201, as config.oracle.test_csv')
  parser.add_argument('--nasbench301', help='as config.oracle.nasbench301')
  parser.add_argument('--shrink', action='store_true', help='16x16 images')
  parser.add_argument('--channels', type=int, help='C; default: that of the space')
  parser.add_argument('--kept', action='store_true', help='nodes have as many inputs as an architecture keeps')
  parser.add_argument('--among', default='', help='the operations asked about, separated by commas; default: all')
  args = parser.parse_args(argv)
  if args.kept and not spaces.get(args.space).restricted:
    raise UserError(f'--kept: the nodes of space {args.space!r} keep all their inputs; leave it out')
  among = [op for op in args.among.split(',') if op]
  if args.kept and among and 'none' not in among:
    raise UserError(f'--among={args.among} leaves out none, which says of --kept what is asked of inputs: add it')
  one = prepared(args)
  for edge in (edge for cell in one.space.cells.values() for edge in cell.ops):
    if among and not set(edge) & set(among):
      raise UserError(f'--among={args.among}: an edge has none of these, only {", ".join(edge)}')
  steps = args.steps or one.plan.search_steps
  if not EVERY <= steps <= one.plan.search_steps:
    raise UserError(f'--steps={steps}: from {EVERY} to the {one.plan.search_steps} of --epochs={args.epochs:g}')
  at, found, losses = sums(one, steps, among=among)
  args.out.mkdir(parents=True, exist_ok=True)
  np.savez_compressed(args.out / f'{args.space}_{args.seed}.npz', steps=at, loss=losses, **found)
  for line in table(one.space, at, found, losses, lambda genotype: rated(args, genotype), args.kept):
    print(line, flush=True)
  return 0


def table(space, at, found, losses, judge, kept=False):
  """The lines of the table, how steady it is for four times at least; `judge(genotype)` is what is known of a cell."""
  borders = [0, *(round(len(at) * (i + 1) / PARTS) for i in range(PARTS))]
  for first, last in [*zip(borders, borders[1:]), (0, len(at))]:
    whole = {name: np.concatenate([np.zeros_like(rows[:1]), rows])[first:last + 1] for name, rows in found.items()}
    asked = {name: rows[-1] - rows[0] for name, rows in whole.items()}
    genotype = read(space, asked, kept)
    yield (f'steps {at[first - 1] if first else 0} to {at[last - 1]}, loss {np.mean(losses[first:last]):.3f}: '
           f'{space.write(genotype)} {judge(genotype)}')
    for name, rows in asked.items():
      by_op: dict[str, list[float]] = {}
      for ops, row in zip(space.cells[name].ops, rows - rows.mean(-1, keepdims=True)):
        for op, value in zip(ops, row):
          by_op.setdefault(op, []).append(value)
      told = ', '.join(f'{op} {np.mean(values):+.3f}' for op, values in by_op.items())
      yield f'  {name}: {told}' + (f'; steadiness {steadiness(whole[name]):.1f}' if last - first > 3 else '')
      if kept:
        yield f'  {name}, inputs: ' + '; '.join(f'{node} from {wishes}' for node, wishes in by_node(space, name, rows))


def by_node(space, name, rows):
  """(Node, what is asked of each of its inputs) where these are so many that some are left out, of `rows` of a cell."""
  cell = space.cells[name]
  for node in range(cell.inputs, cell.nodes):
    into = [i for i, (_, target) in enumerate(cell.edges) if target == node]
    if len(into) > space.kept:
      wish = np.array([-rows[i][cell.ops[i].index('none')] for i in into])
      yield node, ', '.join(f'{cell.edges[i][0]} {w:+.3f}' for i, w in zip(into, wish - wish.mean()))


if __name__ == '__main__':
  run(main)
