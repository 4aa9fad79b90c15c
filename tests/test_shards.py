import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vimnas_jax import cpu
from vimnas_jax.networks import ops
from vimnas_jax.runs import parallel

pytestmark = [pytest.mark.skipif(not cpu.available(), reason='the kernels are switched off'),
              pytest.mark.skipif(jax.device_count() < 4, reason='needs 4 devices')]
BANKS = {'sep_conv_3x3': (0, 1, 2), 'nor_conv_3x3': (0, 2), 'skip_connect': (0, 1, 2), 'avg_pool_3x3': (1,)}
IMAGES, SIDE, WIDTH = 16, 8, 8


def inputs(samples):
  rng = np.random.default_rng(0)

  def draw(*shape):
    return jnp.array(rng.normal(size=shape), jnp.float32)

  params = {op: {name: draw(len(edges), *shape) for name, (shape, _) in ops.named(op).shapes(WIDTH, 1).items()}
            for op, edges in BANKS.items()}
  node = draw(IMAGES, SIDE, SIDE, WIDTH)
  return (node, params, {op: draw(samples, len(edges)) for op, edges in BANKS.items()},
          tuple(draw(*node.shape) if e != 1 else None for e in range(3)))


def there_and_back(devices, samples):
  """Outputs and gradients of a bank on so many devices, and the text of its program."""
  bank, mesh = cpu.supernet_kernels(), parallel.mesh(devices, IMAGES)
  batch, whole = parallel.batch(mesh), parallel.replicated(mesh)

  def run(*args):
    with parallel.known(mesh):
      y, back = jax.vjp(lambda *args: bank.mixed(tuple(BANKS.items()), 3, 1, (1e-5, 1e-5), *args), *args)
      return y, back(tuple(y))

  placed = jax.device_put(inputs(samples), (batch, whole, whole, batch))
  program = jax.jit(run, in_shardings=(batch, whole, whole, batch)).lower(*placed).compile()
  return jax.device_get(program(*placed)), program.as_text()


@pytest.mark.parametrize('samples', [1, 8])
def test_devices_share_a_batch_and_change_no_bit(samples):
  """One row of weights serves all, or is fewer or more than there are devices; each device runs its own images."""
  one, _ = there_and_back(1, samples)
  for devices in (2, 4):
    several, text = there_and_back(devices, samples)
    jax.tree.map(np.testing.assert_array_equal, several, one)
    maps = [line.split('custom-call')[0] for line in text.splitlines() if 'custom-call(' in line]
    assert any(f'f32[{IMAGES // devices},' in line for line in maps)
    assert not any(f'f32[{IMAGES},{SIDE}' in line or f'f32[{IMAGES},1,{SIDE}' in line for line in maps)


def test_a_batch_that_cannot_be_shared_is_computed_by_each():
  from vimnas_jax.cpu import shards
  with parallel.known(parallel.mesh(4, 16)):
    assert [shards.devices(images, samples) for images, samples in ((16, 1), (16, 8), (12, 8), (6, 1))] == [4, 4, 1, 1]
    assert [shards.parts(images) for images in (64, 16, 8, 4, 6)] == [16, 16, 8, 4, 6]
  assert shards.devices(16) == 1 and shards.parts(64) == 16
