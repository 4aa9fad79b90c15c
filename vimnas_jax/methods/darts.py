"""DARTS: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019.

One free parameter alpha per edge and operation, mixing weights softmax(alpha). In every step:
  1. alpha descends the loss of a validation batch (Adam): its first order takes theta as it is, the second order
     (`unrolled`) theta after one step on the training batch (equation 6);
  2. theta descends the loss of the training batch.

`unrolled=finite` is the authors' second order: a difference of two gradients stands for the second derivative (equation
8), at the cost of three more passes over the training batch; `exact` differentiates through theta's step, which
switches the CPU's kernels off. The inner step has theta's rate, momentum and decay, and no clipping.

`darts_noise` is DARTS-dagger of the VIM-NAS paper (its section 4.6): the same free alpha with what VIM-NAS has besides
its network: A = alpha + xi, xi ~ N(0, 1) of fixed variance, one batch for both, momentum SGD at 0.025. The paper does
not say which optimiser: SGD by analogy.
"""

import jax
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.alpha import init, logs, probs
from vimnas_jax.methods.types import Method, Options
from vimnas_jax.networks import initial

FIELDS = {
    'noise': 0.0,  # standard deviation of xi, added to alpha in every step
    'samples': 1,  # draws of xi per step, each serving an equal group of the batch
    'separate': False,  # whether every group goes through the supernet by itself: BatchNorm sees one architecture
    'bilevel': True,  # False: alpha descends the loss of theta's batch
    'unrolled': '',  # '' is the first order; 'finite', 'exact': the second
    'phi_first': True,  # alpha before theta within a step (DARTS); False is the order of NAS-Bench-201's DARTS-V1
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}  # momentum: Adam's beta 1
PRETRAIN = 0.0
PASSES = 2
PUBLISHED = {
    'darts': {'epochs': 50.0},
    'nb201': {'epochs': 50.0, 'batch_size': 64, 'theta.nesterov': True, 'theta.weight_decay': 5e-4,
              'method.phi_first': False},
    'oneshot': {'epochs': 50.0, 'batch_size': 96},
}
SECOND = {'unrolled': 'finite', 'passes': 5,
          'published': {'method.phi_first': True}}  # also that of NAS-Bench-201, its DARTS-V2
NOISE = {'noise': 1.0, 'bilevel': False, 'optimizer': 'sgd', 'lr': 0.025, 'momentum': 0.9, 'weight_decay': 0.0,
         'samples': 8, 'pretrain': 1.0, 'passes': 1,
         'published': {'epochs': 1.0, 'method.samples': 1}}  # as VIM-NAS in that paper; not DARTS's length


def make(config: ConfigDict) -> Method:
  """DARTS with the fields of config.method. Raises UserError on a bad field."""
  if config.samples < 1:
    raise UserError(f'config.method.samples={config.samples} must be at least 1')
  if config.unrolled not in updates.UNROLLED or (config.unrolled and not config.bilevel):
    raise UserError(f'config.method.unrolled={config.unrolled!r}: choose one of '
                    f'{", ".join(map(repr, updates.UNROLLED))}; with config.method.bilevel=False only the first')

  def sample(phi, key, clock):
    del clock
    weights = {}
    for i, (name, alpha) in enumerate(phi['params'].items()):
      xi = initial.normal(jax.random.fold_in(key, i), (config.samples, *alpha.shape))
      weights[name] = jax.nn.softmax(alpha[None] + config.noise * xi)
    return weights, {}

  step = updates.bilevel(config.phi_first, config.unrolled) if config.bilevel else updates.single_level()
  return Method(init, sample, probs, step, samples=config.samples, separate=config.separate,
                options=Options(kernels=config.unrolled != 'exact'), logs=logs, logits=lambda phi: phi['params'])
