"""Data of one's own: a file that is named, gives arrays, and is searched, trained, evaluated, resumed and refused."""

import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
from conftest import ONE_EDGE, ROOT, SLOW, data_config, one_line

from vimnas_jax import api, data, userfile
from vimnas_jax import config as config_lib
from vimnas_jax.errors import UserError
from vimnas_jax.runs import runfolder
from vimnas_jax.verbs import evaluate, retrain, search

PATH = str(ROOT / 'examples' / 'own_data.py')
ARRAYS = '''
import numpy as np

def load(config):
  images = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
  labels = np.array([0, 1, 2, 0, 1, 2])
  return images, labels, images[:3], labels[:3], ['a', 'b', 'c']
'''


def configured(path=PATH):
  c = config_lib.defaults()
  c.space.name, c.space.cells, c.space.channels, c.devices = ONE_EDGE, 1, 4, 1
  c.data.name, c.data.num_train, c.data.image_size, c.batch_size = str(path), 64, 8, 16
  return c


@SLOW
def test_the_example_is_trained_and_evaluated(tmp_path):
  c = configured()
  search.search(config_lib.resolve(c), tmp_path)
  following = config_lib.following(c, 'epochs=1 batch_size=16 measure_batches=() eval_batch=32', tmp_path)
  trained = retrain.retrain(following, tmp_path / 'retrain')
  assert trained['classes'] == ['square', 'disc', 'cross', 'ring'] and trained['test_images'] == 128

  c.task, c.genotype, c.trust, c.measure_batches = 'evaluate', str(tmp_path / 'retrain'), ONE_EDGE, ()
  again = evaluate.evaluate(config_lib.resolve(c), tmp_path / 'evaluation')
  assert again['test_loss'] == pytest.approx(trained['test_loss'], rel=1e-4)
  c.data.image_size = 16
  with pytest.raises(UserError, match=r'reads images of 8x8 pixels') as error:
    evaluate.evaluate(config_lib.resolve(c), tmp_path / 'other')
  one_line(error)


@SLOW
def test_the_example_is_searched_and_told_again(tmp_path, capsys):
  found = search.search(config_lib.resolve(configured()), tmp_path)
  assert found['data'] == PATH
  assert '4 classes, training/test images: square 16/32, disc 16/32, cross 16/32, ring 16/32' in capsys.readouterr().out
  moved = shutil.copy(PATH, tmp_path / 'moved.py')
  assert search.search(config_lib.resolve(configured(moved)), tmp_path) == found  # finished: told again
  text = pathlib.Path(moved).read_text()
  pathlib.Path(moved).write_text(text.replace("'ring')", "'wheel')"))
  with pytest.raises(UserError, match='holds a run on other data') as error:
    search.search(config_lib.resolve(configured(moved)), tmp_path)
  assert 'moved.py' in one_line(error)


def test_the_example_reads_a_numpy_file(tmp_path):
  rng = np.random.default_rng(0)
  held = {'train_images': rng.integers(0, 256, (9, 5, 4, 1), dtype=np.uint8), 'train_labels': np.arange(9) % 3,
          'test_images': rng.integers(0, 256, (2, 5, 4, 1), dtype=np.uint8), 'test_labels': np.array([2, 0], np.uint8),
          'class_names': ['x', 'y', 'z']}
  np.savez(tmp_path / 'data.npz', **held)
  loaded = data.get(data_config(PATH, dir=str(tmp_path)))
  assert loaded.image_shape == (5, 4, 1) and loaded.class_names == ('x', 'y', 'z') and not loaded.shuffled
  for part in ('train', 'test'):
    split = getattr(loaded, part)
    np.testing.assert_array_equal(split.images, held[f'{part}_images'])
    np.testing.assert_array_equal(split.labels, held[f'{part}_labels'])
    assert split.labels.dtype == np.int32
  np.testing.assert_allclose(loaded.mean, [held['train_images'].mean() / 255])
  np.testing.assert_allclose(loaded.std, [held['train_images'].std() / 255])
  with pytest.raises(UserError, match='fails, line 24 .FileNotFoundError'):
    data.get(data_config(PATH, dir=str(tmp_path / 'none')))


def test_arrays_of_any_layout_are_taken_and_known_by_their_contents(tmp_path):
  path = tmp_path / 'own.py'
  path.write_text(ARRAYS)
  first = data.get(data_config(str(path)))
  strided = tmp_path / 'strided.py'
  strided.write_text(ARRAYS.replace('return images, labels,', 'images = np.asfortranarray(images)\n  '
                                    "return images, labels.astype('>i2'),"))
  second = data.get(data_config(str(strided)))
  for split in (second.train, second.test):
    assert split.images.flags.c_contiguous and split.labels.flags.c_contiguous
    assert split.labels.dtype == np.int32 and split.labels.dtype.isnative
  assert first.fingerprint() == second.fingerprint()
  for old, new in (("'c']", "'d']"), ('0, 1, 2])', '0, 2, 1])'), ('uint8)', 'uint8)[::-1].copy()')):
    path.write_text(ARRAYS.replace(old, new))
    assert data.get(data_config(str(path))).fingerprint() != first.fingerprint(), new


def test_a_run_of_a_file_is_none_of_another_source(tmp_path):
  runfolder.write_config(tmp_path, config_lib.resolve(configured()), 'data')
  assert json.loads((tmp_path / 'config.json').read_text())['config']['data']['name'] == PATH
  c = configured()
  c.data.name = 'synthetic'
  with pytest.raises(UserError, match="not 'synthetic'") as error:
    runfolder.write_config(tmp_path, config_lib.resolve(c), 'data')
  one_line(error)


def test_images_of_both_parts_are_told_by_their_numbers(tmp_path):
  path = tmp_path / 'own.py'
  path.write_text(ARRAYS.replace('images[:3], labels[:3]', 'images[[5, 0]] + np.uint8([[[[0]]], [[[1]]]]), labels[:2]'))
  found = data.get(data_config(str(path)))
  assert found.both == (('test image 0', 'training image 5'),)
  assert 'such as test image 0, which is training image 5; accuracies count them' in data.describe(found)[-1]


BAD = {
    'no load': ('def load', 'def make', 'has no function load(config)'),
    'syntax': ('def load(config):', 'def load(config:', 'the file fails, line 4 (SyntaxError'),
    'error': ('images[:3]', 'image[:3]', 'load(config) fails, line 7 (NameError'),
    'field': ('images[:3]', 'images[:config.first]', "'first'"),
    'values': (", ['a', 'b', 'c']", '', 'gives 4 values; it must give five: training images,'),
    'no tuple': ("return images, labels, images[:3], labels[:3], ['a', 'b', 'c']", 'pass', 'gives NoneType'),
    'names': ("['a', 'b', 'c']", '3', 'gives 3 for the names of the classes'),
    'no names': ("['a', 'b', 'c']", '[]', 'gives [] for the names of the classes'),
    'name twice': ("'b', 'c'", "'b', 'a'", "two classes are called 'a'"),
    'list': ('np.array([0, 1, 2, 0, 1, 2])', '[0, 1, 2, 0, 1, 2]', 'train split: labels are list; give a NumPy array'),
    'image type': ('np.uint8)', 'np.float32)', 'train split: images are float32 of shape (6, 4, 4, 3)'),
    'image shape': ('(6, 4, 4, 3)', '(6, 16, 3)', 'images are uint8 of shape (6, 16, 3); give uint8 [n, h, w, c]'),
    'channels first': ('np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)',
                       'np.zeros((6, 3, 8, 8), np.uint8)',
                       'images of shape (6, 3, 8, 8) would be 3 high and 8 wide, of 8 channels: give [n, h, w, c]'),
    'label type': ('labels[:3],', 'labels[:3] / 1,', 'test split: labels are float64 of shape (3,)'),
    'label shape': ('labels[:3],', 'labels[:2],', 'test split: labels are int32 of shape (2,); give int32 [3]'),
    'label outside': ("'b', 'c'", "'b'", 'train split: label 2 of image 2 is outside 0..1'),
    'label below': ('labels[:3],', 'labels[:3] - 1,', 'test split: label -1 of image 0 is outside 0..2'),
    'label beyond int32': ('labels[:3],', 'labels[:3] + 2**32,', 'test split: label 2147483647 of image 0 is outside'),
    'empty': ('images[:3], labels[:3]', 'images[:0], labels[:0]', 'test split: no images'),
    'sizes': ('images[:3],', 'images[:3, :2],', 'training images are (4, 4, 3), test images (2, 4, 3)'),
    'class without an image': ("'c']", "'c', 'd']", "class 'd' has no training image"),
}


@pytest.mark.parametrize('what', BAD)
def test_every_way_of_getting_it_wrong_is_one_clear_line(tmp_path, what):
  old, new, word = BAD[what]
  assert old in ARRAYS
  path = tmp_path / 'own.py'
  path.write_text(ARRAYS.replace(old, new))
  with pytest.raises(UserError) as error:
    data.get(data_config(str(path)))
  assert word in one_line(error) and 'own.py' in str(error.value)


def test_a_file_that_is_not_there():
  with pytest.raises(UserError, match='there is no such file') as error:
    data.get(data_config('none.py'))
  one_line(error)


def test_a_file_is_what_it_says_now_and_nothing_is_kept_beside_it(tmp_path, monkeypatch):
  """Where size and second of the last change are the same Python would take the copy that it keeps."""
  monkeypatch.setattr(sys, 'dont_write_bytecode', False)
  monkeypatch.setattr(sys, 'pycache_prefix', None)
  for value in (1, 2):
    for name in ('own.py', 'config.py'):
      text = f'from vimnas_jax import config\nnumber = {value}\ndef get_config(arg=""):\n' \
             f'  c = config.defaults()\n  c.seed = {value}\n  return c\n'
      (tmp_path / name).write_text(text)
      os.utime(tmp_path / name, (1e9, 1e9))
    module = userfile.run(str(tmp_path / 'own.py'), 'x')
    assert module.number == value
    assert api.configure(str(tmp_path / 'config.py')).seed == value
  assert sorted(path.name for path in tmp_path.iterdir()) == ['config.py', 'own.py']
