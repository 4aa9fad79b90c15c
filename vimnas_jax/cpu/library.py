"""The machine code of the CPU kernels: compiled by numba where it is new, else read from disk by LLVM alone.

A function has a fixed slot in the table of addresses (table.py); so its object code is the same in every process and
may be kept beside JAX's compiled programs. Importing numba and compiling take ten seconds and more, loading takes
milliseconds.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import re
import tempfile
import time

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from llvmlite import binding

from vimnas_jax.cpu import ahead, interface, shards
from vimnas_jax.cpu.table import FEATURES, RANKS, TABLE, slot, vector_length
from vimnas_jax.errors import UserError

# What numba's code calls to report exceptions, of which the kernels have none.
RAISING = ('numba_gil_ensure', 'numba_gil_release', 'numba_do_raise', 'numba_unpickle',
           'numba_runtime_build_excinfo_struct', 'NRT_Free')
_NEEDED: set[tuple[str, int, str]] = set()  # functions in the table
_TARGETS: set[str] = set()  # names that XLA knows
PATIENCE = 30  # seconds that a process waits for what another compiles
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


def expect():
  """Starts the process of ahead.py where the cache has no machine code yet: it takes seconds to begin."""
  folder = _folder()
  with contextlib.suppress(OSError):
    if folder and not folder.exists():
      ahead.begin(str(folder.parent))


def need(names, vector: int, dtype: str):
  """Puts functions into the table that are not there yet."""
  for name in names:
    at = slot(name, vector, dtype)
    _NEEDED.add((name, vector, dtype))
    if not TABLE[at]:
      TABLE[at] = _load(*_object(name, vector, dtype))


def needed() -> dict[str, list]:
  """See cpu.needed."""
  return {'functions': sorted(_NEEDED), 'targets': sorted(_TARGETS)}


def prepare(found: dict[str, list]):
  """See cpu.prepare."""
  for name, vector, dtype in found['functions']:
    need((name,), vector, dtype)
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
  target = f'vimnas_jax_{names[0]}'
  register(target)
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
  need(('work', 'handler'), 1, 'float32')
  return int(TABLE[slot('handler', 1, 'float32')])


def _object(name, vector, dtype):
  """(symbol, object code) of a function."""
  folder = _folder()
  if not folder:
    return _compiled(name, vector, dtype)
  found = _read(folder / f'{name}_{dtype}x{vector}')
  if found:
    return found
  ahead.ask(name, vector, dtype, str(folder.parent))
  return keep(name, vector, dtype)


def keep(name: str, vector: int, dtype: str) -> tuple[str, bytes]:
  """(symbol, object code) of a function from its file in the cache, where this compiles it if need be."""
  folder = _folder()
  file = folder / f'{name}_{dtype}x{vector}'
  with _locked(file):
    found = _read(file)  # what another process wrote meanwhile
    if found:
      return found
    symbol, code = _compiled(name, vector, dtype)
    try:
      folder.mkdir(parents=True, exist_ok=True)
      with tempfile.NamedTemporaryFile(dir=folder, delete=False) as f:
        f.write(b'\n'.join((symbol.encode(), hashlib.sha256(code).hexdigest().encode(), code)))
      os.replace(f.name, file)
    except OSError:
      pass  # a cache that cannot be written is no cache
  return symbol, code


def _compiled(name, vector, dtype):
  from vimnas_jax.cpu import source  # imports numba
  _machine()
  return source.compile(name, vector, dtype)


def _read(file):
  """What _object has kept in `file`, or None."""
  try:
    symbol, _, code = file.read_bytes().partition(b'\n')
  except OSError:
    return None
  check, _, code = code.partition(b'\n')
  return (symbol.decode(), code) if check.decode(errors='replace') == hashlib.sha256(code).hexdigest() else None


@contextlib.contextmanager
def _locked(file):
  """Has one process at a time compile what `file` will hold, the others wait; without locks, each compiles it.

  A lock dies with its process; one that is held for longer than compiling takes is passed over.
  """
  own = file.with_name(f'{file.name}.lock')
  with contextlib.ExitStack() as stack:
    try:
      import fcntl  # not on Windows
      own.parent.mkdir(parents=True, exist_ok=True)
      held = stack.enter_context(open(own, 'wb'))
      until = time.monotonic() + PATIENCE
      while not _taken(fcntl, held) and time.monotonic() < until:
        time.sleep(0.02)
    except (ImportError, OSError):
      pass
    try:
      yield
    finally:  # who waits for a file that is gone takes its lock, and finds the object code
      with contextlib.suppress(OSError):
        own.unlink(missing_ok=True)


def _taken(fcntl, file):
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


@functools.cache
def _fingerprint():
  """Of all that decides the object code: this machine, the compilers, the sources."""
  parts = [binding.get_host_cpu_name(), FEATURES.flatten(), os.environ.get('NUMBA_OPT', ''), jax.__version__,
           *(importlib.metadata.version(p) for p in ('jaxlib', 'numba', 'llvmlite'))]
  here = pathlib.Path(__file__).parent
  parts += [path.read_text(encoding='utf-8') for path in (
      pathlib.Path(__file__), here / 'interface.py', here / 'table.py', *sorted(here.glob('source/*.py')))]
  return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def _folder():
  base = jax.config.jax_compilation_cache_dir
  return pathlib.Path(base) / f'kernels-{_fingerprint()}' if base and '://' not in base else None


_KEPT = []  # XLA and the table hold addresses of this code


@functools.cache
def _machine():
  binding.initialize_native_target()
  binding.initialize_native_asmprinter()
  binding.add_symbol('vimnas_jax_table', TABLE.ctypes.data)
  abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
  for name in RAISING:
    if not binding.address_of_symbol(name):
      binding.add_symbol(name, abort)
  return binding.Target.from_default_triple().create_target_machine(jit=True)


def _load(symbol, code):
  engine = binding.create_mcjit_compiler(binding.parse_assembly(''), _machine())
  engine.add_object_file(binding.ObjectFileRef.from_data(code))
  engine.finalize_object()
  _KEPT.append(engine)
  return engine.get_function_address(symbol)
