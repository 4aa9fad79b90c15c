"""Images of your own: a folder with one folder of images per class.

`DIR/train/CLASS/*` and `DIR/test/CLASS/*` (the names of the parts in any case, and those of PARTS); or `DIR/CLASS/*`
alone, of which every fifth image of a class, by name, is for test. With config.data.validation above 0, `val` beside
`test` is read too and chooses what a retraining keeps; where only one of the two is there, it is for test (and parts.py
draws what chooses). Classes are numbered in the order of their names.
Every regular file that pixels.FORMATS describe is read, whatever its suffix; what is not read is named in
`Data.left_out`, other than hidden files. Images are brought to config.data.image_size pixels a side: scaled so that the
shorter side fits, then cut at the centre. What fits is held in memory, a side of 224 takes 0.15 GB for a thousand
images; larger sets are streamed (streamed.py).
"""

import concurrent.futures
import errno
import math
import os
import pathlib

import numpy as np

from vimnas_jax.data import pixels, sources, streamed
from vimnas_jax.data.types import AnySplit, Data, Split
from vimnas_jax.errors import UserError
from vimnas_jax.files import close, composed, printable

PARTS = {'train': ('train', 'training'), 'test': ('test', 'testing', 'val', 'valid', 'validation')}
CHOOSING = PARTS['test'][2:]  # beside one of the others
EVERY = 5  # of a class, for test, where the folder has no split of its own
BY_NAME = f'every {EVERY}th image of a class, by name, is for test'  # begins the rule of such data
DAMAGED = ('refuse', 'skip')  # of config.data.damaged
_LOOKED_AT = 500  # files whose sizes are asked
_LAYOUT = 'train/CLASS/* and test/CLASS/*, or CLASS/* alone'
_NOT_READ = ('.heic', '.heif', '.svg', '.eps', '.ps', '.pdf', '.wmf', '.emf', '.raw', '.dng', '.cr2', '.nef', '.arw',
             '.jxl', '.exr', '.hdr')


def load(config) -> Data:
  """The images below config.dir, uint8 [n, image_size, image_size, 3], in memory or streamed.

  Args:
    config: `dir`, `image_size`, `max_pixels`, `photographs`, `validation`, `damaged`, `stream`; where it is streamed
      also `smallest` and `moments`, and `damaged` is not asked.

  Raises:
    UserError: no such folder, no images, classes that differ between the splits, a class without images, or a file or
      folder that cannot be read; a damaged image, unless `damaged` is 'skip' or it is streamed.
  """
  if config.damaged not in DAMAGED:
    raise UserError(f'config.data.damaged={config.damaged!r}: choose one of {", ".join(DAMAGED)}')
  recipes = pixels.recipes(config)
  found = _opened(config)
  train, test, valid = found.parts(bool(config.validation))
  names = sorted(train)
  side = config.photographs or config.image_size
  count = sum(len(files) for part in (train, test, valid) for files in part.values())
  stream, told = streamed.chosen(config, count, (side, side, 3))
  splits: list[AnySplit]
  if stream:
    splits = [_streamed(part, names, found.root, config) for part in (train, test, valid)]
    stats = streamed.stats(config, splits[0])
  else:
    splits = [_read(found, part, names, recipe, config, training)
              for part, recipe, training in ((train, recipes[0], True), (test, recipes[1], False),
                                             (valid, recipes[1], False))]
    stats = pixels.moments(splits[0].images)
  return Data(config.name, splits[0], splits[1], len(names), *stats, valid=splits[2] if valid else None,
              rule=found.rule, class_names=tuple(map(printable, names)), left_out=tuple(sorted(found.left_out)),
              recipe=pixels.streamed(config) if stream else recipes[1], shuffled=False,
              side=config.image_size if config.photographs and not stream else 0, placement=told)


def _streamed(part, names, root, config) -> streamed.Streamed:
  files = [part.get(name, ()) for name in names]
  folders = [os.path.relpath(paths[0].parent, root) if paths else name for name, paths in zip(names, files)]
  source = sources.Files(root, folders, [[path.name for path in paths] for paths in files])
  side = config.image_size
  form = streamed.Form((side, side, 3), pixels.streamed(config), config.smallest, config.max_pixels)
  return streamed.Streamed(source, np.arange(len(source), dtype=np.int32), form)


def survey(config) -> tuple[int, int, bool]:
  """How many training images there are, the median of their shorter sides in pixels, and whether others choose.

  The headers of at most _LOOKED_AT files are read. Raises UserError as `load` for the layout.
  """
  train, _, valid = _opened(config).parts(bool(config.validation))
  files = [path for part in train.values() for path in part]
  sides = [side for path in files[::math.ceil(len(files) / _LOOKED_AT)] if (side := pixels.shorter_side(path))]
  return len(files), int(np.median(sides)) if sides else 0, bool(valid)


def within(config, place) -> str:
  """Where the folder `place` lies among classes of `config` (config.dir), of which it would be one or part of one; ''
  where it lies elsewhere.
  """
  root, place = pathlib.Path(os.path.expanduser(config.dir)), pathlib.Path(place).resolve()
  if not config.dir or not os.path.isdir(root) or not place.is_relative_to(root := root.resolve()):
    return ''
  try:
    beside = {entry.name.lower() for entry in root.iterdir() if entry.is_dir()}
  except OSError:  # told where it is read
    return ''
  first = place.relative_to(root).parts[:1]
  if all(beside & set(names) for names in PARTS.values()):  # what lies beside the parts is left out
    return str(root / first[0]) if first and first[0].lower() in (*PARTS['train'], *PARTS['test']) else ''
  return '' if first and first[0].startswith('.') else str(root)


def _opened(config):
  root = pathlib.Path(os.path.expanduser(config.dir))
  if not config.dir or not os.path.isdir(root):  # which is False where it cannot be told
    raise UserError(f'config.data.dir={config.dir!r} is no folder: give one that holds {_LAYOUT}')
  return _Folder(root)


class _Folder:
  """What lies below a folder, and what of it was left out."""

  def __init__(self, root):
    self.root, self.left_out, self.rule = root, [], ''

  def parts(self, choosing: bool = False):
    """({class: images} of training, that of test, that of what chooses), sorted by name.

    The last is {} where there is no such part, or it is not wanted.
    """
    folders, others = self._inside(self.root)
    named = {part: [f for name in names for f in folders if f.name.lower() == name] for part, names in PARTS.items()}
    where = printable(self.root)
    for have in named.values():
      same = [f.name for f in have if f.name.lower() == have[0].name.lower()]
      if len(same) > 1:
        raise UserError(f'{where} has both {same[0]} and {same[1]}: remove or rename one')
    if not named['train'] and folders and len(named['test']) == len(folders):
      raise UserError(f'{where} has a folder {printable(named["test"][0].name)} but none called train: add one, or '
                      'give the folder of the classes')
    if named['train'] and not named['test'] and len(folders) > 1 and self._holds_images(named['train'][0]):
      named['train'] = []  # a class, of trains
    if named['train'] and not named['test']:
      raise UserError(f'{where} has a folder {printable(named["train"][0].name)} but none called '
                      f'{", ".join(PARTS["test"])}: add one, or give the folder of the classes, of which every fifth '
                      'image is then for test')
    for file in others:
      self._leave(file, self._reason(file) or 'an image beside the folders')
    if not named['train']:
      whole = self._classes(self.root, folders)
      train = {name: [f for i, f in enumerate(files) if i % EVERY != EVERY - 1] for name, files in whole.items()}
      test = {name: files[EVERY - 1::EVERY] for name, files in whole.items()}
      if not any(test.values()):
        raise UserError(f'{where}: no class has {EVERY} images, of which every fifth is for test: add images, or put '
                        'them into train/CLASS/* and test/CLASS/*')
      self.rule = BY_NAME
      return train, test, {}
    train, test, *more = named['train'][0], *named['test']
    valid = next((f for f in more if f.name.lower() in CHOOSING and test.name.lower() not in CHOOSING), None)
    valid = valid if choosing else None
    if valid:
      self.rule = f'{valid.name} chooses the state that is kept, {test.name} is for test'
    elif test.name.lower() in CHOOSING:
      self.rule = f'{test.name} is for test'
    for folder in folders:
      if folder not in (train, test, valid):
        self._leave(folder, f'a folder beside {train.name} and {test.name}')
    parts = [self._classes(train), self._classes(test, training=False),
             self._classes(valid, training=False) if valid else {}]
    for folder, part in zip((test, valid), parts[1:]):
      if strange := sorted(set(part) - set(parts[0])):
        raise UserError(f'{printable(folder)} has the class {printable(strange[0])!r}, which {printable(train)} lacks'
                        f'{close(strange[0], sorted(parts[0]))}: remove or add it')
      if folder and not any(part.values()):
        raise UserError(f'no class of {printable(folder)} has an image: add some, or remove that folder')
    return parts

  def _classes(self, folder, classes=None, training=True):
    """{class: images} of a folder of classes; of one for training every class must have some."""
    if classes is None:
      classes, others = self._inside(folder)
      for file in others:
        self._leave(file, self._reason(file) or 'an image beside the folders')
    if not classes:
      raise UserError(f'{printable(folder)} holds no folder of a class: give one that holds {_LAYOUT}')
    found = {}
    for path in classes:
      below, files = self._inside(path)
      for other in below:
        self._leave(other, 'a folder below that of a class')
      name = composed(path.name)  # train/ of a Mac and test/ of another machine have the same classes
      if name in found:
        raise UserError(f'{printable(folder)} has two folders called {printable(name)!r}, whose accents are encoded '
                        'in two ways: rename one of them, or make them one')
      found[name] = []
      for file in files:
        if reason := self._reason(file):
          self._leave(file, reason)
        else:
          found[name].append(file)
      if training and not found[name]:
        told = f'class {printable(name)!r} has no training image: {printable(path)} holds none'
        raise UserError(f'{told}, only {printable(below[0].name)} and what lies below: put the images of a class right '
                        f'into its folder, or, where these are the classes, give {printable(path)} as config.data.dir'
                        if below else f'{told}: add some, or remove the folder')
    if training and len(found) == 1:
      raise UserError(f'{printable(folder)} holds one class alone, {printable(classes[0].name)!r}: a network tells '
                      'classes apart; add a folder of another')
    return found

  def _inside(self, folder):
    """(folders, others) directly in a folder, each sorted by name, without hidden ones."""
    found = [], []
    try:
      with os.scandir(folder) as entries:
        for entry in entries:
          if not entry.name.startswith('.'):
            found[not _is_folder(entry)].append(folder / entry.name)
    except OSError as e:
      raise UserError(f'cannot read the folder {printable(folder)} ({e.strerror}): make it readable, and run '
                      'again') from None
    return tuple(map(sorted, found))

  def _holds_images(self, folder) -> bool:
    """Whether images lie in a folder, and no folders: that of a class."""
    below, files = self._inside(folder)
    return not below and any(not self._reason(file) for file in files)

  def _leave(self, path, reason):
    name = printable(path.relative_to(self.root))
    if path.is_dir():
      count = sum(len(files) for _, _, files in os.walk(path))
      name = f'{name}/ with {count} file{"" if count == 1 else "s"}'
    self.left_out.append((name, reason))

  @staticmethod
  def _reason(file):
    """Why a file is not read; '' if it is to be. One that is called an image is one, or is told when it is read."""
    suffix = file.suffix.lower()
    try:
      if reason := pixels.irregular(file):
        return reason
      if suffix in pixels.SUFFIXES or pixels.is_image(file):
        return ''
    except OSError as e:
      if suffix not in pixels.SUFFIXES and e.errno in (errno.ENOENT, errno.ELOOP):
        return 'a link to nothing'
      raise UserError(f'cannot read {printable(file)} ({e.strerror}): make it readable, or remove it') from None
    return f'{suffix[1:].upper()}, which is not read' if suffix in _NOT_READ else 'no image'


def _is_folder(entry):
  try:
    return entry.is_dir()
  except OSError:  # such as a link to itself: no folder, and told when it is looked at
    return False


def _read(found, part, names, recipe, config, training) -> Split:
  """The images of a part."""
  files = [(path, label) for label, name in enumerate(names) for path in part.get(name, ())]
  side = recipe['side']
  try:
    images = np.empty((len(files), side, side, 3), np.uint8)  # [n, h, w, c]
  except (MemoryError, ValueError):
    raise UserError(f'config.data.image_size={config.image_size}: {len(files)} images of {side}x{side} do not fit into '
                    'memory; lower it') from None
  aspects, whole = np.empty(len(files), np.float32), np.ones(len(files), bool)

  def read(i):
    try:
      images[i], aspects[i] = pixels.read_with_aspect(files[i][0], recipe, config.max_pixels)
    except pixels.Damaged as e:
      if config.damaged != 'skip':
        raise
      whole[i] = False
      return e.reason
    return ''

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for (path, _), reason in zip(files, pool.map(read, range(len(files)))):
      if reason:
        found.left_out.append((printable(path.relative_to(found.root)), f'cannot be read: {reason}'))
  labels = np.array([label for _, label in files], np.int32)
  if not whole.all():
    images, labels, aspects = images[whole], labels[whole], aspects[whole]
    for label in set(range(len(names))) - set(labels.tolist()) if training else ():
      raise UserError(f'class {printable(names[label])!r}: none of its training images can be read: replace them, or '
                      'remove the folder')
  kept = [printable(path.relative_to(found.root)) for (path, _), good in zip(files, whole) if good]
  return Split(images, labels, aspects if recipe['fit'] == 'squeeze' else None, np.array(kept, object))
