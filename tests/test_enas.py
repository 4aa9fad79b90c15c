"""ENAS: the controller and its policy gradient written out, its baseline, and what it learns."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SLOW, one_line
from ml_collections import ConfigDict
from test_papers import SPACE, Net, make, same

from vimnas_jax import config as config_lib
from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Batch, Clock, Problem
from vimnas_jax.runs import optim
from vimnas_jax.runs.state import SearchState


def told(params, chosen, temperature=5.0, bound=2.5):
  """(Log-probability, entropy) of the operations `chosen`, one an edge: the controller in NumPy."""
  layers, size = params['bias'].shape[0], params['start'].shape[0]
  h, c = [np.zeros(size)] * layers, [np.zeros(size)] * layers
  x, log_p, entropy = params['start'], 0.0, 0.0
  for op in chosen:
    for i in range(layers):
      gates = params['inputs'][i].T @ x + params['hidden'][i].T @ h[i] + params['bias'][i]
      a, f, g, o = gates[:size], gates[size:2 * size], gates[2 * size:3 * size], gates[3 * size:]
      c[i] = c[i] / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-a))
      h[i] = np.tanh(c[i]) / (1 + np.exp(-o))
      x = h[i]
    z = bound * np.tanh((params['out'].T @ x + params['out_bias'])[1:] / temperature)  # slot 0 leaves an edge out
    p = np.exp(z) / np.exp(z).sum()
    log_p, entropy = log_p + np.log(p[op]), entropy - (p * np.log(p)).sum()
    x = params['embedding'][1 + op]
  return log_p, entropy


def test_the_controller_descends_the_policy_gradient(x64):
  """Two steps of two rollouts each, of which one move of four is made, the second with a baseline that is known by
  then; the gradient against differences.
  """
  config = config_lib.defaults()
  config.method.name = 'enas'
  config = config_lib.resolve(config)
  made = make('enas', rollouts=2, aggregate=4, hidden=3, turns=9, entropy=0.3, decay=0.6)
  rng, tx = np.random.default_rng(0), made.optimizer(optim.phi(config.phi, 9))
  phi = jax.jit(lambda: made.init(jax.random.key(0), SPACE))()
  params = jax.tree.map(lambda p: rng.normal(size=p.shape) / 2, phi['params'])
  theta = {'w': rng.normal(size=(3, 4)), 'v': rng.normal(size=(30, 4))}
  now = SearchState(jnp.int32(0), theta, {**phi, 'params': params}, optax.sgd(0.1).init(theta), tx.init(params), None)
  images, labels = rng.normal(size=(8, 2, 2, 3)), np.arange(8) % 4
  step = jax.jit(lambda now, batch: made.step.update(made, problem(tx), now, batch, Clock(now.step, 9)))
  draw = jax.jit(lambda phi, key: made.sample(phi, key, Clock(0, 9))[0]['cell'])
  flat, build = jax.flatten_util.ravel_pytree(params)
  baseline = None
  for turn in range(2):
    keys = jax.random.split(jax.random.key(turn), 2)
    batches = {'train': Batch(images, labels, keys[0]), 'valid': Batch(images[::-1] * 0.7, labels, keys[1])}
    after, metrics = step(now, batches)
    if turn == 0:
      g_theta = jax.jit(jax.grad(problem(tx).loss, has_aux=True))(
          theta, {'cell': draw(now.phi, keys[0])}, None, images, labels)[0]
      same(after.theta, jax.tree.map(lambda w, g: w - 0.1 * g, theta, g_theta), rtol=1e-8)
    sampled = [np.asarray(draw(now.phi, jax.random.fold_in(keys[1], i))) for i in range(2)]
    accuracy = [float(problem(tx).loss(after.theta, {'cell': rows}, None, images[::-1] * 0.7, labels)[1])
                for rows in sampled]

    def descended(params, sampled=sampled, accuracy=accuracy, baseline=baseline):
      found = 0.0
      for rows, right in zip(sampled, accuracy):
        log_p, entropy = told(params, rows[0].argmax(1))
        reward = right + 0.3 * entropy
        b = right if baseline is None else baseline - 0.4 * (baseline - reward)
        found, last = found - log_p * (reward - b) / 2, b
      return found, last

    def moved(way, descended=descended):
      return descended(jax.device_get(build(flat + way)))[0]

    own = np.random.default_rng(turn).normal(size=(4, flat.size))
    slopes = [(moved(1e-5 * way) - moved(-1e-5 * way)) / 2e-5 for way in own]
    gathered = optax.tree.get(after.opt_phi, 'acc_grads')
    if turn == 0:
      first = jax.flatten_util.ravel_pytree(gathered)[0]
      np.testing.assert_allclose(own @ first, slopes, rtol=1e-6)
      assert float(metrics['grad_phi']) == pytest.approx(float(jnp.linalg.norm(first)), rel=1e-6)
      same(after.phi['params'], params)  # it waits until four have come together
    baseline = float(descended(jax.device_get(params))[1])
    assert float(after.phi['fixed']['baseline']) == pytest.approx(baseline, rel=1e-6)
    now = after.replace(step=after.step + 1)
  move = (jax.flatten_util.ravel_pytree(now.phi['params'])[0] - flat) / 1e-3  # -g / (|g| + eps)
  mean = -1e-3 * move / (1 - np.abs(move))
  np.testing.assert_allclose(own @ (2 * mean - first), slopes, rtol=1e-5)
  assert np.abs(move).max() > 0.5 and config.phi.eps == 1e-3


def problem(tx):
  def loss(theta, weights, key, images, labels):
    logits = Net().apply({'params': theta}, images, weights)
    return (optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(),
            (logits.argmax(-1) == labels).mean())

  return Problem(SPACE, loss, optax.sgd(0.1), tx, optax.sgd(0.1))


def test_published_on_1shot1_the_baseline_moves_by_every_architecture():
  """As the benchmark's own run: it begins at 0 and takes up a hundredth of each reward."""
  published = methods.published('enas', 'oneshot1')
  fields = {field.removeprefix('method.'): value for field, value in published.items() if field.startswith('method.')}
  method, state, step = learner(spaces.get('nb201'), **fields)
  assert state.phi['params']['inputs'].shape == (1, 64, 4 * 64) and fields['rollouts'] == fields['aggregate'] == 1
  want = 0.0
  for i in range(3):
    state, metrics = step(state.replace(step=jnp.int32(i)), jax.random.key(i))
    want = 0.99 * want + 0.01 * float(metrics['reward'])
    assert float(metrics['baseline']) == float(state.phi['fixed']['baseline']) == pytest.approx(want, rel=1e-5)
  assert want > 0


def test_rewards_in_percent_come_to_the_published_constants():
  """A gradient a hundred times as large under the benchmark's eps of 1e-3 moves as one under 1e-5."""
  config = config_lib.defaults()
  config.space.name = 'oneshot1'
  config = config_lib.resolve(config_lib.with_arguments(config, 'method=enas,published', None))
  assert (config.phi.eps, config.method.entropy) == (1e-5, 1e-6)
  ours, theirs = optim.phi(config.phi, 9), optax.adam(3.5e-4, b1=0.1, b2=0.999, eps=1e-3)
  params = {'w': jnp.zeros(3)}
  states = [ours.init(params), theirs.init(params)]
  for i in range(3):
    g = {'w': jnp.array([1e-4, -3e-3, 2e-5]) * (i + 1)}
    moved, states[0] = ours.update(g, states[0], params)
    wanted, states[1] = theirs.update({'w': 100 * g['w']}, states[1], params)
    np.testing.assert_allclose(moved['w'], wanted['w'], rtol=1e-5)


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


@SLOW
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


@SLOW
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
    ({'rollouts': 0}, 'rollouts=0'), ({'tries': 0}, 'tries=0'), ({'entropy': -1.0}, 'entropy=-1.0'),
    ({'turns': -1}, 'turns=-1')])
def test_bad_fields_are_told(fields, word):
  with pytest.raises(UserError, match=word) as error:
    make('enas', **fields)
  one_line(error)
