"""The machine code of the CPU kernels: compiled by numba where it is new, else read from disk by LLVM alone.

Every function has a fixed slot in one table of addresses, by which compiled code finds what it calls; so a function's
object code is the same in every process and may be kept beside JAX's compiled programs. Importing numba and compiling
take ten seconds and more, loading takes milliseconds.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import re
import tempfile

import jax
import numpy as np
from llvmlite import binding

INTERFACE = 0, 3  # XLA's C interface (xla/ffi/api/c_api.h), major and minor, whose layout source/ is written for
CHUNKS = 16  # parts of a batch that threads share out
FEATURES = binding.get_host_cpu_features()
WIDE = bool(FEATURES.get('avx512f'))
BYTES = 64 if WIDE else 32  # of one vector register
TILES = {1: 8, 2: 8, 3: 8} if WIDE else {1: 8, 2: 4, 3: 4}  # a block of a matrix product: vectors across, rows down

PRODUCTS = tuple(f'product_{across}_{rows}_{how}' for across, most in TILES.items() for rows in (1, most)
                 for how in ('set', 'add'))
MODULES = {'stage': ('stage_forward', 'stage_backward'), 'dense': ('dense_forward', 'dense_backward'),
           'pools': ('pools_forward', 'pools_backward'),
           'mix': ('sums', 'mix', 'statistics', 'coefficients', 'inner', 'fold')}  # of source/: their chunks
_NAMES = ('work', 'handler', *(name for names in MODULES.values() for name in names), 'activate', 'spread',
          'activate_gradient', 'normalise_gradient', 'moments', *PRODUCTS, 'sums_loop', 'mix_set', 'mix_add',
          'statistics_loop', 'scale_loop', 'edge_loop', 'finish_loop', 'fold_loop', 'below_all', 'max_loop',
          'mean_loop', 'max_back_loop', 'mean_back_loop')
_WINDOW = re.compile(r'window_(\d)_(\d)_(\d)_(forward|forward_add|kernel_gradient)')
_PLAIN, _PER_VARIANT = 768, 1024  # slots below _PLAIN are windows; slots of one vector length and type

# What numba's code calls to report exceptions, of which the kernels have none.
RAISING = ('numba_gil_ensure', 'numba_gil_release', 'numba_do_raise', 'numba_unpickle',
           'numba_runtime_build_excinfo_struct', 'NRT_Free')

TABLE = np.zeros(16 * _PER_VARIANT, np.int64)


def slot(name: str, vector: int, dtype: str) -> int:
  """Place of a function in the table; a window's loops forward, forward_add and kernel_gradient are neighbours."""
  variant = 8 * (dtype == 'float64') + vector.bit_length()
  found = _WINDOW.fullmatch(name)
  if found:
    size, dilation, stride = (int(v) for v in found.groups()[:3])
    kind = ('forward', 'forward_add', 'kernel_gradient').index(found[4])
    return variant * _PER_VARIANT + 3 * (16 * size + 4 * dilation + stride) + kind
  return variant * _PER_VARIANT + _PLAIN + _NAMES.index(name)


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
  if major != INTERFACE[0] or minor < INTERFACE[1]:
    return f'jaxlib has interface {major}.{minor}, the kernels are for {INTERFACE[0]}.{INTERFACE[1]}'
  return ''


def need(names, vector: int, dtype: str):
  """Puts functions into the table that are not there yet."""
  for name in names:
    at = slot(name, vector, dtype)
    if not TABLE[at]:
      TABLE[at] = _load(*_object(name, vector, dtype))


def vector_length(channels: int, dtype) -> int:
  """Channels that one instruction handles: the largest power of 2 that divides them and fits a register."""
  return int(np.gcd(channels, BYTES // np.dtype(dtype).itemsize))


def call(names, channels: int, outputs, *args, **attributes):
  """Calls the chunk names[0], which needs the loops names[1:], for maps whose width `channels` divides.

  `outputs` are shapes; all floats are of the type of args[0]. The attribute `chunks` is the number of parts of the
  batch, CHUNKS unless given: fixed, so that sums do not depend on the number of threads.
  """
  kind = args[0].dtype
  vector = vector_length(channels, kind)
  need(names, vector, kind.name)
  target = f'vimnas_jax_{names[0]}'
  register(target)
  attributes = {'chunks': min(CHUNKS, args[0].shape[0])} | attributes | {'call': slot(names[0], vector, kind.name)}
  return jax.ffi.ffi_call(target, [jax.ShapeDtypeStruct(shape, kind) for shape in outputs])(
      *args, **{name: np.int64(value) for name, value in attributes.items()})


@functools.cache
def register(target: str):
  """Makes `target` a name for `jax.ffi.ffi_call`; the attribute `call` is the slot of the chunk to run.

  Attributes that come first by alphabet: call, chunks (how many there are; threads take them one by one).
  """
  need(('work', 'handler'), 1, 'float32')
  capsule = ctypes.pythonapi.PyCapsule_New
  capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
  address = int(TABLE[slot('handler', 1, 'float32')])
  jax.ffi.register_ffi_target(target, capsule(address, None, None), platform='cpu')


def _object(name, vector, dtype):
  """(symbol, object code) of a function."""
  folder = _folder()
  file = folder / f'{name}_{dtype}x{vector}' if folder else None
  if file and file.exists():
    symbol, _, code = file.read_bytes().partition(b'\n')
    check, _, code = code.partition(b'\n')
    if check.decode(errors='replace') == hashlib.sha256(code).hexdigest():
      return symbol.decode(), code
  from vimnas_jax.cpu import source  # imports numba
  _machine()
  symbol, code = source.compile(name, vector, dtype)
  if file:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      with tempfile.NamedTemporaryFile(dir=folder, delete=False) as f:
        f.write(b'\n'.join((symbol.encode(), hashlib.sha256(code).hexdigest().encode(), code)))
      os.replace(f.name, file)
    except OSError:
      pass  # a cache that cannot be written is no cache
  return symbol, code


@functools.cache
def _fingerprint():
  """Of all that decides the object code: this machine, the compilers, the sources."""
  parts = [binding.get_host_cpu_name(), FEATURES.flatten(), os.environ.get('NUMBA_OPT', ''), jax.__version__,
           *(importlib.metadata.version(p) for p in ('jaxlib', 'numba', 'llvmlite'))]
  here = pathlib.Path(__file__).parent
  parts += [path.read_text(encoding='utf-8') for path in (pathlib.Path(__file__), *sorted(here.glob('source/*.py')))]
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
