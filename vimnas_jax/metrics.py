"""Lines of JSON on disk, and progress on the console."""

import contextlib
import json
import math
import pathlib
import sys
import time

import rich.console
import rich.progress


class Lines:
  """A file of JSON objects, one a line, each with a 'step'."""

  def __init__(self, path, from_step: int):
    """Opens `path` for appending; lines later than `from_step`, which a resumed run writes again, are dropped."""
    self._path = pathlib.Path(path)
    kept = [row for row in read(path) if row['step'] <= from_step]
    self._path.write_text(''.join(json.dumps(row) + '\n' for row in kept))
    self._file = self._path.open('a')

  def write(self, **row):
    """Appends one line; what is not finite becomes null, as JSON has no word for it."""
    row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    self._file.write(json.dumps(row) + '\n')
    self._file.flush()

  def close(self):
    """Closes the file."""
    self._file.close()


def read(path) -> list[dict]:
  """The rows of a file that `Lines` wrote; [] if there is none. A last line cut short by a kill is left out."""
  rows = []
  if pathlib.Path(path).exists():
    for line in pathlib.Path(path).read_text().splitlines():
      with contextlib.suppress(ValueError):
        rows.append(json.loads(line))
  return rows


class Console:
  """A progress bar on a terminal; elsewhere a plain line at most every `seconds` seconds."""

  def __init__(self, seconds: float = 10.0):
    self._console = rich.console.Console(highlight=False, soft_wrap=True, markup=False)
    self._bar, self._task, self._last, self._seconds = None, None, 0.0, seconds

  def say(self, text: str):
    """Prints one line."""
    self._console.print(text)
    sys.stdout.flush()

  @contextlib.contextmanager
  def progress(self, total: int, done: int):
    """Shows the way from `done` to `total` steps while the block runs."""
    if not self._console.is_terminal:
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
      self.say(f'step {step}/{total}  {text}')
