"""The architecture as most papers hold it: a free number alpha for every edge and operation, mixed by softmax(alpha).

Not a method: what those have in common that differ from DARTS in how alpha, or theta, is moved.
"""

from __future__ import annotations

import jax
import numpy as np

from vimnas_jax.methods.types import END, Clock, Info, Phi, Rows, Weights
from vimnas_jax.networks import initial
from vimnas_jax.spaces import Space

START = 1e-3  # standard deviation of alpha at the start


def init(key: jax.Array, space: Space) -> Phi:
  """As `Method.init`: alpha from N(0, START^2), {cell: [edges, ops]}, and nothing beside."""
  return {'params': {name: START * initial.normal(jax.random.fold_in(key, i), cell.shape)
                     for i, (name, cell) in enumerate(space.cells.items())}, 'fixed': {}}


def probs(phi: Phi, clock: Clock = END) -> Rows:
  """As `Method.probs`: softmax(alpha)."""
  del clock
  return {name: jax.nn.softmax(alpha) for name, alpha in phi['params'].items()}


def log_softmax(rows: jax.Array) -> jax.Array:
  """The logarithms of the softmax of rows [..., ops], to the last digit also where it is next to 1."""
  others = ~np.eye(rows.shape[-1], dtype=bool)
  return -jax.nn.softplus(jax.nn.logsumexp(rows[..., None, :], -1, where=others) - rows)


def logs(phi: Phi, clock: Clock = END) -> Rows:
  """As `Method.logs`."""
  del clock
  return {name: log_softmax(alpha) for name, alpha in phi['params'].items()}


def sample(phi: Phi, key: jax.Array, clock: Clock) -> tuple[Weights, Info]:
  """As `Method.sample`: the same, without a draw."""
  del key
  return {name: p[None] for name, p in probs(phi, clock).items()}, {}
