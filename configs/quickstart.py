"""A first search: NAS-Bench-201's cell on the handwritten digits that scikit-learn ships, 8x8 pixels.

  python -m vimnas_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Twelve epochs of theta alone and 36 of search, 22 steps each: 30 s on two CPU cores, 67 s where nothing is compiled yet.
results/quickstart/seeds.md has seeds 0 to 9. With --config.then=retrain the network of the cell is trained too.
"""

from vimnas_jax.config import defaults, when, with_arguments


def smoke(config):
  config.epochs, config.pretrain.epochs = 1.0, 0.5


def get_config(arg=''):
  config = defaults()
  config.space.name = 'nb201'
  config.space.cells, config.space.channels = 1, 4  # with wider maps the digits are learned by any operation
  config.data.name = 'digits'
  config.data.pad = 1
  config.data.flip = False  # a mirrored digit is no digit
  config.batch_size = 64
  config.epochs = 36.0
  config.then_changes = 'network.cells=1 network.channels=16 epochs=15 batch_size=64 eval_epochs=5 measure_batches=()'
  # The form and length of the recipe; five times its rates, as the digits are soon learned and the gradient is small
  # then. It needs no validation half.
  when(config, 'vimnas', {'train_portion': 1.0, 'pretrain.epochs': 12.0, 'method.samples': 4, 'phi.lr': 0.05,
                          'phi.lr_end': 0.5})
  return with_arguments(config, arg, smoke)
