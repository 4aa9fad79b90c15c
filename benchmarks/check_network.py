"""Checks that the PyTorch port of a genotype's network computes what `vimnas_jax.networks.network.Network` computes.

    python -m benchmarks.check_network

Tiny networks of both spaces, in float64 and float32, sides even and odd, with and without auxiliary head and drop path:
logits and auxiliary logits by the batch's statistics, the gradients of all parameters, the running statistics after a
step, logits by the running statistics; then parameters and multiply-adds at full size. Exits with 1 on a mismatch.
"""

import sys
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import torch_net, torch_network
from vimnas_jax import spaces
from vimnas_jax.networks import cost, genotypes, network

TOLERANCE = {'float64': 1e-9, 'float32': 1e-4}  # of a leaf's largest number
SMALL = 1e-3  # of the largest number of all leaves: what a leaf is measured by at least
QUICK = {'xla_backend_optimization_level': 0}  # compiles sooner
AUXILIARY = 0.4  # weight of the second loss
# Every operation of the DARTS space, with and without stride.
ALL_OPS = ("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_5x5', 1), ('dil_conv_3x3', 0), ('dil_conv_5x5', 2), "
           "('max_pool_3x3', 1), ('avg_pool_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 2)], "
           "normal_concat=range(2, 6), reduce=[('sep_conv_3x3', 0), ('sep_conv_5x5', 1), ('dil_conv_3x3', 0), "
           "('dil_conv_5x5', 1), ('max_pool_3x3', 0), ('avg_pool_3x3', 1), ('skip_connect', 1), ('skip_connect', 3)], "
           "reduce_concat=range(2, 6))")
NB201 = '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|'
EMPTY = '|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|'  # nothing enters node 2


class Case(NamedTuple):
  """What is compared."""

  genotype: str
  cells: int
  side: int
  dtype: str
  auxiliary: bool = False
  drop: float = 0.0
  layout: str = 'nchw'
  imagenet: bool = False
  hole: bool = False  # whether a part of the images is constant, as cutout leaves it: pools see ties


CASES = (Case('DARTS_V2', 3, 16, 'float64'), Case('DARTS_V2', 3, 16, 'float64', hole=True),
         Case(ALL_OPS, 3, 13, 'float64', drop=0.3),
         Case(ALL_OPS, 3, 32, 'float64', auxiliary=True), Case(NB201, 1, 16, 'float64', drop=0.3),
         Case(EMPTY, 1, 9, 'float64', layout='channels_last'),
         Case('DARTS_V2', 3, 224, 'float64', auxiliary=True, imagenet=True),
         Case('DARTS_V2', 3, 16, 'float32'), Case(ALL_OPS, 3, 13, 'float32', layout='channels_last'),
         Case(NB201, 1, 16, 'float32'))


def _perturbed(variables, dtype):
  """Scales, biases and statistics start as ones and zeros: other numbers show whether each is in its place."""
  def move(path, leaf):
    noise = jax.random.normal(jax.random.key(len(str(path)) + leaf.size), leaf.shape, dtype)
    name = path[-1].key
    if name == 'var':
      return jnp.exp(0.3 * noise)
    return jnp.asarray(leaf, dtype) + (0.3 * noise if name in ('scale', 'bias', 'mean') else 0)
  return jax.tree_util.tree_map_with_path(move, variables)


def ours(net, variables, x, labels, factors):
  """(logits, auxiliary logits or None, gradients, statistics after the step, logits of evaluation), numpy."""

  def loss_fn(params):
    with mock.patch.object(network, 'drop_path', lambda *_: factors):
      out, changed = net.apply({**variables, 'params': params}, x, True, 0.0 if factors is None else 0.5,
                               rngs={'drop_path': jax.random.key(0)}, mutable=['batch_stats'])
    logits, second = out if net.auxiliary else (out, None)
    losses = [optax.softmax_cross_entropy_with_integer_labels(l, labels).mean() for l in (logits, second)
              if l is not None]
    return losses[0] + AUXILIARY * sum(losses[1:]), (logits, second, changed['batch_stats'])

  def run():
    grads, (logits, second, stats) = jax.grad(loss_fn, has_aux=True)(variables['params'])
    return logits, second, grads, stats, net.apply(variables, x, False)

  return jax.device_get(jax.jit(run, compiler_options=QUICK)())


def theirs(net, x, labels, factors):
  """The same of the port, gradients and statistics by path; its variances as biased as ours."""
  counts = {}

  def hook(module, inputs, _):
    counts[module] = inputs[0].numel() // inputs[0].shape[1]

  handles = [m.register_forward_hook(hook) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
  net.eval()
  with torch.no_grad():
    evaluated = net(x)
  before = {path: tensor.detach().clone() for tensor, path in torch_network.tensors(net) if path[0] == 'batch_stats'}
  out = net.train()(x, factors)
  for handle in handles:
    handle.remove()
  logits, second = out if net.auxiliary is not None else (out, None)
  loss = F.cross_entropy(logits, labels)
  (loss if second is None else loss + AUXILIARY * F.cross_entropy(second, labels)).backward()
  grads = {path: np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()  # of a node that leads nowhere
           for tensor, path in torch_network.tensors(net) if path[0] == 'params'}
  unbiased = {('batch_stats', *path, 'var'): counts[module] / (counts[module] - 1) for module, path in net.places()
              if module in counts}
  stats = {path: (0.9 * before[path] + (tensor - 0.9 * before[path]) / unbiased.get(path, 1)).numpy()
           for tensor, path in torch_network.tensors(net) if path[0] == 'batch_stats'}
  return logits.detach().numpy(), None if second is None else second.detach().numpy(), grads, stats, evaluated.numpy()


def compare(case) -> dict:
  """{what: largest difference relative to the largest number}."""
  genotype, dtype = genotypes.resolve(case.genotype), case.dtype
  space, rng = spaces.get(genotype.space), np.random.default_rng(case.side)
  size = {'cells': case.cells, 'channels': 4, 'num_classes': 10, 'auxiliary': case.auxiliary, 'imagenet': case.imagenet}
  net = network.Network(space=space, genotype=genotype, **size, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype))
  x = rng.normal(size=(2, case.side, case.side, 3)).astype(dtype)
  if case.hole:
    x[:, 3:14, 3:14] = 0
  labels = rng.integers(0, 10, 2).astype(np.int32)
  variables = jax.jit(lambda: net.init(jax.random.key(1), x, True), compiler_options=QUICK)()
  variables = jax.device_get(_perturbed(dict(variables), dtype))
  port = torch_network.Network(space, genotype, **size).to(getattr(torch, dtype))
  factors = port.drop_path(2, case.drop).to(getattr(torch, dtype)) if case.drop else None
  torch_network.load(port, variables)
  if case.layout == 'channels_last':
    port = port.to(memory_format=torch.channels_last)
  logits, second, grads, stats, evaluated = ours(net, variables, x, labels,
                                                 None if factors is None else jnp.asarray(factors.numpy()))
  t_logits, t_second, t_grads, t_stats, t_evaluated = theirs(
      port, torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(labels, dtype=torch.int64), factors)
  for mine, other in ((grads, t_grads), (stats, t_stats)):
    if sum(p.size for p in jax.tree.leaves(mine)) != sum(p.size for p in other.values()):
      raise SystemExit('error: the port has another number of parameters or statistics')

  def off(a, b, least=1e-6):
    return float(np.abs(a - b).max() / max(np.abs(b).max(), least))

  def worst(tree, kind, others):
    # Some gradients are 0 but for rounding, as that of a bias before another BatchNorm: measure them by the others.
    least = SMALL * max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))
    return max(off(other, torch_net.from_jax({kind: tree}, path, other.shape), least)
               for path, other in others.items())

  return {'logits': off(t_logits, logits), **({} if second is None else {'auxiliary': off(t_second, second)}),
          'gradients': worst(grads, 'params', t_grads), 'statistics': worst(stats, 'batch_stats', t_stats),
          'evaluation': off(t_evaluated, evaluated)}


def sizes(name, cells, channels, side=32, classes=10, imagenet=False):
  """(what, parameters and multiply-adds of the port, those that cost.py counts)."""
  genotype = genotypes.resolve(name)
  space, size = spaces.get(genotype.space), {'cells': cells, 'channels': channels, 'num_classes': classes}
  with torch.device('meta'):
    net = torch_network.Network(space, genotype, **size, imagenet=imagenet).eval()
  got = (sum(p.numel() for p in net.parameters()),
         torch_net.hooked_macs(net, torch.empty(1, 3, side, side, device='meta')))
  return f'{name}, {cells} cells, C = {channels}', got, tuple(cost.count(
      space, genotype, **size, image_size=side, imagenet=imagenet))


def main() -> int:
  """Prints one line per check; returns 1 if one failed."""
  jax.config.update('jax_enable_x64', True)
  torch.set_num_threads(1)  # the tensors are tiny
  torch.manual_seed(0)
  failed = False
  for case in CASES:
    found = compare(case)
    good = all(value <= TOLERANCE[case.dtype] for value in found.values())  # false for NaN
    failed |= not good
    kinds = ' '.join(word for word, on in (('auxiliary', case.auxiliary), ('drop path', case.drop),
                                           ('ImageNet', case.imagenet),
                                           ('hole', case.hole)) if on)
    print(f'{"ok  " if good else "FAIL"} {case.genotype[:16]} side {case.side} {case.dtype} {case.layout} {kinds}: '
          + ', '.join(f'{name} {value:.1e}' for name, value in found.items()), flush=True)
  for what, got, want in (sizes('DARTS_V2', 8, 16), sizes('DARTS_V2', 20, 36), sizes(NB201, 5, 16),
                          sizes('DARTS_V2', 14, 48, 224, 1000, True)):
    failed |= got != want
    print(f'{"ok  " if got == want else "FAIL"} {what}: {got[0]:,} parameters, {got[1]:,} multiply-adds '
          f'(cost.py: {want[0]:,}, {want[1]:,})')
  return int(failed)


if __name__ == '__main__':
  sys.exit(main())
