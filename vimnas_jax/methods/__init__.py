"""Search methods by name, and of one's own by the path of a file.

A method's module has FIELDS (its fields of config.method, with their defaults), OPTIMIZER (that of phi), PRETRAIN
(epochs of theta alone) and `make(config.method) -> Method`; examples/gumbel.py is a whole one. The first three are
literals and are read without running the module: it imports JAX, which a command that is refused, or asks for help,
need not wait for.
"""

import ast
import functools
import hashlib
import importlib
import importlib.util
import pathlib

from vimnas_jax import files
from vimnas_jax.errors import UserError
from vimnas_jax.methods.types import Method, no_penalty

__all__ = ['Method', 'NAMES', 'STRICT', 'STRICT_THETA', 'field_types', 'fields', 'fingerprint', 'get', 'no_penalty',
           'optimizer', 'pretrain']

# method -> (module, the name of a literal in it that changes its defaults)
_MODULES = {'vimnas': ('vimnas', ''), 'darts': ('darts', ''), 'darts_noise': ('darts', 'NOISE'),
            'random': ('random', '')}
NAMES = tuple(_MODULES)
_DECLARED = ('FIELDS', 'OPTIMIZER', 'PRETRAIN')
_OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.025, 'momentum': 0.9, 'weight_decay': 0.0}
_TYPES = (bool, int, float, str)


@functools.cache
def _literals(module: str) -> dict:
  """The capitalised names at the top of a module of this folder whose values are literals."""
  return _read((pathlib.Path(__file__).parent / f'{module}.py').read_text(encoding='utf-8'))


def _read(text: str) -> dict:
  found = {}
  for node in ast.parse(text).body:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
      try:
        found[node.targets[0].id] = ast.literal_eval(node.value)
      except ValueError:
        if node.targets[0].id in _DECLARED:
          raise ValueError(f'{node.targets[0].id} must be written out: it is read without running the file') from None
  return found


def _own(path: str) -> dict:
  """The literals of a method's file of one's own, checked. Raises UserError."""
  where, file = f'config.method.name={files.printable(path)!r}', pathlib.Path(path).expanduser()
  if not file.is_file():
    raise UserError(f'{where}: there is no such file; give the path of yours, from here')
  try:
    found = _read(files.read_text(file))
  except (SyntaxError, ValueError, RecursionError) as e:
    raise UserError(f'{where} cannot be read ({" ".join(str(e).split())[:120]}): mend the file') from None
  own = {'FIELDS': {}, 'OPTIMIZER': {}, 'PRETRAIN': 0.0, **found}
  known = {*_OPTIMIZER, 'lr_end', 'schedule', 'fall'}
  if not isinstance(own['FIELDS'], dict) or any(type(value) not in _TYPES or not name.isidentifier() or name == 'name'
                                                for name, value in own['FIELDS'].items()):
    raise UserError(f'{where}: FIELDS must be names, other than name, with defaults that are numbers, words or truth '
                    'values')
  if not isinstance(own['OPTIMIZER'], dict) or set(own['OPTIMIZER']) - known:
    raise UserError(f'{where}: OPTIMIZER may have {", ".join(sorted(known))}')
  if type(own['PRETRAIN']) not in (int, float):
    raise UserError(f'{where}: PRETRAIN must be a number of epochs')
  own['OPTIMIZER'] = {**_OPTIMIZER, **own['OPTIMIZER']}
  return own


STRICT, STRICT_THETA = _literals('vimnas')['STRICT'], _literals('vimnas')['STRICT_THETA']


def _declared(name: str):
  """(What a method's module declares, what the method changes in that). Raises UserError on an unknown name."""
  if name.endswith('.py'):
    return _own(name), {}
  if name not in _MODULES:
    raise UserError(f'config.method.name={name!r} is no method; choose one of {", ".join(NAMES)}, or give the path of '
                    'a .py file')
  module, changes = _MODULES[name]
  return _literals(module), _literals(module)[changes] if changes else {}


def get(config, choices=None) -> Method:
  """The method that config.method describes. Raises UserError on an unknown name or a bad field.

  `choices` are those of a space whose graph is searched too: rows beside the method's architecture.
  """
  _declared(config.name)
  if config.name.endswith('.py'):
    method = _made(config)
  else:
    method = importlib.import_module(f'{__name__}.{_MODULES[config.name][0]}').make(config)
  if not choices:
    return method
  from vimnas_jax.methods import topology
  return topology.beside(method, choices)


def _made(config) -> Method:
  """The method of a file of one's own, which is run. Raises UserError, in one line, if it is unfit."""
  where = f'config.method.name={files.printable(config.name)!r}'
  spec = importlib.util.spec_from_file_location('own_method', pathlib.Path(config.name).expanduser())
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    if not hasattr(module, 'make'):
      raise UserError('it has no function make(config), which gives the Method: see examples/gumbel.py')
    made = module.make(config)
  except UserError as e:
    raise UserError(f'{where}: {e}') from None
  except Exception as e:  # whatever the file does
    reason = f'{type(e).__name__}: {" ".join(str(e).split())[:160]}'
    raise UserError(f'{where} fails ({files.printable(reason)}): mend the file') from None
  if not isinstance(made, Method):
    raise UserError(f'{where}: make(config) gives {type(made).__name__}, not a Method: see vimnas_jax/methods/types.py')
  return made


def fingerprint(name: str) -> str | None:
  """SHA-256 of the code of a method of one's own, comments left out; None for one of the package."""
  if not name.endswith('.py'):
    return None
  _own(name)
  return hashlib.sha256(ast.dump(ast.parse(files.read_text(pathlib.Path(name).expanduser()))).encode()).hexdigest()


def fields(name: str) -> dict:
  """The method's own fields of config.method, with their defaults."""
  literals, changed = _declared(name)
  own = literals['FIELDS']
  return {**own, **{field: value for field, value in changed.items() if field in own}}


def field_types(name: str = '') -> dict:
  """The fields of all methods together, or of the one called `name`: field -> type."""
  return {field: type(value) for each in ((name,) if name else NAMES) for field, value in fields(each).items()}


def optimizer(config) -> dict:
  """The method's default optimiser of phi: optimizer, lr, lr_end, schedule, fall, momentum, weight_decay."""
  literals, changed = _declared(config.name)
  own = literals['OPTIMIZER']
  own = {**own, **{field: value for field, value in changed.items() if field in own}}
  return {'lr_end': own['lr'], 'schedule': 'linear', 'fall': 0.0, **own}


def pretrain(config) -> float:
  """The method's default length, in epochs, of the stage in which theta is trained alone."""
  literals, changed = _declared(config.name)
  return changed.get('pretrain', literals['PRETRAIN'])
