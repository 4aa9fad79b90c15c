"""An architecture as a sequence of decisions, one an edge: what methods with a policy draw, and how probable it is.

An edge takes one of its operations, slot 1 and on, or is left out, slot 0. Where all logits are equal, every
architecture of a cell is equally probable: with `need` edges still to be kept of the `left` that lead into the node
from this one on, an edge is kept with probability need / left. So no node keeps fewer or more edges than the space
says, and where every edge is kept, slot 0 never comes up.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vimnas_jax.methods.rsps import Rule

_NEVER = -1e9  # added to the logit of what must not be taken: its probability is 0, and no gradient is nan


class Path(NamedTuple):
  """The decisions of a cell.

  Attributes:
    weights: the architecture as mixing weights, [edges, ops].
    log_p: log-probability of each decision, given those before, [edges].
    entropy: of each decision, in nats, [edges].
    probs: probabilities of the operations of each edge if it is kept, [edges, ops].
  """

  weights: jax.Array
  log_p: jax.Array
  entropy: jax.Array
  probs: jax.Array


def drawn(rule: Rule, key: jax.Array | None, logits: Callable[..., Any], before: Any) -> tuple[Any, Path]:
  """(State and last slot, `Path`) of one cell.

  Args:
    rule: that of the cell, as `rsps.rules` gives it.
    key: of the draw; None takes the most probable slot of every edge.
    logits: `logits(state, slot, edge) -> (state, [slots])`, where `slot` is what was decided last.
    before: the state and the slot to begin with.
  """
  allowed, edges = rule['allowed'], jnp.arange(len(rule['targets']))
  same = rule['targets'][:, None] == rule['targets'][None]
  left = (same & (edges[None] >= edges[:, None])).sum(1)
  kept = jnp.minimum(rule['kept'], same.sum(1))

  def visit(carry, edge):
    (state, slot), taken = carry
    state, out = logits(state, slot, edge)
    need = kept[edge] - (taken & same[edge]).sum()
    own = allowed[edge]
    keep, leave = (jnp.log(n / left[edge]) for n in (need, left[edge] - need))
    prior = jnp.concatenate([leave[None], jnp.where(own, keep - jnp.log(own.sum()), _NEVER)])
    biased = out + jnp.maximum(prior, _NEVER).astype(out.dtype)
    log_p = jax.nn.log_softmax(biased)
    slot = (biased.argmax() if key is None else jax.random.categorical(jax.random.fold_in(key, edge), biased)
            ).astype(jnp.int32)
    path = Path(jax.nn.one_hot(slot - 1, len(own), dtype=out.dtype), log_p[slot], -(jnp.exp(log_p) * log_p).sum(),
                jax.nn.softmax(jnp.where(own, out[1:], _NEVER)))
    return ((state, slot), taken.at[edge].set(slot > 0)), path

  (after, _), path = jax.lax.scan(visit, (before, jnp.zeros(len(edges), bool)), edges)
  return after, path
