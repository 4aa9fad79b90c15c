"""A method with a step of its own: the policy gradient over architectures, with shared weights.

Williams, REINFORCE, Machine Learning 1992, as Zoph and Le (ICLR 2017) and ENAS (Pham et al., ICML 2018) use it, with
free logits in place of a controller:
  1. theta descends the loss of a training batch with one architecture drawn from softmax(alpha);
  2. another one is drawn and rated: its reward is its accuracy on a validation batch;
  3. alpha descends -(reward - baseline) log p, p the probability of what was drawn;
  4. the baseline is a moving average of rewards, which phi['fixed'] carries.

  python -m vimnas_jax.main --config=configs/quickstart.py --config.method.name=examples/reinforce.py --workdir=runs/rl
"""

import jax
import jax.numpy as jnp
import optax

from vimnas_jax.errors import UserError
from vimnas_jax.methods import END, Method, Step, updates

FIELDS = {'decay': 0.9}  # of the baseline
OPTIMIZER = {'optimizer': 'adam', 'lr': 0.05, 'momentum': 0.9, 'weight_decay': 0.0}
PRETRAIN = 0.0


def make(config) -> Method:
  """The method with the fields of config.method."""
  if not 0 <= config.decay < 1:
    raise UserError(f'config.method.decay={config.decay} must be from 0 and below 1')

  def init(key, space):
    alpha = {name: 1e-3 * jax.random.normal(jax.random.fold_in(key, i), cell.shape)
             for i, (name, cell) in enumerate(space.cells.items())}
    return {'params': alpha, 'fixed': {'baseline': jnp.float32(0)}}

  def sample(phi, key, clock):
    del clock
    return {name: jax.nn.one_hot(jax.random.categorical(jax.random.fold_in(key, i), alpha), alpha.shape[1])[None]
            for i, (name, alpha) in enumerate(phi['params'].items())}, {}

  def probs(phi, clock=END):
    del clock
    return {name: jax.nn.softmax(alpha) for name, alpha in phi['params'].items()}

  def update(method, problem, state, batches, clock):
    train, valid, phi = batches['train'], batches['valid'], state.phi
    weights, _ = method.sample(phi, train.key, clock)
    grad = updates.in_parts(jax.value_and_grad(problem.loss, has_aux=True), problem.parts)
    (loss, accuracy), g_theta = grad(state.theta, weights, train.key, train.images, train.labels)
    theta, opt_theta = updates.moved(problem.tx_theta, g_theta, state.theta, state.opt_theta)

    drawn, _ = method.sample(phi, valid.key, clock)
    _, reward = updates.in_parts(problem.loss, problem.parts)(theta, drawn, valid.key, valid.images, valid.labels)
    baseline = phi['fixed']['baseline']

    def score(params):
      log_p = sum((drawn[name][0] * jax.nn.log_softmax(alpha)).sum() for name, alpha in params.items())
      return -(reward - baseline) * log_p

    params, opt_phi = updates.moved(problem.tx_phi, jax.grad(score)(phi['params']), phi['params'], state.opt_phi)
    fixed = {'baseline': config.decay * baseline + (1 - config.decay) * reward}
    return state.replace(theta=theta, opt_theta=opt_theta, phi={'params': params, 'fixed': fixed}, opt_phi=opt_phi), {
        'loss': loss, 'accuracy': accuracy, 'reward': reward, 'baseline': baseline,
        'grad_theta': optax.tree.norm(g_theta)}

  return Method(init, sample, probs, Step(update, ('train', 'valid')))
