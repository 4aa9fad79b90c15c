"""Maps of edges and operations as pictures: feature maps of phi, distributions."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from vimnas_jax.draw import palette
from vimnas_jax.draw.base import FAINT, INK, TEXT, blank, distinct, heading, plain, save
from vimnas_jax.errors import UserError
from vimnas_jax.spaces.types import Cell, Space


def feature_maps(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], space: Space, path) -> Figure:
  """Draws the feature maps of phi's hidden layer at the start and at the end of a search: figure 1 of the paper.

  Args:
    before: {cell: [channels, edges, ops]}.
    after: the same, later.
    space: the space whose edges and operations the rows and columns of a map are.
    path: the file to write.

  Raises:
    UserError: if the two do not have the same cells and shapes, or not those of the space.
  """
  shapes, later = ({name: np.shape(maps) for name, maps in both.items()} for both in (before, after))
  expected = {name: cell.shape for name, cell in space.cells.items()}
  if shapes != later or {name: shape[1:] for name, shape in shapes.items()} != expected or any(
      len(shape) != 3 or 0 in shape for shape in shapes.values()):
    raise UserError(f'feature maps before {shapes} and after {later} need the same cells, of shape [channels, edges, '
                    f'ops]; space {space.name!r} has {expected}')
  values = np.concatenate([np.ravel(maps) for maps in (*before.values(), *after.values())])
  low, high = min(float(values.min()), 0.0), float(values.max())
  scale = Normalize(low, high if high > low else low + 1)
  unit = max(0.105, 0.8 / max(edges for _, edges, _ in shapes.values()))  # inches: one value
  columns = {name: math.ceil(channels / 2) for name, (channels, _, _) in shapes.items()}
  names = {name: _columns(cell) for name, cell in space.cells.items()}
  rows = {name: [cell.label(e).replace('->', '→') for e in range(cell.shape[0])] for name, cell in space.cells.items()}
  below = 0.12 + 0.062 * max(len(text) for texts in names.values() for text in texts)  # inches: names of columns
  beside = 0.12 + 0.062 * max(len(text) for texts in rows.values() for text in texts)  # of rows
  tall = [max(edges for _, edges, _ in shapes.values()) * unit + 0.26] * 2  # two lines of maps, each under its number
  wide = {name: max(beside + columns[name] * (ops * unit + 0.14), 1.3 + 0.1 * len(name))
          for name, (_, _, ops) in shapes.items()}
  left, right, top, bottom, gap = 0.5, 0.95, 0.42, 0.45, 0.25
  width = left + sum(wide.values()) + gap * (len(wide) - 1) + right
  height = top + 2 * (sum(tall) + below) + gap + bottom
  figure, image = blank(width, height), None
  for half, (text, maps) in enumerate({'before': before, 'after': after}.items()):
    y, x = height - top - half * (sum(tall) + below + gap), left
    figure.text(0.22 / width, (y - sum(tall) / 2) / height, text, fontsize=12, weight='bold', rotation=90, **TEXT)
    for name, (channels, edges, ops) in shapes.items():
      if half == 0:
        middle = x + beside + columns[name] * (ops * unit + 0.14) / 2 - 0.07
        figure.text(middle / width, 1 - 0.2 / height, heading(name), fontsize=12, weight='bold', **TEXT)
      for channel, shown in enumerate(maps[name]):
        line, place = divmod(channel, columns[name])
        axes = figure.add_axes(((x + beside + place * (ops * unit + 0.14)) / width,
                                (y - sum(tall[:line + 1])) / height, ops * unit / width, edges * unit / height),
                               xticks=[], yticks=[], gid='map')
        image = axes.imshow(shown, cmap='magma', norm=scale, aspect='auto', interpolation='nearest')
        axes.set_title(str(channel + 1), fontsize=8, color=INK, pad=2)
        axes.spines[:].set_color(FAINT)
        axes.tick_params(length=0, pad=2, labelsize=6.5, labelcolor=INK)
        if place == 0:
          axes.set_yticks(range(edges), rows[name])
        if place == 0 and channel + columns[name] >= channels:
          axes.set_xticks(range(ops), names[name], rotation=90)
      x += wide[name] + gap
  bar = figure.add_axes((1 - 0.75 / width, (bottom + below) / height, 0.13 / width,
                         1 - (top + bottom + below + 0.26) / height))
  figure.colorbar(image, cax=bar)
  bar.tick_params(labelsize=8, length=2.5, labelcolor=INK)
  bar.set_title('value', fontsize=9, color=INK, pad=5)
  figure.text(0.5, 0.2 / height, f'channels of φ; rows: {"blocks" if space.topology else "edges"}, columns: operations',
              fontsize=9, **TEXT)
  return save(figure, path)


def _columns(cell: Cell) -> list[str]:
  """What the columns of a map are called: operations, or where every edge has its own, their numbers."""
  return [plain(palette.short(op)) if all(ops[o] == op for ops in cell.ops) else f'op {o + 1}'
          for o, op in enumerate(cell.ops[0])]


def distributions(runs: Mapping[str, tuple[Mapping[str, np.ndarray] | None, Mapping[str, np.ndarray]]],
                  path) -> Figure:
  """Draws, for several runs, the distribution of every edge at the start and at the end: figure 3 of the paper.

  Args:
    runs: label -> ({cell: [edges, ops]} at the start, or None where it was not recorded, the same at the end), each in
      [0, 1]; all of one space.
    path: the file to write.

  Raises:
    UserError: if there is no run, or the shapes differ.
  """
  shapes = [{name: np.shape(p) for name, p in part.items()}
            for pair in runs.values() for part in pair if part is not None]
  if not shapes or any(s != shapes[0] for s in shapes) or any(len(s) != 2 for s in shapes[0].values()):
    raise UserError(f'distributions need runs of one space, {{cell: [edges, ops]}} each; got {shapes}')
  unit, gap, left, top, right, bottom = 0.13, 0.35, 1.5, 0.75, 0.95, 0.3
  tall = max(edges for edges, _ in shapes[0].values()) * unit + 0.2
  wide = {name: ops * unit + gap for name, (_, ops) in shapes[0].items()}
  width = left + 2 * sum(wide.values()) + right
  height = top + len(runs) * tall + bottom
  figure, image, names = blank(width, height), None, distinct(runs, 24)
  for row, (label, pair) in enumerate(runs.items()):
    y = height - top - row * tall
    figure.text(0.15 / width, (y - tall / 2) / height, names[label], fontsize=9, color=INK, va='center')
    for part, (when, probs) in enumerate(zip(('start', 'end'), pair, strict=True)):
      x = left + part * sum(wide.values())
      for name, (edges, ops) in shapes[0].items():
        if row == 0:
          figure.text((x + ops * unit / 2) / width, 1 - 0.45 / height, f'{name}\n{when}', fontsize=9, **TEXT)
        axes = figure.add_axes((x / width, (y - edges * unit) / height, ops * unit / width, edges * unit / height),
                               xticks=[], yticks=[], gid='map' if probs else 'not recorded')
        if probs:
          image = axes.imshow(probs[name], cmap='magma', vmin=0, vmax=1, aspect='auto', interpolation='nearest')
        else:
          axes.text(0.5, 0.5, 'not recorded', transform=axes.transAxes, rotation=90 * (edges > ops),
                    fontsize=min(7.0, 10 * unit * max(edges, ops)), **TEXT)
        axes.spines[:].set_color(FAINT)
        x += wide[name]
  bar = figure.add_axes((1 - 0.75 / width, bottom / height, 0.13 / width, 1 - (top + bottom) / height))
  figure.colorbar(image, cax=bar)
  bar.tick_params(labelsize=8, length=2.5, labelcolor=INK)
  bar.set_title('probability', fontsize=8, color=INK, pad=5)
  figure.text((left + sum(wide.values())) / width, 0.12 / height, 'columns: operations, rows: edges', fontsize=8,
              **TEXT)
  return save(figure, path)
