"""What a data set is: two splits of images and labels, and what is needed to normalise them."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vimnas_jax.data import streamed
from vimnas_jax.errors import UserError

DRAWN = 'drawn class by class, 1'  # the rule of parts.py; another number when it draws otherwise


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Images and their labels, held in memory; `streamed.Streamed` is the other kind.

  Attributes:
    images: uint8 [n, h, w, c].
    labels: int32 [n], each in 0 .. classes - 1.
    aspects: float32 [n], width / height that photographs had before they were squeezed to squares; None where images
      are as they were.
    files: [n], what their files are called, or which images of a file of one's own they are; None where not known.
  """

  images: np.ndarray  # [n, h, w, c]
  labels: np.ndarray
  aspects: np.ndarray | None = None
  files: np.ndarray | None = None

  known = True  # the labels are at hand

  def __len__(self) -> int:
    return len(self.images)

  def take(self, rows) -> 'Split':
    """The part of it with these rows, a slice or indices."""
    more = (None if each is None else each[rows] for each in (self.aspects, self.files))
    return Split(self.images[rows], self.labels[rows], *more)

  def batch(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) of a range of it."""
    return self.images[start:stop], self.labels[start:stop]

  def shrunk(self, by: int) -> 'Split':
    """Every image averaged over squares of `by` pixels, which divides both sides, and rounded."""
    n, h, w, c = self.images.shape
    squares = self.images.reshape(n, h // by, by, w // by, by, c)
    return dataclasses.replace(self, images=np.rint(squares.mean((2, 4), dtype=np.float32)).astype(np.uint8))

  def renumbered(self, table: np.ndarray) -> 'Split':
    """The same images with labels `table[label]`."""
    return dataclasses.replace(self, labels=table[self.labels])

  def name(self, i: int) -> str:
    """What image `i` is called: its file, or its number."""
    return str(i if self.files is None else self.files[i])

  def digest(self, digest):
    """Adds shape, type and bytes of every array to a hashlib digest."""
    for array in (self.images, self.labels, *(() if self.aspects is None else (self.aspects,))):
      digest.update(f'{array.shape} {array.dtype.str}'.encode())
      digest.update(np.ascontiguousarray(array).data)


AnySplit = Split | streamed.Streamed


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
  """A data set.

  Attributes:
    name: the name that config.data.name chooses.
    train: the training split.
    test: the test split.
    num_classes: how many classes there are.
    mean: mean of each channel, pixel values scaled to 0 .. 1.
    std: standard deviation of each channel, on the same scale.
    search: what a search trains on and validates with, where the data say so (splits.py); else it halves `train`.
    valid: images by which a retraining chooses the state that it keeps, none of them in `train`; None where there are
      none (config.data.validation).
    rule: in words, where the parts came from, if there was a choice.
    class_names: the name of every class, in the order of the labels; () where the source has none.
    left_out: (file, reason) of every file that lies with the data and was not read.
    recipe: how an image file becomes an array, as JSON values, so that an export can repeat it; {} where images are
      arrays from the start.
    shuffled: whether images are in an order that has nothing to do with their classes; if not, parts of them are
      drawn class by class (`parts.py`).
    side: of the images that a network is given, where training images are held larger; 0 where all are of one size.
    both: (file, training file) of every image for test or validation that is a training image too, pixel by pixel, as
      far as that is known.
    placement: the line that says whether images are held in memory or streamed, and why; '' where nothing was chosen.
  """

  name: str
  train: AnySplit
  test: AnySplit
  num_classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  search: tuple[AnySplit, AnySplit] | None = None
  valid: AnySplit | None = None
  rule: str = ''
  class_names: tuple[str, ...] = ()
  left_out: tuple[tuple[str, str], ...] = ()
  recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  shuffled: bool = True
  side: int = 0
  placement: str = ''
  both: tuple[tuple[str, str], ...] = ()

  def name_of(self, label: int) -> str:
    """What class `label` is called: its name, or its number where it has none."""
    return self.class_names[label] if self.class_names else str(label)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(height, width, channels) of one image that a network is given."""
    return (self.side, self.side, self.train.images.shape[-1]) if self.side else tuple(self.train.images.shape[1:])

  def fingerprint(self) -> str:
    """SHA-256, in hex, of the name and of the shape, type and bytes of every array: equal only for equal data.

    Of a split that is streamed, of the names and sizes of its files instead.
    The path of a file of one's own does not count: `own.py` stands for it.
    Of images that are not shuffled also of the names of the classes, which their folders gave them, and of the rule by
    which parts are drawn.
    """
    digest = hashlib.sha256(repr('own.py' if self.name.endswith('.py') else self.name).encode())
    for split in (self.train, self.test, *(self.search or ()), *((self.valid,) if self.valid else ())):
      split.digest(digest)
    if not self.shuffled:
      digest.update(f'{DRAWN} {self.class_names!r}'.encode())
    if self.valid:
      digest.update(f'valid {len(self.valid)}'.encode())
    if self.side:
      digest.update(f'side {self.side}'.encode())
    return digest.hexdigest()


def nor(others) -> str:
  """Words for those that lack something too: '' where there are none."""
  return f' (nor {"has 1 other" if len(others) == 1 else f"have {len(others)} others"})' if len(others) else ''


def check_split(data: Data, part: str, split: AnySplit):
  """Raises UserError, in one line, where images or labels of `split`, called `part`, are unfit."""
  where = f'config.data.name={data.name!r}, {part} split'
  images, labels = split.images, split.labels if split.known else np.zeros(len(split), np.int32)
  if images.dtype != np.uint8 or images.ndim != 4:
    raise UserError(f'{where}: images are {images.dtype} of shape {images.shape}; give uint8 [n, h, w, c]')
  if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
    raise UserError(f'{where}: labels are {labels.dtype} of shape {labels.shape}; give int32 [{len(images)}], one per '
                    'image')
  if not images.size:
    raise UserError(f'{where}: no images (shape {images.shape}); a search needs at least one image in each split')
  outside = np.flatnonzero((labels < 0) | (labels >= data.num_classes))
  if len(outside):
    raise UserError(f'{where}: label {labels[outside[0]]} of image {outside[0]} is outside 0..{data.num_classes - 1}; '
                    'correct the label or the number of classes')


def _check_names(data, where):
  if data.class_names and len(data.class_names) != data.num_classes:
    raise UserError(f'{where}: {len(data.class_names)} names of classes for {data.num_classes} classes; give one each')
  twice = [name for i, name in enumerate(data.class_names) if name in data.class_names[:i]]
  if twice:
    raise UserError(f'{where}: two classes are called {twice[0]!r}: rename one of them')


def check(data: Data) -> Data:
  """Returns `data`. Raises UserError, in one line, where it cannot be trained on."""
  check_split(data, 'train', data.train)
  check_split(data, 'test', data.test)
  if data.valid:
    check_split(data, 'validation', data.valid)
  where = f'config.data.name={data.name!r}'
  held = data.train.images.shape[1:] if data.train.aspects is None else data.image_shape
  if held != data.test.images.shape[1:]:
    raise UserError(f'{where}: training images are {data.train.images.shape[1:]}, test images '
                    f'{data.test.images.shape[1:]}; bring both to one size')
  _check_names(data, where)
  labels = data.train.labels if data.train.known else np.arange(data.num_classes)
  missing = np.flatnonzero(np.bincount(labels, minlength=data.num_classes) == 0)
  if len(missing):
    raise UserError(f'{where}: class {data.name_of(missing[0])!r} has no training image{nor(missing[1:])}: add some, '
                    'or take the class away')
  channels = data.image_shape[-1]
  if len(data.mean) != channels or len(data.std) != channels or min(data.std) <= 0:
    raise UserError(f'{where}: mean={data.mean} and std={data.std} do not fit {channels} channels; give one number '
                    'per channel, std above 0')
  return data
