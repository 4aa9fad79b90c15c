r"""An operation of one's own, in a search space that has it: a separable convolution with squeeze-and-excitation.

Hu et al., Squeeze-and-Excitation Networks, CVPR 2018: the mean of every channel over the map goes through two linear
layers, the first to a quarter of the channels, and what a sigmoid makes of it scales the channels.

  python -m vimnas_jax.main --config=configs/quickstart.py --config.space.name=examples/own_operation.py \
      --config.then=retrain --config.then_changes='epochs=10 batch_size=64' --workdir=runs/own_operation
  python -m vimnas_jax.main --config=configs/quickstart.py --config.task=evaluate \
      --config.genotype=runs/own_operation/retrain --config.trust=examples/own_operation.py \
      --workdir=runs/own_operation_evaluation
"""

import jax
import jax.numpy as jnp

from vimnas_jax.networks import ops
from vimnas_jax.spaces import Cell, Stage, custom


def shapes(c, stride):
  """{parameter: (shape, fan-in)} of one edge; all begin uniform within 1 / sqrt(fan-in)."""
  del stride
  inner = max(1, c // 4)
  return {'depthwise': ((3, 3, c), 9), 'pointwise': ((c, c), c), 'squeeze': ((c, inner), c),
          'excite': ((inner, c), inner)}


def uses(parameter, stride, pixels):
  """How often each number of a parameter is multiplied for one image: multiply-adds are counted by it."""
  del stride
  return 1 if parameter in ('squeeze', 'excite') else pixels


@ops.per_edge
def apply(x, p, stride, norm):
  """X [n, h, w, c] -> [n, h / stride, w / stride, c], by the parameters p of one edge; `norm` is BatchNorm."""
  y = norm(ops.depthwise(jax.nn.relu(x), p['depthwise'], stride) @ p['pointwise'])
  gates = jax.nn.sigmoid(jax.nn.relu(jnp.mean(y, (1, 2)) @ p['squeeze']) @ p['excite'])
  return y * gates[:, None, None]


OPERATIONS = {'se_conv_3x3': ops.Op(shapes, apply, uses=uses)}
EDGES = ((0, 1), (0, 2), (1, 2))  # node 0 is the cell's input


def macro(cells, channels):
  """Two groups of cells, the second at half the resolution and twice the width."""
  group = [Stage('cell', channels, cell='cell')] * cells
  wide = [Stage('cell', 2 * channels, cell='cell')] * cells
  return (Stage('stem', channels), *group, Stage('residual', 2 * channels, stride=2), *wide, Stage('head', norm=True))


def make():
  """The space."""
  candidates = ('skip_connect', 'nor_conv_3x3', 'se_conv_3x3')
  cell = Cell(inputs=1, edges=EDGES, ops=(candidates,) * len(EDGES), output=(2,))
  return custom.space({'cell': cell}, macro, operations=OPERATIONS)
