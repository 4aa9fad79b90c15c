"""ENAS: the controller and its policy gradient written out, its baseline, and what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import one_line
from ml_collections import ConfigDict
from test_papers import Net, make, same, setup

from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Batch, Clock, Problem
from vimnas_jax.runs.state import SearchState


def told(params, chosen, temperature=5.0, bound=2.5):
  """(Log-probability, entropy) of the operations `chosen`, one an edge: the controller in loops over edges."""
  layers, size = params['bias'].shape[0], params['start'].shape[0]
  h, c = [jnp.zeros(size)] * layers, [jnp.zeros(size)] * layers
  x, log_p, entropy = params['start'], 0.0, 0.0
  for op in chosen:
    for i in range(layers):
      gates = params['inputs'][i].T @ x + params['hidden'][i].T @ h[i] + params['bias'][i]
      a, f, g, o = gates[:size], gates[size:2 * size], gates[2 * size:3 * size], gates[3 * size:]
      c[i] = c[i] / (1 + jnp.exp(-f)) + jnp.tanh(g) / (1 + jnp.exp(-a))
      h[i] = jnp.tanh(c[i]) / (1 + jnp.exp(-o))
      x = h[i]
    z = bound * jnp.tanh((params['out'].T @ x + params['out_bias'])[1:] / temperature)  # slot 0 leaves an edge out
    p = jnp.exp(z) / jnp.exp(z).sum()
    log_p, entropy = log_p + jnp.log(p[op]), entropy - (p * jnp.log(p)).sum()
    x = params['embedding'][1 + op]
  return log_p, entropy


def test_the_controller_descends_the_policy_gradient(x64):
  """Two steps of two rollouts each, of which one move of four is made, with a baseline that is known by then."""
  made, _, now, batch, loss, config = setup('enas', rollouts=2, aggregate=4, hidden=3, turns=9, entropy=0.3, decay=0.6)
  tx = made.optimizer(optax.chain(optax.add_decayed_weights(0.0), optax.adam(1e-3, b1=0.0, b2=0.999, eps=1e-3)))
  params = jax.tree.map(lambda p: p / 40, now.phi['params'])
  now = now.replace(phi={**now.phi, 'params': params}, opt_phi=tx.init(params))
  step = jax.jit(lambda now, batch, key: made.step.update(made, problem(tx), now, batch, Clock(now.step, 9)))
  draw = jax.jit(lambda phi, key: made.sample(phi, key, Clock(0, 9))[0]['cell'])
  grads, baseline = [], None
  for turn in range(2):
    keys = jax.random.split(jax.random.key(turn), 2)
    batches = {'train': Batch(batch['images'] / 255, batch['labels'], keys[0]),
               'valid': Batch(batch['valid_images'] / 255, batch['valid_labels'], keys[1])}
    after, metrics = step(now, batches, None)
    g_theta = jax.jit(jax.grad(lambda theta, keys=keys: loss(theta, params, '', keys[0])))(now.theta)
    theta = jax.tree.map(lambda w, g: w - 0.1 * g, now.theta, g_theta)
    same(after.theta, theta, rtol=1e-8)
    sampled = [np.asarray(draw(now.phi, jax.random.fold_in(keys[1], i))) for i in range(2)]
    accuracy = [(Net().apply({'params': theta}, batch['valid_images'] / 255, {'cell': rows}).argmax(-1)
                 == batch['valid_labels']).mean() for rows in sampled]

    def descended(params, sampled=sampled, accuracy=accuracy, baseline=baseline):
      found = 0.0
      for rows, right in zip(sampled, accuracy):
        log_p, entropy = told(params, rows[0].argmax(1))
        reward = right + 0.3 * entropy
        b = right if baseline is None else baseline - 0.4 * (baseline - reward)
        found, last = found - log_p * (reward - b) / 2, b
      return found, last

    grad, baseline = jax.jit(jax.grad(descended, has_aux=True))(params)
    assert float(metrics['grad_phi']) == pytest.approx(float(optax.tree.norm(grad)), rel=1e-8)
    assert float(after.phi['fixed']['baseline']) == pytest.approx(float(baseline), rel=1e-6)
    grads.append(grad)
    now = after.replace(step=after.step + 1)
    if turn == 0:
      same(now.phi['params'], params)  # it waits until four have come together
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *grads)
  want = jax.tree.map(lambda p, g: p - 1e-3 * g / (np.abs(g) + 1e-3), params, mean)
  same(now.phi['params'], want, rtol=1e-7, atol=1e-12)
  assert float(optax.tree.norm(jax.tree.map(jnp.subtract, want, params))) > 1e-5 and config.phi.eps == 1e-3


def problem(tx):
  def loss(theta, weights, key, images, labels):
    logits = Net().apply({'params': theta}, images, weights)
    return (optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(),
            (logits.argmax(-1) == labels).mean())

  return Problem(spaces.get('nb201'), loss, optax.sgd(0.1), tx, optax.sgd(0.1))


def learner(space, **fields):
  """(Method, jitted step) with an accuracy that is the share of edges with the last operation."""
  method = methods.get(ConfigDict({'name': 'enas', **methods.fields('enas'), **fields}), space)
  tx, still = method.optimizer(optax.adam(0.02)), optax.sgd(0.0)

  def loss(theta, weights, key, images, labels):
    found = jnp.stack([rows[0, :, -1].mean() for name, rows in weights.items() if name in space.cells]).mean()
    graph = sum((row[0] ** 2).sum() for name, row in weights.items() if name in space.choices)
    return theta['w'] ** 2 + found + graph, found

  problem = Problem(space, loss, still, tx, still)
  phi, theta = jax.jit(lambda: method.init(jax.random.key(0), space))(), {'w': jnp.ones(())}
  state = SearchState(jnp.int32(0), theta, phi, still.init(theta), tx.init(phi['params']), None)
  empty = {part: (jnp.zeros((1, 1, 1, 3)), jnp.zeros(1, jnp.int32)) for part in ('train', 'valid')}

  @jax.jit
  def step(state, key):
    batches = {part: Batch(*images, jax.random.fold_in(key, i)) for i, (part, images) in enumerate(empty.items())}
    return method.step.update(method, problem, state, batches, Clock(state.step, 250))

  return method, state, step


def test_the_controller_learns_what_is_rewarded():
  method, state, step = learner(spaces.get('nb201'), rollouts=5, aggregate=5, hidden=8)
  rewards = []
  for i in range(150):
    state, metrics = step(state.replace(step=jnp.int32(i)), jax.random.key(i))
    rewards.append(float(metrics['reward']))
  assert np.mean(rewards[:20]) < 0.3 and np.mean(rewards[-20:]) > 0.8
  p = np.asarray(jax.jit(method.probs)(state.phi)['cell'])
  assert (p.argmax(1) == 4).all() and p.max() < 0.99  # the logits are bounded
  np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)


def test_the_graph_moves_beside_it_though_the_controller_waits():
  """On NAS-Bench-1Shot1, where the graph's rows have an optimiser of their own and the controller's gathers four."""
  method, state, step = learner(spaces.get('oneshot1'), rollouts=1, aggregate=4, hidden=4)
  seen = [jax.device_get(state.phi['params'])]
  for i in range(4):
    state, _ = step(state.replace(step=jnp.int32(i + 1)), jax.random.key(i))
    seen.append(jax.device_get(state.phi['params']))
  for a, b in zip(seen, seen[1:]):
    assert all(np.abs(a['topology'][row] - b['topology'][row]).max() > 1e-5 for row in a['topology'])
  same(seen[3]['method'], seen[0]['method'])
  assert np.abs(seen[4]['method']['out'] - seen[0]['method']['out']).max() > 1e-3


@pytest.mark.parametrize('name', ['nb201', 'darts'])
def test_it_draws_architectures_of_the_space_and_takes_the_best(name):
  made, space, tried = make('enas', tries=6, hidden=4), spaces.get(name), []
  phi = jax.jit(lambda: made.init(jax.random.key(0), space))()

  def rate(weights, i):
    tried.append(jax.device_get(weights))
    return [50, 70, 90, 90, 10, 20][i]

  best = made.derive(rate, phi, jax.random.key(1))
  assert space.genotype(jax.device_get(best)) == space.genotype(tried[2])
  for weights in tried:
    for cell, rows in weights.items():
      targets = np.array([target for _, target in space.cells[cell].edges])
      assert all(rows[targets == node].sum() == min(space.kept or 9, (targets == node).sum()) for node in set(targets))
      assert space.kept is None or (rows[:, 0] == 0).all()
  assert len({str(space.genotype(weights)) for weights in tried}) == 6


@pytest.mark.parametrize('fields, word', [
    ({'tanh': 0.0}, 'tanh=0.0'), ({'decay': 1.5}, 'decay=1.5'), ({'aggregate': 7}, 'aggregate=7'),
    ({'rollouts': 0}, 'rollouts=0'), ({'tries': 0}, 'tries=0'), ({'entropy': -1.0}, 'entropy=-1.0')])
def test_bad_fields_are_told(fields, word):
  with pytest.raises(UserError, match=word) as error:
    make('enas', **fields)
  one_line(error)
