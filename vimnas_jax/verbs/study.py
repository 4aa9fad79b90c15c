"""The study verb: several methods, each with several seeds, then the report that compares them."""

import copy
import pathlib
import re
import shlex
from typing import NamedTuple

from ml_collections import ConfigDict

from vimnas_jax import config as config_lib
from vimnas_jax import data, files
from vimnas_jax.errors import Diverged, UserError
from vimnas_jax.runs import budget, metrics, runfolder, signals
from vimnas_jax.verbs import report, retrain, search

_NAME = re.compile(r'\w[\w.+-]*')  # of a member: a folder of that name stays inside the study's
_FILES = ('.md', '.json', '.png')  # that the report writes beside the members

# What a member may not set, with the remedy.
_WHOLE = {'seed': 'set config.study.seeds', 'seeds': 'set config.study.seeds', 'study': 'set it for the study',
          'task': 'leave it out, a member is a search (config.then goes on from it)',
          'dry_run': 'give --config.dry_run'}


def study(config, workdir, command: str = '', stop=None) -> dict | None:
  """Searches with every member of config.study and every seed, each in workdir/MEMBER/seed_SEED, then reports.

  Where config.then asks for it every search is followed by the retraining of what it found, in the folder `retrain`
  of its run folder. Runs that are finished are left as they are, so the same call goes on after a stop. Returns the
  report's rows, or None if a signal ended it early. Raises UserError on bad input, before anything runs.

  Args:
    config: a configuration as its file made it, not yet resolved.
    workdir: the folder of the study.
    command: the command line of the study, from which that of every run is made.
    stop: signals.Stop, or None.
  """
  with stop or signals.Stop() as stop, runfolder.opened(workdir) as folder:
    runfolder.check_free(folder)
    runs = [Run(where, as_command(command, changes, folder / where), searched, following)
            for where, changes, searched, following in members(config, folder)]
    try:
      if not carry_out(runs, folder, metrics.Console(), stop):
        return None
    except Diverged:  # the report is of the others
      done = [run for run in runs if runfolder.finished(folder / run.where, run.searched)]
      if done:
        _report(config, done, folder, command, [
            folder / run.where for run in runs if not any(run is other for other in done)])
      raise
    return _report(config, runs, folder, command)


def _report(config, runs, folder, command, left_out=()):
  trust = [run.searched.space.name for run in runs]  # the user named them, in the config or a member
  return report.across([folder / run.where for run in runs], folder, config.oracle, trust, command,
                       left_out=left_out)


class Run(NamedTuple):
  """A search of several, and what follows it.

  Attributes:
    where: its run folder, in that of all.
    command: what its result.json says of how it came about.
    searched: its configuration, resolved.
    following: that of the retraining of what it finds, or None.
  """

  where: str
  command: str
  searched: ConfigDict
  following: ConfigDict | None


def as_command(command: str, changes: str, path: pathlib.Path) -> str:
  """The command line of one run in `path`, of that of all: `changes` are 'field=value field=value'."""
  words = shlex.split(command)
  kept = [word for word, before in zip(words, ['', *words]) if not word.lstrip('-').startswith('workdir=')
          and word.lstrip('-') != 'workdir' and not (before.startswith('-') and before.lstrip('-') == 'workdir')]
  return shlex.join([*kept,
                     '--config.task=search', *(f'--config.{change}' for change in shlex.split(changes)),
                     f'--workdir={path}'])


def carry_out(runs: list[Run], folder: pathlib.Path, console, stop, notes=()) -> bool:
  """Does what is not yet done of `runs`, one after the other; whether all are finished, no signal having ended one.

  `stop`, an entered signals.Stop, is asked before each: a signal may come in the last step of the one before.

  Raises UserError on bad input, also where a finished run is on other data than one that is still to come; and, all
  others being finished, Diverged where the loss of some stopped being finite.
  """
  parts = [(run, verb, config, place) for run in runs for verb, config, place in (
      (search.search, run.searched, folder / run.where),
      (retrain.retrain, run.following, folder / run.where / 'retrain')) if config is not None]
  parts = [(run, verb, config, place, runfolder.as_begun(place, config).data) for run, verb, config, place in parts]
  finished = [(place, config, fields) for _, _, config, place, fields in parts if _finished(place, config, fields)]
  done, loaded, lost = {place for place, _, _ in finished}, {}, {}

  def data_of(fields):
    nonlocal loaded
    if (key := data.key(fields)) not in loaded:
      found = data.get(fields)
      as_read = copy.deepcopy(fields)
      as_read.stream = isinstance(found.train, data.Streamed)
      loaded = {key: found, data.key(as_read): found}
      for place, config, others in finished:
        if data.key(others) in loaded:
          runfolder.check(place, config, found.fingerprint())
    return loaded[key]

  for run, verb, config, place, fields in parts:
    if place in done:
      if verb is retrain.retrain and not runfolder.follows(place.parent):
        raise UserError(f'{files.printable(place)} holds the network of another architecture than its search has found '
                        'since: move it away, and the same command trains the new one')
      continue
    if run.where in lost:  # it has nothing to be trained
      continue
    if stop.ends(console.say):
      return False
    console.say(f'run {runs.index(run) + 1} of {len(runs)}: {run.where}' +
                (', retraining' if verb is retrain.retrain else ''))
    more = {'notes': notes} if verb is search.search else {}
    if verb is search.search and run.following is not None:
      more |= {'share': budget.SEARCH, 'following': run.following}
    try:
      if verb(config, place, run.command, data_of(fields), stop, **more) is None:
        return False
    except Diverged as e:
      console.say(f'{run.where} is left out: {e}')
      lost[run.where] = e
    notes = ()  # they are said once
  if lost:
    raise Diverged(f'{len(lost)} of {len(runs)} runs did not stay finite and would not if run again: '
                   f'{", ".join(lost)}; the others are finished. Leave those seeds or members out, or give them other '
                   'rates in another --workdir')
  return True


def _finished(place, config, fields) -> bool:
  """As runfolder.finished. Other images choose other epochs (verbs/sizing.py): where they differ, that is told."""
  try:
    return runfolder.finished(place, config)
  except UserError:
    if (place / 'config.json').exists():
      runfolder.check(place, config, data.get(fields).fingerprint())
    raise


def _check_own(member: str, changes: str):
  """Raises UserError where a member sets what is of the study as a whole, by name."""
  for field in (word.partition('=')[0] for word in shlex.split(changes)):
    remedy = next((remedy for name, remedy in _WHOLE.items() if field == name or field.startswith(f'{name}.')), None)
    if remedy:
      raise UserError(f'config.study.members: {member!r} sets {field}, which is of all members: {remedy}')


def members(config, folder: pathlib.Path):
  """(folder, changes, resolved configuration of the search, and of the retraining or None) of every run of
  config.study in `folder`. Raises UserError on a bad member.
  """
  if not config.study.members or not config.study.seeds:
    raise UserError('a study needs config.study.members, each \'NAME field=value field=value\', and config.study.seeds')
  if wrong := [seed for seed in config.study.seeds if isinstance(seed, bool) or not isinstance(seed, int)]:
    raise UserError(f'config.study.seeds: {wrong[0]!r} is no whole number')
  seen = set()
  for member in config.study.members:
    name, _, changes = str(member).strip().partition(' ')
    if not _NAME.fullmatch(name) or name in seen or name.endswith(_FILES):
      raise UserError(f'config.study.members: {member!r} must start with a name of its own, fit for a folder: letters, '
                      f'digits, _ . + -, the first a letter or digit, not ending in {" ".join(_FILES)}')
    seen.add(name)
    for seed in dict.fromkeys(config.study.seeds):
      where, own = f'{name}/seed_{seed}', f'{changes} seed={seed}'.strip()
      asked = config_lib.changed(config, f'task=search {own}')
      _check_own(member, changes)
      if asked.seeds:
        raise UserError(f'config.seeds={tuple(asked.seeds)!r} is for the task search: set config.study.seeds')
      if asked.choose != 'best':
        raise UserError(f'config.study.members: {member!r} sets choose, which is for a search with config.seeds: leave '
                        'it out')
      yield where, own, config_lib.resolve(asked), (
          config_lib.following(asked, asked.then_changes, folder / where) if asked.then else None)
