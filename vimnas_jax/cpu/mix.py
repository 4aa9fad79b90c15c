"""BatchNorm and mixing weights as coefficients of each channel, and the sums that they take.

The raw output `a` of an operation on m edges of width c, with one value of `center` and `inverse` for each of its
channels, comes in three shapes: [n, m, h, w, c], each edge its own map; [n, 1, h, w, m * c], edges side by side; and
[n, 1, h, w, c], one map for all edges.
"""

import math

import jax
import numpy as np

from vimnas_jax.cpu import library, table
from vimnas_jax.cpu.shards import BATCH, SAMPLES, WHOLE


def statistics(moments, pixels, eps, c, weights=None, variance=False):
  """Mean and 1 / deviation [channels] of a batch, from every image's `moments` [n, 2, channels] over `pixels` places.

  With the mixing weights [samples, m] of edges of width c also their products with 1 / deviation, [samples, m * c];
  without, if that is asked for, also the biased variance [channels].
  Distances are summed from each image's own mean, so that the variance is never negative and nothing cancels.
  """
  channels = moments.shape[2]
  mixed = () if weights is None else (weights,)
  more = [(len(w), w.shape[1] * c) for w in mixed] or [(channels,)] * variance
  return library.call(('statistics', 'statistics_loop', 'scale_loop'), c,
                      [(channels,), (channels,), *more], moments, *mixed, chunks=1,
                      eps=np.float64(eps).view(np.int64), pixels=pixels)


def mix(operations, edges, into):
  """Sums over operations of scale * (a - center), for every edge that carries one, on top of `into`.

  Args:
    operations: a list of (positions of its edges, a, center, scale [samples, m * c]).
    edges: how many there are.
    into: for every edge a map [n, h, w, c] to add to, or None.

  Returns:
    A list of maps; None where no operation falls on an edge.
  """
  n, _, h, w, _ = operations[0][1].shape
  own, _, _, scale = operations[0]
  c = scale.shape[1] // len(own)
  carried = [any(e in own for own, *_ in operations) for e in range(edges)]
  before = [e for e in range(edges) if carried[e] and into[e] is not None]
  masks = {f'mask{k:02}': mask(own) for k, (own, *_) in enumerate(operations)}
  maps = library.call(('mix', 'mix_set', 'mix_add'), c, [(n, h, w, c)] * sum(carried),
                      *(array for _, *arrays in operations for array in arrays), *(into[e] for e in before),
                      kinds=(*(BATCH, WHOLE, SAMPLES) * len(operations), *(BATCH,) * len(before)), depth=c, edges=edges,
                      into=mask(before), **masks)
  maps = iter(maps)
  return [next(maps) if there else into[e] for e, there in enumerate(carried)]


def mask(positions):
  """A set of small numbers as the bits of one."""
  return sum(1 << e for e in positions)


def sums(g, operations):
  """Per image the sums [n, 2, operations * m * c] of g and of g * (a - center), for a list g of the gradients
  [n, h, w, c] of m edges and a list of (a, center) of operations on all of them.
  """
  n, _, _, c = g[0].shape
  return library.call(('sums', 'sums_loop'), c, [(n, 2, len(operations) * len(g) * c)], *g,
                      *(array for pair in operations for array in pair),
                      kinds=(*(BATCH,) * len(g), *(BATCH, WHOLE) * len(operations)), operations=len(operations))[0]


def coefficients(totals, offset, weights, inverse, c, pixels):
  """What an operation's backward pass takes, from `totals` of `sums`, where its own begin at `offset`.

  Returns the gradient of the mixing weights [samples, m], and p [samples, m * c], q and r [channels] of
  da = p * g + q * (a - center) + r, for edges of width c and maps of `pixels` places.
  """
  (samples, m), channels = weights.shape, inverse.shape[0]
  return library.call(('coefficients', 'edge_loop', 'scale_loop', 'finish_loop'), c,
                      [(samples, m), (samples, m * c), (channels,), (channels,)], totals, weights, inverse, chunks=1,
                      count=len(totals) * pixels, offset=offset)


def inner(totals, inverse, count):
  """The q and r of a stage between two others, whose p is `inverse` [channels], from `totals` [parts, 2, channels]."""
  channels = inverse.shape[0]
  return library.call(('inner', 'fold_loop', 'finish_loop'), channels, [(channels,), (channels,)], totals, inverse,
                      chunks=1, count=count)


def fold(*parts):
  """Sums of arrays over the first axis, the parts of a batch, in order."""
  rows = len(parts[0])
  if rows == 1:
    return [jax.lax.squeeze(part, (0,)) for part in parts]
  sizes = [part.size // rows for part in parts]
  return library.call(('fold', 'fold_loop'), math.gcd(*sizes), [part.shape[1:] for part in parts], *parts,
                      chunks=max(1, min(table.CHUNKS, max(sizes) // 1024)))
