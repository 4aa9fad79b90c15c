"""Many small arrays in one call: XLA would compile a program of its own for each, and load it with every start."""

import functools
import math

import jax
import numpy as np

from vimnas_jax.cpu import library, table


def fits(arrays) -> bool:
  """Whether the calls of this module take `arrays`: all of float32 or all of float64."""
  return {np.dtype(a.dtype).name for a in arrays} in ({'float32'}, {'float64'})


def split(arrays, counts):
  """`jax.lax.split(array, counts of it)` of every array: a list of lists."""
  shapes = tuple((count, *a.shape[1:]) for a, own in zip(arrays, counts, strict=True) for count in own)
  parts = iter(laid_out(arrays, shapes))
  return [[next(parts) for _ in own] for own in counts]


def laid_out(arrays, shapes):
  """The numbers of `arrays`, one array after the other, as arrays of `shapes`."""
  return _poured(tuple(shapes), tuple(a.shape for a in arrays), tuple(arrays))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _poured(shapes, before, arrays):
  del before
  return tuple(library.call(('pour',), 1, shapes, *arrays))


_poured.defvjp(lambda shapes, before, arrays: (_poured(shapes, before, arrays), None),
               lambda shapes, before, _, gradients: (_poured(before, shapes, gradients),))


def turned(stacks):
  """Of every stack of matrices [m, c, d] the transposed ones [m, d, c]: a list. Has no gradient."""
  return library.call(('turn',), 1, [(m, d, c) for m, c, d in (stack.shape for stack in stacks)], *stacks)


def squares(arrays):
  """Sums of squares [number of arrays]. Has no gradient."""
  sizes = [a.size for a in arrays]
  return library.call(('squares', 'square_loop'), math.gcd(*sizes), [(len(arrays),)], *arrays,
                      chunks=min(table.CHUNKS, len(arrays)))[0]


def descended(numbers, params, grads, trace):
  """(params, trace) after a step of SGD with momentum, lists of arrays.

  `numbers` [7] are divisor, factor, decay, momentum, own, traced and rate: g = grad / divisor * factor + decay * param;
  t = g + momentum * trace; param - rate * (own * g + traced * t). Has no gradient.
  """
  count = len(params)
  out = library.call(('descend', 'descend_loop'), math.gcd(*(a.size for a in params)),
                     [a.shape for a in (*params, *params)], numbers, *params, *grads, *trace, chunks=table.CHUNKS,
                     aliases=tuple((1 + i + (i >= count) * count, i) for i in range(2 * count)))
  return out[:count], out[count:]
