"""Other processes that compile the kernels which a program calls, while this one traces it.

Functions go from process to process through their files (store.py), whose locks keep two from compiling the same. The
other processes are compiler.py.
"""

import atexit
import contextlib
import functools
import os
import pathlib
import subprocess
import sys

from vimnas_jax.cpu import store, table

# What follows where a chunk is compiled; the small loops that chunks call are not worth it. Narrow maps are followed by
# wider ones, whose vectors are longer.
LATER = {'pools_forward': ('pools_backward',), 'dense_forward': ('dense_backward',),
         'winograd_forward': ('winograd_backward',), 'stage_forward': ('stage_backward',), 'statistics': (),
         'mix': ('coefficients', 'sums'), 'block_forward': ('block_sums',), 'pour': ('turn',),
         'read_forward': ('read_backward', 'projections_sums')}
MOST = 3  # other processes, each of which imports numba


def begin(folder: str):
  """Starts the other processes, for the cache `folder`."""
  _processes(folder)


def working(folder: str) -> bool:
  """Whether any of them is still there."""
  return any(process.poll() is None for process in _processes(folder))


def ask(function: store.Function):
  """Has the other processes compile `function`, if it is not kept, and what follows it. Nothing waits for them."""
  file = store.path(function)
  if not file or file.exists():
    return
  lines = ''.join(f'{name} {vector} {dtype}\n' for name, vector, dtype in (function, *following(*function)))
  for process in _processes(str(file.parents[1])):
    with contextlib.suppress(OSError):  # it has ended; what it has not done is compiled when it is needed
      process.stdin.write(lines)
      process.stdin.flush()


def following(name: str, vector: int, dtype: str) -> list[store.Function]:
  """What will be needed soon where the function `name` has to be compiled."""
  if name not in LATER:
    return []
  longest = table.vector_length(64, dtype)
  longer = [] if vector < 4 else [vector << i for i in range(1, (longest // vector).bit_length())]
  return [*((name, more, dtype) for more in longer),
          *((later, each, dtype) for each in (vector, *longer) for later in LATER[name])]


def _cores() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


@functools.cache
def _processes(folder):
  """As many as there are cores beside that of this process, and no more than MOST."""
  root = str(pathlib.Path(__file__).resolve().parents[2])
  path = os.pathsep.join([root, *filter(None, [os.environ.get('PYTHONPATH')])])
  processes = []
  for _ in range(min(_cores() - 1, MOST)):
    with contextlib.suppress(OSError):
      process = subprocess.Popen([sys.executable, '-m', 'vimnas_jax.cpu.compiler', folder], stdin=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
                                 env={**os.environ, 'PYTHONPATH': path})
      atexit.register(_end, process)
      processes.append(process)
  return processes


def _end(process):
  process.kill()
  with contextlib.suppress(OSError):
    process.stdin.close()
  process.wait()
