"""P-DARTS: Chen, Xie, Wu and Tian, Progressive Differentiable Architecture Search: Bridging the Depth Gap Between
Search and Evaluation, ICCV 2019.

  1. the search has three stages of equal length; theta and alpha start anew in each;
  2. the supernet has config.space.cells cells in the first stage, `grows` more in the second and as many more again in
     the third: 5, 11 and 17;
  3. after a stage every edge keeps its most probable operations: 5 of 8 for the second stage, 3 for the third; `none`
     may be among those that go;
  4. for the first part `frozen` of a stage theta is trained alone, then as in DARTS of the first order;
  5. in every pass a part of the numbers of a skip connection of stride 1 is dropped: at first `dropout_...` of them,
     falling in a straight line while alpha is frozen, then by exp(-0.2) a 25th of the stage;
  6. at the end `none` counts for nothing, and as long as the normal cell has more than `skips` skip connections, the
     least probable one of them is taken out and the cell is read off again.

From the authors' code: the schedule of the dropout; 0, 0.4 and 0.7 are the paper's for CIFAR-10. Decided here: where
edges have another number of operations than 8, the parts `second` and `third` of it stay, rounded up, and at least two;
operations that went are masked, which changes nothing but that their banks are still computed; the limit of skip
connections is for all cells but `reduce`; the result has the operations of the third stage's alpha, as theirs, and on
an edge that is left with `none` and a skip connection that is taken out (S3) one that went before.
On NAS-Bench-201 `grows` counts cells per group, as config.space.cells does.
"""

import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.types import END, Method, Options
from vimnas_jax.networks import initial
from vimnas_jax.networks.mixing import Mixture

FIELDS = {
    'grows': 6,  # cells that every stage has more than the one before
    'second': 0.625,  # part of the operations of an edge that is left in the second stage
    'third': 0.375,  # and in the third
    'frozen': 0.4,  # part of a stage in which theta is trained alone
    'dropout_first': 0.0,  # of skip connections at the start of the first stage
    'dropout_second': 0.4,  # of the second
    'dropout_third': 0.7,  # of the third
    'skips': 2,  # skip connections that a cell may keep
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 6e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 1.6  # one while alpha is frozen, then two; that the supernet grows is not counted
PUBLISHED = {'darts': {'epochs': 75.0, 'batch_size': 96, 'space.cells': 5, 'theta.lr_end': 0.0, 'phi.clip': 5.0}}
STAGES, EPOCHS = 3, 25  # EPOCHS: of the authors' stage
_LEAST = 1e-12  # score of operations that went: above that of a skip connection that is taken out


def most_probable(p: jax.Array, count: jax.Array | int) -> jax.Array:
  """Where the `count` largest of each row of p [edges, ops] are, bool [edges, ops]; of equals the first."""
  return jnp.argsort(jnp.argsort(-p, stable=True), stable=True) < count


def limited(scores: jax.Array, own: dict[str, jax.Array], skips: int) -> jax.Array:
  """`scores` [edges, ops] in which skip connections are 0 until the architecture has at most `skips` of them.

  `own` is what phi['fixed']['cells'] has of the cell. Those that the architecture keeps go first, by rising score.
  """
  same = own['targets'][:, None] == own['targets'][None]
  order = jnp.arange(len(scores))

  def turn(_, scores):
    best = scores.max(-1)
    before = same & ((best[None] > best[:, None]) | ((best[None] == best[:, None]) & (order[None] < order[:, None])))
    kept = before.sum(1) < own['kept']
    skip = kept[:, None] & own['skip'] & (jnp.arange(scores.shape[1])[None] == scores.argmax(-1)[:, None])
    least = jnp.where(skip, scores, jnp.inf).argmin()
    gone = scores.ravel().at[least].set(0).reshape(scores.shape)
    return jnp.where(skip.sum() > skips, gone, scores)

  return jax.lax.fori_loop(0, len(scores), turn, scores)


def make(config: ConfigDict) -> Method:
  """P-DARTS with the fields of config.method. Raises UserError on a bad field."""
  if config.grows < 0 or config.skips < 0:
    raise UserError(f'config.method.grows={config.grows} and skips={config.skips} must not be below 0')
  if not 0 < config.third <= config.second <= 1:
    raise UserError(f'config.method.third={config.third} must be above 0, second={config.second} not below it, and '
                    'neither above 1')
  if not 0 <= config.frozen < 1:
    raise UserError(f'config.method.frozen={config.frozen} must be from 0 and below 1')
  dropout = config.dropout_first, config.dropout_second, config.dropout_third
  if not all(0 <= rate < 1 for rate in dropout):
    raise UserError(f'config.method.dropout_first, _second and _third, {dropout}, must be from 0 and below 1')

  def alphas(key, shapes):
    return {name: 1e-3 * initial.normal(jax.random.fold_in(key, i), shape)
            for i, (name, shape) in enumerate(shapes.items())}

  def init(key, space):
    cells = {name: {
        'open': jnp.ones(cell.shape, bool),
        'real': jnp.array([[op != 'none' for op in ops] for ops in cell.ops]),
        'skip': jnp.array([[op == 'skip_connect' for op in ops] for ops in cell.ops]),
        'targets': jnp.array([target for _, target in cell.edges]),
        'kept': jnp.array(space.kept or len(cell.edges))} for name, cell in space.cells.items()}
    return {'params': alphas(key, {name: cell.shape for name, cell in space.cells.items()}),
            'fixed': {'stage': jnp.int32(0), 'cells': cells}}

  def probs(phi, clock=END):
    del clock
    return {name: jax.nn.softmax(jnp.where(phi['fixed']['cells'][name]['open'], alpha, -jnp.inf))
            for name, alpha in phi['params'].items()}

  def sample(phi, key, clock):
    del key
    stage = phi['fixed']['stage']
    epoch = clock.turn(STAGES * EPOCHS) - EPOCHS * stage
    frozen = config.frozen * EPOCHS
    falling = jnp.where(epoch < frozen, (EPOCHS - epoch - 1) / EPOCHS, jnp.exp(-0.2 * (epoch - frozen)))
    rate = jnp.array(dropout)[stage] * jnp.clip(falling, 0, 1)
    return {name: Mixture(p[None], dropout=rate) for name, p in probs(phi, clock).items()}, {'dropout': rate}

  def grow(phi, key):
    stage, cells = phi['fixed']['stage'] + 1, {}
    for name, p in probs(phi).items():
      count = p.shape[1]
      left = [min(count, max(2, math.ceil(part * count))) for part in (1, config.second, config.third)]
      own = phi['fixed']['cells'][name]
      cells[name] = {**own, 'open': own['open'] & most_probable(p, jnp.array(left)[stage])}
    return {'params': alphas(key, {name: alpha.shape for name, alpha in phi['params'].items()}),
            'fixed': {'stage': stage, 'cells': cells}}

  def scores(phi, clock=END):
    cells = phi['fixed']['cells']
    real = {name: jnp.where(cells[name]['real'], jnp.maximum(p, _LEAST), 0) for name, p in probs(phi, clock).items()}
    return {name: rows if name == 'reduce' else limited(rows, cells[name], config.skips)
            for name, rows in real.items()}

  step, alone = updates.bilevel(), updates.theta_only()
  before = tuple(pair for i in range(STAGES) for pair in (((i + config.frozen) / STAGES, alone),
                                                          ((i + 1) / STAGES, step)))[:-1]
  depths = tuple(((i + 1) / STAGES, i * config.grows) for i in range(STAGES))
  return Method(init, sample, probs, step, scores=scores, before=before if config.frozen else (), depths=depths,
                grow=grow, options=Options(dropout=True), logits=lambda phi: phi['params'])
