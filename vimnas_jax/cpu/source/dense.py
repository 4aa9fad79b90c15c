"""The chunks of an ordinary convolution, after a ReLU or not (cpu/dense.py), image by image, there and back."""

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
from vimnas_jax.cpu.table import PADDED, slot

DEPTH = 256  # most rows of a strip of weights that a product reads in turn: what the first cache holds
PIXELS = 170  # most pixels that a kernel's gradient sums at a time, for the same reason


def chunk(name: str, vector: int, dtype: str):
  """The chunk `name` for one vector length and type. Attributes by alphabet: call, chunks, relu (0: there is none
  in front; PADDED: nor any padding left to do, and no gradient of x to give), size, stride; backward call, chunks,
  gated, relu, size, stride and whole, of which 0 leaves the kernel's gradient out.

  Kernels come packed, [size, panels, size * channels in, width of a panel] (dense.pack).
  """
  v, s = vector, np.dtype(dtype).itemsize
  multiply, multiply_add = (matrix_product(vector, dtype, how) for how in ('set', 'add'))
  wide = panel_width(vector)
  activate_slot, through_slot = slot('activate', vector, dtype), slot('activate_gradient', vector, dtype)
  moments_slot, normalise_slot = slot('moments', vector, dtype), slot('normalise_gradient', vector, dtype)
  gated_slot, spread_slot = slot('gated_gradient', vector, dtype), slot('spread', vector, dtype)

  @function(10, 'void')
  def pad_in(x, none, one, relu, h, w, c, pad, row, xp):
    activate, spread = load(address(activate_slot)), load(address(spread_slot))
    for b in range(0, c, v):
      to = xp + s * (pad * row + pad * c + b)
      if relu:
        call(activate, x + s * b, w * c, c, none + s * b, one + s * b, h, w, to, row, c)
      else:
        call(spread, x + s * b, w * c, c, h, w, to, row, c)

  @function(10, 'void')
  def convolve(x, row, c, kernel, to, h, w, d, size, stride):
    # to [h, w, d] = padded x convolved with the kernel; a row of x is contiguous, so a row of taps is one product
    panel = wide(d)
    depth = size * c if size * c <= DEPTH else c
    for tap in range(size):
      for p in range(d // panel):
        for start in range(0, size * c, depth):
          weights = kernel + s * ((tap * (d // panel) + p) * size * c + start) * panel
          for i in range(h):
            view, here = x + s * ((i * stride + tap) * row + start), to + s * (i * w * d + p * panel)
            if tap == 0 and start == 0:
              multiply(view, stride * c, 1, weights, panel, 0, here, d, depth, w, panel)
            else:
              multiply_add(view, stride * c, 1, weights, panel, 0, here, d, depth, w, panel)

  def forward(frame, index):
    # arguments: x [n, h, w, c], or PADDED, kernel, zeros [c], ones [c]; results: a [n, h', w', d], moments [n, 2, d]
    x, kernel, none, one = arg(frame, 0), arg(frame, 1), arg(frame, 2), arg(frame, 3)
    ho, wo, d = result_dim(frame, 0, 1), result_dim(frame, 0, 2), result_dim(frame, 0, 3)
    chunks, relu, size, stride = attr(frame, 1), attr(frame, 2), attr(frame, 3), attr(frame, 4)
    pad, moments = (size - 1) // 2, load(address(moments_slot))
    given = 2 * pad if relu == PADDED else 0
    n, h, w, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1) - given, arg_dim(frame, 0, 2) - given, arg_dim(frame, 0, 3)
    row = (w + 2 * pad) * c
    memory = zeros((0 if relu == PADDED else s * (h + 2 * pad) * row) + 64)
    xp = lines(memory)
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      if relu == PADDED:
        xp = x + s * image * (h + 2 * pad) * row
      else:
        pad_in(x + s * image * h * w * c, none, one, relu, h, w, c, pad, row, xp)
      to = result(frame, 0) + s * image * ho * wo * d
      convolve(xp, row, c, kernel, to, ho, wo, d, size, stride)
      for b in range(0, d, v):
        call(moments, to + s * b, d, ho * wo, result(frame, 1) + s * (2 * image * d + b), d)
    free(memory)
    return 0

  def backward(frame, index):
    # arguments: x, kernel turned round, zeros, ones, a [n, h', w', d], center, p, q, r, by, plus, maps g [n, h', w', *]
    # that lie side by side in a; results: the gradients of x, unless it comes PADDED, and of the kernel, if `whole`
    x, kernel, none, one = arg(frame, 0), arg(frame, 1), arg(frame, 2), arg(frame, 3)
    a, center, p, q, r = arg(frame, 4), arg(frame, 5), arg(frame, 6), arg(frame, 7), arg(frame, 8)
    by, plus, samples, maps = arg(frame, 9), arg(frame, 10), arg_dim(frame, 6, 0), args(frame) - 11
    ho, wo, d = arg_dim(frame, 4, 1), arg_dim(frame, 4, 2), arg_dim(frame, 4, 3)
    chunks, gated, relu = attr(frame, 1), attr(frame, 2), attr(frame, 3)
    size, stride, whole = attr(frame, 4), attr(frame, 5), attr(frame, 6)
    pad, through, normalise, gate = ((size - 1) // 2, load(address(through_slot)), load(address(normalise_slot)),
                                     load(address(gated_slot)))
    given = 2 * pad if relu == PADDED else 0
    n, h, w, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1) - given, arg_dim(frame, 0, 2) - given, arg_dim(frame, 0, 3)
    row, back = (w + 2 * pad) * c, (w + 2 * pad) * d
    padded, spread, inner = lines(s * (h + 2 * pad) * row), lines(s * (h + 2 * pad) * back), lines(s * h * w * c)
    if relu == PADDED:
      padded, inner = 0, 0
    dk_size = s * size * size * c * d
    memory = zeros(padded + spread + inner + lines(s * 2 * v) + dk_size + 64)
    xp = lines(memory)
    zp = xp + padded
    dx = zp + spread
    unused = dx + inner
    dk = unused + lines(s * 2 * v)
    block = max(1, PIXELS // (w + 2 * pad))
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      sample = image * samples // n
      if relu == PADDED:
        xp = x + s * image * (h + 2 * pad) * row
      elif whole:
        pad_in(x + s * image * h * w * c, none, one, relu, h, w, c, pad, row, xp)
      ch = 0
      for e in range(maps):
        own = arg_dim(frame, 11 + e, 3)
        g = arg(frame, 11 + e) + s * image * ho * wo * own
        for b in range(0, own, v):
          of_a, to = a + s * (image * ho * wo * d + ch), zp + s * (pad * back + pad * d + ch)
          of_p, of_q, of_r = p + s * (sample * d + ch), q + s * ch, r + s * ch
          if gated:
            call(gate, g + s * b, own, of_a, d, center + s * ch, of_p, of_q, of_r, by + s * ch, plus + s * ch, ho, wo,
                 to, stride * back, stride * d)
          else:
            call(normalise, g + s * b, own, of_a, d, center + s * ch, of_p, of_q, of_r, ho, wo, to, stride * back,
                 stride * d)
          ch += v
      for i in range(0, h if whole else 0, block):  # zp is zero between its pixels, so rows are one sum
        pixels = min(block, h - i) * (w + 2 * pad) - 2 * pad
        for tap in range(size):
          multiply_add(xp + s * (i + tap) * row, 1, c, zp + s * ((i + pad) * back + pad * d), d, wide(d),
                       dk + s * tap * size * c * d, d, pixels, size * c, d)
      if relu == PADDED:
        continue
      convolve(zp, back, d, kernel, dx if relu else result(frame, 0) + s * image * h * w * c, h, w, c, size, 1)
      for b in range(0, c if relu else 0, v):
        here = s * (image * h * w * c + b)
        call(through, dx + s * b, x + here, c, none + s * b, one + s * b, h * w, result(frame, 0) + here, unused, v)
    if whole:
      copy(result(frame, 0 if relu == PADDED else 1) + index * dk_size, dk, dk_size)
    free(memory)
    return 0

  return forward if name == 'dense_forward' else backward
