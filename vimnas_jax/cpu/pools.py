"""Operations without parameters, which all edges of a node share: 3x3 pools and the map itself, there and back."""

import numpy as np

from vimnas_jax.cpu import library, mix
from vimnas_jax.cpu.shards import BATCH, SAMPLES, WHOLE

KINDS = ('max_pool_3x3', 'avg_pool_3x3')


def _shares(side, stride):
  """One over the number of pixels of each window of 3 along a side that lie inside."""
  return np.array([1 / (min(i + 1, side - 1) - max(i - 1, 0) + 1) for i in range(0, side, stride)])


def _constants(x, stride):
  _, h, w, c = x.shape
  shares = _shares(h, stride)[:, None] * _shares(w, stride)[None]
  return shares.astype(x.dtype), np.stack([np.zeros(c), np.ones(c)]).astype(x.dtype)


def forward(x, kinds, stride):
  """The pools `kinds` of x [n, h, w, c]: {kind: (map [n, h', w', c], moments [n, 2, c] as in stage.py)}."""
  n, h, w, c = x.shape
  results = _call(x, kinds, [(n, -(-h // stride), -(-w // stride), c), (n, 2, c)] * len(kinds), stride)
  ordered = [kind for kind in KINDS if kind in kinds]
  return {kind: tuple(results[2 * i:2 * i + 2]) for i, kind in enumerate(ordered)}


def largest(x):
  """The largest of each 3x3 window of x [n, h, w, c] at a stride of 1, without moments."""
  return _call(x, KINDS[:1], [x.shape], 1)[0]


def _call(x, kinds, shapes, stride):
  return library.call(('pools_forward', 'spread', 'moments', 'below_all', 'max_loop', 'mean_loop'), x.shape[3], shapes,
                      x, _constants(x, stride)[0], kinds=(BATCH, WHOLE),
                      pools=mix.mask(KINDS.index(kind) for kind in kinds), stride=stride)


def backward(x, g, operations, normal, stride):
  """The gradient of x from those of the edges.

  Args:
    x: [n, h, w, c].
    g: a list of the edges' gradients [n, h', w', c].
    operations: {kind: (positions of its edges, p [samples, m * c], a, center, q, r)}; of 'skip_connect' only the
      first two count, and likewise of pools unless `normal`.
    normal: whether BatchNorm follows pools.
    stride: of the pools; 1 where there is 'skip_connect'.
  """
  names = (*KINDS, 'skip_connect')
  edges = {name: operations[name][0] if name in operations else () for name in names}
  arrays, kinds = [], [BATCH, WHOLE, WHOLE]
  for name in names:
    if name in operations:
      arrays += operations[name][1:] if name in KINDS else operations[name][1:2]
      kinds += [SAMPLES, BATCH, WHOLE, WHOLE, WHOLE] if name in KINDS else [SAMPLES]
  return library.call(
      ('pools_backward', 'spread', 'below_all', 'max_back_loop', 'mean_back_loop', 'normalise_gradient', 'mix_set',
       'mix_add'), x.shape[-1], [x.shape], x, *_constants(x, stride), *arrays, *g,
      kinds=(*kinds, *(BATCH,) * len(g)), edges=len(g), identity=mix.mask(edges['skip_connect']),
      largest=mix.mask(edges['max_pool_3x3']), mean=mix.mask(edges['avg_pool_3x3']), normal=normal, stride=stride)[0]
