"""Files as every part of the package writes and reads them: whole or not at all, and damage told in one line."""

import contextlib
import difflib
import json
import math
import os
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from vimnas_jax.errors import UserError

PART = '.part'  # ends the name of a file that is being written
AnyPath = str | os.PathLike[str]


_FOLLOWS = False


def follow(follows: bool) -> None:
  """Whether this process is one of a job whose first process does the writing: then `write` does nothing."""
  global _FOLLOWS
  _FOLLOWS = follows


def following() -> bool:
  """What `follow` was told."""
  return _FOLLOWS


@contextlib.contextmanager
def aside(path: AnyPath) -> Iterator[pathlib.Path]:
  """Gives a path beside `path` to write to; when the block ends without an error it takes the place of `path`.

  A kill leaves the old file or the new one, never a part of one. The name beside is this process's own, so that two
  that write the same file leave one of the two, whole.
  """
  path = pathlib.Path(path)
  part = path.with_name(f'{path.name}.{os.getpid()}{PART}')
  try:
    yield part
    with part.open('r+b') as file:  # Windows wants a handle that writes
      os.fsync(file.fileno())  # or a power failure could leave the new name with nothing behind it
    part.replace(path)
  except BaseException:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)
    raise


def relative(path: AnyPath, start: AnyPath) -> str:
  """A path as seen from the folder `start`, with /, for a link; its URI where no way leads there, to another drive."""
  try:
    return pathlib.PurePath(os.path.relpath(path, start)).as_posix()
  except ValueError:
    return pathlib.Path(path).absolute().as_uri()


def cache() -> pathlib.Path:
  """The folder of what this package keeps between runs; all in it may be removed at any time."""
  base = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
  return pathlib.Path(base) / 'vimnas_jax'


def write(path: AnyPath, content: bytes | str) -> None:
  """Writes bytes, or text as UTF-8, whole or not at all; nothing where another process does. Raises OSError."""
  if _FOLLOWS:
    return
  with aside(path) as part:
    part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: AnyPath, value: Any) -> None:
  """Writes `value` as JSON; numbers that are not finite become null, for which JSON has no other word."""
  write(path, json.dumps(finite(value), indent=1, allow_nan=False) + '\n')


def finite(value: Any) -> Any:
  """JSON values with None for every number that is not finite."""
  if isinstance(value, dict):
    return {key: finite(v) for key, v in value.items()}
  if isinstance(value, list | tuple):
    return [finite(v) for v in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def read_bytes(path: AnyPath) -> bytes:
  """What is in a file. Raises UserError, in one line, where it cannot be read."""
  try:
    return pathlib.Path(path).read_bytes()
  except OSError as e:
    raise UserError(f'{printable(path)} cannot be read ({e.strerror or e}): make it readable') from None


def read_text(path: AnyPath) -> str:
  """The text of a UTF-8 file. Raises UserError, in one line, where it cannot be read or is no such text."""
  try:
    return read_bytes(path).decode()
  except UnicodeDecodeError:
    raise UserError(f'{printable(path)} is damaged (it is not UTF-8 text): restore it, or remove it') from None


def read_json(path: AnyPath, remedy: str = 'restore it, or remove it') -> dict[str, Any]:
  """The JSON object in a file. Raises UserError, in one line that ends with `remedy`, on anything else."""
  try:
    value = json.loads(read_text(path))
  except (ValueError, RecursionError) as e:  # RecursionError: nested without end
    raise UserError(f'{printable(path)} is damaged ({type(e).__name__}): {remedy}') from None
  if not isinstance(value, dict):
    raise UserError(f'{printable(path)} is damaged (it holds {type(value).__name__}, not an object): {remedy}')
  return value


def printable(text: object) -> str:
  """A name or path as one line that any terminal takes: bytes that are no text, and control characters, escaped."""
  text = str(text).encode('utf-8', 'backslashreplace').decode()
  return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def composed(name: str) -> str:
  """A name with every accent in one character with its letter, as most systems write it; macOS may write two."""
  return unicodedata.normalize('NFC', name)


def close(name: str, known: Sequence[str]) -> str:
  """' (did you mean NAME?)' with the name among `known` that is nearest to `name`, or ''."""
  nearest = difflib.get_close_matches(str(name), known, 1)
  return f' (did you mean {nearest[0]!r}?)' if nearest else ''


def flatten(config: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'a': {'b': 1}} -> {'a.b': 1}."""
  flat: dict[str, Any] = {}
  for name, value in config.items():
    flat |= flatten(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value}
  return flat
