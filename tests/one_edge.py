"""The smallest space that has all a search needs: one cell of one edge, with two operations; it compiles soonest."""

from vimnas_jax.spaces import Cell, Stage, custom


def macro(cells, channels):
  return Stage('stem', channels), *[Stage('cell', channels, cell='cell')] * cells, Stage('head', norm=True)


def make():
  return custom.space({'cell': Cell(inputs=1, edges=((0, 1),), ops=(('skip_connect', 'nor_conv_3x3'),), output=(1,))},
                      macro)
