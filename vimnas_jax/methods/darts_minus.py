"""DARTS-: Chu et al., DARTS-: Robustly Stepping out of Performance Collapse Without Indicators, ICLR 2021.

  1. alpha is a free number for every edge and operation, mixing weights softmax(alpha), as in DARTS;
  2. beside its operations every edge has an auxiliary skip connection, weighted by beta: the identity, at a stride of 2
     a FactorizedReduce without scale and bias; it takes over what a skip connection does for training, so that the one
     among the operations has to be worth something as an operation;
  3. alpha descends the loss of a validation batch, then theta that of a training batch (first order);
  4. beta falls from `beta` to 0, in a straight line or by half a cosine;
  5. the architecture is read off softmax(alpha), without the auxiliary connection.

Decided here: beta falls step by step, not once an epoch, and is 0 after the last step (the authors' last epoch has
0.02). NAS-Bench-1Shot1's network has no such connection: a search there is refused.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.alpha import init, logs, probs
from vimnas_jax.methods.types import Method, Options
from vimnas_jax.networks.mixing import Mixture

FIELDS = {
    'beta': 1.0,  # weight of the auxiliary skip connection at the start
    'beta_fall': 'linear',  # how it falls to 0: 'linear' or 'cosine'
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 2
PUBLISHED = {'darts': {'epochs': 50.0, 'batch_size': 64}}


def make(config: ConfigDict) -> Method:
  """DARTS- with the fields of config.method. Raises UserError on a bad field."""
  if config.beta < 0:
    raise UserError(f'config.method.beta={config.beta} must be at least 0')
  if config.beta_fall not in ('linear', 'cosine'):
    raise UserError(f'config.method.beta_fall={config.beta_fall!r}: choose one of linear, cosine')

  def beta(clock):
    left = 1 - clock.progress
    return config.beta * (left if config.beta_fall == 'linear' else 0.5 * (1 - jnp.cos(jnp.pi * left)))

  def sample(phi, key, clock):
    del key
    now = beta(clock)
    return {name: Mixture(p[None], skip=jnp.full((1, len(p)), now, p.dtype))
            for name, p in probs(phi, clock).items()}, {'beta': now}

  return Method(init, sample, probs, updates.bilevel(), options=Options(auxiliary=True),
                logs=logs, logits=lambda phi: phi['params'])
