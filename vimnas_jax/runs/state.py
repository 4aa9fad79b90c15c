"""What a search carries from step to step; a resume needs nothing else."""

import contextlib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from vimnas_jax import cpu
from vimnas_jax.errors import UserError
from vimnas_jax.networks import initial


@flax.struct.dataclass
class SearchState:
  """All that a search carries.

  Attributes:
    step: steps done, int32 [].
    theta: parameters of the supernet.
    phi: the method's {'params', 'fixed'}.
    opt_theta: optimiser state of theta.
    opt_phi: optimiser state of phi['params'].
    key: root of all randomness within steps, uint32 [2].
  """

  step: jax.Array
  theta: Any
  phi: Any
  opt_theta: Any
  opt_phi: Any
  key: jax.Array


def root(seed: int):
  """The data of a seed's key, uint32 [2]. It is given to programs, so that one compiled program serves all seeds."""
  return jax.random.key_data(jax.random.key(seed))


def weights(key, net, space, image_shape):
  """Theta as a search starts with it, by a jax.random key; to be called under jax.jit."""
  rows = {name: jnp.full((1, *cell.shape), 1 / cell.shape[1]) for name, cell in space.cells.items()}
  rows |= {name: jnp.full((1, count), 1 / count) for name, count in space.choices.items()}
  rngs, images = {'params': key, 'noise': key}, jnp.zeros((1, *image_shape))
  return initial.from_one_draw(lambda: net.init(rngs, images, rows)['params'], key)


def foretell(net, space, image_shape, samples: int = 1):
  """Traces the gradients of the smallest supernet like `net`, for the names of the kernels that its steps will call.

  Other processes (cpu.expect) compile them from then on, while this one goes on.
  """
  if space.name.endswith('.py') or not net.kernels:
    return
  for cells in (1, 3):
    with contextlib.suppress(UserError):
      space.macro(cells, net.channels)
      small, key = net.clone(cells=cells), jax.random.key(0)
      rows = {name: jnp.ones((samples, *cell.shape)) for name, cell in space.cells.items()}
      rows |= {name: jnp.ones((1, count)) for name, count in space.choices.items()}
      images = jnp.zeros((samples, *image_shape))

      def loss(theta, rows, small=small, key=key, images=images):
        return small.apply({'params': theta}, images, rows, rngs={'noise': key}).sum()

      with cpu.foretelling():
        jax.eval_shape(lambda key, rows, small=small, loss=loss: jax.grad(loss, (0, 1))(
            weights(key, small, space, image_shape), rows), key, rows)
      return


def create(key, net, method, space, tx_theta, tx_phi, image_shape) -> SearchState:
  """The state at step 0; everything in it is a function of `key`, uint32 [2], as `root` gives it."""
  key = jax.random.wrap_key_data(key)
  theta_key, phi_key, step_key = jax.random.split(key, 3)
  theta, phi = weights(theta_key, net, space, image_shape), method.init(phi_key, space)
  now = SearchState(jnp.zeros((), jnp.int32), theta, phi, tx_theta.init(theta), tx_phi.init(phi['params']),
                    jax.random.key_data(step_key))
  return now.replace(phi=method.carry(now)) if method.carry else now


_GROWN = 1 << 30  # to the steps' own keys: a supernet that starts anew has another than the step after it


def grown(now: SearchState, net, method, space, tx_theta, tx_phi, image_shape) -> SearchState:
  """The state with which a supernet that grows starts anew, from that at the end of the one before."""
  theta_key, phi_key = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(now.key), _GROWN + now.step))
  theta, phi = weights(theta_key, net, space, image_shape), now.phi
  if method.grow:
    phi = method.grow(phi, phi_key)
  return now.replace(theta=theta, phi=phi, opt_theta=tx_theta.init(theta), opt_phi=tx_phi.init(phi['params']))
