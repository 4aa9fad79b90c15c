"""The paper's ablation (its section 4.6) on the DARTS space with CIFAR-10, at a reduced size.

  python -m vimnas_jax.main --config=configs/ablation_darts.py --config.data.dir=DIR --workdir=runs/ablation_darts

DARTS, DARTS-dagger, VIM-NAS and its variants small, large, dropout and point, one search each: 8 cells, C = 8, images
averaged to 16x16. An epoch of theta alone comes before each; with `:strict`, VIM-NAS in the form of the paper's text,
none comes before any, and a step has one draw of xi. For the paper's own size add --config.space.channels=16
--config.data.shrink=1 --config.data.pad=4.
"""

from vimnas_jax import config as config_lib
from vimnas_jax import methods
from vimnas_jax.config import defaults, when, with_arguments

MEMBERS = ('DARTS method.name=darts pretrain.epochs=1', 'DARTS-noise method.name=darts_noise', 'VIM-NAS',
           'VIM-NAS-S method.variant=small', 'VIM-NAS-L method.variant=large', 'VIM-NAS-D method.variant=dropout',
           'VIM-NAS-P method.variant=point')


def smoke(config):
  config.space.name, config.space.cells, config.space.channels = 's2', 3, 2  # which compiles in less time
  config.data.limit, config.batch_size = 128, 8
  config.study.members = MEMBERS[3:4]


def strict(config):
  config_lib.strict(config)
  when(config, 'darts_noise', {'method.samples': 1, 'pretrain.epochs': 0.0})
  config.study.members = tuple(member.replace(' pretrain.epochs=1', '') for member in MEMBERS)


def get_config(arg=''):
  config = defaults()
  config.task = 'study'
  config.study.members = MEMBERS
  config.space.channels = 8
  when(config, 'vimnas', {**methods.SINGLE, 'pretrain.epochs': 1.0})
  config.data.shrink, config.data.pad = 2, 2
  return with_arguments(config, arg, smoke, strict=strict)
