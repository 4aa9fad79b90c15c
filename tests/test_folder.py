import numpy as np
import pytest
from conftest import data_config
from PIL import Image

from vimnas_jax import data
from vimnas_jax.errors import UserError


def _config(root, side=4):
  return data_config('folder', dir=str(root), image_size=side)


def _save(path, value, size=(4, 4)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


@pytest.fixture
def split(tmp_path):
  for part, count in (('train', 3), ('val', 2)):
    for label, name in enumerate(('ant', 'bee')):
      for i in range(count):
        _save(tmp_path / part / name / f'{i}.png', 100 * label + 10 * i)
  (tmp_path / 'train' / 'ant' / 'notes.txt').write_text('no image')
  return tmp_path


def test_splits_classes_and_statistics(split):
  found = data.get(_config(split))
  assert found.num_classes == 2 and found.image_shape == (4, 4, 3)
  np.testing.assert_array_equal(found.train.images[:, 0, 0, 0], [0, 10, 20, 100, 110, 120])
  np.testing.assert_array_equal(found.train.labels, [0, 0, 0, 1, 1, 1])
  np.testing.assert_array_equal(found.test.images[:, 3, 3, 2], [0, 10, 100, 110])
  np.testing.assert_allclose(found.mean, found.train.images.mean((0, 1, 2)) / 255)
  np.testing.assert_allclose(found.std, found.train.images.std((0, 1, 2)) / 255)


def test_without_a_split_every_fifth_image_is_for_test(tmp_path):
  for name in ('a', 'b'):
    for i in range(11):
      _save(tmp_path / name / f'{i:02}.jpg', 20 * i)
  found = data.get(_config(tmp_path))
  assert len(found.train) == 18 and len(found.test) == 4
  np.testing.assert_allclose(found.test.images[:, 0, 0, 0], [80, 180, 80, 180], atol=2)


def test_images_are_scaled_and_cut_at_the_centre(split):
  wide = np.zeros((8, 24, 3), np.uint8)
  wide[:, 8:16] = 200
  Image.fromarray(wide).save(split / 'train' / 'ant' / '9.png')
  grey = Image.fromarray(np.full((40, 40), 77, np.uint8))
  grey.save(split / 'val' / 'bee' / '9.png')
  found = data.get(_config(split))
  centre = found.train.images[3, 1:3, 1:3]
  np.testing.assert_allclose(centre, 200, atol=4)
  np.testing.assert_array_equal(found.test.images[-1], 77)


@pytest.mark.parametrize('damage, word', [
    (lambda root: (root / 'train' / 'bee' / '1.png').write_bytes(b'no png'), '1.png'),
    (lambda root: _save(root / 'val' / 'cow' / '1.png', 1), 'cow'),
    (lambda root: (root / 'val').rename(root / 'rest'), 'none called test'),
    (lambda root: [f.unlink() for f in (root / 'train' / 'bee').iterdir()], "class 'bee' has no training image")])
def test_damage_is_one_line(split, damage, word):
  damage(split)
  with pytest.raises(UserError, match=word) as error:
    data.get(_config(split))
  assert '\n' not in str(error.value)


def test_no_folder(tmp_path):
  for root in (tmp_path, tmp_path / 'none'):
    with pytest.raises(UserError, match='CLASS'):
      data.get(_config(root))
