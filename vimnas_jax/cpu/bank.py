"""Convolutions of all edges that leave a node, mixed: the CPU's fused form.

Every edge's output is the sum over its operations of weight * BatchNorm(convolution). BatchNorm and weight are one
scale and shift of each channel, forward and backward, so neither the normalised maps nor their gradients are ever
formed: the kernels of stage.py and dense.py take the coefficients. Kept for the way back are the raw outputs of the
stages alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vimnas_jax.cpu import dense, stage

# size, dilation and names of (depthwise, 1x1) parameters of every stage in turn
STAGES = {
    'sep_conv_3x3': (3, 1, (('depthwise1', 'pointwise1'), ('depthwise2', 'pointwise2'))),
    'sep_conv_5x5': (5, 1, (('depthwise1', 'pointwise1'), ('depthwise2', 'pointwise2'))),
    'dil_conv_3x3': (3, 2, (('depthwise', 'pointwise'),)),
    'dil_conv_5x5': (5, 2, (('depthwise', 'pointwise'),)),
}
DENSE = ('nor_conv_1x1', 'nor_conv_3x3')


def fits(op: str, channels: int, dtype) -> bool:
  """Whether an operation of this width and type has kernels here."""
  known = (op in STAGES or op in DENSE) and np.dtype(dtype).name in ('float32', 'float64')
  return known and stage.vector_length(channels, dtype) >= 4


def statistics(moments, pixels):
  """Mean and biased variance [c] of a batch from every image's `moments` [n, 2, c] over `pixels` positions.

  Distances are summed from each image's own mean, so that the variance is never negative and nothing cancels.
  """
  mean = moments[:, 0].mean(0)
  spread = moments[:, 1].sum(0) / pixels + jnp.square(moments[:, 0] - mean[None]).sum(0)
  return mean, spread / moments.shape[0]


def _side_by_side(kernels):
  return jnp.moveaxis(kernels, 0, 2).reshape(*kernels.shape[1:3], -1)  # [m, k, k, c] -> [k, k, m * c]


def _apart(kernels, m):
  return jnp.moveaxis(kernels.reshape(*kernels.shape[:2], m, -1), 2, 0)


def _bank(kernels):
  return jnp.moveaxis(kernels, 0, 3).reshape(*kernels.shape[1:4], -1)  # [m, k, k, c, d] -> [k, k, c, m * d]


def _run(op, params, x, stride, eps):
  """Every stage's (output, its mean, 1 / its deviation), in order. Outputs are [n, edges, h, w, c]; those of a dense
  convolution are [n, 1, h, w, edges * c].
  """
  steps = []

  def add(a, moments):
    center, var = statistics(moments, a.shape[2] * a.shape[3])
    steps.append((a, center, lax.rsqrt(var + eps)))

  if op in DENSE:
    a, moments = dense.forward(x, _bank(params['kernel']), stride)
    add(a[:, None], moments)
    return steps
  _, dilation, names = STAGES[op]
  x, mean, scale = _plain(x)
  for depthwise, pointwise in names:
    add(*stage.forward(x, mean, scale, _side_by_side(params[depthwise]), params[pointwise], dilation, stride))
    (x, mean, scale), stride = steps[-1], 1
  return steps


def _plain(x):
  """A node as the input of a stage: one map for all edges, neither shifted nor scaled."""
  return x[:, None], jnp.zeros(x.shape[-1], x.dtype), jnp.ones(x.shape[-1], x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def mixed(ops, edges, stride, eps, x, params, weights):
  """Mixed outputs of the edges that leave a node.

  Args:
    ops: ((name, (edge, ...)), ...): which of the edges carry which operation of STAGES or DENSE.
    edges: how many edges leave the node.
    stride: of every edge.
    eps: of BatchNorm.
    x: the node [n, h, w, c].
    params: {op: its parameters, stacked over its edges}, as in ops.py.
    weights: {op: mixing weights [samples, its edges]}; the batch falls into `samples` equal groups.

  Returns:
    For every edge its map [n, h / stride, w / stride, c], or None where no operation falls on it.
  """
  return _forward(ops, edges, stride, eps, x, params, weights)[0]


def _forward(ops, edges, stride, eps, x, params, weights):
  outputs, saved = [None] * edges, {}
  for op, own in ops:
    steps = _run(op, params[op], x, stride, eps)
    a, center, inverse = steps[-1]
    c = center.size // len(own)
    scale = jnp.repeat(weights[op], c, 1) * inverse[None]  # [samples, m * c]
    if len(scale) > 1:
      scale = jnp.repeat(scale, x.shape[0] // len(scale), 0)
    for i, e in enumerate(own):
      part = slice(i * c, (i + 1) * c)
      y = a[:, 0, ..., part] if op in DENSE else a[:, i]
      y = scale[:, None, None, part] * (y - center[None, None, None, part])
      outputs[e] = y if outputs[e] is None else outputs[e] + y
    saved[op] = steps
  return tuple(outputs), (x, params, weights, saved)


def _backward(ops, edges, stride, eps, kept, gradients):
  del edges, eps
  x, params, weights, saved = kept
  d_x, d_params, d_weights, joined = 0.0, {}, {}, {}
  for op, own in ops:
    key = own, op in DENSE
    if key not in joined:
      parts = [gradients[e] for e in own]
      joined[key] = jnp.concatenate(parts, -1)[:, None] if op in DENSE else jnp.stack(parts, 1)
    g, m = joined[key], len(own)
    a, center, inverse = saved[op][-1]
    count, samples = a.size // center.size, len(weights[op])
    # Of BatchNorm's output y = (a - center) * inverse, and of y times its mixing weight.
    totals = stage.sums(g, a, center).reshape(samples, -1, 2, center.size).sum(1)  # [samples, 2, m * c]
    d_weights[op] = (totals[:, 1] * inverse[None]).reshape(samples, m, -1).sum(-1)
    by_channel = jnp.repeat(weights[op], center.size // m, 1)  # [samples, m * c]
    plain, moment = (by_channel[:, None] * totals).sum(0) / count
    p = by_channel * inverse[None]
    if op in DENSE:
      g, dk = dense.backward(x, _bank(params[op]['kernel']), g[:, 0], a[:, 0], center, p, -inverse ** 3 * moment,
                             -inverse * plain, stride)
      d_params[op] = {'kernel': jnp.moveaxis(dk.reshape(*dk.shape[:3], m, -1), 3, 0)}
      d_x += g
      continue
    _, dilation, names = STAGES[op]
    d_params[op] = {}
    for i in reversed(range(len(names))):
      depthwise, pointwise = names[i]
      source, mean, scale = saved[op][i - 1] if i else _plain(x)
      g, totals, dk, dm = stage.backward(
          source, mean, scale, _side_by_side(params[op][depthwise]), params[op][pointwise], g, a, center,
          p, -inverse ** 3 * moment, -inverse * plain, dilation, 1 if i else stride)
      d_params[op] |= {depthwise: _apart(dk, m), pointwise: dm}
      if i:
        a, center, inverse = source, mean, scale
        count = a.size // center.size
        plain, moment = totals / count
        p = inverse[None]
    d_x += g[:, 0]
  return d_x, d_params, d_weights


mixed.defvjp(_forward, _backward)
