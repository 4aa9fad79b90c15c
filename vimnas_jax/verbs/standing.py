"""How well the supernet stands at the end of a search: its accuracy on validation images."""

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax.data import augment
from vimnas_jax.errors import UserError


def one_hot(space, genotype) -> dict:
  """Mixing weights {cell: float32 [edges, ops]} that leave an architecture alone: 1 for what it keeps, 0 elsewhere."""
  weights = {}
  for name, cell in space.cells.items():
    weights[name] = np.zeros(cell.shape, np.float32)
    for op, source, target in genotype.cells[name]:
      edge = cell.edges.index((source, target))
      weights[name][edge, cell.ops[edge].index(op)] = 1
  return weights


def accuracies(run, theta, probs, images: int) -> dict:
  """Accuracies in % on the first `images` images of the validation half, not augmented.

  BatchNorm uses the statistics of batches of config.batch_size, as in the search; images that fill no batch are left
  out. Returns {'images': how many, 'mixed': with the noise-free probabilities as mixing weights, 'derived': with the
  architecture that they stand for alone}; where the graph is searched too there is no 'derived'. Raises UserError if
  there are fewer validation images.

  Args:
    run: the parts of the search: net, space, valid, config, mean and std.
    theta: its weights.
    probs: {cell: [edges, ops]} and {choice: [1, candidates]}.
    images: how many to take.
  """
  size, split = run.config.batch_size, run.valid
  check(run.config, split)

  @jax.jit
  def right(theta, weights, images, labels):
    x = augment.normalise(images, run.mean, run.std)
    logits = run.net.apply({'params': theta}, x, weights, rngs={'noise': jax.random.key(0)})
    return (logits.argmax(-1) == labels).sum()

  kinds = {'mixed': probs}
  if not run.space.topology:
    kinds['derived'] = one_hot(run.space, run.space.genotype(probs))
  found = {'images': images // size * size}
  for kind, weights in kinds.items():
    weights = _sampled(run.space, {name: jnp.asarray(rows, jnp.float32) for name, rows in weights.items()})
    count = sum(int(right(theta, weights, split.images[at:at + size], split.labels[at:at + size]))
                for at in range(0, found['images'], size))
    found[kind] = round(100 * count / found['images'], 4)
  return found


def rater(run, theta):
  """`rate(weights, i)`: the supernet's accuracy in % with mixing weights {cell: [edges, ops]} on batch `i` of the
  validation half, counted round and not augmented; BatchNorm uses the batch's statistics. `run` is as for `accuracies`.
  """
  size, split = run.config.batch_size, run.valid

  @jax.jit
  def right(theta, weights, images, labels):
    x = augment.normalise(images, run.mean, run.std)
    weights = _sampled(run.space, weights)
    logits = run.net.apply({'params': theta}, x, weights, rngs={'noise': jax.random.key(0)})
    return (logits.argmax(-1) == labels).mean()

  def rate(weights, i):
    at = i % (len(split) // size) * size
    return 100 * float(right(theta, weights, split.images[at:at + size], split.labels[at:at + size]))

  return rate


def _sampled(space, weights):
  """One architecture's weights as the supernet takes them, [1, edges, ops]; rows of the graph are [1, candidates]."""
  return {name: rows if name in space.choices else rows[None] for name, rows in weights.items()}


def check(config, valid):
  """Raises UserError unless `valid`, the validation half, has the images that config.supernet_images asks for."""
  if not config.batch_size <= config.supernet_images <= len(valid):
    raise UserError(f'config.supernet_images={config.supernet_images}: config.train_portion={config.train_portion} '
                    f'leaves {len(valid)} validation images, of which batches of {config.batch_size} are taken: choose '
                    f'a number from {config.batch_size} to {len(valid)}, or 0')
