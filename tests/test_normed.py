import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SLOW
from test_network import DARTS, EVERY_OP, MIXED, NB201, randomised, shapes

from vimnas_jax import cpu
from vimnas_jax.networks import mixing, ops
from vimnas_jax.networks.network import Edge, Network

WITH_KERNELS = pytest.mark.skipif(mixing.normed() is None, reason='the kernels are switched off')


def both(space, genotype, side, dtype):
  """Loss, new statistics and gradients of a training step, without and with kernels."""
  kinds = {'dtype': dtype, 'param_dtype': dtype}
  nets = [Network(space=space, genotype=genotype, cells=3 if space is DARTS else 1, channels=8, num_classes=5,
                  kernels=kernels, **kinds) for kernels in (False, True)]
  x = jax.random.normal(jax.random.key(0), (6, side, side, 3), dtype)
  weight = jax.random.normal(jax.random.key(1), (6, 5), dtype)
  variables = jax.tree.map(lambda a: a.astype(dtype), randomised(shapes(nets[0], side), 3))

  def step(net):
    def loss(params):
      out, new = net.apply({**variables, 'params': params}, x, True, 0.3, rngs={'drop_path': jax.random.key(2)},
                           mutable=['batch_stats'])
      return sum((y * weight).sum() for y in jax.tree.leaves(out)), new

    return jax.value_and_grad(loss, has_aux=True)(variables['params'])

  programs = [jax.jit(lambda net=net: step(net)).lower() for net in nets]
  assert ['@vimnas_jax_' in program.as_text() for program in programs] == [False, True]
  return [program.compile()() for program in programs]


@WITH_KERNELS
@pytest.mark.parametrize('stride', [1, pytest.param(2, marks=SLOW)])
def test_every_operation_in_kernels_is_the_same_forward_and_backward(x64, stride):
  """Odd sides, 17 images; the statistics too."""
  x = jax.random.normal(jax.random.key(0), (17, 7, 5, 8))
  names = [name for name in ops.OPS if stride == 1 or 'nor' not in name]
  edges = {name: Edge(op=name, stride=stride, dtype=jnp.float64, param_dtype=jnp.float64) for name in names}
  variables = randomised(jax.eval_shape(
      lambda: {name: edge.init(jax.random.key(0), x, False) for name, edge in edges.items()}), stride)
  params = {name: own.get('params', {}) for name, own in variables.items()}

  def step(kernels):
    def loss(params, x):
      total, stats = 0.0, {}
      for name, edge in edges.items():
        y, stats[name] = edge.clone(kernels=kernels).apply({**variables[name], 'params': params[name]}, x, True,
                                                           mutable=['batch_stats'])
        total += (y * jax.random.normal(jax.random.key(1), y.shape)).sum()
      return total, stats

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)).lower(params, x)

  programs = [step(kernels) for kernels in (False, True)]
  assert ['@vimnas_jax_' in program.as_text() for program in programs] == [False, True]
  plain, fused = (program.compile()(params, x) for program in programs)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-9 * max(1.0, float(np.abs(a).max()))),
               plain, fused)


@SLOW
@WITH_KERNELS
@pytest.mark.parametrize('space, genotype, side', [(DARTS, EVERY_OP, 13), (NB201, MIXED, 7)])
def test_a_step_in_kernels_is_the_same_step(x64, space, genotype, side):
  """Every operation at both strides, odd sides, every image's own dropped paths; the statistics too."""
  plain, fused = both(space, genotype, side, jnp.float64)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-9 * max(1.0, float(jnp.abs(a).max()))),
               plain, fused)


@WITH_KERNELS
@pytest.mark.parametrize('space, genotype, side', [pytest.param(DARTS, EVERY_OP, 9, marks=SLOW), (NB201, MIXED, 7)])
def test_an_evaluation_in_kernels_is_the_same(x64, space, genotype, side):
  net = Network(space=space, genotype=genotype, cells=3 if space is DARTS else 1, channels=4, num_classes=5,
                dtype=jnp.float64, param_dtype=jnp.float64)
  x = jax.random.normal(jax.random.key(0), (3, side, side, 3))
  variables = randomised(shapes(net, side), 3)
  plain, fused = (jax.jit(lambda v, net=net: net.apply(v, x, False))(variables)
                  for net in (net, net.clone(kernels=True)))
  np.testing.assert_allclose(fused, plain, rtol=1e-9)


@WITH_KERNELS
@pytest.mark.parametrize('train', [True, False])
def test_what_has_no_kernels_is_built_without_them(train):
  """Another type; where two channels are too few, the second and third group still have them: three convolutions each,
  and the residual blocks all but their first one."""
  for fields, count in (({'dtype': jnp.bfloat16}, 0), ({'kernels': False}, 0), ({'channels': 2}, 9)):
    net = Network(**{'space': NB201, 'genotype': MIXED, 'cells': 1, 'channels': 8, 'kernels': True, **fields})
    variables = randomised(shapes(net, 8), 0)
    text = jax.jit(lambda v, net=net: net.apply(v, jnp.zeros((2, 8, 8, 3)), train, mutable=['batch_stats'])[0]).lower(
        variables).as_text()
    assert text.count('@vimnas_jax_') == count


@pytest.mark.parametrize('how', ['no numba', 'switched off'])
def test_without_kernels_the_plain_form_runs(monkeypatch, how):
  cpu.available.cache_clear()
  if how == 'no numba':
    monkeypatch.setattr(cpu.importlib.util, 'find_spec', lambda name: None)
    with pytest.warns(RuntimeWarning, match='the plain form runs .* no numba'):
      assert not cpu.available()
  else:
    monkeypatch.setenv('VIMNAS_JAX_KERNELS', '0')
  try:
    assert mixing.normed() is None and mixing.kernels() is None and mixing.oneshot() is None
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    edge = Edge(op='nor_conv_3x3', kernels=True)
    variables = randomised(jax.eval_shape(lambda: edge.init(jax.random.key(0), x, False)), 0)
    programs = [jax.jit(lambda v, edge=edge: edge.apply(v, x, False)).lower(variables)
                for edge in (edge, edge.clone(kernels=False))]
    assert '@vimnas_jax_' not in programs[0].as_text()
    np.testing.assert_array_equal(*(program.compile()(variables) for program in programs))
    pool, ones = {'max_pool_3x3': (0,)}, {'max_pool_3x3': jnp.ones((1, 1))}
    program = jax.jit(lambda x: mixing.mixed(x, pool, [None], {'max_pool_3x3': {}}, ones, 1, False)[0]).lower(x)
    assert '@vimnas_jax_' not in program.as_text()
    np.testing.assert_array_equal(program.compile()(x), ops.max_pool(x, 1))
  finally:
    cpu.available.cache_clear()  # what was found here is not so elsewhere


@WITH_KERNELS
@pytest.mark.parametrize('channels, width, stride, sides', [(3, 8, 1, (7, 5)), (1, 24, 2, (8, 6)), (4, 12, 2, (5, 7)),
                                                            pytest.param(3, 48, 1, (4, 37), marks=SLOW)])
def test_a_convolution_of_an_image_in_kernels_is_the_same_forward_and_backward(x64, channels, width, stride, sides):
  """Any number of channels, odd sides, 17 images; the gradient of the image too, and its absence."""
  x = jax.random.normal(jax.random.key(0), (17, *sides, channels))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, width))
  affine = list(jax.random.normal(jax.random.key(2), (2, width)))

  def loss(x, kernel, affine, fast):
    y = mixing.convolved(x, kernel, stride, affine, fast, image=True)
    return (y * jax.random.normal(jax.random.key(3), y.shape)).sum()

  for asked in ((0, 1, 2), (1, 2)):
    plain, fused = (jax.jit(jax.value_and_grad(loss, asked), static_argnums=3)(x, kernel, affine, fast)
                    for fast in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-9 * max(1.0, float(np.abs(a).max()))),
                 plain, fused)
  program = jax.jit(jax.grad(loss, 1), static_argnums=3).lower(x, kernel, affine, True).as_text()
  assert '@vimnas_jax_dense_backward' in program and 'convolution' not in program
