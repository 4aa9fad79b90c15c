"""The network of a genotype: what is trained to the end and evaluated, an ordinary image classifier.

Unlike the supernet, BatchNorm has scale and bias everywhere and keeps running statistics (of biased variances), and
none follows a pool. Evaluation networks of Liu et al., DARTS (ICLR 2019), for CIFAR and ImageNet; of Dong and Yang,
NAS-Bench-201 (ICLR 2020), as benchmarked.
"""

import itertools
import numbers
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from vimnas_jax.errors import UserError
from vimnas_jax.networks import initial, layers, mixing, ops
from vimnas_jax.spaces import Cell, Genotype, Space, Stage

MOMENTUM = 0.9  # of the running statistics: 0.1 in PyTorch's words


def drop_path(key, rate, shape):
  """Factors for paths, float32 of `shape`: 0 with probability `rate` in [0, 1), else 1 / (1 - rate)."""
  keep = 1.0 - jnp.asarray(rate, jnp.float32)
  return jax.random.bernoulli(key, keep, shape) / keep


class FusedNorm(nn.Module):
  """A convolution in the CPU's kernels and BatchNorm behind it; variables are those of `nn.BatchNorm`."""

  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, weights, window, train):
    """X [n, h, w, c], and weights and window as cpu/normed.py takes them -> [n, h', w', d]."""
    shape, normed = weights[-1].shape[-1:], mixing.normed()
    affine = [self.param(name, make, shape, self.param_dtype)
              for name, make in (('scale', nn.initializers.ones), ('bias', nn.initializers.zeros))]
    running = [self.variable('batch_stats', name, make, shape, self.param_dtype)
               for name, make in (('mean', jnp.zeros), ('var', jnp.ones))]
    if not train:
      return normed.evaluated(x, weights, window, *affine, ops.BN_EPS, *(held.value for held in running))
    y, *found = normed.trained(x, weights, window, *affine, ops.BN_EPS)
    for held, new in () if self.is_initializing() else zip(running, found):
      held.value = MOMENTUM * held.value + (1 - MOMENTUM) * new
    return y


class _Module(nn.Module):
  """What all parts share: parameters in `param_dtype`, used in `dtype`; statistics in float32 or wider.

  With `kernels` convolutions and their BatchNorm run in the CPU's kernels where those fit. Such a program is for this
  machine alone, and an evaluation has no gradient in it.
  """

  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32
  kernels: bool = False

  def kinds(self):
    """The fields that a part hands on to its own parts."""
    return {'dtype': self.dtype, 'param_dtype': self.param_dtype, 'kernels': self.kernels}

  def weight(self, name, shape, fan_in):
    """A parameter with PyTorch's default initialisation, cast to the compute type."""
    return self.param(name, initial.fan_in_uniform(fan_in), shape, self.param_dtype).astype(self.dtype)

  def batch_norm(self, train):
    """`f(name, x [..., c])`, BatchNorm by the batch's statistics in training, by the running ones else."""
    return lambda name, x: nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=ops.BN_EPS,
                                        dtype=self.dtype, param_dtype=self.param_dtype, name=name)(x)

  def fused(self, channels, width):
    """The CPU's kernels, if convolutions from `channels` to `width` run in them, else None."""
    found = mixing.normed() if self.kernels and not self.is_initializing() else None
    return found if found and self.dtype == self.param_dtype and found.fits(channels, width, self.dtype) else None

  def first(self, train):
    """`f(name, x [n, h, w, c], kernel [k, k, c, d], stride)`, the convolution of an image and the BatchNorm `name`."""
    def run(name, x, kernel, stride):
      if found := self.fused(kernel.shape[-1], kernel.shape[-1]):  # an image may have any number of channels
        x, window = found.of_image(x, len(kernel), stride)
        return FusedNorm(self.param_dtype, name=name)(x, (kernel,), window, train)
      return layers.first(self.batch_norm(train))(name, x, kernel, stride)
    return run

  def pointwise(self, name, x, width, train):
    """ReLU, 1x1 convolution `name` and BatchNorm `name`_norm on x [n, h, w, c] -> [n, h, w, width]."""
    kernel = self.weight(name, (x.shape[-1], width), x.shape[-1])
    if self.fused(x.shape[-1], width):
      return FusedNorm(self.param_dtype, name=f'{name}_norm')(x, (kernel[None, None],), (1,), train)
    return self.batch_norm(train)(f'{name}_norm', jax.nn.relu(x) @ kernel)

  def linear(self, name, x, width):
    """A linear layer with bias on x [n, c], in float32 or wider."""
    fan_in = x.shape[-1]
    kernel = self.param(name, initial.fan_in_uniform(fan_in), (fan_in, width), self.param_dtype)
    bias = self.param(f'{name}_bias', initial.fan_in_uniform(fan_in), (width,), self.param_dtype)
    return x.astype(jnp.promote_types(self.dtype, jnp.float32)) @ kernel + bias[None]


class Edge(_Module):
  """One operation."""

  op: str = ''
  stride: int = 1
  own_ops: Mapping[str, ops.Op] | None = None  # operations that the space brings

  @nn.compact
  def __call__(self, x, train):
    """X [n, h, w, c] -> [n, h / stride, w / stride, c]. The operation `noise` needs an rng 'noise', always."""
    if self.op == 'noise':
      return initial.normal(self.make_rng('noise'), x[:, ::self.stride, ::self.stride].shape, self.dtype)
    op, count, norm, c = ops.named(self.op, self.own_ops), itertools.count(1), self.batch_norm(train), x.shape[-1]
    params = {name: self.weight(name, shape, fan_in) for name, (shape, fan_in) in op.shapes(c, self.stride).items()}
    fused = self.fused(c, c)
    calls = fused.calls(self.op, params, self.stride) if fused else ()
    for call in calls:
      x = FusedNorm(self.param_dtype, name=f'norm{next(count)}')(x, *call, train)
    if calls:
      return x
    return op.apply(x, {name: value[None] for name, value in params.items()}, self.stride,
                    lambda y: norm(f'norm{next(count)}', y))


class DiscreteCell(_Module):
  """One cell with the kept operations alone."""

  cell: Cell = None
  stage: Stage = None
  edges: tuple[tuple[str, int, int], ...] = ()
  own_ops: Mapping[str, ops.Op] | None = None

  @nn.compact
  def __call__(self, inputs, train, factors=None):
    """Runs the cell's graph.

    Args:
      inputs: outputs of the previous cells, [n, h, w, *] each, older first.
      train: whether BatchNorm uses the batch's statistics.
      factors: [edges, n] from `drop_path`, or None. An identity has no path to drop.

    Returns:
      [n, h / stride, w / stride, channels * len(cell.output)].
    """
    cell, stride, kinds = self.cell, self.stage.stride, self.kinds()
    nodes = list(self._preprocess(inputs, train) if cell.preprocess else inputs)
    n, h, w, _ = nodes[-1].shape
    empty = (n, -(-h // stride), -(-w // stride), self.stage.channels)
    for node in range(cell.inputs, cell.nodes):
      total = None
      for i, (op, source, target) in enumerate(self.edges):
        if target != node or op == 'none':
          continue
        edge = Edge(op=op, stride=stride if source < cell.inputs else 1, own_ops=self.own_ops, name=f'edge{i}_{op}',
                    **kinds)
        y = edge(nodes[source], train)
        if factors is not None and (op != 'skip_connect' or edge.stride > 1):
          y = factors[i].astype(y.dtype)[:, None, None, None] * y
        total = y if total is None else total + y
      nodes.append(jnp.zeros(empty, self.dtype) if total is None else total)
    return jnp.concatenate([nodes[i] for i in cell.output], -1)

  @jax.named_scope('preprocess')
  def _preprocess(self, inputs, train):
    older, newer = inputs
    width, channels, norm = older.shape[-1], self.stage.channels, self.batch_norm(train)
    if self.stage.shrunk:
      kernel = self.weight('preprocess0', (2, width, channels // 2), width)
      older = ops.factorized_reduce(older, kernel, lambda y: norm('preprocess0_norm', y))
    else:
      older = self.pointwise('preprocess0', older, channels, train)
    return older, self.pointwise('preprocess1', newer, channels, train)


class Residual(_Module):
  """The block between the groups of NAS-Bench-201, `layers.residual`."""

  channels: int = 0

  @nn.compact
  def __call__(self, x, train):
    """X [n, h, w, c] -> [n, h / 2, w / 2, channels]."""
    def unit(name, x, kernel, stride):
      if self.fused(*kernel.shape[2:]):
        return FusedNorm(self.param_dtype, name=name)(x, (kernel,), (stride,), train)
      return layers.plain(self.batch_norm(train))(name, x, kernel, stride)

    return layers.residual(x, self.channels, self.weight, unit)


class Auxiliary(_Module):
  """The second classifier that DARTS trains beside the network, on the output of its second reduction."""

  num_classes: int = 10
  pool_stride: int = 3
  last_norm: bool = True

  @nn.compact
  def __call__(self, x, train):
    """X [n, h, w, c] -> logits [n, num_classes]. Raises UserError unless the pool leaves 2 x 2."""
    norm, sides = self.batch_norm(train), range(5 + self.pool_stride, 5 + 2 * self.pool_stride)
    if not set(x.shape[1:3]) <= set(sides):
      raise UserError(f'the auxiliary head reads maps of {sides[0]} to {sides[-1]} pixels a side, here they have '
                      f'{x.shape[1]} x {x.shape[2]}: set config.network.auxiliary=0, or give images of ' +
                      ('224 pixels' if self.pool_stride == 2 else '32 pixels' if x.shape[1] < 32 else
                       '32 pixels, or set config.network.imagenet=True'))
    x = nn.avg_pool(jax.nn.relu(x), (5, 5), (self.pool_stride, self.pool_stride))
    x = jax.nn.relu(norm('norm1', x @ self.weight('conv1', (x.shape[-1], 128), x.shape[-1])))
    x = jnp.einsum('nhwc,hwcd->nd', x, self.weight('conv2', (2, 2, 128, 768), 4 * 128))
    x = jax.nn.relu(norm('norm2', x) if self.last_norm else x)
    return self.linear('head', x, self.num_classes)


class Network(_Module):
  """The network of a genotype.

  Attributes:
    space: the search space.
    genotype: one of its architectures.
    cells: number of cells (DARTS: 20 on CIFAR, 14 on ImageNet) or cells per group (NAS-Bench-201: 5).
    channels: width of the first cell (DARTS: 36 on CIFAR, 48 on ImageNet; NAS-Bench-201: 16).
    num_classes: outputs of the linear layers.
    auxiliary: whether training also gives the logits of a second classifier.
    auxiliary_norm: whether BatchNorm follows the 2x2 convolution of that. None: on CIFAR only, as DARTS and PC-DARTS
      have it; P-DARTS has it on ImageNet too.
    imagenet: whether the stems and the auxiliary head are those for ImageNet.
  """

  space: Space = None
  genotype: Genotype = None
  cells: int = 20
  channels: int = 36
  num_classes: int = 10
  auxiliary: bool = False
  auxiliary_norm: bool | None = None
  imagenet: bool = False

  @nn.compact
  def __call__(self, x, train: bool, drop_path_rate=0.0):
    """Logits [n, num_classes], float32 or wider, of normalised images x [n, h, w, c].

    Args:
      x: images.
      train: whether BatchNorm uses the batch's statistics, and updates the running ones (mutable 'batch_stats').
      drop_path_rate: probability in [0, 1) that a path of an image is dropped, in training only. Unless it is the
        number 0, training needs an rng 'drop_path'; an array may change from step to step.

    Returns:
      The logits; with `auxiliary` in training (logits, auxiliary logits).

    Raises:
      UserError: the genotype is not of this space, or the images are too small.
    """
    edges = self.space.validate(self.genotype).cells
    stages = self.space.stages(self.cells, self.channels, imagenet=self.imagenet, side=min(x.shape[1:3]))
    if self.auxiliary and not any(stage.auxiliary for stage in stages):
      raise UserError(f'space {self.space.name!r} has no auxiliary head: set config.network.auxiliary=0')
    kinds = self.kinds()
    factors = self._factors(x.shape[0], len(stages), drop_path_rate) if train else None
    norm, x, outputs, second = self.batch_norm(train), x.astype(self.dtype), (), None
    for index, stage in enumerate(stages):
      if stage.kind in ('stem', 'stem0', 'stem1'):
        x = layers.stem(stage.kind, x, stage.channels, self.weight, norm, self.first(train))
        outputs = (outputs[-1], x) if stage.kind == 'stem1' else (x, x)
      elif stage.kind == 'cell':
        cell = self.space.cells[stage.cell]
        module = DiscreteCell(cell=cell, stage=stage, edges=edges[stage.cell], own_ops=self.space.own_ops,
                              name=f'cell_{index}', **kinds)
        x = module(outputs[-cell.inputs:], train, None if factors is None else factors[index])
        outputs = (outputs[-1], x)
      elif stage.kind == 'residual':
        x = Residual(channels=stage.channels, name=f'residual_{index}', **kinds)(x, train)
        outputs = (x, x)
      else:
        x = jax.nn.relu(norm('head_norm', x)) if stage.norm else x
        x = self.linear('head', x.mean((1, 2), dtype=jnp.promote_types(self.dtype, jnp.float32)), self.num_classes)
      if self.auxiliary and stage.auxiliary and (train or self.is_initializing()):
        last_norm = not self.imagenet if self.auxiliary_norm is None else self.auxiliary_norm
        second = Auxiliary(num_classes=self.num_classes, pool_stride=2 if self.imagenet else 3, last_norm=last_norm,
                           name='auxiliary', **kinds)(x, train)
    return (x, second) if self.auxiliary and train else x

  def _factors(self, n, stages, rate):
    """`drop_path` for every edge of every stage, [stages, edges, n] (drawn at once), or None if nothing is dropped."""
    if isinstance(rate, numbers.Real):
      if not 0 <= rate < 1:
        raise UserError(f'drop_path_rate={rate} is no probability below 1: give one in [0, 1), as '
                        'config.network.drop_path=0.2')
      if rate == 0:
        return None
    most = max(len(edges) for edges in self.genotype.cells.values())
    return drop_path(self.make_rng('drop_path'), rate, (stages, most, n))
