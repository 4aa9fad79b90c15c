import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SLOW, fixed
from ml_collections import ConfigDict

from vimnas_jax import config as config_lib
from vimnas_jax import methods, spaces
from vimnas_jax.methods import Clock, topology, updates
from vimnas_jax.runs import optim, steps
from vimnas_jax.runs.state import SearchState

SPACE = spaces.get('oneshot1')


class Net:
  """Logits that depend on theta, on every row of the architecture and on every choice of the graph."""

  def apply(self, variables, images, weights, rngs=None):
    told = sum((rows.mean(0).ravel() * jnp.arange(1.0, 1.0 + rows[0].size)).sum() for rows in weights.values())
    return images.mean((1, 2, 3))[:, None] * variables['params']['w'][None] + (told * jnp.array([0.1, -0.2, 0.3]))[None]


def setup(method, pretrain=0, **changes):
  config = config_lib.defaults()
  config.method = ConfigDict({'name': method})
  config = config_lib.resolve(config)
  made, plan = methods.get(config.method, SPACE), steps.Plan(pretrain, 9, 'noise')
  made = made._replace(**changes)
  tx_theta, tx_phi = optim.theta(config.theta, 9), steps.phi_optimiser(config, made, 9)

  @jax.jit
  def start():
    theta, phi = {'w': jnp.array([1.0, -1.0, 0.5])}, made.init(jax.random.key(0), SPACE)
    return SearchState(jnp.zeros((), jnp.int32), theta, phi, tx_theta.init(theta), tx_phi.init(phi['params']),
                       jax.random.key_data(jax.random.key(1)))

  now = start()
  found = steps.search_steps(Net(), made, SPACE, plan, fixed(tx_theta, tx_phi), lambda key, x: x / 255)
  found, phases = {name: jax.jit(step) for name, step in found.items()}, steps.phases(made, SPACE, plan)

  def step(now, batch, key):
    return found[next(phase.name for phase in phases if int(now.step) < phase.end)](now, batch, key)

  images = jax.random.randint(jax.random.key(2), (8, 2, 2, 3), 0, 255).astype(jnp.uint8)
  batch = {'images': images, 'labels': jnp.arange(8) % 3, 'valid_images': images[::-1],
           'valid_labels': (jnp.arange(8) + 1) % 3}
  return made, step, now, batch


@pytest.mark.parametrize('method', ['vimnas', 'darts', *(pytest.param(name, marks=SLOW) for name in
                                                         ('darts_noise', 'random'))])
def test_the_graph_descends_the_validation_batch_whatever_the_operations_do(method):
  made, step, now, batch = setup(method)
  assert 'valid' in made.step.batches
  key = jax.random.key(3)
  usual, other_train, other_valid = (step(now, changed, key)[0].phi['params'] for changed in (
      batch, {**batch, 'labels': batch['labels'] * 0}, {**batch, 'valid_labels': batch['valid_labels'] * 0}))

  def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

  assert same(usual['topology'], other_train['topology']) and not same(usual['topology'], other_valid['topology'])
  if method in ('vimnas', 'darts_noise'):
    assert same(usual['method'], other_valid['method']) and not same(usual['method'], other_train['method'])
  elif method == 'darts':
    assert same(usual['method'], other_train['method']) and not same(usual['method'], other_valid['method'])


def test_the_graph_stands_still_while_theta_is_pretrained():
  _, step, now, batch = setup('vimnas', pretrain=2)
  before = jax.device_get((now.theta, now.phi['params']))
  for i in range(3):
    now, _ = step(now, batch, jax.random.key(i))
    rows = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before[1], now.phi['params'])), strict=True)]
    assert all(rows) if i < 2 else not any(np.array_equal(before[1]['topology'][name], row)
                                           for name, row in now.phi['params']['topology'].items())
  assert not np.array_equal(before[0]['w'], now.theta['w'])


def test_the_graph_moves_in_every_step_of_dsonas():
  """Four steps of nine of theta alone, then periods of theta and of the factors, which stay what they are while theta
  moves, whatever their proximal step would make of them.
  """
  made, step, now, batch = setup('dsonas')
  assert all('valid' in one.batches for _, one in made.before)
  for i, whose in enumerate('tttttttff'):
    before = jax.device_get((now.theta, now.phi['params'], now.opt_phi['method']))
    now, metrics = step(now, batch, jax.random.key(i))
    after = jax.device_get((now.theta, now.phi['params'], now.opt_phi['method']))
    for name, row in after[1]['topology'].items():
      assert 1e-5 < np.abs(row - before[1]['topology'][name]).max() < 2 * topology.LR, (i, name)
    same = [all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, pair), strict=True)) for pair in (
        (before[0], after[0]), (before[1]['method'], after[1]['method']), (before[2], after[2]))]
    assert same == ([False, True, True] if whose == 't' else [True, False, False]), i
    assert float(metrics['grad_phi']) > 0
  assert optax.tree.get(now.opt_phi['topology'], 'count') == 9


def test_what_a_method_does_before_its_own_step_has_the_graph_beside_it_too():
  """Its own part moves as it says, the graph's rows by the validation batch alone; equal steps stay one program."""
  alone, joint = updates.theta_only(), updates.single_level()
  own = methods.get(ConfigDict({'name': 'darts', **methods.fields('darts')}))
  made = topology.beside(own._replace(before=((0.3, alone), (0.5, joint), (0.7, own.step), (0.9, alone))),
                         SPACE.choices)
  first, second, third, fourth = (one for _, one in made.before)
  assert first is fourth and third is made.step and second not in (first, third)
  _, step, now, batch = setup('darts', before=made.before)
  now, key = now.replace(step=jnp.int32(3)), jax.random.key(3)
  usual, train, valid = (step(now, changed, key)[0].phi['params'] for changed in (
      batch, {**batch, 'labels': batch['labels'] * 0}, {**batch, 'valid_labels': batch['valid_labels'] * 0}))
  assert np.array_equal(usual['topology']['output'], train['topology']['output'])
  assert not np.array_equal(usual['topology']['output'], valid['topology']['output'])
  assert np.array_equal(usual['method']['cell'], valid['method']['cell'])
  assert not np.array_equal(usual['method']['cell'], train['method']['cell'])


def test_the_graph_moves_by_the_gradient_of_that_batch(x64):
  """Against the loss written out, and Adam's first step: the rate times the sign of gradient and decay."""
  made, step, now, batch = setup('vimnas')
  key = jax.random.key(3)
  xi = jax.random.split(key, 4)[2]

  def loss(rows):
    phi = {**now.phi, 'params': {**now.phi['params'], 'topology': rows}}
    weights, _ = made.sample(phi, xi, Clock(0, 9))
    logits = Net().apply({'params': now.theta}, batch['valid_images'] / 255, weights)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch['valid_labels']).mean()

  rows = now.phi['params']['topology']
  after = step(now, batch, key)[0].phi['params']['topology']
  rows, grads, moved = jax.device_get((rows, jax.jit(jax.grad(loss))(rows), after))
  for name, row in rows.items():
    grad = grads[name] + topology.WEIGHT_DECAY * row
    np.testing.assert_allclose(moved[name] - row, -topology.LR * grad / (np.abs(grad) + 1e-8), rtol=1e-3)


def test_a_method_keeps_its_own_optimiser_beside_the_graph():
  """And its proximal step, which sees the method's part alone."""
  config = config_lib.resolve(config_lib.changed(config_lib.defaults(), 'method.name=darts phi.optimizer=sgd '
                                                 'phi.lr=1.0 phi.weight_decay=0.0 phi.momentum=0.0'))
  made = methods.get(config.method)._replace(
      proximal=lambda params, rate: {name: rows + 10 * rate for name, rows in params.items()},
      optimizer=lambda tx: optax.chain(tx, optax.scale(2.0)))
  tx = steps.phi_optimiser(config, topology.beside(made, {'output': 3}), 4)
  params = {'method': {'cell': jnp.ones(2)}, 'topology': {'output': jnp.zeros(3)}}
  moved, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
  np.testing.assert_allclose(moved['method']['cell'], 2 * (-1.0 + 10), rtol=1e-6)
  np.testing.assert_allclose(moved['topology']['output'], -topology.LR, rtol=1e-4)
  assert set(topology.own_part(params)) == set(topology.own_part(params['method'])) == {'cell'}


@pytest.mark.parametrize('lr', [None, 3e-2])
def test_the_graph_moves_at_its_own_rate(lr):
  """Adam's first step is of the length of the rate; by default the benchmark's."""
  space = spaces.get('oneshot1')
  made = methods.get(ConfigDict({'name': 'darts', **methods.fields('darts')}), space, lr)
  params = jax.tree.map(jnp.ones_like, made.init(jax.random.key(0), space)['params'])
  tx = made.optimizer(optax.sgd(0.5))
  moves, _ = tx.update(params, tx.init(params), params)
  for row in moves['topology'].values():
    np.testing.assert_allclose(row, -(lr or 3e-4), rtol=1e-4)
  np.testing.assert_allclose(jax.tree.leaves(moves['method'])[0], -0.5)


@pytest.mark.parametrize('decay', [None, 0.0])
def test_the_graph_has_its_own_decay(decay):
  """An L2 of the benchmark's pulls back what a gradient of a ten-thousandth pushes; without one it goes on."""
  space = spaces.get('oneshot1')
  made = methods.get(ConfigDict({'name': 'darts', **methods.fields('darts')}), space, 1e-2, decay)
  params = jax.tree.map(jnp.ones_like, made.init(jax.random.key(0), space)['params'])
  tx = made.optimizer(optax.sgd(0.5))
  moves, _ = tx.update(jax.tree.map(lambda p: -1e-4 * p, params), tx.init(params), params)
  for row in moves['topology'].values():
    np.testing.assert_allclose(row, 1e-2 if decay == 0 else -1e-2, rtol=1e-3)


def test_rows_of_the_graph_take_noise_where_it_is_asked_for():
  """One draw for every sample of the method, in a step; what is read off has none."""
  space = spaces.get('oneshot1')
  config = ConfigDict({'name': 'vimnas', **methods.fields('vimnas'), 'variant': 'table', 'samples': 4})
  still, noisy = (methods.get(config, space, graph_noise=noise) for noise in (0.0, 0.5))
  phi, clock = still.init(jax.random.key(0), space), Clock(3, 10)
  draws = [jax.jit(lambda i, made=made: made.sample(phi, jax.random.key(i), clock)[0]) for made in (still, noisy)]
  assert draws[0](1)['output'].shape == (1, 5) and draws[1](1)['output'].shape == (4, 5)
  np.testing.assert_allclose(still.probs(phi)['output'], noisy.probs(phi)['output'])
  np.testing.assert_array_equal(draws[0](1)['cell'], draws[1](1)['cell'])
  xi = np.stack([np.log(draws[1](i)['output']) for i in range(300)])  # [draws, samples, candidates]
  xi -= xi.mean(-1, keepdims=True)  # softmax drops each row's mean, a fifth of the variance
  assert xi.var() == pytest.approx(0.5**2 * 4 / 5, rel=0.1)
  assert abs(np.mean(xi[:, 0] * xi[:, 1])) < 0.02


def test_a_row_can_be_mixed_by_the_sets_that_are_kept():
  """Against a sum over all sets by hand; of one it is softmax; where two lead they have half each."""
  row = np.random.default_rng(0).normal(size=(3, 5))
  want = np.zeros((3, 5))
  for a in range(5):
    for b in range(a):
      want[:, [a, b]] += np.exp(row[:, a] + row[:, b])[:, None]
  np.testing.assert_allclose(topology.share(jnp.asarray(row), 2), want / want.sum(-1, keepdims=True), rtol=1e-5)
  np.testing.assert_allclose(topology.share(jnp.asarray(row), 1), jax.nn.softmax(row), rtol=1e-5)
  np.testing.assert_allclose(topology.share(jnp.array([9.0, 0.0, 8.0, -1.0]), 2), [0.5, 0, 0.5, 0], atol=1e-3)
  space = spaces.get('oneshot1')
  assert space.topology.keeps == {'inputs_3': 2, 'inputs_4': 2, 'output': 2}
  config = ConfigDict({'name': 'vimnas', **methods.fields('vimnas'), 'variant': 'table', 'samples': 4})
  made = methods.get(config, space, graph_sets=True)
  phi = made.init(jax.random.key(0), space)
  phi['params']['topology']['output'] = jnp.array([0.0, 9.0, 0.0, 9.0, 0.0])
  for rows in (made.probs(phi), made.sample(phi, jax.random.key(1), Clock(1, 2))[0]):
    np.testing.assert_allclose(rows['output'], [[0, 0.5, 0, 0.5, 0]], atol=1e-3)
  assert space.topology.margins(made.probs(phi))['output'] == pytest.approx(0.5, abs=1e-3)
