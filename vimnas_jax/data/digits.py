"""The handwritten digits that scikit-learn bundles: 1,797 grey images of 8x8, no download.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998; scikit-learn's `load_digits`.
"""

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
  from sklearn import datasets  # slow to import, so only when asked for
  bundle = datasets.load_digits()
  values = bundle.images.astype(np.int32)  # 0 .. 16
  images = ((values * 255 + 8) // 16).astype(np.uint8)[..., None]  # [n, h, w, c]
  labels = bundle.target.astype(np.int32)
  test = np.arange(len(labels)) % 5 == 4
  return Data('digits', Split(images[~test], labels[~test]), Split(images[test], labels[test]), 10, MEAN, STD,
              class_names=tuple('0123456789'))
