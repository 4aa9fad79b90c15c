import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vimnas_jax.cpu import dense, winograd
from vimnas_jax.networks import mixing

pytestmark = pytest.mark.skipif(mixing.kernels() is None, reason='the kernels are switched off')


def inputs(n, h, w, c, maps, samples, dtype):
  """(x, kernel, g, a, (center, p, q, r)) as dense.backward takes them."""
  rng, d = np.random.default_rng(0), maps * c

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), dtype)

  return (draw(n, h, w, c), draw(3, 3, c, d) / (9 * c) ** 0.5, [draw(n, h, w, c) for _ in range(maps)],
          draw(n, h, w, d), (draw(d), draw(samples, d), draw(d), draw(d)))


def plain(x, kernel, stride=1, relu=True):
  pad = len(kernel) // 2
  return jax.lax.conv_general_dilated(jax.nn.relu(x) if relu else x, kernel, (stride,) * 2, [(pad, pad)] * 2,
                                      precision='highest', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def wanted(x, kernel, g, a, coefficients, *form):
  """What forward and backward should give."""
  center, p, q, r = coefficients
  y, back = jax.vjp(lambda x, kernel: plain(x, kernel, *form), x, kernel)
  mean = y.mean((1, 2))
  moments = jnp.stack([mean, jnp.square(y - mean[:, None, None]).sum((1, 2))], 1)
  scale = jnp.repeat(p, len(x) // len(p), 0)[:, None, None]
  inner = (a - center[None, None, None]) * q[None, None, None] + r[None, None, None]
  return y, moments, *back(scale * jnp.concatenate(g, -1) + inner)


CASES = [(17, 8, 12, 8, 3, 1),  # more images than parts, several of them in a product
         (64, 4, 4, 12, 1, 4),  # one tile an image; groups with weights of their own; panels of another width
         (3, 32, 16, 8, 2, 1),  # several products an image
         (2, 20, 28, 16, 1, 2),  # rows of tiles that do not fill a product
         (17, 9, 9, 8, 2, 1), (4, 17, 18, 12, 1, 2), (2, 31, 23, 8, 3, 1)]  # tiles that stand out


@pytest.mark.parametrize('n, h, w, c, maps, samples', CASES)
@pytest.mark.parametrize('dtype, tolerance', [('float64', 1e-12), ('float32', 2e-5)])
def test_tiles_give_the_sum_over_taps_there_and_back(request, n, h, w, c, maps, samples, dtype, tolerance):
  if dtype == 'float64':
    request.getfixturevalue('x64')
  x, kernel, g, a, coefficients = inputs(n, h, w, c, maps, samples, dtype)
  assert winograd.fits(x, kernel, 1)
  got = *dense.forward(x, kernel), *dense.backward(x, kernel, g, a, *coefficients)
  for mine, want in zip(got, wanted(x, kernel, g, a, coefficients), strict=True):
    assert mine.dtype == want.dtype == dtype
    np.testing.assert_allclose(mine, want, rtol=0, atol=tolerance * float(jnp.abs(want).max()))


@pytest.mark.parametrize('n, h, w, size, stride', [
    (17, 8, 12, 3, 1), (33, 17, 17, 3, 1), (17, 9, 9, 3, 1),  # by tiles: several images in turn, tiles that stand out
    (17, 5, 4, 3, 1), (17, 5, 4, 3, 2), (17, 5, 4, 1, 1), (17, 5, 4, 1, 2)])
def test_without_a_relu_in_front_all_of_x_counts(n, h, w, size, stride):
  x, _, _, _, coefficients = inputs(n, h, w, 8, 1, 1, 'float32')
  assert winograd.fits(x, np.ones((size, size, 8, 8)), stride) == (h > 5)
  kernel = jax.random.normal(jax.random.key(size), (size, size, 8, 8)) / size / 3
  x = x.at[:, 1].set(0)  # where its gradient is none the less what the convolution gives
  g, a = (jax.random.normal(jax.random.key(i), plain(x, kernel, stride).shape) for i in range(2))
  got = *dense.forward(x, kernel, stride, False), *dense.backward(x, kernel, [g], a, *coefficients, stride, False)
  for mine, want in zip(got, wanted(x, kernel, [g], a, coefficients, stride, False), strict=True):
    np.testing.assert_allclose(mine, want, rtol=0, atol=2e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize('shape, kernel, stride', [
    ((16, 8, 8, 8), (1, 1, 8, 8), 1), ((16, 8, 8, 8), (3, 3, 8, 8), 2), ((256, 2, 2, 8), (3, 3, 8, 8), 1),
    ((64, 1, 16, 8), (3, 3, 8, 8), 1), ((16, 8, 8, 4), (3, 3, 4, 12), 1), ((15, 8, 8, 8), (3, 3, 8, 8), 1)])
def test_other_convolutions_are_left_to_the_sum_over_taps(shape, kernel, stride):
  assert not winograd.fits(np.ones(shape, np.float32), np.ones(kernel, np.float32), stride)


def test_an_image_has_the_same_bits_alone_and_among_others():
  x, kernel, *_ = inputs(3, 32, 32, 8, 2, 1, 'float32')
  together = dense.forward(x, kernel)[0]
  alone = jnp.concatenate([dense.forward(x[i:i + 1], kernel)[0] for i in range(len(x))])
  np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize('side, size, widths, samples', [(8, 3, (16,), 2), (9, 3, (8,), 1), (5, 3, (8,), 2),
                                                         (4, 1, (8, 8, 24), 2)])
def test_a_gate_is_the_relu_behind(side, size, widths, samples):
  """By whole tiles, by some that stand out, by taps, and with maps of several widths side by side."""
  rng, d = np.random.default_rng(0), sum(widths)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  x, kernel, a = draw(16, side, side, 8), draw(size, size, 8, d) / 9, draw(16, side, side, d)
  g, by, plus = [draw(16, side, side, width) for width in widths], draw(d), draw(d)
  coefficients = draw(d), draw(samples, d), draw(d), draw(d)
  through, first = a * by[None, None, None] + plus[None, None, None] > 0, np.cumsum((0, *widths))
  gated = [jnp.where(through[..., start:start + width], each, 0) for each, start, width in zip(g, first, widths)]
  got = dense.backward(x, kernel, g, a, *coefficients, gate=(by, plus))
  want = dense.backward(x, kernel, gated, a, *coefficients)
  for mine, other in zip(got, want, strict=True):
    np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6 * float(jnp.abs(other).max()))
  assert any(float(jnp.abs(mine - other).max()) > 0.1 for mine, other in zip(
      got, dense.backward(x, kernel, g, a, *coefficients)))
