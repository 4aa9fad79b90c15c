import dataclasses
import os

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import SLOW

from vimnas_jax import spaces
from vimnas_jax.networks import cost, initial, mixing, ops
from vimnas_jax.networks.mixing import by_source
from vimnas_jax.networks.oneshot import OneShot
from vimnas_jax.networks.supernet import MixedCell, Supernet
from vimnas_jax.spaces import Cell, Stage, custom


@pytest.mark.parametrize('name, cells, classes, expected', [
    ('darts', 8, 10, 1930618), ('darts', 8, 100, 1953748), ('nb201', 5, 10, 1686106), ('s1', 8, 10, 405146),
    ('s1', 8, 100, 428276), ('s2', 8, 10, 665466), ('s2', 8, 100, 688596), ('s3', 8, 10, 665466),
    ('s3', 8, 100, 688596), ('s4', 8, 10, 624506), ('s4', 8, 100, 647636)])
def test_parameter_counts(name, cells, classes, expected):
  space = spaces.get(name)
  assert cost.supernet(space, cells=cells, channels=16, num_classes=classes) == expected
  if classes == 100 and name != 'darts':
    return  # the head alone differs, which DARTS shows; tracing takes seconds
  net = Supernet(space=space, cells=cells, channels=16, num_classes=classes)
  weights = {n: jnp.ones((1, *c.shape)) for n, c in space.cells.items()}
  keys = {'params': jax.random.key(0), 'noise': jax.random.key(1)}
  shapes = jax.eval_shape(net.init, keys, jnp.zeros((1, 32, 32, 3)), weights)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == expected


def _choose(monkeypatch, form):
  kernels = mixing.kernels()
  if form == 'kernels' and os.environ.get('VIMNAS_JAX_KERNELS') == '0':
    pytest.skip('the kernels are switched off')
  assert form == 'plain' or kernels is not None  # what the CPU uses, and so what the other tests test
  monkeypatch.setattr(mixing, 'kernels', lambda: kernels if form == 'kernels' else None)


def _close(a, b, tolerance):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * max(1e-3, float(jnp.abs(y).max())))


def drawn(shapes):
  """Parameters of these shapes, about as large as they start."""
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) / s.size ** 0.25, s.dtype), shapes)


def two_nodes(cell):
  """The first two nodes of a cell of the DARTS space, which compiles in a third of the time and has all it has."""
  kept = [(edge, names) for edge, names in zip(cell.edges, cell.ops) if edge[1] < cell.inputs + 2]
  edges, names = zip(*kept)
  return dataclasses.replace(cell, edges=edges, ops=names, output=tuple(range(cell.inputs, cell.inputs + 2)))


@pytest.mark.parametrize('name, cell_name, stride, shrunk, side, samples, form', [
    ('darts', 'normal', 1, True, 5, 2, 'kernels'), ('nb201', 'cell', 1, False, 6, 4, 'plain'),
    *(pytest.param(*case, marks=SLOW) for case in (
        ('s4', 'reduce', 2, False, 7, 2, 'kernels'),
        ('darts', 'reduce', 2, False, 7, 1, 'kernels'), ('nb201', 'cell', 1, False, 5, 1, 'kernels'),
        ('nb201', 'cell', 1, False, 6, 4, 'kernels'), ('s1', 'reduce', 2, False, 6, 1, 'kernels')))])
def test_cell_equals_one_operation_at_a_time(x64, monkeypatch, name, cell_name, stride, shrunk, side, samples, form):
  _choose(monkeypatch, form)
  space = spaces.get(name)
  cell, stage = space.cells[cell_name], Stage('cell', 4, cell=cell_name, stride=stride, shrunk=shrunk)
  cell = two_nodes(cell) if name in ('darts', 's4') else cell
  keys = jax.random.split(jax.random.key(side), 6)
  key = jax.random.key_data(keys[5])
  older = jax.random.normal(keys[0], (8, 2 * side if shrunk else side, 2 * side if shrunk else side, 6))
  newer = jax.random.normal(keys[1], (8, side, side, 4))
  inputs = (older, newer)[-cell.inputs:]
  weights = jax.nn.softmax(3 * jax.random.normal(keys[2], (samples, *cell.shape)))
  module = MixedCell(cell=cell, stage=stage, pool_norm=space.pool_norm, dtype=jnp.float64, param_dtype=jnp.float64)
  shapes = jax.eval_shape(lambda: module.init_with_output(keys[3], inputs, by_source(cell, weights), key))
  params = drawn(shapes[1]['params'])
  probe = jax.random.normal(keys[4], shapes[0].shape)

  def noise(edge, shape):
    return jax.random.normal(jax.random.fold_in(keys[5], edge), shape)

  def fused(params, inputs, weights):
    return (module.apply({'params': params}, inputs, by_source(cell, weights), key) * probe).sum()

  def plain(params, inputs, weights):
    per_image = jnp.repeat(weights, 8 // samples, 0)
    return (reference.mixed_cell(cell, stage, space.pool_norm, params, inputs, per_image, noise) * probe).sum()

  got = jax.jit(jax.value_and_grad(fused, (0, 1, 2)))(params, inputs, weights)
  want = jax.jit(jax.value_and_grad(plain, (0, 1, 2)))(params, inputs, weights)
  _close(got, want, 1e-10)


def _pulled(form, other, *args):
  """Values of two forms, and what the same cotangent pulls back through each."""
  pairs = [jax.vjp(f, *args) for f in (form, other)]
  dy = jax.random.normal(jax.random.key(2), pairs[1][0].shape)
  return [(y, pull(dy)) for y, pull in pairs]


@pytest.mark.parametrize('n, h, w', [pytest.param(16, 7, 6, marks=SLOW), (3, 8, 5)])
def test_depthwise_and_its_gradients(x64, n, h, w):
  @jax.jit
  def both():
    keys = jax.random.split(jax.random.key(0), 2)
    x, kernels = jax.random.normal(keys[0], (n, h, w, 3)), jax.random.normal(keys[1], (5, 5, 3))
    return {case: _pulled(lambda x, k, case=case: ops.depthwise(x, k, *case[1:]),
                          lambda x, k, case=case: reference.depthwise(x, k, *case[1:]), x, kernels[:case[0], :case[0]])
            for case in ((3, 1, 1), (5, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 2), (5, 2, 2))}  # size, stride, dilation

  for got, want in both().values():
    _close(got, want, 1e-12)


@SLOW
@pytest.mark.parametrize('stride', [pytest.param(1, marks=SLOW), 2])
def test_pools(x64, stride):
  @jax.jit
  def both():
    return {(side, kind): _pulled(lambda x, pool=pool: pool(x, stride),
                                  lambda x, kind=kind: reference.window(x, kind, stride),
                                  jax.random.normal(jax.random.key(1), (2, side, side + 1, 3)))
            for side in (1, 2, 3, 7, 8) for kind, pool in (('max', ops.max_pool), ('avg', ops.avg_pool))}

  for case, (got, want) in both().items():
    jax.tree.map(lambda a, b, case=case: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=str(case)),
                 got, want)


def test_tied_pixels_share_the_gradient():
  (dx,) = jax.vjp(ops.max_pool, jnp.ones((1, 3, 3, 1)))[1](jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(9.0))
  np.testing.assert_allclose(dx, jnp.ones((1, 3, 3, 1)), rtol=1e-6)


@SLOW
def test_bfloat16_stays_near_float32():
  space = spaces.get('nb201')
  weights = {'cell': jnp.full((1, 6, 5), 0.2)}
  x = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
  nets = [Supernet(space=space, cells=1, channels=4, num_classes=3, dtype=d) for d in (jnp.float32, jnp.bfloat16)]
  params = jax.jit(nets[0].init)(jax.random.key(1), x, weights)
  full, half = (jax.jit(net.apply)(params, x, weights) for net in nets)
  assert full.dtype == half.dtype == jnp.float32
  np.testing.assert_allclose(full, half, atol=0.15)
  assert not np.array_equal(full, half)


@pytest.mark.parametrize('remat', [False, True])
def test_noise_is_fresh_for_every_key_and_wants_its_rng(remat):
  space = custom.space(
      {'cell': Cell(inputs=1, edges=((0, 1), (0, 2), (1, 2)), ops=(('skip_connect', 'noise'),) * 3, output=(2,))},
      lambda cells, c: (Stage('stem', c), Stage('cell', c, cell='cell'), Stage('head', norm=True)))
  net = Supernet(space=space, cells=1, channels=8, num_classes=3, remat=remat)
  x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
  weights = {name: jnp.full((1, *cell.shape), 0.5) for name, cell in space.cells.items()}
  params = drawn(jax.eval_shape(net.init, {'params': jax.random.key(1), 'noise': jax.random.key(2)}, x, weights))

  @jax.jit
  def grad(key):
    return jax.grad(lambda p: jnp.square(net.apply(p, x, weights, rngs={'noise': key})).sum())(params)

  a, b, again = (jax.tree.leaves(grad(jax.random.key(i))) for i in (0, 1, 0))
  assert not any(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
  assert all(np.array_equal(x, y) for x, y in zip(a, again, strict=True))
  with pytest.raises(flax.errors.InvalidRngError):
    jax.eval_shape(net.apply, params, x, weights)


@SLOW
def test_recomputed_cells_give_the_same_in_less_memory(x64):
  """To rounding: the two programs may be fused, and so rounded, otherwise."""
  space = spaces.get('nb201')
  nets = [Supernet(space=space, cells=2, channels=8, num_classes=3, dtype=jnp.float64, param_dtype=jnp.float64,
                   remat=remat) for remat in (False, True)]
  x = jax.random.normal(jax.random.key(0), (16, 16, 16, 3))
  weights = {'cell': jnp.full((1, 6, 5), 0.2)}
  params = drawn(jax.eval_shape(nets[1].init, jax.random.key(1), x, weights))
  runs = [jax.jit(jax.grad(lambda p, net=net: jnp.square(net.apply(p, x, weights)).sum())).lower(params).compile()
          for net in nets]
  kept, again = (run.memory_analysis().temp_size_in_bytes for run in runs)
  assert again < 0.7 * kept
  _close(*(run(params) for run in runs), 1e-10)


@pytest.mark.parametrize('shape', [(3, 3, 3, 14), (6, 5), (7,), ()])
def test_numbers_of_one_axis_are_those_of_many(shape):
  for ours, theirs in ((initial.normal, jax.random.normal), (initial.uniform, jax.random.uniform),
                       (initial.gumbel, jax.random.gumbel)):
    np.testing.assert_array_equal(ours(jax.random.key(3), shape), theirs(jax.random.key(3), shape))
  np.testing.assert_array_equal(initial.uniform(jax.random.key(4), shape, minval=-0.3, maxval=0.2),
                                jax.random.uniform(jax.random.key(4), shape, minval=-0.3, maxval=0.2))


@SLOW
@pytest.mark.parametrize('remat', [pytest.param(False, marks=SLOW), True])
def test_initial_weights_are_cut_from_one_draw(remat):
  """As wide as those that every module draws for itself, nothing twice, and what is constant stays so."""
  space = spaces.get('oneshot1')
  net = OneShot(space=space, cells=3, channels=8, num_classes=3, remat=remat)
  weights = {name: jnp.full((1, *cell.shape), 0.3) for name, cell in space.cells.items()}
  weights |= {name: jnp.full((1, count), 0.3) for name, count in space.choices.items()}

  def own(key):
    return net.init(key, jnp.zeros((1, 8, 8, 3)), weights)['params']

  alone = jax.jit(own)(jax.random.key(0))
  cut = jax.jit(lambda key: initial.from_one_draw(lambda: own(key), key))
  got, other = cut(jax.random.key(0)), cut(jax.random.key(1))
  assert jax.tree.structure(got) == jax.tree.structure(alone)
  seen = []
  for (path, a), b, c in zip(jax.tree_util.tree_leaves_with_path(got), *map(jax.tree.leaves, (alone, other)),
                             strict=True):
    assert a.shape == b.shape and a.dtype == b.dtype
    if float(b.std()) == 0:
      np.testing.assert_array_equal(a, b)
      continue
    assert not np.array_equal(a, c), path
    seen.append(np.ravel(a)[:3] / np.abs(b).max())
    if a.size > 500:
      assert float(jnp.abs(a).max() / jnp.abs(b).max()) == pytest.approx(1, abs=0.02), path
      assert float(a.std() / b.std()) == pytest.approx(1, abs=0.1) and abs(float(a.mean() / b.std())) < 0.2, path
  assert len(np.unique(np.round(np.concatenate(seen), 4))) > 0.99 * sum(map(len, seen))
  assert initial._postponed is None
