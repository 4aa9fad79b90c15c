import shutil

import numpy as np
import pytest
from conftest import data_config
from PIL import Image

from vimnas_jax import data
from vimnas_jax.data import account, twice


@pytest.fixture
def root(tmp_path):
  rng = np.random.default_rng(0)
  for part in ('train', 'test', 'val'):
    for name in ('ant', 'bee'):
      (tmp_path / part / name).mkdir(parents=True)
      for i in range(3):
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).save(tmp_path / part / name / f'{i}.png')
  return tmp_path


def test_images_of_two_parts_are_found_and_told(root):
  """A copy under another name, in another class, and the same pixels in another file; of all parts that are read."""
  config = data_config('folder', dir=str(root), image_size=6)
  config.validation = 0.1
  assert data.get(config).both == () and not any('training too' in line for line in data.describe(data.get(config)))
  shutil.copy(root / 'train' / 'ant' / '1.png', root / 'test' / 'bee' / 'copy.png')
  shutil.copy(root / 'train' / 'ant' / '1.png', root / 'train' / 'bee' / '9.png')  # the first is named
  with Image.open(root / 'train' / 'bee' / '2.png') as image:
    image.save(root / 'val' / 'bee' / 'again.bmp')
  found = data.get(config)
  assert found.both == (('test/bee/copy.png', 'train/ant/1.png'), ('val/bee/again.bmp', 'train/bee/2.png'))
  assert account.facts(found)['in_training'] == [{'file': 'test/bee/copy.png', 'training': 'train/ant/1.png'},
                                                 {'file': 'val/bee/again.bmp', 'training': 'train/bee/2.png'}]
  assert ('in training too, pixel by pixel: 2 images for test or validation, such as test/bee/copy.png, which is '
          'train/ant/1.png; accuracies count them (list in data.json)') in data.describe(found)


def test_images_that_are_set_apart_are_no_longer_trained_on(tmp_path):
  """Every image twice in a folder of classes: those drawn to choose by whose copy stayed are told, and those for test
  whose copy went with them are not.
  """
  rng = np.random.default_rng(0)
  for name in ('ant', 'bee'):
    (tmp_path / name).mkdir()
    for i in range(10):
      image = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
      for copy in ('', '_copy'):
        image.save(tmp_path / name / f'{i}{copy}.png')
  config = data_config('folder', dir=str(tmp_path), image_size=6)
  config.validation = 0.25
  found = data.get(config)
  trained = {image.tobytes() for image in found.train.images}
  tested, chosen = (sum(image.tobytes() in trained for image in split.images) for split in (found.test, found.valid))
  assert 0 < tested < len(found.test) and chosen > 0 and len(found.both) == tested + chosen
  assert {other for _, other in found.both} <= set(found.train.files)
  assert {file for file, _ in found.both} <= {*found.test.files, *found.valid.files}
  assert found.train.name(0) == found.train.files[0] and found.train.take([1]).name(0) == found.train.files[1]


def test_images_of_unlike_sizes_are_not_the_same():
  assert twice.pairs(np.zeros((1, 4, 4, 3), np.uint8), ['a'], np.zeros((1, 2, 8, 3), np.uint8), ['b']) == ()


def test_an_image_of_both_parts_of_a_search_is_told(root):
  """Each of three images a class has a copy under another name; what is told is what the parts of the run hold."""
  for name in ('ant', 'bee'):
    for i in range(3):
      shutil.copy(root / 'train' / name / f'{i}.png', root / 'train' / name / f'{i}_copy.png')
  loaded = data.get(data_config('folder', dir=str(root), image_size=6))
  train, valid = data.halves(loaded, 0.5)
  used = {'training': train, 'validation': valid}
  trained = {image.tobytes() for image in train.images}
  shared = [name for name, image in zip(valid.files, valid.images) if image.tobytes() in trained]
  facts = account.facts(loaded, used)
  assert shared and [row['file'] for row in facts['in_both_parts']] == shared
  assert facts['used'] == {'training': 6, 'validation': 6} and facts['images']['training'] == 12
  (line,) = data.repeated(facts)
  assert line.startswith(f'pixel by pixel, {len(shared)} image') and 'and trained on too, such as ' in line
  assert 'in_both_parts' not in account.facts(loaded) and data.repeated(account.facts(loaded)) == []


def test_test_images_that_choose_are_told(root):
  config = data_config('folder', dir=str(root), image_size=6)
  config.validation = 0.1
  shutil.copy(root / 'val' / 'ant' / '1.png', root / 'test' / 'ant' / 'copy.png')
  loaded = data.get(config)
  assert account.facts(loaded)['in_validation'] == [{'file': 'test/ant/copy.png', 'same': 'val/ant/1.png'}]
  assert data.repeated(account.facts(loaded)) == [
      'pixel by pixel, 1 image for test, and for validation too, such as test/ant/copy.png, which is val/ant/1.png: '
      'what they choose, the test flatters (list in data.json)']


def test_what_a_run_does_not_take_is_not_called_trained_on(root):
  """Of a folder whose test images are all copies, those whose own are among the few that a limit leaves."""
  for name in ('ant', 'bee'):
    for i in range(3):
      shutil.copy(root / 'train' / name / f'{i}.png', root / 'test' / name / f'copy_{i}.png')
  loaded = data.get(data_config('folder', dir=str(root), image_size=6))
  train, _ = data.halves(loaded, 1, 2, whole=True)
  used = {'training': train}
  facts = account.facts(loaded, used)
  assert len(loaded.both) == 6 and len(train) == 2
  assert sorted(row['training'] for row in facts['in_training']) == sorted(train.files)
  assert 'pixel by pixel: 2 images for test' in ' '.join(data.describe(loaded, facts))
  assert 'pixel by pixel: 6 images for test' in ' '.join(data.describe(loaded))


def test_an_image_of_two_classes_is_told(root):
  shutil.copy(root / 'train' / 'ant' / '1.png', root / 'train' / 'bee' / 'wrong.png')
  shutil.copy(root / 'train' / 'ant' / '2.png', root / 'train' / 'ant' / 'again.png')  # of one class: told by nobody
  loaded = data.get(data_config('folder', dir=str(root), image_size=6))
  assert account.facts(loaded)['in_two_classes'] == [{'file': 'train/bee/wrong.png', 'same': 'train/ant/1.png'}]
  assert data.repeated(account.facts(loaded)) == [
      'pixel by pixel, 1 image of the training images in another class too, such as train/bee/wrong.png, which is '
      'train/ant/1.png: one of each is wrong (list in data.json)']
