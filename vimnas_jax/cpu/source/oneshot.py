"""The chunks of cpu/oneshot.py: the weighted sums between the blocks of a cell, there and back; and their loops."""

import numpy as np

from vimnas_jax.cpu.source.block import PIXELS
from vimnas_jax.cpu.source.emitter import definer
from vimnas_jax.cpu.source.frame import address, arg, arg_dim, args, attr, call, clear, load, result, result_dim
from vimnas_jax.cpu.table import slot


def loops(vector: int, dtype: str):
  """The loops: {name: (intrinsic, how many arguments)}."""
  emitted, define = definer(vector, dtype)

  def adding(more):
    # y (+)= weight * x
    def emit(e, x, x_pixel, weight, y, y_pixel, pixels, width):
      weight = e.spread(weight)
      with e.loop(pixels) as i, e.channels(width) as k:
        value, place = e.load(e.at(x, (i, x_pixel), k)), e.at(y, (i, y_pixel), k)
        e.store(e.fma(weight, value, e.load(place)) if more else e.b.fmul(weight, value), place)
    emit.__name__ = 'add_more' if more else 'add_first'
    define(7)(emit)

  adding(False)
  adding(True)

  @define(7)
  def dot_loop(e, x, x_pixel, y, y_pixel, pixels, width, total):
    # total += sum of x * y
    with e.loop(pixels) as i, e.channels(width) as k:
      place = e.at(total, k)
      e.store(e.fma(e.load(e.at(x, (i, x_pixel), k)), e.load(e.at(y, (i, y_pixel), k)), e.load(place)), place)

  return emitted


def chunk(name: str, vector: int, dtype: str):
  """A chunk for one vector length and type. Attributes: call, chunks, first, together (of read_forward alone)."""
  s = np.dtype(dtype).itemsize
  blend_slot, gate_slot, first_slot, more_slot, dot_slot = (
      slot(n, vector, dtype) for n in ('blend_set', 'gate_loop', 'add_first', 'add_more', 'dot_loop'))

  def read(frame, index):
    # Arguments: projections a [n, h, w, p], by and plus [p], weights [samples, 1 + nodes], nodes [n, h, w, c]. Result:
    # relu(a * by + plus) from channel `first` on and the nodes, weighted: [n, h, w, c] all `together`, or the nodes
    # side by side, each on its own channels of the projections.
    chunks, first, together = attr(frame, 1), attr(frame, 2), attr(frame, 3)
    n, pixels, p = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1) * arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    nodes, samples, whole = args(frame) - 4, arg_dim(frame, 3, 0), result_dim(frame, 0, 3)
    c = whole if together else whole // nodes
    blend, more = load(address(blend_slot)), load(address(more_slot))
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      row = arg(frame, 3) + s * (image * samples // n) * (1 + nodes)
      for start in range(0, pixels, PIXELS):
        count, at = min(PIXELS, pixels - start), image * pixels + start
        for part in range(whole // c):
          to = result(frame, 0) + s * (at * whole + part * c)
          channel = first + part * c
          call(blend, arg(frame, 0) + s * (at * p + channel), p, arg(frame, 1) + s * channel,
               arg(frame, 2) + s * channel, row, to, whole, count, c)
          for j in range(0 if together else part, nodes if together else part + 1):
            call(more, arg(frame, 4 + j) + s * at * c, c, row + s * (1 + j), to, whole, count, c)
    return 0

  def back(frame, index):
    # Arguments: a node [n, h, w, c], weights [samples, maps], the gradient of the cell's output [n, h, w, *], whose
    # channels from `first` on are the node's, and of what each later block reads [n, h, w, c]. Results: their weighted
    # sum, as the node; sums of each times the node [n, maps * c].
    chunks, first, maps = attr(frame, 1), attr(frame, 2), args(frame) - 2
    n, pixels, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1) * arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    samples, whole = arg_dim(frame, 1, 0), arg_dim(frame, 2, 3)
    dot = load(address(dot_slot))
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      row, totals = arg(frame, 1) + s * (image * samples // n) * maps, result(frame, 1) + s * image * maps * c
      clear(totals, s * maps * c)
      for start in range(0, pixels, PIXELS):
        count, at = min(PIXELS, pixels - start), image * pixels + start
        for j in range(maps):
          width = c if j else whole
          add = load(address(more_slot if j else first_slot))
          source = arg(frame, 2 + j) + s * (at * width + (0 if j else first))
          call(add, source, width, row + s * j, result(frame, 0) + s * at * c, c, count, c)
          call(dot, source, width, arg(frame, 0) + s * at * c, c, count, c, totals + s * j * c)
    return 0

  def projections(frame, index):
    # Arguments: the gradient of the cell's output [n, h, w, b * c], weights of the projections [samples, b + 1], the
    # last for the output's, a [n, h, w, 2 * b * c], its mean, by and plus [2 * b * c], and the gradients of what the b
    # blocks read [n, h, w, c]. Result: sums [n, 3, 2 * b * c], as gate_loop has them.
    chunks, blocks = attr(frame, 1), args(frame) - 6
    n, pixels, half = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1) * arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    samples, c, p, gate = arg_dim(frame, 1, 0), half // blocks, 2 * half, load(address(gate_slot))
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      row, totals = arg(frame, 1) + s * (image * samples // n) * (1 + blocks), result(frame, 0) + s * 3 * image * p
      clear(totals, s * 3 * p)
      for start in range(0, pixels, PIXELS):
        count, at = min(PIXELS, pixels - start), image * pixels + start
        for part in range(2 * blocks):
          width = c if part < blocks else half
          source = (arg(frame, 6 + part) + s * at * c if part < blocks else
                    arg(frame, 0) + s * (at * half + (part - blocks) * c))
          channel = part * c
          call(gate, source, width, arg(frame, 2) + s * (at * p + channel), p, arg(frame, 3) + s * channel,
               arg(frame, 4) + s * channel, arg(frame, 5) + s * channel, row + s * min(part, blocks), count, c,
               totals + s * channel, p)
    return 0

  return {'read_forward': read, 'read_backward': back, 'projections_sums': projections}[name]
