
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SLOW
from jax import lax

from vimnas_jax import config as config_lib
from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import cost, mixing
from vimnas_jax.networks.oneshot import Cell, OneShot, pool
from vimnas_jax.spaces import Stage, oneshot


def some_weights(space, key, samples=1):
  keys = jax.random.split(key, 1 + len(space.choices))
  weights = {'cell': jax.nn.softmax(2 * jax.random.normal(keys[0], (samples, *space.cells['cell'].shape)))}
  return weights | {name: jax.nn.softmax(jax.random.normal(k, (1, count)))
                    for k, (name, count) in zip(keys[1:], space.choices.items())}


def norm(x):
  return (x - x.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(x.var((0, 1, 2), keepdims=True) + 1e-5)


def conv(x, kernel):
  return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def unit(p, name, x, part=slice(None)):
  """Convolution, BatchNorm, ReLU; `part` of the output's channels."""
  scale, bias = (p[f'{name}_norm_{kind}'][part][None, None, None] for kind in ('scale', 'bias'))
  return jax.nn.relu(norm(conv(x, p[name][..., part])) * scale + bias)


def window(x, size, stride):
  return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1),
                           ((0, 0), (1, 1), (1, 1), (0, 0)))


def straight_cell(space, p, x, weights, c):
  """A cell one layer at a time, written from the description of the benchmark, weights per image."""
  blocks, parents = space.topology.blocks, space.topology.parents
  mixing = jnp.repeat(weights['cell'], len(x) // len(weights['cell']), 0)[:, :, :, None, None, None]
  out = []
  for node in range(1, blocks + 1):
    lower = [unit(p, 'projections', x, slice((node - 1) * c, node * c)), *out]
    share = weights[f'inputs_{node}'][0] if parents[node - 1] < node else jnp.ones(node)
    into = sum(share[j] * y for j, y in enumerate(lower))
    w = mixing[:, node - 1]
    out.append(w[:, 0] * window(into, 3, 1) + w[:, 1] * unit(p, f'block{node}_conv3x3', into)
               + w[:, 2] * unit(p, f'block{node}_conv1x1', into))
  share, past = weights['output'][0], unit(p, 'projections', x, slice(blocks * c, 2 * blocks * c))
  return share[0] * past + jnp.concatenate([share[j] * y for j, y in enumerate(out, 1)], -1)


def straight(space, params, x, weights):
  """The network of three cells, C = 2."""
  x = unit(params, 'stem', x)
  for index, c in ((1, 2), (3, 4), (5, 8)):
    x = window(x, 2, 2) if index > 1 else x
    x = straight_cell(space, params[f'cell_{index}'], x, weights, c)
  x = norm(conv(jax.nn.relu(x), params['last'][None, None])).mean((1, 2))
  return x @ params['head'] + params['head_bias'][None]


def apart(params):
  """Scales and biases of their own, so that none is mistaken for another."""
  return jax.tree.map(lambda p: p + 0.1 * np.random.default_rng(p.size).standard_normal(p.shape), params)


def drawn(shapes):
  return apart(jax.tree.map(lambda p: np.random.default_rng(p.size).standard_normal(p.shape), shapes))


def same(forward, reference, params, weights, x):
  """Values and all gradients of two forms agree; returns those of the weights."""
  probe = jax.random.normal(jax.random.key(3), jax.eval_shape(reference, params, weights, x).shape)

  def both(f):
    def total(*args):
      y = f(*args)
      return (y * probe).sum(), y
    return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(params, weights, x)

  (_, y), got = both(forward)
  (_, wanted), want = both(reference)
  np.testing.assert_allclose(y, wanted, rtol=1e-10, atol=1e-10)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * float(jnp.abs(b).max()))
  return got[1]


@SLOW
@pytest.mark.parametrize('name, side, samples', [('oneshot2', 5, 2), ('oneshot3', 7, 1)])
def test_cell_equals_one_layer_at_a_time(x64, name, side, samples):
  space = spaces.get(name)
  cell = Cell(topology=space.topology, stage=Stage('cell', 3, cell='cell'), dtype=jnp.float64, param_dtype=jnp.float64)
  x = jax.random.normal(jax.random.key(side), (4, side, side, 5))
  weights = some_weights(space, jax.random.key(1), samples)
  params = drawn(jax.eval_shape(cell.init, jax.random.key(2), (x,), weights)['params'])
  grad = same(lambda p, w, x: cell.apply({'params': p}, (x,), w), lambda p, w, x: straight_cell(space, p, x, w, 3),
              params, weights, x)
  assert all(float(jnp.abs(grad[row]).max()) > 1e-2 for row in (*space.choices, 'cell'))


@pytest.mark.parametrize('back', [False, pytest.param(True, marks=SLOW)])
def test_network_equals_one_layer_at_a_time(x64, back):
  """Computing cells again on the way back changes nothing; sides go 7, 4, 3."""
  space = spaces.get('oneshot1')
  net = OneShot(space=space, cells=3, channels=2, num_classes=3, dtype=jnp.float64, param_dtype=jnp.float64, remat=True)
  x, weights = jax.random.normal(jax.random.key(0), (4, 7, 7, 3)), some_weights(space, jax.random.key(1), 2)
  params = drawn(jax.eval_shape(net.init, jax.random.key(2), x, weights)['params'])
  forms = (lambda p, w, x: net.apply({'params': p}, x, w)), (lambda p, w, x: straight(space, p, x, w))
  if back:
    same(*forms, params, weights, x)
  else:
    np.testing.assert_allclose(*(jax.jit(form)(params, weights, x) for form in forms), rtol=1e-10, atol=1e-10)


@pytest.mark.skipif(mixing.normed() is None, reason='the kernels are switched off')
@SLOW
@pytest.mark.parametrize('name, what', [('oneshot1', 'cell'), ('oneshot3', 'network')])
def test_kernels_change_nothing(x64, monkeypatch, name, what):
  """Of a width that has them, with a weight of 0 among those that mix."""
  space = spaces.get(name)
  kinds = {'dtype': jnp.float64, 'param_dtype': jnp.float64}
  x, weights = jax.random.normal(jax.random.key(0), (4, 6, 6, 3)), some_weights(space, jax.random.key(1), 2)
  if what == 'cell':
    net, x = Cell(topology=space.topology, stage=Stage('cell', 4, cell='cell'), **kinds), (x,)
  else:
    net = OneShot(space=space, cells=3, channels=4, num_classes=3, **kinds)
  weights['inputs_4'] = weights['inputs_4'].at[:, 1].set(0.0)
  out, shapes = jax.eval_shape(net.init_with_output, jax.random.key(2), x, weights)
  params, probe = drawn(shapes['params']), jax.random.normal(jax.random.key(3), out.shape)

  def program():
    return jax.jit(jax.grad(lambda p, w: (net.apply({'params': p}, x, w) * probe).sum(), (0, 1))).lower(params, weights)

  programs = [program()]
  monkeypatch.setattr(mixing, 'normed', lambda: None)
  programs.append(program())
  assert ['@vimnas_jax_' in p.as_text() for p in programs] == [True, False]
  got, want = (p.compile()(params, weights) for p in programs)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * float(jnp.abs(b).max()))


@pytest.mark.parametrize('sides', [(32, 17), (17, 9), (1, 1)])
def test_pool_is_that_of_the_benchmark(sides):
  x = jax.random.normal(jax.random.key(0), (1, sides[0], sides[0], 2))
  assert pool(x).shape == (1, sides[1], sides[1], 2)
  np.testing.assert_array_equal(pool(x), window(x, 2, 2))


@pytest.mark.parametrize('name, count', [
    *(pytest.param(name, 1_101_402, marks=SLOW) for name in ('oneshot1', 'oneshot2')),
    pytest.param('oneshot3', 1_509_594, marks=SLOW)])
def test_parameter_counts(name, count):
  space = spaces.get(name)
  assert cost.supernet(space, cells=9, channels=16, num_classes=10) == count
  net = OneShot(space=space, cells=9, channels=16, num_classes=10)
  weights = some_weights(space, jax.random.key(0))
  shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), weights)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize('name, graphs, chained, all_graphs, everything', [
    ('oneshot1', 49, 2_487, 66, 3_702), ('oneshot2', 65, 3_609, 190, 12_474),
    ('oneshot3', 234, 24_066, 876, 135_900)])
def test_counts_of_the_benchmark(name, graphs, chained, all_graphs, everything):
  for kept, shapes, total in ((True, graphs, chained), (False, all_graphs, everything)):
    found = list(oneshot.graphs(name, kept))
    assert (len(found), sum(3 ** (len(parents) - 1) for parents in found)) == (shapes, total)
  if name == 'oneshot1':
    assert len(set(oneshot.everything(name, chained=True))) == chained
    assert len({oneshot.write(genotype) for genotype in oneshot.everything(name)}) == everything


def test_shapes_of_the_architecture_and_the_graph():
  rows = {'oneshot1': {'inputs_3': 3, 'inputs_4': 4}, 'oneshot2': {'inputs_2': 2, 'inputs_3': 3, 'inputs_4': 4},
          'oneshot3': {'inputs_2': 2, 'inputs_3': 3, 'inputs_4': 4, 'inputs_5': 5}}
  for name, inputs in rows.items():
    space, blocks = spaces.get(name), 5 if name == 'oneshot3' else 4
    assert space.cells['cell'].shape == (blocks, 3) and space.choices == {**inputs, 'output': blocks + 1}
    assert space.cells['cell'].label(0) == 'block 1'


def test_derivation():
  """Strongest parents, loose ends dropped, ties to the lower node and operation."""
  space = spaces.get('oneshot1')
  probs = {'cell': np.array([[0.1, 0.8, 0.1], [0.4, 0.2, 0.4], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]]),
           'inputs_3': np.array([[0.2, 0.5, 0.3]]), 'inputs_4': np.array([[0.4, 0.3, 0.1, 0.2]]),
           'output': np.array([[0.25, 0.25, 0.1, 0.1, 0.3]])}
  genotype = space.validate(space.genotype(probs))
  assert genotype.cells['cell'] == (('conv3x3-bn-relu', 0, 1), ('conv3x3-bn-relu', 0, 4), ('conv3x3-bn-relu', 1, 4),
                                    ('output', 0, 5), ('output', 4, 5))  # blocks 2 and 3 are loose
  assert space.operations(genotype) == ['conv3x3-bn-relu'] * 2
  assert space.topology.margins(probs) == pytest.approx({'inputs_3': 0.1, 'inputs_4': 0.1, 'output': 0})
  probs['output'] = np.array([[0.1, 0.1, 0.4, 0.3, 0.1]])
  genotype = space.genotype(probs)
  assert genotype.cells['cell'] == (
      ('conv3x3-bn-relu', 0, 1), ('maxpool3x3', 0, 2), ('maxpool3x3', 1, 2), ('conv1x1-bn-relu', 1, 3),
      ('conv1x1-bn-relu', 2, 3), ('output', 2, 5), ('output', 3, 5))
  assert space.operations(genotype) == ['conv3x3-bn-relu', 'maxpool3x3', 'conv1x1-bn-relu']
  assert oneshot.describe(genotype) == (
      'block 1 (conv3x3-bn-relu) <- input; block 2 (maxpool3x3) <- input, block 1; '
      'block 3 (conv1x1-bn-relu) <- block 1, block 2; output <- block 2, block 3; without a way to the output: 4')
  assert spaces.Genotype.from_json(genotype.to_json()) == space.read(space.write(genotype)) == genotype


def test_bad_input_is_one_line():
  space = spaces.get('oneshot1')
  good = oneshot.make_genotype('oneshot1', {1: (0,), 5: (0, 1)}, oneshot.OPS[:1] * 4)
  text = space.write(good)
  edges = good.cells['cell']

  def fails(word, act):
    with pytest.raises(UserError, match=word) as error:
      act()
    assert '\n' not in str(error.value)

  fails('49 digits', lambda: space.read('|none~0|'))
  fails('49 digits', lambda: space.read(text.replace('maxpool3x3', 'avgpool3x3')))
  fails('49 digits', lambda: space.read(text[1:]))
  fails('has an edge 1->0', lambda: space.read(f'{"0" * 7}1{text[8:]}'))
  fails('the output takes its input from', lambda: space.read('0' * 6 + '1' + text[7:13] + '0' + text[14:]))
  fails("belongs to space 'oneshot1'", lambda: spaces.get('oneshot2').validate(good))
  fails('needs', lambda: space.validate(spaces.Genotype('oneshot1', {'cell': edges[:-1]})))
  fails('ops', lambda: space.validate(spaces.Genotype('oneshot1', {'cell': (('output', *edges[0][1:]), *edges[1:])})))
  fails("'inputs_3' have shape", lambda: space.genotype({'cell': np.ones((4, 3)) / 3}))
  fails('config.space.cells=2', lambda: space.macro(2, 16))
  fails('trained in NAS-Bench-101', lambda: space.stages(9, 16))
  for task in ('retrain', 'evaluate'):
    c = config_lib.defaults()
    c.space.name, c.task = 'oneshot3', task
    fails(f"config.task='{task}': .*NAS-Bench-101", lambda c=c: config_lib.resolve(c))
