"""The chunks of a stage (cpu/stage.py): a ReLU, a depthwise and a 1x1 convolution, image by image, there and back."""

import numpy as np

from vimnas_jax.cpu.source.frame import (
  address,
  arg,
  arg_dim,
  args,
  attr,
  call,
  copy,
  free,
  function,
  lines,
  load,
  result,
  result_dim,
  zeros,
)
from vimnas_jax.cpu.source.loops import matrix_product, panel_width
from vimnas_jax.cpu.table import slot


def chunk(name: str, vector: int, dtype: str):
  """The chunk `name` for one vector length and type. Attributes by alphabet: call, chunks, code (of the window: where
  its loops lie among the windows of this vector length and type), dilation, size, stride, and backward whole: 0 leaves
  the gradients of kernels and matrices out.
  """
  v, s = vector, np.dtype(dtype).itemsize
  multiply, multiply_add = (matrix_product(vector, dtype, how) for how in ('set', 'add'))
  wide, windows = panel_width(vector), slot('window_0_0_0_forward', vector, dtype)
  activate_slot, spread_slot = slot('activate', vector, dtype), slot('spread', vector, dtype)
  through_slot, moments_slot = slot('activate_gradient', vector, dtype), slot('moments', vector, dtype)
  normalise_slot = slot('normalise_gradient', vector, dtype)

  @function(8, 'void')
  def pad_in(x, mean, scale, h, w, c, pad, xp):
    # relu((x - mean) * scale), padded, one vector of channels after the other
    row, activate = (w + 2 * pad) * v, load(address(activate_slot))
    plane = (h + 2 * pad) * row
    for b in range(0, c, v):
      call(activate, x + s * b, w * c, c, mean + s * b, scale + s * b, h, w,
           xp + s * (b // v * plane + pad * row + pad * v), row, v)

  @function(10, 'void')
  def convolve(loop, xp, plane, row, kernel, kernel_tap, z, h, w, c):
    for b in range(0, c, v):
      call(loop, xp + s * (b // v * plane), row, kernel + s * b, kernel_tap, z + s * b, w * c, c, h, w)

  def forward(frame, index):
    x, mean, scale, kernel, matrix = arg(frame, 0), arg(frame, 1), arg(frame, 2), arg(frame, 3), arg(frame, 4)
    n, mx, h, w = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    m, c, d = arg_dim(frame, 4, 0), arg_dim(frame, 4, 1), arg_dim(frame, 4, 2)
    out, total = result(frame, 0), result(frame, 1)
    ho, wo, chunks = result_dim(frame, 0, 2), result_dim(frame, 0, 3), attr(frame, 1)
    pad, loop = attr(frame, 3) * (attr(frame, 4) - 1) // 2, load(address(windows + attr(frame, 2)))
    row, taps, moments = (w + 2 * pad) * v, attr(frame, 4) * attr(frame, 4), load(address(moments_slot))
    plane = (h + 2 * pad) * row
    memory = zeros(lines(s * (c // v * plane)) + lines(s * (ho * wo * c)) + 64)
    xp = lines(memory)
    z = xp + lines(s * (c // v * plane))
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      for e in range(m):
        if e < mx:
          pad_in(x + s * (image * mx + e) * h * w * c, mean + s * e * c, scale + s * e * c, h, w, c, pad, xp)
        convolve(loop, xp, plane, row, kernel + s * e * taps * c, c, z, ho, wo, c)
        to = out + s * (image * m + e) * ho * wo * d
        multiply(z, c, 1, matrix + s * e * c * d, d, wide(d), to, d, c, ho * wo, d)
        for b in range(0, d, v):
          call(moments, to + s * b, d, ho * wo, total + s * (2 * image * m * d + e * d + b), m * d)
    free(memory)
    return 0

  def backward(frame, index):
    # arguments: those of forward with every matrix transposed, a, center, p, q, r, then g: one map for each of the m
    # edges, or one for all, as a is
    x, mean, scale, kernel, matrix = arg(frame, 0), arg(frame, 1), arg(frame, 2), arg(frame, 3), arg(frame, 4)
    a, center, p, q, r = arg(frame, 5), arg(frame, 6), arg(frame, 7), arg(frame, 8), arg(frame, 9)
    samples, apart = arg_dim(frame, 7, 0), args(frame) > 11
    n, mx, h, w = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    m, d, c = arg_dim(frame, 4, 0), arg_dim(frame, 4, 1), arg_dim(frame, 4, 2)
    ho, wo = arg_dim(frame, 5, 2), arg_dim(frame, 5, 3)
    chunks, code, size, stride = attr(frame, 1), attr(frame, 2), attr(frame, 4), attr(frame, 5)
    taps, pad, whole = size * size, attr(frame, 3) * (size - 1) // 2, attr(frame, 6)
    forward_loop, kernel_loop = load(address(windows + code)), load(address(windows + code + 2))
    back = windows + code - 3 * (stride - 1)  # the backward pass moves by 1
    back_loop, back_add_loop = load(address(back)), load(address(back + 1))
    spread, through, normalise = (load(address(spread_slot)), load(address(through_slot)),
                                  load(address(normalise_slot)))
    row = (w + 2 * pad) * v
    plane = (h + 2 * pad) * row
    origin = pad * row + pad * v
    # Sums of this chunk: into memory of its own first, so that threads do not share cache lines.
    padded, narrow, narrow2, inner = (lines(s * (c // v * plane)), lines(s * (ho * wo * c)), lines(s * (ho * wo * d)),
                                      lines(s * (h * w * c)))
    du_size, dk_size, dm_size = s * 2 * mx * c, s * taps * m * c, s * m * c * d
    memory = zeros(2 * padded + narrow + narrow2 + inner + lines(du_size) + lines(dk_size) + dm_size + 64)
    xp = lines(memory)
    zp = xp + padded
    z = zp + padded
    da = z + narrow
    ux = da + narrow2
    du = ux + inner
    dk = du + lines(du_size)
    dm = dk + lines(dk_size)
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      sample = image * samples // n
      for e in range(m):
        source = e if e < mx else 0
        here = s * (image * mx + source) * h * w * c
        if whole:
          if e < mx:
            pad_in(x + here, mean + s * e * c, scale + s * e * c, h, w, c, pad, xp)
          convolve(forward_loop, xp, plane, row, kernel + s * e * taps * c, c, z, ho, wo, c)
        there = s * (image * m + e) * ho * wo * d
        g = arg(frame, 10 + e) + s * image * ho * wo * d if apart else arg(frame, 10) + there
        for b in range(0, d, v):
          ch = e * d + b
          call(normalise, g + s * b, d, a + there + s * b, d, center + s * ch, p + s * (sample * m * d + ch),
               q + s * ch, r + s * ch, ho, wo, da + s * b, wo * d, d)
        if whole:
          multiply_add(z, 1, c, da, d, wide(d), dm + s * e * c * d, d, ho * wo, c, d)
        multiply(da, d, 1, matrix + s * e * d * c, c, wide(c), z, c, d, ho * wo, c)
        for b in range(0, c, v):
          block = zp + s * (b // v * plane)
          call(spread, z + s * b, wo * c, c, ho, wo, block + s * origin, stride * row, stride * v)
          if whole:
            call(kernel_loop, xp + s * (b // v * plane), row, block + s * origin, stride * row, stride * v,
                 dk + s * (e * taps * c + b), c, ho, wo)
        last = kernel + s * (e * taps + taps - 1) * c
        convolve(back_add_loop if e >= mx else back_loop, zp, plane, row, last, -c, ux, h, w, c)
        if mx == m or e == m - 1:
          for b in range(0, c, v):
            ch = source * c + b
            call(through, ux + s * b, x + here + s * b, c, mean + s * ch, scale + s * ch, h * w,
                 result(frame, 0) + here + s * b, du + s * ch, mx * c)
    copy(result(frame, 1) + index * du_size, du, du_size)
    if whole:
      copy(result(frame, 2) + index * dk_size, dk, dk_size)
      copy(result(frame, 3) + index * dm_size, dm, dm_size)
    free(memory)
    return 0

  return forward if name == 'stage_forward' else backward
