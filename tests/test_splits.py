import dataclasses
import hashlib
import json

import numpy as np
import pytest
from conftest import data_config, one_line

from vimnas_jax import config as config_lib
from vimnas_jax import data, spaces
from vimnas_jax.data import splits
from vimnas_jax.errors import UserError
from vimnas_jax.runs import parallel
from vimnas_jax.verbs import retrain


def md5(rows):
  return hashlib.md5(','.join(rows).encode()).hexdigest()


@pytest.fixture
def loaded():
  """Eight training and six test images, by their numbers."""
  def split(count, first):
    images = np.arange(first, first + count, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2)
    return data.Split(images, np.arange(count, dtype=np.int32) % 2)

  return data.Data('cifar10', split(8, 0), split(6, 100), 2, (0.5,), (0.5,))


def write(monkeypatch, path, name, lists):
  """A split file whose lists are taken for the official ones."""
  path.write_text(json.dumps({key: ['int', rows] for key, rows in lists.items()}))
  monkeypatch.setitem(splits.FILES, name, (splits.FILES[name][0], {key: md5(rows) for key, rows in lists.items()}))
  return path


def numbers(split):
  return split.images[:, 0, 0, 0].tolist()


def test_cifar10_is_halved_as_the_file_says(monkeypatch, tmp_path, loaded):
  path = write(monkeypatch, tmp_path / 'cifar-split.txt', 'cifar10',
               {'train': ['0', '5', '7'], 'valid': ['1', '2', '3', '4', '6']})
  found = splits.apply(loaded, path)
  assert [numbers(part) for part in found.search] == [[0, 5, 7], [1, 2, 3, 4, 6]]
  assert numbers(found.train) == list(range(8)) and numbers(found.test) == list(range(100, 106))
  assert found.fingerprint() != loaded.fingerprint()
  c = config_lib.defaults()
  assert [numbers(part) for part in data.halves(found, 0.5, c.data.limit)] == [[0, 5, 7], [1, 2, 3, 4, 6]]
  assert [numbers(part) for part in data.halves(loaded, 0.5, c.data.limit)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
  c.data.limit = 2
  assert numbers(data.halves(found, 0.5, c.data.limit)[0]) == [0, 5]


def test_a_retraining_is_on_all_images_whatever_a_search_validated_with(loaded):
  train = data.Split(np.zeros((8, 8, 8, 3), np.uint8), loaded.train.labels)
  found = dataclasses.replace(loaded, train=train, test=train, mean=(0.5,) * 3, std=(0.5,) * 3,
                              search=(train.take(slice(5)), train.take(slice(5, 8))))
  c = config_lib.defaults()
  c.task, c.space.name, c.data.name, c.batch_size = 'retrain', 'nb201', 'cifar10', 2
  c.network.cells, c.network.channels, c.network.auxiliary = 1, 8, 0.0
  space = spaces.get('nb201')
  genotype = space.read('|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|')
  for portion, want in ((1.0, (8, 'test')), (0.5, (5, 'valid'))):
    c.train_portion = portion
    run = retrain.Training(config_lib.resolve(c), space, genotype, found, parallel.mesh(1, 2))
    assert (len(run.train), run.test_name) == want


@pytest.mark.parametrize('name', ['cifar100', 'imagenet16-120'])
def test_test_images_are_halved(monkeypatch, tmp_path, loaded, name):
  path = write(monkeypatch, tmp_path / splits.FILES[name][0], name,
               {'xvalid': ['1', '3', '4'], 'xtest': ['0', '2', '5']})
  loaded = dataclasses.replace(loaded, name=name)
  found = splits.apply(loaded, path)
  assert numbers(found.test) == [100, 102, 105]
  assert [numbers(part) for part in found.search] == [list(range(8)), [101, 103, 104]]
  monkeypatch.setitem(data._LOADERS, name, lambda config: loaded)
  by_name = data.get(data_config(name, split=str(path), shrink=2))
  assert by_name.search[1].images.shape == (3, 2, 2, 1) and numbers(by_name.test) == [100, 102, 105]
  alone = data.get(data_config(name, dir=str(tmp_path)))  # that of ImageNet16-120 is found beside the data
  assert (alone.search is not None) == (name == 'imagenet16-120')


def test_images_of_tfds_are_in_another_order(tmp_path):
  version = tmp_path / 'cifar10' / '3.0.2'
  version.mkdir(parents=True)
  (version / 'dataset_info.json').write_text('{}')
  with pytest.raises(UserError, match='cifar-10-python.tar.gz') as error:
    data.get(data_config('cifar10', dir=str(tmp_path), split='cifar-split.txt'))
  assert 'order of the official archive' in one_line(error)


def test_the_official_lists():
  """Names and fingerprints of the benchmark's own files, written down a second time."""
  assert splits.FILES == {
      'cifar10': ('cifar-split.txt', {'train': '33271aabb5cacdf1c47132344207b167',
                                      'valid': 'bd93afc25a3cdc817687b3116cb89324'}),
      'cifar100': ('cifar100-test-split.txt', {'xvalid': 'd48b75ee54451361b1616f45319dd135',
                                               'xtest': 'bc3f493b9f567b07e7db64c062302fac'}),
      'imagenet16-120': ('imagenet-16-120-test-split.txt', {'xvalid': 'fc643d2a01459022f6010b8124fe9512',
                                                            'xtest': '87d86641fac2115e50fe88f86b9a3dc7'})}


def test_bad_files_are_one_line(tmp_path, loaded):
  path = tmp_path / 'cifar-split.txt'
  path.write_text(json.dumps({'train': ['int', ['0']], 'valid': ['int', ['1']]}))
  for of, at, word in ((loaded, path, 'another list train'), (loaded, tmp_path / 'none', 'No such file'),
                       (dataclasses.replace(loaded, name='cifar100'), path, 'no list xvalid'),
                       (dataclasses.replace(loaded, name='digits'), path, "not for 'digits'")):
    with pytest.raises(UserError, match=word) as error:
      splits.apply(of, at)
    assert 'empty' in one_line(error)


@pytest.mark.parametrize('rows', [[0, 5, 7], ['0,5', '7'], '057', ['0', ' 5', '7'], ['0', '5', '-7'], {'0': 1}, None,
                                  ['0', '5', '٧'], ['0', '5', '\ud800'], [['0']], ['9' * 5000]])
def test_lists_that_only_look_alike(monkeypatch, tmp_path, loaded, rows):
  path = write(monkeypatch, tmp_path / 'cifar-split.txt', 'cifar10', {'train': ['0', '5', '7'], 'valid': ['1']})
  path.write_text(json.dumps({'train': ['int', rows], 'valid': ['int', ['1']]}))
  with pytest.raises(UserError, match='no list train or valid') as error:
    splits.apply(loaded, path)
  one_line(error)


def test_images_that_are_not_there_and_twice(monkeypatch, tmp_path, loaded):
  for rows, word in ((['0', '8'], 'names image 8 of a data set that has 8'), (['0', '0'], 'names an image twice')):
    path = write(monkeypatch, tmp_path / 'cifar-split.txt', 'cifar10', {'train': rows, 'valid': ['1']})
    with pytest.raises(UserError, match=word) as error:
      splits.apply(loaded, path)
    one_line(error)


@pytest.mark.parametrize('content', [b'', b'[' * 100_000, b'\xff', b'[1, 2]', b'{"train": []}', b'{"train": {}}',
                                     b'NaN', b'1' * 9000, b'{"train": ["int"], "valid": []}'])
def test_split_files_that_are_none(tmp_path, loaded, content):
  path = tmp_path / 'cifar-split.txt'
  path.write_bytes(content)
  with pytest.raises(UserError, match='is no cifar-split.txt .*fetch it again') as error:
    splits.apply(loaded, path)
  one_line(error)
