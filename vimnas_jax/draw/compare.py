"""Experiments side by side."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from vimnas_jax.draw.base import FAINT, INK, PALE, QUIET, blank, distinct, longest, save
from vimnas_jax.draw.palette import SLOTS
from vimnas_jax.errors import UserError

_BAR, _WIDE, _ACROSS = 0.21, 2.3, 4  # inches: from bar to bar; a panel; panels beside each other
_GAP, _HEAD, _FOOT = 0.25, 0.5, 0.35  # inches between panels, above and below one
_NAME = 26  # letters of a name at most
_HUE, _VALUES = SLOTS[3].light, 0.26  # of bars; share of a panel that is kept for the values beside them


def comparison(panels: Mapping[str, Mapping[str, Mapping[str, list[float]]]], path) -> Figure:
  """Draws a panel of bars for every measure: means over seeds, written beside them, each seed a dot.

  Every bar begins at 0; the order is that of `panels`, from left to right, and of each panel, from above.

  Args:
    panels: title -> group (a space) -> experiment -> values, one a seed.
    path: the file to write.

  Raises:
    UserError: if there is nothing to draw.
  """
  if not panels or not all(values for groups in panels.values() for row in groups.values() for values in row.values()):
    raise UserError('a comparison needs a measure with values of at least one experiment')
  lines = _lines(panels)
  columns = min(_ACROSS, len(panels))
  rows = -(-len(panels) // columns)
  side = 0.2 + longest((text for _, _, text in lines), 8)  # for the names
  width, tall = side + columns * (_WIDE + _GAP), _BAR * len(lines)
  height = rows * (_HEAD + tall + _FOOT)
  figure = blank(width, height)
  for place, (title, groups) in enumerate(panels.items()):
    row, column = divmod(place, columns)
    axes = figure.add_axes(((side + column * (_WIDE + _GAP)) / width, 1 - (row * (_HEAD + tall + _FOOT) + _HEAD + tall)
                            / height, _WIDE / width, tall / height), gid='panel')
    _panel(axes, title, groups, lines, named=column == 0)
  return save(figure, path)


def _lines(panels) -> list[tuple[str, str | None, str]]:
  """(group, experiment or None for the heading of a group, text) of every line of a panel, from above."""
  found: dict[str, dict[str, None]] = {}
  for groups in panels.values():
    for group, row in groups.items():
      found.setdefault(group, {}).update(dict.fromkeys(row))
  lines: list[tuple[str, str | None, str]] = []
  groups = distinct(found, _NAME)
  for group, names in found.items():
    if len(found) > 1:
      lines.append((group, None, groups[group]))
    lines += [(group, name, text) for name, text in distinct(names, _NAME).items()]
  return lines


def _panel(axes, title, groups, lines, named):
  means = [np.mean(each) for row in groups.values() for each in row.values()]
  values = [v for row in groups.values() for each in row.values() for v in each]
  high = max(max(values, default=0.0), 0.0)
  reach = (high or 1.0) / (1 - _VALUES)
  digits = 0 if high >= 1000 or all(float(value).is_integer() for value in means) else 2
  for y, (group, name, _) in enumerate(lines):
    each = groups.get(group, {}).get(name) if name is not None else None
    if not each:
      continue
    mean = float(np.mean(each))
    axes.barh(y, mean, 0.72, color=_HUE, gid='mean')
    if len(each) > 1:
      axes.plot(each, np.full(len(each), y), linestyle='', marker='o', markersize=3, color='white',
                markeredgecolor=INK, markeredgewidth=0.7, gid='seeds', clip_on=False)
    axes.text(max(mean, *each) + 0.025 * reach, y, f'{mean:,.{digits}f}', fontsize=8, color=INK, va='center',
              gid='value')
  axes.set_xlim(min(0.0, *values), reach)
  axes.set_ylim(len(lines) - 0.5, -0.5)
  axes.set_yticks(range(len(lines)), [text for _, _, text in lines] if named else [''] * len(lines))
  for label, (_, name, _) in zip(axes.get_yticklabels(), lines, strict=True):
    label.set_fontweight('bold' if name is None else 'normal')
  axes.set_title(title, fontsize=9, color=INK, loc='left', pad=5)
  axes.locator_params(axis='x', nbins=4)
  axes.set_xticks([tick for tick in axes.get_xticks() if tick <= high * 1.0001])
  axes.grid(True, axis='x', color=PALE)
  axes.set_axisbelow(True)
  axes.spines[:].set_visible(False)
  axes.spines['left'].set(visible=True, color=QUIET)
  axes.tick_params(labelsize=8, labelcolor=INK, color=FAINT, length=0)
