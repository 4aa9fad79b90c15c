"""Retraining of a NAS-Bench-201 cell on CIFAR-10 by the benchmark's own protocol: 200 epochs, N = 5, C = 16.

  python -m vimnas_jax.main --config=configs/retrain_nb201_c10.py --config.genotype=runs/nb201 --config.data.dir=DIR

The genotype is a run folder, a genotype file or the benchmark's own string. It wants a GPU, and has not run here to its
end. `:short` is the benchmark's 12-epoch protocol.
"""

from vimnas_jax.config import defaults, retraining, with_arguments


def smoke(config):
  config.genotype = '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|'
  config.network.cells, config.network.channels = 1, 4
  config.data.limit, config.batch_size, config.epochs = 64, 16, 1.0


def short(config):
  config.epochs = 12.0


def get_config(arg=''):
  config = defaults()
  config.space.name = 'nb201'
  return with_arguments(retraining(config), arg, smoke, short=short)
