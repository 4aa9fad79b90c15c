"""The loop of every run: a compiled step, metrics one step behind the device, checkpoints, and a stop at any moment."""

import json
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vimnas_jax import checkpoint, signals
from vimnas_jax.errors import Diverged


class Loop(NamedTuple):
  """What a run does at each step.

  Attributes:
    total: steps in all.
    step: jitted `step(state, held, index) -> (state, values)`; values hold the scalars 'loss' and 'norm_theta'.
    held: what lies on the device for all steps.
    index: `index(at)` is what step `at` (from 0) works on.
    note: `note(at, values, seconds) -> text` writes down the values after `at` steps and says them in a line.
    log_steps: how often `note` is called; always after the last step.
    checkpoint_steps: how often a state is saved; always after the last step.
    remedy: what to change when the loss stops being finite.
    after: `after(at, state)`, called every `after_steps` steps and after the last, before the checkpoint; or None.
    after_steps: see `after`.
  """

  total: int
  step: Callable[..., Any]
  held: Any
  index: Callable[[int], Any]
  note: Callable[[int, dict, float], str]
  log_steps: int
  checkpoint_steps: int
  remedy: str
  after: Callable[[int, Any], None] | None = None
  after_steps: int = 0


def to_the_end(run, folder, console, stop, write) -> dict | None:
  """Takes a run from what `folder` holds to its end, or to a stop.

  Returns its result; None if a signal ended it early, all saved. A run that is finished already is not run again.

  Args:
    run: has `total` (steps in all), start(), abstract() and advance(state, folder, saved, console, stop), which gives
      the state and the seconds of a step.
    folder: the run folder.
    console: metrics.Console.
    stop: signals.Stop, entered.
    write: `write(state, seconds) -> result`, after the last step.
  """
  saved = checkpoint.Checkpoints(folder)
  now = saved.restore(run.abstract(), console.say)
  if now is None:
    now = signals.interruptible(run.start)
  elif int(now.step) < run.total:
    console.say(f'resuming {folder} after step {int(now.step)} of {run.total}')
  first = int(now.step)
  now, seconds = run.advance(now, folder, saved, console, stop)
  saved.close()
  if int(now.step) < run.total:
    console.say(f'stopped after step {int(now.step)} of {run.total}, all saved: run the same command to go on')
    return None
  if first == run.total and (folder / 'result.json').exists():
    console.say(f'{folder} holds the finished run:')
    return json.loads((folder / 'result.json').read_text())
  return write(now, seconds)


def advance(loop: Loop, now, saved, console, stop):
  """Takes the state `now`, which has its `step`, to the end of the loop or to a stop.

  Returns the state and the median seconds of a step. Raises Diverged when the loss or the weights stop being finite;
  the checkpoints then hold the last good state.

  Args:
    loop: what to do.
    now: the state to start from; it is given away.
    saved: checkpoint.Checkpoints.
    console: metrics.Console.
    stop: signals.Stop, entered.
  """
  first = int(now.step)
  if first >= loop.total:
    return now, None
  console.say('compiling the step …')
  began = time.monotonic()
  step = signals.interruptible(loop.step.lower(now, loop.held, loop.index(first)).compile)
  console.say(f'compiled in {time.monotonic() - began:.1f} s')
  times, pending, last = [], None, time.monotonic()

  def settle():
    """Fetches and writes the metrics of the step before: the device is at work on the next one meanwhile."""
    nonlocal pending, last
    if pending is None:
      return
    (at, values), pending = pending, None
    loss, norm = float(values['loss']), float(values['norm_theta'])
    times.append(time.monotonic() - last)
    last = time.monotonic()
    if not math.isfinite(loss) or not math.isfinite(norm):
      raise Diverged(f'step {at}: loss {loss}, norm of theta {norm} — not finite. The checkpoints hold the last good '
                     f'state; {loop.remedy} and give another --workdir')
    if at % loop.log_steps == 0 or at == loop.total:
      console.step(at, loop.total, f'loss {loss:.3f}  {loop.note(at, values, times[-1])}')

  with console.progress(loop.total, first), stop.noted():
    for at in range(first, loop.total):
      now, values = step(now, loop.held, loop.index(at))
      settle()
      pending = at + 1, values
      done = at + 1 == loop.total
      due = loop.after is not None and (done or (at + 1) % loop.after_steps == 0)
      if done or due or stop.asked or (at + 1) % loop.checkpoint_steps == 0:
        settle()
        if due:
          loop.after(at + 1, now)
        saved.save(at + 1, now)
        last = time.monotonic()
      if stop.asked and not done:
        break
  return now, float(np.median(times))
