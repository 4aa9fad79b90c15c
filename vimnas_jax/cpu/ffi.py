"""XLA custom calls written in Python: numba compiles a loop over chunks, XLA's own threads run it.

`register(name, chunk)` makes `chunk(frame, index)`, a numba function, callable by `jax.ffi.ffi_call(name, ...)`. The
call's attribute `chunks` says how many there are; threads take them one by one. Inside a chunk, `arg(frame, i)` and
`result(frame, i)` are addresses of buffers, `arg_dim(frame, i, j)` their sides and `attr(frame, i)` the i-th integer
attribute in alphabetical order. A chunk must write nothing that another one reads or writes.

The layout of the call frame is XLA's C interface (xla/ffi/api/c_api.h, which jaxlib ships); its version is read there.
"""

import ctypes
import os
import re

import jax
import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

I64 = ir.IntType(64)
OPTIONS = {'error_model': 'numpy'}


@intrinsic
def load(typing, address):
  """The int64 at an address."""
  def emit(context, builder, signature, args):
    return builder.load(builder.inttoptr(args[0], I64.as_pointer()), align=8)
  return types.int64(types.int64), emit


@intrinsic
def store(typing, address, value):
  """Writes an int64 to an address."""
  def emit(context, builder, signature, args):
    builder.store(args[1], builder.inttoptr(args[0], I64.as_pointer()), align=8)
    return context.get_dummy_value()
  return types.void(types.int64, types.int64), emit


@intrinsic
def store32(typing, address, value):
  """Writes an int32 to an address."""
  def emit(context, builder, signature, args):
    narrow = ir.IntType(32)
    builder.store(builder.trunc(args[1], narrow), builder.inttoptr(args[0], narrow.as_pointer()), align=4)
    return context.get_dummy_value()
  return types.void(types.int64, types.int64), emit


@intrinsic
def fetch_add(typing, address, value):
  """Adds to the int64 at an address, atomically, and returns what was there before."""
  def emit(context, builder, signature, args):
    return builder.atomic_rmw('add', builder.inttoptr(args[0], I64.as_pointer()), args[1], 'seq_cst')
  return types.int64(types.int64, types.int64), emit


@intrinsic
def call(typing, address, *args):
  """Calls a C function of int64 at an address, which returns an int64."""
  def emit(context, builder, signature, values):
    kind = ir.FunctionType(I64, [I64] * len(args))
    return builder.call(builder.inttoptr(values[0], kind.as_pointer()), cgutils.unpack_tuple(builder, values[1]))
  return types.int64(types.int64, types.StarArgTuple(args)), emit


@intrinsic
def _malloc(typing, size):
  def emit(context, builder, signature, args):
    f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, [I64]), 'malloc')
    return builder.call(f, args)
  return types.int64(types.int64), emit


@intrinsic
def _free(typing, address):
  def emit(context, builder, signature, args):
    f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [I64]), 'free')
    builder.call(f, args)
    return context.get_dummy_value()
  return types.void(types.int64), emit


@intrinsic
def copy(typing, to, source, size):
  """Copies so many bytes."""
  def emit(context, builder, signature, args):
    f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, [I64] * 3), 'memcpy')
    builder.call(f, args)
    return context.get_dummy_value()
  return types.void(*[types.int64] * 3), emit


@njit(**OPTIONS)
def arg(frame, i):
  """Address of the data of the i-th argument."""
  return load(load(load(frame + 72) + 8 * i) + 24)


@njit(**OPTIONS)
def arg_dim(frame, i, j):
  """Side j of the i-th argument."""
  return load(load(load(load(frame + 72) + 8 * i) + 40) + 8 * j)


@njit(**OPTIONS)
def result(frame, i):
  """Address of the data of the i-th result."""
  return load(load(load(frame + 112) + 8 * i) + 24)


@njit(**OPTIONS)
def result_dim(frame, i, j):
  """Side j of the i-th result."""
  return load(load(load(load(frame + 112) + 8 * i) + 40) + 8 * j)


@njit(**OPTIONS)
def attr(frame, i):
  """The i-th attribute by alphabet, an int64."""
  return load(load(load(load(frame + 160) + 8 * i) + 8))


@njit(**OPTIONS)
def scratch(array):
  """Address of a float array's first element that lies on a cache line; the array wants 16 elements to spare."""
  return (array.ctypes.data + 63) // 64 * 64


@njit(**OPTIONS)
def alive(*arrays):
  """To be called where the addresses of arrays are last used: numba frees an array after its last mention."""
  return len(arrays)


def _version():
  """(major, minor) of XLA's C interface, as the installed jaxlib has it."""
  with open(os.path.join(jax.ffi.include_dir(), 'xla', 'ffi', 'api', 'c_api.h'), encoding='utf-8') as f:
    text = f.read()
  return tuple(int(re.search(rf'#define XLA_FFI_API_{part} (\d+)', text)[1]) for part in ('MAJOR', 'MINOR'))


# A job, shared by the threads of one call: int64 next chunk, chunks done, holders, chunks, call frame.
_NEXT, _DONE, _HOLDERS, _CHUNKS, _FRAME, _SIZE = 0, 8, 16, 24, 32, 40


def register(name: str, chunk):
  """Makes a numba function `chunk(frame, index)` a custom call; its attribute `chunks` must come first by alphabet."""
  major, minor = _version()

  @cfunc(types.int64(types.int64), **OPTIONS)
  def work(job):
    chunks, frame = load(job + _CHUNKS), load(job + _FRAME)
    while True:
      index = fetch_add(job + _NEXT, 1)
      if index >= chunks:
        break
      chunk(frame, index)
      fetch_add(job + _DONE, 1)
    if fetch_add(job + _HOLDERS, -1) == 1:
      _free(job)
    return 0

  address = work.address

  @cfunc(types.int64(types.int64), **OPTIONS)
  def handler(frame):
    extension = load(frame + 8)
    if extension != 0:  # XLA asks what the handler is built for
      metadata = load(extension + 24)
      store32(metadata + 24, major)
      store32(metadata + 28, minor)
      return 0
    api, context, chunks = load(frame + 16), load(frame + 24), attr(frame, 0)
    threads = np.ones(1, np.int64)
    query = np.empty(4, np.int64)
    query[0], query[1], query[2], query[3] = 32, 0, context, threads.ctypes.data
    call(load(api + 144), query.ctypes.data)
    alive(query, threads)
    helpers = min(threads[0], chunks) - 1
    job = _malloc(_SIZE)
    store(job + _NEXT, 0)
    store(job + _DONE, 0)
    store(job + _HOLDERS, helpers + 2)
    store(job + _CHUNKS, chunks)
    store(job + _FRAME, frame)
    task = np.empty(5, np.int64)
    task[0], task[1], task[2], task[3], task[4] = 40, 0, context, address, job
    for _ in range(helpers):
      if call(load(api + 136), task.ctypes.data) != 0:
        fetch_add(job + _HOLDERS, -1)  # no thread pool: this thread does it all
    alive(task)
    call(address, job)
    while fetch_add(job + _DONE, 0) < chunks:
      pass  # others finish the chunks that they have taken
    if fetch_add(job + _HOLDERS, -1) == 1:
      _free(job)
    return 0

  capsule = ctypes.pythonapi.PyCapsule_New
  capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
  jax.ffi.register_ffi_target(name, capsule(handler.address, None, None), platform='cpu')
  _KEPT.extend((work, handler, chunk))


_KEPT = []  # compiled code that XLA holds addresses of
