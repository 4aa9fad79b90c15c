"""Every method side by side on NAS-Bench-201 with CIFAR-10 at 16x16, on equal passes over the training half.

  python -m vimnas_jax.main --config=configs/compare_all.py --config.data.dir=DIR --workdir=runs/compare_all

Each method has as many epochs as make its passes through the supernet and back (methods.passes: one a step for VIM-NAS,
two for DARTS, five for its second order), those before the search included, equal to PASSES epochs of one pass a step.
The optimiser of what a method learns, and all else of its own, are its defaults. Four seeds each; a study that was
interrupted goes on. Test accuracies: --config.oracle.test_csv.

`:darts` takes those of DARTS_MEMBERS to the DARTS space instead, at 8 cells of 8 channels and two passes, and VIM-NAS
as it is searched there, from scratch, in its one epoch and in two; two seeds. The surrogate of
--config.oracle.nasbench301 rates what they find.
"""

from vimnas_jax import methods
from vimnas_jax.config import defaults, when, with_arguments

PASSES, DARTS_PASSES = 3.0, 2.0
DARTS_MEMBERS = ('darts', 'darts_second', 'gdas', 'pcdarts', 'sdarts_rs', 'darts_minus', 'sgas', 'random')


def member(name, passes=PASSES):
  """One method with its share of the passes."""
  each, before = methods.passes(name), min(methods.pretrain(name), passes / 2)
  shorter = f' pretrain.epochs={before:g}' if before < methods.pretrain(name) else ''
  return f'{name} method.name={name} epochs={(passes - before) / each if each else 0:g}{shorter}'


MEMBERS = tuple(map(member, methods.NAMES))


def darts(config):
  config.space.name, config.space.cells, config.space.channels = 'darts', 8, 8
  config.theta.weight_decay, config.theta.nesterov = 3e-4, False
  config.study.seeds = (342, 343)
  when(config, 'vimnas', methods.FASTER)
  own = ('vimnas method.name=vimnas epochs=1', f'vimnas_two method.name=vimnas epochs={DARTS_PASSES:g}')
  config.study.members = (*own, *(member(name, DARTS_PASSES) for name in DARTS_MEMBERS))


def smoke(config):
  config.space.cells, config.space.channels = 1, 4
  config.data.limit, config.batch_size = 512, 32
  config.study.seeds, config.study.members = (0,), tuple(
      f'{name} method.name={name} epochs={1 if methods.passes(name) else 0}' for name in methods.NAMES)


def get_config(arg=''):
  config = defaults()
  config.task = 'study'
  config.study.members, config.study.seeds = MEMBERS, (342, 343, 344, 345)
  config.space.name, config.space.cells = 'nb201', 5
  config.data.shrink, config.data.pad = 2, 2
  config.theta.weight_decay = 5e-4  # NAS-Bench-201's own search settings
  config.theta.nesterov = True
  return with_arguments(config, arg, smoke, darts=darts)
