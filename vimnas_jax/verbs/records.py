"""Run folders as a report reads them: every figure is checked, so that a damaged file is told by its name."""

import math
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from vimnas_jax import files, spaces, tabular
from vimnas_jax.errors import UserError
from vimnas_jax.runs import metrics, runfolder
from vimnas_jax.spaces import Genotype, Space

_PRINTS = ('data_fingerprint', 'space_fingerprint', 'method_fingerprint', 'streamed')
_REMEDY = 'finish this run, or leave it out'
# Fields of a retraining that change nothing of its network: the search's own, and what is told of it.
_ASIDE = ('task', 'seed', 'log_steps', 'measure_batches', 'max_hours')
_ROOMS = ('space.', 'method.', 'phi.', 'pretrain.')


class Run(NamedTuple):
  """A finished search.

  Attributes:
    folder: its run folder.
    config: what it was asked, {field: value}.
    result: its result.json; where the folder has a finished retraining of its architecture, in `retrain`, with the
      result of that as 'retrained'.
    space: its space.
    prints: what config.json has of the contents of its data, and of a space and a method of one's own, and whether
      images were streamed.
    training: what the retraining in `result` was asked that makes a difference to it, {field: value}; {} without one,
      or where its config.json is missing. Its 'epochs' are those that it had, where the clock shortened it.
    training_prints: the same of its images, 'data_fingerprint' and 'streamed', as far as they are known.
  """

  folder: pathlib.Path
  config: dict[str, Any]
  result: dict[str, Any]
  space: Space
  prints: dict[str, Any]
  training: dict[str, Any]
  training_prints: dict[str, Any]


class Found(NamedTuple):
  """What lies below some folders: run folders of `finished` searches, and `open` ones, of searches and retrainings."""

  finished: list[pathlib.Path]
  open: list[pathlib.Path]


def below(roots: Iterable[pathlib.Path]) -> Found:
  """The run folders at any depth below `roots`, links followed, each once. Raises UserError on a damaged result.json.

  Evaluations, predictions and the folders that hold several seeds are neither.
  """
  found, seen = Found([], []), set()
  for root in roots:
    finished, unfinished = [], []
    for path, folders, names in os.walk(root, followlinks=True):  # what cannot be listed has nothing to be read
      real = os.path.realpath(path)
      if real in seen:
        folders.clear()
        continue
      seen.add(real)
      folders.sort()
      place = pathlib.Path(path)
      if 'config.json' not in names:
        continue
      if 'result.json' not in names:
        unfinished += [place] * _begun(place)
      elif 'task' not in files.read_json(place / 'result.json'):  # what trained or evaluated a network names its task
        finished.append(place)
    found.finished.extend(sorted(finished))
    found.open.extend(sorted(unfinished))
  return found


def _begun(folder: pathlib.Path) -> bool:
  """Whether the config.json of `folder` is that of a search, with one seed, or of a retraining."""
  try:
    about = files.read_json(folder / 'config.json')
  except UserError:  # another program's
    return False
  config = about.get('config')
  return isinstance(config, dict) and config.get('task') in ('search', 'retrain') and 'seeds' not in about


def read(folders: Iterable, trust: Iterable[str] = ()) -> list[Run]:
  """The finished searches in `folders`; those of one space share one object.

  Raises UserError, naming the file, where one is missing, unreadable, damaged or not whole, or where a space is code
  that is not among `trust` (spaces.named).
  """
  known, runs, trust = {}, [], tuple(trust)
  for folder in map(pathlib.Path, folders):
    path, held = folder / 'result.json', folder / 'config.json'
    result, about = files.read_json(path, _REMEDY), files.read_json(held, _REMEDY)
    config = about.get('config')
    if not isinstance(config, dict):
      raise UserError(f'{files.printable(held)} is damaged (config is missing): {_REMEDY}')
    _checked(path, result, _FIELDS)
    name, where = result['space'], files.printable(path)
    own = name.endswith('.py')  # the same file under two names is one space
    key = files.read_bytes(pathlib.Path(spaces.custom.trusted(name, trust, where)).expanduser()) if own else name
    if key not in known:
      known[key] = spaces.named(name, where, trust)
    architecture(known[key], result['genotype'], path)
    trained = folder / 'retrain' / 'result.json'
    training: tuple[dict, dict] = {}, {}
    if trained.exists() and runfolder.follows(folder):
      result['retrained'] = _checked(trained, files.read_json(trained, _REMEDY), _TRAINED)
      training = _training(trained.with_name('config.json'))
      if 'epochs' in training[0] and (epochs := clocked(result['retrained'])) is not None:
        training[0]['epochs'] = epochs
    runs.append(Run(folder, files.flatten(config), result, known[key], {name: about.get(name) for name in _PRINTS},
                    *training))
  return runs


def _training(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """What Run has of the config.json of a retraining, (training, training_prints)."""
  if not path.exists():
    return {}, {}
  about = files.read_json(path, _REMEDY)
  if not isinstance(about.get('config'), dict):
    raise UserError(f'{files.printable(path)} is damaged (config is missing): {_REMEDY}')
  asked = {name: value for name, value in files.flatten(about['config']).items()
           if name not in (*runfolder.FREE, *_ASIDE) and not name.startswith(_ROOMS)}
  return asked, {name: about.get(name) for name in ('data_fingerprint', 'streamed')}


def clocked(result: dict) -> float | None:
  """The epochs that a run had which config.max_hours shortened or ended early; None of any other run."""
  facts, values = result.get('budget'), [result.get(name) for name in ('epochs', 'steps', 'planned_steps')]
  if not isinstance(facts, dict) or not (facts.get('shortened') or facts.get('ended_after_step') is not None):
    return None
  if not all(map(_number, values)) or values[2] <= 0:
    return None
  return round(values[0] * values[1] / values[2], 3)


def architecture(space: Space, text: str, path) -> Genotype:
  """The architecture of `space` that the file `path` writes as `text`. Raises UserError, naming the file."""
  try:
    return space.validate(Genotype(space.name, space.read(text).cells))
  except UserError as e:
    raise UserError(f'{files.printable(path)} is damaged (its genotype: {e}): {_REMEDY}') from None


def trace(run: Run) -> list[dict]:
  """The rows of arch.jsonl, {'step', 'genotype', 'probs': {cell: [edges, ops]}}; without them the end of the run."""
  path = run.folder / 'arch.jsonl'
  rows = metrics.read(path)
  if not rows:
    path, rows = run.folder / 'result.json', [{**run.result, 'step': run.result['steps']}]
  for number, row in enumerate(rows, 1):
    try:
      row['probs'] = {name: np.array(row['probs'][name], float) for name in run.space.cells}
      fits = isinstance(row['genotype'], str) and all(
          row['probs'][name].shape == cell.shape and np.isfinite(row['probs'][name]).all()
          for name, cell in run.space.cells.items())
    except (KeyError, ValueError, TypeError, OverflowError):
      fits = False
    if not fits:
      raise UserError(f'{files.printable(path)}, line {number} is damaged (its genotype, or probabilities of space '
                      f'{run.space.name!r}): {_REMEDY}')
  return rows


def _number(value) -> bool:
  return type(value) in (int, float) and math.isfinite(value)


def _whole(value) -> bool:
  return type(value) is int and 0 <= value < 1 << 63


def _text(value) -> bool:
  return isinstance(value, str)


def _numbers(value, depth: int = 1) -> bool:
  """Whether `value` has numbers, or None, in so many dictionaries."""
  if not depth:
    return value is None or _number(value)
  return isinstance(value, dict) and all(_numbers(v, depth - 1) for v in value.values())


def _figures(benchmark: tabular.Tabular):
  """What fits as the figures of a benchmark, as a row of _FIELDS."""
  depth = len(benchmark.figures[0].path)

  def fits(value) -> bool:
    return _numbers(value, depth) and (not value or all(
        figure.optional or _number(figure.of(value)) for figure in benchmark.figures))

  return fits, 'numbers by data set' if depth > 1 else 'numbers by name', True


# field -> (what fits, in words, whether it may be missing)
_FIELDS = {
    **dict.fromkeys(('space', 'method', 'data', 'genotype'), (_text, 'text', False)),
    **dict.fromkeys(('seed', 'steps', 'pretrain_steps', 'unchanged_steps', 'params'),
                    (_whole, 'a whole number', False)),
    **dict.fromkeys(('one_hot', 'epochs'), (lambda v: _number(v) and v >= 0, 'a number', False)),
    **dict.fromkeys(('seconds_per_step', 'seconds_estimated', 'bytes_per_step', 'planned_steps',
                     'steps_per_epoch'),
                    (lambda v: v is None or _number(v), 'a number', True)),
    'supernet': (lambda v: _numbers(v) and 'mixed' in v, 'numbers by name', True),
    **{benchmark.key: _figures(benchmark) for benchmark in tabular.BENCHMARKS}}
_TRAINED = {'params': _FIELDS['params'], **{f'{part}_top1': (_number, 'a number', True) for part in ('test', 'valid')}}


def _checked(path, result, fields) -> dict:
  for name, (fits, words, absent) in fields.items():
    if not (absent if name not in result else fits(result[name])):
      found = f'{name}={result[name]!r:.60}, it must be {words}' if name in result else f'{name} is missing'
      raise UserError(f'{files.printable(path)} is damaged ({found}): {_REMEDY}')
  if fields is _TRAINED and not {'test_top1', 'valid_top1'} & set(result):
    raise UserError(f'{files.printable(path)} is damaged (test_top1 is missing): {_REMEDY}')
  return result
