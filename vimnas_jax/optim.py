"""Optimisers as optax chains, in PyTorch's order: clip, add weight decay to the gradient, then the update rule."""

import optax


def theta(config, steps: int) -> optax.GradientTransformation:
  """SGD with momentum for the supernet, from lr to lr_end on a cosine over `steps` steps. `config` is config.theta."""
  schedule = optax.cosine_decay_schedule(config.lr, max(steps, 1), config.lr_end / config.lr)
  return optax.chain(_before(config), optax.sgd(schedule, config.momentum or None, config.nesterov))


def phi(config, steps: int) -> optax.GradientTransformation:
  """SGD with momentum, or Adam (beta 1 = momentum, beta 2 = 0.999). `config` is config.phi.

  The rate goes in a straight line from lr to lr_end over `steps` steps, those in which phi moves.
  """
  schedule = config.lr if config.lr_end == config.lr else optax.linear_schedule(config.lr, config.lr_end, max(steps, 1))
  if config.optimizer == 'adam':
    return optax.chain(_before(config), optax.adam(schedule, b1=config.momentum, b2=0.999, eps=1e-8))
  return optax.chain(_before(config), optax.sgd(schedule, config.momentum or None))


def _before(config):
  clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
  return optax.chain(clip, optax.add_decayed_weights(config.weight_decay))
