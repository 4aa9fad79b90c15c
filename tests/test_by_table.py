"""Methods that ask a benchmark: REINFORCE against NumPy, random search within a budget, and both as commands do it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ONE_EDGE, SLOW, one_line
from test_papers import make

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import spaces, tabular
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, paths

SPACE = spaces.get('nb201')


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def test_reinforce_moves_as_adam_along_the_log_probability(x64):
  """By hand: every architecture is the one that its key draws from the logits so far."""
  rewards, seen, drawn = [50.0, 80.0, 20.0, 80.0, 60.0, 10.0, 75.0], [], []
  method = make('reinforce', budget=len(rewards), lr=0.3, decay=0.8)
  phi = method.init(jax.random.key(0), SPACE)
  phi['params']['cell'] = alpha = jnp.array(np.random.default_rng(0).normal(size=(6, 6)))

  def rate(weights, i):
    drawn.append(np.asarray(weights['cell']))
    return rewards[i]

  best = method.derive(rate, phi, jax.random.key(1))
  assert np.array_equal(best['cell'], drawn[1])
  alpha, m, v, average = np.asarray(alpha)[:, 1:], 0.0, 0.0, 0.0
  draw = jax.jit(lambda logits, i: method.sample(
      {**phi, 'params': {'cell': logits}}, jax.random.fold_in(jax.random.key(1), i), Clock(0, 1))[0]['cell'][0])
  for i, reward in enumerate(rewards):
    logits = jnp.concatenate([jnp.zeros((6, 1)), alpha], 1)
    np.testing.assert_array_equal(draw(logits, i), drawn[i])
    seen.append(alpha)
    average = 0.8 * average + 0.2 * reward
    gradient = -(reward - average / (1 - 0.8 ** (i + 1))) * (drawn[i] - softmax(alpha))
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient ** 2
    alpha = alpha - 0.3 * m / (1 - 0.9 ** (i + 1)) / (np.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8)
  np.testing.assert_allclose(seen[0], seen[1], atol=1e-5)  # the first architecture is its own baseline
  assert np.abs(seen[3] - seen[1]).max() > 0.3


@SLOW
def test_reinforce_learns_what_is_rewarded():
  """It finds more of the operation that pays than chance does, and more and more."""
  shares = []

  def rate(weights, i):
    shares.append(float(weights['cell'][:, 3].mean()))
    return 100 * shares[-1]

  method = make('reinforce', budget=60, lr=0.2)
  method.derive(rate, method.init(jax.random.key(0), SPACE), jax.random.key(0))
  assert np.mean(shares[:10]) < 0.4 and np.mean(shares[-10:]) > 0.8


def test_a_policy_with_equal_logits_draws_every_architecture_alike(x64):
  """Of a node with three edges that keeps two, and one that keeps both of its own: counted, and its log-probability."""
  rule = {'allowed': jnp.array([[False, True, True]] * 5), 'targets': jnp.array([2, 2, 3, 3, 3]), 'kept': jnp.array(2)}

  @jax.jit
  @jax.vmap
  def draw(i):
    _, path = paths.drawn(rule, jax.random.key(i), lambda state, slot, edge: (state, jnp.zeros(4)), ((), jnp.int32(0)))
    return path

  found = draw(jnp.arange(2000))
  weights = np.asarray(found.weights)
  assert (weights.sum(-1)[:, :2] == 1).all() and (weights.sum(-1)[:, 2:].sum(-1) == 2).all()
  kinds, counts = np.unique(weights.reshape(len(weights), -1), axis=0, return_counts=True)
  every = 2 ** 4 * math.comb(3, 2)
  assert len(kinds) == every and counts.max() < 2.2 * len(weights) / every
  np.testing.assert_allclose(found.log_p.sum(-1), -np.log(every), rtol=1e-12)
  assert np.isfinite(found.entropy).all() and (weights[..., 0] == 0).all()


def test_the_probability_of_a_path_is_that_of_its_decisions(x64):
  """All paths of a node of two edges that keeps one, enumerated: probabilities sum to 1 and follow the logits."""
  rule = {'allowed': jnp.ones((2, 2), bool), 'targets': jnp.array([1, 1]), 'kept': jnp.array(1)}
  logits = np.random.default_rng(1).normal(size=(2, 3))
  first = softmax(logits[0] + np.log([1 / 2, 1 / 4, 1 / 4]))
  last = softmax(logits[1][1:])
  wanted = {(1, 0, 0, 0): first[1], (0, 1, 0, 0): first[2], **{
      (0, 0, *np.eye(2, dtype=int)[op]): first[0] * last[op] for op in range(2)}}
  assert sum(wanted.values()) == pytest.approx(1)

  def drawn(logits, key):
    return paths.drawn(rule, key, lambda state, slot, edge: (state, logits[edge]), ((), jnp.int32(0)))[1]

  seen, draw = set(), jax.jit(lambda i: drawn(jnp.array(logits), jax.random.key(i)))
  for i in range(40):
    path = draw(i)
    key = tuple(np.asarray(path.weights, int).ravel())
    assert math.exp(path.log_p.sum()) == pytest.approx(wanted[key], rel=1e-9)
    seen.add(key)
  assert seen == set(wanted)
  grads = jax.jacobian(lambda logits: drawn(logits, jax.random.key(0)).entropy)(jnp.array(logits))
  assert np.isfinite(grads).all() and np.abs(grads).max() > 1e-3


@pytest.mark.parametrize('name', ['random', 'reinforce'])
def test_a_budget_of_queries_is_kept_to_and_the_best_is_taken(name):
  method = make(name, budget=12)
  rate, told = tabular.rater(SPACE, config_lib.defaults().oracle, 'cifar10'), []

  def asked(weights, i):
    told.append((rate(weights, i), SPACE.genotype(jax.device_get(weights))))
    return told[-1][0]

  best = method.derive(asked, method.init(jax.random.key(0), SPACE), jax.random.key(1))
  assert len(told) == 12 and len(set(told)) > 8 and method.asks == 'benchmark' and not method.trains
  assert SPACE.genotype(jax.device_get(best)) == max(told, key=lambda pair: pair[0])[1]


def test_random_search_without_a_budget_is_what_it_was():
  method = make('random')
  phi = method.init(jax.random.key(3), SPACE)
  assert method.derive is None and method.trains
  for rows in (method.probs(phi), method.scores(phi)):
    assert np.asarray(rows['cell']).argmax(1).tolist() == [2, 0, 0, 0, 1, 1]  # the bits of before


def configured(**fields):
  return vimnas_jax.configure('nb201_c10', {
      'data.name': 'synthetic', 'data.image_size': 8, 'data.num_train': 64, 'space.cells': 1, 'space.channels': 4,
      'method.name': 'reinforce', 'method.budget': 5, **fields}, batch_size=16, devices=1)


def test_a_search_by_table_trains_nothing_and_is_told_again(tmp_path, monkeypatch):
  monkeypatch.setattr(tabular, 'rater', lambda space, oracle, data: lambda weights, i: weights['cell'][0, 1])
  config = configured(**{'space.name': ONE_EDGE})
  found = vimnas_jax.search(config, tmp_path / 'run')
  assert found['steps'] == 0 and found['derived'] and found['last_loss'] is None and found['seconds_per_step'] is None
  assert 'nor_conv_3x3' in found['genotype']
  assert vimnas_jax.search(config, tmp_path / 'run') == found
  (tmp_path / 'run' / 'result.json').unlink()
  assert vimnas_jax.search(config, tmp_path / 'run')['state_sha256'] == found['state_sha256']


@pytest.mark.parametrize('fields, told', [
    ({}, "not of config.data.name='synthetic'"),
    ({'space.name': 'oneshot1', 'space.cells': 3}, "for space 'oneshot1'"),
    ({'space.name': 'darts', 'space.cells': 3}, 'NAS-Bench-301')])
def test_who_has_no_table_is_told_so(tmp_path, fields, told):
  with pytest.raises(UserError, match=told) as error:
    vimnas_jax.search(configured(**fields), tmp_path / 'run')
  one_line(error)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('name, fields, told', [
    ('random', {'budget': -1}, 'budget=-1'), ('reinforce', {'budget': 0}, 'budget=0'),
    ('reinforce', {'decay': 1.0}, 'decay=1.0'), ('reinforce', {'lr': -0.1}, 'lr=-0.1')])
def test_bad_fields_are_told(name, fields, told):
  with pytest.raises(UserError, match=told) as error:
    make(name, **fields)
  one_line(error)
