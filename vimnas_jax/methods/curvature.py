"""The largest eigenvalue of the Hessian of the validation loss in the architecture, without the Hessian."""

from collections.abc import Callable

import jax
import jax.flatten_util
import jax.numpy as jnp

from vimnas_jax.methods import updates
from vimnas_jax.methods.types import Batch, Clock, Method, Problem, State


def largest_eigenvalue(product: Callable[[jax.Array], jax.Array], start: jax.Array, iterations: int) -> jax.Array:
  """The largest eigenvalue, [], of the symmetric matrix [n, n] whose `product` with a vector [n] is given.

  Lanczos with all vectors orthogonalised anew, from `start` [n]; exact, but for rounding, after n iterations.
  """
  count = min(iterations, start.size)

  def turn(i, carry):
    vectors, diagonal, beside, v = carry
    vectors = vectors.at[i].set(v)
    w = product(v)
    diagonal = diagonal.at[i].set(v @ w)
    for _ in range(2):
      w = w - vectors.T @ (vectors @ w)
    norm = jnp.linalg.norm(w)
    return vectors, diagonal, beside.at[i].set(norm), w / jnp.maximum(norm, 1e-30)

  zeros = jnp.zeros(count, start.dtype)
  first = jnp.zeros((count, start.size), start.dtype), zeros, zeros, start / jnp.linalg.norm(start)
  _, diagonal, beside, _ = jax.lax.fori_loop(0, count, turn, first)
  off = jnp.diag(beside[:-1], 1)
  return jnp.linalg.eigvalsh(jnp.diag(diagonal) + off + off.T)[-1]


def curvature(method: Method, problem: Problem, state: State, batch: Batch, clock: Clock,
              iterations: int) -> jax.Array:
  """The largest eigenvalue of the Hessian of the loss of `batch` in phi['params'], [].

  Theta and phi are those of `state`; `iterations` as for `largest_eigenvalue`. Problem.plain gives second derivatives.
  """
  flat, build = jax.flatten_util.ravel_pytree(state.phi['params'])

  def loss(flat, images, labels):
    weights, _ = method.sample({**state.phi, 'params': build(flat)}, batch.key, clock)
    return problem.plain(state.theta, weights, batch.key, images, labels)[0]

  def slope(flat):
    return updates.in_parts(jax.grad(loss), problem.parts)(flat, batch.images, batch.labels)

  def product(v):
    return jax.grad(lambda flat: slope(flat) @ v)(flat)  # operations have gradients of their own, and no jvp

  start = jax.random.normal(jax.random.fold_in(batch.key, 1), flat.shape, flat.dtype)
  return largest_eigenvalue(product, start, iterations)
