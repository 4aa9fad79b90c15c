"""Images of your own: a folder with one folder of images per class.

`DIR/train/CLASS/*` and `DIR/test/CLASS/*` (the names of the parts in any case, and those of PARTS); or `DIR/CLASS/*`
alone, of which every fifth image of a class, by name, is for test. Classes are numbered in the order of their names.
Every regular file that pixels.FORMATS describe is read, whatever its suffix; what is not read is named in
`Data.left_out`, other than hidden files. Images are brought to config.data.image_size pixels a side: scaled so that the
shorter side fits, then cut at the centre. What fits is held in memory, a side of 224 takes 0.15 GB for a thousand
images; larger sets are streamed (streamed.py).
"""

import concurrent.futures
import errno
import os
import pathlib

import numpy as np

from vimnas_jax.data import pixels, sources, streamed
from vimnas_jax.data.types import Data, Split
from vimnas_jax.errors import UserError
from vimnas_jax.files import printable

PARTS = {'train': ('train', 'training'), 'test': ('test', 'testing', 'val', 'valid', 'validation')}
EVERY = 5  # of a class, for test, where the folder has no split of its own
_LAYOUT = 'train/CLASS/* and test/CLASS/*, or CLASS/* alone'
_NOT_READ = ('.heic', '.heif', '.svg', '.eps', '.ps', '.pdf', '.wmf', '.emf', '.raw', '.dng', '.cr2', '.nef', '.arw',
             '.jxl', '.exr', '.hdr')


def load(config) -> Data:
  """The images below config.dir, uint8 [n, image_size, image_size, 3], in memory or streamed.

  Args:
    config: `dir`, `image_size`, `max_pixels`, `photographs`, `stream`; where it is streamed also `smallest` and
      `moments`.

  Raises:
    UserError: no such folder, no images, classes that differ between the splits, a class without images, or a file or
      folder that cannot be read.
  """
  root = pathlib.Path(os.path.expanduser(config.dir))
  if not config.dir or not os.path.isdir(root):  # which is False where it cannot be told
    raise UserError(f'config.data.dir={config.dir!r} is no folder: give one that holds {_LAYOUT}')
  recipes = pixels.recipes(config)
  found = _Folder(root)
  train, test = found.parts()
  names = sorted(train)
  side = config.photographs or config.image_size
  count = sum(len(files) for part in (train, test) for files in part.values())
  stream, told = streamed.chosen(config, count, (side, side, 3))
  if stream:
    splits = [_streamed(part, names, root, config) for part in (train, test)]
    stats = streamed.stats(config, splits[0])
  else:
    splits = [_read(part, names, recipe, config) for part, recipe in zip((train, test), recipes)]
    stats = pixels.moments(splits[0].images)
  return Data(config.name, *splits, len(names), *stats, class_names=tuple(map(printable, names)),
              left_out=tuple(sorted(found.left_out)), recipe=pixels.streamed(config) if stream else recipes[1],
              shuffled=False, side=config.image_size if config.photographs and not stream else 0, placement=told)


def _streamed(part, names, root, config) -> streamed.Streamed:
  files = [part.get(name, ()) for name in names]
  folders = [os.path.relpath(paths[0].parent, root) if paths else name for name, paths in zip(names, files)]
  source = sources.Files(root, folders, [[path.name for path in paths] for paths in files])
  side = config.image_size
  form = streamed.Form((side, side, 3), pixels.streamed(config), config.smallest, config.max_pixels)
  return streamed.Streamed(source, np.arange(len(source), dtype=np.int32), form)


class _Folder:
  """What lies below a folder, and what of it was left out."""

  def __init__(self, root):
    self.root, self.left_out = root, []

  def parts(self):
    """({class: images} of training, that of test), sorted by name."""
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
      return train, test
    train, test = named['train'][0], named['test'][0]
    for folder in folders:
      if folder not in (train, test):
        self._leave(folder, f'a folder beside {train.name} and {test.name}')
    parts = [self._classes(train), self._classes(test, training=False)]
    if strange := sorted(set(parts[1]) - set(parts[0])):
      raise UserError(f'{printable(test)} has the class {printable(strange[0])!r}, which {printable(train)} lacks: '
                      'remove or add it')
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
      found[path.name] = []
      for file in files:
        if reason := self._reason(file):
          self._leave(file, reason)
        else:
          found[path.name].append(file)
      if training and not found[path.name]:
        more = f', only {printable(below[0].name)} and what lies below' if below else ''
        raise UserError(f'class {printable(path.name)!r} has no training image: {printable(path)} holds none{more}: '
                        'add some, or remove the folder')
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


def _read(part, names, recipe, config) -> Split:
  files = [(path, label) for label, name in enumerate(names) for path in part.get(name, ())]
  side = recipe['side']
  try:
    images = np.empty((len(files), side, side, 3), np.uint8)  # [n, h, w, c]
  except (MemoryError, ValueError):
    raise UserError(f'config.data.image_size={config.image_size}: {len(files)} images of {side}x{side} do not fit into '
                    'memory; lower it') from None
  aspects = np.empty(len(files), np.float32)

  def read(i):
    images[i], aspects[i] = pixels.read_with_aspect(files[i][0], recipe, config.max_pixels)

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for _ in pool.map(read, range(len(files))):
      pass
  labels = np.array([label for _, label in files], np.int32)
  return Split(images, labels, aspects if recipe['fit'] == 'squeeze' else None)
