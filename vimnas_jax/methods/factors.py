"""What methods share whose operations have factors that sparsity brings to zero: DSO-NAS, SparseNAS, BayesNAS.

An edge puts out the sum of its operations, each times its factor; there is no softmax. `none` has no factor: an edge
without factors is none. What an architecture is read off, the scores of a row, are the sizes of the factors. Where all
of a row are zero it is `none`, if the space has that and lets an architecture keep it, else the operation that was zero
last.
"""

import math
from collections.abc import Mapping
from typing import TypedDict

import jax
import jax.numpy as jnp
import optax

from vimnas_jax.methods.types import Rows
from vimnas_jax.spaces import Space

_LATE, _NONE = 1e-7, 1e-6  # beside factors, what a late end and `none` count in scores


class Row(TypedDict):
  """What phi['fixed'] has of a cell, [edges, ops] each.

  `real` is 1.0, and 0.0 for `none`; `none` is 1.0 where an architecture may keep that; `last` is the part of the search
  at whose end the factor was not yet zero.
  """

  real: jax.Array
  none: jax.Array
  last: jax.Array


Fixed = Mapping[str, Row]


def fixed(space: Space) -> dict[str, Row]:
  """What to begin with."""
  found: dict[str, Row] = {}
  for name, cell in space.cells.items():
    real = jnp.array([[float(op != 'none') for op in ops] for ops in cell.ops])
    found[name] = {'real': real, 'none': (1 - real) * float(space.kept is None), 'last': jnp.zeros(cell.shape)}
  return found


def weights(factors: Rows, fixed: Fixed) -> dict[str, jax.Array]:
  """Mixing weights [1, edges, ops] of factors [edges, ops]."""
  return {name: (own * fixed[name]['real'])[None] for name, own in factors.items()}


def seen(factors: Rows, fixed: Fixed, progress: jax.Array) -> dict[str, Row]:
  """`fixed` after a step that led to `progress`."""
  return {name: {**row, 'last': jnp.where(factors[name] != 0, progress, row['last']).astype(row['last'].dtype)}
          for name, row in fixed.items()}


def scores(factors: Rows, fixed: Fixed) -> dict[str, jax.Array]:
  """Scores [edges, ops], none of them below 0."""
  return {name: jnp.abs(own) * fixed[name]['real'] + _LATE * fixed[name]['last'] * fixed[name]['real'] +
          _NONE * fixed[name]['none'] for name, own in factors.items()}


def probs(factors: Rows, fixed: Fixed) -> dict[str, jax.Array]:
  """Scores divided by the sum of their row; a row without any has equal shares."""
  found = {}
  for name, rows in scores(factors, fixed).items():
    total = rows.sum(1, keepdims=True)
    found[name] = jnp.where(total > 0, rows / jnp.where(total > 0, total, 1), 1 / rows.shape[1])
  return found


def left(factors: Rows, fixed: Fixed) -> jax.Array:
  """How many factors are not zero, []."""
  return jnp.stack([((own != 0) * fixed[name]['real']).sum() for name, own in factors.items()]).sum()


def shrunk(x: jax.Array, by: jax.Array | float) -> jax.Array:
  """Soft threshold: the proximal map of `by` times the sum of absolute values."""
  return jnp.sign(x) * jnp.maximum(jnp.abs(x) - by, 0)


def accelerated(tx: optax.GradientTransformation, momentum: float, above: float = -math.inf
                ) -> optax.GradientTransformation:
  """Accelerated proximal gradient: `tx` leads from f to S(z), then v = S(z) - f + momentum v and f = S(z) + momentum v.

  Where S(z) is zero so is f, or no zero would last; nothing falls below `above`.
  """

  def init(params):
    return tx.init(params), jax.tree.map(jnp.zeros_like, params)

  def update(grads, state, params):
    inner, v = state
    moves, inner = tx.update(grads, inner, params)
    v = jax.tree.map(lambda u, v: u + momentum * v, moves, v)

    def move(f, u, v):
      near = f + u
      return jnp.where(near == 0, 0, jnp.maximum(near + momentum * v, above)) - f

    return jax.tree.map(move, params, moves, v), (inner, v)

  return optax.GradientTransformation(init, update)
