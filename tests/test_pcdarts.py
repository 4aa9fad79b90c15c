"""PC-DARTS: a part of the channels, and weights of edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SLOW
from ml_collections import ConfigDict

from vimnas_jax import methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock
from vimnas_jax.networks import cost, ops
from vimnas_jax.networks.mixing import Mixture
from vimnas_jax.networks.supernet import Supernet, shuffled

SPACE = spaces.get('nb201')


def test_pcdarts_mixes_a_part_of_the_channels():
  """Its shuffle and a whole cell against NumPy; its size is the published code's."""
  x = np.arange(2 * 3 * 3 * 8.0).reshape(2, 3, 3, 8)
  want = x.reshape(2, 3, 3, 4, 2).transpose(0, 1, 2, 4, 3).reshape(2, 3, 3, 8)
  np.testing.assert_array_equal(shuffled(jnp.array(x), 4), want)
  space = spaces.get('darts')
  net = Supernet(space=space, cells=8, channels=16, num_classes=10, partial=4)
  weights = {name: Mixture(jnp.zeros((1, 14, 8)), past=jnp.zeros((1, 14))) for name in space.cells}
  shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), weights))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 299_578
  size = {'cells': 8, 'channels': 16, 'num_classes': 10, 'partial': 4}
  assert cost.supernet(space, **size) == 299_578 and round(cost.supernet_madds(space, **size) / 1e4) == 5660
  with pytest.raises(UserError, match='in 4 parts: choose a multiple of 4'):
    jax.eval_shape(lambda: net.clone(channels=6).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), weights))


def test_a_step_has_one_pass_while_it_warms_up_and_two_after_that():
  assert methods.passes('pcdarts') == pytest.approx(2 - methods.fields('pcdarts')['warm_up'])


def test_pcdarts_weighs_the_edges_of_a_node(x64):
  method_space = spaces.get('darts')
  made = methods.get(ConfigDict({'name': 'pcdarts', **methods.fields('pcdarts')}))
  phi = made.init(jax.random.key(0), method_space)
  phi = {**phi, 'params': jax.tree.map(lambda p: p.astype(jnp.float64) * 1e3, phi['params'])}
  weights, _ = made.sample(phi, jax.random.key(1), Clock(0, 9))
  cell, own = method_space.cells['normal'], phi['params']['normal']
  targets = np.array([t for _, t in cell.edges])
  beta = np.array([np.exp(own['beta'][e]) / np.exp(own['beta'][targets == targets[e]]).sum() for e in range(14)])
  np.testing.assert_allclose(weights['normal'].past[0], beta, rtol=1e-9)
  np.testing.assert_allclose(weights['normal'].ops[0], beta[:, None] * jax.nn.softmax(own['alpha']), rtol=1e-9)
  np.testing.assert_allclose(made.scores(phi)['normal'], weights['normal'].ops[0], rtol=1e-9)
  assert [step.batches for _, step in made.before] == [('train',)]


@SLOW
def test_a_partial_cell_is_the_whole_cell_of_what_it_says(x64):
  """Operations that are all a skip connection: the network is then one that weighs and shuffles, written out."""
  net = Supernet(space=SPACE, cells=1, channels=4, num_classes=3, partial=2, dtype=jnp.float64,
                 param_dtype=jnp.float64)
  images = jnp.array(np.random.default_rng(0).normal(size=(2, 8, 8, 3)))
  skip = jnp.zeros((1, 6, 5)).at[..., SPACE.cells['cell'].ops[0].index('skip_connect')].set(1.0)
  past = jnp.arange(1.0, 7.0)[None] / 4
  theta = jax.jit(net.init)(jax.random.key(0), images, {'cell': Mixture(skip, past)})['params']
  _, seen = net.apply({'params': theta}, images, {'cell': Mixture(skip * 3, past)}, capture_intermediates=True)
  seen = seen['intermediates']
  x = np.asarray(ops.normalise(ops.conv(images, theta['stem'])))
  nodes = [x * np.asarray(theta['stem_norm_scale']) + np.asarray(theta['stem_norm_bias'])]
  for target in (1, 2, 3):
    into = [(e, s) for e, (s, t) in enumerate(SPACE.cells['cell'].edges) if t == target]
    mixed = sum(3 * nodes[s][..., :2] for _, s in into)
    left = sum(past[0, e] * nodes[s][..., 2:] for e, s in into)
    whole = np.concatenate([mixed, left], -1)
    nodes.append(np.stack([whole[..., :2], whole[..., 2:]], -1).reshape(*whole.shape))
  first = next(name for name in seen if name.startswith('cell'))
  np.testing.assert_allclose(seen[first]['__call__'][0], nodes[3], rtol=1e-9)


def test_the_search_network_of_imagenet_is_as_large_as_the_published_code():
  """Sizes of specs: 956,512 with half of the channels; and its maps are 28x28 in the first cell."""
  space = spaces.get('darts').on_imagenet()
  size = {'cells': 8, 'channels': 16, 'num_classes': 1000}
  for partial, params in ((2, 956_512), (1, 2_215_648)):
    net = Supernet(space=space, **size, partial=partial)
    weights = {name: Mixture(jnp.zeros((1, 14, 8)), past=jnp.zeros((1, 14)) if partial > 1 else None)
               for name in space.cells}
    shapes = jax.eval_shape(lambda net=net, w=weights: net.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), w))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == params
    assert cost.supernet(space, **size, partial=partial) == params
  stem, other, cell = space.macro(8, 16)[:3]
  assert (stem.channels, other.channels, cell.channels) == (48, 48, 16)
  assert stem.stride * other.stride == 8 and cell.shrunk
  with pytest.raises(UserError, match='config.space.channels=15'):
    space.macro(8, 15)
  with pytest.raises(UserError, match="config.space.imagenet=True: space 'nb201' has no search network for ImageNet"):
    spaces.get('nb201').on_imagenet()
