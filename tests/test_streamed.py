"""Data sets that are read from the disk batch by batch: the same images as in memory, whoever decodes them."""

import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
from conftest import SLOW, data_config, one_line
from PIL import Image
from test_tfds import encoded, write

from vimnas_jax import data
from vimnas_jax.data import loader, sources, streamed
from vimnas_jax.errors import UserError

NAMES = 'ant', 'bee', 'cow'


def tree(root, counts=(9, 8, 7), tests=2, side=8, suffix='png', sizes=None):
  """A folder of classes, images of noise around a colour; of `sizes` in turn, or all of `side`."""
  rng = np.random.default_rng(0)
  for part, each in (('train', counts), ('val', [tests] * len(counts))):
    for label, count in enumerate(each):
      folder = root / part / NAMES[label]
      folder.mkdir(parents=True)
      for i in range(count):
        h, w = sizes[i % len(sizes)] if sizes else (side, side)
        pixels = np.clip(rng.normal(60 + 70 * label, 30, (h, w, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f'{i:02}.{suffix}')
  return root


def asked(root, **fields):
  return data_config('folder', **{'dir': str(root), 'image_size': 8, 'stream': True, **fields})


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
  """Of many sizes, cut at random."""
  root = tree(tmp_path_factory.mktemp('photographs'), (30, 30, 30), sizes=((20, 31), (16, 16), (40, 12)), suffix='jpg')
  return data.get(asked(root, smallest=0.08, moments='imagenet'))


def steps(split, batch=20, seed=0):
  drawn = np.random.default_rng(seed).permutation(len(split)).astype(np.int32)
  return [(step, 0, 0, drawn[start:start + batch]) for step, start in enumerate(range(0, len(split), batch))]


def taken(split, rows, workers=0, **fields):
  with loader.Loader(loader.pieces([split], rows, seed=5, **fields), workers) as ahead:
    return [ahead.take(len(places)) for *_, places in rows]


def test_a_streamed_folder_is_the_one_in_memory(tmp_path):
  root = tree(tmp_path, sizes=((20, 31), (16, 16), (40, 12)))
  held, got = (data.get(asked(root, stream=stream)) for stream in (False, True))
  assert isinstance(got.train, data.Streamed) and not isinstance(held.train, data.Streamed)
  pairs = [(held.train, got.train), (held.test, got.test)]
  for limit in (0, 12):
    pairs += zip(data.halves(held, 0.5, limit), data.halves(got, 0.5, limit))
  for one, other in pairs:
    np.testing.assert_array_equal(one.images, other.images[:])
    np.testing.assert_array_equal(one.labels, other.labels)
    batch = taken(other, steps(other))[0]
    np.testing.assert_array_equal(batch.images, one.images[steps(one)[0][-1]])
    np.testing.assert_array_equal(batch.labels, one.labels[steps(one)[0][-1]])
  for field in ('mean', 'std', 'class_names', 'num_classes', 'image_shape', 'recipe', 'left_out', 'shuffled'):
    assert getattr(held, field) == getattr(got, field), field
  assert data.describe(got)[0] == data.describe(held)[0] == '3 classes, training/test images: ant 9/2, bee 8/2, cow 7/2'


def test_what_chooses_the_state_that_is_kept_is_streamed_too(tmp_path):
  """Drawn from the training images, or a part of its own."""
  root = tree(tmp_path / 'folder', (9, 8, 7))
  drawn = [data.get(asked(root, stream=stream, validation=0.25)) for stream in (False, True)]
  shutil.copytree(root / 'val', root / 'test')
  parts = [data.get(asked(root, stream=stream, validation=0.25)) for stream in (False, True)]
  for held, got in (drawn, parts):
    for one, other in ((held.train, got.train), (held.valid, got.valid), (held.test, got.test)):
      np.testing.assert_array_equal(one.images, other.images[:])
      np.testing.assert_array_equal(one.labels, other.labels)
    assert isinstance(got.valid, data.Streamed) and held.rule == got.rule
    assert data.facts(held)['classes'] == data.facts(got)['classes'] and data.describe(held)[0] == data.describe(got)[0]
    assert len(got.valid) == 6 and len(got.train) == (18 if got is drawn[1] else 24)
  one, other = data.limited(parts[0].valid, 4, 3), data.limited(parts[1].valid, 4, 3)
  np.testing.assert_array_equal(one.labels, other.labels)
  write(tmp_path, [encoded(np.zeros((8, 8, 3), np.uint8))] * 12, shape=(8, 8, 3))
  with pytest.raises(UserError, match='validation=0.25: images of .tfds/made. are streamed, and their labels') as e:
    data.get(data_config('tfds/made', dir=str(tmp_path), stream=True, validation=0.25))
  one_line(e)


@pytest.mark.parametrize('shape', [(8, 8, 3), (8, 8, 1), (None, None, 3)])
def test_streamed_records_are_those_in_memory(tmp_path, shape):
  rng = np.random.default_rng(0)
  pictures = [rng.integers(0, 256, (8, 8, 3) if shape[-1] == 3 else (8, 8), dtype=np.uint8) for _ in range(12)]
  write(tmp_path, [encoded(image) for image in pictures], shape=shape)
  held, got = (data.get(data_config('tfds/made', dir=str(tmp_path), image_size=8, stream=stream))
               for stream in (False, True))
  assert not got.train.known and data.describe(got)[0] == (
      '2 classes, training/test images: 12/12; labels are read with the images')
  assert data.facts(got)['images'] == data.facts(held)['images'] and data.facts(got)['classes'] == [
      {'name': 'ant'}, {'name': 'bee'}]
  assert len(data.limited(got.train, 5, 2)) == 5 and not got.train.known
  for one, other in zip(data.halves(held, 0.5), data.halves(got, 0.5)):
    np.testing.assert_array_equal(one.images, other.images[:])
    for mine, its in zip(one.batch(2, 5), other.batch(2, 5)):
      np.testing.assert_array_equal(mine, its)
    assert not other.known  # to halve what is shuffled takes no label, nor does a batch those of others
    batch = taken(other, steps(other))[0]
    np.testing.assert_array_equal(batch.labels, one.labels[steps(one)[0][-1]])
  assert (held.mean, held.std, held.image_shape, held.recipe) == (got.mean, got.std, got.image_shape, got.recipe)
  np.testing.assert_array_equal(got.train.labels, held.train.labels)
  assert got.train.known
  cut = data.get(data_config('tfds/made', dir=str(tmp_path), image_size=8, stream=True, smallest=0.1))
  assert taken(cut.train, steps(cut.train))[0].images.shape == (12, *held.image_shape)


@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=SLOW), pytest.param(2, marks=SLOW)])
def test_workers_processes_and_a_resume_give_the_same_images(photographs, workers):
  split = photographs.train
  rows = steps(split)
  want = taken(split, rows)
  assert len({image.tobytes() for batch in want for image in batch.images}) == 90
  for got in (taken(split, rows, workers), [*taken(split, rows[:2], workers), *taken(split, rows[2:])]):
    for one, other in zip(want, got):
      np.testing.assert_array_equal(one.images, other.images)
      np.testing.assert_array_equal(one.labels, other.labels)
  halves = [taken(split, [(step, 0, i * len(places) // 2, np.split(places, 2)[i]) for step, _, _, places in rows])
            for i in (0, 1)]  # two processes, each of which decodes its own rows
  for one, first, second in zip(want, *halves):
    np.testing.assert_array_equal(one.images, np.concatenate([first.images, second.images]))
  another = taken(split, [(step + 1, *rest) for step, *rest in rows])[0]
  assert (another.images != want[0].images).any()  # of another step
  whole = taken(split, rows, trained=False)[0]
  np.testing.assert_array_equal(whole.images, split.images[rows[0][-1]])
  assert (whole.images != want[0].images).any()


def test_photographs_are_evaluated_as_on_imagenet(photographs):
  assert photographs.recipe['shorter_side'] == round(8 * 256 / 224) and photographs.recipe['resampling'] == 'bilinear'
  found = list(loader.evaluated(photographs.test, 4, 0))
  assert [len(batch.labels) for batch in found] == [4, 2] and all(batch.real.all() for batch in found)
  np.testing.assert_array_equal(np.concatenate([batch.images for batch in found]), photographs.test.images[:])


def damage(root, *names):
  for name in names:
    path = root / 'train' / name
    path.write_bytes(path.read_bytes()[:60])


def test_the_next_readable_image_stands_in_for_a_damaged_one(tmp_path):
  root = tree(tmp_path)
  whole = data.get(asked(root, moments='imagenet')).train
  images = whole.images[:]
  damage(root, 'ant/03.png', 'ant/04.png', 'cow/06.png')  # the last image of all: round to the first
  got = data.get(asked(root, moments='imagenet')).train
  for batch in (16, 24):
    found = taken(got, [(0, 0, 0, np.arange(24)[::-1][:batch])])[0]
    want = [{3: 5, 4: 5, 23: 0}.get(i, i) for i in range(24)][::-1][:batch]
    np.testing.assert_array_equal(found.images, images[want])
    np.testing.assert_array_equal(found.labels, whole.labels[want])
  assert sorted({name for name, _ in found.damaged}) == ['train/ant/03.png', 'train/ant/04.png', 'train/cow/06.png']
  half = got.take(np.array([4, 20, 3, 7]))  # a part keeps to itself
  np.testing.assert_array_equal(taken(half, [(0, 0, 0, np.arange(4))])[0].images, images[[20, 20, 7, 7]])
  kept = taken(half, [(0, 0, 0, np.arange(4))], trained=False)[0]
  assert kept.real.tolist() == [False, True, False, True] and not kept.images[0].any()
  with pytest.raises(UserError, match=r'2 images, train/ant/04.png and those after it, cannot be read') as e:
    taken(got.take(np.array([4, 3])), [(0, 0, 0, np.arange(2))])
  one_line(e)


@pytest.mark.parametrize('workers', [0, 1])
def test_a_failed_read_is_no_damage(tmp_path, workers):
  got = data.get(asked(tree(tmp_path), moments='imagenet')).train
  (tmp_path / 'train' / 'ant' / '03.png').unlink()
  with pytest.raises(UserError, match=r'ant/03.png \(No such file or directory\): make it readable') as e:
    taken(got, [(0, 0, 0, np.arange(24))], workers)
  one_line(e)


def test_an_image_that_is_too_large_counts_as_damaged(tmp_path):
  Image.new('RGB', (20, 20)).save(tree(tmp_path) / 'train' / 'ant' / '00.png')
  got = data.get(asked(tmp_path, moments='imagenet', max_pixels=64)).train
  batch = taken(got, [(0, 0, 0, np.arange(4))])[0]
  assert [name for name, _ in batch.damaged] == ['train/ant/00.png'] and batch.real.all()
  assert '20x20 are 400 pixels, more than config.data.max_pixels=64' in batch.damaged[0][1]


@SLOW
def test_a_worker_that_dies_is_told(photographs):
  rows = [(step, 0, 0, np.arange(20)) for step in range(200)]
  with loader.Loader(loader.pieces([photographs.train], rows), 1) as ahead:
    ahead.take(20)
    worker, = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(UserError, match='a process that decodes images ended .* lower config.data.workers') as e:
      for _ in rows[1:]:
        ahead.take(20)
    one_line(e)
  assert not multiprocessing.active_children()


def test_the_fingerprint_is_of_names_and_sizes(tmp_path):
  root = tree(tmp_path / 'one')
  before = data.get(asked(root)).fingerprint()
  assert before != data.get(asked(root, stream=False)).fingerprint()
  assert before != data.get(asked(root, image_size=9)).fingerprint()
  shutil.copytree(root, tmp_path / 'other')
  assert data.get(asked(tmp_path / 'other')).fingerprint() == before
  path = tmp_path / 'other' / 'train' / 'ant' / '03.png'
  path.write_bytes(path.read_bytes() + b'\0')
  assert data.get(asked(tmp_path / 'other')).fingerprint() != before
  path.rename(path.with_name('33.png'))
  renamed = data.get(asked(tmp_path / 'other'))
  assert renamed.fingerprint() not in (before, data.get(asked(root)).fingerprint())


def test_the_choice_is_by_size_unless_it_is_made(tmp_path, monkeypatch):
  root = tree(tmp_path)
  size = 30 * 8 * 8 * 3
  for memory, device, stream, says in (
      (4 * size, 0, None, '30 images of 8x8x3 are 5760 bytes decoded: held in memory'),
      (4 * size - 1, 0, None, 'more than a quarter of 23039 bytes of memory: streamed'),
      (10**12, 4 * size - 1, None, "a quarter of 23039 bytes of a device's memory: streamed"),
      (1, 1, False, 'held in memory, as config.data.stream asks'), (10**12, 0, True, 'streamed, as config.data')):
    monkeypatch.setattr(streamed, '_memory', lambda memory=memory: memory)
    monkeypatch.setattr(streamed, '_device_memory', lambda device=device: device)
    got = data.get(asked(root, stream=stream))
    assert says in data.describe(got)[-1] and isinstance(got.train, data.Streamed) == ('streamed' in says)
  assert streamed.cores() > 0


def test_what_cannot_be_streamed_is_refused(tmp_path):
  root = tree(tmp_path)
  write(tmp_path, [encoded(np.zeros((8, 8, 3), np.uint8))] * 12, shape=(8, 8, 3))
  for name, fields, says in (('synthetic', {}, "stream=True is for image files .*'synthetic' has not"),
                             ('folder', {'dir': str(root), 'shrink': 2}, 'shrink=2 is for images that are held'),
                             ('tfds/made', {'dir': str(tmp_path), 'photographs': 20, 'smallest': 0.1},
                              "photographs=20 is for images of many sizes .*'tfds/made' has not")):
    with pytest.raises(UserError, match=says) as e:
      data.get(data_config(name, stream=True, **fields))
    one_line(e)


def test_mean_and_std_are_those_of_a_sample(tmp_path, monkeypatch):
  got = data.get(asked(tree(tmp_path)))
  monkeypatch.setattr(streamed, 'SAMPLE', 10)
  sampled = data.get(asked(tmp_path))
  assert sampled.mean != got.mean
  np.testing.assert_allclose(sampled.mean, got.mean, atol=0.1)
  assert data.get(asked(tmp_path)).mean == sampled.mean
  monkeypatch.setattr(streamed.Streamed, 'read', None)  # no pixel is read for those of ImageNet
  assert data.get(asked(tmp_path, moments='imagenet')).mean == (0.485, 0.456, 0.406)


def test_what_workers_are_sent_is_small(tmp_path):
  names = [[f'n{label:08}_{i:05}.JPEG' for i in range(1300)] for label in range(100)]
  source = sources.Files(tmp_path, [f'train/n{label:08}' for label in range(100)], names)
  assert len(source) == 130_000 and source.name(1301) == 'train/n00000001/n00000001_00001.JPEG'
  assert source.name(0) == 'train/n00000000/n00000000_00000.JPEG' and source.name(129_999).endswith('_01299.JPEG')
  assert len(pickle.dumps(source)) < 40 * len(source)
  again = pickle.loads(pickle.dumps(source))
  assert again.name(777) == source.name(777) and (again.labels == source.labels).all()


def test_records_of_unknown_labels_are_told(tmp_path):
  write(tmp_path, [encoded(np.zeros((4, 4, 3), np.uint8))] * 2, labels=[0, 2])
  got = data.get(data_config('tfds/made', dir=str(tmp_path), image_size=4, stream=True, moments='imagenet'))
  with pytest.raises(UserError, match=r'label 2 of image 1 of train is outside 0\.\.1') as e:
    taken(got.train, [(0, 0, 0, np.arange(2))])
  one_line(e)
