"""The supernet, theta: every candidate operation of a space at once, mixed by architecture weights.

BatchNorm uses batch statistics always, so the weights theta are all there is to carry.
"""

import functools
from collections import Counter
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from vimnas_jax.errors import UserError
from vimnas_jax.networks import initial, layers, leaves, ops
from vimnas_jax.networks.mixing import (
  DROPOUT,
  PAST,
  SHIFT,
  SKIP,
  by_source,
  carriers,
  check_groups,
  convolved,
  mixed,
  outlined,
)
from vimnas_jax.networks.module import Module, Residual
from vimnas_jax.spaces import Cell, Space, Stage


def per_image(weights, images: int):
  """Weights [samples] of one edge as [images or 1, 1, 1, 1], the samples serving equal groups in turn."""
  return (weights if len(weights) == 1 else jnp.repeat(weights, images // len(weights)))[:, None, None, None]


def shuffled(x, groups: int):
  """Channels of x [n, h, w, c] dealt out: channel j of group g, of `groups` groups in turn, becomes j * groups + g."""
  *shape, c = x.shape
  return jnp.swapaxes(x.reshape(*shape, groups, c // groups), -1, -2).reshape(*shape, c)


def halved(x):
  """2x2 maximum of x [n, h, w, c] with stride 2; odd sides round up."""
  n, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), constant_values=-jnp.inf)
  return x.reshape(n, (h + 1) // 2, 2, (w + 1) // 2, 2, c).max((2, 4))


class MixedCell(Module):
  """One cell with a mixture on every edge."""

  cell: Cell = None
  stage: Stage = None
  pool_norm: bool = False
  partial: int = 1
  auxiliary: bool = False
  kernels: bool = True
  own_ops: Mapping[str, ops.Op] | None = None  # operations that the space brings

  @nn.compact
  def __call__(self, inputs, weights, key=None):
    """Mixes the cell's graph.

    With `partial` = K > 1 the first of K parts of a node's channels goes through the operations, the others past them
    (at a stride of 2 through a 2x2 maximum) with the edge's weight PAST; what a node sums up is shuffled in K groups.

    Args:
      inputs: outputs of the previous cells, [n, h, w, *] each, older first.
      weights: mixing weights as `by_source` sorts them.
      key: of the operation `noise`, for cells that have it, and of DROPOUT.

    Returns:
      [n, h / stride, w / stride, channels * len(cell.output)].
    """
    cell = self.cell
    nodes = list(self._preprocess(inputs) if cell.preprocess else inputs)
    nodes += [None] * (cell.nodes - cell.inputs)
    past, width = [None] * cell.nodes, self.stage.channels // self.partial
    params = self._parameters()
    for source in range(cell.nodes - 1):
      stride = self.stage.stride if source < cell.inputs else 1
      if self.partial > 1:
        nodes[source] = self._whole(nodes[source], past[source])
      leaving = [e for e, (s, _) in enumerate(cell.edges) if s == source]
      targets = [cell.edges[e][1] for e in leaving]
      banks, own = {}, {}
      before = [nodes[target] for target in targets]
      x = nodes[source] if self.partial == 1 else nodes[source][..., :width]
      if SHIFT in weights[source]:
        self._add_shift(before, x, stride, weights[source][SHIFT])
      if SKIP in weights[source]:
        self._add_skip(before, x, stride, weights[source][SKIP], params(SKIP, leaving, stride))
      for op, edges in carriers(cell, leaving).items():
        if op == 'noise':
          self._add_noise(before, x.shape, stride, leaving, edges, weights[source][op], key)
          continue
        if op == 'skip_connect' and stride == 1 and DROPOUT in weights[source]:
          self._add_dropped(before, x, leaving, edges, weights[source], key)
          continue
        banks[op] = tuple(leaving.index(e) for e in edges)
        own[op] = params(op, edges, stride)
      if self.is_initializing() and not self.own_ops:
        summed = outlined(x, banks, before, stride)
      else:
        summed = mixed(x, banks, before, own, weights[source], stride, self.pool_norm, self.fast, self.own_ops)
      for target, y in zip(targets, summed):
        nodes[target] = y
      if self.partial > 1:
        self._add_past(past, nodes[source][..., width:], stride, targets, weights[source].get(PAST))
    if self.partial > 1:
      nodes = [node if i < cell.nodes - 1 else self._whole(node, past[i]) for i, node in enumerate(nodes)]
    return jnp.concatenate([nodes[i] for i in cell.output], -1)

  def _whole(self, part, past):
    """A node of what its edges' operations gave and what went past them; an input of the cell is whole already."""
    return part if past is None else shuffled(jnp.concatenate([part, past], -1), self.partial)

  def _add_past(self, into, x, stride, targets, weights):
    """Adds to `into`, by node, the channels x that go past the operations of the edges to `targets`."""
    x = halved(x) if stride == 2 else x
    for i, target in enumerate(targets):
      y = x if weights is None else per_image(weights[:, i], len(x)) * x
      into[target] = y if into[target] is None else into[target] + y

  def _add_shift(self, before, x, stride, weights):
    """Adds to `before`, maps of the edges that leave the node x, the number that each has, everywhere."""
    n, h, w, c = x.shape
    for i in range(len(before)):
      y = jnp.broadcast_to(per_image(weights[:, i], n), (n, -(-h // stride), -(-w // stride), c))
      before[i] = y if before[i] is None else before[i] + y

  def _add_skip(self, before, x, stride, weights, params):
    """Adds to `before`, maps of the edges that leave the node x, the skip connection beside their operations."""
    z = ops.named('skip_connect').apply(x, params, stride, ops.normalise)
    for i in range(len(before)):
      part = z if stride == 1 else z[..., i * x.shape[-1]:(i + 1) * x.shape[-1]]
      y = per_image(weights[:, i], len(x)) * part
      before[i] = y if before[i] is None else before[i] + y

  def _add_dropped(self, before, x, leaving, edges, weights, key):
    """Adds to `before` the skip connections on `edges` from x, of whose numbers a part DROPOUT is dropped, the others
    scaled up.
    """
    keep = 1 - weights[DROPOUT]
    for i, e in enumerate(edges):
      kept = jax.random.bernoulli(jax.random.fold_in(jax.random.wrap_key_data(key), e), keep, x.shape)
      y = per_image(weights['skip_connect'][:, i], len(x)) * jnp.where(kept, x / keep, 0)
      at = leaving.index(e)
      before[at] = y if before[at] is None else before[at] + y

  def _add_noise(self, before, shape, stride, leaving, edges, weights, key):
    """Adds to `before`, maps of the edges `leaving` a node of `shape`, what the operation `noise` on `edges` gives."""
    n, h, w, c = shape
    key, shape = jax.random.wrap_key_data(key), (n, -(-h // stride), -(-w // stride), c)
    for i, e in enumerate(edges):
      drawn = initial.normal(jax.random.fold_in(key, e), shape, self.dtype)
      y = jnp.repeat(weights[:, i], n // len(weights))[:, None, None, None] * drawn
      at = leaving.index(e)
      before[at] = y if before[at] is None else before[at] + y

  def _parameters(self):
    """Declares the cell's parameters, stacked per op and stride, by source, so that a bank is one slice; returns a
    function that picks those of some edges.
    """
    cell, stacks = self.cell, {}
    for op in dict.fromkeys(name for names in cell.ops for name in names if name not in ('none', 'noise')):
      for stride in {1, self.stage.stride}:
        edges = [e for e, (s, _) in sorted(enumerate(cell.edges), key=lambda item: item[1][0]) if op in cell.ops[e]
                 and stride == (self.stage.stride if s < cell.inputs else 1)]
        shapes = ops.named(op, self.own_ops).shapes(self.stage.channels // self.partial, stride) if edges else {}
        stacks[op, stride] = edges, {
            name: self.weight(f'{op}_{name}' + ('_stride2' if stride == 2 else ''), (len(edges), *shape), fan_in)
            for name, (shape, fan_in) in shapes.items()}

    if self.auxiliary:
      for stride in {1, self.stage.stride}:
        edges = [e for e, (s, _) in sorted(enumerate(cell.edges), key=lambda item: item[1][0])
                 if stride == (self.stage.stride if s < cell.inputs else 1)]
        shapes = ops.named('skip_connect').shapes(self.stage.channels // self.partial, stride)
        stacks[SKIP, stride] = edges, {name: self.weight(f'auxiliary_{name}', (len(edges), *shape), fan_in)
                                       for name, (shape, fan_in) in shapes.items()}

    by_source = self._by_source(stacks)
    return lambda op, edges, stride: by_source[op, stride][cell.edges[edges[0]][0]]

  def _by_source(self, stacks):
    """{key: {source: {name: its part}}} of stacks {key: (edges in the order of their sources, {name: parameters
    stacked over these edges})}.
    """
    counts = {key: Counter(self.cell.edges[e][0] for e in edges) for key, (edges, _) in stacks.items()}
    places = [(key, name) for key, (_, stacked) in stacks.items() for name in stacked]
    parts = leaves.split([stacks[key][1][name] for key, name in places],
                         [tuple(counts[key].values()) for key, _ in places], self.fast)
    found = {key: {source: {} for source in own} for key, own in counts.items()}
    for (key, name), own in zip(places, parts):
      for source, part in zip(counts[key], own):
        found[key][source][name] = part
    return found

  @jax.named_scope('preprocess')
  def _preprocess(self, inputs):
    older, newer = inputs
    width, channels = older.shape[-1], self.stage.channels
    if self.stage.shrunk:
      older = ops.factorized_reduce(older, self.weight('preprocess0', (2, width, channels // 2), width))
    else:
      older = self._pointwise('preprocess0', older)
    return older, self._pointwise('preprocess1', newer)

  def _pointwise(self, name, x):
    width = x.shape[-1]
    kernel = self.weight(name, (width, self.stage.channels), width)
    return convolved(x, kernel.reshape(1, 1, *kernel.shape), fast=self.fast)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def computed_again(f, params, inputs, weights, key):
  """`f(params, inputs, weights, key)`, of which nothing is kept for the backward pass: it is computed again there.

  On a CPU XLA drops the barriers of `jax.checkpoint` and merges both computations. Here the second one takes inputs
  to which a zero made of the gradient was added, so it is another one, and cannot start before the gradient is there.
  """
  return f(params, inputs, weights, key)


def _again_forward(f, *args):
  return f(*args), args


def _again_backward(f, args, gradient):
  params, inputs, weights, key = args
  zero = 0 * gradient[0, 0, 0, 0]
  return *jax.vjp(lambda *a: f(*a, key), params, tuple(x + zero for x in inputs), weights)[1](gradient), None


computed_again.defvjp(_again_forward, _again_backward)


class Supernet(Module):
  """theta. `Supernet(space=..., cells=..., channels=..., num_classes=...)`; see `Space.macro` for what these mean."""

  space: Space = None
  cells: int = 8
  channels: int = 16
  num_classes: int = 10
  remat: bool = False  # whether the backward pass computes every cell again instead of keeping what is inside it
  partial: int = 1  # the first of so many parts of a node's channels goes through its edges' operations (PC-DARTS)
  auxiliary: bool = False  # whether every edge has a skip connection beside its operations (DARTS-)
  dropout: bool = False  # whether skip connections may be dropped in part (P-DARTS): an rng 'noise' is needed then
  kernels: bool = True  # whether the CPU's kernels are used; they have no second derivative and no batching rule

  def run(self, module, name, inputs, weights, key=None):
    """The cell `module`, called `name`, on `inputs`; recomputed in the backward pass if `remat` asks for it."""
    if not self.remat or self.is_initializing():
      return module(inputs, weights, key)
    free = module.clone(parent=None, name=None)
    params = self.variables['params'].get(name, {})  # a cell may have none
    return computed_again(lambda params, *args: free.apply({'params': params}, *args), params, inputs, weights, key)

  @nn.compact
  def __call__(self, x, weights: Mapping[str, jax.Array]):
    """Logits [n, num_classes] of normalised images x [n, h, w, c].

    Args:
      x: images.
      weights: {cell: mixing weights [samples, edges, ops], or a Mixture}; n must be a multiple of samples, or UserError
        is raised.

    A space with the operation `noise`, and `dropout`, need an rng of the name 'noise'.
    """
    kinds = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x = x.astype(self.dtype)
    outputs = ()
    check_groups(len(x), weights)
    weights = {name: by_source(cell, jax.tree.map(lambda rows: rows.astype(self.dtype), weights[name]), self.fast)
               for name, cell in self.space.cells.items()}
    noise = self.make_rng('noise') if self.space.noisy or self.dropout else None
    for index, stage in enumerate(self.space.macro(self.cells, self.channels)):
      if stage.kind in ('stem', 'stem0', 'stem1'):
        x = layers.stem(stage.kind, x, stage.channels, self.weight, self.batch_norm, self.first)
        outputs = (outputs[-1], x) if stage.kind == 'stem1' else (x, x)
      elif stage.kind == 'cell':
        cell = self.space.cells[stage.cell]
        key = None if noise is None else jax.random.key_data(jax.random.fold_in(noise, index))
        if stage.channels % self.partial:
          raise UserError(f'config.space.channels: a cell has {stage.channels} channels, which this method takes in '
                          f'{self.partial} parts: choose a multiple of {self.partial}')
        if (width := stage.channels // self.partial) % 2 and stage.stride == 2 and (cell.skips or self.auxiliary):
          raise UserError(f'config.space.channels: a skip connection of stride 2 is two convolutions of half the width '
                          f'each, here of {width}: choose channels that make it even')
        module = MixedCell(cell=cell, stage=stage, pool_norm=self.space.pool_norm, partial=self.partial,
                           auxiliary=self.auxiliary, kernels=self.kernels, own_ops=self.space.own_ops,
                           name=f'cell_{index}', **kinds)
        x = self.run(module, f'cell_{index}', outputs[-cell.inputs:], weights[stage.cell], key)
        outputs = (outputs[-1], x)
      elif stage.kind == 'residual':
        x = Residual(channels=stage.channels, kernels=self.kernels, name=f'residual_{index}', **kinds)(x)
        outputs = (x, x)
      else:
        if stage.norm:
          x = jax.nn.relu(self.batch_norm('head_norm', x))
        x = self.classify(x, self.num_classes)
    return x
