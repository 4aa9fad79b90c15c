"""How large a network is and how much it computes, by arithmetic on its space: no weights are made.

Convolutions have no bias. Every convolution of an operation works at the operation's output resolution, so its
multiply-adds are its weights times the output pixels (the first half of a conv_7x1_1x7 of stride 2 has twice as many);
BatchNorm, pooling, additions and biases count as none.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vimnas_jax.errors import UserError
from vimnas_jax.spaces.types import Genotype, Space, Stage


class Cost(NamedTuple):
  """`params`: trainable numbers. `madds`: multiply-adds of convolutions and linear layers for one image."""

  params: int
  madds: int


class _Part(NamedTuple):
  weights: int  # of convolutions and linear layers
  pixels: int  # places at which each weight is used
  norms: int = 0  # channels that pass a BatchNorm
  biases: int = 0
  in_cell: bool = True


def _separable(kernel: int, times: int):
  """Depthwise kernel x kernel, then pointwise, then BatchNorm: `times` times."""
  return lambda c, stride: (times * (kernel * kernel * c + c * c), times * c)


def _dense(kernel: int):
  return lambda c, stride: (kernel * kernel * c * c, c)


def _free(c, stride):
  return 0, 0


# op -> f(channels, stride) = (convolution weights, channels normalised)
_OPS = {
    'none': _free,
    'noise': _free,
    'max_pool_3x3': _free,
    'avg_pool_3x3': _free,
    'skip_connect': lambda c, stride: (0, 0) if stride == 1 else (c * c, c),  # FactorizedReduce: two halves
    'sep_conv_3x3': _separable(3, 2),
    'sep_conv_5x5': _separable(5, 2),
    'dil_conv_3x3': _separable(3, 1),
    'dil_conv_5x5': _separable(5, 1),
    'nor_conv_1x1': _dense(1),
    'nor_conv_3x3': _dense(3),
    'sep_conv_7x7': _separable(7, 2),
    'conv_7x1_1x7': lambda c, stride: (14 * c * c, c),
}


def _parts(space: Space, edges: dict, stages: Sequence[Stage], num_classes: int, in_channels: int,
           size: int) -> Iterator[_Part]:
  """The layers of the network whose cells have `edges`: {cell: [(op, source, target)]}; `size` is the image's side."""
  widths = ()
  for stage in stages:
    c = stage.channels
    if stage.kind == 'stem':
      yield _Part(9 * in_channels * c, size * size, c, in_cell=False)
      widths = (c, c)
    elif stage.kind == 'stem0':
      for before, after in ((in_channels, c // 2), (c // 2, c)):
        size = -(-size // 2)
        yield _Part(9 * before * after, size * size, after, in_cell=False)
      widths = (c,)
    elif stage.kind == 'stem1':
      size = -(-size // stage.stride)
      yield _Part(9 * widths[-1] * c, size * size, c, in_cell=False)
      widths = (widths[-1], c)
    elif stage.kind == 'residual':
      reduced, halved = -(-size // stage.stride), size // stage.stride
      yield _Part(9 * widths[-1] * c + 9 * c * c, reduced * reduced, 2 * c, in_cell=False)
      yield _Part(widths[-1] * c, halved * halved, in_cell=False)
      widths, size = (c, c), halved
    elif stage.kind == 'cell':
      cell = space.cells[stage.cell]
      if cell.preprocess:  # a FactorizedReduce costs what the 1x1 convolution does
        for width in widths[-cell.inputs:]:
          yield _Part(width * c, size * size, c)
      size = -(-size // stage.stride)
      for op, source, _ in edges[stage.cell]:
        stride = stage.stride if source < cell.inputs else 1
        weights, norms = _op(op)(c, stride)
        if op == 'conv_7x1_1x7':
          yield _Part(weights // 2, stride * size * size)
          weights //= 2
        yield _Part(weights, size * size, norms)
      widths = (widths[-1], c * len(cell.output))
    else:
      width = widths[-1]
      yield _Part(width * num_classes, 1, width if stage.norm else 0, num_classes, in_cell=False)


def _op(name: str):
  if name not in _OPS:
    raise UserError(f'the cost of op {name!r} is not known; known are {", ".join(_OPS)}')
  return _OPS[name]


def count(space: Space, genotype: Genotype, *, cells: int, channels: int, num_classes: int, image_size: int = 32,
          in_channels: int = 3, imagenet: bool = False) -> Cost:
  """Parameters and multiply-adds of the network that `genotype` stands for, as it is trained and evaluated.

  BatchNorm has scale and bias everywhere; the auxiliary head, which only training uses, is left out. The published
  DARTS figures are for cells=20, channels=36, on ImageNet for cells=14, channels=48, image_size=224; those of
  NAS-Bench-201 for cells=5, channels=16. Raises UserError if the genotype is not of this space, or the images are too
  small for it.

  Args:
    space: the search space.
    genotype: one of its architectures.
    cells: number of cells (DARTS) or cells per group (NAS-Bench-201), as in `space.macro`.
    channels: width of the first cell, as in `space.macro`.
    num_classes: outputs of the linear layer.
    image_size: height and width of the images, in pixels.
    in_channels: channels of the images.
    imagenet: whether the network is the one for ImageNet.
  """
  space.validate(genotype)
  stages = space.stages(cells, channels, imagenet=imagenet, side=image_size)
  return _total(_parts(space, genotype.cells, stages, num_classes, in_channels, image_size))


def auxiliary(space: Space, *, cells: int, channels: int, num_classes: int, imagenet: bool = False,
              norm: bool | None = None) -> Cost:
  """The auxiliary head on top of `count`, which only training has; arguments as there, `norm` as
  `network.Network.auxiliary_norm`. Raises UserError if the space has none.
  """
  for stage in space.stages(cells, channels, imagenet=imagenet):
    if stage.auxiliary:
      width, last = stage.channels * len(space.cells[stage.cell].output), not imagenet if norm is None else norm
      return _total([_Part(128 * width, 4, 128), _Part(4 * 128 * 768, 1, 768 * last),
                     _Part(768 * num_classes, 1, biases=num_classes)])
  raise UserError(f'space {space.name!r} has no auxiliary head: set auxiliary=False')


def _total(parts):
  parts = tuple(parts)
  return Cost(sum(part.weights + 2 * part.norms + part.biases for part in parts),
              sum(part.weights * part.pixels for part in parts))


def supernet(space: Space, *, cells: int, channels: int, num_classes: int, in_channels: int = 3) -> int:
  """Number of weights theta of the search network, with every candidate operation on every edge.

  BatchNorm inside cells has no parameters; that of the stem, of residual blocks and of the head has. In the one-shot
  network of NAS-Bench-1Shot1 all have but the last. The architecture parameters are not counted. (The NAS-Bench-201
  authors' own supernet gives its convolutions biases; this one has none.)
  """
  parts = _supernet(space, cells, channels, num_classes, in_channels, 2)
  if space.topology:
    return _total(parts).params
  return sum(part.weights + part.biases + (0 if part.in_cell else 2 * part.norms) for part in parts)


def supernet_madds(space: Space, *, cells: int, channels: int, num_classes: int, image_size: int = 32,
                   in_channels: int = 3) -> int:
  """Multiply-adds of the search network for one image, with every candidate operation on every edge."""
  return _total(_supernet(space, cells, channels, num_classes, in_channels, image_size)).madds


def _supernet(space, cells, channels, num_classes, in_channels, size):
  stages = space.macro(cells, channels)
  if space.topology:
    return _oneshot(space, stages, num_classes, in_channels, size)
  edges = {name: [(op, *edge) for edge, ops in zip(cell.edges, cell.ops) for op in ops]
           for name, cell in space.cells.items()}
  return _parts(space, edges, stages, num_classes, in_channels, size)


def _oneshot(space: Space, stages: Sequence[Stage], num_classes: int, in_channels: int, size: int) -> Iterator[_Part]:
  """The layers of the one-shot network of a space whose graph is searched; `size` is the image's side."""
  width, blocks = in_channels, space.topology.blocks
  for stage in stages:
    c = stage.channels
    if stage.kind == 'stem':
      yield _Part(9 * width * c, size * size, c)
      width = c
    elif stage.kind == 'pool':
      size = size // 2 + 1
    elif stage.kind == 'cell':
      yield _Part(2 * blocks * width * c, size * size, 2 * blocks * c)  # into the blocks, and past them
      yield _Part(blocks * (9 + 1) * c * c, size * size, 2 * blocks * c)
      width = blocks * c
    elif stage.kind == 'head':
      yield _Part(width * c, size * size)
      yield _Part(c * num_classes, 1, biases=num_classes)
