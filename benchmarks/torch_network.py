"""The network of a genotype in plain PyTorch, one module per edge, as the DARTS code evaluates its cells.

It computes what `vimnas_jax.networks.network.Network` computes, from the same `Space` and `Genotype`: `python -m
benchmarks.check_network` compares the two. Convolutions, BatchNorm and pooling are the library's own. Feature maps are
[n, c, h, w].
"""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import torch_net
from benchmarks.torch_net import FactorizedReduce, Residual, from_jax, relu_conv_norm


class Cell(nn.Module):
  """One cell with the kept operations alone; `edges` are (op, source, target)."""

  def __init__(self, cell, stage, widths, edges):
    super().__init__()
    self.cell, self.stage, self.kept, c = cell, stage, edges, stage.channels
    self.preprocess = nn.ModuleList()
    if cell.preprocess:
      older, newer = widths
      self.preprocess.append(FactorizedReduce(older, c, True) if stage.shrunk else
                             relu_conv_norm(older, c, affine=True))
      self.preprocess.append(relu_conv_norm(newer, c, affine=True))
    self.edges = nn.ModuleList(nn.Identity() if op == 'none' else
                               torch_net.OPS[op](c, self.stride(source), False, True) for op, source, _ in edges)

  def stride(self, source):
    """Stride of the edges that leave node `source`."""
    return self.stage.stride if source < self.cell.inputs else 1

  def forward(self, inputs, factors=None):
    """Inputs, older first, and factors [edges, n] or None -> [n, channels * len(cell.output), h', w']."""
    nodes = [f(x) for f, x in zip(self.preprocess, inputs)] if self.cell.preprocess else list(inputs)
    for node in range(self.cell.inputs, self.cell.nodes):
      terms = [self._edge(i, nodes[source], factors) for i, (op, source, target) in enumerate(self.kept)
               if target == node and op != 'none']
      nodes.append(sum(terms) if terms else torch.zeros_like(nodes[0][..., ::self.stride(0), ::self.stride(0)]))
    return torch.cat([nodes[i] for i in self.cell.output], 1)

  def _edge(self, i, x, factors):
    y = self.edges[i](x)
    if factors is None or isinstance(self.edges[i], nn.Identity):  # an identity has no path to drop
      return y
    return y * factors[i][:, None, None, None]

  def places(self):
    """Yields (module with weights, its path in the JAX tree of this cell)."""
    for i, part in enumerate(self.preprocess):
      name = f'preprocess{i}'
      if isinstance(part, FactorizedReduce):
        yield from ((part.conv1, (name, 0)), (part.conv2, (name, 1)), (part.norm, (f'{name}_norm',)))
      else:
        yield from ((part[1], (name,)), (part[2], (f'{name}_norm',)))
    for i, ((op, *_), part) in enumerate(zip(self.kept, self.edges)):
      paths = torch_net.NAMES.get(op[:3], [])
      norms = 0
      for module in part.modules():
        if isinstance(module, nn.Conv2d):
          yield module, (f'edge{i}_{op}', *paths[0])
          paths = paths[1:]
        elif isinstance(module, nn.BatchNorm2d):
          norms += 1
          yield module, (f'edge{i}_{op}', f'norm{norms}')


class Auxiliary(nn.Module):
  """The second classifier: [n, c, h, w] -> logits [n, num_classes]."""

  def __init__(self, c, num_classes, pool_stride, last_norm):
    super().__init__()
    self.pool = nn.AvgPool2d(5, pool_stride)
    self.conv1, self.norm1 = nn.Conv2d(c, 128, 1, bias=False), nn.BatchNorm2d(128)
    self.conv2, self.norm2 = nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768) if last_norm else None
    self.head = nn.Linear(768, num_classes)

  def forward(self, x):  # noqa: D102
    x = self.conv2(F.relu(self.norm1(self.conv1(self.pool(F.relu(x))))))
    return self.head(F.relu(x if self.norm2 is None else self.norm2(x)).flatten(1))


def _conv_norm(c, d, stride=1):
  return nn.Conv2d(c, d, 3, stride, 1, bias=False), nn.BatchNorm2d(d)


class Network(nn.Module):
  """The network of a genotype; arguments as those of `vimnas_jax.networks.network.Network`.

  Called with images [n, in_channels, h, w] it gives logits [n, num_classes]; in training with an auxiliary head
  (logits, auxiliary logits).
  """

  def __init__(self, space, genotype, cells, channels, num_classes, auxiliary=False, imagenet=False, in_channels=3):
    super().__init__()
    edges, widths = space.validate(genotype).cells, ()
    self.stages = space.stages(cells, channels, imagenet=imagenet)
    self.parts, self.auxiliary = nn.ModuleList(), None
    for stage in self.stages:
      c = stage.channels
      if stage.kind == 'stem':
        self.parts.append(nn.Sequential(*_conv_norm(in_channels, c)))
        widths = (c, c)
      elif stage.kind == 'stem0':
        self.parts.append(nn.Sequential(*_conv_norm(in_channels, c // 2, 2), nn.ReLU(), *_conv_norm(c // 2, c, 2)))
        widths = (c, c)
      elif stage.kind == 'stem1':
        self.parts.append(nn.Sequential(nn.ReLU(), *_conv_norm(c, c, 2)))
      elif stage.kind == 'cell':
        cell = space.cells[stage.cell]
        self.parts.append(Cell(cell, stage, widths[-cell.inputs:], edges[stage.cell]))
        widths = (widths[-1], c * len(cell.output))
        if auxiliary and stage.auxiliary:
          self.auxiliary = Auxiliary(widths[-1], num_classes, 2 if imagenet else 3, not imagenet)
      elif stage.kind == 'residual':
        self.parts.append(Residual(widths[-1], c))
        widths = (c, c)
      else:
        self.parts.append(torch_net.head(stage, widths[-1], num_classes))

  def forward(self, x, factors=None):
    """`factors`: those of `drop_path` in training, or None."""
    outputs, second = (), None
    for index, (stage, part) in enumerate(zip(self.stages, self.parts)):
      if stage.kind == 'cell':
        x = part(outputs[-part.cell.inputs:], None if factors is None else factors[index])
        outputs = (outputs[-1], x)
        if self.auxiliary is not None and self.training and stage.auxiliary:
          second = self.auxiliary(x)
      else:
        x = part(x)
        outputs = (outputs[-1], x) if stage.kind == 'stem1' else (x, x)
    return x if second is None else (x, second)

  def drop_path(self, n, rate):
    """Factors [stages, edges, n] for `forward`: 0 with probability `rate` below 1, else 1 / (1 - rate)."""
    most = max(len(part.kept) for part in self.parts if isinstance(part, Cell))
    return torch.empty(len(self.stages), most, n).bernoulli_(1 - rate) / (1 - rate)

  def places(self):
    """Yields (module with weights, its path in the trees of the JAX `Network`)."""
    names = {'stem': ['stem', 'stem_norm'], 'stem0': ['stem0a', 'stem0a_norm', 'stem0b', 'stem0b_norm'],
             'stem1': ['stem1', 'stem1_norm']}
    for index, (stage, part) in enumerate(zip(self.stages, self.parts)):
      if stage.kind == 'cell':
        yield from ((module, (f'cell_{index}', *path)) for module, path in part.places())
      elif stage.kind == 'residual':
        for name in ('conv1', 'norm1', 'conv2', 'norm2', 'shortcut'):
          yield getattr(part, name), (f'residual_{index}', name)
      else:
        own = names.get(stage.kind) or (['head_norm', 'head'] if stage.norm else ['head'])
        yield from ((module, (name,)) for module, name in zip((m for m in part if hasattr(m, 'weight')), own))
    if self.auxiliary is not None:
      for name in ('conv1', 'norm1', 'conv2', 'norm2', 'head'):
        if getattr(self.auxiliary, name) is not None:
          yield getattr(self.auxiliary, name), ('auxiliary', name)


def tensors(net):
  """Yields (parameter or running statistic, path in the variables of the JAX `Network`), every one once."""
  for module, path in net.places():
    if isinstance(module, nn.BatchNorm2d):
      yield from ((module.weight, ('params', *path, 'scale')), (module.bias, ('params', *path, 'bias')),
                  (module.running_mean, ('batch_stats', *path, 'mean')),
                  (module.running_var, ('batch_stats', *path, 'var')))
      continue
    yield module.weight, ('params', *path)
    if module.bias is not None:
      yield module.bias, ('params', *path[:-1], f'{path[-1]}_bias')


def load(net, variables):
  """Copies {'params', 'batch_stats'} of a JAX `Network` (numpy arrays) into `net`, in place."""
  with torch.no_grad():
    for tensor, path in tensors(net):
      tensor.copy_(torch.tensor(from_jax(variables, path, tuple(tensor.shape))))


def train_step(net, optimizer, clip=5.0, auxiliary=0.0, smoothing=0.0):
  """`step(images [n, c, h, w], labels [n], factors=None) -> (loss, logits, norm of the gradient)`.

  `clip` is the largest norm of the gradient, 0 for none; `auxiliary` the weight of the second classifier's loss;
  `smoothing` the share of the target that is spread over all classes.
  """

  def step(images, labels, factors=None):
    optimizer.zero_grad(set_to_none=True)
    out = net(images, factors)
    logits, second = out if net.auxiliary is not None else (out, None)
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    total = loss if second is None else loss + auxiliary * F.cross_entropy(second, labels, label_smoothing=smoothing)
    total.backward()
    norm = nn.utils.clip_grad_norm_(net.parameters(), clip or float('inf'))
    optimizer.step()
    return loss.detach(), logits.detach(), norm

  return step
