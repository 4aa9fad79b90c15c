"""The NAS-Bench-201 space (Dong and Yang, ICLR 2020): one cell type, 6 edges, 5 operations, 15,625 architectures.

Every edge keeps its most probable operation, `none` included.
"""

import itertools
import re
from collections.abc import Iterator, Mapping

import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.spaces.types import Cell, Genotype, Space, Stage

OPS = ('none', 'skip_connect', 'nor_conv_1x1', 'nor_conv_3x3', 'avg_pool_3x3')
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
SIZE = len(OPS) ** len(EDGES)  # architectures


def macro(cells: int, channels: int) -> tuple[Stage, ...]:
  """Stem, then three groups of `cells` cells (N in the paper) of widths C, 2C, 4C with a residual block between."""
  if cells < 1:
    raise UserError(f'config.space.cells={cells} (of a retraining config.network.cells): NAS-Bench-201 needs at least '
                    'one cell per group')
  stages = [Stage('stem', channels)]
  for group in range(3):
    if group:
      stages.append(Stage('residual', channels << group, stride=2))
    stages += [Stage('cell', channels << group, cell='cell')] * cells
  return (*stages, Stage('head', norm=True))


def decode(space: Space, probs: Mapping[str, np.ndarray]) -> Genotype:
  """The most probable op of every edge; ties go to the lower op index."""
  cell, best = space.cells['cell'], probs['cell'].argmax(1)
  return Genotype(space.name, {'cell': tuple((cell.ops[i][best[i]], *edge) for i, edge in enumerate(cell.edges))})


def write(genotype: Genotype) -> str:
  """`|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`, one group per node."""
  by_edge = {(source, target): op for op, source, target in genotype.cells['cell']}
  groups = ([f'{by_edge[source, target]}~{source}' for source in range(target)] for target in (1, 2, 3))
  return '+'.join('|' + '|'.join(group) + '|' for group in groups)


def read(text: str) -> Genotype:
  """The inverse of `write`, spaces and quotes aside. Raises UserError unless `text` is one of the 15,625 strings."""
  pairs = [(op, int(source)) for op, source in re.findall(r'(\w+)~(\d)', text)]
  ops = [op for op, _ in pairs]
  if [s for _, s in pairs] != [s for s, _ in EDGES] or not set(ops) <= set(OPS):
    raise UserError(f'not a NAS-Bench-201 architecture: {text[:120]!r}; expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2| '
                    f'with ops {", ".join(OPS)}')
  genotype = Genotype('nb201', {'cell': tuple((op, *edge) for op, edge in zip(ops, EDGES))})
  if write(genotype) != re.sub(r'\s+', '', text).strip('\'"'):
    raise UserError(f'not a NAS-Bench-201 architecture: {text[:120]!r}; its operations must stand as in '
                    f'{write(genotype)}')
  return genotype


def everything() -> Iterator[Genotype]:
  """All 15,625 genotypes, last edge fastest."""
  for ops in itertools.product(OPS, repeat=len(EDGES)):
    yield Genotype('nb201', {'cell': tuple((op, *edge) for op, edge in zip(ops, EDGES))})


def make() -> Space:
  """The NAS-Bench-201 space."""
  return Space('nb201', {'cell': Cell(1, EDGES, (OPS,) * len(EDGES), (3,))}, macro, decode, write, read,
               pool_norm=False, min_size=4)
