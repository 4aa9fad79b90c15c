"""The chunks of cpu/block.py: BatchNorm, ReLU and mixing weight of several maps in one pass; and their loops."""

import numpy as np

from vimnas_jax.cpu.source.emitter import definer
from vimnas_jax.cpu.source.frame import address, arg, arg_dim, args, attr, call, clear, load, result
from vimnas_jax.cpu.table import slot

PIXELS = 32  # at a time, so that maps which are read again are still in cache


def loops(vector: int, dtype: str):
  """The loops: {name: (intrinsic, how many arguments)}."""
  emitted, define = definer(vector, dtype)

  def blend(add):
    # y (+)= weight * relu(a * by + plus)
    def emit(e, a, pixel, by, plus, weight, y, pixels):
      by, plus, weight = e.load(by), e.load(plus), e.spread(weight)
      with e.loop(pixels) as i:
        place = e.at(y, (i, pixel))
        value = e.relu(e.fma(e.load(e.at(a, (i, pixel))), by, plus))
        e.store(e.fma(weight, value, e.load(place)) if add else e.b.fmul(weight, value), place)
    emit.__name__ = 'blend_add' if add else 'blend_set'
    define(7)(emit)

  blend(False)
  blend(True)

  @define(11)
  def gate_loop(e, g, a, pixel, mean, by, plus, weight, pixels, z, total, total_step):
    # y = relu(a * by + plus); z = weight * g where y is not 0; total[0] += sum of z, total[1] += sum of z * (a - mean),
    # total[2] += sum of g * y
    mean, by, plus, weight = e.load(mean), e.load(by), e.load(plus), e.spread(weight)
    places = [e.at(total, (e.const(k), total_step)) for k in range(3)]
    plain, moment, product = (e.variable(e.load(place)) for place in places)
    with e.loop(pixels) as i:
      gradient, value = e.load(e.at(g, (i, pixel))), e.load(e.at(a, (i, pixel)))
      y = e.fma(value, by, plus)
      product[1](e.fma(gradient, e.relu(y), product[0]()))
      through = e.b.select(e.b.fcmp_ordered('>', y, e.fill(0)), e.b.fmul(weight, gradient), e.fill(0))
      e.store(through, e.at(z, (i, pixel)))
      plain[1](e.b.fadd(plain[0](), through))
      moment[1](e.fma(through, e.b.fsub(value, mean), moment[0]()))
    for (get, _), place in zip((plain, moment, product), places):
      e.store(get(), place)

  return emitted


def chunk(name: str, vector: int, dtype: str):
  """A chunk for one vector length and type. Attributes: call, chunks."""
  v, s = vector, np.dtype(dtype).itemsize
  set_slot, add_slot, gate_slot = (slot(n, vector, dtype) for n in ('blend_set', 'blend_add', 'gate_loop'))

  def forward(frame, index):
    # Arguments: for each operation a [n, h, w, c], by and plus [c], then weights [samples, operations]. Result: as a.
    operations, chunks = (args(frame) - 1) // 3, attr(frame, 1)
    n, pixels, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1) * arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    weights, samples = arg(frame, 3 * operations), arg_dim(frame, 3 * operations, 0)
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      for first in range(0, pixels, PIXELS):
        count, at = min(PIXELS, pixels - first), s * (image * pixels + first) * c
        for o in range(operations):
          loop = load(address(add_slot if o else set_slot))
          weight = weights + s * (image * samples // n * operations + o)
          for b in range(0, c, v):
            call(loop, arg(frame, 3 * o) + at + s * b, c, arg(frame, 3 * o + 1) + s * b, arg(frame, 3 * o + 2) + s * b,
                 weight, result(frame, 0) + at + s * b, count)
    return 0

  def backward(frame, index):
    # Arguments: g [n, h, w, c], weights [samples, operations], then for each operation a, mean, by and plus. Results:
    # sums [n, 3, operations * c], and for each operation z, as g.
    operations, chunks, loop = (args(frame) - 2) // 4, attr(frame, 1), load(address(gate_slot))
    n, pixels, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1) * arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    samples, whole = arg_dim(frame, 1, 0), operations * c
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      totals = result(frame, 0) + s * 3 * image * whole
      clear(totals, s * 3 * whole)
      for first in range(0, pixels, PIXELS):
        count, at = min(PIXELS, pixels - first), s * (image * pixels + first) * c
        for o in range(operations):
          weight, i = arg(frame, 1) + s * (image * samples // n * operations + o), 2 + 4 * o
          for b in range(0, c, v):
            call(loop, arg(frame, 0) + at + s * b, arg(frame, i) + at + s * b, c, arg(frame, i + 1) + s * b,
                 arg(frame, i + 2) + s * b, arg(frame, i + 3) + s * b, weight, count, result(frame, 1 + o) + at + s * b,
                 totals + s * (o * c + b), whole)
    return 0

  return forward if name == 'block_forward' else backward
