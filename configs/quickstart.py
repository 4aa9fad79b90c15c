"""A first search: NAS-Bench-201's cell on the handwritten digits that scikit-learn ships, 8x8 pixels.

  python -m vimnas_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Twenty epochs of 22 steps; on two CPU cores a minute and a half the first time, compiling included.
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
  config.batch_size = 64
  config.epochs = 20.0
  config = with_arguments(config, arg, smoke)
  if config.method.name == 'vimnas':  # needs no validation half
    config.train_portion = 1.0
    # The digits are learned within a few epochs and the gradient is gone then: phi has to decide at once, which the
    # paper's own form does (with the recipe of the other configs one-hotness ends at 0.85 to 0.92).
    config.pretrain.epochs = 0.0
    config.method.last = 'relu'
    config.method.samples = 4
  return config
