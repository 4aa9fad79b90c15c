"""The one place where a training set is cut into what is trained on, what is validated with and what chooses.

Images of a source that shuffles (`Data.shuffled`) are cut where they lie: the leading part is trained on. Those of any
other source, such as a folder that is read class by class, are drawn: every part holds every class in the share that
the class has of the whole, by largest remainders and at least once, in an order that a fixed seed shuffles. The seed is
none of the configuration, so that runs with different seeds validate with the same images. So are the shares of a
search on a part of a large set (`shares`), whatever the source.
"""

import dataclasses
import math

import numpy as np

from vimnas_jax.data.types import AnySplit, Data, nor
from vimnas_jax.errors import UserError

SEED = 0


def halves(data: Data, portion: float, limit: int = 0, whole: bool = False) -> tuple[AnySplit, AnySplit]:
  """What is trained on, and the rest.

  Args:
    data: the data set. Where it says itself what a search validates with (`Data.search`), `portion` is not asked, and
      `limit` counts in its training half.
    portion: share of the images that is trained on, above 0 and at most 1; at 1 the rest is empty.
    limit: use only so many images in all; 0 uses all.
    whole: whether the caller takes parts of photographs that are held whole (`Split.aspects`) when it augments them.

  Returns:
    (train, valid). Views of `data.train` where it is shuffled, or wanted whole; else copies.

  Raises:
    UserError: a part that has images lacks a class; or photographs that are held whole are not for this use.
  """
  if data.train.aspects is not None and not (whole and portion == 1):
    raise UserError(f'config.data.photographs holds training images whole, which serves a retraining on all of them '
                    f'alone (config.train_portion={portion:g}): set config.data.photographs=0')
  first, second = _rows(data, portion, limit)
  if data.search:
    cut = data.search[0].take(first), data.search[1]
  else:
    cut = data.train.take(first), data.train.take(second)
  for part, split in zip(('training', 'validation'), cut):
    lost = _lost(data, split.labels) if split.known else ()  # else the whole set would be read for it
    if len(split) and len(lost):
      raise UserError(_complaint(data, portion, limit, part, len(split), lost))
  return cut


def set_apart(data: Data, share: float) -> Data:
  """`data` with images by which a retraining chooses the state that it keeps (`Data.valid`).

  A part of the data for that purpose is kept as it is; else `share` of the training images is drawn, class by class and
  by a fixed seed, and is no longer trained on. At 0 there are none. A class with one training image gives none.

  Raises:
    UserError: no image can be drawn, or the data are cut otherwise already.
  """
  where = f'config.data.validation={share:g}'
  if not share or data.valid:
    return data
  if data.search:
    raise UserError(f'{where}: config.data.split says what is validated with: set config.data.validation=0')
  if data.train.aspects is not None:
    raise UserError(f'{where}: of photographs that are held whole (config.data.photographs) none are drawn: put some '
                    'into a folder `val` beside `test`, or set config.data.validation=0')
  if not data.train.known:
    raise UserError(f'{where}: images of {data.name!r} are streamed, and their labels, by which some would be drawn to '
                    'choose by, lie with them: take a set with a split `validation` beside `test`, or set '
                    'config.data.validation=0, or config.data.stream=False where they fit in memory')
  have = np.bincount(data.train.labels, minlength=data.num_classes)
  most = np.maximum(have - 1, 0)
  count = min(max(round(share * len(data.train)), 1), int(most.sum()))
  if not count:
    raise UserError(f'{where}: no class of {data.name!r} has a second training image to choose by: add images, or set '
                    'config.data.validation=0')
  apart = drawn(data.train.labels, count, data.num_classes, np.minimum(most, 1), most)
  rule = f'{share:.0%} of the training images, drawn class by class, choose the state that is kept'
  return dataclasses.replace(data, train=data.train.take(~apart), valid=data.train.take(apart),
                             rule=f'{data.rule}; {rule}' if data.rule else rule)


def limited(split: AnySplit, most: int, classes: int) -> AnySplit:
  """At most `most` images of `split`, every class in its share, by a fixed seed; all of them at 0.

  Where labels are not at hand, its first ones: sets of that kind are shuffled.
  """
  if not 0 < most < len(split):
    return split
  return split.take(drawn(split.labels, most, classes) if split.known else slice(most))


def drawn(labels, count: int, classes: int, least=0, most=None):
  """A mask [n] of `count` images, every class in its share, by a fixed seed; each from `least` to `most`, [classes]."""
  have = np.bincount(labels, minlength=classes)
  shares = _shares(have, count, least, have if most is None else most)
  order, rank = _ranked(labels, classes)
  mask = np.zeros(len(labels), bool)
  mask[order] = rank < shares[labels[order]]
  return mask


def _rows(data, portion, limit):
  """Which images of the training half go into either part: slices, or arrays of indices. Reads labels alone."""
  count = len(data.search[0] if data.search else data.train)
  count = min(limit, count) if limit else count
  if data.search:
    return slice(count), None
  cut = math.floor(count * portion)
  if data.shuffled or cut == len(data.train):
    return slice(cut), slice(cut, count)
  labels = data.train.labels
  have = np.bincount(labels, minlength=data.num_classes)
  least = np.minimum(have, 2 if cut < count else 1)
  if least.sum() > count:
    least = np.zeros_like(have)  # the limit leaves no room for all classes: the caller will miss one
  used = _shares(have, count, least, have)
  spare = np.minimum(np.maximum(used - 1, 0), 1) if cut < count else np.zeros_like(used)  # one of each for validation
  train = _shares(used, cut, np.minimum(used, 1), used - spare)
  order, rank = _ranked(labels, data.num_classes)
  labels = labels[order]
  return order[rank < train[labels]], order[(rank >= train[labels]) & (rank < used[labels])]


def shares(data: Data, wanted: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
  """Rows of `data.train` for the weights and for the architecture of a search: disjoint, in a shuffled order.

  Both are drawn class by class: every class in the share that it has of the whole, by largest remainders and at least
  once. Reads labels alone.

  Args:
    data: the data set.
    wanted: shares of the training images, each above 0, together at most 1.

  Raises:
    UserError: the data say themselves what a search validates with, a class has fewer than two images, or photographs
      are held whole.
  """
  if data.train.aspects is not None:
    raise UserError(f'config.data.search_parts={wanted}: a search takes no parts of photographs that are held whole: '
                    'set config.data.photographs=0')
  if data.search:
    raise UserError(f'config.data.search_parts={wanted} does not go with config.data.split, which names the images of '
                    'either part: leave one of them empty')
  labels = data.train.labels
  have = np.bincount(labels, minlength=data.num_classes)
  if len(few := np.flatnonzero(have < 2)):
    raise UserError(f'config.data.search_parts={wanted}: class {data.name_of(few[0])!r} has {have[few[0]]} image, and '
                    f'each part needs one{nor(few[1:])}: add images, or take the class away')
  totals = [math.floor(len(labels) * share + 1e-6) for share in wanted]
  first = _shares(have, totals[0], np.ones_like(have), have - 1)
  second = _shares(have, totals[1], np.ones_like(have), have - first)
  order, rank = _ranked(labels, data.num_classes)
  labels = labels[order]
  return order[rank < first[labels]], order[(rank >= first[labels]) & (rank < (first + second)[labels])]


def _ranked(labels, classes):
  """A shuffled order, by SEED, and the how manieth of its class each of the images is in it."""
  order = np.random.default_rng(SEED).permutation(len(labels))
  shuffled = labels[order]
  by_class = np.argsort(shuffled, kind='stable')  # each class keeps the shuffled order
  counts = np.bincount(labels, minlength=classes)
  rank = np.empty(len(labels), int)
  rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
  return order, rank


def _shares(weights, total, least, most):
  """Whole numbers that add up to `total` in proportion to `weights`, by largest remainders, each from least to most.

  Where that many cannot be had within the bounds, as near as the bounds allow.
  """
  exact = weights * total  # in units of 1 / weights.sum(), so that no rounding decides
  unit = max(int(weights.sum()), 1)
  given = np.clip(exact // unit, least, most)
  while (missing := total - int(given.sum())) != 0:
    step = 1 if missing > 0 else -1
    free = given < most if step > 0 else given > least
    if not free.any():
      break
    given[np.where(free, step * (exact - given * unit), -np.inf).argmax()] += step
  return given


def _lost(data, labels):
  return np.flatnonzero(np.bincount(labels, minlength=data.num_classes) == 0)


def _works(data, portion, limit):
  labels = data.search[0].labels if data.search else data.train.labels
  parts = [labels[rows] for rows in _rows(data, portion, limit) if rows is not None]
  return len(parts[0]) > 0 and all(not len(part) or not len(_lost(data, part)) for part in parts)


def _complaint(data, portion, limit, part, count, lost):
  where = f'config.data.name={data.name!r}, config.data.limit={limit}, config.train_portion={portion:g}'
  told = f'{where}: class {data.name_of(lost[0])!r} has no image among the {count} of the {part} part{nor(lost[1:])}'
  whole = len(data.search[0] if data.search else data.train)
  tried = limit
  while 0 < tried < whole:
    tried = min(2 * tried, whole)
    if _works(data, portion, tried):
      return f'{told}: set config.data.limit={0 if tried == whole else tried}, or 0 for all'
  for other in (0.5, 0.75, 0.9, 0.25):
    for bound in dict.fromkeys((limit, 0)):
      if not data.search and _works(data, other, bound):
        also = '' if bound == limit else ' and config.data.limit=0'
        return f'{told}: set config.train_portion={other:g}{also}, or add images of that class'
  return (f'{told}: add images of that class, or take it away (config.train_portion=1 is for methods that validate '
          'nothing)')
