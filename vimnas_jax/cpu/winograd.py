"""A ReLU and a 3x3 convolution of stride 1 by Winograd's tiles: a quarter of the multiplications of dense.py.

Images fall into tiles of 4x4 pixels, the last of which may stand out; source/tiles.py has the mathematics. Rounding
errors are some ten times those of the sum over taps, up to 1e-5 of the largest output in float32
(tests/test_winograd.py).
"""

import jax.numpy as jnp
import numpy as np

from vimnas_jax.cpu import library, mix, shards, table
from vimnas_jax.cpu.shards import BATCH, SAMPLES, WHOLE

PIXELS = 1024  # of a batch, at least
FORWARD = 'winograd_forward', 'tiles_in', 'tiles_out', 'spread', 'moments', 'fetch_write', *table.PRODUCTS
BACKWARD = ('winograd_backward', 'tiles_in', 'normalise_gradient', 'gated_gradient', 'tiles_gradient', 'tiles_known',
            'tiles_back', 'taps_back', 'fetch_read', *table.PRODUCTS)


def fits(x, kernel, stride) -> bool:
  """Whether x [n, h, w, c] with a kernel [k, k, c, d] is a convolution that this module does, and sooner than dense.py:
  narrow ones gain nothing, with few pixels the kernel's points take longer than the rest, and small maps are mostly
  what stands out of them of tiles.
  """
  n, h, w, _ = x.shape
  tiles = -(-h // 4) * -(-w // 4)
  return (kernel.shape[:2] == (3, 3) and stride == 1 and min(kernel.shape[2:]) >= 8
          and n * h * w >= PIXELS and 5 * tiles <= h * w)


def points(kernel):
  """A kernel [3, 3, c, d] at the 36 points, in strips as a product reads them: [36, d / width, c, width]."""
  c, d = kernel.shape[2:]
  channels = np.gcd(c, d)
  width = table.panel(d, table.vector_length(channels, kernel.dtype))
  return library.call(('winograd_points', 'taps_in'), channels, [(36, d // width, c, width)], kernel,
                      chunks=table.CHUNKS)[0]


def forward(x, kernel, relu=True):
  """As dense.forward: relu(x) [n, h, w, c] convolved with kernel [3, 3, c, d], and the moments of every image."""
  n, h, w, _ = x.shape
  c, d = kernel.shape[2:]
  channels = np.gcd(c, d)
  none, one = np.zeros(c, x.dtype), np.ones(c, x.dtype)
  return library.call((*FORWARD, *('activate',) * relu), channels, [(n, h, w, d), (n, 2, d)], x, points(kernel), none,
                      one, kinds=(BATCH, WHOLE, WHOLE, WHOLE), relu=int(relu))


def backward(x, kernel, g, a, center, p, q, r, relu=True, whole=True, gate=None):
  """As dense.backward: gradients of x [n, h, w, c] and, if `whole`, of the kernel [3, 3, c, d]."""
  c, d = kernel.shape[2:]
  channels, count = np.gcd(c, d), shards.parts(len(x), len(p))
  none, one = np.zeros(c, x.dtype), np.ones(c, x.dtype)
  turned = points(jnp.swapaxes(kernel, 2, 3))
  loops = ('activate', 'let_through') if relu else ('spread',)
  dx, *dk = library.call(
      (*BACKWARD, *loops), channels, [x.shape, (count, *kernel.shape)][:1 + whole], x, turned, none, one, a, center, p,
      q, r, *(gate or (q, r)), *g, kinds=(BATCH, WHOLE, WHOLE, WHOLE, BATCH, WHOLE, SAMPLES, *(WHOLE,) * 4,
                                          *(BATCH,) * len(g)),
      relu=int(relu), whole=int(whole), gated=int(gate is not None))
  return dx, *(mix.fold(*dk) if whole else (None,))
