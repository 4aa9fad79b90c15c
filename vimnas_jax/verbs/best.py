"""The state of a training that was best on validation images, in one file of its run folder."""

import json
import math
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from vimnas_jax import files
from vimnas_jax.errors import UserError

FILE = 'best.safetensors'


class Kept(NamedTuple):
  """After which step a state was kept, and its accuracy in % and loss on the validation images."""

  step: int
  top1: float
  loss: float


def kept(folder) -> Kept | None:
  """What folder/best.safetensors holds; None if there is none. Raises UserError where it is damaged."""
  path = folder / FILE
  return _read(path)[0] if path.exists() else None


def offer(folder, before: Kept | None, now: Kept, variables) -> Kept:
  """Keeps `variables` if `now` is better than `before`: more accurate, or as accurate with less loss.

  Any state is better than one whose loss is not finite: what that calls an image means nothing. Returns what is kept
  then. The file is written whole or not at all, so that a kill loses neither. Raises OSError.
  """
  if before is not None and _rank(before) >= _rank(now):
    return before
  arrays = {name: np.ascontiguousarray(a) for name, a in flatten_dict(jax.device_get(variables), sep='/').items()}
  files.write(folder / FILE, safetensors.numpy.save(arrays, {'kept': json.dumps(now)}))
  return now


def _rank(state: Kept) -> tuple[bool, float, float]:
  finite = math.isfinite(state.loss)
  return finite, state.top1, -state.loss if finite else 0.0


def read(folder) -> tuple[Kept, Any]:
  """(what is kept, its variables). Raises UserError where the file is missing or damaged."""
  found, arrays = _read(folder / FILE)
  return found, unflatten_dict(arrays, sep='/')


def _read(path):
  raw = files.read_bytes(path)
  try:
    header = json.loads(raw[8:8 + int.from_bytes(raw[:8], 'little')])
    step, top1, loss = json.loads(header['__metadata__']['kept'])
    return Kept(int(step), float(top1), float(loss)), safetensors.numpy.load(raw)
  except Exception as e:  # the library's own error among them
    raise UserError(f'{files.printable(path)} is damaged ({type(e).__name__}): give another --workdir') from None
