"""Another process of ahead.py: `python -m vimnas_jax.cpu.compiler FOLDER`.

It compiles what its input says, a line `NAME VECTOR TYPE` each, into the cache FOLDER, unless another process does, and
ends with its input, or when nothing has come for IDLE seconds.
"""

import contextlib
import queue
import sys
import threading

import jax

from vimnas_jax.cpu import store

IDLE = 60


def main(folder: str):
  """Compiles what comes."""
  jax.config.update('jax_compilation_cache_dir', folder)
  lines: queue.Queue[str] = queue.Queue()

  def read():
    for line in sys.stdin:
      lines.put(line)
    lines.put('')  # whoever asked has gone

  threading.Thread(target=read, daemon=True).start()
  with contextlib.suppress(queue.Empty):
    while line := lines.get(timeout=IDLE):
      name, vector, dtype = line.split()
      store.kept((name, int(vector), dtype), patience=0)


if __name__ == '__main__':
  main(sys.argv[1])
