"""Methods whose operations have factors that sparsity takes out: DSO-NAS, SparseNAS, BayesNAS."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from test_papers import Net, make, setup

from vimnas_jax import config as config_lib
from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, factors
from vimnas_jax.runs import steps as steps_lib
from vimnas_jax.runs.state import SearchState

TWO_NODES = spaces.get(str(ROOT / 'examples' / 'two_nodes.py'))  # edges 0->1, 0->2, 1->2, of four operations each
BASIS = np.eye(12) * 12 ** 0.5  # images of which factors f have the loss |f - truth|^2 / 2


def loss(theta, weights, key, images, labels):
  """Of a linear model that has the mixing weights for coefficients, half the mean square."""
  told = images @ weights['cell'][0].ravel()
  return 0 * theta['w'] + 0.5 * jnp.square(told - labels).mean(), jnp.zeros(())


def learned(name, truth, steps, draw, changes='', **fields):
  """(Method, phi) after `steps` steps on images and labels `draw(key, truth)`."""
  changes = f'method.name={name} {changes} ' + ' '.join(f'method.{field}={value}' for field, value in fields.items())
  config = config_lib.resolve(config_lib.changed(config_lib.defaults(), changes))
  made, tx = methods.get(config.method), optax.sgd(0.0)
  tx_phi = steps_lib.phi_optimiser(config, made, steps)
  problem = methods.Problem(TWO_NODES, loss, tx, tx_phi, tx)

  def body(i, now):
    key = jax.random.fold_in(jax.random.key(7), i)
    batch = methods.Batch(*draw(key, truth), key)
    now = made.step.update(made, problem, now, {'train': batch, 'valid': batch}, Clock(i, steps))[0]
    return now.replace(phi=made.after(now.phi, Clock(i + 1, steps)))

  @jax.jit
  def run(truth):
    theta, phi = {'w': jnp.zeros(())}, made.init(jax.random.key(0), TWO_NODES)
    now = SearchState(jnp.int32(0), theta, phi, tx.init(theta), tx_phi.init(phi['params']), None)
    return jax.lax.fori_loop(0, steps, body, now).phi

  return made, run(truth)


def exact(key, truth):
  del key
  return jnp.array(BASIS, jnp.float32), jnp.array(BASIS, jnp.float32) @ truth.ravel()


SPARSE = jnp.array([[1.0, 0.0, 0.02, 0.0], [0.0, 0.6, 0.0, -0.3], [0.03, 0.0, 0.02, 0.0]])


def test_dsonas_takes_out_what_the_data_do_not_need():
  """To the exact solution: the truth less the sparsity, not below zero; theta stands still in its periods."""
  made, phi = learned('dsonas', SPARSE, 400, exact, sparsity=0.05, warm_up=0.0, periods=4)
  got = np.asarray(phi['params']['cell'])
  np.testing.assert_allclose(got, np.maximum(SPARSE - 0.05, 0), atol=1e-4)
  assert ((got == 0) == (np.asarray(SPARSE) <= 0.05)).all()
  scores = np.asarray(made.scores(phi)['cell'])
  assert scores.argmax(1).tolist()[:2] == [0, 1] and 0 < scores[2].max() < 1e-6  # the third by what was zero last
  assert [op for op, _, _ in TWO_NODES.genotype(jax.device_get(made.scores(phi))).cells['cell']][1] == 'nor_conv_3x3'
  np.testing.assert_allclose(made.probs(phi)['cell'].sum(1), 1, rtol=1e-5)


def test_sparsenas_solves_the_sparse_group_lasso():
  """No other point near or far has a lower objective, and the edge that is all small has gone as a whole."""
  _, phi = learned('sparsenas', SPARSE, 400, exact, sparsity=0.01, group=0.03)
  got = np.asarray(phi['params']['cell'], np.float64)

  def objective(f):
    return 0.5 * np.square(f - np.asarray(SPARSE)).sum() + 0.01 * np.abs(f).sum() + 0.03 * 2 * np.sqrt(
        np.square(f).sum(1)).sum()

  rng = np.random.default_rng(0)
  for size in (1e-3, 1e-2, 0.1):
    assert min(objective(got + size * rng.normal(size=got.shape)) for _ in range(300)) > objective(got)
  assert (got[2] == 0).all() and (got[:2] == 0).tolist() == [[False, True, False, True], [True, False, True, False]]


@pytest.mark.parametrize('name', ['dsonas', 'sparsenas'])
def test_proximal_steps_are_accelerated_as_written(x64, name):
  """Two steps of the factors in NumPy, the gradient where the momentum has led."""
  fields = {'dsonas': {'warm_up': 0.0, 'periods': 2, 'sparsity': 0.5},
            'sparsenas': {'sparsity': 0.3, 'group': 0.4}}[name]
  made, step, now, batch, loss_of, config = setup(name, **fields)
  f = jnp.array(np.random.default_rng(0).uniform(0.02, 0.4, (6, 5))).at[:, 0].set(0)
  now = now.replace(step=jnp.int32(5), phi={**now.phi, 'params': {'cell': f}})
  gradient = jax.jit(jax.grad(lambda theta, f: loss_of(theta, {'cell': f}, 'valid_', None), 1))
  rate, v = config.phi.lr, 0.0
  for i in range(2):
    g = np.asarray(gradient(now.theta, f))
    now, metrics = step(now, batch, jax.random.key(i))
    assert float(metrics['grad_phi']) == pytest.approx(np.linalg.norm(g), rel=1e-8)
    z = np.asarray(f) - rate * g
    if name == 'dsonas':
      near = np.where(z > rate * 0.5, z - rate * 0.5, 0)
    else:
      near = np.sign(z) * np.maximum(np.abs(z) - rate * 0.3, 0)
      for row in near:
        size = np.sqrt((row ** 2).sum())
        row *= max(size - rate * 0.4 * 5 ** 0.5, 0) / max(size, 1e-300)
    v = near - np.asarray(f) + 0.9 * v
    f = np.where(near == 0, 0, near + 0.9 * v)
    f = np.maximum(f, 0) if name == 'dsonas' else f
    np.testing.assert_allclose(now.phi['params']['cell'], f, rtol=1e-8, atol=1e-12)
    f = now.phi['params']['cell']
  assert 0 < (np.asarray(f)[:, 1:] == 0).sum() < 24


def test_dsonas_moves_theta_and_factors_in_turns(x64):
  _, step, now, batch, _, _ = setup('dsonas', warm_up=0.0, periods=3)
  now = now.replace(phi={**now.phi, 'params': {'cell': now.phi['fixed']['cell']['real'] / 5}})
  for at, whose in ((2, 'theta'), (3, 'phi'), (5, 'phi'), (6, 'theta')):
    after, metrics = step(now.replace(step=jnp.int32(at)), batch, jax.random.key(0))
    moves = {'theta': not np.array_equal(after.theta['w'], now.theta['w']),
             'phi': not np.array_equal(after.phi['params']['cell'], now.phi['params']['cell'])}
    assert moves == {'theta': whose == 'theta', 'phi': whose == 'phi'}
    assert (float(metrics['grad_phi']) > 0) == moves['phi'] and (float(metrics['grad_theta']) > 0) == moves['theta']


@pytest.mark.parametrize('steps, warm_up, periods', [(40, 0.5, 12), (41, 0.5, 12), (9, 0.0, 3), (30, 0.3, 7),
                                                     (5, 0.5, 12), (0, 0.5, 2)])
def test_rates_of_dsonas_are_as_long_as_theta_and_the_factors_move(steps, warm_up, periods):
  made = make('dsonas', warm_up=warm_up, periods=periods)
  first = round(warm_up * steps)
  phi = sum((at - first) * periods // (steps - first) % 2 for at in range(first, steps))
  found, = steps_lib.lengths(made, steps_lib.Plan(6, steps, 'noise'))
  assert (found.theta, found.phi) == (6 + steps - phi, phi)


def test_rates_of_dsonas_go_their_whole_way(x64):
  """Theta's from 1 to 0.5 by half a cosine over its six of nine steps."""
  _, step, now, batch, _, config = setup('dsonas', {'lr': 1.0, 'lr_end': 0.5}, warm_up=0.0, periods=3)
  now = now.replace(phi={**now.phi, 'params': {'cell': now.phi['fixed']['cell']['real'] / 5}})
  counts, rates = [], []
  for i in range(9):
    before = now
    now, _ = step(now, batch, jax.random.key(i))
    counts.append(int(optax.tree.get(now.opt_theta, 'count')))
    if counts[-1] > int(optax.tree.get(before.opt_theta, 'count')):
      trace = optax.tree.get(now.opt_theta, 'trace')
      rates.append(float(((before.theta['w'] - now.theta['w']) / trace['w']).mean()))
  assert counts == [1, 2, 3, 3, 3, 3, 4, 5, 6]
  np.testing.assert_allclose(rates, 0.75 + 0.25 * np.cos(np.pi * np.arange(6) / 6), rtol=1e-6)


def test_bayesnas_keeps_what_is_relevant_and_hangs_on_something():
  """Noisy labels: switches of true coefficients stay, the others go; an edge after one that went goes with it."""
  def draw(key, truth):
    x_key, noise_key = jax.random.split(key)
    x = jax.random.normal(x_key, (32, 12))
    return x, x @ truth.ravel() + jax.random.normal(noise_key, (32,))

  truth = jnp.array([[0.0, 0.8, 0.0, 0.0], [1.0, 0.0, 0.0, -0.7], [0.0, 0.0, 0.0, 0.9]])
  for first, alive in ((1.0, np.asarray(truth) != 0), (0.0, np.asarray(truth.at[0].set(0).at[2].set(0)) != 0)):
    made, phi = learned('bayesnas', truth.at[0].multiply(first), 1500, draw)
    np.testing.assert_array_equal(np.asarray(phi['fixed']['cell']['relevance']) > 0, alive)
    weights, info = made.sample(phi, jax.random.key(0), Clock(0, 1))
    assert int(info['switches']) == alive.sum() and ((np.asarray(weights['cell'][0]) != 0) == alive).all()
    kept = np.asarray(truth)[alive]
    np.testing.assert_allclose(np.asarray(weights['cell'][0])[alive], kept, atol=0.3)
    assert float(jnp.abs(phi['params']['cell']).max()) < 1.5  # what is off is left alone


def test_bayesnas_weighs_switches_as_the_paper(x64):
  """One step against the formulas as they stand, on a space whose edges hang on each other."""
  made, step, now, batch, loss_of, config = setup('bayesnas', warm_up=0.0, threshold=0.05, decay=0.5)
  rng = np.random.default_rng(0)
  s = jnp.array(rng.uniform(-0.4, 0.4, (6, 5))).at[:, 0].set(0).at[5, 1].set(1e-4)
  omega, curvature = rng.uniform(0.5, 2, (6, 5)), rng.uniform(0.01, 0.1, (6, 5))
  row = {**now.phi['fixed']['cell'], 'omega': jnp.array(omega), 'curvature': jnp.array(curvature)}
  now = now.replace(phi={'params': {'cell': s}, 'fixed': {'cell': row}})
  key = jax.random.key(3)

  def plain(s):
    logits = Net().apply({'params': now.theta}, batch['images'] / 255, {'cell': s[None]})
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch['labels']).mean()

  g = np.asarray(jax.jit(jax.grad(plain))(s)) * (np.arange(5) > 0)
  after, _ = step(now, batch, key)
  new = np.asarray(s) - 0.1 * (g + 0.01 * omega * np.sign(s))
  new = np.where(new * np.asarray(s) < 0, 0, new)
  np.testing.assert_allclose(after.phi['params']['cell'], new, rtol=1e-8, atol=1e-12)
  h = 0.5 * curvature + 0.5 * 8 * g ** 2
  edges = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
  gamma = np.abs(new) / omega
  got = after.phi['fixed']['cell']
  np.testing.assert_allclose(got['curvature'], h, rtol=1e-8)
  for e, (source, _) in enumerate(edges):
    into = [i for i, (_, target) in enumerate(edges) if target == source]
    for o in range(1, 5):
      hangs = 1 / sum(gamma[i].sum() for i in into) if into else 0.0
      if gamma[e, o] == 0:  # it would have changed its sign
        assert (e, o, got['relevance'][e, o], got['on'][e, o]) == (5, 1, 0, 0)
        continue
      hat = 1 / (1 / gamma[e, o] + hangs)
      c = 1 / (1 / hat + h[e, o] / 0.01)
      assert float(got['omega'][e, o]) == pytest.approx(abs(-c / gamma[e, o] ** 2 + 1 / gamma[e, o]) ** 0.5, rel=1e-6)
      assert float(got['relevance'][e, o]) == pytest.approx(hat if hat > 0.05 else 0.0, rel=1e-6)
  assert 0 < (np.asarray(got['relevance'])[:, 1:] == 0).sum() < 24


def test_a_row_without_factors_is_none_where_a_space_may_keep_that():
  fixed = {name: factors.fixed(spaces.get(name))[cell] for name, cell in (('nb201', 'cell'), ('darts', 'normal'))}
  last = np.arange(8, dtype=np.float32) / 8
  for name, count, want in (('nb201', 5, 0), ('darts', 8, 7)):
    row = {**fixed[name], 'last': np.broadcast_to(last[:count], fixed[name]['real'].shape)}
    gone = np.zeros(row['real'].shape, np.float32)
    one = gone.copy()
    one[0, 2] = -0.1
    empty, kept, probs = jax.jit(lambda gone, one, row: (
        factors.scores({'cell': gone}, {'cell': row})['cell'], factors.scores({'cell': one}, {'cell': row})['cell'],
        factors.probs({'cell': gone}, {'cell': row})['cell']))(gone, one, row)
    assert (np.asarray(empty).argmax(1) == want).all()
    assert np.asarray(kept)[0].argmax() == 2 and (np.asarray(kept) >= 0).all()
    np.testing.assert_allclose(np.asarray(probs).sum(1), 1, rtol=1e-5)
  assert float(factors.left({'cell': jnp.ones((6, 5))}, {'cell': fixed['nb201']})) == 24


@pytest.mark.parametrize('name, fields, told', [
    ('dsonas', {'momentum': 1.0}, 'momentum=1.0'), ('dsonas', {'periods': 1}, 'periods=1'),
    ('sparsenas', {'group': -1.0}, 'group=-1.0'), ('sparsenas', {'momentum': -1.0}, 'momentum=-1.0'),
    ('bayesnas', {'sparsity': 0.0}, 'sparsity=0.0'), ('bayesnas', {'decay': 1.0}, 'decay=1.0')])
def test_bad_fields_are_told(name, fields, told):
  with pytest.raises(UserError, match=told):
    make(name, **fields)
