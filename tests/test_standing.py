"""The supernet's accuracy at the end of a search."""

import types

import jax.numpy as jnp
import numpy as np

from vimnas_jax import data, spaces
from vimnas_jax.verbs import standing

SPACE = spaces.get('nb201')


class Net:
  """Its class is the operation of the first edge."""

  def apply(self, variables, images, weights, rngs):
    del variables, rngs
    return jnp.tile(weights['cell'][0, 0][None], (len(images), 1))


def test_the_architecture_that_was_derived_is_rated_whatever_the_probabilities_say():
  """As of methods that derive by scores or by trying: SGAS, PC-DARTS, random search with shared weights."""
  split = data.Split(np.zeros((8, 4, 4, 3), np.uint8), np.full(8, 3, np.int32))
  run = types.SimpleNamespace(config=types.SimpleNamespace(batch_size=4, supernet_images=8, train_portion=0.5),
                              valid=split, mean=(0.5,) * 3, std=(0.5,) * 3, space=SPACE, net=Net(),
                              size={'num_classes': 5})
  probs = {'cell': np.eye(5, dtype=np.float32)[[1] * 6]}
  genotype = SPACE.genotype({'cell': np.eye(5)[[3] * 6]})
  assert standing.accuracies(run, {}, probs, genotype, 8) == {'images': 8, 'mixed': 0.0, 'derived': 100.0}
  rate = standing.Rater(run, {})
  assert rate(standing.one_hot(SPACE, genotype), 5) == 100.0 and rate(probs, 0) == 0.0
  images, labels = rate.batch(1)
  assert images.shape == (4, 4, 4, 3) and float(images[0, 0, 0, 0]) == -1.0 and list(labels) == [3] * 4
