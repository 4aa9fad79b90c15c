"""The inner loops of the CPU kernels, over one image and one vector of V channels.

All arguments are int64: addresses, and strides counted in elements. A *window* is the size * size views of an image
that a depthwise convolution sees, `dilation` pixels apart, moved by `stride`; its image is padded and holds V channels
a pixel. Sums that run over many pixels stay in registers.
"""

import functools

import numpy as np
from numba import cfunc, njit, types

from vimnas_jax.cpu.ffi import OPTIONS, call
from vimnas_jax.cpu.vectors import SUMS, vector_function

PIXELS = 8  # neighbours in a row that share every weight a forward loop loads
TILES = {1: 8, 2: 4}  # a block of a matrix product: vectors across, rows down


def _window(size, dilation, stride, vector, dtype):
  """The window's loops (forward, forward_add, kernel_gradient)."""
  taps = [(i, j) for i in range(size) for j in range(size)]

  def rows(e, x, x_row, a):
    return [e.at(x, (e.b.add(e.b.mul(a, e.const(stride)), e.const(dilation * i)), x_row)) for i in range(size)]

  def emit_forward(add):
    # y [h, w] (+)= sum over taps of view * kernel[tap]
    def emit(e, x, x_row, kernel, kernel_tap, y, y_row, y_pixel, h, w):
      step = stride * e.vector * e.size

      def pixels(views, out, count):
        places = [e.at(out, (e.const(i), y_pixel)) for i in range(count)]
        sums = [[e.load(place) if add else e.fill(0)] + [None] * (count == 1) for place in places]
        for t, (i, j) in enumerate(taps):
          weight = e.load(e.at(kernel, (e.const(t), kernel_tap)))
          for pixel, chains in enumerate(sums):  # a lone pixel has two chains, to hide the latency of an addition
            chain = t % len(chains)
            view = e.load(views[i], j * dilation + pixel * stride)
            chains[chain] = e.b.fmul(view, weight) if chains[chain] is None else e.fma(view, weight, chains[chain])
        for place, chains in zip(places, sums):
          e.store(functools.reduce(e.b.fadd, chains), place)

      whole = e.b.sdiv(w, e.const(PIXELS))
      with e.loop(h) as a:
        views, y_a = rows(e, x, x_row, a), e.at(y, (a, y_row))
        with e.loop(whole) as b:
          shift = e.b.mul(b, e.const(PIXELS * step))
          pixels([e.b.add(view, shift) for view in views], e.at(y_a, (e.b.mul(b, e.const(PIXELS)), y_pixel)), PIXELS)
        done = e.b.mul(whole, e.const(PIXELS))
        with e.loop(e.b.sub(w, done)) as b:
          b = e.b.add(b, done)
          shift = e.b.mul(b, e.const(step))
          pixels([e.b.add(view, shift) for view in views], e.at(y_a, (b, y_pixel)), 1)
    emit.__name__ = 'forward'
    return vector_function(9, vector, dtype)(emit)

  @vector_function(9, vector, dtype)
  def kernel_gradient(e, x, x_row, dy, dy_row, dy_pixel, total, total_tap, h, w):
    # total[tap] += sum over [h, w] of view * dy, for as many taps at a time as there are registers
    parts = -(-len(taps) // SUMS)
    for part in range(parts):
      group = list(enumerate(taps))[part::parts]
      places = [e.at(total, (e.const(t), total_tap)) for t, _ in group]
      sums = [e.variable(e.load(place)) for place in places]
      with e.loop(h) as a:
        views, dy_a = rows(e, x, x_row, a), e.at(dy, (a, dy_row))
        with e.loop(w) as b:
          shift, g = e.b.mul(b, e.const(stride * e.vector * e.size)), e.load(e.at(dy_a, (b, dy_pixel)))
          for (_, (i, j)), (get, put) in zip(group, sums):
            put(e.fma(e.load(e.b.add(views[i], shift), j * dilation), g, get()))
      for (get, _), place in zip(sums, places):
        e.store(get(), place)

  return emit_forward(False), emit_forward(True), kernel_gradient


class Windows:
  """Compiled window loops, as a table of addresses that compiled code may read at run time.

  The loops of window `code` lie at 3 * code: forward, forward_add, kernel_gradient, each of nine int64.
  """

  def __init__(self, vector, dtype):
    self.vector, self.dtype, self.table, self.kept = vector, dtype, np.zeros(3 * 256, np.int64), {}

  def compile(self, size, dilation, stride) -> int:
    """Compiles a window once; returns its code, which is the same in every process."""
    code = 16 * size + 4 * dilation + stride
    if code not in self.kept:
      self.kept[code] = [_exported(loop, 9) for loop in _window(size, dilation, stride, self.vector, self.dtype)]
      self.table[3 * code:3 * code + 3] = [loop.address for loop in self.kept[code]]
    return code


def _exported(loop, count):
  """A loop as a C function, compiled once and called by address: inlined, it would be compiled where it is used."""
  scope = {'loop': loop}
  names = ', '.join(f'a{i}' for i in range(count))
  exec(f'def exported({names}):\n  loop({names})\n  return 0', scope)
  return cfunc(types.int64(*[types.int64] * count), **OPTIONS)(scope['exported'])


@functools.cache
def basic(vector, dtype):
  """Loops that need no window, compiled: {name: C function}; a product's name is ('product', across, rows, add)."""
  compiled = {}

  def define(count):
    def decorate(emit):
      compiled[emit.__name__] = _exported(vector_function(count, vector, dtype)(emit), count)
    return decorate

  @define(10)
  def activate(e, x, x_row, x_pixel, mean, scale, h, w, y, y_row, y_pixel):
    # y = relu((x - mean) * scale)
    mean, scale = e.load(mean), e.load(scale)
    with e.loop(h) as a:
      x_a, y_a = e.at(x, (a, x_row)), e.at(y, (a, y_row))
      with e.loop(w) as b:
        value = e.b.fmul(e.b.fsub(e.load(e.at(x_a, (b, x_pixel))), mean), scale)
        e.store(e.relu(value), e.at(y_a, (b, y_pixel)))

  @define(8)
  def spread(e, x, x_row, x_pixel, h, w, y, y_row, y_pixel):
    # y = x, with other strides
    with e.loop(h) as a:
      x_a, y_a = e.at(x, (a, x_row)), e.at(y, (a, y_row))
      with e.loop(w) as b:
        e.store(e.load(e.at(x_a, (b, x_pixel))), e.at(y_a, (b, y_pixel)))

  @define(9)
  def activate_gradient(e, g, x, x_pixel, mean, scale, pixels, y, total, total_step):
    # y = g where relu lets it through; total[0] += sum of y, total[1] += sum of y * (x - mean)
    mean, scale = e.load(mean), e.load(scale)
    first, second = total, e.at(total, total_step)
    plain, moment = e.variable(e.load(first)), e.variable(e.load(second))
    with e.loop(pixels) as i:
      centred = e.b.fsub(e.load(e.at(x, (i, x_pixel))), mean)
      through = e.b.fcmp_ordered('>', e.b.fmul(centred, scale), e.fill(0))
      value = e.b.select(through, e.load(e.at(g, (i, x_pixel))), e.fill(0))
      e.store(value, e.at(y, (i, x_pixel)))
      plain[1](e.b.fadd(plain[0](), value))
      moment[1](e.fma(value, centred, moment[0]()))
    e.store(plain[0](), first)
    e.store(moment[0](), second)

  @define(10)
  def normalise_gradient(e, g, a, pixel, mean, p, q, r, pixels, y, y_pixel):
    # y = p * g + q * (a - mean) + r
    mean, p, q, r = (e.load(v) for v in (mean, p, q, r))
    with e.loop(pixels) as i:
      centred = e.b.fsub(e.load(e.at(a, (i, pixel))), mean)
      e.store(e.fma(e.load(e.at(g, (i, pixel))), p, e.fma(centred, q, r)), e.at(y, (i, y_pixel)))

  @define(7)
  def sums(e, g, a, pixel, mean, pixels, total, total_step):
    # total[0] = sum of g, total[1] = sum of g * (a - mean)
    mean = e.load(mean)
    plain, moment = e.variable(e.fill(0)), e.variable(e.fill(0))
    with e.loop(pixels) as i:
      value = e.load(e.at(g, (i, pixel)))
      plain[1](e.b.fadd(plain[0](), value))
      moment[1](e.fma(value, e.b.fsub(e.load(e.at(a, (i, pixel))), mean), moment[0]()))
    e.store(plain[0](), total)
    e.store(moment[0](), e.at(total, total_step))

  @define(6)
  def moments(e, x, pixel, pixels, share, total, total_step):
    # total[0] = mean, total[1] = sum of squared distances from it; share = the number 1 / pixels, an address
    plain, square = e.variable(e.fill(0)), e.variable(e.fill(0))
    with e.loop(pixels) as i:
      plain[1](e.b.fadd(plain[0](), e.load(e.at(x, (i, pixel)))))
    mean = e.b.fmul(plain[0](), e.spread(share))
    with e.loop(pixels) as i:
      centred = e.b.fsub(e.load(e.at(x, (i, pixel))), mean)
      square[1](e.fma(centred, centred, square[0]()))
    e.store(mean, total)
    e.store(square[0](), e.at(total, total_step))

  def emit_product(across, rows, add):
    # c [rows, across * V] (+)= a [rows, depth] @ b [depth, across * V]
    def emit(e, a, a_row, a_step, b, b_step, c, c_row, depth):
      outs = [e.at(c, (e.const(r), c_row)) for r in range(rows)]
      sums = [[e.variable(e.load(out, i) if add else e.fill(0)) for i in range(across)] for out in outs]
      starts = [e.at(a, (e.const(r), a_row)) for r in range(rows)]
      with e.loop(depth) as k:
        place = e.at(b, (k, b_step))
        right, step = [e.load(place, i) for i in range(across)], e.b.mul(e.b.mul(k, a_step), e.const(e.size))
        for start, row in zip(starts, sums):
          left = e.spread(e.b.add(start, step))
          for (get, put), value in zip(row, right):
            put(e.fma(left, value, get()))
      for out, row in zip(outs, sums):
        for i, (get, _) in enumerate(row):
          e.store(get(), out, i)
    emit.__name__ = 'product'
    return _exported(vector_function(8, vector, dtype)(emit), 8)

  for across, most in TILES.items():
    for rows in (1, most):
      for add in (False, True):
        compiled['product', across, rows, add] = emit_product(across, rows, add)
  return compiled


@functools.cache
def matrix_product(vector, dtype, add):
  """A numba function: c [rows, width] (+)= a [rows, depth] @ b [depth, width].

  `multiply(a, a_row, a_step, b, b_step, c, c_row, c_vector, depth, rows, width)`: addresses, and strides in elements;
  c_vector leads from one vector of c's row to the next. V must divide width.
  """
  do, v, s = basic(vector, dtype), vector, np.dtype(dtype).itemsize
  one, two = (do['product', across, TILES[across], add].address for across in (1, 2))
  last_one, last_two = (do['product', across, 1, add].address for across in (1, 2))
  tile_one, tile_two = TILES[1], TILES[2]

  @njit(**OPTIONS)
  def multiply(a, a_row, a_step, b, b_step, c, c_row, c_vector, depth, rows, width):
    done = 0
    if c_vector == v:  # neighbours lie side by side
      while done + 2 * v <= width:
        whole = rows // tile_two * tile_two
        for r in range(0, whole, tile_two):
          call(two, a + s * r * a_row, a_row, a_step, b + s * done, b_step, c + s * (r * c_row + done), c_row, depth)
        for r in range(whole, rows):
          call(last_two, a + s * r * a_row, a_row, a_step, b + s * done, b_step, c + s * (r * c_row + done), c_row,
               depth)
        done += 2 * v
    while done < width:
      whole, to = rows // tile_one * tile_one, c + s * (done // v * c_vector)
      for r in range(0, whole, tile_one):
        call(one, a + s * r * a_row, a_row, a_step, b + s * done, b_step, to + s * r * c_row, c_row, depth)
      for r in range(whole, rows):
        call(last_one, a + s * r * a_row, a_row, a_step, b + s * done, b_step, to + s * r * c_row, c_row, depth)
      done += v

  return multiply
