"""Checks that the PyTorch port and the reference form compute what the supernet computes.

    python -m benchmarks.check_port

Tiny networks of both spaces and of one whose edges have candidates of their own, cells of stride 2 included: logits,
and the gradients of the cross entropy for every parameter and for the mixing weights, in float64 and float32; then
parameters and multiply-adds at full size. Exits with 1 on a mismatch.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F

from benchmarks import torch_net, torch_oneshot
from tests import reference
from vimnas_jax import spaces
from vimnas_jax.networks import cost
from vimnas_jax.networks.oneshot import OneShot
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.spaces import darts

TOLERANCE = {'float64': 1e-8, 'float32': 1e-4}  # of a leaf's largest number
QUICK = {'xla_backend_optimization_level': 0}  # compiles sooner


def narrowed():
  """A DARTS space with three candidates per edge, others on every edge, as in S1 to S4."""
  rng = np.random.default_rng(0)

  def draw():
    return tuple(tuple(str(op) for op in rng.permutation(darts.OPS)[:3]) for _ in darts.EDGES)

  return darts.make('narrowed', draw(), draw())


def from_torch(net, tree, x, weights, labels):
  """(logits, {path: (gradient of PyTorch, place in a JAX tree)}, gradients of the weights), all numpy, float of `x`."""
  torch_net.load(net, tree)
  leaves = {name: torch.tensor(np.array(w[0]), requires_grad=True) for name, w in weights.items()}
  logits = net(torch.tensor(np.array(x).transpose(0, 3, 1, 2)), leaves)
  F.cross_entropy(logits, torch.tensor(np.array(labels), dtype=torch.int64)).backward()
  grads = {path: parameter.grad.numpy() for parameter, path in net.places()}
  return logits.detach().numpy(), grads, {name: w.grad.numpy()[None] for name, w in leaves.items()}


def compare(space, cells, side, dtype, layout) -> dict:
  """{what: largest difference relative to the largest number} between supernet, reference form and port."""
  keys = jax.random.split(jax.random.key(side), 4)
  net = Supernet(space=space, cells=cells, channels=4, num_classes=10, dtype=jnp.dtype(dtype),
                 param_dtype=jnp.dtype(dtype))
  x = jax.random.normal(keys[0], (4, side, side, 3), dtype)
  labels = jax.random.randint(keys[1], (4,), 0, 10)
  weights = {name: jax.nn.softmax(2 * jax.random.normal(jax.random.fold_in(keys[2], i), (1, *cell.shape), dtype))
             for i, (name, cell) in enumerate(space.cells.items())}
  params = jax.jit(net.init, compiler_options=QUICK)(keys[3], x, weights)['params']
  # Scales and biases start as ones and zeros: other numbers show whether each is in its place.
  params = jax.tree_util.tree_map_with_path(
      lambda path, leaf: leaf + 0.3 * jax.random.normal(jax.random.key(len(str(path))), leaf.shape, dtype)
      if 'norm' in str(path[-1]) else leaf, params)

  def loss(forward, params, weights):
    logits = forward(params, weights)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

  def run(forward):
    grad = jax.jit(jax.grad(lambda p, w: loss(forward, p, w), (0, 1), has_aux=True), compiler_options=QUICK)
    return jax.device_get(grad(params, weights))

  (ours, ours_w), logits = run(lambda p, w: net.apply({'params': p}, x, w))
  (plain, plain_w), plain_logits = run(lambda p, w: reference.supernet(net, p, x, w))
  port = torch_net.Supernet(space, cells, 4, 10).to(getattr(torch, dtype)).train()
  if layout == 'channels_last':
    port = port.to(memory_format=torch.channels_last)
  t_logits, t_grads, t_w = from_torch(port, jax.device_get(params), x, weights, labels)
  if sum(p.size for p in jax.tree.leaves(ours)) != sum(p.size for p in t_grads.values()):
    raise SystemExit('error: the port has another number of parameters')

  def off(a, b):
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6))

  def worst(a, b):
    return max(off(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

  theirs = {path: torch_net.from_jax(ours, path, grad.shape) for path, grad in t_grads.items()}
  return {'reference logits': off(plain_logits, logits), 'reference theta': worst(plain, ours),
          'reference weights': worst(plain_w, ours_w), 'torch logits': off(t_logits, logits),
          'torch theta': worst(t_grads, theirs), 'torch weights': worst(t_w, ours_w)}


def compare_oneshot(name, side, dtype) -> dict:
  """As `compare`, of the one-shot network of a space and its port; there is no reference form here."""
  space, keys = spaces.get(name), jax.random.split(jax.random.key(side), 4)
  net = OneShot(space=space, cells=3, channels=4, num_classes=10, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype))
  x = jax.random.normal(keys[0], (4, side, side, 3), dtype)
  labels = jax.random.randint(keys[1], (4,), 0, 10)
  shapes = {'cell': space.cells['cell'].shape} | {row: (count,) for row, count in space.choices.items()}
  weights = {row: jax.nn.softmax(2 * jax.random.normal(jax.random.fold_in(keys[2], i), (1, *shape), dtype))
             for i, (row, shape) in enumerate(shapes.items())}
  params = jax.jit(net.init, compiler_options=QUICK)(keys[3], x, weights)['params']
  params = jax.tree_util.tree_map_with_path(
      lambda path, leaf: leaf + 0.3 * jax.random.normal(jax.random.key(len(str(path))), leaf.shape, dtype)
      if 'norm' in str(path[-1]) else leaf, params)

  def loss(params, weights):
    logits = net.apply({'params': params}, x, weights)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

  grad = jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=QUICK)
  (ours, ours_w), logits = jax.device_get(grad(params, weights))
  port = torch_oneshot.OneShot(space, 3, 4, 10).to(getattr(torch, dtype)).train()
  t_logits, t_grads, t_w = torch_oneshot.gradients(
      port, jax.device_get(params), np.asarray(x), {row: np.asarray(w[0]) for row, w in weights.items()},
      np.asarray(labels))
  off = {'torch logits': (t_logits, logits)} | {
      f'theta {path} {own}': (g, torch_oneshot.from_jax(ours, path, own, g.shape)) for g, path, own in t_grads.values()
  } | {f'weights {row}': (w, ours_w[row][0]) for row, w in t_w.items()}
  off = {what: float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)) for what, (a, b) in off.items()}
  return {'torch logits': off['torch logits'], 'torch theta': max(v for k, v in off.items() if k.startswith('theta')),
          'torch weights': max(v for k, v in off.items() if k.startswith('weights'))}


def main() -> int:
  """Prints one line per check; returns 1 if one failed."""
  jax.config.update('jax_enable_x64', True)
  torch.set_num_threads(1)  # the tensors are tiny
  failed = False
  for space, cells, side, dtype, layout in [
      (spaces.get('darts'), 3, 8, 'float64', 'nchw'), (spaces.get('nb201'), 1, 8, 'float64', 'nchw'),
      (narrowed(), 3, 7, 'float64', 'channels_last'), (spaces.get('nb201'), 1, 9, 'float64', 'channels_last'),
      (narrowed(), 3, 8, 'float32', 'nchw'), (spaces.get('nb201'), 1, 8, 'float32', 'channels_last')]:
    found = compare(space, cells, side, dtype, layout)
    good = all(value <= TOLERANCE[dtype] for value in found.values())  # false for NaN
    failed |= not good
    print(f'{"ok  " if good else "FAIL"} {space.name} side {side} {dtype} {layout}: '
          + ', '.join(f'{name} {value:.1e}' for name, value in found.items()), flush=True)
  for name, side, dtype in [('oneshot1', 8, 'float64'), ('oneshot2', 7, 'float64'), ('oneshot3', 8, 'float32')]:
    found = compare_oneshot(name, side, dtype)
    good = all(value <= TOLERANCE[dtype] for value in found.values())  # false for NaN
    failed |= not good
    print(f'{"ok  " if good else "FAIL"} {name} side {side} {dtype} nchw: '
          + ', '.join(f'{what} {value:.1e}' for what, value in found.items()), flush=True)
  for name, cells, classes in [('darts', 8, 10), ('darts', 8, 100), ('nb201', 5, 10), ('s1', 8, 10),
                               ('s2', 8, 10), ('s3', 8, 10), ('s4', 8, 100), ('oneshot1', 9, 10), ('oneshot3', 9, 10)]:
    space, size = spaces.get(name), {'cells': cells, 'channels': 16, 'num_classes': classes}
    with torch.device('meta'):
      net = (torch_oneshot.OneShot if space.topology else torch_net.Supernet)(space, **size)
    got = sum(p.numel() for p in net.parameters()), torch_net.macs(net, space, 32)
    want = cost.supernet(space, **size), cost.supernet_madds(space, **size)
    failed |= got != want
    print(f'{"ok  " if got == want else "FAIL"} {name} {classes} classes: {got[0]:,} parameters, {got[1]:,} '
          f'multiply-adds (cost.py: {want[0]:,}, {want[1]:,})')
  return int(failed)


if __name__ == '__main__':
  sys.exit(main())
