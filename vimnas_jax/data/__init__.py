"""Data sets by name, and of one's own by the path of a file: uint8, whole in memory or streamed from the disk."""

import copy
import dataclasses
import json

from vimnas_jax import files
from vimnas_jax.data import cifar, digits, folder, imagenet16, parts, pixels, splits, synthetic, tfds, twice, userdata
from vimnas_jax.data.account import LIST, describe, facts, own, repeated
from vimnas_jax.data.parts import halves, limited, shares
from vimnas_jax.data.streamed import Streamed
from vimnas_jax.data.types import AnySplit, Data, Split, check
from vimnas_jax.errors import UserError

__all__ = ['LIST', 'NAMES', 'AnySplit', 'Data', 'Split', 'Streamed', 'check', 'default_pad', 'describe', 'facts', 'get',
           'halves', 'key', 'limited', 'own', 'repeated', 'shares', 'survey', 'within']

_LOADERS = {'cifar10': cifar.load, 'cifar100': cifar.load, 'imagenet16-120': imagenet16.load,
            'folder': folder.load, 'digits': digits.load, 'synthetic': synthetic.load}
NAMES = (*_LOADERS, f'{tfds.PREFIX}NAME')
# Fields that change what is done with the images of a set, not which they are; streamed ones are cut as they are read.
_AFTERWARDS = ('limit', 'pad', 'flip', 'cutout', 'jitter', 'hue', 'search_parts')
MOMENTS = ('own', *pixels.MOMENTS)


def key(config) -> str:
  """Of config.data: two of one key are read alike, whatever is done with the images afterwards."""
  left_out = () if config.name.endswith('.py') else _AFTERWARDS  # code of one's own is given all
  return json.dumps({field: value for field, value in config.to_dict().items() if field not in left_out})


def get(config) -> Data:
  """The data set that `config` (config.data) describes, checked.

  Args:
    config: has `name`, `split`, `shrink`, `moments` and `validation`; for CIFAR `dir` and `download`, for
      ImageNet16-120 `dir`; for a folder of images, and sets of TFDS, `dir`, `image_size`, `max_pixels`, `photographs`,
      `stream`, `smallest` and `damaged`; for synthetic data `num_train`, `num_test`, `image_size`, `num_classes` and
      `seed`. Each source reads its own fields only; a file of one's own is given all.

  Raises:
    UserError: unknown name, or data that is missing, damaged or unfit.
  """
  load = _loader(config.name)
  if load is None:
    raise UserError(f'config.data.name={config.name!r}: unknown data set{files.close(config.name, NAMES)}; '
                    f'choose one of {", ".join(NAMES)}, or give the path of a .py file')
  path = splits.beside(config)
  if path and load is cifar.load and cifar.in_tfds(config):
    raise UserError(f'config.data.split={path!r} counts images in the order of the official archive, which the TFDS '
                    f'files under {config.dir} do not keep: set config.data.dir to a folder that holds '
                    f'{cifar.SOURCES[config.name].archive} alone, or leave config.data.split empty')
  if config.moments not in MOMENTS:
    raise UserError(f'config.data.moments={config.moments!r}: choose one of {", ".join(MOMENTS)}')
  able = load in (folder.load, tfds.load)
  if config.stream and not able:
    raise UserError(f'config.data.stream=True is for image files (folder, tfds/NAME), which {config.name!r} has not: '
                    'set config.data.stream=None')
  loaded = load(config)
  streams = isinstance(loaded.train, Streamed)
  if streams and config.shrink != 1:
    raise UserError(f'config.data.shrink={config.shrink} is for images that are held in memory, these are streamed: '
                    'lower config.data.image_size, and set config.data.shrink=1')
  if config.photographs and (loaded.train.form.recipe if streams else loaded.train.aspects) is None:
    raise UserError(f'config.data.photographs={config.photographs} is for images of many sizes (folder, some of '
                    f'tfds/NAME), which {config.name!r} has not: set config.data.photographs=0')
  loaded = splits.apply(loaded, path) if path else loaded
  loaded = parts.set_apart(loaded, config.validation)
  loaded = dataclasses.replace(loaded, both=twice.found(loaded))  # of the images as they are read
  return check(_normed(_shrunk(loaded, config.shrink), config.moments))


def survey(config) -> tuple[int, int, tuple[int, int] | None, bool]:
  """What is known of the images that `config` (config.data) names, before config.data.image_size is.

  Returns:
    (images to train on, about; their shorter side in pixels, the median if sizes differ; (height, width) where all have
    the same by themselves, before config.data.shrink averages them; whether it may).

  Raises:
    UserError: as `get`.
  """
  fixed, held = None, True
  if config.name == 'folder':
    count, side, chosen = folder.survey(config)
  elif _loader(config.name) is tfds.load:
    count, side, chosen, fixed, held = tfds.survey(config)
  else:
    whole = copy.deepcopy(config).unlock()
    whole.shrink = 1
    loaded = get(whole)
    return len(loaded.train), min(loaded.image_shape[:2]), loaded.image_shape[:2], True
  return count if chosen else round(count * (1 - config.validation)), side, fixed, held


def within(config, place) -> str:
  """The folder of classes of `config` (config.data) in which the folder `place` lies, so that what is written there
  would be read as images of a class; '' where there is none.
  """
  return folder.within(config, place) if config.name == 'folder' else ''


def _loader(name: str):
  if name.endswith('.py'):
    return userdata.load
  return tfds.load if name.startswith(tfds.PREFIX) else _LOADERS.get(name)


def _normed(data: Data, moments: str) -> Data:
  """`data` with the mean and std that config.data.moments names. Raises UserError where they do not fit."""
  if moments == 'own':
    return data
  channels = data.image_shape[-1]
  if channels != 3:
    raise UserError(f'config.data.moments={moments!r} is of three channels, images of {data.name!r} have {channels}: '
                    "set config.data.moments='own'")
  mean, std = pixels.MOMENTS[moments]
  return dataclasses.replace(data, mean=mean, std=std)


def default_pad(name: str) -> int:
  """Pixels that images are padded by before their random crop, where config.data.pad does not say."""
  return 2 if name == 'imagenet16-120' else 4  # as NAS-Bench-201 and DARTS train on them


def _shrunk(data: Data, by: int) -> Data:
  """Every image averaged over squares of `by` pixels, rounded. Raises UserError where they do not divide it."""
  h, w, _ = data.image_shape
  if by < 1 or h % by or w % by:
    raise UserError(f'config.data.shrink={by} does not divide images of {h}x{w}: choose a divisor, or 1')
  if by == 1:
    return data
  if data.side:
    raise UserError(f'config.data.shrink={by} does not go with config.data.photographs: lower config.data.image_size, '
                    'and set config.data.shrink=1')
  return dataclasses.replace(data, train=data.train.shrunk(by), test=data.test.shrunk(by),
                             search=tuple(split.shrunk(by) for split in data.search) if data.search else None,
                             valid=data.valid.shrunk(by) if data.valid else None)
