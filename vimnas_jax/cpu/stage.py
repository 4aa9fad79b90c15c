"""A ReLU, depthwise convolution and 1x1 convolution in one kernel, forward and backward, for banks of edges.

One *stage* takes x [n, mx, h, w, c] through relu((x - mean) * scale), m depthwise kernels and m matrices [c, d] to
a [n, m, h', w', d], image by image, so that all between x and a stays in cache; it is recomputed in the backward pass.
Either mx = 1 and all m edges read the same map (`shared`), or mx = m and each reads its own. BatchNorm lies between
the stages: a stage takes the statistics of what comes in and gives those of what goes out.
"""

import numpy as np

from vimnas_jax.cpu import library, shards, table
from vimnas_jax.cpu.shards import BATCH, SAMPLES, WHOLE

FORWARD = 'stage_forward', 'activate', 'moments', *table.PRODUCTS
BACKWARD = 'stage_backward', 'activate', 'spread', 'activate_gradient', 'normalise_gradient', *table.PRODUCTS


def _call(names, outputs, *args, kinds, size, dilation, stride, **more):
  loops = [f'window_{size}_{dilation}_{moved}_{kind}' for moved in {1, stride}
           for kind in ('forward', 'forward_add', 'kernel_gradient')]
  code = 3 * (16 * size + 4 * dilation + stride)
  return library.call((*names, *loops), np.gcd(args[4].shape[1], args[4].shape[2]), outputs, *args, kinds=kinds,
                      code=code, dilation=dilation, size=size, stride=stride, **more)


def forward(x, mean, scale, kernel, matrix, dilation=1, stride=1):
  """A stage: x [n, mx, h, w, c], mean and scale [mx * c], kernel [m, k, k, c], matrix [m, c, d] ->
  (a [n, m, h', w', d], moments [n, 2, m * d]: every image's mean and sum of squared distances from it).
  """
  n, _, h, w, _ = x.shape
  m, _, d = matrix.shape
  out = n, m, -(-h // stride), -(-w // stride), d
  return _call(FORWARD, [out, (n, 2, m * d)], x, mean, scale, kernel, matrix,
               kinds=(BATCH, WHOLE, WHOLE, WHOLE, WHOLE), size=kernel.shape[1], dilation=dilation, stride=stride)


def backward(x, mean, scale, kernel, turned, g, a, center, p, q, r, dilation=1, stride=1, whole=True):
  """The backward pass from da = p * g + q * (a - center) + r, with g a list: one map like a, or m maps [n, h', w', d],
  p [samples, m * d], q and r [m * d]; `turned` are the matrices transposed, [m, d, c].

  Returns the gradients (u [n, mx, h, w, c] of (x - mean) * scale, sums [parts, 2, mx * c] of u and of u * (x - mean)
  in parts of the batch, and if it is to be `whole` in such parts the kernels' [parts, m, k, k, c] and the matrices'
  [parts, m, c, d]).
  """
  n, mx, _, _, c = x.shape
  size, parts = kernel.shape[1], shards.parts(n, len(p))
  m, d, _ = turned.shape
  own = [(parts, *kernel.shape), (parts, m, c, d)] if whole else []
  return _call(
      BACKWARD, [x.shape, (parts, 2, mx * c), *own],
      x, mean, scale, kernel, turned, a, center, p, q, r, *g,
      kinds=(BATCH, *(WHOLE,) * 4, BATCH, WHOLE, SAMPLES, WHOLE, WHOLE, *(BATCH,) * len(g)), size=size,
      dilation=dilation, stride=stride, whole=int(whole))
