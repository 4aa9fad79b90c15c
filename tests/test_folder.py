import os

import numpy as np
import pytest
from conftest import data_config, one_line
from PIL import Image

from vimnas_jax import data
from vimnas_jax.errors import UserError


def _config(root, side=4):
  return data_config('folder', dir=str(root), image_size=side)


def _save(path, value, size=(4, 4)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


@pytest.fixture
def split(tmp_path):
  for part, count in (('train', 3), ('val', 2)):
    for label, name in enumerate(('ant', 'bee')):
      for i in range(count):
        _save(tmp_path / part / name / f'{i}.png', 100 * label + 10 * i)
  (tmp_path / 'train' / 'ant' / 'notes.txt').write_text('no image')
  return tmp_path


def test_splits_classes_and_statistics(split):
  found = data.get(_config(split))
  assert found.num_classes == 2 and found.image_shape == (4, 4, 3)
  np.testing.assert_array_equal(found.train.images[:, 0, 0, 0], [0, 10, 20, 100, 110, 120])
  np.testing.assert_array_equal(found.train.labels, [0, 0, 0, 1, 1, 1])
  np.testing.assert_array_equal(found.test.images[:, 3, 3, 2], [0, 10, 100, 110])
  np.testing.assert_allclose(found.mean, found.train.images.mean((0, 1, 2)) / 255)
  np.testing.assert_allclose(found.std, found.train.images.std((0, 1, 2)) / 255)


def test_without_a_split_every_fifth_image_is_for_test(tmp_path):
  for name in ('a', 'b'):
    for i in range(11):
      _save(tmp_path / name / f'{i:02}.jpg', 20 * i)
  found = data.get(_config(tmp_path))
  assert len(found.train) == 18 and len(found.test) == 4
  np.testing.assert_allclose(found.test.images[:, 0, 0, 0], [80, 180, 80, 180], atol=2)


def test_images_are_scaled_and_cut_at_the_centre(split):
  wide = np.zeros((8, 24, 3), np.uint8)
  wide[:, 8:16] = 200
  Image.fromarray(wide).save(split / 'train' / 'ant' / '9.png')
  grey = Image.fromarray(np.full((40, 40), 77, np.uint8))
  grey.save(split / 'val' / 'bee' / '9.png')
  found = data.get(_config(split))
  centre = found.train.images[3, 1:3, 1:3]
  np.testing.assert_allclose(centre, 200, atol=4)
  np.testing.assert_array_equal(found.test.images[-1], 77)


@pytest.mark.parametrize('damage, word', [
    (lambda root: (root / 'train' / 'bee' / '1.png').write_bytes(b'no png'), '1.png'),
    (lambda root: _save(root / 'val' / 'cow' / '1.png', 1), 'cow'),
    (lambda root: (root / 'val').rename(root / 'rest'), 'none called test'),
    (lambda root: [f.unlink() for f in (root / 'train' / 'bee').iterdir()], "class 'bee' has no training image")])
def test_damage_is_one_line(split, damage, word):
  damage(split)
  with pytest.raises(UserError, match=word) as error:
    data.get(_config(split))
  assert '\n' not in str(error.value)


def test_no_folder(tmp_path):
  for root in (tmp_path, tmp_path / 'none'):
    with pytest.raises(UserError, match='CLASS'):
      data.get(_config(root))


def _parts(root, parts=('train', 'test'), classes=('ant', 'bee')):
  for part in parts:
    for name in classes:
      for i in range(3):
        _save(root / part / name / f'{i}.png', i)


def test_classes_have_the_names_of_their_folders(split):
  found = data.get(_config(split))
  assert found.class_names == ('ant', 'bee') and found.name_of(1) == 'bee' and not found.shuffled
  before = found.fingerprint()
  for part in ('train', 'val'):
    (split / part / 'bee').rename(split / part / 'cow')
  again = data.get(_config(split))
  assert again.class_names == ('ant', 'cow') and again.fingerprint() != before
  np.testing.assert_array_equal(again.train.images, found.train.images)


def test_accents_may_be_encoded_in_two_ways(tmp_path):
  """A folder of a Mac and one of another machine have the same classes; in one part two such are refused."""
  _parts(tmp_path, ('train',), ('ant', 'bl\u00fcte'))
  _parts(tmp_path, ('test',), ('ant', 'blu\u0308te'))
  found = data.get(_config(tmp_path))
  assert found.class_names == ('ant', 'bl\u00fcte') and np.bincount(found.test.labels).tolist() == [3, 3]
  _parts(tmp_path, ('test',), ('bl\u00fcte',))
  with pytest.raises(UserError, match='two folders called .*: rename one') as e:
    data.get(_config(tmp_path))
  one_line(e)


@pytest.mark.parametrize('parts', [('Train', 'TEST'), ('TRAINING', 'Testing'), ('train', 'Validation')])
def test_parts_are_found_in_any_case(tmp_path, parts):
  _parts(tmp_path, parts)
  found = data.get(_config(tmp_path))
  assert found.class_names == ('ant', 'bee') and (len(found.train), len(found.test)) == (6, 6)


@pytest.mark.parametrize('parts, says', [(('Train', 'train', 'test'), 'both Train and train'),
                                         (('test', 'val'), 'folder test but none called train'),
                                         (('Training',), 'folder Training but none called test')])
def test_parts_that_are_unclear(tmp_path, parts, says):
  _parts(tmp_path, parts)
  if len({f.name for f in tmp_path.iterdir()}) < len(parts):
    pytest.skip('a file system that knows no case')
  with pytest.raises(UserError, match=says) as e:
    data.get(_config(tmp_path))
  one_line(e)


def test_a_class_may_be_called_train(tmp_path):
  for name in ('bus', 'train'):
    for i in range(5):
      _save(tmp_path / name / f'{i}.png', 20 * i)
  found = data.get(_config(tmp_path))
  assert found.class_names == ('bus', 'train') and (len(found.train), len(found.test)) == (8, 2)
  (tmp_path / 'bus').rename(tmp_path / 'train' / 'bus')
  with pytest.raises(UserError, match='none called test'):
    data.get(_config(tmp_path))


def test_images_are_read_whatever_they_are_called(tmp_path):
  _parts(tmp_path)
  picture = Image.new('RGB', (4, 4), (9, 9, 9))
  for name, form in (('a.JPG', 'JPEG'), ('b.jfif', 'JPEG'), ('c.jp2', 'JPEG2000'), ('none', 'PNG'), ('e.odd', 'WEBP'),
                     ('f.jpg', 'PNG'), ('g.tga', 'TGA'), (os.fsdecode(b'\xff\n.png'), 'PNG')):
    picture.save(tmp_path / 'train' / 'ant' / name, form)
  found = data.get(_config(tmp_path))
  assert len(found.train) == 6 + 8 and not found.left_out


def test_what_is_left_out_is_counted_and_named(tmp_path):
  _parts(tmp_path)
  _parts(tmp_path, ('val',))
  ant = tmp_path / 'train' / 'ant'
  for name in ('notes.txt', 'Thumbs.db', 'Icon\r'):
    (ant / name).write_bytes(bytes(99))
  (ant / 'p.heic').write_bytes(b'\0\0\0\x18ftypheic')
  os.mkfifo(ant / 'pipe.png')
  (ant / 'gone').symlink_to('nowhere')
  (ant / 'loop').symlink_to('loop')
  _save(ant / 'below' / '1.png', 1)
  _save(tmp_path / 'train' / 'stray.png', 1)
  (tmp_path / 'README.md').write_text('about')
  for hidden in ('.thumbnails', 'train/.cache', 'train/ant/.git'):
    (tmp_path / hidden).mkdir()
  (ant / '._0.png').write_text('of a Mac')
  found = data.get(_config(tmp_path))
  assert len(found.train) == 6
  assert dict(found.left_out) == {
      'README.md': 'no image', 'train/stray.png': 'an image beside the folders',
      'val/ with 6 files': 'a folder beside train and test', 'train/ant/Icon\\r': 'no image',
      'train/ant/Thumbs.db': 'no image', 'train/ant/below/ with 1 file': 'a folder below that of a class',
      'train/ant/gone': 'a link to nothing', 'train/ant/loop': 'a link to nothing', 'train/ant/notes.txt': 'no image',
      'train/ant/p.heic': 'HEIC, which is not read', 'train/ant/pipe.png': 'a FIFO'}
  classes, left, both, held = data.describe(found)
  assert both.startswith('in training too, pixel by pixel: 6 images for test')
  assert classes == ('2 classes, training/test images: ant 3/3, bee 3/3; 11 files or folders left out (list in '
                     'data.json)')
  assert left.startswith('left out: README.md, train/ant/Icon')
  assert held.endswith(' images of 4x4x3 are 576 bytes decoded: held in memory') and held.startswith('12 ')


def test_many_classes_are_told_in_short(tmp_path):
  _parts(tmp_path, classes=[f'c{i:02}' for i in range(30)])
  for file in (tmp_path / 'test' / 'c07').iterdir():
    file.unlink()
  first, untested, *_ = data.describe(data.get(_config(tmp_path)))
  assert first.startswith('30 classes, training/test images: c00 3/3, ') and len(first) < 250
  assert first.endswith('and 18 more; each 3/0 to 3/3') and untested == 'without a test image: c07'


@pytest.mark.parametrize('fill', [lambda swan: None, lambda swan: (swan / 'a.txt').write_text('none'),
                                  lambda swan: _save(swan / 'below' / '1.png', 1)])
def test_an_empty_class_is_named(tmp_path, fill):
  _parts(tmp_path, ('',))
  (tmp_path / '.thumbnails').mkdir()
  (tmp_path / 'swan').mkdir()
  fill(tmp_path / 'swan')
  with pytest.raises(UserError, match="class 'swan' has no training image") as e:
    data.get(_config(tmp_path))
  assert ('/swan as config.data.dir' if (tmp_path / 'swan' / 'below').exists() else 'add some') in one_line(e)


def test_a_part_without_images_is_named(tmp_path):
  _parts(tmp_path, ('train', 'val'))
  for name in ('ant', 'bee'):
    (tmp_path / 'test' / name).mkdir(parents=True)
  with pytest.raises(UserError, match='no class of .*/test has an image: add some, or remove that folder') as e:
    data.get(_config(tmp_path))
  one_line(e)
  (tmp_path / 'test' / 'Ant').mkdir()
  with pytest.raises(UserError, match=r"lacks \(did you mean 'ant'\?\): remove"):
    data.get(_config(tmp_path))


def test_names_that_are_no_text(tmp_path):
  _parts(tmp_path, classes=('ant', os.fsdecode(b'caf\xe9'), 'new\nline'))
  assert data.get(_config(tmp_path)).class_names == ('ant', 'caf\\udce9', 'new\\nline')
  (tmp_path / 'train' / 'ant' / os.fsdecode(b'\xff\n.png')).write_bytes(b'damaged')
  with pytest.raises(UserError, match='ant/.*udcff') as e:
    data.get(_config(tmp_path))
  one_line(e).encode()


@pytest.mark.parametrize('broken, says', [
    (lambda ant: (ant / 'x.png').symlink_to('nowhere'), r'ant/x.png \(No such file'),
    (lambda ant: (ant / 'x.png').symlink_to('x.png'), r'ant/x.png \(Too many'),
    (lambda ant: (ant / 'x.png').write_text('%!PS-Adobe-3.0'), 'ant/x.png: it is damaged, or none of PNG')])
def test_what_is_called_an_image_must_be_one(tmp_path, broken, says):
  _parts(tmp_path)
  broken(tmp_path / 'train' / 'ant')
  with pytest.raises(UserError, match=says) as e:
    data.get(_config(tmp_path))
  one_line(e)


def test_a_folder_that_cannot_be_read_is_no_damage(tmp_path, monkeypatch):
  _parts(tmp_path)
  scan = os.scandir

  def denied(path):
    if str(path).endswith('ant'):
      raise PermissionError(13, 'Permission denied')
    return scan(path)

  monkeypatch.setattr(os, 'scandir', denied)
  with pytest.raises(UserError, match=r'train/ant \(Permission denied\): make it readable') as e:
    data.get(_config(tmp_path))
  one_line(e)


@pytest.mark.parametrize('fields, says', [({'max_pixels': 15}, '0.png: 4x4 are 16 pixels'),
                                          ({'image_size': 10**7}, 'image_size=10000000 must be from 1 to'),
                                          ({'dir': 'a\0b'}, 'is no folder'), ({'dir': '~nobody-at-all/x'}, 'no folder'),
                                          ({'moments': 'theirs'}, "moments='theirs': choose one of own, imagenet")])
def test_limits_and_names(tmp_path, fields, says):
  _parts(tmp_path)
  with pytest.raises(UserError, match=says) as e:
    data.get(data_config('folder', **{'dir': str(tmp_path), 'image_size': 4, **fields}))
  one_line(e)


def test_images_that_do_not_fit_into_memory(tmp_path, monkeypatch):
  _parts(tmp_path)

  def full(*args):
    raise MemoryError

  monkeypatch.setattr(np, 'empty', full)
  with pytest.raises(UserError, match='image_size=4: 6 images of 4x4 do not fit into memory; lower it') as e:
    data.get(_config(tmp_path))
  one_line(e)


def test_photographs_are_held_whole_beside_their_aspects(tmp_path):
  _parts(tmp_path)
  _save(tmp_path / 'train' / 'ant' / '0.png', 50, (16, 8))
  config = data_config('folder', dir=str(tmp_path), image_size=4, photographs=6, moments='imagenet')
  found = data.get(config)
  assert found.train.images.shape == (6, 6, 6, 3) and found.test.images.shape == (6, 4, 4, 3)
  assert found.image_shape == (4, 4, 3) and found.mean == (0.485, 0.456, 0.406) and found.std == (0.229, 0.224, 0.225)
  np.testing.assert_array_equal(found.train.aspects, np.float32([2, 1, 1, 1, 1, 1]))
  config.photographs = 0
  plain = data.get(config)
  assert plain.train.aspects is None and plain.fingerprint() != found.fingerprint()
  config.photographs, config.shrink = 6, 2
  with pytest.raises(UserError, match='config.data.shrink=2 does not go with') as e:
    data.get(config)
  one_line(e)


def _choosing(root, **fields):
  return data.get(data_config('folder', **{'dir': str(root), 'image_size': 4, 'validation': 0.2, **fields}))


def test_val_beside_test_chooses(tmp_path):
  """And is left out where nothing is to choose, as ever."""
  _parts(tmp_path, ('Train', 'VAL', 'Test'))
  found = _choosing(tmp_path)
  assert [len(split) for split in (found.train, found.valid, found.test)] == [6, 6, 6]
  assert found.rule == 'VAL chooses the state that is kept, Test is for test' and not found.left_out
  first, rule, *_ = data.describe(found)
  assert first == '2 classes, training/validation/test images: ant 3/3/3, bee 3/3/3' and rule == f'parts: {found.rule}'
  assert data.facts(found)['classes'][1] == {'name': 'bee', 'training': 3, 'validation': 3, 'test': 3}
  for file in (tmp_path / 'VAL' / 'bee').iterdir():
    file.unlink()
  assert data.describe(_choosing(tmp_path))[2] == 'without a validation image: bee'
  without = data.get(_config(tmp_path))
  assert without.valid is None and without.left_out and without.fingerprint() != found.fingerprint()


@pytest.mark.parametrize('parts', [('train', 'test'), ('train', 'val'), ('',)])
def test_where_no_part_chooses_training_images_are_drawn(tmp_path, parts):
  for part in parts:
    for name, count in (('ant', 25), ('bee', 10)):
      for i in range(count):
        _save(tmp_path / part / name / f'{i:02}.png', 5 * i + (100 if name == 'bee' else 0))
  found, whole = _choosing(tmp_path), data.get(_config(tmp_path))
  if parts != ('',):
    assert np.bincount(found.valid.labels).tolist() == [5, 2] and np.bincount(found.train.labels).tolist() == [20, 8]
  assert '20% of the training images, drawn class by class, choose' in found.rule
  np.testing.assert_array_equal(found.test.images, whole.test.images)
  for kept, all_of_them in ((found, whole),):
    rows = np.concatenate([kept.train.images, kept.valid.images]).reshape(len(all_of_them.train), -1)
    np.testing.assert_array_equal(np.sort(rows[:, 0]), np.sort(all_of_them.train.images[:, 0, 0, 0]))
  np.testing.assert_array_equal(found.valid.images, _choosing(tmp_path).valid.images)


def test_damaged_images_are_left_out_if_asked(tmp_path):
  _parts(tmp_path)
  (tmp_path / 'train' / 'ant' / 'x.png').write_bytes(b'no png')
  _save(tmp_path / 'test' / 'bee' / 'large.png', 1, (30, 30))
  found = _choosing(tmp_path, damaged='skip', max_pixels=500)
  assert len(found.train) + len(found.valid) == 6 and len(found.test) == 6
  (damaged, why), (large, reason) = sorted(found.left_out, reverse=True)
  assert damaged == 'train/ant/x.png' and why.startswith('cannot be read: it is damaged, or none of PNG')
  assert large == 'test/bee/large.png' and '900 pixels' in reason
  for file in (tmp_path / 'train' / 'ant').iterdir():
    file.write_bytes(b'no png')
  with pytest.raises(UserError, match="class 'ant': none of its training images can be read") as e:
    _choosing(tmp_path, damaged='skip')
  one_line(e)
  with pytest.raises(UserError, match="damaged='drop': choose one of refuse, skip"):
    _choosing(tmp_path, damaged='drop')


def test_one_class_alone_is_refused(tmp_path):
  _parts(tmp_path, classes=('ant',))
  with pytest.raises(UserError, match="one class alone, 'ant'") as e:
    data.get(_config(tmp_path))
  one_line(e)


def test_uneven_classes_are_told(tmp_path):
  _parts(tmp_path)
  for i in range(6):
    _save(tmp_path / 'train' / 'ant' / f'more{i}.png', i)
  assert data.describe(data.get(_config(tmp_path)))[-2].startswith('unbalanced: ant has 9 training images, bee 3;')


def test_what_a_survey_finds(tmp_path):
  """From the headers of the files, whatever their sides."""
  _parts(tmp_path, ('',))
  for i in range(5):
    _save(tmp_path / 'ant' / f'wide{i}.png', 1, (90, 50))
  assert data.survey(data_config('folder', dir=str(tmp_path))) == (10, 4, None, True)  # one of eight was for test
  _parts(tmp_path / 'sorted', ('train', 'val', 'test'))
  assert data.survey(data_config('folder', dir=str(tmp_path / 'sorted'), validation=0.5)) == (6, 4, None, True)
