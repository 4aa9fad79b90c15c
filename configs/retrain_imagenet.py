"""Retraining of a DARTS cell on photographs of 224 pixels, as Xu et al., PC-DARTS (ICLR 2020), do on ImageNet.

  python -m vimnas_jax.main --config=configs/retrain_imagenet.py --config.genotype=runs/darts --config.data.dir=DIR

DIR holds train/CLASS/* and val/CLASS/*; with --config.data.name=tfds/imagenet2012 it is a TFDS data dir. What does not
fit in memory, 0.2 GB a thousand images, is streamed: config.data.workers processes decode. 14 cells, 48 channels, 250
epochs, batch 1024, rate 0.5 in a straight line after five epochs of warm-up, label smoothing 0.1, random resized crops
of the photograph, colour jitter 0.4, hue 0.2; evaluation at the centre of photographs scaled to 256 pixels. `:darts`
has DARTS's own settings: batch 128, rate 0.1, multiplied by 0.97 after every epoch. With a batch of 256 or less set
--config.theta.warmup=0.
"""

from vimnas_jax.config import defaults, on_imagenet, retraining, with_arguments


def smoke(config):
  config.genotype = 'DARTS_V2'
  config.network.cells, config.network.channels, config.network.auxiliary = 3, 4, 0.0
  config.data.image_size, config.data.photographs, config.batch_size, config.epochs = 32, 37, 8, 1.0


def darts(config):
  config.batch_size = 128
  config.theta.lr, config.theta.schedule, config.theta.warmup = 0.1, 'step_epoch', 0


def get_config(arg=''):
  config = retraining(defaults())
  config.data.name, config.data.image_size = 'folder', 224
  on_imagenet(config)
  return with_arguments(config, arg, smoke, darts=darts)
