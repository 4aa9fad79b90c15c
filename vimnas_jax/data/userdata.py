"""Data of one's own: a Python file with a function `load(config)`, chosen by config.data.name=FILE.py.

It is given config.data and gives (training images, training labels, test images, test labels, names of the classes):
images uint8 [n, h, w, c], labels whole numbers [n] that count the names from 0. It has to give the same arrays every
time: they are what a run is known by, not the code. examples/own_data.py is a whole file.
"""

import dataclasses

import numpy as np

from vimnas_jax import userfile
from vimnas_jax.data import pixels
from vimnas_jax.data.records import MODES
from vimnas_jax.data.types import Data, Split, check_split
from vimnas_jax.errors import UserError
from vimnas_jax.files import printable

_GIVES = 'training images, training labels, test images, test labels, names of the classes'


def load(config) -> Data:
  """The arrays that the file config.name gives; mean and std are those of the training images.

  Args:
    config: `name`; the file gets all of it.

  Raises:
    UserError: no such file, an error in it, or values that are no data set.
  """
  where = f'config.data.name={printable(config.name)!r}'
  module = userfile.run(config.name, where)
  if not callable(getattr(module, 'load', None)):
    raise UserError(f'{where}: it has no function load(config), which gives the data: see examples/own_data.py')
  with userfile.Told(config.name, where, 'load(config)'):
    from ml_collections import FrozenConfigDict  # an exported network is read without it
    given = module.load(FrozenConfigDict(config))
  if not isinstance(given, tuple | list) or len(given) != 5:
    found = f'{len(given)} values' if isinstance(given, tuple | list) else type(given).__name__
    raise UserError(f'{where}: load(config) gives {found}; it must give five: {_GIVES}')
  *arrays, names = given
  if not isinstance(names, tuple | list) or not names or not all(isinstance(name, str) for name in names):
    raise UserError(f'{where}: load(config) gives {names!r:.60} for the names of the classes; give a list of words')
  train = _split(f'{where}, train split', 'training', *arrays[:2])
  test = _split(f'{where}, test split', 'test', *arrays[2:])
  # nothing is known of their order, so parts are drawn class by class
  data = Data(config.name, train, test, len(names), (), (), class_names=tuple(map(printable, names)), shuffled=False)
  for part in ('train', 'test'):
    check_split(data, part, getattr(data, part))
  if (shape := train.images.shape)[1] in MODES and shape[2] == shape[3] > max(MODES):
    raise UserError(f'{where}: images of shape {shape} would be {shape[1]} high and {shape[2]} wide, of {shape[3]} '
                    'channels: give [n, h, w, c], as by images.transpose(0, 2, 3, 1)')
  mean, std = pixels.moments(train.images)
  return dataclasses.replace(data, mean=mean, std=std)


def _split(where, part, images, labels) -> Split:
  for what, array in (('images', images), ('labels', labels)):
    if not isinstance(array, np.ndarray):
      raise UserError(f'{where}: {what} are {type(array).__name__}; give a NumPy array, as by np.asarray')
  if labels.dtype.kind in 'iu':
    known, ours = np.iinfo(labels.dtype), np.iinfo(np.int32)  # what is beyond int32 stays outside the classes
    labels = labels.clip(max(known.min, ours.min), min(known.max, ours.max)).astype(np.int32)
  names = np.array([f'{part} image {i}' for i in range(images.shape[0] if images.ndim else 0)], object)
  return Split(np.ascontiguousarray(images), np.ascontiguousarray(labels), files=names)
