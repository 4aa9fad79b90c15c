"""Optimisers as optax chains, in PyTorch's order: clip, add weight decay to the gradient, then the update rule.

The number of steps may be a scalar of the program: a plan of another length is then the same program.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vimnas_jax.networks import leaves

DECAY = 0.97  # an epoch, of 'step_epoch'


def theta(config, steps: jax.Array | int, per_epoch: int = 1, clip: bool = True) -> optax.GradientTransformation:
  """SGD with momentum for the weights, its rate by `rate`. `config` is config.theta.

  Without `clip` unclipped and without Nesterov's form, as the authors of DARTS look ahead, and its steps have a
  gradient everywhere; with it not those of a `Momentum`.
  """
  schedule = rate(config, steps, per_epoch)
  plain = optax.chain(_before(config, clip), optax.sgd(schedule, config.momentum or None, config.nesterov and clip))
  if not (clip and config.momentum):
    return plain
  return Momentum(functools.partial(_begun, plain), plain.update, functools.partial(_moved, plain, config, schedule))


class Momentum(NamedTuple):
  """An optax.GradientTransformation of which `methods.updates.moved` takes a step by `move`.

  Attributes:
    init: as in optax.
    update: as in optax.
    move: `move(grads, params, state) -> (params, state)`: `update` and `apply_updates` in one.
  """

  init: Callable[..., Any]
  update: Callable[..., Any]
  move: Callable[..., Any]


def _begun(plain, params):
  before, (trace, scale) = plain.init(params)
  return before, (trace._replace(trace=leaves.zeros_like(params)), scale)


def _moved(plain, config, schedule, grads, params, state):
  before, (trace, scale) = state
  if not leaves.fits((params, grads, trace)):
    updates, state = plain.update(grads, state, params)
    return optax.apply_updates(params, updates), state
  step = leaves.Descent(schedule(scale.count), config.momentum, config.weight_decay, config.nesterov, config.clip)
  params, moved = leaves.descended(step, params, grads, trace.trace)
  return params, (before, (trace._replace(trace=moved), scale._replace(count=optax.safe_increment(scale.count))))


def rate(config, steps: jax.Array | int, per_epoch: int = 1):
  """The rate of theta as a function of the step. `config` is config.theta.

  'cosine' falls from lr to lr_end in every step; 'cosine_epoch' once an epoch, as DARTS retrains. 'linear_epoch' is
  that of P-DARTS and PC-DARTS on ImageNet: by epochs in a straight line towards 0, which it would reach five epochs
  before the end; these five have a fifth of lr / (epochs - 5) for every epoch that is left. 'step_epoch'
  is multiplied by DECAY after every epoch, as DARTS retrains on ImageNet. Those by epochs begin with `warmup` epochs of
  lr * (epoch + 1) / warmup; where there are no more epochs than that, half of them, or the rate would never fall.
  """
  if config.schedule == 'cosine':
    whole = jnp.maximum(steps, 1)
    return lambda step: (config.lr_end + (config.lr - config.lr_end) * 0.5 *
                         (1 + jnp.cos(jnp.pi * jnp.minimum(step, whole) / whole)))
  epochs = jnp.maximum(-(-steps // per_epoch), 1)

  def of(step):
    epoch = jnp.minimum(step // per_epoch, epochs - 1)
    if config.schedule == 'cosine_epoch':
      now = config.lr_end + (config.lr - config.lr_end) * 0.5 * (1 + jnp.cos(jnp.pi * epoch / epochs))
    elif config.schedule == 'step_epoch':
      now = config.lr * DECAY ** epoch
    else:
      last = jnp.minimum(5, jnp.maximum(epochs - 1, 1))
      now = jnp.where(epochs - epoch > last, config.lr * (epochs - last - epoch) / jnp.maximum(epochs - last, 1),
                      config.lr * (epochs - epoch) / jnp.where(epochs > last, (epochs - last) * last, epochs))
    if config.warmup:
      warmup = jnp.where(epochs > config.warmup, config.warmup, epochs // 2)
      now = jnp.where(epoch < warmup, config.lr * (epoch + 1) / jnp.maximum(warmup, 1), now)
    return now

  return of


def phi(config, steps: jax.Array | int) -> optax.GradientTransformation:
  """SGD with momentum, or Adam (beta 1 = momentum, beta 2 = 0.999). `config` is config.phi.

  The rate is that of `phi_rate`.
  """
  schedule = phi_rate(config, steps)
  if config.optimizer == 'adam':
    return optax.chain(_before(config), optax.adam(schedule, b1=config.momentum, b2=0.999, eps=config.get('eps', 1e-8)))
  return optax.chain(_before(config), optax.sgd(schedule, config.momentum or None))


def phi_rate(config, steps: jax.Array | int):
  """The rate of phi: a number, or a function of the step, of the `steps` steps in which phi moves.

  It goes from lr to lr_end, in a straight line or, with the schedule 'exponential', by equal factors. In the last part
  `fall` of the steps, by half a cosine, it falls from there to 0: the way before is so much shorter. After the part
  `until` of the search it is 0, and the steps of all this are those before. lr and lr_end are those of a search of
  `config.steps` steps; where the search is shorter they are greater in proportion, so that a whole search moves phi as
  far.
  """
  faster = config.steps / jnp.maximum(steps, 1) if config.get('steps') else 1
  first, last = config.lr * faster, config.lr_end * faster
  until = config.get('until', 1.0)
  if config.lr == config.lr_end and not config.fall and until == 1:
    return first
  steps = until * steps if until < 1 else steps
  way = jnp.maximum((1 - config.fall) * steps, 1)

  def of(step):
    along = jnp.clip(step / way, 0.0, 1.0)
    by_factors = config.schedule == 'exponential'
    now = first * (config.lr_end / config.lr) ** along if by_factors else first + (last - first) * along
    left = jnp.clip((steps - step) / jnp.maximum(config.fall * steps, 1), 0.0, 1.0)
    now = now * 0.5 * (1 - jnp.cos(jnp.pi * left)) if config.fall else now
    return jnp.where(step < steps, now, 0.0) if until < 1 else now

  return of


def proximal(tx: optax.GradientTransformation, rate, prox) -> optax.GradientTransformation:
  """`tx`, after each of whose steps `prox(params, rate) -> params` maps what it leads to: a proximal gradient step.

  `rate` is that of `tx`, a number or a function of the step, as `phi_rate` gives it.
  """

  def init(params):
    return tx.init(params), jnp.zeros((), jnp.int32)

  def update(grads, state, params):
    inner, count = state
    updates, inner = tx.update(grads, inner, params)
    mapped = prox(optax.apply_updates(params, updates), rate(count) if callable(rate) else rate)
    return jax.tree.map(jnp.subtract, mapped, params), (inner, count + 1)

  return optax.GradientTransformation(init, update)


def _before(config, clip=True):
  clip = optax.clip_by_global_norm(config.clip) if config.clip and clip else optax.identity()
  return optax.chain(clip, optax.add_decayed_weights(config.weight_decay))
