"""Methods that learn a distribution over architectures: PARSEC, ASNG-NAS, SI-VDNAS."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from test_papers import VALID_XI, XI, Net, make, same, setup

from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, asng, sivdnas
from vimnas_jax.runs.state import SearchState

TWO_NODES = spaces.get(str(ROOT / 'examples' / 'two_nodes.py'))  # three edges of four operations


def moved(theta, grads):
  """Theta after the first step of momentum SGD, clipped at 5."""
  scale = min(1.0, 5.0 / float(optax.tree.norm(grads)))
  return jax.tree.map(lambda w, g: w - 0.025 * (scale * g + 3e-4 * w), theta, grads)


def losses_of(theta, batch, part, rows):
  """Cross-entropies [draws] of the batch with each of the one-hot rows [draws, edges, ops]."""
  def loss(a):
    logits = Net().apply({'params': theta}, batch[f'{part}images'] / 255, {'cell': a[None]})
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[f'{part}labels']).mean()

  return jax.vmap(loss)(rows)


def drawn(made, now, key, which, draws):
  """What a step draws for one of its batches, [draws, edges, ops]."""
  return jax.jit(jax.vmap(lambda k: made.sample(now.phi, k, Clock(0, 9))[0]['cell'][0]))(
      jax.random.split(jax.random.split(key, 4)[which], draws))


def test_parsec_ascends_the_marginal_likelihood(x64):
  """Its two gradients against autodiff through the logarithm of the mean likelihood, priors as products."""
  made, step, now, batch, _, _ = setup('parsec', draws=3)
  key, alpha = jax.random.key(3), now.phi['params']['cell'] / 300
  now = now.replace(phi={'params': {'cell': alpha}, 'fixed': {}})
  train, valid = (drawn(made, now, key, which, 3) for which in (XI, VALID_XI))

  def evidence(theta):
    return -jnp.log(jnp.exp(-8 * losses_of(theta, batch, '', train)).mean()) / 8

  after, metrics = step(now, batch, key)
  theta = moved(now.theta, jax.jit(jax.grad(evidence))(now.theta))
  same(after.theta, theta, rtol=1e-8)

  def prior(alpha):
    return jnp.prod((jax.nn.softmax(alpha)[None] * valid).sum(2), 1)

  def marginal(alpha):
    ratio = prior(alpha) / jax.lax.stop_gradient(prior(alpha))
    return -jnp.log((ratio * jnp.exp(-8 * losses_of(theta, batch, 'valid_', valid))).mean()) / 8

  gradient = jax.jit(jax.grad(marginal))(alpha)
  np.testing.assert_allclose(optax.tree.get(after.opt_phi, 'mu')['cell'] / 0.5, gradient, rtol=1e-8, atol=1e-12)
  assert float(metrics['grad_phi']) == pytest.approx(float(jnp.linalg.norm(gradient)))
  weights = np.exp(-8 * np.asarray(jax.jit(lambda: losses_of(theta, batch, 'valid_', valid))()))
  assert float(metrics['effective_draws']) == pytest.approx(weights.sum() ** 2 / (weights ** 2).sum())


def run(made, problem, state, batch, steps=1):
  """The state after `steps` steps, compiled as one program."""
  def body(i, now):
    keys = jax.random.split(jax.random.fold_in(jax.random.key(7), i))
    batches = {name: methods.Batch(*batch, key) for name, key in zip(('train', 'valid'), keys)}
    return made.step.update(made, problem, now, batches, Clock(i, steps))[0]

  return jax.jit(lambda now: jax.lax.fori_loop(0, steps, body, now))(state)


def start(made, space, tx_theta, tx_phi, phi=None):
  theta, phi = {'w': jnp.zeros(())}, phi or made.init(jax.random.key(0), space)
  return SearchState(jnp.int32(0), theta, phi, tx_theta.init(theta), tx_phi.init(phi['params']), None)


def costs(table, every, pair=0.3):
  """What `taken` says of one-hot rows `every` [architectures, edges, ops], in NumPy."""
  return (every * np.asarray(table)).sum((1, 2)) - pair * every[:, 0, 1] * every[:, 2, 3]


def taken(table, pair=0.3):
  """A loss that is a sum over the edges of what their operation costs, and of one pair that goes together."""
  def loss(theta, weights, key, images, labels):
    rows = weights['cell'][0]
    return 0 * theta['w'] + (rows * table).sum() - pair * rows[0, 1] * rows[2, 3], jnp.zeros(())
  return loss


def test_parsec_weighs_as_the_enumeration_of_a_space(x64):
  """The gradient from many draws is that of the log marginal likelihood over all 64 architectures."""
  made, rng = make('parsec', draws=4000), np.random.default_rng(0)
  table, alpha = jnp.array(rng.uniform(0, 0.5, (3, 4))), jnp.array(0.5 * rng.normal(size=(3, 4)))
  tx = optax.sgd(1.0)
  now = start(made, TWO_NODES, tx, tx, {'params': {'cell': alpha}, 'fixed': {}})
  batch = jnp.zeros((8, 2, 2, 3)), jnp.zeros(8, jnp.int32)
  problem = methods.Problem(TWO_NODES, taken(table), tx, tx, tx)
  got = alpha - run(made, problem, now, batch).phi['params']['cell']
  every = np.eye(4)[np.array(list(itertools.product(range(4), repeat=3)))]
  likelihood = np.exp(-8 * costs(table, every))

  def exact(alpha):
    prior = jnp.prod((jax.nn.softmax(alpha)[None] * every).sum(2), 1)
    return -jnp.log((prior * likelihood).sum()) / 8

  want = jax.jit(jax.grad(exact))(alpha)
  assert float(jnp.abs(want).max()) > 0.03
  np.testing.assert_allclose(got, want, atol=0.003)


def test_asng_moves_as_the_paper_against_loops(x64):
  """Three steps in NumPy, the Fisher matrix written out, with a tie and with utilities of more draws than two."""
  rng = np.random.default_rng(0)
  fixed = make('asng').init(jax.random.key(0), TWO_NODES)['fixed']
  p, s, filled, slow = np.full((3, 4), 0.25), np.zeros(9), 0.0, 1.0
  for losses, u in (([0.5, 0.2], [-1, 1]), ([0.4, 0.4], None), ([3.0, 1.0, 2.0, 1.0], [-1, 0.5, 0, 0.5]),
                    ([0.1, 0.3], [1, -1])):
    rows = np.eye(4)[rng.integers(0, 4, (len(losses), 3))]
    fixed = jax.jit(lambda *of: asng.moved(*of, 1.5, 1.0))(fixed, {'cell': jnp.array(rows)}, jnp.array(losses))
    if u is not None:
      u = np.array(u, float)
      g = np.mean((u - u.mean())[:, None, None] * (rows - p[None]), 0)
      white, length2 = [], 0.0
      for e in range(3):
        fisher = np.diag(1 / p[e, :3]) + 1 / p[e, 3]
        length2 += g[e, :3] @ fisher @ g[e, :3]
        white += [g[e, k] / p[e, k] ** 0.5 + p[e, k] ** 0.5 * g[e, :3].sum() / (p[e, 3] + p[e, 3] ** 0.5)
                  for k in range(3)]
      assert np.sum(np.square(white)) == pytest.approx(length2)
      b = 1.0 / slow / 9 ** 0.5
      p = p + g / slow / length2 ** 0.5
      s = (1 - b) * s + np.sqrt(b * (2 - b)) * np.array(white) / length2 ** 0.5
      filled = (1 - b) ** 2 * filled + b * (2 - b)
      slow *= np.exp(b * (filled - s @ s / 1.5))
      least = 1 / 9
      for e in range(3):
        row = np.maximum(p[e], least)
        p[e] = row - (row.sum() - 1) * (row - least) / (row.sum() - 4 * least)
    np.testing.assert_allclose(fixed['p']['cell'], p, rtol=1e-6)
    np.testing.assert_allclose(fixed['s']['cell'].ravel(), s, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose((fixed['filled'], fixed['slow']), (filled, slow), rtol=1e-6)


def test_asng_stays_on_the_simplex_and_finds_the_best():
  made, tx = make('asng'), optax.sgd(0.0)
  table = jnp.array(np.random.default_rng(0).uniform(0.4, 1, (3, 4)), jnp.float32)
  table = table.at[jnp.arange(3), jnp.array([2, 0, 3])].set(0)
  problem = methods.Problem(TWO_NODES, taken(table, 0.1), tx, tx, tx)
  batch = jnp.zeros((2, 2, 2, 3)), jnp.zeros(2, jnp.int32)
  for steps in (3, 600):
    p = np.asarray(run(made, problem, start(made, TWO_NODES, tx, tx), batch, steps).phi['fixed']['p']['cell'])
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    assert p.min() >= asng.bound(3, 4) - 1e-6 and not np.allclose(p, 0.25)
  every = np.array(list(itertools.product(range(4), repeat=3)))
  best = every[np.argmin(costs(table, np.eye(4)[every], 0.1))]
  assert np.array_equal(p.argmax(1), best) and p.max(1).min() > 0.5
  assert [asng.bound(6, 5), asng.bound(28, 2), asng.bound(1, 2)] == [1 / 24, 1 / 28, 1 / 4]


def test_asng_takes_the_mean_of_its_draws_for_theta(x64):
  made, step, now, batch, _, _ = setup('asng', draws=3)
  key = jax.random.key(3)
  train, valid = (drawn(made, now, key, which, 3) for which in (XI, VALID_XI))
  after, metrics = step(now, batch, key)
  gradient = jax.jit(jax.grad(lambda theta: losses_of(theta, batch, '', train).mean()))(now.theta)
  same(after.theta, moved(now.theta, gradient), rtol=1e-8)
  want = jax.jit(lambda: asng.moved(now.phi['fixed'], {'cell': valid}, losses_of(after.theta, batch, 'valid_', valid),
                                    1.5, 1.0))()
  same(after.phi['fixed'], want, rtol=1e-8)
  assert float(metrics['length']) == pytest.approx(1 / float(want['slow']))


def kl(log_delta):
  """Molchanov et al. (2017), equation 14, of Gaussian noise whose variance is delta times the square of the mean."""
  return 0.63576 - 0.63576 / (1 + jnp.exp(-1.8732 - 1.48695 * log_delta)) + 0.5 * jnp.log1p(jnp.exp(-log_delta))


def test_sivdnas_descends_what_its_noise_and_its_prior_say(x64):
  """The gradient by hand: the draw written out, the mean divergence as an integral over log delta."""
  made, step, now, batch, _, config = setup('sivdnas', sparsity=0.1, samples=1)
  params = {'mean': now.phi['params']['cell']['mean'], 'log_delta': jnp.linspace(-3, 1, 30).reshape(6, 5),
            'log_spread': jnp.linspace(-2, -0.6, 30).reshape(6, 5)[::-1]}
  now, key = now.replace(phi={'params': {'cell': params}, 'fixed': {}}), jax.random.key(3)
  own = jax.random.fold_in(jax.random.split(key, 4)[VALID_XI], 0)
  eta, xi = (jax.random.normal(k, (1, 6, 5))[0] for k in jax.random.split(own))
  grid = jnp.linspace(-8, 8, 801)[:, None, None]
  density = jnp.exp(-grid ** 2 / 2) / jnp.exp(-grid ** 2 / 2).sum()

  @jax.jit
  @jax.grad
  def gradient(p):
    log_delta = p['log_delta'] + jnp.exp(p['log_spread']) * eta
    alpha = p['mean'] + p['mean'] * jnp.sqrt(jnp.exp(log_delta)) * xi
    logits = Net().apply({'params': now.theta}, batch['valid_images'] / 255, {'cell': jax.nn.softmax(alpha)[None]})
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch['valid_labels']).mean()
    return loss + 0.1 * (density * kl(p['log_delta'][None] + jnp.exp(p['log_spread'])[None] * grid)).sum()

  want, (after, metrics) = gradient(params), step(now, batch, key)
  same(jax.tree.map(lambda m: m / 0.5, optax.tree.get(after.opt_phi, 'mu')['cell']), want, rtol=1e-5, atol=1e-7)
  assert float(metrics['grad_phi']) == pytest.approx(float(optax.tree.norm(want)), rel=1e-6)
  assert min(float(jnp.abs(g).max()) for g in want.values()) > 1e-3


def test_sivdnas_has_noise_that_grows_with_the_mean_and_a_prior_that_likes_it():
  made = make('sivdnas', samples=4000, delta=0.3, spread=0.4)
  mu = jnp.array([[0.5, -1.0, 2.0, 0.0], [0.1, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
  phi = made.init(jax.random.key(0), TWO_NODES)
  phi = {**phi, 'params': {'cell': {**phi['params']['cell'], 'mean': mu}}}
  (weights, _), kls = jax.jit(lambda: (made.sample(phi, jax.random.key(1), Clock(0, 1)), sivdnas.expected_kl(
      jnp.linspace(-4, 4, 9), jnp.full(9, 0.4))))()
  logits = np.log(weights['cell'])
  alpha = logits - logits[..., 3:]  # the last operation's alpha has no noise: its mean is 0
  np.testing.assert_allclose(alpha.mean(0), mu, atol=0.05)
  np.testing.assert_allclose(alpha.var(0), np.square(mu) * 0.3 * np.exp(0.08), rtol=0.15, atol=1e-9)
  assert (np.diff(kls) < 0).all() and float(kls[-1]) < 0.02


@pytest.mark.parametrize('name, fields, told', [('parsec', {'draws': 1}, 'draws=1'), ('asng', {'draws': 1}, 'draws=1'),
                                                ('asng', {'delta': 0.0}, 'delta=0.0'),
                                                ('sivdnas', {'spread': 0.0}, 'spread'),
                                                ('sivdnas', {'sparsity': -1.0}, 'sparsity=-1.0')])
def test_bad_fields_are_told(name, fields, told):
  with pytest.raises(UserError, match=told):
    make(name, **fields)
