"""Search spaces by name."""

import functools

from vimnas_jax.errors import UserError
from vimnas_jax.spaces import custom, darts, nb201, oneshot, simplified
from vimnas_jax.spaces.types import Cell, Genotype, Space, Stage

__all__ = ['Cell', 'Genotype', 'Space', 'Stage', 'custom', 'get', 'oneshot', 'NAMES']

_MAKERS = {'darts': darts.make, 'nb201': nb201.make,
           **{name: functools.partial(simplified.make, name) for name in simplified.NAMES},
           **{name: functools.partial(oneshot.make, name) for name in oneshot.NAMES}}
NAMES = tuple(_MAKERS)


def get(name: str) -> Space:
  """The space called `name`, or that of the file `name`, if it ends in .py. Raises UserError if there is none."""
  if name.endswith('.py'):
    return custom.load(name)
  if name not in _MAKERS:
    raise UserError(f'config.space.name={name!r} is no search space; choose one of {", ".join(NAMES)}, or '
                    'a file of your own, FILE.py')
  return _MAKERS[name]()
