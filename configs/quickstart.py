"""A first search: NAS-Bench-201's cell on the handwritten digits that scikit-learn ships, 8x8 pixels.

  python -m vimnas_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Twenty epochs of 22 steps, about 20 seconds on two CPU cores after a compile of ten; one-hotness above 0.99.
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
    config.method.samples = 4  # one draw of xi for every 16 images: the gradient of phi is calmer
    config.phi.lr = 0.1  # every edge decides within the first hundred steps
  return config
