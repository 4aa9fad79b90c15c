"""Search methods by name.

A method's module has FIELDS, OPTIMIZER, PRETRAIN (epochs of theta alone) and `make(config.method) -> Method`. The first
three are literals and are read without running the module: it imports JAX, which a command that is refused, or asks for
help, need not wait for.
"""

import ast
import functools
import importlib
import pathlib

from vimnas_jax.errors import UserError
from vimnas_jax.methods.types import Method

__all__ = ['Method', 'NAMES', 'STRICT', 'STRICT_THETA', 'field_types', 'fields', 'get', 'optimizer', 'pretrain']

# method -> (module, the name of a literal in it that changes its defaults)
_MODULES = {'vimnas': ('vimnas', ''), 'darts': ('darts', ''), 'darts_noise': ('darts', 'NOISE'),
            'random': ('random', '')}
NAMES = tuple(_MODULES)


@functools.cache
def _literals(module: str) -> dict:
  """The capitalised names at the top of a module of this folder whose values are literals."""
  tree = ast.parse((pathlib.Path(__file__).parent / f'{module}.py').read_text(encoding='utf-8'))
  found = {}
  for node in tree.body:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
      found[node.targets[0].id] = ast.literal_eval(node.value)
  return found


STRICT, STRICT_THETA = _literals('vimnas')['STRICT'], _literals('vimnas')['STRICT_THETA']


def _module(name):
  """(Module, its literals, what the method changes in their defaults). Raises UserError on an unknown name."""
  if name not in _MODULES:
    raise UserError(f'config.method.name={name!r} is no method; choose one of {", ".join(NAMES)}')
  module, changes = _MODULES[name]
  literals = _literals(module)
  return module, literals, literals[changes] if changes else {}


def get(config, choices=None) -> Method:
  """The method that config.method describes. Raises UserError on an unknown name or a bad field.

  `choices` are those of a space whose graph is searched too: rows beside the method's architecture.
  """
  method = importlib.import_module(f'{__name__}.{_module(config.name)[0]}').make(config)
  if not choices:
    return method
  from vimnas_jax.methods import topology
  return topology.beside(method, choices)


def fields(name: str) -> dict:
  """The method's own fields of config.method, with their defaults."""
  _, literals, changed = _module(name)
  own = literals['FIELDS']
  return {**own, **{field: value for field, value in changed.items() if field in own}}


def field_types() -> dict:
  """The fields of all methods together: name -> type."""
  return {field: type(value) for name in NAMES for field, value in fields(name).items()}


def optimizer(config) -> dict:
  """The method's default optimiser of phi: optimizer, lr, lr_end, schedule, fall, momentum, weight_decay."""
  _, literals, changed = _module(config.name)
  own = literals['OPTIMIZER']
  own = {**own, **{field: value for field, value in changed.items() if field in own}}
  return {'lr_end': own['lr'], 'schedule': 'linear', 'fall': 0.0, **own}


def pretrain(config) -> float:
  """The method's default length, in epochs, of the stage in which theta is trained alone."""
  _, literals, changed = _module(config.name)
  return changed.get('pretrain', literals['PRETRAIN'])
