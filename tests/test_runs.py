"""The parts of a search and of a retraining, before anything runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import one_line

from vimnas_jax import config as config_lib
from vimnas_jax import data, methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import genotypes
from vimnas_jax.runs import parallel, steps
from vimnas_jax.verbs import retrain, search

CELL = '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|'


def configured(task='search', **fields):
  c = config_lib.defaults()
  c.space.name, c.space.cells, c.space.channels, c.data.name, c.data.image_size = 'nb201', 1, 8, 'synthetic', 8
  if task == 'retrain':
    c = config_lib.retraining(c)
    c.genotype, c.network.cells, c.network.channels = CELL, 1, 8
  c.update_from_flattened_dict({'batch_size': 8, 'data.num_train': 80, 'devices': 1} | fields)
  return config_lib.resolve(c)


def parts(**fields):
  config = configured(**fields)
  loaded, mesh = data.get(config.data), parallel.mesh(1, config.batch_size)
  space = spaces.get('nb201')
  if config.task == 'retrain':
    return retrain.Training(config, space, genotypes.resolve(CELL), loaded, mesh)
  return search._Run(config, space, methods.get(config.method, space), loaded, mesh)


def of_theta(run):
  return steps.optimisers(run.config, run.method, steps.lengths(run.method, run.plan)[0], run.per_epoch).theta


def rates(run, tx, steps):
  state, found = tx.init({'w': jnp.zeros(1)}), []
  for _ in range(steps):
    update, state = tx.update({'w': jnp.ones(1)}, state, {'w': jnp.zeros(1)})
    found.append(-float(update['w'][0]))
  return np.array(found)


def test_schedules_by_epochs_count_epochs_in_a_search_too():
  """Forty images of the search, eight a step: five steps an epoch, four epochs in all."""
  plain = {'theta.lr': 0.5, 'theta.lr_end': 0.0, 'theta.momentum': 0.0, 'theta.weight_decay': 0.0, 'theta.clip': 0.0,
           'pretrain.epochs': 1.0, 'epochs': 3.0}
  run = parts(**plain, **{'theta.schedule': 'cosine_epoch'})
  assert run.per_epoch == 5 and run.total == 20
  want = np.repeat(0.25 * (1 + np.cos(np.pi * np.arange(4) / 4)), 5)
  np.testing.assert_allclose(rates(run, of_theta(run), 20), want, rtol=1e-5)
  run = parts(**plain, **{'theta.schedule': 'cosine_epoch', 'theta.warmup': 2})
  np.testing.assert_allclose(rates(run, of_theta(run), 10), np.repeat([0.25, 0.5], 5), rtol=1e-5)


def test_nasbench201_retrains_by_epochs():
  run = parts(task='retrain', **{'data.num_train': 24, 'epochs': 4.0, 'theta.clip': 0.0, 'theta.weight_decay': 0.0,
                                 'theta.momentum': 0.0, 'theta.nesterov': False})
  want = np.repeat(0.05 * (1 + np.cos(np.pi * np.arange(4) / 4)), 3)
  np.testing.assert_allclose(rates(run, run._tx(run.total), 12), want, rtol=1e-5)


@pytest.mark.parametrize('task, method', [('search', 'vimnas'), ('search', 'darts'), ('retrain', 'vimnas')])
def test_a_plan_of_another_length_is_the_same_program(task, method):
  def program(epochs):
    run = parts(task=task, epochs=epochs, **{'method.name': method} if task == 'search' else {})
    held, index = run.batches()
    step = run.step(0) if task == 'search' else run.step
    return step.lower(run.abstract(), held, index(0)).as_text(), run.total

  (short, few), (long, many) = program(1.0), program(3.0)
  assert few != many and short == long


def test_every_epoch_and_seed_has_an_order_of_its_own(monkeypatch):
  """Of all images of a half, each half by itself; the start is a function of the seed as well."""
  run = parts(**{'method.name': 'darts', 'pretrain.epochs': 0.0, 'epochs': 3.0})
  monkeypatch.setattr(run, '_starts', [lambda key: key])
  found, starts = [], []
  for seed in range(2):
    run.config.seed = seed
    starts.append(np.asarray(run.start()))
    epochs = [run.order(epoch) for epoch in range(3)]
    found += [epoch[part] for epoch in epochs for part in ('train', 'valid')]
    _, index = run.batches(with_images=False)
    np.testing.assert_array_equal(index(7)['train'], epochs[1]['train'][2])  # five steps an epoch
    np.testing.assert_array_equal(index(7)['valid'], epochs[1]['valid'][2])
  assert all(sorted(order.ravel()) == list(range(40)) for order in found)
  assert len({order.tobytes() for order in found}) == 12 and not np.array_equal(*starts)


def test_a_plan_that_was_shortened_tells_its_steps_so():
  run = parts(**{'method.name': 'darts', 'pretrain.epochs': 2.0, 'epochs': 4.0})
  for pretrain, search_ in ((10, 20), (5, 15)):
    held, _ = run.batches(with_images=False)
    assert jax.device_get(held['lengths']) == (steps.Lengths(pretrain, search_, pretrain + search_, search_),)
    names = [run.phase(at).name for at in range(run.total)]
    assert names == ['pretrain'] * pretrain + ['search'] * search_
    run.take(configured(**{'method.name': 'darts', 'pretrain.epochs': 1.0, 'epochs': 3.0}))


def test_a_retraining_sees_every_image_of_an_epoch_once():
  """The last batch has what is left over, as in the originals: 521 steps of CIFAR-10 at batch 96, not 520."""
  run = parts(task='retrain', **{'data.num_train': 27})
  for epoch in range(2):
    batches = run.order(epoch)
    assert [len(b) for b in batches] == [8, 8, 8, 3] and run.per_epoch == 4
    assert sorted(np.concatenate(batches)) == list(range(27))
  assert not np.array_equal(run.order(0)[0], run.order(1)[0])
  mesh = parallel.mesh(2, 8)
  assert parallel.batch(mesh, 3).is_fully_replicated and not parallel.batch(mesh, 8).is_fully_replicated
  assert jax.device_put(np.arange(3), parallel.batch(mesh, 3)).shape == (3,)


@pytest.mark.parametrize('fields, word', [
    ({'space.name': 'darts', 'space.cells': 1}, 'at least 3 cells'), ({'data.image_size': 2}, 'side 2'),
    ({'data.name': 'digits', 'data.jitter': 0.4}, 'config.data.jitter'), ({'batch_size': 64}, '64'),
    ({'method.samples': 3}, 'samples=3'), ({'data.limit': 4}, 'config.data.limit'),
    ({'supernet_images': 7}, 'supernet_images=7')])
def test_a_refused_search_leaves_nothing_behind(tmp_path, fields, word):
  with pytest.raises(UserError, match=word) as error:
    search.search(configured(**fields), tmp_path / 'run')
  one_line(error)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('fields, word', [
    ({'space.name': 'darts', 'genotype': 'DARTS_V2', 'network.cells': 3, 'data.image_size': 28,
      'network.auxiliary': 0.4}, 'config.network.auxiliary=0'),
    ({'network.imagenet': True}, 'config.network.imagenet=False'),
    ({'genotype': 'DARTS_V2'}, 'edge|nb201|darts'), ({'data.limit': 3}, 'config.')])
def test_a_refused_retraining_leaves_nothing_behind(tmp_path, fields, word):
  with pytest.raises(UserError, match=word) as error:
    retrain.retrain(configured('retrain', **fields), tmp_path / 'run')
  one_line(error)
  assert not list(tmp_path.iterdir())
