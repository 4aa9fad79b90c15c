"""A block of the one-shot network of NAS-Bench-1Shot1: its pool and its convolutions, mixed.

The ReLU stands between BatchNorm and the mixing here, so the mixture is no sum of normalised maps as in bank.py: it is
made of the raw convolutions in one pass, and made again from them in the backward pass, which saves a map for each of
them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax.cpu import normed, pools
from vimnas_jax.cpu.zeros import arrays, perturbed, values

POOL = 'max_pool_3x3'


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mixed(how, x, weights, convolutions):
  """The mixture of what a block does to x.

  Args:
    how: (eps of BatchNorm, order): for each operation None, if it is the 3x3 maximum, or else its place among the
      convolutions.
    x: [n, h, w, c], nowhere negative: the kernels have a ReLU in front, which must change nothing.
    weights: mixing weights [samples, operations]; the batch falls into `samples` equal groups, in order.
    convolutions: for each (kernel [k, k, c, c], scale [c], bias [c]); BatchNorm, by the batch's statistics, and ReLU
      follow.

  Returns:
    [n, h, w, c].
  """
  return _forward(how, x, weights, convolutions)[0]


def _images(weights, n):
  return jnp.repeat(weights, n // len(weights), 0)[..., None, None, None]


def _along(channels):
  return channels[None, None, None]


def _forward(how, x, weights, convolutions):
  eps, order = how
  learned = perturbed([kernel for kernel, *_ in convolutions])
  x, weights, convolutions = values((x, weights, convolutions))
  largest = pools.forward(x, (POOL,), 1)[POOL][0] if None in order else None
  found = []
  for kernel, scale, bias in convolutions:
    a, moments = normed.convolve(x, (kernel,), (1,))
    mean, var = normed.statistics(moments, a.shape[1] * a.shape[2])
    inverse = jax.lax.rsqrt(var + eps)
    found.append((a, mean, inverse, scale * inverse, bias - mean * scale * inverse))
  each, y = _images(weights, len(x)), 0
  for o, at in enumerate(order):
    y += each[:, o] * (largest if at is None else _output(found[at]))
  return y, (x, weights, convolutions, largest, found, learned)


def _output(convolution):
  a, _, _, by, plus = convolution
  return jax.nn.relu(a * _along(by) + _along(plus))


def _backward(how, saved, g):
  _, order = how
  x, weights, convolutions, largest, found, learned = saved
  g = arrays(g)
  n, c, samples = len(x), x.shape[-1], len(weights)
  each = _images(weights, n)
  dx, d_weights, own = [], [], [None] * len(convolutions)
  for o, at in enumerate(order):
    y = largest if at is None else _output(found[at])
    d_weights.append((g * y).reshape(samples, -1).sum(1))
    if at is None:
      p, none = jnp.repeat(weights[:, o:o + 1], c, 1), np.zeros(c, x.dtype)
      dx.append(pools.backward(x, [g], {POOL: ((0,), p, largest, none, none, none)}, False, 1))
    else:
      kernel, scale, _ = convolutions[at]
      back, (d_kernel,), *d_affine = normed.backward((1,), x, (kernel,), scale, *found[at][:3], learned,
                                                     jnp.where(y > 0, each[:, o] * g, 0))
      dx.append(back)
      own[at] = (d_kernel, *d_affine)
  return functools.reduce(jnp.add, dx), jnp.stack(d_weights, 1), tuple(own)


mixed.defvjp(_forward, _backward, symbolic_zeros=True)
