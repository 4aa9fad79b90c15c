"""Each method's update against its paper's, written out anew, in double precision on a small net."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT, SLOW
from ml_collections import ConfigDict

from vimnas_jax import config as config_lib
from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, gdas, pcdarts, rsps, sdarts, sgas, updates
from vimnas_jax.networks.mixing import Mixture
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.runs import steps
from vimnas_jax.runs.state import SearchState

SPACE = spaces.get('nb201')
XI, VALID_XI = 0, 2  # which of the four keys of a step serve the draws of the two batches


def make(name, **fields):
  return methods.get(ConfigDict({'name': name, **methods.fields(name), **fields}))


class Net:
  """Logits that are smooth in theta and in the mixing weights, and not linear in either."""

  def clone(self, **fields):
    return self

  def apply(self, variables, images, weights, rngs=None):
    rows = weights['cell']
    more = [part for part in rows[2:4] if part is not None] if isinstance(rows, Mixture) else []  # shift, skip
    rows = rows.ops if isinstance(rows, Mixture) else rows
    told = jnp.tanh(rows.mean(0).ravel() @ variables['params']['v'])
    for part in more:
      told = told + part.sum()
    return jnp.tanh(images.mean((1, 2)) @ variables['params']['w']) * told[None]


def fresh(key):
  return {'w': jax.random.normal(key, (3, 4), jnp.float64), 'v': jax.random.normal(key, (30, 4), jnp.float64)}


def setup(name, theta_fields=(), total=9, before=0, **fields):
  """(method, its step, the state, a batch, f(theta, params, sample, part, key) the loss written out, the config)."""
  config = config_lib.defaults()
  config.space.name = 'nb201'
  config.method = ConfigDict({'name': name, **methods.fields(name), **fields})
  config.theta.update(dict(theta_fields))
  config = config_lib.resolve(config)
  made = methods.get(config.method)
  plan = steps.Plan(before, total, 'noise')
  tx = steps.optimisers(config, made, steps.lengths(made, plan)[0])
  rng = np.random.default_rng(0)
  theta = {'w': jnp.array(rng.normal(size=(3, 4))), 'v': jnp.array(rng.normal(size=(30, 4)))}
  phi = made.init(jax.random.key(0), SPACE)
  phi = {**phi, 'params': jax.tree.map(lambda x: x.astype(jnp.float64) * 300, phi['params'])}
  now = SearchState(jnp.zeros((), jnp.int32), theta, phi, tx.theta.init(theta), tx.phi.init(phi['params']),
                    jax.random.key_data(jax.random.key(1)))
  if made.carry:
    now = now.replace(phi=made.carry(now))
  found = steps.search_steps(Net(), made, SPACE, plan, lambda length: steps.optimisers(config, made, length),
                             lambda key, x: x / 255, fresh)
  images = jnp.array(rng.integers(0, 255, (8, 2, 2, 3)), jnp.float64)
  batch = {'images': images, 'labels': jnp.arange(8) % 4, 'valid_images': images[::-1] * 0.7,
           'valid_labels': (jnp.arange(8) + 1) % 4}

  def loss(theta, params, part, key, sample=made.sample):
    weights, _ = sample({**now.phi, 'params': params}, key, Clock(0, total))
    logits = Net().apply({'params': theta}, batch[f'{part}images'] / 255, weights)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[f'{part}labels']).mean()

  return made, jax.jit([*found.values()][-1]), now, batch, loss, config


def first_adam_step(params, grads, config):
  """What Adam's first step adds: the rate times the sign of gradient and decay, for all but tiny gradients."""
  def move(p, g):
    g = g + config.phi.weight_decay * p
    return p - config.phi.lr * g / (np.abs(g) + 1e-8)

  return jax.tree.map(move, params, grads)


def same(got, want, **tolerance):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), got, want)


@pytest.mark.parametrize('unrolled, tolerance', [pytest.param('exact', 1e-9, marks=SLOW), ('finite', 1e-4)])
def test_darts_of_second_order_goes_through_a_step_of_theta(x64, unrolled, tolerance):
  """Autodiff through momentum SGD, with its buffer and decay and without clipping, as equation 6 has it."""
  _, step, now, batch, loss, config = setup('darts', {'lr': 0.3, 'clip': 1e-3}, unrolled=unrolled)
  buffer = jax.tree.map(lambda w: 0.1 * w, now.theta)
  now = now.replace(opt_theta=optax.tree.set(now.opt_theta, trace=buffer))
  key = jax.random.key(3)
  train_key, valid_key = (jax.random.split(key, 4)[i] for i in (XI, VALID_XI))

  def outer(params):
    grads = jax.grad(loss)(now.theta, params, '', train_key)
    inner = jax.tree.map(lambda w, g, m: w - 0.3 * (0.9 * m + g + 3e-4 * w), now.theta, grads, buffer)
    return loss(inner, params, 'valid_', valid_key)

  params = now.phi['params']
  first, second = jax.grad(loss, 1)(now.theta, params, 'valid_', valid_key), jax.grad(outer)(params)
  assert float(jnp.abs(first['cell'] - second['cell']).max()) > 1e-3  # the step of theta tells
  _, metrics = step(now, batch, key)
  assert float(metrics['grad_phi']) == pytest.approx(float(optax.tree.norm(second)), rel=tolerance)
  moved = step(now, batch, key)[0]
  moment = optax.tree.get(moved.opt_phi, 'mu')['cell'] / (1 - config.phi.momentum)
  np.testing.assert_allclose(moment, second['cell'] + 1e-3 * params['cell'], rtol=tolerance, atol=tolerance)


@SLOW
def test_second_derivatives_of_the_supernet_are_those_of_differences(x64):
  """`exact` on the real network: pools, depthwise convolutions and BatchNorm among its operations."""
  space = spaces.get(str(ROOT / 'examples' / 'two_nodes.py'))
  net = Supernet(space=space, cells=1, channels=4, num_classes=3, dtype=jnp.float64, param_dtype=jnp.float64,
                 kernels=False)
  images = jnp.array(np.random.default_rng(0).normal(size=(4, 6, 6, 3)))
  weights = {'cell': jnp.full((1, 3, 4), 1 / 4)}
  theta = jax.jit(net.init)(jax.random.key(0), images, weights)['params']
  flat, build = jax.flatten_util.ravel_pytree(theta)
  way = jnp.array(np.random.default_rng(1).normal(size=flat.shape)) / np.sqrt(flat.size)

  @jax.jit
  def slope(flat, rows):  # of the loss along `way`
    def loss(theta):
      return jnp.square(net.apply({'params': build(theta)}, images, {'cell': rows})).mean()
    return jax.grad(loss)(flat) @ way

  rows = weights['cell']
  got = jax.jit(jax.grad(slope, 1))(flat, rows)
  turn = jnp.array(np.random.default_rng(2).normal(size=rows.shape))
  want = (slope(flat, rows + 1e-5 * turn) - slope(flat, rows - 1e-5 * turn)) / 2e-5
  assert float((got * turn).sum()) == pytest.approx(float(want), rel=1e-4)


def test_gdas_runs_one_path_and_learns_through_it(x64):
  """Alpha's gradient by hand: p's of what was drawn, by its output, and of all others, by the sum of gradients."""
  made, step, now, batch, loss, _ = setup('gdas')
  key = jax.random.key(3)
  alpha, valid_key = now.phi['params']['cell'], jax.random.split(key, 4)[VALID_XI]
  mixture, info = made.sample(now.phi, valid_key, Clock(0, 9))
  hard = np.asarray(mixture['cell'].ops)
  assert info['tau'] == 10 and set(np.unique(hard.round(12))) == {0.0, 1.0} and (hard.sum(-1).round(12) == 1).all()
  np.testing.assert_allclose(mixture['cell'].shift, 0, atol=1e-12)
  noise = jax.random.gumbel(jax.random.fold_in(valid_key, 0), (1, 6, 5))
  p = jax.nn.softmax((jax.nn.log_softmax(alpha)[None] + noise) / 10)
  assert np.array_equal(hard.argmax(-1), p.argmax(-1))

  def through(rows, shift):  # the loss as a function of the path alone
    logits = Net().apply({'params': now.theta}, batch['valid_images'] / 255, {'cell': Mixture(rows, shift=shift)})
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch['valid_labels']).mean()

  by_ops, by_shift = jax.grad(through, (0, 1))(jnp.array(hard), jnp.zeros((1, 6)))
  up = np.where(hard > 0.5, by_ops, np.asarray(by_shift)[..., None])

  def soft(alpha):
    return (jax.nn.softmax((jax.nn.log_softmax(alpha)[None] + noise) / 10) * up).sum()

  # theta moves first, so the gradient is taken where it then is
  g_theta = jax.grad(loss)(now.theta, now.phi['params'], '', jax.random.split(key, 4)[XI])
  scale = min(1.0, 5.0 / float(optax.tree.norm(g_theta)))
  moved = jax.tree.map(lambda w, g: w - 0.025 * (scale * g + 3e-4 * w), now.theta, g_theta)
  after, metrics = step(now, batch, key)
  same(after.theta, moved, rtol=1e-8)
  now = now.replace(theta=moved)
  by_ops, by_shift = jax.grad(through, (0, 1))(jnp.array(hard), jnp.zeros((1, 6)))
  up = np.where(hard > 0.5, by_ops, np.asarray(by_shift)[..., None])
  assert float(metrics['grad_phi']) == pytest.approx(float(jnp.linalg.norm(jax.grad(soft)(alpha))), rel=1e-8)


def test_the_temperature_of_gdas_falls_in_a_straight_line():
  """As told, and as alpha's gradient has it."""
  made, noise = make('gdas'), jax.random.gumbel(jax.random.fold_in(jax.random.key(0), 0), (1, 6, 5))
  alpha = jnp.array(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)

  @jax.jit
  @jax.value_and_grad
  def soft(alpha, tau):
    return jax.nn.softmax((jax.nn.log_softmax(alpha)[None] + noise) / tau).max(-1).sum()

  @jax.jit
  def slope(done):
    def drawn(alpha):
      weights, info = made.sample({'params': {'cell': alpha}, 'fixed': {}}, jax.random.key(0), Clock(done, 2))
      return weights['cell'].ops.sum(), info['tau']
    return jax.grad(drawn, has_aux=True)(alpha)

  for done, tau in enumerate((10, 5.05, 0.1)):
    got, told = slope(done)
    assert float(told) == pytest.approx(tau, rel=1e-4)
    np.testing.assert_allclose(got, soft(alpha, tau)[1], rtol=1e-3, atol=1e-5)


@SLOW
def test_gdas_supernet_puts_out_what_its_one_path_does(x64):
  """With everything else taken out of the network by hand, and a shift that is seen everywhere."""
  net = Supernet(space=SPACE, cells=1, channels=4, num_classes=3, dtype=jnp.float64, param_dtype=jnp.float64)
  images = jnp.array(np.random.default_rng(0).normal(size=(2, 8, 8, 3)))
  hard = jax.nn.one_hot(jnp.array([3, 2, 1, 4, 3, 0]), 5, dtype=jnp.float64)[None]
  theta = jax.jit(net.init)(jax.random.key(0), images, {'cell': hard})['params']
  out = jax.jit(lambda theta, rows: net.apply({'params': theta}, images, {'cell': rows}))
  path = out(theta, Mixture(hard, shift=jnp.zeros((1, 6))))
  np.testing.assert_allclose(path, out(theta, hard), rtol=1e-12)
  # weights of operations that no edge runs, here the second 1x1 convolution of five of the edges, change nothing
  other = jax.tree.map(lambda w: w, theta)
  for cell in [name for name in theta if name.startswith('cell')]:
    kernels = theta[cell]['nor_conv_1x1_kernel']  # by source: edges 0, 1 and 3 leave node 0, then 2 and 4, then 5
    other[cell]['nor_conv_1x1_kernel'] = kernels.at[np.array([0, 2, 3, 4, 5])].add(1.0)
  assert not np.allclose(out(other, jnp.full((1, 6, 5), 0.2)), out(theta, jnp.full((1, 6, 5), 0.2)))
  np.testing.assert_allclose(out(other, hard), path, rtol=1e-12)
  assert not np.allclose(out(theta, Mixture(hard, shift=jnp.full((1, 6), 0.1))), path)


def test_sdarts_perturbs_what_theta_sees_alone(x64):
  made, step, now, batch, loss, config = setup('sdarts_rs')
  key = jax.random.key(3)
  train_key, valid_key = (jax.random.split(key, 4)[i] for i in (XI, VALID_XI))
  clean = np.asarray(jax.nn.softmax(now.phi['params']['cell']))
  np.testing.assert_allclose(made.sample(now.phi, key, Clock(0, 9))[0]['cell'][0], clean, rtol=1e-9)
  for done, width in ((0, 0.03), (5, 0.165), (10, 0.3)):
    drawn = [made.sample_theta(now.phi, jax.random.key(i), Clock(done, 10)) for i in range(50)]
    assert float(drawn[0][1]['epsilon']) == pytest.approx(width)
    rows = np.stack([weights['cell'][0] for weights, _ in drawn])
    np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-9)
    # before it is divided by its sum, within bounds: so it is afterwards, by as much as the sum may be off
    low, high = np.clip(clean - width, 0, 1), np.clip(clean + width, 0, 1)
    assert (rows >= low / high.sum(-1, keepdims=True) - 1e-12).all() and (rows >= 0).all() and (rows <= 1).all()
    if width < 0.1:
      assert (rows <= high / low.sum(-1, keepdims=True) + 1e-12).all()
    assert np.abs(rows - clean).max() > width / 3
  np.testing.assert_allclose(sdarts.to_probabilities(jnp.array([[-0.3, -0.1, -0.2], [2.0, 0.5, -1.0]])),
                             [[0, 1, 0], [2 / 3, 1 / 3, 0]])
  # phi first, over clean probabilities; then theta over perturbed ones
  g_phi = jax.grad(loss, 1)(now.theta, now.phi['params'], 'valid_', valid_key)
  params = first_adam_step(now.phi['params'], g_phi, config)
  g_theta = jax.grad(loss)(now.theta, params, '', train_key, made.sample_theta)
  after, metrics = step(now, batch, key)
  same(after.phi['params'], params, rtol=1e-6)
  assert float(metrics['grad_theta']) == pytest.approx(float(optax.tree.norm(g_theta)), rel=1e-6)


def test_sgas_commits_edge_by_edge():
  """Eight decisions for a cell of the DARTS space, at the turns of the paper's schedule, two into every node."""
  made, space = make('sgas'), spaces.get('darts')
  phi = made.init(jax.random.key(0), space)
  after = jax.jit(lambda phi, step: made.after(phi, Clock(step, 100)))
  cell, seen, rng = space.cells['normal'], [0], np.random.default_rng(0)
  targets, before = np.array([t for _, t in cell.edges]), np.full(14, sgas.OPEN)
  older = np.asarray(phi['fixed']['normal']['history'])
  for step in range(1, 101):  # two steps a turn
    moved = {name: jnp.array(rng.normal(size=(14, 8)), jnp.float32) for name in phi['params']}
    phi = after({**phi, 'params': moved}, step)
    chosen, p = np.asarray(phi['fixed']['normal']['chosen']), np.asarray(jax.nn.softmax(moved['normal']))
    seen.append(int((chosen >= 0).sum()))
    history = np.asarray(phi['fixed']['normal']['history'])
    for edge in np.flatnonzero((chosen >= 0) & (before < 0)):
      assert chosen[edge] == 1 + p[edge, 1:].argmax() and cell.ops[edge][0] == 'none'
    assert (chosen[before >= 0] == before[before >= 0]).all()  # what is decided stays so
    if step % 2 == 0:  # the shares of this turn, without `none`
      is_open = chosen == sgas.OPEN
      shares = p[is_open, 1:] / p[is_open, 1:].sum(-1, keepdims=True)
      np.testing.assert_allclose(history[0][is_open], np.pad(shares, ((0, 0), (1, 0))), rtol=1e-5)
      assert np.array_equal(history[1:], older[:-1])  # and those of the three before
    else:
      assert np.array_equal(history, older)
    older = history
    before = chosen
  times = [step for step in range(1, 101) if seen[step] > seen[step - 1]]
  assert times == [20, 30, 40, 50, 60, 70, 80, 90] and seen[-1] == 8
  assert all((chosen[targets == node] >= 0).sum() == 2 for node in range(2, 6)) and (chosen != sgas.OPEN).all()
  (weights, info), scores = made.sample(phi, jax.random.key(0), Clock(99, 100)), made.scores(phi)
  assert info['decided'] == 16 and set(np.unique(weights['normal'])) == {0.0, 1.0}
  assert weights['normal'].sum() == 8  # an edge that was dropped gives nothing
  names = {(op, s, t) for op, s, t in space.genotype(jax.device_get(scores)).cells['normal']}
  assert names == {(cell.ops[e][c], *cell.edges[e]) for e, c in enumerate(chosen) if c >= 0}
  phi = made.init(jax.random.key(0), space)  # a search of fewer steps than turns decides as much
  for step in range(1, 6):
    phi = made.after(phi, Clock(jnp.int32(step), 5))
  assert int((phi['fixed']['normal']['chosen'] >= 0).sum()) == 8


def test_the_criterion_of_sgas_against_loops(x64):
  rng = np.random.default_rng(0)
  p, history = rng.dirichlet(np.ones(8), 14), rng.dirichlet(np.ones(7), (4, 14))
  real = np.array([[i > 0 for i in range(8)]] * 14)

  def to_unit(x):
    return (x - x.min()) / (x.max() - x.min())

  importance = p[:, 1:].sum(1)
  rows = p[:, 1:] / importance[:, None]
  certainty = 1 - np.array([-(row * np.log(row)).sum() for row in rows]) / np.log(7)
  stability = np.array([np.mean([np.minimum(rows[e], old[e]).sum() for old in history]) for e in range(14)])
  one, held = to_unit(importance) * to_unit(certainty), jnp.pad(history, ((0, 0), (0, 0), (1, 0)))
  np.testing.assert_allclose(sgas.criterion(jnp.array(p), held, jnp.array(real), False), one, rtol=1e-9)
  np.testing.assert_allclose(sgas.criterion(jnp.array(p), held, jnp.array(real), True), one * to_unit(stability),
                             rtol=1e-9)


@pytest.mark.parametrize('name', ['nb201', 'darts', 's2'])
def test_rsps_draws_what_a_space_keeps_and_takes_the_best(name):
  made, space = make('rsps', tries=6), spaces.get(name)
  phi = made.init(jax.random.key(0), space)
  draw = jax.jit(jax.vmap(lambda i: rsps.architecture(jax.random.key(i), phi['fixed'][first])))
  first = next(iter(space.cells))
  rows, cell = np.asarray(draw(jnp.arange(400))), space.cells[first]
  assert set(np.unique(rows)) == {0.0, 1.0}
  targets = np.array([t for _, t in cell.edges])
  for node in set(targets):
    kept = rows[:, targets == node].sum((1, 2))
    assert (kept == min(space.kept or 99, (targets == node).sum())).all()
  used = rows.sum(0)
  none = np.array([[op == 'none' for op in ops] for ops in cell.ops])
  assert (used[none] == 0).all() == (space.kept is not None) and (used[~none] > 0).all()
  rated = []

  def rate(weights, i):
    rated.append((i, space.genotype(jax.device_get(weights))))
    return [50, 70, 90, 90, 10, 20][i]

  best = made.derive(rate, phi, jax.random.key(1))
  assert [i for i, _ in rated] == list(range(6)) and space.genotype(jax.device_get(best)) == rated[2][1]
  assert len({genotype for _, genotype in rated}) > 4


def test_rsps_moves_theta_alone(x64):
  made, step, now, batch, loss, _ = setup('rsps')
  key = jax.random.key(3)
  after, metrics = step(now, {k: v for k, v in batch.items() if not k.startswith('valid')}, key)
  g_theta = jax.grad(loss)(now.theta, {}, '', jax.random.split(key, 4)[XI])
  assert float(metrics['grad_theta']) == pytest.approx(float(optax.tree.norm(g_theta)), rel=1e-9)
  assert 'grad_phi' not in metrics and made.step.batches == ('train',)


@pytest.mark.parametrize('name, fields, told', [
    ('gdas', {'tau': 0.0}, 'tau=0.0'), ('pcdarts', {'partial': 1}, 'partial=1'),
    ('pcdarts', {'warm_up': 1.0}, 'warm_up'),
    ('sdarts_rs', {'epsilon': -1.0}, 'epsilon=-1.0'), ('sgas', {'criterion': 3}, 'criterion=3'),
    ('sgas', {'first': 60}, 'first=60'), ('rsps', {'tries': 0}, 'tries=0'), ('darts', {'unrolled': 'no'}, "'no'"),
    ('darts', {'unrolled': 'exact', 'bilevel': False}, "'exact'")])
def test_bad_fields_are_told(name, fields, told):
  with pytest.raises(UserError, match=told):
    make(name, **fields)


def test_straight_through_and_edge_weights(x64):
  p = jax.nn.softmax(jnp.array([[0.1, 0.5, -0.2], [1.0, 0.0, 2.0]]))
  np.testing.assert_allclose(gdas.straight_through(p), [[0, 1, 0], [0, 0, 1]], atol=1e-12)
  np.testing.assert_allclose(jax.jacobian(lambda p: gdas.straight_through(p))(p).reshape(6, 6), np.eye(6), atol=1e-12)
  np.testing.assert_allclose(pcdarts.edge_weights(jnp.array([0.0, 0.0, 5.0, 1.0]), jnp.array([2, 2, 3, 4])),
                             [0.5, 0.5, 1, 1], rtol=1e-9)


@pytest.mark.parametrize('step, told', [(-1, 0.0), (0, 1 + 0.5 + 20 + 25)])
def test_a_mixture_is_pretrained_in_the_same_program(step, told):
  """Weights of edges and shifts hold in the search alone; before it the operations have what pretraining says."""
  made, theta = make('gdas'), {'w': jnp.ones(3)}
  own = Mixture(jnp.ones((1, 6, 5)), shift=jnp.full((1, 6), 0.5), skip=jnp.full((1, 6), 2.0), dropout=jnp.float32(0.25))
  made = made._replace(sample=lambda phi, key, clock: ({'cell': own}, {}))
  phi = {'params': {'cell': jnp.zeros((6, 5))}, 'fixed': {}}
  seen = []

  def loss(theta, weights, key, images, labels):
    seen.append(weights['cell'])
    rows = weights['cell']
    return (theta['w'].sum() + rows.shift.sum(),
            rows.ops.mean() + rows.shift.mean() + 10 * rows.skip.mean() + 100 * rows.dropout)

  tx = optax.sgd(0.1)
  joint = updates.single_level().after(lambda phi, key, clock: ({'cell': jnp.zeros((1, 6, 5))}, {}))
  state = SearchState(jnp.int32(0), theta, phi, tx.init(theta), tx.init(phi['params']), None)
  batch = methods.Batch(jnp.zeros((2, 4, 4, 3)), jnp.zeros(2, jnp.int32), jax.random.key(0))
  problem = methods.Problem(SPACE, loss, tx, tx, tx)
  _, metrics = joint.update(made, problem, state, {'train': batch}, Clock(jnp.int32(step), 4))
  assert float(metrics['accuracy']) == told and seen[0].past is None
