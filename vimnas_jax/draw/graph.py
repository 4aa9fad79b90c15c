"""A cell as a graph."""

import math

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path

from vimnas_jax.draw.base import FAINT, FAMILIES, INK, PALE, QUIET, TEXT, blank, family, heading, save
from vimnas_jax.errors import UserError
from vimnas_jax.spaces.types import Cell, Genotype, Space

GAP, NODE, LANE, BASE, BUS = 1.84, 0.6, 0.42, 0.66, -0.68  # inches: between nodes, node side, lanes, first lane, concat


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
  graph, edges = space.graph(name), genotype.cells[name]
  nodes, lanes = _node_names(graph), lanes_of(edges)
  top = BASE + LANE * max(0, max(lanes.values(), default=0) - 1) + 0.62  # centre of the title above the nodes'
  bottom = (-BUS if len(graph.output) > 1 else NODE / 2) + 0.6
  width, height, margin = GAP * (len(nodes) - 1) + NODE + 0.7, top + bottom + 0.25, NODE / 2 + 0.35
  figure = blank(width, height)
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set_xlim(-margin, width - margin)
  axes.set_ylim(-bottom, top + 0.25)
  axes.axis('off')
  axes.text(-NODE / 2, top, title or heading(name), fontsize=13, weight='bold', color=INK, va='center', gid='title')
  ports = ports_of(edges, lanes)
  for index, (op, source, target) in enumerate(edges):
    _edge(axes, op, source, target, lanes[index], *ports[index])
  _collect(axes, graph, len(nodes) - 1)
  touched = {node for _, *ends in edges for node in ends} | set(range(graph.inputs))
  for node, text in enumerate(nodes):
    dark, line = text == 'out', INK if node in touched or text == 'out' else FAINT  # a loose block is faint
    axes.add_patch(FancyBboxPatch((node * GAP - NODE / 2, -NODE / 2), NODE, NODE, zorder=3, edgecolor=line,
                                  linewidth=1.3, facecolor=INK if dark else PALE if node < graph.inputs else 'white',
                                  boxstyle='round,pad=0,rounding_size=0.12', gid='node'))
    axes.text(node * GAP, 0, text, fontsize=12, **TEXT | {'color': 'white' if dark else line}, zorder=5, gid='name')
  used = {family(op) for op, _, _ in edges}
  handles = [Line2D([], [], color=FAINT if kind == 'none' else line, linestyle=':' if kind == 'none' else '-',
                    linewidth=2.5, label=kind) for kind, (line, _) in FAMILIES.items() if kind in used]
  figure.legend(handles=handles, loc='lower left', ncols=max(1, len(handles)), frameon=False, fontsize=9,
                labelcolor=INK, bbox_to_anchor=(0.3 / width, 0), borderaxespad=0.25, handlelength=1.4,
                columnspacing=1.6)
  return save(figure, path)


def _node_names(graph: Cell) -> list[str]:
  inputs = ['in'] if graph.inputs == 1 else [f'$c_{{k-{graph.inputs - i}}}$' for i in range(graph.inputs)]
  names = inputs + [str(node) for node in range(graph.inputs, graph.nodes)]
  return [*names[:-1], 'out'] if graph.output == (graph.nodes - 1,) else [*names, 'out']


def lanes_of(edges) -> dict[int, int]:
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


def ports_of(edges, lanes) -> dict[int, tuple[float, float]]:
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
  axes.text(x, y, op, fontsize=8.5, **TEXT | {'color': line}, zorder=4, gid='op',
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
  axes.text((out - 0.5) * GAP, BUS, 'concatenate', fontsize=8.5, **TEXT | {'color': QUIET}, zorder=4,
            bbox={'boxstyle': 'square,pad=0.25', 'facecolor': 'white', 'edgecolor': 'none'})
