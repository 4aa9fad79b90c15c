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
import tempfile
import time

import jax
from llvmlite import binding

from vimnas_jax.cpu.table import FEATURES, TABLE

# What numba's code calls to report exceptions, of which the kernels have none.
RAISING = ('numba_gil_ensure', 'numba_gil_release', 'numba_do_raise', 'numba_unpickle',
           'numba_runtime_build_excinfo_struct', 'NRT_Free')
PATIENCE = 30  # seconds that a process waits for what another compiles
Function = tuple[str, int, str]  # name, numbers in a vector, type
_LOADED = []  # XLA and the table hold addresses of this code


def folder() -> pathlib.Path | None:
  """Where functions are kept; None without a cache."""
  base = jax.config.jax_compilation_cache_dir
  return pathlib.Path(base) / f'kernels-{_fingerprint()}' if base and '://' not in base else None


def path(function: Function) -> pathlib.Path | None:
  """Where a function is kept; None without a cache."""
  base, (name, vector, dtype) = folder(), function
  return base and base / f'{name}_{dtype}x{vector}'


def read(function: Function) -> tuple[str, bytes] | None:
  """(symbol, object code) of a function from its file in the cache, if it is there."""
  file = path(function)
  return file and _read(file)


def kept(function: Function, patience: float = PATIENCE) -> tuple[str, bytes] | None:
  """(symbol, object code) of a function from its file in the cache, where this compiles it if need be.

  Waits for `patience` seconds where another process is compiling it; None if that is 0.
  """
  file = path(function)
  if not file:
    return _compiled(*function)
  found = _read(file)
  if found:
    return found
  with _locked(file, patience) as ours:
    found = _read(file)  # what another process wrote meanwhile
    if found or not (ours or patience):
      return found
    symbol, code = _compiled(*function)
    try:
      file.parent.mkdir(parents=True, exist_ok=True)
      with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as f:
        f.write(b'\n'.join((symbol.encode(), _check(symbol.encode(), code), code)))
      os.replace(f.name, file)
    except OSError:
      pass  # a cache that cannot be written is no cache
  return symbol, code


def load(symbol: str, code: bytes) -> int:
  """Address of a function; its code stays as long as the process."""
  engine = binding.create_mcjit_compiler(binding.parse_assembly(''), _machine())
  engine.add_object_file(binding.ObjectFileRef.from_data(code))
  engine.finalize_object()
  _LOADED.append(engine)
  return engine.get_function_address(symbol)


def _compiled(name, vector, dtype):
  from vimnas_jax.cpu import source  # imports numba
  _machine()
  return source.compile(name, vector, dtype)


def _read(file):
  """What `kept` has written to `file`, or None."""
  try:
    symbol, _, code = file.read_bytes().partition(b'\n')
  except OSError:
    return None
  check, _, code = code.partition(b'\n')
  return (symbol.decode(), code) if check == _check(symbol, code) else None


def _check(symbol: bytes, code: bytes) -> bytes:
  """A checksum of all that is kept of a function."""
  return hashlib.sha256(symbol + b'\n' + code).hexdigest().encode()


@contextlib.contextmanager
def _locked(file, patience):
  """Has one process at a time compile what `file` will hold: gives whether this one may. Without locks, each does.

  A lock dies with its process. The others wait for `patience` seconds, and pass over one that is held for longer.
  """
  own = file.with_name(f'{file.name}.lock')
  with contextlib.ExitStack() as stack:
    ours = True
    try:
      import fcntl  # not on Windows
      own.parent.mkdir(parents=True, exist_ok=True)
      held = stack.enter_context(open(own, 'wb'))
      until = time.monotonic() + patience
      while not (ours := _taken(fcntl, held)) and time.monotonic() < until:
        time.sleep(0.02)
    except (ImportError, OSError):
      pass
    try:
      yield ours
    finally:  # who waits for a file that is gone takes its lock, and finds the object code
      if ours or patience:
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
  parts += [file.read_text(encoding='utf-8') for file in (
      here / 'library.py', here / 'store.py', here / 'interface.py', here / 'table.py',
      *sorted(here.glob('source/*.py')))]
  return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


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
