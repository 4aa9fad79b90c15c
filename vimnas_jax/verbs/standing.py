"""How well the supernet stands at the end of a search: its accuracy on validation images."""

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax import data
from vimnas_jax.data import augment
from vimnas_jax.errors import UserError
from vimnas_jax.networks import mixing
from vimnas_jax.networks.mixing import Mixture
from vimnas_jax.spaces import within


def mixed(run, now, probs) -> dict:
  """The noise-free mixing weights of the final state `now`, {cell: float32 [edges, ops], or a Mixture of one sample}:
  those of the search's steps where a method draws nothing (gates, factors, weights of edges), else `probs`.
  """
  draw = jax.jit(lambda phi, key: run.method.sample(phi, key, run.plan.clock(int(now.step)))[0])
  drawn = (jax.device_get(draw(now.phi, jax.random.key(seed))) for seed in (0, 1))
  one, other = ({name: rows[name] for name in run.space.cells} for rows in drawn)  # those of the graph may have noise
  if not all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other))):
    return probs
  found = {name: mixing.whole(rows)._replace(dropout=None) for name, rows in one.items()}
  return probs | jax.tree.map(lambda part: part[:1], found)


def accuracies(run, theta, weights, genotype, images: int) -> dict:
  """Accuracies in % on the first `images` images of the validation half, not augmented.

  BatchNorm uses the statistics of batches of config.batch_size, as in the search; images that fill no batch are left
  out. Returns {'images': how many, 'mixed': with the noise-free weights, 'derived': with the architecture alone}; where
  the graph is searched too there is no 'derived'. Raises UserError if there are fewer validation images.

  Args:
    run: the parts of the search: net, space, valid, damaged, config, mean and std.
    theta: its weights.
    weights: those of `mixed`, and {choice: [1, candidates]}.
    genotype: the architecture that was derived.
    images: how many to take.
  """
  size, split = run.config.batch_size, run.valid
  check(run.config, split)

  @jax.jit
  def right(theta, weights, images, labels):
    x = augment.normalise(images, run.mean, run.std)
    logits = run.net.apply({'params': theta}, x, weights, rngs={'noise': jax.random.key(0)})
    return (logits.argmax(-1) == labels).sum()

  kinds = {'mixed': weights}
  if not run.space.topology:
    alone = within.one_hot(run.space, genotype)
    partial = run.method.options.partial > 1  # channels go past the operations, on edges that are kept
    kinds['derived'] = ({name: Mixture(rows[None], rows.sum(1)[None]) for name, rows in alone.items()} if partial else
                        alone)
  found = {'images': images // size * size}
  for kind, weights in kinds.items():
    weights = _sampled(run.space, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), weights))
    count = sum(int(right(theta, weights, *_taken(run, at))) for at in range(0, found['images'], size))
    found[kind] = round(100 * count / found['images'], 4)
  return found


def _taken(run, at):
  """(images, labels) of the batch of validation images from `at` on; of those that are streamed damage is told."""
  split, stop = run.valid, at + run.config.batch_size
  if not isinstance(split, data.Streamed):
    return split.batch(at, stop)
  found = split.decoded(np.arange(at, stop))
  if run.damaged:
    run.damaged.note(found.damaged, 'the next readable image stands in for it')
  return found.images, found.labels


class Rater:
  """The supernet's accuracy on batches of the validation half, counted round and not augmented: `Method.derive`.

  BatchNorm uses the batch's statistics. `run` is as for `accuracies`.
  """

  def __init__(self, run, theta):
    self._run, self._theta = run, theta
    self.space, self.num_classes = run.space, run.size['num_classes']

    @jax.jit
    def right(theta, weights, images, labels):
      weights = _sampled(run.space, weights)
      logits = run.net.apply({'params': theta}, augment.normalise(images, run.mean, run.std), weights,
                             rngs={'noise': jax.random.key(0)})
      return (logits.argmax(-1) == labels).mean()

    self._right = right

  def _part(self, i):
    size = self._run.config.batch_size
    return _taken(self._run, i % (len(self._run.valid) // size) * size)

  def __call__(self, weights, i: int) -> float:
    """Accuracy in % with mixing weights {cell: [edges, ops]} on batch `i`."""
    return 100 * float(self._right(self._theta, weights, *self._part(i)))

  def batch(self, i: int):
    """Batch `i`: normalised images [n, h, w, c] and labels [n]."""
    images, labels = self._part(i)
    return augment.normalise(images, self._run.mean, self._run.std), labels


def _sampled(space, weights):
  """One architecture's weights as the supernet takes them, [1, edges, ops]; rows of the graph are [1, candidates]."""
  return {name: rows if name in space.choices or isinstance(rows, Mixture) else rows[None]
          for name, rows in weights.items()}


def check(config, valid):
  """Raises UserError unless `valid`, the validation half, has the images that config.supernet_images asks for."""
  if len(valid) < config.batch_size:
    raise UserError(f'config.supernet_images={config.supernet_images}: config.train_portion={config.train_portion} '
                    f'leaves {len(valid)} validation images, fewer than a batch of {config.batch_size}: lower it, or '
                    'set config.supernet_images=0')
  if not config.batch_size <= config.supernet_images <= len(valid):
    raise UserError(f'config.supernet_images={config.supernet_images}: config.train_portion={config.train_portion} '
                    f'leaves {len(valid)} validation images, of which batches of {config.batch_size} are taken: choose '
                    f'a number from {config.batch_size} to {len(valid)}, or 0')
