import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vimnas_jax.data.augment import augment, normalise
from vimnas_jax.errors import UserError

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
PLAIN = {'mean': (0.0,) * 3, 'std': (1.0,) * 3}
OFF = {'pad': 0, 'flip': False, 'cutout': 0}

run = jax.jit(augment, static_argnames=('mean', 'std', 'pad', 'flip', 'cutout'))


def batch(n=64, h=32, w=32, c=3, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8)


def scaled(images, mean, std):
  return (images.astype(np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)


def crops(image, pad):
  """Every crop of one image, by hand: {(top, left, mirrored): uint8 [h, w, c]}."""
  h, w, c = image.shape
  big = np.zeros((h + 2 * pad, w + 2 * pad, c), np.uint8)
  for y in range(h):
    for x in range(w):
      big[y + pad, x + pad] = image[y, x]
  found = {}
  for top in range(2 * pad + 1):
    for left in range(2 * pad + 1):
      window = big[top:top + h, left:left + w]
      found[top, left, False] = window
      found[top, left, True] = np.stack([window[:, w - 1 - x] for x in range(w)], 1)
  return found


def choices(image, outputs, pad):
  """Which crop each of `outputs` is; fails if one is none."""
  index = {crop.tobytes(): choice for choice, crop in crops(image, pad).items()}
  pixels = outputs * np.float32(255)
  assert np.abs(pixels - np.rint(pixels)).max() < 1e-4
  return [index[np.rint(pixel).astype(np.uint8).tobytes()] for pixel in pixels]


def centres(outputs, h, w, side):
  """Which cutout centre each output, of nonzero images, shows; fails if one shows none."""
  half, index = side // 2, {}
  for y in range(h):
    for x in range(w):
      mask = np.ones((h, w), bool)
      y1, y2 = np.clip(y - half, 0, h), np.clip(y + half, 0, h)
      x1, x2 = np.clip(x - half, 0, w), np.clip(x + half, 0, w)
      mask[y1:y2, x1:x2] = False
      index[mask.tobytes()] = y, x
  assert len(index) == h * w
  assert ((outputs != 0).all(-1) == (outputs != 0).any(-1)).all()
  return [index[(output[..., 0] != 0).tobytes()] for output in outputs]


def uniform(values, expected):
  """Chi squared within 5 standard deviations of its mean, and every value seen."""
  counts = [values.count(value) for value in expected]
  assert sum(counts) == len(values) and min(counts) > 0
  mean = len(values) / len(expected)
  freedom = len(expected) - 1
  assert abs(sum((count - mean) ** 2 / mean for count in counts) - freedom) < 5 * (2 * freedom) ** 0.5


def test_normalise():
  images = batch(4)
  got = normalise(images, MEAN, STD)
  assert got.dtype == jnp.float32 and got.shape == images.shape
  want = (images.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
  np.testing.assert_allclose(got, want, atol=1e-6)
  with pytest.raises(UserError, match='3 numbers each'):
    normalise(images, (0.5,), STD)


def test_everything_off_is_normalise():
  images = batch()
  got = run(jax.random.key(0), images, mean=MEAN, std=STD, **OFF)
  np.testing.assert_array_equal(got, jax.jit(normalise, static_argnums=(1, 2))(images, MEAN, STD))
  np.testing.assert_allclose(got, scaled(images, MEAN, STD), atol=1e-6)


@pytest.mark.parametrize('shape, pad', [((6, 6, 3), 2), ((5, 8, 3), 1), ((4, 4, 3), 6)])
def test_crops_and_flips_are_exact_and_uniform(shape, pad):
  image = batch(1, *shape)[0] | 1  # no zeros inside
  n = 20000 if pad < 6 else 500
  images = np.broadcast_to(image, (n, *shape))
  outputs = np.asarray(run(jax.random.key(1), images, **PLAIN, **{**OFF, 'pad': pad, 'flip': True}))
  if pad < 6:
    found = choices(image, outputs, pad)
    offsets = range(2 * pad + 1)
    uniform(found, [(top, left, mirrored) for top in offsets for left in offsets for mirrored in (False, True)])
  else:  # crops beyond the image are black, and so not to be told apart
    allowed = {crop.tobytes() for crop in crops(image, pad).values()}
    pixels = np.rint(outputs * 255).astype(np.uint8)
    assert all(pixel.tobytes() in allowed for pixel in pixels) and (pixels == 0).all((1, 2, 3)).any()


def test_each_image_is_cropped_by_itself():
  images = batch(64) | 1
  outputs = np.asarray(run(jax.random.key(2), images, **PLAIN, **{**OFF, 'pad': 4, 'flip': True}))
  found = [choices(image, output[None], 4)[0] for image, output in zip(images, outputs)]
  assert len(set(found)) > 40
  loop = np.stack([crops(image, 4)[choice] for image, choice in zip(images, found)])
  np.testing.assert_allclose(outputs, loop.astype(np.float32) / np.float32(255), rtol=2e-7)  # a reciprocal's rounding


@pytest.mark.parametrize('pad, flip', [(4, False), (0, True)])
def test_crop_and_flip_switch_off_apart(pad, flip):
  images = batch(64) | 1
  outputs = np.asarray(run(jax.random.key(2), images, **PLAIN, **{**OFF, 'pad': pad, 'flip': flip}))
  found = [choices(image, output[None], pad)[0] for image, output in zip(images, outputs)]
  assert {mirrored for _, _, mirrored in found} == ({False, True} if flip else {False})
  assert len({(top, left) for top, left, _ in found}) > 30 if pad else {f[:2] for f in found} == {(0, 0)}


@pytest.mark.parametrize('h, w, side', [(8, 8, 4), (8, 6, 5), (8, 8, 6)])
def test_cutout_window_is_clipped_and_its_centre_uniform(h, w, side):
  images = np.full((20000, h, w, 3), 200, np.uint8)
  outputs = np.asarray(run(jax.random.key(3), images, **PLAIN, **{**OFF, 'cutout': side}))
  uniform(centres(outputs, h, w, side), [(y, x) for y in range(h) for x in range(w)])
  kept = outputs[outputs != 0]
  np.testing.assert_allclose(kept, np.full_like(kept, 200 / 255), rtol=2e-7)


def test_order_is_crop_in_pixel_space_then_normalise_then_cutout():
  image = np.full((64, 16, 16, 3), 255, np.uint8)
  key = jax.random.key(4)
  crop = np.asarray(run(key, image, **PLAIN, pad=4, flip=True, cutout=0))
  hole = np.asarray(run(key, image, **PLAIN, pad=0, flip=False, cutout=8)) == 0
  full = np.asarray(run(key, image, mean=MEAN, std=STD, pad=4, flip=True, cutout=8))
  np.testing.assert_allclose(full, np.where(hole, 0, scaled(np.rint(crop * 255), MEAN, STD)), atol=1e-6)
  border = (crop == 0) & ~hole
  assert border.any() and hole.any()
  black = np.broadcast_to(-np.float32(MEAN) / np.float32(STD), full.shape)
  np.testing.assert_allclose(full[border], black[border], atol=1e-6)


def test_draws_are_independent_of_each_other():
  n = 4000
  image = batch(1, 8, 8)[0] | 1
  images = np.broadcast_to(image, (n, 8, 8, 3))
  key = jax.random.key(5)
  found = np.array(choices(image, np.asarray(run(key, images, **PLAIN, pad=2, flip=True, cutout=0)), 2), float)
  where = centres(np.asarray(run(key, images, **PLAIN, pad=0, flip=False, cutout=4)), 8, 8, 4)
  correlation = np.corrcoef(np.concatenate([found, np.array(where, float)], 1).T)
  assert np.abs(correlation - np.eye(5)).max() < 5 / n ** 0.5


ALL = {'mean': MEAN, 'std': STD, 'pad': 4, 'flip': True, 'cutout': 16}


def test_key_decides():
  images = batch()
  one, again, other = (np.asarray(run(jax.random.key(k), images, **ALL)) for k in (0, 0, 1))
  np.testing.assert_array_equal(one, again)
  assert (one != other).any((1, 2, 3)).mean() > 0.9


def test_an_image_depends_on_its_index_alone():
  images = batch()
  whole, head = (np.asarray(run(jax.random.key(6), images[:n], **ALL)) for n in (64, 10))
  np.testing.assert_array_equal(whole[:10], head)


@pytest.mark.skipif(jax.device_count() < 4, reason='needs 4 devices')
def test_sharding_changes_nothing_and_costs_no_communication():
  images, key = batch(), jax.random.key(7)
  alone = np.asarray(run(key, images, **ALL))
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
  split, copied = NamedSharding(mesh, PartitionSpec('data')), NamedSharding(mesh, PartitionSpec())
  step = jax.jit(lambda key, images: augment(key, images, **ALL), in_shardings=(copied, split), out_shardings=split)
  compiled = step.lower(key, images).compile()
  got = compiled(jax.device_put(key, copied), jax.device_put(images, split))
  assert len(got.sharding.device_set) == 4
  np.testing.assert_array_equal(np.asarray(got), alone)
  assert not any(word in compiled.as_text() for word in ('all-gather', 'all-reduce', 'all-to-all', 'collective'))


def test_strict_types_and_ranks():
  images = batch(8)
  with jax.numpy_dtype_promotion('strict'), jax.numpy_rank_promotion('raise'):
    assert augment(jax.random.key(0), images, **ALL).dtype == jnp.float32
    assert normalise(images, MEAN, STD).dtype == jnp.float32
  grey = augment(jax.random.key(0), batch(8, 8, 8, 1), mean=(0.3,), std=(0.4,), pad=1, flip=True, cutout=2)
  assert grey.shape == (8, 8, 8, 1)


@pytest.mark.parametrize('bad', [{'pad': -1}, {'cutout': -2}])
def test_negative_sizes(bad):
  with pytest.raises(UserError, match='cannot be negative'):
    augment(jax.random.key(0), batch(2), **{**ALL, **bad})
