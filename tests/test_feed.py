"""Searches and retrainings of streamed images: the same bits as in memory, and damaged images told and counted."""

import json
import shutil
import types

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ONE_EDGE, SLOW, data_config, one_line
from test_streamed import damage, tree
from test_tfds import encoded, write

from configs import nb201_c10
from vimnas_jax import config as config_lib
from vimnas_jax import data
from vimnas_jax.errors import UserError
from vimnas_jax.runs import feed, hosts, loop, parallel, runfolder, steps
from vimnas_jax.verbs import evaluate, retrain, search, standing, subset


def asked(root, **fields):
  c = nb201_c10.get_config()
  c.update_from_flattened_dict({
      'data.name': 'folder', 'data.dir': str(root), 'data.image_size': 8, 'space.name': ONE_EDGE, 'space.cells': 1,
      'space.channels': 8, 'batch_size': 4, 'epochs': 2.0, 'pretrain.epochs': 0.0, 'log_steps': 1, 'devices': 1,
      'checkpoint_steps': 3, 'method.name': 'darts', 'data.stream': True, 'data.workers': 0} | fields)
  return config_lib.resolve(c)


def training(root, genotype, **fields):
  c = config_lib.defaults()
  c.space.name = ONE_EDGE
  c = config_lib.retraining(c)
  c.update_from_flattened_dict({
      'genotype': str(genotype), 'data.name': 'folder', 'data.dir': str(root), 'data.image_size': 8, 'epochs': 2.0,
      'batch_size': 10, 'network.cells': 1, 'network.channels': 4, 'eval_batch': 4, 'log_steps': 1, 'devices': 1,
      'checkpoint_steps': 4, 'measure_batches': (), 'data.stream': True, 'data.workers': 0} | fields)
  return config_lib.resolve(c)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return tree(tmp_path_factory.mktemp('tree'), (12, 12, 12), 3)


@pytest.fixture(scope='module')
def searched(root, tmp_path_factory):
  folder = tmp_path_factory.mktemp('searched')
  return folder, search.search(asked(root), folder)


def test_a_streamed_search_ends_with_the_state_of_the_one_in_memory(root, searched, tmp_path):
  held = search.search(asked(root, **{'data.stream': False}), tmp_path)
  assert searched[1]['state_sha256'] == held['state_sha256'] and searched[1]['steps'] == 8
  assert searched[1]['damaged_images'] == [] and 'damaged_images' not in held
  assert json.loads((searched[0] / 'config.json').read_text())['streamed'] is True


def test_a_search_goes_on_as_it_began_whatever_the_machine(root, searched, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(searched[0], folder)
  assert runfolder.as_begun(folder, asked(root, **{'data.stream': None})).data.stream is True
  for other in (True, False):
    assert runfolder.as_begun(folder, asked(root, **{'data.stream': other})).data.stream is other
  assert runfolder.as_begun(tmp_path, asked(root, **{'data.stream': None})).data.stream is None
  with pytest.raises(UserError, match='config.data.stream=True, not False') as e:
    search.search(asked(root, **{'data.stream': False}), folder)
  one_line(e)


@SLOW
def test_records_end_with_the_state_of_those_in_memory(tmp_path):
  """Through two stages, the first of which takes no batch of the validation half."""
  rng = np.random.default_rng(0)
  write(tmp_path, [encoded(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(24)], shape=(8, 8, 3))
  fields = {'data.name': 'tfds/made', 'pretrain.epochs': 0.5}
  found = [search.search(asked(tmp_path, **fields, **{'data.stream': stream}), tmp_path / str(stream))
           for stream in (True, False)]
  assert found[0]['state_sha256'] == found[1]['state_sha256']


def test_the_feed_gives_what_is_gathered_in_memory_from_any_step_on(root, tmp_path):
  """Over epochs whose last batch is smaller, on four devices, with spans of an epoch."""
  config = training(root, 'x', **{'batch_size': 8, 'devices': 4})
  loaded, mesh = data.get(config.data), parallel.mesh(4, 8)
  images, labels = loaded.train.images[:], loaded.train.labels

  def order(epoch):
    return np.split(np.random.default_rng(epoch).permutation(36).astype(np.int32), range(8, 36, 8))

  drawn = loop.batches(order, 5, mesh)
  for span in (1, feed.SPAN):
    feed.SPAN = span
    damaged = feed.Damaged(tmp_path, 0, None)
    with feed.Feed({'train': loaded.train}, order, 5, 12, mesh, config, damaged) as batches:
      for at in (7, 7, 8, 9, 10, 11, 0, 1):  # on, and from another step
        got, rows = batches(at), np.asarray(drawn(at))
        np.testing.assert_array_equal(got['images'], images[rows])
        np.testing.assert_array_equal(got['labels'], labels[rows])
        assert got['images'].sharding.is_equivalent_to(parallel.batch(mesh, len(rows)), 4)


def test_a_batch_from_the_host_is_traced_for_the_devices_that_share_it():
  mesh = parallel.mesh(4, 8)
  seen = []

  def step(state, batch, key, given):
    seen.append(jax.sharding.get_abstract_mesh().shape)
    return state, {}

  @flax.struct.dataclass
  class State:
    step: int
    key: jax.Array

  state = State(0, jax.random.key_data(jax.random.key(0)))
  jax.eval_shape(steps.fed(step, parallel.batch(mesh)), state, {}, {})
  assert seen == [{'data': 4}]


def test_what_every_process_met_is_counted_once_and_by_all(tmp_path, monkeypatch):
  told = []
  damaged = feed.Damaged(tmp_path, 2, told.append)
  damaged.note([('a', 'x')], 'another stands in')
  monkeypatch.setattr(hosts, 'gathered', lambda text: [text, json.dumps({'a': 'x', 'b': 'y'})])
  damaged.gather()
  assert json.loads((tmp_path / 'damaged.json').read_text()) == {'a': 'x', 'b': 'y'}
  assert damaged.names == feed.Damaged(tmp_path, 2, None).names == ['a', 'b'] and len(told) == 1
  monkeypatch.setattr(hosts, 'gathered', lambda text: [text, json.dumps({'c': 'z'})])
  with pytest.raises(UserError, match=r'3 images are damaged, the last c \(z\), more than config.data.max_cor') as e:
    damaged.gather()
  one_line(e)
  assert damaged.names == ['a', 'b', 'c']
  monkeypatch.setattr(hosts, 'agreed', lambda number: 1 - number)
  with pytest.raises(UserError, match='this process holds in memory the images that the first streams') as e:
    feed.check_alike(data.get(data_config('synthetic')))
  one_line(e)
  monkeypatch.setattr(hosts, 'agreed', lambda number: number)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(hosts, 'gathered', lambda text: [text, text])
  feed.check_alike(data.get(data_config('synthetic')))
  monkeypatch.setattr(hosts, 'gathered', lambda text: ['others', text])
  with pytest.raises(UserError, match='process 0 has other images of config.data.name=.synthetic. than the first') as e:
    feed.check_alike(data.get(data_config('synthetic')))
  one_line(e)


@SLOW
def test_a_streamed_training_ends_with_the_state_of_the_one_in_memory(root, searched, tmp_path):
  """That which images drawn from the training images chose, beside the same figure of colour alone."""
  found = [retrain.retrain(training(root, searched[0], **{'data.stream': stream, 'data.validation': 0.25}),
                           tmp_path / str(stream)) for stream in (True, False)]
  for field in ('state_sha256', 'steps', 'test_top1', 'test_loss', 'test_images', 'confusion', 'chosen', 'floor'):
    assert found[0][field] == found[1][field], field
  assert found[0]['steps'] == 6 and found[0]['test_images'] == 9  # the last batches of 7 and of 1
  assert found[0]['chosen']['valid_images'] == 9 and found[0]['floor']['training_images'] == 27
  scored = [evaluate.evaluate(evaluating(root, tmp_path / 'True', stream), tmp_path / f'scored_{stream}')
            for stream in (True, False)]
  assert scored[0]['confusion'] == scored[1]['confusion'] == found[0]['confusion']


def evaluating(root, given, stream):
  c = config_lib.defaults()
  c.update_from_flattened_dict({
      'task': 'evaluate', 'genotype': str(given), 'data.name': 'folder', 'data.dir': str(root), 'data.image_size': 8,
      'eval_batch': 4, 'measure_batches': (), 'data.stream': stream, 'data.workers': 0, 'trust': ONE_EDGE})
  return config_lib.resolve(c)


def test_damaged_images_are_told_counted_and_too_many_an_error(root, searched, tmp_path, capsys):
  worse = tmp_path / 'tree'
  shutil.copytree(root, worse)
  damage(worse, 'ant/03.png', 'cow/06.png')
  (worse / 'val' / 'bee' / '01.png').write_bytes(b'')
  config = training(worse, searched[0], **{'data.max_corrupt': 3})
  result = retrain.retrain(config, tmp_path / 'run')
  names = ['train/ant/03.png', 'train/cow/06.png', 'val/bee/01.png']
  assert result['damaged_images'] == names and result['test_images'] == 8
  assert list(json.loads((tmp_path / 'run' / 'damaged.json').read_text())) and \
      sorted(json.loads((tmp_path / 'run' / 'damaged.json').read_text())) == names
  out = capsys.readouterr().out.replace('\n', ' ')
  for name, instead in zip(names, ('the next readable', 'the next readable', 'left out of the evaluation')):
    assert out.count(f'note: {name} is damaged') == 1 and instead in out
  config.data.max_corrupt = 2
  with pytest.raises(UserError, match='3 images are damaged, the last val/bee/01.png .*config.data.max_corrupt=2') as e:
    retrain.retrain(config, tmp_path / 'fewer')
  one_line(e)


def test_damaged_images_that_the_supernet_is_scored_on_are_told_and_counted(root, tmp_path):
  worse = tmp_path / 'tree'
  shutil.copytree(root, worse)
  damage(worse, 'bee/03.png')
  config, told = asked(worse, supernet_images=36, train_portion=1.0), []
  valid = data.get(config.data).train
  net = types.SimpleNamespace(apply=lambda *args, **kwargs: jnp.ones((4, 3)))
  run = types.SimpleNamespace(config=config, valid=valid, net=net, mean=(0.5,) * 3, std=(0.5,) * 3,
                              size={'num_classes': 3}, space=types.SimpleNamespace(topology=True, choices=()),
                              damaged=feed.Damaged(tmp_path, 1, told.append))
  assert standing.accuracies(run, {}, {'cell': np.ones((1, 1))}, None, 36) == {'images': 36, 'mixed': 33.3333}
  assert run.damaged.names == ['train/bee/03.png'] and 'the next readable image stands in for it' in told[0]
  run.damaged = feed.Damaged(tmp_path / 'none', 0, told.append)
  (tmp_path / 'none').mkdir()
  with pytest.raises(UserError, match='more than config.data.max_corrupt=0'):
    standing.Rater(run, {}).batch(3)


def test_parts_of_a_search_are_drawn_class_by_class_and_listed(root, tmp_path, capsys):
  config = asked(root, **{'data.search_parts': (0.5, 0.25)})
  search.search(config, tmp_path)
  assert ' s to decode its images, ' in capsys.readouterr().out.replace('\n', ' ')
  listed = json.loads((tmp_path / subset.NAME).read_text())
  assert listed['search_parts'] == [0.5, 0.25] and listed['seed'] == 0
  for part, each in (('weights', 6), ('architecture', 3)):
    names = listed[part]['names']
    assert listed[part]['images'] == len(set(names)) == 3 * each
    assert [sum(f'/{name}/' in path for path in names) for name in ('ant', 'bee', 'cow')] == [each] * 3
    assert names != sorted(names) and all((root / path).is_file() for path in names)
  assert not set(listed['weights']['names']) & set(listed['architecture']['names'])
  held = config.copy_and_resolve_references()
  held.data.stream = False
  rows = data.shares(data.get(held.data), (0.5, 0.25))
  assert [part.tolist() for part in rows] == [listed[part]['rows'] for part in ('weights', 'architecture')]


def test_a_search_on_parts_of_records_reads_their_labels_once(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  write(tmp_path, [encoded(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(40)], shape=(8, 8, 3))
  config = asked(tmp_path, **{'data.name': 'tfds/made', 'data.search_parts': (0.4, 0.2)})
  folder, told = tmp_path / 'run', []
  loaded = data.get(config.data)
  rows = subset.rows(config, loaded, None, told.append)
  assert told == ['reading all 40 records once, for their labels …'] and list(map(len, rows)) == [16, 8]
  for part in rows:
    assert np.bincount(loaded.train.labels[part]).tolist() == [len(part) // 2] * 2
  folder.mkdir()
  subset.write(folder, config, loaded, rows)
  again, told = data.get(config.data), []
  for one, other in zip(rows, subset.rows(config, again, subset.read(folder), told.append)):
    np.testing.assert_array_equal(one, other)
  assert not again.train.known and not told
  config.data.search_parts = (0.4, 0.4)
  with pytest.raises(UserError, match='subset.json of this run folder does not fit .*of other data, or of') as e:
    subset.rows(config, data.get(config.data), subset.read(folder), told.append)
  one_line(e)


@pytest.mark.parametrize('fields, says', [
    ({'data.search_parts': (0.1,)}, r'search_parts=\(0.1,\): give two shares'),
    ({'data.search_parts': (0.8, 0.3)}, 'together at most 1'), ({'data.search_parts': (0.1, 0.0)}, 'above 0'),
    ({'data.search_parts': (0.1, float('nan'))}, 'give two shares'), ({'data.search_parts': (0.1, 'x')}, 'give two'),
    ({'data.search_parts': (0.1, 0.1), 'data.limit': 9}, 'config.data.limit=9 does not go with'),
    ({'data.workers': -1}, 'config.data.workers=-1 must be at least 0'),
    ({'data.max_corrupt': -1}, 'config.data.max_corrupt=-1 must be at least 0')])
def test_values_out_of_range(root, fields, says):
  with pytest.raises(UserError, match=says) as e:
    asked(root, **fields)
  one_line(e)


def test_random_parts_leave_no_room_for_padding(root, searched, tmp_path):
  for fields, says in (({'data.smallest': 0.1}, 'config.data.pad=4 would shift it: set config.data.pad=0'),
                       ({'data.photographs': 9, 'data.pad': 0}, 'set config.data.smallest=0.08 and config.data.pad=0')):
    with pytest.raises(UserError, match=says) as e:
      retrain.retrain(training(root, searched[0], **fields), tmp_path / 'run')
    one_line(e)


@SLOW
def test_random_parts_by_workers_are_those_by_threads_and_a_stop_changes_nothing(root, tmp_path):
  fields = {'data.smallest': 0.2, 'data.pad': 0}
  want = search.search(asked(root, **fields), tmp_path / 'threads')
  short = asked(root, **fields, **{'data.workers': 2})
  assert search.search(short, tmp_path / 'workers')['state_sha256'] == want['state_sha256']
