import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ONE_EDGE, SLOW, Cut, one_line
from ml_collections import ConfigDict

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import data, files, methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, resources
from vimnas_jax.networks import cost
from vimnas_jax.runs import checkpoint, runfolder
from vimnas_jax.spaces import Cell, Space, darts, within
from vimnas_jax.verbs import constraints, latencies

GIVEN = [name for name in spaces.NAMES if not spaces.get(name).topology]  # spaces whose graph is given
OWN = 'examples/own_operation.py'


def arrays(shares, field):
  return {name: np.array([[getattr(op, field) for op in edge] for edge in edges])
          for name, edges in shares.rows.items()}


def drawn(space, seed, sharp=0.3):
  rng = np.random.default_rng(seed)
  return {name: rng.dirichlet(np.full(cell.shape[1], sharp), cell.shape[0]) for name, cell in space.cells.items()}


@pytest.mark.parametrize('name, size', [*((name, {'cells': 4, 'channels': 12}) for name in GIVEN),
                                        ('darts', {'cells': 5, 'channels': 12, 'imagenet': True, 'image_size': 64}),
                                        ('nb201', {'cells': 2, 'channels': 6, 'image_size': 10}),
                                        (OWN, {'cells': 1, 'channels': 8, 'in_channels': 1, 'image_size': 8})])
def test_the_expected_cost_of_one_architecture_is_its_cost(name, size, x64, monkeypatch):
  monkeypatch.chdir(vimnas_jax.__path__[0] + '/..')
  space = spaces.get(name)
  shares = cost.shares(space, num_classes=10, **size)
  for seed in range(3):
    genotype = space.genotype(drawn(space, seed))
    counted = cost.count(space, genotype, num_classes=10, **size)
    for field in ('params', 'madds'):
      mean = resources.expected(space, within.one_hot(space, genotype), getattr(shares.fixed, field),
                                arrays(shares, field))
      assert float(mean) == getattr(counted, field)


def test_the_expected_cost_is_the_mean_over_architectures():
  """Of every edge's operations in NAS-Bench-201; in the DARTS space of draws of two edges into a node, never none."""
  space, rows = spaces.get('nb201'), np.random.default_rng(0).integers(0, 9, (6, 5))
  probs, mean = drawn(space, 1), 0.0
  for ops in itertools.product(range(5), repeat=6):
    mean += np.prod(probs['cell'][range(6), ops]) * rows[range(6), ops].sum()
  assert float(resources.expected(space, probs, 3, {'cell': rows})) == pytest.approx(3 + mean, rel=1e-5)
  space = spaces.get('darts')
  rows = {name: np.random.default_rng(0).integers(0, 9, cell.shape) for name, cell in space.cells.items()}
  even = {name: np.full(cell.shape, 1 / 8) for name, cell in space.cells.items()}
  wanted = sum(2 * rows[name][[i for i, (_, t) in enumerate(cell.edges) if t == node], 1:].mean()
               for name, cell in space.cells.items() for node in range(2, 6))
  assert float(resources.expected(space, even, 0, rows)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize('name', ['nb201', pytest.param('darts', marks=SLOW)])
def test_the_gradient_of_the_penalty_is_that_of_finite_differences(name, x64):
  space = spaces.get(name)
  shares, fields = cost.shares(space, cells=3, channels=8, num_classes=10), ('params', 'madds')
  rng = np.random.default_rng(0)
  logits = {cell: jnp.asarray(rng.normal(size=each.shape)) for cell, each in space.cells.items()}

  @jax.jit
  def means(logits):
    probs = {n: jax.nn.softmax(r) for n, r in logits.items()}
    return [resources.expected(space, probs, getattr(shares.fixed, field), arrays(shares, field)) for field in fields]

  def penalty(share, logits):
    """Of limits that lie at this share of what is expected."""
    limited = [resources.Resource(field, share * mean, getattr(shares.fixed, field), arrays(shares, field))
               for field, mean in zip(fields, start)]
    return resources.excess(space, {n: jax.nn.softmax(r) for n, r in logits.items()}, limited)

  start = [float(mean) for mean in means(logits)]
  above, below = (jax.jit(functools.partial(penalty, share)) for share in (0.8, 1.1))
  gradient, value = jax.jit(jax.grad(above))(logits), above(logits)
  assert float(value) == pytest.approx(2 * (1 / 0.8 - 1)) and float(below(logits)) == 0
  assert all(not np.any(g) for g in jax.tree.leaves(jax.jit(jax.grad(below))(logits)))
  way = {cell: jnp.asarray(rng.normal(size=each.shape)) for cell, each in logits.items()}
  h = 1e-5
  sides = [above({cell: each + sign * h * way[cell] for cell, each in logits.items()}) for sign in (1, -1)]
  slope = sum(float((gradient[cell] * way[cell]).sum()) for cell in logits)
  assert slope == pytest.approx(float(sides[0] - sides[1]) / (2 * h), rel=1e-6)


def tiny_darts():
  """Two nodes that keep two edges each; 'none' is never kept."""
  edges = ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
  cell = Cell(2, edges, (('none', 'skip_connect', 'sep_conv_3x3'),) * 5, (2, 3), preprocess=True)
  return Space('tiny', {'normal': cell}, darts.macro, darts.decode, darts.write, darts.reader('tiny'), True, 4, kept=2)


def everything(space):
  """Every architecture, as {cell: [(edge, op)]}, of a space of one cell type."""
  ((name, cell),) = space.cells.items()
  if space.kept is None:
    for ops in itertools.product(range(cell.shape[1]), repeat=cell.shape[0]):
      yield name, list(enumerate(ops))
    return
  into = [[i for i, (_, target) in enumerate(cell.edges) if target == node] for node in range(cell.inputs, cell.nodes)]
  for pairs in itertools.product(*(list(itertools.combinations(edges, 2)) for edges in into)):
    edges = [edge for pair in pairs for edge in pair]
    for ops in itertools.product(range(1, cell.shape[1]), repeat=len(edges)):
      yield name, list(zip(edges, ops))


@pytest.mark.parametrize('space, k', [(spaces.get('nb201'), 1), (spaces.get('nb201'), 3), (tiny_darts(), 1),
                                      (tiny_darts(), 2)])
def test_the_choice_within_limits_is_that_of_trying_all(space, k):
  every = list(everything(space))
  ((name, cell),) = space.cells.items()
  edges, ops = (np.array([[pair[i] for pair in each] for _, each in every]) for i in (0, 1))
  for seed in range(4):
    rng, scores = np.random.default_rng(seed), drawn(space, seed)
    costs = rng.integers(0, 20, (*cell.shape, k))
    product, sums = np.log(scores[name][edges, ops]).sum(1), costs[edges, ops].sum(1)
    limits = sums.min(0) + (0.5, 0.3, 0.2, 0.05)[seed] * (sums.max(0) - sums.min(0))
    fits = (sums <= limits).all(1)
    found = within.best(space, scores, {name: costs}, limits)
    if not fits.any():
      assert found is None
      continue
    best = int(np.where(fits, product, -np.inf).argmax())
    wanted = {(cell.ops[e][o], *cell.edges[e]) for e, o in zip(edges[best], ops[best])}
    assert set(found.cells[name]) == wanted
    assert within.best(space, scores, {name: costs}, [np.inf] * k) == space.genotype(scores)
    assert within.best(space, scores, {name: costs}, sums.min(0) - 1) is None


def test_where_nothing_has_probability_the_fewest_edges_change():
  space = spaces.get('nb201')
  one = {'cell': np.eye(5)[[3, 3, 3, 1, 1, 3]]}  # a random cell
  costs = {'cell': np.array([[0, 0, 1, 9, 0]] * 6)[..., None]}
  found = within.best(space, one, costs, [20])
  assert sum(a != b for a, b in zip(found.cells['cell'], space.genotype(one).cells['cell'])) == 2


# No gradient moves their probabilities.
STILL = ('rsps', 'parsec', 'asng', 'bayesnas', 'random', 'enas', 'reinforce', 'tenas')


@pytest.mark.parametrize('name', [pytest.param(name, marks=() if name in ('vimnas', 'darts', 'rsps', 'random', 'parsec')
                                               else SLOW) for name in methods.NAMES])
def test_methods_that_the_penalty_does_not_move_say_so(name):
  space = spaces.get('nb201')
  method = methods.get(ConfigDict({'name': name, **methods.fields(name)}), space)
  assert constraints._moves(method, space) == (name not in STILL)


def test_a_penalty_stands_beside_that_of_the_method():
  space = spaces.get('nb201')
  method = methods.get(ConfigDict({'name': 'vimnas', **methods.fields('vimnas')}), space)._replace(
      probs=lambda phi, clock: {'cell': jnp.full((6, 5), 0.2)}, penalty=lambda phi, weights, clock: phi['params'])
  limited = [resources.Resource('params', 10.0, 5.0, {'cell': np.arange(30.0).reshape(6, 5)})]
  more = resources.limited(method, space, limited, 2.0)
  excess = (5 + 0.2 * 435) / 10 - 1
  assert float(more.penalty({'params': 3.0, 'fixed': {}}, {}, Clock(0, 1))) == pytest.approx(3 + 2 * excess)
  assert resources.limited(method, space, limited, 0.0) is method


def test_the_penalty_is_of_the_probabilities_of_its_step():
  """Not of those of the end, to which phi is scaled up later."""
  space, costs = spaces.get('nb201'), {'cell': np.arange(30.0).reshape(6, 5)}
  limited = [resources.Resource('params', 10.0, 5.0, costs)]
  slopes = []
  for sharpen, at in ((1.0, 0), (8.0, 0), (8.0, 10)):
    config = ConfigDict({'name': 'vimnas', **methods.fields('vimnas'), 'variant': 'table', 'sharpen': sharpen,
                         'sharpen_last': 1.0})
    made = resources.limited(methods.get(config, space), space, limited, 1.0)
    phi = made.init(jax.random.key(0), space)
    slopes.append(np.asarray(jax.grad(lambda params, phi=phi, made=made, at=at: made.penalty(
        {**phi, 'params': params}, {}, Clock(at, 10)))(phi['params'])['cell']['mu']))
  assert np.abs(slopes[0]).max() > 0
  np.testing.assert_allclose(slopes[1], slopes[0], atol=1e-6)
  np.testing.assert_allclose(slopes[2], 8 * slopes[0], atol=1e-5)


@pytest.fixture
def tiny():
  c = config_lib.defaults()
  c.data.name, c.data.image_size, c.data.num_train, c.trust = 'synthetic', 8, 32, ONE_EDGE
  c.space.name, c.space.cells, c.space.channels, c.batch_size, c.log_steps = ONE_EDGE, 1, 8, 8, 1
  c.devices, c.method.variant, c.method.samples = 1, 'small', 2
  return c


def test_which_network_the_limits_are_of(tiny):
  def network(changes):
    limit = config_lib.resolve(config_lib.changed(tiny, f'space.name=darts space.cells=4 {changes}')).limit
    return limit.cells, limit.channels, limit.imagenet

  assert network('') == (None, None, False)
  assert network('limit.params=1e6') == (4, 8, False)
  assert network('limit.params=1e6 then=retrain') == (20, 36, False)
  assert network("limit.params=1e6 then=retrain then_changes='network.cells=8'") == (8, 36, False)
  assert network('limit.params=1e6 limit.cells=14 limit.channels=48') == (14, 48, False)
  assert network('limit.params=1e6 space.imagenet=True then=retrain') == (14, 48, True)
  nb201 = config_lib.resolve(config_lib.changed(tiny, 'space.name=nb201 limit.params=1e6 then=retrain')).limit
  assert (nb201.cells, nb201.channels) == (5, 16)
  assert 'limit' not in config_lib.resolve(config_lib.changed(tiny, 'task=retrain limit.params=1e6 genotype=x'))


@pytest.mark.parametrize('changes, word', [
    ('limit.params=-1.0', 'limit.params=-1.0 must be at least 0'), ('limit.weight=-1.0', 'limit.weight'),
    ('limit.params=9.0', r"limit\.params=9: no network of space .*one_edge.* keeps it, the smallest has \d+: raise"),
    ('limit.madds=9.0', 'limit.madds=9: no network'), ('limit.cells=0 limit.params=1e6', 'limit.cells=0'),
    ('limit.params=1e6 space.name=oneshot1', "limit.params: what an architecture of space 'oneshot1' costs"),
    ("limit.madds=1e9 then=retrain then_changes='data.image_size=32'",
     'which has config.data.image_size=8, and its retraining has 32: give both the same by config.then_changes'),
    ("limit.madds=1e9 then=retrain data.shrink=2 then_changes='data.shrink=1 data.pad=4'",
     'which has config.data.shrink=2, and its retraining has 1: give'),
    ("limit.params=1e6 then=retrain then_changes='data.name=cifar100'", "sets data.name='cifar100'"),
    ("limit.params=1e6 space.name=darts space.imagenet=True then=retrain then_changes='network.imagenet=False'",
     'limits of networks with its stems')])
def test_bad_limits_are_told_before_anything_is_written(tiny, tmp_path, changes, word):
  with pytest.raises(UserError, match=word) as error:
    vimnas_jax.search(config_lib.changed(tiny, changes), tmp_path / 'run')
  one_line(error)
  assert not (tmp_path / 'run').exists()


def test_a_run_with_another_limit_is_refused_and_so_is_an_older_one(tiny, tmp_path):
  one, two = (config_lib.resolve(config_lib.changed(tiny, f'limit.params={limit}')) for limit in (0, 1e6))
  runfolder.write_config(tmp_path, one, 'data')
  with pytest.raises(UserError, match=r'config\.limit\.params=0\.0, not 1000000'):
    runfolder.check(tmp_path, two)
  stored = json.loads((tmp_path / 'config.json').read_text())
  del stored['config']['limit']  # as runs had before there were limits
  files.write_json(tmp_path / 'config.json', stored)
  assert runfolder.check(tmp_path, one)
  with pytest.raises(UserError, match=r'config\.limit\.params=0\.0, not 1000000'):
    runfolder.check(tmp_path, two)


def test_latencies_are_of_networks_in_the_type_that_is_trained(tiny, monkeypatch):
  seen = []
  monkeypatch.setattr(latencies.evaluate, 'latency', lambda model, count: seen.append(model.net.dtype) or {
      'milliseconds': 1.0})
  space = spaces.get('nb201')
  size = {'cells': 1, 'channels': 4, 'num_classes': 3, 'imagenet': False, 'dtype': 'bfloat16'}
  latencies.measured(space, space.genotype({'cell': np.eye(5)[[1] * 6]}), size, (8, 8, 3))
  assert seen == [jnp.bfloat16]
  with pytest.raises(UserError, match='config.dtype=\'float32\', and config.then_changes sets \'bfloat16\''):
    config_lib.resolve(config_lib.changed(
        tiny, 'space.name=nb201 limit.latency_ms=60.0 then=retrain then_changes=dtype=bfloat16'))


def test_latencies_are_measured_once_and_a_run_keeps_its_own(tiny, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  asked, said = [], []
  monkeypatch.setattr(latencies, '_operation', lambda space, place, dtype: asked.append(place) or 2.0 + len(asked))
  monkeypatch.setattr(latencies, 'measured', lambda *_: 7.0)
  tiny.space.name = 'nb201'
  c = config_lib.resolve(config_lib.changed(tiny, 'limit.latency_ms=60.0'))
  loaded, space = data.get(c.data), spaces.get('nb201')

  def made():
    return constraints.of(c, space, loaded, said.append, tmp_path / 'run.json')

  first = made()
  assert len(asked) == 4 * 3 and len({(p.op, p.channels, p.sides) for p in asked}) == 12 and len(said) == 1
  (each,) = first.resources
  assert each.fixed == 7.0  # the quickest cell has none everywhere
  rows = each.rows['cell']
  assert rows[0, 0] == 0 and (rows == rows[0]).all() and rows[0, 1] == 3 + 4 + 5  # three groups, as measured
  (device, kept), = json.loads((tmp_path / 'cache' / 'vimnas_jax' / 'latency.json').read_text()).items()
  assert device == latencies.device() and len(kept) == 13
  first.save(tmp_path)
  assert (tmp_path / 'latency.json').exists()
  (tmp_path / 'latency.json').rename(tmp_path / 'run.json')
  files.write_json(tmp_path / 'cache' / 'vimnas_jax' / 'latency.json', {device: dict.fromkeys(kept, 9.0)})
  again = made()  # the run's own, not the cache's
  np.testing.assert_array_equal(again.resources[0].rows['cell'], rows)
  assert len(asked) == 12 and len(said) == 1
  genotype, facts = again.chosen({'cell': np.eye(5)[[3] * 6]}, space.genotype({'cell': np.eye(5)[[3] * 6]}),
                                 {'cell': np.full((6, 5), 0.2)})
  assert facts['latency_ms']['found'] <= 60 and facts['latency_ms']['measured'] == 7.0 and facts['repaired']
  assert facts['latency_ms']['expected'] == pytest.approx(7 + 0.2 * rows.sum())
  assert 'repaired' in constraints.lines(facts)[-1] and space.write(genotype) in constraints.lines(facts)[-1]
  c = config_lib.resolve(config_lib.changed(tiny, 'limit.latency_ms=60.0 dtype=bfloat16'))
  made()  # of networks in another type nothing is known
  kept = json.loads((tmp_path / 'cache' / 'vimnas_jax' / 'latency.json').read_text())[device]
  assert len(asked) == 24 and sum('bfloat16' in name for name in kept) == 13 == len(kept) - 13
  (tmp_path / 'cache' / 'vimnas_jax' / 'latency.json').write_text('x')
  with pytest.raises(UserError, match='latency.json is damaged'):
    made()


@SLOW
def test_a_search_keeps_its_limit_and_goes_on_to_the_same_bits(tiny, tmp_path, monkeypatch):
  """The convolution does not fit; a kill in the middle changes nothing."""
  space = spaces.get(ONE_EDGE)
  skip, conv = (cost.count(space, space.genotype({'cell': np.eye(2)[[i]]}), cells=1, channels=8, num_classes=4,
                           image_size=8).params for i in (0, 1))
  tiny.seed = 3  # which begins with the convolution ahead
  tiny.limit.params, tiny.checkpoint_steps, tiny.epochs = float(skip + 1), 1, 4.0
  whole = vimnas_jax.search(tiny, tmp_path / 'whole')
  assert whole['params'] == whole['limit']['params']['found'] == skip
  mean = whole['probs']['cell'][0][1] * (conv - skip) + skip
  assert whole['limit']['params']['expected'] == pytest.approx(mean, abs=1)
  saved = checkpoint.Checkpoints.save

  def cut(self, step, now):
    saved(self, step, now)
    if step == 5:
      raise Cut

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.Checkpoints, 'save', cut)
    with pytest.raises(Cut):
      vimnas_jax.search(tiny, tmp_path / 'cut')
  assert vimnas_jax.search(tiny, tmp_path / 'cut')['state_sha256'] == whole['state_sha256']
  other = vimnas_jax.search(config_lib.changed(tiny, 'limit.weight=0.0'), tmp_path / 'alone')
  assert other['state_sha256'] != whole['state_sha256'] and other['params'] == skip
  assert other['limit']['repaired'] == {'from': space.write(space.genotype({'cell': np.eye(2)[[1]]})),
                                        'to': other['genotype'], 'rule': constraints.MOST_PROBABLE}
