"""What a supernet's parts are made of: parameters with PyTorch's initialisation, BatchNorm, convolution units."""

import flax.linen as nn
import jax.numpy as jnp

from vimnas_jax.networks import initial, layers, ops
from vimnas_jax.networks.mixing import convolved


class Module(nn.Module):
  """What all parts share: parameters in `param_dtype`, used in `dtype`."""

  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @property
  def fast(self):
    """Whether the CPU's kernels are used: not where only parameters are asked for, and kernels would be compiled."""
    return self.kernels and not self.is_initializing()

  def weight(self, name, shape, fan_in):
    """A parameter with PyTorch's default initialisation, cast to the compute type."""
    return self.param(name, initial.fan_in_uniform(fan_in), shape, self.param_dtype).astype(self.dtype)

  def affine(self, name, width):
    """Scale and bias [width] of a BatchNorm."""
    return (self.param(f'{name}_scale', nn.initializers.ones, (width,), self.param_dtype),
            self.param(f'{name}_bias', nn.initializers.zeros, (width,), self.param_dtype))

  def batch_norm(self, name, x):
    """BatchNorm with learned scale and bias, batch statistics, over x [n, h, w, c]."""
    scale, bias = self.affine(name, x.shape[-1])
    return ops.normalise(x) * scale.astype(self.dtype)[None, None, None] + bias.astype(self.dtype)[None, None, None]

  def unit(self, name, x, kernel, stride, image=False):
    """ReLU, unless x is an `image`, convolution of x [n, h, w, c] with kernel [k, k, c, d] and the BatchNorm `name`:
    [n, h / stride, w / stride, d].
    """
    affine = [a.astype(self.dtype) for a in self.affine(name, kernel.shape[-1])]
    return convolved(x, kernel, stride, affine, self.fast, image)

  def first(self, name, x, kernel, stride=1):
    """`unit` of an image."""
    return self.unit(name, x, kernel, stride, image=True)

  def classify(self, x, num_classes):
    """Logits of x [n, h, w, c]: global mean and a linear layer, in float32 or wider."""
    x = x.mean((1, 2), dtype=jnp.promote_types(self.dtype, jnp.float32))
    kernel = self.param('head', initial.fan_in_uniform(x.shape[-1]), (x.shape[-1], num_classes), self.param_dtype)
    bias = self.param('head_bias', initial.fan_in_uniform(x.shape[-1]), (num_classes,), self.param_dtype)
    return x @ kernel + bias[None]


class Residual(Module):
  """The ResNet basic block of stride 2 between the groups of NAS-Bench-201 (specs: no ReLU after the sum)."""

  channels: int = 0
  kernels: bool = True

  @nn.compact
  def __call__(self, x):
    """X [n, h, w, c] -> [n, h / 2, w / 2, channels]."""
    return layers.residual(x, self.channels, self.weight, self.unit)
