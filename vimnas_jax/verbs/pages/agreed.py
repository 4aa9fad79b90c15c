"""How far the seeds of experiments agree: what each took on every edge, the cells, and how they were decided."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vimnas_jax.draw import page as html
from vimnas_jax.draw import palette, svg
from vimnas_jax.draw.base import heading
from vimnas_jax.errors import UserError
from vimnas_jax.runs import metrics
from vimnas_jax.verbs.pages import shared

_SEEDS, _POINTS = 12, 60  # of an experiment: columns of a table, lines of a chart; points of a line


def _by_seed(members):
  return sorted(members, key=lambda run: run.result['seed'])


def _left_out(count: int) -> str:
  """What is said where `count` seeds are more than are shown."""
  return f'; {_SEEDS} of {count} seeds are shown' if count > _SEEDS else ''


def agreement(rows, groups) -> list[Any]:
  """Edge by edge, what each seed took: counted over all seeds, of which the first _SEEDS have a column."""
  parts: list[Any] = []
  for experiment, members in groups.items():
    if len(members) < 2:
      continue
    runs, space = _by_seed(members), members[0].space
    found = [shared.architecture(space, run.result) for run in runs]
    body = []
    for cell in space.cells:
      chosen = [{edge[1:]: edge[0] for edge in genotype.cells[cell]} if genotype else {} for genotype in found]
      for edge in sorted({edge for each in chosen for edge in each}, key=lambda edge: (edge[1], edge[0])):
        ops = [each.get(edge) for each in chosen]
        count = max(Counter(ops).values())
        body.append((f'{edge[0]}->{edge[1]}' + (f' of {cell}' if len(space.cells) > 1 else ''),
                     html.bar(count, len(ops), f'{count} of {len(ops)}'),
                     *(html.tag('td', html.NOTHING if op is None else palette.short(op), class_='text')
                       for op in ops[:_SEEDS])))
    if body:
      parts.append(html.more(f'{experiment}: {html.number(rows[experiment].get("agreement"), 2)} of the edges are the '
                             'same in two seeds', html.table(
                                 f'{experiment}: what each seed took on every edge (– : the edge is not in its cell)' +
                                 _left_out(len(runs)),
                                 ('edge', 'the same', *(f'seed {run.result["seed"]}' for run in runs[:_SEEDS])), body),
                             open_=len(groups) <= 4))
  return parts


def cells(groups, seed: int | None = None) -> list[Any]:
  """The cells of the first seed of every experiment, or of `seed`."""
  space = next(iter(groups.values()))[0].space
  drawn, used = [], []
  places = palette.slots(shared.operations(space))
  for experiment, members in groups.items():
    run = next((run for run in members if run.result['seed'] == seed), members[0])
    genotype = shared.architecture(space, run.result)
    if genotype is None:
      continue
    for name in space.cells:
      title = f'{experiment}, seed {run.result["seed"]}' + (
          f': {heading(name)}' if len(space.cells) > 1 else '')
      used += [op for op, _, _ in genotype.cells[name]]
      drawn.append(html.tag('figure', html.tag('figcaption', title), html.box(svg.cell(
          genotype, name, space, places | palette.slots(op for op in used if op not in places)), f'{title}, drawn')))
  return [html.paragraphs('Of the first seed of every experiment.' if seed is None else 'Of the seed that was chosen.'),
          html.legend({op: place for op, place in places.items() if op in used}),
          html.tag('div', drawn, class_='cells')]


def curves(groups) -> list[Any]:
  """One-hotness over the steps: a chart for every experiment, a line for every seed, of the first _SEEDS."""
  charts = []
  for experiment, members in groups.items():
    lines, steps = [], []
    for place, run in enumerate(_by_seed(members)[:_SEEDS]):
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
      charts.append(html.tag('figure', html.tag('figcaption', experiment + _left_out(len(members))), svg.chart(
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
