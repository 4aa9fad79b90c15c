"""SDARTS-RS: Chen and Hsieh, Stabilizing Differentiable Architecture Search via Perturbation-based Regularization, ICML
2020, with random smoothing.

  1. alpha is a free number for every edge and operation;
  2. alpha descends the loss of a validation batch, mixed by p = softmax(alpha), as in DARTS (first order);
  3. theta descends the loss of a training batch, mixed by p + U(-e, e), drawn for every entry, brought back to
     probabilities;
  4. e rises in a straight line from `epsilon_start` to `epsilon`;
  5. the architecture is read off softmax(alpha).

From the authors' code: entries are cut to [0, 1], a row of nothing but zeros gets a 1 at its largest entry before the
cut, and rows are divided by their sums. Decided here: e rises step by step, not once an epoch.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.types import END, Method

FIELDS = {
    'epsilon_start': 0.03,  # half the width of the perturbation at the start
    'epsilon': 0.3,  # and after the last step
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 2


def to_probabilities(rows: jax.Array) -> jax.Array:
  """Perturbed probabilities [..., ops] cut to [0, 1] and divided by their sum; where nothing is left, one-hot."""
  cut = jnp.clip(rows, 0, 1)
  most = jax.nn.one_hot(rows.argmax(-1), rows.shape[-1], dtype=rows.dtype)
  cut = jnp.where(cut.sum(-1, keepdims=True) > 0, cut, most)
  return cut / cut.sum(-1, keepdims=True)


def make(config: ConfigDict) -> Method:
  """SDARTS-RS with the fields of config.method. Raises UserError on a bad field."""
  if not (config.epsilon_start >= 0 and config.epsilon >= 0):
    raise UserError(f'config.method.epsilon_start={config.epsilon_start} and epsilon={config.epsilon} must not be '
                    'below 0')

  def init(key, space):
    return {'params': {name: 1e-3 * jax.random.normal(jax.random.fold_in(key, i), cell.shape)
                       for i, (name, cell) in enumerate(space.cells.items())}, 'fixed': {}}

  def probs(phi, clock=END):
    del clock
    return {name: jax.nn.softmax(alpha) for name, alpha in phi['params'].items()}

  def sample(phi, key, clock):
    del key
    return {name: p[None] for name, p in probs(phi, clock).items()}, {}

  def sample_theta(phi, key, clock):
    width = config.epsilon_start + (config.epsilon - config.epsilon_start) * clock.progress
    weights = {}
    for i, (name, p) in enumerate(probs(phi, clock).items()):
      moved = jax.random.uniform(jax.random.fold_in(key, i), p.shape, minval=-width, maxval=width)
      weights[name] = to_probabilities(p + moved)[None]
    return weights, {'epsilon': width}

  return Method(init, sample, probs, updates.bilevel(), sample_theta=sample_theta, logits=lambda phi: phi['params'])
