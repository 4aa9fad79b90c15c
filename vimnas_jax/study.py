"""The study verb: several methods, each with several seeds, then the report that compares them."""

import json
import pathlib

from vimnas_jax import config as config_lib
from vimnas_jax import data, metrics, report, runfolder, search
from vimnas_jax.errors import UserError


def study(config, workdir, command: str = '') -> dict | None:
  """Searches with every member of config.study and every seed, each in workdir/MEMBER/seed_SEED, then reports.

  Runs that are finished are left as they are, so the same call goes on after a stop. Returns the report's rows, or
  None if a signal ended it early. Raises UserError on bad input, before anything runs.

  Args:
    config: a configuration as its file made it, not yet resolved.
    workdir: the folder of the study.
    command: the command line of the study, from which that of every run is made.
  """
  console = metrics.Console()
  folder = runfolder.open_folder(workdir)
  runs = list(members(config))
  loaded = {}
  for number, (where, changes, resolved) in enumerate(runs, 1):
    path = folder / where
    if runfolder.finished(path, resolved):
      continue
    console.say(f'run {number} of {len(runs)}: {where}')
    key = json.dumps(resolved.data.to_dict())
    if key not in loaded:
      loaded = {key: data.get(resolved.data)}
    own = ' '.join([*(word for word in command.split() if not word.startswith('--workdir')), '--config.task=search',
                    *(f'--config.{change}' for change in changes.split()), f'--workdir={path}'])
    if search.search(resolved, path, own, loaded[key]) is None:
      return None
  return report.compare([folder / where for where, _, _ in runs], folder, config.oracle.nasbench101)


def members(config):
  """(folder, changes, resolved configuration) of every run of config.study. Raises UserError on a bad member."""
  if not config.study.members or not config.study.seeds:
    raise UserError('a study needs config.study.members, each \'NAME field=value field=value\', and config.study.seeds')
  seen = set()
  for member in config.study.members:
    name, _, changes = member.strip().partition(' ')
    if not name or name in seen or '=' in name or pathlib.Path(name).name != name:
      raise UserError(f'config.study.members: {member!r} must start with a name of its own, fit for a folder')
    seen.add(name)
    for seed in config.study.seeds:
      own = f'{changes} seed={seed}'.strip()
      yield f'{name}/seed_{seed}', own, config_lib.resolve(config_lib.changed(config, f'task=search {own}'))
