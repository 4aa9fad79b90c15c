"""TE-NAS: its two numbers on networks small enough to count them, its pruning against ranks, and a search in whole."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ONE_EDGE, one_line
from ml_collections import ConfigDict
from scipy.stats import rankdata
from test_papers import make

import vimnas_jax
from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import indicators, tenas, untrained


def config(**fields):
  return ConfigDict({'name': 'tenas', **methods.fields('tenas'), **fields})


def test_the_networks_are_the_smallest_with_every_kind_of_cell():
  kinds = {(name, cut): [stage.cell or stage.kind for stage in untrained.stages(spaces.get(name), 1, cut)]
           for name in ('nb201', 'darts') for cut in (False, True)}
  assert kinds['nb201', True] == ['stem', 'cell', 'head']
  assert kinds['nb201', False] == ['stem', 'cell', 'residual', 'cell', 'residual', 'cell', 'head']
  assert kinds['darts', True] == ['stem', 'normal', 'reduce', 'head']
  assert untrained.stages(spaces.get('darts'), 1, True)[0].channels == 1  # not three times as wide as a cell


def test_the_tangent_kernel_is_that_of_differences(x64):
  """Of every image's logits, with BatchNorm, for one direction of the weights at a time; and its condition number."""
  space = spaces.get(ONE_EDGE)
  net = untrained.Untrained(space, untrained.stages(space, 2, False), 3)
  images = jnp.array(np.random.default_rng(0).normal(size=(3, 4, 4, 3)))
  weights = {'cell': jnp.array([[0.3, 0.7]])}
  params = jax.jit(lambda: untrained.start(net, jax.random.key(0), images, weights))()
  flat, build = jax.flatten_util.ravel_pytree(params)
  summed = jax.jit(lambda flat: net.apply({'params': build(flat)}, images, weights)[0].sum(-1))
  j = np.asarray(jax.jit(lambda params: indicators.jacobian(net, params, images, weights))(params))
  assert j.shape == (3, 27 * 2 + 2 + 9 * 4 + 2 + 2 + 2 * 3) == (3, flat.size)  # kernels and scales, no biases
  for way in np.random.default_rng(1).normal(size=(4, flat.size)):
    np.testing.assert_allclose(j @ way, (summed(flat + 1e-6 * way) - summed(flat - 1e-6 * way)) / 2e-6, rtol=1e-5,
                               atol=1e-8)
  same = ('_scale', 'stage2_kernel')  # BatchNorm follows all other kernels
  wider = {name: each * (1 if name.endswith(same) else 7) for name, each in params.items()}
  np.testing.assert_allclose(summed(jax.flatten_util.ravel_pytree(wider)[0]), summed(flat), rtol=1e-3)
  values = np.linalg.svd(j, compute_uv=False) ** 2
  assert indicators.condition(j) == pytest.approx(values[0] / values[-1], rel=1e-6)
  assert indicators.condition(np.ones((3, 5))) == indicators.condition(np.zeros((2, 2))) == 1e5


def test_kernels_start_as_the_authors_have_them():
  """By what they put out, and where regions are counted by what they read; and each kernel is drawn."""
  space = spaces.get('nb201')
  for bare, fan in ((False, 9 * 8), (True, 9 * 4)):
    net = untrained.Untrained(space, untrained.stages(space, 16, True), 5, bare)
    assert net.deviation('kernel', (3, 3, 4, 8), 9 * 4) == pytest.approx(np.sqrt(2 / fan))
    assert net.deviation('depthwise', (3, 3, 4), 9) == pytest.approx(np.sqrt(2 / (9 if bare else 36)))
  params = jax.jit(lambda: untrained.start(net, jax.random.key(0), jnp.zeros((1, 4, 4, 16)), {
      'cell': jnp.ones((6, 5))}))()
  kernels = np.stack([params[f'stage1_{e}_3_kernel'] for e in range(6)])
  assert kernels.std() == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.03)
  assert len(np.unique(kernels)) > 0.99 * kernels.size
  assert 'stage0_kernel' not in params and all((p == 1).all() for n, p in params.items() if n.endswith('_scale'))


def test_regions_are_counted_as_patterns_of_what_enters_the_relus():
  """Of a cell with one edge, whose convolution has its ReLU on the nine numbers of the input: each pattern by hand."""
  space = spaces.get(ONE_EDGE)
  net = untrained.Untrained(space, untrained.stages(space, 1, True), bare=True)
  x = np.random.default_rng(0).normal(size=(300, 3, 3, 1))
  x[:40] = x[40:80]
  weights = {'cell': jnp.array([[0.5, 0.5]])}
  params = jax.jit(lambda: untrained.start(net, jax.random.key(0), jnp.array(x), weights))()
  signs = {kept: np.asarray(net.apply({'params': params}, jnp.array(x), {'cell': jnp.array([kept])})[1])
           for kept in ((0.5, 0.5), (0.0, 1.0), (1.0, 0.0))}
  different = len({tuple(row.ravel() > 0) for row in x})
  assert 100 < different < 260
  assert indicators.regions(signs[0.5, 0.5]) == indicators.regions(signs[0.0, 1.0]) == different
  assert indicators.regions(signs[1.0, 0.0]) == 1  # a skip connection alone is linear
  # a separable convolution has a second one, after its first BatchNorm
  s2 = spaces.get('s2')
  net = untrained.Untrained(s2, untrained.stages(s2, 2, True), bare=True)
  even = {name: jnp.full(cell.shape, 1 / 2) for name, cell in s2.cells.items()}
  signs = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), jnp.zeros((5, 3, 3, 2)), even)[0][1])
  small, halved = 9 * 2, 4 * 4  # numbers of a map of the normal cell, and of a halved one of the reducing cell
  normal = 2 * small + 14 * 2 * small  # two inputs; on every edge the two ReLUs of the convolution
  # two inputs; from these the skip connections, which halve, have a ReLU too
  reduce = small + 9 * 8 + 8 * (9 * 4 + 9 * 4 + halved) + 6 * 2 * halved
  assert signs.shape == (5, normal + reduce)


@pytest.mark.parametrize('seed, prune, kept', [(0, 1, 9), (1, 2, 9), (2, 1, 2), (3, 3, 2)])
def test_pruning_follows_the_ranks(seed, prune, kept):
  """Against ranks by SciPy, in loops, where each operation has its share of kappa and of the regions."""
  rng, targets = np.random.default_rng(seed), np.array([2, 2, 3, 3, 3])
  share = {name: rng.uniform(1, 9, (2, 5, 4)).round(1) for name in 'ab'}
  masks = {name: np.ones((5, 4), bool) for name in 'ab'}
  masks['a'][:, 0] = False

  def value(i, kept):  # of the operations that are kept; what one is worth depends on the others
    return sum(share[name][i][e, o] for name, e, o in kept) * (1 + sum((i + e * o) % 5 for _, e, o in kept))

  def measured(masks):
    kept = [(name, e, o) for name, mask in masks.items() for e, o in np.argwhere(mask)]
    return [tuple(start * value(i, kept) for i in (0, 1)) for start in (1, 3)]

  got = tenas.pruned(masks, dict.fromkeys('ab', targets), dict.fromkeys('ab', kept), measured, prune)
  left = {(name, e): set(np.flatnonzero(masks[name][e])) for name in 'ab' for e in range(5)}

  def order(choices):
    kept = [(*edge, o) for edge, ops in left.items() for o in ops]
    falls = np.array([[np.round(1 - value(i, [other for other in kept if other != choice]) / value(i, kept), 3)
                       for i in (0, 1)] for choice in choices])
    rank = rankdata(-falls[:, 0], 'dense') + rankdata(falls[:, 1], 'dense')
    return [choices[i] for i in np.lexsort((-falls[:, 0], rank))]

  while any(len(ops) > 1 for ops in left.values()):
    found = order([(*edge, int(o)) for edge, ops in left.items() if len(ops) > 1 for o in sorted(ops)])
    for edge, ops in left.items():
      for _, _, o in [choice for choice in found if choice[:2] == edge][:min(prune, len(ops) - 1)]:
        ops.discard(o)
  while True:
    full = [(name, node) for name, node in itertools.product('ab', (2, 3))
            if sum(bool(left[name, e]) for e in np.flatnonzero(targets == node)) > kept]
    if not full:
      break
    found = order([(name, e, o) for (name, e), ops in left.items() for o in ops if (name, targets[e]) in full])
    for name, node in full:
      first = next(choice for choice in found if (choice[0], targets[choice[1]]) == (name, node))
      left[first[:2]].clear()
  for name in 'ab':
    want = [[o in left[name, e] for o in range(4)] for e in range(5)]
    np.testing.assert_array_equal(got[name], want)


def test_it_finds_an_architecture_of_a_space_whose_nodes_keep_two_edges(monkeypatch):
  space, rng = spaces.get('darts'), np.random.default_rng(0)
  share = {name: rng.uniform(1, 9, (2, *cell.shape)) for name, cell in space.cells.items()}
  monkeypatch.setattr(indicators, 'measure', lambda config, rate, key: lambda masks: [
      tuple(sum((rows[i] * masks[name]).sum() for name, rows in share.items()) for i in (0, 1))])
  weights = make('tenas', prune=3).derive(types.SimpleNamespace(space=space), None, jax.random.key(0))
  genotype = space.validate(space.genotype(weights))
  assert all(rows.sum() == 8 and (rows.sum(1) <= 1).all() and not rows[:, 0].any() for rows in weights.values())
  assert len(set(space.operations(genotype))) > 2


def configured(**fields):
  return vimnas_jax.configure('nb201_c10', {
      'data.name': 'synthetic', 'data.image_size': 8, 'data.num_train': 64, 'space.name': ONE_EDGE, 'space.cells': 1,
      'space.channels': 4, 'method.name': 'tenas', 'method.images': 20, 'method.channels': 2, 'method.inputs': 60,
      'method.batches': 2, 'method.repeats': 2, **fields}, batch_size=16, devices=1)


def test_a_search_trains_nothing_and_is_told_again(tmp_path):
  """With 20 images, which are more than a batch has."""
  found = vimnas_jax.search(configured(), tmp_path / 'run')
  assert found['steps'] == 0 and found['derived'] and found['last_loss'] is None
  (tmp_path / 'run' / 'result.json').unlink()
  again = vimnas_jax.search(configured(), tmp_path / 'run')
  assert again['genotype'] == found['genotype'] and again['state_sha256'] == found['state_sha256']


def test_a_searched_graph_is_refused(tmp_path):
  with pytest.raises(UserError, match="the graph of space 'oneshot1' is searched too") as error:
    vimnas_jax.search(configured(**{'space.name': 'oneshot1', 'space.cells': 3}), tmp_path / 'run')
  one_line(error)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('field', ['images', 'inputs', 'prune', 'repeats'])
def test_bad_fields_are_told(field):
  with pytest.raises(UserError, match=f'{field}=0') as error:
    make('tenas', **{field: 0})
  one_line(error)


@pytest.mark.parametrize('bare', [True, False])
def test_it_has_the_stems_of_imagenet(bare):
  space = spaces.get('s2').on_imagenet()
  net = untrained.Untrained(space, untrained.stages(space, 2, bare), bare=bare)
  images, weights = jnp.zeros((2, 64, 64, 2 if bare else 3)), {name: jnp.ones((14, 2)) for name in space.cells}
  (out, _), _ = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), images, weights))
  assert out.shape == ((2, 32, 32, 16) if bare else (2, 10))
