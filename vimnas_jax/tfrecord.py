"""Files of records as TensorFlow frames them, read without TensorFlow.

A record is its length (8 bytes, little-endian), the masked CRC-32C of these, its contents, and the masked CRC-32C of
the contents. Every checksum is checked: by machine code that numba makes of the loop below, some 400 MB a second, or,
where numba is missing, by Python, some 400 times slower.
"""

import functools
import importlib.util
from collections.abc import Iterator

import numpy as np

from vimnas_jax.errors import UserError

_AT_ONCE = 4096  # records that are checked in one call
_FAULTS = {1: 'the file ends within it: it was cut short; fetch it again',
           2: 'the checksum of its length does not fit: this is no file of records, or a damaged one; fetch it again',
           3: 'the checksum of its contents does not fit: the file is damaged; fetch it again'}


def records(path) -> Iterator[bytes]:
  """The contents of all records of the file. Raises UserError if it cannot be read, is damaged or cut short."""
  try:
    data = np.memmap(path, np.uint8, 'r').view(np.ndarray)
  except (OSError, ValueError) as e:  # an empty file cannot be mapped
    raise UserError(f'{path} cannot be read ({getattr(e, "strerror", None) or e}): give a file of records') from None
  scan, table, at, number = _scanner(), _table(), 0, 0
  places = np.zeros((_AT_ONCE, 2), np.int64)
  while at < len(data):
    count, at, fault = scan(data, at, places, table)
    for start, end in places[:count].tolist():
      yield data[start:end].tobytes()
    number += count
    if fault:
      raise UserError(f'{path}, record {number}: {_FAULTS[fault]}')


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
  def scan(data, at, places, table):
    """Where the contents of the records from `at` on start and end, into places [n, 2].

    Returns how many records it found whole, where the next one starts, and what is wrong with that one, 0 if nothing.
    """
    count, size = 0, len(data)
    while count < len(places) and at < size:
      if at + 12 > size:
        return count, at, 1
      if masked(data, at, at + 8, table) != number(data, at + 8, 4):
        return count, at, 2
      end = at + 12 + number(data, at, 8)
      if end + 4 > size:
        return count, at, 1
      if masked(data, at + 12, end, table) != number(data, end, 4):
        return count, at, 3
      places[count, 0], places[count, 1] = at + 12, end
      count, at = count + 1, end + 4
    return count, at, 0

  return scan


@functools.cache
def _scanner():
  if not importlib.util.find_spec('numba'):
    return _scan(_masked, _number)
  import numba  # takes a second, which only the readers of such a file need
  return numba.njit(_scan(numba.njit(_masked), numba.njit(_number)))
