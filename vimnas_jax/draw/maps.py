"""Maps of edges and operations as pictures: feature maps of phi, distributions."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from vimnas_jax.draw.base import FAINT, INK, TEXT, blank, heading, plain, save
from vimnas_jax.errors import UserError


def feature_maps(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], path) -> Figure:
  """Draws the feature maps of phi's hidden layer at the start and at the end of a search: figure 1 of the paper.

  Args:
    before: {cell: [channels, edges, ops]}.
    after: the same, later.
    path: the file to write.

  Raises:
    UserError: if the two do not have the same cells and shapes.
  """
  shapes, later = ({name: np.shape(maps) for name, maps in both.items()} for both in (before, after))
  if shapes != later or not shapes or any(len(shape) != 3 or 0 in shape for shape in shapes.values()):
    raise UserError(f'feature maps before {shapes} and after {later} need the same cells, of shape [channels, edges, '
                    'ops]')
  values = np.concatenate([np.ravel(maps) for maps in (*before.values(), *after.values())])
  low, high = min(float(values.min()), 0.0), float(values.max())
  scale = Normalize(low, high if high > low else low + 1)
  unit = max(0.085, 0.8 / max(edges for _, edges, _ in shapes.values()))  # inches: one value
  columns = {name: math.ceil(channels / 2) for name, (channels, _, _) in shapes.items()}
  tall = [max(edges for _, edges, _ in shapes.values()) * unit + 0.26] * 2  # two lines of maps, each under its number
  wide = {name: columns[name] * (ops * unit + 0.14) for name, (_, _, ops) in shapes.items()}
  left, right, top, bottom, gap = 0.9, 0.95, 0.42, 0.3, 0.3
  width, height = left + sum(wide.values()) + gap * (len(wide) - 1) + right, top + 2 * sum(tall) + gap + bottom
  figure, image = blank(width, height), None
  for row, (text, maps) in enumerate({'before': before, 'after': after}.items()):
    y, x = height - top - row * (sum(tall) + gap), left
    figure.text(0.3 / width, (y - sum(tall) / 2) / height, text, fontsize=12, weight='bold', rotation=90, **TEXT)
    for name, (_, edges, ops) in shapes.items():
      if row == 0:
        figure.text((x + (wide[name] - 0.14) / 2) / width, 1 - 0.2 / height, heading(name), fontsize=12,
                    weight='bold', **TEXT)
      for channel, shown in enumerate(maps[name]):
        line, place = divmod(channel, columns[name])
        axes = figure.add_axes(((x + place * (ops * unit + 0.14)) / width, (y - sum(tall[:line + 1])) / height,
                                ops * unit / width, edges * unit / height), xticks=[], yticks=[], gid='map')
        image = axes.imshow(shown, cmap='magma', norm=scale, aspect='auto', interpolation='nearest')
        axes.set_title(str(channel + 1) if channel else 'channel 1', fontsize=8, color=INK, pad=2)
        axes.spines[:].set_color(FAINT)
        if channel == 0:
          axes.set_ylabel('edge', fontsize=8, color=INK, labelpad=2)
        if place == 0 and channel + columns[name] >= len(maps[name]):
          axes.set_xlabel('op', fontsize=8, color=INK, labelpad=2)
      x += wide[name] + gap
  bar = figure.add_axes((1 - 0.75 / width, bottom / height, 0.13 / width, 1 - (top + bottom + 0.26) / height))
  figure.colorbar(image, cax=bar)
  bar.tick_params(labelsize=8, length=2.5, labelcolor=INK)
  bar.set_title('value', fontsize=9, color=INK, pad=5)
  return save(figure, path)


def distributions(runs: Mapping[str, tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]], path) -> Figure:
  """Draws, for several runs, the distribution of every edge at the start and at the end: figure 3 of the paper.

  Args:
    runs: label -> ({cell: [edges, ops]} at the start, the same at the end), each in [0, 1]; all of one space.
    path: the file to write.

  Raises:
    UserError: if there is no run, or the shapes differ.
  """
  shapes = [{name: np.shape(p) for name, p in part.items()} for pair in runs.values() for part in pair]
  if not shapes or any(s != shapes[0] for s in shapes) or any(len(s) != 2 for s in shapes[0].values()):
    raise UserError(f'distributions need runs of one space, {{cell: [edges, ops]}} each; got {shapes}')
  unit, gap, left, top, right, bottom = 0.13, 0.35, 1.5, 0.75, 0.95, 0.3
  tall = max(edges for edges, _ in shapes[0].values()) * unit + 0.2
  wide = {name: ops * unit + gap for name, (_, ops) in shapes[0].items()}
  width = left + 2 * sum(wide.values()) + right
  height = top + len(runs) * tall + bottom
  figure, image = blank(width, height), None
  for row, (label, pair) in enumerate(runs.items()):
    y = height - top - row * tall
    figure.text(0.15 / width, (y - tall / 2) / height, plain(label, 24), fontsize=9, color=INK, va='center')
    for part, (when, probs) in enumerate(zip(('start', 'end'), pair, strict=True)):
      x = left + part * sum(wide.values())
      for name, shown in probs.items():
        edges, ops = np.shape(shown)
        if row == 0:
          figure.text((x + ops * unit / 2) / width, 1 - 0.45 / height, f'{name}\n{when}', fontsize=9, **TEXT)
        axes = figure.add_axes((x / width, (y - edges * unit) / height, ops * unit / width, edges * unit / height),
                               xticks=[], yticks=[], gid='map')
        image = axes.imshow(shown, cmap='magma', vmin=0, vmax=1, aspect='auto', interpolation='nearest')
        axes.spines[:].set_color(FAINT)
        x += wide[name]
  bar = figure.add_axes((1 - 0.75 / width, bottom / height, 0.13 / width, 1 - (top + bottom) / height))
  figure.colorbar(image, cax=bar)
  bar.tick_params(labelsize=8, length=2.5, labelcolor=INK)
  bar.set_title('probability', fontsize=8, color=INK, pad=5)
  figure.text((left + sum(wide.values())) / width, 0.12 / height, 'columns: operations, rows: edges', fontsize=8,
              **TEXT)
  return save(figure, path)
