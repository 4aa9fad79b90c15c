"""What an operation is, and what follows from it: its parameters, the maps it normalises, its multiply-adds."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp


def once_a_pixel(name: str, stride: int, pixels: int) -> int:
  """How often a convolution uses each of its weights, whose output has `pixels` pixels."""
  del name, stride
  return pixels


@dataclasses.dataclass(frozen=True)
class Op:
  """A candidate operation.

  Attributes:
    shapes: `shapes(channels, stride)` gives each parameter's (shape, fan-in) for one edge.
    apply: `apply(x [n, h, w, c], params stacked over m edges, stride, norm)` gives [n, h, w, m * c]; an operation
      without parameters gives [n, h, w, c], the same for every edge. `norm(y)` is called once per BatchNorm, in order.
    pool: whether it is a pooling operation, which some spaces follow by BatchNorm.
    uses: `uses(parameter, stride, pixels)` gives how often each of the parameter's numbers is multiplied for one image,
      where the output has `pixels` pixels: as often for a convolution there, once for a linear layer of the whole map,
      0 for a bias.
  """

  shapes: Callable[[int, int], Mapping[str, tuple[tuple[int, ...], int]]]
  apply: Callable[..., jax.Array]
  pool: bool = False
  uses: Callable[[str, int, int], int] = once_a_pixel


class Count(NamedTuple):
  """Of an operation on one edge: (numbers, times each is used) of every parameter, and channels that are normalised."""

  weights: tuple[tuple[int, int], ...]
  norms: int


@functools.lru_cache(4096)
def count(op: Op, channels: int, stride: int, pixels: int) -> Count:
  """What `op` has and does on one edge of `channels`, where its output has `pixels` pixels."""
  return Count(tuple((math.prod(shape), op.uses(name, stride, pixels))
                     for name, (shape, _) in op.shapes(channels, stride).items()), _normed(op, channels, stride))


@functools.lru_cache(4096)
def _normed(op, channels, stride) -> int:
  """Channels that pass a BatchNorm: `apply` is traced, which computes nothing, and says so itself."""
  widths = []

  def norm(y):
    widths.append(y.shape[-1])
    return y

  trace(op, channels, stride, norm)
  return sum(widths)


def trace(op: Op, channels: int, stride: int, norm, edges: int = 1, dtype=jnp.float32, sides=(8, 8),
          through=lambda apply, *args: apply(*args)):
  """The shape and type of what `op` gives for `edges` edges, of one image with maps of `sides`; or of what
  `through(apply, x, params)` makes of it.
  """
  params = {name: jax.ShapeDtypeStruct((edges, *shape), dtype)
            for name, (shape, _) in op.shapes(channels, stride).items()}
  x = jax.ShapeDtypeStruct((1, *sides, channels), dtype)
  return jax.eval_shape(functools.partial(through, lambda x, params: op.apply(x, params, stride, norm)), x, params)
