"""Nodes mixed with as many inputs as an architecture keeps of them: VIM-NAS where config.method.node_inputs is 'kept'.

In the DARTS space a node keeps two of its inputs. A softmax on every edge by itself knows nothing of that: it mixes up
to five, and where all have decided for an operation, what is kept of them hangs on the last digits of probabilities
near 1. Here the distribution over architectures that the softmaxes p are together is restricted to those that the space
has. A set S of a node's inputs, as many as the space keeps, has a probability

    P(S) ~ product over e in S of (1 - p_e[none]) / p_e[none],

edge e the sum m_e of those of the sets that it is in, and, if it is kept, its operation o p_e[o] / (1 - p_e[none]). The
mixture takes the product of both; `none` has the rest, 1 - m_e. Over the inputs of a node m sums up to the number that
is kept: they compete for it as operations do for an edge, and when all have decided, no choice is left.

Decided here, and not in the paper, which says only that an architecture is read off as in DARTS. So it is here, edge by
edge: the two edges with the most probable operation, m_e times that of the operation. While a search is undecided that
need not be the most probable architecture. Others, which finalists are and a limit puts in its place, are ranked by how
probable they are: by the product of p_e[o] / p_e[none] over the edges that they keep.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.methods import topology
from vimnas_jax.methods.types import END, Method
from vimnas_jax.spaces import Cell, Space

_MOST = 10_000  # sets of a node's inputs that are listed
_LEAST = 1e-36  # of a probability: float32 has some that are 0, whose logarithm has no gradient


def within(method: Method, space: Space) -> Method:
  """`method`, whose `sample` and `probs` are probabilities, with those of the cells `space.restricted` as `mixed` has
  them. Raises UserError if a node has too many sets of inputs.
  """
  names, kept = space.restricted, space.kept
  if not names or kept is None:
    return method
  for name in names:
    into = max(sum(target == node for _, target in space.cells[name].edges) for node in range(space.cells[name].nodes))
    if (sets := math.comb(into, min(kept, into))) > _MOST:
      raise UserError(f"config.method.node_inputs='kept': the {into} edges into a node of cell {name!r} have {sets:,} "
                      f"sets of {kept}, more than {_MOST:,}: set config.method.node_inputs='all'")

  def all_of(rows):
    return {name: mixed(space.cells[name], kept, p) if name in names else p for name, p in rows.items()}

  def sample(phi, key, clock):
    weights, info = method.sample(phi, key, clock)
    return all_of(weights), info

  def ranking(phi, clock=END):
    return {name: odds(space.cells[name], p) if name in names else p for name, p in method.probs(phi, clock).items()}

  def others(logs):
    return lambda phi, clock=END: {name: rows for name, rows in logs(phi, clock).items() if name not in names}

  return method._replace(sample=sample, probs=lambda phi, clock=END: all_of(method.probs(phi, clock)), odds=ranking,
                         logs=method.logs and others(method.logs))


def odds(cell: Cell, probs: jax.Array) -> jax.Array:
  """Of `probs` [edges, ops], of every edge by itself, those against `none`, whose own are 0.

  Those of a node are divided by its highest, which all its sets of as many edges share.
  """
  none = np.array([[op == 'none' for op in ops] for ops in cell.ops])
  logs = jnp.log(jnp.maximum(probs, _LEAST))
  found = jnp.where(none, -jnp.inf, logs - jax.nn.logsumexp(logs, -1, where=none)[..., None])
  for node in range(cell.inputs, cell.nodes):
    into = np.array([i for i, (_, target) in enumerate(cell.edges) if target == node])
    found = found.at[into].add(-found[into].max())
  return jnp.exp(found)


def mixed(cell: Cell, kept: int, probs: jax.Array) -> jax.Array:
  """`probs` [..., edges, ops], of every edge by itself, given that every node keeps `kept` of its inputs, or all."""
  none = np.array([[op == 'none' for op in ops] for ops in cell.ops])
  logs = jnp.log(jnp.maximum(probs, _LEAST))
  some = jax.nn.logsumexp(logs, -1, where=~none)
  odds = some - jax.nn.logsumexp(logs, -1, where=none)
  share = jnp.zeros_like(odds)
  for node in range(cell.inputs, cell.nodes):
    into = np.array([i for i, (_, target) in enumerate(cell.edges) if target == node])
    count = min(kept, len(into))
    share = share.at[..., into].set(count * topology.share(odds[..., into], count))
  return jnp.where(none, jnp.maximum(1 - share, 0)[..., None], share[..., None] * jnp.exp(logs - some[..., None]))
