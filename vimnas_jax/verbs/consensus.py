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
_REMEDY = 'remove it, and the same command writes it again'


def check(config):
  """Raises UserError where a resolved `config` of one seed finds what has no mean."""
  if limits := [name for name in ('params', 'madds', 'latency_ms') if config.limit[name]]:
    raise UserError(f"config.choose='consensus' does not keep config.limit.{limits[0]}={config.limit[limits[0]]:g}, "
                    'which the mean of seeds may exceed although each of them keeps it: set config.choose=best')
  if methods.get(config.method, spaces.get(config.space.name)).derive:
    raise UserError(f"config.choose='consensus' is of distributions, and config.method.name={config.method.name!r} "
                    'finds its architecture by trials: set config.choose=best')


def following(asked, folder: pathlib.Path):
  """The resolved configuration of the retraining of what all seeds in `folder` find, or None; what config.max_hours
  leaves to it is its own. Raises UserError on a bad change.
  """
  if not asked.then:
    return None
  hours = (1 - budget.SEARCH) * asked.max_hours
  one = config_lib.changed(asked, f'seeds=() choose=best at_once=False max_hours={hours!r}')
  return config_lib.following(one, one.then_changes, str(folder))


def trained(config, folder: pathlib.Path, command: str, stop=None) -> dict | None:
  """Trains the network of the architecture in `folder`, in its folder `retrain`, and brings what it exports up into
  `folder`; `config` is what `following` gives. Returns its result; None if a signal ended it, all saved.
  """
  result = retrain.retrain(config, folder / 'retrain', command, stop=stop)
  if result is not None:
    lift(folder / 'retrain', folder)
  return result


def lift(source: pathlib.Path, folder: pathlib.Path):
  """Makes folder/export that of the run folder `source`; where that has none neither has `folder`."""
  if not (source / 'export').is_dir():
    shutil.rmtree(folder / 'export', ignore_errors=True)  # a copy of what another had
    return
  (folder / 'export').mkdir(exist_ok=True)
  for path in sorted((source / 'export').iterdir(), key=lambda path: path.name == 'model.json'):  # checksums last
    files.write(folder / 'export' / path.name, files.read_bytes(path))


def result(asked, runs, folder: pathlib.Path, command: str) -> dict:
  """Reads the finished `runs` (study.Run) below `folder`, and writes what they agree on above them.

  That is genotype.json, the pictures of its cells, seeds.md, report.md with its pictures, and result.json, which is
  returned. Raises UserError where a run is not readable.
  """
  config = runs[0].searched
  trust = [config.space.name, *genotypes.trusted(asked)]
  members = records.read([folder / run.where for run in runs], trust)
  space, first = members[0].space, members[0].result
  probs = _mean(members, 'probs')
  scored = methods.get(config.method, space).scores is not None  # what the architecture of one seed is read off
  genotype = space.genotype(_mean(members, 'scores') if scored else probs)
  shape = first.get('image_shape')
  if not (isinstance(shape, list) and len(shape) == 3 and isinstance(first.get('classes'), list)):
    raise UserError(f'{files.printable(members[0].folder / "result.json")} lacks image_shape: {_REMEDY}')
  files.write(folder / 'genotype.json', genotype.to_json() + '\n')
  held = files.read_json(members[0].folder / 'config.json')
  files.write_json(folder / 'config.json', {**held, 'seeds': list(asked.seeds), 'choose': asked.choose})
  for name in space.cells:
    draw.cell(genotype, name, space, folder / f'cell_{"normal" if name == "cell" else name}.png')
  size = {'cells': config.space.cells, 'channels': config.space.channels, 'num_classes': len(first['classes']),
          'in_channels': shape[-1]}
  found = {
      'command': command, 'task': 'seeds', 'choose': asked.choose, 'rule': RULE,
      **{name: first[name] for name in ('space', 'method', 'data', 'classes')}, 'genotype': space.write(genotype),
      'one_hot': outcome.one_hotness(probs, space), 'entropy': outcome.entropy(probs, space),
      'probs': {name: np.round(p, 5).tolist() for name, p in probs.items()},
      **outcome.rated(space, genotype, config, shape[0], size), 'seeds': list(asked.seeds),
      'per_seed': [{name: member.result[name] for name in ('seed', 'genotype', 'one_hot', 'params')} |
                   {'folder': member.folder.name} for member in members]}
  told = report.across([member.folder for member in members], folder, asked.oracle, trust, command,
                       pages.Chosen(None, RULE, {}, found))
  (over_seeds,) = told.values()
  found |= {'agreement': over_seeds['agreement'], 'over_seeds': over_seeds, **runfolder.environment()}
  files.write(folder / 'seeds.md', _page(found))
  files.write_json(folder / 'result.json', found)
  return found


def _mean(members, key):
  """{cell: [edges, ops]}: the mean over the `members` of what result.json has as `key`."""
  space, rows = members[0].space, []
  shapes = {name: cell.shape for name, cell in space.cells.items()}
  shapes |= {name: (1, count) for name, count in space.choices.items()}
  for member in members:
    try:
      row = {name: np.array(member.result[key][name], float) for name in shapes}
      if any(row[name].shape != shape or not np.isfinite(row[name]).all() for name, shape in shapes.items()):
        raise ValueError
    except (KeyError, TypeError, ValueError):
      raise UserError(f'{files.printable(member.folder / "result.json")} is damaged (its {key}): {_REMEDY}') from None
    rows.append(row)
  return {name: np.mean([row[name] for row in rows], 0) for name in shapes}


def _page(found) -> str:
  count = len(found['per_seed'])
  lines = ['# Seeds', '', f'The architecture of {count} seeds, by {RULE}.', '',
           '| seed | one-hotness | parameters (M) | architecture |', '|---|---|---|---|']
  for row in (*found['per_seed'], {**found, 'seed': None}):
    name = '**all**' if row['seed'] is None else f'[{row["seed"]}]({row["folder"]})'
    lines.append(f'| {name} | {row["one_hot"]:.3f} | {row["params"] / 1e6:.3f} | `{tables.plain(row["genotype"])}` |')
  if found['agreement'] is not None:
    lines += ['', f'Two seeds have {100 * found["agreement"]:.0f} % of the edges, with their operations, in common '
              '(mean over pairs).']
  return '\n'.join([*lines, '', 'Everything else is in [report.md](report.md) and in the folder of each seed.', ''])


def lines(found, folder):
  """What a user wants to know at the end, line by line."""
  space_name, alone = found['space'], [row['one_hot'] for row in found['per_seed']]
  for row in found['per_seed']:
    yield f'seed {row["seed"]:<10}{row["genotype"]}'
  yield f'consensus      {found["genotype"]}'
  yield (f'one-hotness    {found["one_hot"]:.4f} of the mean of {len(alone)} seeds, {np.mean(alone):.4f} of a seed by '
         'itself' + ('' if found['agreement'] is None else f'; agreement on edges {found["agreement"]:.2f}'))
  if (found['agreement'] or 0) < 0.5:
    yield ('agreement      two seeds have less than half of the edges in common: this architecture is hardly theirs; '
           'search longer')
  elsewhere = tabular.network(spaces.named(space_name, 'result.json', [space_name]))
  where = f'in {elsewhere.name}' if elsewhere else 'at the search width and depth'
  yield f'network        {found["params"]:,} parameters, {found["madds"] / 1e6:.2f} M multiply-adds {where}'
  for benchmark in tabular.BENCHMARKS:
    yield from benchmark.lines(found)
  export = ', export/' if (folder / 'export').is_dir() else ''
  yield f'everything is in {files.printable(folder)}: seeds.md, result.json, report.md, genotype.json{export}'
