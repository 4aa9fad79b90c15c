"""DARTS that watches the curvature of the validation loss: Zela, Elsken, Saikia, Marrakchi, Brox and Hutter,
Understanding and Robustifying Differentiable Architecture Search, ICLR 2020: early stopping (`darts_es`) and adaptive
regularisation (`darts_ada`).

  1. DARTS (second order);
  2. `evaluations` times in a search, the first after a fiftieth of it, the largest eigenvalue of the Hessian of the
     validation loss with respect to alpha is computed on the batch of the step, at the theta and alpha after it;
  3. its local average is the mean of the last five values (of three or four where there are no more);
  4. when the average is more than `ratio` times that of four evaluations before, the search has gone too far. The
     average is that of the middle of its window, so the last good moment lies six evaluations back;
  5. ES: the search ends, and its result is alpha as it was then; no search ends with an alpha of before evaluation
     `earliest` (from 0);
  6. ADA: theta, alpha and their optimisers go back to that moment, the weight decay of theta is multiplied by `factor`
     and the search goes on, at most `raises` times.

From the authors' code, for 50 epochs with a value every second one: the window, the ratio, epoch 10 as the earliest,
a weight decay of 3e-4 that is multiplied by 10 up to 3e-2, and the weight decay of alpha on the Hessian's diagonal
(`ridge`). They compute the whole Hessian; here `iterations` of Lanczos find its largest eigenvalue. Decided here: a
search that goes back does not take longer for it, rates follow the steps of the run, and ADA's record of values
starts anew, so that it may go back again after seven of them. A search of fewer than 50 steps has fewer evaluations.
PASSES does not count what these take, some two passes, through second derivatives, for each of the `iterations`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import curvature, updates
from vimnas_jax.methods.alpha import init, logs, probs, sample
from vimnas_jax.methods.types import Method, Options, Step

FIELDS = {
    'evaluations': 25,  # of the largest eigenvalue in a search
    'earliest': 5,  # evaluation, from 0, whose architecture is the earliest that may be the result
    'ratio': 1.3,  # of local averages, above which the search has gone too far
    'iterations': 16,  # of Lanczos
    'ridge': 1e-3,  # added to the Hessian's diagonal: the weight decay of alpha
    'unrolled': 'finite',  # as of method darts
    'adaptive': False,  # whether the search goes back and on (ADA) instead of ending (ES)
    'factor': 10.0,  # ADA: by which the weight decay is multiplied
    'raises': 2,  # ADA: how often at most
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 5
PUBLISHED = {'darts': {'epochs': 50.0}}
ADAPTIVE = {'adaptive': True}
WINDOW, BACK = 5, 4  # values of a local average; evaluations between the two that are compared
KEPT = WINDOW // 2 + BACK + 1  # snapshots: the oldest is that to go back to


def too_far(values: jax.Array, count: jax.Array, earliest: jax.Array | int, ratio: float) -> jax.Array:
  """Whether the search has gone too far, bool [].

  Args:
    values: the last WINDOW + BACK values, the newest at the end.
    count: how many values there have been, [].
    earliest: number, from 0, of the first of them that may be gone back to.
    ratio: of local averages.
  """
  here = jnp.arange(WINDOW + BACK) >= WINDOW + BACK - count

  def average(part):
    return jnp.where(here, values, 0)[part].sum() / jnp.maximum(here[part].sum(), 1)

  now, before = average(slice(BACK, None)), average(slice(None, WINDOW))
  return (count >= KEPT) & (count - KEPT >= earliest) & (now / before > ratio)


def _snapshot(state: Any, adaptive: bool) -> Any:
  """What a search that has gone too far takes back."""
  return (state.phi['params'], state.theta, state.opt_phi, state.opt_theta) if adaptive else (state.phi['params'],)


def _scheduled(state: Any) -> bool:
  return isinstance(state, optax.ScaleByScheduleState)


def _back(state: Any, snapshot: Any, fixed: Any) -> Any:
  """The state with what `snapshot` has; counts by which rates go stay, Adam's own goes back with its averages."""
  params, *others = snapshot
  state = state.replace(phi={'params': params, 'fixed': fixed})
  if not others:
    return state
  theta, opt_phi, opt_theta = others
  opt_theta, opt_phi = (jax.tree.map(lambda old, now: now if _scheduled(old) else old, old, now, is_leaf=_scheduled)
                        for old, now in ((opt_theta, state.opt_theta), (opt_phi, state.opt_phi)))
  return state.replace(theta=theta, opt_phi=opt_phi, opt_theta=opt_theta)


def watched(config: ConfigDict) -> Step:
  """DARTS with a record of eigenvalues and snapshots in phi['fixed']."""
  inner = updates.bilevel(unrolled=config.unrolled)

  def evaluations(clock):
    return (clock.turn(2 * config.evaluations) + 1) // 2

  def update(method, problem, state, batches, clock):
    def evaluated(state):
      fixed = state.phi['fixed']
      value = curvature.curvature(method, problem, state, batches['valid'], clock, config.iterations) + config.ridge
      values = jnp.append(fixed['values'][1:], value.astype(jnp.float32))
      snapshots = jax.tree.map(lambda kept, new: jnp.concatenate([kept[1:], new[None]]), fixed['snapshots'],
                               _snapshot(state, config.adaptive))
      count = fixed['count'] + 1
      earliest = jnp.where(fixed['raised'] > 0, 0, config.earliest)
      over = too_far(values, count, earliest, config.ratio)
      if config.adaptive:
        over &= fixed['raised'] < config.raises
      fixed = {'values': values, 'snapshots': snapshots, 'count': jnp.where(over, 0, count),
               'raised': fixed['raised'] + over}
      after = state.replace(phi={**state.phi, 'fixed': fixed})
      gone = _back(after, jax.tree.map(lambda kept: kept[0], snapshots), fixed)
      return jax.tree.map(lambda new, old: jnp.where(over, new, old), gone, after)

    own = problem
    if config.adaptive:
      times = jnp.power(config.factor, state.phi['fixed']['raised'])
      own = problem._replace(tx_theta=problem.decayed(times), tx_unrolled=problem.decayed(times, clip=False))
    state, metrics = inner.update(method, own, state, batches, clock)
    due = evaluations(clock._replace(step=clock.step + 1)) > evaluations(clock)
    state = jax.lax.cond(due, evaluated, lambda state: state, state)
    fixed = state.phi['fixed']
    return state, {**metrics, 'eigenvalue': fixed['values'][-1], 'raised': fixed['raised']}

  return Step(update, ('train', 'valid'), lambda names: watched(config))


def make(config: ConfigDict) -> Method:
  """DARTS-ES or DARTS-ADA with the fields of config.method. Raises UserError on a bad field."""
  for field in ('evaluations', 'iterations', 'ratio', 'factor'):
    if config[field] <= 0:
      raise UserError(f'config.method.{field}={config[field]} must be above 0')

  def carry(state):
    snapshots = jax.tree.map(lambda x: jnp.repeat(x[None], KEPT, 0), _snapshot(state, config.adaptive))
    return {**state.phi, 'fixed': {'values': jnp.zeros(WINDOW + BACK, jnp.float32), 'snapshots': snapshots,
                                   'count': jnp.int32(0), 'raised': jnp.int32(0)}}

  return Method(init, sample, probs, watched(config), carry=carry, logs=logs, logits=lambda phi: phi['params'],
                stopped=None if config.adaptive else lambda phi: phi['fixed']['raised'] > 0,
                options=Options(kernels=config.unrolled != 'exact'))
