"""A ReLU and an ordinary convolution in one kernel, forward and backward, for banks of edges that read one node.

x [n, h, w, c] goes through relu and one kernel [k, k, c, d] to a [n, h', w', d], image by image; d may hold the
channels of several edges side by side. With `relu` False it goes into the kernel as it is; with `relu` PADDED it comes
padded besides, may have any number of channels, and gets no gradient: an image. A row of the padded image is
contiguous, so a row of the kernel is one matrix product of depth k * c. BatchNorm follows; its coefficients come in in
the backward pass, as in stage.py. Most 3x3 kernels are done by winograd.py.
"""

import jax.numpy as jnp
import numpy as np

from vimnas_jax.cpu import library, mix, shards, table, winograd
from vimnas_jax.cpu.shards import BATCH, SAMPLES, WHOLE
from vimnas_jax.cpu.table import PADDED

FORWARD = 'dense_forward', 'moments', *table.PRODUCTS
BACKWARD = 'dense_backward', 'normalise_gradient', 'gated_gradient', *table.PRODUCTS


def pack(kernel, vector):
  """A kernel [k, k, c, d] in strips that a product reads through: [k, d / width, k * c, width]."""
  k, _, c, d = kernel.shape
  width = table.panel(d, vector)
  return jnp.swapaxes(kernel.reshape(k, k * c, d // width, width), 1, 2)


def _call(names, outputs, x, kernel, *args, stride, relu, kinds=(), beside=(), **more):
  # `beside`: widths of maps that lie side by side, of which no vector may span two
  k, c, d = kernel.shape[0], *kernel.shape[2:]
  channels = int(np.gcd.reduce([d if relu == PADDED else c, d, *beside]))
  none, one = np.zeros(x.shape[-1], x.dtype), np.ones(x.shape[-1], x.dtype)
  return library.call(names, channels, outputs, x, pack(kernel, table.vector_length(channels, x.dtype)), none, one,
                      *args, kinds=(BATCH, WHOLE, WHOLE, WHOLE, *kinds), size=k, stride=stride, relu=int(relu), **more)


def forward(x, kernel, stride=1, relu=True):
  """relu(x) [n, h, w, c] convolved with kernel [k, k, c, d]: (a [n, h', w', d], moments [n, 2, d] as in stage.py)."""
  padded = relu == PADDED
  if not padded and winograd.fits(x, kernel, stride):
    return winograd.forward(x, kernel, relu)
  n, d = len(x), kernel.shape[-1]
  h, w = (side - (len(kernel) - 1) * padded for side in x.shape[1:3])
  loops = () if padded else ('activate',) if relu else ('spread',)
  return _call((*FORWARD, *loops), [(n, -(-h // stride), -(-w // stride), d), (n, 2, d)], x, kernel, stride=stride,
               relu=relu)


def backward(x, kernel, g, a, center, p, q, r, stride=1, relu=True, whole=True, gate=None):
  """The backward pass from da = p * g + q * (a - center) + r, with g a list of maps [n, h', w', *] that lie side by
  side in a: gradients of x, None where it comes PADDED, and of the kernel, None unless it is to be `whole`. With a
  `gate`, (by [d], plus [d]), g counts only where a * by + plus is above 0: a ReLU followed.
  """
  padded = relu == PADDED
  if not padded and winograd.fits(x, kernel, stride):
    return winograd.backward(x, kernel, g, a, center, p, q, r, relu, whole, gate)
  if padded and not whole:
    return None, None
  parts = shards.parts(len(x), len(p))
  turned = kernel if padded else jnp.swapaxes(kernel[::-1, ::-1], 2, 3)  # [k, k, d, c]; an image needs none
  loops = () if padded else ('activate', 'activate_gradient') if relu else ('spread',)
  found = _call((*BACKWARD, *loops), [x.shape, (parts, *kernel.shape)][padded:1 + whole], x, turned, a, center, p, q, r,
                *(gate or (q, r)), *g, stride=stride, relu=relu, whole=int(whole), gated=int(gate is not None),
                beside=[each.shape[-1] for each in g],
                kinds=(BATCH, WHOLE, SAMPLES, *(WHOLE,) * 4, *(BATCH,) * len(g)))
  dx, dk = [None] * padded + found[:1 - padded], found[1 - padded:]
  return *dx, *(mix.fold(*dk) if whole else (None,))
