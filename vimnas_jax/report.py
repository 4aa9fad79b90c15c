"""The report verb: runs side by side, as a table and as pictures."""

import itertools
import json
import pathlib
import statistics

import numpy as np

from vimnas_jax import draw, metrics, nasbench101, runfolder, spaces, tables
from vimnas_jax.errors import UserError


def report(config, workdir) -> dict:
  """Compares the finished searches below the folders of config.report.runs; see `across`."""
  roots = [pathlib.Path(p.strip()).expanduser() for p in config.report.runs.split(',') if p.strip()]
  if not roots:
    raise UserError('config.report.runs names no folder: give --config.report.runs=DIR, where DIR holds run folders')
  found = []
  for root in roots:
    if not root.is_dir():
      raise UserError(f'config.report.runs: {root} is no folder')
    found += sorted(p.parent for p in root.rglob('result.json') if (p.parent / 'config.json').exists()
                    and 'task' not in _read(p))  # what trained or evaluated a network names its task
  if not found:
    raise UserError(f'config.report.runs={config.report.runs!r}: no finished search below it (result.json beside '
                    'config.json)')
  return across(found, runfolder.open_folder(workdir), config.oracle.nasbench101)


def across(runs, folder: pathlib.Path, nasbench: str = '') -> dict:
  """Compares searches of one space, or of several; arguments as those of `compare`.

  Of one: what `compare` writes and returns. Of several: that in a folder for each space, and above them report.md with
  all tables, report.json, and comparison.png with the spaces side by side; returns {space: rows}.
  """
  spaces_of = {}
  for run in map(pathlib.Path, runs):
    spaces_of.setdefault(_read(run / 'result.json')['space'], []).append(run)
  if len(spaces_of) == 1:
    return compare(runs, folder, nasbench)
  rows = {space: compare(own, runfolder.open_folder(folder / pathlib.Path(space).stem), nasbench)
          for space, own in spaces_of.items()}
  draw.comparison(tables.panels(rows), folder / 'comparison.png')
  runfolder.write_json(folder / 'report.json', rows)
  lines = ['# Report', '', '![comparison](comparison.png)', '', tables.LEGEND, '']
  for space, own in rows.items():
    lines += [f'## [{space}]({pathlib.Path(space).stem}/report.md)', '', tables.table(own), '']
  (folder / 'report.md').write_text('\n'.join(lines))
  return rows


def compare(runs, folder: pathlib.Path, nasbench: str = '') -> dict:
  """Writes report.md, report.json, comparison.png, first_edge.png and distributions.png into `folder`.

  With the file of config.oracle.nasbench101, `nasbench`, also regret_test.png and regret_valid.png, if the runs are of
  a space of NAS-Bench-1Shot1; their errors are then read from it, whether the runs had it or not.

  Runs whose folders have the same parent, and whose configurations differ in the seed alone, are one experiment with
  several seeds, called by that parent; experiments of one name are numbered. Returns {experiment: row}; a row has
  means and standard deviations (over seeds, n - 1) of what report.md shows. A run whose folder has a finished
  retraining, in `retrain`, is shown with its accuracy. Raises UserError if a run is not readable or the runs are of
  several spaces.

  Args:
    runs: run folders.
    folder: where the report goes.
    nasbench: see above.
  """
  groups = _experiments(map(pathlib.Path, runs))
  for run, result in itertools.chain(*groups.values()):
    if (run / 'retrain' / 'result.json').exists():
      result['retrained'] = _read(run / 'retrain' / 'result.json')
  names = {result['space'] for members in groups.values() for _, result in members}
  if len(names) > 1:
    raise UserError(f'the runs are of several spaces, {", ".join(sorted(names))}: report each space by itself')
  space = spaces.get(names.pop())
  console, table = metrics.Console(), None
  if space.topology and nasbench:
    table = nasbench101.load(nasbench, console.say)
    for _, result in itertools.chain(*groups.values()):
      result['nasbench101'] = table.query(space.read(result['genotype']))
  rows = {name: _row(space, [result for _, result in members]) for name, members in groups.items()}
  traces = {name: _trace(space, *members[0]) for name, members in groups.items()}
  draw.first_edges(traces, space, folder / 'first_edge.png')
  draw.distributions({name: tuple({cell: p[at] for cell, p in probs.items()} for at in (0, -1))
                      for name, (_, probs) in traces.items()}, folder / 'distributions.png')
  draw.comparison(tables.panels({space.name: rows}), folder / 'comparison.png')
  pictures = ['first_edge.png', 'distributions.png', 'comparison.png']
  if table:
    for kind in ('test', 'valid'):
      draw.regret({name: _regrets(space, table, members, kind) for name, members in groups.items()},
                  folder / f'regret_{kind}.png', kind)
      pictures.append(f'regret_{kind}.png')
  runfolder.write_json(folder / 'report.json', rows)
  (folder / 'report.md').write_text(tables.page(rows, groups, folder, pictures))
  console.say(tables.table(rows))
  console.say(f'{folder}: report.md, report.json, {", ".join(pictures)}')
  return rows


def _experiments(runs) -> dict:
  """{name: [(run folder, its result)]}, in the order of the runs."""
  found = {}
  for run in runs:
    config = runfolder.flatten(_read(run / 'config.json').get('config', {}))
    alike = {k: v for k, v in config.items() if k != 'seed' and k not in runfolder.FREE}
    key = run.resolve().parent, json.dumps(alike, sort_keys=True)
    found.setdefault(key, []).append((run, _read(run / 'result.json')))
  names = {}
  for (parent, _), members in found.items():
    same = sum(name.partition(' #')[0] == parent.name for name in names)
    names[f'{parent.name} #{same + 1}' if same else parent.name] = members
  return names


def _read(path):
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError):
    raise UserError(f'{path} is not readable: finish or remove this run') from None


def _trace(space, run, result):
  rows = metrics.read(run / 'arch.jsonl') or [{'step': result['steps'], 'probs': result.get('probs')}]
  try:
    return [row['step'] for row in rows], {name: np.array([row['probs'][name] for row in rows]) for name in space.cells}
  except (KeyError, ValueError, TypeError):
    raise UserError(f'{run}/arch.jsonl is not readable: run it again or leave it out') from None


def _regrets(space, table, members, kind):
  """(Epochs [t], regrets [runs, t]) of an experiment: of what would have been derived at each recorded step."""
  steps, values = None, []
  for run, result in members:
    rows = metrics.read(run / 'arch.jsonl')
    try:
      found = {row['step']: row['genotype'] for row in rows} or {result['steps']: result['genotype']}
    except (KeyError, TypeError):
      raise UserError(f'{run}/arch.jsonl is not readable: run it again or leave it out') from None
    known = {text: table.query(space.read(text))[f'{kind}_regret'] for text in set(found.values())}
    values.append({step: known[text] for step, text in found.items()})
    steps = set(found) if steps is None else steps & set(found)
  at = sorted(steps)
  per_epoch = _per_epoch(members[0][1]) or 1
  return [step / per_epoch for step in at], np.array([[of[step] for step in at] for of in values])


def _per_epoch(result) -> float | None:
  return (result['steps'] - result['pretrain_steps']) / result['epochs'] if result['epochs'] else None


def _spread(values) -> dict | None:
  values = [v for v in values if v is not None]
  if not values:
    return None
  return {'mean': statistics.fmean(values), 'std': statistics.stdev(values) if len(values) > 1 else None,
          'min': min(values), 'max': max(values), 'runs': len(values), 'values': values}


def _row(space, results) -> dict:
  per_epoch = _per_epoch(results[0])
  row = {
      'method': results[0]['method'], 'data': results[0]['data'], 'seeds': [r['seed'] for r in results],
      'genotypes': [r['genotype'] for r in results],
      'epochs': results[0]['steps'] / per_epoch if per_epoch else 0.0,
      'one_hot': _spread([r['one_hot'] for r in results]),
      'unchanged_steps': _spread([r['unchanged_steps'] for r in results]),
      'params': _spread([r['params'] for r in results]), 'seconds_per_step': _spread([r['seconds_per_step']
                                                                                    for r in results]),
      'agreement': agreement(space, [r['genotype'] for r in results]),
      'skips': _spread([_count(space, r['genotype'], 'skip_connect') for r in results]),
      'pools': _spread([_count(space, r['genotype'], 'pool') for r in results]),
      'convolutions': _spread([_count(space, r['genotype'], 'conv') for r in results]),
  }
  if all('supernet' in r for r in results):
    row |= {f'supernet_{kind}': _spread([r['supernet'].get(kind) for r in results]) for kind in ('mixed', 'derived')}
  if all('retrained' in r for r in results):
    name = 'test' if 'test_top1' in results[0]['retrained'] else 'valid'
    row['retrained'] = {**_spread([r['retrained'][f'{name}_top1'] for r in results]), 'images': name}
    row['retrained_params'] = _spread([r['retrained']['params'] for r in results])
  for data, kind in itertools.product(results[0].get('oracle', {}), ('valid', 'test')):
    values = [r.get('oracle', {}).get(data, {}).get(kind) for r in results]
    if all(v is not None for v in values):
      row.setdefault('oracle', {}).setdefault(data, {})[kind] = _spread(values)
  if all('nasbench101' in r for r in results):
    row['nasbench101'] = {kind: _spread([100 * r['nasbench101'][kind] for r in results])
                          for kind in ('valid_error', 'test_error', 'test_regret')}
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
