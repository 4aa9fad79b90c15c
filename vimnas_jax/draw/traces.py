"""Probabilities of operations over the steps of a search."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vimnas_jax.draw import palette
from vimnas_jax.draw.base import FAINT, INK, PALE, QUIET, TEXT, apart, blank, distinct, heading, pens, plain, save
from vimnas_jax.errors import UserError
from vimnas_jax.spaces.types import Space

_WIDE, _NAME = 1.6, 0.115  # inches: a panel; between two names of lines
_FEW, _RISEN, _NAMES = 5, 0.25, 9  # of so few lines all have names; else those that rose so high; at most
_TITLE = 29  # letters above a panel at most
_LOW, _HIGH = -0.03, 1.03  # ends of an axis of probabilities

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
  columns = max(min(5, math.ceil(len(graph.edges) / (2 if len(graph.edges) > 4 else 1)))
                for graph in space.cells.values())
  rows = sum(math.ceil(len(graph.edges) / columns) for graph in space.cells.values())
  ops = list(dict.fromkeys(op for graph in space.cells.values() for names in graph.ops for op in names))
  pen = pens(ops)
  room, tall = 0.22 + 0.068 * max(8, *(len(palette.short(op)) for op in ops)), 1.2  # inches: beside a panel; of it
  width, height = max(columns * (_WIDE + room) + 0.7, 4.0), rows * (tall + 0.42) + 0.5
  figure = blank(width, height)
  row, last = 0, list(space.cells)[-1]
  for name, graph in space.cells.items():
    for e, names in enumerate(graph.ops):
      line, column = row + e // columns, e % columns
      low = line * (tall + 0.42) + 0.27 + tall
      axes = figure.add_axes(((0.65 + column * (_WIDE + room)) / width, 1 - low / height, _WIDE / width, tall / height))
      for o, op in enumerate(names):
        axes.plot(steps, probs[name][:, e, o], marker='.' if len(steps) < 2 else '', gid='line', **pen[op])
      where = graph.label(e).replace('->', '→')
      _panel(axes, where if graph.rows else f'{name if len(space.cells) > 1 else "edge"} {where}', steps,
             left=column == 0, lowest=name == last and e + columns >= len(graph.edges))
      _named(axes, names, probs[name][:, e], pen, tall)
    row += math.ceil(len(graph.edges) / columns)
  figure.text(0.5, 0.16 / height, 'search step', fontsize=10, **TEXT)
  figure.text(0.17 / width, 0.5, 'probability', fontsize=10, rotation=90, **TEXT)
  return save(figure, path)


def _named(axes, ops, values, pen, tall):
  """Names the lines where they end, by a stroke in the colour of each; of many lines those that ever mattered."""
  values = np.nan_to_num(np.asarray(values, float))
  ends = values[-1]
  most = values[len(values) // 10:].max(0)  # what phi starts with is chance
  shown = [o for o in range(len(ops)) if len(ops) <= _FEW or most[o] >= _RISEN or o == ends.argmax()]
  shown = sorted(shown, key=lambda o: -ends[o])[:_NAMES]
  rest = [o for o in range(len(ops)) if o not in shown]
  labels = [(ends[o], plain(palette.short(ops[o])), pen[ops[o]]['color']) for o in shown]
  if rest:
    labels.append((ends[rest].mean(), f'{len(rest)} other' + 's' * (len(rest) > 1), QUIET))
  labels.sort(key=lambda label: label[0])
  unit = (_HIGH - _LOW) / tall  # of the axis, an inch
  places = apart([end for end, _, _ in labels], _NAME * unit, _LOW + 0.3 * _NAME * unit, _HIGH - 0.3 * _NAME * unit)
  for (end, text, color), place in zip(labels, places, strict=True):
    axes.plot([1, 1 + 0.12 / _WIDE], [end, place], transform=axes.get_yaxis_transform(), clip_on=False, color=color,
              linewidth=1.0, gid='to name')
    axes.text(1 + 0.15 / _WIDE, place, text, transform=axes.get_yaxis_transform(), fontsize=7, va='center',
              color=QUIET if color == QUIET else INK, gid='name')


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
  most = max(1, 5 // len(cells))
  columns = math.ceil(len(runs) / math.ceil(len(runs) / most)) * len(cells)  # the cells of a run stay side by side
  rows = math.ceil(len(runs) * len(cells) / columns)
  ops = list(dict.fromkeys(op for _, graph in cells for op in graph.ops[0]))
  pen, width = pens(ops), max(2.3 * columns + 0.6, 4.0)
  names = [plain(palette.short(op)) for op in ops]
  across = max(1, min(len(ops), int((width - 0.3) / (0.6 + 0.078 * max(map(len, names))))))
  lines = math.ceil(len(ops) / across)
  of_cell = {name: f', {plain(heading(name))}' if len(cells) > 1 else '' for name, _ in cells}
  labels = distinct(runs, max(12, _TITLE - max(map(len, of_cell.values()))))
  head, height = 0.42 + 0.2 * lines, 1.85 * rows + 0.45
  height += head
  figure = blank(width, height)
  for place, (label, (steps, probs)) in enumerate(runs.items()):
    for c, (name, graph) in enumerate(cells):
      row, column = divmod(place * len(cells) + c, columns)
      axes = figure.add_axes(((0.75 + 2.3 * column) / width, 1 - (head + 1.85 * row + 1.55) / height, 1.75 / width,
                              1.3 / height))
      values = probs[name][:, 0]
      for o, op in enumerate(graph.ops[0]):
        axes.plot(steps, values[:, o], marker='.' if len(steps) < 2 else '', gid='line', **pen[op])
      _panel(axes, labels[label] + of_cell[name], np.asarray(steps), left=True,
             lowest=True)
      top = next((top for top in (0.25, 0.5) if np.nanmax(values) <= 0.96 * top), 1.0)
      axes.set_ylim(_LOW * top, _HIGH * top)
      axes.set_yticks([0, top / 2, top], [f'{tick:g}' for tick in (0, top / 2, top)])
  figure.text(0.5, 1 - 0.2 / height, 'first ' + ('block' if space.topology else 'edge') + ' of every cell; '
              'every panel has axes of its own', fontsize=10, **TEXT)
  figure.text(0.5, 0.18 / height, 'search step', fontsize=10, **TEXT)
  figure.text(0.17 / width, (height - head) / 2 / height, 'probability', fontsize=10, rotation=90, **TEXT)
  figure.legend(handles=[Line2D([], [], **pen[op], label=name) for op, name in zip(ops, names, strict=True)],
                loc='upper center', ncols=math.ceil(len(ops) / lines), frameon=False, fontsize=9, labelcolor=INK,
                handlelength=1.9, columnspacing=1.5, bbox_to_anchor=(0.5, 1 - 0.32 / height), borderaxespad=0,
                labelspacing=0.25)
  return save(figure, path)


def _panel(axes, title, steps, left, lowest):
  axes.set_gid('panel')
  axes.set_title(title, fontsize=9, color=INK, pad=3)
  axes.set_ylim(_LOW, _HIGH)
  axes.set_yticks([0, 0.5, 1], ['0', '0.5', '1'] if left else [''] * 3)
  first, last = float(steps[0]), float(steps[-1])
  if last > first:
    axes.set_xlim(first, last)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
  else:
    axes.set_xlim(first - 1, first + 1)
    axes.set_xticks([first])
  axes.tick_params(labelsize=8, length=2.5, color=FAINT, labelcolor=INK, labelbottom=lowest, pad=2)
  axes.grid(True, color=PALE, linewidth=0.8)
  axes.spines[:].set_color(FAINT)
