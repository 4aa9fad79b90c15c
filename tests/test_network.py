import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import straight
from conftest import SLOW, one_line
from golden import CIFAR, IMAGENET, NASNET_A, NOISY
from test_cost import NB201, nb

from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import cost, genotypes, ops
from vimnas_jax.networks.network import Auxiliary, DiscreteCell, Edge, Network, drop_path
from vimnas_jax.spaces import Genotype, Stage

DARTS = spaces.get('darts')
EVERY_OP = Genotype('darts', {  # all seven operations at stride 1, and at stride 2
    'normal': (('sep_conv_3x3', 0, 2), ('dil_conv_5x5', 1, 2), ('skip_connect', 0, 3), ('max_pool_3x3', 2, 3),
               ('avg_pool_3x3', 3, 4), ('sep_conv_5x5', 1, 4), ('dil_conv_3x3', 4, 5), ('skip_connect', 2, 5)),
    'reduce': (('skip_connect', 0, 2), ('max_pool_3x3', 1, 2), ('avg_pool_3x3', 0, 3), ('sep_conv_3x3', 1, 3),
               ('dil_conv_3x3', 0, 4), ('dil_conv_5x5', 1, 4), ('sep_conv_5x5', 0, 5), ('skip_connect', 4, 5))})
WIDE = {'dtype': jnp.float64, 'param_dtype': jnp.float64}
MIXED = nb('nor_conv_3x3', 'none', 'skip_connect', 'avg_pool_3x3', 'nor_conv_1x1', 'nor_conv_3x3')


@pytest.fixture
def light(monkeypatch):
  """One primitive for a depthwise convolution: shapes are the same, and sooner there."""
  monkeypatch.setattr(ops, 'depthwise', reference.depthwise)


def shapes(net, side, n=1):
  return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((n, side, side, 3)), False))


def size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def randomised(variables, seed):
  """Variables with scales, biases and statistics that are not those of the start."""
  rng = np.random.default_rng(seed)
  draws = {'scale': lambda s: rng.uniform(0.5, 1.5, s), 'bias': lambda s: rng.normal(size=s),
           'mean': lambda s: rng.normal(size=s), 'var': lambda s: rng.uniform(0.5, 2.0, s)}
  return jax.tree_util.tree_map_with_path(
      lambda path, x: jnp.asarray(draws[path[-1].key](x.shape) if path[-1].key in draws else
                                  rng.uniform(-1, 1, x.shape) / np.sqrt(max(1, x.size / x.shape[-1]))), variables)


def close(a, b):
  np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize('name', [pytest.param(name, marks=() if i % 4 == 0 or name == 'DARTS_V2' else SLOW)
                                  for i, name in enumerate(CIFAR)])
def test_parameters_of_every_published_network(light, name):
  """In a small network; its count by arithmetic is checked against the published one in test_cost."""
  net = Network(space=DARTS, genotype=genotypes.get(name), cells=3, channels=8)
  found = cost.count(DARTS, genotypes.get(name), cells=3, channels=8, num_classes=10)
  assert size(shapes(net, 8)['params']) == found.params


@pytest.mark.parametrize('name, imagenet', [
    ('PDARTS', True),
    *(pytest.param(*case, marks=SLOW) for case in (
        ('PC_DARTS_cifar', False), ('DARTS_V2', False), ('PC_DARTS_image', True)))])
def test_parameters_at_full_size(light, name, imagenet):
  cells, channels, classes = (14, 48, 1000) if imagenet else (20, 36, 10)
  net = Network(space=DARTS, genotype=genotypes.get(name), cells=cells, channels=channels, num_classes=classes,
                auxiliary=True, imagenet=imagenet)
  params = shapes(net, 224 if imagenet else 32)['params']
  assert size(params.pop('auxiliary')) == (1_260_776 if imagenet else 476_426)
  assert size(params) == (IMAGENET if imagenet else CIFAR)[name][0]


@pytest.mark.parametrize('space, genotype, cells, channels, expected', [
    (NB201, nb(*['nor_conv_3x3'] * 6), 5, 16, 1_531_546), (NB201, nb(*['nor_conv_1x1'] * 6), 5, 16, 241_306),
    (NB201, nb(*['none'] * 6), 5, 16, 73_306), (*NOISY, 8, 16, 384_570),
    (*NASNET_A, 3, 8, cost.count(*NASNET_A, cells=3, channels=8, num_classes=10).params)])
def test_parameters_beyond_the_darts_space(light, space, genotype, cells, channels, expected):
  net = Network(space=space, genotype=genotype, cells=cells, channels=channels)
  rngs = {'params': jax.random.key(0), 'noise': jax.random.key(1)}
  variables = jax.eval_shape(lambda: net.init(rngs, jnp.zeros((1, 8, 8, 3)), False))
  assert size(variables['params']) == expected


@pytest.mark.parametrize('imagenet, side, maps', [
    (False, 32, {'stem_norm': (32, 12), 'cell_1': (32, 16), 'cell_2': (16, 32), 'cell_3': (8, 64)}),
    (True, 224, {'stem0a_norm': (112, 2), 'stem0b_norm': (56, 4), 'stem1_norm': (28, 4), 'cell_2': (28, 16),
                 'cell_3': (14, 32), 'cell_4': (7, 64)})])
def test_shapes_of_every_stage(light, imagenet, side, maps):
  net = Network(space=DARTS, genotype=genotypes.get('DARTS_V2'), cells=3, channels=4, num_classes=7, auxiliary=True,
                imagenet=imagenet)
  x = jnp.zeros((2, side, side, 3))

  def run(train):
    variables = net.init(jax.random.key(0), x, False)
    return net.apply(variables, x, train, mutable=['batch_stats', 'intermediates'], capture_intermediates=True)

  out, state = jax.eval_shape(lambda: run(True))
  assert [y.shape for y in out] == [(2, 7), (2, 7)]
  for name, (pixels, channels) in maps.items():
    assert state['intermediates'][name]['__call__'][0].shape == (2, pixels, pixels, channels)
  assert jax.eval_shape(lambda: run(False)[0]).shape == (2, 7)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('h, w, train', [(7, 6, False), (8, 5, True)])
def test_operations(x64, stride, h, w, train):
  x = jax.random.normal(jax.random.key(0), (3, h, w, 4))
  edges = {op: Edge(op=op, stride=stride, **WIDE) for op in ops.OPS}
  variables = jax.eval_shape(lambda: {op: edge.init(jax.random.key(0), x, False) for op, edge in edges.items()})
  variables = randomised(variables, stride)
  got = jax.jit(lambda: {op: edge.apply(variables[op], x, train, mutable=['batch_stats'])[0]
                         for op, edge in edges.items()})()
  for op, own in variables.items():
    net = straight.Net({'params': {}, 'batch_stats': {}, **own}, train)
    close(got[op], net.op(op, np.asarray(x), stride, ()))


def _compare(net, x, seed, run, train=False):
  """`net` on x against `run` (a method of straight.Net), with random variables; returns both new statistics."""
  variables = randomised(shapes(net, x.shape[1]), seed)
  got, new = jax.jit(lambda v: net.apply(v, x, train, mutable=['batch_stats']))(variables)
  plain = straight.Net(variables, train)
  want = run(plain, net.genotype, np.asarray(x))
  jax.tree.map(close, got, want)
  return variables['batch_stats'], new['batch_stats'], plain.batch


def test_darts_network_in_training_and_its_statistics(x64):
  net = Network(space=DARTS, genotype=EVERY_OP, cells=3, channels=4, num_classes=5, auxiliary=True, **WIDE)
  x = jax.random.normal(jax.random.key(0), (3, 29, 29, 3))
  old, new, batch = _compare(net, x, 1, straight.Net.darts_cifar, train=True)
  assert len(batch) == len(jax.tree.leaves(old)) // 2
  for path, (mean, var) in batch.items():
    before, after = old, new
    for name in path:
      before, after = before[name], after[name]
    close(after['mean'], 0.9 * before['mean'] + 0.1 * mean)
    close(after['var'], 0.9 * before['var'] + 0.1 * var)


@pytest.mark.parametrize('space, genotype, imagenet, side, run', [
    pytest.param(DARTS, EVERY_OP, False, 8, lambda *a: straight.Net.darts_cifar(*a)[0], marks=SLOW),
    (DARTS, EVERY_OP, True, 44, straight.Net.darts_imagenet),
    (NB201, MIXED, False, 8, straight.Net.nb201)])
def test_networks_in_evaluation(x64, space, genotype, imagenet, side, run):
  net = Network(space=space, genotype=genotype, cells=3 if space is DARTS else 1, channels=4, num_classes=5,
                imagenet=imagenet, **WIDE)
  x = jax.random.normal(jax.random.key(side), (2, side, side, 3))
  old, new, _ = _compare(net, x, side, run)
  jax.tree.map(np.testing.assert_array_equal, old, new)


@pytest.mark.parametrize('side, pool_stride, last_norm', [(8, 3, True), (7, 2, False), (8, 2, True)])
def test_auxiliary_heads(x64, side, pool_stride, last_norm):
  head = Auxiliary(num_classes=5, pool_stride=pool_stride, last_norm=last_norm, **WIDE)
  x = jax.random.normal(jax.random.key(0), (3, side, side, 4))
  variables = randomised(jax.eval_shape(lambda: head.init(jax.random.key(0), x, False)), side)
  got = jax.jit(lambda: head.apply(variables, x, True, mutable=['batch_stats'])[0])()
  close(got, straight.Net(variables, True).auxiliary(np.asarray(x), pool_stride, last_norm, ()))


def test_initial_values_are_those_of_pytorch():
  edge = Edge(op='sep_conv_5x5')
  variables = jax.jit(lambda: edge.init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)), False))()
  for name, fan_in in (('depthwise1', 25), ('pointwise1', 64), ('depthwise2', 25), ('pointwise2', 64)):
    largest = float(jnp.abs(variables['params'][name]).max()) * fan_in ** 0.5
    assert 0.99 < largest <= 1.0
  norm = variables['params']['norm1'] | variables['batch_stats']['norm1']
  assert {name: (float(x.min()), float(x.max())) for name, x in norm.items()} == {
      'scale': (1, 1), 'bias': (0, 0), 'mean': (0, 0), 'var': (1, 1)}


def test_factors_of_dropped_paths():
  factors = drop_path(jax.random.key(0), 0.3, (40_000,))
  np.testing.assert_allclose(np.unique(factors), [0.0, 1 / 0.7], rtol=1e-6)
  assert abs(float(factors.mean()) - 1) < 5 * (0.3 / 0.7 / 40_000) ** 0.5
  np.testing.assert_array_equal(drop_path(jax.random.key(0), 0.0, (9,)), jnp.ones(9))


def test_what_is_dropped_in_a_cell(x64):
  """Factors scale each image's path, all but an identity's: pools and skips of stride 2 are paths."""
  edges = (('max_pool_3x3', 0, 2), ('skip_connect', 1, 2), ('skip_connect', 2, 3), ('avg_pool_3x3', 1, 3))
  keys = jax.random.split(jax.random.key(0), 3)
  inputs = tuple(jax.random.normal(key, (5, 6, 6, 4)) for key in keys[:2])
  factors = jax.random.uniform(keys[2], (4, 5))
  for stride in (1, 2):
    stage = Stage('cell', 4, cell='normal', stride=stride)
    cell = DiscreteCell(cell=DARTS.cells['normal'], stage=stage, edges=edges, **WIDE)
    variables = randomised(jax.eval_shape(lambda cell=cell: cell.init(keys[2], inputs, False)), stride)
    run = jax.jit(lambda cell=cell, variables=variables: cell.apply(variables, inputs, True, factors,
                                                                    mutable=['batch_stats'])[0])
    plain = straight.Net(variables, True)
    s0, s1 = (plain.norm((f'preprocess{i}_norm',), straight.relu(np.asarray(x)) @ plain.leaf((f'preprocess{i}',)))
              for i, x in enumerate(inputs))
    f = np.asarray(factors)[..., None, None, None]
    skip = s1 if stride == 1 else f[1] * plain.op('skip_connect', s1, 2, ('edge1_skip_connect',))
    node2 = f[0] * straight.max_pool(s0, stride) + skip
    node3 = node2 + f[3] * straight.avg_pool(s1, stride)
    close(run(), np.concatenate([node2, node3, 0 * node2, 0 * node2], -1))


def test_drop_path_in_a_network(x64):
  net = Network(space=NB201, genotype=MIXED, cells=1, channels=4, num_classes=3, **WIDE)
  x = jnp.repeat(jax.random.normal(jax.random.key(0), (1, 8, 8, 3)), 8, 0)
  variables = randomised(shapes(net, 8), 0)
  traces = []

  @jax.jit
  def train(rate, key):
    traces.append(rate)
    return net.apply(variables, x, True, rate, rngs={'drop_path': key}, mutable=['batch_stats'])[0]

  whole = jax.jit(lambda: net.apply(variables, x, True, mutable=['batch_stats'])[0])()  # no rng is needed
  close(train(0.0, jax.random.key(2)), whole)
  dropped = train(0.5, jax.random.key(2))
  assert len(traces) == 1
  assert len(np.unique(dropped[:, 0])) > 4  # equal images, every one with its own mask
  assert not np.array_equal(dropped, train(0.5, jax.random.key(3)))
  evaluations = [jax.jit(lambda rate=rate: net.apply(variables, x, False, rate))() for rate in (0.0, 0.5)]
  np.testing.assert_array_equal(*evaluations)


@pytest.mark.parametrize('stride', [1, 2])
def test_noise_is_fresh_also_in_evaluation(stride):
  edge = Edge(op='noise', stride=stride)
  a, b = (edge.apply({}, jnp.full((64, 9, 8, 4), jnp.nan), False, rngs={'noise': jax.random.key(i)}) for i in (0, 1))
  assert a.shape == (64, 9 if stride == 1 else 5, 8 // stride, 4)
  assert abs(float(a.mean())) < 0.05 and abs(float(a.std()) - 1) < 0.05 and not np.array_equal(a, b)


@SLOW
def test_bfloat16_stays_near_float32():
  nets = [Network(space=NB201, genotype=MIXED, cells=1, channels=4, num_classes=3, dtype=d)
          for d in (jnp.float32, jnp.bfloat16)]
  x = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
  variables = jax.jit(lambda: nets[1].init(jax.random.key(1), x, False))()
  assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  (full, _), (half, new) = (jax.jit(lambda net=net: net.apply(variables, x, True, mutable=['batch_stats']))()
                            for net in nets)
  assert full.dtype == half.dtype == jnp.float32
  assert {a.dtype for a in jax.tree.leaves(new)} == {jnp.dtype('float32')}
  np.testing.assert_allclose(full, half, atol=0.1)
  assert not np.array_equal(full, half)


@pytest.mark.parametrize('fields, side, rate, word', [
    ({'space': NB201}, 32, 0.0, "belongs to space 'darts'"),
    ({}, 3, 0.0, 'images of 3 pixels'), ({'imagenet': True}, 31, 0.0, 'at least 32'),
    ({'space': NB201, 'genotype': MIXED, 'imagenet': True}, 32, 0.0, 'imagenet=False'),
    ({'space': NB201, 'genotype': MIXED, 'auxiliary': True}, 32, 0.0, 'config.network.auxiliary=0'),
    ({'auxiliary': True}, 16, 0.0, '4 x 4: set config.network.auxiliary=0, or give images of 32'),
    ({'auxiliary': True, 'imagenet': True}, 64, 0.0, '2 x 2: set config.network.auxiliary=0, or give images of 224'),
    ({'cells': 2}, 32, 0.0, '3 cells'), ({}, 32, 1.0, 'drop_path_rate=1.0')])
def test_bad_input_is_one_line(light, fields, side, rate, word):
  net = Network(**{'space': DARTS, 'genotype': genotypes.get('ALL_SKIP'), 'cells': 3, 'channels': 4, **fields})
  with pytest.raises(UserError) as e:
    jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), True, rate))
  assert word in one_line(e)
