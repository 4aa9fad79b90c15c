"""Checkpoints with orbax: written aside and renamed, so that a kill leaves the previous one whole.

Each carries a digest of its arrays: what was damaged on disk is noticed, set aside under another name, and the one
before it is taken. Nothing is deleted but what newer checkpoints replace. What cannot be read for another reason (no
permission, a disk that is away for a moment) stops the run: it may be whole. They hold arrays of the host, not their
places on devices, so a run goes on with other devices and processes. A thread writes them while the run goes on; of
several processes the first does.
"""

import datetime
import errno
import hashlib
import os
import pathlib
import shutil
import threading
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from vimnas_jax import files
from vimnas_jax.errors import Diverged, UserError
from vimnas_jax.runs import hosts, parallel

ASIDE = 'damaged'  # begins the name of what is set aside
TEMPORARY = '.orbax-checkpoint-tmp'  # ends the name of what is being written


def digest(tree) -> str:
  """SHA-256, in hex, of the shapes, types and bytes of all arrays of a tree: equal only for equal bits."""
  sha = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    array = np.asarray(leaf)
    sha.update(f'{array.shape} {array.dtype}'.encode() + np.ascontiguousarray(array).tobytes())
  return sha.hexdigest()


def finite(tree) -> bool:
  """Whether every number of all arrays of a tree is finite."""
  return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree)
             if jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact))


class Checkpoints:
  """The checkpoints of one run folder.

  Args:
    workdir: the run folder.
    keep: how many of the newest are kept.
    hours: above 0, one in so many hours is kept beside them for good.
  """

  def __init__(self, workdir, keep: int = 2, hours: float = 0.0):
    self._root = pathlib.Path(workdir).resolve() / 'checkpoints'
    self._keep, self._hours, self._opened = keep, hours, None
    self._writing: threading.Thread | None = None
    self._failed: BaseException | None = None

  @property
  def _manager(self):
    if self._opened is None:
      if hosts.first():
        for left in self._root.glob(f'*{TEMPORARY}'):  # by a kill or a fault in the middle of a save
          shutil.rmtree(left, ignore_errors=True)
        self._root.mkdir(parents=True, exist_ok=True)
      process = jax.process_index()  # each on its own: orbax would otherwise wait for all at every call
      alone = ocp.options.MultiprocessingOptions(process, {process}, f'process_{process}')
      self._opened = ocp.CheckpointManager(self._root, options=ocp.CheckpointManagerOptions(
          max_to_keep=self._keep, create=False, enable_async_checkpointing=False, multiprocessing_options=alone,
          keep_time_interval=datetime.timedelta(hours=self._hours) if self._hours else None))
    return self._opened

  def steps(self) -> list[int]:
    """The steps that have a checkpoint, newest first. Raises UserError if the folder cannot be read."""
    try:
      return sorted((int(p.name) for p in self._root.iterdir() if p.name.isdecimal()), reverse=True)
    except FileNotFoundError:
      return []
    except OSError as e:
      raise self._unreadable(self._root, e) from None

  def save(self, step: int, state):
    """Writes `state` as the checkpoint after `step` steps, unless it is there already, while the caller goes on.

    Raises Diverged if a number of it is not finite, and OSError if the one before could not be written: what failed
    last is told by the next call of `save`, `restore` or `close`.
    """
    self._settle()
    if not hosts.first() or step in self.steps():
      return
    state = jax.device_get(state)  # the step that follows takes the arrays themselves
    if not finite(state):
      raise Diverged(f'step {step}: the state has numbers that are not finite, and was not saved')

    def write():
      try:
        self._write(step, state)
      except BaseException as e:  # told by the main thread
        self._failed = e

    self._writing = threading.Thread(target=write)
    self._writing.start()

  def _settle(self):
    """Waits for the write under way. Raises what it ended with."""
    if self._writing is not None:
      self._writing.join()
      self._writing = None
    if self._failed is not None:
      failed, self._failed = self._failed, None
      raise failed

  def _write(self, step, state):
    """Writes a state of the host. Raises OSError; nothing is written then."""
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    try:
      self._save(step, state)
      fault = self._fault(step, like)  # orbax takes some failed writes for successful ones
    except OSError:
      raise
    except Exception as e:  # tensorstore has its own words for a full disk
      fault = _line(e)
    if isinstance(fault, str) and isinstance(self._fault(step, like), str):
      self._close()
      shutil.rmtree(self._root / str(step), ignore_errors=True)  # never was a checkpoint
      raise OSError(errno.EIO, f'the checkpoint could not be written whole ({fault})', str(self._root / str(step)))

  def _save(self, step, state):
    """Has orbax write; where threads of a save that failed still make or remove folders in its folder, once more."""
    for wait in (0.1, 1.0, None):
      try:
        return self._manager.save(step, args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({'digest': digest(state)})))
      except (OSError, ValueError) as e:
        meddled = getattr(e, 'errno', None) in (errno.ENOTEMPTY, errno.EEXIST) or 'NOT_FOUND' in str(e)  # tensorstore's
        if not meddled or wait is None:
          raise
        time.sleep(wait)

  def restore(self, like, warn):
    """The newest state that is whole, or None.

    Args:
      like: `like(step)`: abstract state with shardings, for shapes and placement.
      warn: called with one line for each checkpoint that is damaged; such a one is set aside, in `checkpoints` under
        a name that begins with `damaged`.

    Raises:
      UserError: a checkpoint cannot be read, or is whole but has other parts than `like`. Nothing is changed then.
    """
    self._settle()
    if hosts.first():
      step, state = self._newest(like, warn)
      hosts.agreed(step)
    else:
      step = hosts.agreed(0)
      state = self._fault(step, like(step)) if step >= 0 else None
      if isinstance(state, str):
        raise UserError(f'process {jax.process_index()} cannot read {files.printable(self._root / str(step))} '
                        f'({state}): give all processes a --workdir on a file system that they share')
    if state is None:
      return None
    return jax.tree.map(lambda value, to: parallel.put(value, to.sharding), state, like(step))

  def _newest(self, like, warn):
    """(Step, state) of the newest checkpoint that is whole, or (-1, None)."""
    for step in self.steps():
      fault = self._fault(step, like(step))
      if not isinstance(fault, str):
        return step, fault
      self._readable(self._root / str(step))
      again = self._fault(step, like(step))  # all of it can be read now: was it no more than a passing error?
      if not isinstance(again, str):
        return step, again
      try:
        to = self._set_aside(step)
      except OSError as e:
        raise self._unreadable(self._root / str(step), e) from None
      warn(f'the checkpoint of step {step} is damaged ({fault[:100]}) and was set aside as {files.printable(to)}; '
           'trying the one before it')
    return -1, None

  def _fault(self, step, like):
    """The state of a checkpoint, as arrays of the host, or in one line what is wrong with it.

    Raises UserError if it is another network's.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
    try:
      found = self._manager.restore(step, args=ocp.args.Composite(
          state=ocp.args.StandardRestore(like), meta=ocp.args.JsonRestore()))
      whole = digest(found.state) == found.meta['digest']
    except Exception as e:  # orbax and tensorstore raise many kinds
      if 'structures do not match' in str(e):  # whole, but of another network or version
        raise UserError(f'{files.printable(self._root)} holds the checkpoints of another network, or of another '
                        'version of this package: give another --workdir') from None
      return _line(e)
    return jax.device_get(found.state) if whole else 'its contents differ from its digest'

  def _readable(self, folder):
    """Raises UserError unless every file below `folder` can be read to its end."""
    def failed(e):
      raise e

    try:
      for root, _, names in os.walk(folder, onerror=failed):
        for name in names:
          with (pathlib.Path(root) / name).open('rb') as file:
            while file.read(1 << 24):
              pass
    except OSError as e:
      raise self._unreadable(e.filename or folder, e) from None

  def _unreadable(self, path, error) -> UserError:
    return UserError(f'{files.printable(path)} cannot be read ({error.strerror or error}): nothing was changed; make '
                     'it readable and run the same command again')

  def _set_aside(self, step) -> pathlib.Path:
    number, folder = 0, self._root / str(step)
    while (to := self._root / f'{ASIDE}_{step}_{number}').exists():
      number += 1
    folder.rename(to)
    self._close()  # what the manager knows of the folder is out of date
    return to

  def close(self):
    """Waits for the write under way. Raises what it ended with."""
    try:
      self._settle()
    finally:
      self._close()

  def _close(self):
    if self._opened is not None:
      self._opened.close()
      self._opened = None


def _line(error) -> str:
  """Kind and first line of an error."""
  lines = [' '.join(line.split()) for line in str(error).splitlines() if line.strip()]
  return f'{type(error).__name__}: {lines[0][:200] if lines else ""}'.rstrip(': ')
