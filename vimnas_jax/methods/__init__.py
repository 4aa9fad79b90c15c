"""Search methods by name, and of one's own by the path of a file.

A method's module has FIELDS (its fields of config.method, with their defaults), OPTIMIZER (that of phi), PRETRAIN
(epochs of theta alone) and `make(config.method) -> Method`; examples/gumbel.py is a whole one. It may have PUBLISHED,
{space: {field of config: value}}, the settings of its authors, PASSES, how often a step goes through the supernet and
back, and BRIEF, the fields that a run of seconds has otherwise. All but `make` are literals and are read without
running the module: it imports JAX, which a command that is refused, or asks for help, need not wait for.
"""

from __future__ import annotations

import functools
import importlib
import pathlib
from typing import TYPE_CHECKING, Any

from vimnas_jax import files
from vimnas_jax.errors import UserError
from vimnas_jax.methods import own
from vimnas_jax.methods.types import END, Batch, Clock, Method, Options, Problem, Step
from vimnas_jax.spaces import Space

if TYPE_CHECKING:
  from ml_collections import ConfigDict

__all__ = ['EARLY', 'END', 'FASTER', 'NAMES', 'SINGLE', 'STRICT', 'STRICT_THETA', 'Batch', 'Clock', 'Method',
           'Options', 'Problem', 'Step', 'brief', 'field_types', 'fields', 'fingerprint', 'get', 'optimizer', 'passes',
           'pretrain', 'published', 'source']

# method -> (module, the name of a literal in it that changes its defaults)
_MODULES = {
    'vimnas': ('vimnas', ''),
    'darts': ('darts', ''),
    'darts_second': ('darts', 'SECOND'),
    'darts_noise': ('darts', 'NOISE'),
    'darts_plus': ('darts_plus', ''),
    'darts_minus': ('darts_minus', ''),
    'snas': ('snas', ''),
    'data': ('data', ''),
    'fairdarts': ('fairdarts', ''),
    'gdas': ('gdas', ''),
    'pdarts': ('pdarts', ''),
    'pcdarts': ('pcdarts', ''),
    'sdarts_rs': ('sdarts', ''),
    'sdarts_adv': ('sdarts', 'ADVERSARIAL'),
    'rdarts_l2': ('rdarts', ''),
    'rdarts_dp': ('rdarts', 'DROP_PATH'),
    'darts_es': ('darts_es', ''),
    'darts_ada': ('darts_es', 'ADAPTIVE'),
    'sgas': ('sgas', ''),
    'rsps': ('rsps', ''),
    'parsec': ('parsec', ''),
    'asng': ('asng', ''),
    'sivdnas': ('sivdnas', ''),
    'dsonas': ('dsonas', ''),
    'sparsenas': ('sparsenas', ''),
    'bayesnas': ('bayesnas', ''),
    'setn': ('setn', ''),
    'random': ('random', ''),
    'enas': ('enas', ''),
    'reinforce': ('reinforce', ''),
    'tenas': ('tenas', ''),
}
NAMES = tuple(_MODULES)


def _text(module: str) -> str:
  return (pathlib.Path(__file__).parent / f'{module}.py').read_text(encoding='utf-8')


@functools.cache
def _literals(module: str) -> dict[str, Any]:
  """The capitalised names at the top of a module of this folder whose values are literals."""
  return own.literals(_text(module))


def source(name: str) -> str:
  """The text of the file that one of NAMES stands in."""
  return _text(_MODULES[name][0])


EARLY, FASTER, SINGLE, STRICT, STRICT_THETA = (_literals('vimnas')[name] for name in
                                                ('EARLY', 'FASTER', 'SINGLE', 'STRICT', 'STRICT_THETA'))


def _declared(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """(What a method's module declares, what the method changes in that). Raises UserError on an unknown name."""
  if name.endswith('.py'):
    return own.declared(name), {}
  if name not in _MODULES:
    raise UserError(f'config.method.name={name!r}: unknown method{files.close(name, NAMES)}; choose one of '
                    f'{", ".join(NAMES)}, or give the path of a .py file')
  module, changes = _MODULES[name]
  return _literals(module), _literals(module)[changes] if changes else {}


def get(config: ConfigDict, space: Space | None = None, graph_lr: float | None = None,
        graph_decay: float | None = None, graph_noise: float = 0.0, graph_sets: bool = False) -> Method:
  """The method that config.method describes, made ready for `space`, if one is given.

  Where the space's graph is searched too, it has the graph's rows beside its architecture, whose rate is `graph_lr` and
  whose L2 `graph_decay`, None for the benchmark's; `graph_noise` is the standard deviation of what a step adds to them,
  and with `graph_sets` they are mixed by the sets of inputs that an architecture can keep.

  Raises:
    UserError: the name is unknown, a field is bad, or the method does not fit the space.
  """
  _declared(config.name)
  if config.name.endswith('.py'):
    method = own.made(config)
    if space:
      own.check(config.name, method, space)
  else:
    method = importlib.import_module(f'{__name__}.{_MODULES[config.name][0]}').make(config)
  if space and config.name == 'vimnas' and config.node_inputs == 'kept':
    from vimnas_jax.methods import inputs
    method = inputs.within(method, space)
  if space and space.choices:
    from vimnas_jax.methods import topology
    return topology.beside(method, space.choices, topology.LR if graph_lr is None else graph_lr,
                           topology.WEIGHT_DECAY if graph_decay is None else graph_decay, graph_noise,
                           space.topology.keeps if space.topology and graph_sets else None)
  return method


def fingerprint(name: str) -> str | None:
  """SHA-256 of the code of a method of one's own, without comments and docstrings; None for one of the package."""
  return own.fingerprint(name) if name.endswith('.py') else None


def fields(name: str) -> dict[str, Any]:
  """The method's own fields of config.method, with their defaults."""
  literals, changed = _declared(name)
  found = literals['FIELDS']
  return {**found, **{field: value for field, value in changed.items() if field in found}}


def field_types(name: str = '') -> dict[str, type]:
  """The fields of all methods together, or of the one called `name`: field -> type."""
  return {field: type(value) for each in ((name,) if name else NAMES) for field, value in fields(each).items()}


def optimizer(config: ConfigDict) -> dict[str, Any]:
  """The method's default optimiser of phi: the fields of config.phi but `clip`."""
  literals, changed = _declared(config.name)
  found = literals['OPTIMIZER']
  found = {**found, **{field: value for field, value in changed.items() if field in found}}
  return {'lr_end': found['lr'], 'steps': 0, 'schedule': 'linear', 'fall': 0.0, 'until': 1.0, 'eps': 1e-8, **found}


def passes(name: str) -> float:
  """How often a step of the method goes through the supernet and back, each time with a batch; 0 if it takes none.

  A forward pass alone counts as a third.
  """
  literals, changed = _declared(name)
  return changed.get('passes', literals.get('PASSES', 1))


def published(name: str, space: str) -> dict[str, Any]:
  """Settings {field of config: value} with which the method's authors searched the space of that name, or, as
  'imagenet', the DARTS space with its stems for ImageNet.

  Raises UserError if they did not, or the file of a method of one's own does not say.
  """
  literals, changed = _declared(name)
  known = literals.get('PUBLISHED', {})
  family = 'darts' if space in ('s1', 's2', 's3', 's4') else 'oneshot' if space.startswith('oneshot') else space
  if family not in known:
    raise UserError(f'--config=…:published: of method {name!r} there are published settings for '
                    f'{", ".join(known) or "no space"}, not for {space!r}: leave it out')
  return {**literals.get('STRICT', {}), **known[family], **changed.get('published', {})}


def brief(name: str) -> dict[str, Any]:
  """The method's own fields of config.method that have another value in a run of seconds, {field: value}."""
  return {} if name.endswith('.py') else _declared(name)[0].get('BRIEF', {})


def pretrain(name: str) -> float:
  """The method's default length, in epochs, of the stage in which theta is trained alone."""
  literals, changed = _declared(name)
  return changed.get('pretrain', literals['PRETRAIN'])
