"""A cell of the one-shot network of NAS-Bench-1Shot1: what its blocks read and put out, around block.py.

The projections of the cell's input, for every block and for the output, are one convolution; its BatchNorm, ReLU and
the weights of the graph are taken where its channels are read, and no block's part is ever a map of its own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax.cpu import block, library, mix, normed
from vimnas_jax.cpu.shards import BATCH, SAMPLES, WHOLE
from vimnas_jax.cpu.zeros import arrays, perturbed, values


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mixed(how, x, weights, shift, rows, projections, convolutions):
  """A cell of b blocks, each c wide.

  Args:
    how: (eps of BatchNorm, order), as `block.forward` takes them.
    x: the cell's input [n, h, w, *].
    weights: mixing weights of the blocks' operations [samples, b, operations]; the batch falls into `samples` equal
      groups, in order.
    shift: a number added to every block [samples, b], or None.
    rows: weights of what each block reads, its projection and the blocks before it, and of what the output does,
      [samples, 1 + blocks]; None where a block reads all as it is.
    projections: (kernel [1, 1, *, 2 b c], scale, bias) of BatchNorm, for the blocks in order, then for the output.
    convolutions: for each block what `block.forward` takes.

  Returns:
    [n, h, w, b c].
  """
  return _forward(how, x, weights, shift, rows, projections, convolutions)[0]


def _forward(how, x, weights, shift, rows, projections, convolutions):
  learned = perturbed([projections[0], *(kernel for own in convolutions for kernel, *_ in own)])
  x, weights, shift, rows, (kernel, scale, bias), convolutions = values(
      (x, weights, shift, rows, projections, convolutions))
  a, moments = normed.convolve(x, (kernel,), block.WINDOW)
  mean, inverse = mix.statistics(moments, a.shape[1] * a.shape[2], how[0], a.shape[3])
  plain = a, scale * inverse, bias - mean * scale * inverse
  blocks, c = len(convolutions), a.shape[3] // (2 * len(convolutions))
  inputs, nodes, saved = [], [], []
  for i, own in enumerate(convolutions):
    inputs.append(_read(plain, _row(rows[i], i, x), nodes, i * c, c))
    y, kept = block.forward(how, inputs[-1], weights[:, i], own)
    nodes.append(y if shift is None else y + jnp.repeat(shift[:, i], len(x) // len(shift))[:, None, None, None])
    saved.append(kept)
  y = _read(plain, rows[blocks], nodes, blocks * c, c, side_by_side=True)
  return y, (x, shift, rows, kernel, scale, (*plain, mean, inverse), nodes, saved, learned)


def _row(row, count, x):
  """The weights of a block's `count` + 1 candidates: 1 where nothing is chosen."""
  return np.ones((1, count + 1), x.dtype) if row is None else row


def _read(plain, row, nodes, first, c, side_by_side=False):
  """The projection from channel `first` on and the nodes, weighted by row: all added up, or side by side."""
  n, h, w, _ = plain[0].shape
  width = c * len(nodes) if side_by_side else c
  return library.call(('read_forward', 'blend_set', 'add_more'), c, [(n, h, w, width)],
                      *plain, row, *nodes, kinds=(BATCH, WHOLE, WHOLE, SAMPLES, *(BATCH,) * len(nodes)), first=first,
                      together=not side_by_side)[0]


def _backward(how, saved, g):
  x, shift, rows, kernel, scale, (a, by, plus, mean, inverse), nodes, kept, learned = saved
  g = arrays(g)
  n, blocks, c = len(x), len(nodes), nodes[0].shape[3]
  into, d_weights, d_shift, d_rows, own = [None] * blocks, [], [], [[] for _ in rows], []
  for i in reversed(range(blocks)):
    readers = range(i + 1, blocks)
    row = [rows[blocks][:, i + 1], *(_row(rows[t], t, x)[:, i + 1] for t in readers)]
    d_node, dots = library.call(
        ('read_backward', 'add_first', 'add_more', 'dot_loop'), c, [nodes[i].shape, (n, len(row) * c)], nodes[i],
        _together(row), g, *(into[t] for t in readers), kinds=(BATCH, SAMPLES, *(BATCH,) * len(row)), first=i * c)
    dots = dots.reshape(n, len(row), c).sum(2)
    for at, t in enumerate((blocks, *readers)):
      d_rows[t].insert(0, dots[:, at])
    if shift is not None:
      d_shift.insert(0, d_node.reshape(len(shift), -1).sum(1))
    into[i], d_own, d_convolutions = block.backward(how, kept[i], d_node, learned)
    d_weights.insert(0, d_own)
    own.insert(0, d_convolutions)
  first = _together([*(_row(rows[i], i, x)[:, 0] for i in range(blocks)), rows[blocks][:, 0]])
  totals, = library.call(('projections_sums', 'gate_loop'), c, [(n, 3, a.shape[3])], g, first, a, mean, by, plus, *into,
                         kinds=(BATCH, SAMPLES, BATCH, WHOLE, WHOLE, WHOLE, *(BATCH,) * blocks))
  products = totals[:, 2].reshape(n, 2 * blocks, c).sum(2)
  for i in range(blocks):
    d_rows[i].insert(0, products[:, i])
  d_rows[blocks].insert(0, products[:, blocks:].sum(1))
  factors = jnp.repeat(first, np.array([c] * blocks + [blocks * c]), 1, total_repeat_length=a.shape[3])
  dx, (d_kernel,), *affine = normed.backward(block.WINDOW, x, (kernel,), scale, a, mean, inverse, learned,
                                          [*into, g], totals[:, :2], (factors, plus))
  d_rows = [None if row is None else jnp.stack(found, 1).reshape(len(row), n // len(row), -1).sum(1)
            for row, found in zip(rows, d_rows)]
  return (dx, jnp.stack(d_weights, 1), None if shift is None else jnp.stack(d_shift, 1), tuple(d_rows),
          (d_kernel, *affine), tuple(own))


def _together(columns):
  """Columns of rows [samples or 1] as one [samples, columns]."""
  most = max(len(column) for column in columns)
  return jnp.stack([jnp.repeat(column, most // len(column)) for column in columns], 1)


mixed.defvjp(_forward, _backward, symbolic_zeros=True)
