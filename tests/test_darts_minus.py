"""DARTS-: the auxiliary skip connection in a cell, at both strides, in the counts, and in the update."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SLOW
from test_papers import SPACE, first_adam_step, make, same, setup

from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock
from vimnas_jax.networks import cost, ops
from vimnas_jax.networks.mixing import Mixture, by_source
from vimnas_jax.networks.oneshot import OneShot
from vimnas_jax.networks.supernet import MixedCell, Supernet
from vimnas_jax.spaces import Cell, Stage

KEY = jax.random.key(3)
OPS = ('nor_conv_3x3', 'skip_connect', 'avg_pool_3x3')
CELL = Cell(1, ((0, 1), (0, 2), (1, 2)), (OPS,) * 3, (1, 2))


def reduced(x, kernel):
  """FactorizedReduce in NumPy, without scale and bias: x [n, h, w, c] with even sides, kernel [2, c, c / 2]."""
  x = np.maximum(x, 0)
  y = np.concatenate([x[:, ::2, ::2] @ kernel[0], x[:, 1::2, 1::2] @ kernel[1]], -1)
  return (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5)


def test_a_cell_is_its_operations_one_at_a_time_and_beta_times_the_skip(x64):
  """Two samples of the weights, each with a beta of its own; edges 0 and 1 have a stride of 2, edge 2 of 1."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, 6, 6, 4))
  rows, beta = rng.dirichlet(np.ones(3), (2, 3)), rng.uniform(0.5, 2, (2, 3))
  cell = MixedCell(cell=CELL, stage=Stage('cell', 4, cell='cell', stride=2), auxiliary=True, dtype=jnp.float64,
                   param_dtype=jnp.float64)
  weights = by_source(CELL, Mixture(jnp.array(rows), skip=jnp.array(beta)))
  params = jax.jit(cell.init)(KEY, (jnp.array(x),), weights)['params']
  got = jax.jit(cell.apply)({'params': params}, (jnp.array(x),), weights)

  def alone(op, x, e):
    stride, at, mark = (2, e, '_stride2') if e < 2 else (1, 0, '')
    one = {name: params[f'{op}_{name}{mark}'][at:at + 1] for name in ops.OPS[op].shapes(4, stride)}
    return np.asarray(ops.OPS[op].apply(jnp.array(x), one, stride, ops.normalise))

  def edge(x, e):
    of = [np.repeat(a, 2)[:, None, None, None] for a in (*rows[:, e].T, beta[:, e])]
    skip = reduced(x, np.asarray(params['auxiliary_kernel'][e])) if e < 2 else x
    return sum(w * alone(op, x, e) for w, op in zip(of, OPS)) + of[3] * skip

  one = edge(x, 0)
  np.testing.assert_allclose(got, np.concatenate([one, edge(x, 1) + edge(one, 2)], -1), rtol=1e-9, atol=1e-12)


def test_without_beta_it_is_the_network_without_the_connection(x64):
  """On NAS-Bench-201, where it is the identity: it adds no weight, and beta is told by what comes out."""
  net = Supernet(space=SPACE, cells=1, channels=4, num_classes=3, auxiliary=True, dtype=jnp.float64,
                 param_dtype=jnp.float64)
  images = jnp.array(np.random.default_rng(0).normal(size=(2, 8, 8, 3)))
  skip = jnp.zeros((1, 6, 5)).at[..., 1].set(1.0)
  theta = jax.jit(net.init)(KEY, images, {'cell': skip})['params']

  @jax.jit
  def out(rows, beta):
    return net.apply({'params': theta}, images, {'cell': Mixture(rows, skip=jnp.full((1, 6), beta))})

  rows = jnp.array(np.random.default_rng(1).dirichlet(np.ones(5), (1, 6)))
  plain = jax.jit(lambda rows: net.clone(auxiliary=False).apply({'params': theta}, images, {'cell': rows}))
  np.testing.assert_allclose(out(rows, 0.0), plain(rows), rtol=1e-12)
  np.testing.assert_allclose(out(rows, 0.7), plain(rows + 0.7 * skip), rtol=1e-10)
  assert not np.allclose(out(rows, 0.7), plain(rows), rtol=1e-3)


@pytest.mark.parametrize('name, cells', [('s1', 3), ('nb201', 1), pytest.param('darts', 8, marks=SLOW)])
def test_its_weights_are_counted(name, cells):
  space = spaces.get(name)
  size = {'cells': cells, 'channels': 16, 'num_classes': 10}
  shapes = jax.eval_shape(lambda: Supernet(space=space, auxiliary=True, **size).init(
      KEY, jnp.zeros((1, 32, 32, 3)), {name: jnp.zeros((1, *cell.shape)) for name, cell in space.cells.items()}))
  total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  assert cost.supernet(space, auxiliary=True, **size) == total
  # eight edges of stride 2 in each of two reductions, of 32 and 64 channels
  assert total - cost.supernet(space, **size) == (8 * (32 ** 2 + 64 ** 2) if name != 'nb201' else 0)


def test_the_update_has_the_connection_and_beta_falls(x64):
  _, step, now, batch, _, config = setup('darts_minus')
  alpha = now.phi['params']['cell']
  now = now.replace(step=jnp.int32(3))

  def straight(theta, alpha, part):  # the net of these tests adds the six weights of the connection to what it tells
    e = jnp.exp(alpha)
    told = jnp.tanh((e / e.sum(-1, keepdims=True)).ravel() @ theta['v']) + 6 * (1 - 3 / 9)
    logits = jnp.tanh((batch[f'{part}images'] / 255).mean((1, 2)) @ theta['w']) * told[None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[f'{part}labels']).mean()

  g_alpha = jax.jit(jax.grad(lambda alpha: straight(now.theta, alpha, 'valid_')))(alpha)
  after, metrics = step(now, batch, KEY)
  assert float(metrics['grad_phi']) == pytest.approx(float(jnp.linalg.norm(g_alpha)), rel=1e-6)
  params = first_adam_step(alpha, g_alpha, config)
  same(after.phi['params']['cell'], params, rtol=1e-6)
  g_theta = jax.jit(jax.grad(lambda theta: straight(theta, params, '')))(now.theta)
  assert float(metrics['grad_theta']) == pytest.approx(float(optax.tree.norm(g_theta)), rel=1e-6)


def test_beta_and_what_is_derived():
  for fall, betas in (('linear', [1, 0.75, 0.5, 0.25, 0]), ('cosine', [1, 0.853553, 0.5, 0.146447, 0])):
    made = make('darts_minus', beta_fall=fall)
    phi = made.init(KEY, SPACE)
    for done, beta in enumerate(betas):
      weights, info = made.sample(phi, KEY, Clock(done, 4))
      assert float(info['beta']) == pytest.approx(beta, abs=1e-6)
      np.testing.assert_allclose(weights['cell'].skip, np.full((1, 6), beta), atol=1e-6)
  phi = {'params': {'cell': 5 * jax.nn.one_hot(jnp.array([3, 2, 0, 1, 4, 3]), 5)}, 'fixed': {}}
  found = SPACE.genotype(jax.device_get(made.probs(phi)))
  assert [op for op, *_ in found.cells['cell']] == ['nor_conv_3x3', 'nor_conv_1x1', 'none', 'skip_connect',
                                                    'avg_pool_3x3', 'nor_conv_3x3']


def test_what_it_cannot_do_is_told():
  for fields, told in (({'beta': -1.0}, 'beta=-1.0'), ({'beta_fall': 'never'}, "'never'")):
    with pytest.raises(UserError, match=told):
      make('darts_minus', **fields)
  space = spaces.get('oneshot1')
  rows = {name: jnp.zeros((1, count)) for name, count in space.choices.items()} | {'cell': jnp.zeros((1, 4, 3))}
  with pytest.raises(UserError, match='does not have: choose another method'):
    jax.eval_shape(lambda: OneShot(space=space, cells=3, channels=4, num_classes=3, auxiliary=True).init(
        KEY, jnp.zeros((1, 8, 8, 3)), rows))
