"""BatchNorm and mixing weights as coefficients: the chunks of cpu/mix.py, and their loops."""

import numpy as np

from vimnas_jax.cpu.source.emitter import definer
from vimnas_jax.cpu.source.frame import (
  address,
  arg,
  arg_dim,
  args,
  attr,
  attrs,
  call,
  free,
  lines,
  load,
  result,
  result_dim,
  result_size,
  results,
  zeros,
)
from vimnas_jax.cpu.table import slot

PIXELS = 128  # mixed at a time, so that their sum stays in the first cache


def loops(vector: int, dtype: str):
  """The loops: {name: (intrinsic, how many arguments)}."""
  emitted, define = definer(vector, dtype)

  @define(8)
  def sums_loop(e, g, g_pixel, a, a_pixel, mean, pixels, total, total_step):
    # total[0] = sum of g, total[1] = sum of g * (a - mean)
    mean = e.load(mean)
    plain, moment = e.variable(e.fill(0)), e.variable(e.fill(0))
    with e.loop(pixels) as i:
      value = e.load(e.at(g, (i, g_pixel)))
      plain[1](e.b.fadd(plain[0](), value))
      moment[1](e.fma(value, e.b.fsub(e.load(e.at(a, (i, a_pixel))), mean), moment[0]()))
    e.store(plain[0](), total)
    e.store(moment[0](), e.at(total, total_step))

  @define(7)
  def mix_set(e, a, a_pixel, center, scale, y, y_pixel, pixels):
    # y = scale * (a - center)
    center, scale = e.load(center), e.load(scale)
    with e.loop(pixels) as i:
      value = e.b.fmul(e.b.fsub(e.load(e.at(a, (i, a_pixel))), center), scale)
      e.store(value, e.at(y, (i, y_pixel)))

  @define(8)
  def mix_add(e, a, a_pixel, center, scale, y, y_pixel, pixels, before):
    # y = before + scale * (a - center)
    center, scale = e.load(center), e.load(scale)
    with e.loop(pixels) as i:
      centred = e.b.fsub(e.load(e.at(a, (i, a_pixel))), center)
      e.store(e.fma(centred, scale, e.load(e.at(before, (i, y_pixel)))), e.at(y, (i, y_pixel)))

  @define(9)
  def statistics_loop(e, moments, step, n, pixels, eps, center, inverse, spread_out, vectors):
    # every image's mean and sum of squared distances from it [n, 2, step] -> mean, 1 / deviation and variance of the
    # batch; whoever has no use for the variance gives the place of 1 / deviation, which is written later
    count, size, eps = e.number(n), e.number(pixels), e.double(eps)
    with e.loop(vectors) as i:
      place = e.b.mul(i, e.const(e.vector))
      here, total, spread = e.at(moments, place), e.variable(e.fill(0)), e.variable(e.fill(0))
      with e.loop(n) as k:
        total[1](e.b.fadd(total[0](), e.load(e.at(here, (k, e.b.mul(step, e.const(2)))))))
      mean = e.b.fdiv(total[0](), count)
      with e.loop(n) as k:
        image = e.at(here, (k, e.b.mul(step, e.const(2))))
        apart = e.b.fsub(e.load(image), mean)
        own = e.b.fdiv(e.load(e.at(image, step)), size)
        spread[1](e.b.fadd(spread[0](), e.fma(apart, apart, own)))
      e.store(mean, e.at(center, place))
      var = e.b.fdiv(spread[0](), count)
      e.store(var, e.at(spread_out, place))
      e.store(e.b.fdiv(e.fill(1), e.sqrt(e.b.fadd(var, eps))), e.at(inverse, place))

  @define(4)
  def scale_loop(e, weight, inverse, scale, vectors):
    # scale = weight * inverse, with a scalar weight
    weight = e.spread(weight)
    with e.loop(vectors) as i:
      place = e.b.mul(i, e.const(e.vector))
      e.store(e.b.fmul(weight, e.load(e.at(inverse, place))), e.at(scale, place))

  @define(9)
  def edge_loop(e, sums, step, images, weight, inverse, d_weight, plain, moment, vectors):
    # of one edge and the images of one sample, from their sums [images, 2, step]: the gradient of the weight, and
    # weight * totals, added to plain and moment
    weight, gradient = e.spread(weight), e.variable(e.fill(0))
    with e.loop(vectors) as i:
      place = e.b.mul(i, e.const(e.vector))
      here, first, second = e.at(sums, place), e.variable(e.fill(0)), e.variable(e.fill(0))
      with e.loop(images) as k:
        image = e.at(here, (k, e.b.mul(step, e.const(2))))
        first[1](e.b.fadd(first[0](), e.load(image)))
        second[1](e.b.fadd(second[0](), e.load(e.at(image, step))))
      gradient[1](e.fma(second[0](), e.load(e.at(inverse, place)), gradient[0]()))
      for total, (get, _) in ((plain, first), (moment, second)):
        e.store(e.fma(weight, get(), e.load(e.at(total, place))), e.at(total, place))
    e.store_total(gradient[0](), d_weight)

  @define(7)
  def finish_loop(e, inverse, plain, moment, count, q, r, vectors):
    # the coefficients of BatchNorm's backward pass
    count = e.number(count)
    with e.loop(vectors) as i:
      place = e.b.mul(i, e.const(e.vector))
      scale = e.load(e.at(inverse, place))
      cube = e.b.fmul(e.b.fmul(scale, scale), scale)
      for total, factor, out in ((moment, cube, q), (plain, scale, r)):
        value = e.b.fdiv(e.b.fmul(factor, e.load(e.at(total, place))), count)
        e.store(e.b.fsub(e.fill(0), value), e.at(out, place))

  @define(5)
  def fold_loop(e, x, x_row, rows, y, vectors):
    # y = sum over rows of x [rows, vectors * V]
    with e.loop(vectors) as i:
      here, total = e.at(x, (i, e.const(e.vector))), e.variable(e.fill(0))
      with e.loop(rows) as r:
        total[1](e.b.fadd(total[0](), e.load(e.at(here, (r, x_row)))))
      e.store(total[0](), e.at(y, (i, e.const(e.vector))))

  return emitted


def chunk(name: str, vector: int, dtype: str):
  """A chunk for one vector length and type."""
  v, s = vector, np.dtype(dtype).itemsize
  names = 'sums', 'mix_set', 'mix_add', 'statistics', 'scale', 'edge', 'finish', 'fold'
  (sums_slot, set_slot, add_slot, statistics_slot, scale_slot, edge_slot, finish_slot, fold_slot) = (
      slot(n if n.startswith('mix') else f'{n}_loop', vector, dtype) for n in names)

  def sums(frame, index):
    # Arguments: m gradients [n, h, w, c], then for each of the operations a and center (its shapes: mix.py). Result
    # [n, 2, operations * m * c]. Attributes: call, chunks, operations.
    operations, chunks, loop = attr(frame, 2), attr(frame, 1), load(address(sums_slot))
    m = args(frame) - 2 * operations
    n, pixels, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1) * arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    whole = operations * m * c
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      for e in range(m):
        for k in range(operations):
          i = m + 2 * k
          banks, stride = arg_dim(frame, i, 1), arg_dim(frame, i, 4)
          # every edge a map of its own, its own channels of one map, or one map for all
          a = arg(frame, i) + s * (image * banks * pixels * stride + (
              e * pixels * c if banks == m else e * c if stride == m * c else 0))
          center = arg(frame, i + 1) + (s * e * c if banks == m or stride == m * c else 0)
          total = result(frame, 0) + s * (2 * image * whole + (k * m + e) * c)
          for b in range(0, c, v):
            call(loop, arg(frame, e) + s * (image * pixels * c + b), c, a + s * b, stride, center + s * b, pixels,
                 total + s * b, whole)
    return 0

  def mix(frame, index):
    # Arguments: for each of the operations a, center, scale (mix.py), then what some edges add to. Results: a map
    # [n, h, w, c] for each edge. Attributes: call, chunks, depth (c), edges, into, then each operation's mask of edges.
    chunks, c, edges, into = attr(frame, 1), attr(frame, 2), attr(frame, 3), attr(frame, 4)
    operations = attrs(frame) - 5
    set_loop, add_loop = load(address(set_slot)), load(address(add_slot))
    n, pixels = arg_dim(frame, 0, 0), arg_dim(frame, 0, 2) * arg_dim(frame, 0, 3)
    for image in range(n * index // chunks, n * (index + 1) // chunks):
      adds, outs = 3 * operations, 0
      for e in range(edges):
        carried = False
        for k in range(operations):
          carried = carried or attr(frame, 5 + k) >> e & 1 == 1
        if not carried:
          continue
        y = result(frame, outs) + s * image * pixels * c
        outs += 1
        before = 0
        if into >> e & 1 == 1:
          before = arg(frame, adds) + s * image * pixels * c
          adds += 1
        for first in range(0, pixels, PIXELS):
          count = min(PIXELS, pixels - first)
          here, source = y + s * first * c, before + s * first * c if before != 0 else 0
          for k in range(operations):
            mask = attr(frame, 5 + k)
            if mask >> e & 1 == 0:
              continue
            at, m = 0, 0  # place among the edges of this operation, and their number
            for other in range(edges):
              if mask >> other & 1 == 1:
                at += 1 if other < e else 0
                m += 1
            banks, stride, samples = arg_dim(frame, 3 * k, 1), arg_dim(frame, 3 * k, 4), arg_dim(frame, 3 * k + 2, 0)
            own = banks == m or stride == m * c
            a = arg(frame, 3 * k) + s * (image * banks * pixels * stride + first * stride + (
                at * pixels * c if banks == m else at * c if own else 0))
            center = arg(frame, 3 * k + 1) + (s * at * c if own else 0)
            scale = arg(frame, 3 * k + 2) + s * ((image * samples // n * m + at) * c)
            for b in range(0, c, v):
              if source != 0:
                call(add_loop, a + s * b, stride, center + s * b, scale + s * b, here + s * b, c, count, source + s * b)
              else:
                call(set_loop, a + s * b, stride, center + s * b, scale + s * b, here + s * b, c, count)
            source = here
    return 0

  def statistics(frame, index):
    # Arguments: moments [n, 2, channels], and perhaps weights [samples, m]. Results: center and inverse [channels],
    # then with weights scale [samples, m * c], without perhaps the variance. Attributes: call, chunks, eps (bits of a
    # double), pixels.
    n, channels, center, inverse = arg_dim(frame, 0, 0), arg_dim(frame, 0, 2), result(frame, 0), result(frame, 1)
    var = result(frame, 2) if args(frame) == 1 and results(frame) == 3 else inverse
    call(load(address(statistics_slot)), arg(frame, 0), channels, n, attr(frame, 3), attr(frame, 2), center, inverse,
         var, channels // v)
    if args(frame) == 2:
      samples, m, whole = arg_dim(frame, 1, 0), arg_dim(frame, 1, 1), result_dim(frame, 2, 1)
      c = whole // m
      for e in range(m):
        for sample in range(samples):
          own = inverse + (s * e * c if channels == whole else 0)
          call(load(address(scale_slot)), arg(frame, 1) + s * (sample * m + e), own,
               result(frame, 2) + s * (sample * whole + e * c), c // v)
    return index * 0

  def coefficients(frame, index):
    # Arguments: sums [n, 2, *], weights [samples, m], inverse [channels]. Results: gradient of the weights, p
    # [samples, m * c], q and r [channels]. Attributes: call, chunks, count, offset (of the operation within sums).
    n, step, samples, m = arg_dim(frame, 0, 0), arg_dim(frame, 0, 2), arg_dim(frame, 1, 0), arg_dim(frame, 1, 1)
    channels, whole, inverse = arg_dim(frame, 2, 0), result_dim(frame, 1, 1), arg(frame, 2)
    c, images = whole // m, n // samples
    memory = zeros(2 * lines(s * channels))
    plain, moment = memory, memory + lines(s * channels)
    for e in range(m):
      shift = s * e * c if channels == whole else 0
      for sample in range(samples):
        weight = s * (sample * m + e)
        call(load(address(edge_slot)), arg(frame, 0) + s * (2 * sample * images * step + attr(frame, 3) + e * c), step,
             images, arg(frame, 1) + weight, inverse + shift, result(frame, 0) + weight, plain + shift, moment + shift,
             c // v)
        call(load(address(scale_slot)), arg(frame, 1) + weight, inverse + shift,
             result(frame, 1) + s * (sample * whole + e * c), c // v)
    call(load(address(finish_slot)), inverse, plain, moment, attr(frame, 2), result(frame, 2), result(frame, 3),
         channels // v)
    free(memory)
    return index * 0

  def inner(frame, index):
    # Arguments: sums of parts [parts, 2, channels], inverse [channels]. Results: q and r [channels]. Attributes: call,
    # chunks, count.
    parts, channels = arg_dim(frame, 0, 0), arg_dim(frame, 0, 2)
    memory = zeros(2 * s * channels)
    call(load(address(fold_slot)), arg(frame, 0), 2 * channels, parts, memory, 2 * channels // v)
    call(load(address(finish_slot)), arg(frame, 1), memory, memory + s * channels, attr(frame, 2), result(frame, 0),
         result(frame, 1), channels // v)
    free(memory)
    return index * 0

  def fold(frame, index):
    # Arguments [parts, ...] each -> results [...] each, sums over the parts. Attributes: call, chunks.
    chunks = attr(frame, 1)
    for i in range(args(frame)):
      rows, size = arg_dim(frame, i, 0), result_size(frame, i)
      begin, end = size // v * index // chunks * v, size // v * (index + 1) // chunks * v
      call(load(address(fold_slot)), arg(frame, i) + s * begin, size, rows, result(frame, i) + s * begin,
           (end - begin) // v)
    return 0

  return {'sums': sums, 'mix': mix, 'statistics': statistics, 'coefficients': coefficients, 'inner': inner,
          'fold': fold}[name]
