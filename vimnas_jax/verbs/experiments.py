"""Which runs of a report are seeds of one experiment, how experiments are called, and in what they are unlike."""

import itertools
import numbers
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vimnas_jax import files
from vimnas_jax.runs import runfolder
from vimnas_jax.verbs import pages, records
from vimnas_jax.verbs.records import Run

_SEED = re.compile(r'seed_\d+')  # the name of a folder that says nothing of its run
_FIELDS, _NAMES = 4, 3  # that a sentence names at most
_NEAR = 0.1  # share by which epochs may differ, of which the clock decided some, and count as the same


def named(runs: Sequence[Run], one: bool = False) -> dict[str, dict[str, list[Run]]]:
  """{space: {experiment: [run]}}, in the order of the runs; where they are known to be `one` experiment that alone.

  Runs of a space whose folders have the same parent, and which differ in the seed alone, are one experiment, called by
  that parent. Where a parent has several experiments, one that is a single run is called by its own folder, with as
  much of the path before it as tells it from others, and the parent's name where the folder's is that of a seed. What
  is of one name all the same is numbered. A seed that was run twice counts once in each.
  """
  groups: list[list[Run]] = []
  for run in runs:
    of = next((members for members in groups if members[0].space.name == run.space.name and (
        one or (_parent(members) == _parent([run]) and _alike(members[0], run) and
                run.result['seed'] not in [other.result['seed'] for other in members]))), None)
    if of is None:
      groups.append([run])
    else:
      of.append(run)
  shared = Counter(map(_parent, groups))
  spaces: dict[str, dict[str, list[Run]]] = {}
  for space, each in _by_space(groups).items():
    parents = set(map(_parent, each))
    asked = [_names(members, len(members) == 1 < shared[_parent(members)], parents) for members in each]
    count = Counter(first for first, _ in asked)
    names = spaces[space] = {}
    for (first, second), members in zip(asked, each, strict=True):
      names[_free(first if count[first] == 1 else second, names)] = members
  return spaces


def _by_space(groups) -> dict[str, list[list[Run]]]:
  found: dict[str, list[list[Run]]] = {}
  for members in groups:
    found.setdefault(members[0].space.name, []).append(members)
  return found


def _parent(members):
  return members[0].folder.resolve().parent


def _names(members, alone: bool, parents) -> tuple[str, str]:
  """How an experiment is called, `alone` by its folder, and how where another has that name too."""
  place, parent = members[0].folder.resolve(), _parent(members)
  if not alone:
    return (files.printable(parent.name),) * 2
  depth = next(n for n in range(1, len(parent.parts) + 1)
               if not any(other != parent and other.parts[-n:] == parent.parts[-n:] for other in parents))
  longer = files.printable('/'.join(place.parts[-depth - 1:]))
  return longer if _SEED.fullmatch(place.name) else files.printable(place.name), longer


def _free(name: str, taken) -> str:
  """`name`, or with the first number that is not among those taken."""
  numbered = (f'{name} #{n}' for n in itertools.count(2))
  return next(each for each in itertools.chain((name,), numbered) if each not in taken)


def _alike(one: Run, other: Run) -> bool:
  """Whether two runs differ in the seed alone.

  Fields that one of them is too old to have count where it is known what it did. Of code of one's own the contents
  count, and of data too where both were read in the same way.
  """
  mine, its = map(_fields, (one, other))
  if records.clocked(one.result) is records.clocked(other.result) is None:
    its |= {'max_hours': mine.get('max_hours')}  # a limit that was not reached
  for name in mine.keys() & its.keys():
    code = str(mine[name]).endswith('.py') and str(its[name]).endswith('.py')
    if mine[name] != its[name] and not (code and name in ('space.name', 'method.name', 'data.name')):
      return False
  return not (_same(one.prints, other.prints) is False or any(
      one.prints[name] and other.prints[name] and one.prints[name] != other.prints[name]
      for name in ('space_fingerprint', 'method_fingerprint')))


def _fields(run: Run) -> dict[str, Any]:
  found = runfolder.BEFORE | {name: value for name, value in run.config.items()
                              if name != 'seed' and name not in runfolder.FREE}
  late = {name: run.config.get(name, before) for name, before in runfolder.LATE.items()}
  return found | (late if late['finalists'] else dict.fromkeys(late))


def _same(one: Mapping, other: Mapping) -> bool | None:
  """Whether two runs read the same images, by their fingerprints; None where these do not tell."""
  mine, its = one.get('data_fingerprint'), other.get('data_fingerprint')
  return mine == its if mine and its and one.get('streamed') == other.get('streamed') else None


def images(runs: Sequence[Run]) -> dict:
  """{folder of a run: what its images are called}, one name for the same images, and another for others."""
  return _called([(run.folder, pages.images_of(run.folder, run.result), run.prints, run.result.get('image_shape'))
                  for run in runs])


def trainings(runs: Sequence[Run]) -> dict:
  """{folder of a run: how what it found was trained, {field: value}}, of the runs that have a finished retraining.

  The data are its field 'images', called as by `images`; of a retraining without a config.json that is all.
  """
  trained = [run for run in runs if 'retrained' in run.result]
  called = _called([(run.folder, pages.images_of(run.folder / 'retrain', {'data': run.result['data']} |
                                                 run.result['retrained']), run.training_prints, None)
                    for run in trained])
  epochs = _epochs([(run.folder, run.training['epochs'], records.clocked(run.result['retrained']) is not None)
                    for run in trained if 'epochs' in run.training])
  return {run.folder: {'images': called[run.folder], **{
      name: value for name, value in run.training.items() if name != 'data.name'}, **epochs.get(run.folder, {})}
          for run in trained}


def _epochs(rows: Sequence[tuple[Any, float, bool]]) -> dict:
  """{folder: {'epochs': value}} of rows (folder, epochs, whether the clock decided them) of which it did, as many as
  another has that has as many but for _NEAR of them.
  """
  known = [epochs for _, epochs, clocked in rows if not clocked]
  found = {}
  for folder, value, _ in sorted((row for row in rows if row[2]), key=lambda row: row[1]):
    near = next((other for other in known if abs(other - value) <= _NEAR * max(other, value)), value)
    known += [near] * (near == value)
    found[folder] = {'epochs': near}
  return found


def _lengths(members: Sequence[Run]) -> dict:
  """{seed: {'epochs': value}} of searches, of which config.max_hours shortened some; {} where it shortened none."""
  rows = [(f'seed {run.result["seed"]}', run.result['epochs'] if (epochs := records.clocked(run.result)) is None else
           epochs, epochs is not None) for run in members]
  found = _epochs(rows)
  return found and {seed: {'epochs': epochs} for seed, epochs, _ in rows} | found


def _called(rows) -> dict:
  """{folder: name} of rows (folder, name, fingerprints, shape of an image or None); sizes part equal names."""
  kinds: list[tuple[str, Mapping, Any]] = []
  of = {}
  for folder, name, prints, shape in rows:
    at = next((i for i, (base, other, _) in enumerate(kinds) if (
        base == name if (same := _same(prints, other)) is None else same)), len(kinds))
    if at == len(kinds):
      kinds.append((name, prints, shape))
    of[folder] = at
  names: list[str] = []
  for name, _, shape in kinds:
    sized = isinstance(shape, list) and len(shape) == 3 and sum(base == name for base, *_ in kinds) > 1
    names.append(_free(f'{name} at {shape[0]}x{shape[1]}' if sized else name, names))
  return {folder: names[at] for folder, at in of.items()}


def differing(rows: Sequence[Mapping]) -> list[str]:
  """The fields in which some of `rows`, {field: value}, differ; a field that one lacks is not known of it."""
  fields = dict.fromkeys(field for row in rows for field in row)
  return [field for field in fields if len(_values([row[field] for row in rows if field in row])) > 1]


def _values(values) -> list:
  return [value for i, value in enumerate(values) if value not in values[:i]]


def notes(groups: Mapping[str, Sequence[Run]], searched: Mapping, trained: Mapping) -> list[str]:
  """What a reader of a comparison has to know of its experiments, {name: [run]}, a sentence each.

  `searched` and `trained` are what `images` and `trainings` give.
  """
  told = []
  on = {name: {'images': searched[members[0].folder]} for name, members in groups.items()}
  if fields := differing(list(on.values())):
    told.append(f'The experiments searched on different images, {_told(on, fields).removeprefix("images ")}: '
                'accuracies on them are not to be compared.')
  whole = {}
  for name, members in groups.items():
    if fields := differing(list((lengths := _lengths(members)).values())):
      told.append(f'{name}: config.max_hours gave its searches different lengths, {_told(lengths, fields)}: its means '
                  'are of both short and long ones.')
    rows = {f'seed {run.result["seed"]}': trained[run.folder] for run in members if run.folder in trained}
    if fields := differing(list(rows.values())):
      told.append(f'{name}: its networks were trained in different ways, {_told(rows, fields)}: there is no mean of '
                  'their accuracies.')
    elif len(rows) == len(members):
      whole[name] = trained[members[0].folder]
  if fields := differing(list(whole.values())):
    told.append(f'The networks were trained in different ways, {_told(whole, fields)}: their accuracies do not compare '
                'what was found.')
  return told


def _told(rows: Mapping[str, Mapping], fields: Sequence[str]) -> str:
  """'epochs 20 (a, b) and 600 (c); batch_size 64 (a) and 96 (b, c)' of {who: {field: value}}."""
  told = []
  for field in fields[:_FIELDS]:
    known = [(row[field], who) for who, row in rows.items() if field in row]
    who_has = [(value, [who for other, who in known if other == value]) for value in _values([v for v, _ in known])]
    told.append(f'{field} ' + ' and '.join(f'{_value(value)} ({listed(who)})' for value, who in who_has))
  more = len(fields) - len(told)
  return '; '.join(told) + (f'; and {more} more field{"s" * (more > 1)}' if more else '')


def _value(value) -> str:
  number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  return f'{value:g}' if number else files.printable(value)


def listed(names: Sequence[str], most: int = _NAMES) -> str:
  """'a, b, c and 2 more'."""
  return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')
