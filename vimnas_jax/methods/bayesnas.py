"""BayesNAS: Zhou, Yang, Wang and Pan, BayesNAS: A Bayesian Approach for Neural Architecture Search, ICML 2019.

Every operation of every edge has a switch s with a Gaussian prior of its own variance gamma, the relevance that is
learned (automatic relevance determination), and depends on the edges before it:
  1. theta and s descend the loss of a training batch, s plus `sparsity` times the sum of omega |s|;
  2. gamma = |s| / omega; the relevance of an operation is 1 / (1 / gamma + 1 / G), G the sum of the gammas of all
     operations that lead into the node from which its edge leaves: what hangs on nothing is irrelevant;
  3. omega^2 = 1 / gamma - C / gamma^2, where C = 1 / (1 / gamma + 1 / G + H / `sparsity`) is the variance of s given
     the data and H the curvature of the loss along s;
  4. a switch whose relevance falls below `threshold` is off for good;
  5. the architecture keeps the operations of the largest relevance.

From the authors' code: one epoch of batches of 18 with SGD at 0.1, which stays there, for theta and, without weight
decay, for s, whose momentum of 0.9 is in the published settings alone. In the place of H, theirs the Hessian
layer by layer in closed form, which needs the inside of every operation, stands the empirical Fisher information, the
running mean (`decay`) of a batch's squared gradient times its images: it has the Hessian's mean where the network is
well calibrated, falls with the gradient where it fits everything, and costs no second derivative. Decided here: omega
moves in every step; a switch that would change its sign stops at zero for that step, as omega has no bound there;
nothing is switched off in the first `warm_up` of the search; the threshold; s begins at 1 over the number of
operations; cells' inputs, and the blocks of NAS-Bench-1Shot1, hang on nothing. The architecture keeps one operation an
edge and as many edges a node as the space says; an edge that is all off is `none` where the space may keep that, else
its last one. `none` itself has no switch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import factors, topology, updates
from vimnas_jax.methods.types import END, Method, Step

FIELDS = {
    'sparsity': 0.01,  # lambda: weight of the prior
    'threshold': 1e-3,  # least relevance
    'decay': 0.99,  # of the running mean of squared gradients
    'warm_up': 0.2,  # part of the search before anything is switched off
}
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.1, 'momentum': 0.0, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 1
PUBLISHED = {'darts': {'epochs': 1.0, 'batch_size': 18, 'theta.lr': 0.1, 'theta.lr_end': 0.1,
                       'theta.weight_decay': 1e-4, 'phi.momentum': 0.9}}


def relevance(s: jax.Array, omega: jax.Array, before: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(gamma, 1 / G, the relevance), each [edges, ops], of switches s with weights omega; `before` [edges, edges] is 1.0
  where the edge of the column leads into the node from which that of the row leaves.
  """
  gamma = jnp.abs(s) / jnp.maximum(omega, 1e-12)
  above = before @ gamma.sum(1)
  hangs = jnp.where(before.sum(1) > 0, 1 / jnp.maximum(above, 1e-12), 0)[:, None]
  return gamma, jnp.broadcast_to(hangs, gamma.shape), gamma / (1 + gamma * hangs)


def weight(gamma: jax.Array, hangs: jax.Array, curvature: jax.Array) -> jax.Array:
  """Omega of rule 3, without the differences of large numbers; `curvature` is H / sparsity, `hangs` 1 / G."""
  stiff = hangs + curvature
  return jnp.sqrt(stiff / (1 + gamma * stiff))


def recording(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  """`tx` with the gradients that it was given beside its state."""
  return optax.GradientTransformation(
      lambda params: (tx.init(params), jax.tree.map(jnp.zeros_like, params)),
      lambda grads, state, params: (lambda moves, inner: (moves, (inner, grads)))(*tx.update(grads, state[0], params)))


def not_across(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  """`tx`, but what would change its sign stops at zero for that step."""

  def update(grads, state, params):
    moves, state = tx.update(grads, state, params)
    return jax.tree.map(lambda s, u: jnp.where(s * (s + u) < 0, -s, u), params, moves), state

  return optax.GradientTransformation(tx.init, update)


def make(config: ConfigDict) -> Method:
  """BayesNAS with the fields of config.method. Raises UserError on a bad field."""
  if not (config.sparsity > 0 and config.threshold >= 0):
    raise UserError(f'config.method.sparsity={config.sparsity} must be above 0, threshold={config.threshold} not below')
  if not (0 <= config.decay < 1 and 0 <= config.warm_up <= 1):
    raise UserError(f'config.method.decay={config.decay} must be from 0 and below 1, warm_up={config.warm_up} from '
                    '0 to 1')

  def init(key, space):
    del key
    params, fixed = {}, {}
    for name, row in factors.fixed(space).items():
      cell = space.cells[name]
      edges = np.array(cell.edges)
      params[name] = row['real'] / row['real'].sum(1, keepdims=True)
      before = (edges[:, :1] == edges[None, :, 1]) * float(not cell.rows)
      fixed[name] = {**row, 'omega': jnp.ones(cell.shape), 'curvature': jnp.zeros(cell.shape),
                     'relevance': params[name], 'on': row['real'], 'before': jnp.array(before)}
    return {'params': params, 'fixed': fixed}

  def sample(phi, key, clock):
    del key, clock
    return {name: (s * phi['fixed'][name]['on'])[None] for name, s in phi['params'].items()}, {
        'switches': sum(row['on'].sum() for row in phi['fixed'].values())}

  def penalty(phi, weights, clock):
    del weights, clock
    return sum((jax.lax.stop_gradient(pull(s, phi['fixed'][name])) * s).sum() for name, s in phi['params'].items())

  def pull(s, row):
    """The gradient of the penalty on switches s: 0 at 0, where that of jnp.abs is 1, and where they are off."""
    return config.sparsity * row['omega'] * row['on'] * jnp.sign(s)

  def learned(row, old, s, grad, images, clock):
    """What phi['fixed'] of a cell becomes after `grad` moved its switches from `old` to `s`."""
    of_data = grad - pull(old, row)
    curvature = config.decay * row['curvature'] + (1 - config.decay) * images * jnp.square(of_data)
    gamma, hangs, found = relevance(s * row['on'], row['omega'], row['before'])
    on = row['on'] * ((found > config.threshold) | (clock.progress < config.warm_up))
    return {**row, 'curvature': curvature, 'on': on, 'relevance': (on * found).astype(row['relevance'].dtype),
            'omega': weight(gamma, hangs, curvature / config.sparsity).astype(row['omega'].dtype)}

  def step(second=()):
    inner = updates.single_level(second)

    def update(method, problem, state, batches, clock):
      told = problem._replace(tx_phi=recording(problem.tx_phi))
      old, fixed = state.phi['params'], state.phi['fixed']
      state, metrics = inner.update(method, told, state.replace(opt_phi=(state.opt_phi, old)), batches, clock)
      opt_phi, grads = state.opt_phi
      old, new, grads = (topology.own_part(tree) for tree in (old, state.phi['params'], grads))
      images = len(batches['train'].labels)
      fixed = {name: learned(row, old[name], new[name], grads[name], images, clock) for name, row in fixed.items()}
      return state.replace(phi={**state.phi, 'fixed': fixed}, opt_phi=opt_phi), metrics

    return Step(update, inner.batches, beside=step)

  def relevances(phi):
    return {name: row['relevance'] for name, row in phi['fixed'].items()}

  def after(phi, clock):
    return {**phi, 'fixed': factors.seen(relevances(phi), phi['fixed'], clock.progress)}

  return Method(init, sample, lambda phi, clock=END: factors.probs(relevances(phi), phi['fixed']), step(), after=after,
                penalty=penalty, optimizer=not_across,
                scores=lambda phi, clock=END: factors.scores(relevances(phi), phi['fixed']))
