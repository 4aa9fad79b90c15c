"""Random search: a uniformly random architecture, the floor that every method has to clear.

The architecture is drawn at initialisation. Epochs, if any, train theta as a random single-path supernet does (Li and
Talwalkar, UAI 2019): every step runs one architecture, drawn uniformly. `config.epochs=0` costs nothing. Where nodes
keep a given number of edges an architecture is so many edges, drawn uniformly too, and no `none`, as in
methods/rsps.py.

With a `budget` it is the random search of NAS-Bench-201 (Dong and Yang, ICLR 2020): so many architectures of the space
are drawn uniformly, with replacement, a benchmark says what validation accuracy each reaches, and the best is the
result; of equals the first. Nothing is trained then. Its published budget is 12,000 s of trainings of 12 epochs, which
are 108 architectures (methods/reinforce.py has the arithmetic, and what the accuracies are).
"""

from typing import Any

import jax
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import rsps, updates
from vimnas_jax.methods.types import END, Method

FIELDS: dict[str, Any] = {'budget': 0}  # architectures that a benchmark is asked for; 0 asks none
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.0, 'momentum': 0.0, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 0
PUBLISHED = {'nb201': {'method.budget': 108}}


def one_hot(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """A uniformly random operation on every edge: one-hot rows [edges, ops]."""
  return jax.nn.one_hot(jax.random.randint(key, shape[:1], 0, shape[1]), shape[1])


def make(config: ConfigDict) -> Method:
  """Random search with the fields of config.method. Raises UserError on a bad field."""
  if config.budget < 0:
    raise UserError(f'config.method.budget={config.budget} must be at least 0')
  if config.budget:
    return rsps.make(ConfigDict({'tries': config.budget}))._replace(trains=False, asks='benchmark')

  def init(key, space):
    if space.kept is None:
      return {'params': {}, 'fixed': {name: {'ops': one_hot(jax.random.fold_in(key, i), cell.shape)}
                                      for i, (name, cell) in enumerate(space.cells.items())}}
    fixed = {}
    for i, (name, rule) in enumerate(rsps.rules(space).items()):
      ops, edges = rsps.parts(jax.random.fold_in(key, i), rule)
      fixed[name] = {'ops': ops, 'edges': edges, 'rule': rule}
    return {'params': {}, 'fixed': fixed}

  def sample(phi, key, clock):
    del clock
    keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(phi['fixed'])}
    return {name: (rsps.architecture(keys[name], own['rule']) if 'rule' in own else
                   one_hot(keys[name], own['ops'].shape))[None] for name, own in phi['fixed'].items()}, {}

  def probs(phi, clock=END):
    del clock
    return {name: own['ops'] for name, own in phi['fixed'].items()}

  def scores(phi, clock=END):
    del clock
    return {name: own['ops'] * own['edges'][:, None] if 'edges' in own else own['ops']
            for name, own in phi['fixed'].items()}

  return Method(init, sample, probs, updates.single_level(), scores=scores, drawn=True)
