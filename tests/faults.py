"""Faults of a disk, made in Python: the n-th open, read, write, rename … below a folder fails with a given error."""

import builtins
import contextlib
import errno
import io
import os
import pathlib

KINDS = ('open', 'read', 'write', 'rename', 'folder')
ERRORS = {'open': errno.EACCES, 'read': errno.EIO, 'write': errno.ENOSPC, 'rename': errno.EIO, 'folder': errno.EACCES}


class Disk:
  """Counts what is done to files below `root`; call `number` (from 0) of `kind` fails once, all others work.

  Attributes:
    calls: {kind: how many there were}.
    failed: what failed, in words, or ''.
  """

  def __init__(self, root, kind=None, number=0, error=None):
    self.calls, self.failed = dict.fromkeys(KINDS, 0), ''
    self._root, self._kind, self._number = str(pathlib.Path(root)), kind, number
    self._error = error or ERRORS.get(kind)

  def _count(self, kind, path):
    try:
      path = os.fsdecode(path)
    except TypeError:  # a number: a file that is open
      return
    if not path.startswith(self._root):
      return
    at, self.calls[kind] = self.calls[kind], self.calls[kind] + 1
    if (kind, at) == (self._kind, self._number):
      self.failed = f'{kind} {at} of {path}'
      raise OSError(self._error, os.strerror(self._error), path)

  @contextlib.contextmanager
  def works(self):
    """The block runs on this disk."""
    real = {name: getattr(os, name) for name in ('open', 'rename', 'replace', 'mkdir', 'listdir', 'scandir', 'rmdir')}
    opened = io.open

    def open_(file, mode='r', *args, **kwargs):
      self._count('open', file)
      return _File(opened(file, mode, *args, **kwargs), self, file)

    def counted(kind, name):
      def call(path='.', *args, **kwargs):
        self._count(kind, path)
        return real[name](path, *args, **kwargs)
      return call

    kinds = {'open': 'open', 'rename': 'rename', 'replace': 'rename'}
    builtins.open = io.open = open_
    for name in real:
      setattr(os, name, counted(kinds.get(name, 'folder'), name))
    try:
      yield self
    finally:
      builtins.open = io.open = opened
      for name, function in real.items():
        setattr(os, name, function)


class _File:
  """A file whose reads and writes are counted; all else is the file's own."""

  def __init__(self, file, disk, path):
    self._file, self._disk, self._path = file, disk, path

  def __getattr__(self, name):
    found = getattr(self._file, name)
    kind = {'read': 'read', 'readinto': 'read', 'readline': 'read', 'write': 'write', 'flush': 'write'}.get(name)
    if kind is None:
      return found

    def call(*args, **kwargs):
      self._disk._count(kind, self._path)
      return found(*args, **kwargs)
    return call

  def __enter__(self):
    self._file.__enter__()
    return self

  def __exit__(self, *exc):
    return self._file.__exit__(*exc)

  def __iter__(self):
    return iter(self._file)
