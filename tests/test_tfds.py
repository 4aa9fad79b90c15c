import errno
import io
import json
import sys

import numpy as np
import pytest
from conftest import data_config, one_line
from PIL import Image

from vimnas_jax import data
from vimnas_jax.data import records, tfds
from vimnas_jax.errors import UserError


def encoded(image, form='PNG', **options):
  file = io.BytesIO()
  (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
  return file.getvalue()


PLAIN = encoded(np.full((4, 4, 3), 7, np.uint8))


def write(root, images, labels=None, shape=(4, 4, 3), names=('ant', 'bee'), **info):
  """A TFDS set `made`, of the encoded `images` both in training and test, classes in turn."""
  from array_record.python import array_record_module
  with records.quiet():
    from tensorflow_datasets import features
  described = features.FeaturesDict({'image': features.Image(shape=shape), 'label': features.ClassLabel(names=names)})
  folder = root / 'made' / '1.0.0'
  folder.mkdir(parents=True)
  described.save_config(folder)
  for part in ('train', 'test'):
    writer = array_record_module.ArrayRecordWriter(str(folder / f'made-{part}.array_record-00000-of-00001'),
                                                   'group_size:1')
    wide = features.FeaturesDict({'image': features.Image(shape=shape), 'label': features.Scalar(dtype=np.int64)})
    for i, image in enumerate(images):
      label = labels[i] if labels else i % len(names)
      writer.write(wide.serialize_example(wide.encode_example({'image': io.BytesIO(image), 'label': label})))
    writer.close()
  splits = [{'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}', 'name': part, 'numBytes': '1',
             'shardLengths': [str(len(images))]} for part in ('train', 'test')]
  (folder / 'dataset_info.json').write_text(json.dumps({'fileFormat': 'array_record', 'name': 'made', 'splits': splits,
                                                        'version': '1.0.0', **info}))
  return folder


def get(root, **fields):
  return data.get(data_config('tfds/made', **{'dir': str(root), 'image_size': 4, **fields}))


def refused(root, says, **fields):
  with pytest.raises(UserError, match=says) as e:
    get(root, **fields)
  return one_line(e)


def test_names_order_and_what_is_told(tmp_path):
  write(tmp_path / 'one', [PLAIN] * 4)
  found = get(tmp_path / 'one')
  assert found.class_names == ('ant', 'bee') and found.shuffled and found.recipe == {}
  assert data.describe(found) == ['2 classes, training/test images: ant 2/2, bee 2/2',
                                  '8 images of 4x4x3 are 384 bytes decoded: held in memory']
  write(tmp_path / 'two', [PLAIN] * 4, disableShuffling=True)
  assert not get(tmp_path / 'two').shuffled
  write(tmp_path / 'three', [PLAIN] * 4, shape=(None, None, 3))
  assert get(tmp_path / 'three').recipe['side'] == 4


def palette(alpha=None):
  image = Image.new('P', (4, 4), 1)
  image.putpalette([0, 0, 0, 200, 200, 200])
  return encoded(image, **({} if alpha is None else {'transparency': alpha}))


RGBA = np.full((4, 4, 4), 100, np.uint8)


@pytest.mark.parametrize('shape, image, want', [
    ((4, 4, 3), palette(), [200] * 3), ((4, 4, 1), palette(), [200]), ((4, 4, 4), palette(), [200, 200, 200, 255]),
    ((4, 4, 4), palette(1), [200, 200, 200, 0]), ((4, 4, 3), palette(1), [0] * 3),
    ((4, 4, 4), encoded(RGBA), [100] * 4),
    ((4, 4, 1), encoded(np.full((4, 4), 32768, np.uint16)), [128]), ((4, 4, 1), PLAIN, [7]),
    ((4, 4, 3), encoded(np.full((4, 4), 9, np.uint8)), [9] * 3), ((4, 4, 3), encoded(RGBA), [39] * 3)])
def test_images_of_a_fixed_size_are_read_in_the_colours_of_their_shape(tmp_path, shape, image, want):
  write(tmp_path, [image] * 2, shape=shape)
  got = get(tmp_path)
  assert got.image_shape == shape
  np.testing.assert_allclose(got.train.images[1, 2, 3].astype(int), want, atol=1)


@pytest.mark.parametrize('form', ['PNG', 'JPEG'])
def test_what_is_right_already_keeps_its_bits(tmp_path, form):
  noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
  image = encoded(noise, form)
  write(tmp_path, [image] * 2)
  np.testing.assert_array_equal(get(tmp_path).test.images[0], np.asarray(Image.open(io.BytesIO(image))))


@pytest.mark.parametrize('shape, image, says', [
    ((4, 4, 3), encoded(np.zeros((4, 5, 3), np.uint8)), 'image 1 of train: 5x4 are 20 pixels|it is 4x5, not 4x4'),
    ((4, 4, 3), encoded(np.zeros((2, 4, 3), np.uint8)), 'image 1 of train: it is 2x4, not 4x4'),
    ((4, 4, 3), b'%!PS-Adobe-3.0', 'image 1 of train: it is damaged, or none of PNG'),
    ((4, 4, 1), encoded(np.ones((4, 4), np.int32), 'TIFF'), r'mode I, TIFF\) have no range'),
    ((None, None, 3), b'', 'image 1 of train: it is damaged')])
def test_images_that_do_not_fit(tmp_path, shape, image, says):
  write(tmp_path, [PLAIN, image], shape=shape)
  assert 'cannot read the TFDS data in' in refused(tmp_path, says)


def test_limits_and_labels(tmp_path):
  write(tmp_path / 'large', [PLAIN] * 2, shape=(None, None, 3))
  refused(tmp_path / 'large', '4x4 are 16 pixels, more than config.data.max_pixels=15', max_pixels=15)
  for label in (2, -1, 2**32):
    write(tmp_path / str(label), [PLAIN] * 2, labels=[0, label])
    refused(tmp_path / str(label), rf'label {label} of image 1 of train is outside 0\.\.1')
  write(tmp_path / 'swan', [PLAIN] * 2, names=('ant', 'bee', 'swan'))
  refused(tmp_path / 'swan', "class 'swan' has no training image")


@pytest.mark.parametrize('stream', [False, True])
def test_a_split_without_labels_is_not_for_test(tmp_path, stream):
  folder = write(tmp_path, [PLAIN] * 4)
  for file in list(folder.glob('made-test*')):
    file.with_name(file.name.replace('test', 'validation')).write_bytes(file.read_bytes())
    file.unlink()
  other = write(tmp_path / 'other', [PLAIN] * 3, labels=[-1] * 3)
  for file in other.glob('made-test*'):
    (folder / file.name).write_bytes(file.read_bytes())
  edit(folder, 'dataset_info.json', lambda held: held['splits'].append(
      {**held['splits'][0], 'name': 'validation', 'shardLengths': ['4']}) or held['splits'][1].update(
          {'shardLengths': ['3']}))
  found = get(tmp_path, stream=stream)
  assert len(found.test) == 4 and list(found.test.labels) == [0, 1, 0, 1] and found.valid is None
  assert found.rule == 'the split validation is for test: the split test has no labels'


def edit(folder, name, change):
  held = json.loads((folder / name).read_text())
  change(held)
  (folder / name).write_text(json.dumps(held))


def image_of(held):
  return held['featuresDict']['features']['image']


CODE = 'import pathlib\npathlib.Path(__file__).with_name("ran").touch()\n'


@pytest.mark.parametrize('change', [
    lambda held: image_of(held).update(pythonClassName='evil_features.Image'),
    lambda held: held.update(pythonClassName='evil_features.Image'),
    lambda held: held['featuresDict']['features'].update(more={'pythonClassName': 'evil_features.Image', 'text': {}}),
    lambda held: held.update(type='evil_features.Image', content='{}'),
    lambda held: (image_of(held).pop('pythonClassName'), image_of(held).update(python_class_name='evil_features.I')),
    lambda held: image_of(held).update(pythonClassName='tensorflow_datasets.core.features/../evil_features.Image'),
    lambda held: image_of(held).update(jsonFeature={'json': '{"type": "evil_features.Image"}'})])
def test_no_code_is_imported_that_data_names(tmp_path, monkeypatch, change):
  folder = write(tmp_path, [PLAIN] * 2)
  (tmp_path / 'evil_features.py').write_text(CODE)
  monkeypatch.syspath_prepend(str(tmp_path))
  edit(folder, 'features.json', change)
  assert 'is not imported' in refused(tmp_path, r'features.json names the Python class .*evil_features')
  assert 'evil_features' not in sys.modules and not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('change, says', [
    (lambda held: image_of(held)['image'].update(dtype='uint16'), 'its image is Image of uint16; wanted'),
    (lambda held: image_of(held)['image'].update(dtype='float32'), 'tf.float32'),
    (lambda held: image_of(held)['image']['shape'].update(dimensions=['4', '4', '2']), '2 channels'),
    (lambda held: held['featuresDict']['features'].pop('label'), 'features image; wanted'),
    (lambda held: held['featuresDict']['features'].update(label=image_of(held)), 'its label is Image'),
    (lambda held: held['featuresDict']['features']['label']['classLabel'].clear(), 'label')])
def test_features_that_are_not_read(tmp_path, change, says):
  folder = write(tmp_path, [PLAIN] * 2)
  edit(folder, 'features.json', change)
  refused(tmp_path, says)


@pytest.mark.parametrize('name, content, says', [
    ('features.json', '[' * 10**5, 'damaged'), ('features.json', '[]', 'it holds list'),
    ('features.json', None, 'it has no features.json'), ('dataset_info.json', '[]', 'cannot read'),
    ('label.labels.txt', 'ant\nant\n', "two classes are called 'ant'|unique"),
    ('label.labels.txt', 'ant\n', '1 names for 2 classes')])
def test_damaged_descriptions(tmp_path, name, content, says):
  folder = write(tmp_path, [PLAIN] * 2)
  (folder / name).unlink()
  if content is not None:
    (folder / name).write_text(content)
  refused(tmp_path, says)


@pytest.mark.parametrize('lengths', [['10000000000000'], ['-1'], ['0'], [], ['3'], ['x']])
def test_counts_that_are_not_so(tmp_path, lengths):
  folder = write(tmp_path, [PLAIN] * 2)
  edit(folder, 'dataset_info.json', lambda held: held['splits'][0].update(shardLengths=lengths))
  refused(tmp_path, 'cannot read|do not fit|no images')


def test_a_failed_read_is_no_damage(tmp_path, monkeypatch):
  write(tmp_path, [PLAIN] * 2)

  def failing(*args):
    raise OSError(errno.EIO, 'Input/output error')

  monkeypatch.setattr(tfds, '_read_split', failing)
  assert 'prepare it again' not in refused(tmp_path, r'\(Input/output error\): make it readable')


def test_a_package_that_is_missing_is_no_damage(tmp_path, monkeypatch):
  write(tmp_path, [PLAIN] * 2)
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  with pytest.raises(ModuleNotFoundError, match='tensorflow_datasets'):  # main tells what to install
    data.get(data_config('tfds/made', dir=str(tmp_path), image_size=4))


@pytest.mark.parametrize('name', ['../made', '/made', 'made/..', '*', '', 'a\0b'])
def test_names_stay_below_the_folder(tmp_path, name):
  write(tmp_path, [PLAIN] * 2)
  (tmp_path / 'below').mkdir()
  with pytest.raises(UserError, match='dataset_info.json') as e:
    data.get(data_config(f'tfds/{name}', dir=str(tmp_path / 'below'), image_size=4))
  one_line(e)


@pytest.mark.parametrize('missing', ['image', 'label', 'nothing', 'all'])
def test_a_record_has_an_image_and_a_label(missing):
  from tensorflow_datasets.proto import tf_example_pb2
  example = tf_example_pb2.Example()
  if missing not in ('image', 'all'):
    example.features.feature['image'].bytes_list.value.append(b'bytes')
  if missing not in ('label', 'all'):
    example.features.feature['label'].int64_list.value.append(3)
  if missing == 'nothing':
    assert records.parsed(example.SerializeToString()) == (b'bytes', 3)
    return
  with pytest.raises(LookupError, match='no image, or no label'):
    records.parsed(example.SerializeToString())
