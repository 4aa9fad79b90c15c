"""The network of a genotype in NumPy, float64, one layer after the other: what the Flax network must equal.

`Net` walks the variables {'params', 'batch_stats'} of the network and, in training, collects the statistics of every
BatchNorm in `batch`, by path.
"""

import numpy as np


def relu(x):
  return np.maximum(x, 0)


def windows(x, size, stride, dilation, pad, fill=0.0):
  """Every position's window of x [n, h, w, c], [n, h', w', *size, c]."""
  (kh, kw), (sh, sw), (ph, pw) = size, stride, pad
  x = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)), constant_values=fill)
  rows = range(0, x.shape[1] - dilation * (kh - 1), sh)
  columns = range(0, x.shape[2] - dilation * (kw - 1), sw)
  return np.stack([np.stack([x[:, i:i + dilation * (kh - 1) + 1:dilation, j:j + dilation * (kw - 1) + 1:dilation]
                             for j in columns], 1) for i in rows], 1)


def conv(x, kernel, stride=(1, 1), dilation=1, depthwise=False):
  """Zero padding by dilation * (k - 1) / 2; kernel [k, l, c, d], or [k, l, c] for a depthwise convolution."""
  size = kernel.shape[:2]
  stride = (stride, stride) if isinstance(stride, int) else stride
  view = windows(x, size, stride, dilation, [dilation * (k - 1) // 2 for k in size])
  return np.einsum('nhwijc,ijc->nhwc' if depthwise else 'nhwijc,ijcd->nhwd', view, kernel)


def max_pool(x, stride):
  return windows(x, (3, 3), (stride, stride), 1, (1, 1), -np.inf).max((3, 4))


def avg_pool(x, stride):
  return np.nanmean(windows(x, (3, 3), (stride, stride), 1, (1, 1), np.nan), (3, 4))


class Net:

  def __init__(self, variables, train):
    self.params, self.stats, self.train, self.batch = variables['params'], variables['batch_stats'], train, {}

  def leaf(self, path, tree=None):
    value = self.params if tree is None else tree
    for name in path:
      value = value[name]
    return np.asarray(value, np.float64)

  def norm(self, path, x):
    axes = tuple(range(x.ndim - 1))
    if self.train:
      mean, var = self.batch[path] = x.mean(axes), x.var(axes)
    else:
      mean, var = (self.leaf((*path, kind), self.stats) for kind in ('mean', 'var'))
    return (x - mean) / np.sqrt(var + 1e-5) * self.leaf((*path, 'scale')) + self.leaf((*path, 'bias'))

  def reduce(self, x, kernel, norm):
    """The second half looks at odd rows and columns; where a side is odd, its last is followed by a zero."""
    x, (_, h, w, _) = relu(x), x.shape
    x = np.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    return self.norm(norm, np.concatenate([x[:, ::2, ::2] @ kernel[0], x[:, 1::2, 1::2] @ kernel[1]], -1))

  def op(self, name, x, stride, at):
    def p(kind):
      return self.leaf((*at, kind))

    first, second = (*at, 'norm1'), (*at, 'norm2')
    if name == 'max_pool_3x3':
      return max_pool(x, stride)
    if name == 'avg_pool_3x3':
      return avg_pool(x, stride)
    if name == 'skip_connect':
      return x if stride == 1 else self.reduce(x, p('kernel'), first)
    if name.startswith('nor_conv'):
      return self.norm(first, conv(relu(x), p('kernel'), stride))
    if name == 'conv_7x1_1x7':
      return self.norm(first, conv(conv(relu(x), p('row'), (1, stride)), p('column'), (stride, 1)))
    if name.startswith('dil_conv'):
      return self.norm(first, conv(relu(x), p('depthwise'), stride, 2, True) @ p('pointwise'))
    x = self.norm(first, conv(relu(x), p('depthwise1'), stride, 1, True) @ p('pointwise1'))
    return self.norm(second, conv(relu(x), p('depthwise2'), 1, 1, True) @ p('pointwise2'))

  def darts_cell(self, edges, stride, shrunk, older, newer, at):
    """Two input nodes, two edges into each of four more, which are concatenated."""
    if shrunk:
      s0 = self.reduce(older, self.leaf((*at, 'preprocess0')), (*at, 'preprocess0_norm'))
    else:
      s0 = self.norm((*at, 'preprocess0_norm'), relu(older) @ self.leaf((*at, 'preprocess0')))
    s1 = self.norm((*at, 'preprocess1_norm'), relu(newer) @ self.leaf((*at, 'preprocess1')))
    nodes = [s0, s1]
    for node in range(4):
      i, j = 2 * node, 2 * node + 1
      (op_i, from_i, _), (op_j, from_j, _) = edges[i], edges[j]
      nodes.append(self.op(op_i, nodes[from_i], stride if from_i < 2 else 1, (*at, f'edge{i}_{op_i}'))
                   + self.op(op_j, nodes[from_j], stride if from_j < 2 else 1, (*at, f'edge{j}_{op_j}')))
    return np.concatenate(nodes[2:], -1)

  def nb201_cell(self, edges, x, at):
    nodes = [x]
    for target in (1, 2, 3):
      total = np.zeros_like(x)
      for i, (op, source, to) in enumerate(edges):
        if to == target and op != 'none':
          total = total + self.op(op, nodes[source], 1, (*at, f'edge{i}_{op}'))
      nodes.append(total)
    return nodes[3]

  def linear(self, x, at=()):
    return x @ self.leaf((*at, 'head')) + self.leaf((*at, 'head_bias'))

  def auxiliary(self, x, pool_stride, last_norm, at=('auxiliary',)):
    x = windows(relu(x), (5, 5), (pool_stride,) * 2, 1, (0, 0)).mean((3, 4))
    x = relu(self.norm((*at, 'norm1'), x @ self.leaf((*at, 'conv1'))))
    x = np.einsum('nhwc,hwcd->nd', x, self.leaf((*at, 'conv2')))
    return self.linear(relu(self.norm((*at, 'norm2'), x) if last_norm else x), at)

  def darts_cifar(self, genotype, x):
    """Three cells: normal, reduce, reduce. (logits, auxiliary logits or None)"""
    normal, reduce = genotype.cells['normal'], genotype.cells['reduce']
    stem = self.norm(('stem_norm',), conv(x, self.leaf(('stem',))))
    a = self.darts_cell(normal, 1, False, stem, stem, ('cell_1',))
    b = self.darts_cell(reduce, 2, False, stem, a, ('cell_2',))
    c = self.darts_cell(reduce, 2, True, a, b, ('cell_3',))
    second = self.auxiliary(c, 3, True) if self.train and 'auxiliary' in self.params else None
    return self.linear(c.mean((1, 2))), second

  def darts_imagenet(self, genotype, x):
    """Three cells: normal, reduce, reduce. Logits."""
    normal, reduce = genotype.cells['normal'], genotype.cells['reduce']
    x = relu(self.norm(('stem0a_norm',), conv(x, self.leaf(('stem0a',)), 2)))
    stem0 = self.norm(('stem0b_norm',), conv(x, self.leaf(('stem0b',)), 2))
    stem1 = self.norm(('stem1_norm',), conv(relu(stem0), self.leaf(('stem1',)), 2))
    a = self.darts_cell(normal, 1, True, stem0, stem1, ('cell_2',))
    b = self.darts_cell(reduce, 2, False, stem1, a, ('cell_3',))
    c = self.darts_cell(reduce, 2, True, a, b, ('cell_4',))
    return self.linear(c.mean((1, 2)))

  def nb201(self, genotype, x):
    """One cell per group. Logits."""
    edges = genotype.cells['cell']
    x = self.nb201_cell(edges, self.norm(('stem_norm',), conv(x, self.leaf(('stem',)))), ('cell_1',))
    x = self.nb201_cell(edges, self.residual(x, ('residual_2',)), ('cell_3',))
    x = self.nb201_cell(edges, self.residual(x, ('residual_4',)), ('cell_5',))
    return self.linear(relu(self.norm(('head_norm',), x)).mean((1, 2)))

  def residual(self, x, at):
    y = self.norm((*at, 'norm1'), conv(relu(x), self.leaf((*at, 'conv1')), 2))
    y = self.norm((*at, 'norm2'), conv(relu(y), self.leaf((*at, 'conv2'))))
    return y + windows(x, (2, 2), (2, 2), 1, (0, 0)).mean((3, 4)) @ self.leaf((*at, 'shortcut'))
