"""Operations without parameters, which all edges of a node share: the chunks of cpu/pools.py, and their loops."""

import functools

import numpy as np

from vimnas_jax.cpu.source.emitter import definer
from vimnas_jax.cpu.source.frame import (
  address,
  arg,
  arg_dim,
  attr,
  call,
  free,
  function,
  lines,
  load,
  result,
  result_dim,
  results,
  store,
  zeros,
)
from vimnas_jax.cpu.table import slot


def loops(vector: int, dtype: str):
  """The loops: {name: (intrinsic, how many arguments)}."""
  emitted, define = definer(vector, dtype)

  @define(2)
  def below_all(e, to, vectors):
    # minus infinity everywhere
    with e.loop(vectors) as i:
      e.store(e.fill(float('-inf')), e.at(to, (i, e.const(e.vector))))

  def windows(e, x, x_row, a, b, stride):
    # the nine places of a 3x3 window of a padded plane
    row, pixel = e.b.mul(a, stride), e.b.mul(b, stride)
    return [e.at(x, (e.b.add(row, e.const(i)), x_row), (e.b.add(pixel, e.const(j)), e.const(e.vector)))
            for i in range(3) for j in range(3)]

  @define(8)
  def max_loop(e, x, x_row, stride, h, w, y, y_row, y_pixel):
    # y [h, w] = the largest of each window
    with e.loop(h) as a, e.loop(w) as b:
      views = [e.load(place) for place in windows(e, x, x_row, a, b, stride)]
      e.store(functools.reduce(e.maximum, views), e.at(y, (a, y_row), (b, y_pixel)))

  @define(9)
  def mean_loop(e, x, x_row, stride, shares, h, w, y, y_row, y_pixel):
    # y [h, w] = the sum of each window times its share, an array [h, w]
    with e.loop(h) as a, e.loop(w) as b:
      total = functools.reduce(e.b.fadd, [e.load(place) for place in windows(e, x, x_row, a, b, stride)])
      share = e.spread(e.at(shares, (a, w), b))
      e.store(e.b.fmul(total, share), e.at(y, (a, y_row), (b, y_pixel)))

  @define(9)
  def max_back_loop(e, x, x_row, stride, h, w, y, y_pixel, g, dx):
    # dx, like x, += g, shared out equally among the pixels of a window that equal its largest, y; y and g [h, w]
    with e.loop(h) as a, e.loop(w) as b:
      pixel = e.b.add(e.b.mul(a, w), b)
      largest = e.load(e.at(y, (pixel, y_pixel)))
      equal = [e.b.fcmp_ordered('==', e.load(place), largest) for place in windows(e, x, x_row, a, b, stride)]
      ties = functools.reduce(e.b.fadd, [e.b.select(same, e.fill(1), e.fill(0)) for same in equal])
      share = e.b.fdiv(e.load(e.at(g, (pixel, e.const(e.vector)))), ties)
      for same, place in zip(equal, windows(e, dx, x_row, a, b, stride)):
        e.store(e.b.fadd(e.load(place), e.b.select(same, share, e.fill(0))), place)

  @define(7)
  def mean_back_loop(e, dx, x_row, stride, shares, h, w, g):
    # dx += g times its share, in every pixel of the window; g [h, w]
    with e.loop(h) as a, e.loop(w) as b:
      pixel = e.b.add(e.b.mul(a, w), b)
      value = e.b.fmul(e.load(e.at(g, (pixel, e.const(e.vector)))), e.spread(e.at(shares, pixel)))
      for place in windows(e, dx, x_row, a, b, stride):
        e.store(e.b.fadd(e.load(place), value), place)

  return emitted


def chunk(name: str, vector: int, dtype: str):
  """A chunk for one vector length and type."""
  v, s = vector, np.dtype(dtype).itemsize
  names = 'spread', 'below_all', 'max_loop', 'mean_loop', 'max_back_loop', 'mean_back_loop', 'moments'
  spread_slot, below_slot, max_slot, mean_slot, max_back_slot, mean_back_slot, moments_slot = (
      slot(n, vector, dtype) for n in names)
  normalise_slot, set_slot, add_slot = (slot(n, vector, dtype) for n in ('normalise_gradient', 'mix_set', 'mix_add'))

  def forward(frame, index):
    # Arguments: x [n, h, w, c], shares [h', w']. Results: the largest, its moments, the mean, its moments, or two of
    # these, or the largest alone. Attributes: call, chunks, pools (1 largest, 2 mean), stride.
    x, shares, kinds, stride, chunks = arg(frame, 0), arg(frame, 1), attr(frame, 2), attr(frame, 3), attr(frame, 1)
    n, h, w, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    ho, wo, row, first = result_dim(frame, 0, 1), result_dim(frame, 0, 2), (w + 2) * v, (kinds & 1) * 2
    spread, moments = load(address(spread_slot)), load(address(moments_slot))
    plane = lines(s * (h + 2) * row)
    memory = zeros(2 * plane + 64)
    below = lines(memory)
    empty = below + plane
    call(load(address(below_slot)), below, (h + 2) * (w + 2))
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      for b in range(0, c, v):
        here, there = x + s * (image * h * w * c + b), s * (image * ho * wo * c + b)
        if kinds & 1:
          call(spread, here, w * c, c, h, w, below + s * (row + v), row, v)
          call(load(address(max_slot)), below, row, stride, ho, wo, result(frame, 0) + there, wo * c, c)
          if results(frame) > 1:
            call(moments, result(frame, 0) + there, c, ho * wo, result(frame, 1) + s * (2 * image * c + b), c)
        if kinds & 2:
          call(spread, here, w * c, c, h, w, empty + s * (row + v), row, v)
          call(load(address(mean_slot)), empty, row, stride, shares, ho, wo, result(frame, first) + there, wo * c, c)
          call(moments, result(frame, first) + there, c, ho * wo,
               result(frame, first + 1) + s * (2 * image * c + b), c)
    free(memory)
    return 0

  @function(9, 'void')
  def gather(frame, first, image, b, edges, mask, at, normal, to):
    # to [pixels, V] = sum over the edges of mask of p * g, with BatchNorm also q * (a - center) + r
    n, pixels, c = arg_dim(frame, first, 0), arg_dim(frame, first, 1) * arg_dim(frame, first, 2), arg_dim(frame, 0, 3)
    normalise, set_loop, add_loop = load(address(normalise_slot)), load(address(set_slot)), load(address(add_slot))
    sample, width, place = image * arg_dim(frame, at, 0) // n, arg_dim(frame, at, 1), 0
    zero, shift = arg(frame, 2), s * (image * pixels * c + b)
    for e in range(edges):
      if mask >> e & 1 == 0:
        continue
      g, own = arg(frame, first + e) + shift, arg(frame, at) + s * (sample * width + place * c + b)
      if place == 0 and normal:
        call(normalise, g, c, arg(frame, at + 1) + shift, c, arg(frame, at + 2) + s * b, own,
             arg(frame, at + 3) + s * b, arg(frame, at + 4) + s * b, 1, pixels, to, 0, v)
      elif place == 0:
        call(set_loop, g, c, zero, own, to, v, pixels)
      else:
        call(add_loop, g, c, zero, own, to, v, pixels, to)
      place += 1

  def backward(frame, index):
    # Arguments: x [n, h, w, c], shares [h', w'], zeros and ones [2, c]; for the largest, then the mean, where there: p
    # [samples, m * c], a, center, q, r; for the map itself p; then a gradient [n, h', w', c] for each edge.
    # Result: the gradient of x. Attributes: call, chunks, edges, identity, largest, mean (masks of edges), normal
    # (whether BatchNorm follows pools), stride.
    x, shares, chunks, edges = arg(frame, 0), arg(frame, 1), attr(frame, 1), attr(frame, 2)
    identity, largest, mean, normal, stride = (attr(frame, 3), attr(frame, 4), attr(frame, 5), attr(frame, 6) == 1,
                                               attr(frame, 7))
    n, h, w, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    at_mean = 3 + (5 if largest != 0 else 0)
    at_identity = at_mean + (5 if mean != 0 else 0)
    first = at_identity + (1 if identity != 0 else 0)
    ho, wo, row = arg_dim(frame, first, 1), arg_dim(frame, first, 2), (w + 2) * v
    spread = load(address(spread_slot))
    plane, dense = lines(s * (h + 2) * row), lines(s * h * w * v)
    memory = zeros(2 * plane + dense + 64)
    below = lines(memory)
    dx = below + plane
    g = dx + plane
    call(load(address(below_slot)), below, (h + 2) * (w + 2))
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      for b in range(0, c, v):
        here = s * (image * h * w * c + b)
        for i in range((h + 2) * row * s // 8):
          store(dx + 8 * i, 0)
        if largest != 0:
          gather(frame, first, image, b, edges, largest, 3, normal, g)
          call(spread, x + here, w * c, c, h, w, below + s * (row + v), row, v)
          call(load(address(max_back_slot)), below, row, stride, ho, wo,
               arg(frame, 4) + s * (image * ho * wo * c + b), c, g, dx)
        if mean != 0:
          gather(frame, first, image, b, edges, mean, at_mean, normal, g)
          call(load(address(mean_back_slot)), dx, row, stride, shares, ho, wo, g)
        if identity != 0:
          gather(frame, first, image, b, edges, identity, at_identity, False, g)
          for k in range(h):
            to = dx + s * ((k + 1) * row + v)
            call(load(address(add_slot)), g + s * k * w * v, v, arg(frame, 2), arg(frame, 2) + s * c, to, v, w, to)
        call(spread, dx + s * (row + v), row, v, h, w, result(frame, 0) + here, w * c, c)
    free(memory)
    return 0

  return forward if name == 'pools_forward' else backward
