"""Search spaces by name."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

from vimnas_jax import files
from vimnas_jax.errors import UserError
from vimnas_jax.spaces import custom, darts, nb201, oneshot, simplified
from vimnas_jax.spaces.types import Cell, Genotype, Space, Stage

__all__ = ['Cell', 'Genotype', 'Space', 'Stage', 'check', 'custom', 'get', 'named', 'oneshot', 'NAMES']

_MAKERS: dict[str, Callable[[], Space]] = {
    'darts': darts.make, 'nb201': nb201.make,
    **{name: functools.partial(simplified.make, name) for name in simplified.NAMES},
    **{name: functools.partial(oneshot.make, name) for name in oneshot.NAMES}}
NAMES = tuple(_MAKERS)


def get(name: str) -> Space:
  """The space called `name`, or that of the file `name`, if it ends in .py. Raises UserError if there is none."""
  if name.endswith('.py'):
    return custom.load(name)
  if name not in _MAKERS:
    raise UserError(f'config.space.name={name!r}: unknown search space{files.close(name, NAMES)}; choose one of '
                    f'{", ".join(NAMES)}, or a file of your own, FILE.py')
  return _MAKERS[name]()


def check(space: Space, cells: int, channels: int, ops: Iterable[str]) -> None:
  """Raises UserError, naming the place, if a space of one's own does not fit together; says nothing of others.

  Arguments as those of `custom.check`.
  """
  if space.name.endswith('.py'):
    custom.check(space, cells, channels, ops)


def named(name: Any, where: str, trust: Iterable[str] = ()) -> Space:
  """The space that a file of data names. Its code, if it has any, runs only where the user trusts it.

  Args:
    name: what the file says.
    where: the file, for messages.
    trust: paths of Python files that may be executed (custom.trusted).

  Raises:
    UserError: there is no such space, or it is code that nobody asked for.
  """
  if isinstance(name, str) and name.endswith('.py'):
    return dataclasses.replace(custom.load(custom.trusted(name, trust, where)), name=name)
  if not isinstance(name, str) or name not in _MAKERS:
    raise UserError(f'{where} is of space {name!r:.80}; known are {", ".join(NAMES)}, and files of your own, FILE.py')
  return _MAKERS[name]()
