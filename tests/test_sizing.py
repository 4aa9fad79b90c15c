"""What a configuration leaves open is chosen by the images; what the user sets is not."""

import json
import runpy

import numpy as np
import pytest
from conftest import ROOT, one_line
from PIL import Image
from test_tfds import PLAIN, write

from configs import evaluate as evaluate_config
from configs import folder as folder_config
from vimnas_jax import config as config_lib
from vimnas_jax import data
from vimnas_jax.errors import UserError
from vimnas_jax.verbs import sizing, told


def images(root, count, side, classes=('ant', 'bee')):
  for name in classes:
    (root / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
      Image.new('RGB', (side + 5, side), (i % 256, 0, 0)).save(root / name / f'{i:04}.png')
  return root


def asked(root, **fields):
  config = folder_config.get_config()
  config.data.dir = str(root)
  config.update_from_flattened_dict(fields)
  return config


def changes(config):
  return dict(word.split('=') for word in config.then_changes.split())


def test_sizes_by_the_images(tmp_path):
  found, notes = sizing.sized(asked(images(tmp_path, 100, 70)))
  assert (found.data.image_size, found.batch_size, found.epochs) == (64, 16, 125.0)  # 128 images: 8 batches of 16
  assert found.pretrain.epochs == 63.0 and 'pretrain.epochs=63.0' in notes[0]
  assert (found.data.pad, found.data.shrink, found.network.cells) == (8, 1, 2)
  assert changes(found)['epochs'] == '100.0' and changes(found)['batch_size'] == '16'
  assert 'data.image_size=64' in notes[0] and '128 training images of about 70 pixels' in notes[0]
  assert 'mirrored' in notes[1]
  config_lib.resolve(found)
  retraining = config_lib.following(found, found.then_changes, tmp_path)
  assert (retraining.network.cells, retraining.epochs, retraining.eval_epochs) == (2, 100.0, 2.0)
  assert sizing.sized(asked(tmp_path))[0].to_dict() == found.to_dict()


def test_what_the_user_sets_wins(tmp_path):
  mine = {'batch_size': 8, 'epochs': 3.0, 'data.image_size': 20, 'data.pad': 0, 'network.cells': 1, 'data.flip': False,
          'then_changes': 'epochs=7 batch_size=4'}
  found, notes = sizing.sized(asked(images(tmp_path, 20, 10), **mine))
  assert (found.batch_size, found.epochs, found.data.image_size, found.data.pad) == (8, 3.0, 20, 0)
  retraining = config_lib.following(found, found.then_changes, tmp_path)
  assert (retraining.epochs, retraining.batch_size, retraining.network.cells) == (7.0, 4, 1)
  assert len(notes) == 1 and 'batch_size=8 ' not in notes[0].partition('; retraining')[0]
  everything = asked(tmp_path, **mine, **{'data.shrink': 1, 'network.channels': 4})
  assert sizing.sized(everything) == (everything, ())


@pytest.mark.parametrize('side, size', [(5, 8), (11, 8), (28, 24), (32, 32), (100, 64), (3000, 64)])
def test_sides(side, size):
  assert sizing._values(asked(''), 10**5, side, None)['data.image_size'] == size


def test_large_sets_take_two_epochs_and_large_images_of_one_size_are_shrunk():
  values = sizing._values(asked(''), 10**5, 96, (96, 96))
  assert (values['epochs'], values['batch_size'], values['data.shrink']) == (2.0, 64, 2)


def test_too_few_images(tmp_path):
  with pytest.raises(UserError, match='has 6 images to search on: a batch takes 8') as e:
    sizing.sized(asked(images(tmp_path, 5, 8)))
  one_line(e)
  with pytest.raises(UserError, match="config.data.dir='' is no folder") as e:
    sizing.sized(asked(''))
  one_line(e)
  with pytest.raises(UserError, match='config.batch_size=None: give a number'):
    config_lib.resolve(asked(tmp_path))


def test_a_file_that_is_sized_for_a_search_does_not_retrain(tmp_path):
  with pytest.raises(UserError, match=r'config\.[\w.]+ is open .*--config\.then=retrain.*data\.name=folder') as error:
    sizing.sized(asked(tmp_path, task='retrain', genotype='x'))
  one_line(error)


def test_too_few_for_a_search_is_told():
  def made(counts, name='made.py'):
    labels = np.repeat(np.arange(2, dtype=np.int32), counts)
    split = data.Split(np.zeros((len(labels), 4, 4, 3), np.uint8), labels)
    return data.Data(name, split, split, 2, (0.5,) * 3, (0.2,) * 3, class_names=('ant', 'bee'))

  def line(counts, steps, **fields):
    return told.shortage(made(counts, **fields), made(counts).train, steps)

  assert line((10, 10), 100) == [] and line((1, 1), 1, name='cifar10') == []
  assert line((10, 10), 99)[0].startswith('too few images or steps for a search: 99 steps, where 100 are the least. ')
  assert "9 images of 'bee', where 10 are the least" in line((10, 9), 500)[0]


@pytest.mark.parametrize('shape, want', [((4, 4, 3), (8, 4, (4, 4), True)), ((None, None, 3), (8, 4, None, True))])
def test_a_set_of_tfds_is_surveyed(tmp_path, shape, want):
  write(tmp_path, [PLAIN] * 8, shape=shape)
  fields = asked(tmp_path).data
  fields.name, fields.validation = 'tfds/made', 0.0
  assert data.survey(fields) == want
  fields.stream = True
  assert data.survey(fields) == (*want[:3], not want[2])


def test_the_border_is_an_eighth_of_the_side_that_is_seen(tmp_path):
  """Whoever averages images, of a folder or of one size, has a border in proportion."""
  folder = images(tmp_path, 20, 70)
  assert sizing.sized(asked(folder, **{'data.shrink': 2}))[0].data.pad == 4  # of 64 pixels, averaged to 32
  of_one_size = {'data.name': 'synthetic', 'data.image_size': 64, 'data.num_train': 256, 'data.validation': 0.0}
  for by, pad in ((1, 8), (2, 4), (4, 2)):
    found, notes = sizing.sized(asked(tmp_path, **of_one_size, **{'data.shrink': by}))
    assert found.data.pad == pad and 'of about 64 pixels' in notes[0]


def test_an_evaluation_takes_its_data_from_the_run(tmp_path):
  config = evaluate_config.get_config()
  config.genotype = str(tmp_path / 'run')
  with pytest.raises(UserError, match='is no run folder') as e:
    sizing.sized(config)
  one_line(e)
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text('{}')
  with pytest.raises(UserError, match='a run without a trained network .export is missing.*then=retrain') as e:
    sizing.sized(config)
  one_line(e)
  (tmp_path / 'run' / 'retrain' / 'export').mkdir(parents=True)
  trained = config_lib.defaults().data.to_dict() | {'name': 'folder', 'dir': 'there', 'image_size': 24, 'pad': 3}
  (tmp_path / 'run' / 'config.json').write_text('{"config": {"data": {"name": "digits"}}}')  # of the search
  (tmp_path / 'run' / 'retrain' / 'config.json').write_text(json.dumps({'config': {'data': trained}}))
  found, _ = sizing.sized(config)
  assert found.data.to_dict() == trained
  config.data.dir = 'here'
  for place in ('run/retrain', 'run/retrain/export'):
    config.genotype = str(tmp_path / place)
    assert sizing.sized(config)[0].data.to_dict() == trained | {'dir': 'here'}
  config_lib.resolve(found)


def test_an_evaluation_on_other_data_takes_from_the_run_how_images_become_pixels(tmp_path):
  (tmp_path / 'run' / 'export').mkdir(parents=True)
  trained = config_lib.defaults().data.to_dict() | {'name': 'cifar10', 'split': 'a.txt', 'shrink': 2, 'pad': 3}
  (tmp_path / 'run' / 'config.json').write_text(json.dumps({'config': {'data': trained}}))
  for genotype in (tmp_path / 'run', tmp_path / 'elsewhere'):  # an export that was carried away
    config = evaluate_config.get_config()
    config.genotype, config.data.name, config.data.dir = str(genotype), 'synthetic', 'here'
    found, _ = sizing.sized(config)
    usual = config_lib.defaults().data.to_dict() | {'name': 'synthetic', 'dir': 'here'}
    assert found.data.to_dict() == usual | {'shrink': 2 if genotype.name == 'run' else 1}
    config_lib.resolve(found)


@pytest.mark.parametrize('streamed', [True, False])
def test_an_evaluation_cuts_images_out_as_the_training_did(tmp_path, streamed):
  (tmp_path / 'export').mkdir()
  trained = config_lib.defaults().data.to_dict() | {'name': 'folder', 'dir': 'there', 'smallest': 0.08}
  (tmp_path / 'config.json').write_text(json.dumps({'config': {'data': trained}, 'streamed': streamed}))
  config = evaluate_config.get_config()
  config.genotype = str(tmp_path)
  assert sizing.sized(config)[0].data.stream is streamed
  config.data.dir = 'here'  # as many images as may be
  assert sizing.sized(config)[0].data.stream is None


def test_a_search_on_parts_is_sized_by_them(tmp_path):
  config = asked(tmp_path, **{'data.search_parts': (0.1, 0.025)})
  assert sizing._values(config, 10_000, 32, None)['epochs'] == 1000 / (1000 // 64) // 1 + 1
  config.data.search_parts = (0.5, 0.005)
  assert sizing._values(config, 10_000, 32, None)['batch_size'] == 32  # of 50 images


def test_a_batch_fits_into_what_is_left_to_validate(tmp_path):
  config = asked(tmp_path, train_portion=0.9)
  assert sizing._values(config, 600, 32, None)['batch_size'] == 32  # of 60 images
  config.train_portion = 1.0
  assert sizing._values(config, 600, 32, None)['batch_size'] == 64


CASES = ROOT.parent / 'shared' / 'cases' / 'make_images.py'


@pytest.mark.skipif(not CASES.exists(), reason='no ../shared/cases/make_images.py')
def test_folders_as_users_have_them(tmp_path):
  """Each is searched on with every class in every part, or refused by a line that names what is wrong."""
  runpy.run_path(str(CASES))['main'](tmp_path)
  for name, classes in (('sorted', 4), ('suffixes', 4)):
    found = data.get(config_lib.resolve(sizing.sized(asked(tmp_path / name))[0]).data)
    assert found.num_classes == classes and not found.left_out
    for split, count in ((found.train, 26), (found.valid, 6), (found.test, 8)):
      assert abs(np.bincount(split.labels, minlength=classes) - count).max() <= 1
  for name, says in (('exif', "one class alone, 'a'"), ('deep', "one class alone, 'a'"), ('alpha', 'one class alone'),
                     ('empty', "class 'swan' has no training image")):
    with pytest.raises(UserError, match=says) as e:
      sizing.sized(asked(tmp_path / name))
    one_line(e)
