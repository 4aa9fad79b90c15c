"""Fields that a configuration leaves open (None) because they depend on the images: chosen where the data is known.

What the user sets stays as it is. The values are functions of the number of training images and of the median of their
shorter sides alone, so that the same command on the same images goes on with a run; they end up in config.json.
"""

import copy
import math
import pathlib

from ml_collections import ConfigDict

from vimnas_jax import config as config_lib
from vimnas_jax import data, files, methods, words
from vimnas_jax.errors import UserError

FIELDS = ('data.image_size', 'data.shrink', 'batch_size', 'epochs', 'network.cells', 'network.channels')
LARGEST = 64  # pixels a side to which photographs are brought
_SIDES = (8, 12, 16, 24, 32, 48, LARGEST)
_BATCHES = 8  # of an epoch, at the least, before a batch is made smaller
_SEARCH_STEPS, _SEARCH_EPOCHS = 1000, (2, 150)  # half as many come before, of theta alone
_RETRAIN_STEPS, _RETRAIN_EPOCHS = 4000, (10, 100)
_EVALUATIONS = 40  # of a retraining
# Of config.data, how an image becomes pixels.
_PIXELS = ('image_size', 'shrink', 'moments', 'smallest', 'max_pixels', 'photographs')


def sized(asked: ConfigDict) -> tuple[ConfigDict, tuple[str, ...]]:
  """A copy of an unresolved configuration with a value for every field of FIELDS that it left open.

  Those of an evaluation, of all config.data, are those of the run that it evaluates.

  Returns:
    (configuration, lines that say what was chosen).

  Raises:
    UserError: the data, or the run, cannot be read; or there are too few images for one batch.
  """
  flat = files.flatten(asked.to_dict())
  if asked.task == 'evaluate' and any(asked.data[field] is None for field, value in _usual().items()
                                      if value is not None):
    asked = _as_trained(asked)
    flat = files.flatten(asked.to_dict())
  open_fields = [field for field in FIELDS if flat[field] is None]
  if not open_fields:
    return asked, ()
  c = copy.deepcopy(asked).unlock()
  if asked.task in ('evaluate', 'predict', 'report'):
    usual = files.flatten(config_lib.defaults().to_dict())
    c.update_from_flattened_dict({field: usual[field] for field in open_fields})
    return c, ()
  if asked.task == 'retrain':
    raise UserError(f'config.{open_fields[0]} is open in this file, and chosen for a search: search first, with '
                    '--config.then=retrain, or train a known architecture with --config=retrain_nb201_c10 or '
                    f'retrain_c10, with --config.data.name={c.data.name} and --config.data.dir')
  count, side, fixed, held = data.survey(_readable(c.data))
  count = min(c.data.limit, count) if c.data.limit else count
  values = _values(c, count, side, fixed if held else None)
  for field in open_fields:
    c.update_from_flattened_dict({field: values[field]})
  none = words.chosen(c).get('pretrain:epochs') == 0  # as of `strict`
  if 'epochs' in open_fields and c.pretrain.epochs is None and methods.pretrain(c.method.name) and not none:
    c.pretrain.epochs = float(math.ceil(c.epochs / 2))
  if c.data.pad is None:
    c.data.pad = max(1, round((side if fixed else c.data.image_size) // c.data.shrink / 8))  # of the side that is seen
  if c.then:
    c.then_changes = f'{_retraining(c, count)} {c.then_changes}'.strip()
  told = ' '.join(f'{field}={files.flatten(c.to_dict())[field]}'
                  for field in (*open_fields, 'pretrain.epochs', 'data.pad')
                  if files.flatten(c.to_dict())[field] is not None)
  notes = [f'chosen for {count} training images of about {side} pixels: {told}' +
           (f'; retraining: {c.then_changes}' if c.then else '') + ' (what you set yourself is taken instead)']
  if c.data.flip:
    notes.append('images are mirrored at random: where left and right matter, as for digits, letters and signs, set '
                 '--config.data.flip=False')
  return c, tuple(notes)


def _usual() -> dict:
  return config_lib.defaults().data.to_dict()


def _readable(fields):
  """config.data with what reading may ask for."""
  own = copy.deepcopy(fields).unlock()
  own.image_size, own.shrink = own.image_size or LARGEST, own.shrink or 1
  return own


def _values(c, count, side, fixed):
  portion = words.chosen(c).get('train_portion', 0.5) if c.train_portion is None else c.train_portion
  parts = c.data.search_parts if _shares(c.data.search_parts) else (portion, 1 - portion if portion < 1 else portion)
  searched, validated = (int(count * part) for part in parts)
  if searched < 8 and c.batch_size is None:
    raise UserError(f'config.data.dir={c.data.dir!r} has {searched} images to search on: a batch takes 8 at least; add '
                    'images')
  batch = c.batch_size or next(b for b in (64, 32, 16, 8) if searched >= _BATCHES * b <= _BATCHES * validated or b == 8)
  size = next((s for s in reversed(_SIDES) if s <= side), _SIDES[0])
  shrink = 1
  if fixed and not c.data.stream:  # those that are streamed are not averaged
    shrink = next((by for by in range(1, side) if not fixed[0] % by and not fixed[1] % by and side // by <= LARGEST), 1)
  return {'data.image_size': size, 'data.shrink': shrink, 'batch_size': batch,
          'epochs': _epochs(_SEARCH_STEPS, max(searched // batch, 1), _SEARCH_EPOCHS),
          'network.cells': 2 if c.space.name == 'nb201' else 8, 'network.channels': 16}


def _shares(parts) -> bool:
  """Whether config.data.search_parts is what it has to be; what else it may be is told where it is read."""
  return parts is not None and len(parts) == 2 and all(isinstance(part, int | float) for part in parts)


def _epochs(steps, per_epoch, bounds):
  return float(min(max(math.ceil(steps / per_epoch), bounds[0]), bounds[1]))


def _retraining(c, count):
  """What the retraining changes in `config.retraining`, which is made for CIFAR-10."""
  epochs = _epochs(_RETRAIN_STEPS, math.ceil(count / c.batch_size), _RETRAIN_EPOCHS)
  rate = 0.1 * (c.batch_size / 256) ** 0.5
  changes = {'epochs': epochs, 'batch_size': c.batch_size, 'theta.lr': round(rate, 4), 'network.cells': c.network.cells,
             'network.channels': c.network.channels, 'network.auxiliary': 0.0, 'network.drop_path': 0.0,
             'data.cutout': 0, 'eval_epochs': float(max(1, round(epochs / _EVALUATIONS))), 'checkpoint_steps': 200,
             'log_steps': 20}
  return ' '.join(f'{field}={value}' for field, value in changes.items())


def _as_trained(asked):
  """An evaluation with the fields of config.data that it leaves open as the network was trained.

  On another data set only what says how an image becomes pixels is taken from there.
  """
  c, given = copy.deepcopy(asked).unlock(), pathlib.Path(asked.genotype).expanduser()
  places = (given, given / 'retrain', given.parent)
  path = next((place / 'config.json' for place in places[not (given / 'export').is_dir():]
               if (place / 'config.json').is_file()), None)
  if asked.genotype and path is None and (given / 'config.json').is_file():
    raise UserError(f'config.genotype={asked.genotype!r} holds a run without a trained network (export is missing): '
                    'give its command again, that of a search with --config.then=retrain')
  if not asked.genotype or (path is None and c.data.name is None):
    raise UserError(f'config.genotype={asked.genotype!r} is no run folder of a finished retraining (config.json is '
                    'missing): give one, or set config.data.name, config.data.dir and what else the images need')
  about = files.read_json(path) if path else {}
  trained = about.get('config', {}).get('data') or {}
  same = c.data.name in (None, trained.get('name'))
  moved = c.data.dir not in (None, trained.get('dir'))
  taken = [field for field in _PIXELS if field != 'photographs' or c.data.name == 'folder' or
           str(c.data.name).startswith('tfds/')]  # others have images of one size
  known = {**_usual(), **{field: value for field, value in trained.items() if same or field in taken}}
  for field, value in c.data.to_dict().items():
    if value is None:
      c.data[field] = known.get(field)
  if same and not moved and c.data.smallest and not c.data.photographs and c.data.stream is None:
    c.data.stream = about.get('streamed')  # images that are streamed are cut out otherwise (data/pixels.py)
  return c
