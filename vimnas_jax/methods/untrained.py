"""A small network that mixes the operations of a space, for methods that train nothing (indicators.py)."""

import dataclasses
import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.networks import layers, ops
from vimnas_jax.spaces import Space, Stage

Params = dict[str, jax.Array]


def stages(space: Space, channels: int, cut: bool) -> tuple[Stage, ...]:
  """The smallest search network of a space with every kind of cell, its stem as wide as `channels`; if `cut`, without
  what follows the first of the last kind, but for the head.
  """
  for cells in range(1, 21):
    try:
      found = tuple(dataclasses.replace(stage, channels=channels) if stage.kind == 'stem' else stage
                    for stage in space.macro(cells, channels))
    except UserError:  # it needs more cells
      continue
    seen: set[str] = set()
    for i, stage in enumerate(found):
      seen |= {stage.cell} - {''}
      if seen == set(space.cells):
        return (*found[:i + 1], found[-1]) if cut else found
  raise UserError(f'config.method.name: space {space.name!r} has no network of up to 20 cells with every kind of cell: '
                  'choose another method')


def _uncounted(x: jax.Array, weight: float) -> None:
  """The ReLUs of a stem are the same in every architecture."""


class Untrained(nn.Module):
  """The network of some `stages`. BatchNorm goes by the batch and has a scale.

  `init` gives the standard deviations that kernels start with, for `start` to draw from. `bare` leaves stem and head
  out; the input then has the width of the first cell.
  """

  space: Space
  stages: tuple[Stage, ...]
  num_classes: int = 10
  bare: bool = False

  def weight(self, name: str, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    """A kernel that starts from N(0, 2 / fan)."""
    return self.param(name, nn.initializers.constant(self.deviation(name, shape, fan_in)), shape)

  def deviation(self, name: str, shape: tuple[int, ...], fan_in: int) -> float:
    """Of a kernel: Kaiming's by its inputs where the network is bare, else by its outputs."""
    fan_out = np.prod(shape) if 'depthwise' in name else fan_in * shape[-1] / shape[-2]
    return float((2 / (fan_in if self.bare else fan_out)) ** 0.5)

  def norm(self, name: str, x: jax.Array) -> jax.Array:
    """BatchNorm of x [n, h, w, c]; its bias stays 0."""
    return ops.normalise(x) * self.param(f'{name}_scale', nn.initializers.ones, x.shape[-1:])[None, None, None]

  @nn.compact
  def __call__(self, x: jax.Array, weights: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """(Output, signs): logits [n, num_classes], or the last map if `bare`; and bool [n, many], which numbers that enter
    a ReLU are above 0. Those of operations with weight 0 count as never.

    Args:
      x: images [n, h, w, c].
      weights: {cell: mixing weights [edges, ops]}.
    """
    signs, outputs = [], (x, x)

    def entered(x, weight=1.0):
      signs.append(((x > 0) & (weight > 0)).reshape(len(x), -1))

    for index, stage in enumerate(self.stages):
      name = f'stage{index}'
      if stage.kind == 'cell':
        if self.bare and outputs[0] is outputs[1]:  # no stem has made the older input larger
          stage = dataclasses.replace(stage, shrunk=False)
        x = self._cell(name, stage, outputs, weights[stage.cell], entered)
        outputs = (outputs[-1], x)
      elif stage.kind == 'residual':
        x = self._run(name, lambda weight, norm, x=x, c=stage.channels: layers.residual(
            x, c, weight, layers.plain(norm)), x, 1.0, entered)
        outputs = (x, x)
      elif stage.kind in ('stem', 'stem0', 'stem1'):
        if not self.bare:
          x = self._run(name, lambda weight, norm, x=x, stage=stage: layers.stem(
              stage.kind, x, stage.channels, weight, norm, layers.first(norm)), x, 1.0, _uncounted)
          outputs = (outputs[-1], x) if stage.kind == 'stem1' else (x, x)
      elif not self.bare:
        if stage.norm:
          x = self.norm(name, x)
          entered(x)
          x = jax.nn.relu(x)
        x = x.mean((1, 2)) @ self.weight(f'{name}_kernel', (x.shape[-1], self.num_classes), x.shape[-1])
    return x, jnp.concatenate(signs, 1)

  def _run(self, name, f, x, weight, entered):
    """`f(weight, norm)` of x, told what enters its ReLUs: x, and what it normalises, but for the last time."""
    normed = []

    def norm(own, y):
      normed.append(self.norm(f'{name}_{own}', y))
      return normed[-1]

    y = f(lambda own, *args: self.weight(f'{name}_{own}', *args), norm)
    for z in (x, *normed[:-1]):
      entered(z, weight)
    return y

  def _cell(self, name, stage, inputs, weights, entered):
    cell, nodes = self.space.cells[stage.cell], list(inputs[-self.space.cells[stage.cell].inputs:])
    for i, x in enumerate(nodes if cell.preprocess else ()):
      width, channels = x.shape[-1], stage.channels
      entered(x)
      if stage.shrunk and i == 0:
        kernel = self.weight(f'{name}_input{i}', (2, width, channels // 2), width)
        nodes[i] = ops.factorized_reduce(x, kernel, functools.partial(self.norm, f'{name}_input{i}'))
      else:
        kernel = self.weight(f'{name}_input{i}', (width, channels), width)
        nodes[i] = self.norm(f'{name}_input{i}', jax.nn.relu(x) @ kernel)
    nodes += [0.0] * (cell.nodes - cell.inputs)
    for e, (source, target) in enumerate(cell.edges):
      stride = stage.stride if source < cell.inputs else 1
      for o, op in enumerate(cell.ops[e]):
        if op != 'none':
          nodes[target] += weights[e, o] * self._operation(f'{name}_{e}_{o}', op, nodes[source], stride, weights[e, o],
                                                           entered)
    return jnp.concatenate([nodes[i] for i in cell.output], -1)

  def _operation(self, name, op, x, stride, weight, entered):
    n, h, w, c = x.shape
    if op == 'noise':
      return jax.random.normal(jax.random.key(0), (n, -(-h // stride), -(-w // stride), c), x.dtype)
    kind = ops.named(op, self.space.own_ops)
    shapes = kind.shapes(c, stride)
    if not shapes:
      y = kind.apply(x, {}, stride, ops.normalise)
      return self.norm(name, y) if kind.pool and self.space.pool_norm else y

    def f(weight, norm):
      times = iter(range(99))
      own = {part: weight(part, (1, *shape), fan_in) for part, (shape, fan_in) in shapes.items()}
      return kind.apply(x, own, stride, lambda y: norm(f'norm{next(times)}', y))

    return self._run(name, f, x, weight, entered)


def start(net: Untrained, key: jax.Array, images: jax.Array, weights: Mapping[str, jax.Array]) -> Params:
  """Parameters at random: kernels are normal, scales 1. All are cut from one draw."""
  deviations = net.init(key, images, weights)['params']
  flat, build = jax.flatten_util.ravel_pytree(deviations)
  drawn = build(jax.random.normal(key, flat.shape, flat.dtype))
  return {name: each if name.endswith('_scale') else each * drawn[name] for name, each in deviations.items()}
