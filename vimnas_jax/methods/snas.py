"""SNAS: Xie, Zheng, Liu, Lin, SNAS: Stochastic Neural Architecture Search, ICLR 2019.

  1. alpha is a free number for every edge and operation, at the start 1 + 0.01 N(0, 1);
  2. in every step each edge is mixed by softmax((alpha + Gumbel noise) / tau), a draw of the concrete distribution;
  3. theta and alpha descend the loss of the same training batch, from one backward pass;
  4. `resource` times a sum over the edges of all cell types is added to the loss of alpha: the logarithm of the
     parameters that the draw stands for on an edge, 0 where these are fewer than one;
  5. tau falls in a straight line from `tau` to `tau_end`, where a draw is almost one operation;
  6. the architecture is the most probable operation of every edge.

From the authors' code: the start of alpha, the straight line of tau, the logarithm. Their architecture keeps every edge
whose operation is not `none`; here the space's own rule reads it off softmax(alpha). Their command for 8 cells on one
GPU has a `resource` of 1e-2, that for 20 cells on eight 1.5e-3. Decided here: tau falls step by step over the whole
search, whatever its length (theirs has 150 epochs); alpha has the Adam of their distributed runs, where one GPU has
plain SGD at the same rate; an operation's parameters are counted at 16 channels and a stride of 1, where they take the
mean over the cells of a type, which the logarithm makes a matter of proportions; of their three resources (parameters,
multiply-adds, memory: the mean of the three logarithms) there are the parameters; with several draws their terms have
the mean. Their drop path of 0.3 while searching is left out.
"""

import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.alpha import logs, probs
from vimnas_jax.methods.types import Method
from vimnas_jax.networks import initial, ops
from vimnas_jax.spaces import Space

FIELDS = {
    'tau': 1.0,  # temperature at the start
    'tau_end': 0.03,  # and after the last step
    'resource': 0.0,  # weight of the edges' logarithms of parameters in the loss of alpha; the authors', of 8 cells, is
    #                   1e-2
    'samples': 1,  # draws per step, each serving an equal group of the batch
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 1
PUBLISHED = {  # all training images: alpha needs no validation half
    'darts': {'epochs': 150.0, 'batch_size': 64, 'train_portion': 1.0, 'phi.clip': 10.0, 'method.resource': 1e-2},
}
CHANNELS = 16  # at which parameters are counted


def parameters(space: Space) -> dict[str, jax.Array]:
  """Parameters of every operation, {cell: [edges, ops]}. Raises UserError where the space's are not known."""
  def of(name):
    if name in ('none', 'noise'):
      return 0
    if name not in (*ops.OPS, *space.own_ops):
      raise UserError(f'config.method.resource: the parameters of the operation {name!r} of space {space.name!r} are '
                      'not known: set config.method.resource=0')
    return sum(math.prod(shape) for shape, _ in ops.named(name, space.own_ops).shapes(CHANNELS, 1).values())

  return {name: jnp.array([[float(of(op)) for op in row] for row in cell.ops]) for name, cell in space.cells.items()}


def make(config: ConfigDict) -> Method:
  """SNAS with the fields of config.method. Raises UserError on a bad field."""
  if not (config.tau > 0 and config.tau_end > 0 and config.samples > 0):
    raise UserError(f'config.method.tau={config.tau}, tau_end={config.tau_end} and samples={config.samples} must be '
                    'above 0')
  if config.resource < 0:
    raise UserError(f'config.method.resource={config.resource} must be at least 0')

  def init(key, space):
    params = {name: 1 + 0.01 * initial.normal(jax.random.fold_in(key, i), cell.shape)
              for i, (name, cell) in enumerate(space.cells.items())}
    return {'params': params, 'fixed': parameters(space) if config.resource else {}}

  def sample(phi, key, clock):
    tau = config.tau + (config.tau_end - config.tau) * clock.progress
    weights = {}
    for i, (name, alpha) in enumerate(phi['params'].items()):
      noise = initial.gumbel(jax.random.fold_in(key, i), (config.samples, *alpha.shape), alpha.dtype)
      weights[name] = jax.nn.softmax((alpha[None] + noise) / tau)
    return weights, {'tau': tau}

  def penalty(phi, weights, clock):
    del clock
    edges = [(weights[name] * cost[None]).sum(-1) for name, cost in phi['fixed'].items()]  # [samples, edges] each
    return config.resource * sum(jnp.log(jnp.maximum(own, 1)).sum(-1).mean() for own in edges)

  return Method(init, sample, probs, updates.single_level(), penalty=penalty if config.resource else None,
                samples=config.samples, logs=logs, logits=lambda phi: phi['params'])
