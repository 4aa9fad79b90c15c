"""SDARTS: Chen and Hsieh, Stabilizing Differentiable Architecture Search via Perturbation-based Regularization, ICML
2020, with random smoothing (`sdarts_rs`) or an adversarial perturbation (`sdarts_adv`).

  1. alpha is a free number for every edge and operation;
  2. alpha descends the loss of a validation batch, mixed by p = softmax(alpha), as in DARTS (first order);
  3. theta descends the loss of a training batch, mixed by perturbed probabilities;
  4. RS: they are p + U(-e, e), drawn for every entry, brought back to probabilities;
  5. ADV: from there `attack` steps of 2 e / `attack` along the sign of the gradient ascend the loss of the training
     batch, after each of which they are brought back to within e of p, and then to probabilities; if p itself has the
     larger loss, it is taken instead;
  6. e rises in a straight line from `epsilon_start` to `epsilon`;
  7. the architecture is read off softmax(alpha).

From the authors' code: entries are cut to [0, 1], a row of nothing but zeros gets a 1 at its largest entry before the
cut, and rows are divided by their sums, which may take an entry out of the ball of width e again. Decided here: e rises
step by step, not once an epoch; BatchNorm has the batch's statistics in the attack as everywhere here, theirs the
running ones; where the graph is searched too (NAS-Bench-1Shot1), its rows are not perturbed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.alpha import init, logs, probs, sample
from vimnas_jax.methods.types import Method, Rows, Step
from vimnas_jax.networks import initial

FIELDS = {
    'attack': 0,  # steps of the attack; 0: random smoothing
    'epsilon_start': 0.03,  # half the width of the perturbation at the start
    'epsilon': 0.3,  # and after the last step
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 2
PUBLISHED = {'darts': {'epochs': 50.0},
             'nb201': {'epochs': 100.0, 'theta.weight_decay': 3e-4, 'theta.nesterov': False}}
ADVERSARIAL = {'attack': 7, 'passes': 11}


def to_probabilities(rows: jax.Array) -> jax.Array:
  """Perturbed probabilities [..., ops] cut to [0, 1] and divided by their sum; where nothing is left, one-hot."""
  cut = jnp.clip(rows, 0, 1)
  most = jax.nn.one_hot(rows.argmax(-1), rows.shape[-1], dtype=rows.dtype)
  cut = jnp.where(cut.sum(-1, keepdims=True) > 0, cut, most)
  return cut / cut.sum(-1, keepdims=True)


def attacked(look: Callable[[Rows], tuple[jax.Array, Rows]], clean: Rows, start: Rows, width: jax.Array,
             steps: int) -> Rows:
  """Probabilities {cell: [1, edges, ops]} around the `clean` ones, at which the loss is not smaller.

  Args:
    look: `look(rows)` is the loss at probabilities, [], and its gradient with respect to them.
    clean: the unperturbed probabilities; they are the result where the attack leads to a smaller loss.
    start: where the first step starts from.
    width: half the width of the ball around `clean`, [].
    steps: how many steps are taken.
  """

  def moved(p, rows, slope):
    return to_probabilities(p + jnp.clip(rows + 2 * width / steps * jnp.sign(slope) - p, -width, width))

  def turn(i, carry):  # looks at `clean`, then at `start` and what follows: one program, which is compiled once
    rows, before, _ = carry
    now, slope = look(rows)
    after = jax.tree.map(lambda p, first, rows, slope: jnp.where(
        i == 0, first, jnp.where(i > steps, rows, moved(p, rows, slope))), clean, start, rows, slope)
    return after, jnp.where(i == 0, now, before), now

  nothing = jnp.zeros((), jax.eval_shape(look, clean)[0].dtype)
  found, before, after = jax.lax.fori_loop(0, steps + 2, turn, (clean, nothing, nothing))
  return jax.tree.map(lambda rows, p: jnp.where(after >= before, rows, p), found, clean)


def adversarial(steps: int) -> Step:
  """Phi descends the loss of the validation batch, then theta that of the training batch, at the mixing weights that
  an attack of so many `steps` finds, started from `Method.sample_theta`.
  """

  def update(method, problem, state, batches, clock):
    valid, train = batches['valid'], batches['train']
    f, fixed = updates.objective(method, problem, clock), state.phi['fixed']
    grad = updates.in_parts(jax.grad(f, 1, has_aux=True), problem.parts)
    g_phi, _ = grad(state.theta, state.phi['params'], fixed, valid.key, valid.images, valid.labels)
    params, opt_phi = updates.moved(problem.tx_phi, g_phi, state.phi['params'], state.opt_phi)
    phi = {'params': params, 'fixed': fixed}
    clean, _ = method.sample(phi, train.key, clock)
    start, info = method.sample_theta(phi, train.key, clock)

    def loss(rows, images, labels):
      return problem.loss(state.theta, {**clean, **rows}, train.key, images, labels)[0]

    def look(rows):
      return updates.in_parts(jax.value_and_grad(loss), problem.parts)(rows, train.images, train.labels)

    clean_rows, start_rows = ({name: rows[name] for name in problem.space.cells} for rows in (clean, start))
    found = attacked(look, clean_rows, start_rows, info['epsilon'], steps)
    theta_step = updates.theta_only(lambda *_: ({**clean, **found}, info))
    state, metrics = theta_step.update(method, problem, state.replace(phi=phi, opt_phi=opt_phi), batches, clock)
    return state, {**metrics, 'grad_phi': optax.tree.norm(g_phi)}

  return Step(update, ('train', 'valid'), lambda names: adversarial(steps))


def make(config: ConfigDict) -> Method:
  """SDARTS with the fields of config.method. Raises UserError on a bad field."""
  if not (config.epsilon_start >= 0 and config.epsilon >= 0):
    raise UserError(f'config.method.epsilon_start={config.epsilon_start} and epsilon={config.epsilon} must not be '
                    'below 0')
  if config.attack < 0:
    raise UserError(f'config.method.attack={config.attack} must be 0, for random smoothing, or a number of steps')

  def sample_theta(phi, key, clock):
    width = config.epsilon_start + (config.epsilon - config.epsilon_start) * clock.progress
    weights = {}
    for i, (name, p) in enumerate(probs(phi, clock).items()):
      moved = initial.uniform(jax.random.fold_in(key, i), p.shape, minval=-width, maxval=width)
      weights[name] = to_probabilities(p + moved)[None]
    return weights, {'epsilon': width}

  step = adversarial(config.attack) if config.attack else updates.bilevel()
  return Method(init, sample, probs, step, sample_theta=sample_theta, logs=logs, logits=lambda phi: phi['params'])
