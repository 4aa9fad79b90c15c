"""A ReLU, depthwise convolution and 1x1 convolution in one kernel, forward and backward, for banks of edges.

One *stage* takes x [n, mx, h, w, c] through relu((x - mean) * scale), m depthwise kernels and m matrices [c, d] to
a [n, m, h', w', d], image by image, so that all between x and a stays in cache; it is computed again on the way back.
Either mx = 1 and all m edges read the same map (`shared`), or mx = m and each reads its own. BatchNorm lies between
the stages: a stage takes the statistics of what comes in and gives those of what goes out.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numba import njit

from vimnas_jax.cpu import ffi, loops
from vimnas_jax.cpu.ffi import OPTIONS, alive, arg, arg_dim, attr, call, copy, load, result, result_dim, scratch
from vimnas_jax.cpu.vectors import BYTES

CHUNKS = 16  # parts of the batch that threads share out; fixed, so that sums do not depend on the number of threads


@functools.cache
def _compile(vector: int, dtype: str) -> loops.Windows:
  """Registers both calls for one vector length and type; returns their windows, to be compiled as needed.

  Attributes by alphabet: chunks, code (of the window), dilation, size, stride.
  """
  do, windows = loops.basic(vector, dtype), loops.Windows(vector, dtype)
  v, s, kind, table = vector, np.dtype(dtype).itemsize, np.dtype(dtype).type, windows.table.ctypes.data
  activate, activate_gradient = do['activate'].address, do['activate_gradient'].address
  normalise_gradient, moments = do['normalise_gradient'].address, do['moments'].address
  spread = do['spread'].address

  multiply, multiply_add = (loops.matrix_product(vector, dtype, add) for add in (False, True))

  @njit(**OPTIONS)
  def pad_in(x, mean, scale, h, w, c, pad, xp):
    # relu((x - mean) * scale), padded, one vector of channels after the other
    row = (w + 2 * pad) * v
    plane = (h + 2 * pad) * row
    for b in range(0, c, v):
      call(activate, x + s * b, w * c, c, mean + s * b, scale + s * b, h, w,
           xp + s * (b // v * plane + pad * row + pad * v), row, v)

  @njit(**OPTIONS)
  def convolve(loop, xp, plane, row, kernel, kernel_tap, z, h, w, c):
    for b in range(0, c, v):
      call(loop, xp + s * (b // v * plane), row, kernel + s * b, kernel_tap, z + s * b, w * c, c, h, w)

  @njit(**OPTIONS)
  def forward(frame, index):
    x, mean, scale, kernel, matrix = arg(frame, 0), arg(frame, 1), arg(frame, 2), arg(frame, 3), arg(frame, 4)
    n, mx, h, w = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    m, c, d = arg_dim(frame, 4, 0), arg_dim(frame, 4, 1), arg_dim(frame, 4, 2)
    out, total = result(frame, 0), result(frame, 1)
    ho, wo, chunks = result_dim(frame, 0, 2), result_dim(frame, 0, 3), attr(frame, 0)
    pad, loop = attr(frame, 2) * (attr(frame, 3) - 1) // 2, load(table + 24 * attr(frame, 1))
    row = (w + 2 * pad) * v
    plane = (h + 2 * pad) * row
    padded, narrow = np.zeros(c // v * plane + 16, kind), np.empty(ho * wo * c + 16, kind)
    xp, z = scratch(padded), scratch(narrow)
    share = np.full(1, 1 / (ho * wo), kind)
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      for e in range(m):
        if e < mx:
          pad_in(x + s * (image * mx + e) * h * w * c, mean + s * e * c, scale + s * e * c, h, w, c, pad, xp)
        convolve(loop, xp, plane, row, kernel + s * e * c, m * c, z, ho, wo, c)
        to = out + s * (image * m + e) * ho * wo * d
        multiply(z, c, 1, matrix + s * e * c * d, d, to, d, v, c, ho * wo, d)
        for b in range(0, d, v):
          call(moments, to + s * b, d, ho * wo, share.ctypes.data, total + s * (2 * image * m * d + e * d + b), m * d)
    alive(padded, narrow, share)

  @njit(**OPTIONS)
  def backward(frame, index):
    x, mean, scale, kernel, matrix = arg(frame, 0), arg(frame, 1), arg(frame, 2), arg(frame, 3), arg(frame, 4)
    g, a, center = arg(frame, 5), arg(frame, 6), arg(frame, 7)
    p, q, r, samples = arg(frame, 8), arg(frame, 9), arg(frame, 10), arg_dim(frame, 8, 0)
    n, mx, h, w = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    m, d, c = arg_dim(frame, 4, 0), arg_dim(frame, 4, 1), arg_dim(frame, 4, 2)
    ho, wo = arg_dim(frame, 5, 2), arg_dim(frame, 5, 3)
    chunks, code, size, stride = attr(frame, 0), attr(frame, 1), attr(frame, 3), attr(frame, 4)
    taps, pad = size * size, attr(frame, 2) * (size - 1) // 2
    forward_loop, kernel_loop = load(table + 24 * code), load(table + 24 * code + 16)
    back_loop, back_add_loop = load(table + 24 * (code - stride + 1)), load(table + 24 * (code - stride + 1) + 8)
    row = (w + 2 * pad) * v
    plane = (h + 2 * pad) * row
    origin = pad * row + pad * v
    # Sums of this chunk: into scratch first, so that threads do not share cache lines.
    dk, dm, du = np.zeros(taps * m * c, kind), np.zeros(m * c * d, kind), np.zeros(2 * mx * c, kind)
    padded, padded2 = np.zeros(c // v * plane + 16, kind), np.zeros(c // v * plane + 16, kind)
    narrow, narrow2 = np.empty(ho * wo * c + 16, kind), np.empty(ho * wo * d + 16, kind)
    wide = np.empty(h * w * c + 16, kind)
    xp, zp, z, da, ux = scratch(padded), scratch(padded2), scratch(narrow), scratch(narrow2), scratch(wide)
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      sample = image * samples // n
      for e in range(m):
        source = e if e < mx else 0
        here = s * (image * mx + source) * h * w * c
        if e < mx:
          pad_in(x + here, mean + s * e * c, scale + s * e * c, h, w, c, pad, xp)
        convolve(forward_loop, xp, plane, row, kernel + s * e * c, m * c, z, ho, wo, c)
        there = s * (image * m + e) * ho * wo * d
        for b in range(0, d, v):
          ch = e * d + b
          call(normalise_gradient, g + there + s * b, a + there + s * b, d, center + s * ch,
               p + s * (sample * m * d + ch), q + s * ch, r + s * ch, ho * wo, da + s * b, d)
        multiply_add(z, 1, c, da, d, dm.ctypes.data + s * e * c * d, d, v, ho * wo, c, d)
        multiply(da, d, 1, matrix + s * e * d * c, c, z, c, v, d, ho * wo, c)
        for b in range(0, c, v):
          block = zp + s * (b // v * plane)
          call(spread, z + s * b, wo * c, c, ho, wo, block + s * origin, stride * row, stride * v)
          call(kernel_loop, xp + s * (b // v * plane), row, block + s * origin, stride * row, stride * v,
               dk.ctypes.data + s * (e * c + b), m * c, ho, wo)
        last = kernel + s * ((taps - 1) * m * c + e * c)
        convolve(back_add_loop if e >= mx else back_loop, zp, plane, row, last, -m * c, ux, h, w, c)
        if mx == m or e == m - 1:
          for b in range(0, c, v):
            ch = source * c + b
            call(activate_gradient, ux + s * b, x + here + s * b, c, mean + s * ch, scale + s * ch, h * w,
                 result(frame, 0) + here + s * b, du.ctypes.data + s * ch, mx * c)
    copy(result(frame, 1) + s * index * du.size, du.ctypes.data, s * du.size)
    copy(result(frame, 2) + s * index * dk.size, dk.ctypes.data, s * dk.size)
    copy(result(frame, 3) + s * index * dm.size, dm.ctypes.data, s * dm.size)
    alive(padded, padded2, narrow, narrow2, wide, du, dk, dm)

  for name, chunk in (('forward', forward), ('backward', backward)):
    ffi.register(_target(name, vector, dtype), chunk)
  windows.kept['basic'] = do  # as long as compiled code holds addresses
  return windows


@functools.cache
def _compile_sums(vector: int, dtype: str):
  """Registers the call of `sums`, which ordinary convolutions need without the stages."""
  v, s, sums_of = vector, np.dtype(dtype).itemsize, loops.basic(vector, dtype)['sums'].address

  @njit(**OPTIONS)
  def sums(frame, index):
    n, m, pixels, c = (arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2) * arg_dim(frame, 0, 3),
                       arg_dim(frame, 0, 4))
    for image in range(n * index // attr(frame, 0), n * (index + 1) // attr(frame, 0)):
      for e in range(m):
        for b in range(0, c, v):
          here, ch = s * ((image * m + e) * pixels * c + b), e * c + b
          call(sums_of, arg(frame, 0) + here, arg(frame, 1) + here, c, arg(frame, 2) + s * ch, pixels,
               result(frame, 0) + s * (2 * image * m * c + ch), m * c)

  ffi.register(_target('sums', vector, dtype), sums)


def _target(name, vector, dtype):
  return f'vimnas_jax_stage_{name}_{dtype}x{vector}'


def vector_length(channels: int, dtype) -> int:
  """Channels that one instruction handles: the largest power of 2 that divides them and fits a register."""
  return int(np.gcd(channels, BYTES // np.dtype(dtype).itemsize))


def _call(name, outputs, *args, size, dilation, stride):
  x = args[0]
  vector = vector_length(np.gcd(args[4].shape[1], args[4].shape[2]), x.dtype)
  windows = _compile(vector, x.dtype.name)
  code = windows.compile(size, dilation, stride)
  windows.compile(size, dilation, 1)  # of the way back
  return jax.ffi.ffi_call(_target(name, vector, x.dtype.name), [jax.ShapeDtypeStruct(o, x.dtype) for o in outputs])(
      *args, chunks=np.int64(min(CHUNKS, x.shape[0])), code=np.int64(code), dilation=np.int64(dilation),
      size=np.int64(size), stride=np.int64(stride))


def forward(x, mean, scale, kernel, matrix, dilation=1, stride=1):
  """A stage: x [n, mx, h, w, c], mean and scale [mx * c], kernel [k, k, m * c], matrix [m, c, d] ->
  (a [n, m, h', w', d], moments [n, 2, m * d]: every image's mean and sum of squared distances from it).
  """
  n, _, h, w, _ = x.shape
  m, _, d = matrix.shape
  size = kernel.shape[0]
  out = n, m, -(-h // stride), -(-w // stride), d
  return _call('forward', [out, (n, 2, m * d)], x, mean, scale, kernel.reshape(size * size, -1), matrix, size=size,
               dilation=dilation, stride=stride)


def backward(x, mean, scale, kernel, matrix, g, a, center, p, q, r, dilation=1, stride=1):
  """The way back from da = p * g + q * (a - center) + r, with g like a, p [samples, m * d], q and r [m * d].

  Returns the gradients (u [n, mx, h, w, c] of (x - mean) * scale, sums [2, mx * c] of u and of u * (x - mean),
  kernel's [k, k, m * c], matrix's [m, c, d]).
  """
  n, mx, _, _, c = x.shape
  m, _, d = matrix.shape
  size, chunks = kernel.shape[0], min(CHUNKS, n)
  u, total, dk, dm = _call(
      'backward', [x.shape, (chunks, 2, mx * c), (chunks, size * size, m * c), (chunks, m, c, d)],
      x, mean, scale, kernel.reshape(size * size, -1), jnp.swapaxes(matrix, 1, 2), g, a, center, p, q, r,
      size=size, dilation=dilation, stride=stride)
  return u, total.sum(0), dk.sum(0).reshape(kernel.shape), dm.sum(0)


def sums(g, a, center):
  """Per image the sums [n, 2, m * c] of g and of g * (a - center), for g and a [n, m, h, w, c]."""
  n, m, _, _, c = a.shape
  vector = vector_length(c, a.dtype)
  _compile_sums(vector, a.dtype.name)
  return jax.ffi.ffi_call(_target('sums', vector, a.dtype.name), jax.ShapeDtypeStruct((n, 2, m * c), a.dtype))(
      g, a, center, chunks=np.int64(min(CHUNKS, n)))
