"""The supernet one operation at a time, with XLA's own convolutions and windows: what the fused form must equal."""

import jax
import jax.numpy as jnp
from jax import lax


def norm(x):
  return (x - x.mean((0, 1, 2))[None, None, None]) / jnp.sqrt(x.var((0, 1, 2))[None, None, None] + 1e-5)


def conv(x, k, stride=1, dilation=1, groups=1):
  pad = dilation * (k.shape[0] - 1) // 2
  return lax.conv_general_dilated(x, k, (stride,) * 2, [(pad, pad)] * 2, rhs_dilation=(dilation,) * 2,
                                  feature_group_count=groups, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def depthwise(x, k, stride=1, dilation=1):
  return conv(x, k[:, :, None], stride, dilation, x.shape[-1])


def window(x, kind, stride):
  dims, strides, pads = (1, 3, 3, 1), (1, stride, stride, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
  if kind == 'max':
    return lax.reduce_window(x, -jnp.inf, lax.max, dims, strides, pads)
  total, count = (lax.reduce_window(a, 0.0, lax.add, dims, strides, pads) for a in (x, jnp.ones_like(x)))
  return total / count


def op(name, x, p, stride, pool_norm):
  relu = jax.nn.relu
  if name == 'none':
    return jnp.zeros_like(x[:, ::stride, ::stride])
  if 'pool' in name:
    y = window(x, name[:3], stride)
    return norm(y) if pool_norm else y
  if name == 'skip_connect':
    return x if stride == 1 else reduce(x, p['kernel'])
  if name.startswith('nor'):
    return norm(conv(relu(x), p['kernel'], stride))
  if name.startswith('dil'):
    return norm(depthwise(relu(x), p['depthwise'], stride, 2) @ p['pointwise'])
  y = norm(depthwise(relu(x), p['depthwise1'], stride) @ p['pointwise1'])
  return norm(depthwise(relu(y), p['depthwise2']) @ p['pointwise2'])


def reduce(x, k):
  x = jax.nn.relu(x)
  if x.shape[1] % 2:
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
  return norm(jnp.concatenate([x[:, ::2, ::2] @ k[0], x[:, 1::2, 1::2] @ k[1]], -1))


def mixed_cell(cell, stage, pool_norm, params, inputs, weights):
  """weights [edges, ops] or, one row per image, [n, edges, ops]."""
  nodes = list(inputs)
  if cell.preprocess:
    older, newer = inputs
    k0, k1 = params['preprocess0'], params['preprocess1']
    nodes = [reduce(older, k0) if stage.shrunk else norm(jax.nn.relu(older) @ k0), norm(jax.nn.relu(newer) @ k1)]
  weights = jnp.broadcast_to(weights, (inputs[0].shape[0], *cell.shape))
  for target in range(cell.inputs, cell.nodes):
    total = 0.0
    for e, (source, t) in enumerate(cell.edges):
      if t != target:
        continue
      stride = stage.stride if source < cell.inputs else 1
      for o, name in enumerate(cell.ops[e]):
        suffix = '_stride2' if stride == 2 else ''
        same = [i for i, (s, _) in sorted(enumerate(cell.edges), key=lambda at: at[1][0]) if name in cell.ops[i]
                and stride == (stage.stride if s < cell.inputs else 1)]
        own = {k[len(name) + 1:].removesuffix(suffix): v[same.index(e)] for k, v in params.items()
               if k.startswith(name) and k.endswith('_stride2') == (stride == 2)}
        total += weights[:, e, o][:, None, None, None] * op(name, nodes[source], own, stride, pool_norm)
    nodes.append(total)
  return jnp.concatenate([nodes[i] for i in cell.output], -1)
