"""GDAS: Dong and Yang, Searching for a Robust Neural Architecture in Four GPU Hours, CVPR 2019.

  1. alpha is a free number for every edge and operation;
  2. p = softmax((log softmax(alpha) + Gumbel noise) / tau), and an edge runs the one operation with the largest p: its
     mixing weight is 1 in the forward pass and p in the backward pass (straight through);
  3. theta descends the loss of a training batch, then alpha, with a draw of its own, that of a validation batch
     (`phi_first` is the other order);
  4. tau falls in a straight line from `tau` to `tau_end`;
  5. the architecture is the most probable operation of every edge.

As the authors' code, an operation that was not drawn adds its weight, which is 0, to the edge's output, so that alpha's
gradient has a term for it too. Decided here: tau falls step by step, not once an epoch, so that one epoch sees all of
it; every operation is computed and those that were not drawn are multiplied by 0, so a step costs what it costs DARTS.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.alpha import init, logs, probs
from vimnas_jax.methods.types import Method
from vimnas_jax.networks import initial
from vimnas_jax.networks.mixing import Mixture

FIELDS = {
    'tau': 10.0,  # temperature at the start
    'tau_end': 0.1,  # and after the last step
    'samples': 1,  # draws per step, each serving an equal group of the batch
    'phi_first': False,  # alpha before theta within a step, as NAS-Bench-1Shot1's GDAS
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 2
PUBLISHED = {
    'darts': {'epochs': 250.0, 'batch_size': 256, 'theta.nesterov': True, 'theta.weight_decay': 5e-4},
    'nb201': {'epochs': 250.0, 'batch_size': 64, 'theta.nesterov': True, 'theta.weight_decay': 5e-4},
    'oneshot': {'epochs': 50.0, 'batch_size': 96, 'method.tau_end': 1.0, 'method.phi_first': True,
                'phi.clip': 5.0},  # of the benchmark's authors
}


def straight_through(p: jax.Array) -> jax.Array:
  """One-hot rows at the largest of p [..., ops], with the gradient of p."""
  hard = jax.nn.one_hot(p.argmax(-1), p.shape[-1], dtype=p.dtype)
  return hard - jax.lax.stop_gradient(p) + p


def make(config: ConfigDict) -> Method:
  """GDAS with the fields of config.method. Raises UserError on a bad field."""
  if not (config.tau > 0 and config.tau_end > 0 and config.samples > 0):
    raise UserError(f'config.method.tau={config.tau}, tau_end={config.tau_end} and samples={config.samples} must be '
                    'above 0')

  def sample(phi, key, clock):
    tau = config.tau + (config.tau_end - config.tau) * clock.progress
    weights = {}
    for i, (name, alpha) in enumerate(phi['params'].items()):
      noise = initial.gumbel(jax.random.fold_in(key, i), (config.samples, *alpha.shape))
      h = straight_through(jax.nn.softmax((jax.nn.log_softmax(alpha)[None] + noise) / tau))
      drawn = jax.lax.stop_gradient(h) > 0.5
      weights[name] = Mixture(ops=jnp.where(drawn, h, 0), shift=jnp.where(drawn, 0, h).sum(-1))
    return weights, {'tau': tau}

  return Method(init, sample, probs, updates.bilevel(config.phi_first), samples=config.samples,
                logs=logs, logits=lambda phi: phi['params'])
