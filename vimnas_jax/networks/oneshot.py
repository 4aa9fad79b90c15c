"""The one-shot network of NAS-Bench-1Shot1 (Zela, Siems and Hutter, ICLR 2020): theta where the graph is searched too.

Three stacks of cells. Every block of a cell mixes its three operations on a mixture of what lies before it: the cell's
input, through a 1x1 convolution of the block's own, and the blocks below. The cell puts out the blocks side by side,
each weighted, on top of the weighted input through a 1x1 convolution to their width. Convolutions are followed by
BatchNorm, with scale and bias, and ReLU. BatchNorm uses batch statistics, as in supernet.py; the authors' code keeps
running averages that follow the last batch almost entirely.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from vimnas_jax.errors import UserError
from vimnas_jax.networks import mixing, ops
from vimnas_jax.networks.module import Module
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.spaces import Stage
from vimnas_jax.spaces.topology import OUTPUT, Topology

POOL = 'maxpool3x3'


def pool(x):
  """2x2 maximum of x [n, h, w, c] with stride 2, padded by 1: [n, h // 2 + 1, w // 2 + 1, c]."""
  _, h, w, _ = x.shape
  below = jnp.array(-jnp.inf, x.dtype)
  parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]  # pixels of odd rows or columns are first in their window
  parts = [jax.lax.pad(part, below, [(0, 0, 0), (i, h // 2 + 1 - i - part.shape[1], 0),
                                     (j, w // 2 + 1 - j - part.shape[2], 0), (0, 0, 0)])
           for part, (i, j) in zip(parts, ((0, 0), (0, 1), (1, 0), (1, 1)))]
  return jnp.maximum(jnp.maximum(*parts[:2]), jnp.maximum(*parts[2:]))


class Cell(Module):
  """One cell with all its operations and all its edges."""

  topology: Topology = None
  stage: Stage = None
  kernels: bool = True

  def unit(self, name, x, shape):
    """Convolution of x [n, h, w, c] with a kernel of `shape` [k, k, c, d], BatchNorm, ReLU.

    There is no ReLU in front: x may be below 0 where a mixing weight is, and passes its gradient on where it is 0.
    """
    kernel, *affine = self.convolution(name, shape, x.dtype)
    fused = mixing.normed() if self.kernels else None
    if fused and fused.fits(*shape[2:], x.dtype):
      return jax.nn.relu(fused.trained(x, (kernel,), (1, False), *affine, ops.BN_EPS)[0])
    scale, bias = (a[None, None, None] for a in affine)
    return jax.nn.relu(ops.normalise(ops.conv(x, kernel)) * scale + bias)

  def convolution(self, name, shape, dtype):
    """A kernel of `shape` [k, k, c, d], and the scale [d] and bias [d] of the BatchNorm behind it."""
    return (self.weight(name, shape, shape[0] * shape[1] * shape[2]),
            *(a.astype(dtype) for a in self.affine(f'{name}_norm', shape[3])))

  @nn.compact
  def __call__(self, inputs, weights, key=None):
    """Mixes the cell.

    Args:
      inputs: the output of the previous cell, ([n, h, w, *],).
      weights: mixing weights of the blocks' operations, 'cell' [samples, blocks, ops] or a Mixture, and of every choice
        of the graph [samples or 1, candidates].
      key: not used.

    Returns:
      [n, h, w, channels * blocks].
    """
    del key
    (x,), c, blocks = inputs, self.stage.channels, self.topology.blocks
    mixture, shape = mixing.whole(weights['cell']), (1, 1, x.shape[-1], 2 * blocks * c)
    fused = mixing.normed() if self.kernels else None
    if fused and fused.fits(c, c, x.dtype) and fused.fits(*shape[2:], x.dtype):
      return self._fused(x, weights, mixture, shape)
    rows = {name: per_image(w, len(x)) for name, w in weights.items() if name != 'cell'}
    with jax.named_scope('projections'):  # of the blocks, then of the output: one matrix product
      projected = self.unit('projections', x, shape)
      *own, past = jax.lax.split(projected, (*(c,) * blocks, blocks * c), 3)
    nodes = []
    for node in range(1, blocks + 1):
      candidates = [own[node - 1], *nodes]
      row = rows.get(self.topology.row(node))
      if row is not None:
        candidates = [row[:, j, None, None, None] * y for j, y in enumerate(candidates)]
      y = self.block(node, functools.reduce(jnp.add, candidates), mixture.ops[:, node - 1])
      if mixture.shift is not None:
        y = y + per_image(mixture.shift[:, node - 1:node], len(x))[:, :, None, None]
      nodes.append(y)
    row = rows[OUTPUT]
    side_by_side = [row[:, j, None, None, None] * y for j, y in enumerate(nodes, 1)]
    return jnp.concatenate(side_by_side, -1) + row[:, 0, None, None, None] * past

  def _fused(self, x, weights, mixture, shape):
    """The cell by the CPU's kernels; `shape` is that of the projections' kernel."""
    c, blocks = self.stage.channels, self.topology.blocks
    sizes = [None if op == POOL else int(op[4]) for op in self.topology.ops]
    own = list(dict.fromkeys(size for size in sizes if size))
    order = tuple(size and own.index(size) for size in sizes)
    projections = self.convolution('projections', shape, x.dtype)
    convolutions = tuple(tuple(self.convolution(f'block{node}_conv{k}x{k}', (k, k, c, c), x.dtype) for k in own)
                         for node in range(1, blocks + 1))
    rows = tuple(weights.get(self.topology.row(node)) for node in range(1, blocks + 1))
    if self.is_initializing():
      return jnp.zeros((*x.shape[:3], c * blocks), x.dtype)
    with jax.named_scope('kernels'):
      return mixing.oneshot().mixed((ops.BN_EPS, order), x, mixture.ops, mixture.shift, (*rows, weights[OUTPUT]),
                                    projections, convolutions)

  def block(self, node, x, weights):
    """A block's operations on x [n, h, w, c], mixed by weights [samples, ops]."""
    c, found = x.shape[-1], []
    for op in self.topology.ops:
      with jax.named_scope(op):
        if op == POOL:
          found.append(ops.max_pool(x))
        else:
          size = int(op[4])
          found.append(self.unit(f'block{node}_conv{size}x{size}', x, (size, size, c, c)))
    weights = per_image(weights, len(x))
    return functools.reduce(jnp.add, [weights[:, o, None, None, None] * y for o, y in enumerate(found)])


def per_image(weights, images: int):
  """Weights [samples, ...] as [images, ...], the samples serving equal groups in turn; one sample stays [1, ...]."""
  return weights if len(weights) == 1 else jnp.repeat(weights, images // len(weights), 0)


class OneShot(Supernet):
  """theta of a space with a topology; fields as those of Supernet."""

  @nn.compact
  def __call__(self, x, weights: Mapping[str, jax.Array]):
    """Logits [n, num_classes] of normalised images x [n, h, w, c].

    Args:
      x: images.
      weights: {'cell': [samples, blocks, ops] or a Mixture, choice of the graph: [samples or 1, candidates]}; n must be
        a multiple of samples, or UserError is raised, as with `partial`, which this network does not have.
    """
    kinds = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    mixing.check_groups(len(x), weights)
    if wish := ('a part of the channels through the operations' if self.partial > 1 else
                'a skip connection beside the operations' if self.auxiliary else
                'skip connections that are dropped in part' if self.dropout else ''):
      raise UserError(f'config.method.name: this method wants {wish}, which the network of NAS-Bench-1Shot1 does not '
                      'have: choose another method or config.space.name')
    x, weights = x.astype(self.dtype), jax.tree.map(lambda w: w.astype(self.dtype), dict(weights))
    for index, stage in enumerate(self.space.macro(self.cells, self.channels)):
      if stage.kind == 'stem':
        kernel = self.weight('stem', (3, 3, x.shape[-1], stage.channels), 9 * x.shape[-1])
        x = jax.nn.relu(self.first('stem_norm', x, kernel))
      elif stage.kind == 'pool':
        x = pool(x)
      elif stage.kind == 'cell':
        module = Cell(topology=self.space.topology, stage=stage, kernels=self.kernels, name=f'cell_{index}', **kinds)
        x = self.run(module, f'cell_{index}', (x,), weights)
      else:
        width = x.shape[-1]
        x = ops.normalise(jax.nn.relu(x) @ self.weight('last', (width, stage.channels), width))
        x = self.classify(x, self.num_classes)
    return x
