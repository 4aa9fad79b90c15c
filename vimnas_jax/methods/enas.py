"""ENAS: Pham, Guan, Zoph, Le and Dean, Efficient Neural Architecture Search via Parameter Sharing, ICML 2018.

  1. a controller, an LSTM, decides edge after edge; it reads its last decision, and the logits of the next one are
     `tanh` * tanh(its output / `temperature`);
  2. theta descends the loss of a training batch with one architecture that the controller draws;
  3. of every architecture that it draws for itself the reward is R = accuracy on a validation batch + `entropy` * the
     entropy of the decisions; the controller descends the mean of -(R - b) log p over `aggregate` of them, p the
     probability of the architecture;
  4. the baseline is b = B - (1 - `decay`) (B - R), where B is the last b of the turn before, or, with `turns` = 0, of
     the step before, and 0 at the start;
  5. at the end `tries` architectures are drawn, each is rated by its accuracy on one batch of the validation half, and
     the best is the result; of equals the first.

As NAS-Bench-201's own run of it, gradients through the entropy in R and b included; in its first turn b is the accuracy
alone. It alternates epochs of theta with 50 moves of the controller of 20 architectures each, which is five for every
batch of 128. Decided here: they come step by step, `rollouts` on one validation batch after every step of theta, and
the controller moves when `aggregate` have come together; a rate of phi that changes goes its whole way in these moves.
A turn is an epoch of their 250, and a 250th of any other search. BatchNorm goes by the batch in rewards too. Where a
node keeps a part of its edges, leaving one out is a decision too (methods/paths.py), in place of two choices of inputs
as in the paper; one controller decides all cells in turn. Every weight starts from U(-0.1, 0.1). Theirs lets the rate
of theta swing with a period of 20 epochs; here it falls once.

NAS-Bench-1Shot1's own run of it (published for that) has a controller of one layer, which moves by each architecture,
and the baseline with it; 300 moves follow an epoch of theta, where here one follows every step of it, 390 an epoch. Its
rewards are in %. Published are a hundredth of its `entropy` and of Adam's eps, which with rewards from 0 to 1 comes to
the same moves. Its logits of operations are bound by 0.5. Not here: its controller decides the graph too, which here
descends the validation loss (methods/topology.py); a fixed preference for the first two operations; no gradient goes
through its entropy; at the end the best five of 1,000 are rated again on all validation images.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import paths, rsps, updates
from vimnas_jax.methods.rsps import rules
from vimnas_jax.methods.types import END, Info, Method, State, Step, Update
from vimnas_jax.networks import initial

FIELDS = {
    'hidden': 32,  # numbers in a layer of the controller
    'layers': 2,  # of the controller
    'temperature': 5.0,  # by which the controller's logits are divided
    'tanh': 2.5,  # bound of the logits
    'entropy': 1e-4,  # weight of the entropy in the reward
    'decay': 0.99,  # of the baseline
    'rollouts': 5,  # architectures that are rewarded in a step
    'aggregate': 20,  # architectures of one move of the controller, a multiple of rollouts
    'turns': 250,  # of the whole search, after each of which the baseline moves; 0: after every step
    'tries': 100,  # architectures that are rated at the end
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 1e-3, 'momentum': 0.0, 'weight_decay': 0.0, 'eps': 1e-3}
PRETRAIN = 0.0
PASSES = 2.67
BRIEF = {'tries': 3}
PUBLISHED = {
    'nb201': {'epochs': 250.0, 'batch_size': 128, 'theta.lr': 0.05, 'theta.lr_end': 5e-4, 'theta.weight_decay': 2.5e-4,
              'theta.nesterov': True, 'phi.clip': 5.0},
    'oneshot': {'epochs': 50.0, 'batch_size': 64, 'theta.weight_decay': 1e-4, 'theta.clip': 0.25, 'phi.lr': 3.5e-4,
                'phi.momentum': 0.1, 'phi.eps': 1e-5, 'method.hidden': 64, 'method.layers': 1, 'method.tanh': 0.5,
                'method.entropy': 1e-6, 'method.rollouts': 1, 'method.aggregate': 1, 'method.turns': 0,
                'method.tries': 1000},  # of the benchmark's authors
}


def make(config: ConfigDict) -> Method:
  """ENAS with the fields of config.method. Raises UserError on a bad field."""
  if min(config.hidden, config.layers, config.tries) < 1 or config.temperature <= 0 or config.tanh <= 0:
    raise UserError(f'config.method.hidden={config.hidden}, layers={config.layers}, tries={config.tries}, temperature='
                    f'{config.temperature} and tanh={config.tanh} must be above 0')
  if config.turns < 0:
    raise UserError(f'config.method.turns={config.turns} must not be below 0')
  if not 0 <= config.decay <= 1 or config.entropy < 0:
    raise UserError(f'config.method.decay={config.decay} must be from 0 to 1, and entropy={config.entropy} not below 0')
  if config.rollouts < 1 or config.aggregate < 1 or config.aggregate % config.rollouts:
    raise UserError(f'config.method.aggregate={config.aggregate} must be a multiple of rollouts={config.rollouts}, '
                    'both above 0')

  def init(key, space):
    size, slots = config.hidden, 1 + max(cell.shape[1] for cell in space.cells.values())
    shapes = {'start': (size,), 'embedding': (slots, size), 'inputs': (config.layers, size, 4 * size),
              'hidden': (config.layers, size, 4 * size), 'bias': (config.layers, 4 * size), 'out': (size, slots),
              'out_bias': (slots,)}
    return {'params': {name: initial.uniform(jax.random.fold_in(key, i), shape, minval=-0.1, maxval=0.1)
                       for i, (name, shape) in enumerate(shapes.items())},
            'fixed': {'rules': rules(space), 'baseline': jnp.zeros(())}}

  def logits(params, slots, state, slot, edge):
    del edge
    x = jnp.where(slot < 0, params['start'], params['embedding'][slot])
    h, c = state
    for i in range(config.layers):
      gates = x @ params['inputs'][i] + h[i] @ params['hidden'][i] + params['bias'][i]
      enter, forget, new, leave = jnp.split(gates, 4)
      c = c.at[i].set(jax.nn.sigmoid(forget) * c[i] + jax.nn.sigmoid(enter) * jnp.tanh(new))
      h = h.at[i].set(jax.nn.sigmoid(leave) * jnp.tanh(c[i]))
      x = h[i]
    z = (x @ params['out'] + params['out_bias'])[:slots]
    return (h, c), config.tanh * jnp.tanh(z / config.temperature)

  def rollout(params, rules, key):
    """{cell: Path} of an architecture; the most probable decisions where `key` is None."""
    zeros, found = jnp.zeros((config.layers, config.hidden), params['start'].dtype), {}
    at = (zeros, zeros), jnp.int32(-1)
    for i, (name, rule) in enumerate(rules.items()):
      own = functools.partial(logits, params, 1 + rule['allowed'].shape[1])
      at, found[name] = paths.drawn(rule, None if key is None else jax.random.fold_in(key, i), own, at)
    return found

  def sample(phi, key, clock):
    del clock
    return {name: path.weights[None] for name, path in rollout(phi['params'], phi['fixed']['rules'], key).items()}, {}

  def probs(phi, clock=END):
    del clock
    return {name: path.probs for name, path in rollout(phi['params'], phi['fixed']['rules'], None).items()}

  draw = jax.jit(sample)

  def derive(rate, phi, key):
    drawn = (draw(phi, jax.random.fold_in(key, i), END)[0] for i in itertools.count())
    return rsps.best(rate, ({name: rows[0] for name, rows in weights.items()} for weights in drawn), config.tries)

  def optimizer(tx):
    return optax.MultiSteps(tx, config.aggregate // config.rollouts).gradient_transformation()

  return Method(init, sample, probs, _step(config, rollout), derive=derive, optimizer=optimizer)


@dataclasses.dataclass(frozen=True, eq=False)
class Gathered:
  """An `Update`: `update`, in which the controller moves every `steps` steps, theta in each."""

  update: Update
  steps: int

  def moves(self, steps: int) -> tuple[int, int]:
    """In how many of `steps` steps theta moves, and the controller."""
    return steps, steps // self.steps

  def __call__(self, *args: Any) -> tuple[State, Info]:
    """Does a step."""
    return self.update(*args)


def _step(config, rollout, names=()) -> Step:
  """Theta, then the controller; beside it the parts `names` of phi['params'], where the graph is searched too."""

  def update(method, problem, state, batches, clock):
    state, metrics = updates.theta_only(method.sample).update(method, problem, state, batches, clock)
    params, fixed, valid = state.phi['params'], state.phi['fixed'], batches['valid']
    keys = [jax.random.fold_in(valid.key, i) for i in range(config.rollouts)]
    loss = updates.in_parts(problem.loss, problem.parts)
    accuracy = jnp.stack([loss(state.theta, method.sample(state.phi, key, clock)[0], key, valid.images, valid.labels)[1]
                          for key in keys])

    def descended(own):
      found = jax.vmap(lambda key: rollout(own, fixed['rules'], key))(jnp.stack(keys))
      log_p, entropy = (sum(getattr(path, name).sum(-1) for path in found.values()) for name in ('log_p', 'entropy'))
      reward, last = accuracy + config.entropy * entropy, fixed['baseline']
      own_b = last - (1 - config.decay) * (last - reward)
      if config.turns:
        own_b = jnp.where(clock.turn(config.turns) > 0, own_b, accuracy)
      return -(log_p * (reward - own_b)).mean(), (own_b[-1], reward.mean(), entropy.mean())

    grads, (own_b, reward, entropy) = jax.grad(descended, has_aux=True)(params['method'] if names else params)
    if names:
      grads = {'method': grads, **updates.validation_gradients(method, problem, state, batches, clock, names)}
    params, opt_phi = updates.moved(problem.tx_phi, grads, params, state.opt_phi)
    ends = not config.turns or clock._replace(step=clock.step + 1).turn(config.turns) > clock.turn(config.turns)
    fixed = {**fixed, 'baseline': jnp.where(ends, own_b, fixed['baseline']).astype(fixed['baseline'].dtype)}
    return state.replace(phi={'params': params, 'fixed': fixed}, opt_phi=opt_phi), {
        **metrics, 'grad_phi': optax.tree.norm(grads), 'reward': reward, 'baseline': own_b, 'path_entropy': entropy}

  return Step(Gathered(update, config.aggregate // config.rollouts), ('train', 'valid'),
              beside=None if names else lambda names: _step(config, rollout, names))
