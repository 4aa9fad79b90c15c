"""What the kernels and those who call them both know: the machine's vectors, and where every function's address lies.

Compiled code finds what it calls in one table of addresses, in which every function has a fixed slot.
"""

import re

import numpy as np
from llvmlite import binding

from vimnas_jax import isa

FEATURES = binding.FeatureMap(isa.allowed(binding.get_host_cpu_features()))
WIDE = bool(FEATURES.get('avx512f'))
BYTES = 64 if WIDE else 32  # of one vector register
# Blocks of a matrix product: how many rows, most first, by how many vectors lie across; their sums stay in registers.
TILES = {1: (16, 8, 1), 2: (8, 4, 1), 3: (8, 4, 1)} if WIDE else {1: (8, 4, 1), 2: (6, 4, 1), 3: (4, 2, 1)}
CHUNKS = 16  # parts of a batch that threads share out
PADDED = 2  # in place of whether a convolution has a ReLU in front: see source/dense.py

PRODUCTS = tuple(f'product_{across}_{rows}_{how}' for across, sizes in TILES.items() for rows in sizes
                 for how in ('set', 'add'))
# Modules of source/, their chunks, and the ranks of each chunk's arguments, a regular expression of digits.
MODULES = {
    'stage': {'stage_forward': '51143', 'stage_backward': '5114351211(5|4+)'},
    'dense': {'dense_forward': '4411', 'dense_backward': '441141211114+'},
    'winograd': {'winograd_forward': '4411', 'winograd_backward': '441141211114+', 'winograd_points': '4'},
    'pools': {'pools_forward': '42', 'pools_backward': '422(24111){0,2}2?4+'},
    'mix': {'sums': '4+(51)+', 'mix': '(512)+4*', 'statistics': '32?', 'coefficients': '321', 'inner': '31',
            'fold': r'\d+'},
    'block': {'block_forward': '(411)+2', 'block_sums': '42(4111)+4?'},
    'oneshot': {'read_forward': '41124*', 'read_backward': '424+', 'projections_sums': '4241114+'},
    'leaves': {'pour': r'\d+', 'turn': '3+', 'squares': r'\d+', 'descend': r'1(\d\d\d)+'},
}
RANKS = {name: ranks for chunks in MODULES.values() for name, ranks in chunks.items()}
_NAMES = ('work', 'handler', *RANKS, 'activate', 'spread', 'activate_gradient', 'normalise_gradient',
          'gated_gradient', 'moments', *PRODUCTS, 'sums_loop', 'mix_set', 'mix_add', 'statistics_loop', 'scale_loop',
          'edge_loop', 'finish_loop', 'fold_loop', 'below_all', 'max_loop', 'mean_loop', 'max_back_loop',
          'mean_back_loop', 'tiles_in', 'tiles_out', 'tiles_gradient', 'tiles_back', 'tiles_known', 'taps_in',
          'taps_back', 'let_through', 'fetch_read', 'fetch_write', 'square_loop', 'descend_loop', 'blend_set',
          'blend_add', 'gate_loop', 'add_first', 'add_more', 'dot_loop')
_WINDOW = re.compile(r'window_(\d)_(\d)_(\d)_(forward|forward_add|kernel_gradient)')
_PLAIN, _PER_VARIANT = 768, 1024  # slots below _PLAIN are windows; slots of one vector length and type

TABLE = np.zeros(16 * _PER_VARIANT, np.int64)


def slot(name: str, vector: int, dtype: str) -> int:
  """Place of a function in the table; a window's loops forward, forward_add and kernel_gradient are neighbours."""
  variant = 8 * (dtype == 'float64') + vector.bit_length()
  found = _WINDOW.fullmatch(name)
  if found:
    size, dilation, stride = (int(v) for v in found.groups()[:3])
    kind = ('forward', 'forward_add', 'kernel_gradient').index(found[4])
    return variant * _PER_VARIANT + 3 * (16 * size + 4 * dilation + stride) + kind
  return variant * _PER_VARIANT + _PLAIN + _NAMES.index(name)


def vector_length(channels: int, dtype) -> int:
  """Channels that one instruction handles: the largest power of 2 that divides them and fits a register."""
  return int(np.gcd(channels, BYTES // np.dtype(dtype).itemsize))


def panel(width: int, vector: int) -> int:
  """How many of `width` columns a product handles at a time, in vectors of `vector`; as source/loops.panel_width."""
  return next(i * vector for i in (3, 2, 1) if width % (i * vector) == 0)
