import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_network import DARTS, EVERY_OP, MIXED, NB201, randomised, shapes

from vimnas_jax import mixing
from vimnas_jax.network import Network

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
@pytest.mark.parametrize('space, genotype, side', [(DARTS, EVERY_OP, 13), (NB201, MIXED, 7)])
def test_a_step_in_kernels_is_the_same_step(x64, space, genotype, side):
  """Every operation at both strides, odd sides, every image's own dropped paths; the statistics too."""
  plain, fused = both(space, genotype, side, jnp.float64)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-9 * max(1.0, float(jnp.abs(a).max()))),
               plain, fused)


@WITH_KERNELS
@pytest.mark.parametrize('space, genotype, side', [(DARTS, EVERY_OP, 9), (NB201, MIXED, 7)])
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
def test_what_has_no_kernels_runs_without_them(train):
  """Another type; where two channels are too few, the second and third group still have them: three convolutions."""
  for fields, count in (({'dtype': jnp.bfloat16}, 0), ({'kernels': False}, 0), ({'channels': 2}, 6)):
    net = Network(**{'space': NB201, 'genotype': MIXED, 'cells': 1, 'channels': 8, 'kernels': True, **fields})
    variables = randomised(shapes(net, 8), 0)
    text = jax.jit(lambda v, net=net: net.apply(v, jnp.zeros((2, 8, 8, 3)), train, mutable=['batch_stats'])[0]).lower(
        variables).as_text()
    assert text.count('@vimnas_jax_') == count


@pytest.mark.parametrize('how', ['no numba', 'switched off'])
def test_without_kernels_the_plain_form_runs(monkeypatch, how):
  mixing._available.cache_clear()
  if how == 'no numba':
    monkeypatch.setattr(mixing.importlib.util, 'find_spec', lambda name: None)
  else:
    monkeypatch.setenv('VIMNAS_JAX_KERNELS', '0')
  assert mixing.normed() is None and mixing.kernels() is None and mixing.block() is None
  mixing._available.cache_clear()  # what was found here is not so elsewhere
