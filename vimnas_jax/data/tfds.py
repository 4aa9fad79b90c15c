"""Reads what TensorFlow Datasets prepared as ArrayRecord files, without TensorFlow."""

import contextlib
import io
import logging
import pathlib
import re
import warnings

import numpy as np

from vimnas_jax.data.types import Split
from vimnas_jax.errors import UserError

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


def _read_split(builder, part: str, skip) -> Split:
  from PIL import Image
  source = builder.as_data_source(split=part, decoders={'image': skip})
  images = np.empty((len(source), *builder.info.features['image'].shape), np.uint8)  # [n, h, w, c]
  labels = np.empty(len(source), np.int32)
  for start in range(0, len(source), _BLOCK):
    block = source.__getitems__(range(start, min(start + _BLOCK, len(source))))
    for i, record in enumerate(block, start):
      # A thread pool is slower here: the work on a small image is mostly Python's.
      images[i] = Image.open(io.BytesIO(record['image']))
      labels[i] = record['label']
  return Split(images, labels)


def read(path: pathlib.Path) -> tuple[Split, Split]:
  """The training and test splits of the data set with features `image` and `label` in the version folder `path`.

  Raises:
    UserError: the files are damaged, incomplete or of another format.
  """
  with _quiet():
    import tensorflow_datasets as tfds  # slow to import, so only when asked for
    try:
      builder = tfds.builder_from_directory(path)
      return tuple(_read_split(builder, part, tfds.decode.SkipDecoding()) for part in ('train', 'test'))
    except Exception as e:  # TFDS and array_record raise whatever they please
      reason = ' '.join(str(e).split())[:160]
      raise UserError(f'cannot read the TFDS data in {path} ({type(e).__name__}: {reason}); prepare it again with '
                      'file_format=array_record, or set config.data.dir elsewhere') from None
