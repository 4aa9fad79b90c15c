import dataclasses

import numpy as np
import pytest
from conftest import one_line

from vimnas_jax import data
from vimnas_jax.errors import UserError


def of(counts, shuffled=False, order=None, names=('cat', 'dog', 'eel', 'fox')):
  """A data set of so many images of every class, class by class unless `order` says otherwise; images are numbered."""
  labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
  labels = labels if order is None else labels[order]
  images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
  split = data.Split(images, labels)
  return data.Data('folder', split, split, len(counts), (0.5,), (0.5,), class_names=names[:len(counts)],
                   shuffled=shuffled)


def counted(split, classes):
  return np.bincount(split.labels, minlength=classes).tolist()


@pytest.mark.parametrize('portion, limit, train, valid', [
    (0.5, 0, [16] * 4, [16] * 4), (1.0, 64, [16] * 4, [0] * 4), (0.5, 64, [8] * 4, [8] * 4),
    (0.9, 0, [29, 29, 29, 28], [3, 3, 3, 4]), (0.5, 8, [1] * 4, [1] * 4), (0.25, 16, [1] * 4, [3] * 4)])
def test_every_part_of_a_folder_holds_every_class(portion, limit, train, valid):
  got = data.halves(of([32] * 4), portion, limit)
  assert [counted(part, 4) for part in got] == [train, valid]
  numbers = np.concatenate([part.images.ravel() for part in got])
  assert len(set(numbers.tolist())) == len(numbers) == sum(train) + sum(valid)
  again = data.halves(of([32] * 4), portion, limit)
  for one, other in zip(got, again):
    np.testing.assert_array_equal(one.images, other.images)
    if len(one) > 4:
      assert (np.diff(one.labels) < 0).any()  # not class by class


def test_rare_classes_are_in_both_parts():
  got = data.halves(of([100, 50, 3, 2]), 0.5, 40)
  assert [counted(part, 4) for part in got] == [[12, 6, 1, 1], [12, 6, 1, 1]]
  assert [len(part) for part in data.halves(of([100, 50, 3, 2]), 0.5)] == [77, 78]


def test_a_whole_set_is_not_copied():
  whole = of([3, 3])
  assert np.shares_memory(data.halves(whole, 1.0)[0].images, whole.train.images)


def test_shuffled_images_are_cut_where_they_lie():
  order = np.random.default_rng(0).permutation(64)
  whole = of([16] * 4, True, order)
  train, valid = data.halves(whole, 0.4, 50)
  assert train.images.ravel().tolist() == list(range(20)) and valid.images.ravel().tolist() == list(range(20, 50))
  np.testing.assert_array_equal(train.labels, whole.train.labels[:20])


def test_the_halves_of_a_split_file_are_kept():
  part = of([4, 4]).train
  given = dataclasses.replace(of([8, 8]), search=(part, part))
  train, valid = data.halves(given, 0.3, 6)
  assert train.images.ravel().tolist() == list(range(6)) and valid is part


@pytest.mark.parametrize('whole, portion, limit, says', [
    (of([8, 8], True), 0.5, 0, r"class 'dog' has no image among the 8 of the training part"),
    (of([9, 7], True, [*range(8), 9, 10, 11, 12, 8, 13, 14, 15]), 0.5, 0, 'set config.train_portion=0.75,'),
    (of([4, 4], True), 1.0, 3, "class 'dog' .*: set config.data.limit=6, or 0 for all"),
    (of([4, 4], True, [0, 4, 1, 2, 3, 5, 6, 7]), 0.5, 4, r"class 'dog' .*validation part: set config.data.limit=0"),
    (of([9, 9, 9, 9]), 0.5, 6, r"class '\w+' has no image .*: set config.data.limit=12"),
    (of([9, 9, 1]), 0.5, 0, "class 'eel' .*validation part: add images of that class, or take it away"),
    (of([9, 9, 0]), 1.0, 0, "class 'eel' .*: add images of that class")])
def test_a_part_without_a_class_is_refused_with_a_value_that_works(whole, portion, limit, says):
  with pytest.raises(UserError, match=says) as e:
    data.halves(whole, portion, limit)
  assert 'config.data.limit=' in one_line(e)


def test_photographs_held_whole_are_for_those_who_take_parts_of_them():
  whole = of([4, 4])
  whole = dataclasses.replace(whole, train=dataclasses.replace(whole.train, aspects=np.ones(8, np.float32)), side=1)
  for portion, able in ((1.0, False), (0.5, True)):
    with pytest.raises(UserError, match='set config.data.photographs=0') as e:
      data.halves(whole, portion, whole=able)
    one_line(e)
  with pytest.raises(UserError, match='set config.data.photographs=0'):
    data.shares(whole, (0.5, 0.5))
  train, valid = data.halves(whole, 1.0, 4, whole=True)
  assert len(train.aspects) == 4 and counted(train, 2) == [2, 2] and len(valid) == 0


def test_the_fingerprint_of_a_folder_holds_its_names():
  one, other = of([4, 4]), of([4, 4], names=('cat', 'ant'))
  assert one.fingerprint() != other.fingerprint()
  assert of([4, 4], True).fingerprint() == of([4, 4], True, names=('cat', 'ant')).fingerprint()
