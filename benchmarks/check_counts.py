"""Checks every golden count from the Flax network itself: parameters and multiply-adds of all published architectures.

    pip install -r requirements-dev.txt  # its tables are those of the tests
    python -m benchmarks.check_counts

For each row of the tables in tests/golden.py and for NAS-Bench-201, at full size: the parameters that the network
declares and the multiply-adds of the convolutions and matrix products in the program of one evaluation must be those of
the table and of vimnas_jax/networks/cost.py. Nothing is computed, only traced. Exits with 1 on a mismatch. Five
minutes.
"""

import math
import sys

import jax
import jax.numpy as jnp

from tests import reference
from tests.golden import CIFAR, IMAGENET, NASNET_A, SMALL
from vimnas_jax import spaces
from vimnas_jax.networks import cost, genotypes, ops
from vimnas_jax.networks.network import Network

# all convolutions, all 1x1, none: (parameters, multiply-adds) with 10 classes, of NAS-Bench-201's own files
NB201 = {'nor_conv_3x3': (1_531_546, 220_119_680), 'nor_conv_1x1': (241_306, None), 'none': (73_306, 7_783_040)}


def _program(value) -> bool:
  return hasattr(value, 'eqns') or hasattr(value, 'jaxpr')


def multiply_adds(jaxpr) -> int:
  """Of the convolutions and matrix products of a program."""
  total = 0
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'dot_general':
      (contracted, _), _ = eqn.params['dimension_numbers']
      total += math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    elif eqn.primitive.name == 'conv_general_dilated':
      kernel = eqn.invars[1].aval.shape
      width = eqn.params['dimension_numbers'].rhs_spec[0]
      total += math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // kernel[width]
    total += sum(multiply_adds(getattr(inner, 'jaxpr', inner)) for inner in jax.tree.leaves(
        list(eqn.params.values()), is_leaf=_program) if _program(inner))
  return total


def network(space, genotype, cells, channels, classes, side, imagenet):
  """(Parameters, multiply-adds of one image) of the Flax network."""
  net = Network(space=space, genotype=genotype, cells=cells, channels=channels, num_classes=classes, imagenet=imagenet)
  keys = dict.fromkeys(('params', 'noise'), jax.random.key(0))
  images = jnp.zeros((1, side, side, 3))
  variables = jax.eval_shape(lambda: net.init(keys, images, False))
  program = jax.make_jaxpr(lambda v, x: net.apply(v, x, False, rngs={'noise': jax.random.key(0)}))(variables, images)
  return sum(x.size for x in jax.tree.leaves(variables['params'])), multiply_adds(program.jaxpr)


def rows():
  """Yields (name, space, genotype, (cells, channels, classes, side, imagenet), parameters, millions or None)."""
  darts, nb201 = spaces.get('darts'), spaces.get('nb201')
  for name, (params, millions, hundred) in CIFAR.items():
    yield name, darts, genotypes.get(name), (20, 36, 10, 32, False), params, millions
    if hundred:
      yield name, darts, genotypes.get(name), (20, 36, 100, 32, False), hundred, None
  for name, (params, millions) in IMAGENET.items():
    yield name, darts, genotypes.get(name), (14, 48, 1000, 224, True), params, millions
  for name, (middle, small) in SMALL.items():
    yield name, darts, genotypes.get(name), (20, 16, 10, 32, False), middle, None
    yield name, darts, genotypes.get(name), (8, 16, 10, 32, False), small, None
  yield 'NASNet-A', *NASNET_A, (20, 36, 10, 32, False), 3_830_950, 603.452
  for op, (params, madds) in NB201.items():
    edges = {'cell': tuple((op, *edge) for edge in nb201.cells['cell'].edges)}
    yield f'all {op}', nb201, spaces.Genotype('nb201', edges), (5, 16, 10, 32, False), params, madds and madds / 1e6


def main() -> int:
  """Prints a line for each row; returns 1 if one is wrong."""
  ops.depthwise = reference.depthwise  # one convolution, as the tables count it, not a sum of shifted products
  failed = count = 0
  for name, space, genotype, size, params, millions in rows():
    found = network(space, genotype, *size)
    cells, channels, classes, side, imagenet = size
    counted = cost.count(space, genotype, cells=cells, channels=channels, num_classes=classes, image_size=side,
                         imagenet=imagenet)
    # the tables give three digits; ties of the fourth go either way
    good = found == tuple(counted) and found[0] == params and (
        millions is None or abs(found[1] / 1e6 - millions) <= 0.00051)
    failed, count = failed + (not good), count + 1
    kind = 'ImageNet' if imagenet else 'CIFAR'
    print(f'{"ok  " if good else "FAIL"} {name:<16} {kind} {cells} cells, C = {channels}, {classes} classes: '
          f'{found[0]:,} parameters, {found[1]:,} multiply-adds', flush=True)
  print(f'{count - failed} of {count} rows as published')
  return int(failed > 0)


if __name__ == '__main__':
  sys.exit(main())
