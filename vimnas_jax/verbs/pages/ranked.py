"""Which of several experiments comes first by what is known of their accuracies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
  columns = {'method': lambda row: shared.name_of(row.get('method', ''))}
  return {heading: of for heading, of in columns.items() if len(set(map(of, rows))) > 1}


def measures(rows: Mapping[str, Mapping]) -> list[tuple[str, dict, str]]:
  """(heading, {experiment: spread}, whose) of every accuracy that a row has, the one that says most first.

  `whose` is '' for figures of these images, else whose they are.
  """
  found = [(words, {name: row.get(key) for name, row in rows.items()}, '') for key, words in _ACCURACIES.items()]
  data = {str(row.get('data', '')) for row in rows.values()}
  columns = []
  for benchmark, figure in tabular.COLUMNS:
    known = {benchmark.known(name) for name in data}
    fits = '' not in known and (len(figure.path) == 1 or known == {figure.path[0]})
    column = {name: figure.of(row.get(benchmark.key, {})) for name, row in rows.items()}
    columns.append((not fits, (f'{benchmark.name}, {figure.heading}', column, '' if fits else benchmark.name)))
  found += [column for _, column in sorted(columns, key=lambda pair: pair[0])]
  found = [(words, {name: one for name, one in column.items() if isinstance(one, dict) and html.real(one.get('mean'))},
            whose) for words, column, whose in found]
  return [(words, column, whose) for words, column, whose in found if column]


def _lower(words: str) -> bool:
  return 'error' in words or 'regret' in words


def answer(spaces) -> Any:
  """The first experiment of every space, {space: (rows, groups)}."""
  told = []
  for name, (rows, _) in spaces.items():
    where = f'In {shared.name_of(name)}, ' if len(spaces) > 1 else ''
    for words, column, whose in sorted(measures(rows), key=lambda each: len(each[1]) < len(rows))[:1]:
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
