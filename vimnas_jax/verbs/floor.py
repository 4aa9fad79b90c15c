"""What colour alone tells of one's own images: the figure that a network has to beat.

A random forest (Breiman, 2001; scikit-learn's, 200 trees) on histograms of colour: 16 bins of every channel, and
4 x 4 x 4 of all three together. It sees no shape.
"""

import numpy as np

from vimnas_jax import data

MOST = 2000  # images that it is fitted to, and as many that it is tested on: seconds on one core
TREES = 200
NEED = 5.0  # points by which a network is ahead where images need one
_SINGLE, _JOINT = 16, 4  # bins of one channel, and of each where all are taken together


def histograms(images) -> np.ndarray:
  """Shares of the pixels in every bin, float32 [n, bins], of uint8 [n, h, w, c]."""
  rows = []
  for image in images:
    pixels = image.reshape(-1, image.shape[-1])
    singles = [np.bincount(channel // (256 // _SINGLE), minlength=_SINGLE) for channel in pixels.T]
    joint = []
    if pixels.shape[1] == 3:
      cell = (pixels // (256 // _JOINT)).astype(int) @ [_JOINT * _JOINT, _JOINT, 1]
      joint = [np.bincount(cell, minlength=_JOINT ** 3)]
    rows.append(np.concatenate([*singles, *joint]) / len(pixels))
  return np.asarray(rows, np.float32)


def measure(loaded: data.Data, train: data.AnySplit, test: data.AnySplit) -> dict:
  """What result.json holds of it: 'top1' in % on the test images, and how many images it had. Deterministic.

  Of images that are streamed those that it takes are decoded for it.
  """
  from sklearn.ensemble import RandomForestClassifier  # slow to import
  fitted, asked = (part.batch(0, len(part)) for part in (data.limited(split, MOST, loaded.num_classes)
                                                         for split in (train, test)))
  forest = RandomForestClassifier(TREES, random_state=0)
  forest.fit(histograms(fitted[0]), fitted[1])
  right = forest.predict(histograms(asked[0])) == asked[1]
  return {'method': 'random forest on colour histograms', 'top1': round(100 * float(right.mean()), 2),
          'training_images': len(fitted[1]), 'test_images': len(asked[1])}


def gain(floor: dict, top1: float) -> float:
  """Points by which a network with `top1` % is ahead, both taken to the two digits that `measure` gives."""
  return round(top1, 2) - round(floor['top1'], 2)


def line(floor: dict, top1: float) -> str:
  """What a user is told: whether a network with `top1` % was worth its while."""
  ahead = gain(floor, top1)
  verdict = ('your images need a network' if ahead >= NEED else
             'a network adds little to colour on these images' if ahead >= 0 else
             'this network is worse than colour alone: train it longer, or with more images')
  return f'colour alone   {floor["top1"]:.2f} % ({floor["method"]}): {verdict}'
