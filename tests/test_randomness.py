"""Whose draw is whose: steps, seeds, cells, samples and batches do not share their noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from vimnas_jax import methods, spaces
from vimnas_jax.methods import Clock, Method, Step
from vimnas_jax.networks import initial
from vimnas_jax.networks.mixing import whole
from vimnas_jax.runs import parallel, state, steps

SPACE = spaces.get('darts')


def apart(arrays):
  """Whether no two are the same."""
  arrays = [np.asarray(x) for x in arrays]
  return len({x.tobytes() for x in arrays}) == len(arrays) > 1


def make(name, **fields):
  return methods.get(ConfigDict({'name': name, **methods.fields(name), **fields}))


def alike(tree):
  """A tree in which both cells have what the normal one has: what is drawn alone tells them apart."""
  if not isinstance(tree, dict):
    return tree
  return {name: tree['normal'] if 'reduce' in tree else alike(part) for name, part in tree.items()}


@pytest.mark.parametrize('name, fields', [
    ('vimnas', {'samples': 2, 'variant': 'table'}), ('darts_noise', {'samples': 2}), ('gdas', {'samples': 2}),
    ('snas', {'samples': 2}), ('sivdnas', {'samples': 2}), ('data', {}), ('asng', {}), ('parsec', {}),
    ('enas', {'layers': 1}), ('sdarts_rs', {}), ('setn', {}), ('rsps', {}), ('random', {})])
def test_steps_cells_and_samples_are_drawn_apart(name, fields):
  made = make(name, **fields)
  phi, draw = alike(made.init(jax.random.key(0), SPACE)), made.sample_theta or made.sample
  drawn = [draw(phi, jax.random.key(i), Clock(0, 2))[0] for i in (1, 2)]
  rows = [row for weights in drawn for cell in SPACE.cells for row in np.asarray(whole(weights[cell]).ops)]
  assert len(rows) == 2 * 2 * made.samples and apart(rows)


@pytest.mark.parametrize('name', ['darts', 'snas', 'data', 'sivdnas', 'setn', 'sgas', 'random'])
def test_cells_start_apart(name):
  made = make(name)
  assert apart(made.probs(made.init(jax.random.key(0), SPACE)).values())


@pytest.mark.parametrize('sampling', ['noise', 'single_path'])
def test_theta_is_pretrained_on_architectures_that_are_drawn_apart(sampling):
  drawn = [steps.pretrain_weights(sampling, SPACE, jax.random.key(i), 3) for i in range(2)]
  rows = [row for weights in drawn for cell in SPACE.cells for row in weights[cell]]
  assert len(rows) == 12 and apart(rows)


@pytest.mark.parametrize('wrap', [steps.on_device, steps.fed])
def test_every_step_and_seed_has_a_key_of_its_own(wrap):
  def step(now, batch, key, lengths):
    return now, jax.random.key_data(key)

  run = jax.jit(wrap(step, parallel.batch(parallel.mesh(1, 8))))
  found = [run(state.SearchState(jnp.int32(at), {}, {}, {}, {}, state.root(seed)), {}, {})[1]
           for at in range(3) for seed in range(2)]
  assert apart(found)


def test_images_and_draws_of_both_batches_have_keys_of_their_own():
  """Four in a step, and others in the next."""
  def update(method, problem, now, batches, clock):
    return now, {name: jnp.stack([batch.images, jax.random.key_data(batch.key)]) for name, batch in batches.items()}

  made = Method(None, None, lambda phi, clock: {}, Step(update, ('train', 'valid')))
  plan, batch = steps.Plan(0, 10, 'noise'), dict.fromkeys(('images', 'labels', 'valid_images', 'valid_labels'), 0)
  step = steps.search_step(made, lambda length: None, plan, steps.phases(made, SPACE, plan)[0],
                           lambda key, images: jax.random.key_data(key))
  now = state.SearchState(jnp.int32(0), {'w': jnp.ones(1)}, {'params': {'w': jnp.ones(1)}}, {}, {}, None)
  found = [step(now, batch, jax.random.key(i))[1][name] for i in range(3) for name in ('train', 'valid')]
  assert apart(np.concatenate(found)) and np.shape(found) == (6, 2, 2)


class Net:
  """Of one weight."""

  def init(self, rngs, images, rows):
    return {'params': {'w': initial.fan_in_uniform(3)(rngs['params'], (3,))}}


def test_every_seed_has_a_start_of_its_own():
  """Theta, phi, its eps, of either cell, and the key of all that is drawn in the steps."""
  made, tx = make('vimnas', networks=1), optax.sgd(0.1)
  start = jax.jit(lambda key: state.create(key, Net(), made, SPACE, tx, tx, (4, 4, 3)))
  one, again, other = (jax.device_get(start(state.root(seed))) for seed in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, one, again)
  assert apart([now.theta['w'] for now in (one, other)]) and apart([now.key for now in (one, other)])
  cells = [(now, name) for now in (one, other) for name in SPACE.cells]
  assert apart([now.phi['params'][name]['mu'][0]['kernel'] for now, name in cells])
  assert apart([now.phi['fixed']['eps'][name] for now, name in cells])
