"""The loop of every run: a compiled step, metrics one step behind the device, checkpoints, and a stop at any moment."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vimnas_jax import signals
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
