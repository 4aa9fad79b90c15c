"""Reads what TensorFlow Datasets prepared as ArrayRecord files, without TensorFlow.

Any of its image classification sets is a data set here, `tfds/NAME`: with features `image` and `label`, a split `train`
and one of TESTS. Images whose size is not fixed are brought to config.data.image_size pixels a side, as those of a
folder. What fits is held in memory, other sets are streamed (streamed.py).
"""

import contextlib
import glob
import io
import json
import os
import pathlib
import re

import numpy as np

from vimnas_jax import files
from vimnas_jax.data import decoded, pixels, records, sources, streamed
from vimnas_jax.data.records import MODES, quiet
from vimnas_jax.data.types import Data, Split
from vimnas_jax.errors import UserError

PREFIX = 'tfds/'
TESTS = ('test', 'validation')  # the first that there is
_LOOKED_AT = 200  # images whose sizes are asked, where they are not fixed
_RULE = 'the split test is for test, the split validation chooses the state that is kept'
_UNLABELLED = 'the split validation is for test: the split test has no labels'
_ARRAYS = ('images', 'labels', 'aspects')  # of a Split
_BLOCK = 1000  # records held undecoded at a time
_FEATURES = re.compile(r'tensorflow_datasets\.core\.features(\.\w+)+')  # the classes that a description may name


def find(root: pathlib.Path, name: str) -> pathlib.Path | None:
  """The folder of the newest version of `name` below the TFDS data folder `root`, or None if there is none."""
  if '..' in pathlib.PurePath(name).parts or pathlib.PurePath(name).is_absolute():
    return None
  versions = [path.parent for path in root.glob(f'{glob.escape(name)}/*/dataset_info.json')
              if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)]
  return max(versions, key=lambda path: [int(n) for n in path.name.split('.')], default=None)


def _check_classes(path):
  """Refuses a description of features that names Python classes other than TFDS's own: TFDS would import them."""
  if not (path / 'features.json').is_file():
    raise UserError(f'cannot read the TFDS data in {files.printable(path)}: it has no features.json; prepare it again, '
                    'or set config.data.dir elsewhere')
  asked = [files.read_json(path / 'features.json', 'prepare it again, or set config.data.dir elsewhere')]
  while asked:
    value = asked.pop()
    if isinstance(value, list):
      asked += value
    elif isinstance(value, dict):
      asked += value.values()
      if isinstance(value.get('json'), str):  # a description within the description
        with contextlib.suppress(ValueError, RecursionError):
          asked.append(json.loads(value['json']))
      for key in ('pythonClassName', 'python_class_name', 'type'):  # the last in descriptions of older versions
        name = value.get(key)
        if isinstance(name, str) and not _FEATURES.fullmatch(name):
          raise UserError(f'{files.printable(path / "features.json")} names the Python class '
                          f'{files.printable(name)[:100]!r}, which is not of TFDS and is not imported: prepare '
                          'the data with the features Image and ClassLabel')


def _described(features, splits):
  """The names of the splits for test, the first counts, where the features are those read here. Raises LookupError."""
  tests = [name for name in TESTS if name in splits]
  if 'train' not in splits or not tests or not {'image', 'label'} <= set(features):
    raise LookupError(f'it has splits {", ".join(splits)} and features {", ".join(features)}; wanted are train and '
                      f'{" or ".join(TESTS)}, image and label')
  image, label = features['image'], features['label']
  if getattr(label, 'num_classes', None) is None or not hasattr(label, 'names'):
    raise LookupError(f'its label is {type(label).__name__}; wanted is ClassLabel, with a number of classes')
  if len(label.names) != label.num_classes:
    raise LookupError(f'its label has {len(label.names)} names for {label.num_classes} classes')
  if type(image).__name__ != 'Image' or np.dtype(image.np_dtype) != np.uint8 or len(image.shape) != 3:
    raise LookupError(f'its image is {type(image).__name__} of {np.dtype(image.np_dtype)}; wanted is Image of uint8')
  if None not in image.shape and image.shape[-1] not in MODES:
    raise LookupError(f'its images have {image.shape[-1]} channels; wanted are {", ".join(map(str, MODES))}')
  return tests


def _read_split(builder, part: str, recipe, max_pixels) -> Split:
  import tensorflow_datasets as tfds
  raw = tfds.decode.DeserializeMethod.RAW_BYTES  # TFDS itself takes as long to parse a small image as to decode it
  source = builder.as_data_source(part, deserialize_method=raw)
  shape, classes = builder.info.features['image'].shape, builder.info.features['label'].num_classes
  fixed = None not in shape
  side = recipe['side']
  images = np.empty((len(source), *(shape if fixed else (side, side, 3))), np.uint8)  # [n, h, w, c]
  labels, aspects = np.empty(len(source), np.int32), np.empty(len(source), np.float32)
  for start in range(0, len(source), _BLOCK):
    block = source.__getitems__(range(start, min(start + _BLOCK, len(source))))
    with pixels.unlimited():
      for i, record in enumerate(block, start):
        # A thread pool is slower here: the work on a small image is mostly Python's.
        encoded, label = records.parsed(record)
        if not 0 <= label < classes:
          raise LookupError(f'label {label} of image {i} of {part} is outside 0..{classes - 1}')
        labels[i] = label
        try:
          if fixed:
            images[i] = records.exact_within(encoded, shape)
          else:
            images[i], aspects[i] = pixels.decode(io.BytesIO(encoded), recipe, max_pixels)
        except Exception as e:
          raise ValueError(f'image {i} of {part}: {e}') from None
  return Split(images, labels, aspects if not fixed and recipe['fit'] == 'squeeze' else None)


@contextlib.contextmanager
def _opened(path):
  """Gives (TFDS's builder of the set in a version folder, the names of its splits for test), checked."""
  _check_classes(path)
  with quiet():
    import tensorflow_datasets as tfds  # slow to import, so only when asked for; a package it misses is not the data's
  with records.readable(path), quiet():
    builder = tfds.builder_from_directory(path)
    tests = _described(builder.info.features, builder.info.splits)
    yield builder, tests[1:] if len(tests) > 1 and not _labelled(builder, tests[0]) else tests


def _labelled(builder, part: str) -> bool:
  """Whether a split says the classes of its images, by its first; those of contests have -1 throughout."""
  import tensorflow_datasets as tfds
  source = builder.as_data_source(split=part, decoders={'image': tfds.decode.SkipDecoding()})
  return len(source) == 0 or source[0]['label'] >= 0


def read(path: pathlib.Path, recipes=None, max_pixels: int = pixels.MAX_PIXELS, choosing: bool = False):
  """What `_decode` gives, of which a copy is kept (decoded.py). Arguments and errors are those of `_decode`."""
  try:
    name = decoded.key(path, [recipes, max_pixels, choosing])
  except OSError:  # told by who reads it
    return _decode(path, recipes, max_pixels, choosing)
  if kept := decoded.load(name):
    arrays, (count, names, shuffled, fixed) = kept
    splits = [Split(*(arrays.get(f'{part}_{each}') for each in _ARRAYS)) for part in range(count)]
    return splits, tuple(names), shuffled, fixed
  splits, names, shuffled, fixed = found = _decode(path, recipes, max_pixels, choosing)
  decoded.save(name, {f'{part}_{each}': array for part, split in enumerate(splits) for each in _ARRAYS
                      if (array := getattr(split, each)) is not None}, [len(splits), names, shuffled, fixed])
  return found


def _decode(path: pathlib.Path, recipes=None, max_pixels: int = pixels.MAX_PIXELS, choosing: bool = False):
  """The training and test splits of the data set in the version folder `path`, and with `choosing` a third.

  Args:
    path: the folder of dataset_info.json.
    recipes: of training and test images (pixels.py), where their size is not fixed; None where it is.
    max_pixels: an image of more is refused.
    choosing: whether a split `validation` beside `test` is wanted too.

  Returns:
    ([train, test, and validation if it is wanted and there], names of the classes, whether images lie in an order that
    TFDS has shuffled, whether of fixed size).

  Raises:
    UserError: the files are damaged, incomplete, of another format, or hold no images with labels.
  """
  with _opened(path) as (builder, tests):
    info = builder.info
    fixed = None not in info.features['image'].shape
    if not fixed and recipes is None:
      raise LookupError('its images are of no fixed size')
    splits = [_read_split(builder, part, recipe, max_pixels)
              for part, recipe in zip(('train', *tests[:1 + choosing]), (*recipes, recipes[1]) if recipes else
                                      ({'side': 0, 'fit': ''},) * 3)]
    return splits, tuple(map(files.printable, info.features['label'].names)), not info.disable_shuffling, fixed


def _streamed(path, config) -> tuple[Data | None, str, str]:
  """The set in a version folder, if it is to be streamed, else None; the lines that say why, and what is for test."""
  with _opened(path) as (builder, tests):
    info = builder.info
    shape, names = info.features['image'].shape, tuple(map(files.printable, info.features['label'].names))
    fixed = None not in shape
    recipe = {} if fixed else pixels.streamed(config)
    side = config.photographs or config.image_size
    counts = {part: info.splits[part].num_examples for part in ('train', *tests[:1 + bool(config.validation)])}
    stream, told = streamed.chosen(config, sum(counts.values()), shape if fixed else (side, side, 3))
    rule = _UNLABELLED if tests[0] != TESTS[0] and TESTS[0] in info.splits else _RULE if len(counts) > 2 else ''
    if not stream:
      return None, told, rule
    form = streamed.Form(tuple(shape) if fixed else (config.image_size, config.image_size, 3), recipe or None,
                         config.smallest, config.max_pixels)
    splits = [streamed.Streamed(sources.Records(path, part, count, len(names)), np.arange(count, dtype=np.int32), form)
              for part, count in counts.items()]
    shuffled = not info.disable_shuffling
  train, test, valid = *splits, *(None,) * (3 - len(splits))
  return Data(config.name, train, test, len(names), *streamed.stats(config, train), valid=valid,
              rule=rule, class_names=names, recipe=recipe, shuffled=shuffled, placement=told), told, rule


def load(config) -> Data:
  """The set `tfds/NAME` or `tfds/NAME/CONFIG`, uint8 [n, h, w, c], in memory or streamed.

  Args:
    config: `name`, `dir` (a TFDS data folder), `image_size`, `max_pixels`, `photographs`, `validation`, `stream`; where
      it is streamed also `smallest` and `moments`.

  Raises:
    UserError: nothing there, or what `read` raises.
  """
  version = _version(config)
  recipes = pixels.recipes(config)
  data, told, rule = _streamed(version, config)
  if data is not None:
    return data
  splits, names, shuffled, fixed = read(version, recipes, config.max_pixels, bool(config.validation))
  train, test, valid = *splits, *(None,) * (3 - len(splits))
  return Data(config.name, train, test, len(names), *pixels.moments(train.images), valid=valid,
              rule=rule, class_names=names, recipe={} if fixed else recipes[1], shuffled=shuffled,
              side=config.image_size if train.aspects is not None else 0, placement=told)


def survey(config) -> tuple[int, int, bool, tuple[int, int] | None, bool]:
  """(training images, the median of the shorter sides of the first in pixels, whether others choose, (height, width)
  if that is fixed, and whether these are held in memory, where they may be averaged). Raises UserError as `load`.
  """
  version = _version(config)
  with _opened(version) as (builder, tests):
    chosen = bool(config.validation) and len(tests) > 1
    count, shape = builder.info.splits['train'].num_examples, builder.info.features['image'].shape
    if None not in shape:
      images = sum(builder.info.splits[part].num_examples for part in ('train', *tests[:1 + chosen]))
      streams, _ = streamed.chosen(config, images, shape)
      return count, min(shape[:2]), chosen, tuple(shape[:2]), not streams
    looked_at = records.undecoded(version, 'train').__getitems__(range(min(count, _LOOKED_AT)))
    sides = [side for record in looked_at if (side := pixels.side_of(io.BytesIO(record['image'])))]
    return count, int(np.median(sides)) if sides else 0, chosen, None, True


def _version(config) -> pathlib.Path:
  name, root = config.name.removeprefix(PREFIX), pathlib.Path(os.path.expanduser(config.dir))
  version = find(root, name) if name and config.dir else None
  if version is None:
    raise UserError(f'config.data.name={config.name!r}: no {name}/VERSION/dataset_info.json under config.data.dir='
                    f'{config.dir!r}; prepare it with tfds build --file_format=array_record, or set config.data.dir to '
                    'the TFDS data folder')
  return version
