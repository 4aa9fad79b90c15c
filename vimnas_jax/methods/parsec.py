"""PARSEC: Casale, Gordon and Fusi, Probabilistic Neural Architecture Search, arXiv 1902.05116, 2019.

The architecture a is drawn from a categorical prior p(a | pi), one for every edge, whose probabilities pi and the
weights theta of the supernet maximise the marginal likelihood of the data, log sum_a p(a | pi) p(y | X, theta, a):
  1. `draws` architectures are drawn from the prior, and the whole batch goes through each of them alone;
  2. each has the importance weight p(y | X, theta, a), the likelihood of the batch, divided by the sum of all;
  3. the gradient of the log marginal likelihood is the mean, by these weights, of those of log p(y, a | X, theta, pi);
  4. theta follows that of a training batch, then pi, with draws of its own, that of a validation batch;
  5. the architecture is the most probable one under the prior.

There is no code of the authors: this is built from the paper's rule. Left open and decided here: pi = softmax(alpha),
alpha from 1e-3 N(0, 1), moved by Adam without decay (with plain gradient descent alpha moves by the weighted mean of
what was drawn, less pi); its rate; four draws; the likelihood is that of the batch, so weights are sharp where the
batch is large; gradients are those of the log likelihood of one image, so that rates mean what they mean elsewhere. Of
the inputs of a node, which the paper draws too, the space's own rule keeps the most probable. A step costs `draws`
passes over the training batch and as many forward passes over the validation batch.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.alpha import init, logs, probs
from vimnas_jax.methods.types import Method, Rows, Step
from vimnas_jax.networks import leaves

FIELDS = {'draws': 4}  # architectures of a step, for each of its two batches
OPTIMIZER = {'optimizer': 'adam', 'lr': 0.01, 'momentum': 0.5, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 5.33


def importance(losses: jax.Array, images: int) -> jax.Array:
  """Weights [draws] that sum to 1, of the mean cross-entropies [draws] of a batch of `images`."""
  return jax.nn.softmax(-images * losses)


def log_prior(logits: Rows, drawn: Rows) -> jax.Array:
  """Log p(a | pi) [draws] of one-hot rows drawn, {cell: [draws, edges, ops]}, by logits {cell: [edges, ops]}."""
  each = [(rows * jax.nn.log_softmax(logits[name])[None]).sum((1, 2)) for name, rows in drawn.items()]
  return jnp.stack(each).sum(0)


def step(draws: int, second: tuple[str, ...] = ()) -> Step:
  """The step of the docstring; the parts `second` of phi['params'] descend the validation loss with one draw."""

  def of_each(method, state, clock, key, f):
    """`f(mixing weights, key)` of every draw, stacked."""
    return jax.lax.map(lambda key: f(method.sample(state.phi, key, clock)[0], key), jax.random.split(key, draws))

  def update(method, problem, state, batches, clock):
    train, valid = batches['train'], batches['valid']
    grad = updates.in_parts(jax.value_and_grad(problem.loss, has_aux=True), problem.parts)
    (losses, accuracies), grads = of_each(method, state, clock, train.key, lambda weights, key: grad(
        state.theta, weights, key, train.images, train.labels))
    share = importance(losses, len(train.labels))
    g_theta = jax.tree.map(lambda g: jnp.tensordot(share.astype(g.dtype), g, 1), grads)
    theta, opt_theta = updates.moved(problem.tx_theta, g_theta, state.theta, state.opt_theta)

    cells = tuple(problem.space.cells)
    loss = updates.in_parts(problem.loss, problem.parts)
    rated, drawn = of_each(method, state, clock, valid.key, lambda weights, key: (
        loss(theta, weights, key, valid.images, valid.labels)[0], {name: weights[name][0] for name in cells}))
    posterior = importance(rated, len(valid.labels))

    def surrogate(params):
      logits = method.logits({**state.phi, 'params': params})
      return -(posterior * log_prior(logits, drawn)).sum() / len(valid.labels)

    g_phi = jax.grad(surrogate)(state.phi['params'])
    state = state.replace(theta=theta, opt_theta=opt_theta)
    if second:
      g_phi = {**g_phi, **updates.validation_gradients(method, problem, state, batches, clock, second)}
    params, opt_phi = updates.moved(problem.tx_phi, g_phi, state.phi['params'], state.opt_phi)
    return state.replace(phi={**state.phi, 'params': params}, opt_phi=opt_phi), {
        'loss': (share * losses).sum(), 'accuracy': (share * accuracies).sum(),
        'effective_draws': 1 / jnp.square(posterior).sum(),
        'grad_theta': leaves.norm(g_theta), 'grad_phi': leaves.norm(g_phi)}

  return Step(update, ('train', 'valid'), beside=lambda names: step(draws, names))


def make(config: ConfigDict) -> Method:
  """PARSEC with the fields of config.method. Raises UserError on a bad field."""
  if config.draws < 2:
    raise UserError(f'config.method.draws={config.draws} must be at least 2: of one draw the weight is always 1')

  def sample(phi, key, clock):
    del clock
    return {name: jax.nn.one_hot(jax.random.categorical(jax.random.fold_in(key, i), alpha), alpha.shape[1])[None]
            for i, (name, alpha) in enumerate(phi['params'].items())}, {}

  return Method(init, sample, probs, step(config.draws), logs=logs, logits=lambda phi: phi['params'])
