"""The one-shot network of NAS-Bench-1Shot1 in plain PyTorch, one module per layer, as its authors write it.

It computes what `networks.oneshot.OneShot` computes, from the same `Space`: `python -m benchmarks.check_port`
compares the two. Weights are {'cell': [blocks, ops], choice of the graph: [candidates]}. Feature maps are [n, c, h, w].
"""

import torch
import torch.nn.functional as F
from torch import nn

from vimnas_jax.spaces.topology import OUTPUT


def unit(c, d, kernel):
  """Convolution, BatchNorm, ReLU."""
  return nn.Sequential(nn.Conv2d(c, d, kernel, 1, kernel // 2, bias=False), nn.BatchNorm2d(d), nn.ReLU())


class Cell(nn.Module):
  """One cell: x [n, width, h, w] -> [n, channels * blocks, h, w]."""

  def __init__(self, topology, width, c):
    super().__init__()
    self.topology, self.c, blocks = topology, c, topology.blocks
    self.projections = nn.ModuleList(unit(width, c, 1) for _ in range(blocks))
    self.past = unit(width, c * blocks, 1)
    self.blocks = nn.ModuleList(
        nn.ModuleList(nn.MaxPool2d(3, 1, 1) if op == 'maxpool3x3' else unit(c, c, int(op[4])) for op in topology.ops)
        for _ in range(blocks))

  def forward(self, x, weights):  # noqa: D102
    nodes = []
    for node, (project, ops) in enumerate(zip(self.projections, self.blocks), 1):
      row = weights.get(self.topology.row(node))
      lower = [project(x), *nodes]
      into = sum(lower if row is None else [w * y for w, y in zip(row, lower)])
      nodes.append(sum(w * op(into) for w, op in zip(weights['cell'][node - 1], ops)))
    row = weights[OUTPUT]
    return torch.cat([w * y for w, y in zip(row[1:], nodes)], 1) + row[0] * self.past(x)

  def places(self):
    """Yields (parameter, path in the JAX tree of this cell, slice of its last axis or None)."""
    c = self.c
    for i, part in enumerate([*self.projections, self.past]):
      own = slice(i * c, (i + 1) * c) if i < len(self.projections) else slice(i * c, None)
      for parameter, suffix in zip(part.parameters(), ('', '_norm_scale', '_norm_bias')):
        yield parameter, (f'projections{suffix}',), own
    for node, ops in enumerate(self.blocks, 1):
      for op, module in zip(self.topology.ops, ops):
        for parameter, suffix in zip(module.parameters(), ('', '_norm_scale', '_norm_bias')):
          yield parameter, (f'block{node}_conv{op[4]}x{op[4]}{suffix}',), None


class OneShot(nn.Module):
  """`OneShot(space, cells, channels, num_classes)`: images [n, 3, h, w] and weights -> logits."""

  def __init__(self, space, cells, channels, num_classes, in_channels=3):
    super().__init__()
    self.stages, self.parts, width = space.macro(cells, channels), nn.ModuleList(), in_channels
    for stage in self.stages:
      c = stage.channels
      if stage.kind == 'stem':
        self.parts.append(unit(width, c, 3))
        width = c
      elif stage.kind == 'pool':
        self.parts.append(nn.MaxPool2d(2, 2, 1))
      elif stage.kind == 'cell':
        self.parts.append(Cell(space.topology, width, c))
        width = c * space.topology.blocks
      else:
        self.parts.append(nn.Sequential(nn.ReLU(), nn.Conv2d(width, c, 1, bias=False), nn.BatchNorm2d(c, affine=False),
                                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, num_classes)))

  def forward(self, x, weights):  # noqa: D102
    for stage, part in zip(self.stages, self.parts):
      x = part(x, weights) if stage.kind == 'cell' else part(x)
    return x

  def places(self):
    """Yields (parameter, path in the JAX tree, slice of its last axis or None), every parameter once."""
    for index, (stage, part) in enumerate(zip(self.stages, self.parts)):
      if stage.kind == 'cell':
        yield from ((parameter, (f'cell_{index}', *path), own) for parameter, path, own in part.places())
      else:
        names = ('stem', 'stem_norm_scale', 'stem_norm_bias') if stage.kind == 'stem' else ('last', 'head', 'head_bias')
        yield from ((parameter, (name,), None) for parameter, name in zip(part.parameters(), names))


def from_jax(tree, path, own, shape):
  """The array at `path` of a JAX tree, its part `own`, with the axes and the shape of PyTorch's."""
  for key in path:
    tree = tree[key]
  tree = tree if own is None else tree[..., own]
  order = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[tree.ndim]
  return tree.transpose(order).reshape(shape)


def load(net, tree):
  """Copies the parameters of a JAX `OneShot` (numpy arrays) into `net`, in place."""
  with torch.no_grad():
    for parameter, path, own in net.places():
      parameter.copy_(torch.tensor(from_jax(tree, path, own, tuple(parameter.shape))))


def gradients(net, tree, x, weights, labels):
  """(logits, {(path, part): gradient}, {weights: gradient}) of the cross entropy, with the parameters of `tree`; all
  numpy.
  """
  load(net, tree)
  leaves = {name: torch.tensor(w, requires_grad=True) for name, w in weights.items()}
  logits = net(torch.tensor(x.transpose(0, 3, 1, 2)), leaves)
  F.cross_entropy(logits, torch.tensor(labels, dtype=torch.int64)).backward()
  grads = {(path, str(own)): (parameter.grad.numpy(), path, own) for parameter, path, own in net.places()}
  return logits.detach().numpy(), grads, {name: w.grad.numpy() for name, w in leaves.items()}
