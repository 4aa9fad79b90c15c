"""Exports and their evaluation: what is read back, what is refused, and how classes are matched. Nothing is trained."""

import ast
import dataclasses
import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT, one_line
from PIL import Image
from test_sizing import images as write_images

import vimnas_jax
from benchmarks import onnx_export
from vimnas_jax import config as config_lib
from vimnas_jax import data, files, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks.network import Network
from vimnas_jax.runs import metrics
from vimnas_jax.verbs import evaluate, export, pages

NB201 = spaces.get('nb201')
CELL = NB201.read('|nor_conv_1x1~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|none~2|')
NAMES = ('cat', 'dog', 'eel', 'fox')
RECIPE = {'rule': 1, 'side': 4}
EXAMPLE = ROOT / 'examples' / 'two_nodes.py'


def model(space=NB201, genotype=CELL, names=NAMES):
  net = Network(space=space, genotype=genotype, cells=1, channels=2, num_classes=4)
  variables = jax.jit(lambda: net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), False))()
  return export.Model(space, genotype, net, variables, (4, 4, 3), (0.5,) * 3, (0.25,) * 3, 'folder', names, RECIPE)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('exported') / 'export'
  export.write(path, model())
  return path


def test_all_is_read_back(folder):
  found = export.read(folder)
  assert (found.class_names, found.recipe, found.data, found.mean) == (NAMES, RECIPE, 'folder', (0.5,) * 3)
  images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
  np.testing.assert_allclose(found(images), export.load_program(folder)(images), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(export.read(folder.parent)(images), found(images))  # the run folder does too
  assert {p.name for p in folder.iterdir()} == set(export.FILES)


def test_what_was_averaged_is_known_of_older_exports_too(folder, tmp_path):
  export.write(tmp_path / 'export', dataclasses.replace(model(), shrink=2))
  assert (export.read(tmp_path).shrink, export.read(folder).shrink) == (2, 1)
  facts = json.loads((tmp_path / 'export' / 'model.json').read_text())
  del facts['shrink'], facts['content_sha256']
  files.write_json(tmp_path / 'export' / 'model.json', facts)
  assert export.read(tmp_path).shrink == 0  # nothing says so
  for config, by in (({'data': {'shrink': 4}}, 4), ({'data': {'shrink': 0}}, 0), ({'data': {}}, 0), ([], 0),
                     ({'data': {'shrink': 'two'}}, 0)):
    files.write_json(tmp_path / 'config.json', config)
    assert export.read(tmp_path).shrink == by


def test_a_fingerprint_is_of_the_weights(folder, tmp_path):
  shutil.copytree(folder, tmp_path / 'moved')
  assert export.fingerprint(folder) == export.fingerprint(folder.parent) == export.fingerprint(tmp_path / 'moved')
  with pytest.raises(UserError, match='holds no exported network'):
    export.fingerprint(tmp_path)


def older(path, **changes):
  """As exports were before they had checksums, with other values."""
  told = json.loads((path / 'model.json').read_text())
  for name in ('sha256', 'content_sha256', 'class_names', 'recipe'):
    told.pop(name)
  (path / 'model.json').write_text(json.dumps(told | changes))


def reweigh(path, change):
  flat = safetensors.numpy.load_file(path / 'weights.safetensors')
  safetensors.numpy.save_file(change(flat), path / 'weights.safetensors')


def test_an_export_without_checksums_is_read(folder, tmp_path):
  shutil.copytree(folder, tmp_path / 'e')
  older(tmp_path / 'e')
  found = export.read(tmp_path / 'e')
  assert found.class_names == () and found.recipe == {}


@pytest.mark.parametrize('name', export.FILES)
@pytest.mark.parametrize('damage', [lambda raw: raw[:len(raw) // 2], lambda raw: b'', lambda raw: b'\0' * len(raw),
                                    lambda raw: raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:]])
def test_a_damaged_file_is_told(folder, tmp_path, name, damage):
  shutil.copytree(folder, tmp_path / 'e')
  path = tmp_path / 'e' / name
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(UserError, match=f'{name} is damaged.*export the network again') as error:
    export.read(tmp_path / 'e')
  one_line(error)
  if name == 'network.jaxexport':
    for forget in (lambda: None, (tmp_path / 'e' / 'model.json').unlink):
      forget()
      try:
        export.load_program(tmp_path / 'e')
      except UserError as e:
        assert 'network.jaxexport is damaged' in str(e) and '\n' not in str(e)
      else:  # without model.json one bit of a constant cannot be told
        assert not (tmp_path / 'e' / 'model.json').exists()


CUT = json.loads(CELL.to_json())
CUT['cells']['cell'] = CUT['cells']['cell'][:1]


@pytest.mark.parametrize('changes, word', [
    ({'std': [0, 1, 1]}, 'std above 0'), ({'std': [-1, 1, 1]}, 'std above 0'), ({'std': [1, 1]}, '3 numbers'),
    ({'std': [float('nan'), 1, 1]}, 'finite numbers'), ({'mean': [float('inf'), 1, 1]}, 'finite numbers'),
    ({'mean': ['0', 1, 1]}, 'finite numbers'), ({'mean': 0.5}, 'finite numbers'), ({'mean': [True] * 3}, 'finite'),
    ({'cells': 10 ** 9}, '1 to 1000'), ({'cells': 999}, 'of another network'), ({'cells': True}, 'whole number'),
    ({'channels': 2.0}, 'whole number'), ({'channels': 10 ** 30}, 'whole number'), ({'channels': 3}, 'another network'),
    ({'num_classes': 0}, 'whole number'), ({'num_classes': 5}, 'another network'), ({'imagenet': 0}, 'true or false'),
    ({'imagenet': True}, 'no ImageNet network'), ({'dtype': 'object'}, 'float32'), ({'dtype': ['float32']}, 'float32'),
    ({'image_shape': [4, 4]}, 'height, width'), ({'image_shape': [4, 4, 10 ** 9]}, 'height, width'),
    ({'image_shape': [2, 2, 3]}, 'too small'), ({'image_shape': [4, 4, 1]}, '1 numbers'),
    ({'genotype': CUT}, 'not whole'), ({'genotype': {}}, 'JSON'), ({'genotype': []}, 'an object'),
    ({'space': '../../x'}, "space '../../x'"), ({'space': 3}, 'text'), ({'space': 'darts'}, "space 'nb201', not to"),
    ({'class_names': ['a', 'b', 'c']}, '3 names'), ({'class_names': ['a', 'b', 'c', 'c']}, '3 of them different'),
    ({'class_names': 'abcd'}, 'list of names'), ({'recipe': 1}, 'an object'), ({'sha256': []}, 'an object'),
    ({'sha256': {'weights.safetensors': 1}}, 'SHA-256'), ({'data': None}, 'text')])
def test_what_no_export_says_is_refused(folder, tmp_path, changes, word):
  shutil.copytree(folder, tmp_path / 'e')
  older(tmp_path / 'e', **changes)
  with pytest.raises(UserError, match=word) as error:
    export.read(tmp_path / 'e')
  assert 'export the network again' in one_line(error) and len(str(error.value)) < 500


def nans(flat):
  return {name: np.full_like(a, np.nan) if name.endswith('head') else a for name, a in flat.items()}


@pytest.mark.parametrize('change, word', [
    (nans, 'not finite'), (lambda f: {n: -a - 1 if n.endswith('/var') else a for n, a in f.items()}, 'variance'),
    (lambda f: {n: a.astype(np.float16) for n, a in f.items()}, 'float16'),
    (lambda f: {n: a for n, a in f.items() if not n.startswith('batch_stats')}, 'found nothing'),
    (lambda f: f | {'params/more': np.zeros(3, np.float32)}, 'of another network'),
    (lambda f: f | {'more': np.zeros(3, np.float32)}, 'should be nothing'),
    (lambda f: {n: a.reshape(-1, 1) for n, a in f.items()}, 'should be'), (lambda f: {}, 'has 0 parameters')])
def test_weights_of_no_such_network_are_refused(folder, tmp_path, change, word):
  shutil.copytree(folder, tmp_path / 'e')
  older(tmp_path / 'e')
  reweigh(tmp_path / 'e', change)
  with pytest.raises(UserError, match=word) as error:
    export.read(tmp_path / 'e')
  assert 'export the network again' in one_line(error)


def test_a_read_error_is_no_damage(folder, monkeypatch):
  def fails(path):
    raise OSError(5, 'Input/output error')

  monkeypatch.setattr('pathlib.Path.read_bytes', fails)
  for act in (export.read, export.load_program, export.fingerprint):
    with pytest.raises(UserError, match='cannot be read') as error:
      act(folder)
    assert 'damage' not in one_line(error)


def test_the_code_in_an_export_runs_only_where_it_is_trusted(tmp_path, monkeypatch):
  space = spaces.get(str(EXAMPLE))
  rng = np.random.default_rng(0)
  genotype = space.genotype({name: rng.dirichlet(np.ones(c.shape[1]), c.shape[0]) for name, c in space.cells.items()})
  export.write(tmp_path, model(space, genotype))
  own = tmp_path / 'space.py'
  assert own.read_bytes() == EXAMPLE.read_bytes()
  for trusted in ((), (__file__,), ('none.py',)):
    with pytest.raises(UserError, match='Python code .* --config.trust=.*space.py') as error:
      export.read(tmp_path, trusted)
    one_line(error)
  with pytest.raises(UserError, match='give trusted=') as error:
    vimnas_jax.load(tmp_path)
  trusted = ast.literal_eval(one_line(error).partition('trusted=')[2])
  assert vimnas_jax.load(tmp_path, trusted).space.name == str(EXAMPLE)
  for trusted in ((str(EXAMPLE),), (own,)):
    found = export.read(tmp_path, trusted)
    assert found.space.name == str(EXAMPLE)
  export.write(tmp_path / 'again', dataclasses.replace(found, space=dataclasses.replace(found.space, name='gone.py'),
                                                       genotype=dataclasses.replace(genotype, space='gone.py')))
  assert (tmp_path / 'again' / 'space.py').read_bytes() == EXAMPLE.read_bytes()
  own.write_text(f'import pathlib\npathlib.Path({str(tmp_path / "ran")!r}).touch()\n')
  with pytest.raises(UserError):
    export.read(tmp_path, (str(EXAMPLE),))
  assert not (tmp_path / 'ran').exists()


def test_what_onnx_lacks_is_refused_by_name(folder, tmp_path):
  assert onnx_export.read(folder).space == NB201
  own = str(ROOT / 'examples' / 'own_operation.py')
  for space, trust in ((spaces.get(own), own), (spaces.get('s4'), '')):
    name = next(iter(space.own_ops), 'noise')
    rows = {key: np.array([[float(op == name) for op in ops] for ops in c.ops]) for key, c in space.cells.items()}
    of = types.SimpleNamespace(space=space, genotype=space.genotype(rows), net=types.SimpleNamespace(dtype=np.float32))
    with pytest.MonkeyPatch.context() as patched:
      patched.setattr(export, 'read', lambda path, trusted, of=of: of)
      with pytest.raises(UserError, match=f"has the operation '{name}', which the port lacks") as error:
        onnx_export.read(tmp_path, trust)
      one_line(error)

  def code(path, trusted):
    raise UserError(f'{path}: if you trust it give --config.trust=space.py')

  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(export, 'read', code)
    with pytest.raises(UserError, match='give --trust=space.py'):
      onnx_export.read(tmp_path)


def images(names, labels, shape=(4, 4, 3), **fields):
  labels = np.array(labels, np.int32)
  split = data.Split(np.random.default_rng(0).integers(0, 256, (len(labels), *shape), np.uint8), labels)
  return data.Data('folder', split, split, max(len(names), 4), (0.5,) * 3, (0.5,) * 3, class_names=names, **fields)


@pytest.fixture
def config():
  c = config_lib.defaults()
  c.data.name, c.genotype, c.measure_batches, c.eval_batch = 'folder', 'runs/x', (), 4
  return c


def test_classes_are_matched_by_their_names(config):
  net = model()
  same, notes = evaluate.matched(net, images(NAMES, [0, 1, 2, 3]), config)
  assert same.labels.tolist() == [0, 1, 2, 3] and not notes
  turned, _ = evaluate.matched(net, images(NAMES[::-1], [0, 1, 2, 3]), config)
  assert turned.labels.tolist() == [3, 2, 1, 0]
  fewer, notes = evaluate.matched(net, images(('dog', 'fox'), [0, 1, 1]), config)
  assert fewer.labels.tolist() == [1, 3, 3] and "also knows 'cat', 'eel'" in notes[0]
  with pytest.raises(UserError, match="the class 'ant', which the network .* it knows 'cat', 'dog'") as error:
    evaluate.matched(net, images(('ant', 'cat', 'dog', 'eel'), [0, 1]), config)
  one_line(error)
  _, notes = evaluate.matched(dataclasses.replace(net, class_names=()), images(NAMES, [0]), config)
  assert 'the export has no names' in notes[0]
  with pytest.raises(UserError, match='knows 4 classes, .* has 5'):
    evaluate.matched(dataclasses.replace(net, class_names=()), images((*NAMES, 'gnu'), [0]), config)
  _, notes = evaluate.matched(net, images(NAMES, [0], recipe={'rule': 1, 'side': 8}), config)
  assert notes == ['note: images are read otherwise than for its training: side is 8, was 4']


def test_accents_may_be_encoded_in_two_ways(config):
  """As macOS writes the names of folders, and as others do."""
  net = dataclasses.replace(model(), class_names=('blu\u0308te', 'cat', 'dog', 'eel'))
  found, notes = evaluate.matched(net, images(('bl\u00fcte', 'dog'), [0, 1, 0]), config)
  assert found.labels.tolist() == [0, 2, 0] and "also knows 'cat', 'eel'" in notes[0]
  net = dataclasses.replace(net, class_names=('blu\u0308te', 'cat', 'dog', 'bl\u00fcte'))
  assert evaluate.matched(net, images(net.class_names, [0, 3]), config)[0].labels.tolist() == [0, 3]


def test_images_for_test_that_one_more_file_has_moved_are_told(config, tmp_path):
  """Of a class's ten the fifth and tenth are for test; after a new first one those that were fourth and ninth."""
  config.data.dir, config.data.image_size = str(write_images(tmp_path / 'photos', 10, 8)), 4
  (tmp_path / 'export').mkdir()
  for name in export.FILES[:2]:
    (tmp_path / 'export' / name).write_text('{}')
  before = data.get(config.data)
  assert evaluate.seen(tmp_path, before, before.fingerprint()) == []  # nothing is known of its training
  files.write_json(tmp_path / 'config.json', {'data_fingerprint': before.fingerprint()})
  assert evaluate.seen(tmp_path, before, before.fingerprint()) == []
  Image.new('RGB', (8, 8), (7, 7, 7)).save(tmp_path / 'photos' / 'ant' / '0.png')
  after = data.get(config.data)
  [note] = evaluate.seen(tmp_path, after, after.fingerprint())
  assert before.train.images[3, 0, 0, 0] == after.test.images[0, 0, 0, 0] and 'every 5th image' in note
  apart = dataclasses.replace(after, rule='val is for test')
  assert evaluate.seen(tmp_path, apart, apart.fingerprint()) == []
  pages.network(tmp_path, {'task': 'evaluate', 'notes': [note.removeprefix('note: ')]}, spaces.get('nb201'))
  assert 'Every 5th image of a class' in (tmp_path / pages.FILE).read_text()


def test_figures_by_class(config, tmp_path):
  row, _ = evaluate.measure(model(), images(NAMES, [0, 0, 1, 3]).test, 'test', tmp_path, config, metrics.Console())
  assert row['classes'] == list(NAMES) and row['per_class'][2] is None and row['per_class'][0] is not None
  assert row['test_top5'] is None and (tmp_path / 'confusion.png').exists()
  pages.network(tmp_path, {**row, 'task': 'evaluate', 'data': 'cifar10'}, NB201)
  assert 'The images: 4 classes, of 4x4 pixels.' in (tmp_path / pages.FILE).read_text()
  told = evaluate.summary({**row, 'task': 'evaluate', 'genotype': 'g', 'params': 1, 'madds': 1}, tmp_path)
  assert 'top-5' not in ' '.join(told)
  with pytest.raises(UserError, match='result.json is damaged'):
    evaluate.summary({**row, 'task': 'evaluate'}, tmp_path)


ON_IMAGES = 'set config.data.name=folder and config.data.dir and config.data.image_size=4'


@pytest.mark.parametrize('name, shape, shrink, remedy', [
    ('folder', (8, 8, 3), 1, 'set config.data.image_size=4'), ('folder', (2, 2, 3), 2, 'set config.data.image_size=8'),
    ('tfds/x', (8, 8, 3), 1, 'set config.data.image_size=4'), ('cifar10', (8, 8, 3), 1, 'set config.data.shrink=2'),
    ('cifar10', (2, 2, 3), 4, 'set config.data.shrink=2'), ('cifar10', (6, 6, 3), 1, ON_IMAGES),
    ('digits', (4, 4, 1), 1, ON_IMAGES)])
def test_the_size_of_images_comes_with_the_field_that_changes_it(config, name, shape, shrink, remedy):
  config.data.name, config.data.shrink = name, shrink
  with pytest.raises(UserError, match='reads images of 4x4 pixels and 3 channels') as error:
    evaluate._same_size(model(), images(NAMES, [0], shape), config)
  assert one_line(error).endswith(remedy)


def test_the_folder_of_a_search_leads_to_the_export_of_its_retraining(tmp_path):
  place = tmp_path / 'run' / 'retrain' / 'export'
  place.mkdir(parents=True)
  for name in export.FILES[:2]:
    (place / name).write_text('{}')
  assert export.locate(tmp_path / 'run') == export.locate(tmp_path / 'run' / 'retrain') == export.locate(place) == place
  with pytest.raises(UserError, match='no exported network'):
    export.locate(tmp_path)
