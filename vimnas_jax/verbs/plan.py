"""The dry run: what a command comes to and what it would take, with nothing written."""

import pathlib
import tempfile
import textwrap
from typing import Any

from vimnas_jax import config as config_lib
from vimnas_jax.files import flatten, printable
from vimnas_jax.runs import budget, loop, metrics, runfolder
from vimnas_jax.verbs import consensus, retrain, search, seeds, study

_RUNS = ('search', 'retrain', 'evaluate')  # tasks whose folder is that of a run


def plan(asked, workdir, notes=()) -> list[dict[str, Any]]:
  """Says every run that `asked`, a configuration not yet resolved, comes to, and times the steps of the first.

  The first of several runs is prepared in a folder that is gone afterwards, as it would be in `workdir`: data are read,
  the step is compiled and timed. A retraining that follows a search is not timed: its network is not known yet.

  Returns the runs, in their order: {'workdir', 'task', 'fields': {name: value} that differ from the defaults}, the
  first with 'steps', 'seconds_a_step', 'seconds' of all steps, and 'bytes' of the step's program, None where there is
  nothing to time. Raises UserError on what the command would refuse.
  """
  console = metrics.Console()
  folder = pathlib.Path(workdir or '.').expanduser()
  runs = _runs(asked, folder)
  for place in [place for place, config in runs if config.task in _RUNS] + [folder] * bool(asked.seeds):
    runfolder.check_vacant(place)
  for place, config in runs:
    if config.task in _RUNS:
      runfolder.check_apart(place, config)
  fields = [_differing(config) for _, config in runs]
  console.say(f'{runs[0][0]}: {runs[0][1].task}, with')
  rooms: dict[str, list[str]] = {}
  for name, value in fields[0].items():
    rooms.setdefault(name.rpartition('.')[0], []).append(f'{name}={_text(value)}')
  for words in rooms.values():
    for line in textwrap.wrap('  '.join(words), 110, break_long_words=False, break_on_hyphens=False):
      console.say(f'  {line}')
  for (place, config), others in zip(runs[1:], fields[1:], strict=True):
    own = [f'{name}={_text(value)}' for name, value in others.items() if fields[0].get(name) != value]
    console.say(f'{place}: {config.task}, with {" ".join(own) or "the same"}')
  if (folder / 'config.json').exists():
    console.say(f'{printable(folder)} holds a run already, with which the command goes on: these figures are of one '
                'from its start')
  told = [{'workdir': str(place), 'task': config.task, 'fields': each}
          for (place, config), each in zip(runs, fields, strict=True)]
  told[0] |= {'steps': None, 'seconds_a_step': None, 'seconds': None, 'bytes': None}
  if runs[0][1].task in ('search', 'retrain'):
    rehearsed = _rehearse(runs[0][1], notes, len(runs) > 1 and runs[1][1].task == 'retrain')
    told[0] |= {'steps': rehearsed.steps, 'seconds_a_step': rehearsed.seconds, 'seconds': rehearsed.total_seconds,
                'bytes': rehearsed.bytes}
    if runs[0][1].get('finalists'):
      console.say(f'{runs[0][1].finalists} finalists, {runs[0][1].finalist_epochs:g} epochs each, follow every search: '
                  'they are not timed, their networks are not known yet')
    if len(runs) > 1:
      console.say(f'{len(runs)} runs; the first alone was timed')
  console.say('a dry run: nothing was written')
  return told


def _runs(asked, folder) -> list[tuple[pathlib.Path, Any]]:
  """(Run folder, resolved configuration) of all that `asked` comes to."""
  config = config_lib.resolve(asked)
  if config.task == 'study':
    several = [study.Run(where, '', searched, following)
               for where, _, searched, following in study.members(asked, folder)]
  elif asked.seeds and config.task == 'search':
    several, rule = seeds.planned(asked, folder, '')
    if rule is None and (after := consensus.following(asked, folder)) is not None:
      several.append(study.Run('', '', None, after))
  else:
    following = (config_lib.following(asked, asked.then_changes, folder)
                 if config.task == 'search' and asked.then else None)
    several = [study.Run('', '', config, following)]
  return [(place, config) for run in several for place, config in (
      (folder / run.where, run.searched), (folder / run.where / 'retrain', run.following)) if config is not None]


def _rehearse(config, notes, followed) -> loop.Rehearsed:
  """What the run of a resolved configuration would take."""
  with tempfile.TemporaryDirectory() as place:
    try:
      if config.task == 'retrain':
        retrain.retrain(config, place)
      else:
        search.search(config, place, notes=notes, share=budget.SEARCH if followed else 1.0)
    except loop.Rehearsed as rehearsed:
      return rehearsed
  raise AssertionError('a dry run went on')


def _differing(config) -> dict[str, Any]:
  """The fields of a resolved configuration that have another value than their default."""
  defaults = flatten(config_lib.defaults().to_dict())
  return {name: tuple(value) if isinstance(value, list) else value for name, value in flatten(config.to_dict()).items()
          if value != defaults.get(name) and name not in ('dry_run', 'task')}


def _text(value) -> str:
  return printable(value if isinstance(value, str) else repr(value))
