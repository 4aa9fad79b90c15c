"""Random search: a uniformly random architecture, the floor that every method has to clear.

The architecture is drawn at initialisation. Epochs, if any, train theta as a random single-path supernet does (Li and
Talwalkar, UAI 2019): every step runs one operation per edge, drawn uniformly. `config.epochs=0` costs nothing.
"""

from typing import Any

import jax
from ml_collections import ConfigDict

from vimnas_jax.methods import updates
from vimnas_jax.methods.types import END, Method

FIELDS: dict[str, Any] = {}
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.0, 'momentum': 0.0, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 0


def one_hot(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """A uniformly random operation on every edge: one-hot rows [edges, ops]."""
  return jax.nn.one_hot(jax.random.randint(key, shape[:1], 0, shape[1]), shape[1])


def make(config: ConfigDict) -> Method:
  """Random search; config.method has no fields of its own."""
  del config

  def init(key, space):
    return {'params': {}, 'fixed': {name: one_hot(jax.random.fold_in(key, i), cell.shape)
                                    for i, (name, cell) in enumerate(space.cells.items())}}

  def sample(phi, key, clock):
    del clock
    return {name: one_hot(jax.random.fold_in(key, i), drawn.shape)[None]
            for i, (name, drawn) in enumerate(phi['fixed'].items())}, {}

  return Method(init, sample, lambda phi, clock=END: phi['fixed'], updates.single_level())
