"""The simplified spaces S1 to S4 (Zela et al., Understanding and Robustifying DARTS, ICLR 2020).

The graph, the macro-architecture and the decoding of the DARTS space with fewer candidates, chosen to make searches
fail: S1 has two on every edge, those that DARTS itself ranked highest there; S2 skip connections and separable
convolutions; S3 adds `none`; S4 has separable convolutions and `noise`, which puts out a fresh N(0, 1) tensor whatever
comes in, also in the derived network.
"""

from vimnas_jax.spaces import darts
from vimnas_jax.spaces.types import Space

_SHORT = {'max': 'max_pool_3x3', 'avg': 'avg_pool_3x3', 'skip': 'skip_connect', 's3': 'sep_conv_3x3',
          'd3': 'dil_conv_3x3', 'd5': 'dil_conv_5x5'}
# of S1, in the order of darts.EDGES
_NORMAL = ('skip d3', 'skip d5', 'skip d5', 'skip s3', 'skip d3', 'max skip', 'skip s3', 'skip s3', 'skip d3',
           'skip s3', 'max skip', 'skip d3', 'd3 d5', 'd3 d5')
_REDUCE = ('max avg', 'max d3', 'max avg', 'max avg', 'skip d5', 'max avg', 'max s3', 'skip d3', 'skip d5', 'max avg',
           'max avg', 'skip d5', 'skip d5', 'skip d5')
_EVERYWHERE = {'s2': ('skip_connect', 'sep_conv_3x3'), 's3': ('none', 'skip_connect', 'sep_conv_3x3'),
               's4': ('noise', 'sep_conv_3x3')}
NAMES = ('s1', *_EVERYWHERE)


def make(name: str) -> Space:
  """The space called `name`, one of NAMES."""
  if name == 's1':
    normal, reduce = (tuple(tuple(_SHORT[op] for op in pair.split()) for pair in cell) for cell in (_NORMAL, _REDUCE))
  else:
    normal = reduce = (_EVERYWHERE[name],) * len(darts.EDGES)
  return darts.make(name, normal, reduce)
