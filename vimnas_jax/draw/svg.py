"""Charts and cells as SVG inside a page: lines named where they end, cells as graphs."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vimnas_jax.draw import graph, palette
from vimnas_jax.draw.base import apart, heading
from vimnas_jax.draw.page import Html, number, real, tag
from vimnas_jax.spaces.types import Genotype, Space

_LINE = 11.5  # pixels between two names of lines
_CHAR = 6.3  # of a character, at most


class Line(NamedTuple):
  """A line of a chart.

  Attributes:
    name: what it is of; told where the pointer is.
    values: one for every x; None, or what is not finite, breaks the line.
    slot: of palette.SLOTS.
    label: what stands where it ends; '' leaves it out.
  """

  name: str
  values: Sequence[Any]
  slot: int
  label: str = ''


def thinned(count: int, most: int) -> list[int]:
  """At most so many places of `count`, evenly, the first and the last among them."""
  if count <= most:
    return list(range(count))
  return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def averaged(x: Sequence[float], values: Sequence[Any], most: int) -> tuple[list[float], list[Any], int]:
  """Means of as many neighbours as it takes to leave at most `most`; (x, values, how many neighbours)."""
  size = max(1, math.ceil(len(x) / most))
  parts = [range(start, min(start + size, len(x))) for start in range(0, len(x), size)]
  means = []
  for part in parts:
    known = [values[i] for i in part if real(values[i])]
    means.append(sum(known) / len(known) if known else None)
  return [sum(x[i] for i in part) / len(part) for part in parts], means, size


def ticks(low: float, high: float, count: int = 4) -> list[float]:
  """Round numbers from `low` to `high`, about so many."""
  if not high > low:
    return [low]
  raw = (high - low) / count
  unit = 10.0 ** math.floor(math.log10(raw))
  unit *= next(m for m in (1, 2, 5, 10) if m * unit >= raw * (1 - 1e-9))
  first = math.ceil(low / unit - 1e-9)
  return [round(i * unit, 12) for i in range(first, math.floor(high / unit + 1e-9) + 1)]


def chart(name: str, x: Sequence[float], lines: Sequence[Line], x_name: str = 'step', *, size=(360, 200),
          y: tuple[float, float] | None = None, marks: Sequence[float] = (), digits: int = 3,
          room: int | None = None) -> Html:
  """A chart of lines over the same x.

  Args:
    name: what it shows, for who cannot see it.
    x: where the values are, rising, [t].
    lines: of t values each.
    x_name: of the axis below.
    size: width and height in pixels.
    y: lowest and highest value of the axis; None takes those of the lines, and 0.
    marks: places on x that are marked with a stroke.
    digits: of the values that are told at the pointer.
    room: characters that are kept for the names where lines end; None takes the longest.

  Returns:
    The SVG; without a single number, a line that says so.
  """
  known = [v for line in lines for v in line.values if real(v)]
  if not known or not len(x):
    return tag('p', f'{name}: nothing was recorded.')
  low, high = y or (min(0.0, *known), max(known))
  high = high if high > low else low + 1
  x0, x1 = float(x[0]), float(x[-1]) if x[-1] > x[0] else float(x[0]) + 1
  room = _CHAR * (max((len(line.label) for line in lines), default=0) if room is None else room)
  small = size[0] < 300
  left, right, top, bottom = (30 if small else 46), size[0] - max(room + 12, 14), 8, size[1] - (20 if small else 36)

  def across(value):
    return left + (value - x0) / (x1 - x0) * (right - left)

  def up(value):
    return bottom - (min(max(value, low), high) - low) / (high - low) * (bottom - top)

  parts: list[Any] = []
  for value in ticks(low, high, 2 if small else 4):
    parts += [tag('path', d=f'M{left:.1f} {up(value):.1f}H{right:.1f}', class_='grid'),
              tag('text', f'{value:g}', x=left - 5, y=f'{up(value) + 3.5:.1f}', text_anchor='end', class_='tick')]
  parts.append(tag('path', d=f'M{left:.1f} {bottom:.1f}H{right:.1f}', class_='axis'))
  places = [(x0, 'start'), (x1, 'end')] if small else [(value, 'middle') for value in ticks(x0, x1, 5)]
  parts += [tag('text', f'{value:g}', x=f'{across(value):.1f}', y=bottom + 13, text_anchor=anchor, class_='tick')
            for value, anchor in places]
  if not small:
    parts.append(tag('text', x_name, x=f'{(left + right) / 2:.1f}', y=size[1] - 6, text_anchor='middle', class_='tick'))
  parts += [tag('path', tag('title', f'changes at {x_name} {value:g}'), class_='mark',
                d=f'M{across(value):.1f} {bottom:.1f}v-7') for value in marks]
  ends = []
  for line in lines:
    d, last = _path(x, line.values, across, up)
    if last is None:
      continue
    at, value = last
    parts.append(tag('path', tag('title', f'{line.name}: {number(value, digits)} at {x_name} {x[at]:g}'), d=d,
                     class_=f'line s{line.slot}', data_n=line.name))
    if line.label or 'L' not in d:
      parts.append(tag('circle', cx=f'{across(x[at]):.1f}', cy=f'{up(value):.1f}', r=3, class_=f'dot s{line.slot}'))
    if line.label:
      ends.append((up(value), line))
  for place, (_, line) in zip(apart([at for at, _ in sorted(ends, key=lambda e: e[0])], _LINE, top + 4, bottom),
                              sorted(ends, key=lambda e: e[0])):
    parts.append(tag('text', line.label, x=f'{right + 7:.1f}', y=f'{place + 3.5:.1f}'))
  scale = [round(v, 6) for v in (left, right, x0, x1, top, bottom, high, low)] + [digits]
  return tag('svg', parts, viewBox=f'0 0 {size[0]} {size[1]}', width=size[0], height=size[1], role='img',
             aria_label=f'{name}. {_spoken(lines)}', data_scale=json.dumps(scale), data_x=x_name,
             style='width:100%')


def _path(x, values, across, up):
  """The path of a line, and (index, value) of its last point, None if it has none."""
  words, pen, last = [], 'M', None
  for i, value in enumerate(values):
    if real(value):
      words.append(f'{pen}{across(x[i]):.1f} {up(value):.1f}')
      pen, last = 'L', (i, value)
    else:
      pen = 'M'
  return ''.join(words), last


def _spoken(lines) -> str:
  """First and last value of the lines, the largest at the end first."""
  told = []
  for line in lines:
    known = [v for v in line.values if real(v)]
    if known:
      told.append((known[-1], f'{line.name} from {number(known[0], 2)} to {number(known[-1], 2)}'))
  told.sort(key=lambda pair: -pair[0])
  return '; '.join(text for _, text in told[:4]) + (f'; {len(told) - 4} more' if len(told) > 4 else '') + '.'


_SIDE, _GAP, _LANE, _BASE, _BUS = 38.0, 128.0, 30.0, 46.0, 46.0  # pixels, as those of graph.py are inches


def cell(genotype: Genotype, name: str, space: Space, places: Mapping[str, int],
         weights: Mapping[tuple[str, int, int], float] | None = None) -> Html:
  """A cell of an architecture as a graph, laid out as in `graph.cell`: one colour and dash for every operation.

  Args:
    genotype: the architecture, of `space`.
    name: which of its cells.
    space: its space.
    places: {op: slot}.
    weights: {(op, source, target): probability}, of the edges where it is known.
  """
  cell_graph, edges, weights = space.graph(name), genotype.cells[name], weights or {}
  lanes = graph.lanes_of(edges)
  ports = graph.ports_of(edges, lanes)
  inputs, last = cell_graph.inputs, cell_graph.output == (cell_graph.nodes - 1,)
  names = ['in'] if inputs == 1 else [f'k−{inputs - i}' for i in range(inputs)]
  names += [str(node) for node in range(inputs, cell_graph.nodes)]
  names = [*names[:-1], 'out'] if last else [*names, 'out']
  middle = _BASE + _LANE * max(0, max(lanes.values(), default=0) - 1) + 16
  width = _GAP * (len(names) - 1) + _SIDE + 8
  height = middle + (_BUS + 14 if not last else _SIDE / 2 + 6)
  start = _SIDE / 2 + 4  # centre of the first node

  def port(node, inches):
    return start + node * _GAP + (inches - node * graph.GAP) * _SIDE / graph.NODE

  parts: list[Any] = []
  for i, (op, source, target) in enumerate(edges):
    known = weights.get((op, source, target))
    what = f'{names[source]} to {names[target]}: {op}' + ('' if known is None else f', probability {number(known, 3)}')
    x = start + (source + (target - source - 1) // 2 + 0.5) * _GAP
    if lanes[i]:
      y = middle - _BASE - _LANE * (lanes[i] - 1)
      begin, end = port(source, ports[i][0]), port(target, ports[i][1])
      d, head = _rise(begin, end, middle - _SIDE / 2, y), _arrow(end, middle - _SIDE / 2, 0, 1)
    else:
      y, begin, end = middle, start + source * _GAP + _SIDE / 2, start + target * _GAP - _SIDE / 2
      d, head, x = f'M{begin:.1f} {y:.1f}H{end - 6:.1f}', _arrow(end, y, 1, 0), x - 4
    text = palette.short(op)
    wide = len(text) * _CHAR + 14
    parts.append(tag('g', tag('title', what), tag('path', d=d, class_='line'), tag('path', d=head, class_='head'),
                     tag('rect', x=f'{x - wide / 2:.1f}', y=f'{y - 9.5:.1f}', width=f'{wide:.1f}', height=19, rx=9.5,
                         class_='pill'),
                     tag('text', text, x=f'{x:.1f}', y=f'{y + 4:.1f}', text_anchor='middle'),
                     class_=f's{places.get(op, 0)}'))
  if not last:
    parts += _collected(cell_graph.output, len(names) - 1, start, middle)
  touched = {node for _, *ends in edges for node in ends} | set(range(inputs)) | {len(names) - 1}
  for node, text in enumerate(names):
    x, out = start + node * _GAP, text == 'out'
    parts.append(tag('g', tag('rect', x=f'{x - _SIDE / 2:.1f}', y=f'{middle - _SIDE / 2:.1f}', width=_SIDE,
                              height=_SIDE, rx=8, class_='node out' if out else 'node'),
                     tag('text', text, x=f'{x:.1f}', y=f'{middle + 4:.1f}', text_anchor='middle',
                         class_='on' if out else None), class_=None if node in touched else 'loose'))
  told = '; '.join(f'{names[source]} to {names[target]}: {op}' for op, source, target in edges)
  return tag('svg', parts, viewBox=f'0 0 {width:.0f} {height:.0f}', width=f'{width:.0f}', height=f'{height:.0f}',
             role='img', aria_label=f'{heading(name).capitalize()} as a graph. {told}.')


def _collected(output, out, start, middle) -> list[Html]:
  """The line under the nodes that are concatenated, up into the output."""
  y, low, end = middle + _BUS, middle + _SIDE / 2, start + out * _GAP
  parts = [tag('path', d=_rise(start + node * _GAP, end, low, y), class_='join') for node in output]
  return [*parts, tag('path', d=_arrow(end, low, 0, -1), class_='join-head'),
          tag('text', 'concatenated', x=f'{end - _GAP / 2:.1f}', y=f'{y - 5:.1f}', text_anchor='middle', class_='tick')]


def _rise(start: float, end: float, base: float, y: float) -> str:
  """From (start, base) up or down to y, along, and back to (end, base), with round corners."""
  r = math.copysign(9, y - base)
  return (f'M{start:.1f} {base:.1f}V{y - r:.1f}Q{start:.1f} {y:.1f} {start + 9:.1f} {y:.1f}H{end - 9:.1f}'
          f'Q{end:.1f} {y:.1f} {end:.1f} {y - r:.1f}V{base + r / 2:.1f}')


def _arrow(x: float, y: float, dx: int, dy: int) -> str:
  """The head of an arrow at (x, y), pointing along (dx, dy)."""
  back, side = (x - 9 * dx, y - 9 * dy), (4 * dy, 4 * dx)
  return (f'M{x:.1f} {y:.1f}L{back[0] + side[0]:.1f} {back[1] + side[1]:.1f}L{back[0] - side[0]:.1f} '
          f'{back[1] - side[1]:.1f}Z')
