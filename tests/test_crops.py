"""Random parts of photographs, drawn as torchvision draws them."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from vimnas_jax.data import crops, pixels


def test_numbers_are_a_function_of_seed_part_step_and_place():
  keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 2**31, 2**20)]
  drawn = [crops.numbers(*key) for key in keys]
  assert len({u.tobytes() for u in drawn}) == len(keys) and all(u.shape == (crops.TRIES, 4) for u in drawn)
  np.testing.assert_array_equal(crops.numbers(0, 0, 1, 0), drawn[3])
  np.testing.assert_allclose(drawn[3][0], [0.34218278, 0.57651445, 0.08665198, 0.63553178], atol=1e-7)  # for good
  many = np.concatenate([crops.numbers(3, 0, step, place) for step in range(20) for place in range(20)])
  assert many.min() >= 0 and many.max() < 1
  np.testing.assert_allclose(many.mean(0), 0.5, atol=0.02)


def test_shares_and_ratios_are_those_of_torchvision():
  """Where every shape fits, shares of the area are uniform and ratios uniform in their logarithm."""
  boxes = [crops.box(400, 400, 0.08, crops.numbers(0, 0, 0, i)) for i in range(4000)]
  left, top, right, bottom = np.array(boxes).T
  assert min(left.min(), top.min()) >= 0 and max(right.max(), bottom.max()) <= 400
  share, ratio = (right - left) * (bottom - top) / 400**2, (right - left) / (bottom - top)
  assert 0.079 < share.min() < 0.085 and 0.95 < share.max() <= 1
  assert ratio.min() > 0.745 and ratio.max() < 1.345
  small = share < 0.5  # all of these fit at the first try
  np.testing.assert_allclose(np.log(ratio[small]).mean(), 0, atol=0.02)
  np.testing.assert_allclose(np.quantile(share[small], [0.25, 0.5, 0.75]), [0.185, 0.29, 0.395], atol=0.02)
  place = left[small] / (400 - (right - left)[small])
  np.testing.assert_allclose([place.mean(), place.std()], [0.5, 12**-0.5], atol=0.02)


@pytest.mark.parametrize('size, want', [((1000, 100), (433, 0, 566, 100)), ((100, 1000), (0, 433, 100, 566)),
                                        ((100, 100), (0, 0, 100, 100))])
def test_where_no_shape_fits_the_centre_is_taken(size, want):
  u = np.full((crops.TRIES, 4), [1.0, 0.999, 0.5, 0.5])  # the whole area, 4 to 3
  assert crops.box(*size, 0.08, u) == want
  u[3] = [0, 0.5, 0, 0]  # the fourth try does
  w, h = size
  side = round(math.sqrt(0.08 * w * h))
  assert crops.box(*size, 0.08, u) == (0, 0, side, side)


def test_a_part_is_cut_out_of_the_upright_photograph_and_scaled():
  rng = np.random.default_rng(0)
  whole = Image.fromarray(rng.integers(0, 256, (60, 90, 3), dtype=np.uint8))
  turned, tag, file = whole.transpose(Image.Transpose.ROTATE_90), Image.Exif(), io.BytesIO()
  tag[0x0112] = 6
  turned.save(file, 'PNG', exif=tag)
  u = crops.numbers(0, 0, 0, 0)
  want = whole.crop(crops.box(90, 60, 0.08, u)).resize((24, 24), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(pixels.part(file, 24, 0.08, u), np.asarray(want))


def test_large_jpegs_are_decoded_at_a_fraction_that_suffices(monkeypatch):
  file = io.BytesIO()
  Image.new('RGB', (2000, 1000), (40, 90, 200)).save(file, 'JPEG')
  seen = []
  resized = crops.resized
  monkeypatch.setattr(crops, 'resized', lambda image, *rest: seen.append(image.size) or resized(image, *rest))
  for side in (8, 32, 64, 224):
    pixels.part(file, side, 0.08, crops.numbers(0, 0, 0, 0))
  assert seen == [(250, 125), (1000, 500), (2000, 1000), (2000, 1000)]
  assert [crops.sufficient(side, 0.08) for side in (8, 32, 64)] == [66, 262, 523]
