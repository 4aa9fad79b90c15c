"""Search spaces of your own: a Python file with a function `make() -> Space`, chosen by config.space.name=FILE.py.

`space` puts one together from cells and a macro-architecture; examples/two_nodes.py is a whole file, and
examples/own_operation.py one with an operation of its own.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from vimnas_jax import files, userfile
from vimnas_jax.errors import UserError
from vimnas_jax.spaces.types import Cell, Genotype, Space, Stage

STRIDES = {'stem': (1,), 'cell': (1, 2), 'residual': (2,), 'head': (1,)}  # of every kind of stage
KINDS = tuple(STRIDES)


def space(cells: Mapping[str, Cell], macro: Callable[[int, int], tuple[Stage, ...]], pool_norm: bool = False,
          operations: Mapping[str, Any] | None = None) -> Space:
  """A space in which every edge keeps its most probable operation; genotypes are written as JSON.

  Args:
    cells: cell types by name.
    macro: `macro(cells, channels)` gives the stages of the network, from 'stem' to 'head', where `cells` and `channels`
      are config.space.cells and config.space.channels.
    pool_norm: whether BatchNorm follows pools while searching.
    operations: {name: `networks.operation.Op`} of operations of your own, which the cells may then have.
  """
  return Space('custom', cells, macro, _decode, Genotype.to_json, Genotype.from_json, pool_norm, min_size=1,
               own_ops=dict(operations or {}))


def _decode(of: Space, probs: Mapping[str, np.ndarray]) -> Genotype:
  return Genotype(of.name, {
      name: tuple((cell.ops[e][probs[name][e].argmax()], *edge) for e, edge in enumerate(cell.edges))
      for name, cell in of.cells.items()})


def load(path: str) -> Space:
  """The space that the file's `make()` gives, called by its path. Raises UserError, in one line, if it is unfit."""
  where = f'config.space.name={path!r}'
  module = userfile.run(path, where)
  if not hasattr(module, 'make'):
    raise UserError(f'{where}: it has no function make(), which gives the Space: see examples/two_nodes.py')
  with userfile.Told(path, where, 'make()'):
    made = module.make()
  if not isinstance(made, Space):
    raise UserError(f'{where}: make() gives {type(made).__name__}, not a Space: see vimnas_jax/spaces/custom.py')
  return dataclasses.replace(made, name=path)


def trusted(path: str, trust: Iterable[str], where: str) -> str:
  """The file to execute where a file of data, `where`, names the Python file `path`: one of those that the user trusts.

  It is the one with the same bytes; or, where `path` is gone, the only one with its name. Raises UserError if there is
  none: who opens a run folder or an export from elsewhere has not asked for its code to run.
  """
  file = pathlib.Path(path).expanduser()
  known: dict[bytes, str] = {}
  for own in trust:
    if own.endswith('.py') and pathlib.Path(own).expanduser().is_file():
      known.setdefault(files.read_bytes(pathlib.Path(own).expanduser()), own)
  shown = files.printable(path)
  try:
    there = file.is_file()
  except (OSError, ValueError):  # no path at all
    there = False
  if not there:
    alike = [own for own in known.values() if pathlib.Path(own).name == file.name]
    if len(alike) == 1:
      return alike[0]
    raise UserError(f'{where} needs the Python file {shown!r}, which is not there: give yours with --config.trust=PATH '
                    '(it is executed), of that name')
  if (same := known.get(files.read_bytes(file))) is None:
    raise UserError(f'{where} needs {shown!r}, which is Python code and would be executed: read it, and if you trust '
                    f'it give --config.trust={shown}')
  return same


def stages(of: Space, cells: int, channels: int) -> tuple[Stage, ...]:
  """What the space's macro(cells, channels) gives. Raises UserError, in one line, where it fails."""
  try:
    return tuple(of.macro(cells, channels))
  except UserError:
    raise
  except Exception as e:  # whatever the file does
    raise UserError(f'space {of.name!r}: macro({cells}, {channels}) fails ({userfile.reason(e)}): mend it') from None


def fingerprint(of: Space, cells: int, channels: int) -> str:
  """SHA-256 of all that makes the networks: cell types and stages. Comments and names in the file do not count.

  Of a space with operations of its own also of the code of its file, without comments and docstrings.
  """
  told = repr((sorted(of.cells.items()), stages(of, cells, channels), of.pool_norm))
  if of.own_ops:
    told += userfile.fingerprint(of.name)
  return hashlib.sha256(told.encode()).hexdigest()


def check(of: Space, cells: int, channels: int, ops: Iterable[str]) -> None:
  """Raises UserError, naming the place, if the networks of a space of one's own cannot be built.

  Args:
    of: the space.
    cells: as for its macro.
    channels: as for its macro.
    ops: the operations there are, by name.
  """
  where = f'space {of.name!r}'
  for name, cell in of.cells.items():
    known = (*of.own_ops, *ops)
    if unknown := sorted({op for names in cell.ops for op in names} - set(known)):
      raise UserError(f'{where}, cell {name!r}: there is no operation {unknown[0]!r}; choose from {", ".join(known)}')
    if cell.inputs > 2 or (cell.inputs == 2) != cell.preprocess:
      raise UserError(f'{where}, cell {name!r}: a cell has one input, or two with preprocess=True')
    if not set(cell.output) <= set(range(cell.inputs, cell.nodes)) or not cell.output:
      raise UserError(f'{where}, cell {name!r}: output={cell.output} must name nodes from {cell.inputs} to '
                      f'{cell.nodes - 1}')
    if wrong := [edge for edge in cell.edges if edge[0] < 0 or edge[1] < cell.inputs]:
      raise UserError(f'{where}, cell {name!r}: edge {wrong[0]} must lead from a node from 0 on to one from '
                      f'{cell.inputs} on')
    if len(set(cell.edges)) < len(cell.edges):
      raise UserError(f'{where}, cell {name!r}: an edge stands twice in {cell.edges}; give each once, with all its ops')
    if (ordered := sorted(cell.edges, key=lambda edge: edge[1])) != list(cell.edges):
      raise UserError(f'{where}, cell {name!r}: the edges {cell.edges} must stand node by node, by rising target, and '
                      f'their ops with them: {tuple(ordered)}')
    for (source, target), names in zip(cell.edges, cell.ops):
      if len(set(names)) < len(names):
        raise UserError(f'{where}, cell {name!r}: edge {source}->{target} has an operation twice: {", ".join(names)}; '
                        'give each once')
    reached = {target for _, target in cell.edges}
    if lonely := sorted(set(range(cell.inputs, cell.nodes)) - reached):
      raise UserError(f'{where}, cell {name!r}: no edge leads to node {lonely[0]}')
  built = stages(of, cells, channels)
  kinds = [stage.kind for stage in built]
  if not kinds or kinds[0] != 'stem' or kinds[-1] != 'head' or not set(kinds[1:-1]) <= set(KINDS[1:3]):
    raise UserError(f'{where}: the stages of macro({cells}, {channels}) are {kinds}; they begin with stem, end with '
                    'head and have cell and residual between')
  if unused := sorted(set(of.cells) - {stage.cell for stage in built if stage.kind == 'cell'}):
    raise UserError(f'{where}: no stage of macro({cells}, {channels}) is a cell {unused[0]!r}: use it, or leave it out')
  for i, stage in enumerate(built):
    if stage.stride not in STRIDES[stage.kind]:
      raise UserError(f'{where}: stage {i}, a {stage.kind}, has stride={stage.stride}; it can have '
                      f'{" or ".join(map(str, STRIDES[stage.kind]))} alone')
    if stage.channels < 1 and stage.kind != 'head':
      raise UserError(f'{where}: stage {i}, a {stage.kind}, has channels={stage.channels}; give at least 1')
  width, halved = built[0].channels, False
  for i, stage in enumerate(built[1:-1], 1):
    before, halved = halved, stage.stride == 2
    if stage.kind == 'residual':
      width, halved = stage.channels, False  # both inputs of the next cell are what it gives
      continue
    if stage.cell not in of.cells:
      raise UserError(f'{where}: stage {i} is a cell {stage.cell!r}; there are {", ".join(of.cells)}')
    cell = of.cells[stage.cell]
    if not cell.preprocess and stage.channels != width:
      raise UserError(f'{where}: stage {i} is a cell of {stage.channels} channels after {width}: put a residual stage '
                      'between, or use preprocess=True')
    if cell.preprocess and stage.shrunk != before:
      raise UserError(f'{where}: stage {i}, a cell of two inputs, needs shrunk={before}: the cell before it '
                      f'{"has" if before else "does not have"} stride 2')
    halving = [what for what, there in (('shrunk=True', cell.preprocess and stage.shrunk),
                                        ('a skip_connect of stride 2', cell.skips and stage.stride == 2)) if there]
    if stage.channels % 2 and halving:
      raise UserError(f'{where}: stage {i}, a cell of {stage.channels} channels, has {halving[0]}, which is two '
                      'convolutions of half the width each: give it an even number of channels')
    width = stage.channels * len(cell.output)
