import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vimnas_jax import augment, photometric
from vimnas_jax.errors import UserError


def _images(n=3, side=6):
  return jax.random.uniform(jax.random.key(0), (n, side, side, 3))


def test_hue_against_the_standard_library():
  images, by = _images(), jnp.array([0.0, 0.15, -0.4])
  got = np.asarray(photometric.turn(images, by))
  for n in range(3):
    for pixel, found in zip(np.asarray(images)[n].reshape(-1, 3), got[n].reshape(-1, 3), strict=True):
      h, s, v = colorsys.rgb_to_hsv(*pixel)
      np.testing.assert_allclose(found, colorsys.hsv_to_rgb((h + float(by[n])) % 1, s, v), atol=1e-5)
  grey = jnp.full((1, 2, 2, 3), 0.3)
  np.testing.assert_allclose(photometric.turn(grey, jnp.array([0.2])), grey, atol=1e-6)


def test_each_factor_against_pillow():
  from PIL import Image, ImageEnhance
  image = np.asarray(_images(1, 8)[0] * 255).astype(np.uint8)
  pillow = Image.fromarray(image)
  for kind, change in (('Brightness', photometric.brightness), ('Contrast', photometric.contrast),
                       ('Color', photometric.saturation)):
    for factor in (0.6, 1.3):
      want = np.asarray(getattr(ImageEnhance, kind)(pillow).enhance(factor), np.float32)
      got = 255 * np.asarray(change(jnp.asarray(image / 255.0, jnp.float32)[None], jnp.full((1, 1, 1, 1), factor)))[0]
      assert np.abs(got - want).max() < 2.01, kind  # Pillow rounds greys to integers first


def test_jitter_stays_in_range_differs_by_image_and_is_off_at_zero():
  images = jnp.tile(_images(1), (4, 1, 1, 1))
  out = photometric.jitter(jax.random.key(1), images, 0.4, 0.2)
  assert float(out.min()) >= 0 and float(out.max()) <= 1
  assert len({float(x) for x in out[:, 0, 0, 0]}) == 4
  np.testing.assert_allclose(photometric.jitter(jax.random.key(1), images, 0.0, 0.0), images, atol=1e-5)


def test_resized_crops_are_parts_of_the_image():
  rows, columns = jnp.meshgrid(jnp.arange(32.0), jnp.arange(32.0), indexing='ij')
  images = jnp.tile(jnp.stack([rows, columns], -1)[None], (64, 1, 1, 1))
  out = np.asarray(photometric.resized_crop(jax.random.key(2), images, 0.08))
  heights, widths = (np.ptp(out[:, 2:-2, 2:-2, c], axis=(1, 2)) * 32 / 27 for c in (0, 1))
  areas = heights * widths / 32 ** 2
  assert out.min() >= -1e-4 and out.max() <= 31 + 1e-4
  assert 0.03 < areas.min() < 0.3 and areas.max() > 0.7 and 0.6 < np.median(widths / heights) < 1.5
  slopes = np.diff(out[:, 16, 8:24, 1], axis=1)
  np.testing.assert_allclose(slopes, slopes[:, :1] * np.ones((1, 15)), atol=0.2)  # scaled in a straight line
  whole = photometric.resized_crop(jax.random.key(3), jnp.full((2, 8, 8, 3), 0.7), 0.5)
  np.testing.assert_allclose(whole, 0.7, atol=1e-5)


def test_within_augment():
  images = (255 * _images(4, 8)).astype(jnp.uint8)
  plain = {'mean': (0.5,) * 3, 'std': (0.2,) * 3, 'pad': 0, 'flip': False, 'cutout': 0}
  key = jax.random.key(5)
  np.testing.assert_allclose(augment.augment(key, images, **plain, smallest=1.0)[..., 0].mean(),
                             augment.normalise(images, (0.5,) * 3, (0.2,) * 3)[..., 0].mean(), atol=0.1)
  out = augment.augment(key, images, **plain, smallest=0.2, jitter=0.4, hue=0.2)
  assert out.shape == images.shape and float(out.min()) >= -2.5001 and float(out.max()) <= 2.5001
  for bad in ({'smallest': 2.0}, {'jitter': -0.1}, {'hue': 0.7}):
    with pytest.raises(UserError, match='augmentation'):
      augment.augment(key, images, **plain, **bad)
  with pytest.raises(UserError, match='three channels'):
    augment.augment(key, images[..., :1], **{**plain, 'mean': (0.5,), 'std': (0.2,)}, jitter=0.4)
