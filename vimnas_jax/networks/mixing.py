"""All operations of the edges that leave one node, mixed, in the form that is fastest where they run.

The environment variable VIMNAS_JAX_KERNELS=0 switches the kernels of the CPU off, here and in every network: the plain
form then runs, as where numba is missing. It is read once, when they are first asked for.
"""

import functools
import importlib.util
import os
import warnings

import jax
import jax.numpy as jnp

from vimnas_jax.errors import UserError
from vimnas_jax.networks import ops


def mixed(x, banks, into, params, weights, stride, pool_norm, own_ops=None):
  """Mixed outputs of the edges that leave a node, each added to what its target has.

  Args:
    x: the node [n, h, w, c].
    banks: {operation: positions among the node's edges of those that carry it}.
    into: for every edge a map [n, h / stride, w / stride, c] to add to, or None.
    params: {operation: its parameters, stacked over its edges}.
    weights: {operation: mixing weights [samples, its edges]}; the batch falls into `samples` equal groups, in order.
    stride: of every edge.
    pool_norm: whether BatchNorm follows pools.
    own_ops: operations that the space brings, by name.

  Returns:
    For every edge the sum; what `into` has where no operation falls on it.
  """
  channels = x.shape[-1]
  outputs = list(into)
  fused = kernels() if jax.default_backend() == 'cpu' else None
  inside = tuple((op, own) for op, own in banks.items() if fused and fused.fits(op, channels, x.dtype, stride))
  if inside:
    names = [op for op, _ in inside]
    with jax.named_scope('kernels'):
      eps = ops.BN_EPS, ops.BN_EPS if pool_norm else None
      outputs = list(fused.mixed(inside, len(into), stride, eps, x, {op: params[op] for op in names},
                                 {op: weights[op] for op in names}, tuple(into)))
  for op, own in banks.items():
    if (op, own) in inside:
      continue
    with jax.named_scope(op):
      kind = ops.named(op, own_ops)
      z = kind.apply(x, params[op], stride, ops.normalise)
      if kind.pool and pool_norm:
        z = ops.normalise(z)
    scale = weights[op]  # [samples, edges]
    if len(scale) > 1:
      scale = jnp.repeat(scale, x.shape[0] // len(scale), 0)
    for i, e in enumerate(own):
      part = z[..., i * channels:(i + 1) * channels] if z.shape[-1] == channels * len(own) else z
      y = scale[:, i, None, None, None] * part
      outputs[e] = y if outputs[e] is None else outputs[e] + y
  return outputs


def check_groups(images: int, weights) -> None:
  """Raises UserError unless a batch has an equal group of images for every sample of weights {name: [samples, …]}."""
  for name, rows in weights.items():
    if images % len(rows):
      raise UserError(f'{images} images do not fall into {len(rows)} equal groups, one for every sample of the weights '
                      f'{name!r}: make config.batch_size a multiple of config.method.samples times config.accumulate')


@functools.cache
def _available() -> bool:
  if os.environ.get('VIMNAS_JAX_KERNELS', '1') == '0' or not all(map(importlib.util.find_spec, ('numba', 'llvmlite'))):
    return False
  from vimnas_jax.cpu import library
  if reason := library.unfit():
    warnings.warn(f'the plain form runs instead of the CPU kernels, several times slower: {reason}', RuntimeWarning,
                  stacklevel=2)
  return not reason


def kernels():
  """The CPU's kernels of the supernet; None where they are switched off, or numba or the LLVM below it is missing."""
  if not _available():
    return None
  from vimnas_jax.cpu import bank
  return bank


def normed():
  """The CPU's kernels of a convolution with its own BatchNorm; None without numba, or on another backend."""
  if jax.default_backend() != 'cpu' or not _available():
    return None
  from vimnas_jax.cpu import normed
  return normed


def block():
  """The CPU's kernels of a block of the one-shot network; None without numba, or on another backend."""
  if normed() is None:
    return None
  from vimnas_jax.cpu import block
  return block
