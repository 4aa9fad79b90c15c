"""ASNG-NAS: Akimoto et al., Adaptive Stochastic Natural Gradient Method for One-Shot Neural Architecture Search, ICML
2019.

A categorical distribution over the operations of every edge, whose probabilities p (the paper's theta) are themselves
what is learned, by natural gradient with a step that adapts:
  1. theta descends the mean loss of a training batch over `draws` architectures drawn from p;
  2. `draws` others are rated on a validation batch; the best quarter has the utility 1 / q, the worst -1 / q, q their
     number; those whose losses are equal have the mean of theirs;
  3. the natural gradient is g = mean((u - mean u) (a - p)); p moves by (`delta` / D) g / |g|, where |g| is its length
     in the Fisher metric;
  4. p is kept above 1 / (d (K - 1)), d the number of edges and K that of operations, and brought back to sums of 1;
  5. D grows, so that steps shorten, where the last steps cancel each other, and shrinks where they point one way: with
     b = delta / (D sqrt N), N the free numbers of p, s is the moving average by b of the steps, in coordinates in which
     the Fisher metric is the unit matrix, c how much of it has been filled; D times exp(b (c - |s|^2 / `alpha`));
  6. the architecture is the most probable one.

From the authors' code: two draws, delta and alpha. Decided here: both passes draw anew; the bound is at most 1 / (2 K),
as below three edges or so nothing would be left to move; b is at most 1; where all losses are equal nothing moves. What
is drawn are the operations of all edges, `none` included where the space has it; the paper's own space, in which inputs
are drawn as well, is not here. config.phi has no effect. A step costs `draws` passes and as many forward passes.
"""

import math

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.types import END, Method, PyTree, Rows, Step
from vimnas_jax.networks import leaves

FIELDS = {
    'draws': 2,  # architectures of a step, for each of its two batches
    'alpha': 1.5,  # how far the steps may point one way before they lengthen
    'delta': 1.0,  # length of the first step
}
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.0, 'momentum': 0.0, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 2.67
PUBLISHED = {'darts': {'epochs': 100.0, 'batch_size': 64, 'theta.lr_end': 0.0, 'data.cutout': 16}}


def utilities(losses: jax.Array) -> jax.Array:
  """Utilities [draws] of losses [draws]: high where the loss is low, those of equal losses shared equally."""
  draws = len(losses)
  best = math.ceil(draws / 4)
  total = jnp.cumsum(jnp.array([0.0] + [1 / best] * best + [0.0] * (draws - 2 * best) + [-1 / best] * best))
  lower = (losses[None] < losses[:, None]).sum(1)
  equal = (losses[None] == losses[:, None]).sum(1)
  return (total[lower + equal] - total[lower]) / equal


def whitened(g: jax.Array, p: jax.Array) -> jax.Array:
  """A step g [edges, ops], rows that sum to 0, in coordinates [edges, ops - 1] in which the Fisher metric at the
  probabilities p is the unit matrix.
  """
  last, root = p[:, -1:], jnp.sqrt(p[:, :-1])
  return g[:, :-1] / root + root * g[:, :-1].sum(1, keepdims=True) / (last + jnp.sqrt(last))


def bound(edges: int, ops: int) -> float:
  """The least probability of an operation: `edges` of all cells, `ops` of the row."""
  return min(1 / (edges * max(ops - 1, 1)), 1 / (2 * ops))


def kept_above(p: jax.Array, least: float) -> jax.Array:
  """Rows p [edges, ops] raised to `least` and, by what they have above that, brought back to sums of 1."""
  p = jnp.maximum(p, least)
  total = p.sum(1, keepdims=True)
  p = p - (total - 1) * (p - least) / (total - least * p.shape[1])
  return p / p.sum(1, keepdims=True)


def moved(fixed: PyTree, rows: Rows, losses: jax.Array, alpha: float, delta: float) -> PyTree:
  """What phi['fixed'] becomes after architectures rows {cell: [draws, edges, ops]} had `losses` [draws]."""
  u, p = utilities(losses), fixed['p']
  g = {name: jnp.tensordot(u - u.mean(), a - p[name][None], 1) / len(u) for name, a in rows.items()}
  white = {name: whitened(g[name], p[name]) for name in p}
  norm = optax.tree.norm(white)
  free, edges = sum(s.size for s in white.values()), sum(len(rows) for rows in p.values())
  length = delta / fixed['slow']
  b = jnp.minimum(length / math.sqrt(max(free, 1)), 1.0)
  unit = jax.tree.map(lambda s: s / jnp.maximum(norm, 1e-8), white)
  s = jax.tree.map(lambda old, new: (1 - b) * old + jnp.sqrt(b * (2 - b)) * new, fixed['s'], unit)
  filled = jnp.square(1 - b) * fixed['filled'] + b * (2 - b)
  slow = fixed['slow'] * jnp.exp(b * (filled - jnp.square(optax.tree.norm(s)) / alpha))
  p = {name: kept_above(p[name] + length * g[name] / jnp.maximum(norm, 1e-8), bound(edges, p[name].shape[1]))
       for name in p}
  return jax.tree.map(lambda new, old: jnp.where(norm > 1e-8, new, old).astype(old.dtype),
                      {'p': p, 's': s, 'filled': filled, 'slow': slow}, fixed)


def make(config: ConfigDict) -> Method:
  """ASNG with the fields of config.method. Raises UserError on a bad field."""
  if config.draws < 2:
    raise UserError(f'config.method.draws={config.draws} must be at least 2: one loss is neither good nor bad')
  if not (config.alpha > 0 and config.delta > 0):
    raise UserError(f'config.method.alpha={config.alpha} and delta={config.delta} must be above 0')

  def init(key, space):
    del key
    shapes = {name: cell.shape for name, cell in space.cells.items()}
    return {'params': {}, 'fixed': {
        'p': {name: jnp.full(shape, 1 / shape[1]) for name, shape in shapes.items()},
        's': {name: jnp.zeros((edges, ops - 1)) for name, (edges, ops) in shapes.items()},
        'filled': jnp.zeros(()), 'slow': jnp.ones(())}}

  def sample(phi, key, clock):
    del clock
    return {name: jax.nn.one_hot(jax.random.categorical(jax.random.fold_in(key, i), jnp.log(p)), p.shape[1])[None]
            for i, (name, p) in enumerate(phi['fixed']['p'].items())}, {}

  def update(method, problem, state, batches, clock):
    train, valid = batches['train'], batches['valid']

    def each(key, f):
      return jax.lax.map(lambda key: f(method.sample(state.phi, key, clock)[0], key),
                         jax.random.split(key, config.draws))

    grad = updates.in_parts(jax.value_and_grad(problem.loss, has_aux=True), problem.parts)
    found, grads = each(train.key, lambda weights, key: grad(state.theta, weights, key, train.images, train.labels))
    (loss, accuracy), g_theta = jax.tree.map(lambda a: a.mean(0), (found, grads))
    theta, opt_theta = updates.moved(problem.tx_theta, g_theta, state.theta, state.opt_theta)
    rate, cells = updates.in_parts(problem.loss, problem.parts), tuple(problem.space.cells)
    losses, rows = each(valid.key, lambda weights, key: (
        rate(theta, weights, key, valid.images, valid.labels)[0], {name: weights[name][0] for name in cells}))
    fixed = moved(state.phi['fixed'], rows, losses, config.alpha, config.delta)
    return state.replace(theta=theta, opt_theta=opt_theta, phi={**state.phi, 'fixed': fixed}), {
        'loss': loss, 'accuracy': accuracy, 'grad_theta': leaves.norm(g_theta),
        'length': config.delta / fixed['slow']}

  def probs(phi, clock=END):
    del clock
    return phi['fixed']['p']

  return Method(init, sample, probs, Step(update, ('train', 'valid'), updates.graph_beside(update)))
