import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vimnas_jax
from vimnas_jax.errors import UserError
from vimnas_jax.runs import parallel

needs_devices = pytest.mark.skipif(jax.device_count() < 4, reason='needs 4 devices')


def loss(theta, weights, key, images, labels):
  """One in which images of a batch see each other, as in BatchNorm, and rows of weights serve groups of it."""
  del key
  normed = (images - images.mean(0, keepdims=True)) / (images.std(0, keepdims=True) + 1e-3)
  out = jnp.repeat(weights['cell'], len(images) // len(weights['cell']), 0) * (normed @ theta)
  return jnp.square(out.sum(1) - labels).mean(), out.mean()


def inputs(samples):
  rng = np.random.default_rng(0)
  return (jnp.array(rng.normal(size=(3, 2))), {'cell': jnp.array(rng.normal(size=(samples, 2)))}, jax.random.key(0),
          jnp.array(rng.normal(size=(16, 3))), jnp.arange(16.0))


@needs_devices
@pytest.mark.parametrize('samples', [1, 4])
def test_each_device_has_its_own_images_and_rows(samples, x64):
  """Loss and gradients are the means of those that the devices have by themselves."""
  theta, weights, key, images, labels = inputs(samples)
  mesh = parallel.mesh(4, 16)

  def run(theta, weights, images):
    with parallel.known(mesh):
      (value, _), grads = jax.value_and_grad(parallel.each_device(loss), (0, 1), has_aux=True)(
          theta, weights, key, images, labels)
    return value, grads

  value, grads = jax.jit(run)(theta, weights, jax.device_put(images, parallel.batch(mesh)))

  def alone(theta, weights):
    rows = [weights['cell'][i:i + 1] if samples == 4 else weights['cell'] for i in range(4)]
    return sum(loss(theta, {'cell': rows[i]}, key, images[4 * i:4 * i + 4], labels[4 * i:4 * i + 4])[0]
               for i in range(4)) / 4

  wanted, theirs = jax.value_and_grad(alone, (0, 1))(theta, weights)
  np.testing.assert_allclose(value, wanted, rtol=1e-9)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), grads, theirs)
  assert abs(float(value) - float(loss(theta, weights, key, images, labels)[0])) > 1e-3  # not what one batch gives


@needs_devices
def test_every_device_has_noise_of_its_own():
  """The loss is the mean of one draw a device."""
  theta, weights, key, images, labels = inputs(1)
  mesh = parallel.mesh(4, 16)

  def noise(theta, weights, key, images, labels):
    return jax.random.normal(key) + 0 * images.mean(), 0 * labels.mean()

  def run(images):
    with parallel.known(mesh):
      return parallel.each_device(noise)(theta, weights, key, images, labels)[0]

  drawn = [float(jax.random.normal(jax.random.fold_in(key, i))) for i in range(4)]
  got = float(jax.jit(run)(jax.device_put(images, parallel.batch(mesh))))
  assert got == pytest.approx(np.mean(drawn), rel=1e-5) and len(set(drawn)) == 4


@needs_devices
def test_rows_that_do_not_go_round_are_refused():
  with parallel.known(parallel.mesh(4, 16)), pytest.raises(UserError, match="config.norm='device': 2 rows"):
    jax.eval_shape(parallel.each_device(loss), *inputs(2))


def test_one_device_is_what_it_was():
  assert parallel.each_device(loss)(*inputs(2)) == loss(*inputs(2))


@needs_devices
def test_every_process_has_a_device(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(UserError, match='config.devices=2: the first 2 are those of 1 of 2 processes'):
    parallel.mesh(2, 16)


@needs_devices
def test_a_process_holds_the_rows_of_its_devices():
  mesh = parallel.mesh(4, 16)
  assert parallel.rows(mesh, 16) == slice(0, 16) and parallel.rows(mesh, 6) == slice(0, 6)
  batch = parallel.fed({'x': np.arange(16)}, mesh, 16)['x']
  assert batch.sharding == parallel.batch(mesh) and (np.asarray(batch) == np.arange(16)).all()


@needs_devices
def test_rows_are_looked_at_before_anything_is_written(tmp_path):
  config = vimnas_jax.configure('quickstart:smoke', norm='device', devices=3, batch_size=48)
  with pytest.raises(UserError, match="config.norm='device': 4 rows of ξ do not go round 3 devices"):
    vimnas_jax.search(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
