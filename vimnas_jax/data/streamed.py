"""Splits that are not held in memory: images stay encoded on the disk until a batch asks for them.

A damaged image is left out where images are evaluated. Where they are trained on, the next readable one of the part
that is trained on, in the part's own order and round its end, stands in for it: a rule that knows no batch, so that
workers, processes and a run that goes on all keep to it.
"""

import concurrent.futures
import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vimnas_jax.data import pixels, records, sources
from vimnas_jax.errors import UserError
from vimnas_jax.files import printable

SHARE = 4  # a set is held in memory if it takes one part in so many of it, and of a device's
SAMPLE = 2048  # images of which mean and std are taken
SEED = 0  # by which those are drawn
_RUN = 1000  # damaged images in a row that are passed over
_CGROUPS = '/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'


class Batch(NamedTuple):
  """Decoded images.

  Attributes:
    images: uint8 [n, h, w, c].
    labels: int32 [n].
    real: bool [n], False where nothing could be read.
    damaged: (name, reason) of every image that could not be decoded.
  """

  images: np.ndarray
  labels: np.ndarray
  real: np.ndarray
  damaged: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
  """What an encoded image becomes.

  Attributes:
    shape: (height, width, channels).
    recipe: of pixels.py, for an image that is not cut at random; None where files have that shape already.
    smallest: least share of a random part, where parts are drawn (crops.py).
    max_pixels: an image of more is refused.
  """

  shape: tuple[int, int, int]
  recipe: Mapping[str, Any] | None
  smallest: float
  max_pixels: int

  def decode(self, item: sources.Item, u: np.ndarray | None = None) -> np.ndarray:
    """The image of `item`, or by the numbers `u` a random part of it; raises whatever Pillow raises on damage."""
    if self.recipe is None:
      image = records.exact(item.encoded, self.shape)
      return image if u is None else records.part(image, self.smallest, u)
    file = io.BytesIO(item.encoded)
    if u is None:
      return pixels.decode(file, self.recipe, self.max_pixels, item.suffix)[0]
    return pixels.part(file, self.shape[0], self.smallest, u, self.max_pixels, item.suffix)


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed:
  """Encoded images by their place in a part, with the methods of `types.Split`.

  Attributes:
    source: of sources.py.
    rows: int32 [n], which items of the source, in order.
    form: what they become.
    table: int32, the label that each label of the source stands for; None: itself.
  """

  source: sources.Files | sources.Records
  rows: np.ndarray
  form: Form
  table: np.ndarray | None = None
  aspects = None  # photographs are cut whole, not squeezed

  def __len__(self) -> int:
    return len(self.rows)

  @property
  def known(self) -> bool:
    """Whether the labels are at hand; if not, asking for them reads the whole set."""
    return self.source.known

  @property
  def named(self) -> bool:
    """Whether images are files, with names."""
    return isinstance(self.source, sources.Files)

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """int32 [n]."""
    labels = self.source.labels[self.rows]
    return labels if self.table is None else self.table[labels]

  @property
  def images(self) -> 'Images':
    """The images, decoded when they are taken, none cut at random."""
    return Images(self)

  def take(self, rows) -> 'Streamed':
    """The part of it with these rows, a slice or indices."""
    return dataclasses.replace(self, rows=self.rows[rows])

  def batch(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) of a range of it, decoded now; see `read`."""
    return self.decoded(np.arange(start, min(stop, len(self))))[:2]

  def decoded(self, places: np.ndarray) -> Batch:
    """The images at `places`, decoded now by all cores; see `read`."""
    pieces = np.array_split(places, max(1, min(len(places) // 8, 4 * cores())))
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
      batches = list(pool.map(self.read, pieces))
    joined = (np.concatenate([getattr(batch, field) for batch in batches]) for field in ('images', 'labels', 'real'))
    return Batch(*joined, [one for batch in batches for one in batch.damaged])

  def renumbered(self, table: np.ndarray) -> 'Streamed':
    """The same images with labels `table[label]`."""
    return dataclasses.replace(self, table=table if self.table is None else table[self.table])

  def name(self, i: int) -> str:
    """What image `i` is called."""
    return self.source.name(int(self.rows[i]))

  def digest(self, digest):
    """Adds what tells the split from another, files by their names and sizes, to a hashlib digest."""
    digest.update(f'streamed {self.form.shape} {self.form.recipe!r}'.encode())
    digest.update(self.source.fingerprint)
    digest.update(np.ascontiguousarray(self.rows).data)

  def read(self, places: Sequence[int], draws: Sequence[np.ndarray] | None = None, replaced: bool = True) -> Batch:
    """The images at `places`, or by `draws` (`crops.numbers`, one each) random parts of them.

    Args:
      places: 0 .. n - 1.
      draws: None for whole images.
      replaced: whether another image stands in for a damaged one; else it is black, and not `real`.

    Raises:
      UserError: a read that failed, an image of too many pixels, or none that is readable.
    """
    images, labels = np.zeros((len(places), *self.form.shape), np.uint8), np.zeros(len(places), np.int32)
    real, damaged = np.ones(len(places), bool), []
    items = self.source.read(self.rows[np.asarray(places)].tolist())
    for k, item in enumerate(items):
      u = None if draws is None else draws[k]
      place = int(places[k])
      while (reason := self._decode(images[k:k + 1], place, item, u)) and replaced:
        damaged.append((self.name(place), reason))
        place = (place + 1) % len(self)
        if place == places[k] or len(damaged) > _RUN:
          raise UserError(f'{len(damaged)} images, {self.name(int(places[k]))} and those after it, cannot be read '
                          f'({reason}): repair or remove them')
        item = self.source.read([int(self.rows[place])])[0]
      if reason:
        damaged.append((self.name(place), reason))
        real[k] = False
      labels[k] = item.label if self.table is None else self.table[item.label]
    return Batch(images, labels, real, damaged)

  def _decode(self, out, place, item, u) -> str:
    """Decodes into `out` [1, h, w, c]; the reason why it could not be, or ''."""
    try:
      out[0] = self.form.decode(item, u)
    except MemoryError:
      raise UserError(f'cannot read the image {self.name(place)}: out of memory; lower config.data.max_pixels='
                      f'{self.form.max_pixels} to find such images') from None
    except Exception as e:  # Pillow raises many kinds for a damaged file
      return printable(' '.join(str(e).split())[:100]) or type(e).__name__
    return ''


class Images:
  """The images of a split as an array that decodes what is taken of it: `images[rows]`, uint8 [n, h, w, c]."""

  dtype, ndim = np.dtype(np.uint8), 4

  def __init__(self, split: Streamed):
    self._split = split
    self.shape = len(split), *split.form.shape

  def __len__(self) -> int:
    return self.shape[0]

  @property
  def size(self) -> int:
    """Values in all."""
    return int(np.prod(self.shape))

  def __getitem__(self, rows) -> np.ndarray:
    return self._split.decoded(np.arange(len(self))[rows]).images


def cores() -> int:
  """Processors that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def stats(config, split: Streamed) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and std of each channel, as `moments` has them; zeros and ones where config.data.moments names others."""
  channels = split.form.shape[-1]
  return moments(split) if config.moments == 'own' else ((0.0,) * channels, (1.0,) * channels)


def moments(split: Streamed) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and std (`pixels.moments`) of SAMPLE of the images, drawn by a fixed seed; of all where they are no more."""
  count = len(split)
  drawn = np.random.default_rng(SEED).choice(count, SAMPLE, replace=False) if count > SAMPLE else np.arange(count)
  return pixels.moments(split.images[np.sort(drawn)])


def chosen(config, images: int, shape: Sequence[int]) -> tuple[bool, str]:
  """Whether `images` images, uint8 of `shape` each, are streamed, and the line that says so and why.

  `config` (config.data) has `stream`: True or False; None asks for it where they would take more than one part in SHARE
  of the memory of this machine or of a device.
  """
  size = images * int(np.prod(shape, dtype=object))
  room = {'memory': _memory(), "a device's memory": _device_memory()}
  told = f'{images:,} images of {"x".join(map(str, shape))} are {_gigabytes(size)} decoded'
  small = [f'{_gigabytes(most)} of {what}' for what, most in room.items() if most and size > most // SHARE]
  if config.stream is not None:
    return config.stream, f'{told}: {"streamed" if config.stream else "held in memory"}, as config.data.stream asks'
  if small:
    return True, f'{told}, more than a quarter of {small[0]}: streamed (config.data.stream=False would hold them)'
  return False, f'{told}: held in memory'


def _gigabytes(size) -> str:
  return f'{size / 1e9:,.1f} GB' if size >= 1e8 else f'{size / 1e6:,.1f} MB' if size >= 1e5 else f'{size} bytes'


def _memory() -> int:
  """Bytes of memory that this process may have; 0 where it cannot be told."""
  sizes = []
  if hasattr(os, 'sysconf') and 'SC_PHYS_PAGES' in os.sysconf_names:
    sizes.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
  for path in map(pathlib.Path, _CGROUPS):  # a container's own limit
    try:
      sizes.append(int(path.read_bytes()))
    except (OSError, ValueError):
      continue
  return min(sizes, default=0)


def _device_memory() -> int:
  """Bytes of memory of a device that is no processor; 0 where there is none."""
  import jax
  return (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit', 0)
