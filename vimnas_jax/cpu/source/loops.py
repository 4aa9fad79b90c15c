"""The inner loops of the CPU kernels, over one image and one vector of V channels.

All arguments are int64: addresses, and strides counted in elements. A *window* is the size * size views of an image
that a depthwise convolution sees, `dilation` pixels apart, moved by `stride`; its image is padded and holds V channels
a pixel. Sums that run over many pixels stay in registers.
"""

import functools

import numpy as np

from vimnas_jax.cpu.source import block, leaves, mix, oneshot, pools, tiles
from vimnas_jax.cpu.source.emitter import SUMS, definer, vector_function
from vimnas_jax.cpu.source.frame import address, call, function, load
from vimnas_jax.cpu.table import TILES, slot

CHAINS = 8  # sums that one loop over pixels keeps side by side
ROWS = 4  # of a product whose addresses are computed one from the other
PIXELS = 8  # neighbours in a row that share every weight a forward loop loads


def loop(name: str, vector: int, dtype: str):
  """A loop of table.py's table: (numba function, how many arguments it takes)."""
  if name.startswith('window'):
    _, size, dilation, stride, kind = name.split('_', 4)
    emitted, count = _window(int(size), int(dilation), int(stride), vector, dtype)[kind], 9
  elif name.startswith('product'):
    _, across, rows, how = name.split('_')
    emitted, count = _product(int(across), int(rows), how == 'add', vector, dtype), 9
  else:
    emitted, count = (_basic(vector, dtype) | mix.loops(vector, dtype) | pools.loops(vector, dtype)
                      | tiles.loops(vector, dtype) | leaves.loops(vector, dtype)
                      | block.loops(vector, dtype) | oneshot.loops(vector, dtype))[name]
  scope = {'loop': emitted}
  names = ', '.join(f'a{i}' for i in range(count))
  exec(f'def exported({names}):\n  loop({names})\n  return 0', scope)
  return scope['exported'], count


def _window(size, dilation, stride, vector, dtype):
  """The window's loops by name, each of nine int64."""
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

  return {'forward': emit_forward(False), 'forward_add': emit_forward(True), 'kernel_gradient': kernel_gradient}


@functools.cache
def _basic(vector, dtype):
  """Loops that need no window: {name: (intrinsic, how many arguments)}."""
  emitted, define = definer(vector, dtype)

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

  @define(13)
  def normalise_gradient(e, g, g_pixel, a, a_pixel, mean, p, q, r, h, w, y, y_row, y_pixel):
    # y = p * g + q * (a - mean) + r; rows of g and a lie side by side
    mean, p, q, r = (e.load(v) for v in (mean, p, q, r))
    with e.loop(h) as i:
      first, y_i = e.b.mul(i, w), e.at(y, (i, y_row))
      with e.loop(w) as j:
        pixel = e.b.add(first, j)
        centred = e.b.fsub(e.load(e.at(a, (pixel, a_pixel))), mean)
        e.store(e.fma(e.load(e.at(g, (pixel, g_pixel))), p, e.fma(centred, q, r)), e.at(y_i, (j, y_pixel)))

  @define(15)
  def gated_gradient(e, g, g_pixel, a, a_pixel, mean, p, q, r, by, plus, h, w, y, y_row, y_pixel):
    # the same with 0 for g where a * by + plus is not above 0
    mean, p, q, r, by, plus = (e.load(v) for v in (mean, p, q, r, by, plus))
    with e.loop(h) as i:
      first, y_i = e.b.mul(i, w), e.at(y, (i, y_row))
      with e.loop(w) as j:
        pixel = e.b.add(first, j)
        value = e.load(e.at(a, (pixel, a_pixel)))
        through = e.b.fcmp_ordered('>', e.fma(value, by, plus), e.fill(0))
        gradient = e.b.select(through, e.load(e.at(g, (pixel, g_pixel))), e.fill(0))
        e.store(e.fma(gradient, p, e.fma(e.b.fsub(value, mean), q, r)), e.at(y_i, (j, y_pixel)))

  @define(5)
  def moments(e, x, pixel, pixels, total, total_step):
    # total[0] = mean, total[1] = sum of squared distances from it; in several chains, to hide an addition's latency
    whole = e.b.sdiv(pixels, e.const(CHAINS))

    def summed(of):
      chains = [e.variable(e.fill(0)) for _ in range(CHAINS)]
      with e.loop(whole) as i:
        first = e.b.mul(i, e.const(CHAINS))
        for j, (get, put) in enumerate(chains):
          put(of(e.load(e.at(x, (e.b.add(first, e.const(j)), pixel))), get()))
      get, put = chains[0]
      done = e.b.mul(whole, e.const(CHAINS))
      with e.loop(e.b.sub(pixels, done)) as i:
        put(of(e.load(e.at(x, (e.b.add(done, i), pixel))), get()))
      return functools.reduce(e.b.fadd, [get() for get, _ in chains])

    def square(value, so_far):
      centred = e.b.fsub(value, mean)
      return e.fma(centred, centred, so_far)

    mean = e.b.fdiv(summed(e.b.fadd), e.number(pixels))
    e.store(mean, total)
    e.store(summed(square), e.at(total, total_step))

  return emitted


def _product(across, rows, add, vector, dtype):
  """C [rows, across * V] (+)= a [rows, depth] @ b [depth, across * V], for `count` times `rows` rows."""
  def emit(e, a, a_row, a_step, b, b_step, c, c_row, depth, count):
    with e.loop(count) as t:
      first = e.b.mul(t, e.const(rows))
      top, to = e.at(a, (first, a_row)), e.at(c, (first, c_row))
      outs = [e.at(to, (e.const(r), c_row)) for r in range(rows)]
      sums = [[e.variable(e.load(out, i) if add else e.fill(0)) for i in range(across)] for out in outs]
      starts = []
      for r in range(rows):
        if r % ROWS == 0:
          base = e.apart(e.at(top, (e.const(r), a_row)))
        starts.append(e.at(base, (e.const(r % ROWS), a_row)))
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
  return vector_function(9, vector, dtype)(emit)


@functools.cache
def matrix_product(vector, dtype, how):
  """A numba function: c [rows, width] = a [rows, depth] @ b [depth, width]; `how` is 'set', or 'add' to what c holds.

  `multiply(a, a_row, a_step, b, b_step, b_panel, c, c_row, depth, rows, width)`: addresses, and strides in elements.
  V must divide width. A *panel* is a strip of b as wide as `panel_width` says; b_panel leads from one to the next.
  """
  v, s, wide = vector, np.dtype(dtype).itemsize, panel_width(vector)
  (most1, some1, _), (most2, some2, _), (most3, some3, _) = (TILES[across] for across in (1, 2, 3))
  first = slot(f'product_1_{most1}_set', vector, dtype) + (how == 'add')

  @function(11, 'void')
  def multiply(a, a_row, a_step, b, b_step, b_panel, c, c_row, depth, rows, width):
    panel = wide(width)
    across = panel // v
    most = most1 if across == 1 else most2 if across == 2 else most3
    some = some1 if across == 1 else some2 if across == 2 else some3
    large, small = rows // most, rows % most // some
    second, third = large * most, large * most + small * some
    of_most = first + 6 * (across - 1)
    for p in range(width // panel):
      right, to = b + s * p * b_panel, c + s * p * panel
      call(load(address(of_most)), a, a_row, a_step, right, b_step, to, c_row, depth, large)
      if small > 0:
        call(load(address(of_most + 2)), a + s * second * a_row, a_row, a_step, right, b_step, to + s * second * c_row,
             c_row, depth, small)
      if third < rows:
        call(load(address(of_most + 4)), a + s * third * a_row, a_row, a_step, right, b_step, to + s * third * c_row,
             c_row, depth, rows - third)

  return multiply


@functools.cache
def panel_width(vector):
  """A numba function: how many of `width` columns a product handles at a time; table.panel says the same."""
  v = vector

  @function(1)
  def wide(width):
    return 3 * v if width % (3 * v) == 0 else 2 * v if width % (2 * v) == 0 else v

  return wide
