"""What a data set holds, in lines for the console and as the facts of data.json."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vimnas_jax.data.twice import between, conflicting
from vimnas_jax.data.types import AnySplit, Data

LIST = 'data.json'  # the file of a run folder that holds `facts`
UNEVEN = 3  # times as many images in one class as in another are told
_SHOWN = 12  # classes that are named in a line


def own(data: Data) -> bool:
  """Whether the classes are named by somebody outside: a folder, TFDS, a file of one's own."""
  return bool(data.recipe) or data.name.startswith('tfds/') or data.name.endswith('.py')


def _splits(data) -> dict[str, AnySplit]:
  return {'training': data.train, **({'validation': data.valid} if data.valid else {}), 'test': data.test}


def _counts(data):
  """{part: images of every class}; {} where the labels are not at hand."""
  splits = _splits(data)
  if not all(split.known for split in splits.values()):
    return {}
  return {part: np.bincount(split.labels, minlength=data.num_classes) for part, split in splits.items()}


def facts(data: Data, used: Mapping[str, AnySplit] | None = None) -> dict[str, Any]:
  """What data.json holds: classes with their images by part, how the parts were made, and every file left out.

  Where labels are read with the images alone, the classes have their names. `used` are the parts of the training images
  that a run takes, {'training': those of its weights, 'validation': those set apart of them}.
  """
  apart = twice(data, used)
  counts = _counts(data)
  return {'data': data.name, 'rule': data.rule, 'image_shape': list(data.image_shape), 'recipe': dict(data.recipe),
          'placement': data.placement, 'images': {part: len(split) for part, split in _splits(data).items()},
          'classes': [{'name': data.name_of(i), **{part: int(count[i]) for part, count in counts.items()}}
                      for i in range(data.num_classes)],
          'in_training': [{'file': file, 'training': other} for file, other in in_training(data, used)],
          **({'used': {part: len(split) for part, split in used.items()}} if used else {}),
          **({name: [{'file': file, 'same': other} for file, other in rows] for name, rows in apart.items() if rows}),
          'left_out': [{'file': file, 'reason': reason} for file, reason in data.left_out]}


def twice(data: Data, used: Mapping[str, AnySplit] | None = None) -> dict[str, tuple[tuple[str, str], ...]]:
  """Images that two parts have which a run keeps apart: {'in_both_parts': of its training images, 'in_validation': of
  test images and those that choose}, and 'in_two_classes', training images; pairs of names.
  """
  parts = used or {}
  return {'in_both_parts': between(parts.get('validation'), parts.get('training')),
          'in_validation': between(data.test, parts.get('choosing', data.valid)),
          'in_two_classes': conflicting(data.train)}


def in_training(data: Data, used: Mapping[str, AnySplit] | None = None) -> list[tuple[str, str]]:
  """`Data.both`, of the images that a run takes."""
  if not used:
    return list(data.both)
  parts = [used[name] for name in ('training', 'validation') if name in used]
  seen = {file: other for part in parts for split in (data.test, data.valid) for file, other in between(split, part)}
  return [(file, seen[file]) for file, _ in data.both if file in seen]


def repeated(known: Mapping[str, Any]) -> list[str]:
  """Lines for the console of what `twice` has found, from `facts`."""
  words = {'in_both_parts': ('set apart of the training images, and trained on too', 'accuracies on them flatter'),
           'in_validation': ('for test, and for validation too', 'what they choose, the test flatters'),
           'in_two_classes': ('of the training images in another class too', 'one of each is wrong')}
  return [f'pixel by pixel, {_count(len(rows), "image", "images")} {what}, such as {rows[0]["file"]}, which is '
          f'{rows[0]["same"]}: {why} (list in {LIST})'
          for name, (what, why) in words.items() if (rows := known.get(name))]


def describe(data: Data, known: Mapping[str, Any] | None = None) -> list[str]:
  """Lines for the console: classes with their images, what was left out, and what is uneven; of data with names from
  outside. `known` is what `facts` says of the images that a run takes; None for all.
  """
  if not own(data):
    return []
  counts = _counts(data)
  placement = [data.placement] if data.placement else []
  if not counts:
    splits = _splits(data)
    rule = [f'parts: {data.rule}'] if data.rule else []
    return [f'{_count(data.num_classes, "class", "classes")}, {"/".join(splits)} images: '
            f'{"/".join(f"{len(split):,}" for split in splits.values())}; labels are read with the images', *rule,
            *placement]
  told = [f'{data.name_of(i)} {"/".join(map(str, row))}' for i, row in enumerate(zip(*counts.values()))]
  if len(told) > _SHOWN:
    least, most = ('/'.join(str(bound(count)) for count in counts.values()) for bound in (min, max))
    told = [*told[:_SHOWN], f'and {len(told) - _SHOWN} more; each {least}{"" if least == most else f" to {most}"}']
  first = f'{_count(data.num_classes, "class", "classes")}, {"/".join(counts)} images: {", ".join(told)}'
  lines = []
  if data.left_out:
    first += f'; {_count(len(data.left_out), "file or folder", "files or folders")} left out (list in {LIST})'
    reasons = {}
    for file, reason in data.left_out:
      reasons.setdefault(reason, []).append(file)
    lines.append('left out: ' + '; '.join(f'{_some(files)} ({reason})' for reason, files in reasons.items()))
  if data.rule:
    lines.append(f'parts: {data.rule}')
  lines += [f'without a {part} image: {_some(list(map(data.name_of, without)))}' for part in ('validation', 'test')
            if part in counts and len(without := np.flatnonzero(counts[part] == 0))]
  both = data.both if known is None else [(row['file'], row['training']) for row in known['in_training']]
  if both:
    found = _count(len(both), 'image', 'images')
    lines.append(f'in training too, pixel by pixel: {found} for test or validation, such as {both[0][0]}, '
                 f'which is {both[0][1]}; accuracies count them (list in {LIST})')
  train = counts['training']
  if train.max() >= UNEVEN * train.min():
    fewest, most = int(train.argmin()), int(train.argmax())
    lines.append(f'unbalanced: {data.name_of(most)} has {train[most]} training images, {data.name_of(fewest)} '
                 f'{train[fewest]}; accuracy is over all images, that of every class in result.json (per_class)')
  return [first, *lines, *placement]


def _count(number, one, more):
  return f'{number} {one if number == 1 else more}'


def _some(names, shown=3):
  return ', '.join(names[:shown]) + (f' and {len(names) - shown} more' if len(names) > shown else '')
