"""Decoded images kept between runs: a set of TFDS is decoded once, and known again by the bytes of its files.

They lie in the cache of this package, `images` in `files.cache()`, and may be removed at any time. A copy is taken only
if the folder that it was made from, and what decodes, are byte for byte the same, and its own bytes are those that were
written.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import time
from typing import Any

import numpy as np
import PIL
import PIL.features
import safetensors
import safetensors.numpy

from vimnas_jax import files

LEAST, MOST = 16 << 20, 1 << 30  # bytes of decoded images: fewer are decoded in no time, more would fill the cache
_FORM = 1  # of what is written
_BLOCK = 16 << 20
_DAY = 86_400  # seconds

Arrays = dict[str, np.ndarray]


def key(folder: pathlib.Path, asked: Any) -> str:
  """What a set is known by: names and bytes of all files of its folder, what was asked of them, and who decodes.

  `asked` is anything of JSON. Raises OSError where a file cannot be read.
  """
  digest = hashlib.blake2b(digest_size=20)
  decoders = [PIL.features.version(name) for name in ('jpg', 'zlib', 'webp', 'avif')]
  digest.update(json.dumps([_FORM, asked, PIL.__version__, decoders], sort_keys=True).encode())
  for code in sorted(pathlib.Path(__file__).parent.glob('*.py')):
    digest.update(code.read_bytes())
  for path in sorted(folder.iterdir()):
    digest.update(f'\n{path.name} {path.stat().st_size}\n'.encode(errors='surrogateescape'))
    with path.open('rb') as file:
      while block := file.read(_BLOCK):
        digest.update(block)
  return digest.hexdigest()


def _path(name: str) -> pathlib.Path:
  return files.cache() / 'images' / f'{name}.safetensors'


def _sum(arrays: Arrays) -> str:
  digest = hashlib.blake2b(digest_size=20)
  for name in sorted(arrays):
    digest.update(f'{name} {arrays[name].dtype.str} {arrays[name].shape}'.encode())
    digest.update(np.ascontiguousarray(arrays[name]).data)
  return digest.hexdigest()


def load(name: str) -> tuple[Arrays, Any] | None:
  """(Arrays, facts) as `save` was given them under the key `name`; None where there is no copy, or a damaged one."""
  path = _path(name)
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      told = file.metadata() or {}
      arrays = {each: file.get_tensor(each) for each in file.keys()}  # noqa: SIM118 (no mapping)
    if _sum(arrays) == told['sum']:
      with contextlib.suppress(OSError):
        os.utime(path)  # the copies that are asked for stay longest
      return arrays, json.loads(told['facts'])
  except (OSError, safetensors.SafetensorError, KeyError, ValueError):
    pass
  return None


def save(name: str, arrays: Arrays, facts: Any) -> None:
  """Keeps arrays, with facts of JSON, for `load`; nothing happens where they are too few or many, or the disk is full.

  Of older copies the ones that were asked for last stay, MOST bytes of all at most.
  """
  size = sum(array.nbytes for array in arrays.values())
  if not LEAST <= size <= MOST:
    return
  path = _path(name)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f'*{files.PART}'):  # by a kill
      if time.time() - left.stat().st_mtime > _DAY:
        left.unlink(missing_ok=True)
    kept = size
    for old in sorted(path.parent.glob('*.safetensors'), key=lambda each: each.stat().st_mtime, reverse=True):
      kept += old.stat().st_size
      if kept > MOST:
        old.unlink(missing_ok=True)
    with files.aside(path) as part:
      safetensors.numpy.save_file({each: np.ascontiguousarray(array) for each, array in arrays.items()}, part,
                                  {'sum': _sum(arrays), 'facts': json.dumps(facts)})
  except (OSError, safetensors.SafetensorError):
    pass  # a help to the next run, no more
