"""One search with several seeds: each in a folder of its own, as a study's, and one architecture of all on top.

The best is chosen by validation, never by test images. What says it is decided before the first run, the first of:
  1. the validation accuracy of the retrained network, where config.then=retrain has validation images
     (config.data.validation, or a train_portion below 1);
  2. the validation accuracy that a benchmark of the field has of the architecture, on the very data set that is
     searched, its images not shrunk;
  3. the validation accuracy of the finalist that each seed took, where config.finalists trains some;
  4. the accuracy of the architecture in its supernet on config.supernet_images validation images of the search.
Where none is to be had the search is refused. Of equals the seed that stands first is taken.

With config.choose='consensus' none is the best: one architecture is read off all (verbs/consensus.py).
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from vimnas_jax import config as config_lib
from vimnas_jax import files, spaces, tabular
from vimnas_jax.errors import UserError
from vimnas_jax.networks import genotypes
from vimnas_jax.runs import budget, metrics, runfolder, signals
from vimnas_jax.verbs import consensus, pages, records, report, study, tables, together

_REMEDY = 'remove it, and the same command writes it again'


class Rule(NamedTuple):
  """What tells the better of two seeds.

  Attributes:
    words: what it is.
    of: `of(result)`: the figure in %, the higher the better, of a search's result with that of its retraining as
      'retrained'.
  """

  words: str
  of: Callable[[dict], float]


def search(asked, workdir, command: str = '', stop=None, notes=()) -> dict | None:
  """Searches with every seed of config.seeds in workdir/seed_SEED, then takes the best of what they found, or what they
  agree on.

  Where config.then asks for it every search is followed by the retraining of what it found, or what they agree on is
  retrained in workdir/retrain. Runs that are finished are left as they are: the same call goes on after a stop, and
  with more seeds adds those. Into `workdir` go report.md and its pictures, seeds.md, result.json, and of the best seed
  or of all genotype.json and, after a retraining, export/.

  Returns the result; None if a signal ended it early. Raises UserError on bad input, before anything runs.

  Args:
    asked: a configuration as its file made it, not yet resolved.
    workdir: the folder of all.
    command: the command line, from which that of every run is made; of a program what result.json says of it.
    stop: signals.Stop, or None.
    notes: lines that are said after those of the data.
  """
  console = metrics.Console()
  runs, rule = planned(asked, pathlib.Path(workdir or '.').expanduser(), command)
  with stop or signals.Stop() as stop, runfolder.opened(workdir) as folder:
    _free(folder)
    console.say(f'{len(runs)} seeds: {", ".join(map(str, asked.seeds))}; ' + (
        f'the best is chosen by {rule.words}' if rule else f'one architecture is read off {consensus.RULE}'))
    if kept := [run for run in runs if run.searched.max_hours != _hours(asked)]:
      console.say('; '.join(f'{run.where} goes on with config.max_hours={run.searched.max_hours:g}' for run in kept) +
                  ', as begun')
    if asked.at_once and not together.searched(runs, folder, console, stop, notes):
      return None
    if not study.carry_out(runs, folder, console, stop, notes):
      return None
    if not rule:
      return consensus.search(asked, runs, folder, command, console, stop)
    result = _result(asked, runs, rule, folder, command)
    for line in _lines(result, folder):
      console.say(line)
    return result


def planned(asked, folder: pathlib.Path, command: str) -> tuple[list[study.Run], Rule | None]:
  """The runs of config.seeds in `folder`, and what chooses, None for a consensus. Raises UserError on bad input."""
  config_lib.resolve(asked)
  runs, agreed = [], asked.choose == 'consensus'
  for seed in asked.seeds:
    place = folder / f'seed_{seed}'
    own = f'seeds=() {"at_once=False " * asked.at_once}seed={seed} max_hours={_hours(asked, place)!r}'
    own += " choose=best then=''" if agreed else ''
    one = config_lib.changed(asked, own)
    runs.append(study.Run(
        place.name, study.as_command(command, own, place) if command.startswith('python ') else command,
        config_lib.resolve(one), config_lib.following(one, one.then_changes, place) if one.then else None))
  if asked.at_once:
    together.check(runs[0].searched)
  if agreed:
    consensus.check(runs[0].searched)
    consensus.following(asked, folder)
    return runs, None
  return runs, _rule(runs[0].searched, runs[0].following)


def _hours(asked, place=None) -> float:
  """The share of config.max_hours that a seed has; of one that has begun in the folder `place` what it began with."""
  path = place and place / 'config.json'
  if asked.max_hours and path and path.exists():
    config = files.read_json(path, 'restore it, or remove its folder').get('config')
    kept = config.get('max_hours') if isinstance(config, dict) else None
    if type(kept) in (int, float) and kept:
      return float(kept)
  return asked.max_hours / len(asked.seeds) * (budget.SEARCH if asked.choose == 'consensus' and asked.then else 1.0)


def _rule(searched, following) -> Rule:
  space = spaces.get(searched.space.name)
  if following is not None and following.train_portion < 1:
    return Rule('the validation accuracy of the retrained network', lambda result: result['retrained']['valid_top1'])
  if following is not None and following.data.validation:
    return Rule('the validation accuracy of the retrained network, of the state that it kept',
                lambda result: result['retrained']['chosen']['valid_top1'])
  for benchmark in tabular.of(space, searched.oracle):
    if benchmark.rates(space) and benchmark.known(searched.data.name) and searched.data.shrink == 1:
      return _looked_up(benchmark, benchmark.known(searched.data.name))
  if searched.finalists:
    return Rule('the validation accuracy of the finalist that it took', _of_finalist)
  if searched.supernet_images:
    kind = 'mixed' if space.topology else 'derived'
    count = searched.supernet_images // searched.batch_size * searched.batch_size  # whole batches are scored
    return Rule(f'the accuracy of the {"supernet" if space.topology else "architecture in its supernet"} on '
                f'{count} validation images', lambda result: result['supernet'][kind])
  raise UserError('config.seeds: nothing tells which seed found the best architecture, and test images may not: set '
                  'config.supernet_images=1000, or fewer where fewer images validate' +
                  (' (and config.train_portion=0.5, as all are trained on)' if searched.train_portion == 1 and
                   searched.data.search_parts is None else '') +
                  ', or config.then=retrain and config.data.validation=0.2')


def _of_finalist(result) -> float:
  facts = result['finalists']
  return facts['rows'][facts['chosen'] - 1]['valid_top1']


def _looked_up(benchmark, name) -> Rule:
  return Rule(f'the validation accuracy on {name} that {benchmark.name} has of the architecture',
              lambda result: benchmark.accuracy(result[benchmark.key], name))


def _free(folder):
  """Raises UserError where `folder` holds a run with one seed, a report, a study or predictions."""
  path = folder / 'config.json'
  runfolder.check_vacant(folder)
  if path.exists() and 'seeds' not in files.read_json(path):
    raise UserError(f'{files.printable(folder)} holds a run with one seed: give another --workdir')


def _result(asked, runs, rule, folder, command) -> dict:
  """Writes all that goes above the runs; returns the result."""
  trust = [asked.space.name, *genotypes.trusted(asked)]
  members = records.read([folder / run.where for run in runs], trust)
  rows = []
  for member in members:
    try:
      rows.append(_row(member, float(rule.of(member.result))))
    except (KeyError, TypeError, ValueError, IndexError):
      raise UserError(f'{files.printable(member.folder)}: result.json lacks {rule.words}: {_REMEDY}') from None
  best = max(range(len(rows)), key=lambda i: rows[i]['chosen_by'])  # the first of equals
  _lift(members[best], folder, list(asked.seeds))
  told = report.across([member.folder for member in members], folder, asked.oracle, trust, command, pages.Chosen(
      rows[best]['seed'], rule.words, {row['seed']: row['chosen_by'] for row in rows}))
  (over_seeds,) = told.values()
  found = members[best].result
  result = {
      'command': command, 'task': 'seeds', **{name: found[name] for name in ('space', 'method', 'data', 'genotype',
                                                                            'one_hot', 'params')},
      'seeds': list(asked.seeds), 'seed': rows[best]['seed'], 'rule': rule.words,
      'chosen_by': report.spread([row['chosen_by'] for row in rows]), 'agreement': over_seeds['agreement'],
      'per_seed': rows, 'over_seeds': over_seeds, **runfolder.environment()}
  files.write(folder / 'seeds.md', _page(result))
  files.write_json(folder / 'result.json', result)
  return result


def _row(run: records.Run, figure: float) -> dict:
  """What result.json has of one seed."""
  found = run.result
  row = {'seed': found['seed'], 'folder': run.folder.name, 'genotype': found['genotype'], 'chosen_by': figure,
         **{name: found[name] for name in ('one_hot', 'params')}}
  if 'retrained' in found:
    row |= {name: found['retrained'][name] for name in ('test_top1', 'valid_top1') if name in found['retrained']}
  return row


def _lift(best: records.Run, folder, seeds):
  """Copies what the best seed found into `folder`: genotype.json, and the export and config.json of its network."""
  network = best.folder / 'retrain'
  source = network if (network / 'export').is_dir() else best.folder
  files.write(folder / 'genotype.json', files.read_bytes(best.folder / 'genotype.json'))
  consensus.lift(source, folder)
  for picture in folder.glob('cell_*.png'):
    picture.unlink()  # of what all agreed on, where that was asked before
  files.write_json(folder / 'config.json', {**files.read_json(source / 'config.json'), 'seeds': seeds})


def _spread(spread, digits=2) -> str:
  return f'{spread["mean"]:.{digits}f}' + ('' if spread['std'] is None else f' ± {spread["std"]:.{digits}f}')


def _columns(rows) -> dict:
  """{heading: key of a row}: test accuracies where all have them, beside what chooses."""
  more = {'test %, not asked for the choice': 'test_top1'} if all('test_top1' in row for row in rows) else {}
  return {'chosen by, %': 'chosen_by', **more}


def _page(result) -> str:
  rows, columns = result['per_seed'], _columns(result['per_seed'])
  head = ['seed', *columns, 'one-hotness', 'parameters (M)', 'architecture']
  lines = ['# Seeds', '', f'Seed {result["seed"]} is the best by {result["rule"]}.', '',
           '| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
  for row in rows:
    name = f'**{row["seed"]}**' if row['seed'] == result['seed'] else str(row['seed'])
    cells = [f'[{name}]({row["folder"]})', *(f'{row[key]:.2f}' for key in columns.values()), f'{row["one_hot"]:.3f}',
             f'{row["params"] / 1e6:.3f}', '`' + tables.plain(row['genotype']) + '`']
    lines.append('| ' + ' | '.join(cells) + ' |')
  means = [_spread(report.spread([row[key] for row in rows])) for key in columns.values()]
  lines.append('| ' + ' | '.join([
      'mean ± std', *means, _spread(report.spread([row['one_hot'] for row in rows]), 3),
      _spread(report.spread([row['params'] / 1e6 for row in rows]), 3), '']) + ' |')
  if result['agreement'] is not None:
    lines += ['', f'Two seeds have {100 * result["agreement"]:.0f} % of the edges, with their operations, in common '
              '(mean over pairs).']
  return '\n'.join([*lines, '', 'Everything else is in [report.md](report.md) and in the folder of each seed.', ''])


def _lines(result, folder):
  rows = result['per_seed']
  yield f'chosen by      {result["rule"]}: ' + ', '.join(f'seed {row["seed"]} {row["chosen_by"]:.2f} %' for row in rows)
  yield f'over seeds     {_spread(result["chosen_by"])} %' + (
      '' if result['agreement'] is None else f', agreement on edges {result["agreement"]:.2f}')
  for key in _columns(rows).values():
    if key != 'chosen_by':
      yield f'{"test accuracy":<15}{_spread(report.spread([row[key] for row in rows]))} %'
  yield f'best           seed {result["seed"]}: {result["genotype"]}'
  export = ' and export/' if (folder / 'export').is_dir() else ''
  yield f'everything is in {files.printable(folder)}: seeds.md, result.json, report.md, genotype.json{export}'
