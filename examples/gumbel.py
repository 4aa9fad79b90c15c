"""A method of one's own: free parameters, drawn by the Gumbel-softmax trick; SNAS without its cost term.

Xie et al., SNAS: Stochastic Neural Architecture Search, ICLR 2019, after Jang et al. and Maddison et al. (2017):
  1. alpha is a free number for every edge and operation;
  2. the mixing weights of a step are softmax((alpha + gumbel noise) / tau);
  3. tau falls from `tau` towards `tau_end` by equal factors: the weights become one-hot;
  4. theta and alpha descend the loss of the same batch;
  5. the architecture is the most probable operation of every edge, softmax(alpha).

  python -m vimnas_jax.main --config=configs/quickstart.py --config.method.name=examples/gumbel.py --workdir=runs/gumbel

Left open by the paper and decided here: SGD for alpha, and one draw for each of `samples` groups of the batch.
"""

import jax

from vimnas_jax.errors import UserError
from vimnas_jax.methods import END, Method, updates

FIELDS = {
    'tau': 3.0,  # temperature at the start
    'tau_end': 0.3,  # and after the last step
    'samples': 4,  # draws per step, each serving an equal group of the batch
}
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.5, 'momentum': 0.9, 'weight_decay': 0.0}  # of alpha; as config.phi
PRETRAIN = 0.0  # epochs of theta alone


def make(config) -> Method:
  """The method with the fields of config.method."""
  if not (config.tau > 0 and config.tau_end > 0 and config.samples > 0):
    raise UserError(f'config.method.tau={config.tau}, tau_end={config.tau_end} and samples={config.samples} must be '
                    'above 0')

  def init(key, space):
    alpha = {name: 1e-3 * jax.random.normal(jax.random.fold_in(key, i), cell.shape)
             for i, (name, cell) in enumerate(space.cells.items())}
    return {'params': alpha, 'fixed': {}}

  def sample(phi, key, clock):
    tau = config.tau * (config.tau_end / config.tau) ** clock.progress
    weights = {}
    for i, (name, alpha) in enumerate(phi['params'].items()):
      noise = jax.random.gumbel(jax.random.fold_in(key, i), (config.samples, *alpha.shape))
      weights[name] = jax.nn.softmax((alpha[None] + noise) / tau)
    return weights, {'tau': tau}

  def probs(phi, clock=END):
    return {name: jax.nn.softmax(alpha) for name, alpha in phi['params'].items()}

  return Method(init, sample, probs, updates.single_level(), samples=config.samples, logits=lambda phi: phi['params'])
