"""P-DARTS: a supernet that grows, operations that go, skip connections that are held back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ONE_EDGE, SLOW, Cut
from test_papers import VALID_XI, XI, first_adam_step, make, same, setup
from test_randomness import Net, apart

from configs import nb201_c10
from vimnas_jax import config as config_lib
from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock
from vimnas_jax.networks import ops
from vimnas_jax.networks.mixing import Mixture
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.runs import metrics, state, steps
from vimnas_jax.verbs import search

SPACE = spaces.get('darts')


def softmax(rows):
  e = np.exp(np.asarray(rows, np.float64))
  return e / e.sum(-1, keepdims=True)


def test_operations_go_from_8_to_5_to_3_and_alpha_starts_anew():
  made = make('pdarts')
  grow, probs = jax.jit(made.grow), jax.jit(made.probs)
  phi = jax.jit(lambda key: made.init(key, SPACE))(jax.random.key(0))
  rng, left = np.random.default_rng(0), {name: np.full((14, 8), True) for name in SPACE.cells}
  for stage, count in ((1, 5), (2, 3)):
    moved = {name: jnp.array(rng.normal(size=(14, 8)), jnp.float32) for name in SPACE.cells}
    phi = grow({**phi, 'params': moved}, jax.random.key(stage))
    for name in SPACE.cells:
      rows = np.where(left[name], moved[name], -np.inf)
      left[name] = np.array([[o in np.argsort(-row)[:count] for o in range(8)] for row in rows])
      np.testing.assert_array_equal(phi['fixed']['cells'][name]['open'], left[name])
      assert np.abs(phi['params'][name]).max() < 0.01 and not left[name].all(0).any()
      p = np.asarray(probs(phi)[name])
      assert (p[~left[name]] == 0).all()
      np.testing.assert_allclose(p[left[name]], 1 / count, atol=0.01)
  for count, want in ((2, [2, 2]), (3, [2, 2]), (5, [4, 2])):  # in spaces with fewer operations
    small = {'params': {'cell': jnp.zeros((1, count))}, 'fixed': {'stage': jnp.int32(0), 'cells': {
        'cell': {'open': jnp.ones((1, count), bool)}}}}
    for wanted in want:
      small = made.grow(small, jax.random.key(0))
      assert int(small['fixed']['cells']['cell']['open'].sum()) == wanted


def test_stages_of_25_epochs_with_5_11_and_17_cells():
  """Alpha is frozen for ten epochs of each; the dropout of skip connections as in the published schedule."""
  made = make('pdarts', dropout_first=0.1)
  found = steps.phases(made, SPACE, steps.Plan(0, 75, 'noise'))
  assert [(phase.end, 5 + made.depths[phase.depth][1], 'valid' in phase.step.batches) for phase in found] == [
      (10, 5, False), (25, 5, True), (35, 11, False), (50, 11, True), (60, 17, False), (75, 17, True)]
  assert methods.passes('pdarts') == pytest.approx(2 - methods.fields('pdarts')['frozen'])
  phi = made.init(jax.random.key(0), SPACE)
  rate = jax.jit(lambda stage, step: made.sample({**phi, 'fixed': {**phi['fixed'], 'stage': stage}}, None,
                                                 Clock(step, 75))[0]['normal'].dropout)
  got = [float(rate(step // 25, step)) for step in range(75)]
  want = [r * ((25 - e - 1) / 25 if e < 10 else np.exp(-(e - 10) * 0.2)) for r in (0.1, 0.4, 0.7) for e in range(25)]
  np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize('limit', [0, 2, 8])
def test_a_normal_cell_keeps_few_skip_connections(limit):
  """As in the published script: the architecture is read off again after every skip connection that is taken out."""
  made = make('pdarts', skips=limit)
  phi, rng = made.init(jax.random.key(0), SPACE), np.random.default_rng(1)
  scores, seen = jax.jit(made.scores), set()
  for _ in range(5):
    alpha = {name: rng.normal(size=(14, 8)) + 2 * (np.arange(8) == 3) for name in SPACE.cells}
    rows = {name: softmax(a) * (np.arange(8) > 0) for name, a in alpha.items()}
    while True:
      cell = SPACE.genotype(rows).cells['normal']
      kept = [SPACE.cells['normal'].edges.index((s, t)) for op, s, t in cell if op == 'skip_connect']
      seen.add(len(kept))
      if len(kept) <= limit:
        break
      rows['normal'][min(kept, key=lambda e: rows['normal'][e, 3]), 3] = 0
    got = scores({**phi, 'params': {name: jnp.array(a, jnp.float32) for name, a in alpha.items()}})
    assert SPACE.genotype(jax.device_get(got)) == SPACE.genotype(rows)
  assert max(seen) > 2 and sum(op == 'skip_connect' for op, _, _ in SPACE.genotype(rows).cells['reduce']) > 2


def test_the_limit_holds_where_an_edge_is_left_with_none_and_a_skip_connection():
  """In S3: what is taken out gives way to the convolution that went before, and others go as well."""
  space, made = spaces.get('s3'), make('pdarts', skips=1)
  phi, rng = made.init(jax.random.key(0), space), np.random.default_rng(2)
  convolution = np.array([op not in ('none', 'skip_connect') for op in space.cells['normal'].ops[0]])
  cells = {name: {**own, 'open': own['open'] & ~jnp.array(convolution)[None]}
           for name, own in phi['fixed']['cells'].items()}
  alpha = {name: jnp.array(rng.normal(size=(14, 3)), jnp.float32) for name in space.cells}
  got = jax.device_get(jax.jit(made.scores)({'params': alpha, 'fixed': {**phi['fixed'], 'cells': cells}}))
  found = space.genotype(got)
  assert sum(op == 'skip_connect' for op, _, _ in found.cells['normal']) == 1
  assert all(op == 'skip_connect' for op, _, _ in found.cells['reduce'])
  assert all((row >= 0).all() for row in got.values())


def test_pdarts_moves_what_is_left_as_darts_does(x64):
  """The second-level step of a stage, with two operations of every edge gone."""
  made, step, now, batch, loss, config = setup('pdarts', total=75)
  gone = jnp.arange(5)[None] >= 3
  own = now.phi['fixed']['cells']['cell']
  now = now.replace(step=jnp.int32(20), phi={**now.phi, 'fixed': {
      **now.phi['fixed'], 'cells': {'cell': {**own, 'open': own['open'] & ~gone}}}})
  key = jax.random.key(3)
  train_key, valid_key = (jax.random.split(key, 4)[i] for i in (XI, VALID_XI))

  def left(phi, key, clock):
    rows = jnp.exp(phi['params']['cell'])[:, :3]
    return {'cell': jnp.pad(rows / rows.sum(-1, keepdims=True), ((0, 0), (0, 2)))[None]}, {}

  g_phi = jax.jit(jax.grad(lambda params: loss(now.theta, params, 'valid_', valid_key, left)))(now.phi['params'])
  params = first_adam_step(now.phi['params'], g_phi, config)
  g_theta = jax.jit(jax.grad(lambda theta: loss(theta, params, '', train_key, left)))(now.theta)
  after, found = step(now, batch, key)
  same(after.phi['params'], params, rtol=1e-6)
  assert float(found['grad_phi']) == pytest.approx(float(optax.tree.norm(g_phi)), rel=1e-9)
  assert float(found['grad_theta']) == pytest.approx(float(optax.tree.norm(g_theta)), rel=1e-6)


def test_skip_connections_are_dropped_in_part(x64):
  """A cell of one skip connection at rate 0.4: its numbers are 0 or 1 / 0.6 of the input's; without a rate, all.

  Of two such cells each drops numbers of its own.
  """
  space = spaces.get(ONE_EDGE)
  net = Supernet(space=space, cells=2, channels=4, num_classes=3, dropout=True, dtype=jnp.float64,
                 param_dtype=jnp.float64)
  images, skip = jnp.array(np.random.default_rng(0).normal(size=(8, 8, 8, 3))), jnp.array([[[1.0, 0.0]]])
  rngs = {'params': jax.random.key(0), 'noise': jax.random.key(1)}
  theta = jax.jit(net.init)(rngs, images, {'cell': skip})['params']

  @jax.jit
  def cell(weights, key):
    _, seen = net.apply({'params': theta}, images, {'cell': weights}, rngs={'noise': key}, capture_intermediates=True)
    return jnp.stack([seen['intermediates'][name]['__call__'][0] for name in ('cell_1', 'cell_2')])

  x = np.asarray(ops.normalise(ops.conv(images, theta['stem'])))
  x = x * np.asarray(theta['stem_norm_scale']) + np.asarray(theta['stem_norm_bias'])
  np.testing.assert_allclose(cell(skip, jax.random.key(1)), np.stack([x, x]), rtol=1e-9)
  both = [np.asarray(cell(Mixture(skip, dropout=jnp.array(0.4)), jax.random.key(i)) / x[None]) for i in (1, 2)]
  for part, after in both:
    assert set(np.unique(part.round(9))) == {0.0, round(1 / 0.6, 9)} and abs((part > 0).mean() - 0.6) < 0.03
    assert abs((after > 0).mean() - 0.6 ** 2) < 0.03
  assert (both[0][0] != both[1][0]).mean() > 0.3


def asked():
  """Three stages of four steps of a supernet of one, two and three cells."""
  c = nb201_c10.get_config('method=pdarts')
  c.update_from_flattened_dict({
      'data.name': 'synthetic', 'data.image_size': 8, 'data.num_train': 64, 'space.name': ONE_EDGE, 'space.cells': 1,
      'space.channels': 4, 'batch_size': 8, 'epochs': 3.0, 'log_steps': 1, 'checkpoint_steps': 2, 'phi.lr': 0.1,
      'method.grows': 1, 'method.frozen': 0.0, 'devices': 1})
  return config_lib.resolve(c)


def test_a_supernet_that_grows_starts_anew_with_both_optimisers():
  """All but the count of steps and their key; theta and alpha by draws of this turn."""
  made, tx, images = make('pdarts'), optax.sgd(0.1, 0.9), (4, 4, 3)

  @jax.jit
  def both(at):
    first = state.create(state.root(0), Net(), made, SPACE, tx, tx, images)
    later = first.replace(step=at, opt_theta=jax.tree.map(jnp.ones_like, first.opt_theta),
                          opt_phi=jax.tree.map(jnp.ones_like, first.opt_phi))
    return first, state.grown(later, Net(), made, SPACE, tx, tx, images)

  (first, one), (_, other) = both(jnp.int32(3)), both(jnp.int32(4))
  for now in (one, other):
    for before, after in ((first.opt_theta, now.opt_theta), (first.opt_phi, now.opt_phi), (first.key, now.key)):
      jax.tree.map(np.testing.assert_array_equal, before, after)
  assert int(one.step) == 3 and int(one.phi['fixed']['stage']) == 1
  assert apart([now.theta['w'] for now in (first, one, other)])
  assert apart([now.phi['params'][name] for now in (first, one, other) for name in SPACE.cells])


@SLOW
def test_a_search_that_grows_goes_on_where_it_was_cut(tmp_path, monkeypatch, capsys):
  """At the border of two stages, of four steps each, and in the middle of one."""
  whole = search.search(asked(), tmp_path / 'whole')
  told = metrics.Console.step
  for cut, kept in ((5, 4), (7, 6)):
    def step(self, at, *args, cut=cut):
      told(self, at, *args)
      if at == cut:
        raise Cut

    with monkeypatch.context() as patched, pytest.raises(Cut):
      patched.setattr(metrics.Console, 'step', step)
      search.search(asked(), tmp_path / 'cut')
    assert max(int(p.name) for p in (tmp_path / 'cut' / 'checkpoints').iterdir()) == kept
  assert search.search(asked(), tmp_path / 'cut')['state_sha256'] == whole['state_sha256']
  assert 'resuming' in capsys.readouterr().out


@pytest.mark.parametrize('fields, told', [({'grows': -1}, 'grows=-1'), ({'third': 0.9}, 'third=0.9'),
                                          ({'frozen': 1.0}, 'frozen=1.0'), ({'dropout_third': 1.0}, 'dropout')])
def test_bad_fields_of_pdarts_are_told(fields, told):
  with pytest.raises(UserError, match=told):
    make('pdarts', **fields)
