"""PC-DARTS: Xu et al., PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search, ICLR 2020.

  1. alpha is a free number for every edge and operation, beta one for every edge;
  2. the first 1 / `partial` of a node's channels go through the operations of an edge, mixed by softmax(alpha), the
     others past them (at a stride of 2 through a 2x2 maximum); both are put together and their channels shuffled;
  3. a node is the sum of its edges, weighted by the softmax of beta over the edges that lead into it;
  4. alpha and beta descend the loss of a validation batch, then theta that of a training batch; for the first
     `warm_up` of the search alpha and beta stand still;
  5. an edge's score is its weight times its largest probability; the space's own rule keeps the best two of a node.

From the authors' code: 4 on CIFAR, 2 on ImageNet; 15 of 50 epochs of warming up, hence `warm_up`; Adam at 6e-4. Theirs
has batches of 256 at a rate of 0.1 for theta, which is config.batch_size and config.theta.lr here.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.types import END, Method, Options
from vimnas_jax.networks import initial
from vimnas_jax.networks.mixing import Mixture

FIELDS = {
    'partial': 4,  # one part of so many of a node's channels goes through the operations
    'warm_up': 0.3,  # part of the search in which theta alone is trained
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 6e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 1.7  # one while alpha and beta stand still, then two
PUBLISHED = {'darts': {'epochs': 50.0, 'batch_size': 256, 'theta.lr': 0.1, 'theta.lr_end': 0.0},
             'imagenet': {'epochs': 50.0, 'pretrain.epochs': 0.0, 'batch_size': 1024, 'theta.lr': 0.5,
                          'theta.lr_end': 0.0, 'theta.schedule': 'cosine_epoch', 'theta.warmup': 5,
                          'method.partial': 2, 'method.warm_up': 0.7, 'phi.lr': 6e-3, 'phi.clip': 5.0}}


def edge_weights(beta: jax.Array, targets: jax.Array) -> jax.Array:
  """Softmax of beta [edges] over the edges with the same target, [edges]; `targets` [edges] has every edge's target."""
  same = targets[:, None] == targets[None]
  return jnp.exp(beta - jax.nn.logsumexp(jnp.where(same, beta[None], -jnp.inf), axis=1))


def make(config: ConfigDict) -> Method:
  """PC-DARTS with the fields of config.method. Raises UserError on a bad field."""
  if config.partial < 2:
    raise UserError(f'config.method.partial={config.partial} must be at least 2; method darts has all channels')
  if not 0 <= config.warm_up < 1:
    raise UserError(f'config.method.warm_up={config.warm_up} must be from 0 and below 1')
  def init(key, space):
    params, fixed = {}, {}
    for i, (name, cell) in enumerate(space.cells.items()):
      fixed[name] = jnp.array([target for _, target in cell.edges])
      alpha_key, beta_key = jax.random.split(jax.random.fold_in(key, i))
      params[name] = {'alpha': 1e-3 * initial.normal(alpha_key, cell.shape),
                      'beta': 1e-3 * initial.normal(beta_key, cell.shape[:1])}
    return {'params': params, 'fixed': fixed}

  def sample(phi, key, clock):
    del key, clock
    weights = {}
    for name, own in phi['params'].items():
      edges = edge_weights(own['beta'], phi['fixed'][name])
      weights[name] = Mixture((edges[:, None] * jax.nn.softmax(own['alpha']))[None], past=edges[None])
    return weights, {}

  def probs(phi, clock=END):
    del clock
    return {name: jax.nn.softmax(own['alpha']) for name, own in phi['params'].items()}

  def scores(phi, clock=END):
    del clock
    return {name: edge_weights(own['beta'], phi['fixed'][name])[:, None] * jax.nn.softmax(own['alpha'])
            for name, own in phi['params'].items()}

  before = ((config.warm_up, updates.theta_only()),) if config.warm_up else ()
  return Method(init, sample, probs, updates.bilevel(), scores=scores, before=before,
                options=Options(partial=config.partial),
                logits=lambda phi: {name: own['alpha'] for name, own in phi['params'].items()})
