"""DARTS+: Liang et al., DARTS+: Improved Differentiable Architecture Search with Early Stopping, arXiv:1909.06035,
2019.

DARTS (first order) that ends before its skip connections have taken over, by one of two criteria:
  1. `skips`: the normal cell that would be derived now has `skips` skip connections or more;
  2. `ranking`: for `stable` turns, parts of the search, the order of alpha over the operations that have weights has
     not changed on any edge of the normal cell.
The architecture is the one of that moment.

There is no authors' code: this is built from the paper's rule. What it counts in epochs of its own search are turns
here, `turns` equal parts of any search, so that a search of one epoch is stopped alike; both criteria are looked at
where a turn ends. Left open and decided here: before `first` turns are over nothing is stopped (alpha starts from
noise, and a cell drawn by chance has two skip connections often enough); on spaces without a cell called `normal` all
cells count, and one that meets the criterion ends the search; `either` takes the criterion that is met first, and on a
space where one of them cannot say anything (no skip connection; no edge with two operations that have weights) the
other.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.alpha import logs, probs
from vimnas_jax.methods.rsps import Rule, rules
from vimnas_jax.methods.types import Method
from vimnas_jax.networks import initial, ops
from vimnas_jax.spaces import Cell, Space

FIELDS = {
    'stop_by': 'either',  # 'skips', 'ranking' or 'either'
    'skips': 2,  # skip connections in a normal cell that end the search
    'stable': 10,  # turns without a change of the ranking that end it
    'first': 10,  # turns before which nothing is stopped
    'turns': 50,  # of the whole search
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 2
LACKS = {'skips': 'no skip connection', 'ranking': 'no edge with two operations that have weights'}


def learnable(space: Space, op: str) -> bool:
  """Whether the operation has weights at a stride of 1."""
  if op in ops.OPS or op in space.own_ops:
    return bool(ops.named(op, space.own_ops).shapes(16, 1))
  return op.startswith('conv')  # those of NAS-Bench-1Shot1; `none` and `noise` have no layer


def watched(space: Space) -> dict[str, Cell]:
  """The cells that the criteria look at."""
  return {name: cell for name, cell in space.cells.items() if name == 'normal' or 'normal' not in space.cells}


def skips(alpha: jax.Array, rule: Rule) -> jax.Array:
  """How many skip connections the cell derived from alpha [edges, ops] has, int32 []; `rule` as `init` makes it."""
  p = jnp.where(rule['allowed'], jax.nn.softmax(alpha), -1)
  strength, at, targets = p.max(-1), jnp.arange(len(p)), rule['targets']
  stronger = (strength[None] > strength[:, None]) | ((strength[None] == strength[:, None]) & (at[None] < at[:, None]))
  rank = ((targets[:, None] == targets[None]) & stronger).sum(1)
  return ((rank < rule['kept']) & rule['skip'][at, p.argmax(-1)]).sum()


def ranking(alpha: jax.Array, rule: Rule) -> jax.Array:
  """The operations with weights in the order of alpha [edges, ops] on every edge, int32 [edges, ops]."""
  return jnp.argsort(jnp.where(rule['learnable'], alpha, -jnp.inf), -1)


def make(config: ConfigDict) -> Method:
  """DARTS+ with the fields of config.method. Raises UserError on a bad field."""
  if config.stop_by not in ('skips', 'ranking', 'either'):
    raise UserError(f'config.method.stop_by={config.stop_by!r}: choose one of skips, ranking, either')
  if not (config.skips > 0 and config.stable > 0 and config.turns > 0 and config.first >= 0):
    raise UserError(f'config.method.skips={config.skips}, stable={config.stable} and turns={config.turns} must be '
                    f'above 0, first={config.first} at least 0')

  def check(space):
    rows = [row for cell in watched(space).values() for row in cell.ops]
    able = {'skips': any('skip_connect' in row for row in rows),
            'ranking': any(sum(learnable(space, op) for op in row) > 1 for row in rows)}
    if not (any(able.values()) if config.stop_by == 'either' else able[config.stop_by]):
      lacks = ' and '.join(what for name, what in LACKS.items() if not able[name])
      remedy = 'config.method.stop_by=either' if any(able.values()) else 'another config.method.name'
      raise UserError(f'config.method.stop_by={config.stop_by!r}: it cannot be met on space {space.name!r}, which has '
                      f'{lacks}: set {remedy}, or another config.space.name')

  def init(key, space):
    check(space)
    params = {name: 1e-3 * initial.normal(jax.random.fold_in(key, i), cell.shape)
              for i, (name, cell) in enumerate(space.cells.items())}
    own = {}
    for name, cell in watched(space).items():
      rule = {**rules(space)[name], 'skip': jnp.array([[op == 'skip_connect' for op in row] for row in cell.ops]),
              'learnable': jnp.array([[learnable(space, op) for op in row] for row in cell.ops])}
      own[name] = {'rule': rule, 'ranking': ranking(params[name], rule), 'stable': jnp.int32(0)}
    return {'params': params, 'fixed': {'cells': own, 'stopped': jnp.array(False)}}

  def sample(phi, key, clock):
    del key
    info = {f'skips/{name}': skips(phi['params'][name], own['rule']).astype(jnp.float32)
            for name, own in phi['fixed']['cells'].items()}
    return {name: p[None] for name, p in probs(phi, clock).items()}, info

  def after(phi, clock):
    turn = clock.turn(config.turns)
    passed = turn - clock._replace(step=clock.step - 1).turn(config.turns)
    own, met = {}, jnp.array(False)
    for name, then in phi['fixed']['cells'].items():
      now, rule = ranking(phi['params'][name], then['rule']), then['rule']
      stable = jnp.where((now == then['ranking']).all(), then['stable'] + passed, 0).astype(jnp.int32)
      own[name] = {**then, 'ranking': jnp.where(passed > 0, now, then['ranking']),
                   'stable': jnp.where(passed > 0, stable, then['stable'])}
      if config.stop_by != 'ranking':
        met |= skips(phi['params'][name], rule) >= config.skips
      if config.stop_by != 'skips':
        met |= (stable >= config.stable) & (rule['learnable'].sum(-1) > 1).any()
    stopped = phi['fixed']['stopped'] | (met & (passed > 0) & (turn >= config.first))
    return {**phi, 'fixed': {'cells': own, 'stopped': stopped}}

  return Method(init, sample, probs, updates.bilevel(), after=after, stopped=lambda phi: phi['fixed']['stopped'],
                logs=logs, logits=lambda phi: phi['params'])
