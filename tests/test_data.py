import dataclasses
import io
import json
import re
import sys

import numpy as np
import pytest
from conftest import SHARED, SLOW, agree, data_config, one_line

from vimnas_jax import data
from vimnas_jax.data import cifar, digits, records
from vimnas_jax.errors import UserError

TFDS = SHARED / 'tfds'


# TFDS

def write_tfds(folder, count, label_of, encoding='png', name='cifar10', sides=None, test='test'):
  from array_record.python import array_record_module
  from PIL import Image
  with records.quiet():
    import tensorflow_datasets
  features = tensorflow_datasets.features.FeaturesDict({
      'image': tensorflow_datasets.features.Image(shape=(None, None, 3) if sides else (32, 32, 3),
                                                   encoding_format=encoding),
      'label': tensorflow_datasets.features.ClassLabel(num_classes=10)})
  folder.mkdir(parents=True)
  features.save_config(folder)
  rng, wanted, splits = np.random.default_rng(count), {}, []
  for part in ('train', test):
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = [label_of(i) for i in range(count)]
    writer = array_record_module.ArrayRecordWriter(str(folder / f'{name}-{part}.array_record-00000-of-00001'),
                                                   'group_size:1')
    for image, label in zip(images, labels):
      buffer = io.BytesIO()
      Image.fromarray(image).resize(sides or (32, 32)).save(buffer, encoding)
      example = {'image': io.BytesIO(buffer.getvalue()), 'label': label}
      writer.write(features.serialize_example(features.encode_example(example)))
    writer.close()
    wanted[part] = images, labels
    splits.append({'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}', 'name': part,
                   'numBytes': '1', 'shardLengths': [str(count)]})
  (folder / 'dataset_info.json').write_text(json.dumps(
      {'fileFormat': 'array_record', 'name': name, 'splits': splits, 'version': folder.name}))
  return wanted


def test_tfds_reads_the_newest_version_exactly(tmp_path):
  write_tfds(tmp_path / 'cifar10' / '3.0.2', 10, lambda i: i)
  wanted = write_tfds(tmp_path / 'cifar10' / '3.0.10', 1030, lambda i: (i * 7) % 10)  # more than one block
  (tmp_path / 'cifar10' / '9.9.9').mkdir()  # nothing in it yet
  agree(data.get(data_config('cifar10', dir=str(tmp_path))), wanted)


def test_any_set_of_tfds(tmp_path):
  """Of images whose size is not fixed, under a config of its own, with a validation split."""
  wanted = write_tfds(tmp_path / 'flowers' / '160px' / '1.0.0', 20, lambda i: i % 10, name='flowers', sides=(48, 96),
                      test='validation')
  got = data.get(data_config('tfds/flowers/160px', dir=str(tmp_path), image_size=16))
  assert (got.image_shape, len(got.test), got.num_classes) == ((16, 16, 3), 20, 10)
  np.testing.assert_array_equal(got.train.labels, wanted['train'][1])
  np.testing.assert_allclose(got.mean, got.train.images.mean((0, 1, 2)) / 255)
  # the middle of an image that is twice as high as wide: rows 8 to 24 of 32
  middle = wanted['train'][0][:, 8:24].mean((1, 2))
  assert np.corrcoef(middle.ravel(), got.train.images.mean((1, 2)).ravel())[0, 1] > 0.9
  again = data.get(data_config('tfds/flowers/160px', dir=str(tmp_path), image_size=24))
  assert again.image_shape == (24, 24, 3)
  for name, fields, word in (('tfds/birds', {}, 'no birds/VERSION'), ('tfds/flowers/160px', {'image_size': 0}, '=0')):
    with pytest.raises(UserError, match=word) as e:
      data.get(data_config(name, **{'dir': str(tmp_path), **fields}))
    one_line(e)
  write_tfds(tmp_path / 'untested' / '1.0.0', 10, lambda i: i, name='untested', test='extra')
  with pytest.raises(UserError, match='splits train, extra'):
    data.get(data_config('tfds/untested', dir=str(tmp_path)))


@pytest.mark.parametrize('damage', ['missing', 'junk', 'truncated', 'json'])
def test_tfds_damaged(tmp_path, damage):
  folder = tmp_path / 'cifar10' / '3.0.2'
  write_tfds(folder, 10, lambda i: i)
  path = folder / 'cifar10-test.array_record-00000-of-00001'
  if damage == 'missing':
    path.unlink()
  elif damage == 'json':
    (folder / 'dataset_info.json').write_text('{')
  else:
    path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2] if damage == 'truncated' else b'junk' * 30000)
  with pytest.raises(UserError, match='cannot read the TFDS data in .*config.data.dir') as e:
    data.get(data_config('cifar10', dir=str(tmp_path)))
  one_line(e)


@pytest.mark.skipif(not (TFDS / 'cifar10').is_dir(), reason='no shared/data/tfds/cifar10 beside the repository')
@SLOW  # all 60,000; tests/test_tfds.py reads small sets of the same form
def test_tfds_cifar10(capfd, caplog):
  got = data.get(data_config('cifar10', dir=str(TFDS)))
  assert (len(got.train), len(got.test), got.image_shape, got.num_classes) == (50000, 10000, (32, 32, 3), 10)
  assert np.bincount(got.train.labels).tolist() == [5000] * 10
  assert np.bincount(got.test.labels).tolist() == [1000] * 10
  pixels = got.train.images[::10].reshape(-1, 3) / 255
  np.testing.assert_allclose(pixels.mean(0), got.mean, atol=5e-3)
  np.testing.assert_allclose(pixels.std(0), got.std, atol=5e-3)  # the copy is JPEG
  out, err = capfd.readouterr()
  assert (out, err, caplog.text) == ('', '', '')
  assert 'tensorflow' not in sys.modules


# The small sets

def test_digits():
  got = data.get(data_config('digits'))
  assert (len(got.train), len(got.test), got.image_shape) == (1438, 359, (8, 8, 1))
  assert got.train.images.min() == 0 and got.train.images.max() == 255
  scaled = got.train.images / 255
  assert (round(scaled.mean(), 4),) == got.mean == digits.MEAN and (round(scaled.std(), 4),) == got.std
  from sklearn.datasets import load_digits
  raw = load_digits()
  np.testing.assert_array_equal(got.test.labels, raw.target[4::5])
  np.testing.assert_allclose(got.test.images[..., 0] / 255 * 16, raw.images[4::5], atol=0.04)
  assert got.fingerprint() == data.get(data_config('digits')).fingerprint()


def test_synthetic_is_a_function_of_its_numbers():
  one = data.get(data_config('synthetic'))
  assert (len(one.train), len(one.test), one.image_shape, one.num_classes) == (120, 40, (8, 8, 3), 4)
  assert np.bincount(one.train.labels).tolist() == [30] * 4
  assert one.fingerprint() == data.get(data_config('synthetic')).fingerprint()
  assert one.fingerprint() != data.get(data_config('synthetic', seed=1)).fingerprint()
  other = data.get(data_config('synthetic', num_train=500))
  np.testing.assert_array_equal(one.test.images, other.test.images)
  scaled = one.train.images.reshape(-1, 3) / 255
  np.testing.assert_allclose((scaled.mean(0), scaled.std(0)), (one.mean, one.std), atol=6e-5)


@pytest.mark.parametrize('size', [3, 8, 32])
def test_synthetic_can_be_learned_but_is_noisy(size):
  got = data.get(data_config('synthetic', num_train=500, num_test=200, num_classes=10, image_size=size))
  train, test = (s.images.reshape(len(s), -1).astype(float) for s in (got.train, got.test))
  centres = np.stack([train[got.train.labels == c].mean(0) for c in range(10)])
  guess = np.square(test[:, None] - centres[None]).sum(-1).argmin(1)
  assert (guess == got.test.labels).mean() > 0.95
  assert train[got.train.labels == 0].std(0).mean() > 20


@pytest.mark.parametrize('fields, says', [
    ({'num_train': 0}, 'num_train=0'), ({'num_test': 0}, 'num_test=0'), ({'image_size': 0}, 'image_size=0'),
    ({'num_classes': 0}, 'num_classes=0'), ({'seed': -1}, 'seed=-1'), ({'num_train': 3}, 'num_train=3')])
def test_synthetic_errors(fields, says):
  with pytest.raises(UserError, match=f'config.data.{says}') as e:
    data.get(data_config('synthetic', **fields))
  one_line(e)


def test_unknown_name():
  with pytest.raises(UserError) as e:
    data.get(data_config('cifar'))
  names = ('cifar10', 'cifar100', 'imagenet16-120', 'folder', 'digits', 'synthetic', 'tfds/NAME')
  assert one_line(e) == (f"config.data.name='cifar': unknown data set (did you mean 'cifar10'?); choose one of "
                         f"{', '.join(names)}, or give the path of a .py file")
  assert names == data.NAMES


@pytest.mark.parametrize('name, fields, says', [
    ('synthetic', {'photographs': 9}, "photographs=9 .*'synthetic' has not: set config.data.photographs=0"),
    ('digits', {'moments': 'imagenet'}, "'digits' have 1: set config.data.moments='own'")])
def test_what_is_for_photographs(name, fields, says):
  with pytest.raises(UserError, match=says) as e:
    data.get(data_config(name, **fields))
  one_line(e)


def test_classes_have_names():
  assert data.get(data_config('digits')).class_names == tuple('0123456789')
  assert data.get(data_config('synthetic')).class_names == ('0', '1', '2', '3')
  assert data.describe(data.get(data_config('digits'))) == []
  for name, count, some in (('cifar10', 10, {0: 'airplane', 3: 'cat', 9: 'truck'}),
                            ('cifar100', 100, {0: 'apple', 20: 'chair', 72: 'seal', 99: 'worm'})):
    names = cifar.SOURCES[name].class_names
    assert len(names) == len(set(names)) == count and all(names[i] == word for i, word in some.items())


def test_crops_are_padded_as_the_sets_are_trained_on():
  assert [data.default_pad(name) for name in ('cifar10', 'imagenet16-120', 'folder')] == [4, 2, 4]


def test_shrink_averages_squares_exactly():
  whole, half = (data.get(data_config('synthetic', shrink=by)) for by in (1, 2))
  assert half.image_shape == (4, 4, 3) and half.fingerprint() != whole.fingerprint()
  for part in ('train', 'test'):
    big, small = getattr(whole, part), getattr(half, part)
    np.testing.assert_array_equal(small.labels, big.labels)
    exact = sum(big.images[:, i::2, j::2].astype(int) for i in (0, 1) for j in (0, 1))
    assert (np.abs(4 * small.images.astype(int) - exact) <= 2).all()


@pytest.mark.parametrize('by', [0, 3])
def test_shrink_that_does_not_divide(by):
  with pytest.raises(UserError, match=f'shrink={by}') as error:
    data.get(data_config('synthetic', shrink=by))
  one_line(error)


# check and fingerprint

def tiny(train=None, test=None, **fields):
  split = data.Split(np.zeros((3, 4, 4, 3), np.uint8), np.array([0, 1, 2], np.int32))
  base = {'name': 'tiny', 'num_classes': 3, 'mean': (0.5,) * 3, 'std': (0.2,) * 3}
  return data.Data(train=dataclasses.replace(split, **(train or {})), test=dataclasses.replace(split, **(test or {})),
                   **{**base, **fields})


def ints(*values):
  return np.array(values, np.int32)


def zeros(*shape, dtype=np.uint8):
  return np.zeros(shape, dtype)


@pytest.mark.parametrize('bad, says', [
    ({'test': {'images': zeros(0, 4, 4, 3), 'labels': ints()}}, 'test split: no images'),
    ({'train': {'images': zeros(3, 0, 4, 3)}}, 'train split: no images'),
    ({'train': {'labels': ints(0, 3, 2)}}, r'train split: label 3 of image 1 is outside 0\.\.2'),
    ({'test': {'labels': ints(0, 1, -1)}}, r'test split: label -1 of image 2 is outside 0\.\.2'),
    ({'train': {'labels': ints(0, 2, 2)}}, "class '1' has no training image: "),
    ({'train': {'labels': ints(0, 0, 0)}}, r"class '1' has no training image \(nor has 1 other\)"),
    ({'num_classes': 4}, "class '3' has no training image"),
    ({'train': {'images': zeros(3, 4, 4, 3, dtype=np.float32)}}, 'train split: images are float32'),
    ({'train': {'images': zeros(3, 4, 4)}}, r'images are uint8 of shape \(3, 4, 4\)'),
    ({'train': {'labels': ints(0, 1)}}, r'labels are int32 of shape \(2,\)'),
    ({'train': {'labels': np.array([0, 1, 2])}}, 'labels are int64'),
    ({'test': {'images': zeros(3, 5, 4, 3)}}, r'training images are \(4, 4, 3\), test images \(5, 4, 3\)'),
    ({'train': {'labels': ints(0, 2, 2)}, 'class_names': ('ant', 'swan', 'cow')}, "class 'swan' has no training image"),
    ({'class_names': ('ant', 'bee')}, '2 names of classes for 3'),
    ({'class_names': ('ant', 'bee', 'ant')}, "two classes are called 'ant'"),
    ({'mean': (0.5,)}, 'do not fit 3 channels'), ({'std': (0.5, 0.0, 0.5)}, 'do not fit 3 channels')])
def test_check(bad, says):
  with pytest.raises(UserError, match=says) as e:
    data.check(tiny(**bad))
  assert "config.data.name='tiny'" in one_line(e)


def test_check_passes_good_data_on():
  good = tiny(class_names=('ant', 'bee', 'cow'))
  assert data.check(good) is good and good.name_of(1) == 'bee' and len(good.train) == 3


def test_fingerprint_sees_every_change():
  pixel = zeros(3, 4, 4, 3)
  pixel[2, 3, 3, 2] = 1
  changes = [{}, {'name': 'other'}, {'train': {'images': pixel}}, {'test': {'images': pixel}},
             {'train': {'labels': ints(0, 2, 1)}}, {'test': {'labels': ints(0, 2, 1)}},
             {'train': {'images': zeros(3, 2, 8, 3)}}]
  prints = [tiny(**change).fingerprint() for change in changes]
  assert len(set(prints)) == len(prints) and all(re.fullmatch('[0-9a-f]{64}', p) for p in prints)
  assert tiny().fingerprint() == prints[0]
  view = np.zeros((4, 3, 4, 3), np.uint8).transpose(1, 0, 2, 3)
  assert tiny(train={'images': view}).fingerprint() == prints[0]  # memory layout is no content
