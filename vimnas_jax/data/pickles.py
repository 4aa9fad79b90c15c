"""Reading the pickles that data sets come as, without running what is in them."""

import hashlib
import pathlib
import pickle

import numpy as np


def _dtype(code, align=False, copy=False):
  """`numpy.dtype` as the archives call it, for numbers only; numpy itself now warns of their integer `align`."""
  del align, copy
  dtype = np.dtype(code.decode() if isinstance(code, bytes) else code)
  if dtype.kind not in 'iuf':
    raise pickle.UnpicklingError(f'array of type {code!r}')
  return np.dtype(dtype, copy=True)  # the pickle then sets the state of its own copy


def _latin1(text, encoding):
  if encoding != 'latin1':
    raise pickle.UnpicklingError(f'bytes in {encoding!r}')
  return text.encode('latin1')


class Unpickler(pickle.Unpickler):
  """Admits Python's containers and numpy's arrays of numbers; a pickle that names anything else runs nothing."""

  def find_class(self, module, name):
    """The names an array needs."""
    if (module, name) in (('numpy.core.multiarray', '_reconstruct'), ('numpy._core.multiarray', '_reconstruct')):
      return np.ndarray.__reduce__(np.empty(0))[0]  # wherever this numpy keeps it
    if (module, name) == ('numpy', 'ndarray'):
      return np.ndarray
    if (module, name) == ('numpy', 'dtype'):
      return _dtype
    if (module, name) == ('_codecs', 'encode'):  # how Python 3 writes bytes for Python 2
      return _latin1
    raise pickle.UnpicklingError(f'it asks for {module}.{name}')


def one_line(error: BaseException) -> str:
  """Kind and text of an error, in one short line."""
  return f'{type(error).__name__}: {" ".join(str(error).split())[:160]}'


def md5(path: pathlib.Path) -> str:
  """Of a file, in hex."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
