"""Retraining of a DARTS cell on CIFAR-10: 600 epochs, 20 cells, 36 channels, as Liu et al., DARTS (ICLR 2019).

  python -m vimnas_jax.main --config=configs/retrain_c10.py --config.genotype=runs/darts --config.data.dir=DIR

The genotype is a run folder, a genotype file, a published name such as PC_DARTS_cifar, or Genotype(...) text. It
wants a GPU, and has not run here to its end. `:short` ranks seeds: 20 epochs of the 8-cell, 16-channel network with
batch 128.
"""

from vimnas_jax.config import defaults, retraining, short, with_arguments


def smoke(config):
  config.genotype = 'DARTS_V2'
  config.network.cells, config.network.channels = 3, 4
  config.data.limit, config.batch_size, config.epochs = 64, 16, 1.0


def get_config(arg=''):
  return with_arguments(retraining(defaults()), arg, smoke, short=short)
