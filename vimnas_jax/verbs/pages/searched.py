"""The page of a search: the architecture, how sure the search is of it, and how it came about."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vimnas_jax import files, tabular
from vimnas_jax.draw import page as html
from vimnas_jax.draw import palette, svg
from vimnas_jax.draw.base import heading
from vimnas_jax.errors import UserError
from vimnas_jax.runs import metrics
from vimnas_jax.spaces import Genotype, Space
from vimnas_jax.verbs.pages import checks, shared
from vimnas_jax.verbs.pages.shared import counted

_POINTS, _MOST_POINTS, _CHARTS = 80, 24_000, 120  # of a line; of all lines; edges that are drawn
_NAMED, _ROOM = 0.12, 10  # probability from which an operation is named at its end, and characters kept for that


def page_of_retraining(folder: pathlib.Path) -> Mapping | None:
  """The result of the network that was trained from a search's cell, None where there is none that can be read."""
  try:
    path = folder / 'retrain' / 'result.json'
    return files.read_json(path) if path.exists() else None
  except UserError:
    return None


def page(folder: pathlib.Path, result: Mapping, space: Space, network: Mapping | None = None) -> str:
  """The page as text; `network` is the result of training what was found, if it is at hand."""
  genotype = shared.architecture(space, result)
  arch = metrics.read(folder / 'arch.jsonl')
  network = network or page_of_retraining(folder)
  if network and network.get('genotype') != result.get('genotype'):
    network = None
  warned = checks.of_search(result, space, genotype, network) + checks.of_data(shared.account(folder))
  space_name, data_name = shared.name_of(space.name), shared.images_of(folder, result)
  method = shared.name_of(result.get('method', 'a method'))
  lead = [html.tag('p', f'Which cell of the space {space_name} suits {data_name}? {_answer(result, method)}'
                   f'{_accurate(network)}'),
          shared.data(folder, result),
          html.tag('pre', html.tag('code', result.get('genotype', html.NOTHING)), tabindex='0', role='region',
                   aria_label='The architecture in the notation of its space'),
          html.facts(_tiles(result, network, space), 'tiles'),
          html.warnings(warned, 'no sign of collapse, and the search was decided before its end.' if
                        result.get('steps') and not shared.otherwise(result) else 'no sign of collapse in the cell.')]
  sections = [
      html.Section('cells', 'The cell' if len(space.cells) == 1 else 'The cells',
                   [*shared.cells(space, genotype, result.get('probs')), _graph(result),
                    _table(space, genotype, result, arch)]),
      html.Section('accuracy', 'How good it is', _accuracy(folder, result, network)),
      html.Section('decision', 'How it was decided',
                   [*_decision(space, arch, result), _film(folder, arch), *_edges(space, genotype, arch)]),
      html.Section('training', 'Training curves', _curves(metrics.read(folder / 'metrics.jsonl'))),
      html.Section('cost', 'Size, time and memory', shared.cost(result, _where(space))),
      html.Section('limits', 'What this does not say', [html.bullets(_limits(result, network))]),
      html.Section('again', 'The same again', shared.again(result)),
      html.Section('files', 'Files', shared.beside(folder, ('result.json',)))]
  return html.document(f'Search on {data_name}', f'vimnas_jax search: {method} in {space_name}', lead, sections)


def _epochs(result):
  """Of all steps, those of theta alone included; of a result that does not say how many these are the search's."""
  steps, planned, alone, epochs, whole = (result.get(name) for name in (
      'steps', 'planned_steps', 'pretrain_steps', 'epochs', 'steps_per_epoch'))
  if html.real(whole) and html.real(steps) and whole:
    epochs = steps / whole
  elif all(map(html.real, (steps, planned, alone, epochs))) and epochs and planned > alone:
    epochs = steps * epochs / (planned - alone)
  return float(f'{epochs:.3g}') if html.real(epochs) else epochs


def _alone(result) -> str:
  steps, all_steps = result.get('pretrain_steps'), result.get('steps')
  steps = min(steps, all_steps) if html.real(steps) and html.real(all_steps) else steps
  return f', {counted(steps, "step")} of them of its weights alone' if html.real(steps) and steps else ''


def _answer(result, method) -> str:
  steps = result.get('steps')
  did = f'{method} searched {counted(steps, "step")} ({counted(_epochs(result), "epoch")}{_alone(result)})'
  if not steps:
    did = f'{method} trained nothing'
  if result.get('derived'):
    return f'{did}, then tried architectures, and took this one:'
  if result.get('drawn'):
    return f'{did}; this one was drawn at random:'
  if shared.compared(result):
    rows, facts = shared.finalists(result), result['finalists']
    best = max(html.real(row.get('valid_top1')) and row['valid_top1'] for row in rows)
    least = facts.get('chosen') == 1 and html.real(facts.get('margin')) and facts['margin']
    why = (f'none is better than this one, the most probable, by {least:g} points on validation images:'
           if least and rows[0].get('valid_top1') != best else 'this one is right on most validation images:')
    return f'{did}; of {counted(len(rows), "finalist")}, trained for a short time, {why}'
  if result.get('taken'):
    return f'{did}; this is {result["taken"]}:'
  if shared.otherwise(result):
    return f'{did}; a limit put this one in the place of what it ended with:'
  return f'{did} and ended with this one.' + (
      '' if not steps else ' It had decided before its end.' if checks.decided(result) else
      ' It had not decided by its end.')


def _trials(result) -> list[Any]:
  """The finalists in a table, with what they cost."""
  rows, facts = shared.finalists(result), result.get('finalists')
  if not rows:
    return []
  lines = [(f'{number}{", taken" if number == facts.get("chosen") else ""}', row.get('genotype', html.NOTHING),
            html.number(row.get('valid_top1'), 2), html.number(row.get('valid_loss'), 3),
            html.number(row.get('params'))) for number, row in enumerate(rows, 1)]
  took = facts.get('seconds_estimated')
  cost = f', about {metrics.duration(took)}' if html.real(took) else ''
  by = facts.get('shrink')
  smaller = f' on images whose sides were divided by {by}' if html.real(by) and by > 1 else ''
  return [html.paragraphs(html.joined([
      'Finalists: what was most probable at the end (1) and what was next to it, each trained from scratch for ',
      html.number(facts.get('epochs'), 1), ' epochs', smaller, ', ',
      html.number(facts.get('epochs_in_all'), 1), ' in all', cost, '. ',
      html.number(facts.get('valid_images')), ' validation images chose. So short a training tells what learns '
      'sooner, which need not be what is better in the end.'])),
          html.table('Finalists', ('', 'architecture', 'validation %', 'loss', 'parameters'), lines)]


def _accurate(network) -> str:
  """How good it is, and how sure that is, where its network has been trained."""
  value, how = shared.accuracy(network)
  return f' Trained from scratch, its network is right on {value} of {how}.' if how else ''


def _tiles(result, network, space) -> list[tuple]:
  chooser = 'block' if space.topology else 'edge'
  tiles = shared.accuracy_tile(network)
  for benchmark in tabular.BENCHMARKS:
    known = benchmark.known(str(result.get('data', '')))
    figures = result.get(benchmark.key)
    figure = next((f for f in benchmark.figures if (len(f.path) == 1 or f.path[0] == known)
                   and html.real(f.of(figures or {}))), None) if known else None
    if figure:
      tiles.append((f'{benchmark.name}, {figure.heading.removesuffix(" %")}',
                    html.number(figure.scale * figure.of(figures), figure.digits, '%'),
                    'predicted by the benchmark' if benchmark.predicts else 'as the benchmark trained this cell'))
  if not tiles:
    tiles.append(('Accuracy', html.NOTHING, 'not measured yet: a search ranks cells, training says how good one is'))
  if not shared.otherwise(result):
    unchanged, steps = result.get('unchanged_steps'), result.get('steps')
    known = html.real(unchanged) and html.real(steps) and steps
    share = f'{100 * unchanged / steps:.0f} % of all steps' if known else ''
    tiles += [('One-hotness', html.number(result.get('one_hot'), 3), f'1: every {chooser} has decided'),
              ('Unchanged for', counted(unchanged, 'step'), share)]
  return [*tiles, ('Parameters', html.number(result.get('params')), _where(space)),
          ('Multiply-adds', shared.millions(result.get('madds')), 'of one image')]


def _where(space: Space) -> str:
  elsewhere = tabular.network(space)
  return f'of its network in {elsewhere.name}' if elsewhere else 'at the width and depth of the search'


def _accuracy(folder, result, network) -> list[Any]:
  parts: list[Any] = []
  if network:
    own = 'retrain/report.html' if (folder / 'retrain' / shared.FILE).exists() else 'retrain/result.json'
    parts.append(html.tag('p', _accurate(network).strip() or 'Its network was trained, its accuracy is no number.', ' ',
                          html.link(own, 'The page of that training' if own.endswith('html') else 'Its result'), '.'))
  row = result.get('supernet')
  if isinstance(row, dict):
    parts.append(html.facts([
        ('Supernet, all operations', html.number(row.get('mixed'), 2, '%'),
         f'of {counted(row.get("images"), "validation image")}, with what the method mixes'),
        ('Supernet, this cell alone', html.number(row.get('derived'), 2, '%'), 'with the weights of the search')]))
  parts += _trials(result)
  parts += shared.benchmarks(result)
  if not parts:
    parts = html.paragraphs('A search ranks cells and trains none: how good this one is shows when its network is '
                            'trained, with --config.then=retrain or the task retrain.')
  return parts if isinstance(parts, list) else [parts]


def _graph(result) -> Any:
  """How clearly the graph was chosen, where it is searched beside the operations."""
  margins = result.get('graph_margins')
  if not isinstance(margins, dict):
    return None
  told = ', '.join(f'{name} {html.number(margin, 3)}' for name, margin in margins.items())
  return html.paragraphs('By how much probability the weakest input that is kept leads the strongest that is not (0: a '
                         f'tie): {told}.')


def _table(space: Space, genotype: Genotype | None, result, arch) -> Any:
  """Every edge with what was chosen, how probable that is, what comes next, and since when it leads."""
  rows = []
  for name, cell in space.cells.items():
    probs = shared.fitting(result.get('probs'), name, cell.shape)
    if probs is None:
      continue
    recorded = [(row['step'], shared.fitting(row.get('probs'), name, cell.shape)) for row in arch]
    recorded = [(step, p.argmax(1)) for step, p in recorded if p is not None]
    kept = {edge[1:]: edge[0] for edge in genotype.cells[name]} if genotype else {}
    blocks = {target: op for (_, target), op in kept.items()}  # where rows are blocks, whose edges are chosen beside
    for e, ops in enumerate(cell.ops):
      order = np.argsort(-np.nan_to_num(probs[e], nan=-1), kind='stable')
      first, second = order[0], order[1] if len(order) > 1 else order[0]
      since = decided_since([step for step, _ in recorded], [winners[e] for _, winners in recorded])
      chosen = blocks.get(e + 1, 'without a way out') if cell.rows else kept.get(cell.edges[e], 'not kept')
      rows.append((f'{cell.label(e)} of {name}' if len(space.cells) > 1 else cell.label(e), chosen, ops[first],
                   html.number(float(probs[e][first]), 3), ops[second], html.number(float(probs[e][second]), 3),
                   html.number(since)))
  if not rows:
    return None
  head = ('block' if space.topology else 'edge', 'in the architecture', 'most probable', 'probability', 'next',
          'probability', 'leads since step')
  return html.more('Every edge in a table', html.table('What every edge ended with', head, rows))


def decided_since(steps: Sequence[int], winners: Sequence[Any]) -> int | None:
  """The step since which the last of `winners` has not changed; None where there is none."""
  changed = [i for i in range(1, len(winners)) if winners[i] != winners[i - 1]]
  return None if not len(steps) else steps[changed[-1]] if changed else steps[0]


def _decision(space: Space, arch, result) -> list[Any]:
  if len(arch) < 2:
    return [html.paragraphs('The probabilities were not recorded on the way (there is no arch.jsonl, or one line).')]
  steps = [row['step'] for row in arch]
  known = {text: shared.edges(space, {'genotype': text}) for text in {row.get('genotype') for row in arch}}
  found = [known[row.get('genotype')] for row in arch]
  changes = [steps[i] for i in range(1, len(steps)) if found[i] != found[i - 1]]
  last = (f'The architecture changed {counted(len(changes), "time")} between records, at last at step '
          f'{changes[-1]:,} of {steps[-1]:,} (strokes below the first curve).' if changes else
          'The architecture did not change between records.')
  if shared.otherwise(result):
    last = 'It was not these probabilities that chose the architecture above.'
  charts = [shared.curve('One-hotness', steps, [('one-hot', [row.get('one_hot') for row in arch], 2)], 'step', y=(0, 1),
                         marks=changes[-60:]),
            shared.curve('Entropy of an edge, nats', steps, [('entropy', [row.get('entropy') for row in arch], 4)],
                         'step')]
  return [html.paragraphs('One-hotness is the mean of the largest probability of every edge: 1 when all have decided. '
                          'Entropy falls to 0 then. ' + last), html.tag('div', charts, class_='charts')]


def _film(folder: pathlib.Path, arch) -> Any:
  """A link to the film, where it has more than a picture: a page that moves by itself cannot be read in peace, nor
  printed.
  """
  if len(arch) < 2 or not (folder / 'film.gif').exists():
    return None
  return html.paragraphs(html.joined([html.link('film.gif', 'The film'), ' shows the probabilities, record by '
                                      'record.']))


def _edges(space: Space, genotype: Genotype | None, arch) -> list[Any]:
  """One small chart of probabilities for every edge."""
  if len(arch) < 2:
    return []
  places = palette.slots(shared.operations(space))
  lines = sum(cell.shape[0] * cell.shape[1] for cell in space.cells.values())
  rows = [arch[i] for i in svg.thinned(len(arch), max(12, min(_POINTS, _MOST_POINTS // lines)))]
  room = max(min(max(map(len, map(palette.short, places))), _ROOM), 4)
  parts, left = [], _CHARTS
  for name, cell in space.cells.items():
    found = [(row['step'], shared.fitting(row.get('probs'), name, cell.shape)) for row in rows]
    found = [(step, probs) for step, probs in found if probs is not None]
    if len(found) < 2:
      continue
    steps, probs = [step for step, _ in found], np.stack([p for _, p in found])
    kept = {edge[1:]: edge[0] for edge in genotype.cells[name]} if genotype and not cell.rows else {}
    shown = min(left, len(cell.edges))
    left -= shown
    charts = [_edge(cell, e, steps, probs[:, e], places, room, kept) for e in range(shown)]
    parts += [html.tag('h3', heading(name).capitalize()), html.tag('div', charts, class_='edges')]
    if shown < len(cell.edges):
      parts.append(html.paragraphs(f'{len(cell.edges) - shown} more edges are in arch.jsonl alone.'))
  what = 'block' if space.topology else 'edge'
  thin = f' Of {len(arch):,} records {len(rows):,} are drawn.' if len(rows) < len(arch) else ''
  return [html.paragraphs(f'Probabilities of the operations on every {what} over the steps, each axis from 0 to 1; '
                          f'what leads at the end is named there.{thin}'), html.legend(places), *parts] if parts else []


def _edge(cell, e, steps, probs, places, room, kept):
  ops, last = cell.ops[e], np.nan_to_num(probs[-1], nan=-1)
  order = [int(o) for o in np.argsort(-last, kind='stable')]
  named = {o for rank, o in enumerate(order[:3]) if rank == 0 or last[o] >= _NAMED}
  lines = [svg.Line(op, [float(v) for v in probs[:, o]], places[op], palette.short(op, room) if o in named else '')
           for o, op in enumerate(ops)]
  lines = [lines[o] for o in reversed(order)]  # what leads lies above the others
  winner = ops[order[0]]
  state = '' if not kept else ', not kept' if cell.edges[e] not in kept else '' if kept[cell.edges[e]] == winner else (
      f', {kept[cell.edges[e]]} kept')
  return html.tag('figure', html.tag('figcaption', html.tag('strong', cell.label(e)),
                                     f': {winner} {html.number(float(probs[-1][order[0]]), 2)}{state}'),
                  svg.chart(f'Probabilities on {cell.label(e)}', steps, lines, size=(250, 128), y=(0, 1), room=room))


def _curves(rows) -> list[Any]:
  if not rows:
    return []
  steps = [row['step'] for row in rows]
  charts = [shared.curve('Loss of training batches', steps, [('loss', [row.get('loss') for row in rows], 2)], 'step'),
            shared.curve('Accuracy of training batches, %', steps, [('accuracy', [
                100 * row['accuracy'] if html.real(row.get('accuracy')) else None for row in rows], 1)], 'step',
                         y=(0, 100), digits=1)]
  return [html.paragraphs('Of the supernet as this method trains it: not the accuracy of the cell.'),
          html.tag('div', charts, class_='charts')]


def _limits(result, network) -> list[str]:
  told = ['One seed. Another may find another cell: a study with several seeds says how far they agree.']
  if not network:
    told.append('The network of this cell was trained for a short time alone. The curves are those of the supernet.' if
                shared.finalists(result) else
                'The search trained no network of this cell alone. Its curves are those of the supernet.')
  if any(benchmark.key in result for benchmark in tabular.BENCHMARKS):
    told.append('Figures of a benchmark are of the networks that it trained, with its own sizes, schedule and data '
                'sets, whatever images were searched on here.')
  told += ['One-hotness says that the search has decided, not that it decided well.',
           'Time and memory are of this machine; compiling comes on top.']
  if result.get('madds') is not None:
    told.append('Parameters and multiply-adds are counted exactly, but a cell with fewer is not always faster.')
  return told
