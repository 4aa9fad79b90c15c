"""The page of runs side by side: accuracy first, then how far the seeds agree, and the cells."""

import os
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vimnas_jax import tabular
from vimnas_jax.draw import page as html
from vimnas_jax.draw import palette, svg
from vimnas_jax.draw.base import heading
from vimnas_jax.errors import UserError
from vimnas_jax.runs import metrics
from vimnas_jax.verbs.pages import checks, shared
from vimnas_jax.verbs.pages.shared import counted

_SEEDS, _POINTS = 12, 60  # of an experiment: columns of a table, lines of a chart; points of a line
# key of a row -> heading, digits, divisor
_ACCURACIES = {'retrained': 'trained from scratch, %', 'supernet_mixed': 'supernet, %',
               'supernet_derived': 'cell alone in the supernet, %'}
_MEASURES = {'one_hot': ('one-hotness', 3, 1), 'unchanged_steps': ('unchanged for, steps', 0, 1),
             'skips': ('skip connections', 1, 1), 'pools': ('pools', 1, 1), 'convolutions': ('convolutions', 1, 1),
             'params': ('parameters, M', 3, 1e6), 'seconds_per_step': ('seconds a step', 3, 1),
             'seconds_estimated': ('minutes', 1, 60), 'bytes_per_step': ('memory, MiB', 0, 2 ** 20)}


def page(folder: pathlib.Path, spaces: Mapping[str, tuple[Mapping, Mapping]], places: Mapping[str, str],
         command: str = '') -> str:
  """The page as text; arguments as those of `pages.comparison`."""
  several = len(spaces) > 1
  runs = [run for _, groups in spaces.values() for members in groups.values() for run in members]
  data = ', '.join(dict.fromkeys(shared.name_of(run.result['data']) for run in runs))
  names = ', '.join(map(shared.name_of, spaces))
  experiments = sum(len(rows) for rows, _ in spaces.values())
  lead = [html.tag('p', f'Which of {counted(experiments, "experiment")} on {data} finds the better cells of {names}? '
                   f'{counted(len(runs), "search").replace("searchs", "searches")} are compared.'), _answer(spaces),
          html.warnings(_warnings(spaces), 'no run shows a sign of collapse.')]
  tables, agreed, cells, curves = [], [], [], []
  for name, (rows, groups) in spaces.items():
    title = html.tag('h3', html.link(f'{places[name]}/{shared.FILE}', shared.name_of(name)) if places.get(name) else
                     shared.name_of(name)) if several else None
    tables += [title, table(rows, shared.name_of(name))]
    if several:
      continue  # the rest is on the page of each space
    agreed += _agreement(rows, groups)
    cells += _cells(groups)
    curves += _curves(groups)
  written = ('report.md', 'report.json', *(('comparison.png',) if several else ()))
  return html.document(f'Comparison on {data}', f'vimnas_jax report: {names}', lead, [
      html.Section('table', 'Side by side', [*tables, _words()]),
      html.Section('agreement', 'How far the seeds agree', agreed), html.Section('cells', 'The cells', cells),
      html.Section('decision', 'How they were decided', curves),
      html.Section('runs', 'Every run', _runs(folder, spaces)),
      html.Section('limits', 'What this does not say', [html.bullets(_limits(spaces))]),
      html.Section('again', 'The same again', [shared.command(command)] if command else ()),
      html.Section('files', 'Files', shared.beside(folder, written))])


def _measures(rows) -> list[tuple[str, dict]]:
  """(heading, {experiment: spread}) of every accuracy that a row has, the one that says most first."""
  found = [(words, {name: row.get(key) for name, row in rows.items()}) for key, words in _ACCURACIES.items()]
  found += [(f'{benchmark.name}, {figure.heading}', {name: figure.of(row.get(benchmark.key, {}))
                                                     for name, row in rows.items()})
            for benchmark, figure in tabular.COLUMNS]
  found = [(words, {name: spread for name, spread in column.items() if isinstance(spread, dict) and
                    html.real(spread.get('mean'))}) for words, column in found]
  return [(words, column) for words, column in found if column]


def _lower(words: str) -> bool:
  return 'error' in words or 'regret' in words


def _answer(spaces) -> Any:
  told = []
  for name, (rows, _) in spaces.items():
    for words, column in _measures(rows)[:1]:
      best = (min if _lower(words) else max)(column, key=lambda each: column[each]['mean'])
      others = [spread['mean'] for each, spread in column.items() if each != best]
      spread = column[best]
      told.append((f'In {shared.name_of(name)}, ' if len(spaces) > 1 else '') + f'{best} comes first by {words}: '
                  f'{_spread(spread)} over {counted(spread.get("runs"), "seed")}' + (
                      f', the next has {html.number((min if _lower(words) else max)(others), 2)}.' if others else '.') +
                  _doubt(column, best, words))
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
  return ' That is within what the seeds differ by.' if gap < 2 * errors else ''


def _spread(spread, digits=2, scale=1.0) -> str:
  if not isinstance(spread, dict) or not html.real(spread.get('mean')):
    return html.NOTHING
  mean, std = html.number(spread['mean'] / scale, digits), spread.get('std')
  return mean if not html.real(std) else f'{mean} ± {html.number(std / scale, digits)}'


def table(rows: Mapping, name: str) -> html.Html:
  """The experiments of a space: accuracies first, with bars from zero, then what else is known of them."""
  accuracies = _measures(rows)
  measures = {key: what for key, what in _MEASURES.items() if any(row.get(key) for row in rows.values())}
  body = []
  for experiment, row in rows.items():
    bars = [html.bar((column.get(experiment) or {}).get('mean'), 100, _spread(column.get(experiment)))
            for _, column in accuracies]
    body.append((experiment, *bars, html.number(row.get('agreement'), 2), html.number(len(row.get('seeds', ()))),
                 html.number(row.get('epochs')), *(_spread(row.get(key), digits, scale)
                                                      for key, (_, digits, scale) in measures.items())))
  head = ('experiment', *(words for words, _ in accuracies), 'agreement of seeds', 'seeds', 'epochs',
          *(words for words, _, _ in measures.values()))
  return html.table(f'Experiments in {name}: means over seeds ± standard deviation; bars go from 0 to 100 %', head,
                    body)


def _words() -> html.Html:
  trained = ' or '.join(benchmark.name for benchmark in tabular.BENCHMARKS if not benchmark.predicts)
  predicted = ' '.join(f'{b.name}: {b.predicts}.' for b in tabular.BENCHMARKS if b.predicts)
  return html.more('What the columns mean', html.bullets([
      'Trained from scratch: of the network of each cell, on the images that its own page names.',
      'Supernet: on validation images at the end of the search, all operations mixed by their probabilities; then with '
      'the cell alone.',
      f'Columns that begin with {trained} are of the cell as that benchmark trained it, on its own data sets. '
      f'{predicted}',
      'Agreement of seeds: the share of edges, with their operations, that two seeds have in common, mean over pairs.',
      'Parameters: of the network of the cell at the width and depth of the search. Minutes: seconds of a step times '
      'steps, without compiling.']))


def _agreement(rows, groups) -> list[Any]:
  """Edge by edge, what each seed took."""
  parts: list[Any] = []
  for experiment, members in groups.items():
    if len(members) < 2:
      continue
    shown, space = members[:_SEEDS], members[0].space
    found = [shared.architecture(space, run.result) for run in shown]
    body = []
    for cell in space.cells:
      chosen = [{edge[1:]: edge[0] for edge in genotype.cells[cell]} if genotype else {} for genotype in found]
      for edge in sorted({edge for each in chosen for edge in each}, key=lambda edge: (edge[1], edge[0])):
        ops = [each.get(edge) for each in chosen]
        count = max(Counter(ops).values())
        body.append((f'{edge[0]}->{edge[1]}' + (f' of {cell}' if len(space.cells) > 1 else ''),
                     html.bar(count, len(ops), f'{count} of {len(ops)}'),
                     *(html.tag('td', html.NOTHING if op is None else palette.short(op), class_='text') for op in ops)))
    if body:
      parts.append(html.more(f'{experiment}: {html.number(rows[experiment].get("agreement"), 2)} of the edges are the '
                             'same in two seeds', html.table(
                                 f'{experiment}: what each seed took on every edge (– : the edge is not in its cell)',
                                 ('edge', 'the same', *(f'seed {run.result["seed"]}' for run in shown)), body),
                             open_=len(groups) <= 4))
  return parts


def _cells(groups) -> list[Any]:
  """The cells of the first seed of every experiment."""
  space = next(iter(groups.values()))[0].space
  drawn, used = [], []
  places = palette.slots(shared.operations(space))
  for experiment, members in groups.items():
    genotype = shared.architecture(space, members[0].result)
    if genotype is None:
      continue
    for name in space.cells:
      title = f'{experiment}, seed {members[0].result["seed"]}' + (
          f': {heading(name)}' if len(space.cells) > 1 else '')
      used += [op for op, _, _ in genotype.cells[name]]
      drawn.append(html.tag('figure', html.tag('figcaption', title), html.box(svg.cell(
          genotype, name, space, places | palette.slots(op for op in used if op not in places)), f'{title}, drawn')))
  return [html.paragraphs('Of the first seed of every experiment.'),
          html.legend({op: place for op, place in places.items() if op in used}),
          html.tag('div', drawn, class_='cells')]


def _curves(groups) -> list[Any]:
  """One-hotness over the steps: a chart for every experiment, a line for every seed."""
  charts = []
  for experiment, members in groups.items():
    lines, steps = [], []
    for place, run in enumerate(members[:_SEEDS]):
      try:
        rows = metrics.read(run.folder / 'arch.jsonl')
      except UserError:
        continue
      rows = [rows[i] for i in svg.thinned(len(rows), _POINTS)]
      if len(rows) > 1 and any(html.real(row.get('one_hot')) for row in rows):
        lines.append((run.result['seed'], {row['step']: row.get('one_hot') for row in rows}, place))
        steps += [row['step'] for row in rows]
    if lines:
      x = sorted(set(steps))
      # seeds that recorded other steps are drawn at theirs, joined across those they lack
      drawn = [svg.Line(f'seed {seed}', _filled(x, by_step), (2, 5, 1, 6, 4, 3, 7, 8, 9, 10, 11, 12)[place % 12],
                        str(seed)) for seed, by_step, place in lines]
      charts.append(html.tag('figure', html.tag('figcaption', experiment), svg.chart(
          f'One-hotness of {experiment}', x, drawn, y=(0, 1), size=(300, 170))))
  return [html.paragraphs('One-hotness over the steps, a line for every seed.'),
          html.tag('div', charts, class_='edges')] if charts else []


def _filled(x: Sequence[int], by_step: Mapping[int, Any]) -> list[Any]:
  """Values at every x up to the last one known; between those that are known, on the straight line."""
  known = sorted(step for step, value in by_step.items() if html.real(value))
  values: list[Any] = []
  for step in x:
    before = max((k for k in known if k <= step), default=None)
    after = min((k for k in known if k >= step), default=None)
    if before is None or after is None:
      values.append(None)
    elif before == after:
      values.append(by_step[before])
    else:
      part = (step - before) / (after - before)
      values.append((1 - part) * by_step[before] + part * by_step[after])
  return values


def _each(spaces):
  """(Name, run) of every run."""
  for space, (_, groups) in spaces.items():
    for experiment, members in groups.items():
      for run in members:
        where = f'{shared.name_of(space)}, ' if len(spaces) > 1 else ''
        yield f'{where}{experiment}, seed {run.result["seed"]}', run


def _warnings(spaces) -> list[str]:
  told = []
  for experiment, run in _each(spaces):
    genotype = shared.architecture(run.space, run.result)
    signs = [line for name in run.space.cells for line in checks.collapsed(name, run.space, genotype)
             ] if genotype else []
    told += [f'{experiment}: {line}' for line in signs]
  rest = len(told) - 12
  return told[:12] + ([f'{rest} more: they are on the page of each run.'] if rest > 0 else [])


def _runs(folder, spaces) -> list[Any]:
  rows = []
  for experiment, run in _each(spaces):
    where = pathlib.PurePath(os.path.relpath(run.folder, folder)).as_posix()
    own = (run.folder / shared.FILE).exists()
    name = html.link(f'{where}/{shared.FILE}' if own else f'{where}/result.json', experiment)
    film = run.folder / 'film.gif'
    rows.append((name, html.tag('td', html.link(f'{where}/film.gif', 'film') if film.exists() else html.NOTHING),
                 html.number(run.result.get('one_hot'), 3), html.number(run.result.get('unchanged_steps')),
                 html.tag('td', html.tag('code', run.result['genotype']), class_='text')))
  return [html.tag('div', html.table('Every run, with a link to its own page', (
      'run', 'decided', 'one-hotness', 'unchanged for, steps', 'architecture'), rows), class_='tall')]


def _limits(spaces) -> list[str]:
  least = min(len(members) for _, groups in spaces.values() for members in groups.values())
  told = ['Figures of a benchmark are of its own training and data sets, not of these images.',
          'Minutes hold for the machine that each run names; runs of several machines are not to be compared by them.']
  if least < 3:
    told.insert(0, f'An experiment has only {counted(least, "seed")}: differences between methods of this field are '
                'often smaller than those between seeds.')
  return told
