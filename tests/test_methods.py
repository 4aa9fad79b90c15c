import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SLOW
from ml_collections import ConfigDict

from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, vimnas
from vimnas_jax.networks.mixing import Mixture
from vimnas_jax.runs import steps
from vimnas_jax.verbs import outcome


def _make(name, **fields):
  made = methods.get(ConfigDict({'name': name, **methods.fields(name), **fields}))
  return made._replace(  # compiled whole: one program a primitive takes longer
      init=lambda key, space: jax.jit(lambda key: made.init(key, space))(key), sample=jax.jit(made.sample),
      probs=jax.jit(made.probs), logits=made.logits and jax.jit(made.logits))


REFUSED = {('darts_plus', 's4')}  # a method that cannot work on a space says so


@pytest.mark.parametrize('name', methods.NAMES)
@pytest.mark.parametrize('space', ['s2', 'oneshot1', *(pytest.param(space, marks=SLOW) for space in spaces.NAMES
                                                       if space not in ('s2', 'oneshot1'))])
def test_interface(name, space):
  refused, space = (name, space) in REFUSED, spaces.get(space)
  method = methods.get(ConfigDict({'name': name, **methods.fields(name)}))
  if refused:
    with pytest.raises(UserError, match=space.name):
      method.init(jax.random.key(0), space)
    return

  def made(key):
    phi = method.init(key, space)
    return method.sample(phi, key, Clock(1, 2))[0], method.probs(phi)

  if name == 'tenas' and space.topology:
    with pytest.raises(UserError, match='searched too'):
      jax.eval_shape(made, jax.random.key(0))
    return
  weights, probs = jax.eval_shape(made, jax.random.key(0))
  for cell in space.cells:
    rows = weights[cell].ops if isinstance(weights[cell], Mixture) else weights[cell]
    assert rows.shape == (method.samples, *space.cells[cell].shape) and probs[cell].shape == space.cells[cell].shape


@pytest.mark.parametrize('name', [name for name in methods.NAMES if name not in ('data', 'vimnas')])
def test_what_is_read_off_a_softmax_is_told_apart_where_float32_has_1(name):
  """DATA makes its probabilities otherwise; VIM-NAS has a test of its own, in test_inputs.py."""
  space, margins = spaces.get('s2'), np.random.default_rng(0).permutation(np.linspace(20, 33, 14)).astype(np.float32)
  method = _make(name)
  if method.scores or method.derive or not method.logits:
    assert not method.logs
    return
  phi, rows = method.init(jax.random.key(0), space), jnp.zeros((14, 2)).at[:, 1].set(margins)
  phi = {**phi, 'params': {cell: {**phi['params'][cell], 'mean': rows} if name == 'sivdnas' else rows
                           for cell in space.cells}}
  for cell, found in outcome.exact(method.probs(phi), method.logs(phi)).items():
    np.testing.assert_allclose(found, method.probs(phi)[cell], rtol=1e-6)
    assert np.array_equal(np.argsort(found[:, 1]), np.argsort(margins))


@pytest.mark.parametrize('name, space', [('vimnas', 's2'), ('darts', 's2'), ('random', 'nb201')])
def test_rows_are_probabilities(name, space):
  method, key = _make(name), jax.random.key(0)
  phi = method.init(key, spaces.get(space))
  drawn = [method.sample(phi, jax.random.key(i), Clock(1, 2))[0] for i in (1, 2)]
  for cell, probs in method.probs(phi).items():
    for rows in (*(weights[cell] for weights in drawn), probs):
      assert (rows >= 0).all()
      np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
    assert np.array_equal(*(weights[cell] for weights in drawn)) == (name == 'darts')


@pytest.mark.parametrize('variant, count', [('base', 534), ('point', 534), ('small', 27 + 2), ('dropout', 2 * 534),
                                            ('large', 378 + 28 + 3 * (9 * 14 * 14 + 28) + 126 + 2)])
def test_variants_have_their_size_and_learn_everywhere(variant, count):
  space, method = spaces.get('nb201'), _make('vimnas', variant=variant, networks=1)
  phi = jax.jit(lambda key: method.init(key, space))(jax.random.key(3))
  assert sum(x.size for x in jax.tree.leaves(phi['params'])) == count

  @jax.jit
  @jax.grad
  def gradient(params):
    at = {**phi, 'params': params}
    weights, _ = method.sample(at, jax.random.key(4), Clock(0, 1))
    penalty = method.penalty(at, weights, Clock(0, 1)) if method.penalty else 0
    return (weights['cell'] * jnp.arange(30.0).reshape(1, 6, 5)).sum() + penalty

  grads = gradient(phi['params'])
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
  assert all(np.abs(layer['kernel']).max() > 0 for net in grads['cell'].values() for layer in net)


def test_table_is_plain_logits_with_all_else_alike():
  space, method = spaces.get('nb201'), _make('vimnas', variant='table', bound=1.5, sharpen=8.0, sharpen_last=1.0)
  phi = method.init(jax.random.key(0), space)
  assert np.allclose(method.probs(phi)['cell'], 0.2) and method.features is None
  table = np.random.default_rng(0).normal(size=(1, 6, 5)).astype('f')
  phi['params']['cell']['mu'] = jnp.asarray(table)
  rows = table[0] - table[0].mean(-1, keepdims=True)
  rows /= np.sqrt(1 + (rows**2).sum(-1, keepdims=True) / 1.5**2)
  weights = method.sample(phi, jax.random.key(1), Clock(9, 10))[0]['cell']  # scaled up by 8 ** 0.75
  xi = np.asarray(_make('vimnas').sample(_make('vimnas').init(jax.random.key(0), space), jax.random.key(1),
                                         Clock(0, 10))[0]['cell'])  # a centred phi has moved nothing: softmax(xi)
  expected = jax.nn.softmax(8**0.75 * rows + np.log(xi))
  np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)
  with pytest.raises(UserError, match='a table has none'):
    _make('vimnas', variant='table', apart=0.5, samples=32)


def test_network_against_loops(x64):
  layers = vimnas.init_network(jax.random.key(0), (3, 14, 1))
  layers = jax.tree.map(lambda a: a.astype(jnp.float64) + 0.01, layers)
  eps = jax.random.normal(jax.random.key(1), (6, 5, 3))
  x = np.asarray(eps)
  for layer in layers:
    padded, kernel = np.pad(x, ((1, 1), (1, 1), (0, 0))), np.asarray(layer['kernel'])
    y = np.array([[np.einsum('ijc,ijcd->d', padded[e:e + 3, o:o + 3], kernel) for o in range(5)] for e in range(6)])
    y = np.maximum(y, 0)
    x = (y - y.mean((0, 1))) / np.sqrt(y.var((0, 1)) + 1e-5) * np.asarray(layer['scale']) + np.asarray(layer['bias'])
  stacked = jax.tree.map(lambda a: a[None], layers)
  np.testing.assert_allclose(vimnas.network(stacked, eps[None])[0][0], x[..., 0], rtol=1e-9)


@pytest.mark.parametrize('last', ['relu', 'linear'])
def test_phi_starts_at_its_scale_and_a_linear_end_ties_nothing(last):
  method = _make('vimnas', last=last, gamma=0.1, networks=1, centred=False, bound=0.0)
  (logits,) = method.logits(method.init(jax.random.key(0), spaces.get('nb201'))).values()
  assert abs(float(logits.std()) - 0.1) < 1e-3 and abs(float(logits.mean())) < 1e-6
  ties = len(np.unique(np.asarray(logits))) < logits.size
  assert ties == (last == 'relu')


def test_phi_of_several_networks_is_their_mean(x64):
  space, method = spaces.get('nb201'), _make('vimnas', networks=3, gamma=1.0, centred=False, bound=0.0)
  phi = method.init(jax.random.key(0), space)
  layers, eps = phi['params']['cell']['mu'], phi['fixed']['eps']['cell']
  assert eps.shape == (3, 6, 5, 3) and layers[0]['kernel'].shape == (3, 3, 3, 3, 14)
  alone = [vimnas.network(jax.tree.map(lambda a, k=k: a[k:k + 1], layers), eps[k:k + 1], True)[0][0] for k in range(3)]
  np.testing.assert_allclose(method.logits(phi)['cell'], np.mean(alone, 0), rtol=1e-9, atol=1e-9)
  assert float(jnp.std(alone[0] - alone[1])) > 0.5
  one = _make('vimnas', gamma=1.0, networks=1, centred=False, bound=0.0)
  np.testing.assert_allclose(one.logits(one.init(jax.random.key(0), space))['cell'], alone[0], rtol=1e-9, atol=1e-9)


def test_a_centred_phi_starts_from_equal_probabilities_and_moves_as_the_other():
  space, method, plain = spaces.get('nb201'), _make('vimnas', networks=3, centred=True), _make('vimnas', networks=3)
  phi, other = method.init(jax.random.key(0), space), plain.init(jax.random.key(0), space)
  np.testing.assert_allclose(method.probs(phi)['cell'], np.full((6, 5), 0.2), atol=1e-6)
  assert not any(rows.any() for rows in steps.dead_rows(method, phi).values())  # equal, and yet not dead
  jax.tree.map(np.testing.assert_array_equal, phi['params'], other['params'])
  moved = jax.tree.map(lambda p: p + 0.1 * jnp.sin(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), phi['params'])

  def logits(of, fixed):
    return of.logits({'params': moved, 'fixed': fixed})['cell']

  np.testing.assert_allclose(logits(method, phi['fixed']), logits(plain, other['fixed']) - plain.logits(other)['cell'],
                             atol=1e-6)
  assert float(jnp.std(logits(method, phi['fixed']))) > 0.1
  still = jax.tree.map(jnp.zeros_like, phi['params'])  # a network that puts out one value everywhere
  assert all(rows.all() for rows in steps.dead_rows(method, {**phi, 'params': still}).values())


def test_rows_of_a_bounded_phi_keep_their_order_and_stay_short(x64):
  space = spaces.get('nb201')
  plain, held = (_make('vimnas', networks=3, gamma=3.0, centred=False, bound=bound) for bound in (0.0, 1.5))
  phi = plain.init(jax.random.key(0), space)
  before, after = (np.asarray(method.logits(phi)['cell']) for method in (plain, held))
  before = before - before.mean(-1, keepdims=True)
  long, short = (np.linalg.norm(rows, axis=-1) for rows in (before, after))
  assert long.max() > 2 and short.max() < 1.5
  np.testing.assert_allclose(short, 1.5 * long / np.hypot(1.5, long), rtol=1e-9)
  np.testing.assert_allclose(after * (long / short)[:, None], before, rtol=1e-9, atol=1e-12)
  for clock, scale in ((Clock(10, 100), 1.0), (Clock(100, 100), 16.0)):
    np.testing.assert_allclose(held.probs(phi, clock)['cell'], jax.nn.softmax(scale * after), rtol=1e-9)
  drawn, free = (method.sample(phi, jax.random.key(1), Clock(10, 100))[0]['cell'] for method in (held, plain))
  np.testing.assert_allclose(jnp.log(drawn) - jnp.log(drawn).mean(-1, keepdims=True) - after[None],
                             jnp.log(free) - jnp.log(free).mean(-1, keepdims=True) - before[None], atol=1e-9)
  with pytest.raises(UserError, match='method.bound=-1.0'):
    _make('vimnas', bound=-1.0)


@SLOW
def test_networks_that_are_apart_serve_their_groups_and_come_together(x64):
  space, method = spaces.get('nb201'), _make('vimnas', networks=2, samples=4, apart=1.0, together=0.5, centred=False,
                                             bound=0.0, sharpen=1.0, sharpen_last=1.0)
  phi = method.init(jax.random.key(0), space)
  layers, eps = phi['params']['cell']['mu'], phi['fixed']['eps']['cell']
  own = np.asarray(vimnas.network(layers, eps, True)[0])
  at = {progress: np.log(method.sample(phi, jax.random.key(1), Clock(4 * progress, 4))[0]['cell'])
        for progress in (0.0, 0.25, 0.5, 1.0)}
  np.testing.assert_array_equal(at[0.5], at[1.0])

  def centred(x):
    return x - x.mean(-1, keepdims=True)

  for progress, far in ((0.0, 1.0), (0.25, 0.5)):
    want = far * np.repeat(own - own.mean(0), 2, 0)
    np.testing.assert_allclose(centred(at[progress] - at[1.0]), centred(want), atol=1e-9)
  np.testing.assert_allclose(method.logits(phi)['cell'], own.mean(0), atol=1e-9)


@pytest.mark.parametrize('name', ['vimnas', 'darts_noise'])
def test_noise_has_unit_variance_and_samples_differ(name):
  method = _make(name, samples=4)
  phi = jax.jit(lambda key: method.init(key, spaces.get('darts')))(jax.random.key(0))
  logit = jax.jit(method.logits)(phi)
  drawn = jax.jit(jax.vmap(lambda i: method.sample(phi, jax.random.key(i), Clock(0, 1))[0]['normal']))(jnp.arange(200))
  noise = jnp.log(drawn) - logit['normal'][None, None]
  noise -= noise.mean(-1, keepdims=True)  # softmax drops each row's mean, 1 / 8 of the variance
  assert noise.shape[1] == 4
  assert abs(float(noise.var()) - 7 / 8) < 0.02
  assert abs(float(jnp.mean(noise[:, 0] * noise[:, 1]))) < 0.02


def test_the_sparsity_is_of_the_means_that_the_step_mixes_by():
  """Scaled up as they are at its time, beside noise as wide as sigma; weighed once per data set of 25,000 images."""
  space, method = spaces.get('nb201'), _make('vimnas', variant='dropout', sharpen=8.0, sharpen_from=0.5, bound=0.0,
                                             sharpen_last=1.0, centred=False)
  phi = jax.jit(lambda key: method.init(key, space))(jax.random.key(3))
  mu = method.logits(phi)['cell']
  early, late = (float(method.penalty(phi, {}, Clock(at, 10))) for at in (5, 10))
  net = phi['params']['cell']['sigma']
  sigma = jax.nn.softplus(vimnas.network(net, phi['fixed']['eps']['cell'])[0].mean(0))
  weight = early / float(vimnas.dropout_kl(mu, sigma).sum())
  assert late == pytest.approx(weight * float(vimnas.dropout_kl(8 * mu, sigma).sum()), rel=1e-5)
  assert late != pytest.approx(early, rel=1e-2) and weight == pytest.approx(1 / 25_000, rel=1e-5)
  weights, info = method.sample(phi, jax.random.key(1), Clock(10, 10))
  xi = jax.random.normal(jax.random.fold_in(jax.random.key(1), 0), (8, 6, 5))
  np.testing.assert_allclose(weights['cell'], jax.nn.softmax(8 * mu[None] + sigma[None] * xi), rtol=1e-4, atol=1e-7)
  assert float(info['sigma/cell']) == pytest.approx(float(sigma.mean()), rel=1e-5) and float(sigma.std()) > 0.1


def test_phi_is_scaled_up_by_two_ways_that_do_not_change_what_it_prefers():
  """By 8 from 0.6 of the search to its end, and by 2 more from 0.8, where phi stands still."""
  method = _make('vimnas', variant='table', bound=0.0)
  rows = np.random.default_rng(0).normal(size=(1, 6, 5))
  phi = {'params': {'cell': {'mu': jnp.asarray(rows)}}, 'fixed': {'eps': {}, 'start': {}}}
  for at, scale in ((5, 1), (6, 1), (7, 8 ** 0.25), (8, 8 ** 0.5), (9, 8 ** 0.75 * 2 ** 0.5), (10, 16)):
    np.testing.assert_allclose(method.probs(phi, Clock(at, 10))['cell'], jax.nn.softmax(scale * rows[0]), rtol=1e-4)


@pytest.mark.parametrize('name', ['darts', 's1', 's3'])
def test_random_cells_are_uniform_in_edges_and_operations(name):
  """Two edges into every node, each pair as likely, and no operation but `none` less likely than another."""
  space, method = spaces.get(name), _make('random')
  draw = jax.jit(lambda key: method.scores(method.init(key, space)))
  cells = [space.genotype(jax.device_get(draw(jax.random.key(seed)))).cells['normal'] for seed in range(400)]
  last = max(target for _, _, target in cells[0])
  sources = np.bincount([source for cell in cells for _, source, target in cell if target == last], minlength=last)
  expected = 400 * 2 / last
  assert (np.abs(sources - expected) < 5 * expected ** 0.5).all(), sources
  if name == 'darts':
    ops = [op for cell in cells for op, _, _ in cell]
    counts = np.array([ops.count(op) for op in space.cells['normal'].ops[0] if op != 'none'])
    assert (np.abs(counts - len(ops) / 7) < 5 * (len(ops) / 7) ** 0.5).all() and counts.sum() == len(ops), counts
  phi = method.init(jax.random.key(0), space)
  weights, _ = method.sample(phi, jax.random.key(1), Clock(0, 1))
  for cell, rows in weights.items():
    into = np.array([target for _, target in space.cells[cell].edges])
    kept = np.asarray(rows[0]).sum(-1)
    assert all(kept[into == node].sum() == 2 for node in set(into))
    assert np.allclose(method.probs(phi)[cell].sum(-1), 1)


def test_sparsity_prefers_noise():
  """Molchanov et al.: the term falls to zero as the dropout rate grows."""
  mu = jnp.ones(5)
  kl = vimnas.dropout_kl(mu, jnp.array([0.01, 0.1, 1.0, 10.0, 100.0]))
  assert (np.diff(kl) < 0).all() and abs(float(kl[-1])) < 0.01


@pytest.mark.parametrize('fields, word', [({'variant': 'huge'}, 'huge'), ({'samples': 0}, 'samples'),
                                          ({'last': 'tanh'}, 'tanh'), ({'networks': 0}, 'networks'),
                                          ({'networks': 3, 'apart': 1.0}, 'divide'), ({'apart': 2.0}, 'apart'),
                                          ({'together': 0.0}, 'together'),
                                          ({'gamma': 0.0}, 'gamma')])
def test_bad_fields(fields, word):
  with pytest.raises(UserError, match=word):
    _make('vimnas', **fields)
