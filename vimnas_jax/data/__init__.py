"""Data sets by name, whole in memory as uint8."""

import dataclasses

import numpy as np

from vimnas_jax.data import cifar, digits, folder, imagenet16, splits, synthetic, tfds
from vimnas_jax.data.types import Data, Split, check
from vimnas_jax.errors import UserError

__all__ = ['Data', 'Split', 'check', 'get', 'NAMES']

_LOADERS = {'cifar10': cifar.load, 'cifar100': cifar.load, 'imagenet16-120': imagenet16.load,
            'folder': folder.load, 'digits': digits.load, 'synthetic': synthetic.load}
NAMES = (*_LOADERS, f'{tfds.PREFIX}NAME')


def get(config) -> Data:
  """The data set that `config` (config.data) describes, checked.

  Args:
    config: has `name`, `split` and `shrink`; for CIFAR `dir` and `download`, for ImageNet16-120 `dir`;
      for a folder of images, and sets of TFDS, `dir` and `image_size`; for synthetic data
      `num_train`, `num_test`, `image_size`, `num_classes` and `seed`. Each source reads its own fields only.

  Raises:
    UserError: unknown name, or data that is missing, damaged or unfit.
  """
  load = tfds.load if config.name.startswith(tfds.PREFIX) else _LOADERS.get(config.name)
  if load is None:
    raise UserError(f'config.data.name={config.name!r} is no data set; choose one of {", ".join(NAMES)}')
  path = splits.beside(config)
  if path and load is cifar.load and cifar.in_tfds(config):
    raise UserError(f'config.data.split={path!r} counts images in the order of the official archive, which the TFDS '
                    f'files under {config.dir} do not keep: set config.data.dir to a folder that holds '
                    f'{cifar.SOURCES[config.name].archive} alone, or leave config.data.split empty')
  loaded = load(config)
  return check(_shrunk(splits.apply(loaded, path) if path else loaded, config.shrink))


def _shrunk(data: Data, by: int) -> Data:
  """Every image averaged over squares of `by` pixels, rounded. Raises UserError where they do not divide it."""
  h, w, c = data.image_shape
  if by < 1 or h % by or w % by:
    raise UserError(f'config.data.shrink={by} does not divide images of {h}x{w}: choose a divisor, or 1')
  if by == 1:
    return data

  def split(of: Split) -> Split:
    squares = of.images.reshape(-1, h // by, by, w // by, by, c)
    return Split(np.rint(squares.mean((2, 4), dtype=np.float32)).astype(np.uint8), of.labels)

  search = tuple(map(split, data.search)) if data.search else None
  return dataclasses.replace(data, train=split(data.train), test=split(data.test), search=search)
