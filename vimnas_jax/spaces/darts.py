"""The DARTS space (Liu et al., ICLR 2019): two cell types, 14 edges, 8 operations.

Every node keeps its two strongest incoming edges. An edge is as strong as its most probable operation other than
`none`; `none` therefore weakens an edge but is never derived.
"""

import re

import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.spaces.types import Cell, Genotype, Space, Stage

OPS = ('none', 'max_pool_3x3', 'avg_pool_3x3', 'skip_connect', 'sep_conv_3x3', 'sep_conv_5x5', 'dil_conv_3x3',
       'dil_conv_5x5')
INPUTS, NODES = 2, 6
EDGES = tuple((source, target) for target in range(INPUTS, NODES) for source in range(target))


def macro(cells: int, channels: int) -> tuple[Stage, ...]:
  """Stages of the CIFAR networks: reductions, which double the width, at one and two thirds of `cells`."""
  return (Stage('stem', 3 * channels), *_body(cells, channels, False))


def imagenet_macro(cells: int, channels: int) -> tuple[Stage, ...]:
  """Stages of the evaluation network for ImageNet: two stems of width `channels` shrink images eightfold before the
  first cell, whose older input is twice as large as its newer one.
  """
  if channels % 2:
    raise UserError(f'channels={channels}: the ImageNet network halves its width in the stem; give an even number')
  return (Stage('stem0', channels, stride=4), Stage('stem1', channels, stride=2), *_body(cells, channels, True))


def _body(cells, channels, shrunk):
  if cells < 3:
    raise UserError(f'config.space.cells={cells}: the DARTS network needs at least 3 cells for its two reductions')
  for index in range(cells):
    reduce = index in (cells // 3, 2 * cells // 3)
    channels *= 2 if reduce else 1
    yield Stage('cell', channels, cell='reduce' if reduce else 'normal', stride=2 if reduce else 1, shrunk=shrunk,
                auxiliary=index == 2 * cells // 3)
    shrunk = reduce
  yield Stage('head')


def decode(space: Space, probs) -> Genotype:
  """Two strongest edges of every node, strongest first; ties go to the lower source, then to the lower op."""
  cells = {}
  for name, cell in space.cells.items():
    allowed = np.array([[op != 'none' for op in ops] for ops in cell.ops])
    masked = np.where(allowed, probs[name], -1.0)  # none counts in the softmax, not in the choice
    strength, best = masked.max(1), masked.argmax(1)
    kept = []
    for node in range(cell.inputs, cell.nodes):
      into = [i for i, (_, target) in enumerate(cell.edges) if target == node]
      kept += [(cell.ops[i][best[i]], *cell.edges[i]) for i in sorted(into, key=lambda i, s=strength: -s[i])[:2]]
    cells[name] = tuple(kept)
  return Genotype(space.name, cells)


def write(genotype: Genotype) -> str:
  """`Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=..., reduce_concat=...)`."""
  parts = []
  for name, edges in genotype.cells.items():
    pairs = ', '.join(f"('{op}', {source})" for op, source, _ in edges)
    parts.append(f'{name}=[{pairs}], {name}_concat=range({INPUTS}, {NODES})')
  return f'Genotype({", ".join(parts)})'


def reader(name: str):
  """The inverse of `write` for a space called `name`: pairs 2i and 2i + 1 lead into node i + 2."""

  def read(text: str) -> Genotype:
    cells = {}
    for cell in ('normal', 'reduce'):
      found = re.search(rf'\b{cell}\s*=\s*\[(.*?)\]', text, re.S)
      pairs = re.findall(r"\(\s*['\"](\w+)['\"]\s*,\s*(\d+)\s*\)", found.group(1)) if found else []
      if len(pairs) != 2 * (NODES - INPUTS):
        raise UserError(f'not a DARTS genotype ({len(pairs)} pairs in {cell!r}, 8 expected): {text[:60]!r}')
      cells[cell] = tuple((op, int(source), INPUTS + i // 2) for i, (op, source) in enumerate(pairs))
    return Genotype(name, cells)

  return read


def make(name: str = 'darts', normal=None, reduce=None) -> Space:
  """The DARTS graph with one list of ops per edge and cell type; by default all eight ops everywhere."""
  ops = {'normal': normal or (OPS,) * len(EDGES), 'reduce': reduce or (OPS,) * len(EDGES)}
  cells = {cell: Cell(INPUTS, EDGES, names, tuple(range(INPUTS, NODES)), preprocess=True)
           for cell, names in ops.items()}
  return Space(name, cells, macro, decode, write, reader(name), pool_norm=True, min_size=4,
               imagenet_macro=imagenet_macro)
