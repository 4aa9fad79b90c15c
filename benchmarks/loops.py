"""How near the inner loops of the CPU kernels come to what one core can do.

  python -m benchmarks.loops --out benchmarks/loops.json

Every loop runs on one image that lies in cache, as in a kernel; what a core can do is NumPy's dense product on one
thread. What memory can do, a copy that is too large for the caches by one core and by all at once, is told beside it.
"""

import argparse
import functools
import json
import os
import shlex
import sys
import threading
import time

import numpy as np
import threadpoolctl
from numba import njit

from benchmarks.step import environment
from vimnas_jax.cpu import library, table
from vimnas_jax.cpu.source.frame import OPTIONS, call
from vimnas_jax.cpu.source.loops import matrix_product

VECTOR = table.BYTES // 4
REPEATS = 400
COPY, COPIES = 1 << 25, 40  # numbers, and how often they are copied


def main():
  """Prints GFLOP/s of every loop and writes them as JSON."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--out', default='')
  args = parser.parse_args()
  a = np.ones((1024, 1024), np.float32)
  with threadpoolctl.threadpool_limits(1):
    a @ a
    peak = max(2 * 1024 ** 3 / _seconds(lambda: a @ a) / 1e9 for _ in range(7))
  record = {'command': 'python -m benchmarks.loops ' + shlex.join(sys.argv[1:]), 'dense_product_gflops': round(peak, 1),
            'vector': VECTOR, 'copy_gb_s': {str(n): round(copied(n), 1) for n in {1, os.cpu_count()}},
            'gflops': {}, **environment()}
  print('GB/s of a copy, by cores:', record['copy_gb_s'])
  for side, c in ((32, 16), (16, 32), (8, 64)):
    for name, gflops in (windows(side, c) | products(side, c)).items():
      record['gflops'][f'{side}x{side}x{c} {name}'] = round(gflops, 1)
      print(f'{side:3} x {side} x {c}  {name:28} {gflops:6.1f} GFLOP/s {100 * gflops / peak:4.0f} % of {peak:.0f}')
  if args.out:
    with open(args.out, 'w', encoding='utf-8') as f:
      json.dump(record, f, indent=1)


def _seconds(f):
  begin = time.perf_counter()
  f()
  return time.perf_counter() - begin


@njit(nogil=True, **OPTIONS)
def _copy(times, source, to):
  for _ in range(times):
    to[:] = source


def copied(threads: int) -> float:
  """Bytes a second, read and written, in GB, of so many threads that each copy memory of their own."""
  rates, together = [], threading.Barrier(threads)

  def work():
    a, b = np.ones(COPY, np.float32), np.ones(COPY, np.float32)
    _copy(1, a, b)
    together.wait()
    rates.append(2 * COPIES * a.nbytes / _seconds(lambda: _copy(COPIES, a, b)) / 1e9)

  workers = [threading.Thread(target=work) for _ in range(threads)]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join()
  return sum(rates)


def _aligned(size):
  array = np.zeros(size + 16, np.float32)
  start = -(array.ctypes.data // 4) % 16
  return array[start:start + size]


@njit(**OPTIONS)
def _repeat(count, loop, a, b, c, d, e, f, g, h, i):
  for _ in range(count):
    call(loop, a, b, c, d, e, f, g, h, i)


def windows(side, c):
  """GFLOP/s of the depthwise loops on [side, side, c], by name."""
  found = {}
  for size, dilation in ((3, 1), (5, 1), (3, 2), (5, 2)):
    pad, window = dilation * (size - 1) // 2, f'window_{size}_{dilation}_1_'
    row = (side + 2 * pad) * VECTOR
    x, dy, y = _aligned((side + 2 * pad) * row), _aligned((side + 2 * pad) * row), _aligned(side * side * c)
    kernel = _aligned(size * size * c)
    inside = dy.ctypes.data + 4 * (pad * row + pad * VECTOR)
    at, to, weights = x.ctypes.data, y.ctypes.data, kernel.ctypes.data
    calls = {'forward': ('forward', at, row, weights, c, to, side * c, c, side, side),
             'kernel gradient': ('kernel_gradient', at, row, inside, row, VECTOR, weights, c, side, side)}
    for name, (which, *args) in calls.items():
      library.need([window + which], VECTOR, 'float32')
      library.finish()
      address = table.TABLE[table.slot(window + which, VECTOR, 'float32')]
      run = functools.partial(_repeat, REPEATS, int(address), *args)
      run()
      seconds = min(_seconds(run) for _ in range(3))
      dilated = ' dilated' if dilation > 1 else ''
      found[f'{size}x{size}{dilated} {name}'] = 2e-9 * (size * side) ** 2 * VECTOR * REPEATS / seconds
  return found


def products(side, c):
  """GFLOP/s of the matrix products on [side * side, c] and [c, c], by name."""
  n, found = side * side, {}
  a, b, out = _aligned(n * c), _aligned(n * c), _aligned(n * c)
  library.need(table.PRODUCTS, VECTOR, 'float32')
  library.finish()
  multiply, multiply_add = (matrix_product(VECTOR, 'float32', how) for how in ('set', 'add'))
  panel = VECTOR * next(i for i in (3, 2, 1) if c % (i * VECTOR) == 0)

  @njit(**OPTIONS)
  def forward(count, a, b, out):
    for _ in range(count):
      multiply(a, c, 1, b, c, panel, out, c, c, n, c)

  @njit(**OPTIONS)
  def gradient(count, a, b, out):
    for _ in range(count):
      multiply_add(a, 1, c, b, c, panel, out, c, n, c, c)

  for name, f in (('1x1 forward', forward), ('1x1 matrix gradient', gradient)):
    f(1, *(array.ctypes.data for array in (a, b, out)))
    seconds = min(_seconds(lambda f=f: f(REPEATS, a.ctypes.data, b.ctypes.data, out.ctypes.data)) for _ in range(3))
    found[name] = 2e-9 * n * c * c * REPEATS / seconds
  return found


if __name__ == '__main__':
  main()
