"""Initial weights."""

import functools
import math

import jax
import jax.numpy as jnp

from vimnas_jax.networks import leaves


def fan_in_uniform(fan_in: int):
  """PyTorch's default initialiser of convolutions and linear layers: uniform within 1 / sqrt(fan_in)."""
  def init(key, shape, dtype=jnp.float32):
    if _postponed is not None:
      _postponed.append((jnp.zeros(shape, dtype), fan_in))
      return _postponed[-1][0]
    return _within(uniform(key, shape, dtype, -1.0, 1.0), fan_in)
  return init


def _of_one_axis(draw):
  """`draw(key, shape, ...)` of jax.random, bit for bit, as one row that is then folded.

  XLA compiles a generator for a CPU five to ten times as fast if its numbers have one axis.
  """
  @functools.wraps(draw)
  def folded(key, shape, *args, **kwargs):
    return draw(key, (math.prod(shape),), *args, **kwargs).reshape(shape)

  return folded


normal, uniform, gumbel = map(_of_one_axis, (jax.random.normal, jax.random.uniform, jax.random.gumbel))


def _within(x, fan_in):
  return x / jnp.sqrt(jnp.asarray(fan_in, x.dtype))


_postponed = None  # while `from_one_draw` runs: (stand-in, fan_in) of what fan_in_uniform has been asked for


def from_one_draw(init, key):
  """What `init()` returns, a tree of parameters, with all that `fan_in_uniform` gives cut from one draw by `key`.

  To be called under jax.jit; `init` must hand on, as they are, the arrays that it was given. One generator for all is
  compiled in a fraction of the time that one for each of some hundred arrays takes.
  """
  global _postponed
  _postponed = []
  try:
    arrays, tree = jax.tree.flatten(init())
    asked = {id(x): fan_in for x, fan_in in _postponed}
    drawn = [i for i, x in enumerate(arrays) if id(x) in asked]
    if len(drawn) != len(asked):
      raise AssertionError('a stand-in was lost on its way: its weight would stay 0')
    for dtype in dict.fromkeys(arrays[i].dtype for i in drawn):
      own = [i for i in drawn if arrays[i].dtype == dtype]
      numbers = jax.random.uniform(key, (sum(arrays[i].size for i in own),), dtype, -1.0, 1.0)
      parts = _cut(numbers, [arrays[i].shape for i in own], [asked[id(arrays[i])] for i in own])
      for i, part in zip(own, parts, strict=True):
        arrays[i] = part
    return jax.tree.unflatten(tree, arrays)
  finally:
    _postponed = None


def _cut(numbers, shapes, fan_ins):
  """The vector `numbers` as arrays of `shapes`, one after the other, each divided by the square root of its fan-in.

  Those of one fan-in are divided at once, and laid out by `leaves.laid_out`: XLA compiles a program for every array
  that it makes, and with it all that the array is made of.
  """
  kinds = list(dict.fromkeys(fan_ins))
  order = [i for kind in kinds for i, fan_in in enumerate(fan_ins) if fan_in == kind]
  sizes = [math.prod(shape) for shape in shapes]
  pieces = leaves.laid_out([numbers], [(size,) for size in sizes])
  whole = leaves.laid_out([pieces[i] for i in order],
                          [(sum(size for size, fan_in in zip(sizes, fan_ins) if fan_in == kind),) for kind in kinds])
  divided = [_within(x, kind) for x, kind in zip(whole, kinds)]
  parts = dict(zip(order, leaves.laid_out(divided, [shapes[i] for i in order]), strict=True))
  return [parts[i] for i in range(len(shapes))]
