"""SparseNAS: Wu, Liu, Huang, Zhang and Van Gool, Neural Architecture Search as Sparse Supernet, AAAI 2021.

The supernet adds up the operations of every edge, each times a factor of its own, without a softmax; the factors are
made sparse by a sparse group lasso within a bi-level search:
  1. the factors descend the loss of a validation batch by accelerated proximal gradient, its proximal map level by
     level: first every factor is cut by rate * `sparsity`, then those of an edge together, along their direction, by
     rate * `group` * sqrt(number of operations); one after the other they are the map of the sum of both norms;
  2. the acceleration is Nesterov's, with `momentum`;
  3. theta descends the loss of a training batch;
  4. what is zero at the end is pruned; the architecture keeps the operations with the largest factors.

There is no code of the authors: this is built from the paper's rule. Left open and decided here: the groups, rates,
weights and where factors begin (each at 1 over the number of operations); with config.phi.optimizer=adam the proximal
step follows Adam's, with its rate (the authors have such a variant; set momentum to 0 then). The architecture keeps one
operation an edge and as many edges a node as the space says, where theirs keeps any number of paths and drops nodes; an
edge without any factor left is `none` where the space may keep that, else its last one.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import factors, updates
from vimnas_jax.methods.types import END, Method

FIELDS = {
    'sparsity': 5e-3,  # weight of the absolute values of factors
    'group': 5e-3,  # weight of the norms of edges
    'momentum': 0.9,  # of the proximal steps
}
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.025, 'momentum': 0.0, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 2


def group_shrunk(x: jax.Array, by: jax.Array | float) -> jax.Array:
  """Rows x [edges, ops], each shortened by `by` times the root of its size, but not beyond zero."""
  length = jnp.sqrt(jnp.square(x).sum(1, keepdims=True))
  kept = jnp.maximum(length - by * x.shape[1] ** 0.5, 0)
  return x * kept / jnp.where(length > 0, length, 1)


def make(config: ConfigDict) -> Method:
  """SparseNAS with the fields of config.method. Raises UserError on a bad field."""
  if config.sparsity < 0 or config.group < 0:
    raise UserError(f'config.method.sparsity={config.sparsity} and group={config.group} must not be below 0')
  if not 0 <= config.momentum < 1:
    raise UserError(f'config.method.momentum={config.momentum} must be from 0 and below 1')

  def init(key, space):
    del key
    fixed = factors.fixed(space)
    return {'params': {name: row['real'] / row['real'].sum(1, keepdims=True) for name, row in fixed.items()},
            'fixed': fixed}

  def sample(phi, key, clock):
    del key, clock
    return factors.weights(phi['params'], phi['fixed']), {'factors': factors.left(phi['params'], phi['fixed'])}

  def after(phi, clock):
    return {**phi, 'fixed': factors.seen(phi['params'], phi['fixed'], clock.progress)}

  def proximal(params, rate):
    return {name: group_shrunk(factors.shrunk(own, rate * config.sparsity), rate * config.group)
            for name, own in params.items()}

  return Method(init, sample, lambda phi, clock=END: factors.probs(phi['params'], phi['fixed']), updates.bilevel(),
                scores=lambda phi, clock=END: factors.scores(phi['params'], phi['fixed']),
                after=after, proximal=proximal,
                optimizer=lambda tx: factors.accelerated(tx, config.momentum))
