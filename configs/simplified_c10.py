"""VIM-NAS on the simplified spaces S1 to S4 with CIFAR-10; the space goes after the colon.

  python -m vimnas_jax.main --config=configs/simplified_c10.py:s2 --config.data.dir=DIR --workdir=runs/s2

One epoch of search from scratch, 25,000 images, 8 cells, C = 16; phi's maps are 14x2, in S3 14x3. `:s2,half` searches
on images averaged to 16x16, in three minutes of a core (docs/recipe.md, section 26); what it finds is trained on whole
images.
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
  when(config, 'vimnas', methods.EARLY)
  when(config, 'vimnas', {**methods.SINGLE, 'method.sharpen_from': methods.fields('vimnas')['sharpen_from']},
       space='s4')  # where who decides early takes the noise
  return with_arguments(config, arg, smoke, half=half, **in_spaces(dict(zip(NAMES, NAMES))))
