"""What a report says: its tables and pages in Markdown, and the panels of its picture."""

import functools
import operator
import os
import textwrap
import urllib.parse
from collections.abc import Callable
from typing import Any

from vimnas_jax import files, tabular
from vimnas_jax.verbs import pages

# title of a panel -> key of a row; between the two stand the accuracies that benchmarks know
_TRAINED_HERE = {'trained from scratch, %': 'retrained',
                 'trained from scratch, validation %': 'retrained_valid'}
_MEASURES = {'supernet, %': 'supernet_mixed', 'cell alone in the supernet, %': 'supernet_derived',
             'one-hotness': 'one_hot', 'skip connections': 'skips', 'pools': 'pools', 'convolutions': 'convolutions'}


def plain(name: str) -> str:
  """A name from outside as Markdown takes it in a cell or a heading."""
  return files.printable(name).replace('|', '\\|').replace('\n', ' ')


def panels(rows) -> dict:
  """What `draw.comparison` takes, of {space: rows}: the measures that all rows have, accuracies first."""
  everyone = [row for own in rows.values() for row in own.values()]
  known = {benchmark: {benchmark.known(row['data']) for row in everyone} for benchmark in tabular.BENCHMARKS}
  measures: dict[str, Callable[[dict], Any]] = {title: operator.methodcaller('get', key)
                                                for title, key in _TRAINED_HERE.items()}
  for benchmark, figure in tabular.COLUMNS:  # of several data sets those that were searched on
    if '%' in figure.heading and (len(figure.path) == 1 or known[benchmark] in ({''}, {figure.path[0]})):
      measures[f'{benchmark.name}:\n{figure.heading.removesuffix(" %")}, %'] = functools.partial(_of, benchmark, figure)
  measures |= {title: operator.methodcaller('get', key) for title, key in _MEASURES.items()}
  return {title: {space: {name: measure(row)['values'] for name, row in own.items()} for space, own in rows.items()}
          for title, measure in measures.items() if all(map(measure, everyone))}


def _of(benchmark, figure, row):
  return figure.of(row.get(benchmark.key, {}))


def _cell(spread, digits=2, scale=1.0) -> str:
  if spread is None:
    return '–'
  mean = f'{spread["mean"] / scale:.{digits}f}'
  return mean if spread['std'] is None else f'{mean} ± {spread["std"] / scale:.{digits}f}'


# columns that only some reports have: key of a row -> heading, what its values are divided by
_COLUMNS = {'seconds_per_step': ('s a step', 1.0), 'seconds_estimated': ('minutes', 60.0),
            'bytes_per_step': ('MiB', 2.0 ** 20), 'finalist_epochs': ('finalists, epochs', 1.0),
            'supernet_mixed': ('supernet %', 1.0), 'supernet_derived': ('architecture in it %', 1.0),
            'retrained': ('retrained, test %', 1.0), 'retrained_valid': ('retrained, validation %', 1.0)}
_TRAINED = ' or '.join(benchmark.name for benchmark in tabular.BENCHMARKS if not benchmark.predicts)
_PREDICTED = ' '.join(f'{benchmark.name}: {benchmark.predicts}.' for benchmark in tabular.BENCHMARKS
                      if benchmark.predicts)
LEGEND = textwrap.fill(f"""\
Means and standard deviations over seeds. Epochs count pretraining; those of finalists, of derived networks that were
trained to choose between them, come on top, and so do their minutes. Agreement: the share of edges, with their
operations, that two seeds have in common, mean over pairs. Parameters: of the derived network
{pages.SIZE}. Minutes: of all steps, without compiling. MiB: of a step on one device, as XLA accounts
for it, the data set included. Supernet: its accuracy on validation images at the end of the search, mixed by the
probabilities, and with the architecture alone; retrained: of the derived network, trained from scratch. Columns that
begin with {_TRAINED} are figures of that
benchmark: of the architecture as it trained it, on its own data sets, which are not those of the runs unless their
names say so. {_PREDICTED}""", 120, break_on_hyphens=False)


def warnings(notes) -> list[str]:
  """Lines of Markdown with what a reader has to know first."""
  return [*(f'- {plain(note)}' for note in notes), ''] if notes else []


def table(rows, among=()) -> str:
  """A Markdown table of the rows; with columns for method and data where those of `rows`, or of `among`, differ."""
  named = pages.naming([*rows.values(), *among])
  figures = list(dict.fromkeys((benchmark, figure) for row in rows.values() for benchmark, figure in tabular.COLUMNS
                               if figure.of(row.get(benchmark.key, {}))))
  columns = {key: head for key, head in _COLUMNS.items() if any(row.get(key) for row in rows.values())}
  head = ['experiment', *named, 'seeds', 'epochs', 'one-hotness', 'skips', 'pools', 'convolutions', 'parameters (M)',
          'agreement', *(heading for heading, _ in columns.values()),
          *(f'{benchmark.name} {figure.heading}' for benchmark, figure in figures)]
  lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
  for name, row in rows.items():
    cells = [plain(name), *(plain(of(row)) for of in named.values()), str(len(row['seeds'])),
             f'{row["epochs"]:g}', _cell(row['one_hot'], 3),
             _cell(row['skips'], 1), _cell(row['pools'], 1), _cell(row['convolutions'], 1),
             _cell(row['params'], 3, 1e6),
             '–' if row['agreement'] is None else f'{row["agreement"]:.2f}',
             *(_cell(row.get(key), scale=scale) for key, (_, scale) in columns.items()),
             *(_cell(figure.of(row.get(benchmark.key, {})), figure.digits) for benchmark, figure in figures)]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def page(rows, groups, folder, pictures, remarks=(), notes=()) -> str:
  """The report of one space, to be written into `folder`; groups as `experiments.named` makes them.

  `remarks` are lines that benchmarks add (Tabular.remark), `notes` what a reader has to know first.
  """
  lines = ['# Report', '', table(rows), '', *warnings(notes),
           LEGEND, '', *(line for remark in remarks for line in (remark, '')), '![first edge](first_edge.png)', '',
           'Probabilities on the first edge of every cell, of each experiment the first seed that recorded them; each '
           'panel has axes of its own.', '',
           '![distributions](distributions.png)', '', 'Distributions of all edges at the start and at the end.', '']
  lines += ['![comparison](comparison.png)', '', 'Means over seeds, in figures beside the bars, which begin at 0; of '
            'several seeds every dot is one.', '']
  for picture in pictures[3:]:
    lines += [f'![regret]({picture})', '', 'Regret of what would have been derived at every recorded step: mean over '
              'seeds, and standard error.', '']
  for name, members in groups.items():
    lines += [f'## {plain(name)}', '']
    for result in (run.result for run in members):
      lines += [f'- seed {result["seed"]}: `{result["genotype"]}`, one-hotness {result["one_hot"]:.3f}']
    where = members[0].folder
    shown = urllib.parse.quote(os.fsencode(files.relative(where, folder)), safe='/:%')
    for picture in ('weights.png', 'phi.png'):
      if (where / picture).exists():
        lines += ['', f'![{plain(name)}: {picture}]({shown}/{picture})']
    if (where / 'film.gif').exists():
      lines += ['', f'[{plain(name)}: its probabilities as a film]({shown}/film.gif)']
    lines.append('')
  return '\n'.join(lines)
