"""Python files of the user's own: run, known by their code, and told in one line where they fail."""

import ast
import hashlib
import importlib.machinery
import importlib.util
import pathlib
import sys
import traceback
import types
from typing import Any, Self

from vimnas_jax import files
from vimnas_jax.errors import UserError


class Source(importlib.machinery.SourceFileLoader):
  """Compiles what the file says now, and keeps nothing: Python takes a copy beside it for the same if size and second
  of the last change are the same.
  """

  def get_code(self, fullname: str) -> types.CodeType:
    """The code of the module `fullname`."""
    return self.source_to_code(self.get_data(self.path), self.path)


def run(path: str, where: str) -> Any:
  """The module that the file `path` is, executed. Raises UserError, which begins with `where`, if it fails."""
  file = pathlib.Path(path).expanduser().absolute()
  if not file.is_file():
    raise UserError(f'{where}: there is no such file; give the path of yours, from here')
  if file.suffix != '.py':
    raise UserError(f'{where}: its name must end in .py')
  name = f'userfile_{hashlib.sha256(bytes(file)).hexdigest()[:12]}'
  loader = Source(name, str(file))
  spec = importlib.util.spec_from_file_location(name, file, loader=loader)
  assert spec is not None  # as there is a loader
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module  # dataclasses look their module up
  with Told(path, where, 'the file'):
    loader.exec_module(module)
  return module


class Told:
  """Turns what the code of the file `path` raises inside the block into a UserError: `where`: `what` fails, line 3."""

  def __init__(self, path: str, where: str, what: str):
    self._path, self._where, self._what = path, where, what

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               trace: types.TracebackType | None) -> None:
    if isinstance(error, UserError):
      raise UserError(f'{self._where}: {error}') from None
    if isinstance(error, Exception):
      file = pathlib.Path(self._path).expanduser().absolute()
      own = [frame.lineno for frame in traceback.extract_tb(trace) if pathlib.Path(frame.filename) == file]
      if isinstance(error, SyntaxError) and error.lineno:
        own = [error.lineno]
      line = f', line {own[-1]}' if own else ''
      raise UserError(f'{self._where}: {self._what} fails{line} ({reason(error)}): mend the file') from None


def reason(error: BaseException) -> str:
  """What an exception says, as a part of a line."""
  return files.printable(f'{type(error).__name__}: {" ".join(str(error).split())[:160]}')


def fingerprint(path: str) -> str:
  """SHA-256 of the code of a file, comments and docstrings left out. Raises UserError where it cannot be read."""
  try:
    tree = ast.parse(files.read_text(pathlib.Path(path).expanduser()))
  except (SyntaxError, ValueError, RecursionError) as e:
    raise UserError(f'{files.printable(path)} cannot be read ({reason(e)}): mend the file') from None
  for node in ast.walk(tree):
    body = getattr(node, 'body', None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
      body[0].value = ast.Constant(None)
  whole = {'show_empty': True} if sys.version_info >= (3, 13) else {}  # as Python 3.11 writes a tree
  return hashlib.sha256(ast.dump(tree, **whole).replace(', type_params=[]', '').encode()).hexdigest()
