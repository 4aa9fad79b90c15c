"""vimnas_jax: differentiable neural architecture search in JAX (VIM-NAS, ICCV 2021).

`configure`, `search`, `retrain`, `evaluate`, `predict`, `report`, `plan` and `load` are described in api.py. Importing
the package imports none of them, and not JAX.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from vimnas_jax.api import configure, evaluate, load, plan, predict, report, retrain, search

__all__ = ['configure', 'evaluate', 'load', 'plan', 'predict', 'report', 'retrain', 'search']

__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(__all__)}')
  from vimnas_jax import api
  return getattr(api, name)
