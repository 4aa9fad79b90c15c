"""A first search: NAS-Bench-201's cell on the handwritten digits that scikit-learn ships, 8x8 pixels.

  python -m vimnas_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from vimnas_jax.config import defaults, with_arguments


def smoke(config):
  config.epochs = 1.0
  config.space.channels = 4


def get_config(arg=''):
  config = defaults()
  config.space.name = 'nb201'
  config.space.cells = 1
  config.data.name = 'digits'
  config.data.pad = 1
  config.data.flip = False  # a mirrored digit is no digit
  config.batch_size = 32
  config.epochs = 20.0
  config.train_portion = 1.0
  return with_arguments(config, arg, smoke)
