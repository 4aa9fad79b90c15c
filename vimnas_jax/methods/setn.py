"""SETN: Dong and Yang, One-Shot Neural Architecture Search via Self-Evaluated Template Network, ICCV 2019.

  1. alpha is a free number for every edge and operation;
  2. in every step theta descends the loss of a training batch with one architecture, drawn uniformly;
  3. then alpha descends that of a validation batch, all operations mixed by softmax(alpha);
  4. at the end the `tries` most probable architectures are rated with the weights of the supernet, each by its accuracy
     on one batch of the validation half, and the best one is the result; of equals the more probable.

As NAS-Bench-201's own run of it: theta before alpha, no clipping, 100 tries on batches of 512, which are of
config.batch_size here, BatchNorm by the batch. Decided here: where a node keeps a part of its edges, an architecture is
drawn as RSPS does, and is as probable as the product of its operations' probabilities, `none` among those that share
an edge: then the most probable one is what the space's own rule reads off alpha.
"""

import heapq
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import rsps, updates
from vimnas_jax.methods.alpha import probs, sample
from vimnas_jax.methods.types import Method
from vimnas_jax.networks import initial
from vimnas_jax.spaces import within

FIELDS = {'tries': 100}  # architectures that are rated at the end
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 2
BRIEF = {'tries': 3}
PUBLISHED = {
    'nb201': {'epochs': 250.0, 'batch_size': 64, 'theta.clip': 0.0, 'theta.weight_decay': 5e-4, 'theta.nesterov': True,
              'theta.schedule': 'cosine_epoch', 'method.tries': 100},
}

Kept = tuple[tuple[int, int], ...]  # (edge, operation) of all edges that an architecture keeps
Ranked = list[tuple[float, Kept]]  # with log-probabilities, falling


def _best(found: Iterator[tuple[float, Kept]], count: int) -> Ranked:
  return heapq.nsmallest(count, found, key=lambda item: (-item[0], item[1]))


def _of_node(log_p: np.ndarray, allowed: np.ndarray, edges: list[int], kept: int, count: int) -> Ranked:
  """The `count` most probable ways in which a node keeps `kept` of the edges that lead into it."""
  ways: list[Ranked] = [[(0.0, ())], *([] for _ in range(kept))]  # by how many edges are kept so far
  for edge in edges:
    ops = [(float(log_p[edge, op]), ((edge, int(op)),)) for op in np.flatnonzero(allowed[edge])]
    for n in range(kept, 0, -1):
      more = ((a + b, one + two) for (a, one), (b, two) in itertools.product(ways[n - 1], ops))
      ways[n] = _best(itertools.chain(ways[n], more), count)
  return ways[kept]


def most_probable(log_p: dict[str, np.ndarray], rules: dict[str, rsps.Rule], count: int) -> list[dict[str, np.ndarray]]:
  """The `count` most probable architectures, falling, as mixing weights {cell: float32 [edges, ops]}.

  Args:
    log_p: {cell: log-probabilities [edges, ops]}.
    rules: what an architecture may keep, as `rsps.rules` gives it.
    count: how many; all there are, if there are fewer.
  """
  found: list[tuple[float, tuple[Kept, ...]]] = [(0.0, ())]
  for name, rule in rules.items():
    allowed, targets = np.asarray(rule['allowed']), np.asarray(rule['targets'])
    cell: Ranked = [(0.0, ())]
    for node in dict.fromkeys(targets.tolist()):
      edges = np.flatnonzero(targets == node).tolist()
      own = _of_node(log_p[name], allowed, edges, min(int(rule['kept']), len(edges)), count)
      cell = _best(((a + b, one + two) for (a, one), (b, two) in itertools.product(cell, own)), count)
    pairs = ((a + b, (*one, two)) for (a, one), (b, two) in itertools.product(found, cell))
    found = heapq.nsmallest(count, pairs, key=lambda item: (-item[0], item[1]))
  architectures = []
  for _, cells in found:
    weights = {name: np.zeros(rows.shape, np.float32) for name, rows in log_p.items()}
    for name, kept in zip(rules, cells):
      for edge, op in kept:
        weights[name][edge, op] = 1
    architectures.append(weights)
  return architectures


def make(config: ConfigDict) -> Method:
  """SETN with the fields of config.method. Raises UserError on a bad field."""
  if config.tries < 1:
    raise UserError(f'config.method.tries={config.tries} must be at least 1')

  def init(key, space):
    return {'params': {name: 1e-3 * initial.normal(jax.random.fold_in(key, i), cell.shape)
                       for i, (name, cell) in enumerate(space.cells.items())}, 'fixed': rsps.rules(space)}

  def sample_theta(phi, key, clock):
    del clock
    return {name: rsps.architecture(jax.random.fold_in(key, i), rule)[None]
            for i, (name, rule) in enumerate(phi['fixed'].items())}, {}

  def derive(rate, phi, key):
    del key
    log_p = {name: np.asarray(jax.nn.log_softmax(jnp.asarray(alpha)), np.float64)
             for name, alpha in phi['params'].items()}
    if hasattr(rate, 'keeps'):  # most of the most probable ones may exceed the limits
      falling = within.ranked(rate.space, {name: np.exp(rows) for name, rows in log_p.items()})
      return rsps.best(rate, (within.one_hot(rate.space, genotype) for genotype in falling), config.tries)
    return rsps.best(rate, most_probable(log_p, phi['fixed'], config.tries), config.tries)

  return Method(init, sample, probs, updates.bilevel(phi_first=False), sample_theta=sample_theta, derive=derive,
                logits=lambda phi: phi['params'])
