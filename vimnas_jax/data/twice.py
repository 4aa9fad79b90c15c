"""Images that lie in two parts of a data set, of which an accuracy says little: the network has seen them."""

import hashlib
from collections.abc import Sequence

import numpy as np

from vimnas_jax.data.types import AnySplit, Data, Split


def found(data: Data) -> tuple[tuple[str, str], ...]:
  """What `Data.both` has, of a folder or a file of one's own that is held in memory as it is trained on; else ()."""
  train, others = data.train, [split for split in (data.test, data.valid) if isinstance(split, Split)]
  if not isinstance(train, Split) or train.files is None or train.aspects is not None:
    return ()
  return tuple(pair for split in others for pair in pairs(split.images, split.files, train.images, train.files))


def between(one: AnySplit | None, other: AnySplit | None) -> tuple[tuple[str, str], ...]:
  """`pairs` of two parts, of a folder or a file of one's own that is held in memory as it is used; else ()."""
  if not isinstance(one, Split) or not isinstance(other, Split) or one.files is None or other.files is None or (
      one.aspects is not None or other.aspects is not None):
    return ()
  return pairs(one.images, one.files, other.images, other.files)


def conflicting(split: AnySplit) -> tuple[tuple[str, str], ...]:
  """(name, name of the first image that is the same and of another class) of the images of one part, as `between`."""
  if not isinstance(split, Split) or split.files is None or split.aspects is not None:
    return ()
  first: dict[bytes, int] = {}
  same = [(i, first.setdefault(_print(image), i)) for i, image in enumerate(split.images)]
  return tuple((split.files[i], split.files[j]) for i, j in same if split.labels[i] != split.labels[j])


def pairs(images: np.ndarray, names: Sequence[str], train: np.ndarray, train_names: Sequence[str]) -> tuple[
    tuple[str, str], ...]:
  """(name, name of the first training image that is the same) of all `images` that are training images too.

  Args:
    images: uint8 [n, h, w, c].
    names: what they are called.
    train: training images, uint8 [m, h, w, c]; of another size none is the same.
    train_names: what these are called.
  """
  if images.shape[1:] != train.shape[1:]:
    return ()  # held at another size
  first = {_print(image): name for image, name in zip(train[::-1], list(train_names)[::-1])}
  known = ((name, first.get(_print(image))) for image, name in zip(images, names))
  return tuple((name, other) for name, other in known if other is not None)


def _print(image):
  return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()
