"""How large a network is and how much it computes, by arithmetic on its space: no weights are made.

An operation's share is what operation.py reads off the operation itself. Convolutions have no bias; BatchNorm, pooling,
additions and biases count as no multiply-adds.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vimnas_jax.errors import UserError
from vimnas_jax.networks import operation, ops, own_operation
from vimnas_jax.spaces.types import Genotype, Space, Stage

_FREE = ('none', 'noise')  # operations without a layer


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


@dataclasses.dataclass
class _At:
  """How far a walk through a network has come.

  Attributes:
    space: the search space.
    edges: of every cell type, [(op, source, target)].
    classes: outputs of the linear layer.
    sides: height and width of the maps, in pixels.
    widths: channels of the last two outputs, older first; at the beginning those of the image.
    partial: in how many parts a node's channels are taken, of which one goes through the operations.
    auxiliary: whether every edge has a skip connection beside its operations.
  """

  space: Space
  edges: Mapping[str, Sequence[tuple[str, int, int]]]
  classes: int
  sides: tuple[int, int]
  widths: tuple[int, ...]
  partial: int = 1
  auxiliary: bool = False

  @property
  def pixels(self) -> int:
    """Of a map."""
    return math.prod(self.sides)

  def stride(self, by: int):
    """Goes on with maps of every `by`th pixel, the first included."""
    self.sides = _strided(self.sides, by)


def _strided(sides, by: int) -> tuple[int, int]:
  height, width = sides
  return -(-height // by), -(-width // by)


def _both(image_size: int | tuple[int, int]) -> tuple[int, int]:
  return (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)


def _stem(at: _At, stage: Stage) -> Iterator[_Part]:
  c = stage.channels
  yield _Part(9 * at.widths[-1] * c, at.pixels, c, in_cell=False)
  at.widths = (c, c)


def _stem0(at, stage):
  c = stage.channels
  for before, after in ((at.widths[-1], c // 2), (c // 2, c)):
    at.stride(2)
    yield _Part(9 * before * after, at.pixels, after, in_cell=False)
  at.widths = (c,)


def _stem1(at, stage):
  c = stage.channels
  at.stride(stage.stride)
  yield _Part(9 * at.widths[-1] * c, at.pixels, c, in_cell=False)
  at.widths = (at.widths[-1], c)


def _residual(at, stage):
  c, width = stage.channels, at.widths[-1]
  halved = at.sides[0] // stage.stride, at.sides[1] // stage.stride
  at.stride(stage.stride)
  yield _Part(9 * width * c + 9 * c * c, at.pixels, 2 * c, in_cell=False)
  yield _Part(width * c, math.prod(halved), in_cell=False)
  at.widths, at.sides = (c, c), halved


def _cell(at, stage):
  c, cell = stage.channels, at.space.cells[stage.cell]
  if cell.preprocess:  # a FactorizedReduce costs what the 1x1 convolution does
    for width in at.widths[-cell.inputs:]:
      yield _Part(width * c, at.pixels, c)
  at.stride(stage.stride)
  for op, source, _ in at.edges[stage.cell]:
    yield from _operation(at.space, op, c // at.partial, stage.stride if source < cell.inputs else 1, at.pixels)
  for source, _ in cell.edges if at.auxiliary else ():
    yield from _operation(at.space, 'skip_connect', c // at.partial, stage.stride if source < cell.inputs else 1,
                          at.pixels)
  at.widths = (at.widths[-1], c * len(cell.output))


def _head(at, stage):
  width = at.widths[-1]
  yield _Part(width * at.classes, 1, width if stage.norm else 0, at.classes, in_cell=False)


_STAGES = {'stem': _stem, 'stem0': _stem0, 'stem1': _stem1, 'residual': _residual, 'cell': _cell, 'head': _head}


def _parts(space: Space, edges: dict, stages: Sequence[Stage], num_classes: int, in_channels: int,
           image_size, partial: int = 1, auxiliary: bool = False) -> Iterator[_Part]:
  """The layers of the network whose cells have `edges`: {cell: [(op, source, target)]}."""
  at = _At(space, edges, num_classes, _both(image_size), (in_channels,), partial, auxiliary)
  for stage in stages:
    yield from _STAGES[stage.kind](at, stage)


def _operation(space: Space, name: str, channels: int, stride: int, pixels: int) -> tuple[_Part, ...]:
  """The layers of an operation whose output has `pixels` pixels. Raises UserError where one of one's own is unfit."""
  if name in space.own_ops:
    own_operation.check(space.name, name, space.own_ops[name], channels, stride)
  elif name in _FREE:
    return ()
  elif name not in ops.OPS:
    raise UserError(f'the cost of op {name!r} is not known; known are {", ".join((*_FREE, *ops.OPS))}')
  return _layers(ops.named(name, space.own_ops), channels, stride, pixels)


@functools.lru_cache(4096)
def _layers(op, channels, stride, pixels):
  counted = operation.count(op, channels, stride, pixels)
  return *(_Part(size, uses) for size, uses in counted.weights), _Part(0, 0, counted.norms)


def count(space: Space, genotype: Genotype, *, cells: int, channels: int, num_classes: int,
          image_size: int | tuple[int, int] = 32, in_channels: int = 3, imagenet: bool = False) -> Cost:
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
    image_size: (height, width) of the images in pixels, or the one number that both are.
    in_channels: channels of the images.
    imagenet: whether the network is the one for ImageNet.
  """
  space.validate(genotype)
  stages = space.stages(cells, channels, imagenet=imagenet, side=min(_both(image_size)))
  return _total(_parts(space, genotype.cells, stages, num_classes, in_channels, image_size))


class Place(NamedTuple):
  """Where an operation of a cell stands: width and (height, width) of the maps that it takes, and its stride."""

  op: str
  channels: int
  sides: tuple[int, int]
  stride: int


class Shares(NamedTuple):
  """What every part of a network adds to its cost: an architecture costs `fixed` and the rows of what it keeps.

  Attributes:
    fixed: what all architectures have: stem, preprocessing, residual blocks, head.
    rows: {cell: [edges][ops]}, of an operation on an edge, in all cells of that type together.
    places: {cell: [edges][ops]}, where these stand, one for each of the cells.
  """

  fixed: Cost
  rows: Mapping[str, tuple[tuple[Cost, ...], ...]]
  places: Mapping[str, tuple[tuple[tuple[Place, ...], ...], ...]]


def shares(space: Space, *, cells: int, channels: int, num_classes: int, image_size: int | tuple[int, int] = 32,
           in_channels: int = 3, imagenet: bool = False) -> Shares:
  """How the cost of a network is made up; arguments and errors as those of `count`, whose figures these add up to."""
  at = _At(space, dict.fromkeys(space.cells, ()), num_classes, _both(image_size), (in_channels,))
  fixed: list[_Part] = []
  stages = []  # (cell, channels, sides, stride) of every cell
  for stage in space.stages(cells, channels, imagenet=imagenet, side=min(at.sides)):
    if stage.kind == 'cell':
      stages.append((stage.cell, stage.channels, at.sides, stage.stride))
    fixed += _STAGES[stage.kind](at, stage)
  rows, places = {}, {}
  for name, cell in space.cells.items():
    places[name] = tuple(tuple(tuple(
        Place(op, width, *((sides, stride) if source < cell.inputs else (_strided(sides, stride), 1)))
        for kind, width, sides, stride in stages if kind == name) for op in names)
        for (source, _), names in zip(cell.edges, cell.ops))
    rows[name] = tuple(tuple(_total(
        part for place in of
        for part in _operation(space, place.op, place.channels, place.stride,
                               math.prod(_strided(place.sides, place.stride))))
        for of in edge) for edge in places[name])
  return Shares(_total(fixed), rows, places)


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


def supernet(space: Space, *, cells: int, channels: int, num_classes: int, in_channels: int = 3,
             partial: int = 1, auxiliary: bool = False) -> int:
  """Number of weights theta of the search network, with every candidate operation on every edge.

  BatchNorm inside cells has no parameters; that of the stem, of residual blocks and of the head has. In the one-shot
  network of NAS-Bench-1Shot1 all have but the last. The architecture parameters are not counted. (The NAS-Bench-201
  authors' own supernet gives its convolutions biases; this one has none.) `partial` and `auxiliary` are those of
  Supernet.
  """
  parts = _supernet(space, cells, channels, num_classes, in_channels, 2, partial, auxiliary)
  if space.topology:
    return _total(parts).params
  return sum(part.weights + part.biases + (0 if part.in_cell else 2 * part.norms) for part in parts)


def supernet_madds(space: Space, *, cells: int, channels: int, num_classes: int,
                   image_size: int | tuple[int, int] = 32, in_channels: int = 3, partial: int = 1,
                   auxiliary: bool = False) -> int:
  """Multiply-adds of the search network for one image, with every candidate operation on every edge."""
  return _total(_supernet(space, cells, channels, num_classes, in_channels, image_size, partial, auxiliary)).madds


def _supernet(space, cells, channels, num_classes, in_channels, size, partial=1, auxiliary=False):
  stages = space.macro(cells, channels)
  if space.topology:
    return _oneshot(space, stages, num_classes, in_channels, size)
  edges = {name: [(op, *edge) for edge, ops in zip(cell.edges, cell.ops) for op in ops]
           for name, cell in space.cells.items()}
  return _parts(space, edges, stages, num_classes, in_channels, size, partial, auxiliary)


def _oneshot(space: Space, stages: Sequence[Stage], num_classes: int, in_channels: int, size) -> Iterator[_Part]:
  """The layers of the one-shot network of a space whose graph is searched."""
  at = _At(space, {}, num_classes, _both(size), (in_channels,))
  for stage in stages:
    yield from _ONESHOT[stage.kind](at, stage)


def _pool(at, stage):
  del stage
  at.sides = at.sides[0] // 2 + 1, at.sides[1] // 2 + 1
  yield from ()


def _stack(at, stage):
  c, width, blocks = stage.channels, at.widths[-1], at.space.topology.blocks
  yield _Part(2 * blocks * width * c, at.pixels, 2 * blocks * c)  # into the blocks, and past them
  yield _Part(blocks * (9 + 1) * c * c, at.pixels, 2 * blocks * c)
  at.widths = (blocks * c,)


def _classifier(at, stage):
  yield _Part(at.widths[-1] * stage.channels, at.pixels)
  yield _Part(stage.channels * at.classes, 1, biases=at.classes)


_ONESHOT = {'stem': _stem, 'pool': _pool, 'cell': _stack, 'head': _classifier}
