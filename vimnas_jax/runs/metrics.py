"""Lines of JSON on disk, and progress on the console."""

import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

import rich.console
import rich.progress

from vimnas_jax import files
from vimnas_jax.errors import UserError
from vimnas_jax.runs import events


class Lines:
  """A file of JSON objects, one a line, each with a 'step'."""

  def __init__(self, path, from_step: int, tensorboard: bool = False):
    """Opens `path` for appending; lines later than `from_step`, which a resumed run writes again, are dropped.

    With `tensorboard` its numbers go into an event file beside it, too.

    Raises UserError if the file is damaged, and OSError if it cannot be written.
    """
    rows = [row for row in read(path) if row['step'] <= from_step]
    files.write(path, ''.join(json.dumps(row) + '\n' for row in rows))
    place = os.devnull if files.following() else path
    self._file = pathlib.Path(place).open('a', encoding='utf-8')  # noqa: SIM115 (until close)
    self._events = events.opened(tensorboard, pathlib.Path(path).parent, rows)

  def write(self, **row):
    """Appends one line; what is not finite becomes null, as JSON has no word for it."""
    self._file.write(json.dumps(files.finite(row)) + '\n')
    self._file.flush()
    if self._events:
      self._events.write(row)

  def close(self):
    """Closes the file."""
    with contextlib.suppress(OSError):  # of a full disk; `write` has told it already
      self._file.close()
    if self._events:
      with contextlib.suppress(OSError):
        self._events.close()


def read(path) -> list[dict]:
  """The rows of a file that `Lines` wrote; [] if there is none. A last line cut short by a kill is left out.

  Raises UserError, naming the line, where another one is damaged, and where the file cannot be read.
  """
  if not pathlib.Path(path).exists():
    return []
  rows = []
  lines = files.read_bytes(path).split(b'\n')[:-1]  # what follows the last line break was cut short
  for number, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
      if not isinstance(row['step'], int):
        raise TypeError('step')
    except (ValueError, KeyError, TypeError, RecursionError) as e:
      raise UserError(f'{files.printable(path)}, line {number} is damaged ({type(e).__name__}): restore the file, or '
                      'delete that line') from None
    rows.append(row)
  return rows


def duration(seconds: float) -> str:
  """A time as '45 s', '12 min' or '3.4 h'."""
  if seconds < 90:
    return f'{max(seconds, 0):.0f} s'
  return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


class Console:
  """A progress bar on a terminal; elsewhere a plain line at most every `seconds` seconds.

  A console that is closed, or knows fewer characters, stops no run.
  """

  def __init__(self, seconds: float = 10.0):
    self._console = _Rich(highlight=False, soft_wrap=True, markup=False)
    self._bar, self._task, self._last, self._seconds = None, None, 0.0, seconds
    self._from: tuple[int, float] | None = None  # (step, moment) that the time left is reckoned from
    self._most: Callable[[], float] | None = None  # the most seconds that may be left

  def say(self, text: str):
    """Prints one line; nothing where another process does."""
    if files.following():
      return
    encoding = getattr(sys.stdout, 'encoding', None) or 'utf-8'
    try:
      self._console.print(text.encode(encoding, 'backslashreplace').decode(encoding))
      sys.stdout.flush()
    except (OSError, ValueError, AttributeError):  # a pipe whose reader is gone; closed; none at all
      _silence()

  @contextlib.contextmanager
  def progress(self, total: int, done: int, left: Callable[[], float] | None = None):
    """Shows the way from `done` to `total` steps while the block runs; `left()` is the most seconds it may take."""
    self._from, self._most = (done, time.monotonic()), left
    if not self._console.is_terminal or files.following():
      yield
      return
    columns = (rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(), rich.progress.TimeRemainingColumn(),
               rich.progress.TextColumn('{task.description}', markup=False))
    with rich.progress.Progress(*columns, console=self._console) as self._bar:
      self._task = self._bar.add_task('', total=total, completed=done)
      yield
    self._bar = None

  def step(self, step: int, total: int, text: str):
    """Reports that `step` of `total` steps are done."""
    if self._bar:
      self._bar.update(self._task, completed=step, description=text)
    elif time.monotonic() - self._last > self._seconds or step == total:
      self._last = time.monotonic()
      self.say(f'step {step}/{total}  {text}{self._left(step, total)}')

  def _left(self, step, total):
    """The time that is left at the pace so far, as the end of a line; a terminal's bar has it too."""
    if self._from is None or not self._from[0] < step < total:
      return ''
    first, began = self._from
    seconds = (time.monotonic() - began) / (step - first) * (total - step)
    return f'  about {duration(seconds if self._most is None else min(seconds, self._most()))} left'

  def waited(self, seconds: float):
    """Takes time that no step took, as that of a compiler, out of the pace."""
    if self._from is not None:
      self._from = self._from[0], self._from[1] + seconds


class _Rich(rich.console.Console):
  def on_broken_pipe(self):
    """Rich would end the process."""
    raise BrokenPipeError


def _silence():
  """Lets what else is printed go nowhere, also what Python flushes at its end."""
  with contextlib.suppress(OSError, ValueError, AttributeError):
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
