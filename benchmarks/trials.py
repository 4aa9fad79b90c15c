"""What config.finalists would have taken at the end of searches of NAS-Bench-201 that are on record.

    python -m benchmarks.trials --data DIR --csv FILE --out OUT results/recipe/still/nb201_L3_22?.npz
    python -m benchmarks.trials --data DIR --csv FILE --out OUT --part 0/2 FILES

A search is the file that benchmarks.variants leaves of it: phi's probabilities on the way. Its finalists are the most
probable cells by the last of them, as in vimnas_jax/verbs/finalists.py. Every cell that is a finalist of any of the
searches is trained once, in a folder of OUT, and how its accuracy on the validation half ranks the cells is compared
with the table of NAS-Bench-201, which trained them for 200 epochs. What lies in OUT is not trained again, be it of
other searches. `--part 0/2` trains every second cell, so that two processes can share the work; the last one to end, or
the command without it, tells the whole and writes OUT/trials.json.
"""

import argparse
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import votes
from benchmarks.step import Parser, run
from vimnas_jax import api, cpu, data, spaces
from vimnas_jax import config as config_lib
from vimnas_jax.errors import UserError
from vimnas_jax.networks import genotypes
from vimnas_jax.runs import metrics, parallel, signals
from vimnas_jax.tabular import nasbench201
from vimnas_jax.verbs import finalists


class Search(NamedTuple):
  """What verbs/finalists.py asks of a search."""

  config: Any
  loaded: data.Data
  train: Any
  valid: Any
  mesh: Any
  damaged: None = None
  constraint: None = None


def parse(argv) -> argparse.Namespace:
  """The checked options. Raises UserError."""
  parser = Parser(prog='python -m benchmarks.trials', description=__doc__,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('searches', nargs='+', type=pathlib.Path)
  parser.add_argument('--data', required=True, help='a TFDS data dir with CIFAR-10')
  parser.add_argument('--csv', required=True, help='test accuracies of NAS-Bench-201, as config.oracle.test_csv')
  parser.add_argument('--out', required=True, type=pathlib.Path)
  parser.add_argument('--finalists', type=int, default=8)
  parser.add_argument('--epochs', type=float, default=4.0)
  parser.add_argument('--cells', type=int, default=5, help='N')
  parser.add_argument('--margin', type=float, default=0.0, help='as config.finalist_margin')
  parser.add_argument('--shrink', action='store_true', help='16x16 images')
  parser.add_argument('--part', default='0/1')
  args = parser.parse_args(argv)
  first, _, count = args.part.partition('/')
  if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
    raise UserError(f'--part={args.part}: give I/N, I from 0 and below N')
  args.part = int(first), int(count)
  return args


def leading(args, space) -> dict[str, list]:
  """{name of a search: its finalists}."""
  found = {}
  for path in args.searches:
    if not path.stem.rpartition('_')[2].isdigit():
      raise UserError(f'{path} is no search of a variant: expected nb201_VARIANT_SEED.npz')
    probs = {'cell': votes.probabilities(path)}
    found[path.name] = finalists.leading(space, probs, space.genotype(probs), args.finalists)
  return found


def _config(args):
  changes = {'data.dir': args.data, 'space.cells': args.cells, 'finalists': 1, 'finalist_epochs': args.epochs}
  if args.shrink:
    changes |= {'data.shrink': 2, 'data.pad': 2}
  return config_lib.resolve(api.configure('nb201_c10', changes, seed=0))


def trained(args, cells) -> dict[str, dict]:
  """{cell: its row} of the finalists in this process's part; all that lie in OUT already are there too."""
  args.out.mkdir(parents=True, exist_ok=True)
  index, count = args.part
  config = _config(args)
  loaded = data.get(config.data)
  search = Search(config, loaded, *data.halves(loaded, config.train_portion), parallel.mesh(1, config.batch_size))
  rows = _rows(args.out)
  with signals.Stop() as stop:
    for i, (cell, genotype) in enumerate(cells.items()):
      place = args.out / f'cell_{genotypes.fingerprint(genotype)}'
      if i % count == index and cell not in rows and finalists.chosen(
          search, [genotype], place, lambda _: {}, metrics.Console(), stop) is None:
        raise KeyboardInterrupt
  return _rows(args.out)


def _rows(out):
  rows = [json.loads(path.read_text()) for path in out.glob('cell_*/finalists/1/trained.json')]
  return {row['genotype']: row for row in rows}


def main(argv) -> int:
  """Trains what is still to be trained, and tells what the trials say once all are there."""
  args = parse(argv)
  space, table = spaces.get('nb201'), nasbench201.load(args.csv)
  chosen = leading(args, space)
  cells = dict(sorted({space.write(one): one for each in chosen.values() for one in each}.items()))
  api.compile_cache()
  cpu.run_here()
  rows = trained(args, cells)
  if left := [cell for cell in cells if cell not in rows]:
    print(f'{len(left)} of {len(cells)} cells are still to be trained')
    return 0
  tell(args, chosen, rows, cells, table, space)
  return 0


def tell(args, chosen, rows, cells, table, space):
  """Prints what each search would have taken, and writes all."""
  def figures(genotype):
    found = table.query(genotype)
    return [found['cifar10']['valid'], *(found[name]['test'] for name in votes.SETS)]

  short = np.array([rows[cell]['valid_top1'] for cell in cells])
  whole = np.array([figures(one)[0] for one in cells.values()])
  above = np.sign(short[:, None] - short) * np.sign(whole[:, None] - whole)
  tau = float(above.sum() / (len(cells) * (len(cells) - 1)))
  print(f"{len(cells)} cells, Kendall's tau between {args.epochs:g} epochs and the table's validation: {tau:.2f}")
  print('| search | read off | taken | the best of them |\n|---|---|---|---|')
  said = []
  for name, lot in chosen.items():
    taken = lot[finalists.taken([rows[space.write(one)]['valid_top1'] for one in lot], args.margin)]
    best = max(lot, key=lambda one: figures(one)[0])
    said.append({'search': name, **{word: {'genotype': space.write(one), 'figures': np.round(figures(one), 2).tolist()}
                                    for word, one in (('read_off', lot[0]), ('taken', taken), ('best', best))}})
    print(f'| {name} | ' + ' | '.join(' / '.join(f'{x:.2f}' for x in said[-1][word]['figures'])
                                      for word in ('read_off', 'taken', 'best')) + ' |')
  means = {word: np.mean([row[word]['figures'] for row in said], 0).round(2).tolist()
           for word in ('read_off', 'taken', 'best')}
  print('| mean | ' + ' | '.join(' / '.join(f'{x:.2f}' for x in means[word]) for word in means) + ' |')
  (args.out / 'trials.json').write_text(json.dumps({
      'finalists': args.finalists, 'margin': args.margin, 'epochs': args.epochs,
      'cells': args.cells, 'shrink': args.shrink, 'tau': tau,
      'device': jax.devices()[0].device_kind, 'searches': said, 'means': means,
      'trials': [{**rows[cell], 'valid': round(float(v), 2)} for cell, v in zip(cells, whole, strict=True)]},
      indent=1) + '\n')


if __name__ == '__main__':
  run(main)
