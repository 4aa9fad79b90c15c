"""VIM-NAS on the DARTS space with CIFAR-10: one epoch of search from scratch, 25,000 images, 8 cells, C = 16.

  python -m vimnas_jax.main --config=configs/darts_c10.py --config.data.dir=DIR --workdir=runs/darts

DIR is a TFDS data dir or holds the official archive.

`:half` searches on images averaged to 16x16, in two to six minutes of a core; a surrogate rates its cells above random
ones, level with published ones (docs/recipe.md, section 27). What it finds is trained on whole images.
"""

from vimnas_jax import methods
from vimnas_jax.config import defaults, half, when, with_arguments


def smoke(config):
  config.space.cells, config.space.channels = 3, 4
  config.data.limit, config.batch_size, config.epochs, config.pretrain.epochs = 128, 8, 1.0, 0.5


def get_config(arg=''):
  config = defaults()
  when(config, 'vimnas', methods.FASTER)
  return with_arguments(config, arg, smoke, half=half)
