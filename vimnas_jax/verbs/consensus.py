"""One architecture of several seeds: that of the mean of their distributions.

What one search decides by accident, in another supernet, order of images or draw of xi, the others outvote. No accuracy
is asked, so none is needed, and none flatters the result; it costs as many searches as there are seeds. The seeds of
docs/recipe.md, section 16, agree on most edges and err on different ones. Of seeds that do not agree the mean is no
better than each: `agreement` says how it stands.
"""

import pathlib
import shutil

import numpy as np

from vimnas_jax import config as config_lib
from vimnas_jax import draw, files, methods, spaces, tabular
from vimnas_jax.errors import UserError
from vimnas_jax.networks import genotypes
from vimnas_jax.runs import budget, runfolder
from vimnas_jax.verbs import outcome, pages, records, report, retrain, tables

RULE = 'the mean of the distributions of all seeds'
# What result.json has of the training of its network.
_TRAINED = ('params', 'test_top1', 'test_images', 'valid_top1', 'valid_images')
_REMEDY = 'remove it, and the same command writes it again'


def check(config):
  """Raises UserError where a resolved `config` of one seed finds what has no mean."""
  if limits := [name for name in ('params', 'madds', 'latency_ms') if config.limit[name]]:
    raise UserError(f"config.choose='consensus' does not keep config.limit.{limits[0]}={config.limit[limits[0]]:g}, "
                    'which the mean of seeds may exceed although each of them keeps it: set config.choose=best')
  if config.finalists:
    raise UserError(f"config.choose='consensus' reads one architecture off the mean of all seeds, and config.finalists="
                    f'{config.finalists} chooses one of each: set one of them to its default')
  method = methods.get(config.method, spaces.get(config.space.name))
  if method.derive or method.scores:
    how = 'by trials' if method.derive else 'by scores of its own, which have no mean'
    raise UserError(f"config.choose='consensus' is of distributions, and config.method.name={config.method.name!r} "
                    f'finds its architecture {how}: set config.choose=best')


def following(asked, folder: pathlib.Path):
  """The resolved configuration of the retraining of what all seeds in `folder` find, or None; what config.max_hours
  leaves to it is its own. Raises UserError on a bad change.
  """
  if not asked.then:
    return None
  hours = (1 - budget.SEARCH) * asked.max_hours
  one = config_lib.changed(asked, f'seeds=() choose=best at_once=False max_hours={hours!r}')
  return config_lib.following(one, one.then_changes, str(folder))


def lift(source: pathlib.Path, folder: pathlib.Path):
  """Makes folder/export that of the run folder `source`; where that has none neither has `folder`."""
  if not (source / 'export').is_dir():
    shutil.rmtree(folder / 'export', ignore_errors=True)  # a copy of what another had
    return
  (folder / 'export').mkdir(exist_ok=True)
  for path in sorted((source / 'export').iterdir(), key=lambda path: path.name == 'model.json'):  # checksums last
    files.write(folder / 'export' / path.name, files.read_bytes(path))


def search(asked, runs, folder: pathlib.Path, command: str, console, stop) -> dict | None:
  """Reads what the finished `runs` (study.Run) below `folder` agree on, and trains its network where config.then asks.

  Into `folder` go genotype.json, the pictures of its cells, seeds.md, report.md with its pictures, result.json and,
  after a training in `retrain`, export/. Returns the result; None if a signal ended the training, all saved. Raises
  UserError where a run is not readable, or where `retrain` holds the network of another architecture.
  """
  trust = [asked.space.name, *genotypes.trusted(asked)]
  members = records.read([folder / run.where for run in runs], trust)
  space, probs = members[0].space, _mean(members)
  genotype, training, network = space.genotype(probs), following(asked, folder), folder / 'retrain'
  trained = runfolder.architecture(network)
  if trained is not None and (same := spaces.Genotype(space.name, trained)).unordered == genotype.unordered:
    genotype = same  # in the order in which its network has been built
  cells = dict(genotype.cells)
  if training is not None and trained not in (None, cells):
    raise UserError(f'{files.printable(network)} holds the network of another architecture than these seeds agree on: '
                    'move it away, and the same command trains the new one')
  result = _result(asked, runs[0].searched, members, genotype, probs, command)
  if runfolder.architecture(folder) != cells:  # what lies there is of another
    (folder / 'result.json').unlink(missing_ok=True)
  if trained != cells:
    shutil.rmtree(folder / 'export', ignore_errors=True)
  files.write(folder / 'genotype.json', genotype.to_json() + '\n')
  config = files.read_json(members[0].folder / 'config.json')
  files.write_json(folder / 'config.json', {**config, 'seeds': list(asked.seeds), 'choose': asked.choose})
  for name in space.cells:
    draw.cell(genotype, name, space, folder / f'cell_{"normal" if name == "cell" else name}.png')
  after = None
  if training is not None:
    if stop.ends(console.say):
      return None
    after = retrain.retrain(training, network, command, stop=stop)
    if after is None:
      return None
  if trained == cells or after is not None:
    lift(network, folder)
    if (folder / 'export').is_dir():  # what is evaluated anew is its network
      files.write_json(folder / 'config.json', {**files.read_json(network / 'config.json'), 'seeds': list(asked.seeds),
                                                'choose': asked.choose})
  if after is not None:
    result['retrained'] = {name: value for name, value in after.items() if name in _TRAINED}
  told = report.across([member.folder for member in members], folder, asked.oracle, trust, command,
                       pages.Chosen(None, RULE, {}, result))
  (over_seeds,) = told.values()
  result |= {'agreement': over_seeds['agreement'], 'over_seeds': over_seeds, **runfolder.environment()}
  files.write(folder / 'seeds.md', _page(result))
  files.write_json(folder / 'result.json', result)
  for line in _lines(result, folder):
    console.say(line)
  return result


def _result(asked, config, members, genotype, probs, command) -> dict:
  """What result.json has of the architecture itself and of each seed; `config` is that of a seed."""
  first, space = members[0].result, members[0].space
  shape, classes = first.get('image_shape'), first.get('classes')
  if not (isinstance(shape, list) and len(shape) == 3 and isinstance(classes, list)):
    raise UserError(f'{files.printable(members[0].folder / "result.json")} lacks image_shape: {_REMEDY}')
  size = {'cells': config.space.cells, 'channels': config.space.channels, 'num_classes': len(classes),
          'in_channels': shape[-1]}
  network = space.on_imagenet() if config.space.imagenet else space
  return {
      'command': command, 'task': 'seeds', 'choose': asked.choose, 'rule': RULE,
      **{name: first[name] for name in ('space', 'method', 'data', 'classes')}, 'genotype': space.write(genotype),
      'one_hot': outcome.one_hotness(probs, space), 'entropy': outcome.entropy(probs, space),
      'probs': {name: np.round(rows, outcome.DIGITS).tolist() for name, rows in probs.items()},
      **outcome.rated(network, genotype, config, tuple(shape[:2]), size), 'seeds': list(asked.seeds),
      'per_seed': [{name: member.result[name] for name in ('seed', 'genotype', 'one_hot', 'params')} |
                   {'folder': member.folder.name} for member in members]}


def _mean(members):
  """{cell: [edges, ops]}: the mean over the `members` of their probabilities."""
  space, rows = members[0].space, []
  shapes = {name: cell.shape for name, cell in space.cells.items()}
  shapes |= {name: (1, count) for name, count in space.choices.items()}
  for member in members:
    try:
      row = {name: np.array(member.result['probs'][name], float) for name in shapes}
      if any(row[name].shape != shape or not np.isfinite(row[name]).all() for name, shape in shapes.items()):
        raise ValueError
    except (KeyError, TypeError, ValueError):
      raise UserError(f'{files.printable(member.folder / "result.json")} is damaged (its probs): {_REMEDY}') from None
    rows.append(row)
  return {name: np.mean([row[name] for row in rows], 0) for name in shapes}


def _page(result) -> str:
  lines = ['# Seeds', '', f'The architecture of {len(result["per_seed"])} seeds, by {RULE}.', '',
           '| seed | one-hotness | parameters (M) | architecture |', '|---|---|---|---|']
  for row in (*result['per_seed'], {**result, 'seed': None}):
    name = '**all**' if row['seed'] is None else f'[{row["seed"]}]({row["folder"]})'
    lines.append(f'| {name} | {row["one_hot"]:.3f} | {row["params"] / 1e6:.3f} | `{tables.plain(row["genotype"])}` |')
  if 'retrained' in result:
    lines += ['', f'Its [network](retrain), trained from scratch: {_accurate(result["retrained"])}.']
  if result['agreement'] is not None:
    lines += ['', f'Two seeds have {100 * result["agreement"]:.0f} % of the edges, with their operations, in common '
              '(mean over pairs).']
  return '\n'.join([*lines, '', 'Everything else is in [report.md](report.md) and in the folder of each seed.', ''])


def _accurate(network) -> str:
  return ', '.join(f'{words} accuracy {network[key]:.2f} %' for key, words in (
      ('test_top1', 'test'), ('valid_top1', 'validation')) if key in network)


def _lines(result, folder):
  """What a user wants to know at the end, line by line."""
  alone = [row['one_hot'] for row in result['per_seed']]
  for row in result['per_seed']:
    yield f'seed {row["seed"]:<10}{row["genotype"]}'
  yield f'consensus      {result["genotype"]}'
  agreement = result['agreement']
  yield (f'one-hotness    {result["one_hot"]:.4f} of the mean of {len(alone)} seeds, {np.mean(alone):.4f} of a seed by '
         'itself' + ('' if agreement is None else f'; agreement on edges {agreement:.2f}'))
  if agreement is not None and agreement < 0.5:
    yield ('agreement      two seeds have less than half of the edges in common: this architecture is hardly theirs; '
           'search longer')
  if len(alone) < 3:
    yield 'seeds          two are no vote: where they differ the more decided one wins; give three or more'
  elsewhere = tabular.network(spaces.named(result['space'], 'result.json', [result['space']]))
  where = f'in {elsewhere.name}' if elsewhere else 'at the search width and depth'
  yield f'network        {result["params"]:,} parameters, {result["madds"] / 1e6:.2f} M multiply-adds {where}'
  for benchmark in tabular.BENCHMARKS:
    yield from benchmark.lines(result)
  if 'retrained' in result:
    yield f'trained        {_accurate(result["retrained"])}'
  export = ', export/' if (folder / 'export').is_dir() else ''
  yield f'everything is in {files.printable(folder)}: seeds.md, result.json, report.md, genotype.json{export}'
