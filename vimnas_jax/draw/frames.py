"""One frame of a film: where its bars stand, and how long they are.

It is drawn in grey levels that are places in the palette of the file: level 0 is paper, up to _INK the levels between
it and ink, so that letters have smooth edges, then the colours of palette.SLOTS, and these again, pale.
"""

import functools
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vimnas_jax import files
from vimnas_jax.draw import graph, palette
from vimnas_jax.spaces.types import Cell

_WIDTH, _MARGIN, _GAP, _HEAD = 720, 16, 12, 64  # pixels; of the strip above
_NARROW, _NAMED, _NUMBERED, _WIDE = 56, 118, 170, 330  # of a panel: least, from which bars have names, values, most
_INK, _QUIET, _OTHER, _TRACK = 15, 9, 3, 1  # grey levels: of text; of bars that are no operations and not taken; below
_COLOR, _PALE = 16, 32  # level of the first colour, and of the first pale one
_CURVE = 2  # slot of one-hotness
_NODE, _LIFT, _LANE = 26, 28, 15  # pixels: side of a node; the first lane above it; between lanes
_FINE = 3  # in so many parts a pixel of an edge is drawn


class Panel(NamedTuple):
  """Bars of one choice: what an edge runs, or where a node takes its inputs from.

  Attributes:
    title: which edge or node.
    names: of the bars.
    slots: of palette.SLOTS, one a bar; None where they are no operations.
    values: probabilities, [frames, bars].
    taken: for every frame what the architecture has of it, in words.
    kept: for every frame the bars that the architecture has.
  """

  title: str
  names: Sequence[str]
  slots: Sequence[int] | None
  values: np.ndarray
  taken: Sequence[str]
  kept: Sequence[set[int]]


class Group(NamedTuple):
  """Panels under one heading, '' for none; `rows` are places in `panels`, as they are laid out."""

  name: str
  rows: Sequence[Sequence[int]]
  panels: Sequence[Panel]


class Board:
  """Where everything stands: what stays from frame to frame is drawn once."""

  def __init__(self, groups: Sequence[Group], title: str, told: str, cell: Cell | None = None):
    """`told` stands below all; a `cell`, whose edges the panels of the one group are, is drawn where there is room."""
    operations = all(panel.slots for group in groups for panel in group.panels)
    columns = min(2, len(groups)) if operations else 1
    width = (_WIDTH - 2 * _MARGIN - (columns - 1) * 2 * _GAP) // columns
    groups = [group._replace(rows=_fitted(group.rows, (width + _GAP) // (_NARROW + _GAP))) for group in groups]
    panels = [group.panels[p] for group in groups for row in group.rows for p in row]
    widest = max(len(row) for group in groups for row in group.rows)
    self._panel = min((width + _GAP) // widest - _GAP, _WIDE)
    self._named, self._numbered = self._panel >= _NAMED, self._panel >= _NUMBERED
    self._bar = (17 if self._numbered else 15 if self._named else
                 max(5, min(12, 64 // max(len(panel.names) for panel in panels))))
    self._title = 20 if self._named else 29  # height of what stands above the bars
    legend = {name: slot for panel in panels for name, slot in zip(panel.names, panel.slots or ())}
    legend = {} if self._named else legend
    self._places: list[tuple[Panel, int, int]] = []
    headings, y = [], _HEAD + (20 * (_legend(legend)[-1][1] + 1) + 8 if legend else 0)
    for start in range(0, len(groups), columns):
      ends = []
      for column, group in enumerate(groups[start:start + columns]):
        x = _MARGIN + column * (width + 2 * _GAP)
        headings.append((x, y, group.name))
        ends.append(self._lay(group, x, y + (22 if group.name else 0)))
      y = max(ends)
    self._image = Image.new('L', (_WIDTH, y + 22), 0)
    draw = ImageDraw.Draw(self._image)
    draw.text((_MARGIN, 10), _fitting(title, 15, 420, True), _INK, _font(15, True))
    for x, at, name in headings:
      draw.text((x, at), name, _INK, _font(13, True))
    for x, line, name in _legend(legend):
      at = _HEAD + 20 * line
      draw.rectangle((x, at + 2, x + 10, at + 12), _COLOR + legend[name])
      draw.text((x + 16, at), name, _INK, _font(12))
    for panel, x, at in self._places:
      self._still(draw, panel, x, at)
    draw.text((_MARGIN, y + 3), _fitting(told, 11, _WIDTH - 2 * _MARGIN), _QUIET, _font(11))
    self._graph = Graph.fitting(cell, groups[0].rows, self._places) if (
        cell and self._named and len(cell.edges) == len(panels)) else None

  def _lay(self, group: Group, x: int, y: int) -> int:
    """Takes places for the panels of a group; returns where it ends."""
    for row in group.rows:
      self._places += [(group.panels[p], x + place * (self._panel + _GAP), y) for place, p in enumerate(row)]
      y += max(len(group.panels[p].names) for p in row) * self._bar + self._title + 10
    return y

  def _span(self, x: int) -> tuple[int, int]:
    """Where the bars of a panel at `x` begin, and how long they can be."""
    return (x + 68, self._panel - 68 - 36 * self._numbered) if self._named else (x, self._panel)

  def _still(self, draw, panel: Panel, x: int, y: int) -> None:
    """What of a panel stays."""
    draw.text((x, y), panel.title, _QUIET, _font(12))
    start, long = self._span(x)
    for b, name in enumerate(panel.names):
      top = y + self._title + b * self._bar
      if self._named:
        draw.text((start - 6, top + self._bar / 2), _fitting(name, 11, 62), _INK, _font(11), anchor='rm')
      draw.rectangle((start, top + 1, start + long - 1, top + self._bar - 2), _TRACK)

  def frame(self, f: int, steps: Sequence[int], hot: Sequence[float]) -> Image.Image:
    """Frame `f`, of all `steps` and their one-hotness."""
    image = self._image.copy()
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, 34), f'step {steps[f]:,} of {steps[-1]:,}', _INK, _font(15))
    _curve(draw, steps, hot[:f + 1])
    for panel, x, y in self._places:
      self._moving(draw, panel, x, y, f)
    if self._graph:
      self._graph.paint(image, f)
    image.putpalette(_palette())
    return image

  def _moving(self, draw, panel: Panel, x: int, y: int, f: int) -> None:
    """What of a panel is that of frame `f`."""
    start, long = self._span(x)
    size, kept = 12 if self._named else 11, panel.kept[f]
    room = self._panel - _font(12).getlength(panel.title) - 8 if self._named else self._panel + 4
    draw.text((x + self._panel, y) if self._named else (x, y + 14), _fitting(panel.taken[f], size, room, bool(kept)),
              _INK if kept else _QUIET, _font(size, bool(kept)), anchor='ra' if self._named else 'la')
    for b, value in enumerate(panel.values[f]):
      top, length = y + self._title + b * self._bar, round(_share(value) * long)
      level = (_INK if b in kept else _OTHER) if panel.slots is None else (_COLOR if kept else _PALE) + panel.slots[b]
      if length:
        draw.rectangle((start, top + 1, start + length - 1, top + self._bar - 2), level)
      if self._numbered:
        draw.text((start + long + 6, top + self._bar / 2), f'{value:.2f}' if math.isfinite(value) else '–',
                  _INK if b in kept else _QUIET, _font(11, b in kept), anchor='lm')


class Graph(NamedTuple):
  """A cell as a graph, in the corner that panels leave which stand as a triangle; laid out as in graph.py.

  Attributes:
    nodes: x of each, in pixels.
    middle: their y.
    edges: (panel, x of its start, x of its end, y of its lane: `middle` is straight).
  """

  nodes: Sequence[int]
  middle: int
  edges: Sequence[tuple[Panel, int, int, int]]

  @classmethod
  def fitting(cls, cell: Cell, rows: Sequence[Sequence[int]],
              places: Sequence[tuple[Panel, int, int]]) -> 'Graph | None':
    """The graph where it has room beside the first row of panels, None where it has none."""
    if len(rows) < 2 or not cell.nodes > len(rows[0]) < max(map(len, rows)):
      return None
    free = max(range(len(rows)), key=lambda row: len(rows[row]))
    first = len(rows[0])  # the column after the panels of the first row
    left, right = places[sum(map(len, rows[:free])) + first][1], _WIDTH - _MARGIN
    top, bottom = places[0][2], places[first][2]
    edges = [('', *edge) for edge in cell.edges]
    lanes = graph.lanes_of(edges)
    ports = graph.ports_of(edges, lanes)
    gap, middle = (right - left - _NODE) // (cell.nodes - 1), bottom - 12 - _NODE // 2
    tallest = middle - _LIFT - _LANE * (max(lanes.values()) - 1)
    if gap < 2 * _NODE or tallest < top + 4:
      return None
    nodes = [left + _NODE // 2 + gap * node for node in range(cell.nodes)]

    def port(node: int, inches: float) -> int:
      return round(nodes[node] + (inches - node * graph.GAP) * _NODE / graph.NODE)

    drawn = []
    for i, (_, source, target) in enumerate(edges):
      straight = not lanes[i]
      drawn.append((places[i][0], nodes[source] if straight else port(source, ports[i][0]),
                    nodes[target] if straight else port(target, ports[i][1]),
                    middle if straight else middle - _LIFT - _LANE * (lanes[i] - 1)))
    return cls(nodes, middle, drawn)

  def paint(self, image: Image.Image, f: int) -> None:
    """Draws it as it is in frame `f`: an edge in the colour of what it runs, as thick as that is probable."""
    for panel, start, end, y in self.edges:
      for op in sorted(panel.kept[f]):
        width, edge = _FINE * (1 + 5 * _share(panel.values[f][op])), _FINE * 4  # pixels of the fine picture
        mask = Image.new('L', (_FINE * (end - start + 8), _FINE * (self.middle - y + 8)), 0)
        box = edge - width / 2, edge - width / 2, mask.width - edge + width / 2
        pen = ImageDraw.Draw(mask)
        if y == self.middle:
          pen.rectangle((*box, edge + width / 2), 255)
        else:  # what is below the picture is not seen
          pen.rounded_rectangle((*box, 2 * mask.height), _FINE * 10, outline=255, width=max(1, round(width)))
        mask, slots = mask.reduce(_FINE), panel.slots or {op: 0}
        for level, least in ((_PALE, 50), (_COLOR, 150)):  # smooth edges, of the two levels that a colour has
          image.paste(level + slots[op], (start - 4, y - 4), mask.point([255 * (v >= least) for v in range(256)]))
    draw = ImageDraw.Draw(image)
    for node, x in enumerate(self.nodes):
      draw.rounded_rectangle((x - _NODE // 2, self.middle - _NODE // 2, x + _NODE // 2, self.middle + _NODE // 2), 6, 0,
                             _QUIET)
      draw.text((x, self.middle), str(node), _INK, _font(12), anchor='mm')


def _fitted(rows: Sequence[Sequence[int]], most: int) -> list[Sequence[int]]:
  """Rows that are not empty, as they are where all fit; else in the order of a text."""
  rows = [row for row in rows if row]
  if max(map(len, rows), default=0) <= most:
    return rows
  places = [p for row in rows for p in row]
  return [places[i:i + most] for i in range(0, len(places), most)]


def _legend(names: Iterable[str]) -> list[tuple[int, int, str]]:
  """(x, line, name) of names beside each other, as many in a line as fit."""
  x, line, placed = _MARGIN, 0, []
  for name in names:
    wide = 32 + math.ceil(_font(12).getlength(name))
    if x > _MARGIN and x + wide > _WIDTH - _MARGIN:
      x, line = _MARGIN, line + 1
    placed.append((x, line, name))
    x += wide
  return placed


def _share(value: float) -> float:
  return min(max(float(value), 0.0), 1.0) if math.isfinite(value) else 0.0


def _curve(draw, steps: Sequence[int], hot: Sequence[float]) -> None:
  """One-hotness so far, as an area over all steps."""
  right, bottom, wide, tall = _WIDTH - _MARGIN, 52, 150, 42
  left, span = right - wide, max(steps[-1] - steps[0], 1)
  draw.text((left - 8, 10), 'one-hotness', _QUIET, _font(12), anchor='ra')
  draw.text((left - 8, 26), f'{hot[-1]:.3f}' if math.isfinite(hot[-1]) else '–', _INK, _font(20, True), anchor='ra')
  draw.rectangle((left, bottom - tall, right, bottom), _TRACK)
  outline = [(left + round((step - steps[0]) / span * wide), bottom - round(_share(value) * tall))
             for step, value in zip(steps, hot)]
  (first, _), (x, y) = outline[0], outline[-1]
  if len(outline) > 1:
    draw.polygon([(first, bottom), *outline, (x, bottom)], _PALE + _CURVE)
    draw.line(outline, _COLOR + _CURVE, 2)
  draw.rectangle((x - 2, y - 2, x + 2, y + 2), _COLOR + _CURVE)


@functools.cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
  """The font that matplotlib brings; laid out by Pillow itself, so that the bytes do not depend on other libraries."""
  name = f'DejaVuSans{"-Bold" if bold else ""}.ttf'
  return ImageFont.truetype(pathlib.Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / name, size,
                            layout_engine=ImageFont.Layout.BASIC)


def _fitting(text: str, size: int, width: float, bold: bool = False) -> str:
  """`text`, cut where it is wider than so many pixels."""
  text = files.printable(text)
  if _font(size, bold).getlength(text) <= width:
    return text
  while text and _font(size, bold).getlength(f'{text}…') > width:
    text = text[:-1]
  return f'{text}…'


@functools.cache
def _palette() -> list[int]:
  """Red, green and blue of all levels."""
  levels = [(255, 255, 255)] * (_PALE + len(palette.SLOTS))
  paper, ink = _rgb(palette.LIGHT['paper']), _rgb(palette.LIGHT['ink'])
  for level in range(_INK + 1):
    levels[level] = _mixed(ink, paper, level / _INK)
  for slot, colors in enumerate(palette.SLOTS):
    color = _rgb(colors.light)
    levels[_COLOR + slot], levels[_PALE + slot] = color, _mixed(color, paper, 0.35)
  return [part for level in levels for part in level]


def _rgb(text: str) -> tuple[int, ...]:
  return tuple(bytes.fromhex(text[1:]))


def _mixed(one: Iterable[int], other: Iterable[int], share: float) -> tuple[int, ...]:
  return tuple(round(share * a + (1 - share) * b) for a, b in zip(one, other, strict=True))
