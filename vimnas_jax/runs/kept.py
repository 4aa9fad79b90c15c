"""Compiled steps that are kept between processes: a search that begins again need not trace and lower its step.

JAX's own cache keeps what XLA makes of a program, but has to see the program to find it, and tracing takes longer than
reading. Here it is found by all that decides it: the sources of this package, the versions and settings of JAX, the
machine, the configuration, the data, the shapes. Whoever knows of something else that a step is made of must not keep
it (`identity` None). It is for the command alone, which `allow`s it: where others call the package they may have
changed its functions. Only on one CPU device with its kernels, in a single process; the folder is that of JAX's cache.
"""

import collections
import contextlib
import ctypes
import functools
import hashlib
import json
import os
import pathlib
import sys
import sysconfig
import threading

import jax
import jax.monitoring
import numpy as np
from jax.experimental import serialize_executable

from vimnas_jax import cpu, files
from vimnas_jax.runs import provenance, runfolder

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'numba', 'llvmlite')
MOST = 16  # programs, of 6 MB for the DARTS space
SETTINGS = ('JAX_', 'XLA_', 'VIMNAS_JAX_', 'NPROC', 'OMP_', 'TF_')  # of the environment
# Fields of a configuration that no step is made of: those in which a run that goes on may differ, and what begins a run
# (its state is an argument of the step), what is said of it and what follows it.
FREE = (*runfolder.FREE, 'seed', 'log_steps', 'then', 'max_hours', 'supernet_images')
_HITS: collections.Counter[int] = collections.Counter()  # of JAX's cache, by thread
_ALLOWED: list[str] = []


def allow(text: str, sources: str | None = None):
  """Lets this process keep its steps; `text` is that of its configuration file, which is a program too.

  The sources that are on the disk now stand for those that this process runs: where they are not the `sources` (as
  provenance.sources gives them) with which it began, it keeps nothing. Modules of the user's that the configuration has
  imported count too.
  """
  if sources not in (None, provenance.sources()):
    return
  digest = hashlib.sha256(text.encode())
  for path in _others():
    with contextlib.suppress(OSError):
      digest.update(path.read_bytes())
  _ALLOWED.append(digest.hexdigest())
  _surroundings()


def _others() -> list[pathlib.Path]:
  """The files of modules that come with neither Python, nor a package that is installed, nor this one."""
  paths = [pathlib.Path(file) for module in list(sys.modules.values())
           if isinstance(file := getattr(module, '__file__', None), str)]
  home = [pathlib.Path(place).resolve() for place in {*sysconfig.get_paths().values(), sys.base_prefix}]
  own = pathlib.Path(__file__).resolve().parents[1]
  return sorted(path for path in map(pathlib.Path.resolve, paths) if path.suffix == '.py' and not any(
      path.is_relative_to(place) for place in (*home, own)))


def identity(config, *more) -> str | None:
  """What names the steps of a run of the resolved `config` and of what follows of `more` (its text), whoever runs it.

  None where something is the user's own code, which this cannot read to its end.
  """
  flat = {name: value for name, value in files.flatten(config.to_dict()).items() if name not in FREE}
  if any(isinstance(value, str) and value.endswith('.py') for value in flat.values()):
    return None
  return json.dumps([flat, *map(str, more)], sort_keys=True, default=str)


def compiled(step, args, identity: str | None, call=lambda f: f()):
  """The jitted `step` compiled for `args`, whose first is given away: read, or made and kept where `identity` allows.

  `step(*args)` gives (what the first argument becomes, {name: values}); `call` calls what compiles, and may do so in
  another thread, where JAX does not know of settings that hold for this one: it is traced here.
  """
  path = _path(identity, args)
  program = path and _read(path, step, args)
  return program or _made(path, step, args, call)


def _made(path, step, args, call=lambda f: f()):
  _listen()
  lowered = step.lower(*args)

  def compiled():
    before = _HITS[threading.get_ident()]
    return lowered.compile(), _HITS[threading.get_ident()] == before

  program, new = call(compiled)
  if path and new:  # what JAX has read from its cache cannot be written once more
    with contextlib.suppress(Exception):  # a program that cannot be kept is none the worse
      _write(path, program, args)
  return program


class _Kept:
  """A program that was read. If its first call fails, the program is made and called with a copy of the state."""

  def __init__(self, path, program, step, args, memory):
    self._path, self._program, self._step, self._tried, self._memory = path, program, step, False, memory
    self._shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), args)

  def __call__(self, state, *others):
    if not self._tried:
      self._tried = True
      placed = jax.tree.map(lambda x: x.sharding, state)
      copied = jax.tree.map(np.array, state)  # in the host's memory: another on the device would tear the allocator's
      self._memory.release()
      try:
        return jax.block_until_ready(self._program(state, *others))
      except Exception:  # whatever it is, the program that JAX makes will say it too
        with contextlib.suppress(OSError):
          self._path.unlink(missing_ok=True)
        self._program, state = _made(None, self._step, self._shapes), jax.device_put(copied, placed)
    return self._program(state, *others)

  def memory_analysis(self):
    """As that of jax.stages.Compiled."""
    return self._program.memory_analysis()


@functools.cache
def _listen():
  jax.monitoring.register_event_listener(
      lambda event, **_: _HITS.update([threading.get_ident()] * event.endswith('/cache_hits')))


def _path(identity, args) -> pathlib.Path | None:
  base = jax.config.jax_compilation_cache_dir
  if identity is None or not _ALLOWED or not base or '://' in base:
    return None
  if jax.process_count() > 1 or jax.default_backend() != 'cpu' or not cpu.available():
    return None
  leaves, tree = jax.tree.flatten(args)
  if any(len(x.sharding.device_set) > 1 for x in leaves):
    return None
  settings = {name: str(getattr(jax.config, name, '')) for name in jax.config.values
              if name != 'jax_compilation_cache_dir'}
  environment = {name: value for name, value in os.environ.items()
                 if name.startswith(SETTINGS) and name != 'JAX_COMPILATION_CACHE_DIR'}
  parts = [identity, *_ALLOWED, str(tree), *(f'{x.shape} {x.dtype} {x.sharding}' for x in leaves), *_surroundings(),
           str(jax.devices()), json.dumps([settings, environment], sort_keys=True)]
  digest = hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:32]
  return pathlib.Path(base) / 'steps' / digest


@functools.cache
def _surroundings() -> tuple[str, ...]:
  """Sources, versions and machine."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  versions = provenance.software(PACKAGES)['versions']
  return provenance.sources(), json.dumps(versions), provenance.processor(), cpu.features(), str(cores)


def _write(path, program, args):
  """Keeps `program` with the shape of its values and the kernels that it calls, unless the sources have changed since
  this process began: it may have imported some of them before, and some after.
  """
  if provenance.sources() != _surroundings()[0]:
    return
  payload, _, _ = serialize_executable.serialize(program)
  state, values = jax.tree.unflatten(program.out_tree, [0] * program.out_tree.num_leaves)
  memory = getattr(program.memory_analysis(), 'temp_size_in_bytes', 0)
  head = json.dumps({'values': values, 'kernels': cpu.needed(), 'memory': memory})
  if (jax.tree.structure(json.loads(head)['values']) != jax.tree.structure(values)
      or jax.tree.structure(state) != jax.tree.structure(args[0])):
    return
  body = head.encode() + b'\n' + payload
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write(path, hashlib.sha256(body).hexdigest().encode() + b'\n' + body)
  older = sorted(path.parent.iterdir(), key=lambda other: other.stat().st_mtime)
  for other in older[:-MOST]:
    other.unlink(missing_ok=True)


def _read(path, step, args):
  """The program in `path`, or None where there is none that can be read."""
  try:
    check, _, body = path.read_bytes().partition(b'\n')
    if check.decode(errors='replace') != hashlib.sha256(body).hexdigest():
      return None
    head, _, payload = body.partition(b'\n')
    found = json.loads(head)
    memory = _Memory(found['memory'])
  except Exception:  # of another jaxlib, say: it is compiled instead
    return None
  try:
    cpu.prepare(found['kernels'])
    shapes = jax.tree.structure((tuple(args), {})), jax.tree.structure((args[0], found['values']))
    device, = jax.tree.leaves(args)[0].sharding.device_set
    program = serialize_executable.deserialize_and_load(payload, *shapes, execution_devices=[device])
    with contextlib.suppress(OSError):  # a cache that may only be read
      path.touch()
    return _Kept(path, program, step, args, memory)
  except Exception:
    memory.release()
    return None


class _Memory:
  """As much as a program will work in: seconds of a first step go into clearing it, which another thread sees to here.

  For where what is given back stays with the process (main.MALLOC): whoever asks for as much next gets it. So it is to
  be given back, by `release`, right before the program runs.
  """

  def __init__(self, size: int):
    self._at = None
    if os.environ.get('MALLOC_MMAP_MAX_') != '0' or size <= 0:
      return
    self._library = ctypes.CDLL(None)
    size += 1 << 24  # for what may be taken of it before
    malloc, clear = self._library.malloc, self._library.memset
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    clear.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    self._at = malloc(size)  # in this thread: another has a heap of its own
    if self._at:
      self._thread = threading.Thread(target=clear, args=(self._at, 0, size), daemon=True)
      self._thread.start()

  def release(self):
    """Gives it back, once."""
    if self._at:
      self._thread.join()
      self._library.free(ctypes.c_void_p(self._at))
    self._at = None
