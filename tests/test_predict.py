"""Photographs named by an exported network, which is made here and not trained."""

import csv
import dataclasses

import jax
import numpy as np
import pytest
from conftest import one_line
from markup import read
from PIL import Image
from test_export import model

import vimnas_jax
from configs import predict as predict_config
from vimnas_jax import config as config_lib
from vimnas_jax import files
from vimnas_jax.data import Split, pixels
from vimnas_jax.errors import UserError
from vimnas_jax.verbs import export, predict

RECIPE = pixels._recipe(4, 4, 'bicubic')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run folder of a search with its retraining."""
  folder = tmp_path_factory.mktemp('run')
  export.write(folder / 'retrain' / 'export', dataclasses.replace(model(), recipe=RECIPE))
  return folder


@pytest.mark.parametrize('result, place', [({'seed': 3}, 'seed_3/retrain'), ({'choose': 'consensus'}, 'retrain')])
def test_how_far_the_network_of_several_seeds_can_be_relied_on_is_told(tmp_path, result, place):
  export.write(tmp_path / 'export', model())
  files.write_json(tmp_path / 'result.json', {'task': 'seeds', **result})
  (tmp_path / place).mkdir(parents=True)
  files.write_json(tmp_path / place / 'result.json', {'test_top1': 40.0, 'floor': {'top1': 50.0}})
  assert predict.reliance(predict._trained(str(tmp_path))) == [
      'the network named 40.0 % of its test images rightly, and colour alone names 50.0 %: do not rely on it']


@pytest.fixture
def photos(tmp_path):
  root = tmp_path / 'photos'
  (root / 'deep' / 'er').mkdir(parents=True)
  rng = np.random.default_rng(0)
  for name in ('b.jpg', 'a.png', 'deep/er/c.odd'):
    Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(root / name, 'PNG')
  (root / 'cut.png').write_bytes((root / 'a.png').read_bytes()[:60])
  (root / 'notes.txt').write_text('no image')
  (root / '.hidden.png').write_text('of a Mac')
  return root


def asked(run, photos, **fields):
  config = predict_config.get_config()
  config.genotype, config.images = str(run), str(photos)
  config.update_from_flattened_dict(fields)
  return config_lib.resolve(config)


def test_a_folder_is_named_and_told(run, photos, tmp_path, capsys):
  rows = predict.predict(asked(run, photos), tmp_path / 'out')
  assert [row['file'] for row in rows] == ['a.png', 'b.jpg', 'deep/er/c.odd']
  network = export.read(run)
  images = np.stack([pixels.read(photos / row['file'], RECIPE) for row in rows])
  for row, logits in zip(rows, np.asarray(jax.jit(network)(images), np.float64)):
    share = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert row['class'] == network.class_names[logits.argmax()]
    assert row['probability'] == pytest.approx(share.max(), rel=1e-4)
    assert [name for name, _ in row['top']] == [network.class_names[i] for i in np.argsort(-share)[:3]]
  with open(tmp_path / 'out' / 'predictions.csv', newline='') as file:
    head, *lines = csv.reader(file)
  assert head == ['file', 'class', 'probability', 'class_2', 'probability_2', 'class_3', 'probability_3']
  assert [line[:2] for line in lines] == [[row['file'], row['class']] for row in rows]
  out = capsys.readouterr().out
  page = read(tmp_path / 'out')
  assert '2 files skipped: notes.txt (no image); cut.png (' in page.said and page.links == ['predictions.csv']
  assert all(row['file'] in page.said for row in rows)
  assert '2 skipped: notes.txt (no image); cut.png (' in out and '3 images: ' in out and '.hidden' not in out


def test_links_to_folders_are_followed_each_folder_once(photos, tmp_path):
  (photos / 'linked').symlink_to(tmp_path / 'elsewhere')
  (photos / 'deep' / 'up').symlink_to(photos)
  (tmp_path / 'elsewhere').mkdir()
  Image.new('RGB', (5, 5)).save(tmp_path / 'elsewhere' / 'd.png')
  found, skipped = predict.listed(photos)
  assert [str(path.relative_to(photos)) for path in found] == ['a.png', 'b.jpg', 'cut.png', 'deep/er/c.odd',
                                                               'linked/d.png']
  assert skipped == [('notes.txt', 'no image'), ('deep/up/', 'the same folder as another, read once')]


def test_how_far_names_can_be_relied_on():
  assert predict.reliance(None) == predict.reliance({'steps': 3}) == []
  good, bad = ({'test_top1': right, 'floor': {'top1': 85.1}} for right in (92.3, 14.4))
  assert predict.reliance({'test_top1': 92.3}) == predict.reliance(good)
  assert predict.reliance(good) == ['the network named 92.3 % of its test images rightly']
  assert predict.reliance(bad)[0].endswith('14.4 % of its test images rightly, and colour alone names 85.1 %: do not '
                                           'rely on it')
  alike = predict.reliance({'test_top1': 33.3333, 'floor': {'top1': 33.33}})  # a third of the images, both
  assert alike[0].endswith('do not rely on it')


def test_one_photograph_from_python(run, photos):
  network = vimnas_jax.load(run)
  assert repr(network).startswith('<Model of space') and len(repr(network)) < 300
  top = network.predict(photos / 'a.png')
  assert len(top) == 3 and top == network.predict(str(photos / 'a.png'), top=4)[:3]
  assert sum(p for _, p in network.predict(photos / 'a.png', top=4)) == pytest.approx(1, abs=1e-5)
  assert network.predict(network.read(photos / 'a.png')) == top
  assert network.predict([photos / 'a.png', network.read(photos / 'a.png')]) == [top, top]
  with pytest.raises(UserError, match='is a folder: give an image') as e:
    network.predict(photos)
  one_line(e)
  for image in (photos / 'cut.png', np.zeros((5, 5, 3), np.uint8), np.zeros((4, 4, 3), np.float32)):
    with pytest.raises(UserError) as e:
      network.predict(image)
    one_line(e)


def test_arrays_that_the_network_was_not_trained_on_are_refused():
  """Pixels scaled to 0 .. 1 were all near black to it, and images of any size gave logits."""
  network, images = model(), np.zeros((2, 4, 4, 3), np.uint8)
  assert jax.eval_shape(network, images).shape == (2, 4)
  for wrong in (images / np.float32(255), images.astype(np.int32), np.zeros((2, 8, 8, 3), np.uint8), images[0],
                images.tolist()):
    for call in (network, network.probabilities):
      with pytest.raises(UserError, match=r"this network reads uint8 \('n', 4, 4, 3\)") as e:
        call(wrong)
      one_line(e)


def test_what_is_read_for_a_network_of_arrays(tmp_path):
  """Grey, shrunk, and without a recipe."""
  Image.fromarray(np.full((20, 30, 3), (200, 100, 0), np.uint8)).save(tmp_path / 'a.png')
  grey = pixels.read_for(tmp_path / 'a.png', {}, (8, 8, 1))
  assert grey.shape == (8, 8, 1) and (grey == round(0.299 * 200 + 0.587 * 100)).all()
  ramp = np.repeat(np.arange(16, dtype=np.uint8)[:, None, None] * 16, 16, 1).repeat(3, 2)
  Image.fromarray(ramp).save(tmp_path / 'ramp.png')
  half = pixels.read_for(tmp_path / 'ramp.png', pixels._recipe(16, 16, 'bicubic'), (8, 8, 3))
  np.testing.assert_array_equal(half, np.rint(ramp.reshape(8, 2, 8, 2, 3).mean((1, 3))))
  for by in (1, 2):
    with pytest.raises(UserError, match='8x6 pixels and 3 channels') as e:
      pixels.read_for(tmp_path / 'a.png', {}, (8, 6, 3), shrink=by)
    one_line(e)


@pytest.mark.parametrize('by', [1, 2, 4])
def test_files_are_averaged_as_the_arrays_of_the_training_were(tmp_path, by):
  """On the files of a set of arrays the network sees the bits that it was trained on."""
  image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  Image.fromarray(image).save(tmp_path / 'a.png')
  want = Split(image[None], np.zeros(1, np.int32)).shrunk(by).images[0]
  net = dataclasses.replace(model(), recipe={}, image_shape=want.shape, shrink=by)
  np.testing.assert_array_equal(net.read(tmp_path / 'a.png'), want)


@pytest.mark.parametrize('fields, says', [
    ({'genotype': ''}, "config.genotype='' is no folder"), ({'images': ''}, "config.images='': no such"),
    ({'images': 'nowhere.jpg'}, 'no such file or folder'),
    ({'data.max_pixels': 9}, 'no image that can be read: .*63 pix')])
def test_refused_before_anything_is_written(run, photos, tmp_path, fields, says):
  with pytest.raises(UserError, match=says) as e:
    predict.predict(asked(run, photos, **fields), tmp_path / 'out')
  one_line(e)
  assert not (tmp_path / 'out').exists()


def test_more_images_than_are_shown_or_held(run, photos, monkeypatch):
  monkeypatch.setattr(predict, '_BLOCK', 2)
  row = {'file': 'a.png', 'class': 'cat', 'probability': 0.5, 'top': [('cat', 0.5)]}
  told = predict.lines([row] * 50, [('x', 'no image')] * 12)
  assert told[40:] == ['… and 10 more in predictions.csv', told[41], '50 images: 50 cat']
  assert told[41].startswith('12 skipped: x (no image)') and told[41].endswith('and 2 more')
  paths, skipped = predict.listed(photos)
  rows = [row for start in range(0, len(paths), 2)
          for row in predict._block(export.read(run), paths[start:start + 2], photos, 10**6, skipped)[0]]
  assert [row['file'] for row in rows] == ['a.png', 'b.jpg', 'deep/er/c.odd'] and len(skipped) == 2
