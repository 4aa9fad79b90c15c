"""Pictures of cells, of architecture weights over time and of feature maps; matplotlib alone, without a display.

Every function writes a file (its suffix names the format) and returns the figure. Nothing global is touched: no
pyplot, no rcParams. Artists that stand for data carry a gid, by which tests find them.
"""

import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path

from vimnas_jax.errors import UserError
from vimnas_jax.spaces.types import Cell, Genotype, Space

DPI = 120
INK, QUIET, FAINT, PALE = '#1f2933', '#7b8794', '#cbd2d9', '#eceff2'

# family of ops -> (line, fill) in `cell`; hues that stay apart for colour-blind readers
FAMILIES = {'separable': ('#1f5fa8', '#dce9f7'), 'dilated': ('#8e3b8a', '#f3e1f2'),
            'convolution': ('#1f5fa8', '#dce9f7'), 'pooling': ('#b86a00', '#fcebd0'), 'skip': ('#1d7a46', '#dbf1e3'),
            'none': (QUIET, 'white'), 'other': (INK, PALE)}
_PREFIXES = {'sep_': 'separable', 'dil_': 'dilated', 'nor_': 'convolution', 'conv': 'convolution',
             'max_': 'pooling', 'avg_': 'pooling', 'skip': 'skip', 'none': 'none'}
# op -> its line in `weights`: the family's hue, dark for the smaller kernel
_COLORS = {'none': '#9aa5b1', 'max_pool_3x3': '#8c4a00', 'avg_pool_3x3': '#f0a030', 'skip_connect': '#1d9a50',
           'sep_conv_3x3': '#12407a', 'sep_conv_5x5': '#56a0e8', 'dil_conv_3x3': '#7a1f76', 'dil_conv_5x5': '#e078d0',
           'nor_conv_1x1': '#56a0e8', 'nor_conv_3x3': '#12407a'}
_SPARE = ('#d62728', '#17becf', '#bcbd22', '#5f4b3a')
GAP, NODE, LANE, BASE, BUS = 1.84, 0.6, 0.42, 0.66, -0.68  # inches: between nodes, node side, lanes, first lane, concat
_TEXT = {'ha': 'center', 'va': 'center', 'color': INK}


def family(op: str) -> str:
  """The family, a key of FAMILIES, that gives an op its colour."""
  return next((name for prefix, name in _PREFIXES.items() if op.startswith(prefix)), 'other')


def _figure(width: float, height: float) -> Figure:
  figure = Figure(figsize=(width, height), dpi=DPI, facecolor='white')
  FigureCanvasAgg(figure)
  return figure


def _save(figure: Figure, path) -> Figure:
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=DPI)
  return figure


def _heading(name: str) -> str:
  return 'cell' if name == 'cell' else f'{name} cell'


def cell(genotype: Genotype, name: str, space: Space, path, title: str = '') -> Figure:
  """Draws one cell of an architecture as a graph, from left to right.

  Nodes stand in a row. An edge to the next node is straight; a longer one rises to a lane of its own, so that neither
  labels nor lanes meet. Below, a line collects the nodes that are concatenated to the output. Edges with op `none` are
  dotted.

  Args:
    genotype: the architecture.
    name: which of its cells.
    space: its space.
    path: the file to write.
    title: what to write above it; by default the name of the cell.

  Raises:
    UserError: if there is no such cell, or the genotype is not of this space.
  """
  space.validate(genotype)
  if name not in space.cells:
    raise UserError(f'space {space.name!r} has no cell {name!r}; it has {", ".join(space.cells)}')
  graph, edges = space.cells[name], genotype.cells[name]
  nodes, lanes = _node_names(graph), _lanes(edges)
  top = BASE + LANE * max(0, max(lanes.values(), default=0) - 1) + 0.62  # centre of the title above the nodes'
  bottom = (-BUS if len(graph.output) > 1 else NODE / 2) + 0.6
  width, height, margin = GAP * (len(nodes) - 1) + NODE + 0.7, top + bottom + 0.25, NODE / 2 + 0.35
  figure = _figure(width, height)
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set_xlim(-margin, width - margin)
  axes.set_ylim(-bottom, top + 0.25)
  axes.axis('off')
  axes.text(-NODE / 2, top, title or _heading(name), fontsize=13, weight='bold', color=INK, va='center', gid='title')
  ports = _ports(edges, lanes)
  for index, (op, source, target) in enumerate(edges):
    _edge(axes, op, source, target, lanes[index], *ports[index])
  _collect(axes, graph, len(nodes) - 1)
  for node, text in enumerate(nodes):
    dark = text == 'out'
    axes.add_patch(FancyBboxPatch((node * GAP - NODE / 2, -NODE / 2), NODE, NODE, zorder=3, edgecolor=INK,
                                  linewidth=1.3, facecolor=INK if dark else PALE if node < graph.inputs else 'white',
                                  boxstyle='round,pad=0,rounding_size=0.12', gid='node'))
    axes.text(node * GAP, 0, text, fontsize=12, **_TEXT | {'color': 'white' if dark else INK}, zorder=5, gid='name')
  used = {family(op) for op, _, _ in edges}
  handles = [Line2D([], [], color=FAINT if kind == 'none' else line, linestyle=':' if kind == 'none' else '-',
                    linewidth=2.5, label=kind) for kind, (line, _) in FAMILIES.items() if kind in used]
  figure.legend(handles=handles, loc='lower left', ncols=max(1, len(handles)), frameon=False, fontsize=9,
                labelcolor=INK, bbox_to_anchor=(0.3 / width, 0), borderaxespad=0.25, handlelength=1.4,
                columnspacing=1.6)
  return _save(figure, path)


def _node_names(graph: Cell) -> list[str]:
  inputs = ['in'] if graph.inputs == 1 else [f'$c_{{k-{graph.inputs - i}}}$' for i in range(graph.inputs)]
  names = inputs + [str(node) for node in range(graph.inputs, graph.nodes)]
  return [*names[:-1], 'out'] if graph.output == (graph.nodes - 1,) else [*names, 'out']


def _lanes(edges) -> dict[int, int]:
  """Edge index -> lane: 0 is straight, others rise; edges whose spans overlap never share one, longer are higher."""
  lanes, taken = {}, {}
  for index in sorted(range(len(edges)), key=lambda i: (edges[i][2] - edges[i][1], -edges[i][1])):
    _, source, target = edges[index]
    lane = 0 if target - source == 1 else 1
    while any(source < b and a < target for a, b in taken.get(lane, [])):
      lane += 1
    taken.setdefault(lane, []).append((source, target))
    lanes[index] = lane
  return lanes


def _ports(edges, lanes) -> dict[int, tuple[float, float]]:
  """Edge index -> x of its start and its end on the top sides of its nodes: arrivals left, departures right.

  Of the departures the highest lane is leftmost, of the arrivals rightmost, so that nested lanes do not cross.
  """
  starts, ends = {}, {}
  for node in {n for _, source, target in edges for n in (source, target)}:
    arrive = sorted((i for i in lanes if lanes[i] and edges[i][2] == node), key=lanes.get)
    depart = sorted((i for i in lanes if lanes[i] and edges[i][1] == node), key=lambda i: -lanes[i])
    order = arrive + depart
    step = min(0.15, (NODE - 0.14) / max(1, len(order) - 1))
    for place, i in enumerate(order):
      (ends if place < len(arrive) else starts)[i] = node * GAP + (place - (len(order) - 1) / 2) * step
  return {i: (starts.get(i, 0), ends.get(i, 0)) for i in lanes}


def _rise(start, end, base, y) -> Path:
  """From (start, base) up or down to y, along, and back to just before (end, base), with round corners."""
  r = math.copysign(0.13, y - base)
  points = [(start, base), (start, y - r), (start, y), (start + 0.13, y), (end - 0.13, y), (end, y), (end, y - r),
            (end, base + r / 2)]
  return Path(points, [Path.MOVETO, Path.LINETO, *[Path.CURVE3] * 2, Path.LINETO, *[Path.CURVE3] * 2, Path.LINETO])


def _edge(axes, op, source, target, lane, start, end):
  line, fill = FAMILIES[family(op)]
  x, y = (source + (target - source - 1) // 2 + 0.5) * GAP, 0.0  # the label: between nodes, where no edge rises
  if lane:
    y = BASE + LANE * (lane - 1)
    path, head = _rise(start, end, NODE / 2, y), (end, NODE / 2, 0, -1)
  else:
    path = Path([(source * GAP + NODE / 2, 0), (target * GAP - NODE / 2 - 0.07, 0)])
    head, x = (target * GAP - NODE / 2, 0, 1, 0), x - 0.065  # midway between node and arrow head
  stroke, dash = (FAINT, (0, (1, 2))) if family(op) == 'none' else (line, '-')
  axes.add_patch(PathPatch(path, fill=False, edgecolor=stroke, linewidth=1.5, linestyle=dash, zorder=1, gid='edge'))
  _arrow(axes, *head, stroke)
  axes.text(x, y, op, fontsize=8.5, **_TEXT | {'color': line}, zorder=4, gid='op',
            bbox={'boxstyle': 'round,pad=0.3,rounding_size=0.5', 'facecolor': fill, 'edgecolor': stroke,
                  'linewidth': 0.9, 'linestyle': dash})


def _arrow(axes, x, y, dx, dy, color):
  back, side = (x - 0.13 * dx, y - 0.13 * dy), (0.055 * dy, 0.055 * dx)
  axes.add_patch(Polygon([(x, y), (back[0] + side[0], back[1] + side[1]), (back[0] - side[0], back[1] - side[1])],
                         closed=True, facecolor=color, edgecolor='none', zorder=2))


def _collect(axes, graph: Cell, out: int):
  """The line under the nodes that are concatenated, up into the output; none if the output is one of the nodes."""
  if out < graph.nodes:
    return
  for node in graph.output:
    axes.add_patch(PathPatch(_rise(node * GAP, out * GAP, -NODE / 2, BUS), fill=False, edgecolor=QUIET, linewidth=1.2,
                             zorder=1, gid='concat'))
  _arrow(axes, out * GAP, -NODE / 2, 0, 1, QUIET)
  axes.text((out - 0.5) * GAP, BUS, 'concatenate', fontsize=8.5, **_TEXT | {'color': QUIET}, zorder=4,
            bbox={'boxstyle': 'square,pad=0.25', 'facecolor': 'white', 'edgecolor': 'none'})


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
  spare = itertools.cycle(_SPARE)
  colors = {op: _COLORS.get(op) or next(spare) for op in ops}
  width = max(1.72 * columns + 0.9, 5.0)
  legend_rows = math.ceil(len(ops) / int(width / 1.4))
  foot = 0.24 * legend_rows + 0.75  # legend, name and numbers of the axis
  height = 1.5 * rows + foot + 0.1
  figure = _figure(width, height)
  grid = figure.add_gridspec(rows, columns, left=0.68 / width, right=1 - 0.2 / width, top=1 - 0.32 / height,
                             bottom=foot / height, wspace=0.16, hspace=0.42)
  row, last = 0, list(space.cells)[-1]
  for name, graph in space.cells.items():
    for e, (source, target) in enumerate(graph.edges):
      axes = figure.add_subplot(grid[row + e // columns, e % columns])
      for o, op in enumerate(graph.ops[e]):
        axes.plot(steps, probs[name][:, e, o], color=colors[op], linewidth=1.4, marker='.' if len(steps) < 2 else '')
      _panel(axes, f'{name} {source}->{target}', steps, left=e % columns == 0,
             lowest=name == last and e + columns >= len(graph.edges))
    row += math.ceil(len(graph.edges) / columns)
  figure.text(0.5 + 0.24 / width, (foot - 0.4) / height, 'search step', fontsize=10, **_TEXT)
  figure.text(0.2 / width, 0.5 + (foot - 0.32) / 2 / height, 'probability', fontsize=10, rotation=90, **_TEXT)
  figure.legend(handles=[Line2D([], [], color=colors[op], linewidth=2.2, label=op) for op in ops], loc='lower center',
                ncols=math.ceil(len(ops) / legend_rows), frameon=False, fontsize=9, labelcolor=INK, handlelength=1.3,
                columnspacing=1.5, borderaxespad=0.2)
  return _save(figure, path)


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
  figure, image = _figure(width, height), None
  for row, (text, maps) in enumerate({'before': before, 'after': after}.items()):
    y, x = height - top - row * (sum(tall) + gap), left
    figure.text(0.3 / width, (y - sum(tall) / 2) / height, text, fontsize=12, weight='bold', rotation=90, **_TEXT)
    for name, (_, edges, ops) in shapes.items():
      if row == 0:
        figure.text((x + (wide[name] - 0.14) / 2) / width, 1 - 0.2 / height, _heading(name), fontsize=12,
                    weight='bold', **_TEXT)
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
  return _save(figure, path)
