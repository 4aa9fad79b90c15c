"""A pass for phi alone computes no gradient of a kernel, and the rest with the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SLOW

from vimnas_jax import spaces
from vimnas_jax.cpu import bank, normed, oneshot
from vimnas_jax.networks import mixing
from vimnas_jax.networks.oneshot import OneShot
from vimnas_jax.networks.supernet import Supernet

pytestmark = pytest.mark.skipif(mixing.kernels() is None, reason='the kernels are switched off')

OPS = (('sep_conv_3x3', (0, 1)), ('dil_conv_5x5', (1,)), ('nor_conv_3x3', (0, 1)), ('nor_conv_1x1', (1,)),
       ('max_pool_3x3', (0, 1)), ('skip_connect', (0,)))


def drawn(*shapes):
  return [jax.random.normal(jax.random.key(i), shape) / 3 for i, shape in enumerate(shapes)]


def of_bank(side):
  x, *kernels = drawn((16, side, side, 8), (2, 3, 3, 8), (2, 8, 8), (2, 3, 3, 8), (2, 8, 8), (1, 5, 5, 8), (1, 8, 8),
                      (2, 3, 3, 8, 8), (1, 1, 1, 8, 8))
  names = [('depthwise1', 'pointwise1', 'depthwise2', 'pointwise2'), ('depthwise', 'pointwise'), ('kernel',),
           ('kernel',), (), ()]
  kernels = iter(kernels)
  params = {op: {name: next(kernels) for name in own} for (op, _), own in zip(OPS, names, strict=True)}
  weights = {op: jnp.full((2, len(own)), 0.3) for op, own in OPS}

  def loss(params, x, weights):
    first, second = bank.mixed(OPS, 2, 1, (1e-5, 1e-5), x, params, weights, (None, x))
    return jnp.sin(first).sum() + jnp.square(second).sum()

  return loss, params, x, weights


def of_cell(side):
  x, *kernels = drawn((16, side, side, 8), (1, 1, 8, 32), *2 * ((1, 1, 8, 8), (3, 3, 8, 8)))
  first, *own = [(kernel, jnp.ones(kernel.shape[3]), jnp.zeros(kernel.shape[3])) for kernel in kernels]

  def loss(params, x, weights):
    rows = None, weights[:, 0, :2], weights[:1, 1]
    return jnp.sin(oneshot.mixed((1e-5, (0, None, 1)), x, weights, None, rows, *params)).sum()

  return loss, (first, (tuple(own[:2]), tuple(own[2:]))), jnp.abs(x), jnp.full((2, 2, 3), 0.3)


def of_normed(side):
  x, *kernels = drawn((16, side, side, 8), (3, 3, 8, 8), (3, 3, 8), (8, 8))
  one, none = jnp.ones(8), jnp.zeros(8)

  def loss(params, x, weights):
    dense, *stage = params
    y, *_ = normed.trained(x, (dense,), (1,), weights * one, none, 1e-5)
    return jnp.sin(normed.trained(y, tuple(stage), (1, 2), one, none, 1e-5)[0]).sum()

  return loss, kernels, x, jnp.ones(())


def count(f, *args):
  """In `f`: (backward kernels that give the gradients of their kernels, those that leave them out)."""
  text = jax.jit(f).lower(*args).as_text()
  return text.count('whole = 1 '), text.count('whole = 0 ')


@pytest.mark.parametrize('side', [8, 6])  # by Winograd's tiles, and by taps
@pytest.mark.parametrize('case', [of_bank, of_cell, of_normed])
def test_gradients_that_are_not_asked_for_are_left_out_and_the_rest_is_the_same(case, side):
  loss, *args = case(side)
  whole = jax.jit(jax.grad(loss, (0, 1, 2)))(*args)
  part = jax.jit(jax.grad(loss, (1, 2)))(*args)
  jax.tree.map(np.testing.assert_array_equal, part, whole[1:])
  own = jax.jit(jax.grad(loss))(*args)
  jax.tree.map(np.testing.assert_array_equal, own, whole[0])
  every, (with_kernels, without) = count(jax.grad(loss, (0, 1, 2)), *args), count(jax.grad(loss, (1, 2)), *args)
  assert every[0] > 0 and every[1] == 0 and with_kernels == 0 and without == every[0]
  jax.tree.map(np.testing.assert_array_equal, jax.jit(jax.grad(loss, 2))(*args), whole[2])


@pytest.mark.parametrize('name', ['nb201', pytest.param('darts', marks=SLOW), pytest.param('oneshot1', marks=SLOW)])
def test_a_supernet_has_no_gradient_of_a_kernel_in_a_pass_for_phi(name):
  space = spaces.get(name)
  form = OneShot if space.topology else Supernet
  net = form(space=space, cells=3 if space.topology or name == 'darts' else 1, channels=8, num_classes=10)
  weights = {cell: jnp.full((1, *space.cells[cell].shape), 0.2) for cell in space.cells}
  weights |= {choice: jnp.full((1, size), 0.2) for choice, size in space.choices.items()}
  images = jnp.zeros((16, 32, 32, 3))
  theta = jax.eval_shape(lambda: net.init(jax.random.key(0), images, weights))['params']
  theta = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), theta)

  def loss(theta, weights):
    return jnp.square(net.apply({'params': theta}, images, weights)).sum()

  every, (with_kernels, without) = count(jax.grad(loss), theta, weights), count(jax.grad(loss, 1), theta, weights)
  assert every[0] > 0 and every[1] == 0 and with_kernels == 0 and without > 0
