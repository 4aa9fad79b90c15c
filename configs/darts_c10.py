"""VIM-NAS on the DARTS space with CIFAR-10: an epoch of theta alone, one of search, 25,000 images, 8 cells, C = 16.

  python -m vimnas_jax.main --config=configs/darts_c10.py --config.data.dir=DIR --workdir=runs/darts

DIR is a TFDS data dir or holds the official archive.
"""

from vimnas_jax import methods
from vimnas_jax.config import defaults, when, with_arguments


def smoke(config):
  config.space.cells, config.space.channels = 3, 4
  config.data.limit, config.batch_size, config.epochs, config.pretrain.epochs = 128, 8, 1.0, 0.5


def get_config(arg=''):
  config = defaults()
  when(config, 'vimnas', methods.SINGLE)
  return with_arguments(config, arg, smoke)
