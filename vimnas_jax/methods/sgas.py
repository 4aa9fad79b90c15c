"""SGAS: Li et al., SGAS: Sequential Greedy Architecture Search, CVPR 2020.

DARTS (first order) that commits itself edge by edge:
  1. the search is divided into turns; `first` turns pass, then after every `every` turns each cell decides one edge;
  2. an edge's importance is the probability of all its operations but `none`; its certainty is 1 - H / log(operations),
     H the entropy of these, divided by their sum; criterion 1 is the product of both, each scaled to [0, 1] over the
     cell's edges; criterion 2 is multiplied by the stability, scaled alike: the mean overlap, sum of minima, of these
     shares with those after each of the last four turns;
  3. the undecided edge with the largest criterion takes its most probable operation other than `none`; from then on it
     runs that alone;
  4. where a node has as many decided edges as an architecture keeps, its other edges are dropped;
  5. the architecture is what was decided; what was not, by the space's own rule.

A turn is an epoch of the authors' 50, and a fiftieth of any other search here, so that a search of one epoch decides as
much. Their batch grows by 8 after every decision, which memory allows; here it stays.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.types import END, Method
from vimnas_jax.networks import initial

FIELDS = {
    'criterion': 2,  # 1 or 2
    'first': 10,  # turns before the first decision
    'every': 5,  # turns from one decision to the next
    'turns': 50,  # of the whole search
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 2
PUBLISHED = {'darts': {'epochs': 50.0, 'batch_size': 64}}
HISTORY = 4  # turns that the stability looks back
OPEN, DROPPED = -1, -2  # in `chosen`, where an operation has its place among the candidates


def scaled(x: jax.Array) -> jax.Array:
  """X [edges] in a straight line to [0, 1]; all zeros where it is constant."""
  low, high = x.min(), x.max()
  return jnp.where(high > low, (x - low) / jnp.where(high > low, high - low, 1), 0)


def shares(p: jax.Array, real: jax.Array) -> jax.Array:
  """Of probabilities p [edges, ops] those of all operations but `none`, where `real` [edges, ops] is False, divided by
  their sum.
  """
  rows = jnp.where(real, p, 0)
  return rows / rows.sum(-1, keepdims=True)


def criterion(p: jax.Array, history: jax.Array, real: jax.Array, stable: bool) -> jax.Array:
  """Scores [edges] of probabilities p [edges, ops]; `history` [turns, edges, ops] has the shares of earlier ones, and
  `real` is as in `shares`.
  """
  rows = shares(p, real)
  found = -(rows * jnp.log(jnp.where(real, rows, 1))).sum(-1) / jnp.log(jnp.maximum(real.sum(-1), 2))
  score = scaled(jnp.where(real, p, 0).sum(-1)) * scaled(1 - found)
  if stable:
    score = score * scaled(jnp.minimum(rows[None], history).sum(-1).mean(0))
  return score


def make(config: ConfigDict) -> Method:
  """SGAS with the fields of config.method. Raises UserError on a bad field."""
  if config.criterion not in (1, 2):
    raise UserError(f'config.method.criterion={config.criterion} must be 1 or 2')
  if not 0 < config.first < config.turns or config.every < 1:
    raise UserError(f'config.method.first={config.first} must be above 0 and below turns={config.turns}, every='
                    f'{config.every} at least 1')

  def init(key, space):
    params, fixed = {}, {}
    for i, (name, cell) in enumerate(space.cells.items()):
      params[name] = 1e-3 * initial.normal(jax.random.fold_in(key, i), cell.shape)
      kept = space.kept or len(cell.edges)
      targets = np.arange(len(cell.edges)) if cell.rows else np.array([target for _, target in cell.edges])
      into = (targets[:, None] == targets[None]).sum(1)
      real = jnp.array([[op != 'none' for op in ops] for ops in cell.ops])
      fixed[name] = {
          'chosen': jnp.full(len(cell.edges), OPEN, jnp.int32),
          'alpha': params[name],  # as it was when an edge was decided
          'history': jnp.repeat(shares(jax.nn.softmax(params[name]), real)[None], HISTORY, 0),
          'real': real,
          'targets': jnp.array(targets),
          'kept': jnp.array(np.minimum(kept, into), jnp.int32)}
    return {'params': params, 'fixed': fixed}

  def probabilities(alpha, own):
    return jax.nn.softmax(jnp.where((own['chosen'] == OPEN)[:, None], alpha, own['alpha']))

  def rows(alpha, own, dropped):
    """One-hot rows of decided edges; those of dropped ones have the value `dropped`, the rest is the softmax."""
    chosen = own['chosen'][:, None]
    decided = jax.nn.one_hot(own['chosen'], alpha.shape[1], dtype=alpha.dtype)
    p = jnp.where(chosen >= 0, decided, jax.nn.softmax(alpha))
    return jnp.where(chosen == DROPPED, dropped, p)

  def sample(phi, key, clock):
    del key, clock
    return {name: rows(alpha, phi['fixed'][name], 0.0)[None] for name, alpha in phi['params'].items()}, {
        'decided': sum((own['chosen'] >= 0).sum() for own in phi['fixed'].values()).astype(jnp.float32)}

  def probs(phi, clock=END):
    del clock
    found = {}
    for name, alpha in phi['params'].items():
      real = phi['fixed'][name]['real']
      none = jnp.where(real.all(-1, keepdims=True), jax.nn.softmax(alpha),
                       jax.nn.one_hot(real.argmin(-1), alpha.shape[1]))
      found[name] = rows(alpha, phi['fixed'][name], none)
    return found

  def scores(phi, clock=END):
    del clock
    return {name: rows(alpha, phi['fixed'][name], 0.0) for name, alpha in phi['params'].items()}

  def odds(phi, clock=END):
    del clock
    return {name: jnp.where(phi['fixed'][name]['real'], probabilities(alpha, phi['fixed'][name]), 0)
            for name, alpha in phi['params'].items()}

  def decide(alpha, own):
    p, is_open = probabilities(alpha, own), own['chosen'] == OPEN
    score = jnp.where(is_open, criterion(p, own['history'], own['real'], config.criterion == 2), -1.0)
    edge = score.argmax()
    op = jnp.where(own['real'], p, -1.0)[edge].argmax().astype(jnp.int32)
    chosen = jnp.where(is_open.any() & (jnp.arange(len(score)) == edge), op, own['chosen'])
    same = own['targets'][:, None] == own['targets'][None]
    full = ((chosen >= 0)[None] & same).sum(1) >= own['kept']
    return {**own, 'chosen': jnp.where((chosen == OPEN) & full, DROPPED, chosen),
            'alpha': jnp.where(is_open[:, None], alpha, own['alpha'])}

  def after(phi, clock):
    turn, last = clock.turn(config.turns), clock._replace(step=clock.step - 1).turn(config.turns)

    def taken(own_turn, fixed):
      """What the end of turn number `own_turn` brings."""
      due = (own_turn >= config.first) & ((own_turn - config.first) % config.every == 0)
      found = {}
      for name, alpha in phi['params'].items():
        own = fixed[name]
        new = jax.lax.cond(due, lambda own, alpha=alpha: decide(alpha, own), lambda own: own, own)
        now = shares(probabilities(alpha, new), new['real'])
        found[name] = {**new, 'history': jnp.concatenate([now[None], new['history'][:-1]])}
      return found

    fixed = jax.lax.fori_loop(last + 1, turn + 1, taken, phi['fixed'])
    return {**phi, 'fixed': fixed}

  return Method(init, sample, probs, updates.bilevel(), scores=scores, odds=odds, after=after,
                logits=lambda phi: phi['params'])
