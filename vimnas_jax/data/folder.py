"""Images of your own: a folder with one folder of images per class.

`DIR/train/CLASS/*` and `DIR/test/CLASS/*` (also called `val` or `valid`); or `DIR/CLASS/*` alone, of which every fifth
image of a class, by name, is for test. Classes are numbered in the order of their names. Images are brought to
config.data.image_size pixels a side: scaled so that the shorter side fits, then cut at the centre; transparency goes to
black. All are held in memory, so a side of 224 takes 0.15 GB for a thousand images.
"""

import concurrent.futures
import os
import pathlib

import numpy as np

from vimnas_jax.data import pixels
from vimnas_jax.data.types import Data, Split
from vimnas_jax.errors import UserError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.ppm', '.pgm', '.tif', '.tiff', '.gif')
TESTS = ('test', 'val', 'valid', 'validation')
EVERY = 5  # of a class, for test, where the folder has no split of its own


def load(config) -> Data:
  """The images below config.dir, uint8 [n, image_size, image_size, 3].

  Args:
    config: `dir` and `image_size`.

  Raises:
    UserError: no such folder, no images, classes that differ between the splits, or an image that cannot be read.
  """
  root = pathlib.Path(config.dir).expanduser()
  if not config.dir or not root.is_dir():
    raise UserError(f'config.data.dir={config.dir!r} is no folder: give one that holds train/CLASS/* and test/CLASS/*, '
                    'or CLASS/* alone')
  if config.image_size < 1:
    raise UserError(f'config.data.image_size={config.image_size} must be at least 1')
  if (root / 'train').is_dir():
    other = next((root / name for name in TESTS if (root / name).is_dir()), None)
    if other is None:
      raise UserError(f'{root} has a folder train but none called {", ".join(TESTS)}: add one, or give the folder of '
                      'the classes, of which every fifth image is then for test')
    train, test = _classes(root / 'train'), _classes(other)
    if strange := sorted(set(test) - set(train)):
      raise UserError(f'{other} has the class {strange[0]!r}, which {root / "train"} lacks: remove or add it')
  else:
    whole = _classes(root)
    train = {name: [f for i, f in enumerate(files) if i % EVERY != EVERY - 1] for name, files in whole.items()}
    test = {name: files[EVERY - 1::EVERY] for name, files in whole.items()}
  names = sorted(train)
  train, test = (_read(split, names, config.image_size) for split in (train, test))
  return Data(config.name, train, test, len(names), *pixels.moments(train.images))


def _classes(folder) -> dict[str, list[pathlib.Path]]:
  """Class -> its images, both sorted by name."""
  found = {path.name: sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith('.'))
           for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith('.')}
  if not found:
    raise UserError(f'{folder} holds no folder of a class: give one that holds train/CLASS/* and test/CLASS/*, or '
                    'CLASS/* alone')
  return found


def _read(split, names, side) -> Split:
  files = [(path, label) for label, name in enumerate(names) for path in split.get(name, ())]
  images = np.empty((len(files), side, side, 3), np.uint8)  # [n, h, w, c]

  def read(i):
    images[i] = _image(files[i][0], side)

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for _ in pool.map(read, range(len(files))):
      pass
  return Split(images, np.array([label for _, label in files], np.int32))


def _image(path, side):
  from PIL import Image
  try:
    with Image.open(path) as file:
      return pixels.square(file, side)
  except Exception as e:  # Pillow raises many kinds for a damaged file
    reason = ' '.join(str(e).split())[:100]
    raise UserError(f'cannot read the image {path} ({type(e).__name__}: {reason}): repair or remove it') from None
