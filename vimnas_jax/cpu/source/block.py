"""The chunks of cpu/block.py: BatchNorm, ReLU and mixing weight of several maps in one pass; and their loops."""

import numpy as np

from vimnas_jax.cpu.source.emitter import definer
from vimnas_jax.cpu.source.frame import address, arg, arg_dim, args, attr, call, clear, load, result
from vimnas_jax.cpu.table import slot

PIXELS = 8  # at a time, so that maps which are read again are still in cache


def loops(vector: int, dtype: str):
  """The loops: {name: (intrinsic, how many arguments)}."""
  emitted, define = definer(vector, dtype)

  def blend(add):
    # y (+)= weight * relu(a * by + plus)
    def emit(e, a, a_pixel, by, plus, weight, y, y_pixel, pixels, width):
      weight = e.spread(weight)
      with e.loop(pixels) as i, e.channels(width) as k:
        place, ahead = e.at(y, (i, y_pixel), k), e.b.add(i, e.const(PIXELS))
        e.fetch(e.at(a, (ahead, a_pixel), k))
        value = e.relu(e.fma(e.load(e.at(a, (i, a_pixel), k)), e.load(e.at(by, k)), e.load(e.at(plus, k))))
        e.store(e.fma(weight, value, e.load(place)) if add else e.b.fmul(weight, value), place)
    emit.__name__ = 'blend_add' if add else 'blend_set'
    define(9)(emit)

  blend(False)
  blend(True)

  @define(12)
  def gate_loop(e, g, g_pixel, a, a_pixel, mean, by, plus, weight, pixels, width, total, total_step):
    # y = relu(a * by + plus), z = weight * g where y is not 0: total[0] += sum of z, total[1] += sum of z * (a - mean),
    # total[2] += sum of g * y
    weight = e.spread(weight)
    with e.loop(pixels) as i, e.channels(width) as k:
      plain, moment, product = (e.at(total, (e.const(j), total_step), k) for j in range(3))
      ahead = e.b.add(i, e.const(PIXELS))
      e.fetch(e.at(a, (ahead, a_pixel), k))
      gradient, value = e.load(e.at(g, (i, g_pixel), k)), e.load(e.at(a, (i, a_pixel), k))
      y = e.fma(value, e.load(e.at(by, k)), e.load(e.at(plus, k)))
      e.store(e.fma(gradient, e.relu(y), e.load(product)), product)
      through = e.b.select(e.b.fcmp_ordered('>', y, e.fill(0)), e.b.fmul(weight, gradient), e.fill(0))
      e.store(e.b.fadd(e.load(plain), through), plain)
      e.store(e.fma(through, e.b.fsub(value, e.load(e.at(mean, k))), e.load(moment)), moment)

  return emitted


def chunk(name: str, vector: int, dtype: str):
  """A chunk for one vector length and type. Attributes: call, chunks, pool (of block_forward alone)."""
  s = np.dtype(dtype).itemsize
  set_slot, add_slot, gate_slot, dot_slot, first_slot, more_slot = (
      slot(n, vector, dtype) for n in ('blend_set', 'blend_add', 'gate_loop', 'dot_loop', 'add_first', 'add_more'))

  def forward(frame, index):
    # Arguments: for each operation a [n, h, w, c], by and plus [c], then weights [samples, operations]. Result: as a.
    # The operation `pool` (-1: none is one) is taken as it is, without by, plus and ReLU.
    operations, chunks, pool = (args(frame) - 1) // 3, attr(frame, 1), attr(frame, 2)
    n, pixels, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1) * arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    weights, samples = arg(frame, 3 * operations), arg_dim(frame, 3 * operations, 0)
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      for first in range(0, pixels, PIXELS):
        count, at = min(PIXELS, pixels - first), s * (image * pixels + first) * c
        for o in range(operations):
          weight, to = weights + s * (image * samples // n * operations + o), result(frame, 0) + at
          if o == pool:
            call(load(address(more_slot if o else first_slot)), arg(frame, 3 * o) + at, c, weight, to, c, count, c)
          else:
            call(load(address(add_slot if o else set_slot)), arg(frame, 3 * o) + at, c, arg(frame, 3 * o + 1),
                 arg(frame, 3 * o + 2), weight, to, c, count, c)
    return 0

  def sums(frame, index):
    # Arguments: g [n, h, w, c], weights [samples, operations], for each operation a, mean, by and plus, and perhaps a
    # last map. Results: sums [n, 3, operations * c], as gate_loop has them, and of g * the last map [n, c].
    operations, chunks, loop = (args(frame) - 2) // 4, attr(frame, 1), load(address(gate_slot))
    dot, last = load(address(dot_slot)), 2 + 4 * operations
    n, pixels, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1) * arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    samples, whole = arg_dim(frame, 1, 0), operations * c
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      totals = result(frame, 0) + s * 3 * image * whole
      clear(totals, s * 3 * whole)
      if args(frame) > last:
        clear(result(frame, 1) + s * image * c, s * c)
      for first in range(0, pixels, PIXELS):
        count, at = min(PIXELS, pixels - first), s * (image * pixels + first) * c
        for o in range(operations):
          weight, i = arg(frame, 1) + s * (image * samples // n * operations + o), 2 + 4 * o
          call(loop, arg(frame, 0) + at, c, arg(frame, i) + at, c, arg(frame, i + 1), arg(frame, i + 2),
               arg(frame, i + 3), weight, count, c, totals + s * o * c, whole)
        if args(frame) > last:
          call(dot, arg(frame, 0) + at, c, arg(frame, last) + at, c, count, c, result(frame, 1) + s * image * c)
    return 0

  return forward if name == 'block_forward' else sums
