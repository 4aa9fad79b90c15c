"""Checkpoints with orbax: written aside and renamed, so that a kill leaves the previous one whole.

Each carries a digest of its arrays: what was damaged on disk is noticed and the one before it is taken.
"""

import hashlib
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from vimnas_jax.errors import UserError


def digest(tree) -> str:
  """SHA-256, in hex, of the shapes, types and bytes of all arrays of a tree: equal only for equal bits."""
  sha = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    array = np.asarray(leaf)
    sha.update(f'{array.shape} {array.dtype}'.encode() + np.ascontiguousarray(array).tobytes())
  return sha.hexdigest()


class Checkpoints:
  """The checkpoints of one run folder."""

  def __init__(self, workdir, keep: int = 2):
    self._root = pathlib.Path(workdir).resolve() / 'checkpoints'
    self._manager = ocp.CheckpointManager(self._root, options=ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, enable_async_checkpointing=False))

  def save(self, step: int, state):
    """Writes `state` as the checkpoint after `step` steps, unless it is there already."""
    if step not in self._manager.all_steps():
      self._manager.save(step, args=ocp.args.Composite(
          state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({'digest': digest(state)})))

  def restore(self, like, warn):
    """The newest state that loads whole, or None.

    Args:
      like: abstract state with shardings, for shapes and placement.
      warn: called with one line for each checkpoint that is damaged; such a one is removed.

    Raises:
      UserError: the newest is whole, but has other parts than `like`.
    """
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        found = self._manager.restore(step, args=ocp.args.Composite(
            state=ocp.args.StandardRestore(like), meta=ocp.args.JsonRestore()))
        if digest(found.state) != found.meta['digest']:
          raise ValueError('its contents differ from its digest')
        return found.state
      except Exception as e:  # orbax and tensorstore raise many kinds for a damaged file
        reason = str(e).strip().splitlines() or [type(e).__name__]
        if 'structures do not match' in reason[0]:  # whole, but of another network or version: nobody's to remove
          raise UserError(f'{self._root} holds the checkpoints of another network, or of another version of this '
                          'package: give another --workdir') from None
        warn(f'checkpoint of step {step} is damaged and was removed ({reason[0][:100]}); trying the one before it')
        self._manager.delete(step)
    return None

  def close(self):
    """Waits for writes under way."""
    self._manager.close()
