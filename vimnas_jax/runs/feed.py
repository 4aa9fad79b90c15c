"""Batches of images that are streamed, step by step in the order of a run, and the record of those that are damaged."""

import functools
import json
import time

import jax

from vimnas_jax import data, files
from vimnas_jax.data import crops, loader, streamed
from vimnas_jax.errors import UserError
from vimnas_jax.runs import hosts, parallel

SPAN = 1 << 22  # images, about, for which workers are started once; an epoch at least


def check_alike(loaded: data.Data):
  """Raises UserError unless all processes of a job have the same images, and stream them, or none does: machines may
  differ in memory, and in what lies on their disks.
  """
  streams = isinstance(loaded.train, data.Streamed)
  if hosts.agreed(streams) != streams:
    words = 'streams', 'holds in memory'
    raise UserError(f'this process {words[not streams]} the images that the first {words[streams]}, by the memory that '
                    'each has: set config.data.stream=True, or False')
  if jax.process_count() > 1:
    own = loaded.fingerprint()
    if hosts.gathered(own)[0] != own:
      raise UserError(f'process {jax.process_index()} has other images of config.data.name={loaded.name!r} than the '
                      'first: give all hosts the same files, in config.data.dir')


class Damaged:
  """Images of a run that could not be decoded: each told once, kept in the run folder, and too many an error.

  Every process of a job tells those that it meets; `gather` makes them known to all, and the first writes them down.
  """

  def __init__(self, folder, limit: int, say):
    """`limit` is config.data.max_corrupt; `say` tells a line."""
    self._path = folder / 'damaged.json'
    self._limit, self._say = limit, say if hosts.first() else functools.partial(print, flush=True)
    self._reasons = files.read_json(self._path) if self._path.exists() else {}

  @property
  def names(self) -> list[str]:
    """What they are called, those of the run before a resume among them."""
    return sorted(self._reasons)

  def note(self, damaged, instead: str):
    """Adds (name, reason) of images; `instead` says what becomes of them. Raises UserError where they are too many."""
    new = {name: reason for name, reason in damaged if name not in self._reasons}
    if not new:
      return
    for name, reason in new.items():
      self._say(f'note: {name} is damaged ({reason}) and {instead}; {len(self._reasons) + len(new)} so far')
    self._add(new)

  def gather(self):
    """Adds what the other processes of the job have noted; all must call it. Raises UserError as `note`."""
    noted = {}
    for text in hosts.gathered(json.dumps(self._reasons)):
      noted |= json.loads(text)
    self._add({name: reason for name, reason in noted.items() if name not in self._reasons})

  def _add(self, new):
    if not new:
      return
    self._reasons |= new
    files.write_json(self._path, self._reasons)
    if len(self._reasons) > self._limit:
      name, reason = next(iter(new.items()))
      raise UserError(f'{len(self._reasons)} images are damaged, the last {name} ({reason}), more than '
                      f'config.data.max_corrupt={self._limit}: raise that to go on with this run; or repair what '
                      f'{files.printable(self._path)} and the notes above name, and begin another in a new --workdir')


class Feed:
  """`feed(at)`: the batch of step `at` (from 0), {'images': uint8 [n, h, w, c], 'labels': int32 [n]} on the devices.

  Of 'valid' the names are 'valid_images' and 'valid_labels'. Every process decodes its own rows of each batch alone.
  Close it, or leave it as a context, to end the workers.
  """

  def __init__(self, splits, order, per_epoch: int, total: int, mesh, config, damaged: Damaged, parts=None):
    """Nothing is read before the first batch is asked.

    Args:
      splits: {'train': data.Streamed} and, where batches are taken of it, 'valid'.
      order: `order(epoch)`, the batches of an epoch as in `loop.batches`.
      per_epoch: steps.
      total: steps of the run.
      mesh: the devices.
      config: the resolved configuration.
      damaged: where damaged images are noted.
      parts: `parts(at)`, which of the splits step `at` takes; None: 'train'.
    """
    self._splits, self._order, self._per_epoch, self._total = splits, order, per_epoch, total
    self._mesh, self._config, self._damaged = mesh, config, damaged
    self._parts = parts or (lambda at: ('train',))
    self._loader, self._at, self._end, self._batch, self._drawn = None, -1, 0, None, (None, None)

  def __enter__(self) -> 'Feed':
    return self

  def __exit__(self, *exc):
    self.close()

  def close(self):
    """Ends the workers."""
    if self._loader is not None:
      self._loader.close()
      self._loader = None

  def seconds(self, at: int) -> float:
    """About how long it takes to decode the batch of step `at`: some of its images are decoded here, for their time."""
    who = loader.workers(self._config.data) or streamed.cores()
    seconds = 0.0
    for part, places in self._rows(at):
      split, mine = self._splits[part], parallel.rows(self._mesh, len(places))
      piece = places[mine][:loader.PIECE]
      draws = [crops.numbers(0, 0, 0, i) for i in range(len(piece))] if split.form.smallest else None
      began = time.monotonic()
      split.read(piece, draws)
      seconds += (time.monotonic() - began) / len(piece) * (mine.stop - mine.start)
    return seconds / who

  def _rows(self, at):
    """(part, the places of its global batch) for every part of step `at`."""
    epoch = at // self._per_epoch
    if self._drawn[0] != epoch:
      self._drawn = epoch, self._order(epoch)
    drawn = self._drawn[1]
    for part in self._parts(at):
      yield part, (drawn[part] if isinstance(drawn, dict) else drawn)[at % self._per_epoch]

  def _open(self, at):
    """Starts the workers of the steps from `at` on."""
    self.close()
    names, rows, images, step = list(self._splits), [], 0, at
    while step < self._total and (images < SPAN or step % self._per_epoch):
      for part, batch in self._rows(step):
        mine = parallel.rows(self._mesh, len(batch))
        rows.append((step, names.index(part), mine.start, batch[mine]))
        images += len(batch)
      step += 1
    self._end = step
    work = loader.pieces(list(self._splits.values()), rows, self._config.seed)
    self._loader = loader.Loader(work, loader.workers(self._config.data))

  def __call__(self, at: int) -> dict:
    """See the class. Raises UserError where images cannot be read, or too many are damaged."""
    if at == self._at:
      return self._batch
    self._batch = None
    if self._loader is None or at != self._at + 1 or at >= self._end:
      self._open(at)
    batch = {}
    for part, places in self._rows(at):
      mine = parallel.rows(self._mesh, len(places))
      got = self._loader.take(mine.stop - mine.start)
      self._damaged.note(got.damaged, 'the next readable image stands in for it')
      prefix = '' if part == 'train' else f'{part}_'
      batch |= parallel.fed({f'{prefix}images': got.images, f'{prefix}labels': got.labels}, self._mesh, len(places))
    if (at + 1) % self._config.checkpoint_steps == 0:  # so that a checkpoint has with it what was damaged before it
      self._damaged.gather()
    self._at, self._batch = at, batch
    return batch
