"""Batches of streamed images, decoded ahead of their use by the threads of this process or by processes of their own.

grain runs the workers. What they decode is written down beforehand as pieces, a few images of one batch each, and they
are taken in that order: the images of a step do not depend on how many work, nor on where a run went on.
"""

import contextlib
import dataclasses
import gc
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import resource_tracker

import numpy as np

from vimnas_jax.data import crops, streamed
from vimnas_jax.errors import UserError

PIECE = 32  # images that a worker decodes at a time
_LARGE = 1 << 16  # bytes of an array that does not go through a pipe
_AHEAD = 2  # pieces that every worker keeps ready, and as many that it works on


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
  """What is decoded, piece by piece; sent to the workers.

  Attributes:
    splits: the splits that images are of.
    places: int32, the places of all images in their split.
    ends: int64 [pieces], where in `places` each piece ends.
    split: int8 [pieces], which of `splits` it is of.
    step: int64 [pieces], the step that it is for.
    start: int64 [pieces], the place of its first image in the global batch.
    seed: of the random parts.
    trained: whether images are for training: cut at random where their form says so, and replaced where damaged.
  """

  splits: tuple[streamed.Streamed, ...]
  places: np.ndarray
  ends: np.ndarray
  split: np.ndarray
  step: np.ndarray
  start: np.ndarray
  seed: int = 0
  trained: bool = True

  def __len__(self) -> int:
    return len(self.ends)

  def __getitem__(self, i: int) -> streamed.Batch:
    """Piece `i`, decoded; see `Streamed.read`."""
    split, places = self.splits[self.split[i]], self.places[self.ends[i - 1] if i else 0:self.ends[i]]
    draws = None
    if self.trained and split.form.smallest:
      draws = [crops.numbers(self.seed, int(self.split[i]), int(self.step[i]), int(self.start[i]) + k)
               for k in range(len(places))]
    return split.read(places, draws, self.trained)


def pieces(splits: Sequence[streamed.Streamed], rows, seed: int = 0, trained: bool = True) -> Pieces:
  """The pieces of batches; `rows` has each as (step, number of the split, place in the global batch, places [n])."""
  places, ends, split, steps, starts, end = [], [], [], [], [], 0
  for step, which, start, batch in rows:
    for first in range(0, len(batch), PIECE):
      part = batch[first:first + PIECE]
      end += len(part)
      places.append(part)
      ends.append(end)
      split.append(which)
      steps.append(step)
      starts.append(start + first)
  return Pieces(tuple(splits), np.concatenate([*places, np.zeros(0, np.int32)]).astype(np.int32),
                np.array(ends, np.int64), np.array(split, np.int8), np.array(steps, np.int64),
                np.array(starts, np.int64), seed, trained)


class Loader:
  """Decoded pieces in their order. Close it, or leave it as a context, to end its workers."""

  def __init__(self, work: Pieces, workers: int):
    """`workers` is the number of processes; 0: threads of this one. Nothing starts before the first piece is asked."""
    import grain  # takes a second, so only when something is streamed
    from absl import flags
    if not flags.FLAGS.is_parsed():  # grain asks flags of its own, which a notebook never parses
      flags.FLAGS.mark_as_parsed()
    self._begun = False
    threads = _AHEAD if workers else streamed.cores()
    dataset = grain.MapDataset.source(work).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    workers = min(workers, len(work))
    if workers:
      _start_tracker()
      dataset = grain.experimental.WithOptionsIterDataset(
          dataset, grain.experimental.DatasetOptions(min_shm_size=_shared_from(work, workers)))
      dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(workers, _AHEAD), _begin)
    self._pieces = iter(dataset)

  def __enter__(self) -> 'Loader':
    return self

  def __exit__(self, *exc):
    self.close()

  def take(self, images: int) -> streamed.Batch:
    """The next pieces, of `images` images in all. Raises UserError, as workers do, and where one of them died."""
    parts = []
    while sum(len(part.labels) for part in parts) < images:
      try:
        if self._begun:
          parts.append(streamed.Batch(*next(self._pieces)))
        else:
          with _unsignalled():  # which processes that start now inherit, before they can say so themselves
            parts.append(streamed.Batch(*next(self._pieces)))
          self._begun = True
      except RuntimeError as e:  # grain's word for a process that is gone
        raise UserError(f'a process that decodes images ended ({str(e).splitlines()[0][:100]}): there may be too '
                        'little memory; lower config.data.workers, and run the same command again') from None
    joined = (np.concatenate([getattr(part, field) for part in parts]) for field in ('images', 'labels', 'real'))
    return streamed.Batch(*joined, [one for part in parts for one in part.damaged])

  def close(self):
    """Ends the workers and waits for them."""
    self._pieces.close()
    self._pieces = iter(())
    gc.collect()  # grain's circles hold the last arrays, and these shared memory


SIGNALS = tuple(getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGUSR1') if hasattr(signal, name))


@contextlib.contextmanager
def _unsignalled():
  """Holds signals back from this thread, and from what it starts."""
  if not hasattr(signal, 'pthread_sigmask'):  # Windows
    yield
    return
  before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker():
  """Starts Python's own process that frees what a killed run left behind, without its remark on it."""
  before = os.environ.get('PYTHONWARNINGS')
  os.environ['PYTHONWARNINGS'] = 'ignore:resource_tracker'
  try:
    resource_tracker.ensure_running()
  finally:
    os.environ.pop('PYTHONWARNINGS')
    if before is not None:
      os.environ['PYTHONWARNINGS'] = before


def _begin(index: int, count: int):
  """In a worker: leaves signals to the main process, at whose end, however it comes, the worker ends too."""
  del index, count
  for number in SIGNALS:  # Ctrl-C and schedulers reach every process of a group
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def follow():
    parent.join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


def _shared_from(work, workers) -> int:
  """Bytes from which arrays go through shared memory; more than any has where it has no room for them (containers)."""
  size = PIECE * int(np.prod(work.splits[0].form.shape))
  try:
    return _LARGE if shutil.disk_usage('/dev/shm').free > 8 * workers * size else 1 << 62
  except OSError:  # no such file system: whatever the system's way is
    return _LARGE


def evaluated(split: streamed.Streamed, batch: int, workers: int) -> Iterator[streamed.Batch]:
  """All images of `split` in order, `batch` at a time, the last of what is left; none cut at random or replaced."""
  rows = [(0, 0, start, np.arange(start, min(start + batch, len(split)))) for start in range(0, len(split), batch)]
  with Loader(pieces([split], rows, trained=False), workers) as loader:
    for _, _, _, places in rows:
      yield loader.take(len(places))


def workers(config: Mapping) -> int:
  """Processes that decode, as config.data.workers says; None: threads where there are four cores or fewer, else
  one for each core but two, at most 32.
  """
  if config['workers'] is not None:
    return config['workers']
  count = streamed.cores()
  return 0 if count <= 4 else min(count - 2, 32)
