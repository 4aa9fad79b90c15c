"""Operations of all edges that leave a node, mixed: the CPU's fused form.

Every edge's output is the sum over its operations of weight * BatchNorm(raw output). BatchNorm and weight are one
scale and shift of each channel, forward and backward, so neither the normalised maps nor their gradients are ever
formed: the kernels of stage.py, dense.py, pools.py and mix.py take the coefficients. Kept for the backward
pass are the raw outputs alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax.cpu import dense, leaves, mix, pools, stage, table
from vimnas_jax.cpu.zeros import arrays, perturbed, values

# size, dilation and names of (depthwise, 1x1) parameters of every stage in turn
STAGES = {
    'sep_conv_3x3': (3, 1, (('depthwise1', 'pointwise1'), ('depthwise2', 'pointwise2'))),
    'sep_conv_5x5': (5, 1, (('depthwise1', 'pointwise1'), ('depthwise2', 'pointwise2'))),
    'dil_conv_3x3': (3, 2, (('depthwise', 'pointwise'),)),
    'dil_conv_5x5': (5, 2, (('depthwise', 'pointwise'),)),
}
DENSE = ('nor_conv_1x1', 'nor_conv_3x3')
SKIP = 'skip_connect'  # at a stride of 2 two 1x1 convolutions, which `_halves` and `_blocks` make one


def fits(op: str, channels: int, dtype, stride: int) -> bool:
  """Whether an operation of this width, type and stride has kernels here."""
  known = op in STAGES or op in DENSE or op in pools.KINDS or op == SKIP
  return (known and np.dtype(dtype).name in ('float32', 'float64')
          and table.vector_length(channels, dtype) >= 4)


def _bank(kernels):
  return jnp.moveaxis(kernels, 0, 3).reshape(*kernels.shape[1:4], -1)  # [m, k, k, c, d] -> [k, k, c, m * d]


def _halves(x):
  """What the two convolutions of a skip connection of stride 2 see of x [n, h, w, c], side by side: every second pixel
  from the first on, and from the second one on, 0 where there is none: [n, ceil(h / 2), ceil(w / 2), 2 * c].
  """
  shifted = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (-1, 1, 0), (-1, 1, 0), (0, 0, 0)])
  return jnp.concatenate([jax.lax.slice(each, (0, 0, 0, 0), x.shape, (1, 2, 2, 1)) for each in (x, shifted)], -1)


def _from_halves(d, shape):
  """The gradient of x, of such a shape, from that of its `_halves`."""
  zero, (_, h, w, _) = jnp.zeros((), d.dtype), shape

  def spread(half, at):
    sides = [(at, side - at - (2 * count - 1), 1) for side, count in zip((h, w), half.shape[1:3])]
    return jax.lax.pad(half, zero, [(0, 0, 0), *sides, (0, 0, 0)])

  first, second = jnp.split(d, 2, -1)
  return spread(first, 0) + spread(second, 1)


def _blocks(kernels):
  """Kernels [m, 2, c, c / 2] of skip connections of stride 2 as one, from `_halves` to m edges: [1, 1, 2 * c, m * c].

  Each half gives half of an edge's channels; the other blocks are 0.
  """
  m, _, c, _ = kernels.shape
  own = jnp.eye(2, dtype=kernels.dtype)[:, None, None, :, None]
  return (jnp.moveaxis(kernels, 0, 2)[:, :, :, None] * own).reshape(1, 1, 2 * c, m * c)


def _from_blocks(d, m):
  """The gradient of kernels [m, 2, c, c / 2] from that of their `_blocks`."""
  d = d.reshape(2, d.shape[2] // 2, m, 2, -1)
  return jnp.stack([jnp.moveaxis(d[i, :, :, i], 1, 0) for i in range(2)], 1)


def _plain(x):
  """A node as the input of a stage: one map for all edges, neither shifted nor scaled."""
  return jax.lax.expand_dims(x, (1,)), np.zeros(x.shape[-1], x.dtype), np.ones(x.shape[-1], x.dtype)


def _repeat(weights, c):
  return jnp.repeat(weights, c, 1)  # [samples, m] -> [samples, m * c]


def _run(op, params, x, weights, pooled, stride, eps):
  """Every stage's (raw output, center, inverse) in order, and the scale [samples, m * c] of the last."""
  c = x.shape[-1]
  if (op == SKIP and stride == 1) or (op in pools.KINDS and eps is None):
    source = x if op == SKIP else pooled[op][0]
    _, zero, one = _plain(x)
    return [(jax.lax.expand_dims(source, (1,)), zero, one)], _repeat(weights, c)
  if op in pools.KINDS:
    a, moments = pooled[op]
    *own, scale = mix.statistics(moments, a.shape[1] * a.shape[2], eps, c, weights)
    return [(jax.lax.expand_dims(a, (1,)), *own)], scale
  if op in DENSE or op == SKIP:
    a, moments = (dense.forward(_halves(x), _blocks(params['kernel'])) if op == SKIP else
                  dense.forward(x, _bank(params['kernel']), stride))
    *own, scale = mix.statistics(moments, a.shape[1] * a.shape[2], eps, c, weights)
    return [(jax.lax.expand_dims(a, (1,)), *own)], scale
  _, dilation, names = STAGES[op]
  steps, (x, mean, inverse) = [], _plain(x)
  for i, (depthwise, pointwise) in enumerate(names):
    last = i == len(names) - 1
    a, moments = stage.forward(x, mean, inverse, params[depthwise], params[pointwise], dilation, 1 if i else stride)
    mean, inverse, *scale = mix.statistics(moments, a.shape[2] * a.shape[3], eps, c, weights if last else None)
    x = a
    steps.append((a, mean, inverse))
  return steps, scale[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def mixed(ops, edges, stride, eps, x, params, weights, into):
  """Mixed outputs of the edges that leave a node, added to `into`.

  Args:
    ops: ((name, (edge, ...)), ...): which of the edges carry which operation that `fits`.
    edges: how many edges leave the node.
    stride: of every edge.
    eps: of BatchNorm: a pair, of convolutions and of pools; None where none follows pools.
    x: the node [n, h, w, c].
    params: {op: its parameters, stacked over its edges}, as in ops.py.
    weights: {op: mixing weights [samples, its edges]}; the batch falls into `samples` equal groups.
    into: for every edge a map [n, h / stride, w / stride, c] to add to, or None.

  Returns:
    For every edge the sum, or what `into` has where no operation falls on it.
  """
  return _forward(ops, edges, stride, eps, x, params, weights, into)[0]


def _forward(ops, edges, stride, eps, x, params, weights, into):
  learned = perturbed(params)
  x, params, weights, into = values((x, params, weights, into))
  kinds = [op for op, _ in ops if op in pools.KINDS]
  pooled = pools.forward(x, kinds, stride) if kinds else {}
  saved, operations = {}, []
  for op, own in ops:
    saved[op], scale = _run(op, params[op], x, weights[op], pooled, stride, eps[op in pools.KINDS])
    operations.append((own, *saved[op][-1][:2], scale))
  kept = tuple(None if a is None else () for a in into)  # which there are
  return tuple(mix.mix(operations, edges, into)), (x, params, weights, saved, kept, learned)


def _backward(ops, edges, stride, eps, kept, gradients):
  del edges
  x, params, weights, saved, into, learned = kept
  gradients, whole = arrays(gradients), learned is not None
  c, d_params, d_weights, shared = x.shape[-1], {}, {}, {}
  parts = []  # of the gradient of x
  inner, groups = _Inner(ops, params), {}
  for op, own in ops:
    groups.setdefault(own, []).append(op)
  for own, names in groups.items():
    g, m = [gradients[e] for e in own], len(own)
    totals = mix.sums(g, [saved[op][-1][:2] for op in names])
    for i, op in enumerate(names):
      a, center, inverse = saved[op][-1]
      d_weights[op], p, q, r = mix.coefficients(totals, i * m * c, weights[op], inverse, c, a.shape[2] * a.shape[3])
      d_params[op] = {}
      if op in pools.KINDS or (op == SKIP and stride == 1):
        shared[op] = own, p, jax.lax.squeeze(a, (1,)), center, q, r
      elif op == SKIP:
        dx, dk = dense.backward(_halves(x), _blocks(params[op]['kernel']), g, jax.lax.squeeze(a, (1,)), center, p, q, r,
                                whole=whole)
        if whole:
          d_params[op] = {'kernel': _from_blocks(dk, m)}
        parts.append(_from_halves(dx, x.shape))
      elif op in DENSE:
        dx, dk = dense.backward(x, _bank(params[op]['kernel']), g, jax.lax.squeeze(a, (1,)), center, p, q, r, stride,
                                whole=whole)
        if whole:
          d_params[op] = {'kernel': jnp.moveaxis(dk.reshape(*dk.shape[:3], m, -1), 3, 0)}
        parts.append(dx)
      else:
        parts.append(inner.back(op, x, saved[op], g, p, q, r, stride, whole))
  if shared:
    used = sorted({e for own, *_ in shared.values() for e in own})  # an edge without an operation here may have none
    shared = {op: ([used.index(e) for e in own], *more) for op, (own, *more) in shared.items()}
    parts.append(pools.backward(x, [gradients[e] for e in used], shared, eps[1] is not None, stride))
  inner.add(d_params)
  before = tuple(None if a is None else g for a, g in zip(into, gradients))
  return sum(parts), d_params if whole else None, d_weights, before


class _Inner:
  """The stages of a bank's operations on the way back: one call prepares all their matrices, one adds up all gradients
  of their parameters.
  """

  def __init__(self, ops, params):
    self.params, self.parts = params, {}
    names = [(op, pointwise) for op, _ in ops if op in STAGES for _, pointwise in STAGES[op][2]]
    self.turned = dict(zip(names, leaves.turned([params[op][name] for op, name in names]) if names else ()))

  def back(self, op, x, steps, g, p, q, r, stride, whole):
    """The gradient of x; keeps those of the operation's parameters, if `whole`."""
    _, dilation, names = STAGES[op]
    for i in reversed(range(len(names))):
      depthwise, pointwise = names[i]
      source, mean, scale = steps[i - 1] if i else _plain(x)
      a, center, _ = steps[i]
      u, totals, *own = stage.backward(source, mean, scale, self.params[op][depthwise], self.turned[op, pointwise], g,
                                       a, center, p, q, r, dilation, 1 if i else stride, whole)
      self.parts |= {(op, name): part for name, part in zip(names[i], own)}
      g = [u]
      if i:
        q, r = mix.inner(totals, scale, source.size // scale.size)
        p = jax.lax.expand_dims(scale, (0,))
    return jax.lax.squeeze(u, (1,))

  def add(self, gradients):
    """Puts what `back` has kept into {operation: gradients of its parameters}."""
    for (op, name), total in zip(self.parts, mix.fold(*self.parts.values()) if self.parts else ()):
      gradients[op][name] = total


mixed.defvjp(_forward, _backward, symbolic_zeros=True)
