"""The page of photographs that were named: how many of each class, and the images that it is least sure of."""

import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vimnas_jax.draw import page as html
from vimnas_jax.verbs.pages import shared
from vimnas_jax.verbs.pages.shared import counted

SHOWN = 48  # images on the page
_ROWS, _UNSURE = 500, 0.5  # rows of the table; probability below which the network is called unsure


def page(folder: pathlib.Path, rows: Sequence[Mapping], shown: Sequence[tuple[Mapping, Any]],
         skipped: Sequence[tuple[str, str]], asked: Mapping) -> str:
  """The page as text; arguments as those of `pages.predictions`."""
  counts = Counter(row['class'] for row in rows)
  most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
  several = len(rows) > 1
  answer = ', '.join(f'{name} on {html.number(count)}' for name, count in most[:5]) + (
      f' and {len(most) - 5} more classes' if len(most) > 5 else '') if several else (
          f'{most[0][0]}, with a probability of {_percent(rows[0]["probability"])}')
  what = f'the {counted(len(rows), "image")} of {asked["images"]!r}' if several else f'{asked["images"]!r}'
  sure = [row['probability'] for row in rows]
  value, how = shared.accuracy(asked.get('network'))
  tiles = [('Images', html.number(len(rows)), f'{counted(len(counts), "class")} among them'),
           ('Mean probability', _percent(sum(sure) / len(sure)), 'of the class that was named')] if several else []
  tiles.append(('Accuracy of the network', value, f'on images of its own data: {how}' if how else 'not known here'))
  lead = [html.tag('p', f'What is on {what}? {answer}.'), html.facts(tiles, 'tiles'),
          html.warnings(_warnings(rows, skipped), 'every file was read, and on each image a class has more than half '
                        'of the probability.')]
  told = 'All of them, as the network sees them.' if len(shown) == len(rows) else (
      f'The {len(shown)} that the network is least sure of, as it sees them.')
  sections = [
      html.Section('classes', 'How many of each class', [html.table(
          'Images by the class that they were called', ('class', 'images'),
          [(name, html.bar(count, most[0][1], html.number(count))) for name, count in most[:_ROWS]])]
                   if several else ()),
      html.Section('images', 'The least sure first' if several else 'The image',
                   [html.paragraphs(told) if several else None, _pictures(shown)]),
      html.Section('all', 'Every image', [html.tag('div', _table(rows), class_='tall'), html.paragraphs(
          f'{len(rows) - _ROWS:,} more are in predictions.csv.' if len(rows) > _ROWS else '')]),
      html.Section('skipped', 'Files that were skipped', [html.table('What was not read, and why', ('file', 'why'), [
          (name, html.tag('td', reason, class_='text')) for name, reason in skipped[:_ROWS]])] if skipped else ()),
      html.Section('limits', 'What this does not say', [html.bullets([
          f'The network knows {counted(asked["classes"], "class")} and gives one of them to '
          'every image, also to one of something else.',
          'A probability is what the network gives, not how often it is right: networks are often too sure.'])]),
      html.Section('again', 'The same again', [shared.command(asked.get('command'))]),
      html.Section('files', 'Files', shared.beside(folder, ('predictions.csv',)))]
  return html.document(f'What is on {what}', f'vimnas_jax predict: a network of {shared.name_of(asked["space"])}', lead,
                       sections)


def _pictures(shown) -> Any:
  figures = []
  for row, image in shown:
    picture = shared.picture(image, f'{row["file"]}, called {row["class"]}')
    small = max(image.shape[:2]) <= shared.SIDE
    if picture is not None:
      figures.append(html.tag(
          'figure', html.tag('div', picture, class_='photos pixels' if small else 'photos'),
          html.tag('figcaption', html.tag('strong', row['class']), f' {_percent(row["probability"])}: {row["file"]}')))
  return html.tag('div', figures, class_='named') if figures else None


def _percent(value: Any) -> str:
  return html.number(100 * value, 1, '%') if html.real(value) else html.NOTHING


def _warnings(rows, skipped) -> list[str]:
  told = []
  unsure = [row for row in rows if not html.real(row['probability']) or row['probability'] < _UNSURE]
  if unsure:
    told.append(f'On {html.number(len(unsure))} of {counted(len(rows), "image")} no class has half of the probability: '
                'look at them yourself.')
  if skipped:
    named = '; '.join(f'{name} ({why})' for name, why in skipped[:3])
    told.append(f'{counted(len(skipped), "file")} skipped: {named}' + (
                f'; and {len(skipped) - 3} more, below.' if len(skipped) > 3 else '.'))
  return told


def _table(rows) -> Any:
  width = max(len(row['top']) for row in rows)
  body = [(row['file'], html.tag('td', row['class'], class_='text'),
           html.bar(row['probability'], 1, _percent(row['probability'])),
           *(html.tag('td', f'{name} {_percent(p)}', class_='text') for name, p in row['top'][1:]))
          for row in rows[:_ROWS]]
  return html.table('Every image with its class, and the classes that come next', (
      'file', 'is called', 'probability', *('next', 'then')[:width - 1]), body)
