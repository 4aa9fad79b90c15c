"""The page of a network that was trained, or evaluated: how often it is right, where it errs, and what it takes."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vimnas_jax.draw import page as html
from vimnas_jax.runs import metrics
from vimnas_jax.spaces import Space
from vimnas_jax.verbs import floor
from vimnas_jax.verbs.pages import checks, shared
from vimnas_jax.verbs.pages.shared import counted

PAIRS, IMAGES = 8, 8  # pairs of classes that are shown; images of each
_MATRIX = 25  # classes up to which all counts are in one table


def page(folder: pathlib.Path, result: Mapping, space: Space, mistakes: Sequence = ()) -> str:
  """The page as text; mistakes as those of `pages.network`."""
  part = 'test' if 'test_top1' in result else 'valid'
  genotype = shared.architecture(space, result)
  data_name, space_name = shared.images_of(folder, result), shared.name_of(space.name)
  trained = result.get('task') == 'retrain'
  counts = _counts(result)
  names = _names(result, len(counts))
  lead = [html.tag('p', f'How well does the network of this cell name what is on {data_name}? {_answer(result)}'),
          shared.data(folder, result),
          html.facts(_tiles(result, part), 'tiles'),
          html.warnings(checks.of_network(result, part) + [f'{note[:1].upper()}{note[1:]}.'
                                                           for note in result.get('notes') or ()] +
                        checks.of_data(shared.account(folder)),
                        'nothing speaks against these figures.')]
  above = folder.parent / shared.FILE
  back = html.tag('p', 'The cell was found by ', html.link(f'../{shared.FILE}', 'the search above'), '.') if (
      folder.name == 'retrain' and above.exists()) else None
  sections = [
      html.Section('training', 'Training curves', _curves(folder) if trained else ()),
      html.Section('confusion', 'What it confuses', _confusion(counts, names, mistakes)),
      html.Section('classes', 'Class by class', _classes(counts, names)),
      html.Section('cells', 'The cell' if len(space.cells) == 1 else 'The cells',
                   [back, html.tag('pre', html.tag('code', result.get('genotype', html.NOTHING))),
                    *shared.cells(space, genotype)]),
      html.Section('cost', 'Size, time and memory', shared.cost(result, 'of this network, without an auxiliary head')),
      html.Section('limits', 'What this does not say', [html.bullets(_limits(result, part, trained))]),
      html.Section('again', 'The same again', shared.again(result)),
      html.Section('files', 'Files', shared.beside(folder))]
  return html.document(f'{"Network trained" if trained else "Network evaluated"} on {data_name}',
                       f'vimnas_jax {"retrain" if trained else "evaluate"}: a network of {space_name}', lead, sections)


def _answer(result) -> str:
  value, how = shared.accuracy(result)
  return f'It is right on {value} of {how}.' if how else 'That is not known: the accuracy is no number.'


def _tiles(result, part) -> list[tuple]:
  tiles: list[tuple] = [(f'{shared.PARTS[part].capitalize()} accuracy', html.number(result.get(f'{part}_top1'), 2, '%'),
                         counted(result.get(f'{part}_images'), 'image'))]
  if html.real(result.get(f'{part}_top5')):
    tiles.append(('Among the first five', html.number(result[f'{part}_top5'], 2, '%'), 'top-5'))
  tiles.append(('Loss', html.number(result.get(f'{part}_loss'), 4), 'mean cross-entropy'))
  if isinstance(result.get('floor'), dict):
    try:
      verdict = floor.line(result['floor'], result[f'{part}_top1']).partition(': ')[2]
    except (KeyError, TypeError, ValueError):
      verdict = ''
    tiles.append(('Colour alone', html.number(result['floor'].get('top1'), 2, '%'), verdict))
  if isinstance(chosen := result.get('chosen'), dict):
    tiles.append(('State kept', f'step {html.number(chosen.get("step"))}',
                  f'by {html.number(chosen.get("valid_top1"), 2, "%")} of '
                  f'{counted(chosen.get("valid_images"), "validation image")}'))
  return [*tiles, ('Parameters', html.number(result.get('params')), ''),
          ('Multiply-adds', shared.millions(result.get('madds')), 'of one image')]


def _curves(folder) -> list[Any]:
  rows, curve = metrics.read(folder / 'metrics.jsonl'), metrics.read(folder / 'curve.jsonl')
  charts = []
  for title, key, scale, top, slot in (('Accuracy of training batches, %', 'accuracy', 100, (0, 100), 1),
                                       ('Loss of training batches', 'loss', 1, None, 2)):
    if rows:
      charts.append(shared.curve(title, _epochs(rows), [(key, [
          scale * row[key] if html.real(row.get(key)) else None for row in rows], slot)], 'epoch', y=top,
          digits=1 if top else 3))
  for title, key, top, slot in (('Accuracy on images it was not trained on, %', 'top1', (0, 100), 1),
                                ('Loss on them', 'loss', None, 2)):
    if len(curve) > 1:
      charts.append(shared.curve(title, _epochs(curve), [(key.replace('top1', 'accuracy'), [
          row.get(key) for row in curve], slot)], 'epoch', y=top, digits=1 if top else 3))
  return [html.tag('div', charts, class_='charts')] if charts else []


def _epochs(rows) -> list[float]:
  """Epochs of the rows, or steps where one lacks them."""
  return [row['epoch'] for row in rows] if all(html.real(row.get('epoch')) for row in rows) else [
      row['step'] for row in rows]


def _counts(result) -> np.ndarray:
  """The confusion, int [classes, classes]; [0, 0] where it is missing or none."""
  try:
    counts = np.array(result.get('confusion') or np.zeros((0, 0)), int)
  except (TypeError, ValueError):
    return np.zeros((0, 0), int)
  return counts if counts.ndim == 2 and counts.shape[0] == counts.shape[1] else np.zeros((0, 0), int)


def _names(result, count) -> list[str]:
  names = result.get('classes')
  return [str(name) for name in names] if isinstance(names, list) and len(names) == count else [
      f'class {i}' for i in range(count)]


def worst(counts: np.ndarray, most: int = PAIRS) -> list[tuple[int, int]]:
  """The pairs (true class, predicted class) that are confused most often, the most frequent first."""
  wrong = np.array(counts)
  np.fill_diagonal(wrong, 0)
  order = np.argsort(-wrong, axis=None, kind='stable')[:most]
  return [(int(i), int(j)) for i, j in (divmod(o, len(wrong)) for o in order) if wrong[i, j]] if len(wrong) else []


def _confusion(counts, names, mistakes) -> list[Any]:
  if not len(counts):
    return []
  parts: list[Any] = []
  totals = counts.sum(1)
  pairs = worst(counts)
  if pairs:
    rows = [(names[i], html.tag('td', names[j], class_='text'), html.number(int(counts[i, j])),
             html.number(100 * counts[i, j] / totals[i], 1, '%')) for i, j in pairs]
    parts.append(html.table('The pairs that are confused most often', ('is', 'is called', 'images', 'of its class'),
                            rows))
    figures = []
    for true, predicted, images in mistakes:
      shown = [shared.picture(image, f'{names[true]}, called {names[predicted]}') for image in images[:IMAGES]]
      small = len(images) and max(images[0].shape[:2]) <= shared.SIDE
      if any(shown):
        figures.append(html.tag('figure', html.tag('figcaption', f'{names[true]}, called {names[predicted]}'),
                                html.tag('div', shown, class_='photos pixels' if small else 'photos')))
    parts.append(html.tag('div', figures, class_='pairs') if figures else None)
  else:
    parts.append(html.paragraphs('Not one image was called by the name of another class.'))
  if len(counts) <= _MATRIX:
    rows = [(name, *(html.tag('td', html.number(int(n)), class_='own' if i == j else None,
                              style=f'--n:{n / max(totals[i], 1):.3f}') for j, n in enumerate(counts[i])))
            for i, name in enumerate(names)]
    parts.append(html.table('How many images of each class (rows) were called what (columns)', ('is', *names), rows,
                            'confusion'))
  else:
    parts.append(html.paragraphs(f'The counts of all {len(counts)} classes are in result.json.'))
  return parts


def _classes(counts, names) -> list[Any]:
  if not len(counts):
    return []
  totals, called = counts.sum(1), counts.sum(0)
  rows = []
  for i in np.argsort([counts[i, i] / totals[i] if totals[i] else 2 for i in range(len(counts))], kind='stable'):
    recall = 100 * counts[i, i] / totals[i] if totals[i] else None
    precision = 100 * counts[i, i] / called[i] if called[i] else None
    rows.append((names[i], html.bar(float(recall) if recall is not None else None, 100, html.number(
        recall if recall is None else float(recall), 1, '%')), html.number(int(totals[i])),
        html.number(precision if precision is None else float(precision), 1, '%')))
  table = html.table('Classes, the least often recognised first', ('class', 'recognised', 'images',
                                                                   'right where it is named'), rows)
  return [html.tag('div', table, class_='tall')]


def _limits(result, part, trained) -> list[str]:
  told = ['The interval is that of drawing other test images like these; another seed of the training gives another '
          'network, which it does not cover.' if part == 'test' else
          'These are validation images: where they chose what was kept, the accuracy is flattered.',
          'Images from elsewhere (another camera, another light, other classes) may fare worse.']
  if trained and not result.get('chosen'):
    told.append('The state after the last step was taken: nothing was chosen by these images.')
  if isinstance(result.get('floor'), dict):
    told.append(f'Colour alone is the {result["floor"].get("method", "other model")}: what a network adds to it is '
                'what it sees of shape.')
  return [*told, 'Latency and time are of this device and this moment; another batch or machine has others.']
