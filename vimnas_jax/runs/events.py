"""The scalars of metrics.jsonl for TensorBoard, as an event file beside it: config.tensorboard.

The file is made anew from the lines that are there when a run starts or goes on, so that it never has other steps.
"""

import math
import pathlib
import time
from collections.abc import Iterable, Mapping

from vimnas_jax import files

FILE = 'events.out.tfevents.vimnas_jax'  # TensorBoard looks for `tfevents` in the name
_SECONDS = 10.0  # between two writes to the disk: what a kill loses, metrics.jsonl has


class Events:
  """The event file of a folder, which begins with `rows` of its metrics.jsonl. Close it."""

  def __init__(self, folder: pathlib.Path, rows: Iterable[Mapping]):
    from tensorboardX.record_writer import RecordWriter
    self._writer, self._flushed = RecordWriter(str(folder / FILE)), time.monotonic()
    self._record(file_version='brain.Event:2')
    for row in rows:
      self.write(row)
    self._writer.flush()

  def write(self, row: Mapping):
    """Adds every number of a line of metrics.jsonl, under its name, at the line's step."""
    from tensorboardX.proto.summary_pb2 import Summary
    values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()
              if name != 'step' and isinstance(value, int | float) and math.isfinite(value)]
    self._record(step=row['step'], summary=Summary(value=values))
    if time.monotonic() - self._flushed > _SECONDS:
      self._writer.flush()
      self._flushed = time.monotonic()

  def _record(self, **fields):
    from tensorboardX.proto.event_pb2 import Event
    self._writer.write(Event(wall_time=time.time(), **fields).SerializeToString())

  def close(self):
    """Closes the file."""
    self._writer.close()


def opened(asked: bool, folder: pathlib.Path, rows: Iterable[Mapping]) -> Events | None:
  """The events of a run where they are asked for; None in a process that writes nothing."""
  return Events(folder, rows) if asked and not files.following() else None
