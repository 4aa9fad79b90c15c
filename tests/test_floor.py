import numpy as np

from vimnas_jax import data
from vimnas_jax.verbs import floor


def made(train, test, classes=2):
  return data.Data('folder', train, test, classes, (0.5,) * 3, (0.2,) * 3, class_names=tuple('abc'[:classes]))


def test_colour_is_told_and_shape_is_not(monkeypatch):
  monkeypatch.setattr(floor, 'TREES', 20)
  rng = np.random.default_rng(0)
  labels = np.arange(200, dtype=np.int32) % 2

  def split(tell, count):
    images = rng.integers(100, 120, (count, 8, 8, 3), np.uint8)
    if tell == 'colour':
      images[labels[:count] == 1, ..., 0] += 100
    else:  # the same colours, on the left or on the right
      images[labels[:count] == 0, :, :4] += 100
      images[labels[:count] == 1, :, 4:] += 100
    return data.Split(images, labels[:count])

  for tell, low, high in (('colour', 99, 100), ('shape', 25, 75)):
    train, test = split(tell, 200), split(tell, 100)
    found = floor.measure(made(train, test), train, test)
    assert low <= found['top1'] <= high and found['training_images'] == 200, found
    assert floor.measure(made(train, test), train, test) == found
  assert 'need a network' in floor.line({'top1': 82.0, 'method': 'm'}, 97.0)
  assert 'adds little' in floor.line({'top1': 95.0, 'method': 'm'}, 97.0)
  assert 'worse' in floor.line({'top1': 99.0, 'method': 'm'}, 97.0)
  assert 'adds little' in floor.line({'top1': 66.67, 'method': 'm'}, 66.6667)  # 28 of 42 images, both


def test_many_images_are_capped_class_by_class():
  labels = np.repeat(np.arange(3, dtype=np.int32), (100, 50, 50))
  split = data.Split(np.zeros((200, 4, 4, 3), np.uint8), labels)
  assert np.bincount(data.limited(split, 30, 3).labels).tolist() == [15, 8, 7]
  assert data.limited(split, 0, 3) is data.limited(split, 200, 3) is split


def test_histograms_are_shares_of_pixels():
  image = np.zeros((1, 4, 4, 3), np.uint8)
  image[0, :2, :, 1] = 255
  (row,) = floor.histograms(image)
  assert row.sum() == 4 and row[0] == 1 and row[16] == 0.5 and row[31] == 0.5  # three channels, and all together
  assert row[48] == 0.5 and row[48 + 12] == 0.5
  assert floor.histograms(np.zeros((2, 4, 4, 1), np.uint8)).shape == (2, 16)
