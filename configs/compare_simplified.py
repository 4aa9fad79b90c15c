"""VIM-NAS beside first-order DARTS and random cells on the spaces S1 to S4 with CIFAR-10, at a reduced size.

  python -m vimnas_jax.main --config=configs/compare_simplified.py:s1 --config.data.dir=DIR --workdir=runs/simplified/s1
  python -m vimnas_jax.main --config=configs/compare_simplified.py --config.task=report \
      --config.report.runs=runs/simplified --workdir=runs/simplified/report

The space goes after the colon. Three seeds each: a search (5 cells, C = 8, images averaged to 16x16, batch 32, two
epochs of theta on 12,500 images, in the second of which the architecture moves too: 390 steps each), its supernet's
accuracy on 5,000 validation images (whole batches of them: 4,992), and the network of what it found (5 cells, C = 8)
trained from scratch for two epochs on 25,000 images and tested on all test images. The second command puts the spaces
side by side. results/compare_simplified has the runs, docs/spaces.md what they show; about half an hour a space on one
core.
"""

from vimnas_jax import methods
from vimnas_jax.config import defaults, in_spaces, when, with_arguments
from vimnas_jax.spaces.simplified import NAMES

MEMBERS = ('VIM-NAS', 'DARTS method.name=darts pretrain.epochs=1', 'random method.name=random epochs=2')


def smoke(config):
  config.space.cells, config.space.channels = 3, 4
  config.data.limit, config.batch_size, config.supernet_images = 128, 8, 16
  config.study.seeds, config.study.members = (100,), MEMBERS[:1]
  config.then_changes = 'network.cells=3 network.channels=4 network.auxiliary=0.0 epochs=1 batch_size=8 data.cutout=0'


def get_config(arg=''):
  config = defaults()
  config.task, config.then = 'study', 'retrain'
  config.study.members, config.study.seeds = MEMBERS, (100, 101, 102)
  config.space.name, config.space.cells, config.space.channels = 's1', 5, 8
  config.data.limit, config.batch_size = 25000, 32
  config.data.shrink, config.data.pad = 2, 2
  config.supernet_images = 5000
  when(config, 'vimnas', {**methods.SINGLE, 'pretrain.epochs': 1.0})  # as results/compare_simplified has it
  config.then_changes = ('data.limit=25000 network.cells=5 network.channels=8 network.auxiliary=0.0 '
                         'network.drop_path=0.0 data.cutout=0 epochs=2 eval_epochs=2 batch_size=64 theta.lr=0.05 '
                         'theta.schedule=cosine measure_batches=()')
  return with_arguments(config, arg, smoke, **in_spaces(dict(zip(NAMES, NAMES))))
