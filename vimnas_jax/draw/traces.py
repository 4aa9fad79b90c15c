"""Probabilities of operations over the steps of a search."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vimnas_jax.draw.base import FAINT, INK, PALE, TEXT, blank, colors, heading, plain, save
from vimnas_jax.errors import UserError
from vimnas_jax.spaces.types import Space


def weights(steps: Sequence[float], probs: Mapping[str, np.ndarray], space: Space, path) -> Figure:
  """Draws how the probabilities of the ops moved, one panel per edge, as figures 6 to 9 of the VIM-NAS paper.

  Args:
    steps: the search steps at which they were recorded, [t], t > 0.
    probs: {cell: [t, edges, ops]}, each in [0, 1].
    space: the space they belong to.
    path: the file to write.

  Raises:
    UserError: if nothing was recorded, or the shapes do not fit the space or each other.
  """
  steps = np.asarray(steps)
  for name, graph in space.cells.items():
    expected = (len(steps), *graph.shape)
    if not len(steps) or np.shape(probs.get(name)) != expected:
      raise UserError(f'recorded probabilities of cell {name!r} have shape {np.shape(probs.get(name))}, expected '
                      f'{expected}, of at least one step, in space {space.name!r}')
  columns = max(min(7, math.ceil(len(graph.edges) / (2 if len(graph.edges) > 4 else 1)))
                for graph in space.cells.values())
  rows = sum(math.ceil(len(graph.edges) / columns) for graph in space.cells.values())
  ops = list(dict.fromkeys(op for graph in space.cells.values() for names in graph.ops for op in names))
  color = colors(ops)
  width = max(1.72 * columns + 0.9, 5.0)
  legend_rows = math.ceil(len(ops) / int(width / 1.4))
  foot = 0.24 * legend_rows + 0.75  # legend, name and numbers of the axis
  height = 1.5 * rows + foot + 0.1
  figure = blank(width, height)
  grid = figure.add_gridspec(rows, columns, left=0.68 / width, right=1 - 0.2 / width, top=1 - 0.32 / height,
                             bottom=foot / height, wspace=0.16, hspace=0.42)
  row, last = 0, list(space.cells)[-1]
  for name, graph in space.cells.items():
    for e in range(len(graph.edges)):
      axes = figure.add_subplot(grid[row + e // columns, e % columns])
      for o, op in enumerate(graph.ops[e]):
        axes.plot(steps, probs[name][:, e, o], color=color[op], linewidth=1.4, marker='.' if len(steps) < 2 else '')
      _panel(axes, f'{name} {graph.label(e)}', steps, left=e % columns == 0,
             lowest=name == last and e + columns >= len(graph.edges))
    row += math.ceil(len(graph.edges) / columns)
  figure.text(0.5 + 0.24 / width, (foot - 0.4) / height, 'search step', fontsize=10, **TEXT)
  figure.text(0.2 / width, 0.5 + (foot - 0.32) / 2 / height, 'probability', fontsize=10, rotation=90, **TEXT)
  figure.legend(handles=[Line2D([], [], color=color[op], linewidth=2.2, label=op) for op in ops], loc='lower center',
                ncols=math.ceil(len(ops) / legend_rows), frameon=False, fontsize=9, labelcolor=INK, handlelength=1.3,
                columnspacing=1.5, borderaxespad=0.2)
  return save(figure, path)


def first_edges(runs: Mapping[str, tuple[Sequence[float], Mapping[str, np.ndarray]]], space: Space, path) -> Figure:
  """Draws, for several runs, the probabilities of the first edge of every cell: figures 2 and 6 to 9 of the paper.

  Args:
    runs: label -> (steps [t], {cell: [t, edges, ops]}), t > 0.
    space: the space of all of them.
    path: the file to write.

  Raises:
    UserError: if there is no run, or a shape does not fit the space.
  """
  if not runs:
    raise UserError('no run to draw')
  for label, (steps, probs) in runs.items():
    for name, graph in space.cells.items():
      if not len(steps) or np.shape(probs.get(name)) != (len(steps), *graph.shape):
        raise UserError(f'{label}: recorded probabilities of cell {name!r} have shape {np.shape(probs.get(name))}, '
                        f'space {space.name!r} needs {(len(steps), *graph.shape)}, of at least one step')
  cells = list(space.cells.items())
  columns = min(len(runs), max(1, 6 // len(cells))) * len(cells)  # the cells of one run stay side by side
  rows = math.ceil(len(runs) * len(cells) / columns)
  ops = list(dict.fromkeys(op for _, graph in cells for op in graph.ops[0]))
  color, width = colors(ops), max(2.1 * columns + 0.9, 5.0)
  lines = math.ceil(len(ops) / int(width / 1.4))
  foot = 0.24 * lines + 0.75
  height = 1.8 * rows + foot + 0.1
  figure = blank(width, height)
  grid = figure.add_gridspec(rows, columns, left=0.68 / width, right=1 - 0.2 / width, top=1 - 0.32 / height,
                             bottom=foot / height, wspace=0.16, hspace=0.42)
  for place, (label, (steps, probs)) in enumerate(runs.items()):
    for c, (name, graph) in enumerate(cells):
      at = place * len(cells) + c
      axes = figure.add_subplot(grid[at // columns, at % columns])
      for o, op in enumerate(graph.ops[0]):
        axes.plot(steps, probs[name][:, 0, o], color=color[op], linewidth=1.4, marker='.' if len(steps) < 2 else '')
      _panel(axes, plain(f'{label}, {heading(name)}' if len(cells) > 1 else label), np.asarray(steps),
             left=at % columns == 0, lowest=True)
  figure.text(0.5 + 0.24 / width, (foot - 0.4) / height, 'step', fontsize=10, **TEXT)
  figure.text(0.2 / width, 0.5 + (foot - 0.32) / 2 / height, 'probability on the first edge', fontsize=10, rotation=90,
              **TEXT)
  figure.legend(handles=[Line2D([], [], color=color[op], linewidth=2.2, label=op) for op in ops], loc='lower center',
                ncols=math.ceil(len(ops) / lines), frameon=False, fontsize=9, labelcolor=INK, handlelength=1.3,
                columnspacing=1.5, borderaxespad=0.2)
  return save(figure, path)


def _panel(axes, title, steps, left, lowest):
  axes.set_gid('panel')
  axes.set_title(title, fontsize=9, color=INK, pad=3)
  axes.set_ylim(-0.03, 1.03)
  axes.set_yticks([0, 0.5, 1], ['0', '0.5', '1'] if left else [''] * 3)
  first, last = float(steps[0]), float(steps[-1])
  axes.set_xlim(first, last if last > first else first + 1)
  axes.locator_params(axis='x', nbins=3)
  axes.tick_params(labelsize=8, length=2.5, color=FAINT, labelcolor=INK, labelbottom=lowest, pad=2)
  axes.grid(True, color=PALE, linewidth=0.8)
  axes.spines[:].set_color(FAINT)
