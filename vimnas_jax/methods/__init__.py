"""Search methods by name.

A method's module has FIELDS, OPTIMIZER, PRETRAIN (epochs of theta alone) and `make(config.method) -> Method`.
"""

from vimnas_jax.errors import UserError
from vimnas_jax.methods import darts, random, topology, vimnas
from vimnas_jax.methods.types import Method

__all__ = ['Method', 'NAMES', 'STRICT', 'STRICT_THETA', 'field_types', 'fields', 'get', 'optimizer', 'pretrain']

_MODULES = {'vimnas': (vimnas, {}), 'darts': (darts, {}), 'darts_noise': (darts, darts.NOISE), 'random': (random, {})}
NAMES = tuple(_MODULES)
STRICT, STRICT_THETA = vimnas.STRICT, vimnas.STRICT_THETA


def _module(name):
  if name not in _MODULES:
    raise UserError(f'config.method.name={name!r} is no method; choose one of {", ".join(NAMES)}')
  return _MODULES[name]


def get(config, choices=None) -> Method:
  """The method that config.method describes. Raises UserError on an unknown name or a bad field.

  `choices` are those of a space whose graph is searched too: rows beside the method's architecture.
  """
  method = _module(config.name)[0].make(config)
  return topology.beside(method, choices) if choices else method


def fields(name: str) -> dict:
  """The method's own fields of config.method, with their defaults."""
  module, changed = _module(name)
  return {**module.FIELDS, **{k: v for k, v in changed.items() if k in module.FIELDS}}


def field_types() -> dict:
  """The fields of all methods together: name -> type."""
  return {field: type(value) for name in NAMES for field, value in fields(name).items()}


def optimizer(config) -> dict:
  """The method's default optimiser of phi: optimizer, lr, lr_end, momentum, weight_decay."""
  module, changed = _module(config.name)
  own = {**module.OPTIMIZER, **{k: v for k, v in changed.items() if k in module.OPTIMIZER}}
  return {'lr_end': own['lr'], **own}


def pretrain(config) -> float:
  """The method's default length, in epochs, of the stage in which theta is trained alone."""
  module, changed = _module(config.name)
  return changed.get('pretrain', module.PRETRAIN)
