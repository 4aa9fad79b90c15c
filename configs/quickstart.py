"""A first search: NAS-Bench-201's cell on the handwritten digits that scikit-learn ships, 8x8 pixels.

  python -m vimnas_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Ten epochs of 22 steps; on two CPU cores 70 s the first time, most of it compiling. Every one of seeds 0 to 9 ended at a
one-hotness of 0.993 to 0.999, with no edge dead at any step that was logged; the cells differ, and so does what
NAS-Bench-201 says of them (results/quickstart/seeds.md): digits of 8x8 pixels do not need its convolutions.
"""

from vimnas_jax.config import defaults, when, with_arguments


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
  config.epochs = 10.0
  # It needs no validation half. The digits are learned within a few epochs and the gradient is gone then: phi has to
  # decide at once, hence four times the rate of the recipe and no epoch of theta alone.
  when(config, 'vimnas', {'train_portion': 1.0, 'pretrain.epochs': 0.0, 'method.samples': 4, 'phi.lr': 0.4})
  return with_arguments(config, arg, smoke)
