"""All operations of the edges that leave one node, mixed, in the form that is fastest where they run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax import cpu
from vimnas_jax.errors import UserError
from vimnas_jax.networks import leaves, ops
from vimnas_jax.spaces import Cell


class Mixture(NamedTuple):
  """Mixing weights of a cell where there is more to say than one number per edge and operation.

  Attributes:
    ops: of the operations, [samples, edges, ops].
    past: of the channels that go past the operations (Supernet.partial), [samples, edges]; None counts as 1.
    shift: a number added to an edge's output, [samples, edges]; None for nothing.
    skip: of the skip connection beside the operations (Supernet.auxiliary), [samples, edges]; None for nothing.
    dropout: probability that a number of the operation skip_connect, at a stride of 1, is dropped, []; None for none.
  """

  ops: jax.Array
  past: jax.Array | None = None
  shift: jax.Array | None = None
  skip: jax.Array | None = None
  dropout: jax.Array | None = None


def whole(weights) -> Mixture:
  """Mixing weights as a Mixture: [samples, edges, ops] are of the operations, and all there is."""
  return weights if isinstance(weights, Mixture) else Mixture(weights)


# Beside the operations in `by_source`, as the fields of Mixture.
PAST, SHIFT, SKIP, DROPOUT = 'past', 'shift', 'skip', 'dropout'


def carriers(cell: Cell, edges):
  """{operation: those of some edges that carry it}, without `none`."""
  names = dict.fromkeys(name for e in edges for name in cell.ops[e] if name != 'none')
  return {op: [e for e in edges if op in cell.ops[e]] for op in names}


def by_source(cell: Cell, weights, fast=True):
  """Mixing weights, a Mixture or [samples, edges, ops], as {source node: {operation: [samples, its edges that leave the
  node]}}; PAST, SHIFT and SKIP, where they are given, stand for operations that every edge carries. DROPOUT is [].
  `fast` as in `mixed`.
  """
  mixture = whole(weights)
  sources = {s: [e for e, (source, _) in enumerate(cell.edges) if source == s] for s in range(cell.nodes - 1)}
  groups = [(s, op, edges) for s, leaving in sources.items() for op, edges in carriers(cell, leaving).items()]
  samples, _, count = mixture.ops.shape
  numbers = np.arange(mixture.ops.size).reshape(samples, -1)
  places = [numbers[:, [e * count + cell.ops[e].index(op) for e in edges]] for _, op, edges in groups]
  order = np.concatenate([own.ravel() for own in places]) if places else np.zeros(0, int)
  picked = jnp.asarray(mixture.ops).ravel().at[order].get(mode='promise_in_bounds', unique_indices=True)
  found = {s: {} for s in sources}
  for (s, op, _), own, part in zip(groups, places, leaves.split([picked], [[own.size for own in places]], fast)[0]):
    found[s][op] = part.reshape(own.shape)
  for name, rows in ((PAST, mixture.past), (SHIFT, mixture.shift), (SKIP, mixture.skip)):
    for s, leaving in sources.items():
      if rows is not None:
        found[s][name] = rows[:, jnp.array(leaving, int)]
  if mixture.dropout is not None:
    found = {s: {**rows, DROPOUT: mixture.dropout} for s, rows in found.items()}
  return found


def mixed(x, banks, into, params, weights, stride, pool_norm, fast=True, own_ops=None):
  """Mixed outputs of the edges that leave a node, each added to what its target has.

  Args:
    x: the node [n, h, w, c].
    banks: {operation: positions among the node's edges of those that carry it}.
    into: for every edge a map [n, h / stride, w / stride, c] to add to, or None.
    params: {operation: its parameters, stacked over its edges}.
    weights: {operation: mixing weights [samples, its edges]}; the batch falls into `samples` equal groups, in order.
    stride: of every edge.
    pool_norm: whether BatchNorm follows pools.
    fast: whether the CPU's kernels may be used; they have no second derivative and no batching rule.
    own_ops: operations that the space brings, by name.

  Returns:
    For every edge the sum; what `into` has where no operation falls on it.
  """
  channels = x.shape[-1]
  outputs = list(into)
  fused = kernels() if fast and jax.default_backend() == 'cpu' else None
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


def outlined(x, banks, into, stride):
  """Zeros of the shapes that `mixed` gives: tracing operations takes seconds, and may be only for their parameters."""
  n, h, w, c = x.shape
  carried = {e for own in banks.values() for e in own}
  zeros = jnp.zeros((n, -(-h // stride), -(-w // stride), c), x.dtype)
  return [zeros if e in carried else y for e, y in enumerate(into)]


def convolved(x, kernel, stride=1, affine=None, fast=True, image=False):
  """ReLU, convolution and BatchNorm by the batch's statistics.

  Args:
    x: [n, h, w, c].
    kernel: [k, k, c, d].
    stride: of the convolution.
    affine: scale [d] and bias [d] of the BatchNorm, or None.
    fast: as in `mixed`.
    image: whether x is an image, of any number of channels; then there is no ReLU in front.

  Returns:
    [n, h / stride, w / stride, d]; odd sides round up.
  """
  width, fused = kernel.shape[-1], normed() if fast else None
  if fused and (fused.fits_image(width, x.dtype) if image else fused.fits(x.shape[-1], width, x.dtype)):
    with jax.named_scope('kernels'):
      scale, bias = affine or (jnp.ones(width, x.dtype), jnp.zeros(width, x.dtype))
      x, window = fused.of_image(x, len(kernel), stride) if image else (x, (stride,))
      return fused.trained(x, (kernel,), window, scale, bias, ops.BN_EPS)[0]
  y = ops.normalise(ops.conv(x if image else jax.nn.relu(x), kernel, stride))
  return y * affine[0][None, None, None] + affine[1][None, None, None] if affine else y


def check_groups(images: int, weights) -> None:
  """Raises UserError unless a batch has an equal group of images for every sample of weights {name: [samples, …]}."""
  for name, rows in weights.items():
    rows = whole(rows).ops
    if images % len(rows):
      raise UserError(f'{images} images do not fall into {len(rows)} equal groups, one for every sample of the weights '
                      f'{name!r}: make config.batch_size a multiple of config.method.samples times config.accumulate')


def kernels():
  """The CPU's kernels of the supernet, or None (vimnas_jax/cpu)."""
  return cpu.supernet_kernels()


def normed():
  """The CPU's kernels of a convolution with its own BatchNorm, or None."""
  return cpu.convolution_kernels()


def oneshot():
  """The CPU's kernels of a cell of the one-shot network, or None."""
  return cpu.oneshot_kernels()
