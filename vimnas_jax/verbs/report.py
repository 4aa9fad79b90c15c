"""The report verb: runs side by side, as a table and as pictures."""

import itertools
import pathlib
import re
import statistics

import numpy as np

from vimnas_jax import draw, files, tabular
from vimnas_jax.errors import UserError
from vimnas_jax.networks import genotypes
from vimnas_jax.runs import metrics, runfolder
from vimnas_jax.verbs import experiments, pages, records, tables


def report(config, workdir, command: str = '') -> dict:
  """Compares the finished searches below the folders of config.report.runs; see `across`."""
  roots = [pathlib.Path(p.strip()).expanduser() for p in config.report.runs.split(',') if p.strip()]
  if not roots:
    raise UserError('config.report.runs names no folder: give --config.report.runs=DIR, where DIR holds run folders')
  for root in roots:
    if not root.is_dir():
      raise UserError(f'config.report.runs: {files.printable(root)} is no folder')
  runs, left_out = records.below(roots)
  if not runs:
    raise UserError(f'config.report.runs={config.report.runs!r}: no finished search below it (result.json beside '
                    f'config.json){_unfinished(left_out, "; ")}')
  with runfolder.opened(workdir) as folder:
    runfolder.check_free(folder)
    return across(runs, folder, config.oracle, genotypes.trusted(config), command, left_out=left_out)


def across(runs, folder: pathlib.Path, oracles=None, trust=(), command: str = '', chosen=None, left_out=()) -> dict:
  """Compares searches of one space, or of several; arguments as those of `compare`, `chosen` as of `pages.comparison`.

  Of one: what `compare` writes and returns. Of several: that in a folder for each space, and above them report.md with
  all tables, report.json, and comparison.png with the spaces side by side; returns {space: rows}. `left_out` are
  folders of runs that are not finished, which is said.
  """
  searches = records.read(runs, trust)
  found, images = experiments.named(searches, chosen is not None), experiments.images(searches)
  notes = [note] if (note := _unfinished(left_out)) else []
  if len(found) == 1:
    return _compare(*found.values(), images, folder, oracles, notes, command, chosen)
  for line in notes:
    metrics.Console().say(line)
  places, rows = _places(found), {}
  for space, groups in found.items():
    rows[space] = _compare(groups, images, folder / places[space], oracles, command=command)
    notes += [f'{pages.name_of(space)}: {note}' for note in _notes(groups, images)]
  everyone = [row for members in rows.values() for row in members.values()]
  draw.comparison(tables.panels(rows), folder / 'comparison.png')
  files.write_json(folder / 'report.json', rows)
  lines = ['# Report', '', '![comparison](comparison.png)', '', *tables.warnings(notes), tables.LEGEND, '']
  for space, members in rows.items():
    lines += [f'## [{tables.plain(space)}]({places[space]}/report.md)', '', tables.table(members, everyone), '']
  files.write(folder / 'report.md', '\n'.join(lines))
  pages.comparison(folder, {space: (rows[space], groups) for space, groups in found.items()}, places, command,
                   notes=notes)
  return rows


def _unfinished(folders, before='') -> str:
  """Which `folders` are left out of a report, '' where there are none."""
  if not folders:
    return ''
  several = len(folders) > 1
  return (f'{before}{len(folders)} run folder{"s are" if several else " is"} not finished and left out: ' +
          experiments.listed(list(map(files.printable, folders)), 10))


def _notes(groups, images) -> list[str]:
  return experiments.notes(groups, images, experiments.trainings([run for each in groups.values() for run in each]))


def _places(names) -> dict[str, str]:
  """A folder of its own, inside the report's, for every space: its name, or that of its file."""
  places = {}
  for name in names:
    stem = re.sub(r'[^a-z0-9_-]', '_', pathlib.PurePath(name).stem.lower())[:60] or 'space'
    taken = set(places.values())
    numbered = (f'{stem}_{n}' for n in itertools.count(2))
    places[name] = next(place for place in itertools.chain((stem,), numbered) if place not in taken)
  return places


def compare(runs, folder: pathlib.Path, oracles=None, trust=()) -> dict:
  """Writes report.md, report.json, comparison.png, first_edge.png and distributions.png into `folder`.

  Where `oracles` names the files of a benchmark that covers the space, its figures are read from them, whether the runs
  had them or not; NAS-Bench-101 gives regret_test.png and regret_valid.png too.

  Which runs are seeds of one experiment, and how that is called, is said by `experiments.named`. Returns
  {experiment: row}; a row has means and standard deviations (over seeds, n - 1) of what report.md shows. A run whose
  folder has a finished retraining of what it found, in `retrain`, is shown with its accuracy, where those of all its
  seeds were trained in the same way; 'trained_with' has the fields in which those of other rows were trained otherwise.
  'images' says what the search was on. Raises UserError if a run is not readable or the runs are of several spaces.

  Args:
    runs: run folders.
    folder: where the report goes.
    oracles: config.oracle; None does without.
    trust: Python files that may be executed, where a run is of a space of one's own.
  """
  searches = records.read(runs, trust)
  names = {run.space.name for run in searches}
  if len(names) > 1:
    raise UserError(f'the runs are of several spaces, {", ".join(sorted(names))}: report each space by itself')
  (groups,) = experiments.named(searches).values()
  return _compare(groups, experiments.images(searches), pathlib.Path(folder), oracles)


def _compare(groups, images, folder, oracles, notes=(), command='', chosen=None):
  runs = [run for members in groups.values() for run in members]
  space, trainings, notes = runs[0].space, experiments.trainings(runs), [*notes, *_notes(groups, images)]
  console = metrics.Console()
  benchmarks = [benchmark for benchmark in tabular.of(space, oracles or {})
                if not benchmark.always or benchmark.given(oracles or {})]
  looked_up = {benchmark.key: benchmark.load(oracles, console.say) for benchmark in benchmarks}
  for run, (key, table) in itertools.product(runs, looked_up.items()):
    run.result[key] = table.query(space.read(run.result['genotype']))
  rows = {name: _row(space, members, images, trainings) for name, members in groups.items()}
  trained = {name: trainings[groups[name][0].folder] for name, row in rows.items() if 'retrained_params' in row}
  for field in experiments.differing(list(trained.values())):
    for name, asked in trained.items():
      if field in asked:
        rows[name].setdefault('trained_with', {})[field] = asked[field]
  traces = {}
  for name, members in groups.items():
    shown = next((rows for rows in map(records.trace, members) if len(rows) > 1), None) or records.trace(members[0])
    traces[name] = ([row['step'] for row in shown], {cell: np.array([row['probs'][cell] for row in shown])
                                                     for cell in space.cells})
  draw.first_edges(traces, space, folder / 'first_edge.png')
  draw.distributions({name: (None if steps[0] else {cell: p[0] for cell, p in probs.items()},
                             {cell: p[-1] for cell, p in probs.items()})
                      for name, (steps, probs) in traces.items()}, folder / 'distributions.png')
  draw.comparison(tables.panels({space.name: rows}), folder / 'comparison.png')
  pictures = ['first_edge.png', 'distributions.png', 'comparison.png']
  for benchmark in benchmarks:
    for kind in benchmark.regrets:
      draw.regret({name: _regrets(space, looked_up[benchmark.key], members, kind) for name, members in groups.items()},
                  folder / f'regret_{kind}.png', kind)
      pictures.append(f'regret_{kind}.png')
  remarks = ['The first edge and the distributions are those of one seed of each experiment, the first whose steps '
             'were recorded.'] * any(len(members) > 1 for members in groups.values())
  remarks += [benchmark.remark(looked_up[benchmark.key]) for benchmark in benchmarks if benchmark.remark]
  files.write_json(folder / 'report.json', rows)
  files.write(folder / 'report.md', tables.page(rows, groups, folder, pictures, remarks, notes))
  pages.comparison(folder, {space.name: (rows, groups)}, {}, command, chosen, notes)
  console.say(tables.table(rows))
  for line in notes:
    console.say(line)
  console.say(f'{files.printable(folder)}: report.html, report.md, report.json, {", ".join(pictures)}')
  return rows


def _regrets(space, table, members, kind):
  """(Epochs [t], regrets [runs, t]) of an experiment: of what would have been derived at each recorded step."""
  steps, values = None, []
  for run in members:
    path = run.folder / 'arch.jsonl'
    by_step = {row['step']: row['genotype'] for row in records.trace(run)}
    known = {text: table.query(records.architecture(space, text, path))[f'{kind}_regret']
             for text in set(by_step.values())}
    values.append({step: known[text] for step, text in by_step.items()})
    steps = set(by_step) if steps is None else steps & set(by_step)
  at = sorted(steps)
  per_epoch = _per_epoch(members[0].result) or 1
  return [step / per_epoch for step in at], np.array([[of[step] for step in at] for of in values])


def _per_epoch(result) -> float | None:
  if result.get('steps_per_epoch'):
    return result['steps_per_epoch']
  steps = result.get('planned_steps', result['steps'])
  return (steps - result['pretrain_steps']) / result['epochs'] if result['epochs'] else None


def spread(values) -> dict | None:
  """Mean, standard deviation (n - 1; None of one), least and most of what is not None; None where nothing is."""
  values = [v for v in values if v is not None]
  if not values:
    return None
  return {'mean': statistics.fmean(values), 'std': statistics.stdev(values) if len(values) > 1 else None,
          'min': min(values), 'max': max(values), 'runs': len(values), 'values': values}


def _row(space, members, images, trainings) -> dict:
  results = [run.result for run in members]
  lengths = [r['steps'] / per_epoch if (per_epoch := _per_epoch(r)) else 0.0 for r in results]
  row = {
      'method': results[0]['method'], 'data': results[0]['data'], 'images': images[members[0].folder],
      'seeds': [r['seed'] for r in results],
      'genotypes': [r['genotype'] for r in results],
      'epochs': statistics.fmean(lengths),
      'one_hot': spread([r['one_hot'] for r in results]),
      'unchanged_steps': spread([r['unchanged_steps'] for r in results]),
      'params': spread([r['params'] for r in results]),
      **{key: spread([r.get(key) for r in results]) for key in ('seconds_per_step', 'seconds_estimated',
                                                                 'bytes_per_step')},
      'agreement': agreement(space, [r['genotype'] for r in results]),
      'skips': spread([_count(space, r['genotype'], 'skip_connect') for r in results]),
      'pools': spread([_count(space, r['genotype'], 'pool') for r in results]),
      'convolutions': spread([_count(space, r['genotype'], 'conv') for r in results]),
  }
  if all(isinstance(r.get('finalists'), dict) for r in results):
    row['finalist_epochs'] = spread([r['finalists'].get('epochs_in_all') for r in results])
  if all('supernet' in r for r in results):
    row |= {f'supernet_{kind}': spread([r['supernet'].get(kind) for r in results]) for kind in ('mixed', 'derived')}
  trained = [trainings[run.folder] for run in members if run.folder in trainings]
  if len(trained) == len(members) and not experiments.differing(trained):
    name = next((name for name in ('test', 'valid') if all(f'{name}_top1' in r['retrained'] for r in results)), None)
    if name:  # one of them for all runs of a row; those of other rows may be of the other, in a column of its own
      row['retrained' if name == 'test' else 'retrained_valid'] = {
          **spread([r['retrained'][f'{name}_top1'] for r in results]), 'images': name}
    row['retrained_params'] = spread([r['retrained']['params'] for r in results])
  for benchmark, figure in tabular.COLUMNS:
    values = [figure.of(r.get(benchmark.key, {})) for r in results]
    if all(v is not None for v in values):
      figure.put(row.setdefault(benchmark.key, {}), spread([figure.scale * v for v in values]))
  return row


def _edges(space, text):
  return {name: set(edges) for name, edges in space.read(text).cells.items()}


def _count(space, text, word):
  return sum(word in op and not (word == 'conv' and op == 'skip_connect') for op in space.operations(space.read(text)))


def agreement(space, genotypes) -> float | None:
  """Mean over all pairs of architectures of the share of edges, with their ops, that both have; None for one."""
  shares = []
  for a, b in itertools.combinations([_edges(space, text) for text in genotypes], 2):
    most = max(sum(map(len, edges.values())) for edges in (a, b))
    shares.append(sum(len(a[name] & b[name]) for name in a) / most)
  return statistics.fmean(shares) if shares else None
