r"""Data of one's own: images from a NumPy file, or, where there is none, coloured shapes that are drawn here.

  python -m vimnas_jax.main --config=configs/quickstart.py --config.data.name=examples/own_data.py \
      --config.data.image_size=16 --config.then=retrain --workdir=runs/own_data \
      --config.then_changes='epochs=10 batch_size=64 network.cells=1 network.channels=16'
  python -m vimnas_jax.main --config=configs/quickstart.py --config.task=evaluate \
      --config.data.name=examples/own_data.py --config.data.image_size=16 --config.genotype=runs/own_data/retrain \
      --workdir=runs/own_data_evaluation

With --config.data.dir=DIR it reads DIR/data.npz, which holds train_images and test_images, uint8 [n, h, w, c], and
train_labels, test_labels and class_names, one per class; np.savez writes such a file.
"""

import pathlib

import numpy as np

SHAPES = ('square', 'disc', 'cross', 'ring')


def load(config):
  """(training images, training labels, test images, test labels, names of the classes), by config.data."""
  if config.dir:
    file = np.load(pathlib.Path(config.dir).expanduser() / 'data.npz')
    arrays = [file[f'{part}_{kind}'] for part in ('train', 'test') for kind in ('images', 'labels')]
    return *arrays, [str(name) for name in file['class_names']]
  train, test = _drawn(config.num_train, config.image_size, seed=0), _drawn(config.num_test, config.image_size, seed=1)
  return *train, *test, SHAPES


def _drawn(count, side, seed):
  """Shapes of any colour, size and place on a noisy ground: a function of its arguments, so every run sees the same."""
  rng = np.random.default_rng(seed)
  labels = np.arange(count) % len(SHAPES)
  center = rng.uniform(0.35, 0.65, (2, count, 1, 1)) * side
  dy, dx = (abs(np.arange(side).reshape(shape) - c) for shape, c in zip(((1, -1, 1), (1, 1, -1)), center))
  size = rng.uniform(0.2, 0.35, (count, 1, 1)) * side
  far, near, away = np.maximum(dy, dx), np.minimum(dy, dx), np.hypot(dy, dx)
  inside = np.stack([far < size, away < size, (far < size) & (near < size / 3), (away < size) & (away > size / 2)])
  mask = inside[labels, np.arange(count)][..., None]  # [n, h, w, 1]
  color, ground = rng.integers(100, 256, (count, 1, 1, 3)), rng.integers(0, 100, (count, side, side, 3))
  return np.where(mask, color, ground).astype(np.uint8), labels
