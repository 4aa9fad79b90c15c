"""VIM-NAS on the simplified spaces S1 to S4 with CIFAR-10; the space goes after the colon.

  python -m vimnas_jax.main --config=configs/simplified_c10.py:s2 --config.data.dir=DIR --workdir=runs/s2

One epoch of search from scratch, in S4 after three of theta alone, 25,000 images, 8 cells, C = 16; phi's maps are 14x2,
in S3 14x3. `:s2,half` searches on images averaged to 16x16, in one to three minutes of a core, S4 in five and more
(docs/recipe.md, sections 26 and 27); what it finds is trained on whole images.
"""

from vimnas_jax import methods
from vimnas_jax.config import defaults, half, in_spaces, when, with_arguments
from vimnas_jax.spaces.simplified import NAMES


def smoke(config):
  config.space.cells, config.space.channels = 3, 4
  config.data.limit, config.batch_size, config.epochs, config.pretrain.epochs = 128, 8, 1.0, 0.5


def get_config(arg=''):
  config = defaults()
  config.space.name = 's1'
  for name in NAMES:
    if name != 's4':  # there who decides early takes the noise
      when(config, 'vimnas', methods.EARLY, space=name)
  return with_arguments(config, arg, smoke, half=half, **in_spaces(dict(zip(NAMES, NAMES))))
