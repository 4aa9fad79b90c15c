"""A search space of one's own: cells of two nodes and three edges, four operations each.

  python -m vimnas_jax.main --config=configs/quickstart.py --config.space.name=examples/two_nodes.py --workdir=runs/own
"""

from vimnas_jax.spaces import Cell, Stage, custom

OPS = ('skip_connect', 'nor_conv_3x3', 'sep_conv_3x3', 'max_pool_3x3')
EDGES = ((0, 1), (0, 2), (1, 2))  # node 0 is the cell's input


def macro(cells, channels):
  """Two groups of cells, the second at half the resolution and twice the width."""
  group = [Stage('cell', channels, cell='cell')] * cells
  wide = [Stage('cell', 2 * channels, cell='cell')] * cells
  return (Stage('stem', channels), *group, Stage('residual', 2 * channels, stride=2), *wide, Stage('head', norm=True))


def make():
  """The space."""
  return custom.space({'cell': Cell(inputs=1, edges=EDGES, ops=(OPS,) * len(EDGES), output=(2,))}, macro)
