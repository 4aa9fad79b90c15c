"""A convolution and the BatchNorm behind it, with scale and bias: what the network of a genotype consists of.

In training the kernels of stage.py and dense.py give every image's moments with the convolution's output, and take the
gradient of the normalisation as three coefficients of each channel, so BatchNorm costs one pass over the map each way.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax.cpu import bank, dense, leaves, mix, stage, table
from vimnas_jax.cpu.table import PADDED
from vimnas_jax.cpu.zeros import arrays, perturbed, values


def fits(channels: int, width: int, dtype) -> bool:
  """Whether a convolution from `channels` to `width` of this type has kernels here."""
  return np.dtype(dtype).name in ('float32', 'float64') and table.vector_length(np.gcd(channels, width), dtype) >= 4


def fits_image(width: int, dtype) -> bool:
  """Whether a convolution from an image, of any number of channels, to `width` of this type has kernels here."""
  return fits(width, width, dtype)


def of_image(x, size: int, stride: int):
  """X and window as `trained` and `evaluated` take them, for a convolution of this size from an image [n, h, w, c]."""
  pad = ((size - 1) // 2,) * 2
  return jnp.pad(x, ((0, 0), pad, pad, (0, 0))), (stride, PADDED)


def calls(op: str, params, stride: int):
  """What an operation does: a list of (weights, window) of its convolutions, as `trained` and `evaluated` take them.

  Empty for an operation that has no convolutions, or none with kernels here.
  """
  if op in bank.DENSE:
    return [((params['kernel'],), (stride,))]
  _, dilation, names = bank.STAGES.get(op, (0, 0, ()))
  return [(tuple(params[name] for name in pair), (dilation, 1 if i else stride)) for i, pair in enumerate(names)]


def trained(x, weights, window, scale, bias, eps):
  """ReLU, convolution and BatchNorm by the batch's statistics.

  Args:
    x: [n, h, w, c].
    weights: of an ordinary convolution (kernel [k, k, c, d],); of a separable one (depthwise kernel [k, k, c], matrix
      [c, d]).
    window: (stride,), or (stride, False) where no ReLU is in front, or what `of_image` gave with x; of a separable one
      (dilation, stride).
    scale: of BatchNorm, [d].
    bias: of BatchNorm, [d].
    eps: of BatchNorm.

  Returns:
    (y [n, h / stride, w / stride, d], mean [d], biased variance [d]); no gradient goes through the last two.
  """
  return _normed((eps, *window), x, weights, scale, bias)


def evaluated(x, weights, window, scale, bias, eps, mean, var):
  """ReLU, convolution and BatchNorm by given statistics [d]: y alone; otherwise as `trained`. Has no gradient."""
  a, _ = convolve(x, weights, window)
  by = scale * jax.lax.rsqrt(var + eps)
  return a * by[None, None, None] + (bias - mean * by)[None, None, None]


def convolve(x, weights, window):
  """ReLU, if the window has it, and convolution alone: (output [n, h', w', d], every image's moments [n, 2, d] as in
  stage.py).
  """
  if len(weights) == 1:
    return dense.forward(x, *weights, *window)
  a, moments = stage.forward(x[:, None], *_as_is(x), *(w[None] for w in weights), *window)
  return a[:, 0], moments


def _as_is(x):
  """Mean and scale that leave the input of a stage what it is."""
  return np.zeros(x.shape[-1], x.dtype), np.ones(x.shape[-1], x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normed(how, x, weights, scale, bias):
  return _forward(how, x, weights, scale, bias)[0]


def _forward(how, x, weights, scale, bias):
  eps, *window = how
  learned, asked = perturbed(weights), perturbed(x)
  x, weights, scale, bias = values((x, weights, scale, bias))
  a, moments = convolve(x, weights, window)
  mean, inverse, var = mix.statistics(moments, a.shape[1] * a.shape[2], eps, a.shape[3], variance=True)
  y = (a - mean[None, None, None]) * (scale * inverse)[None, None, None] + bias[None, None, None]
  return (y, mean, var), (x, weights, scale, a, mean, inverse, learned, asked)


def _backward(how, saved, gradients):
  *saved, asked = saved
  dx, *more = backward(how[1:], *saved, g := arrays(gradients)[0])
  return (_of_image(how[1], *saved, g, *more) if dx is None and asked is not None else dx), *more


def _of_image(stride, x, weights, scale, a, mean, inverse, learned, g, d_weights, spread, d_bias):
  """The gradient of a padded image, for which there is no kernel."""
  del learned, d_weights
  count, (kernel,) = a.size // a.shape[-1], weights
  by, along, shift = (v[None, None, None] for v in (scale * inverse, inverse * spread / count, d_bias / count))
  da = by * (g - (a - mean[None, None, None]) * along - shift)
  plain = functools.partial(jax.lax.conv_general_dilated, window_strides=(stride,) * 2, padding='VALID',
                            dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  return jax.vjp(lambda x: plain(x, kernel), x)[1](da)[0]


def backward(window, x, weights, scale, a, mean, inverse, learned, g, totals=None, gate=None):
  """The gradients of x, the weights, scale and bias from that of the output, g.

  Other arguments as those of `trained`; a [n, h', w', d] is what `convolve` gave, mean [d] and inverse [d] the batch's
  mean and 1 / deviation. The gradient of the weights is None unless `learned`, as `perturbed` has it. `totals`, if they
  are known, are every image's sums [n, 2, d] of g and of g * (a - mean).

  `gate` is for an ordinary convolution whose output goes on through a ReLU and factors: (factors [samples, d], plus
  [d]), with scale * inverse * a + plus what the ReLU gets. Then g is a list of gradients of what comes out of both,
  side by side, and `totals` are those of what passes them on the way back.
  """
  count = a.size // a.shape[-1]
  d_bias, spread = (mix.sums([g], [(a[:, None], mean)]) if totals is None else totals).sum(0)
  p = scale * inverse
  coefficients = p[None], -p * jnp.square(inverse) * spread / count, -p * d_bias / count
  if len(weights) == 2:
    kernel, matrix = (w[None] for w in weights)
    u, _, *own = stage.backward(x[:, None], *_as_is(x), kernel, *leaves.turned([matrix]), [g], a[:, None], mean,
                                *coefficients, *window, whole=learned is not None)
    dx, own = u[:, 0], [w[0] for w in mix.fold(*own)] if own else (None, None)
  else:
    if gate is not None:
      factors, plus = gate
      g, coefficients, gate = tuple(g), (factors * p[None], *coefficients[1:]), (p, plus)
    dx, *own = dense.backward(x, *weights, g if gate else [g], a, mean, *coefficients, *window,
                              whole=learned is not None, gate=gate)
  return dx, tuple(own), spread * inverse, d_bias


_normed.defvjp(_forward, _backward, symbolic_zeros=True)
