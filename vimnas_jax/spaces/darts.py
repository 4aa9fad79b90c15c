"""The DARTS space (Liu et al., ICLR 2019): two cell types, 14 edges, 8 operations.

Every node keeps its two strongest incoming edges. An edge is as strong as its most probable operation other than
`none`; `none` therefore weakens an edge but is never derived.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.spaces.types import Cell, Edge, Genotype, Space, Stage

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
    raise UserError(f'config.network.channels={channels}: the ImageNet network halves its width in the stem; give an '
                    'even number')
  return (Stage('stem0', channels, stride=4), Stage('stem1', channels, stride=2), *_body(cells, channels, True))


def imagenet_search(cells: int, channels: int) -> tuple[Stage, ...]:
  """Stages of the search network for ImageNet: the stems are three times as wide as the first cell (Xu et al.,
  PC-DARTS, ICLR 2020, in code), those of the evaluation network as wide.
  """
  if channels % 2:
    raise UserError(f'config.space.channels={channels}: the ImageNet network halves the width of its stem; give an '
                    'even number')
  width = 3 * channels
  return (Stage('stem0', width, stride=4), Stage('stem1', width, stride=2), *_body(cells, channels, True))


def _body(cells: int, channels: int, shrunk: bool) -> Iterator[Stage]:
  if cells < 3:
    raise UserError(f'config.space.cells={cells} (of a retraining config.network.cells): the DARTS network needs at '
                    'least 3 cells for its two reductions')
  for index in range(cells):
    reduce = index in (cells // 3, 2 * cells // 3)
    channels *= 2 if reduce else 1
    yield Stage('cell', channels, cell='reduce' if reduce else 'normal', stride=2 if reduce else 1, shrunk=shrunk,
                auxiliary=index == 2 * cells // 3)
    shrunk = reduce
  yield Stage('head')


def decode(space: Space, probs: Mapping[str, np.ndarray]) -> Genotype:
  """Two strongest edges of every node, strongest first; ties go to the lower source, then to the lower op."""
  cells = {}
  for name, cell in space.cells.items():
    allowed = np.array([[op != 'none' for op in ops] for ops in cell.ops])
    masked = np.where(allowed, probs[name], -1.0)  # none counts in the softmax, not in the choice
    falling, best = (-masked.max(1)).tolist(), masked.argmax(1)
    kept: list[Edge] = []
    for node in range(cell.inputs, cell.nodes):
      into = [i for i, (_, target) in enumerate(cell.edges) if target == node]
      kept += [(cell.ops[i][best[i]], *cell.edges[i]) for i in sorted(into, key=falling.__getitem__)[:2]]
    cells[name] = tuple(kept)
  return Genotype(space.name, cells)


def write(genotype: Genotype) -> str:
  """`Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=..., reduce_concat=...)`."""
  parts = []
  for name, edges in genotype.cells.items():
    pairs = ', '.join(f"('{op}', {source})" for op, source, _ in edges)
    parts.append(f'{name}=[{pairs}], {name}_concat=range({INPUTS}, {NODES})')
  return f'Genotype({", ".join(parts)})'


def reader(name: str) -> Callable[[str], Genotype]:
  """The inverse of `write` for a space called `name`: pairs 2i and 2i + 1 lead into node i + 2.

  It also reads what the field's programs print and keep: words before and after it, line breaks, numbers as
  `np.int64(1)`, lists for ranges, no concat, values by place.
  """

  def read(text: str) -> Genotype:
    values, cells = _arguments(text), {}
    for cell in ('normal', 'reduce'):
      pairs = _plain(values[cell]) if cell in values else ()
      if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) and [*map(type, pair)] == [str, int]
                                                 for pair in pairs):
        raise UserError(f"not a DARTS genotype ({cell}={pairs!r:.60}; expected [('op', source), ...]): {text[:60]!r}")
      if len(pairs) != 2 * (NODES - INPUTS):
        raise UserError(f'not a DARTS genotype ({len(pairs)} pairs in {cell!r}, 8 expected): {text[:60]!r}')
      concat = _plain(values[f'{cell}_concat']) if f'{cell}_concat' in values else _OUTPUT
      if concat != _OUTPUT:
        raise UserError(f'{cell}_concat={concat!r:.60}: only range({INPUTS}, {NODES}) is built here, the nodes '
                        f'that cells of DARTS put out: {text[:60]!r}')
      cells[cell] = tuple((op, source, INPUTS + i // 2) for i, (op, source) in enumerate(pairs))
    return Genotype(name, cells)

  return read


_OUTPUT = tuple(range(INPUTS, NODES))
_FIELDS = ('normal', 'normal_concat', 'reduce', 'reduce_concat')
_LONGEST = 20_000  # characters: a genotype has 700


def _arguments(text: str) -> dict[str | None, ast.expr]:
  """{field: node of the syntax tree} of the one `Genotype(...)` in `text`."""
  calls = list(re.finditer(r'\bGenotype\s*\(', text))
  if len(calls) != 1:
    raise UserError(f'{len(calls)} genotypes Genotype(...) are in {text[:60]!r}; give one')
  start, depth, end = calls[0].start(), 0, calls[0].end()
  for end in range(calls[0].end() - 1, min(len(text), start + _LONGEST)):  # to where its bracket closes
    depth += (text[end] in '([') - (text[end] in ')]')
    if not depth:
      break
  try:
    call = ast.parse(text[start:end + 1], mode='eval').body
    if not isinstance(call, ast.Call) or depth or len(call.args) > len(_FIELDS):
      raise ValueError
    if {k.arg for k in call.keywords} - set(_FIELDS):
      raise ValueError
  except (SyntaxError, ValueError, AttributeError, RecursionError, MemoryError):
    raise UserError(f'not a DARTS genotype (it cannot be read to its end): {text[start:start + 60]!r}; expected '
                    'Genotype(normal=[...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))'
                    ) from None
  return dict(zip(_FIELDS, call.args)) | {k.arg: k.value for k in call.keywords}


def _plain(node: ast.AST) -> Any:
  """The value of a list, range, number or word; nothing is executed."""
  if isinstance(node, ast.List | ast.Tuple):
    return tuple(map(_plain, node.elts))
  if isinstance(node, ast.Call) and not node.keywords:
    called, args = ast.unparse(node.func).rpartition('.')[2], tuple(map(_plain, node.args))
    if called == 'range' and len(args) in (1, 2) and all(type(a) is int and 0 <= a < 99 for a in args):
      return tuple(range(*args))
    if re.fullmatch(r'u?int\d*', called) and len(args) == 1 and type(args[0]) is int:
      return args[0]
    if called in ('list', 'tuple', 'array') and len(args) == 1 and isinstance(args[0], tuple):
      return args[0]
  return node.value if isinstance(node, ast.Constant) else None


def make(name: str = 'darts', normal: tuple[tuple[str, ...], ...] | None = None,
         reduce: tuple[tuple[str, ...], ...] | None = None) -> Space:
  """The DARTS graph with one list of ops per edge and cell type; by default all eight ops everywhere."""
  ops = {'normal': normal or (OPS,) * len(EDGES), 'reduce': reduce or (OPS,) * len(EDGES)}
  cells = {cell: Cell(INPUTS, EDGES, names, tuple(range(INPUTS, NODES)), preprocess=True)
           for cell, names in ops.items()}
  return Space(name, cells, macro, decode, write, reader(name), pool_norm=True, min_size=4,
               imagenet_macro=imagenet_macro, imagenet_search=imagenet_search, kept=2)
