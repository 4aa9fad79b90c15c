"""What the mean of the distributions of several searches is worth: every group of searches that are on record.

    python -m benchmarks.votes --csv FILE results/recipe/h200/nb201_E3_20?.npz

A search is the file that benchmarks.variants leaves of it, phi's probabilities on the way, or a result.json. For
groups of 1, 2, ... it prints how good the cell of their mean is by the table, over all groups of that size, and writes
the same with --out. No search is run. Groups share members, so their figures are no independent draws.
"""

import argparse
import itertools
import json
import pathlib
from typing import Any

import numpy as np

from benchmarks.step import Parser, run
from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.tabular import nasbench201

SETS = ('cifar10', 'cifar100', 'ImageNet16-120')
_MOST = 20000  # groups of a size


def probabilities(path) -> np.ndarray:
  """Those of the cell at the end of the search, float64 [edges, ops]. Raises UserError."""
  try:
    if path.suffix == '.json':
      return np.array(json.loads(path.read_text())['probs']['cell'], float)
    return np.load(path)['cell'][-1].astype(float)
  except (OSError, KeyError, ValueError, TypeError) as e:
    raise UserError(f'{path} holds no probabilities of a cell ({type(e).__name__})') from None


def of_groups(members, size, table, space) -> dict[str, Any]:
  """Figures of the cells of all groups of `size` of `members`, each [edges, ops]: means, the worst, and how decided."""
  rows, cells = [], set()
  for group in itertools.islice(itertools.combinations(members, size), _MOST):
    mean = np.mean(group, 0)
    genotype = space.genotype({'cell': mean})
    cells.add(space.write(genotype))
    found = table.query(genotype)
    rows.append([mean.max(-1).mean(), found['cifar10']['valid'], *(found[name]['test'] for name in SETS)])
  rows = np.array(rows)
  return {'size': size, 'groups': len(rows), 'cells': len(cells), 'one_hot': rows[:, 0].mean().round(3),
          'valid': rows[:, 1].mean().round(2), 'worst_valid': rows[:, 1].min().round(2),
          'test': rows[:, 2:].mean(0).round(2).tolist(), 'worst_test': rows[:, 2:].min(0).round(2).tolist()}


def tell(rows, first: str, heads: str, args):
  """Prints a table of `rows`, as `of_groups` gives them, the field `first` before the others, and writes args.out."""
  print(f'| {heads} | valid | worst | test, mean | worst |')
  print('|' + '---|' * 8)
  for row in rows:
    test, worst = (' / '.join(f'{x:.2f}' for x in row[name]) for name in ('test', 'worst_test'))
    print(f'| {row[first]} | {row["groups"]} | {row["cells"]} | {row["one_hot"]:.3f} | {row["valid"]:.2f} | '
          f'{row["worst_valid"]:.2f} | {test} | {worst} |')
  if args.out:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({'searches': [path.name for path in args.searches], 'rows': rows}, indent=1) + '\n')


def parse(argv) -> argparse.Namespace:
  """The checked options. Raises UserError."""
  parser = Parser(prog='python -m benchmarks.votes', description=__doc__,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('searches', nargs='+', type=pathlib.Path)
  parser.add_argument('--csv', required=True, help='test accuracies of NAS-Bench-201, as config.oracle.test_csv')
  parser.add_argument('--most', type=int, default=6, help='the largest group')
  parser.add_argument('--out', type=pathlib.Path)
  return parser.parse_args(argv)


def main(argv) -> int:
  """Prints a line for every size of group."""
  args = parse(argv)
  space, table = spaces.get('nb201'), nasbench201.load(args.csv)
  members = [probabilities(path) for path in args.searches]
  rows = [of_groups(members, size, table, space) for size in range(1, min(args.most, len(members)) + 1)]
  tell(rows, 'size', 'searches a group | groups | cells | one-hotness of the mean', args)
  return 0


if __name__ == '__main__':
  run(main)
