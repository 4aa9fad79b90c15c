import hashlib
import pickle

import numpy as np
import pytest
from conftest import data_config

from vimnas_jax import data
from vimnas_jax.data import imagenet16, splits
from vimnas_jax.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """All files in the official layout, of 20 images each, with their own checksums in place of the official ones."""
  rng = np.random.default_rng(0)
  for files in (imagenet16.TRAIN, imagenet16.TEST):
    for i, name in enumerate(files):
      labels = rng.permutation([*range(12 * i + 1, 12 * i + 13), 121, 1000, *rng.integers(1, 1001, 6)]).tolist()
      pixels = rng.integers(0, 256, (20, 768), dtype=np.uint8)
      mean = {'mean': pixels.mean(0)} if name in imagenet16.TRAIN else {}  # which the official training files have too
      raw = pickle.dumps({'data': pixels, 'labels': labels, **mean}, protocol=2)
      (tmp_path / name).write_bytes(raw)
      monkeypatch.setitem(files, name, hashlib.md5(raw).hexdigest())
  return tmp_path


def _raw(path):
  return pickle.loads(path.read_bytes(), encoding='latin1')


def test_the_first_120_classes_of_all_files(folder):
  found = data.get(data_config('imagenet16-120', dir=str(folder)))
  assert found.num_classes == 120 and found.image_shape == (16, 16, 3)
  images, labels = [], []
  for i in range(1, 11):
    batch = _raw(folder / f'train_data_batch_{i}')
    for row, label in zip(batch['data'], batch['labels'], strict=True):
      if label <= 120:
        images.append([[[row[c * 256 + y * 16 + x] for c in range(3)] for x in range(16)] for y in range(16)])
        labels.append(label - 1)
  np.testing.assert_array_equal(found.train.images, images)
  np.testing.assert_array_equal(found.train.labels, labels)
  assert found.train.labels.min() == 0 and found.train.labels.max() == 119
  assert len(found.test) == sum(label <= 120 for label in _raw(folder / 'val_data')['labels'])


@pytest.mark.parametrize('damage, word', [
    (lambda f: (f / 'val_data').unlink(), 'val_data'),
    (lambda f: (f / 'val_data').write_bytes(b'x'), 'md5'),
    (lambda f: (f / splits.FILES['imagenet16-120'][0]).write_text('{'), 'no list xvalid')])
def test_damage_is_one_line(folder, damage, word):
  damage(folder)
  with pytest.raises(UserError, match=word) as error:
    data.get(data_config('imagenet16-120', dir=str(folder)))
  assert '\n' not in str(error.value)


def test_a_pickle_of_something_else_runs_nothing(folder, monkeypatch):
  raw = pickle.dumps({'data': print, 'labels': []})
  (folder / 'val_data').write_bytes(raw)
  monkeypatch.setitem(imagenet16.TEST, 'val_data', hashlib.md5(raw).hexdigest())
  with pytest.raises(UserError, match='it asks for'):
    data.get(data_config('imagenet16-120', dir=str(folder)))
  with pytest.raises(UserError, match='imagenet16|ImageNet16'):
    data.get(data_config('imagenet16-120'))


@pytest.mark.parametrize('raw, word', [
    (pickle.dumps({'data': np.zeros((2, 768), np.uint8), 'labels': [0.5, 1]}), 'no list of integers'),
    (pickle.dumps({'data': np.zeros((2, 768), np.uint8), 'labels': [1, 1001]}), 'no list of integers below 1001'),
    (pickle.dumps({'data': [1, 2], 'labels': [1, 2]}), 'AttributeError'),
    (pickle.dumps({'data': np.array([None, 1]), 'labels': [1, 2]}), 'array of type'), (b'\x80\x04', 'IndexError')])
def test_pickles_of_something_else(folder, monkeypatch, raw, word):
  (folder / 'val_data').write_bytes(raw)
  monkeypatch.setitem(imagenet16.TEST, 'val_data', hashlib.md5(raw).hexdigest())
  with pytest.raises(UserError, match=word) as error:
    data.get(data_config('imagenet16-120', dir=str(folder)))
  assert '\n' not in str(error.value)
