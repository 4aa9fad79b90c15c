"""Retraining of a cell of S1 to S4 in the two settings of the literature; the words go after the colon.

  python -m vimnas_jax.main --config=configs/retrain_simplified.py:s2,c100,rdarts --config.genotype=runs/s2

600 epochs as for the DARTS space; --config.data.dir=DIR as everywhere. `s1` to `s4` name the space, `c100` takes
CIFAR-100. Networks have 20 cells and 36 channels, as those of SDARTS and DARTS-. `rdarts` is the setting of R-DARTS
(Zela et al., ICLR 2020): on CIFAR-10 20 cells and 36 channels for S1 and S3, 20 and 16 for S2 and S4; on CIFAR-100 8
and 16. `short` ranks seeds, as in configs/retrain_c10.py, which takes the published cells (SDARTS_RS_s2), as they are
written in the DARTS space.
"""

from vimnas_jax.config import defaults, in_spaces, retraining, short, with_arguments
from vimnas_jax.spaces.simplified import NAMES


def smoke(config):
  config.space.name, config.genotype = 'darts', 'DARTS_V2'
  config.network.cells, config.network.channels = 3, 4
  config.data.limit, config.batch_size, config.epochs = 64, 16, 1.0
  if config.data.name == 'cifar100':
    config.data.limit = 2000  # so many images hold all classes


def cifar100(config):
  config.data.name = 'cifar100'


def rdarts(config):
  small = config.data.name == 'cifar100'
  config.network.cells = 8 if small else 20
  config.network.channels = 16 if small or config.space.name in ('s2', 's4') else 36


def get_config(arg=''):
  config = defaults()
  config.space.name = 's1'
  last = 'rdarts', 'short', 'smoke'  # in whatever order they are given: each overrides those before it
  ordered = ','.join(sorted(arg.split(','), key=lambda word: last.index(word) if word in last else -1))
  return with_arguments(retraining(config), ordered, smoke, short=short, c100=cifar100, rdarts=rdarts,
                        **in_spaces(dict(zip(NAMES, NAMES))))
