"""The CPU's kernels of a whole cell of the one-shot network against the same in plain operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SLOW

from vimnas_jax import cpu, spaces
from vimnas_jax.networks import ops
from vimnas_jax.networks.mixing import Mixture
from vimnas_jax.networks.oneshot import Cell
from vimnas_jax.spaces import Stage

pytestmark = pytest.mark.skipif(not cpu.available(), reason='the kernels are switched off')

IMAGES, WIDTH, ORDER = 16, 8, (None, 1, 0)


def inputs(side, form):
  """What `oneshot.mixed` takes behind `how`: two blocks, of which the first reads all as it is.

  `form` is 'above 0', of all weights but one; 'at 0', where the second block reads the first, which is 0 for half of
  the images, and no shift moves it; 'below 0', where all numbers are of either sign.
  """
  rng = np.random.default_rng(side)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape))

  def convolution(size, c, d):
    return draw(size, size, c, d) / size / c ** 0.5, draw(d), draw(d)

  sign = (lambda a: a) if form == 'below 0' else jnp.abs
  weights, reads, shift = sign(draw(2, 2, 3)).at[0, 1, 2].set(0), sign(draw(1, 2)), sign(draw(2, 2))
  if form == 'at 0':
    weights, reads, shift = weights.at[0, 0].set(0), reads.at[0, 0].set(0), 0 * shift
  rows = None, reads, draw(2, 3)  # what the output reads may be of either sign
  convolutions = tuple((convolution(1, WIDTH, WIDTH), convolution(3, WIDTH, WIDTH)) for _ in range(2))
  x = sign(draw(IMAGES, side, side, 4)).at[:, 1:3].set(0)
  return x, weights, shift, rows, convolution(1, 4, 4 * WIDTH), convolutions


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


@pytest.mark.parametrize('side, form', [  # 3x3 convolutions by whole tiles, and by taps
    (8, 'above 0'), (8, 'at 0'), (5, 'below 0'),
    *(pytest.param(*case, marks=SLOW) for case in ((5, 'above 0'), (5, 'at 0'), (8, 'below 0')))])
def test_a_cell_is_what_plain_operations_make_of_it_there_and_back(x64, side, form):
  kernels, args = cpu.oneshot_kernels(), inputs(side, form)
  probe = jnp.asarray(np.random.default_rng(0).normal(size=(IMAGES, side, side, 2 * WIDTH)))

  def both(f):
    y, back = jax.vjp(f, *args)
    return y, back(probe)

  got = jax.jit(lambda: both(lambda *args: kernels.mixed((ops.BN_EPS, ORDER), *args)))()
  for mine, want in zip(*map(jax.tree.leaves, (got, jax.jit(lambda: both(plain))())), strict=True):
    assert mine.dtype == jnp.float64 and float(jnp.abs(want).max()) > 1e-3
    np.testing.assert_allclose(mine, want, rtol=1e-9, atol=1e-11 * float(jnp.abs(want).max()))


def straight_through(alpha):
  """One operation of every block, drawn, with weight 1 and the gradient of its probability."""
  p = jax.nn.softmax(alpha)
  drawn = jax.nn.one_hot(p.argmax(-1), p.shape[-1])
  return drawn > 0, drawn - jax.lax.stop_gradient(p) + p


def shifted(alpha):
  """As GDAS: what was not drawn is a shift of 0, with a gradient."""
  drawn, p = straight_through(alpha)
  return Mixture(jnp.where(drawn, p, 0), shift=jnp.where(drawn, 0, p - jax.lax.stop_gradient(p)).sum(-1))


def zeros(alpha):
  """What was not drawn has a weight of 0, with a gradient."""
  drawn, p = straight_through(alpha)
  return jnp.where(drawn, p, p - jax.lax.stop_gradient(p))


@pytest.mark.parametrize('mix, width', [  # of a width without kernels the blocks alone have them
    (shifted, 8), (jnp.asarray, 5), *(pytest.param(*case, marks=SLOW) for case in ((zeros, 8), (jnp.asarray, 8)))])
def test_no_weights_make_the_kernels_differ_from_the_plain_form(mix, width):
  """Those of GDAS, zeros with a gradient, and such as they are, of either sign; in float32."""
  space, keys = spaces.get('oneshot1'), jax.random.split(jax.random.key(0), 4)
  own = {'topology': space.topology, 'stage': Stage('cell', WIDTH, cell='cell')}
  phi = {'cell': jax.random.normal(keys[0], (2, *space.cells['cell'].shape))}
  phi |= {name: jnp.full((1, count), 0.5) for name, count in space.choices.items()}
  x = jax.nn.relu(jax.random.normal(keys[1], (IMAGES, 8, 8, width)))

  def weights(phi):
    return {**phi, 'cell': mix(phi['cell'])}

  out, shapes = jax.eval_shape(lambda: Cell(**own, kernels=False).init_with_output(keys[2], (x,), weights(phi)))
  rng = np.random.default_rng(0)
  theta = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape) / 3, p.dtype), shapes['params'])
  probe = jax.random.normal(keys[3], out.shape)

  def form(kernels):
    def total(theta, phi, x):
      y = Cell(**own, kernels=kernels).apply({'params': theta}, (x,), weights(phi))
      return (y * probe).sum(), y
    return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True)).lower(theta, phi, x)

  programs = [form(kernels) for kernels in (True, False)]
  assert ['@vimnas_jax_' in program.as_text() for program in programs] == [True, False]
  ((_, y), got), ((_, plain), want) = (program.compile()(theta, phi, x) for program in programs)
  np.testing.assert_allclose(y, plain, rtol=0, atol=1e-4 * float(jnp.abs(plain).max()))
  for (path, mine), other in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
    assert float(jnp.linalg.norm(mine - other)) <= 2e-3 * float(jnp.linalg.norm(other)), jax.tree_util.keystr(path)
