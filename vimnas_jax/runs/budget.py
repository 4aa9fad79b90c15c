"""A limit in hours: epochs that fit are decided once, before the first step, and a run that is slower ends in time.

What was decided, and the seconds spent so far, lie in the run folder as plan.json, so that a run that goes on after a
kill keeps its plan: with the same plan it ends with the same bits. Time in which nothing ran does not count, nor does
what a kill undid.
"""

import copy
import math
import pathlib
import time

import jax

from vimnas_jax import files
from vimnas_jax.errors import UserError
from vimnas_jax.runs import metrics

FILE = 'plan.json'
SEARCH = 1 / 3  # of the hours, at most, for a search that a retraining follows; that has what is left
_REMEDY = 'give another --workdir'
_LEAST = 10  # steps that a plan has, however short the time
_FEW = 100  # steps below which a search is little better than a draw
_AIM = 0.9  # of the time left that a plan fills: steps may be slower than those that were timed


class Shortened(Exception):
  """The plan was made shorter: the run has to take that of `Budget.fitted`."""


def of(folder: pathlib.Path, config, share: float = 1.0) -> 'Budget | None':
  """The budget of the run in `folder`, of which config.max_hours is `share`; None where it sets no limit.

  In the folder `retrain` of a search with a limit it is what that left. Raises UserError where plan.json is damaged,
  and with several processes, whose clocks differ.
  """
  if not config.max_hours:
    return None
  if jax.process_count() > 1:
    raise UserError(f'config.max_hours={config.max_hours:g} is for one process, here are {jax.process_count()}: set '
                    'config.max_hours=0 and a number of epochs')
  return Budget(folder, config, share)


class Budget:
  """What a run may take, what it has taken, and the epochs that were decided.

  Attributes:
    told: where lines go, `told(text)`; set by who has a console.
  """

  def __init__(self, folder: pathlib.Path, config, share: float):
    self._path, self._asked, self.told = folder / FILE, config, print
    stored = files.read_json(self._path, _REMEDY) if self._path.exists() else {}
    self._plan = {'max_hours': config.max_hours, 'limit_seconds': _limit(folder, config, share), 'seconds_spent': 0.0,
                  'epochs': None, 'pretrain_epochs': None, 'ended_after_step': None} | stored
    if not all(isinstance(value, int | float | None) for value in self._plan.values()):
      raise UserError(f'{files.printable(self._path)} is damaged: {_REMEDY}')
    self._before, self._began = self._plan['seconds_spent'], time.monotonic()

  def fitted(self):
    """The configuration of the run with the epochs that were decided."""
    c = copy.deepcopy(self._asked)
    if self._plan['epochs'] is not None:
      c.epochs = self._plan['epochs']
      if 'pretrain' in c:
        c.pretrain.epochs = self._plan['pretrain_epochs']
    return c

  @property
  def _spent(self) -> float:
    return self._before + time.monotonic() - self._began

  @property
  def _end(self) -> float:
    """Seconds after which no step is begun: the rest is for evaluation, export and pictures."""
    limit = self._plan['limit_seconds']
    return limit - min(60.0, 0.15 * limit)

  def decide(self, step: int, steps: int, seconds: float, compiling: float):
    """Decides the epochs, unless that is done.

    Args:
      step: steps behind it; a run that has some keeps the epochs that it has.
      steps: those to come.
      seconds: what these take.
      compiling: seconds for programs that are still to be compiled.

    Raises:
      Shortened: they do not fit.
    """
    if self._plan['epochs'] is not None or step:
      return
    c, left = self._asked, self.left()
    part = 1.0 if seconds <= left else min(1.0, max(_AIM * (left - compiling) / seconds, _LEAST / steps))
    self._plan |= {'epochs': c.epochs * part, 'pretrain_epochs': c.pretrain.epochs * part if 'pretrain' in c else None}
    self.save()
    if part < 1:
      self.told(f'config.max_hours={c.max_hours:g}: {c.epochs:g} epochs would take {metrics.duration(seconds)}, and '
                f'{metrics.duration(left)} are left for compiling and for them: shortened to '
                f'{self._plan["epochs"]:.3g} epochs, ' + (
                    f'those of theta alone to {self._plan["pretrain_epochs"]:.3g}, ' if self._plan['pretrain_epochs']
                    else '') + 'schedules included')
      if _AIM * (left - compiling) / seconds < _LEAST / steps:
        hours = self._hours(compiling + min(_FEW, steps) * seconds / steps / _AIM)
        why = f'{metrics.duration(compiling)} of compiling are still to come' if compiling else 'starting took it all'
        self.told(f'config.max_hours={c.max_hours:g} is too short: {why}, so nothing can be learned in the rest. For '
                  f'{min(_FEW, steps)} steps give --config.max_hours={hours:g} and another --workdir')
      raise Shortened

  def _hours(self, seconds: float) -> float:
    """The config.max_hours, rounded up, in whose share there are `seconds` more than have been spent."""
    share = self._plan['limit_seconds'] / self._plan['max_hours']  # seconds of every hour that is given
    return math.ceil(100 * (self._spent + seconds) / 0.85 / share) / 100

  def left(self) -> float:
    """Seconds until no further step is begun."""
    return max(self._end - self._spent, 0.0)

  def over(self, step: int) -> bool:
    """Whether the time is up after `step` steps; one is always done."""
    return step > 0 and self._spent > self._end

  def ended(self, step: int) -> bool:
    """Whether the time was up after `step` steps, in this process or an earlier one."""
    end = self._plan['ended_after_step']
    return end is not None and step >= end

  def save(self, ended: int | None = None):
    """Writes plan.json, with the step after which the time was up if it is."""
    if ended is not None:
      self._plan['ended_after_step'] = ended
    self._plan['seconds_spent'] = round(self._spent, 3)
    files.write_json(self._path, self._plan)

  def facts(self) -> dict:
    """What result.json holds of it."""
    return {'max_hours': self._asked.max_hours, 'epochs_asked': self._asked.epochs,
            'shortened': self._plan['epochs'] is not None and self._plan['epochs'] < self._asked.epochs,
            'ended_after_step': self._plan['ended_after_step'], 'seconds_spent': round(self._spent, 1)}


def line(result: dict) -> list[str]:
  """What a summary says of a run that was shortened or ended by the clock, [] for any other."""
  facts, said = result.get('budget'), []
  if facts and facts['shortened']:
    said.append(f'{result["epochs"]:.3g} of {facts["epochs_asked"]:g} epochs were planned to fit config.max_hours='
                f'{facts["max_hours"]:g}')
  if facts and facts['ended_after_step'] is not None:
    said.append(f'time was up after step {result["steps"]} of {result["planned_steps"]}, its schedule unfinished')
    if 'taken' in result:
      said.append(f'the architecture is {result["taken"]}')
    elif result['steps'] > result.get('pretrain_steps', 0) and result.get('phi_moved') == 'before':
      said.append('its last stage had not moved phi yet: this architecture is of what that began with')
    elif result['steps'] <= result.get('pretrain_steps', 0) or not result.get('phi_moved', True):
      said.append('theta was still learning alone, so nothing was searched: this architecture is that of the start')
  return [f'length         {"; ".join(said)}'] if said else []


def _limit(folder, config, share):
  limit = 3600.0 * config.max_hours
  before = folder.parent / FILE
  if folder.name == 'retrain' and before.exists():  # the search that it follows
    spent = files.read_json(before, _REMEDY).get('seconds_spent', 0.0)
    return max(limit - spent, 0.1 * limit) if isinstance(spent, int | float) and math.isfinite(spent) else limit
  return share * limit
