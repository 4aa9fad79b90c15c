"""VIM-NAS beside its strict form, DARTS, DARTS-dagger and random cells on NAS-Bench-201 with CIFAR-10, four seeds each.

  python -m vimnas_jax.main --config=configs/compare_nb201.py --config.data.dir=DIR --workdir=runs/compare_nb201

The same supernet, batches and number of steps for all, three epochs of theta alone and two of search, but that DARTS
takes a second batch in every step and the strict form (the paper's text to the letter) has one epoch and nothing before
it, and the weight decay of the paper's search on DARTS, without Nesterov. Every method has the optimiser and rate of
its own defaults: VIM-NAS SGD 0.01 to 0.1, strict and DARTS-dagger SGD 0.025, DARTS Adam 3e-4; DARTS-noise-0.1 is
DARTS-dagger at VIM-NAS's rate. With --config.data.shrink=2 --config.data.pad=2 images are averaged to 16x16, a quarter
of the time.
"""

from vimnas_jax import methods
from vimnas_jax.config import defaults, with_arguments

STRICT = ' '.join(f'{field}={value}' for field, value in (methods.STRICT | methods.STRICT_THETA).items())
MEMBERS = ('VIM-NAS', f'VIM-NAS-strict epochs=1 {STRICT}', 'DARTS-noise method.name=darts_noise pretrain.epochs=3',
           'DARTS-noise-0.1 method.name=darts_noise pretrain.epochs=3 phi.lr=0.1',
           'DARTS method.name=darts method.phi_first=False pretrain.epochs=3', 'random method.name=random epochs=0')


def smoke(config):
  config.space.cells, config.space.channels = 1, 4
  config.data.limit, config.batch_size, config.epochs = 512, 32, 1.0
  config.study.seeds, config.study.members = (0,), (MEMBERS[0], MEMBERS[-1])


def get_config(arg=''):
  config = defaults()
  config.task = 'study'
  config.study.members, config.study.seeds = MEMBERS, (100, 101, 102, 103)
  config.space.name = 'nb201'
  config.space.cells, config.epochs = 5, 2.0
  config.theta.weight_decay = 5e-4  # NAS-Bench-201's own search settings
  config.theta.nesterov = True
  return with_arguments(config, arg, smoke)
