"""DATA: Chang et al., DATA: Differentiable ArchiTecture Approximation, NeurIPS 2019; Zhang et al., the same with
Distribution Guided Sampling, TPAMI 2020.

An edge may run several operations: a draw is an ensemble of `draws` categorical ones.
  1. alpha is a free number for every edge and operation; p is relu(alpha) divided by its sum over the edge, or
     softmax(alpha);
  2. p_m = softmax((log p + Gumbel noise) / tau) for m = 1 to `draws`, and z_m is 1 at the largest entry of p_m, else 0;
  3. the mixing weights are the entry-wise maximum of the z_m, divided by its sum: equal shares of all operations drawn;
  4. backward z_m has the gradient of p_m (straight through);
  5. alpha descends the loss of a validation batch, plus `reg` times the sum over cell types of the mean distance, over
     edges and operations, of p from the draw's mixing weights as they stand; then theta descends the loss of a training
     batch, with a draw of its own;
  6. tau falls in a straight line from `tau` to `tau_end`.

From the authors' code: p by relu, the constants, `reg`, the start of alpha (1 + 1e-3 N(0, 1), without the 1 for
softmax). Left open and decided here: where several z_m are equal their maximum has the mean of their gradients. tau
falls step by step, not once an epoch, from where it is in their first epoch to where it is after their hundredth (their
search script hands no epoch on, which leaves tau at 1). Their architecture is a draw too, and may keep several
operations on an edge; here no space can express that, and its own rule reads the most probable ones off p.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.types import END, Method
from vimnas_jax.networks import initial

FIELDS = {
    'draws': 7,  # M, categorical draws an edge and step; the paper has 4 and 7
    'probabilities': 'relu',  # what makes probabilities of alpha: 'relu' or 'softmax'
    'tau': 5.0,  # temperature at the start
    'tau_end': 2.3333,  # and after the last step: 5 - 100 * 4 / 150
    'reg': 0.1,  # weight, in the loss of alpha, of the mean distance of p from what was drawn
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 2
PUBLISHED = {'darts': {'epochs': 100.0, 'batch_size': 64}}
TINY = 1e-10  # added to p before its logarithm


def ensemble(p: jax.Array) -> jax.Array:
  """Mixing weights [..., ops] of draws p [draws, ..., ops]: equal shares of the operations that are largest in any."""
  z = jax.nn.one_hot(p.argmax(-1), p.shape[-1], dtype=p.dtype)
  most = z.max(0)
  equal = (z == most[None]).astype(p.dtype)
  through = (equal * (p - jax.lax.stop_gradient(p))).sum(0) / equal.sum(0)  # zero, with the gradient of p
  most = most + through
  return most / most.sum(-1, keepdims=True)


def make(config: ConfigDict) -> Method:
  """DATA with the fields of config.method. Raises UserError on a bad field."""
  if config.draws < 1 or not (config.tau > 0 and config.tau_end > 0):
    raise UserError(f'config.method.draws={config.draws} must be at least 1, tau={config.tau} and tau_end='
                    f'{config.tau_end} above 0')
  if config.probabilities not in ('relu', 'softmax'):
    raise UserError(f'config.method.probabilities={config.probabilities!r}: choose one of relu, softmax')
  if config.reg < 0:
    raise UserError(f'config.method.reg={config.reg} must not be below 0')
  relu = config.probabilities == 'relu'

  def init(key, space):
    return {'params': {name: float(relu) + 1e-3 * initial.normal(jax.random.fold_in(key, i), cell.shape)
                       for i, (name, cell) in enumerate(space.cells.items())}, 'fixed': {}}

  def probability(alpha):
    if not relu:
      return jax.nn.softmax(alpha)
    p = jax.nn.relu(alpha) + TINY  # all below 0: equal shares
    return p / p.sum(-1, keepdims=True)

  def sample(phi, key, clock):
    tau = config.tau + (config.tau_end - config.tau) * clock.progress
    weights, width = {}, []
    for i, (name, alpha) in enumerate(phi['params'].items()):
      noise = initial.gumbel(jax.random.fold_in(key, i), (config.draws, *alpha.shape), alpha.dtype)
      weights[name] = ensemble(jax.nn.softmax((jnp.log(probability(alpha) + TINY)[None] + noise) / tau))[None]
      width.append((weights[name] > 0).sum(-1).mean())
    return weights, {'tau': tau, 'drawn': sum(width) / len(width)}

  def probs(phi, clock=END):
    del clock
    return {name: probability(alpha) for name, alpha in phi['params'].items()}

  def penalty(phi, weights, clock):
    return config.reg * sum(jnp.abs(p - jax.lax.stop_gradient(weights[name][0])).mean()
                            for name, p in probs(phi, clock).items())

  return Method(init, sample, probs, updates.bilevel(), penalty=penalty if config.reg else None,
                logits=lambda phi: phi['params'])
