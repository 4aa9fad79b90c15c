"""What sources of photographs share: bringing an image to a size, and the moments of many."""

import numpy as np


def square(file, side: int) -> np.ndarray:
  """The image in an open file of Pillow's as uint8 [side, side, 3]: scaled so that the shorter side fits, then cut at
  the centre; transparency goes to black.
  """
  from PIL import Image, ImageOps
  if min(file.size) >= 2 * side:
    file.draft('RGB', (2 * side, 2 * side))  # a large JPEG is decoded at a fraction of its size
  return np.asarray(ImageOps.fit(file.convert('RGB'), (side, side), Image.Resampling.BICUBIC))


def moments(images) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and standard deviation of each channel of uint8 [n, h, w, c], pixel values scaled to 0 .. 1."""
  pixels = images.reshape(-1, images.shape[-1])
  # in blocks: a float copy of everything would take eight times the memory
  blocks = [b.astype(np.float64) / 255 for b in np.array_split(pixels, max(1, len(pixels) // 10**6))]
  mean = sum(b.sum(0) for b in blocks) / len(pixels)
  std = np.sqrt(sum(np.square(b - mean).sum(0) for b in blocks) / len(pixels))
  return tuple(mean.tolist()), tuple(np.maximum(std, 1e-3).tolist())
