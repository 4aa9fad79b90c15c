"""Search spaces by name."""

import functools

from vimnas_jax.errors import UserError
from vimnas_jax.spaces import darts, nb201, simplified
from vimnas_jax.spaces.types import Cell, Genotype, Space, Stage

__all__ = ['Cell', 'Genotype', 'Space', 'Stage', 'get', 'NAMES']

_MAKERS = {'darts': darts.make, 'nb201': nb201.make,
           **{name: functools.partial(simplified.make, name) for name in simplified.NAMES}}
NAMES = tuple(_MAKERS)


def get(name: str) -> Space:
  """The space called `name`. Raises UserError if there is none."""
  if name not in _MAKERS:
    raise UserError(f'config.space.name={name!r} is no search space; choose one of {", ".join(NAMES)}')
  return _MAKERS[name]()
