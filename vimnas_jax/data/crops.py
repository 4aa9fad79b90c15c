"""Random resized crops of whole photographs on the host, as torchvision's RandomResizedCrop draws them.

The numbers of an image are a function of (seed, part, step, place in the global batch) alone: any number of workers and
of processes, and a run that goes on, draw the same.
"""

import math

import numpy as np

RATIO = 3 / 4, 4 / 3  # width to height of a crop
TRIES = 10  # shapes that are drawn before the centre is taken


def numbers(seed: int, part: int, step: int, place: int) -> np.ndarray:
  """Uniform on 0 .. 1, float64 [TRIES, 4], for the image at `place` of the global batch of `step`; Philox's bits."""
  raw = np.random.Philox(key=[seed, part], counter=[0, 0, place, step]).random_raw(4 * TRIES)
  return (raw >> np.uint64(11)).reshape(TRIES, 4) * 2.0**-53


def box(width: int, height: int, smallest: float, u: np.ndarray) -> tuple[int, int, int, int]:
  """The part of an image that is scaled to the whole: (left, top, right, bottom), in pixels.

  A share of the area, uniform from `smallest` to 1, and a ratio, uniform in its logarithm over RATIO, are drawn until
  the shape fits the image; after TRIES of them the largest centre part within RATIO is taken.

  Args:
    width: of the image.
    height: of the image.
    smallest: least share of the area.
    u: float64 [TRIES, 4], as `numbers` gives it: area, ratio, top and left of each try.
  """
  low, high = map(math.log, RATIO)
  for area, ratio, top, left in u.tolist():
    target, shape = width * height * (smallest + (1 - smallest) * area), math.exp(low + (high - low) * ratio)
    w, h = round(math.sqrt(target * shape)), round(math.sqrt(target / shape))
    if 0 < w <= width and 0 < h <= height:
      top, left = math.floor(top * (height - h + 1)), math.floor(left * (width - w + 1))
      return left, top, left + w, top + h
  w, h = width, height
  if width / height < RATIO[0]:
    h = round(w / RATIO[0])
  elif width / height > RATIO[1]:
    w = round(h * RATIO[1])
  left, top = (width - w) // 2, (height - h) // 2
  return left, top, left + w, top + h


def resized(image, shape: tuple[int, int], smallest: float, u: np.ndarray):
  """The random part of an image of Pillow's, upright, brought to `shape` (height, width), bilinear, antialiased."""
  from PIL import Image
  return image.crop(box(*image.size, smallest, u)).resize(shape[::-1], Image.Resampling.BILINEAR)


def sufficient(side: int, smallest: float) -> int:
  """Pixels of the shorter side of a photograph of which every part that `box` draws has at least 2 `side` pixels."""
  return math.ceil(2 * side / math.sqrt(smallest * RATIO[0]))
