"""What a chunk sees of its call: XLA's call frame, memory, and other compiled functions.

Inside a chunk(frame, index), `arg(frame, i)` and `result(frame, i)` are addresses of buffers, `arg_dim(frame, i, j)`
their sides and `attr(frame, i)` the i-th integer attribute in alphabetical order. A chunk must write nothing that
another one reads or writes. The layout of the frame is XLA's C interface (xla/ffi/api/c_api.h, which jaxlib ships).
Nothing here or in what uses it may raise, or use Python objects or arrays of numba: library.py links none of it.
"""

from llvmlite import ir
from numba import njit, types
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
def zeros(typing, size):
  """Address of so many new bytes, all 0."""
  def emit(context, builder, signature, args):
    f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, [I64] * 2), 'calloc')
    return builder.call(f, [args[0], ir.Constant(I64, 1)])
  return types.int64(types.int64), emit


@intrinsic
def free(typing, address):
  """Gives back what `zeros` gave."""
  def emit(context, builder, signature, args):
    f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [I64]), 'free')
    builder.call(f, args)
    return context.get_dummy_value()
  return types.void(types.int64), emit


@intrinsic
def _table(typing):
  def emit(context, builder, signature, args):
    name = 'vimnas_jax_table'
    table = builder.module.globals.get(name) or ir.GlobalVariable(builder.module, I64, name)
    return builder.ptrtoint(table, I64)
  return types.int64(), emit


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
def args(frame):
  """How many arguments there are."""
  return load(frame + 56)


@njit(**OPTIONS)
def attrs(frame):
  """How many attributes there are."""
  return load(frame + 136)


@njit(**OPTIONS)
def address(slot):
  """Where the address of a function of library.py's table lies."""
  return _table() + 8 * slot


@njit(**OPTIONS)
def lines(size):
  """Bytes rounded up to whole cache lines."""
  return (size + 63) // 64 * 64
