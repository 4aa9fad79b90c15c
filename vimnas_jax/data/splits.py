"""The split files of NAS-Bench-201 (its configs/nas-benchmark): which images its authors search on and validate with.

`cifar-split.txt` halves CIFAR-10's training images. `cifar100-test-split.txt` and `imagenet-16-120-test-split.txt`
halve the test images: a search there trains on all training images and validates on the half `xvalid`, and the half
`xtest` is for test. Each list is known by the md5 of its indices, joined by commas; they count the images in the order
of the official archives, so that a data set read from TFDS, which shuffles, takes no split.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re

import numpy as np

from vimnas_jax.data.types import Data, Split
from vimnas_jax.errors import UserError
from vimnas_jax.files import printable

# data set -> name of its file, and the lists in it with their md5
FILES = {
    'cifar10': ('cifar-split.txt', {'train': '33271aabb5cacdf1c47132344207b167',
                                    'valid': 'bd93afc25a3cdc817687b3116cb89324'}),
    'cifar100': ('cifar100-test-split.txt', {'xvalid': 'd48b75ee54451361b1616f45319dd135',
                                             'xtest': 'bc3f493b9f567b07e7db64c062302fac'}),
    'imagenet16-120': ('imagenet-16-120-test-split.txt', {'xvalid': 'fc643d2a01459022f6010b8124fe9512',
                                                          'xtest': '87d86641fac2115e50fe88f86b9a3dc7'})}

_NUMBER = re.compile('[0-9]{1,9}').fullmatch


def apply(data: Data, path) -> Data:
  """`data` as the split file `path` divides it: `search` is set, and where the file halves the test images, `test`.

  Raises UserError if there is no such file, it is damaged, or it is of another data set.
  """
  path = pathlib.Path(path).expanduser()
  if data.name not in FILES:
    raise UserError(f'config.data.split={str(path)!r}: NAS-Bench-201 has split files for {", ".join(FILES)}, not for '
                    f'{data.name!r}: leave it empty')
  name, lists = FILES[data.name]
  index = _read(path, name, lists)
  first, second = (index[key] for key in lists)
  if data.name == 'cifar10':
    return dataclasses.replace(data, search=(_part(data.train, first, path),
                                             _part(data.train, second, path)))
  return dataclasses.replace(data, test=_part(data.test, second, path),
                             search=(data.train, _part(data.test, first, path)))


def beside(config) -> str:
  """config.data.split; for ImageNet16-120, where that is empty, the file beside the data if it is there."""
  if config.split or config.name != 'imagenet16-120':
    return config.split
  path = pathlib.Path(config.dir).expanduser() / FILES[config.name][0]
  return str(path) if path.is_file() else ''


def _read(path, name, lists) -> dict[str, np.ndarray]:
  shown = repr(printable(path))
  try:
    if os.path.exists(path) and not path.is_file() and not path.is_dir():
      raise UserError(f'config.data.split={shown} is no file: give {name} of NAS-Bench-201, or leave it empty')
    held = json.loads(path.read_bytes())
    index = {key: held[key][1] for key in lists}
    if any(not isinstance(rows, list) or any(type(row) is not str or not _NUMBER(row) for row in rows)
           for rows in index.values()):
      raise ValueError('no list of numbers, each as text')
  except OSError as e:
    raise UserError(f'config.data.split={shown} cannot be read ({e.strerror}): give {name} of NAS-Bench-201, or leave '
                    'it empty') from None
  except (ValueError, KeyError, TypeError, IndexError, RecursionError):
    raise UserError(f'config.data.split={shown} is no {name} of NAS-Bench-201 (no list {" or ".join(lists)}): fetch it '
                    'again, or leave it empty') from None
  for key, md5 in lists.items():
    found = hashlib.md5(','.join(index[key]).encode(), usedforsecurity=False).hexdigest()
    if found != md5:
      raise UserError(f'{printable(path)} has another list {key} than {name} of NAS-Bench-201 (md5 {found}, not '
                      f'{md5}): fetch it again, or leave config.data.split empty')
  return {key: np.array(rows, int) for key, rows in index.items()}


def _part(split: Split, rows, path) -> Split:
  if len(rows) and rows.max() >= len(split):
    raise UserError(f'{printable(path)} names image {rows.max():,} of a data set that has {len(split):,}: set '
                    'config.data.dir to the whole data set, or leave config.data.split empty')
  if len(np.unique(rows)) != len(rows):
    raise UserError(f'{printable(path)} names an image twice: fetch it again, or leave config.data.split empty')
  return Split(np.ascontiguousarray(split.images[rows]), split.labels[rows])
