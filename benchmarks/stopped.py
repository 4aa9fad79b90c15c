"""What searches on record would have found if phi had stood still from a part of the search on.

    python -m benchmarks.stopped --csv FILE results/recipe/bound/nb201_J3_?.npz

A search is the file that benchmarks.variants leaves of it, nb201_VARIANT_SEED.npz: phi's probabilities on the way.
Those at a part of the search are scaled up as they would have been by its end, and looked up in the table of
NAS-Bench-201. No search is run: theta's later steps, which phi no longer sees, do not matter, but the rate of phi would
have had to fall before, so that this is a lead and no result.
"""

import argparse
import pathlib

import numpy as np

from benchmarks import votes
from benchmarks.step import Parser, run
from benchmarks.variants import VARIANTS
from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.tabular import nasbench201

PARTS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)


def probabilities(path: pathlib.Path, part: float) -> np.ndarray:
  """Those of the cell where phi stands still from `part` of the search on, float64 [edges, ops]. Raises UserError."""
  variant = VARIANTS['nb201'].get('_'.join(path.stem.split('_')[1:-1]))
  if variant is None:
    raise UserError(f'{path} is no search of a variant: expected nb201_VARIANT_SEED.npz')
  try:
    found = np.load(path)
    along, rows = found['steps'] / (found['steps'][-1] + 1), found['cell'].astype(float)
  except (OSError, KeyError, ValueError, TypeError) as e:
    raise UserError(f'{path} holds no probabilities of a cell ({type(e).__name__})') from None
  at = np.abs(along - part).argmin()
  first = variant.sharpen_from
  scale = variant.sharpen ** np.clip((along[at] - first) / (1 - first), 0, 1)
  raised = np.maximum(rows[at], 1e-7) ** (variant.sharpen / scale)
  return raised / raised.sum(-1, keepdims=True)


def main(argv) -> int:
  """Prints a line for every part of the search."""
  parser = Parser(prog='python -m benchmarks.stopped', description=__doc__,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('searches', nargs='+', type=pathlib.Path)
  parser.add_argument('--csv', required=True, help='test accuracies of NAS-Bench-201, as config.oracle.test_csv')
  parser.add_argument('--out', type=pathlib.Path)
  args = parser.parse_args(argv)
  space, table = spaces.get('nb201'), nasbench201.load(args.csv)
  rows = [{'part': part} | votes.of_groups([probabilities(path, part) for path in args.searches], 1, table, space)
          for part in PARTS]
  votes.tell(rows, 'part', 'phi stands still from | searches | cells | one-hotness', args)
  return 0


if __name__ == '__main__':
  run(main)
