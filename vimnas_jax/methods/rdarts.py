"""R-DARTS: Zela, Elsken, Saikia, Marrakchi, Brox and Hutter, Understanding and Robustifying Differentiable Architecture
Search, ICLR 2020, with L2 regularisation (`rdarts_l2`) or drop path (`rdarts_dp`).

  1. DARTS (second order) searches four times, one search after the other, each with new weights theta, the same initial
     alpha and a quarter of the steps, in which theta's rate, and alpha's, go their whole way;
  2. L2: every search has `factor` times the weight decay of theta of the one before;
  3. DP: search i (from 0) drops every edge of a cell for an image with a probability that rises in a straight line from
     0 to i * `drop_path`; what is left is scaled up by 1 / (1 - probability);
  4. the result is the architecture of the search with the least validation error.

What the paper leaves open: its four runs are compared by the validation error of the architectures after a short
training of their own. Decided here, so that it is one run: the error is that of the supernet with all it has, without
drop path, on the validation batches of the last part `judged` of a search; of equals the first is taken. Drop path
holds for alpha's passes as for theta's. The masks are mixing weights, hence one draw serves all cells of a type; the
authors draw anew in every cell. They cut out a square of 16 pixels where they drop paths: config.data.cutout does so in
all four. Pretraining of theta reaches the first search alone, and is no part of its rate's way.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.alpha import init, logs, probs, sample
from vimnas_jax.methods.types import Batch, Clock, Info, Method, Options, Problem, Sample, State, Step
from vimnas_jax.networks.mixing import whole

FIELDS = {
    'searches': 4,  # one after the other, of which the best is taken
    'factor': 3.0,  # by which theta's weight decay grows from search to search
    'drop_path': 0.0,  # by how much the largest probability of drop path grows from search to search
    'judged': 0.1,  # the last part of every search, in which its validation error is taken
    'unrolled': 'finite',  # as of method darts
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 5
PUBLISHED = {'darts': {'epochs': 200.0}}  # four times 50
DROP_PATH = {'factor': 1.0, 'drop_path': 0.2, 'published': {'data.cutout': 16}}
_WORST = 2.0  # above every error


def dropped(sample: Sample, names: tuple[str, ...], images: int, rate: jax.Array) -> Sample:
  """`sample` with every edge of the cells `names` dropped with probability `rate` for each of `images` images."""

  def draw(phi, key, clock):
    weights, info = sample(phi, key, clock)
    found = dict(weights)
    for i, name in enumerate(names):
      rows = whole(weights[name]).ops
      kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - rate, (images, rows.shape[1], 1))
      found[name] = jnp.where(kept, rows / (1 - rate), 0)
    return found, info

  return draw


@dataclasses.dataclass(frozen=True, eq=False)
class Repeated:
  """An `Update`: DARTS again and again, as config.method says; phi['fixed'] has the initial alpha and the best of the
  searches that are done.
  """

  config: ConfigDict

  def moves(self, steps: int) -> tuple[int, int]:
    """Theta moves in all of `steps` steps, and phi in those of one search, after which its optimiser starts anew."""
    return steps, -(-steps // self.config.searches)

  def __call__(self, method: Method, problem: Problem, state: State, batches: Mapping[str, Batch],
               clock: Clock) -> tuple[State, Info]:
    """Does a step."""
    config, inner = self.config, updates.bilevel(unrolled=self.config.unrolled)
    train, valid, searches = batches['train'], batches['valid'], config.searches
    search = clock.turn(searches)
    begins = search > clock._replace(step=clock.step - 1).turn(searches)
    ends = clock._replace(step=clock.step + 1).turn(searches) > search
    within = clock.progress * searches - search
    times = jnp.power(config.factor, search)
    own = problem._replace(tx_theta=problem.decayed(times, searches),
                           tx_unrolled=problem.decayed(times, searches, clip=False))

    def anew(state):
      theta, params = problem.fresh(jax.random.fold_in(train.key, searches)), state.phi['fixed']['start']
      return state.replace(theta=theta, opt_theta=own.tx_theta.init(theta), opt_phi=problem.tx_phi.init(params),
                           phi={**state.phi, 'params': params})

    if searches > 1:  # theta's rate may have counted the steps of pretraining
      state = state.replace(opt_theta=jax.tree.map(
          lambda x: x if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.where(clock.step == 0, 0, x), state.opt_theta))
    state = jax.lax.cond(begins, anew, lambda state: state, state)
    rate = config.drop_path * search * within
    draw = dropped(method.sample, tuple(problem.space.cells), len(train.images) // problem.parts, rate)
    state, metrics = inner.update(method._replace(sample=draw) if config.drop_path else method, own, state, batches,
                                  clock)

    def error():
      weights, _ = method.sample(state.phi, valid.key, clock)
      loss = updates.in_parts(lambda *batch: problem.loss(state.theta, weights, valid.key, *batch), problem.parts)
      return 1 - jnp.asarray(loss(valid.images, valid.labels)[1], jnp.float32)

    judged = ends | (within >= 1 - config.judged)
    fixed = state.phi['fixed']
    total = fixed['total'] + jax.lax.cond(judged, error, lambda: jnp.float32(0))
    count = fixed['count'] + judged
    now = total / jnp.maximum(count, 1)
    better = ends & (now < fixed['error'])
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), (state.theta, state.phi['params']),
                        fixed['best'])
    fixed = {**fixed, 'best': best, 'error': jnp.where(better, now, fixed['error']),
             'total': jnp.where(ends, 0, total), 'count': jnp.where(ends, 0, count)}
    last = ends & (search == searches - 1)
    theta, params = jax.tree.map(lambda new, old: jnp.where(last, new, old), best, (state.theta, state.phi['params']))
    return state.replace(theta=theta, phi={'params': params, 'fixed': fixed}), {
        **metrics, 'search': search, 'drop_path': rate, 'best_error': jnp.minimum(fixed['error'], 1)}


def repeated(config: ConfigDict) -> Step:
  """`Repeated` as a step. Raises UserError on a word for `unrolled` that there is not."""
  updates.bilevel(unrolled=config.unrolled)
  return Step(Repeated(config), ('train', 'valid'), lambda names: repeated(config))


def make(config: ConfigDict) -> Method:
  """R-DARTS with the fields of config.method. Raises UserError on a bad field."""
  if config.searches < 1:
    raise UserError(f'config.method.searches={config.searches} must be at least 1')
  if not (config.factor > 0 and 0 < config.judged <= 1):
    raise UserError(f'config.method.factor={config.factor} must be above 0, judged={config.judged} from above 0 to 1')
  if not 0 <= config.drop_path * (config.searches - 1) < 1:
    raise UserError(f'config.method.drop_path={config.drop_path} must be from 0 to below 1 / (searches - 1), searches='
                    f'{config.searches}')

  def carry(state):
    params = state.phi['params']
    return {'params': params, 'fixed': {
        **state.phi['fixed'], 'start': params, 'best': (state.theta, params), 'error': jnp.float32(_WORST),
        'total': jnp.float32(0), 'count': jnp.int32(0)}}

  def early(state):
    theta, params = state.phi['fixed']['best']  # at first what the search starts with, of no error yet
    if float(state.phi['fixed']['error']) >= _WORST:
      return state
    return state.replace(theta=theta, phi={**state.phi, 'params': params})

  return Method(init, sample, probs, repeated(config), carry=carry, early=early, logs=logs,
                logits=lambda phi: phi['params'], options=Options(kernels=config.unrolled != 'exact'))
