"""VIM-NAS on NAS-Bench-201 with CIFAR-10: three epochs of theta alone, two of search, 25,000 images, N = 5, C = 16.

  python -m vimnas_jax.main --config=configs/nb201_c10.py --config.data.dir=DIR --workdir=runs/nb201

DIR is a TFDS data dir or holds the official archive. A test-accuracy CSV goes to --config.oracle.test_csv.

`:half` searches on images averaged to 16x16, in a quarter of the time (docs/recipe.md, section 22); what it finds is
trained on whole ones.
"""

from vimnas_jax.config import defaults, half, when, with_arguments


def smoke(config):
  config.space.cells, config.space.channels = 1, 4
  config.data.limit, config.batch_size, config.epochs = 512, 32, 1.0


def get_config(arg=''):
  config = defaults()
  config.space.name = 'nb201'
  config.space.cells = 5
  config.epochs = 2.0
  config.theta.weight_decay = 5e-4  # NAS-Bench-201's own search settings
  config.theta.nesterov = True
  when(config, 'darts', {'method.phi_first': False})  # its DARTS-V1 moves theta first
  return with_arguments(config, arg, smoke, half=half)
