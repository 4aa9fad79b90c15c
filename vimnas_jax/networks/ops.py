"""Candidate operations, once for all spaces and for both kinds of network.

In a supernet all edges that leave a node and carry the same operation are computed together, as one *bank*: their
feature maps lie side by side along channels, [n, h, w, m * c] for m edges of width c. Parameters are stacked over the
edges, so that a bank is one depthwise convolution, one matrix product and one BatchNorm. Convolutions have no bias;
BatchNorm uses batch statistics and has no parameters, as in the search networks of DARTS and NAS-Bench-201. The
network of a genotype runs banks of one edge and brings its own BatchNorm, as `norm`.
"""

import contextlib
import contextvars
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vimnas_jax.networks.operation import Op

_PORTABLE: contextvars.ContextVar[bool] = contextvars.ContextVar('portable', default=False)
BN_EPS = 1e-5  # PyTorch's default, used everywhere by the reference codes


@contextlib.contextmanager
def portable():
  """What is traced in the block has the form of every platform that it is lowered for, not that of this machine."""
  token = _PORTABLE.set(True)
  try:
    yield
  finally:
    _PORTABLE.reset(token)


def normalise(x, axes=(0, 1, 2)):
  """BatchNorm without parameters: zero mean and unit (biased) variance over `axes`, computed in float32 or wider."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  mean = wide.mean(axes, keepdims=True)
  var = jnp.square(wide - mean).mean(axes, keepdims=True)
  return ((wide - mean) * lax.rsqrt(var + BN_EPS)).astype(x.dtype)


def conv(x, kernel, stride=1):
  """Dense convolution of x [n, h, w, c] with kernel [k, l, c, d], l = k or one of them 1, padded by (k - 1) / 2 above
  and below and (l - 1) / 2 left and right. A side with kernel size 1 keeps its length, unless both have.
  """
  rows, columns = kernel.shape[:2]
  if rows == columns == 1:
    return x[:, ::stride, ::stride] @ kernel[0, 0]
  return lax.conv_general_dilated(x, kernel, [stride if k > 1 else 1 for k in (rows, columns)],
                                  [((k - 1) // 2,) * 2 for k in (rows, columns)],
                                  dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def factorized_reduce(x, kernel, norm=normalise):
  """Halves h and w of x [n, h, w, c]: ReLU, two 1x1 convolutions kernel [2, c, d / 2] of stride 2, the second on x
  shifted by one pixel, concatenated, normalised. Odd sides round up, the missing row and column being zero.
  """
  x = jax.nn.relu(x)
  shifted = jnp.pad(lax.slice(x, (0, 1, 1, 0), x.shape), ((0, 0), (0, 1), (0, 1), (0, 0)))
  halves = (lax.slice(each, (0, 0, 0, 0), x.shape, (1, 2, 2, 1)) for each in (x, shifted))
  return norm(jnp.concatenate([half @ lax.index_in_dim(kernel, i, keepdims=False) for i, half in enumerate(halves)],
                              -1))


def _taps(x, size, dilation, stride, fill=0.0):
  """The size * size shifted views of x [n, h, w, c] that a 'same' window sees, row by row."""
  pad, (_, h, w, _) = dilation * (size - 1) // 2, x.shape
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
  return [x[:, i:i + h:stride, j:j + w:stride] for i in range(0, dilation * size, dilation)
          for j in range(0, dilation * size, dilation)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x, kernel, stride=1, dilation=1):
  """Depthwise convolution of x [n, h, w, c] with kernel [k, k, c], padded by dilation * (k - 1) / 2 on every side.

  On CPU it is a sum of k * k shifted products, which XLA fuses into one loop: its own grouped convolution is ten
  times slower there. Elsewhere it is the native convolution.
  """
  return _by_platform(_shifted, ELSEWHERE[0], stride, dilation, x, kernel)


def _by_platform(on_cpu, elsewhere, stride, dilation, *args):
  """What `on_cpu(*args, stride, dilation)` gives where a program for a CPU is made, and `elsewhere` for others."""
  here, there = (functools.partial(form, stride=stride, dilation=dilation) for form in (on_cpu, elsewhere))
  if _PORTABLE.get():
    return lax.platform_dependent(*args, cpu=here, default=there)
  return (here if jax.default_backend() == 'cpu' else there)(*args)


def _native(x, kernel, stride, dilation):
  pad = dilation * (kernel.shape[0] - 1) // 2
  return lax.conv_general_dilated(x, kernel[:, :, None], (stride, stride), [(pad, pad)] * 2,
                                  rhs_dilation=(dilation, dilation), feature_group_count=x.shape[-1],
                                  dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _shifted(x, kernel, stride, dilation):
  flat = kernel.reshape(-1, kernel.shape[-1])
  views = _taps(x, kernel.shape[0], dilation, stride)
  return sum(view * flat[i][None, None, None] for i, view in enumerate(views))


def _depthwise_forward(x, kernel, stride, dilation):
  return depthwise(x, kernel, stride, dilation), (x, kernel)


def _depthwise_backward(stride, dilation, saved, dy):
  return _by_platform(_shifted_backward, ELSEWHERE[1], stride, dilation, *saved, dy)


def _native_backward(x, kernel, dy, stride, dilation):
  """An ordinary convolution: JAX differentiates it."""
  return jax.vjp(lambda x, k: _native(x, k, stride, dilation), x, kernel)[1](dy)


def _shifted_backward(x, kernel, dy, stride, dilation):
  dx = depthwise(_between_zeros(dy, x.shape, stride), kernel[::-1, ::-1], 1, dilation)
  return dx, _kernel_gradient(x, dy, kernel.shape[0], stride, dilation).astype(kernel.dtype)


def _kernel_gradient(x, dy, size, stride, dilation):
  """Gradient [size, size, c] of a depthwise kernel: for every tap the sum of view * dy over images and positions.

  The images go through in blocks that stay in cache. A block takes every (n / block)-th image, so that each device of
  a batch-sharded mesh holds an equal part of every block. A loop also keeps XLA
  from fusing what makes x and dy into every reduction, which multiplies compile time.
  """
  wide = jnp.promote_types(x.dtype, jnp.float32)

  def reduce(x, dy):
    return jnp.stack([(view.astype(wide) * dy).sum((0, 1, 2)) for view in _taps(x, size, dilation, stride)])

  n = x.shape[0]
  block = next((b for b in (8, 4, 2, 1) if n % b == 0 and n > b), 0)
  if not block:
    total = reduce(x, dy)
  else:
    xs, dys = (a.reshape(block, n // block, *a.shape[1:]) for a in (x, dy))
    total = lax.fori_loop(0, n // block, lambda i, acc: acc + reduce(
        lax.dynamic_index_in_dim(xs, i, 1, False), lax.dynamic_index_in_dim(dys, i, 1, False)),
        jnp.zeros((size * size, x.shape[-1]), wide))
  return total.reshape(size, size, -1)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)
ELSEWHERE = _native, _native_backward  # a depthwise convolution and its gradients where no program for a CPU is made


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x, stride=1):
  """3x3 maximum of x [n, h, w, c], padded by 1 with minus infinity. Tied pixels share the gradient equally."""
  _, h, w, _ = x.shape
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
  rows = functools.reduce(jnp.maximum, [x[:, i:i + h:stride] for i in range(3)])
  return functools.reduce(jnp.maximum, [rows[:, :, j:j + w:stride] for j in range(3)])


def _max_pool_forward(x, stride):
  """Kept for the backward pass is which pixels of a window are its maximum, as bits.

  Not x and the maximum, to be compared there: XLA may compute x once more for that, and round it otherwise; then no
  pixel equals the maximum and the gradient is lost. One bit is set in any case.
  """
  views = _taps(x, 3, 1, stride, -jnp.inf)
  most, first = views[0], jnp.zeros(views[0].shape, jnp.int32)
  for i, view in enumerate(views[1:], 1):
    first = jnp.where(view > most, i, first)
    most = jnp.maximum(view, most)
  bits = sum(((view >= most) | (first == i)).astype(jnp.int32) << i for i, view in enumerate(views))
  return most, (bits.astype(jnp.int16), jnp.zeros((0, *x.shape[1:3]), x.dtype))


def _max_pool_backward(stride, saved, dy):
  # Two passes: a window's share for each of its tied pixels, and what every pixel gets from the nine windows around.
  bits, like = saved
  shape = (None, *like.shape[1:])
  g = dy / jax.lax.population_count(bits).astype(dy.dtype)
  views = zip(*(_taps(_between_zeros(a, shape, stride), 3, 1, 1) for a in (bits, g)))
  return (sum(jnp.where(seen >> (8 - i) & 1, share, 0) for i, (seen, share) in enumerate(views)),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def avg_pool(x, stride=1):
  """3x3 mean of x [n, h, w, c], padded by 1; what lies outside the image does not count in the mean."""
  return _avg_pool(x, stride, x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _avg_pool(x, stride, shape):
  return _window_sum(x, stride) / _inside(shape, stride).astype(x.dtype)


def _window_sum(x, stride=1):
  _, h, w, _ = x.shape
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  rows = sum(x[:, i:i + h:stride] for i in range(3))
  return sum(rows[:, :, j:j + w:stride] for j in range(3))


def _inside(shape, stride):
  """How many pixels of every 3x3 window lie inside the image, [1, h', w', 1]."""
  counts = [np.array([min(i + 1, side - 1) - max(i - 1, 0) + 1 for i in range(0, side, stride)]) for side in shape[1:3]]
  return (counts[0][:, None] * counts[1][None])[None, ..., None]


def _avg_pool_backward(stride, shape, saved, dy):
  del saved  # the sum of a window is its own transpose, which XLA would write as nine padded sums
  return (_window_sum(_between_zeros(dy / _inside(shape, stride).astype(dy.dtype), shape, stride)),)


_avg_pool.defvjp(lambda x, stride, shape: (_avg_pool(x, stride, shape), None), _avg_pool_backward)


def _between_zeros(dy, shape, stride):
  """Zeros between the rows and columns of dy [n, h', w', c], so that it has the sides of an input `shape`."""
  if stride == 1:
    return dy
  return lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *((0, big - stride * (small - 1) - 1, stride - 1)
                 for big, small in zip(shape[1:3], dy.shape[1:3])), (0, 0, 0)))


def _side_by_side(kernels):
  """Stacked depthwise kernels [m, k, k, c] as one of m * c channels, [k, k, m * c]."""
  return jnp.moveaxis(kernels, 0, 2).reshape(*kernels.shape[1:3], -1)


def _pointwise(z, kernels):
  """Each edge's own 1x1 convolution: z [n, h, w, m * c], kernels [m, c, d] -> [n, h, w, m * d]."""
  if len(kernels) == 1:
    return z @ kernels[0]
  parts = jnp.split(z, len(kernels), -1)
  return jnp.concatenate([part @ kernel for part, kernel in zip(parts, kernels)], -1)


def _tile(x, m):
  return x if m == 1 else jnp.concatenate([x] * m, -1)


def _sep_conv(size):
  def shapes(c, stride):
    del stride
    depth, point = ((size, size, c), size * size), ((c, c), c)
    return {'depthwise1': depth, 'pointwise1': point, 'depthwise2': depth, 'pointwise2': point}

  def apply(x, p, stride, norm=normalise):
    z = depthwise(_tile(jax.nn.relu(x), len(p['pointwise1'])), _side_by_side(p['depthwise1']), stride, 1)
    z = jax.nn.relu(norm(_pointwise(z, p['pointwise1'])))
    return norm(_pointwise(depthwise(z, _side_by_side(p['depthwise2']), 1, 1), p['pointwise2']))

  return Op(shapes, apply)


def _dil_conv(size):
  def shapes(c, stride):
    del stride
    return {'depthwise': ((size, size, c), size * size), 'pointwise': ((c, c), c)}

  def apply(x, p, stride, norm=normalise):
    z = depthwise(_tile(jax.nn.relu(x), len(p['pointwise'])), _side_by_side(p['depthwise']), stride, 2)
    return norm(_pointwise(z, p['pointwise']))

  return Op(shapes, apply)


def _nor_conv(size):
  def shapes(c, stride):
    del stride
    return {'kernel': ((size, size, c, c), size * size * c)}

  def apply(x, p, stride, norm=normalise):
    kernel = jnp.moveaxis(p['kernel'], 0, 3)
    return norm(conv(jax.nn.relu(x), kernel.reshape(*kernel.shape[:3], -1), stride))

  return Op(shapes, apply)


def _row_column_shapes(c, stride):
  del stride
  return {'row': ((1, 7, c, c), 7 * c), 'column': ((7, 1, c, c), 7 * c)}


def _row_column_uses(name, stride, pixels):
  return stride * pixels if name == 'row' else pixels  # a row halves the width alone


def _row_column(x, p, stride, norm=normalise):
  x = jax.nn.relu(x)
  both = (conv(conv(x, row, stride), column, stride) for row, column in zip(p['row'], p['column']))
  return norm(jnp.concatenate(list(both), -1))


def _skip_shapes(c, stride):
  return {} if stride == 1 else {'kernel': ((2, c, c // 2), c)}


def _skip(x, p, stride, norm=normalise):
  if stride == 1:
    return x
  return jnp.concatenate([factorized_reduce(x, kernel, norm) for kernel in p['kernel']], -1)


def per_edge(apply):
  """`Op.apply` by a function of one edge, `apply(x, params, stride, norm)` -> [n, h', w', c], run once for each."""
  def bank(x, params, stride, norm=normalise):
    edges = len(next(iter(params.values()))) if params else 1
    each = [{name: value[i] for name, value in params.items()} for i in range(edges)]
    return jnp.concatenate([apply(x, own, stride, norm) for own in each], -1)

  return bank


def _no_parameters(c, stride):
  del c, stride
  return {}


# `none` is absent: it adds nothing to a node. The last two are of NASNet and AmoebaNet: no space here carries them.
OPS: Mapping[str, Op] = {
    'max_pool_3x3': Op(_no_parameters, lambda x, p, stride, norm=None: max_pool(x, stride), pool=True),
    'avg_pool_3x3': Op(_no_parameters, lambda x, p, stride, norm=None: avg_pool(x, stride), pool=True),
    'skip_connect': Op(_skip_shapes, _skip),
    'sep_conv_3x3': _sep_conv(3),
    'sep_conv_5x5': _sep_conv(5),
    'dil_conv_3x3': _dil_conv(3),
    'dil_conv_5x5': _dil_conv(5),
    'nor_conv_1x1': _nor_conv(1),
    'nor_conv_3x3': _nor_conv(3),
    'sep_conv_7x7': _sep_conv(7),
    'conv_7x1_1x7': Op(_row_column_shapes, _row_column, uses=_row_column_uses),
}


def named(name: str, own: Mapping[str, Op] | None = None) -> Op:
  """The operation called `name`: one of a space's `own`, if it is among them, else that of OPS."""
  return (own or OPS).get(name) or OPS[name]
