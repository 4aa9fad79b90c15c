"""A block of the one-shot network of NAS-Bench-1Shot1: its pool and its convolutions, mixed.

The ReLU stands between BatchNorm and the mixing here, so the mixture is no sum of normalised maps as in bank.py: it is
made of the raw convolutions in one pass, and made again from them in the backward pass, which saves a map for each of
them.
"""

import functools

import jax.numpy as jnp
import numpy as np

from vimnas_jax.cpu import library, mix, normed, pools
from vimnas_jax.cpu.shards import BATCH, SAMPLES, WHOLE

POOL = 'max_pool_3x3'
WINDOW = 1, False  # of a convolution: its stride, and no ReLU in front of it


def forward(how, x, weights, convolutions):
  """The mixture of what a block does to x, and what `backward` will take.

  Args:
    how: (eps of BatchNorm, order): for each operation None, if it is the 3x3 maximum, or else its place among the
      convolutions.
    x: [n, h, w, c].
    weights: mixing weights [samples, operations]; the batch falls into `samples` equal groups, in order.
    convolutions: for each (kernel [k, k, c, c], scale [c], bias [c]); BatchNorm, by the batch's statistics, and ReLU
      follow.

  Returns:
    ([n, h, w, c], what to keep).
  """
  eps, order = how
  c = x.shape[-1]
  largest = pools.largest(x) if None in order else None
  found = []
  for kernel, scale, bias in convolutions:
    a, moments = normed.convolve(x, (kernel,), WINDOW)
    mean, inverse = mix.statistics(moments, a.shape[1] * a.shape[2], eps, c)
    found.append((a, mean, inverse, scale * inverse, bias - mean * scale * inverse))
  pool = largest, np.ones(c, x.dtype), np.zeros(c, x.dtype)
  terms = [pool if at is None else (found[at][0], *found[at][3:]) for at in order]
  y = library.call(('block_forward', 'blend_set', 'blend_add', 'add_first', 'add_more'), c, [x.shape],
                   *(a for term in terms for a in term), weights,
                   kinds=(*(BATCH, WHOLE, WHOLE) * len(terms), SAMPLES),
                   pool=order.index(None) if None in order else -1)[0]
  return y, (x, weights, convolutions, largest, found)


def backward(how, saved, g, learned):
  """Gradients of x, of the weights and of the convolutions from that of the mixture, g [n, h, w, c], and what `forward`
  kept; those of kernels are None unless `learned`, as `perturbed` has it.
  """
  _, order = how
  x, weights, convolutions, largest, found = saved
  n, c, samples = len(x), x.shape[-1], len(weights)
  places = [o for at in range(len(found)) for o, own in enumerate(order) if own == at]  # of each convolution
  terms = [(a, mean, by, plus) for a, mean, _, by, plus in found]
  last = () if largest is None else (largest,)
  totals, *dots = library.call(
      ('block_sums', 'gate_loop', 'dot_loop'), c, [(n, 3, len(found) * c), *[(n, c)] * len(last)], g,
      weights[:, jnp.array(places)], *(a for term in terms for a in term), *last,
      kinds=(BATCH, SAMPLES, *(BATCH, WHOLE, WHOLE, WHOLE) * len(found), *(BATCH,) * len(last)))
  totals = totals.reshape(n, 3, len(found), c)
  dx, d_weights, own = [], [None] * len(order), []
  for i, o in enumerate(places):
    d_weights[o] = totals[:, 2, i].reshape(samples, -1).sum(1)
    (kernel, scale, _), factors = convolutions[i], jnp.repeat(weights[:, o:o + 1], c, 1)
    back, (d_kernel,), *d_affine = normed.backward(WINDOW, x, (kernel,), scale, *found[i][:3], learned, [g],
                                                   totals[:, :2, i], (factors, found[i][4]))
    dx.append(back)
    own.append((d_kernel, *d_affine))
  if largest is not None:
    o, none = order.index(None), np.zeros(c, x.dtype)
    d_weights[o] = dots[0].reshape(samples, -1).sum(1)
    p = jnp.repeat(weights[:, o:o + 1], c, 1)
    dx.append(pools.backward(x, [g], {POOL: ((0,), p, largest, none, none, none)}, False, 1))
  return functools.reduce(jnp.add, dx), jnp.stack(d_weights, 1), tuple(own)
