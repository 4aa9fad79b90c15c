import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ONE_EDGE, SLOW, fixed
from ml_collections import ConfigDict

from vimnas_jax import config as config_lib
from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, Method, Step
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.runs import optim, state, steps
from vimnas_jax.verbs import outcome


def _setup(method='vimnas', dtype=jnp.float32, pretrain=0, parts=1, remat=False, channels=8, theta_lr=0.025, **fields):
  space = spaces.get(ONE_EDGE)
  net = Supernet(space=space, cells=1, channels=channels, num_classes=3, dtype=dtype, param_dtype=dtype,
                 remat=remat)
  config = config_lib.defaults()
  config.method = ConfigDict({'name': method, **methods.fields(method), **fields})
  config.theta.lr, config.theta.lr_end, config.phi.lr, config.phi.fall = theta_lr, theta_lr, 0.1, 0.0
  config = config_lib.resolve(config)
  made, plan = methods.get(config.method), steps.Plan(pretrain, 10, 'single_path', parts)
  tx = optim.theta(config.theta, plan.steps), optim.phi(config.phi, plan.search_steps)
  found = steps.search_steps(net, made, space, plan, fixed(*tx), lambda key, x: x.astype(dtype) / 255)
  step = found['search'] if pretrain == 0 else found
  now = jax.jit(lambda: state.create(state.root(0), net, made, space, *tx, (4, 4, 3)))()
  keys = jax.random.split(jax.random.key(5), 2)
  batch = {}
  for prefix, key in zip(('', 'valid_'), keys):
    batch[prefix + 'images'] = jax.random.randint(key, (8, 4, 4, 3), 0, 255).astype(jnp.uint8)
    batch[prefix + 'labels'] = jnp.arange(8) % 3
  return net, made, step, now, batch


def _norm(tree):
  return float(np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(jax.device_get(tree)))))


def test_one_backward_pass_gives_both_gradients(x64):
  net, method, step, now, batch = _setup(dtype=jnp.float64)
  key = jax.random.key(9)
  xi = jax.random.split(key, 4)[0]

  def loss(theta, params):
    weights, _ = method.sample({**now.phi, 'params': params}, xi, Clock(0, 10))
    logits = net.apply({'params': theta}, batch['images'].astype(jnp.float64) / 255, weights)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch['labels']).mean()

  grads = [jax.jit(jax.grad(loss, i))(now.theta, now.phi['params']) for i in (0, 1)]
  # in NumPy from here on: JAX would compile a program for every leaf
  after, metrics, now, g_theta, g_phi = jax.device_get((*jax.jit(step)(now, batch, key), now, *grads))
  for name, tree in (('theta', g_theta), ('phi', g_phi)):
    np.testing.assert_allclose(metrics[f'grad_{name}'], _norm(tree), rtol=1e-6)
  # the first SGD step is lr * (clipped gradient + decay)
  norm = _norm(g_theta)
  clipped = jax.tree.map(lambda g: g * min(1.0, 5.0 / norm), g_theta)
  want = jax.tree.map(lambda w, g: w - 0.025 * (g + 3e-4 * w), now.theta, clipped)
  for a, b in zip(jax.tree.leaves(after.theta), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
  want = jax.tree.map(lambda w, g: w - 0.1 * g, now.phi['params'], g_phi)
  for a, b in zip(jax.tree.leaves(after.phi['params']), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
  # and the gradients agree with differences
  loss = jax.jit(loss)
  rng = np.random.default_rng(0)
  for argument, grad in ((0, g_theta), (1, g_phi)):
    at = [now.theta, now.phi['params']]
    at = [jax.tree.map(np.float64, a) for a in at]
    way = jax.tree.map(lambda x: rng.standard_normal(x.shape), at[argument])

    def along(t, argument=argument, at=at, way=way):
      moved = list(at)
      moved[argument] = jax.tree.map(lambda x, move: x + t * move, at[argument], way)
      return float(loss(*moved))

    slope = (along(1e-6) - along(-1e-6)) / 2e-6
    expected = sum((g * d).sum() for g, d in zip(jax.tree.leaves(grad), jax.tree.leaves(way), strict=True))
    assert slope == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize('method', ['vimnas', 'darts', 'rsps'])
def test_step_is_traced_once_and_descends(x64, method):
  """With theta alone moved and the same xi again, the loss has fallen by what the gradient and a small rate say."""
  rate = 1e-6
  _, made, step, start, batch = _setup(method, jnp.float64, theta_lr=rate)
  traced = []

  @jax.jit
  def counted(now, batch, key):
    traced.append(1)
    return step(now, batch, key)

  before = jax.device_get(made.probs(start.phi))['cell']
  for i in range(3):
    after, first = counted(start, batch, jax.random.key(i))
    moved = not np.array_equal(before, jax.device_get(made.probs(after.phi))['cell'])
    assert moved == (method != 'rsps')
    _, second = counted(start.replace(theta=after.theta), batch, jax.random.key(i))
    norm = float(first['grad_theta'])
    assert float(first['loss'] - second['loss']) == pytest.approx(rate * min(norm, 5.0) * norm, rel=0.1)
  assert len(traced) == 1


@pytest.mark.parametrize('separate', [pytest.param(False, marks=SLOW), True])
def test_parts_of_a_batch_and_recomputed_cells(x64, separate):
  """Two parts give the mean of their gradients; computing cells again changes nothing.

  Where samples go through the supernet separately a part has one of them.
  """
  parts = 2
  net, method, step, now, batch = _setup(dtype=jnp.float64, parts=1 if separate else parts, remat=True,
                                         samples=2 if separate else 4, separate=separate)
  net = net.clone(remat=False)
  key = jax.random.key(9)
  xi = jax.random.split(key, 4)[0]

  def loss(theta, params, part, images, labels):
    weights, _ = method.sample({**now.phi, 'params': params}, xi, Clock(0, 10))
    if separate:
      weights = {name: jax.lax.dynamic_slice_in_dim(rows, part, 1) for name, rows in weights.items()}
    logits = net.apply({'params': theta}, images.astype(jnp.float64) / 255, weights)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  grad = jax.jit(jax.grad(loss, (0, 1)))
  shares = [grad(now.theta, now.phi['params'], i, batch['images'][i::parts], batch['labels'][i::parts])
            for i in range(parts)]
  g_theta, g_phi = jax.tree.map(lambda *g: sum(g) / parts, *jax.device_get(shares))
  _, metrics = jax.jit(step)(now, batch, key)
  np.testing.assert_allclose(metrics['grad_theta'], _norm(g_theta), rtol=1e-6)
  np.testing.assert_allclose(metrics['grad_phi'], _norm(g_phi), rtol=1e-6)


def test_a_batch_that_samples_cannot_share_is_refused():
  """Kernels and the plain form alike would take images of one sample for those of another."""
  net, _, _, now, batch = _setup()
  with pytest.raises(UserError, match='8 images do not fall into 3 equal groups'):
    net.apply({'params': now.theta}, batch['images'] / 255, {'cell': jnp.full((3, 1, 2), 0.2)})


def test_pretraining_moves_theta_alone():
  _, _, found, now, batch = _setup(pretrain=2)
  assert found['pretrain'] is found['search']  # one program, which compiles once
  step = jax.jit(found['search'])
  first = jax.device_get((now.theta, now.phi, now.opt_phi))
  for i in range(3):
    now, _ = step(now, batch, jax.random.key(i))
    for before, after in zip(first[1:], jax.device_get((now.phi, now.opt_phi))):  # its optimiser waits as well
      pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
      same = all(np.array_equal(a, b) for a, b in pairs)
      assert same == (i < 2)
  assert not np.array_equal(first[0]['head'], now.theta['head'])


def test_a_step_is_read_off_by_the_clock_at_its_end():
  """The third of the search moves phi at 2; what a method does after it, and what is read off it, is at 3."""
  def update(method, problem, now, batches, clock):
    return now, {'during': clock.step}

  def read(phi, clock):
    return {'cell': (clock.step, phi['fixed'])}

  made = Method(None, None, read, Step(update), scores=read, after=lambda phi, clock: {**phi, 'fixed': clock.step})
  plan, one = steps.Plan(4, 10, 'noise'), {'w': jnp.ones(1)}
  phase = steps.phases(made, spaces.get(ONE_EDGE), plan)[-1]
  step = steps.search_step(made, lambda length: None, plan, phase, lambda key, images: images)
  now = state.SearchState(jnp.int32(6), one, {'params': one, 'fixed': 0}, {}, {}, None)
  after, metrics = step(now, {'images': None, 'labels': None}, jax.random.key(0))
  assert metrics['during'] == 2 and metrics['probs'] == metrics['scores'] == {'cell': (3, 3)}
  assert after.step == 7 and after.phi['fixed'] == 3


def test_bilevel_phi_descends_the_validation_batch():
  """With a validation batch of one class, alpha's step must not depend on the training labels."""
  _, _, step, now, batch = _setup('darts')
  step, key = jax.jit(step), jax.random.key(1)
  a, _ = step(now, batch, key)
  b, _ = step(now, {**batch, 'labels': batch['labels'][::-1]}, key)
  c, _ = step(now, {**batch, 'valid_labels': batch['valid_labels'] * 0}, key)
  assert np.array_equal(a.phi['params']['cell'], b.phi['params']['cell'])
  assert not np.array_equal(a.phi['params']['cell'], c.phi['params']['cell'])
  _, _, step, now, batch = _setup('darts', phi_first=False)
  d, _ = jax.jit(step)(now, batch, key)
  e, _ = jax.jit(step)(now, {**batch, 'labels': batch['labels'][::-1]}, key)
  assert not np.array_equal(d.phi['params']['cell'], e.phi['params']['cell'])  # theta moved first


def test_dead_rows_are_found():
  space = spaces.get('nb201')
  method = methods.get(ConfigDict({'name': 'vimnas', **methods.fields('vimnas'), 'last': 'relu'}))
  phi = method.init(jax.random.key(0), space)
  assert not steps.dead_rows(method, phi)['cell'].all()
  last = phi['params']['cell']['mu'][-1]
  last['kernel'] = -jnp.abs(last['kernel'])
  phi['params']['cell']['mu'][-2]['bias'] += 100.0
  assert steps.dead_rows(method, phi)['cell'].all()


def test_a_table_has_no_dead_rows():
  """Its logits are zero at the start and have their gradient all the same."""
  method = methods.get(ConfigDict({'name': 'vimnas', **methods.fields('vimnas'), 'variant': 'table'}))
  phi = method.init(jax.random.key(0), spaces.get('nb201'))
  assert steps.dead_rows(method, phi) == {} and not method.logits(phi)['cell'].any()


def test_phi_has_as_many_steps_as_it_moves_in():
  """Of every depth, of R-DARTS between two starts of its optimiser, of ENAS every fourth: so a rate is whole."""
  plan = steps.Plan(5, 75, 'noise')
  for name, want in (('darts', [(80, 75)]), ('pcdarts', [(80, 75 - 22)]), ('rdarts_l2', [(80, 19)]),
                     ('enas', [(80, 18)]), ('pdarts', [(30, 15), (25, 15), (25, 15)])):
    made = methods.get(ConfigDict({'name': name, **methods.fields(name)}))
    assert [(length.theta, length.phi) for length in steps.lengths(made, plan)] == want, name
  config = config_lib.resolve(config_lib.changed(
      config_lib.defaults(), 'method.name=pdarts phi.lr=1.0 phi.lr_end=0.5 phi.until=0.8 phi.fall=0.2'))
  of = optim.phi_rate(config.phi, steps.lengths(methods.get(config.method), plan)[1].phi)
  assert [round(float(of(i)), 3) for i in (0, 9, 12, 14)] == [1.0, 0.531, 0.0, 0.0]


def test_the_time_of_a_search_is_that_of_all_its_steps():
  """Cheap ones, dear ones, and those after the last line at the median step."""
  rows = [{'step': 5, 'seconds': 1.0}, {'step': 10, 'seconds': 9.0}, {'step': 12, 'seconds': 2.0}]
  assert outcome.estimated(rows, 12, 3.0) == 5 + 45 + 4 and outcome.estimated(rows, 14, 3.0) == 5 + 45 + 4 + 6
  assert outcome.estimated([], 4, 3.0) == 12
