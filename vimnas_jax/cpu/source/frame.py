"""What a chunk sees of its call: XLA's call frame, memory, and other compiled functions.

Inside a chunk(frame, index), `arg(frame, i)` and `result(frame, i)` are addresses of buffers, `arg_dim(frame, i, j)`
their sides and `attr(frame, i)` the i-th integer attribute in alphabetical order. A chunk must write nothing that
another one reads or writes. The layout of the frame is in cpu/interface.py; job.py has checked it.
Nothing here or in what uses it may raise, or use Python objects or arrays of numba: library.py links none of it.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.extending import intrinsic

from vimnas_jax import isa
from vimnas_jax.cpu import interface as xla
from vimnas_jax.cpu import table

I64, I32 = ir.IntType(64), ir.IntType(32)
OPTIONS = {'error_model': 'numpy'}
if isa.narrow():  # before anything is compiled; else numba asks the processor
  config.CPU_FEATURES = table.FEATURES.flatten()


def function(count, returns='int64'):
  """Decorates a function of `count` int64, which numba compiles once: else once for each constant it is called with."""
  return njit(f'{returns}({", ".join(["int64"] * count)})', no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)


@intrinsic
def load(typing, address):
  """The int64 at an address."""
  def emit(context, builder, signature, args):
    return builder.load(builder.inttoptr(args[0], I64.as_pointer()), align=8)
  return types.int64(types.int64), emit


@intrinsic
def load32(typing, address):
  """The int32 at an address, as an int64."""
  def emit(context, builder, signature, args):
    return builder.sext(builder.load(builder.inttoptr(args[0], I32.as_pointer()), align=4), I64)
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
    builder.store(builder.trunc(args[1], I32), builder.inttoptr(args[0], I32.as_pointer()), align=4)
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
def room(typing, size):
  """Address of so many new bytes, of any value."""
  def emit(context, builder, signature, args):
    return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, [I64]), 'malloc'), args)
  return types.int64(types.int64), emit


@intrinsic
def free(typing, address):
  """Gives back what `zeros` or `room` gave."""
  def emit(context, builder, signature, args):
    f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [I64]), 'free')
    builder.call(f, args)
    return context.get_dummy_value()
  return types.void(types.int64), emit


@intrinsic
def abort(typing):
  """Ends the process."""
  def emit(context, builder, signature, args):
    builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), 'abort'), [])
    return context.get_dummy_value()
  return types.void(), emit


def text(value):
  """An intrinsic: the address of these letters, with a 0 behind them."""
  @intrinsic
  def letters(typing):
    def emit(context, builder, signature, args):
      return builder.ptrtoint(context.insert_const_string(builder.module, value), I64)
    return types.int64(), emit
  return letters


def _table(builder):
  name = 'vimnas_jax_table'
  table = builder.module.globals.get(name) or ir.GlobalVariable(builder.module, I64, name)
  return builder.ptrtoint(table, I64)


@intrinsic
def copy(typing, to, source, size):
  """Copies so many bytes."""
  def emit(context, builder, signature, args):
    f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, [I64] * 3), 'memcpy')
    builder.call(f, args)
    return context.get_dummy_value()
  return types.void(*[types.int64] * 3), emit


@intrinsic
def clear(typing, to, size):
  """Sets so many bytes to 0."""
  def emit(context, builder, signature, args):
    f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, [I64, I32, I64]), 'memset')
    builder.call(f, [args[0], ir.Constant(I32, 0), args[1]])
    return context.get_dummy_value()
  return types.void(types.int64, types.int64), emit


def _read(builder, address, *offsets):
  """The int64 at an address plus the first offset, or what one finds going on from there: numbers or values."""
  for offset in offsets:
    offset = ir.Constant(I64, offset) if isinstance(offset, int) else offset
    address = builder.load(builder.inttoptr(builder.add(address, offset), I64.as_pointer()), align=8)
  return address


def reader(count, read):
  """An intrinsic of `count` int64 that is `read(builder, *values)`. As numba functions these would be compiled once for
  each constant that they are called with.
  """
  def typed(typing, *args):
    def emit(context, builder, signature, values):
      return read(builder, *values)
    return types.int64(*[types.int64] * count), emit
  names = ', '.join(f'a{i}' for i in range(count))
  scope = {'typed': typed}
  exec(f'def reading(typing, {names}):\n  return typed(typing, {names})', scope)
  return intrinsic(scope['reading'])


def _item(builder, frame, part, i):
  return _read(builder, frame, part + xla.LIST_ITEMS, builder.mul(i, ir.Constant(I64, 8)))


def _side(builder, frame, part, i, j):
  return _read(builder, _item(builder, frame, part, i), xla.BUFFER_DIMS, builder.mul(j, ir.Constant(I64, 8)))


def _lines(builder, size):
  return builder.and_(builder.add(size, ir.Constant(I64, 63)), ir.Constant(I64, -64))


# arg(frame, i): address of the data of the i-th argument; arg_dim(frame, i, j): its side j; args(frame): how many.
arg = reader(2, lambda b, frame, i: _read(b, _item(b, frame, xla.FRAME_ARGS, i), xla.BUFFER_DATA))
arg_dim = reader(3, lambda b, frame, i, j: _side(b, frame, xla.FRAME_ARGS, i, j))
args = reader(1, lambda b, frame: _read(b, frame, xla.FRAME_ARGS + xla.LIST_COUNT))
_arg_item = reader(2, lambda b, frame, i: _item(b, frame, xla.FRAME_ARGS, i))
# The same of results.
results = reader(1, lambda b, frame: _read(b, frame, xla.FRAME_RETS + xla.LIST_COUNT))
result = reader(2, lambda b, frame, i: _read(b, _item(b, frame, xla.FRAME_RETS, i), xla.BUFFER_DATA))
result_dim = reader(3, lambda b, frame, i, j: _side(b, frame, xla.FRAME_RETS, i, j))
_result_item = reader(2, lambda b, frame, i: _item(b, frame, xla.FRAME_RETS, i))
# attr(frame, i): the i-th attribute by alphabet, an int64; attrs(frame): how many.
attr = reader(2, lambda b, frame, i: _read(
    b, frame, xla.FRAME_ATTRS + xla.ATTRS_ITEMS, b.mul(i, ir.Constant(I64, 8)), xla.SCALAR_VALUE, 0))
attrs = reader(1, lambda b, frame: _read(b, frame, xla.FRAME_ATTRS + xla.ATTRS_COUNT))
# address(slot): where the address of a function of table.py's table lies.
address = reader(1, lambda b, slot: b.add(_table(b), b.mul(slot, ir.Constant(I64, 8))))
# lines(size): bytes rounded up to whole cache lines.
lines = reader(1, _lines)


@function(1)
def _size(buffer):
  dims, size = load(buffer + xla.BUFFER_DIMS), 1
  for j in range(load(buffer + xla.BUFFER_RANK)):
    size *= load(dims + 8 * j)
  return size


@function(2)
def arg_size(frame, i):
  """How many numbers the i-th argument holds."""
  return _size(_arg_item(frame, i))


@function(2)
def result_size(frame, i):
  """How many numbers the i-th result holds."""
  return _size(_result_item(frame, i))
