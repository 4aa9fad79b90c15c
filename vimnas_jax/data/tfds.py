"""Reads what TensorFlow Datasets prepared as ArrayRecord files, without TensorFlow.

Any of its image classification sets is a data set here, `tfds/NAME`: with features `image` and `label`, a split `train`
and one of TESTS. Images whose size is not fixed are brought to config.data.image_size pixels a side, as those of a
folder. All are held in memory.
"""

import contextlib
import io
import logging
import pathlib
import re
import warnings

import numpy as np

from vimnas_jax.data import pixels
from vimnas_jax.data.types import Data, Split
from vimnas_jax.errors import UserError

PREFIX = 'tfds/'
TESTS = ('test', 'validation')  # the first that there is
_BLOCK = 1000  # records held undecoded at a time


def find(root: pathlib.Path, name: str) -> pathlib.Path | None:
  """The folder of the newest version of `name` below the TFDS data folder `root`, or None if there is none."""
  versions = [path.parent for path in root.glob(f'{name}/*/dataset_info.json')
              if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)]
  return max(versions, key=lambda path: [int(n) for n in path.name.split('.')], default=None)


@contextlib.contextmanager
def _quiet():
  """Keeps the remarks of TFDS (missing OpenCV, missing credentials) off the console."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logger.setLevel(level)


def _read_split(builder, part: str, skip, side: int) -> Split:
  from PIL import Image
  source = builder.as_data_source(split=part, decoders={'image': skip})
  shape = builder.info.features['image'].shape
  fixed = None not in shape
  images = np.empty((len(source), *(shape if fixed else (side, side, 3))), np.uint8)  # [n, h, w, c]
  labels = np.empty(len(source), np.int32)
  for start in range(0, len(source), _BLOCK):
    block = source.__getitems__(range(start, min(start + _BLOCK, len(source))))
    for i, record in enumerate(block, start):
      # A thread pool is slower here: the work on a small image is mostly Python's.
      image = Image.open(io.BytesIO(record['image']))
      images[i] = np.asarray(image).reshape(shape) if fixed else pixels.square(image, side)
      labels[i] = record['label']
  return Split(images, labels)


def read(path: pathlib.Path, side: int = 0) -> tuple[Split, Split, int]:
  """The training and test splits, and the number of classes, of the data set in the version folder `path`.

  Args:
    path: the folder of dataset_info.json.
    side: to which images are brought whose size is not fixed, in pixels.

  Raises:
    UserError: the files are damaged, incomplete, of another format, or hold no images with labels.
  """
  with _quiet():
    import tensorflow_datasets as tfds  # slow to import, so only when asked for
    try:
      builder = tfds.builder_from_directory(path)
      features, skip = builder.info.features, tfds.decode.SkipDecoding()
      test = next((name for name in TESTS if name in builder.info.splits), None)
      if 'train' not in builder.info.splits or not test or not {'image', 'label'} <= set(features):
        raise LookupError(f'it has splits {", ".join(builder.info.splits)} and features {", ".join(features)}; wanted '
                          f'are train and {" or ".join(TESTS)}, image and label')
      return (*(_read_split(builder, part, skip, side) for part in ('train', test)), features['label'].num_classes)
    except Exception as e:  # TFDS and array_record raise whatever they please
      reason = ' '.join(str(e).split())[:200]
      raise UserError(f'cannot read the TFDS data in {path} ({type(e).__name__}: {reason}); prepare it again with '
                      'file_format=array_record, or set config.data.dir elsewhere') from None


def load(config) -> Data:
  """The set `tfds/NAME` or `tfds/NAME/CONFIG`, uint8 [n, h, w, c].

  Args:
    config: `name`, `dir` (a TFDS data folder) and `image_size`.

  Raises:
    UserError: nothing there, or what `read` raises.
  """
  name, root = config.name.removeprefix(PREFIX), pathlib.Path(config.dir).expanduser()
  version = find(root, name) if name and config.dir else None
  if version is None:
    raise UserError(f'config.data.name={config.name!r}: no {name}/VERSION/dataset_info.json under config.data.dir='
                    f'{config.dir!r}; prepare it with tfds build --file_format=array_record, or set config.data.dir to '
                    'the TFDS data folder')
  if config.image_size < 1:
    raise UserError(f'config.data.image_size={config.image_size} must be at least 1')
  train, test, classes = read(version, config.image_size)
  return Data(config.name, train, test, classes, *pixels.moments(train.images))
