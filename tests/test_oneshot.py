import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from ml_collections import ConfigDict

from vimnas_jax import config as config_lib
from vimnas_jax import cost, methods, optim, spaces, state, steps
from vimnas_jax.errors import UserError
from vimnas_jax.oneshot import OneShot
from vimnas_jax.spaces import oneshot


def some_weights(space, key, samples=1):
  keys = jax.random.split(key, 1 + len(space.choices))
  weights = {'cell': jax.nn.softmax(2 * jax.random.normal(keys[0], (samples, *space.cells['cell'].shape)))}
  return weights | {name: jax.nn.softmax(jax.random.normal(k, (1, count)))
                    for k, (name, count) in zip(keys[1:], space.choices.items())}


def straight(space, params, x, weights):
  """The network one layer at a time, written from the description of the benchmark, weights per image."""
  relu, blocks, parents = jax.nn.relu, space.topology.blocks, space.topology.parents

  def norm(x):
    return (x - x.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(x.var((0, 1, 2), keepdims=True) + 1e-5)

  def conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  def affine(p, name, x, part=slice(None)):
    return norm(x) * p[f'{name}_scale'][part][None, None, None] + p[f'{name}_bias'][part][None, None, None]

  def window(x, size, stride):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1),
                             ((0, 0), (1, 1), (1, 1), (0, 0)))

  mixing = jnp.repeat(weights['cell'], len(x) // len(weights['cell']), 0)[:, :, :, None, None, None]
  x = relu(affine(params, 'stem_norm', conv(x, params['stem'])))
  for index, stage in [(i, s) for i, s in enumerate(space.macro(3, 2)) if s.kind != 'stem']:
    if stage.kind == 'pool':
      x = window(x, 2, 2)
    elif stage.kind == 'cell':
      p, c = params[f'cell_{index}'], stage.channels

      def project(first, last, p=p, c=c, x=x):
        part = slice(first * c, last * c)
        return relu(affine(p, 'projections_norm', conv(x, p['projections'][..., part]), part))

      out = []
      for node in range(1, blocks + 1):
        lower = [project(node - 1, node), *out]
        share = weights[f'inputs_{node}'][0] if parents[node - 1] < node else jnp.ones(node)
        into = sum(share[j] * y for j, y in enumerate(lower))
        three, one = (relu(affine(p, f'block{node}_conv{k}x{k}_norm', conv(into, p[f'block{node}_conv{k}x{k}'])))
                      for k in (3, 1))
        w = mixing[:, node - 1]
        out.append(w[:, 0] * window(into, 3, 1) + w[:, 1] * three + w[:, 2] * one)
      share = weights['output'][0]
      x = share[0] * project(blocks, 2 * blocks) + jnp.concatenate([share[j] * y for j, y in enumerate(out, 1)], -1)
    else:
      x = norm(conv(relu(x), params['last'][None, None])).mean((1, 2))
      x = x @ params['head'] + params['head_bias'][None]
  return x


@pytest.mark.parametrize('name, side, samples', [('oneshot1', 8, 2), ('oneshot2', 7, 1), ('oneshot3', 5, 2)])
def test_network_equals_one_layer_at_a_time(x64, name, side, samples):
  """Logits and all gradients; computing cells again on the way back changes nothing. Odd sides go 7, 4, 3."""
  space = spaces.get(name)
  remat = name == 'oneshot1'
  net = OneShot(space=space, cells=3, channels=2, num_classes=3, dtype=jnp.float64, param_dtype=jnp.float64,
                remat=remat)
  x = jax.random.normal(jax.random.key(side), (4, side, side, 3))
  weights = some_weights(space, jax.random.key(1), samples)
  params = jax.jit(net.init)(jax.random.key(2), x, weights)['params']
  # scales and biases of their own, so that none is mistaken for another
  params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params)
  probe = jax.random.normal(jax.random.key(3), (4, 3))

  def both(forward):
    def f(params, weights, x):
      logits = forward(params, x, weights)
      return (logits * probe).sum(), logits
    return jax.jit(jax.value_and_grad(f, (0, 1, 2), has_aux=True))(params, weights, x)

  (_, logits), got = both(lambda params, x, weights: net.apply({'params': params}, x, weights))
  (_, wanted), want = both(lambda params, x, weights: straight(space, params, x, weights))
  np.testing.assert_allclose(logits, wanted, rtol=1e-10, atol=1e-10)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * float(jnp.abs(b).max()))
  assert all(float(jnp.abs(got[1][row]).max()) > 1e-4 for row in (*space.choices, 'cell'))
