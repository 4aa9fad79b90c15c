"""The chunks of cpu/leaves.py: many arrays in one call; and their loops."""

import numpy as np

from vimnas_jax.cpu.source.emitter import definer
from vimnas_jax.cpu.source.frame import (
  address,
  arg,
  arg_dim,
  arg_size,
  args,
  attr,
  call,
  copy,
  load,
  load32,
  result,
  result_size,
  store,
  store32,
)
from vimnas_jax.cpu.table import slot


def loops(vector: int, dtype: str):
  """The loops: {name: (intrinsic, how many arguments)}."""
  emitted, define = definer(vector, dtype)

  @define(3)
  def square_loop(e, x, vectors, total):
    # total = sum of x * x
    own = e.variable(e.fill(0))
    with e.loop(vectors) as i:
      value = e.load(e.at(x, (i, e.const(e.vector))))
      own[1](e.fma(value, value, own[0]()))
    e.store_total(own[0](), total)

  @define(7)
  def descend_loop(e, numbers, p, g, t, p_out, t_out, vectors):
    # numbers as in cpu/leaves.py
    divisor, factor, decay, momentum, own, traced, rate = (e.spread(e.at(numbers, e.const(k))) for k in range(7))
    with e.loop(vectors) as i:
      place = e.b.mul(i, e.const(e.vector))
      param = e.load(e.at(p, place))
      gradient = e.fma(decay, param, e.b.fmul(e.b.fdiv(e.load(e.at(g, place)), divisor), factor))
      trace = e.fma(momentum, e.load(e.at(t, place)), gradient)
      way = e.fma(own, gradient, e.b.fmul(traced, trace))
      e.store(e.b.fsub(param, e.b.fmul(rate, way)), e.at(p_out, place))
      e.store(trace, e.at(t_out, place))

  return emitted


def chunk(name: str, vector: int, dtype: str):
  """A chunk for one vector length and type. Attributes: call, chunks."""
  v, s = vector, np.dtype(dtype).itemsize
  square_slot, descend_slot = slot('square_loop', vector, dtype), slot('descend_loop', vector, dtype)

  def pour(frame, index):
    # What all arguments hold, in order, fills the results in order.
    i, j, taken, filled = 0, 0, 0, 0
    while i < args(frame):
      source, room = s * arg_size(frame, i), s * result_size(frame, j)
      size = min(source - taken, room - filled)
      copy(result(frame, j) + filled, arg(frame, i) + taken, size)
      taken += size
      filled += size
      if taken == source:
        i, taken = i + 1, 0
      if filled == room:
        j, filled = j + 1, 0
    return index * 0

  def turn(frame, index):
    # [m, c, d] each -> [m, d, c]
    for k in range(args(frame)):
      m, c, d = arg_dim(frame, k, 0), arg_dim(frame, k, 1), arg_dim(frame, k, 2)
      for e in range(m):
        source, to = arg(frame, k) + s * e * c * d, result(frame, k) + s * e * c * d
        for i in range(c):
          for j in range(d):
            if s == 4:
              store32(to + s * (j * c + i), load32(source + s * (i * d + j)))
            else:
              store(to + s * (j * c + i), load(source + s * (i * d + j)))
    return index * 0

  def squares(frame, index):
    # Arrays -> [number of them], the sum of squares of each.
    for i in range(index, args(frame), attr(frame, 1)):
      call(load(address(square_slot)), arg(frame, i), arg_size(frame, i) // v, result(frame, 0) + s * i)
    return 0

  def descend(frame, index):
    # Arguments: numbers [7], then arrays: parameters, their gradients, their traces. Results: parameters, traces.
    chunks, count = attr(frame, 1), (args(frame) - 1) // 3
    for i in range(count):
      vectors = arg_size(frame, 1 + i) // v
      begin, end = vectors * index // chunks, vectors * (index + 1) // chunks
      at = s * v * begin
      call(load(address(descend_slot)), arg(frame, 0), arg(frame, 1 + i) + at, arg(frame, 1 + count + i) + at,
           arg(frame, 1 + 2 * count + i) + at, result(frame, i) + at, result(frame, count + i) + at, end - begin)
    return 0

  return {'pour': pour, 'turn': turn, 'squares': squares, 'descend': descend}[name]
