"""A depthwise convolution of a bank, forward and both gradients, in the forms that the supernet could take on a device.

    python -m benchmarks.depthwise [OUT.json [BATCH]]

`native` is XLA's grouped convolution, differentiated by JAX; `shifted` a sum of shifted products, its kernel's gradient
a sum for every tap, which is what a CPU without kernels takes; `taps` the same with one reduction over all taps;
`mixed` the native convolution both ways but for the kernel's gradient, which is that of `taps`. Times are medians of a
jitted call in milliseconds; the shapes are those of the DARTS space at C = 16, BATCH images (64).
"""

import functools
import json
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from vimnas_jax.networks import ops

# Side, channels, size and dilation of the kernel.
SHAPES = [(32, 64, 3, 1), (32, 64, 5, 1), (32, 64, 5, 2), (16, 128, 5, 1), (8, 256, 5, 1)]
CALLS = 20


def _taps_backward(x, kernel, dy, stride, dilation, forward=ops._shifted):
  """Gradients of the shifted form, each as one expression."""
  dx = forward(ops._between_zeros(dy, x.shape, stride), kernel[::-1, ::-1], 1, dilation)
  views, wide = ops._taps(x, kernel.shape[0], dilation, stride), jnp.promote_types(x.dtype, jnp.float32)
  taps = jnp.stack([(view.astype(wide) * dy).sum((0, 1, 2)) for view in views])
  return dx, taps.reshape(kernel.shape).astype(kernel.dtype)


def _mixed_backward(x, kernel, dy, stride, dilation):
  return _taps_backward(x, kernel, dy, stride, dilation, ops._native)


FORWARD = {'native': ops._native, 'shifted': ops._shifted}
BACKWARD = {'native': ops._native_backward, 'shifted': ops._shifted_backward, 'taps': _taps_backward,
            'mixed': _mixed_backward}
# (forward, backward) of whole steps, `benchmarks.step --forms`, where no program for a CPU is made.
FORMS = {'shifted': (ops._shifted, ops._shifted_backward), 'taps': (ops._shifted, _taps_backward),
         'mixed': (ops._native, _mixed_backward)}


def milliseconds(f, *args):
  """Median of a call of the jitted `f`."""
  f = jax.jit(f)
  jax.block_until_ready(f(*args))
  taken = []
  for _ in range(CALLS):
    begin = time.perf_counter()
    jax.block_until_ready(f(*args))
    taken.append(time.perf_counter() - begin)
  return 1e3 * statistics.median(taken)


def main(argv):
  """Measures, prints a line a shape, and writes OUT.json."""
  found, batch = [], int(argv[1]) if len(argv) > 1 else 64
  for side, channels, size, dilation in SHAPES:
    keys = jax.random.split(jax.random.key(0), 3)
    x, dy = (jax.random.normal(key, (batch, side, side, channels)) for key in keys[:2])
    kernel = jax.random.normal(keys[2], (size, size, channels))
    row = {'side': side, 'channels': channels, 'size': size, 'dilation': dilation}
    for name, form in FORWARD.items():
      row[f'{name}_forward'] = milliseconds(functools.partial(form, stride=1, dilation=dilation), x, kernel)
    for name, form in BACKWARD.items():
      row[f'{name}_backward'] = milliseconds(functools.partial(form, stride=1, dilation=dilation), x, kernel, dy)
    found.append(row)
    print(' '.join(f'{k}={v:.3f}' if isinstance(v, float) else f'{k}={v}' for k, v in row.items()), flush=True)
  if argv:
    pathlib.Path(argv[0]).write_text(json.dumps({'device': jax.devices()[0].device_kind, 'batch': batch,
                                                 'milliseconds': found}, indent=1) + '\n')


if __name__ == '__main__':
  main(sys.argv[1:])
