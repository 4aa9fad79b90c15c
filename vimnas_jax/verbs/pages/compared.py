"""The page of runs side by side: accuracy first, then how far the seeds agree, and the cells."""

import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from vimnas_jax import files, tabular
from vimnas_jax.draw import page as html
from vimnas_jax.verbs.pages import agreed, checks, ranked, shared
from vimnas_jax.verbs.pages.shared import counted

# key of a row -> heading, digits, divisor
_MEASURES = {'one_hot': ('one-hotness', 3, 1), 'unchanged_steps': ('unchanged for, steps', 0, 1),
             'skips': ('skip connections', 1, 1), 'pools': ('pools', 1, 1), 'convolutions': ('convolutions', 1, 1),
             'params': ('parameters, M', 3, 1e6), 'seconds_per_step': ('seconds a step', 3, 1),
             'seconds_estimated': ('minutes', 1, 60), 'finalist_epochs': ('finalists, epochs on top', 1, 1),
             'bytes_per_step': ('memory, MiB', 0, 2 ** 20)}


class Chosen(NamedTuple):
  """Which of several seeds was taken, or what was read off all of them.

  Attributes:
    seed: the one; None for an architecture of all.
    rule: what chose it, in words.
    figures: {seed: what the rule looked at, in %}; {} for an architecture of all.
    result: of all, its 'genotype', 'one_hot', 'params' and the figures of benchmarks.
  """

  seed: int | None
  rule: str
  figures: Mapping[int, float]
  result: Mapping[str, Any] = MappingProxyType({})


def page(folder: pathlib.Path, spaces: Mapping[str, tuple[Mapping, Mapping]], places: Mapping[str, str],
         command: str = '', chosen: Chosen | None = None, notes: Sequence[str] = ()) -> str:
  """The page as text; arguments as those of `pages.comparison`."""
  several = len(spaces) > 1
  runs = [run for _, groups in spaces.values() for members in groups.values() for run in members]
  data = ', '.join(dict.fromkeys(str(row['images']) for rows, _ in spaces.values() for row in rows.values()))
  names = ', '.join(map(shared.name_of, spaces))
  experiments = sum(len(rows) for rows, _ in spaces.values())
  searches = counted(len(runs), 'search')
  question = html.tag('p', f'Which of {experiments} experiments on {data} finds the better cells of {names}? '
                      f'{searches} are compared.' if experiments > 1 else
                      f'What do {searches} on {data} find in {names}, and how far do they agree?')
  lead = [*(_choice(folder, runs, data, names, chosen) if chosen else (question, ranked.answer(spaces))),
          html.warnings([*notes, *checks.of_searches([(name, run.result, run.space) for name, run in _each(spaces)])],
                        'no run shows a sign of collapse' + (', and all had decided before their end.' if all(
                            checks.decided(run.result) for run in runs) else '.'))]
  tables, agree, cells, curves = [], [], [], []
  for name, (rows, groups) in spaces.items():
    title = html.tag('h3', html.link(f'{places[name]}/{shared.FILE}', shared.name_of(name)) if places.get(name) else
                     shared.name_of(name)) if several else None
    tables += [title, table(rows, shared.name_of(name), [row for each, _ in spaces.values() for row in each.values()])]
    if several:
      continue  # the rest is on the page of each space
    agree += agreed.agreement(rows, groups)
    if chosen and chosen.seed is None:
      space = runs[0].space
      cells += [html.paragraphs('Of all seeds.'), *shared.cells(
          space, shared.architecture(space, chosen.result), chosen.result.get('probs'))]
    cells += agreed.cells(groups, chosen and chosen.seed)
    curves += agreed.curves(groups)
  written = ('report.md', 'report.json', *(('comparison.png',) if several else ()),
             *(('result.json', 'seeds.md') if chosen else ()))
  title, kicker = f'Comparison on {data}', f'vimnas_jax report: {names}'
  if chosen:
    title, kicker = f'Search with {counted(len(runs), "seed")} on {data}', (
        f'vimnas_jax search: {shared.name_of(runs[0].result["method"])} in {names}')
  return html.document(title, kicker, lead, [
      html.Section('table', 'Over the seeds' if chosen else 'Side by side', [*tables, _words()]),
      html.Section('agreement', 'How far the seeds agree', agree), html.Section('cells', 'The cells', cells),
      html.Section('decision', 'How they were decided', curves),
      html.Section('runs', 'Every run', _runs(folder, spaces, chosen)),
      html.Section('limits', 'What this does not say', [html.bullets(_limits(spaces, chosen))]),
      html.Section('again', 'The same again', [shared.command(command)]),
      html.Section('files', 'Files', shared.beside(folder, written))])


def _choice(folder, runs, data, names, chosen) -> list[Any]:
  """The seed that was taken, what chose it, and its cell; or the cell of all."""
  if chosen.seed is None:
    return _consensus(runs, data, names, chosen)
  best = next(run for run in runs if run.result['seed'] == chosen.seed)
  others = ', '.join(f'seed {seed}: {html.number(value, 2, "%")}' for seed, value in chosen.figures.items()
                     if seed != chosen.seed)
  tiles = [('Chosen', f'seed {chosen.seed}', f'of {counted(len(runs), "seed")}'),
           ('Chosen by', html.number(chosen.figures[chosen.seed], 2, '%'), chosen.rule)]
  tiles += shared.accuracy_tile(best.result.get('retrained'))
  tiles += [('One-hotness', html.number(best.result.get('one_hot'), 3), '1: all edges have decided'),
            ('Parameters', html.number(best.result.get('params')), 'of its network')]
  return [html.tag('p', f'Which of {len(runs)} seeds of {shared.name_of(best.result["method"])} found the best cell of '
                   f'{names} for {data}? Seed {chosen.seed}, by {chosen.rule}: '
                   f'{html.number(chosen.figures[chosen.seed], 2, "%")}{f" ({others})" if others else ""}. ',
                   html.link(_page_of(best, folder), 'The page of that search'), '.'),
          html.tag('pre', html.tag('code', best.result['genotype']), tabindex='0', role='region',
                   aria_label='The architecture in the notation of its space'),
          html.facts(tiles, 'tiles')]


def _consensus(runs, data, names, chosen) -> list[Any]:
  """The architecture that was read off all seeds."""
  found, of_all = chosen.result, shared.edges(runs[0].space, chosen.result)
  same = sum(shared.edges(run.space, run.result) == of_all for run in runs)
  tiles = [('One-hotness', html.number(found['one_hot'], 3), 'of the mean; 1: all seeds have decided alike'),
           ('Found alone by', html.number(same), f'of {counted(len(runs), "seed")}'),
           ('Parameters', html.number(found['params']), 'of its network'),
           *shared.accuracy_tile(found.get('retrained'))]
  return [html.tag('p', f'Which cell of {names} do {counted(len(runs), "seed")} of '
                   f'{shared.name_of(runs[0].result["method"])} agree on for {data}? It is read off {chosen.rule}, '
                   'each of which searched by itself.'),
          html.tag('pre', html.tag('code', found['genotype']), tabindex='0', role='region',
                   aria_label='The architecture in the notation of its space'),
          html.facts(tiles, 'tiles'), *shared.benchmarks(found)]


def table(rows: Mapping, name: str, among: Sequence[Mapping] = ()) -> html.Html:
  """The experiments of a space: accuracies first, with bars from zero, then what else is known of them.

  Before them stand method and data where those of `rows`, or of `among`, differ.
  """
  named = ranked.naming([*rows.values(), *among])
  accuracies = ranked.measures(rows)
  measures = {key: what for key, what in _MEASURES.items() if any(row.get(key) for row in rows.values())}
  body = []
  for experiment, row in rows.items():
    bars = [html.bar((column.get(experiment) or {}).get('mean'), 100, ranked.spread(column.get(experiment)))
            for _, column, _, _ in accuracies]
    body.append((experiment, *(html.tag('td', of(row), class_='text') for of in named.values()), *bars,
                 html.number(row.get('agreement'), 2), html.number(len(row.get('seeds', ()))),
                 html.number(row.get('epochs')), *(ranked.spread(row.get(key), digits, scale)
                                                   for key, (_, digits, scale) in measures.items())))
  head = ('experiment', *named, *(each.words for each in accuracies), 'agreement of seeds', 'seeds', 'epochs',
          *(words for words, _, _ in measures.values()))
  return html.table(f'Experiments in {name}: means over seeds ± standard deviation; bars go from 0 to 100 %', head,
                    body)


def _words() -> html.Html:
  trained = ' or '.join(benchmark.name for benchmark in tabular.BENCHMARKS if not benchmark.predicts)
  predicted = ' '.join(f'{b.name}: {b.predicts}.' for b in tabular.BENCHMARKS if b.predicts)
  return html.more('What the columns mean', html.bullets([
      'Trained from scratch: of the network of each cell, on the images that its own page names.',
      'Supernet: on validation images at the end of the search, with all that its method mixes; then with '
      'the cell alone.',
      f'Columns that begin with {trained} are of the cell as that benchmark trained it, on its own data sets. '
      f'{predicted}',
      'Agreement of seeds: the share of edges, with their operations, that two seeds have in common, mean over pairs.',
      f'Parameters: of the network of the cell {shared.SIZE}. Minutes: of all steps, without compiling.']))


def _each(spaces):
  """(Name, run) of every run."""
  for space, (_, groups) in spaces.items():
    for experiment, members in groups.items():
      for run in members:
        where = f'{shared.name_of(space)}, ' if len(spaces) > 1 else ''
        yield f'{where}{experiment}, seed {run.result["seed"]}', run


def _page_of(run, folder) -> str:
  """The path, seen from `folder`, of the page of a run, or of its result."""
  where = files.relative(run.folder, folder)
  return f'{where}/{shared.FILE if (run.folder / shared.FILE).exists() else "result.json"}'


def _runs(folder, spaces, chosen) -> list[Any]:
  rows = []
  for experiment, run in _each(spaces):
    name = html.link(_page_of(run, folder), experiment)
    if chosen and run.result['seed'] == chosen.seed:
      name = html.joined([name, ' (chosen)'])
    film = files.relative(run.folder / 'film.gif', folder)
    rows.append((name, html.tag('td', html.link(film, 'film') if (run.folder / 'film.gif').exists() else html.NOTHING),
                 html.number(run.result.get('one_hot'), 3), html.number(run.result.get('unchanged_steps')),
                 html.tag('td', html.tag('code', run.result['genotype']), class_='text')))
  return [html.tag('div', html.table('Every run, with a link to its own page', (
      'run', 'decided', 'one-hotness', 'unchanged for, steps', 'architecture'), rows), class_='tall')]


def _limits(spaces, chosen) -> list[str]:
  least = min(len(members) for _, groups in spaces.values() for members in groups.values())
  told = ['Figures of a benchmark are of its own training and data sets, not of these images.',
          'Minutes hold for the machine that each run names; runs of several machines are not to be compared by them.']
  if chosen and chosen.seed is None:
    told.insert(0, 'Seeds that agree may err alike' + ('.' if 'retrained' in chosen.result else
                ': only a network trained from scratch says how good the cell is.'))
  elif chosen:
    told.insert(0, 'The figure that chose is the highest of several, so it flatters the chosen seed; test images were '
                'not asked.')
  elif least < 3:
    told.insert(0, f'An experiment has only {counted(least, "seed")}: differences between methods of this field are '
                'often smaller than those between seeds.')
  return told
