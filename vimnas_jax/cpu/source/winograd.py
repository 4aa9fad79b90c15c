"""The chunks of a 3x3 convolution, after a ReLU or not, by Winograd's tiles (cpu/winograd.py, tiles.py), both ways."""

import numpy as np

from vimnas_jax.cpu.source.frame import (
  address,
  arg,
  arg_dim,
  args,
  attr,
  call,
  clear,
  free,
  function,
  lines,
  load,
  result,
  result_dim,
  room,
  zeros,
)
from vimnas_jax.cpu.source.loops import matrix_product, panel_width
from vimnas_jax.cpu.source.tiles import OUT, POINTS
from vimnas_jax.cpu.table import slot

ALL = POINTS * POINTS
TILES = 16  # at least, of one product where an image or those of a chunk have as many
APART = 16  # elements between the tiles of one point and the next: addresses that many kilobytes apart evict each other


def chunk(name: str, vector: int, dtype: str):
  """The chunk `name` for one vector length and type. Attributes by alphabet: call, chunks, relu (0: there is none
  in front), which winograd_points lacks; backward also gated and whole, of which 0 leaves the kernel's gradient out.

  Kernels come as points, [36, panels, channels in, width of a panel] (cpu/winograd.py).
  """
  v, s = vector, np.dtype(dtype).itemsize
  multiply, multiply_add = (matrix_product(vector, dtype, how) for how in ('set', 'add'))
  wide = panel_width(vector)
  activate_slot, moments_slot = slot('activate', vector, dtype), slot('moments', vector, dtype)
  in_slot, out_slot = slot('tiles_in', vector, dtype), slot('tiles_out', vector, dtype)
  gradient_slot, back_slot = slot('tiles_gradient', vector, dtype), slot('tiles_back', vector, dtype)
  taps_in_slot, taps_slot = slot('taps_in', vector, dtype), slot('taps_back', vector, dtype)
  through_slot, spread_slot = slot('let_through', vector, dtype), slot('spread', vector, dtype)
  normalise_slot, known_slot = slot('normalise_gradient', vector, dtype), slot('tiles_known', vector, dtype)
  gated_slot = slot('gated_gradient', vector, dtype)
  read_slot, write_slot = slot('fetch_read', vector, dtype), slot('fetch_write', vector, dtype)

  @function(1)
  def tiled(side):
    # how many tiles cover a side; the last may stand out
    return (side + OUT - 1) // OUT

  @function(13, 'void')
  def points_of(x, none, one, relu, images, first, rows, h, w, c, xp, to, step):
    # the points [36, step] of `rows` rows of tiles of so many images from row `first` on; xp is scratch, 0 around
    activate, spread, tiles = load(address(activate_slot)), load(address(spread_slot)), load(address(in_slot))
    across, down = tiled(w), tiled(h)
    row = (OUT * across + 2) * c
    for image in range(images):
      here, padded = x + s * image * h * w * c, xp + s * image * (OUT * down + 2) * row
      if first == 0:
        for b in range(0, c, v):
          inside = padded + s * (row + c + b)
          if relu:
            call(activate, here + s * b, w * c, c, none + s * b, one + s * b, h, w, inside, row, c)
          else:
            call(spread, here + s * b, w * c, c, h, w, inside, row, c)
      for i in range(rows):
        call(tiles, padded + s * OUT * (first + i) * row, row, c, across, c // v,
             to + s * (image * rows + i) * across * c, c, step)

  @function(3, 'UniTuple(int64, 2)')
  def in_turn(images, h, w):
    # (images, rows of tiles) that are worked on together
    across, down = tiled(w), tiled(h)
    if across * down >= TILES:
      return 1, min(down, max(1, TILES // across))
    return min(images, max(1, TILES // (across * down))), down

  def forward(frame, index):
    # arguments: x [n, h, w, c], kernel, zeros [c], ones [c]; results: a [n, h, w, d], moments [n, 2, d]
    x, kernel, none, one = arg(frame, 0), arg(frame, 1), arg(frame, 2), arg(frame, 3)
    n, h, w, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    d, panels, panel = result_dim(frame, 0, 3), arg_dim(frame, 1, 1), arg_dim(frame, 1, 3)
    chunks, relu, spread = attr(frame, 1), attr(frame, 2), load(address(spread_slot))
    moments, out, fetch = load(address(moments_slot)), load(address(out_slot)), load(address(write_slot))
    begin, end = n * index // chunks, n * (index + 1) // chunks
    group, rows = in_turn(end - begin, h, w)
    across, down = tiled(w), tiled(h)
    tiles, outstanding, wider = group * rows * across, h % OUT + w % OUT > 0, OUT * across
    v_points, m_points = tiles * c + APART, tiles * panel + APART
    padded, points = lines(s * group * (OUT * down + 2) * (wider + 2) * c), lines(s * ALL * v_points)
    products, band = lines(s * ALL * m_points), s * OUT * wider * panel
    memory, more = zeros(padded + 64), room(points + products + band + 64)
    xp, vs = lines(memory), lines(more)
    ms = vs + points
    pixels = ms + products  # of a row of tiles that stands out
    for image in range(begin, end, group):
      images = min(group, end - image)
      to = result(frame, 0) + s * image * h * w * d
      for first in range(0, down, rows):
        here = min(rows, down - first)
        points_of(x + s * image * h * w * c, none, one, relu, images, first, here, h, w, c, xp, vs, v_points)
        slab = s * images * (h if images > 1 else OUT * here) * w * d  # of the result, that is written then
        share = slab // (64 * ALL * panels) + 1
        for p in range(panels):
          for point in range(ALL):
            call(fetch, to + s * OUT * first * w * d + 64 * share * (p * ALL + point), share)
            multiply(vs + s * point * v_points, c, 1, kernel + s * (point * panels + p) * c * panel, panel, 0,
                     ms + s * point * m_points, panel, c, images * here * across, panel)
          for i in range(images):
            for j in range(here):
              source, place = ms + s * (i * here + j) * across * panel, i * h + OUT * (first + j)
              if not outstanding:
                call(out, source, panel, m_points, across, panel // v, to + s * (place * w * d + p * panel), w * d, d)
                continue
              call(out, source, panel, m_points, across, panel // v, pixels, wider * panel, panel)
              for b in range(0, panel, v):
                call(spread, pixels + s * b, wider * panel, panel, min(OUT, h - OUT * (first + j)), w,
                     to + s * (place * w * d + p * panel + b), w * d, d)
      for i in range(images):
        for b in range(0, d, v):
          call(moments, to + s * (i * h * w * d + b), d, h * w, result(frame, 1) + s * (2 * (image + i) * d + b), d)
    free(memory)
    free(more)
    return 0

  def backward(frame, index):
    # arguments: x, points of the kernel [36, panels, d, width], zeros, ones, a [n, h, w, m * c'], center, p, q, r, by,
    # plus, m maps g [n, h, w, c']; results: dx and, if whole, dk [chunks, 9, c, d]
    x, kernel, none, one = arg(frame, 0), arg(frame, 1), arg(frame, 2), arg(frame, 3)
    a, center, p, q, r = arg(frame, 4), arg(frame, 5), arg(frame, 6), arg(frame, 7), arg(frame, 8)
    by, plus, samples, maps = arg(frame, 9), arg(frame, 10), arg_dim(frame, 6, 0), args(frame) - 11
    n, h, w, c = arg_dim(frame, 0, 0), arg_dim(frame, 0, 1), arg_dim(frame, 0, 2), arg_dim(frame, 0, 3)
    d, panels, panel, chunks = arg_dim(frame, 4, 3), arg_dim(frame, 1, 1), arg_dim(frame, 1, 3), attr(frame, 1)
    gated, relu, whole = attr(frame, 2), attr(frame, 3), attr(frame, 4)
    gradient, back = load(address(gradient_slot)), load(address(back_slot))
    taps, through, fetch = load(address(taps_slot)), load(address(through_slot)), load(address(read_slot))
    normalise, gate, known = load(address(normalise_slot)), load(address(gated_slot)), load(address(known_slot))
    spread = load(address(spread_slot))
    begin, end = n * index // chunks, n * (index + 1) // chunks
    group, rows = in_turn(end - begin, h, w)
    own, across, down = d // maps, tiled(w), tiled(h)
    tiles, outstanding, wider = group * rows * across, h % OUT + w % OUT > 0, OUT * across
    row, tall = (wider + 2) * c, OUT * down + 2
    v_points, w_points = tiles * c + APART, tiles * own + APART
    padded, points, outer = (lines(s * group * tall * row), lines(s * ALL * v_points), lines(s * ALL * w_points))
    u_points, band = c * d + APART, s * OUT * wider * own
    sums = lines(s * ALL * u_points)
    memory, more = zeros(2 * padded + 64), room(2 * points + outer + sums + band + 64)
    xp, vs = lines(memory), lines(more)
    xg = xp + padded
    vg = vs + points
    ws = vg + points
    us = ws + outer
    dy = us + sums  # of a row of tiles that stands out
    for image in range(begin, end, group):
      images = min(group, end - image)
      for first in range(0, down, rows):
        here = min(rows, down - first)
        if whole:
          points_of(x + s * image * h * w * c, none, one, relu, images, first, here, h, w, c, xp, vs, v_points)
        for e in range(maps):
          for i in range(images):
            sample = (image + i) * samples // n
            ch = e * own
            for j in range(here):
              start = ((image + i) * h + OUT * (first + j)) * w
              of_g, of_a = arg(frame, 11 + e) + s * start * own, a + s * (start * d + ch)
              of_p, to = p + s * (sample * d + ch), ws + s * (i * here + j) * across * own
              if not outstanding and not gated:
                call(gradient, of_g, own, of_a, d, center + s * ch, of_p, q + s * ch, r + s * ch, w, across, own // v,
                     to, own, w_points)
                continue
              if outstanding:
                clear(dy, band)
              tall_here = min(OUT, h - OUT * (first + j))
              for b in range(0, own, v):
                at = s * (ch + b)
                if gated:
                  call(gate, of_g + s * b, own, of_a + s * b, d, center + at, of_p + s * b, q + at, r + at, by + at,
                       plus + at, tall_here, w, dy + s * b, wider * own, own)
                else:
                  call(normalise, of_g + s * b, own, of_a + s * b, d, center + at, of_p + s * b, q + at, r + at,
                       tall_here, w, dy + s * b, wider * own, own)
              call(known, dy, wider * own, own, across, own // v, to, own, w_points)
          slab = images * (h if images > 1 else OUT * here) * w  # pixels; the next one's are brought nearer
          after = image * h * w + OUT * first * w + slab
          some_g, some_a = s * slab * own // (64 * ALL) + 1, s * slab * d // (64 * ALL * maps) + 1
          next_g = (arg(frame, 12 + e) + s * (after - slab) * own if e + 1 < maps else
                    arg(frame, 11) + s * after * own)
          for point in range(ALL):
            call(fetch, next_g + 64 * some_g * point, some_g)
            call(fetch, a + s * after * d + 64 * some_a * (e * ALL + point), some_a)
            v_here, w_here = vs + s * point * v_points, ws + s * point * w_points
            u_here = us + s * (point * u_points + e * own)
            if not whole:
              pass
            elif image == begin and first == 0:
              multiply(v_here, 1, c, w_here, own, wide(own), u_here, d, images * here * across, c, own)
            else:
              multiply_add(v_here, 1, c, w_here, own, wide(own), u_here, d, images * here * across, c, own)
            weights = kernel + s * (point * panels * d + e * own) * panel
            if e == 0:
              multiply(w_here, own, 1, weights, panel, d * panel, vg + s * point * v_points, c, own,
                       images * here * across, c)
            else:
              multiply_add(w_here, own, 1, weights, panel, d * panel, vg + s * point * v_points, c, own,
                           images * here * across, c)
        for i in range(images):
          for j in range(here):
            call(back, vg + s * (i * here + j) * across * c, c, v_points, across, c // v,
                 xg + s * (i * tall + OUT * (first + j)) * row, row, c)
      for i in range(images):
        for b in range(0, c, v):
          inside, at = xg + s * ((i * tall + 1) * row + c + b), s * ((image + i) * h * w * c + b)
          if relu:
            call(through, inside, row, x + at, c, h, w, result(frame, 0) + at, w * c)
          else:
            call(spread, inside, row, c, h, w, result(frame, 0) + at, w * c, c)
      if not relu:
        clear(xg, padded)  # as `through` leaves it
    if whole:
      call(taps, us, u_points, c * d // v, result(frame, 1) + s * index * 9 * c * d, c * d)
    free(memory)
    free(more)
    return 0

  def points(frame, index):
    # argument: kernel [3, 3, c, d]; result: its points [36, panels, c, width of a panel]
    c, d, chunks = arg_dim(frame, 0, 2), arg_dim(frame, 0, 3), attr(frame, 1)
    panel, taps = result_dim(frame, 0, 3), load(address(taps_in_slot))
    for row in range(c * index // chunks, c * (index + 1) // chunks):
      for p in range(d // panel):
        call(taps, arg(frame, 0) + s * (row * d + p * panel), c * d, panel // v,
             result(frame, 0) + s * (p * c + row) * panel, c * d)
    return 0

  return {'winograd_forward': forward, 'winograd_backward': backward, 'winograd_points': points}[name]
