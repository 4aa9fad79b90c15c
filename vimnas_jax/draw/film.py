"""The architecture deciding, as a short film: sixty pictures of matplotlib would take a minute, Pillow a second."""

import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vimnas_jax import files
from vimnas_jax.draw import palette
from vimnas_jax.draw.base import heading
from vimnas_jax.draw.frames import Board, Group, Panel
from vimnas_jax.draw.svg import thinned
from vimnas_jax.errors import UserError
from vimnas_jax.spaces.topology import OUTPUT
from vimnas_jax.spaces.types import Cell, Genotype, Space

FRAMES, PANELS = 60, 60  # at most
_FIRST, _LAST, _WHOLE, _SLOWEST = 600, 2500, 6000, 600  # milliseconds: first and last frame; all; one, at most


def film(steps: Sequence[int], probs: Mapping[str, np.ndarray], genotypes: Sequence[Genotype], one_hot: Sequence[float],
         space: Space, path, title: str = '') -> int:
  """Writes a GIF of the probabilities of all operations on every edge over the steps of a search.

  Args:
    steps: the search steps at which they were recorded, [t], t > 0.
    probs: {cell: [t, edges, ops]}, and of a searched graph {choice: [t, 1, candidates]} as far as they were recorded,
      each in [0, 1].
    genotypes: the architecture at each of them.
    one_hot: its one-hotness at each of them.
    space: the space they belong to.
    path: the file to write.
    title: what was searched, with which method, on what.

  Returns:
    The number of frames, at most FRAMES; of a longer record so many, evenly.

  Raises:
    UserError: if nothing was recorded, or the shapes do not fit the space or each other.
  """
  for name, cell in space.cells.items():
    expected = (len(steps), *cell.shape)
    if not len(steps) or np.shape(probs.get(name)) != expected or not len(genotypes) == len(one_hot) == len(steps):
      raise UserError(f'recorded probabilities of cell {name!r} have shape {np.shape(probs.get(name))}, with '
                      f'{len(genotypes)} architectures and {len(one_hot)} values of one-hotness; expected {expected}, '
                      f'of at least one step, in space {space.name!r}')
  at = thinned(len(steps), FRAMES)
  shown = [genotypes[i] for i in at]
  groups = [Group(heading(name) if len(space.cells) > 1 else '', _rows(cell),
                  _edges(space, name, probs[name][at], shown)) for name, cell in space.cells.items()]
  choices = {name: np.asarray(probs[name])[at, 0] for name, count in space.choices.items()
             if np.shape(probs.get(name)) == (len(steps), 1, count)}
  if choices:
    groups = [groups[0]._replace(name='what the blocks run'),
              Group('where the nodes take their inputs from', [list(range(len(choices)))],
                    _graph(space, choices, shown))]
  told = 'Bars: how probable each operation of ' + ('a block' if space.topology else 'an edge') + (
      ' is. Bold: what the architecture has at this step.') + (
          ' Pale: not in it.' if space.kept or space.topology else '')
  left = PANELS
  for i, group in enumerate(groups):
    groups[i] = group._replace(rows=[[p for p in row if p < left] for row in group.rows])
    left -= min(left, len(group.panels))
  missing = sum(len(group.panels) for group in groups) - sum(len(row) for group in groups for row in group.rows)
  if missing:
    told = f'{missing:,} more edges are in arch.jsonl alone. {told}'
  graph = space.cells[next(iter(space.cells))] if len(space.cells) == 1 and not space.topology else None
  board = Board(groups, title or f'Search in {space.name}', told, graph)
  moments = [steps[i] for i in at], [float(one_hot[i]) for i in at]
  frames = [board.frame(f, *moments) for f in range(len(at))]
  pace = max(60, min(_SLOWEST, _WHOLE // len(frames)))
  durations = [_FIRST, *[pace] * (len(frames) - 2), _LAST] if len(frames) > 1 else [_LAST]
  content = io.BytesIO()
  frames[0].save(content, 'GIF', save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  files.write(path, content.getvalue())
  return len(frames)


def _rows(cell: Cell) -> list[list[int]]:
  """Edges as they are laid out: those into one node in one row; in the order of a text where that does not fit."""
  into: dict[int, list[int]] = {}
  for e, (_, target) in enumerate(cell.edges):
    into.setdefault(target, []).append(e)
  return [list(range(len(cell.edges)))] if cell.rows else list(into.values())


def _edges(space: Space, name: str, values, genotypes: Sequence[Genotype]) -> list[Panel]:
  """A panel for every edge of a cell, or block of a searched graph."""
  cell, panels = space.cells[name], []
  places = palette.slots(op for each in space.cells.values() for ops in each.ops for op in ops)
  for e, ops in enumerate(cell.ops):
    names = [palette.short(op) for op in ops]
    kept = [{ops.index(op) for op, source, target in genotype.cells[name] if op in ops and
             (target == e + 1 if cell.rows else (source, target) == cell.edges[e])} for genotype in genotypes]
    panels.append(Panel(cell.label(e).replace('->', '→'), names, [places[op] for op in ops], values[:, e],
                        [' + '.join(names[o] for o in sorted(taken)) or _absent(cell) for taken in kept], kept))
  return panels


def _absent(cell: Cell) -> str:
  return 'no way out' if cell.rows else 'not kept'


def _graph(space: Space, choices: Mapping[str, np.ndarray], genotypes: Sequence[Genotype]) -> list[Panel]:
  """A panel for every node that chooses its inputs."""
  topology, panels, absent = space.topology, [], _absent(space.cells['cell'])
  assert topology is not None
  for node in range(1, topology.blocks + 2):
    if (name := topology.row(node)) in choices:
      kept = [{source for _, source, target in genotype.cells['cell'] if target == node} for genotype in genotypes]
      panels.append(Panel('output' if name == OUTPUT else f'block {node}',
                          ['input', *(f'block {source}' for source in range(1, node))], None, choices[name],
                          [f'{len(sources)} of {node}' if sources else absent for sources in kept], kept))
  return panels
