"""Images that lie encoded on a disk, by their number: files of a folder of classes, records of an ArrayRecord set.

A source is sent to the processes that decode, so that it is small: the names of ImageNet's 1.28 million files take
30 MB as one string of bytes. It opens nothing before it is first read.
"""

import functools
import hashlib
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vimnas_jax.data import records
from vimnas_jax.errors import UserError
from vimnas_jax.files import printable


class Item(NamedTuple):
  """An encoded image: the bytes of its file, the suffix of its name ('' where it has none), and its label."""

  encoded: bytes
  suffix: str
  label: int


class Files:
  """Image files, one folder a class."""

  known = True  # the labels are at hand

  def __init__(self, root: os.PathLike, folders: Sequence[str], files: Sequence[Sequence[str]]):
    """`files[label]` are the names of the files in the folder `folders[label]`, which is relative to `root`."""
    self._root, self._folders = os.fspath(root), list(map(os.fsencode, folders))
    names = [os.fsencode(name) for row in files for name in row]
    self._names = b''.join(names)
    self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    self.labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(row) for row in files])

  def __len__(self) -> int:
    return len(self.labels)

  def _path(self, i: int) -> bytes:
    """Of file `i`, relative to the root."""
    start = int(self._ends[i - 1]) if i else 0
    return os.path.join(self._folders[self.labels[i]], self._names[start:int(self._ends[i])])

  def name(self, i: int) -> str:
    """What file `i` is called."""
    return printable(os.fsdecode(self._path(i)))

  def read(self, rows: Sequence[int]) -> list[Item]:
    """Files by their numbers. Raises UserError where one cannot be read, which is not damage."""
    items = []
    for i in rows:
      path = os.path.join(os.fsencode(self._root), self._path(i))
      try:
        with open(path, 'rb') as file:
          items.append(Item(file.read(), os.path.splitext(os.fsdecode(path))[1], int(self.labels[i])))
      except OSError as e:
        raise UserError(f'cannot read the image {printable(os.fsdecode(path))} ({e.strerror or e}): make it readable, '
                        'and run again') from None
    return items

  @functools.cached_property
  def fingerprint(self) -> bytes:
    """SHA-256 of names and sizes of all files. Raises UserError where a size cannot be had."""
    digest = hashlib.sha256()
    digest.update(repr((self._folders, len(self))).encode())
    digest.update(self._names)
    digest.update(self._ends.data)
    digest.update(self.labels.data)
    root, sizes = os.fsencode(self._root), np.empty(len(self), np.int64)
    for i in range(len(self)):
      try:
        sizes[i] = os.stat(os.path.join(root, self._path(i))).st_size
      except OSError as e:
        raise UserError(f'cannot read the image {self.name(i)} ({e.strerror or e}): make it readable, and run '
                        'again') from None
    digest.update(sizes.data)
    return digest.digest()


class Records:
  """A split of an ArrayRecord set of TFDS, images not decoded. Labels lie with the images."""

  def __init__(self, folder: pathlib.Path, part: str, count: int, classes: int):
    """The split `part`, of `count` records, of the set in the version folder `folder`."""
    self._folder, self._part, self._count, self._classes = folder, part, count, classes
    self._labels, self._source, self._opening = None, None, threading.Lock()

  def __getstate__(self):
    return {**self.__dict__, '_labels': None, '_source': None, '_opening': None}  # each process opens it itself

  def __setstate__(self, state):
    self.__dict__.update(state, _opening=threading.Lock())

  def __len__(self) -> int:
    return self._count

  @property
  def known(self) -> bool:
    """Whether the labels are at hand."""
    return self._labels is not None

  @property
  def labels(self) -> np.ndarray:
    """Of all records, int32 [n]: the first time, every record is read for it."""
    if self._labels is None:
      block = 1000
      self._labels = np.array([item.label for start in range(0, len(self), block)
                               for item in self.read(range(start, min(start + block, len(self))))], np.int32)
    return self._labels

  def name(self, i: int) -> str:
    """What record `i` is called."""
    return f'image {i} of {self._part}'

  def read(self, rows: Sequence[int]) -> list[Item]:
    """Records by their numbers. Raises UserError where they cannot be read, or a label is none of the classes."""
    with records.readable(self._folder):
      with self._opening:
        if self._source is None:
          self._source = records.undecoded(self._folder, self._part)
      found = self._source.__getitems__(rows)
      for i, record in zip(rows, found):
        if not 0 <= record['label'] < self._classes:
          raise LookupError(f'label {record["label"]} of {self.name(i)} is outside 0..{self._classes - 1}')
    return [Item(record['image'], '', int(record['label'])) for record in found]

  @functools.cached_property
  def fingerprint(self) -> bytes:
    """SHA-256 of the split, its count, and the names and sizes of its files. Raises OSError."""
    files = sorted(self._folder.glob(f'*-{self._part}.array_record*'))
    sizes = [(file.name, file.stat().st_size) for file in files]
    return hashlib.sha256(repr((self._part, self._count, sizes)).encode()).digest()
