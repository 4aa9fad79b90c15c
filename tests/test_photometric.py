import colorsys
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vimnas_jax import data
from vimnas_jax.data import augment, photometric
from vimnas_jax.errors import UserError

crop = jax.jit(photometric.resized_crop, static_argnums=(2, 4))  # one program, which is sooner there than its parts
jitter = jax.jit(photometric.jitter, static_argnums=(2, 3))
turn = jax.jit(photometric.turn)
augmented = jax.jit(augment.augment, static_argnames=('mean', 'std', 'pad', 'flip', 'cutout', 'smallest', 'jitter',
                                                      'hue', 'side'))


def _images(n=3, side=6):
  return jax.random.uniform(jax.random.key(0), (n, side, side, 3))


def test_hue_against_the_standard_library():
  images, by = _images(), jnp.array([0.0, 0.15, -0.4])
  got = np.asarray(turn(images, by))
  for n in range(3):
    for pixel, found in zip(np.asarray(images)[n].reshape(-1, 3), got[n].reshape(-1, 3), strict=True):
      h, s, v = colorsys.rgb_to_hsv(*pixel)
      np.testing.assert_allclose(found, colorsys.hsv_to_rgb((h + float(by[n])) % 1, s, v), atol=1e-5)
  grey = jnp.full((1, 2, 2, 3), 0.3)
  np.testing.assert_allclose(turn(grey, jnp.array([0.2])), grey, atol=1e-6)


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
  out = jitter(jax.random.key(1), images, 0.4, 0.2)
  assert float(out.min()) >= 0 and float(out.max()) <= 1
  assert len({float(x) for x in out[:, 0, 0, 0]}) == 4
  np.testing.assert_allclose(jitter(jax.random.key(1), images, 0.0, 0.0), images, atol=1e-5)


def test_resized_crops_are_parts_of_the_image():
  rows, columns = jnp.meshgrid(jnp.arange(32.0), jnp.arange(32.0), indexing='ij')
  images = jnp.tile(jnp.stack([rows, columns], -1)[None], (64, 1, 1, 1))
  out = np.asarray(crop(jax.random.key(2), images, 0.08))
  heights, widths = (np.ptp(out[:, 2:-2, 2:-2, c], axis=(1, 2)) * 32 / 27 for c in (0, 1))
  areas = heights * widths / 32 ** 2
  assert out.min() >= -1e-4 and out.max() <= 31 + 1e-4
  assert 0.03 < areas.min() < 0.3 and areas.max() > 0.7 and 0.6 < np.median(widths / heights) < 1.5
  slopes = np.diff(out[:, 16, 8:24, 1], axis=1)
  np.testing.assert_allclose(slopes, slopes[:, :1] * np.ones((1, 15)), atol=0.2)  # scaled in a straight line
  whole = crop(jax.random.key(3), jnp.full((2, 8, 8, 3), 0.7), 0.5)
  np.testing.assert_allclose(whole, 0.7, atol=1e-5)


def test_within_augment():
  images = (255 * _images(4, 8)).astype(jnp.uint8)
  plain = {'mean': (0.5,) * 3, 'std': (0.2,) * 3, 'pad': 0, 'flip': False, 'cutout': 0}
  key = jax.random.key(5)
  np.testing.assert_allclose(augmented(key, images, **plain, smallest=1.0)[..., 0].mean(),
                             augment.normalise(images, (0.5,) * 3, (0.2,) * 3)[..., 0].mean(), atol=0.1)
  out = augmented(key, images, **plain, smallest=0.2, jitter=0.4, hue=0.2)
  assert out.shape == images.shape and float(out.min()) >= -2.5001 and float(out.max()) <= 2.5001
  for bad in ({'smallest': 2.0}, {'jitter': -0.1}, {'hue': 0.7}):
    with pytest.raises(UserError, match='augmentation'):
      augmented(key, images, **plain, **bad)
  with pytest.raises(UserError, match='three channels'):
    augmented(key, images[..., :1], **{**plain, 'mean': (0.5,), 'std': (0.2,)}, jitter=0.4)


def test_crops_of_squeezed_photographs_are_drawn_in_the_shape_that_they_had():
  """Of a photograph twice as wide as high: shares of its area, and ratios that are near 1 there."""
  n, side = 128, 32
  rows, columns = jnp.meshgrid(jnp.arange(32.0) + 0.5, jnp.arange(32.0) + 0.5, indexing='ij')
  images = jnp.tile(jnp.stack([rows, columns], -1)[None] / 32, (n, 1, 1, 1))
  for aspect in (2.0, 0.5):
    out = np.asarray(crop(jax.random.key(2), images, 0.08, jnp.full((n,), aspect), side))
    assert out.shape == (n, side, side, 2)
    high, wide = (out[:, 20, 20, c] - out[:, 11, 11, c] for c in (0, 1))
    high, wide = high * side / 9, wide * side / 9  # shares of the sides
    ratio, area = aspect * wide / high, wide * high
    inner = (high < 0.9) & (wide < 0.9)  # others are clipped to the photograph
    assert 3 / 4 - 0.02 < ratio[inner].min() < 0.85 and 1.2 < ratio[inner].max() < 4 / 3 + 0.02
    assert 0.07 < area.min() < 0.2 and area.max() > 0.6
    assert out.min() >= -1e-4 and out.max() <= 1 + 1e-4


def test_a_photograph_that_was_square_is_cropped_as_ever():
  images = _images(4, 8)
  one = crop(jax.random.key(3), images, 0.2)
  other = crop(jax.random.key(3), images, 0.2, jnp.ones((4,)), 8)
  np.testing.assert_allclose(one, other, atol=1e-6)


def test_augment_brings_photographs_to_the_size_of_the_network():
  images = (255 * _images(4, 8)).astype(jnp.uint8)
  plain = {'mean': (0.5,) * 3, 'std': (0.2,) * 3, 'pad': 0, 'flip': True, 'cutout': 2}
  out = augmented(jax.random.key(5), images, **plain, smallest=0.2, aspects=jnp.full((4,), 1.5), side=6)
  assert out.shape == (4, 6, 6, 3) and out.dtype == jnp.float32
  for bad in ({'side': 6}, {'smallest': 0.2}):
    with pytest.raises(UserError, match='augmentation of photographs'):
      augmented(jax.random.key(5), images, **plain, aspects=jnp.ones((4,)), **bad)
  as_they_were = [augmented(jax.random.key(5), images[:, :6], **plain, smallest=0.2, side=n) for n in (0, 6)]
  np.testing.assert_array_equal(*as_they_were)


def test_what_the_images_do_not_allow_is_told_before_the_first_step():
  split = data.Split(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32))
  grey = data.Data('digits', split, split, 1, (0.5,), (0.5,))
  asked = {'smallest': 0.0, 'pad': 4, 'jitter': 0.0, 'hue': 0.0, 'flip': True, 'cutout': 0}
  augment.of(asked, grey)
  for field in ('jitter', 'hue'):
    with pytest.raises(UserError, match=rf"config.data.{field}=0.1 .*'digits' have 1: set config.data.{field}=0"):
      augment.of(asked | {field: 0.1}, grey)
  held = dataclasses.replace(grey, train=dataclasses.replace(split, aspects=np.ones(2, np.float32)))
  for fields in ({}, {'smallest': 0.08}, {'pad': 0}):
    with pytest.raises(UserError, match='set config.data.smallest=0.08 and config.data.pad=0'):
      augment.of(asked | fields, held)
  augment.of(asked | {'smallest': 0.08, 'pad': 0}, held)
  with pytest.raises(UserError, match='config.data.cutout=3 blanks more than half a side of images of 4x4: set i.* 2'):
    augment.of(asked | {'cutout': 3}, grey)
  augment.of(asked | {'cutout': 2}, grey)
