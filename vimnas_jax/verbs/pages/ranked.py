"""Which of several experiments comes first by what is known of their accuracies, and when none does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vimnas_jax import tabular
from vimnas_jax.draw import page as html
from vimnas_jax.verbs.pages import shared
from vimnas_jax.verbs.pages.shared import counted

# key of a row -> heading
_ACCURACIES = {'retrained': 'trained from scratch, test %', 'retrained_valid': 'trained from scratch, validation %',
               'supernet_mixed': 'supernet, %',
               'supernet_derived': 'cell alone in the supernet, %'}


def naming(rows: Sequence[Mapping]) -> dict[str, Callable[[Mapping], str]]:
  """{heading: f(row)} of the columns that say of what an experiment is, in which some of the rows differ."""
  columns: dict[str, Callable[[Mapping], str]] = {
      'method': lambda row: shared.name_of(row.get('method', '')), 'data': _images}
  return {heading: of for heading, of in columns.items() if len(set(map(of, rows))) > 1}


def _images(row: Mapping) -> str:
  return str(row.get('images', row.get('data', '')))


class Measure(NamedTuple):
  """An accuracy that rows have.

  Attributes:
    words: its heading.
    column: {experiment: spread}.
    whose: '' for figures of these images, else whose they are.
    apart: why those of different experiments are not to be compared, '' where they are.
  """

  words: str
  column: dict[str, Mapping]
  whose: str
  apart: str


def measures(rows: Mapping[str, Mapping]) -> list[Measure]:
  """Every accuracy that a row has, the one that says most first."""
  found = [(words, {name: row.get(key) for name, row in rows.items()}, '', _trained_apart if key.startswith('retrained')
            else _searched_apart) for key, words in _ACCURACIES.items()]
  data = {str(row.get('data', '')) for row in rows.values()}
  columns = []
  for benchmark, figure in tabular.COLUMNS:
    known = {benchmark.known(name) for name in data}
    fits = '' not in known and (len(figure.path) == 1 or known == {figure.path[0]})
    column = {name: figure.of(row.get(benchmark.key, {})) for name, row in rows.items()}
    apart = _comparable if '' not in known and len(known) == 1 else _searched_apart  # as many data as it knows of them
    columns.append((not fits, (f'{benchmark.name}, {figure.heading}', column, '' if fits else benchmark.name, apart)))
  found += [column for _, column in sorted(columns, key=lambda pair: pair[0])]
  kept = []
  for words, column, whose, apart in found:
    column = {name: one for name, one in column.items() if isinstance(one, dict) and html.real(one.get('mean'))}
    if column:
      kept.append(Measure(words, column, whose, apart([rows[name] for name in column])))
  return kept


def _comparable(rows) -> str:
  """Of figures that are of the same images, whatever the searches had."""
  del rows
  return ''


def _searched_apart(rows) -> str:
  return 'on different images, not to be compared' if len(set(map(_images, rows))) > 1 else ''


def _trained_apart(rows) -> str:
  trained = [row.get('trained_with') or {} for row in rows]
  fields = {field for one in trained for other in trained for field in one.keys() & other.keys()
            if one[field] != other[field]}
  if 'images' in fields:
    return 'on different images, not to be compared'
  return 'of networks that were trained in different ways, not to be compared' if fields else ''


def _lower(words: str) -> bool:
  return 'error' in words or 'regret' in words


def answer(spaces) -> Any:
  """The first experiment of every space, {space: (rows, groups)}, or why there is none."""
  told = []
  for name, (rows, _) in spaces.items():
    where = f'In {shared.name_of(name)}, ' if len(spaces) > 1 else ''
    known = sorted(measures(rows), key=lambda each: len(each.column) < len(rows))
    first = next((i for i, each in enumerate(known) if not each.apart), len(known))
    for apart in dict.fromkeys(each.apart for each in known[:first]):
      by = '; '.join(each.words for each in known[:first] if each.apart == apart)
      told.append(f'{where}{"no" if where else "No"} experiment comes first by {by}: these are figures {apart}.')
    for words, column, whose, _ in known[first:first + 1]:
      best = (min if _lower(words) else max)(column, key=lambda each: column[each]['mean'])
      others = [one['mean'] for each, one in column.items() if each != best]
      lead = column[best]
      told.append(where + f'{best} comes first by {words}: '
                  f'{spread(lead)} over {counted(lead.get("runs"), "seed")}' + (
                      f', the next has {html.number((min if _lower(words) else max)(others), 2)}.' if others else '.') +
                  _doubt(column, best, words) + (
                      f' These are figures of other images, on which {whose} trained the cells: they do not say which '
                      'suits yours.' if whose else ''))
  return html.bullets(told) if len(told) > 1 else html.paragraphs(
      *told or ['None of them has an accuracy yet: train what they found, with --config.then=retrain.'])


def _doubt(column, best, words) -> str:
  """Whether the lead is smaller than what the seeds differ by."""
  others = {name: spread for name, spread in column.items() if name != best}
  if not others:
    return ''
  second = (min if _lower(words) else max)(others, key=lambda each: others[each]['mean'])
  stds = [column[name].get('std') for name in (best, second)]
  if not all(map(html.real, stds)):
    return ' With one seed an order may be chance.'
  gap = abs(column[best]['mean'] - column[second]['mean'])
  errors = (sum(std ** 2 / max(column[name].get('runs') or 1, 1) for std, name in zip(stds, (best, second)))) ** 0.5
  return ' That is within what the seeds differ by.' if gap <= 2 * errors else ''


def spread(value, digits=2, scale=1.0) -> str:
  """'mean ± standard deviation' of what a row has of a measure."""
  if not isinstance(value, dict) or not html.real(value.get('mean')):
    return html.NOTHING
  mean, std = html.number(value['mean'] / scale, digits), value.get('std')
  return mean if not html.real(std) else f'{mean} ± {html.number(std / scale, digits)}'
