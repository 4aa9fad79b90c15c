"""The CPU's kernels of a whole cell of the one-shot network against the same in plain operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vimnas_jax import cpu
from vimnas_jax.networks import ops

pytestmark = pytest.mark.skipif(not cpu.available(), reason='the kernels are switched off')

IMAGES, WIDTH, ORDER = 16, 8, (None, 1, 0)


def inputs(side):
  """What `oneshot.mixed` takes behind `how`: two blocks, of which the first reads all as it is."""
  rng = np.random.default_rng(side)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape))

  def convolution(size, c, d):
    return draw(size, size, c, d) / size / c ** 0.5, draw(d), draw(d)

  weights = jnp.abs(draw(2, 2, 3)).at[0, 1, 2].set(0)
  rows = None, jnp.abs(draw(1, 2)), draw(2, 3)  # what the output reads may be of either sign
  convolutions = tuple((convolution(1, WIDTH, WIDTH), convolution(3, WIDTH, WIDTH)) for _ in range(2))
  return (jnp.abs(draw(IMAGES, side, side, 4)), weights, jnp.abs(draw(2, 2)), rows, convolution(1, 4, 4 * WIDTH),
          convolutions)


def each(row):
  """Weights [samples, ...] for every image."""
  return jnp.repeat(row, IMAGES // len(row), 0)


def unit(x, kernel, scale, bias):
  return jax.nn.relu(ops.normalise(ops.conv(x, kernel)) * scale[None, None, None] + bias[None, None, None])


def plain(x, weights, shift, rows, projections, convolutions):
  *own, past = jnp.split(unit(x, *projections), (WIDTH, 2 * WIDTH), 3)
  nodes = []
  for i, kernels in enumerate(convolutions):
    row = each(jnp.ones((1, 1 + i)) if rows[i] is None else rows[i])
    read = sum(row[:, j, None, None, None] * y for j, y in enumerate((own[i], *nodes)))
    found = [ops.max_pool(read) if at is None else unit(read, *kernels[at]) for at in ORDER]
    y = sum(each(weights)[:, i, o, None, None, None] * y for o, y in enumerate(found))
    nodes.append(y + each(shift)[:, i, None, None, None])
  row = each(rows[2])[:, :, None, None, None]
  return row[:, 0] * past + jnp.concatenate([row[:, 1 + i] * y for i, y in enumerate(nodes)], 3)


@pytest.mark.parametrize('side', [8, 5])  # 3x3 convolutions by whole tiles, and by taps
def test_a_cell_is_what_plain_operations_make_of_it_there_and_back(x64, side):
  kernels, args = cpu.oneshot_kernels(), inputs(side)
  probe = jnp.asarray(np.random.default_rng(0).normal(size=(IMAGES, side, side, 2 * WIDTH)))

  def both(f):
    y, back = jax.vjp(f, *args)
    return y, back(probe)

  got = jax.jit(lambda: both(lambda *args: kernels.mixed((ops.BN_EPS, ORDER), *args)))()
  for mine, want in zip(*map(jax.tree.leaves, (got, jax.jit(lambda: both(plain))())), strict=True):
    assert mine.dtype == jnp.float64 and float(jnp.abs(want).max()) > 1e-3
    np.testing.assert_allclose(mine, want, rtol=1e-9, atol=1e-11 * float(jnp.abs(want).max()))
