"""Layers around the cells, which the supernet and the network of a genotype share."""

import jax

from vimnas_jax.networks.ops import conv


def stem(kind, x, channels, weight, norm, of_image):
  """What comes before the cells: a stage 'stem', 'stem0' (two convolutions) or 'stem1', see `spaces.Stage`.

  Args:
    kind: which.
    x: [n, h, w, c].
    channels: width of the output.
    weight: `weight(name, shape, fan_in)` gives a parameter.
    norm: `norm(name, y)` is BatchNorm.
    of_image: `of_image(name, x, kernel, stride)` is the convolution of an image and the BatchNorm `name`: `first`.

  Returns:
    [n, h, w, channels], for 'stem0' a quarter and for 'stem1' half of the height and width; odd sides round up.
  """
  width = x.shape[-1]
  if kind == 'stem':
    return of_image('stem_norm', x, weight('stem', (3, 3, width, channels), 9 * width), 1)
  if kind == 'stem1':
    return norm('stem1_norm', conv(jax.nn.relu(x), weight('stem1', (3, 3, width, channels), 9 * width), 2))
  half = channels // 2
  x = of_image('stem0a_norm', x, weight('stem0a', (3, 3, width, half), 9 * width), 2)
  return norm('stem0b_norm', conv(jax.nn.relu(x), weight('stem0b', (3, 3, half, channels), 9 * half), 2))


def first(norm):
  """`first(name, x, kernel, stride)` as `stem` takes it, without kernels: convolution and `norm(name, y)`."""
  return lambda name, x, kernel, stride: norm(name, conv(x, kernel, stride))


def plain(norm):
  """`unit(name, x, kernel, stride)` as `residual` takes it: ReLU, convolution and `norm(name, y)`."""
  return lambda name, x, kernel, stride: norm(name, conv(jax.nn.relu(x), kernel, stride))


def residual(x, channels, weight, unit):
  """The ResNet basic block of stride 2 between the groups of NAS-Bench-201, without a ReLU after the sum.

  Args:
    x: [n, h, w, c].
    channels: width of the output.
    weight: `weight(name, shape, fan_in)` gives a parameter.
    unit: `unit(name, x, kernel, stride)` is ReLU, convolution and the BatchNorm `name`.

  Returns:
    [n, h / 2, w / 2, channels]; odd sides round down.
  """
  n, h, w, c = x.shape
  y = unit('norm1', x, weight('conv1', (3, 3, c, channels), 9 * c), 2)
  y = unit('norm2', y, weight('conv2', (3, 3, channels, channels), 9 * channels), 1)
  x = x[:, :h // 2 * 2, :w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
  return y[:, :h // 2, :w // 2] + x @ weight('shortcut', (c, channels), c)
