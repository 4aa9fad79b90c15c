"""The loops of Winograd's convolution F(4 x 4, 3 x 3), over rows of tiles and one vector of V channels.

A 3x3 convolution of a tile of 6x6 pixels gives 4x4 of them: out = A' [(G k G') * (B' x B)] A, the product in the middle
taken point by point (Lavin and Gray, CVPR 2016; interpolated at 0, 1, -1, 2, -2 and infinity). It takes 36
multiplications where the sum over taps takes 144. All points of all tiles lie as [36, tiles, channels], so that the sum
over channels is a matrix product at each point. The gradient is the same thing turned round: of the image
B [W k'] B', of the kernel G' [V' W] G, with W = A dy A'. Each function below does one axis.
"""

import functools

from vimnas_jax.cpu.source.emitter import definer

POINTS, OUT = 6, 4  # points of a tile along an axis, and how many pixels come out


def _inputs(e, x):
  """B' x: six pixels to six points."""
  four = functools.partial(_times, e, 4)
  even, odd = e.b.fsub(x[4], four(x[2])), e.b.fsub(x[3], four(x[1]))
  near, twice = e.b.fsub(x[4], x[2]), _times(e, 2, e.b.fsub(x[3], x[1]))
  return [e.fma(x[0], e.fill(4), e.fma(x[2], e.fill(-5), x[4])), e.b.fadd(even, odd), e.b.fsub(even, odd),
          e.b.fadd(near, twice), e.b.fsub(near, twice), e.fma(x[1], e.fill(4), e.fma(x[3], e.fill(-5), x[5]))]


def _inputs_back(e, v):
  """B v: gradients of six points to those of six pixels."""
  p, q, r, s = e.b.fadd(v[1], v[2]), e.b.fsub(v[1], v[2]), e.b.fadd(v[3], v[4]), e.b.fsub(v[3], v[4])
  twice, plus = _times(e, 2, s), e.fma(p, e.fill(4), r)
  return [_times(e, 4, v[0]), e.fma(e.b.fsub(v[5], q), e.fill(4), e.b.fneg(twice)),
          e.fma(v[0], e.fill(-5), e.b.fneg(plus)), e.b.fadd(e.fma(v[5], e.fill(-5), q), twice),
          e.b.fadd(e.b.fadd(v[0], p), r), v[5]]


def _outputs(e, m):
  """A' m: six points to four pixels."""
  s, t, u, v = e.b.fadd(m[1], m[2]), e.b.fsub(m[1], m[2]), e.b.fadd(m[3], m[4]), e.b.fsub(m[3], m[4])
  return [e.b.fadd(e.b.fadd(m[0], s), u), e.fma(v, e.fill(2), t), e.fma(u, e.fill(4), s),
          e.b.fadd(e.fma(v, e.fill(8), t), m[5])]


def _outputs_back(e, y):
  """A y: gradients of four pixels to those of six points."""
  even, odd = e.b.fadd(y[0], y[2]), e.b.fadd(y[1], y[3])
  wide, far = e.fma(y[2], e.fill(4), y[0]), e.fma(y[3], e.fill(8), _times(e, 2, y[1]))
  return [y[0], e.b.fadd(even, odd), e.b.fsub(even, odd), e.b.fadd(wide, far), e.b.fsub(wide, far), y[3]]


def _kernel_back(e, u):
  """G' u: gradients of six points to those of three taps."""
  p, q, r, s = e.b.fadd(u[1], u[2]), e.b.fsub(u[2], u[1]), e.b.fadd(u[3], u[4]), e.b.fsub(u[3], u[4])
  return [e.fma(u[0], e.fill(1 / 4), e.fma(p, e.fill(-1 / 6), _times(e, 1 / 24, r))),
          e.fma(q, e.fill(1 / 6), _times(e, 1 / 12, s)),
          e.b.fadd(e.fma(p, e.fill(-1 / 6), _times(e, 1 / 6, r)), u[5])]


def _kernel(e, k):
  """G k: three taps to six points."""
  outer, wide = e.b.fadd(k[0], k[2]), e.fma(k[2], e.fill(4), k[0])
  twice = _times(e, 1 / 12, k[1])
  near, middle, far = _times(e, -1 / 6, outer), _times(e, -1 / 6, k[1]), _times(e, 1 / 24, wide)
  return [_times(e, 1 / 4, k[0]), e.b.fadd(near, middle), e.b.fsub(near, middle), e.b.fadd(far, twice),
          e.b.fsub(far, twice), k[2]]


def _times(e, factor, x):
  return e.b.fmul(x, e.fill(factor))


def _both(along, e, grid):
  """`along` applied to the columns of a grid of vectors (a list of rows) and then to its rows."""
  columns = [along(e, [row[j] for row in grid]) for j in range(len(grid[0]))]
  return [along(e, [column[i] for column in columns]) for i in range(len(columns[0]))]


@functools.cache
def loops(vector, dtype):
  """The loops by name: {name: (intrinsic, how many arguments)}. Strides count elements; `points` leads to the next."""
  emitted, define = definer(vector, dtype)

  def grid(e, base, row, pixel, side):
    rows = [e.at(base, (e.const(i), row)) for i in range(side)]
    return [[e.at(start, (e.const(j), pixel)) for j in range(side)] for start in rows]

  def places(e, base, points):
    return [[e.at(base, (e.const(POINTS * i + j), points)) for j in range(POINTS)] for i in range(POINTS)]

  def read(e, addresses):
    return [[e.load(address) for address in row] for row in addresses]

  def write(e, values, addresses):
    for row, row_of in zip(values, addresses):
      for value, address in zip(row, row_of):
        e.store(value, address)

  @define(8)
  def tiles_in(e, x, x_row, x_pixel, across, vectors, v, v_tile, v_points):
    # the points of a row of tiles, from the padded image
    with e.loop(across) as i, e.loop(vectors) as k:
      shift = e.b.mul(k, e.const(e.vector))
      tile = e.at(x, (e.b.mul(i, e.const(OUT)), x_pixel), shift)
      write(e, _both(_inputs, e, read(e, grid(e, tile, x_row, x_pixel, POINTS))),
            places(e, e.at(v, (i, v_tile), shift), v_points))

  @define(8)
  def tiles_out(e, m, m_tile, m_points, across, vectors, y, y_row, y_pixel):
    # the pixels of a row of tiles
    with e.loop(across) as i, e.loop(vectors) as k:
      shift = e.b.mul(k, e.const(e.vector))
      tile = e.at(y, (e.b.mul(i, e.const(OUT)), y_pixel), shift)
      write(e, _both(_outputs, e, read(e, places(e, e.at(m, (i, m_tile), shift), m_points))),
            grid(e, tile, y_row, y_pixel, OUT))

  @define(14)
  def tiles_gradient(e, g, g_pixel, a, a_pixel, mean, p, q, r, width, across, vectors, w, w_tile, w_points):
    # the points' gradients of a row of tiles, from dy = p * g + q * (a - mean) + r; `width` pixels a row
    with e.loop(across) as i, e.loop(vectors) as k:
      shift = e.b.mul(k, e.const(e.vector))
      center, of_g, of_a, of_1 = (e.load(e.at(each, shift)) for each in (mean, p, q, r))
      first = e.b.mul(e.const(OUT), i)
      values = [[e.fma(e.load(e.at(g, (pixel, g_pixel), shift)), of_g,
                       e.fma(e.b.fsub(e.load(e.at(a, (pixel, a_pixel), shift)), center), of_a, of_1))
                 for pixel in (e.b.add(e.b.add(first, e.b.mul(e.const(y), width)), e.const(x)) for x in range(OUT))]
                for y in range(OUT)]
      write(e, _both(_outputs_back, e, values), places(e, e.at(w, (i, w_tile), shift), w_points))

  @define(8)
  def tiles_known(e, y, y_row, y_pixel, across, vectors, w, w_tile, w_points):
    # the same from dy itself
    with e.loop(across) as i, e.loop(vectors) as k:
      shift = e.b.mul(k, e.const(e.vector))
      tile = e.at(y, (e.b.mul(i, e.const(OUT)), y_pixel), shift)
      write(e, _both(_outputs_back, e, read(e, grid(e, tile, y_row, y_pixel, OUT))),
            places(e, e.at(w, (i, w_tile), shift), w_points))

  @define(8)
  def tiles_back(e, v, v_tile, v_points, across, vectors, x, x_row, x_pixel):
    # adds to the padded image's gradient what comes from a row of tiles, which overlap
    with e.loop(across) as i, e.loop(vectors) as k:
      shift = e.b.mul(k, e.const(e.vector))
      addresses = grid(e, e.at(x, (e.b.mul(i, e.const(OUT)), x_pixel), shift), x_row, x_pixel, POINTS)
      values = _both(_inputs_back, e, read(e, places(e, e.at(v, (i, v_tile), shift), v_points)))
      write(e, [[e.b.fadd(e.load(address), value) for address, value in zip(*row)] for row in zip(addresses, values)],
            addresses)

  @define(5)
  def taps_in(e, k, taps, vectors, u, points):
    # the points of a kernel's vectors side by side
    with e.loop(vectors) as i:
      shift = e.b.mul(i, e.const(e.vector))
      grid = [[e.load(e.at(k, (e.const(3 * y + x), taps), shift)) for x in range(3)] for y in range(3)]
      write(e, _both(_kernel, e, grid), places(e, e.at(u, shift), points))

  @define(5)
  def taps_back(e, u, points, count, k, taps):
    # the kernel's gradient of `count` vectors side by side, from those of its points; `taps` leads from tap to tap
    with e.loop(count) as i:
      shift = e.b.mul(i, e.const(e.vector))
      grid = _both(_kernel_back, e, read(e, places(e, e.at(u, shift), points)))
      for tap, value in enumerate(value for row in grid for value in row):
        e.store(value, e.at(k, (e.const(tap), taps), shift))

  @define(2)
  def fetch_read(e, start, count):
    # brings `count` cache lines nearer
    with e.loop(count) as i:
      e.fetch(e.b.add(start, e.b.mul(i, e.const(64))))

  @define(2)
  def fetch_write(e, start, count):
    # the same, to be written
    with e.loop(count) as i:
      e.fetch(e.b.add(start, e.b.mul(i, e.const(64))), write=1)

  @define(8)
  def let_through(e, g, g_row, x, pixel, h, w, y, y_row):
    # y = g where x > 0, and g is 0 again; pixels of all three lie `pixel` apart, rows of x and y `y_row`
    with e.loop(h) as i:
      g_i, x_i, y_i = e.at(g, (i, g_row)), e.at(x, (i, y_row)), e.at(y, (i, y_row))
      with e.loop(w) as j:
        through = e.b.fcmp_ordered('>', e.load(e.at(x_i, (j, pixel))), e.fill(0))
        source = e.at(g_i, (j, pixel))
        e.store(e.b.select(through, e.load(source), e.fill(0)), e.at(y_i, (j, pixel)))
        e.store(e.fill(0), source)

  return emitted
