import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from vimnas_jax import cpu
from vimnas_jax.methods import updates
from vimnas_jax.networks import leaves
from vimnas_jax.runs import optim

SHAPES = {'stack': (5, 3, 3, 4), 'matrix': (7, 6), 'bias': (10,), 'number': (1,), 'wide': (3, 64, 40)}
needs_kernels = pytest.mark.skipif(not cpu.available(), reason='the kernels are switched off')


def tree(seed, dtype, scale=1.0):
  rng = np.random.default_rng(seed)
  return {name: jnp.asarray(scale * rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


@pytest.fixture
def wide():
  with jax.enable_x64(True):
    yield


@needs_kernels
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_parts_of_many_arrays_and_their_gradients_are_those_of_split(wide, dtype):
  arrays, counts = list(tree(0, dtype).values())[:3], [(2, 0, 3), (7,), (1, 4, 5)]
  factors = [[jnp.full(count, i + 1.0) for i, count in enumerate(own)] for own in counts]

  def parts(fast):
    def total(arrays):
      found = leaves.split(arrays, counts, fast)
      return sum((jnp.sum(jnp.square(part).reshape(len(part), -1).sum(1) * f) if part.size else 0.0)
                 for own, scale in zip(found, factors) for part, f in zip(own, scale)), found
    return jax.jit(jax.value_and_grad(total, has_aux=True))

  text = parts(True).lower(arrays).as_text()
  assert text.count('@vimnas_jax_pour(') == 2  # there and back
  (_, found), gradient = parts(True)(arrays)
  (_, want), expected = parts(False)(arrays)
  jax.tree.map(np.testing.assert_array_equal, (found, gradient), (want, expected))
  assert all(a.dtype == dtype for a in gradient)


@needs_kernels
def test_numbers_are_laid_out_in_order_alone_and_in_batches():
  arrays, shapes = [jnp.arange(24.0).reshape(2, 12), jnp.arange(24.0, 30.0)], [(5,), (0, 3), (), (4, 3, 2)]
  whole, at = np.arange(30.0, dtype=np.float32), [0, 5, 5, 6, 30]
  expected = [whole[begin:end].reshape(shape) for begin, end, shape in zip(at, at[1:], shapes)]
  for got in (leaves.laid_out(arrays, shapes), jax.jit(lambda arrays: leaves.laid_out(arrays, shapes))(arrays),
              jax.vmap(lambda first: leaves.laid_out([first, arrays[1]], shapes))(arrays[0][None])):
    for part, own in zip(got, expected, strict=True):
      np.testing.assert_array_equal(np.reshape(part, own.shape), own)


@needs_kernels
def test_zeros_are_of_every_shape():
  for own in (tree(0, jnp.float32), tree(0, jnp.float16)):
    zeros = leaves.zeros_like(own)
    jax.tree.map(lambda zero, x: np.testing.assert_array_equal(zero, np.zeros_like(x), strict=True), zeros, own)


@needs_kernels
def test_a_norm_is_that_of_optax_alone_and_in_batches(wide):
  for dtype, tolerance in (('float32', 1e-6), ('float64', 1e-14)):
    several = jax.tree.map(lambda *rows: jnp.stack(rows), tree(1, dtype), tree(2, dtype, 3.0))
    assert leaves.norm(tree(1, dtype)).dtype == dtype
    np.testing.assert_allclose(leaves.norm(tree(1, dtype)), optax.tree.norm(tree(1, dtype)), rtol=tolerance)
    np.testing.assert_allclose(jax.vmap(leaves.norm)(several), jax.vmap(optax.tree.norm)(several), rtol=tolerance)
  assert leaves.norm({}) == 0 and leaves.norm({'half': jnp.ones(4, jnp.bfloat16)}) == 2


@needs_kernels
@pytest.mark.parametrize('nesterov', [False, True])
@pytest.mark.parametrize('clip, decay', [(0.0, 0.0), (5.0, 3e-4), (1000.0, 0.1)])
@pytest.mark.parametrize('dtype, tolerance', [('float32', 2e-6), ('float64', 1e-14)])
def test_steps_of_theta_are_those_of_optax(wide, dtype, tolerance, nesterov, clip, decay):
  """With gradients beyond the largest norm and within it; state and all, and for several at once."""
  config = ConfigDict({'lr': 0.1, 'lr_end': 0.01, 'schedule': 'cosine', 'warmup': 0, 'momentum': 0.9,
                       'nesterov': nesterov, 'clip': clip, 'weight_decay': decay})
  tx = optim.theta(config, 4)
  params = want = tree(3, dtype)
  state = expected = tx.init(params)
  moved = jax.jit(lambda *args: updates.moved(tx, *args))
  assert '@vimnas_jax_descend(' in moved.lower(params, params, state).as_text()
  for i in range(3):
    grads, before = tree(4 + i, dtype, 10.0 ** (i - 1)), jax.device_get((params, state))
    given, (params, state) = (params, state), moved(grads, params, state)
    jax.tree.map(np.testing.assert_array_equal, given, before)  # what was not donated is not written over
    changes, expected = tx.update(grads, expected, want)
    want = optax.apply_updates(want, changes)
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), (params, state),
               (want, expected))
  pair = jax.tree.map(lambda a, b: jnp.stack([a, b]), (grads, params, state), (tree(9, dtype), want, expected))
  both = jax.vmap(lambda *args: updates.moved(tx, *args))(*pair)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=tolerance, atol=tolerance), both,
               moved(grads, params, state))


@needs_kernels
def test_one_gradient_that_is_no_number_is_in_every_array():
  config = ConfigDict({'lr': 0.1, 'lr_end': 0.01, 'schedule': 'cosine', 'warmup': 0, 'momentum': 0.9,
                       'nesterov': False, 'clip': 5.0, 'weight_decay': 0.0})
  tx, params = optim.theta(config, 4), tree(0, 'float32')
  moved, _ = updates.moved(tx, {**params, 'bias': params['bias'].at[0].set(jnp.nan)}, params, tx.init(params))
  assert all(jnp.isnan(a).all() for a in moved.values())


def test_what_kernels_do_not_take_goes_by_optax():
  """Halves, momentum 0, and steps that are to have a gradient."""
  config = ConfigDict({'lr': 0.5, 'lr_end': 0.5, 'schedule': 'cosine', 'warmup': 0, 'momentum': 0.9, 'nesterov': False,
                       'clip': 0.0, 'weight_decay': 0.0})
  tx, half = optim.theta(config, 4), {'w': jnp.ones(4, jnp.bfloat16)}
  params, _ = updates.moved(tx, half, half, tx.init(half))
  np.testing.assert_array_equal(params['w'], 0.5)
  assert not hasattr(optim.theta(ConfigDict({**config, 'momentum': 0.0}), 4), 'move')
  unrolled, full = optim.theta(config, 4, clip=False), {'w': jnp.ones(4)}
  pulled = jax.grad(lambda g: updates.moved(unrolled, g, full, unrolled.init(full))[0]['w'].sum())(full)
  np.testing.assert_array_equal(pulled['w'], -0.5)
  ahead = optim.theta(ConfigDict({**config, 'nesterov': True}), 4, clip=False)  # by its authors plain momentum
  np.testing.assert_array_equal(updates.moved(ahead, full, full, ahead.init(full))[0]['w'],
                                updates.moved(unrolled, full, full, unrolled.init(full))[0]['w'])
