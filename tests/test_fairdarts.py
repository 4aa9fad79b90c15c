"""FairDARTS: gates that do not compete and go apart, its update in double precision, and what is read off them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_papers import SPACE, first_adam_step, make, same, setup

from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock

KEY = jax.random.key(3)


def test_fairdarts_adds_its_loss_to_that_of_the_gates(x64):
  _, step, now, batch, _, config = setup('fairdarts')
  assert not now.phi['params']['cell'].any()
  alpha = 2 * np.random.default_rng(0).normal(size=(6, 5))
  now = now.replace(phi={**now.phi, 'params': {'cell': jnp.array(alpha)}})

  def entropy(theta, alpha, part):
    gates = (1 / (1 + jnp.exp(-alpha))).at[:, 0].set(0.0)  # of `none` there is none
    told = jnp.tanh(gates.ravel() @ theta['v'])
    logits = jnp.tanh((batch[f'{part}images'] / 255).mean((1, 2)) @ theta['w']) * told[None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[f'{part}labels']).mean()

  gates = 1 / (1 + np.exp(-alpha[:, 1:]))  # L01 is minus the mean of (gate - 1/2)^2 over 24 gates, its weight 10
  slope = np.pad(-10 * 2 * (gates - 0.5) * gates * (1 - gates) / 24, ((0, 0), (1, 0)))
  g_alpha = slope + jax.jit(jax.grad(lambda alpha: entropy(now.theta, alpha, 'valid_')))(alpha)
  after, metrics = step(now, batch, KEY)
  assert float(metrics['grad_phi']) == pytest.approx(float(jnp.linalg.norm(g_alpha)), rel=1e-9)
  params = first_adam_step(alpha, np.asarray(g_alpha), config)
  same(after.phi['params']['cell'], params, rtol=1e-8)
  loss, g_theta = jax.jit(jax.value_and_grad(lambda theta: entropy(theta, params, '')))(now.theta)
  assert float(metrics['grad_theta']) == pytest.approx(float(optax.tree.norm(g_theta)), rel=1e-7)
  assert float(metrics['loss']) == pytest.approx(float(loss), rel=1e-7)
  assert float(metrics['above']) == (1 / (1 + np.exp(-params[:, 1:])) > 0.85).sum()


def spread(made, space, alpha, steps=200):
  """Gates [edges, ops] after `steps` of Adam by the method's loss of its own alone."""
  phi = jax.tree.map(jnp.asarray, made.init(KEY, space))
  tx = optax.adam(0.05)

  @jax.jit
  def run(params):
    def step(at, _):
      params, opt = at
      grads = jax.grad(lambda p: made.penalty({**phi, 'params': p}, made.sample(
          {**phi, 'params': p}, KEY, Clock(0, 1))[0], Clock(0, 1)))(params)
      moved, opt = tx.update(grads, opt)
      return (optax.apply_updates(params, moved), opt), None
    return jax.lax.scan(step, (params, tx.init(params)), None, steps)[0][0]

  return np.asarray(jax.nn.sigmoid(run({'cell': alpha})['cell']))


def test_gates_go_apart_each_to_its_side_and_do_not_compete():
  alpha = jnp.array(0.3 * np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
  gates = np.asarray(jax.nn.sigmoid(alpha))
  apart = spread(make('fairdarts'), SPACE, alpha)
  assert (np.abs(apart - 0.5) > 0.45)[:, 1:].all() and ((apart > 0.5) == (gates > 0.5))[:, 1:].all()
  np.testing.assert_allclose(spread(make('fairdarts', zero_one=0.0), SPACE, alpha), gates, rtol=1e-6)
  made = make('fairdarts')
  phi = made.init(KEY, SPACE)

  def mixing(row):
    return made.sample({**phi, 'params': {'cell': alpha.at[0].set(row)}}, KEY, Clock(0, 1))[0]['cell'][0, 0]

  slopes = jax.jacobian(mixing)(alpha[0])
  np.testing.assert_allclose(slopes, np.diag(np.diag(slopes)), atol=0)
  assert (np.diag(slopes)[1:] > 0.1).all() and slopes[0, 0] == 0


def test_what_is_read_off_the_gates():
  """An edge of NAS-Bench-201 without an open gate keeps `none`, unless its node had no other input."""
  made, ops = make('fairdarts'), SPACE.cells['cell'].ops[0]
  phi = made.init(KEY, SPACE)
  gates = np.full((6, 5), 0.1)
  gates[0, 3] = 0.6  # 0->1: closed, and all there is
  gates[1, 2], gates[2, 1] = 0.9, 0.8  # 0->2 open, 1->2 closed
  gates[3, 4], gates[4, 3], gates[5, 1] = 0.86, 0.95, 0.84  # into node 3
  gates[:, 0] = 0.99  # counts for nothing
  logits = jnp.array(np.log(gates / (1 - gates)), jnp.float32)
  phi = {**phi, 'params': {'cell': logits}}
  found = SPACE.genotype(jax.device_get(made.scores(phi))).cells['cell']
  assert [op for op, *_ in found] == ['nor_conv_3x3', 'nor_conv_1x1', 'none', 'avg_pool_3x3', 'nor_conv_3x3', 'none']
  assert made.sample(phi, KEY, Clock(0, 1))[1]['above'] == 3 and ops[0] == 'none'
  np.testing.assert_allclose(made.probs(phi)['cell'].sum(-1), 1, rtol=1e-5)
  assert made.probs(phi)['cell'][0].argmax() == 3
  space = spaces.get('darts')
  phi = made.init(KEY, space)
  cells = space.genotype(jax.device_get(made.scores(phi))).cells
  assert all(op != 'none' for edges in cells.values() for op, *_ in edges) and len(cells['normal']) == 8


@pytest.mark.parametrize('fields, told', [({'zero_one': -1.0}, 'zero_one=-1.0'), ({'threshold': 1.0}, 'threshold=1.0')])
def test_bad_fields_are_told(fields, told):
  with pytest.raises(UserError, match=told):
    make('fairdarts', **fields)
