"""The methods that make DARTS robust, against their papers' rules written out anew."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_papers import VALID_XI, XI, first_adam_step, make, same, setup

from vimnas_jax.errors import UserError
from vimnas_jax.methods import sdarts


def projected(rows):
  """Rows as probabilities, one after the other."""
  found = np.clip(rows, 0, 1)
  for row, before in zip(found, rows, strict=True):
    if row.sum() == 0:
      row[before.argmax()] = 1
    row /= row.sum()
  return found


def test_the_attack_of_sdarts_is_seven_projected_steps(x64):
  """Equal to a loop, within the ball, at a loss that is not lower; theta then descends there."""
  made, step, now, batch, loss, config = setup('sdarts_adv')
  now = now.replace(step=jnp.int32(4))  # e = 0.03 + 0.27 * 4 / 9
  key, width = jax.random.key(3), 0.15
  train_key, valid_key = (jax.random.split(key, 4)[i] for i in (XI, VALID_XI))
  g_phi = jax.grad(loss, 1)(now.theta, now.phi['params'], 'valid_', valid_key)
  params = first_adam_step(now.phi['params'], g_phi, config)
  clean = np.asarray(jax.nn.softmax(params['cell']))

  def at(theta, rows):
    return loss(theta, {}, '', train_key, lambda phi, key, clock: ({'cell': rows[None]}, {}))

  value, slope = jax.jit(at), jax.jit(jax.grad(at, 1))
  drawn = jax.random.uniform(jax.random.fold_in(train_key, 0), (6, 5), minval=-width, maxval=width)
  rows = start = projected(clean + np.asarray(drawn))
  for _ in range(7):
    rows = rows + 2 * width / 7 * np.sign(slope(now.theta, rows))
    far = np.minimum(np.maximum(rows - clean, -width), width)
    rows = projected(clean + far)
    assert (np.abs(far) <= width + 1e-12).all() and np.abs(far).max() > 0.9 * width
  assert value(now.theta, rows) > value(now.theta, clean) and value(now.theta, rows) > value(now.theta, start)
  g_theta = jax.grad(at)(now.theta, jnp.array(rows))
  after, metrics = step(now, batch, key)
  assert float(metrics['epsilon']) == pytest.approx(width)
  assert float(metrics['loss']) == pytest.approx(float(value(now.theta, rows)), rel=1e-7)
  assert float(metrics['grad_theta']) == pytest.approx(float(optax.tree.norm(g_theta)), rel=1e-6)
  same(after.phi['params'], params, rtol=1e-6)


def test_an_attack_that_lowers_the_loss_is_taken_back(x64):
  p = {'cell': jnp.array([[[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]])}

  def loss(rows):
    return (rows['cell'] * jnp.array([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])).sum()

  @jax.jit
  def found(sign):  # -1: with a gradient that points the wrong way
    return sdarts.attacked(lambda rows: (loss(rows), jax.tree.map(lambda g: sign * g, jax.grad(loss)(rows))), p, p,
                           jnp.array(0.1), 7)

  assert loss(found(1.0)) > loss(p) + 0.1
  np.testing.assert_array_equal(found(-1.0)['cell'], p['cell'])


@pytest.mark.parametrize('name, fields, told', [('sdarts_adv', {'attack': -1}, 'attack=-1')])
def test_bad_fields_of_the_robust_are_told(name, fields, told):
  with pytest.raises(UserError, match=told):
    make(name, **fields)

