"""Operations of one's own, brought by the file of a space: all that can be wrong with one, told in one line."""

import functools
import re

import jax
import jax.numpy as jnp

from vimnas_jax import userfile
from vimnas_jax.errors import UserError
from vimnas_jax.networks import operation, ops

_SIDES = (8, 7)  # of the maps that an operation is tried on: an odd side rounds up when it is halved
_NAME = re.compile('[A-Za-z][A-Za-z0-9_]*').fullmatch
_TAKEN = re.compile('norm[0-9]+').fullmatch  # a network calls its BatchNorm so


def check(space: str, name: str, op, channels: int, stride: int):
  """Raises UserError, naming the file, unless `op` can stand on an edge of `channels` with `stride`.

  Args:
    space: the name of the space, which is the path of its file.
    name: what the operation is called there.
    op: what the file says it is.
    channels: width of the edge.
    stride: of the edge.
  """
  where = f'space {space!r}, operation {name!r:.60}'
  if not isinstance(name, str) or not _NAME(name):
    raise UserError(f'{where}: its name must be letters, digits and _, as my_conv_3x3')
  if name in ops.OPS or name in ('none', 'noise'):
    raise UserError(f'{where}: the package has an operation of that name: give yours another one')
  if not isinstance(op, operation.Op):
    raise UserError(f'{where} is {type(op).__name__}, not an Op: see vimnas_jax/networks/operation.py')
  with userfile.Told(space, where, 'it'):
    hash(op)
  _check(space, where, op, channels, stride)


@functools.lru_cache(256)
def _check(space, where, op, channels, stride):
  with userfile.Told(space, where, 'shapes'):
    shapes = op.shapes(channels, stride)
    given = list(shapes.items())
  for parameter, value in given:
    if not isinstance(parameter, str) or not _NAME(parameter) or _TAKEN(parameter):
      raise UserError(f'{where}: shapes has a parameter {parameter!r:.60}; give it a word, other than norm1')
    if not (isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], tuple)
            and all(type(side) is int and side > 0 for side in (*value[0], value[1]))):
      raise UserError(f'{where}: shapes({channels}, {stride}) gives {value!r:.60} for {parameter!r}; it must be '
                      '(shape, fan-in), of whole numbers above 0')
    with userfile.Told(space, where, 'uses'):
      uses = op.uses(parameter, stride, 64)
    if type(uses) is not int or uses < 0:
      raise UserError(f'{where}: uses({parameter!r}, {stride}, 64) gives {uses!r:.40}; it must be a whole number')
  for edges, dtype in ((1, jnp.float32), (2, jnp.float32), (1, jnp.bfloat16)):
    with userfile.Told(space, where, 'apply'):
      found = operation.trace(op, channels, stride, _norm, edges, dtype, _SIDES)
    wanted = (1, *(-(-side // stride) for side in _SIDES), channels * (edges if given else 1))
    if getattr(found, 'shape', None) != wanted:
      shape = f'a map of {found.shape}' if hasattr(found, 'shape') else type(found).__name__
      raise UserError(f'{where}: apply gives {shape} for {(1, *_SIDES, channels)}, stride {stride} and {edges} '
                      f'edge{"s" * (edges > 1)}; it must be {wanted}' +
                      (': wrap a function of one edge in ops.per_edge' if edges > 1 else ''))
    if found.dtype != dtype:
      raise UserError(f'{where}: apply gives {found.dtype} for maps of {jnp.dtype(dtype).name} (config.dtype): end it '
                      'with .astype(x.dtype)')
  with userfile.Told(space, where, 'the gradient of apply'):
    operation.trace(op, channels, stride, _norm, through=_and_back)


def _norm(y):
  if getattr(y, 'ndim', 0) != 4:
    raise UserError(f'norm is given {getattr(y, "shape", type(y).__name__)}; it takes [n, h, w, c]')
  return y


def _and_back(apply, *args):
  y, pull = jax.vjp(apply, *args)
  return pull(y)
