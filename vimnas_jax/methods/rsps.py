"""Random search with parameter sharing: Li and Talwalkar, Random Search and Reproducibility for NAS, UAI 2019.

  1. in every step theta descends the loss of a batch with one architecture, drawn uniformly;
  2. at the end `tries` architectures are drawn uniformly, each is rated with the weights of the supernet by its
     accuracy on one batch of the validation half, and the best one is the result; of equals the first.

As NAS-Bench-201's own run of it: 100 tries, BatchNorm by the batch. An architecture is what the space lets one keep: on
the DARTS space two edges into every node, and no `none` (Li and Talwalkar draw the same). NAS-Bench-1Shot1's own run
draws the graph too, rates each of 1,000 architectures on ten batches, and the best five on all validation images; here
the graph descends the validation loss (methods/topology.py), and each is rated on one batch.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.types import END, Method, Rate
from vimnas_jax.networks import initial
from vimnas_jax.spaces import Space

FIELDS = {'tries': 100}  # architectures that are rated at the end
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.0, 'momentum': 0.0, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 1
BRIEF = {'tries': 3}
PUBLISHED = {
    'nb201': {'epochs': 250.0, 'batch_size': 64, 'theta.nesterov': True, 'theta.weight_decay': 5e-4,
              'method.tries': 100},
    'oneshot': {'epochs': 50.0, 'batch_size': 64, 'theta.weight_decay': 3e-4, 'theta.clip': 0.25,
                'method.tries': 1000},  # of the benchmark's authors
}

MOST = 100  # architectures that are drawn for each that is to be rated, where a limit takes few
Rule = dict[str, jax.Array]  # what `rules` says of a cell


def rules(space: Space) -> dict[str, Rule]:
  """What `architecture` has to know of the cells of a space: {cell: arrays}."""
  found = {}
  for name, cell in space.cells.items():
    allowed = [[space.kept is None or op != 'none' for op in ops] for ops in cell.ops]
    found[name] = {'allowed': jnp.array(allowed), 'targets': jnp.array([target for _, target in cell.edges]),
                   'kept': jnp.array(space.kept or len(cell.edges))}
  return found


def architecture(key: jax.Array, rule: Rule) -> jax.Array:
  """A uniformly random architecture of a cell as mixing weights [edges, ops]: one operation on each edge that it keeps.

  `rule` is the cell's, as `rules` gives it: which operations an edge may keep, and how many edges a node.
  """
  weights, kept = parts(key, rule)
  return weights * kept[:, None]


def parts(key: jax.Array, rule: Rule) -> tuple[jax.Array, jax.Array]:
  """Of `architecture` an operation on every edge, one-hot rows [edges, ops], and which edges are kept, [edges]."""
  edge_key, op_key = jax.random.split(key)
  drawn = initial.gumbel(op_key, rule['allowed'].shape)
  weights = jax.nn.one_hot(jnp.where(rule['allowed'], drawn, -jnp.inf).argmax(-1), drawn.shape[1])
  order, targets = initial.uniform(edge_key, drawn.shape[:1]), rule['targets']
  earlier = ((targets[:, None] == targets[None]) & (order[None] < order[:, None])).sum(1)
  return weights, earlier < rule['kept']


def best(rate: Rate, drawn: Iterable[Any], tries: int) -> Any:
  """Of the first `tries` architectures of `drawn` the one that `rate` puts highest, of equals the first.

  Those that exceed the limits of the search, where `rate` knows of any (`keeps`), are passed over, at most MOST for
  each try; if none keeps them it is of the first `tries`, as without limits.
  """
  keeps = getattr(rate, 'keeps', None)
  found: list[Any] = []
  first: list[Any] = []
  for each in itertools.islice(drawn, tries if keeps is None else MOST * tries):
    if len(first) < tries:
      first.append(each)
    if keeps is None or keeps(each):
      found.append(each)
    if len(found) == tries:
      break
  if not found:
    found, rate = first, getattr(rate, 'unlimited', rate)
  return found[int(np.argmax([rate(weights, i) for i, weights in enumerate(found)]))]


def make(config: ConfigDict) -> Method:
  """Random search with parameter sharing. Raises UserError on a bad field."""
  if config.tries < 1:
    raise UserError(f'config.method.tries={config.tries} must be at least 1')

  def init(key, space):
    del key
    return {'params': {}, 'fixed': rules(space)}

  def drawn(phi, key):
    return {name: architecture(jax.random.fold_in(key, i), rule) for i, (name, rule) in enumerate(phi['fixed'].items())}

  def sample(phi, key, clock):
    del clock
    return {name: rows[None] for name, rows in drawn(phi, key).items()}, {}

  def probs(phi, clock=END):
    del clock
    shapes = {name: rule['allowed'].shape for name, rule in phi['fixed'].items()}
    return {name: jnp.full(shape, 1 / shape[1]) for name, shape in shapes.items()}

  draw = jax.jit(drawn)

  def derive(rate, phi, key):
    return best(rate, (draw(phi, jax.random.fold_in(key, i)) for i in itertools.count()), config.tries)

  return Method(init, sample, probs, updates.theta_only(), derive=derive)
