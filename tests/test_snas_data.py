"""SNAS and DATA, whose weights are draws: their updates in double precision, written out anew, and how they draw."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_papers import SPACE, VALID_XI, XI, first_adam_step, make, same, setup

from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, data

KEY = jax.random.key(3)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize('resource', [0.0, 0.5])
def test_snas_moves_both_by_one_batch(x64, resource):
  """At step 4 of 9, where tau is 1 - 0.97 * 4 / 9; alpha's loss has the parameters of the draw."""
  _, step, now, batch, _, config = setup('snas', resource=resource)
  alpha = 1 + np.random.default_rng(0).normal(size=(6, 5))
  now = now.replace(step=jnp.int32(4), phi={**now.phi, 'params': {'cell': jnp.array(alpha)}})
  noise = jax.random.gumbel(jax.random.fold_in(jax.random.split(KEY, 4)[XI], 0), (1, 6, 5), jnp.float64)
  cost = np.array([0, 0, 16 * 16, 9 * 16 * 16, 0])  # none, skip_connect, 1x1, 3x3, avg_pool

  def draw(alpha):
    e = jnp.exp((alpha + noise[0]) / (1 - 0.97 * 4 / 9))
    return e / e.sum(-1, keepdims=True)

  def loss(theta, alpha):
    told = jnp.tanh(draw(alpha).reshape(-1) @ theta['v'])
    logits = jnp.tanh((batch['images'] / 255).mean((1, 2)) @ theta['w']) * told[None]
    return -(logits - jax.nn.logsumexp(logits, -1, keepdims=True))[jnp.arange(8), batch['labels']].mean()

  def of_alpha(alpha):
    return loss(now.theta, alpha) + resource * sum(jnp.log((row * cost).sum()) for row in draw(alpha))

  g_theta, g_alpha = jax.jit(lambda alpha: (jax.grad(loss)(now.theta, alpha), jax.grad(of_alpha)(alpha)))(alpha)
  after, metrics = step(now, batch, KEY)
  assert float(metrics['tau']) == pytest.approx(1 - 0.97 * 4 / 9)
  assert float(metrics['grad_phi']) == pytest.approx(float(jnp.linalg.norm(g_alpha)), rel=1e-6)
  same(after.phi['params']['cell'], first_adam_step(alpha, g_alpha, config), rtol=1e-8)
  scale = min(1.0, 5.0 / float(optax.tree.norm(g_theta)))
  same(after.theta, jax.tree.map(lambda w, g: w - 0.025 * (scale * g + 3e-4 * w), now.theta, g_theta), rtol=1e-7)


def test_snas_draws_of_alpha_and_ends_at_one_operation():
  """The largest entry of a draw falls on an operation as often as softmax(alpha) says, at every temperature."""
  made = make('snas', samples=4000)
  phi = {'params': {'cell': jnp.array(np.random.default_rng(1).normal(size=(6, 5)), jnp.float32)}, 'fixed': {}}
  tops = []
  for done, tau in ((0, 1.0), (5, 0.515), (10, 0.03)):
    weights, info = made.sample(phi, KEY, Clock(done, 10))
    rows = np.asarray(weights['cell'])
    assert float(info['tau']) == pytest.approx(tau) and np.allclose(rows.sum(-1), 1, atol=1e-5)
    often = np.stack([(rows.argmax(-1) == o).mean(0) for o in range(5)], -1)
    np.testing.assert_allclose(often, softmax(np.asarray(phi['params']['cell'])), atol=0.03)
    tops.append(rows.max(-1).mean())
  assert tops[0] < 0.7 < tops[1] < tops[2] and tops[2] > 0.98
  assert made.step.batches == ('train',)


def test_snas_counts_edge_by_edge_and_no_edge_below_one():
  """The logarithms of all edges of both cells, of two draws in the mean; an edge without weights has neither cost nor
  gradient.
  """
  space, made = spaces.get('darts'), make('snas', resource=2.0, samples=2)
  phi, rng = made.init(KEY, space), np.random.default_rng(0)
  cost = np.array([0, 0, 0, 0, *(2 * (k * k * 16 + 256) for k in (3, 5)), *(k * k * 16 + 256 for k in (3, 5))])
  weights = {name: np.float32(rng.dirichlet(np.ones(8), (2, 14))) for name in space.cells}
  weights['normal'][0, 3] = np.eye(8)[1]  # a pool
  weights['reduce'][1, 5] = 0.999 * np.eye(8)[0] + 0.001 * np.eye(8)[6]  # 0.4 parameters
  want = 2.0 * sum(np.log(max((row * cost).sum(), 1)) for rows in weights.values() for row in rows.reshape(-1, 8)) / 2
  value, slope = jax.value_and_grad(lambda rows: made.penalty(phi, rows, Clock(0, 1)))(weights)
  assert float(value) == pytest.approx(want, rel=1e-5)
  for name, at in (('normal', (0, 3)), ('reduce', (1, 5))):
    assert (slope[name][at] == 0).all() and (slope[name].any(-1).sum(), slope[name].shape[:2]) == (27, (2, 14))


def test_snas_tells_where_it_cannot_count():
  with pytest.raises(UserError, match='resource=0'):
    make('snas', resource=1.0).init(KEY, spaces.get('oneshot1'))
  phi = make('snas', resource=1.0).init(KEY, spaces.get('darts'))
  np.testing.assert_array_equal(phi['fixed']['normal'][3],
                                [0, 0, 0, 0, *(2 * (k * k * 16 + 256) for k in (3, 5)),
                                 *(k * k * 16 + 256 for k in (3, 5))])


def shares(p):
  """DATA's mixing weights of draws p [draws, ops] of one edge, and the pull-back of a gradient to p, in loops."""
  z = np.zeros_like(p)
  for m, row in enumerate(p):
    z[m, row.argmax()] = 1
  most = z.max(0)
  weights = most / most.sum()

  def pull(g):
    back = np.zeros_like(p)
    for o in range(p.shape[1]):
      of_most = (g[o] - (g * weights).sum()) / most.sum()
      equal = [m for m in range(len(p)) if z[m, o] == most[o]]
      for m in equal:
        back[m, o] = of_most / len(equal)
    return back

  return weights, pull


@pytest.mark.parametrize('probabilities', ['relu', 'softmax'])
def test_data_draws_an_ensemble_and_learns_through_it(x64, probabilities):
  _, step, now, batch, loss, config = setup('data', draws=3, probabilities=probabilities)
  alpha = np.random.default_rng(0).normal(size=(6, 5))
  alpha[0, 0] = -1.0  # gets nothing by relu
  now = now.replace(phi={**now.phi, 'params': {'cell': jnp.array(alpha)}})
  noise = jax.random.gumbel(jax.random.fold_in(jax.random.split(KEY, 4)[VALID_XI], 0), (3, 6, 5), jnp.float64)

  def drawn(alpha):
    positive = jnp.maximum(alpha, 0) + 1e-10 if probabilities == 'relu' else jnp.exp(alpha)
    logits = (jnp.log(positive / positive.sum(-1, keepdims=True) + 1e-10)[None] + noise) / 5
    return jnp.exp(logits) / jnp.exp(logits).sum(-1, keepdims=True)

  pairs = [shares(np.asarray(drawn(alpha))[:, e]) for e in range(6)]

  def valid(rows):
    told = jnp.tanh(rows.reshape(-1) @ now.theta['v'])
    logits = jnp.tanh((batch['valid_images'] / 255).mean((1, 2)) @ now.theta['w']) * told[None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch['valid_labels']).mean()

  up = jax.jit(jax.grad(valid))(jnp.array([weights for weights, _ in pairs]))
  back = np.stack([pull(np.asarray(up[e])) for e, (_, pull) in enumerate(pairs)], 1)
  z = jnp.array([weights for weights, _ in pairs])

  def of_alpha(alpha):
    positive = jnp.maximum(alpha, 0) + 1e-10 if probabilities == 'relu' else jnp.exp(alpha)
    return (drawn(alpha) * back).sum() + 0.1 * jnp.abs(positive / positive.sum(-1, keepdims=True) - z).sum() / 30

  g_alpha = jax.jit(jax.grad(of_alpha))(alpha)
  assert float(jnp.linalg.norm(g_alpha)) > 1e-4 and (np.abs(g_alpha[0, 0]) == 0) == (probabilities == 'relu')
  after, metrics = step(now, batch, KEY)
  assert float(metrics['grad_phi']) == pytest.approx(float(jnp.linalg.norm(g_alpha)), rel=1e-8)
  params = first_adam_step({'cell': alpha}, {'cell': g_alpha}, config)
  same(after.phi['params'], params, rtol=1e-8)
  g_theta = jax.jit(jax.grad(lambda theta: loss(theta, params, '', jax.random.split(KEY, 4)[XI])))(now.theta)
  assert float(metrics['grad_theta']) == pytest.approx(float(optax.tree.norm(g_theta)), rel=1e-6)


def test_data_sums_the_mean_distance_over_cell_types():
  space, made = spaces.get('darts'), make('data', reg=0.3)
  phi = made.init(KEY, space)
  weights = jax.device_get(made.sample(phi, KEY, Clock(0, 1))[0])
  want = 0.3 * sum(np.abs(np.asarray(made.probs(phi)[name]) - weights[name][0]).mean() for name in space.cells)
  assert float(made.penalty(phi, weights, Clock(0, 1))) == pytest.approx(want, rel=1e-6) and want > 0.05
  assert make('data', reg=0.0).penalty is None


def test_data_runs_as_many_operations_as_its_draws_are_apart():
  """Of M draws one operation is among them with probability 1 - (1 - p)^M; all that are have equal shares."""
  alpha = jnp.array(np.random.default_rng(1).uniform(0.1, 1, size=(6, 5)), jnp.float32)
  p = np.asarray(alpha / alpha.sum(-1, keepdims=True))
  for draws in (1, 4):
    made = make('data', draws=draws)
    sample = jax.jit(jax.vmap(lambda key, made=made: made.sample({'params': {'cell': alpha}, 'fixed': {}}, key,
                                                                 Clock(0, 1))[0]['cell'][0]))
    rows = np.asarray(sample(jax.random.split(KEY, 3000)))
    count = (rows > 0).sum(-1)
    assert count.max() <= draws
    np.testing.assert_allclose(rows, (rows > 0) / count[..., None], rtol=1e-6)
    np.testing.assert_allclose((rows > 0).mean(0), 1 - (1 - p) ** draws, atol=0.04)
  np.testing.assert_allclose(made.probs({'params': {'cell': alpha}, 'fixed': {}})['cell'], p, rtol=1e-5)
  one = np.asarray(data.ensemble(jnp.array([[[0.2, 0.8]], [[0.6, 0.4]], [[0.9, 0.1]]])))
  np.testing.assert_allclose(one, [[0.5, 0.5]])
  taus = [float(made.sample(made.init(KEY, SPACE), KEY, Clock(i, 2))[1]['tau']) for i in range(3)]
  assert taus == pytest.approx([5.0, (5 + 2.3333) / 2, 2.3333])


@pytest.mark.parametrize('name, fields, told', [
    ('snas', {'tau': 0.0}, 'tau=0.0'), ('snas', {'resource': -1.0}, 'resource=-1.0'), ('data', {'draws': 0}, 'draws=0'),
    ('data', {'probabilities': 'exp'}, "'exp'"), ('data', {'tau_end': 0.0}, 'tau_end=0.0'),
    ('data', {'reg': -0.1}, 'reg=-0.1')])
def test_bad_fields_are_told(name, fields, told):
  with pytest.raises(UserError, match=told):
    make(name, **fields)
