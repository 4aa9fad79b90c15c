"""DARTS, first order: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019.

One free parameter alpha per edge and operation, mixing weights softmax(alpha). In every step alpha descends the loss
of a validation batch (Adam), then theta the loss of a training batch; the second-order term is left out.

`darts_noise` is DARTS-dagger of the VIM-NAS paper (its section 4.6): the same free alpha with what VIM-NAS has besides
its network: A = alpha + xi, xi ~ N(0, 1) of fixed variance, one batch for both, momentum SGD at 0.025. The paper does
not say which optimiser: SGD by analogy.
"""

import jax

from vimnas_jax.errors import UserError
from vimnas_jax.methods.types import Method, no_penalty

FIELDS = {
    'noise': 0.0,  # standard deviation of xi, added to alpha in every step
    'samples': 1,  # draws of xi per step, each serving an equal group of the batch
    'separate': False,  # whether every group goes through the supernet by itself: BatchNorm sees one architecture
    'bilevel': True,  # False: alpha descends the loss of theta's batch
    'phi_first': True,  # alpha before theta within a step (DARTS); False is the order of NAS-Bench-201's DARTS-V1
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}  # momentum: Adam's beta 1
PRETRAIN = 0.0
NOISE = {'noise': 1.0, 'bilevel': False, 'optimizer': 'sgd', 'lr': 0.025, 'momentum': 0.9, 'weight_decay': 0.0,
         'samples': 8, 'pretrain': 1.0}


def make(config) -> Method:
  """DARTS with the fields of config.method. Raises UserError on a bad field."""
  if config.samples < 1:
    raise UserError(f'config.method.samples={config.samples} must be at least 1')

  def init(key, space):
    return {'params': {name: 1e-3 * jax.random.normal(jax.random.fold_in(key, i), cell.shape)
                       for i, (name, cell) in enumerate(space.cells.items())}, 'fixed': {}}

  def sample(phi, key, progress):
    del progress
    weights = {}
    for i, (name, alpha) in enumerate(phi['params'].items()):
      xi = jax.random.normal(jax.random.fold_in(key, i), (config.samples, *alpha.shape))
      weights[name] = jax.nn.softmax(alpha[None] + config.noise * xi)
    return weights, {}

  def probs(phi, progress=1.0):
    del progress
    return {name: jax.nn.softmax(alpha) for name, alpha in phi['params'].items()}

  return Method(init, sample, probs, no_penalty, bilevel=config.bilevel, phi_first=config.phi_first,
                samples=config.samples, separate=config.separate, logits=lambda phi: phi['params'])
