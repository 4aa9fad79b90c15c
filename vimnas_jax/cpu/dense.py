"""A ReLU and an ordinary convolution in one kernel, forward and backward, for banks of edges that read one node.

x [n, h, w, c] goes through relu and one kernel [k, k, c, d] to a [n, h', w', d], image by image; d may hold the
channels of several edges side by side. A row of the padded image is contiguous, so a row of the kernel is one matrix
product of depth k * c. BatchNorm follows; its coefficients come in on the way back, as in stage.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numba import njit

from vimnas_jax.cpu import ffi, loops
from vimnas_jax.cpu.ffi import OPTIONS, alive, arg, arg_dim, attr, call, copy, result, result_dim, scratch
from vimnas_jax.cpu.stage import CHUNKS, vector_length


@functools.cache
def _compile(vector: int, dtype: str):
  """Registers both calls for one vector length and type. Attributes by alphabet: chunks, size, stride."""
  do, v, s, kind = loops.basic(vector, dtype), vector, np.dtype(dtype).itemsize, np.dtype(dtype).type
  multiply, multiply_add = (loops.matrix_product(vector, dtype, add) for add in (False, True))
  activate, activate_gradient = do['activate'].address, do['activate_gradient'].address
  normalise_gradient, moments = do['normalise_gradient'].address, do['moments'].address

  @njit(**OPTIONS)
  def convolve(x, row, c, kernel, to, to_row, h, w, d, size, stride):
    # to [h, w, d] = padded x convolved with kernel [size, size * c, d]
    for i in range(h):
      for tap in range(size):
        view, weights = x + s * (i * stride + tap) * row, kernel + s * tap * size * c * d
        if tap == 0:
          multiply(view, stride * c, 1, weights, d, to + s * i * to_row, d, v, size * c, w, d)
        else:
          multiply_add(view, stride * c, 1, weights, d, to + s * i * to_row, d, v, size * c, w, d)

  @njit(**OPTIONS)
  def forward(frame, index):
    x, kernel, none, one = arg(frame, 0), arg(frame, 1), arg(frame, 2), arg(frame, 3)
    n, h, w, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    ho, wo, d = result_dim(frame, 0, 1), result_dim(frame, 0, 2), result_dim(frame, 0, 3)
    chunks, size, stride = attr(frame, 0), attr(frame, 1), attr(frame, 2)
    pad = (size - 1) // 2
    row = (w + 2 * pad) * c
    padded = np.zeros((h + 2 * pad) * row + 16, kind)
    share = np.full(1, 1 / (ho * wo), kind)
    xp = scratch(padded)
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      for b in range(0, c, v):
        call(activate, x + s * (image * h * w * c + b), w * c, c, none + s * b, one + s * b, h, w,
             xp + s * (pad * row + pad * c + b), row, c)
      to = result(frame, 0) + s * image * ho * wo * d
      convolve(xp, row, c, kernel, to, wo * d, ho, wo, d, size, stride)
      for b in range(0, d, v):
        call(moments, to + s * b, d, ho * wo, share.ctypes.data, result(frame, 1) + s * (2 * image * d + b), d)
    alive(padded, share)

  @njit(**OPTIONS)
  def backward(frame, index):
    x, kernel, none, one, g, a = (arg(frame, 0), arg(frame, 1), arg(frame, 2), arg(frame, 3), arg(frame, 4),
                                  arg(frame, 5))
    center, p, q, r, samples = arg(frame, 6), arg(frame, 7), arg(frame, 8), arg(frame, 9), arg_dim(frame, 7, 0)
    n, h, w, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    ho, wo, d = arg_dim(frame, 4, 1), arg_dim(frame, 4, 2), arg_dim(frame, 4, 3)
    chunks, size, stride = attr(frame, 0), attr(frame, 1), attr(frame, 2)
    pad = (size - 1) // 2
    row, back = (w + 2 * pad) * c, (w + 2 * pad) * d
    padded, spread = np.zeros((h + 2 * pad) * row + 16, kind), np.zeros((h + 2 * pad) * back + 16, kind)
    narrow, wide = np.empty(ho * wo * d + 16, kind), np.empty(h * w * c + 16, kind)
    unused = np.zeros(2 * v, kind)
    dk = np.zeros(size * size * c * d, kind)
    xp, zp, da, dx = scratch(padded), scratch(spread), scratch(narrow), scratch(wide)
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      sample = image * samples // n
      for b in range(0, c, v):
        call(activate, x + s * (image * h * w * c + b), w * c, c, none + s * b, one + s * b, h, w,
             xp + s * (pad * row + pad * c + b), row, c)
      for b in range(0, d, v):
        here = s * (image * ho * wo * d + b)
        call(normalise_gradient, g + here, a + here, d, center + s * b, p + s * (sample * d + b), q + s * b,
             r + s * b, ho * wo, da + s * b, d)
      for i in range(ho):
        for j in range(wo):
          copy(zp + s * ((pad + i * stride) * back + (pad + j * stride) * d), da + s * (i * wo + j) * d, s * d)
      for tap in range(size):  # zp is zero between its pixels, so the whole image is one sum
        multiply_add(xp + s * tap * row, 1, c, zp + s * (pad * back + pad * d), d,
                     dk.ctypes.data + s * tap * size * c * d, d, v, h * (w + 2 * pad) - 2 * pad, size * c, d)
      convolve(zp, back, d, kernel, dx, w * c, h, w, c, size, 1)
      for b in range(0, c, v):
        here = s * (image * h * w * c + b)
        call(activate_gradient, dx + s * b, x + here, c, none + s * b, one + s * b, h * w, result(frame, 0) + here,
             unused.ctypes.data, v)
    copy(result(frame, 1) + s * index * dk.size, dk.ctypes.data, s * dk.size)
    alive(padded, spread, narrow, wide, unused, dk)

  for name, chunk in (('forward', forward), ('backward', backward)):
    ffi.register(_target(name, vector, dtype), chunk)


def _target(name, vector, dtype):
  return f'vimnas_jax_dense_{name}_{dtype}x{vector}'


def _call(name, outputs, x, kernel, *args, stride):
  size, c, d = kernel.shape[0], *kernel.shape[2:]
  vector = vector_length(np.gcd(c, d), x.dtype)
  _compile(vector, x.dtype.name)
  channels = x.shape[-1]
  return jax.ffi.ffi_call(_target(name, vector, x.dtype.name), [jax.ShapeDtypeStruct(o, x.dtype) for o in outputs])(
      x, kernel, jnp.zeros(channels, x.dtype), jnp.ones(channels, x.dtype), *args,
      chunks=np.int64(min(CHUNKS, x.shape[0])), size=np.int64(size), stride=np.int64(stride))


def forward(x, kernel, stride=1):
  """relu(x) [n, h, w, c] convolved with kernel [k, k, c, d]: (a [n, h', w', d], moments [n, 2, d] as in stage.py)."""
  n, h, w, _ = x.shape
  d = kernel.shape[-1]
  return _call('forward', [(n, -(-h // stride), -(-w // stride), d), (n, 2, d)], x, kernel, stride=stride)


def backward(x, kernel, g, a, center, p, q, r, stride=1):
  """The way back from da = p * g + q * (a - center) + r: gradients of x and of the kernel."""
  chunks = min(CHUNKS, x.shape[0])
  turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)  # [k, k, d, c]
  dx, dk = _call('backward', [x.shape, (chunks, *kernel.shape)], x, turned, g, a, center, p, q, r, stride=stride)
  return dx, dk.sum(0)
