"""The graph of a cell beside any method: NAS-Bench-1Shot1 (Zela, Siems and Hutter, ICLR 2020), section 3.

Where a space has a searched graph (spaces/topology.py), every choice of it is a free parameter, a row over its
candidates, drawn from 1e-3 N(0, 1). The supernet mixes the candidates by softmax of the row, without noise. The rows
descend the loss of a batch of the validation half and move by the benchmark's own optimiser of architecture parameters,
as there (at the rate config.phi.graph_lr and with the L2 config.phi.graph_weight_decay, theirs by default), in every
step of the search, whatever the method does with its own. Decided here: they move too where the method holds its own
still and trains theta alone, as DSO-NAS in its warm-up and its periods of theta, since that is its rule for operations
and the graph has the benchmark's. They stand still while theta is pretrained (config.pretrain). With
config.phi.graph_noise, which is not the benchmark's, a row takes noise in every step as VIM-NAS's architecture does:
without it nothing asks a row to decide, as theta learns for the mixture that it is. With config.phi.graph_sets a row is
mixed by the sets of candidates that an architecture can keep.
"""

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.types import END, Method, PyTree, Rate, Rows, Step
from vimnas_jax.networks import initial

INIT = 1e-3  # standard deviation at the start
LR, BETAS, WEIGHT_DECAY = 3e-4, (0.5, 0.999), 1e-3  # the benchmark's Adam; the decay is L2, added to the gradient
_KEY = 1 << 16  # folded into the key of phi, beyond the cells that a method folds in


class _Beside(NamedTuple):
  """A `Rate` of architectures without the graph's rows, which are `rows`."""

  rate: Rate
  rows: Rows

  def __call__(self, weights, i):
    """Accuracy in % with the rows beside `weights`."""
    return self.rate({**weights, **self.rows}, i)

  def batch(self, i):
    """Batch `i`."""
    return self.rate.batch(i)

  @property
  def space(self):
    """The search space."""
    return self.rate.space

  @property
  def num_classes(self):
    """Classes of the data."""
    return self.rate.num_classes


def beside(method: Method, choices: Mapping[str, int], lr: float = LR,
           decay: float = WEIGHT_DECAY, noise: float = 0.0, keeps: Mapping[str, int] | None = None) -> Method:
  """The method with rows {name: candidates} beside its architecture; phi['params'] is {'method', 'topology'}.

  `sample` and `probs` then have one entry [1, candidates] more for every row; with `noise`, its standard deviation,
  `sample` has one [samples, candidates], of which every sample of the method has noise of its own. `keeps`, if given,
  says how many candidates of each row an architecture keeps: rows are mixed by `share` then, else by softmax.

  Raises UserError on a method whose step cannot do that.
  """
  if method.step.beside is None:
    raise UserError('the step of this method has no form with a searched graph beside it (Step.beside): choose another '
                    'config.method.name for this space, or another config.space.name')

  def own(phi):
    return {'params': phi['params']['method'], 'fixed': phi['fixed']}

  def init(key, space):
    phi = method.init(key, space)
    rows = {name: INIT * jax.random.normal(jax.random.fold_in(key, _KEY + i), (count,))
            for i, (name, count) in enumerate(choices.items())}
    return {'params': {'method': phi['params'], 'topology': rows}, 'fixed': phi['fixed']}

  def mixed(phi, key=None):
    found = {}
    for i, (name, row) in enumerate(phi['params']['topology'].items()):
      row = row[None]
      if noise and key is not None:
        row = row + noise * initial.normal(jax.random.fold_in(key, _KEY + i), (method.samples, row.shape[-1]))
      found[name] = share(row, keeps[name]) if keeps else jax.nn.softmax(row)
    return found

  def sampled(draw):
    def sample(phi, key, clock):
      weights, info = draw(own(phi), key, clock)
      return {**weights, **mixed(phi, key)}, info

    return draw and sample

  def scored(told):
    return told and (lambda phi, clock=END: {**told(own(phi), clock), **mixed(phi)})

  def ended(end):
    def after(phi, clock):
      moved = end(own(phi), clock)
      return {'params': {**phi['params'], 'method': moved['params']}, 'fixed': moved['fixed']}

    return end and after

  def grown(change):
    def grow(phi, other):
      moved = change(own(phi), other)
      return {'params': {**phi['params'], 'method': moved['params']}, 'fixed': moved['fixed']}

    return change and grow

  def derived(find):
    def derive(rate, phi, key):
      rows = mixed(phi)
      if method.asks == 'benchmark':
        raise UserError('this method asks a benchmark for whole architectures and finds no graph: choose another '
                        'config.method.name for this space')

      return {**find(_Beside(rate, rows), own(phi), key), **rows}

    return find and derive

  def alone(f):
    return f and (lambda phi, *args: f(own(phi), *args))

  step = method.step.beside(('topology',))
  steps = {id(method.step): step}
  for _, other in method.before:  # one that serves several parts of the search stays one program
    steps.setdefault(id(other), rows_beside(other))
  return method._replace(
      init=init, sample=sampled(method.sample), sample_theta=sampled(method.sample_theta),
      probs=scored(method.probs), logs=alone(method.logs), scores=scored(method.scores), odds=scored(method.odds),
      step=step, before=tuple((part, steps[id(other)]) for part, other in method.before),
      penalty=alone(method.penalty), after=ended(method.after), derive=derived(method.derive),
      grow=grown(method.grow), stopped=alone(method.stopped), features=alone(method.features),
      logits=alone(method.logits), outputs=alone(method.outputs),
      optimizer=lambda tx: optimizer(method.optimizer(tx), lr, decay))


def share(rows: jax.Array, kept: int) -> jax.Array:
  """Of logits [..., candidates], the probability of each to be among the `kept` ones, divided by `kept`.

  A set of so many candidates is as probable as softmax of the sums of its logits over all such sets says; for one that
  is kept it is softmax of the row. A row decides as a whole then, where softmax gives all to the first.
  """
  sets = np.zeros((math.comb(rows.shape[-1], kept), rows.shape[-1]), rows.dtype)
  for i, members in enumerate(itertools.combinations(range(rows.shape[-1]), kept)):
    sets[i, list(members)] = 1
  chosen = jax.nn.softmax(jnp.matmul(rows, sets.T, precision='highest'))
  return jnp.matmul(chosen, sets, precision='highest') / kept


def rows_beside(step: Step) -> Step:
  """`step`, of a method with the graph beside it, in which the rows descend the validation loss and nothing else,
  whatever it does with the method's own part.
  """

  def update(method, problem, state, batches, clock):
    grads = updates.validation_gradients(method, problem, state, batches, clock, ('topology',))
    every = {**jax.tree.map(jnp.zeros_like, state.phi['params']), **grads}
    params, opt_phi = updates.moved(problem.tx_phi, every, state.phi['params'], state.opt_phi)
    after, metrics = step.update(method, problem, state, batches, clock)
    phi = {**after.phi, 'params': {**after.phi['params'], 'topology': params['topology']}}
    return after.replace(phi=phi, opt_phi={**after.opt_phi, 'topology': opt_phi['topology']}), {
        'grad_phi': optax.tree.norm(grads), **metrics}

  return Step(update, ('train', 'valid'))


def own_part(params: PyTree) -> PyTree:
  """Of phi['params'], or a tree of its form, the method's own part: all of it where no graph is beside it."""
  return params['method'] if set(params) == {'method', 'topology'} else params


def optimizer(tx: optax.GradientTransformation, lr: float, decay: float) -> optax.GradientTransformation:
  """`tx` for the method's parameters, the benchmark's Adam, at rate `lr` and with L2 `decay`, for the rows."""
  parts = {'method': tx, 'topology': optax.chain(optax.add_decayed_weights(decay),
                                                 optax.adam(lr, b1=BETAS[0], b2=BETAS[1], eps=1e-8))}

  def init(params):
    return {name: part.init(params[name]) for name, part in parts.items()}

  def update(grads, state, params):
    moved = {name: part.update(grads[name], state[name], params[name]) for name, part in parts.items()}
    return tuple({name: pair[i] for name, pair in moved.items()} for i in range(2))

  return optax.GradientTransformation(init, update)
