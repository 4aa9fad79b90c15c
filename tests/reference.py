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
  x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
  return norm(jnp.concatenate([x[:, ::2, ::2] @ k[0], x[:, 1::2, 1::2] @ k[1]], -1))


def mixed_cell(cell, stage, pool_norm, params, inputs, weights, noise=None):
  """weights [edges, ops] or, one row per image, [n, edges, ops]; `noise(edge, shape)` is what the op noise gives."""
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
        y = (noise(e, nodes[source][:, ::stride, ::stride].shape) if name == 'noise'
             else op(name, nodes[source], own, stride, pool_norm))
        total += weights[:, e, o][:, None, None, None] * y
    nodes.append(total)
  return jnp.concatenate([nodes[i] for i in cell.output], -1)


def supernet(net, params, x, weights):
  """The logits that `net.apply({'params': params}, x, weights)` must give; weights {cell: [samples, edges, ops]}."""
  params, x, weights = jax.tree.map(lambda a: a.astype(net.dtype), (params, x, weights))
  outputs = ()

  def affine(name, x, params=params):
    return norm(x) * params[f'{name}_scale'][None, None, None] + params[f'{name}_bias'][None, None, None]

  for index, stage in enumerate(net.space.macro(net.cells, net.channels)):
    if stage.kind == 'stem':
      x = affine('stem_norm', conv(x, params['stem']))
      outputs = (x, x)
    elif stage.kind == 'cell':
      cell, w = net.space.cells[stage.cell], weights[stage.cell]
      per_image = jnp.repeat(w, x.shape[0] // w.shape[0], 0)
      x = mixed_cell(cell, stage, net.space.pool_norm, params[f'cell_{index}'], outputs[-cell.inputs:], per_image)
      outputs = (outputs[-1], x)
    elif stage.kind == 'residual':
      own, (h, w) = params[f'residual_{index}'], (x.shape[1] // 2, x.shape[2] // 2)
      y = jax.nn.relu(affine('norm1', conv(jax.nn.relu(x), own['conv1'], 2), own))
      y = affine('norm2', conv(y, own['conv2']), own)[:, :h, :w]
      short = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID') / 4
      x = y + short @ own['shortcut']
      outputs = (x, x)
    else:
      x = jax.nn.relu(affine('head_norm', x)) if stage.norm else x
      x = x.mean((1, 2)) @ params['head'] + params['head_bias'][None]
  return x.astype(jnp.promote_types(net.dtype, jnp.float32))
