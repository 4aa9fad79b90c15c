"""Reading the pickles that data sets and benchmarks come as, without running what is in them.

They give containers, numbers, text, bytes, and arrays of plain numbers that are made here, of what their state says and
as many bytes as their shape takes: numpy's own would take any memory for theirs. A million opcodes take half a second,
six times as long as in Python's own C code: a file of NATS-Bench is read about as fast as bz2 unpacks it.
"""

import hashlib
import math
import pathlib
import pickle
import re

import numpy as np

from vimnas_jax import files
from vimnas_jax.data.opcodes import FLOOR, Machine, Name

PACKED = 100  # times its size to which a compressed file may unpack, beside FLOOR; those of NATS-Bench do ten
_DTYPE = re.compile('[|<>=]?([iuf][1248]|b1)')


class Dtype:
  """A type of plain numbers that a pickle describes."""

  __slots__ = ('of',)

  def __init__(self, code):
    code = code.decode('latin1') if isinstance(code, bytes) else code
    match = _DTYPE.fullmatch(code) if isinstance(code, str) else None
    if not match or match[1] == 'f1':
      raise pickle.UnpicklingError(f'array of type {str(code)[:40]!r}')
    self.of = np.dtype(code)

  def build(self, state):
    """Takes the byte order; numbers have no other state."""
    if not isinstance(state, tuple) or len(state) != 8 or any(type(state[i]) is not int for i in (0, 5, 6, 7)) or (
        state[0] != 3 or any(field is not None for field in state[2:5]) or state[5:] != (-1, -1, 0)):
      raise pickle.UnpicklingError('array of a type that is no plain number')
    order = state[1].decode('latin1') if isinstance(state[1], bytes) else state[1]
    if not isinstance(order, str) or order not in ('|', '<', '>', '='):
      raise pickle.UnpicklingError('array of no byte order')
    self.of = self.of.newbyteorder(order)


class Unfinished:
  """An array before its state came."""

  __slots__ = ()


def _reconstruct(kind, *args):
  del args
  if kind is not _NDARRAY:
    raise pickle.UnpicklingError('array of a class of its own')
  return Unfinished()


def _refuse(*args):
  raise pickle.UnpicklingError('it calls numpy.ndarray')


def labels_in(values, end: int) -> np.ndarray:
  """A flat list or array of integers from 0 to `end` - 1, as int32. Raises ValueError.

  numpy itself would follow lists that hold each other without end.
  """
  if isinstance(values, np.ndarray):
    values = values.tolist() if values.ndim == 1 else None
  if not isinstance(values, list) or any(type(value) is not int or not 0 <= value < end for value in values):
    raise ValueError(f'labels that are no list of integers below {end}')
  return np.array(values, np.int32)


_NDARRAY = Name(_refuse)
_RECONSTRUCT = Name(_reconstruct)


class Unpickler(Machine):
  """Admits Python's containers and arrays of numbers; a pickle that names anything else is refused."""

  def find_class(self, module: str, name: str) -> Name:
    """What stands for module.name. Raises UnpicklingError for all that no array needs."""
    if module in ('numpy.core.multiarray', 'numpy._core.multiarray') and name == '_reconstruct':
      return _RECONSTRUCT
    if (module, name) == ('numpy', 'ndarray'):
      return _NDARRAY
    if (module, name) == ('numpy', 'dtype'):
      return Name(lambda code, align=False, copy=False: Dtype(code))
    if (module, name) == ('_codecs', 'encode'):  # how Python 3 writes bytes for Python 2
      return Name(self._encode)
    if module in ('builtins', '__builtin__') and name == 'bytes':  # and no bytes at all
      return Name(lambda: b'')
    raise pickle.UnpicklingError(f'it asks for {module[:60]}.{name[:60]}')

  def build(self, value, state):
    """An array or a type of numbers with its state."""
    if type(value) is Unfinished:
      return self._array(state)
    if type(value) is not Dtype:
      return super().build(value, state)
    value.build(state)
    return value

  def _encode(self, text, encoding):
    if encoding not in ('latin1', b'latin1') or not isinstance(text, str):
      raise pickle.UnpicklingError(f'bytes in {str(encoding)[:40]!r}')
    return self.spend(text.encode('latin1'))

  def _raw(self, value) -> bytes:
    if isinstance(value, str):
      return self.spend(value.encode('latin1'))
    if not isinstance(value, bytes):
      raise pickle.UnpicklingError('numbers that are no bytes')
    return value

  def scalar(self, dtype, raw) -> int | float:
    """A number of numpy's."""
    raw = self._raw(raw)
    if type(dtype) is not Dtype or len(raw) != dtype.of.itemsize:
      raise pickle.UnpicklingError('a number of no type or size')
    return np.frombuffer(raw, dtype.of)[0].item()

  def _array(self, state) -> np.ndarray:
    version, shape, dtype, fortran, raw = state
    if version != 1 or type(dtype) is not Dtype or not isinstance(shape, tuple) or len(shape) > 32 or any(
        type(side) is not int or not 0 <= side < 1 << 40 for side in shape):
      raise pickle.UnpicklingError('array of no shape or type')
    raw = self._raw(raw)
    if math.prod(shape) * dtype.of.itemsize != len(raw):
      raise pickle.UnpicklingError(f'array of shape {shape} and {len(raw):,} bytes')
    return np.frombuffer(raw, dtype.of).reshape(shape, order='F' if fortran else 'C')


def bounded(size: int) -> int:
  """How many bytes a compressed file of so many may unpack to."""
  return FLOOR + PACKED * size


def passing(error: BaseException) -> str:
  """What the system says where reading failed, and '' where it is the content that cannot be read."""
  return error.strerror or str(error) if isinstance(error, OSError) and error.errno is not None else ''


def one_line(error: BaseException) -> str:
  """Kind and text of an error, in one short line."""
  return f'{type(error).__name__}: {files.printable(" ".join(str(error).split()))[:160]}'


def md5(path: pathlib.Path) -> str:
  """Of a file, in hex."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
