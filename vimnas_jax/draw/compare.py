"""Experiments side by side."""

import itertools
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from vimnas_jax.draw.base import FAINT, INK, PALE, blank, plain, save
from vimnas_jax.errors import UserError

HUES = ('#12407a', '#f0a030', '#7b8794', '#1d9a50', '#b8336a', '#7a1f76', '#8c4a00', '#17becf')
_WIDTH, _HEIGHT, _LEGEND = 5.4, 2.5, 0.5  # inches of a panel; of the legend above


def comparison(panels: Mapping[str, Mapping[str, Mapping[str, list[float]]]], path) -> Figure:
  """Draws a panel of bars for every measure: means over seeds, each seed a dot.

  An axis that measures shares in % begins below the lowest value, not at 0.

  Args:
    panels: title -> group (a space) -> experiment -> values, one a seed.
    path: the file to write.

  Raises:
    UserError: if there is nothing to draw.
  """
  if not panels or not all(values for groups in panels.values() for row in groups.values() for values in row.values()):
    raise UserError('a comparison needs a measure with values of at least one experiment')
  names = list(dict.fromkeys(name for groups in panels.values() for row in groups.values() for name in row))
  hues = dict(zip(names, itertools.cycle(HUES)))
  rows = -(-len(panels) // 2)
  columns = min(2, len(panels))
  figure = blank(_WIDTH * columns, _HEIGHT * rows + _LEGEND)
  grid = figure.add_gridspec(rows, columns, left=0.6 / (_WIDTH * columns), right=1 - 0.1 / (_WIDTH * columns),
                             top=1 - (_LEGEND + 0.3) / (_HEIGHT * rows + _LEGEND),
                             bottom=0.3 / (_HEIGHT * rows + _LEGEND), hspace=0.45, wspace=0.18)
  for place, (title, groups) in enumerate(panels.items()):
    _panel(figure.add_subplot(grid[place // columns, place % columns]), title, groups, hues)
  handles = [figure.axes[0].bar(0, 0, color=hue) for hue in hues.values()]
  figure.legend(handles, [plain(name) for name in names], loc='upper center', ncols=min(len(names), 5), frameon=False,
                labelcolor=INK)
  return save(figure, path)


def _panel(axes, title, groups, hues):
  width, low = 0.8 / len(hues), np.inf
  for x, row in enumerate(groups.values()):
    for name, values in row.items():
      at = x + width * (list(hues).index(name) - (len(hues) - 1) / 2)
      axes.bar(at, np.mean(values), 0.92 * width, color=hues[name], gid='mean')
      axes.plot(np.full(len(values), at), values, linestyle='', marker='o', markersize=3, color='white',
                markeredgecolor=INK, markeredgewidth=0.7, gid='seeds')
      low = min(low, *values)
  if '%' in title:
    axes.set_ylim(max(0.0, np.floor(low / 5 - 0.5) * 5), None)
  axes.set_xticks(range(len(groups)), [plain(name) for name in groups])
  axes.set_title(title, fontsize=10, color=INK)
  axes.grid(True, axis='y', color=PALE)
  axes.set_axisbelow(True)
  axes.spines[:].set_color(FAINT)
  axes.tick_params(labelsize=9, labelcolor=INK, color=FAINT)
