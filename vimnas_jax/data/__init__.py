"""Data sets by name, whole in memory as uint8."""

from vimnas_jax.data import cifar, digits, synthetic
from vimnas_jax.data.types import Data, Split, check
from vimnas_jax.errors import UserError

__all__ = ['Data', 'Split', 'check', 'get', 'NAMES']

_LOADERS = {'cifar10': cifar.load, 'cifar100': cifar.load, 'digits': digits.load, 'synthetic': synthetic.load}
NAMES = tuple(_LOADERS)


def get(config) -> Data:
  """The data set that `config` (config.data) describes, checked.

  Args:
    config: has `name`; for CIFAR `dir` and `download`; for synthetic data `num_train`, `num_test`, `image_size`,
      `num_classes` and `seed`. Each source reads its own fields only.

  Raises:
    UserError: unknown name, or data that is missing, damaged or unfit.
  """
  if config.name not in _LOADERS:
    raise UserError(f'config.data.name={config.name!r} is no data set; choose one of {", ".join(NAMES)}')
  return check(_LOADERS[config.name](config))
