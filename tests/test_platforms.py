"""What another platform than this machine's is given: an export's program, and that of a step as a GPU would run it."""

import collections
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SLOW
from test_supernet import two_nodes

from benchmarks import depthwise, step
from vimnas_jax import spaces
from vimnas_jax.networks import genotypes, leaves, mixing, ops
from vimnas_jax.networks.mixing import by_source
from vimnas_jax.networks.network import Network
from vimnas_jax.networks.supernet import MixedCell
from vimnas_jax.spaces import Stage
from vimnas_jax.verbs import export

X, KERNEL = jax.ShapeDtypeStruct((2, 8, 8, 6), jnp.float32), jax.ShapeDtypeStruct((3, 3, 6), jnp.float32)


def counted(f, platform, *args):
  """{operation: how often} of the program of f for a platform that need not be here."""
  with ops.portable():
    program = jax.export.export(jax.jit(f), platforms=[platform])(*args).mlir_module()
  return collections.Counter(re.findall(r'stablehlo\.(\w+)', program))


@pytest.mark.parametrize('stride, dilation', [(1, 1), (2, 1), (1, 2)])
def test_depthwise_is_a_convolution_elsewhere_and_shifted_products_on_a_cpu(stride, dilation):
  def f(x, kernel):
    return ops.depthwise(x, kernel, stride, dilation)

  def gradients(x, kernel):
    return jax.grad(lambda *args: f(*args).sum(), (0, 1))(x, kernel)

  assert [counted(f, platform, X, KERNEL)['convolution'] for platform in ('cpu', 'cuda', 'tpu')] == [0, 1, 1]
  assert [counted(gradients, platform, X, KERNEL)['convolution'] for platform in ('cpu', 'cuda')] == [0, 2]
  draw = np.random.default_rng(0)
  x, kernel = (jnp.asarray(draw.normal(size=like.shape), jnp.float32) for like in (X, KERNEL))
  want, native = gradients(x, kernel), jax.vjp(lambda *args: ops._native(*args, stride, dilation), x, kernel)
  np.testing.assert_allclose(f(x, kernel), native[0], rtol=1e-5, atol=1e-5)
  for a, b in zip(native[1](jnp.ones_like(native[0])), want, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  with ops.portable():
    np.testing.assert_array_equal(jax.jit(lambda *args: f(*args))(x, kernel), jax.jit(f)(x, kernel))


@pytest.mark.parametrize('form', depthwise.FORMS)
@pytest.mark.parametrize('stride, dilation', [pytest.param(1, 1, marks=SLOW), (2, 1), (1, 2)])
def test_other_forms_of_a_depthwise_convolution_are_the_same(x64, form, stride, dilation):
  assert form in step.PLAIN
  draw = np.random.default_rng(0)
  x, kernel = draw.normal(size=X.shape), draw.normal(size=KERNEL.shape)
  want, back = jax.vjp(lambda *args: ops._native(*args, stride, dilation), x, kernel)
  dy = draw.normal(size=want.shape)
  forward, backward = depthwise.FORMS[form]
  np.testing.assert_allclose(forward(x, kernel, stride, dilation), want, rtol=1e-9, atol=1e-9)
  for found, expected in zip(backward(x, kernel, dy, stride, dilation), back(dy), strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_an_export_has_the_convolutions_of_its_platform(tmp_path):
  space = spaces.get('darts')
  genotype = genotypes.resolve('DARTS_V2', space)
  net = Network(space=space, genotype=genotype, cells=3, channels=4, num_classes=4)
  variables = jax.jit(lambda: net.init({'params': jax.random.key(0), 'noise': jax.random.key(0)},
                                       jnp.zeros((1, 8, 8, 3)), False))()
  model = export.Model(space, genotype, net, variables, (8, 8, 3), (0.5,) * 3, (0.25,) * 3, 'folder')
  export.write(tmp_path, model)
  images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
  np.testing.assert_allclose(export.load_program(tmp_path)(images), model(images), rtol=1e-4, atol=1e-5)
  grouped = re.findall(r'feature_group_count = (\d+)', jax.export.deserialize(
      bytearray((tmp_path / 'network.jaxexport').read_bytes())).mlir_module())
  assert sum(int(count) > 1 for count in grouped) > 12, grouped


# Operations of the backward pass through two nodes of a cell of the DARTS space, or a cell of NAS-Bench-201, as a GPU
# would get them: 6 depthwise convolutions for each of 3 nodes that edges leave, forward and twice backward, and one of
# 3x3 likewise. More should be a choice, not an accident.
BOUNDS = {'darts': {'convolution': 54, 'dot_general': 96, 'reduce': 270},
          'nb201': {'convolution': 9, 'dot_general': 9, 'reduce': 90}}


# The same with the CPU's kernels: its calls, and at most so many operations for XLA, which compiles most of them one by
# one.
HERE = {'darts': (118, 215), 'nb201': (51, 152)}


def gradients_of(name):
  """(gradients of such a cell, their arguments' shapes)."""
  space = spaces.get(name)
  cell_name = 'normal' if name == 'darts' else 'cell'
  cell = two_nodes(space.cells[cell_name]) if name == 'darts' else space.cells[cell_name]
  inputs = [jax.ShapeDtypeStruct((8, 8, 8, 4), jnp.float32)] * cell.inputs
  module = MixedCell(cell=cell, stage=Stage('cell', 4, cell=cell_name), pool_norm=space.pool_norm)
  weights, key = jax.ShapeDtypeStruct((1, *cell.shape), jnp.float32), jax.random.key_data(jax.random.key(1))

  def rows(weights):
    return by_source(cell, weights)

  params = jax.eval_shape(lambda inputs, weights: module.init(jax.random.key(0), inputs, rows(weights), key), inputs,
                          weights)

  def gradients(params, inputs, weights):
    return jax.grad(lambda *args: module.apply(args[0], args[1], rows(args[2]), key).sum(), (0, 1, 2))(
        params, inputs, weights)

  return gradients, (params, inputs, weights)


@pytest.mark.parametrize('name', BOUNDS)
def test_the_program_of_a_step_elsewhere_does_not_grow(name, monkeypatch):
  for name_of in ('kernels', 'normed'):
    monkeypatch.setattr(mixing, name_of, lambda: None)
  monkeypatch.setattr(leaves.cpu, 'leaf_kernels', lambda: None)
  gradients, args = gradients_of(name)
  found = counted(gradients, 'cuda', *args)
  assert {operation: found[operation] for operation in BOUNDS[name]} == BOUNDS[name], found


@pytest.mark.skipif(mixing.kernels() is None, reason='the kernels are switched off')
@pytest.mark.parametrize('name', HERE)
def test_the_program_of_a_step_here_does_not_grow(name):
  gradients, args = gradients_of(name)
  found = collections.Counter(re.findall(r'stablehlo\.(\w+)', jax.jit(gradients).lower(*args).as_text()))
  calls, most = HERE[name]
  assert found['custom_call'] == calls and found.total() - found['constant'] - calls <= most, found
