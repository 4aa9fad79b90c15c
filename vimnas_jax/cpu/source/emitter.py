"""Vector instructions, emitted for numba: what the loops of this folder are written in."""

import contextlib
import functools

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vimnas_jax.cpu.table import WIDE

I64 = ir.IntType(64)
SUMS = 25 if WIDE else 13  # vectors that one loop may keep in registers: of 32, of 16
TYPES = {'float32': (ir.FloatType(), 4), 'float64': (ir.DoubleType(), 8)}


class Emitter:
  """Writes vector instructions. `vector` channels of type `dtype` at a time."""

  def __init__(self, builder, vector, dtype):
    self.b, self.vector = builder, vector
    self.scalar, self.size = TYPES[dtype]
    self.type = ir.VectorType(self.scalar, vector)

  def const(self, value):
    """An int64 constant."""
    return ir.Constant(I64, value)

  def at(self, base, *terms):
    """An address: base plus a sum of elements, each a value or a pair to be multiplied."""
    total = None
    for term in terms:
      value = self.b.mul(*term) if isinstance(term, tuple) else term
      total = value if total is None else self.b.add(total, value)
    return self.b.add(base, self.b.mul(total, self.const(self.size)))

  def apart(self, address):
    """The same address, of which LLVM does not know where it came from.

    Addresses that it knows to be evenly spaced it computes one from the other, and a loop then waits for that chain.
    """
    return self.b.asm(ir.FunctionType(I64, [I64]), '', '=r,0', [address], False)

  def load(self, address, offset=0):
    """The vector at an address, `offset` vectors on."""
    pointer = self.b.inttoptr(address, self.type.as_pointer())
    return self.b.load(self.b.gep(pointer, [self.const(offset)]), align=self.size)

  def spread(self, address):
    """The scalar at an address, in every lane."""
    value = self.b.load(self.b.inttoptr(address, self.scalar.as_pointer()), align=self.size)
    return self._spread(value)

  def _spread(self, value):
    one = self.b.insert_element(ir.Constant(self.type, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), self.vector), [0] * self.vector)
    return self.b.shuffle_vector(one, ir.Constant(self.type, ir.Undefined), mask)

  def store(self, value, address, offset=0):
    """Writes a vector, `offset` vectors on."""
    pointer = self.b.inttoptr(address, self.type.as_pointer())
    self.b.store(value, self.b.gep(pointer, [self.const(offset)]), align=self.size)

  def fetch(self, address, write=0):
    """Has the cache line at an address brought nearer, to be read or written soon."""
    pointer, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
    f = cgutils.get_or_insert_function(self.b.module, ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32]),
                                       'llvm.prefetch.p0i8')
    self.b.call(f, [self.b.inttoptr(address, pointer), ir.Constant(i32, write), ir.Constant(i32, 2),
                    ir.Constant(i32, 1)])

  def fma(self, x, y, z):
    """X * y + z, rounded once."""
    name = f'llvm.fma.v{self.vector}f{8 * self.size}'
    f = cgutils.get_or_insert_function(self.b.module, ir.FunctionType(self.type, [self.type] * 3), name)
    return self.b.call(f, [x, y, z])

  def number(self, value):
    """An int64 as a floating-point number, in every lane."""
    return self._spread(self.b.sitofp(value, self.scalar))

  def double(self, bits):
    """The double whose bits an int64 holds, rounded to this type, in every lane."""
    value = self.b.bitcast(bits, ir.DoubleType())
    return self._spread(value if self.size == 8 else self.b.fptrunc(value, self.scalar))

  def sqrt(self, x):
    """The square root."""
    f = cgutils.get_or_insert_function(self.b.module, ir.FunctionType(self.type, [self.type]),
                                       f'llvm.sqrt.v{self.vector}f{8 * self.size}')
    return self.b.call(f, [x])

  def store_total(self, x, address):
    """Writes the sum of all lanes, a scalar."""
    lanes = [self.b.extract_element(x, ir.Constant(ir.IntType(32), i)) for i in range(self.vector)]
    self.b.store(functools.reduce(self.b.fadd, lanes), self.b.inttoptr(address, self.scalar.as_pointer()),
                 align=self.size)

  def fill(self, value):
    """A constant vector."""
    return ir.Constant(self.type, [float(value)] * self.vector)

  def variable(self, value):
    """A vector that loops may change: a pair of get() and set(value)."""
    slot = cgutils.alloca_once(self.b, self.type)
    self.b.store(value, slot)
    return (lambda: self.b.load(slot)), (lambda new: self.b.store(new, slot))

  def relu(self, x):
    """The larger of x and 0; NaN stays."""
    return self.b.select(self.b.fcmp_ordered('<=', x, self.fill(0)), self.fill(0), x)

  def maximum(self, x, y):
    """The larger of x and y; NaN stays."""
    keep = self.b.or_(self.b.fcmp_ordered('>=', x, y), self.b.fcmp_unordered('uno', x, x))
    return self.b.select(keep, x, y)

  def loop(self, count):
    """`with emitter.loop(n) as i`: i from 0 to n - 1."""
    return _Loop(self.b, count)

  @contextlib.contextmanager
  def channels(self, width):
    """`with emitter.channels(c) as k`: k from 0 to c, a vector of channels at a time."""
    with self.loop(self.b.udiv(width, self.const(self.vector))) as i:
      yield self.b.mul(i, self.const(self.vector))


class _Loop:
  def __init__(self, builder, count):
    self.inner = cgutils.for_range(builder, count)

  def __enter__(self):
    return self.inner.__enter__().index

  def __exit__(self, *error):
    return self.inner.__exit__(*error)


def vector_function(count, vector, dtype):
  """Decorates `emit(e, *args)`, which writes the body with an Emitter, into a numba intrinsic of `count` arguments."""
  def decorate(emit):
    def typed(typing, *args):
      def generate(context, builder, signature, values):
        emit(Emitter(builder, vector, dtype), *values)
        return context.get_dummy_value()
      return types.void(*[types.int64] * count), generate
    names = ', '.join(f'a{i}' for i in range(count))
    scope = {'typed': typed}
    exec(f'def {emit.__name__}(typing, {names}):\n  return typed(typing, {names})', scope)
    return intrinsic(scope[emit.__name__])
  return decorate


def definer(vector, dtype):
  """(A table of loops, a decorator that puts one into it by its name): {name: (intrinsic, how many arguments)}."""
  emitted = {}

  def define(count):
    def decorate(emit):
      emitted[emit.__name__] = vector_function(count, vector, dtype)(emit), count
    return decorate

  return emitted, define
