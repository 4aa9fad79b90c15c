"""A second process that compiles what the first will need soon: of a forward pass the kernels of the backward pass.

Functions go from process to process through their files (library.py), whose locks keep two from compiling the same. The
second process is compiler.py.
"""

import atexit
import contextlib
import functools
import os
import pathlib
import subprocess
import sys

from vimnas_jax.cpu import table

# What follows where a chunk is compiled; the small loops that chunks call are not worth it. Narrow maps are followed by
# wider ones, whose vectors are longer.
LATER = {'pools_forward': ('pools_backward',), 'dense_forward': ('dense_backward',),
         'winograd_forward': ('winograd_backward',), 'stage_forward': ('stage_backward',), 'statistics': (),
         'mix': ('coefficients', 'sums'), 'block_forward': ('block_sums',), 'pour': ('turn',),
         'read_forward': ('read_backward', 'projections_sums')}


def begin(folder: str):
  """Starts the second process, for the cache `folder`."""
  if _cores() > 1:
    with contextlib.suppress(OSError):
      _process(folder)


def ask(name: str, vector: int, dtype: str, folder: str):
  """Has the second process compile what follows the chunk `name`, into the cache `folder`. Nothing waits for it."""
  if name in LATER and _cores() > 1:
    with contextlib.suppress(OSError):  # it has ended; what it has not done is compiled when it is needed
      pipe = _process(folder).stdin
      pipe.writelines(f'{later} {vector} {dtype}\n' for later, vector in following(name, vector, dtype))
      pipe.flush()


def following(name: str, vector: int, dtype: str) -> list[tuple[str, int]]:
  """(function, vector length) of what is compiled ahead where the chunk `name` has to be."""
  longest = table.vector_length(64, dtype)
  longer = [] if vector < 4 else [vector << i for i in range(1, (longest // vector).bit_length())]
  return [*((name, more) for more in longer), *((later, each) for each in (vector, *longer) for later in LATER[name])]


def _cores() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


@functools.cache
def _process(folder):
  root = str(pathlib.Path(__file__).resolve().parents[2])
  path = os.pathsep.join([root, *filter(None, [os.environ.get('PYTHONPATH')])])
  process = subprocess.Popen([sys.executable, '-m', 'vimnas_jax.cpu.compiler', folder], stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
                             env={**os.environ, 'PYTHONPATH': path})
  atexit.register(_end, process)
  return process


def _end(process):
  process.kill()
  with contextlib.suppress(OSError):
    process.stdin.close()
  process.wait()
