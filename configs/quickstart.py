"""A first search: NAS-Bench-201's cell on the handwritten digits that scikit-learn ships, 8x8 pixels.

  python -m vimnas_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Twenty epochs of 22 steps, about 20 seconds on two CPU cores after a compile of ten; one-hotness above 0.99.
"""

from vimnas_jax.config import defaults, with_arguments


def smoke(config):
  config.pretrain.epochs, config.epochs = 0.5, 0.5
  config.space.channels = 4


def get_config(arg=''):
  config = defaults()
  config.space.name = 'nb201'
  config.space.cells = 1
  config.data.name = 'digits'
  config.data.pad = 1
  config.data.flip = False  # a mirrored digit is no digit
  config.batch_size = 64
  config.pretrain.epochs = 4.0
  config.epochs = 16.0
  config = with_arguments(config, arg, smoke)
  if config.method.name in ('vimnas', 'darts_noise'):  # these need no validation half
    config.train_portion = 1.0
  return config
