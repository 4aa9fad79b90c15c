"""Variants of VIM-NAS's recipe on one seed, all by one program: what phi's rates and theta's age do to what is found.

    python -m benchmarks.variants --space nb201 --seed 0 --data DIR --out OUT E3 V3
    python -m benchmarks.variants --space nb201 --seed 0 --data DIR --out OUT --shrink E2

On a GPU compiling a search takes longer than the search. Here the rates of theta and phi lie in the optimisers' states,
and theta learns alone by the program of the search, phi's rate being 0: a centred phi that has not moved is A = xi. The
step is otherwise the product's. A variant is a name of VARIANTS. OUT gets a line of results.jsonl for each (its cell,
one-hotness, and what the tables that --csv and --nasbench301 name say of it) and SPACE_NAME_SEED.npz, phi's
probabilities every thirteen steps. Steps of theta are shared by variants that follow one another with the same age,
and with --theta by later calls as well, of the same revision and data.
"""

import argparse
import concurrent.futures
import json
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization

from benchmarks.step import Parser, run
from vimnas_jax import api, data, methods, spaces
from vimnas_jax import config as config_lib
from vimnas_jax.errors import UserError
from vimnas_jax.runs import optim, parallel
from vimnas_jax.tabular import nasbench201, nasbench301
from vimnas_jax.verbs import outcome, search

LONGEST, EVERY = 4096, 13
FORM = {'method.centred': True, 'method.networks': 32, 'method.sharpen_last': 1.0, 'method.node_inputs': 'all'}
CONFIGS = {'nb201': 'nb201_c10', 'darts': 'darts_c10'}
LENGTHS = {'nb201': 2.0, 'darts': 1.0}  # epochs of the search; the schedule of theta counts those before as well


class Variant(NamedTuple):
  """`age`: epochs of theta alone. `rate` and `rate_end`: of phi, from one to the other in a line or by equal `factors`.
  `bilevel`, `bound`, `sharpen`, `variant`, `sharpen_from`: fields of config.method. `fall`: part of the search in which
  the rate falls to 0; `until`: part of the search after which it is 0. `length`: epochs of the search; 0: as LENGTHS.
  """

  age: int
  rate: float
  rate_end: float
  factors: bool = False
  bilevel: bool = False
  fall: float = 0.3
  bound: float = 0.0
  sharpen: float = 6.0
  variant: str = 'base'
  until: float = 1.0
  sharpen_from: float = 0.6
  length: float = 0.0

  @property
  def form(self):
    """What is compiled: (bilevel, bound, sharpen, variant, sharpen_from, length)."""
    return self.bilevel, self.bound, self.sharpen, self.variant, self.sharpen_from, self.length


VARIANTS = {
    'nb201': {'E2': Variant(2, 0.01, 0.1), 'E3': Variant(3, 0.01, 0.1), 'E4': Variant(4, 0.01, 0.1),
              'V2': Variant(2, 0.002, 0.1, True), 'V3': Variant(3, 0.002, 0.1, True),
              'V4': Variant(4, 0.002, 0.1, True), 'S3': Variant(3, 0.0005, 0.1, True),
              'B3': Variant(3, 0.002, 0.1, True, True), 'BE2': Variant(2, 0.01, 0.1, False, True),
              'BE3': Variant(3, 0.01, 0.1, False, True), 'H3': Variant(3, 0.01, 0.1, bound=1.5),
              'H3_1': Variant(3, 0.01, 0.1, bound=1.0), 'H3_2': Variant(3, 0.01, 0.1, bound=2.0),
              'J3': Variant(3, 0.01, 0.1, bound=1.5, sharpen=8.0),
              'L3': Variant(3, 0.01, 0.1, bound=1.5, sharpen=8.0, fall=0.1, until=0.8),
              'O3': Variant(3, 0.02, 0.2, bound=1.5, sharpen=8.0, fall=0.1, until=0.8, length=1.0),
              'P3': Variant(3, 0.01, 0.1, bound=1.5, sharpen=16.0, fall=0.1, until=0.8),
              'Q2': Variant(2, 0.01, 0.1, bound=1.5, sharpen=16.0, fall=0.1, until=0.8, sharpen_from=0.7),
              'Q3': Variant(3, 0.01, 0.1, bound=1.5, sharpen=16.0, fall=0.1, until=0.8, sharpen_from=0.7),
              'N3_1': Variant(3, 0.1, 1.0, bound=1.5, sharpen=8.0, fall=0.1, until=0.8, variant='table'),
              'N3_03': Variant(3, 0.03, 0.3, bound=1.5, sharpen=8.0, fall=0.1, until=0.8, variant='table'),
              'T3_1': Variant(3, 0.1, 1.0, bound=1.5, sharpen=8.0, variant='table'),
              'T3_03': Variant(3, 0.03, 0.3, bound=1.5, sharpen=8.0, variant='table'),
              'T3_3': Variant(3, 0.3, 3.0, bound=1.5, sharpen=8.0, variant='table')},
    'darts': {'D1': Variant(1, 1.0, 1.0), 'D6': Variant(1, 5.0, 5.0), 'D9': Variant(6, 0.2, 0.4),
              'D10': Variant(6, 1.0, 1.0), 'D11': Variant(6, 0.02, 0.2), 'D12': Variant(6, 5.0, 5.0),
              'D13': Variant(6, 0.2, 0.4, fall=0.6), 'D14': Variant(6, 0.1, 0.2, fall=0.6),
              'M3': Variant(3, 0.2, 0.4, fall=0.1, sharpen=16.0, until=0.3),
              'M6': Variant(6, 0.2, 0.4, fall=0.1, sharpen=16.0, until=0.3),
              'K1': Variant(6, 0.2, 0.4, bound=1.5, sharpen=8.0),
              'K2': Variant(6, 0.2, 0.4, bound=1.5, sharpen=8.0, until=0.6),
              'K3': Variant(6, 0.02, 0.2, bound=1.5, sharpen=8.0),
              'K4': Variant(6, 1.0, 1.0, bound=1.5, sharpen=8.0),
              'K5': Variant(6, 1.0, 1.0, bound=1.5, sharpen=8.0, until=0.6),
              'K6': Variant(6, 0.2, 0.4, bound=0.75, sharpen=16.0),
              'K7': Variant(6, 0.2, 0.4, bound=0.75, sharpen=16.0, until=0.6),
              'K8': Variant(6, 0.2, 0.4, True, bound=1.5, sharpen=8.0),
              'V9': Variant(6, 0.2, 0.4, True), 'V10': Variant(6, 1.0, 1.0, True), 'V12': Variant(6, 5.0, 5.0, True)},
}


def by_table() -> optax.GradientTransformation:
  """Scales updates by minus the rate of the step, which is read from a table in the state."""
  def init(params):
    del params
    return {'rates': jnp.zeros(LONGEST), 'count': jnp.zeros((), jnp.int32)}

  def update(updates, state, params=None):
    del params
    rate = state['rates'][state['count']]
    return jax.tree.map(lambda x: -rate * x, updates), {**state, 'count': state['count'] + 1}

  return optax.GradientTransformation(init, update)


def with_rates(opt_state, rates, fresh=False):
  """The optimiser's state with the table `rates`; `fresh` also puts its momentum and its count back to 0."""
  *others, table = opt_state
  full = np.zeros(LONGEST, np.float32)
  full[:len(rates)] = rates
  others = jax.tree.map(np.zeros_like, others) if fresh else others
  return (*others, {**table, 'rates': full, 'count': np.int32(0) if fresh else table['count']})


class Seed:
  """The search of one seed: `theta(age)` and `searched(variant)`."""

  def __init__(self, args):
    optim.theta = lambda config, steps, per_epoch=1, clip=True: optax.chain(
        optim._before(config, clip), optax.trace(config.momentum, config.nesterov), by_table())
    optim.phi = lambda config, steps: optax.chain(optim._before(config), optax.trace(config.momentum), by_table())
    self.args, self.space = args, spaces.get(args.space)
    forms = list(dict.fromkeys(VARIANTS[args.space][name].form for name in args.variants))
    if len({form[-1] for form in forms}) > 1:
      raise UserError('searches of unlike length share no epochs of theta: run them by calls of their own')
    self.first = first = min(forms)  # of theta alone
    configs = {form: self._config(*form) for form in forms}
    loaded = data.get(configs[first].data)
    self.mesh = parallel.mesh(1, configs[first].batch_size, 1)
    self.runs = {form: search._Run(c, self.space, methods.get(c.method, self.space), loaded, self.mesh)
                 for form, c in configs.items()}
    self.plan, self.rate = self.runs[first].plan, configs[first].theta
    self.held = {form: run.batches()[0] for form, run in self.runs.items()}
    self.starts = {form: jax.device_get(run.start()) for form, run in self.runs.items()}
    self.aged, self.drawn = None, None
    with concurrent.futures.ThreadPoolExecutor() as pool:
      self.programs = dict(zip(forms, pool.map(self._compiled, forms)))

  def _config(self, bilevel, bound, sharpen, variant, sharpen_from, length):
    args, length = self.args, length or LENGTHS[self.args.space]
    changes = FORM | {'seed': args.seed, 'devices': 1, 'data.dir': args.data, 'epochs': length,
                      'pretrain.epochs': length, 'method.bilevel': bilevel, 'method.bound': bound,
                      'method.sharpen': sharpen, 'method.variant': variant, 'method.sharpen_from': sharpen_from}
    changes |= {'data.shrink': 2, 'data.pad': 2} if args.shrink else {}
    changes |= {'space.channels': args.channels} if args.channels else {}
    return config_lib.resolve(api.configure(CONFIGS[args.space], changes))

  def _compiled(self, form):
    program = self.runs[form]._steps['search']
    return program.lower(self._placed(self.starts[form]), self.held[form], self._batch(form, 0)).compile()

  def _placed(self, state):
    return jax.device_put(state, parallel.replicated(self.mesh))

  def _batch(self, form, at):
    """What step `at` works on. A run's own data would end with its plan; theta may be older here."""
    epoch, at = divmod(at, self.plan.per_epoch)
    if self.drawn is None or self.drawn[0] != (form, epoch):
      self.drawn = (form, epoch), self.runs[form].order(epoch)
    return {part: jax.device_put(rows[at], parallel.batch(self.mesh)) for part, rows in self.drawn[1].items()}

  def advance(self, state, form, first, count, note=None):
    """`state` after `count` steps on the batches from step `first` on; `note(i, metrics)` now and then."""
    state = self._placed(state)
    for i in range(count):
      state, metrics = self.programs[form](state, self.held[form], self._batch(form, first + i))
      if note and (i % EVERY == 0 or i + 1 == count):
        note(i, metrics)
      if i % 40 == 39:
        jax.block_until_ready(metrics['loss'])  # the host does not run further ahead
    return jax.device_get(state)

  def theta(self, age):
    """The state after `age` epochs of theta alone, whose rate has the search's steps to come in its schedule."""
    if self.aged is None or self.aged[0] != age:
      steps = round(age * self.plan.per_epoch)
      whole, c = steps + self.plan.search_steps, self.rate
      cosine = c.lr_end + (c.lr - c.lr_end) * 0.5 * (1 + np.cos(np.pi * np.arange(whole) / whole))
      start = self.starts[self.first]
      state = start.replace(opt_theta=with_rates(start.opt_theta, cosine), opt_phi=with_rates(start.opt_phi, ()))
      self.aged = age, self._kept(age, state, steps)
    return self.aged[1]

  def _kept(self, age, state, steps):
    size = ['shrunk'] * self.args.shrink + [f'c{self.args.channels}'] * bool(self.args.channels)
    length = self.first[-1]
    size += [f'of{age + length:g}'] * bool(length)
    name = '_'.join([self.args.space, *size, str(self.args.seed), str(age)])
    path = self.args.theta and pathlib.Path(self.args.theta, f'{name}.msgpack')
    if path and path.exists():
      return serialization.from_bytes(state, path.read_bytes())
    state = self.advance(state, self.first, 0, steps)
    if path:
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(serialization.to_bytes(state))
    return state

  def searched(self, variant):
    """(steps, losses, {cell: probabilities [times, edges, ops]}) of a search."""
    start, count, notes = self.starts[variant.form], self.plan.search_steps, []
    state = self.theta(variant.age).replace(step=np.int32(self.plan.pretrain_steps), phi=start.phi,
                                            opt_phi=with_rates(start.opt_phi, path(variant, count), fresh=True))
    self.advance(state, variant.form, round(variant.age * self.plan.per_epoch), count,
                 lambda i, metrics: notes.append((i, metrics['loss'], metrics['probs'])))
    at, losses, probs = zip(*jax.device_get(notes))
    return at, losses, {name: np.array([each[name] for each in probs]) for name in probs[0]}


def path(variant, steps):
  """The rates of phi [steps] in a variant, as optim.phi_rate has them."""
  whole = variant.until * steps
  along = np.clip(np.arange(steps) / ((1 - variant.fall) * whole), 0, 1)
  first, last = variant.rate, variant.rate_end
  rates = first * (last / first) ** along if variant.factors else first + (last - first) * along
  left = np.clip((whole - np.arange(steps)) / (variant.fall * whole), 0, 1)
  return rates * 0.5 * (1 - np.cos(np.pi * left))


def rated(args, genotype) -> dict:
  """What the table of the space says of a genotype; {} without one."""
  if args.space == 'nb201' and args.csv:
    return nasbench201.load(args.csv).query(genotype)
  return nasbench301.load(args.nasbench301).query(genotype) if args.space == 'darts' and args.nasbench301 else {}


def parse(argv) -> argparse.Namespace:
  """The checked options. Raises UserError."""
  parser = Parser(prog='python -m benchmarks.variants', description=__doc__,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('variants', nargs='+')
  parser.add_argument('--space', default='nb201', choices=VARIANTS)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--data', required=True, help='a TFDS data dir with CIFAR-10')
  parser.add_argument('--out', required=True)
  parser.add_argument('--csv', help='test accuracies of NAS-Bench-201, as config.oracle.test_csv')
  parser.add_argument('--nasbench301', help='as config.oracle.nasbench301')
  parser.add_argument('--theta', help='a folder that keeps what theta was after its epochs alone')
  parser.add_argument('--shrink', action='store_true', help='16x16 images')
  parser.add_argument('--channels', type=int, help='C; default: that of the space')
  args = parser.parse_args(argv)
  if unknown := [name for name in args.variants if name not in VARIANTS[args.space]]:
    raise UserError(f'{unknown[0]!r} is no variant for {args.space}: choose some of {", ".join(VARIANTS[args.space])}')
  return args


def main(argv) -> int:
  """Searches with every variant, in order, and prints a line for each."""
  args = parse(argv)
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  begun = time.time()
  seed = Seed(args)
  print(f'ready after {time.time() - begun:.0f} s', flush=True)
  for name in args.variants:
    begun, variant = time.time(), VARIANTS[args.space][name]
    at, losses, probs = seed.searched(variant)
    last = {cell: rows[-1] for cell, rows in probs.items()}
    genotype = seed.space.genotype(last)
    found = {'name': name, 'space': args.space, 'seed': args.seed, **variant._asdict(), 'shrink': args.shrink,
             'channels': args.channels, 'genotype': seed.space.write(genotype),
             'one_hot': outcome.one_hotness(last, seed.space), 'oracle': rated(args, genotype),
             'seconds': time.time() - begun, 'device': jax.devices()[0].device_kind}
    with (out / 'results.jsonl').open('a') as file:
      file.write(json.dumps(found) + '\n')
    np.savez_compressed(out / f'{args.space}_{name}_{args.seed}.npz', steps=at, loss=losses,
                        **{cell: rows.astype(np.float16) for cell, rows in probs.items()})
    print(f'{name} seed {args.seed}: one-hotness {found["one_hot"]:.3f}, {found["genotype"]}, '
          f'{found["seconds"]:.0f} s', flush=True)
  return 0


if __name__ == '__main__':
  run(main)
