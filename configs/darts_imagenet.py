"""A search of the DARTS space on ImageNet itself, on the protocol of Xu et al., PC-DARTS (ICLR 2020); any method.

  python -m vimnas_jax.main --config=configs/darts_imagenet.py --config.data.dir=DIR --workdir=runs/imagenet

DIR holds train/CLASS/* and val/CLASS/*, as ILSVRC 2012 is unpacked; with --config.data.name=tfds/imagenet2012 it is a
TFDS data dir. Drawn by a fixed seed, a tenth of the images of every class trains theta (128,000) and a fortieth the
architecture, for methods that validate (32,000); both are listed in subset.json. Stems of three stride-2 convolutions,
8 cells of 28x28 and less, C = 16, random resized crops of the photographs, flips, no jitter, batch 1024 over all
devices (launch/ starts more of them). The paper gives neither its lengths nor its rates here: three epochs of search,
from scratch as on CIFAR-10, are this project's choice. `:method=pcdarts,published` has PC-DARTS's own 50 epochs. On one
GPU of 24 GB or less: --config.batch_size=256 --config.theta.lr=0.1. What it finds goes to configs/retrain_imagenet.py,
or at once there by --config.then=retrain.

No figure of this configuration has been measured, as ImageNet was not at hand. docs/scale.md has estimates.
"""

from vimnas_jax import methods
from vimnas_jax.config import defaults, when, with_arguments


def smoke(config):
  config.space.cells, config.space.channels = 3, 4
  config.data.image_size, config.batch_size, config.data.search_parts = 32, 8, (0.5, 0.5)
  config.pretrain.epochs, config.epochs, config.theta.lr = 0.5, 1.0, 0.025


def get_config(arg=''):
  config = defaults()
  config.space.imagenet = True
  when(config, 'vimnas', methods.FASTER)
  config.data.name, config.data.image_size = 'folder', 224
  config.data.search_parts = (0.1, 0.025)
  config.data.smallest, config.data.pad, config.data.moments = 0.08, 0, 'imagenet'
  config.batch_size, config.epochs = 1024, 3.0
  config.theta.lr, config.theta.lr_end = 0.4, 0.0  # 0.025 for 64 images, in proportion
  return with_arguments(config, arg, smoke)
