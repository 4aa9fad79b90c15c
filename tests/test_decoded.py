"""Decoded images that are kept between runs."""

import os
import sys

import numpy as np
import pytest
from conftest import data_config
from test_tfds import PLAIN, encoded, write

from vimnas_jax import files
from vimnas_jax.data import decoded, pixels, tfds


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """A cache of this test's own, which keeps small sets too."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setattr(decoded, 'LEAST', 1)
  return tmp_path / 'cache' / 'vimnas_jax' / 'images'


def read(folder, *args):
  splits, *facts = tfds.read(folder, *args)
  return [(split.images.tolist(), split.labels.tolist(), split.aspects) for split in splits], facts


def test_a_set_is_decoded_once(tmp_path, cache, monkeypatch):
  folder = write(tmp_path, [PLAIN, encoded(np.full((4, 4, 3), 9, np.uint8))] * 3)
  first = read(folder)
  assert [path.suffix for path in cache.iterdir()] == ['.safetensors']
  monkeypatch.setattr(tfds, '_decode', None)  # what would be called
  assert read(folder) == first
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)  # which takes seconds to import
  assert read(folder) == first
  assert first[0][0][1] == [0, 1, 0, 1, 0, 1] and first[1] == [('ant', 'bee'), True, True]


def test_other_files_or_another_question_are_decoded_anew(tmp_path, cache):
  folder = write(tmp_path / 'one', [PLAIN] * 4)
  before = read(folder)
  other = write(tmp_path / 'two', [encoded(np.full((4, 4, 3), 8, np.uint8))] * 4)
  for path in other.iterdir():  # as many bytes, at the same place
    assert path.stat().st_size == (folder / path.name).stat().st_size
    (folder / path.name).write_bytes(path.read_bytes())
  assert read(folder) != before and len(list(cache.iterdir())) == 2
  free = write(tmp_path / 'three', [PLAIN] * 4, shape=(None, None, 3))
  photographs = {side: pixels.recipes(data_config('x', image_size=side, photographs=2 * side)) for side in (2, 4)}
  for side in (4, 2, 4):
    (train, test), _ = read(free, photographs[side])
    assert np.shape(train[0]) == (4, 2 * side, 2 * side, 3) and np.shape(test[0]) == (4, side, side, 3)
    assert train[2].tolist() == [1.0] * 4 and test[2] is None
  assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize('damage', [lambda data: data[:-5], lambda data: data[:-1] + b'\x55', lambda data: b'',
                                    lambda data: data.replace(b'"sum"', b'"mus"')])
def test_a_damaged_copy_is_not_taken(tmp_path, cache, damage):
  folder = write(tmp_path, [PLAIN] * 4)
  want = read(folder)
  [path] = cache.iterdir()
  path.write_bytes(damage(path.read_bytes()))
  assert decoded.load(path.stem) is None
  assert read(folder) == want
  assert decoded.load(path.stem) is not None  # written again


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  folder = write(tmp_path, [PLAIN] * 4)
  assert read(folder) == read(folder)
  assert files.cache() == tmp_path / 'file' / 'vimnas_jax'


def test_small_sets_are_not_kept_and_old_ones_go(cache, monkeypatch):
  one = {'a': np.arange(100, dtype=np.uint8)}
  monkeypatch.setattr(decoded, 'LEAST', 101)
  decoded.save('small', one, 0)
  assert decoded.load('small') is None
  monkeypatch.setattr(decoded, 'LEAST', 1)
  for i, name in enumerate('xyz'):
    decoded.save(name, one, i)
    os.utime(cache / f'{name}.safetensors', (i, i))
  assert decoded.load('x')[1] == 0  # asked for last
  monkeypatch.setattr(decoded, 'MOST', 100 + 2 * (cache / 'x.safetensors').stat().st_size)
  decoded.save('w', one, 3)
  assert {path.stem for path in cache.iterdir()} == {'x', 'z', 'w'}
