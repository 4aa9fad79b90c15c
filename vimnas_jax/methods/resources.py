"""What an architecture distribution costs in the mean, as a penalty beside any method's loss.

An operation on an edge has a fixed cost, so that the expected cost is linear in the probabilities: what all
architectures have, and the sum over edges and operations of probability times cost. Where nodes keep a given number of
edges (the DARTS space: two, never `none`), every kept edge is taken to be a draw among all operations of all edges into
that node, in proportion to their probabilities. The penalty is weight * sum over resources of max(0, expected / limit -
1): 0 for a distribution whose mean keeps within the limit, which it then leaves alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax.methods.types import Method, Rows
from vimnas_jax.spaces import Space


class Resource(NamedTuple):
  """A cost with a limit.

  Attributes:
    name: 'params', 'madds' or 'latency_ms'.
    limit: the most that an architecture may cost.
    fixed: what every architecture costs.
    rows: {cell: [edges, ops]}, what an operation on an edge adds.
  """

  name: str
  limit: float
  fixed: float
  rows: Mapping[str, np.ndarray]


def expected(space: Space, probs: Rows, fixed: float, rows: Mapping[str, np.ndarray]) -> jax.Array:
  """Expected cost [] of an architecture drawn by `probs` {cell: [edges, ops]}, whose arguments are as in `Resource`.

  Of one architecture, rows that are one-hot on what it keeps and 0 elsewhere, it is the cost.
  """
  total = jnp.asarray(fixed, jnp.result_type(float))
  for name, cell in space.cells.items():
    p, costs = probs[name], jnp.asarray(rows[name], jnp.result_type(float))
    if space.kept is None:
      total += (p * costs).sum()
      continue
    real = jnp.array([[float(op != 'none') for op in ops] for ops in cell.ops])
    leads = np.array([[float(target == node) for _, target in cell.edges] for node in range(cell.inputs, cell.nodes)])
    kept = np.minimum(space.kept, leads.sum(1))
    mass, cost = ((leads * (p * real * each).sum(1)[None]).sum(1) for each in (1.0, costs))  # into every node
    total += (kept * cost / jnp.where(mass > 0, mass, 1)).sum()
  return total


def excess(space: Space, probs: Rows, resources: Sequence[Resource]) -> jax.Array:
  """Sum over resources of max(0, expected cost / limit - 1), []."""
  return sum((jnp.maximum(0.0, expected(space, probs, r.fixed / r.limit,
                                        {name: row / r.limit for name, row in r.rows.items()}) - 1)
              for r in resources), start=jnp.zeros(()))


def limited(method: Method, space: Space, resources: Sequence[Resource], weight: float) -> Method:
  """The method with `weight` times the excess of its noise-free probabilities added to the loss of phi."""
  own = method.penalty

  def penalty(phi, weights, clock):
    more = weight * excess(space, method.probs(phi, clock), resources)
    return more + own(phi, weights, clock) if own else more

  return method._replace(penalty=penalty) if weight and resources else method
