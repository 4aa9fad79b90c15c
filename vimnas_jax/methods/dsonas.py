"""DSO-NAS: Zhang, Huang, Wang, Xiang and Pan, You Only Search Once: Single Shot Neural Architecture Search via Direct
Sparse Optimization, arXiv 1811.01567, 2018.

Every operation of every edge has a scaling factor, 1 at the start; sparsity takes the factors to zero:
  1. for the part `warm_up` of the search theta alone is trained, all factors 1;
  2. then theta descends the loss of training batches for one period, the factors the loss of batches of the other half
     of the data for the next, in turns; there are `periods` of them;
  3. the factors move by accelerated proximal gradient: z = f - rate * gradient, v = S(z) - f + m v, f = S(z) + m v,
     where S takes off rate * `sparsity`, but not below zero (the proximal map of the L1 norm), and m is `momentum`;
  4. a factor that is zero has taken its operation out;
  5. the architecture keeps the operations with the largest factors.

From the authors' code: a sparsity of 1e-3, the rate 0.1, 120 epochs, the two halves, Nesterov's momentum for theta at
0.1 with batches of 128. The BatchNorm before a factor has no scale in a supernet here, as they ask for. Decided here:
the periods (their code takes a batch for theta and one for the factors in turns, and every five epochs builds the
network anew without what is zero); half of the search is pretraining; a rate that changes goes its whole way in the
steps in which theta, or the factors, move; the architecture keeps one operation an edge and as many edges a node as the
space says, where theirs keeps all that is not zero; an edge without any factor left is `none` where the space may keep
that, else its last one. A factor without gradient takes (1 - m) / (rate * sparsity) = 1000 of its own steps from 1 to
0: short searches take fewer operations out, and sizes decide. They cut every number of a gradient to [-2, 2]. Their
space, in which every node may read every earlier one, is not here.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import factors, topology, updates
from vimnas_jax.methods.types import END, Batch, Clock, Info, Method, Problem, State, Step

FIELDS = {
    'sparsity': 1e-3,  # weight of the sum of all factors
    'momentum': 0.9,  # of the proximal steps
    'warm_up': 0.5,  # part of the search in which theta alone is trained
    'periods': 12,  # of the rest of the search, theta's and the factors' in turns
}
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.1, 'momentum': 0.0, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 1
PUBLISHED = {'darts': {'epochs': 120.0, 'batch_size': 128, 'theta.lr': 0.1, 'theta.lr_end': 0.1, 'theta.nesterov': True,
                       'theta.weight_decay': 1e-4}}


@dataclasses.dataclass(frozen=True)
class InTurns:
  """An `Update`: theta on training batches for a period, by the step `alone`, then all of phi on validation batches for
  one; `warm_up` and `periods` are those of FIELDS.
  """

  warm_up: float
  periods: int
  alone: Step

  def moves(self, steps: int) -> tuple[int, int]:
    """In how many of the `steps` steps after the warm-up theta moves, and phi."""
    starts = [-(-period * steps // self.periods) for period in range(self.periods + 1)]
    theta = sum(end - start for start, end in list(zip(starts, starts[1:]))[::2])
    return theta, steps - theta

  def __call__(self, method: Method, problem: Problem, state: State, batches: Mapping[str, Batch],
               clock: Clock) -> tuple[State, Info]:
    """Does a step."""
    first = jnp.round(self.warm_up * clock.steps).astype(jnp.int32)
    period = (clock.step - first) * self.periods // jnp.maximum(clock.steps - first, 1)
    return jax.lax.cond(period % 2 == 1, lambda now: self._phi(method, problem, now, batches, clock),
                        lambda now: self._theta(method, problem, now, batches, clock), state)

  def _theta(self, method, problem, state, batches, clock):
    state, metrics = self.alone.update(method, problem, state, batches, clock)
    return state, {'grad_phi': jnp.zeros_like(metrics['grad_theta']), **metrics}

  def _phi(self, method, problem, state, batches, clock):
    batch = batches['valid']
    grad = updates.in_parts(jax.grad(updates.objective(method, problem, clock), 1, has_aux=True), problem.parts)
    params, fixed = state.phi['params'], state.phi['fixed']
    g_phi, (loss, accuracy, info) = grad(state.theta, params, fixed, batch.key, batch.images, batch.labels)
    params, opt_phi = updates.moved(problem.tx_phi, g_phi, params, state.opt_phi)
    norm = optax.tree.norm(g_phi)
    return state.replace(phi={'params': params, 'fixed': fixed}, opt_phi=opt_phi), {
        'loss': loss, 'accuracy': accuracy, 'grad_theta': jnp.zeros_like(norm), 'grad_phi': norm, **info}


def in_turns(warm_up: float, periods: int, alone: Step) -> Step:
  """`InTurns` as a step; where the graph is searched too, its rows move in theta's periods as well."""
  return Step(InTurns(warm_up, periods, alone), ('train', 'valid'),
              beside=lambda names: in_turns(warm_up, periods, topology.rows_beside(alone)))


def make(config: ConfigDict) -> Method:
  """DSO-NAS with the fields of config.method. Raises UserError on a bad field."""
  if config.sparsity < 0 or not 0 <= config.momentum < 1:
    raise UserError(f'config.method.sparsity={config.sparsity} must not be below 0, and momentum={config.momentum} be '
                    'from 0 and below 1')
  if not 0 <= config.warm_up < 1 or config.periods < 2:
    raise UserError(f'config.method.warm_up={config.warm_up} must be from 0 and below 1, periods={config.periods} at '
                    'least 2')

  def init(key, space):
    del key
    fixed = factors.fixed(space)
    return {'params': {name: row['real'] for name, row in fixed.items()}, 'fixed': fixed}

  def sample(phi, key, clock):
    del key, clock
    return factors.weights(phi['params'], phi['fixed']), {'factors': factors.left(phi['params'], phi['fixed'])}

  def after(phi, clock):
    return {**phi, 'fixed': factors.seen(phi['params'], phi['fixed'], clock.progress)}

  def proximal(params, rate):
    return jax.tree.map(lambda f: jnp.maximum(f - rate * config.sparsity, 0), params)

  alone = updates.theta_only()
  before = ((config.warm_up, alone),) if config.warm_up else ()
  return Method(init, sample, lambda phi, clock=END: factors.probs(phi['params'], phi['fixed']),
                in_turns(config.warm_up, config.periods, alone), before=before, after=after, proximal=proximal,
                scores=lambda phi, clock=END: factors.scores(phi['params'], phi['fixed']),
                optimizer=lambda tx: factors.accelerated(tx, config.momentum, above=0.0))
