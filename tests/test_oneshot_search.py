"""Searches of NAS-Bench-1Shot1: every method with the graph beside it, resumed, and reported with its regret."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SLOW, fixed
from ml_collections import ConfigDict

from vimnas_jax import config as config_lib
from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import mixing
from vimnas_jax.networks.oneshot import OneShot
from vimnas_jax.runs import optim, state, steps
from vimnas_jax.tabular import modules, nasbench101
from vimnas_jax.verbs import report, search


def setup(method='vimnas', pretrain=0, parts=1, **fields):
  space = spaces.get('oneshot1')
  net = OneShot(space=space, cells=3, channels=2, num_classes=3)
  config = config_lib.defaults()
  config.method = ConfigDict({'name': method, **methods.fields(method), **fields})
  config = config_lib.resolve(config)
  made, plan = methods.get(config.method, space), steps.Plan(pretrain, 10, 'noise', parts)
  tx = optim.theta(config.theta, plan.steps), steps.phi_optimiser(config, made, plan.search_steps)
  found = steps.search_steps(net, made, space, plan, fixed(*tx), lambda key, x: x.astype(jnp.float32) / 255)
  found = {name: jax.jit(step) for name, step in found.items()}

  def step(now, batch, key):
    return found['pretrain' if int(now.step) < pretrain else 'search'](now, batch, key)

  now = jax.jit(lambda: state.create(state.root(0), net, made, space, *tx, (5, 5, 3)))()
  images = jax.random.randint(jax.random.key(5), (8, 5, 5, 3), 0, 255).astype(jnp.uint8)
  batch = {'images': images, 'labels': jnp.arange(8) % 3, 'valid_images': images[::-1],
           'valid_labels': jnp.arange(8)[::-1] % 3}
  return step, now, batch


@SLOW
def test_the_graph_moves_in_search_alone_by_an_adam_of_its_own():
  """While theta is pretrained it stands still; phi's own optimiser stays its own."""
  step, now, batch = setup(pretrain=2, parts=2, samples=2)
  start = jax.device_get(now.phi['params']['topology'])
  assert set(start) == {'inputs_3', 'inputs_4', 'output'}
  assert all(0 < np.abs(row).max() < 5e-3 for row in start.values())
  for i in range(2):
    now, _ = step(now, batch, jax.random.key(i))
  held = jax.device_get(now.phi['params'])
  assert all(np.array_equal(held['topology'][row], start[row]) for row in start)
  after, metrics = step(now, batch, jax.random.key(9))
  moved = jax.tree.map(lambda a, b: np.asarray(a - b), after.phi['params'], held)
  adam = after.opt_phi['topology'][1][0]
  for row, value in start.items():  # Adam's first step is the rate, whatever the gradient, with its decay, measures
    gradient = adam.mu[row] / 0.5 - 1e-3 * value
    assert np.abs(gradient).min() > 1e-6
    np.testing.assert_allclose(moved['topology'][row], -3e-4 * np.sign(adam.mu[row]), atol=3e-6)
  assert adam.count == 1 and np.abs(moved['method']['cell']['mu'][0]['kernel']).max() > 1e-5
  probs = jax.device_get(metrics['probs'])
  assert {name: p.shape for name, p in probs.items()} == {'cell': (4, 3), 'inputs_3': (1, 3), 'inputs_4': (1, 4),
                                                          'output': (1, 5)}


@pytest.mark.parametrize('name', ['vimnas', 'sgas', 'rsps',
                                  *(pytest.param(name, marks=SLOW) for name in ('setn', 'enas'))])
def test_a_method_has_the_graph_beside_it(name):
  space = spaces.get('oneshot3')
  config = ConfigDict({'name': name, **methods.fields(name)})
  alone, method = methods.get(config), methods.get(config, space)
  key = jax.random.key(0)
  phi, own = jax.jit(lambda: (method.init(key, space), alone.init(key, space)))()
  for a, b in zip(jax.tree.leaves(own), jax.tree.leaves({'params': phi['params']['method'], 'fixed': phi['fixed']}),
                  strict=True):
    assert np.array_equal(a, b)  # the method starts as it does without
  weights, _ = jax.jit(method.sample)(phi, key, methods.Clock(1, 2))
  rows = weights['cell'].ops if isinstance(weights['cell'], mixing.Mixture) else weights['cell']
  assert rows.shape == (method.samples, 5, 3)
  assert {row: weights[row].shape for row in space.choices} == {row: (1, n) for row, n in space.choices.items()}
  for told in (method.probs, method.scores or method.probs):
    assert space.validate(space.genotype(jax.device_get(told(phi))))
  if method.after:
    after = jax.jit(lambda phi: method.after(phi, methods.Clock(1, 2)))(phi)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, phi)
  if method.derive:
    rated = []
    best = method.derive(lambda weights, i: rated.append(set(weights)) or -i, phi, key)
    assert rated[0] == {'cell', *space.choices} and space.validate(space.genotype(jax.device_get(best)))
  assert method.penalty is None and set(steps.dead_rows(method, phi)) <= {'cell'}


def asked(tmp_path):
  """A configuration of a search, and a made-up table of NAS-Bench-101 for it."""
  hashes = sorted(modules.needed(('oneshot1',)))
  accuracies = np.random.default_rng(0).uniform(0.8, 0.94, (len(hashes), 3))
  table = tmp_path / 'table.npz'
  np.savez(table, hashes=hashes, valid=accuracies, test=accuracies, seconds=accuracies, params=np.arange(len(hashes)))
  c = config_lib.defaults()
  c.space.name, c.space.cells, c.space.channels, c.devices = 'oneshot1', 3, 8, 1
  c.data.name, c.data.num_train, c.data.image_size, c.batch_size = 'synthetic', 32, 8, 8
  c.method.name, c.method.samples = 'darts', 2  # the graph descends the loss of the validation half, as alpha does
  c.epochs, c.pretrain.epochs, c.log_steps, c.checkpoint_steps = 3.0, 1.0, 1, 6
  c.oracle.nasbench101 = str(table)
  return c, table


def test_a_random_cell_is_reported_with_its_regret(tmp_path):
  c, table = asked(tmp_path)
  c.method.name, c.method.samples, c.epochs, c.pretrain.epochs = 'random', None, 0.0, None
  c.oracle.nasbench101 = str(tmp_path / 'none.npz')
  with pytest.raises(UserError, match='no such file'):
    search.search(config_lib.resolve(c), tmp_path / 'missing')
  c.oracle.nasbench101 = str(table)
  found = search.search(config_lib.resolve(c), tmp_path / 'runs' / 'random' / 'seed_0')
  genotype = spaces.get('oneshot1').read(found['genotype'])
  assert found['params'] == modules.genotype_cost(genotype).params
  assert found['nasbench101'] == nasbench101.load(str(table)).query(genotype)
  c.task, c.report.runs = 'report', str(tmp_path / 'runs')
  compared = report.report(config_lib.resolve(c), tmp_path / 'report')
  assert compared['random']['nasbench101']['test_regret']['mean'] == pytest.approx(
      100 * found['nasbench101']['test_regret'])
  assert 'test regret %' in (tmp_path / 'report' / 'report.md').read_text()


@SLOW
def test_search_resumes_bit_exactly_and_is_reported_with_its_regret(tmp_path, capsys):
  c, table = asked(tmp_path)
  c.oracle.nasbench101 = str(tmp_path / 'none.npz')
  with pytest.raises(UserError, match='no such file'):
    search.search(config_lib.resolve(c), tmp_path / 'missing')
  c.oracle.nasbench101 = str(table)
  first, second = tmp_path / 'runs' / 'darts' / 'seed_0', tmp_path / 'again'
  found = search.search(config_lib.resolve(c), first)
  out, space = capsys.readouterr().out, spaces.get('oneshot1')
  genotype = space.read(found['genotype'])
  assert found['params'] == modules.genotype_cost(genotype).params and f'{found["params"]:,} parameters' in out
  assert found['nasbench101'] == nasbench101.load(str(table)).query(genotype)
  assert f'test error {100 * found["nasbench101"]["test_error"]:.2f} %' in out and 'in NAS-Bench-101' in out
  assert set(found['graph_margins']) == set(space.choices) and 'left out: inputs_3 ' in out and '; output <- ' in out
  assert set(found['probs']) == {'cell', *space.choices} and set(found['dead']) == {'cell'}
  rows = [json.loads(line) for line in (first / 'arch.jsonl').read_text().splitlines()]
  assert [row['step'] for row in rows] == list(range(9)) and rows[-1]['genotype'] == found['genotype']
  assert rows[0]['probs']['output'] == rows[2]['probs']['output'] != rows[-1]['probs']['output']
  assert (first / 'cell_normal.png').exists() and (first / 'weights.png').exists()

  shutil.copytree(first, second)  # as if killed after step 6
  shutil.rmtree(second / 'checkpoints' / '8')
  (second / 'result.json').unlink()
  again = search.search(config_lib.resolve(c), second)
  assert 'after step 6 of 8' in capsys.readouterr().out and again['state_sha256'] == found['state_sha256']
  assert (second / 'arch.jsonl').read_text() == (first / 'arch.jsonl').read_text()

  c.method.name, c.method.samples, c.epochs, c.pretrain.epochs = 'random', None, 0.0, None
  search.search(config_lib.resolve(c), tmp_path / 'runs' / 'random' / 'seed_0')
  c.task, c.report.runs = 'report', str(tmp_path / 'runs')
  compared = report.report(config_lib.resolve(c), tmp_path / 'report')
  assert compared['darts']['nasbench101']['test_regret']['mean'] == pytest.approx(
      100 * found['nasbench101']['test_regret'])
  names = {path.name for path in (tmp_path / 'report').iterdir()}
  assert {'regret_test.png', 'regret_valid.png', 'report.md'} <= names
  assert 'test regret %' in (tmp_path / 'report' / 'report.md').read_text()


@SLOW
@pytest.mark.parametrize('name, fields', [('rsps', {'tries': 2}), ('sgas', {})])
def test_methods_that_derive_and_decide_search_the_graph_too(tmp_path, name, fields):
  """In whole: the supernet rates what was tried, and stands on images of the validation half."""
  c, _ = asked(tmp_path)
  c.method.name, c.method.samples, c.epochs, c.pretrain.epochs, c.oracle.nasbench101 = name, None, 1.0, None, ''
  c.supernet_images = 8
  c.method.update(fields)
  found = search.search(config_lib.resolve(c), tmp_path / 'run')
  assert spaces.get('oneshot1').read(found['genotype']) and found['supernet']['images'] == 8
  assert found.get('derived', False) == (name == 'rsps')
