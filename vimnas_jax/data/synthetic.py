"""Made-up images that can be learned: each class has its own coarse colour pattern, drowned in noise."""

import numpy as np

from vimnas_jax.data.types import Data, Split
from vimnas_jax.errors import UserError

GRID = 4  # a class pattern is this many squares high and wide
CONTRAST, NOISE = 45.0, 40.0  # standard deviations, in pixel values of 0 .. 255


def _split(seed: list[int], patterns: np.ndarray, count: int) -> Split:
  rng = np.random.default_rng(seed)
  labels = rng.permutation(np.arange(count) % len(patterns)).astype(np.int32)
  noise = rng.standard_normal((count, *patterns.shape[1:]), np.float32)  # [n, h, w, c]
  images = np.clip(np.rint(patterns[labels] + np.float32(NOISE) * noise), 0, 255)
  return Split(images.astype(np.uint8), labels)


def load(config) -> Data:
  """RGB images [n, image_size, image_size, 3], classes balanced; a function of the config's numbers alone.

  The training images do not depend on num_test, nor the test images on num_train.

  Args:
    config: has `num_train`, `num_test`, `image_size` (pixels), `num_classes` and `seed`.

  Raises:
    UserError: a number is too small.
  """
  lowest = {'num_train': 1, 'num_test': 1, 'image_size': 1, 'num_classes': 1, 'seed': 0}
  for field, least in lowest.items():
    if getattr(config, field) < least:
      raise UserError(f'config.data.{field}={getattr(config, field)}: synthetic data needs at least {least}')
  if config.num_train < config.num_classes:
    raise UserError(f'config.data.num_train={config.num_train} leaves some of config.data.num_classes='
                    f'{config.num_classes} without an image; raise the one or lower the other')
  coarse = np.random.default_rng([config.seed, 0]).standard_normal((config.num_classes, GRID, GRID, 3), np.float32)
  at = np.arange(config.image_size) * GRID // config.image_size
  patterns = np.float32(127.5) + np.float32(CONTRAST) * coarse[:, at][:, :, at]  # [classes, h, w, c]
  train = _split([config.seed, 1], patterns, config.num_train)
  test = _split([config.seed, 2], patterns, config.num_test)
  scaled = train.images.reshape(-1, 3) / 255
  mean, std = (tuple(round(float(v), 4) for v in stat) for stat in (scaled.mean(0), scaled.std(0)))
  return Data('synthetic', train, test, config.num_classes, mean, tuple(max(s, 1e-3) for s in std),
              class_names=tuple(map(str, range(config.num_classes))))
