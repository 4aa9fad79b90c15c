"""How programs of JAX call the CPU kernels, whose machine code store.py has.

Tracing a program only says which functions it calls; other processes (ahead.py) compile them meanwhile. They are put
into the table of addresses when the program is lowered.
"""

import contextlib
import contextvars
import ctypes
import functools
import pathlib
import re
import sys
import threading
import time

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from vimnas_jax.cpu import ahead, interface, shards, store
from vimnas_jax.cpu.table import RANKS, TABLE, slot, vector_length
from vimnas_jax.errors import UserError

_NEEDED: set[store.Function] = set()  # functions that this process has called
_PENDING: dict[store.Function, None] = {}  # those of them that are not in the table yet
_FINISHING = threading.RLock()
_CALLED: dict[int, dict[store.Function, None]] = {}  # slot of a chunk: the functions that its calls need
_waited = 0.0  # seconds, for other processes
_ASKED: set[store.Function] = set()  # of the other processes
_FORETELLING = contextvars.ContextVar('foretelling', default=False)
_TARGETS: set[str] = set()  # names that XLA knows
IMPORTING = 4.0  # seconds that importing numba takes
HANDLER = 'work', 'handler'  # what XLA calls, and what its threads do
REMEDY = ('build the supernet with kernels=False (in a Method: Options(kernels=False)), or set VIMNAS_JAX_KERNELS=0')


@functools.cache
def unfit() -> str:
  """Why the kernels cannot be called by the installed jaxlib, or ''.

  Another major version of its interface, or an older minor one, lays memory out otherwise.
  """
  path = pathlib.Path(jax.ffi.include_dir()) / 'xla' / 'ffi' / 'api' / 'c_api.h'
  try:
    text = path.read_text(encoding='utf-8')
    major, minor = (int(re.search(rf'#define XLA_FFI_API_{part} (\d+)', text)[1]) for part in ('MAJOR', 'MINOR'))
  except (OSError, ValueError, TypeError) as e:
    return f'jaxlib does not say which interface it has ({type(e).__name__})'
  if major != interface.VERSION[0] or minor < interface.VERSION[1]:
    return (f'jaxlib has interface {major}.{minor}, the kernels are for '
            f'{interface.VERSION[0]}.{interface.VERSION[1]}')
  return ''


def expect() -> bool:
  """See cpu.expect."""
  folder = store.folder()
  with contextlib.suppress(OSError):
    if folder and not folder.exists():
      ahead.begin(str(folder.parent))
      return True
  return False


@contextlib.contextmanager
def foretelling():
  """See cpu.foretelling."""
  token = _FORETELLING.set(True)
  try:
    yield
  finally:
    _FORETELLING.reset(token)


def need(names, vector: int, dtype: str):
  """Says that functions will be called; `finish` puts them into the table."""
  _need((name, vector, dtype) for name in names)


def _need(functions):
  for function in functions:
    if not TABLE[slot(*function)] and function not in _ASKED:
      _ASKED.add(function)
      ahead.ask(function)
    if not _FORETELLING.get():
      _NEEDED.add(function)
      if not TABLE[slot(*function)]:
        _PENDING[function] = None


def finish():
  """Puts all functions that are needed into the table.

  It leaves them to the others until it has waited for as long as it takes to import numba. Then what nobody compiles
  yet it does itself, from the last one on: the others began with the first.
  """
  global _waited
  if not _PENDING:
    return
  with _FINISHING:
    folder = store.folder()
    while _PENDING and folder and 'numba' not in sys.modules and _waited < IMPORTING and ahead.working(
        str(folder.parent)):
      began = time.monotonic()
      for function in list(_PENDING):
        _load(function, store.read(function))
      time.sleep(0.02 if _PENDING else 0)
      _waited += time.monotonic() - began
    for patience in (0, store.PATIENCE):
      for function in reversed(list(_PENDING)):
        _load(function, store.kept(function, patience))


def _load(function, found):
  if found:
    TABLE[slot(*function)] = store.load(*found)
    _PENDING.pop(function, None)


def needed() -> dict[str, list]:
  """See cpu.needed."""
  return {'functions': sorted(_NEEDED), 'targets': sorted(_TARGETS)}


def prepare(found: dict[str, list]):
  """See cpu.prepare."""
  for name, vector, dtype in found['functions']:
    need((name,), vector, dtype)
  finish()
  for target in found['targets']:
    register(target)


def call(names, channels: int, outputs, *args, kinds=(), aliases=(), **attributes):
  """Calls the chunk names[0], which needs the loops names[1:], for maps whose width `channels` divides.

  `outputs` are shapes; all floats are of the type of args[0]. `kinds` says of every argument how it lies on several
  devices (shards.py), in shards.parts parts; without, each device computes everything, in as many parts as the
  attribute `chunks` says: a fixed number, so that sums do not depend on the number of threads. `aliases` are pairs of
  an argument and the result that is written where it lies. Raises TypeError for arguments of other types or ranks than
  the chunk reads, and UserError when a derivative or a batch of it is asked for.
  """
  _check(names[0], args)
  kind = np.dtype(args[0].dtype)
  vector = vector_length(channels, kind)
  need(names, vector, kind.name)
  need(HANDLER, 1, 'float32')
  target = f'vimnas_jax_{names[0]}'
  _CALLED.setdefault(slot(names[0], vector, kind.name), {}).update(dict.fromkeys((n, vector, kind.name) for n in names))
  attributes |= {'call': slot(names[0], vector, kind.name)}

  def run(shapes, chunks, *args):
    integers = tuple((name, int(value)) for name, value in (attributes | {'chunks': chunks}).items())
    return _KERNEL.bind(*args, target=target, shapes=tuple(map(tuple, shapes)), integers=integers,
                        aliases=aliases)

  chunks = attributes.pop('chunks', 1)
  return shards.spread(run, kinds, outputs, args) if kinds else run(outputs, chunks, *args)


def _check(name, args):
  """Raises TypeError for arguments that the chunk `name` would take for something else: it reads bare memory."""
  types = {np.dtype(a.dtype).name for a in args}
  ranks = ''.join(str(a.ndim) for a in args)
  if types not in ({'float32'}, {'float64'}) or not re.fullmatch(RANKS[name], ranks):
    raise TypeError(f'the kernel {name} takes arrays of float32 or of float64 whose ranks are {RANKS[name]}, not of '
                    f'{", ".join(sorted(types))} with ranks {ranks}')


# A call as one primitive of JAX, which is traced in a fraction of the time that jax.ffi.ffi_call takes within
# a custom_jvp and a custom_vmap: a step has hundreds of them.
_KERNEL = Primitive('vimnas_jax_kernel')
_KERNEL.multiple_results = True


@_KERNEL.def_abstract_eval
def _shapes(first, *args, target, shapes, integers, aliases):  # all floats of a call are of one type
  del args, target, integers, aliases
  return [first.update(shape=shape, weak_type=False) for shape in shapes]


@_KERNEL.def_impl
def _evaluate(*args, **params):
  return _evaluation(tuple(params.items()))(*args)


@functools.cache
def _evaluation(params):
  return jax.jit(lambda *args: _KERNEL.bind(*args, **dict(params)))


def _lower(context, *args, target, shapes, integers, aliases):
  del shapes
  _need(_CALLED[dict(integers)['call']])  # JAX may have traced this while it was only foretold
  finish()
  register(target)
  rule = jax.ffi.ffi_lowering(target, operand_output_aliases=dict(aliases))
  return rule(context, *args, **{name: np.int64(value) for name, value in integers})


def _refuse(what):
  """A rule with one line for what a call cannot do, instead of what JAX would say of it."""
  def rule(*args, **params):
    raise UserError(f'the CPU\'s kernels have no {what}: {REMEDY}')
  return rule


mlir.register_lowering(_KERNEL, _lower)
ad.primitive_jvps[_KERNEL] = _refuse('second derivative, no forward mode and no derivative of an evaluation')
batching.primitive_batchers[_KERNEL] = _refuse('batching rule, which jax.vmap asks for')


@functools.cache
def register(target: str):
  """Makes `target` a name for `jax.ffi.ffi_call`; the attribute `call` is the slot of the chunk to run.

  Attributes that come first by alphabet: call, chunks (how many there are; threads take them one by one).
  """
  _TARGETS.add(target)
  capsule = ctypes.pythonapi.PyCapsule_New
  capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
  jax.ffi.register_ffi_target(target, capsule(handler(), None, None), platform='cpu')


def handler() -> int:
  """Address of what XLA calls."""
  need(HANDLER, 1, 'float32')
  finish()
  return int(TABLE[slot('handler', 1, 'float32')])
