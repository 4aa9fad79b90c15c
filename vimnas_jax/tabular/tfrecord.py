"""Files of records as TensorFlow frames them, read without TensorFlow.

A record is its length (8 bytes, little-endian), the masked CRC-32C of these, its contents, and the masked CRC-32C of
the contents. Every checksum is checked: by machine code that numba makes of the loop below, some 400 MB a second, or,
where numba is missing, by Python, some 400 times slower.
"""

import functools
import importlib.util
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.files import printable

_AT_ONCE = 4096  # records that are checked in one call
_WINDOW = 1 << 24  # bytes read at once
MOST = 1 << 28  # bytes of a record
_GOES_ON = 5  # no fault: the rest of the record is still to be read
_FAULTS = {1: 'the file ends within it: it was cut short; fetch it again',
           2: 'the checksum of its length does not fit: this is no file of records, or a damaged one; fetch it again',
           3: 'the checksum of its contents does not fit: the file is damaged; fetch it again',
           4: f'it has more than {MOST:,} bytes: give another file of records'}


def records(path) -> Iterator[bytes]:
  """The contents of all records of the file. Raises UserError if it cannot be read, is damaged or cut short.

  The file is read, not mapped: a disk that fails, or a file that shrinks meanwhile, would kill who looks at a map.
  """
  path = pathlib.Path(path)
  try:
    if not path.is_file() or not path.stat().st_size:  # a pipe would be waited for
      raise UserError(f'{printable(path)} cannot be read (it is empty or no file): give a file of records')
    with path.open('rb') as file:
      yield from _records(path, file, os.fstat(file.fileno()).st_size)
  except OSError as e:
    raise UserError(f'{printable(path)} cannot be read ({e.strerror or e}): make it readable') from None


def _records(path, file, size):
  scan, table, number, wanted, held, rest = _scanner(), _table(), 0, _WINDOW, b'', size
  places = np.zeros((_AT_ONCE, 2), np.int64)
  while True:
    part = file.read(min(wanted, rest))
    rest = rest - len(part) if part else 0
    data, at, fault = np.frombuffer(held + part, np.uint8), 0, 0
    while at < len(data) and not fault:
      count, at, fault, wanted = scan(data, at, places, table, rest, MOST)
      for start, end in places[:count].tolist():
        yield data[start:end].tobytes()
      number += count
    if fault == _GOES_ON:
      held, wanted = data[at:].tobytes(), max(int(wanted), _WINDOW)
    elif fault:
      raise UserError(f'{printable(path)}, record {number}: {_FAULTS[fault]}')
    elif rest:
      held, wanted = b'', _WINDOW
    else:
      return


def masked_crc32c(data: bytes) -> int:
  """The checksum that stands beside a record."""
  return int(_masked(np.frombuffer(data, np.uint8), 0, len(data), _table()))


@functools.cache
def _table() -> np.ndarray:
  """What a byte does to a CRC-32C (polynomial 0x1EDC6F41, bits reversed), int64 [256]."""
  values = np.arange(256, dtype=np.int64)
  for _ in range(8):
    values = np.where(values & 1, 0x82F63B78 ^ (values >> 1), values >> 1)
  return values


def _masked(data, start, end, table):
  crc = 0xFFFFFFFF
  for i in range(start, end):
    crc = table[(crc ^ np.int64(data[i])) & 0xFF] ^ (crc >> 8)
  crc ^= 0xFFFFFFFF
  return ((((crc >> 15) | (crc << 17)) & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def _number(data, start, size):
  value = 0
  for i in range(size):
    value |= np.int64(data[start + i]) << (8 * i)
  return value


def _scan(masked, number):
  def scan(data, at, places, table, rest, most):
    """Where the contents of the records from `at` on start and end, into places [n, 2]; `rest` bytes follow the data.

    Returns how many records it found whole, where the next one starts, what is wrong with that one, 0 if nothing, and
    how many bytes it lacks.
    """
    count, size = 0, len(data)
    while count < len(places) and at < size:
      if at + 12 > size:
        return count, at, 5 if at + 12 - size <= rest else 1, at + 12 - size
      if masked(data, at, at + 8, table) != number(data, at + 8, 4):
        return count, at, 2, 0
      length = number(data, at, 8)
      if length < 0 or length > size + rest - at - 16:  # below 0: as many as 2^63 or more
        return count, at, 1, 0
      if length > most:
        return count, at, 4, 0
      end = at + 12 + length
      if end + 4 > size:
        return count, at, 5, end + 4 - size
      if masked(data, at + 12, end, table) != number(data, end, 4):
        return count, at, 3, 0
      places[count, 0], places[count, 1] = at + 12, end
      count, at = count + 1, end + 4
    return count, at, 0, 0

  return scan


@functools.cache
def _scanner():
  if not importlib.util.find_spec('numba'):
    return _scan(_masked, _number)
  import numba  # takes a second, which only the readers of such a file need
  return numba.njit(_scan(numba.njit(_masked), numba.njit(_number)))
