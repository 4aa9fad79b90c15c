"""The study verb: several methods, each with several seeds, then the report that compares them."""

import json
import pathlib
import re
import shlex

from vimnas_jax import config as config_lib
from vimnas_jax import data
from vimnas_jax.errors import UserError
from vimnas_jax.runs import budget, metrics, runfolder
from vimnas_jax.verbs import report, retrain, search

# Fields of config.data that change what is done with the images of a set, not which they are.
_AFTERWARDS = ('limit', 'pad', 'flip', 'cutout', 'smallest', 'jitter', 'hue')
_NAME = re.compile(r'\w[\w.+-]*')  # of a member: a folder of that name stays inside the study's
_FILES = ('.md', '.json', '.png')  # that the report writes beside the members


def study(config, workdir, command: str = '') -> dict | None:
  """Searches with every member of config.study and every seed, each in workdir/MEMBER/seed_SEED, then reports.

  Where config.then asks for it every search is followed by the retraining of what it found, in the folder `retrain`
  of its run folder. Runs that are finished are left as they are, so the same call goes on after a stop. Returns the
  report's rows, or None if a signal ended it early. Raises UserError on bad input, before anything runs.

  Args:
    config: a configuration as its file made it, not yet resolved.
    workdir: the folder of the study.
    command: the command line of the study, from which that of every run is made.
  """
  console = metrics.Console()
  with runfolder.opened(workdir) as folder:
    runs, loaded = list(members(config, folder)), {}

    def data_of(fields):
      nonlocal loaded
      key = json.dumps({field: value for field, value in fields.to_dict().items() if field not in _AFTERWARDS})
      if key not in loaded:
        loaded = {key: data.get(fields)}
      return loaded[key]

    for number, (where, changes, searched, following) in enumerate(runs, 1):
      path = folder / where
      run_command = shlex.join([*(word for word in shlex.split(command) if not word.startswith('--workdir')),
                        '--config.task=search', *(f'--config.{change}' for change in shlex.split(changes)),
                        f'--workdir={path}'])
      for verb, run_config, place in ((search.search, searched, path), (retrain.retrain, following, path / 'retrain')):
        if run_config is None or runfolder.finished(place, run_config):
          continue
        console.say(f'run {number} of {len(runs)}: {where}' + (', retraining' if run_config is following else ''))
        shared = {'share': budget.SEARCH} if verb is search.search and following is not None else {}
        if verb(run_config, place, run_command, data_of(run_config.data), **shared) is None:
          return None
    trust = [searched.space.name for _, _, searched, _ in runs]  # the user named them, in the config or a member
    return report.across([folder / where for where, *_ in runs], folder, config.oracle, trust)


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
      yield where, own, config_lib.resolve(asked), (
          config_lib.following(asked, asked.then_changes, folder / where) if asked.then else None)
