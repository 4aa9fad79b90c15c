"""VIM-NAS on the three spaces of NAS-Bench-1Shot1 with CIFAR-10; the space goes after the colon.

  python -m vimnas_jax.main --config=configs/oneshot_c10.py:space1 --config.data.dir=DIR --workdir=runs/space1

9 cells, C = 16, batch 96 and 50 epochs on 25,000 images, as the benchmark searches; before them an epoch of theta
alone, this project's recipe. phi's maps, of the operations, are 4x3, in space 3 5x3; the graph is searched beside it.
With --config.oracle.nasbench101=FILE (nasbench_only108.tfrecord) the result has the errors and the regret that training
the architecture gives, and a report of several such runs the regret over the epochs.
One epoch (--config.epochs=1) is in docs/spaces.md; the 50 epochs have not been run.

The graph stays undecided at the benchmark's settings, also where its rate is higher. `:space1,decided` decides it in
five epochs: its rows take noise as the operations do, are mixed by the sets of inputs that can be kept, and move a
hundred times as fast (docs/spaces.md).
"""

from vimnas_jax.config import defaults, in_spaces, when, with_arguments


def smoke(config):
  config.space.cells, config.space.channels = 3, 4
  config.data.limit, config.batch_size, config.epochs = 128, 8, 1.0


def decided(config):
  config.phi.graph_lr, config.phi.graph_noise, config.phi.graph_sets = 3e-2, 1.0, True
  config.epochs = 5.0


def get_config(arg=''):
  config = defaults()
  config.space.name, config.space.cells, config.space.channels = 'oneshot1', 9, 16
  config.batch_size, config.epochs = 96, 50.0
  when(config, 'vimnas', {'pretrain.epochs': 1.0})  # no table has been asked for more
  return with_arguments(config, arg, smoke, decided=decided,
                        **in_spaces({f'space{number}': f'oneshot{number}' for number in (1, 2, 3)}))
