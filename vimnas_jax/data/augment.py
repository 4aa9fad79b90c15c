"""Augmentation of image batches, on the device and inside the jitted step.

Crop and flip as in torchvision (zeros around the image, in pixel space), then normalisation, then cutout (DeVries and
Taylor, 2017, as written in the DARTS code). The random numbers of an image depend only on the key and on its index
in the global batch, so any sharding of the batch gives the same images.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax.data import photometric
from vimnas_jax.data.streamed import Streamed
from vimnas_jax.errors import UserError


def normalise(images, mean, std):
  """(images / 255 - mean) / std as float32: uint8 [n, h, w, c] in, float32 [n, h, w, c] out; mean and std of c floats.

  Raises:
    UserError: mean or std does not have one number per channel.
  """
  channels = images.shape[-1]
  if len(mean) != channels or len(std) != channels:
    raise UserError(f'mean={mean} and std={std} do not fit images of shape {images.shape}; give {channels} numbers '
                    'each')
  mean, std = (np.asarray(stat, np.float32).reshape(1, 1, 1, channels) for stat in (mean, std))
  return (images.astype(jnp.float32) / jnp.float32(255) - mean) / std


def _crop(images, top, left, mirrored):
  """Images shifted by (top, left) pixels, zeros beyond the border, then mirrored where `mirrored`; pixels exact."""
  _, h, w, _ = images.shape
  cols = jnp.arange(w)[None, :]
  rows = top[:, None] + jnp.arange(h)[None, :]
  cols = left[:, None] + jnp.where(mirrored[:, None], w - 1 - cols, cols)
  inside = ((rows >= 0) & (rows < h))[:, :, None] & ((cols >= 0) & (cols < w))[:, None, :]
  # Two gathers beat one-hot products by 3 on CPU, and both split over devices without communication.
  images = jnp.take_along_axis(images, jnp.clip(rows, 0, h - 1)[:, :, None, None], 1, mode='promise_in_bounds')
  images = jnp.take_along_axis(images, jnp.clip(cols, 0, w - 1)[:, None, :, None], 2, mode='promise_in_bounds')
  return jnp.where(inside[..., None], images, jnp.zeros((), images.dtype))


def _cutout(images, y, x, side: int):
  """Images with the window of `side` pixels around (y, x) set to 0, clipped at the border; odd sides lose a pixel."""
  _, h, w, _ = images.shape
  half = side // 2
  dy = jnp.arange(h)[None, :] - y[:, None]
  dx = jnp.arange(w)[None, :] - x[:, None]
  hole = ((dy >= -half) & (dy < half))[:, :, None] & ((dx >= -half) & (dx < half))[:, None, :]
  return jnp.where(hole[..., None], jnp.float32(0), images)


def of(config, data):
  """`prepare(key, images, aspects=None)`: `augment` of the training images of `data`, as `config` (config.data) says.

  Images that are streamed have been cut at random by who decoded them, and are not cut again.

  Args:
    config: has pad, flip, cutout, smallest, jitter and hue.
    data: a `data.Data`.

  Raises:
    UserError: these images cannot be augmented so.
  """
  channels = data.image_shape[-1]
  for field in ('jitter', 'hue'):
    if config[field] and channels != 3:
      raise UserError(f'config.data.{field}={config[field]} needs three channels, the images of {data.name!r} have '
                      f'{channels}: set config.data.{field}=0')
  side = min(data.image_shape[:2])
  if config['cutout'] > side // 2:
    raise UserError(f'config.data.cutout={config["cutout"]} blanks more than half a side of images of '
                    f'{data.image_shape[0]}x{data.image_shape[1]}: set it to {side // 2} or less, 0 for none')
  streams = isinstance(data.train, Streamed)
  if streams and config['smallest'] and config['pad'] and not config['photographs']:
    raise UserError(f'config.data.smallest={config["smallest"]:g} cuts a random part of what is streamed, and '
                    f'config.data.pad={config["pad"]} would shift it: set config.data.pad=0')
  whole = data.train.aspects is not None or (streams and (config['photographs'] or config['smallest']))
  if whole and (not config['smallest'] or config['pad']):
    raise UserError(f'config.data.smallest={config["smallest"]}, config.data.pad={config["pad"]}: of photographs that '
                    'are held whole, random parts are trained on: set config.data.smallest=0.08 and config.data.pad=0, '
                    'or config.data.photographs=0')

  def prepare(key, images, aspects=None):
    return augment(key, images, mean=data.mean, std=data.std, pad=config.pad, flip=config.flip, cutout=config.cutout,
                   smallest=0.0 if streams else config.smallest, jitter=config.jitter, hue=config.hue, aspects=aspects,
                   side=data.image_shape[0])

  return prepare


@jax.named_scope('augment')
def augment(key, images, *, mean, std, pad: int, flip: bool, cutout: int, smallest: float = 0.0, jitter: float = 0.0,
            hue: float = 0.0, aspects=None, side: int = 0):
  """Random crop, random flip, colour jitter, normalisation and cutout of a batch.

  Args:
    key: a jax.random key; one per step.
    images: uint8 [n, h, w, c], the global batch.
    mean: c floats, on the scale 0 .. 1.
    std: c floats, on the same scale.
    pad: pixels of zeros on each side before the random crop back to [h, w]; 0 for no crop.
    flip: whether to mirror each image left to right with probability 1/2.
    cutout: side, in pixels, of the square that is set to 0 (the mean) around a uniformly drawn centre; 0 for none.
    smallest: above 0, a random part of the image of at least this share of its area is scaled to the whole: the crop
      of ImageNet.
    jitter: strength of random brightness, contrast and saturation; 0 for none.
    hue: largest random shift of the hue, in turns of the colour wheel; 0 for none.
    aspects: float32 [n], width / height of the photographs that were squeezed into `images` (`Split.aspects`); None
      where they are as they were.
    side: with `aspects`, pixels to which the random part is brought.

  Returns:
    float32 [n, h, w, c], or [n, side, side, c].

  Raises:
    UserError: a number is out of its range, mean or std does not fit the channels, or grey images are to be jittered.
  """
  if pad < 0 or cutout < 0:
    raise UserError(f'augmentation with pad={pad}, cutout={cutout}: both are pixels and cannot be negative; 0 is off')
  if not 0 <= smallest <= 1 or not 0 <= jitter <= 1 or not 0 <= hue <= 0.5:
    raise UserError(f'augmentation with a part of {smallest}, jitter {jitter} and hue {hue}: give at most 1, 1 and 0.5')
  if aspects is not None and not (smallest and side):
    raise UserError(f'augmentation of photographs with a part of {smallest} and a side of {side}: give both above 0')
  if (jitter or hue) and images.shape[-1] != 3:
    raise UserError(f'colour jitter needs three channels, the images have {images.shape[-1]}: set it to 0')
  n, h, w, _ = images.shape
  # One row per image whatever is switched on, so that a switch changes no other draw.
  bits = jax.random.bits(key, (5 * n,), jnp.uint32).reshape(n, 5)  # of one axis: compiled sooner

  def draw(column, count):  # uniform on 0 .. count - 1, up to a bias of count / 2**32
    return (bits[:, column] % jnp.uint32(count)).astype(jnp.int32)

  if pad or flip:
    mirrored = draw(2, 2) == 1 if flip else jnp.zeros((n,), bool)
    images = _crop(images, draw(0, 2 * pad + 1) - pad, draw(1, 2 * pad + 1) - pad, mirrored)
  if smallest or jitter or hue:
    part_key, color_key = jax.random.split(jax.random.fold_in(key, 1))
    images = images.astype(jnp.float32) / jnp.float32(255)
    if smallest:
      images = photometric.resized_crop(part_key, images, smallest, aspects, 0 if aspects is None else side)
    if jitter or hue:
      images = photometric.jitter(color_key, images, jitter, hue)
    images = images * jnp.float32(255)
  images = normalise(images, mean, std)
  _, h, w, _ = images.shape
  return _cutout(images, draw(3, h), draw(4, w), cutout) if cutout else images
