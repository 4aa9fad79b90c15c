"""The supernet's accuracy at the end of a search."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax import data, spaces
from vimnas_jax.methods import Clock, Options
from vimnas_jax.networks.mixing import Mixture
from vimnas_jax.spaces import within
from vimnas_jax.verbs import standing

SPACE = spaces.get('nb201')


class Net:
  """Its class is the operation of the first edge."""

  def apply(self, variables, images, weights, rngs):
    del variables, rngs
    return jnp.tile(weights['cell'][0, 0][None], (len(images), 1))


class Past:
  """Its class is the sum of what goes past the operations."""

  def apply(self, variables, images, weights, rngs):
    del variables, rngs
    return jnp.tile(jax.nn.one_hot(weights['cell'].past.sum().round().astype(int), 9), (len(images), 1))


def test_channels_go_past_edges_as_the_method_weighs_them_and_past_those_that_are_kept_alone():
  """As of PC-DARTS."""
  space = spaces.get('s2')
  split = data.Split(np.zeros((8, 4, 4, 3), np.uint8), np.full(8, 3, np.int32))
  weights = {name: Mixture(np.full((1, 14, 2), 0.5, np.float32), np.full((1, 14), 3 / 14, np.float32))
             for name in space.cells}
  run = types.SimpleNamespace(
      config=types.SimpleNamespace(batch_size=4, supernet_images=8, train_portion=0.5), valid=split, mean=(0.5,) * 3,
      std=(0.5,) * 3, space=space, method=types.SimpleNamespace(options=Options(partial=4)))
  run.net = types.SimpleNamespace(apply=lambda *args, **kwargs: Past().apply(
      args[0], args[1], {'cell': args[2]['normal']}, kwargs['rngs']))
  genotype = space.genotype({name: np.ones((14, 2)) for name in space.cells})
  assert standing.accuracies(run, {}, weights, genotype, 8) == {'images': 8, 'mixed': 100.0, 'derived': 0.0}
  split.labels[:] = 8  # two edges into each of four nodes
  assert standing.accuracies(run, {}, weights, genotype, 8) == {'images': 8, 'mixed': 0.0, 'derived': 100.0}


def test_what_a_method_mixes_by_without_noise_stands_for_its_probabilities():
  probs = {'cell': np.full((6, 5), 0.2)}

  def run(sample):
    return types.SimpleNamespace(space=SPACE, method=types.SimpleNamespace(sample=sample),
                                 plan=types.SimpleNamespace(clock=lambda step: Clock(step, 1)))

  now = types.SimpleNamespace(phi={'params': jnp.ones((6, 5))}, step=jnp.int32(1))
  noisy = run(lambda phi, key, clock: ({'cell': phi['params'][None] + jax.random.normal(key, (2, 6, 5))}, {}))
  assert standing.mixed(noisy, now, probs) is probs
  gates = run(lambda phi, key, clock: ({'cell': Mixture(jnp.stack([3 * phi['params']] * 2), dropout=0.4)}, {}))
  found = standing.mixed(gates, now, probs)['cell']
  assert found.ops.shape == (1, 6, 5) and (found.ops == 3).all() and found.dropout is None
  searched = run(lambda phi, key, clock: (
      {'cell': 3 * phi['params'][None], 'output': jax.random.normal(key, (1, 5))}, {}))
  found = standing.mixed(searched, now, probs | {'output': np.full((1, 5), 0.2)})  # noise of the graph alone
  assert (found['cell'].ops == 3).all() and (found['output'] == 0.2).all()


def test_the_architecture_that_was_derived_is_rated_whatever_the_probabilities_say():
  """As of methods that derive by scores or by trying: SGAS, PC-DARTS, random search with shared weights."""
  split = data.Split(np.zeros((8, 4, 4, 3), np.uint8), np.full(8, 3, np.int32))
  run = types.SimpleNamespace(config=types.SimpleNamespace(batch_size=4, supernet_images=8, train_portion=0.5),
                              valid=split, mean=(0.5,) * 3, std=(0.5,) * 3, space=SPACE, net=Net(),
                              size={'num_classes': 5}, method=types.SimpleNamespace(options=Options()))
  probs = {'cell': np.eye(5, dtype=np.float32)[[1] * 6]}
  genotype = SPACE.genotype({'cell': np.eye(5)[[3] * 6]})
  assert standing.accuracies(run, {}, probs, genotype, 8) == {'images': 8, 'mixed': 0.0, 'derived': 100.0}
  rate = standing.Rater(run, {})
  assert rate(within.one_hot(SPACE, genotype), 5) == 100.0 and rate(probs, 0) == 0.0
  images, labels = rate.batch(1)
  assert images.shape == (4, 4, 4, 3) and float(images[0, 0, 0, 0]) == -1.0 and list(labels) == [3] * 4
