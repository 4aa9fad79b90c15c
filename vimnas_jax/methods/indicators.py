"""What an untrained network tells of an architecture: how well its tangent kernel is conditioned, and how many linear
regions it has (Chen, Gong and Wang, ICLR 2021, sections 3.1 and 3.2).
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vimnas_jax.methods import untrained
from vimnas_jax.methods.types import Rate

WORST = 1e5  # condition number of a kernel that has none: one of its eigenvalues is 0
Masks = dict[str, np.ndarray]  # {cell: bool [edges, ops]}: what is left of a space


def mixed(masks: Masks) -> dict[str, np.ndarray]:
  """Mixing weights that share every edge alike among what is left of its operations."""
  return {name: (mask / np.maximum(mask.sum(1, keepdims=True), 1)).astype(np.float32) for name, mask in masks.items()}


def jacobian(net: untrained.Untrained, params: untrained.Params, images: jax.Array,
             weights: Mapping[str, jax.Array]) -> jax.Array:
  """Gradients [n, all parameters] of the sum of every image's logits, BatchNorm's statistics among what moves."""
  flat, build = jax.flatten_util.ravel_pytree(params)
  _, pull = jax.vjp(lambda flat: net.apply({'params': build(flat)}, images, weights)[0].sum(-1), flat)
  return jax.lax.map(lambda way: pull(way)[0], jnp.eye(len(images), dtype=flat.dtype))  # several at once are slower


def condition(gradients: np.ndarray) -> float:
  """Largest over smallest eigenvalue of the tangent kernel of gradients [n, parameters]; at most WORST."""
  j = np.asarray(gradients, np.float64)
  values = np.linalg.eigvalsh(j @ j.T)
  return min(float(values[-1] / values[0]), WORST) if values[0] > 0 else WORST


def regions(signs: np.ndarray) -> int:
  """Number of different rows of signs, bool [n, many]: linear regions that n inputs fall into."""
  return len(set(map(bytes, np.packbits(np.asarray(signs), axis=1))))


def measure(config: ConfigDict, rate: Rate, key: jax.Array) -> Callable[[Masks], list[tuple[float, int]]]:
  """`measured(masks)`: (condition number, regions) of the small networks of a `Rate`'s space at every start.

  `config` has images, channels, inputs, batches and repeats, as tenas.py tells them.
  """
  space, found = rate.space, [rate.batch(0)[0]]
  while sum(len(images) for images in found) < config.images:
    found.append(rate.batch(len(found))[0])
  images = jnp.concatenate(found)[:config.images]
  several = len(space.cells) > 1
  whole = untrained.Untrained(space, untrained.stages(space, config.channels, several), rate.num_classes)
  bare = untrained.Untrained(space, untrained.stages(space, 1, True), bare=True)
  width = next(stage for stage in bare.stages if stage.kind == 'cell').channels
  even = {name: jnp.full(cell.shape, 1 / cell.shape[1]) for name, cell in space.cells.items()}

  @jax.jit
  def start(key):
    own = jax.random.split(key, 3)
    inputs = jax.random.normal(own[2], (config.batches, config.inputs, 3, 3, width))
    return (untrained.start(whole, own[0], images[:2], even), untrained.start(bare, own[1], inputs[0, :2], even),
            inputs)

  starts = [start(jax.random.fold_in(key, i)) for i in range(config.repeats)]
  gradients = jax.jit(functools.partial(jacobian, whole))
  signs = jax.jit(lambda params, inputs, weights: bare.apply({'params': params}, inputs, weights)[1])

  def measured(masks):
    weights = mixed(masks)
    return [(condition(gradients(one, images, weights)),
             regions(np.concatenate([signs(two, part, weights) for part in inputs]))) for one, two, inputs in starts]

  return measured
