"""Tables of arrays on disk, NumPy's .npz: what the readers of the large benchmark files leave beside them.

A file is read member by member, and no member before its header says what the caller expects of it.
"""

import math
import pathlib
import re
import zipfile

import numpy as np

from vimnas_jax import files
from vimnas_jax.errors import UserError

MOST = 100_000_000  # bytes of one array
_MAGIC = re.compile(rb'\x93NUMPY\x01\x00(..)', re.DOTALL)  # version 1.0, which short headers have
_HEADER = re.compile(r"\{'descr': '([<>|=][fiuU]\d{1,3})', 'fortran_order': False, "
                     r"'shape': \((\d{1,9})(?:,|, (\d{1,9}))\), \} *\n")


def write(path, arrays: dict[str, np.ndarray]):
  """Writes arrays of one or two dimensions, whole or not at all. Raises OSError."""
  with files.aside(path) as part, part.open('wb') as file:
    np.savez_compressed(file, **arrays)


def read(path, kinds: dict[str, str], remedy: str) -> dict[str, np.ndarray]:
  """The arrays `kinds` of a file, {name: letter of the kind of its type}.

  Raises UserError, in one line with `remedy`, which has a place for the reason, where they are not there or damaged.
  """
  path = pathlib.Path(path)
  try:
    with path.open('rb') as file, zipfile.ZipFile(file) as archive:
      return {name: _member(archive, f'{name}.npy', kind) for name, kind in kinds.items()}
  except Exception as e:  # a damaged archive can raise nearly anything
    if isinstance(e, OSError) and e.errno is not None:
      raise UserError(f'{files.printable(path)} cannot be read ({e.strerror}): make it readable') from None
    raise UserError(f'{files.printable(path)} {remedy.format(type(e).__name__)}') from None


def _member(archive, name, kind) -> np.ndarray:
  with archive.open(name) as file:
    magic = _MAGIC.fullmatch(file.read(10))
    header = magic and _HEADER.fullmatch(file.read(int.from_bytes(magic[1], 'little')).decode('latin1'))
    if not header:
      raise ValueError('no array')
    dtype, shape = np.dtype(header[1]), tuple(int(side) for side in header.groups()[1:] if side is not None)
    size = math.prod(shape) * dtype.itemsize
    if dtype.kind != kind or size > MOST:
      raise ValueError('an array of another type, or larger than any table')
    content = file.read(size + 1)  # one more, so that the checksum is looked at
    if len(content) != size:
      raise ValueError('an array that is not as long as its header says')
  return np.frombuffer(content, dtype).reshape(shape).copy()
