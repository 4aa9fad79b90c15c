"""The handwritten digits that scikit-learn bundles: 1,797 grey images of 8x8, no download.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998; scikit-learn's `load_digits`.
"""

import importlib.util
import pathlib

import numpy as np

from vimnas_jax.data.types import Data, Split

# Of the training split below, scaled to 0 .. 1, rounded.
MEAN, STD = (0.3059,), (0.3763,)


def load(config) -> Data:
  """The digits, [n, 8, 8, 1]: every fifth image (359) is for test, the others (1,438) for training.

  Args:
    config: ignored; there is nothing to choose.
  """
  del config
  values, labels = _table()
  images = ((values * 255 + 8) // 16).astype(np.uint8)[..., None]  # [n, h, w, c]
  test = np.arange(len(labels)) % 5 == 4
  return Data('digits', Split(images[~test], labels[~test]), Split(images[test], labels[test]), 10, MEAN, STD,
              class_names=tuple('0123456789'))


def _table():
  """Pixels from 0 to 16, int32 [1797, 8, 8], and labels, int32 [1797].

  They are read from scikit-learn's file where it lies as it does today: importing scikit-learn takes five seconds.
  """
  found = importlib.util.find_spec('sklearn')
  file = pathlib.Path(found.origin if found and found.origin else '').parent / 'datasets' / 'data' / 'digits.csv.gz'
  if file.is_file():
    table = np.loadtxt(file, delimiter=',').astype(np.int32)
    return table[:, :64].reshape(-1, 8, 8), table[:, 64]
  from sklearn import datasets
  bundle = datasets.load_digits()
  return bundle.images.astype(np.int32), bundle.target.astype(np.int32)
