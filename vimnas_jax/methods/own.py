"""Methods of one's own: a file that declares its fields and has `make(config) -> Method`; examples/gumbel.py is one.

What the file declares is read without running it. All that can be wrong with it is told before a search starts, in one
line that names the file and, where its code fails, the line.
"""

from __future__ import annotations

import ast
import pathlib
from typing import TYPE_CHECKING, Any

from vimnas_jax import files, userfile
from vimnas_jax.errors import UserError
from vimnas_jax.methods.types import Batch, Clock, Method, Problem, Step
from vimnas_jax.spaces import Space

if TYPE_CHECKING:
  from ml_collections import ConfigDict

DECLARED = ('FIELDS', 'OPTIMIZER', 'PRETRAIN')
_OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.025, 'momentum': 0.9, 'weight_decay': 0.0}
_MAY = {**dict.fromkeys(('lr', 'lr_end', 'momentum', 'weight_decay', 'fall', 'until', 'eps'), (int, float)),
        'steps': (int,), **dict.fromkeys(('optimizer', 'schedule'), (str,))}
_TYPES = (bool, int, float, str)
# What a step reports itself.
_TAKEN = ('loss', 'accuracy', 'grad_theta', 'grad_phi', 'norm_theta', 'norm_phi', 'probs', 'logs', 'dead', 'step',
          'stage', 'seconds')


def literals(text: str) -> dict[str, Any]:
  """The capitalised names at the top of a source whose values are literals. Raises ValueError, SyntaxError."""
  found = {}
  for node in ast.parse(text).body:
    if not isinstance(node, ast.Assign | ast.AnnAssign):
      continue
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    if isinstance(target, ast.Name) and target.id.isupper() and node.value is not None:
      try:
        found[target.id] = ast.literal_eval(node.value)
      except ValueError:
        if target.id in DECLARED:
          raise ValueError(f'{target.id} must be written out: it is read without running the file') from None
  return found


def _where(path: str) -> str:
  return f'config.method.name={files.printable(path)!r}'


def declared(path: str) -> dict[str, Any]:
  """What a method's file declares, checked, with defaults for what it leaves out. Raises UserError."""
  where, file = _where(path), pathlib.Path(path).expanduser()
  if not file.is_file():
    raise UserError(f'{where}: there is no such file; give the path of yours, from here')
  try:
    found = literals(files.read_text(file))
  except (SyntaxError, ValueError, RecursionError) as e:
    raise UserError(f'{where} cannot be read ({" ".join(str(e).split())[:120]}): mend the file') from None
  own = {'FIELDS': {}, 'OPTIMIZER': {}, 'PRETRAIN': 0.0, **found}
  for name in ('FIELDS', 'OPTIMIZER'):
    if not isinstance(own[name], dict):
      raise UserError(f'{where}: {name} must be {{name: value}}')
  for name, value in own['FIELDS'].items():
    if not isinstance(name, str) or not name.isidentifier() or name == 'name' or type(value) not in _TYPES:
      raise UserError(f'{where}: FIELDS has {name!r:.40}: {value!r:.40}; names are words, other than name, and '
                      'defaults numbers, words, True or False')
  for name, value in own['OPTIMIZER'].items():
    if type(value) not in _MAY.get(name, ()):
      raise UserError(f'{where}: OPTIMIZER has {name!r:.40}: {value!r:.40}; as config.phi it may have numbers for lr, '
                      'lr_end, steps, momentum (beta 1 of Adam), weight_decay, eps, fall and until, words for '
                      'optimizer and schedule')
  if type(own['PRETRAIN']) not in (int, float):
    raise UserError(f'{where}: PRETRAIN must be a number of epochs')
  own['OPTIMIZER'] = {**_OPTIMIZER, **own['OPTIMIZER']}
  return own


def made(config: ConfigDict) -> Method:
  """The method of the file config.name, which is run. Raises UserError, in one line, if it is unfit."""
  path, where = config.name, _where(config.name)
  module = userfile.run(path, where)
  if not hasattr(module, 'make'):
    raise UserError(f'{where}: it has no function make(config), which gives the Method: see examples/gumbel.py')
  with userfile.Told(path, where, 'make'):
    method = module.make(config)
  if not isinstance(method, Method):
    raise UserError(f'{where}: make(config) gives {type(method).__name__}, not a Method: see '
                    'vimnas_jax/methods/types.py')
  if not isinstance(method.step, Step):
    raise UserError(f'{where}: the step of the Method is {type(method.step).__name__}; it must be a Step, as '
                    'updates.single_level() or updates.bilevel() make: see vimnas_jax/methods/updates.py')
  return method


def check(path: str, method: Method, space: Space) -> None:
  """Raises UserError, before a search starts, if the functions of a method of one's own do not fit each other."""
  import jax
  import jax.numpy as jnp
  where, key = _where(path), jax.random.key(0)
  with userfile.Told(path, where, 'init'):
    phi = jax.eval_shape(lambda: method.init(key, space))
  if not isinstance(phi, dict) or set(phi) != {'params', 'fixed'}:
    raise UserError(f"{where}: init gives {_told(phi)}; it must give {{'params': what is learned, 'fixed': the rest}}")
  with userfile.Told(path, where, 'sample'):
    step = jnp.int32(1)
    drawn = jax.eval_shape(lambda phi, step: method.sample(phi, key, Clock(step, 2)), phi, step)
  if not isinstance(drawn, tuple) or len(drawn) != 2 or not isinstance(drawn[1], dict):
    raise UserError(f'{where}: sample gives {_told(drawn)}; it must give (weights, {{name: a number worth logging}})')
  with userfile.Told(path, where, 'probs'):
    probs = jax.eval_shape(lambda phi, step: method.probs(phi, Clock(step, 2)), phi, jnp.int32(1))
  for what, found, axes in (('sample', drawn[0], (method.samples,)), ('probs', probs, ())):
    for name, cell in space.cells.items():
      rows = found.get(name) if isinstance(found, dict) else found
      shape = getattr(getattr(rows, 'ops', rows), 'shape', None)
      if shape != (*axes, *cell.shape):
        given = 'nothing' if shape is None else f'an array of shape {shape}'
        raise UserError(f'{where}: {what} gives {given} for cell {name!r}; it must be {(*axes, *cell.shape)}: '
                        f'({"Method.samples, " if axes else ""}edges, operations)')
  unknown = set(method.step.batches) - {'train', 'valid'}
  if 'train' not in method.step.batches or unknown:
    raise UserError(f"{where}: the step takes the batches {method.step.batches}; it may take 'train', and 'valid'")
  if (after := method.after) and not method.carry:  # what that adds to phi is there in a search alone
    with userfile.Told(path, where, 'after'):
      moved = jax.eval_shape(lambda phi, step: after(phi, Clock(step, 2)), phi, step)
    if jax.tree.map(lambda a: (a.shape, a.dtype), moved) != jax.tree.map(lambda a: (a.shape, a.dtype), phi):
      raise UserError(f'{where}: after gives a phi of other shapes or types than it gets: it must keep them')
  if (penalty := method.penalty) and not method.carry:
    with userfile.Told(path, where, 'penalty(phi, weights, clock)'):
      cost = jax.eval_shape(lambda phi, weights, step: penalty(phi, weights, Clock(step, 2)), phi, drawn[0], step)
    if getattr(cost, 'shape', None) != ():
      raise UserError(f'{where}: penalty gives {_told(cost)}; it must give a single number')
  for name, value in drawn[1].items():
    if name in _TAKEN or getattr(value, 'shape', ()) != ():
      raise UserError(f'{where}: sample logs {name!r:.40}: it must be a single number, under another name than '
                      f'{", ".join(_TAKEN)}')
  for each in (method.step, *(step for _, step in method.before)):
    _check_step(path, method, each, space, phi)


def _check_step(path: str, method: Method, step: Step, space: Space, phi: Any) -> None:
  """Traces a step with a supernet of three weights; `phi` has the shapes that init gives. Raises UserError."""
  import flax.struct
  import jax
  import jax.numpy as jnp
  import optax

  @flax.struct.dataclass
  class Search:
    theta: Any
    phi: Any
    opt_theta: Any
    opt_phi: Any

  def loss(theta, weights, key, images, labels):
    del key, labels
    told = sum(leaf.sum() for leaf in jax.tree.leaves(weights))
    return (theta['w'] * told).sum() + images.mean(), jnp.float32(0.5)

  tx, images = optax.sgd(0.1, 0.9), jnp.zeros((4 * method.samples, 8, 8, 3))
  problem = Problem(space, loss, tx, method.optimizer(tx), tx, plain=loss, fresh=lambda key: {'w': jnp.zeros(3)},
                    decayed=lambda times, turns=1, clip=True: tx)
  batch = Batch(images, jnp.zeros(len(images), jnp.int32), jax.random.key(0))

  def run(phi, at):
    theta = {'w': jnp.zeros(3)}
    state: Any = Search(theta, phi, tx.init(theta), problem.tx_phi.init(phi['params']))
    if method.carry:
      state = state.replace(phi=method.carry(state))
    return state, step.update(method, problem, state, dict.fromkeys(step.batches, batch), Clock(at, 2))

  where = _where(path)
  with userfile.Told(path, where, 'the step'):
    before, after = jax.eval_shape(run, phi, jnp.int32(1))
  if not isinstance(after, tuple) or len(after) != 2 or not isinstance(after[1], dict):
    raise UserError(f'{where}: the step gives {_told(after)}; it must give (state, {{name: a number worth logging}})')
  state, metrics = after
  for part in ('theta', 'phi', 'opt_theta', 'opt_phi'):
    was, now = (jax.tree.map(lambda a: f'{a.dtype}{list(a.shape)}', getattr(each, part, None))
                for each in (before, state))
    if was != now:
      raise UserError(f'{where}: the step gives a {part} of other names, shapes or types than it gets '
                      f'({str(now)[:80]}, not {str(was)[:80]}): change the state by state.replace, and keep them')
  for name in ('loss', 'accuracy', *metrics):
    if getattr(metrics.get(name), 'shape', None) != ():
      said = 'which is not a single number' if name in metrics else 'which it must log'
      raise UserError(f'{where}: the step {"logs" if name in metrics else "does not log"} {name!r:.40}, {said}: it '
                      'gives loss, accuracy and other single numbers')


def _told(value: Any) -> str:
  if isinstance(value, dict):
    return f'a dict of {", ".join(map(str, value)) or "nothing"}'[:80]
  return f'{len(value)} values' if isinstance(value, tuple | list) else type(value).__name__


def fingerprint(path: str) -> str:
  """SHA-256 of the code of a method's file, comments and docstrings left out."""
  declared(path)
  return userfile.fingerprint(path)
