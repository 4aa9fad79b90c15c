"""The supernet in plain PyTorch, one module per edge and operation, as the DARTS and NAS-Bench-201 codes write it.

It computes what `networks.supernet.Supernet` computes, from the same `Space`: `python -m benchmarks.check_port`
compares the two. Like those codes it uses the library's own grouped convolutions, BatchNorm and pooling, in training
mode, and applies every operation to its input separately. Feature maps are [n, c, h, w].
"""

import torch
import torch.nn.functional as F
from torch import nn


class Zero(nn.Module):
  """The op `none`: [n, c, h, w] -> zeros of [n, c, h / stride, w / stride]."""

  def __init__(self, stride):
    super().__init__()
    self.stride = stride

  def forward(self, x):  # noqa: D102
    return x[:, :, ::self.stride, ::self.stride].mul(0.0)


class Noise(nn.Module):
  """The op `noise` of S4: fresh normal numbers of the shape that `Zero` has."""

  def __init__(self, stride):
    super().__init__()
    self.stride = stride

  def forward(self, x):  # noqa: D102
    return torch.randn_like(x[:, :, ::self.stride, ::self.stride])


class FactorizedReduce(nn.Module):
  """[n, c, h, w] -> [n, d, h / 2, w / 2]: two 1x1 convolutions of stride 2, the second one pixel further on."""

  def __init__(self, c, d, affine=False):
    super().__init__()
    self.conv1, self.conv2 = (nn.Conv2d(c, d // 2, 1, stride=2, bias=False) for _ in range(2))
    self.norm = nn.BatchNorm2d(d, affine=affine)

  def forward(self, x):  # noqa: D102
    x = F.relu(x)
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)) if x.shape[2] % 2 or x.shape[3] % 2 else x
    return self.norm(torch.cat([self.conv1(x), self.conv2(x[:, :, 1:, 1:])], 1))


def relu_conv_norm(c, d, kernel=1, stride=1, affine=False):
  """ReLU, dense convolution, BatchNorm."""
  return nn.Sequential(nn.ReLU(), nn.Conv2d(c, d, kernel, stride, (kernel - 1) // 2, bias=False),
                       nn.BatchNorm2d(d, affine=affine))


def separable(c, kernel, stride=1, dilation=1, affine=False):
  """ReLU, depthwise convolution, 1x1 convolution, BatchNorm."""
  return [nn.ReLU(), nn.Conv2d(c, c, kernel, stride, dilation * (kernel - 1) // 2, dilation, c, bias=False),
          nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c, affine=affine)]


def _pool(kind):
  def make(c, stride, pool_norm, affine=False):
    pool = nn.MaxPool2d(3, stride, 1) if kind == 'max' else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    return nn.Sequential(pool, nn.BatchNorm2d(c, affine=affine)) if pool_norm else pool
  return make


def _sep(kernel):
  return lambda c, stride, _, affine=False: nn.Sequential(*separable(c, kernel, stride, affine=affine),
                                                          *separable(c, kernel, affine=affine))


def _dil(kernel):
  return lambda c, stride, _, affine=False: nn.Sequential(*separable(c, kernel, stride, 2, affine))


# op -> f(channels, stride, pool_norm, affine=False) = module
OPS = {
    'none': lambda c, stride, _, affine=False: Zero(stride),
    'max_pool_3x3': _pool('max'),
    'avg_pool_3x3': _pool('avg'),
    'skip_connect': lambda c, stride, _, affine=False: (nn.Identity() if stride == 1
                                                        else FactorizedReduce(c, c, affine)),
    'sep_conv_3x3': _sep(3),
    'sep_conv_5x5': _sep(5),
    'dil_conv_3x3': _dil(3),
    'dil_conv_5x5': _dil(5),
    'noise': lambda c, stride, _, affine=False: Noise(stride),
    'nor_conv_1x1': lambda c, stride, _, affine=False: relu_conv_norm(c, c, 1, stride, affine),
    'nor_conv_3x3': lambda c, stride, _, affine=False: relu_conv_norm(c, c, 3, stride, affine),
}

# Prefix of an op -> where each of its parameters, in order, lies in the JAX tree: name and, of a pair, which.
NAMES = {'sep': [('depthwise1',), ('pointwise1',), ('depthwise2',), ('pointwise2',)],
          'dil': [('depthwise',), ('pointwise',)], 'nor': [('kernel',)], 'ski': [('kernel', 0), ('kernel', 1)]}


class MixedOp(nn.Module):
  """Every candidate on one edge: x [n, c, h, w] and weights [ops] -> their weighted sum."""

  def __init__(self, names, c, stride, pool_norm):
    super().__init__()
    self.ops = nn.ModuleList(OPS[name](c, stride, pool_norm) for name in names)

  def forward(self, x, weights):  # noqa: D102
    return sum(w * op(x) for w, op in zip(weights, self.ops))


class MixedCell(nn.Module):
  """One cell: inputs, older first, and weights [edges, ops] -> [n, channels * len(cell.output), h', w']."""

  def __init__(self, cell, stage, widths, pool_norm):
    super().__init__()
    self.cell, self.stage, c = cell, stage, stage.channels
    self.preprocess = nn.ModuleList()
    if cell.preprocess:
      older, newer = widths
      self.preprocess.append(FactorizedReduce(older, c) if stage.shrunk else relu_conv_norm(older, c))
      self.preprocess.append(relu_conv_norm(newer, c))
    self.edges = nn.ModuleList(MixedOp(names, c, self.stride(source), pool_norm)
                               for (source, _), names in zip(cell.edges, cell.ops))

  def stride(self, source):
    """Stride of the edges that leave node `source`."""
    return self.stage.stride if source < self.cell.inputs else 1

  def forward(self, inputs, weights):  # noqa: D102
    nodes = [f(x) for f, x in zip(self.preprocess, inputs)] if self.cell.preprocess else list(inputs)
    for node in range(self.cell.inputs, self.cell.nodes):
      nodes.append(sum(self.edges[e](nodes[source], weights[e])
                       for e, (source, target) in enumerate(self.cell.edges) if target == node))
    return torch.cat([nodes[i] for i in self.cell.output], 1)

  def places(self):
    """Yields (parameter, path in the JAX tree of this cell)."""
    for i, part in enumerate(self.preprocess):
      for which, parameter in enumerate(part.parameters()):
        yield parameter, (f'preprocess{i}', *([which] if isinstance(part, FactorizedReduce) else []))
    stacked = {}  # (op, stride) -> how many edges, sorted by source, came before
    for e in sorted(range(len(self.edges)), key=lambda e: self.cell.edges[e][0]):
      stride = self.stride(self.cell.edges[e][0])
      for op, module in zip(self.cell.ops[e], self.edges[e].ops):
        row = stacked[op, stride] = stacked.get((op, stride), -1) + 1
        for parameter, (name, *which) in zip(module.parameters(), NAMES.get(op[:3], [])):
          yield parameter, (f'{op}_{name}' + ('_stride2' if stride == 2 else ''), row, *which)


class Residual(nn.Module):
  """[n, c, h, w] -> [n, d, h / 2, w / 2]: the basic block between the groups of NAS-Bench-201."""

  def __init__(self, c, d):
    super().__init__()
    self.conv1, self.norm1 = nn.Conv2d(c, d, 3, 2, 1, bias=False), nn.BatchNorm2d(d)
    self.conv2, self.norm2 = nn.Conv2d(d, d, 3, 1, 1, bias=False), nn.BatchNorm2d(d)
    self.shortcut = nn.Conv2d(c, d, 1, bias=False)

  def forward(self, x):  # noqa: D102
    y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(F.relu(x))))))
    short = self.shortcut(F.avg_pool2d(x, 2))
    return y[:, :, :short.shape[2], :short.shape[3]] + short

  def places(self):
    """Yields (parameter, path in the JAX tree of this block)."""
    for name in ('conv1', 'conv2', 'shortcut'):
      yield getattr(self, name).weight, (name,)
    for name in ('norm1', 'norm2'):
      yield getattr(self, name).weight, (f'{name}_scale',)
      yield getattr(self, name).bias, (f'{name}_bias',)


def head(stage, c, num_classes):
  """The classifier: [n, c, h, w] -> logits [n, num_classes]."""
  before = [nn.BatchNorm2d(c), nn.ReLU()] if stage.norm else []
  return nn.Sequential(*before, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, num_classes))


class Supernet(nn.Module):
  """`Supernet(space, cells, channels, num_classes)`: images [n, 3, h, w], {cell: [edges, ops]} -> logits."""

  def __init__(self, space, cells, channels, num_classes, in_channels=3):
    super().__init__()
    self.stages, self.parts, widths = space.macro(cells, channels), nn.ModuleList(), ()
    for stage in self.stages:
      c = stage.channels
      if stage.kind == 'stem':
        self.parts.append(nn.Sequential(nn.Conv2d(in_channels, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)))
        widths = (c, c)
      elif stage.kind == 'cell':
        cell = space.cells[stage.cell]
        self.parts.append(MixedCell(cell, stage, widths[-cell.inputs:], space.pool_norm))
        widths = (widths[-1], c * len(cell.output))
      elif stage.kind == 'residual':
        self.parts.append(Residual(widths[-1], c))
        widths = (c, c)
      else:
        self.parts.append(head(stage, widths[-1], num_classes))

  def forward(self, x, weights):  # noqa: D102
    outputs = ()
    for stage, part in zip(self.stages, self.parts):
      if stage.kind == 'cell':
        x = part(outputs[-part.cell.inputs:], weights[stage.cell])
        outputs = (outputs[-1], x)
      else:
        x = part(x)
        outputs = (x, x)
    return x

  def places(self):
    """Yields (parameter, path in the parameter tree of the JAX `Supernet`), every parameter once."""
    for index, (stage, part) in enumerate(zip(self.stages, self.parts)):
      if stage.kind in ('cell', 'residual'):
        yield from ((parameter, (f'{stage.kind}_{index}', *path)) for parameter, path in part.places())
        continue
      names = {'stem': ['stem', 'stem_norm_scale', 'stem_norm_bias'],
               'head': (['head_norm_scale', 'head_norm_bias'] if stage.norm else []) + ['head', 'head_bias']}
      yield from ((parameter, (name,)) for parameter, name in zip(part.parameters(), names[stage.kind]))


def from_jax(tree, path, shape):
  """The array at `path` of a JAX tree (keys, then indices; numpy), its axes reordered to PyTorch's `shape`."""
  for key in path:
    tree = tree[key]
  order = {1: (0,), 2: (1, 0), 3: (2, 0, 1), 4: (3, 2, 0, 1)}[tree.ndim]
  return tree.transpose(order).reshape(shape)


def load(net, tree):
  """Copies the parameters of a JAX `Supernet` (numpy arrays) into `net`, in place."""
  with torch.no_grad():
    for parameter, path in net.places():
      parameter.copy_(torch.tensor(from_jax(tree, path, tuple(parameter.shape))))


def macs(net, space, side, in_channels=3):
  """Multiply-adds of one image of `side` pixels, in convolutions and linear layers."""
  net = net.to('meta')
  return hooked_macs(net, torch.empty(2, in_channels, side, side, device='meta'),
                     {name: torch.empty(shape, device='meta') for name, shape in (
                         *((name, cell.shape) for name, cell in space.cells.items()),
                         *((name, (count,)) for name, count in space.choices.items()))})


def hooked_macs(net, *inputs):
  """Multiply-adds of one image when `net` is called with `inputs`, counted by hooks."""
  total = 0

  def count(module, _, output):
    nonlocal total
    total += module.weight.numel() * output[0, 0].numel()

  handles = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
  with torch.no_grad():
    net(*inputs)
  for handle in handles:
    handle.remove()
  return total


def train_step(net, logits, theta_optimizer, logits_optimizer, graph=()):
  """`step(images [n, 3, h, w], labels [n]) -> loss`: one backward pass for the weights and `logits` alike.

  Those of `logits` that `graph` names have a second pass, for them alone, over a batch of as many images.
  """

  def loss_of(images, labels):
    return F.cross_entropy(net(images, {name: torch.softmax(value, -1) for name, value in logits.items()}), labels)

  def step(images, labels):
    theta_optimizer.zero_grad(set_to_none=True)
    logits_optimizer.zero_grad(set_to_none=True)
    loss = loss_of(images, labels)
    loss.backward()
    rows = [logits[name] for name in graph]
    for row, gradient in zip(rows, torch.autograd.grad(loss_of(images, labels), rows) if rows else ()):
      row.grad = gradient
    nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    theta_optimizer.step()
    logits_optimizer.step()
    return loss.detach()

  return step
