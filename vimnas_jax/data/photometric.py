"""Augmentations of photographs: random resized crops and colour jitter, as torchvision has them, on the device.

Two things differ from torchvision, for the sake of one fixed program: a crop whose drawn shape does not fit the image
is clipped to it instead of drawn again, and the four colour operations take one random order for the whole batch.
"""

import functools
import math

import jax
import jax.numpy as jnp

RATIO = 3 / 4, 4 / 3  # width to height of a crop
_GREY = (0.299, 0.587, 0.114)


def resized_crop(key, images, smallest: float, aspects=None, side: int = 0):
  """Random parts of images, scaled to the whole size.

  Args:
    key: a jax.random key.
    images: float [n, h, w, c].
    smallest: least share of the image's area that a part has; the largest is 1.
    aspects: float [n], width / height of the photographs that were squeezed into `images`, in whose geometry areas and
      ratios are then drawn; None where images are as they were.
    side: height and width of what is returned; 0 for those of `images`.

  Returns:
    float [n, h, w, c], or [n, side, side, c], bilinear with antialiasing.
  """
  n, h, w, c = images.shape
  high, wide = (side, side) if side else (h, w)
  u = jax.random.uniform(key, (n, 4))
  area = (smallest + (1 - smallest) * u[:, 0]) * h * w
  ratio = jnp.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * u[:, 1])
  if aspects is not None:
    ratio = ratio * (w / h) / aspects  # a part as wide as high there is this much narrower here; shares stay shares
  width, height = jnp.minimum(jnp.sqrt(area * ratio), w), jnp.minimum(jnp.sqrt(area / ratio), h)
  top, left = u[:, 2] * (h - height), u[:, 3] * (w - width)

  def one(image, top, left, height, width):
    scale = jnp.stack([high / height, wide / width])
    shape, shift = (high, wide, c), -jnp.stack([top, left]) * scale
    return jax.image.scale_and_translate(image, shape, (0, 1), scale, shift, 'linear')

  return jax.vmap(one)(images, top, left, height, width)


def jitter(key, images, strength: float, hue: float):
  """Random brightness, contrast, saturation (each by a factor of 1 - strength to 1 + strength) and hue.

  Args:
    key: a jax.random key.
    images: float [n, h, w, 3] on the scale 0 .. 1.
    strength: of the factors.
    hue: largest shift of the hue either way, in turns of the colour wheel, up to 1/2.

  Returns:
    float [n, h, w, 3] on the scale 0 .. 1.
  """
  order_key, key = jax.random.split(key)
  u = jax.random.uniform(key, (images.shape[0], 4), minval=-1.0)
  order = jax.random.permutation(order_key, 4)
  factors = [(1 + strength * u[:, i])[:, None, None, None] for i in range(3)]
  changes = (functools.partial(brightness, factor=factors[0]), functools.partial(contrast, factor=factors[1]),
             functools.partial(saturation, factor=factors[2]), functools.partial(turn, by=hue * u[:, 3]))
  for i in range(4):
    images = jax.lax.switch(order[i], changes, images)
  return images


def _blend(a, b, factor):
  return jnp.clip(factor * a + (1 - factor) * b, 0.0, 1.0)


def grey(images):
  """Luma of images [n, h, w, 3]: [n, h, w, 1]."""
  return (images @ jnp.array(_GREY, images.dtype))[..., None]


def brightness(images, factor):
  """Images blended with black; factor [n, 1, 1, 1]."""
  return jnp.clip(factor * images, 0.0, 1.0)


def contrast(images, factor):
  """Images blended with their mean grey; factor [n, 1, 1, 1]."""
  return _blend(images, grey(images).mean((1, 2, 3), keepdims=True), factor)


def saturation(images, factor):
  """Images blended with their grey; factor [n, 1, 1, 1]."""
  return _blend(images, grey(images), factor)


def turn(images, by):
  """Images [n, h, w, 3] with their hue turned by `by` [n], in turns of the colour wheel."""
  high, low = images.max(-1), images.min(-1)
  spread = high - low
  safe = jnp.where(spread > 0, spread, 1.0)
  r, g, b = images[..., 0], images[..., 1], images[..., 2]
  hue = jnp.where(high == r, (g - b) / safe, jnp.where(high == g, 2 + (b - r) / safe, 4 + (r - g) / safe)) / 6
  hue = (hue + by[:, None, None]) % 1.0

  def channel(offset):  # of HSV to RGB: 5, 3, 1 for red, green, blue
    k = (offset + 6 * hue) % 6
    return high - spread * jnp.clip(jnp.minimum(k, 4 - k), 0.0, 1.0)

  return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], -1)
