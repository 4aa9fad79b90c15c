"""The loop of every run: a compiled step, metrics one step behind the device, checkpoints, and a stop at any moment."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax import files
from vimnas_jax.errors import Diverged
from vimnas_jax.runs import checkpoint, hosts, kept, metrics, parallel, signals
from vimnas_jax.runs.budget import Budget

_TIMED = 3  # steps that an estimate takes the quickest of
_SAVING, _WRITING, _SLOWEST = 0.1, 3e7, 2.0  # seconds that an estimate has for a checkpoint, bytes a second, at most
_SAVE, _STOP = 1, 2  # what a process may ask of all


class Rehearsed(Exception):
  """A dry run has timed its steps, and ends there.

  Attributes:
    steps: those that are to come.
    seconds: of a step, the quickest of some, with the decoding of its images.
    total_seconds: of all steps, with what is done beside them.
    bytes: as Pace has them.
  """

  def __init__(self, steps: int, seconds: float, total_seconds: float, size: int | None):
    super().__init__(f'{steps} steps of {seconds:.3f} s')
    self.steps, self.seconds, self.total_seconds, self.bytes = steps, seconds, total_seconds, size


class Pace(NamedTuple):
  """What the steps of a run took.

  Attributes:
    seconds: of a step, median.
    bytes: of the largest step's program on a device, as XLA accounts for it: arguments (the data set among them),
      results and all between; None where it does not say.
  """

  seconds: float
  bytes: int | None


class Loop(NamedTuple):
  """What a run does at each step.

  Attributes:
    total: steps in all.
    step: `step(at)` is the jitted function of step `at`, `f(state, held, index) -> (state, values)`; values hold the
      scalar 'loss' and, of whatever must stay finite, scalars called 'norm_NAME'.
    held: what lies on the device for all steps.
    index: `index(at)` is what step `at` (from 0) works on.
    note: `note(at, values, seconds) -> text` writes down the values after `at` steps, with the mean seconds of a step
      since it was called last, and says them in a line.
    log_steps: how often `note` is called; always after the last step.
    checkpoint_steps: how often a state is saved; always after the last step.
    checkpoint_minutes: above 0, it is also saved when so much time has passed since the last one.
    remedy: what to change when the loss stops being finite.
    after: `after(at, state)`, called by the first process every `after_steps` steps and after the last, before the
      checkpoint; or None.
    after_steps: see `after`.
    before: `before(at, state) -> state`, called before step `at` (from 0): a supernet that grows is another one; or
      None.
    stopped: `stopped(state)`: whether the run is at its end before its last step; or None.
    budget: a Budget, which may shorten the plan before the first step and end the run in time; or None.
    beside: what is done beside the steps, such as evaluations, as a share of their time.
    rehearsal: True raises Rehearsed where the first step would come.
    identity: `identity(at)` names step `at` for kept.py, which keeps it beyond this process, unless it gives None; None
      keeps none.
    programs: where compiled steps are kept, for another loop of the same steps; None: they are not.
    feeding: `feeding(at)`: about how many seconds it takes to decode what step `at` works on; None where it lies ready.
  """

  total: int
  step: Callable[[int], Any]
  held: Any
  index: Callable[[int], Any]
  note: Callable[[int, dict, float], str]
  log_steps: int
  checkpoint_steps: int
  remedy: str
  checkpoint_minutes: float = 0.0
  after: Callable[[int, Any], None] | None = None
  after_steps: int = 0
  before: Callable[[int, Any], Any] | None = None
  stopped: Callable[[Any], bool] | None = None
  budget: Budget | None = None
  beside: float = 0.0
  rehearsal: bool = False
  feeding: Callable[[int], float] | None = None
  programs: dict[Any, Any] | None = None
  identity: Callable[[int], str | None] | None = None


def abstract(create, source, mesh):
  """Shapes, types and placement of the state that `create(source)` makes, the same on every device of the mesh."""
  on = parallel.replicated(mesh)
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on), jax.eval_shape(create, source))


def batches(order, per_epoch: int, mesh):
  """`index(at, parts=None)`: what step `at` (from 0) works on, laid out over the devices.

  `order(epoch)` has the batches of an epoch, indices [n] each: a sequence, or {part: sequence}, of which `parts` are
  taken. It is asked once an epoch.
  """
  epoch, drawn = None, None

  def index(at, parts=None):
    nonlocal epoch, drawn
    if at // per_epoch != epoch:
      epoch = at // per_epoch
      drawn = order(epoch)
    found = drawn[at % per_epoch] if parts is None else {part: drawn[part][at % per_epoch] for part in parts}
    return jax.tree.map(lambda batch: parallel.put(batch, parallel.batch(mesh, len(batch))), found)

  return index


def to_the_end(run, folder, console, stop, write) -> dict | None:
  """Takes a run from what `folder` holds to its end, or to a stop.

  Returns its result; None if a signal ended it early, all saved. A run that is finished already is not run again, even
  where its checkpoints are gone.

  Args:
    run: has `config`, `total` (steps in all), start(), abstract(step), finished(state) and advance(state, folder,
      saved, console, stop), which gives the state and the Pace, or None if there was no step.
    folder: the run folder.
    console: metrics.Console.
    stop: signals.Stop, entered.
    write: `write(state, pace) -> result`, after the last step.
  """
  config = run.config
  saved = checkpoint.Checkpoints(folder, config.checkpoint_keep, config.checkpoint_hours)
  now = saved.restore(run.abstract, console.say)
  if now is None and (folder / 'result.json').exists():
    return _finished(folder, console)
  if now is None:
    now = signals.interruptible(run.start)
  elif not run.finished(now):
    console.say(f'resuming {files.printable(folder)} after step {int(now.step)} of {run.total}')
  first, over = int(now.step), run.finished(now)
  if over and config.dry_run:  # of a method without a step
    raise Rehearsed(0, 0.0, 0.0, None)
  if not checkpoint.finite(now):
    raise Diverged(f'the state of step {first} in {files.printable(folder)} has numbers that are not finite: give '
                   'another --workdir')
  try:
    now, pace = run.advance(now, folder, saved, console, stop)
  finally:
    saved.close()
  if not run.finished(now):
    console.say(f'stopped after step {int(now.step)} of {run.total}, all saved: run the same command to go on')
    return None
  if over and (folder / 'result.json').exists():
    return _finished(folder, console)
  result = write(parallel.local(now), pace) if hosts.first() else {}
  hosts.together('the result is written')
  return result


def _finished(folder, console) -> dict:
  """The result that `folder` has."""
  console.say(f'{files.printable(folder)} holds the finished run:')
  return files.read_json(folder / 'result.json', 'remove it, and the same command writes it again')


def _bytes(program) -> int | None:
  """See `Pace`."""
  found = program.memory_analysis()
  sizes = [getattr(found, f'{kind}_size_in_bytes', None) for kind in ('argument', 'output', 'temp', 'alias')]
  return None if None in sizes else int(sum(sizes[:3]) - sizes[3])  # what is given back in place counts once


def _rehearsed(loop, program, now, index, console) -> tuple[float, float]:
  """Times the first steps, on a copy of the state, and says what all will take: seconds of the first, and of all.

  Of the stages to come the first alone is timed, unless there is a budget, which wants to know of all. `index` is what
  the first step works on.
  """
  first = int(now.step)
  stages = {id(loop.step(first)): [first, 0 if loop.budget and loop.before is None else loop.total - first]}
  if loop.budget and loop.before is None:
    for at in range(first, loop.total):
      stages.setdefault(id(loop.step(at)), [at, 0])[1] += 1
  paces = []
  for at, count in stages.values():
    batch, copied = index if at == first else loop.index(at), jax.tree.map(jnp.copy, now)
    step, times = program(at, batch), []
    for _ in range(_TIMED):
      began = time.monotonic()
      copied, values = step(copied, loop.held, batch)
      jax.block_until_ready(values)
      times.append(time.monotonic() - began)
    paces.append((min(times), count))
  told = f'{paces[0][0]:.3f} s a step (measured)'
  if loop.feeding:
    feeding = loop.feeding(first)
    told += f', {feeding:.3f} s to decode its images'
    # on a CPU steps and decoding share the cores; elsewhere one goes on beside the other
    paces = [(pace + feeding if jax.default_backend() == 'cpu' else max(pace, feeding), count) for pace, count in paces]
  seconds = sum(pace * count for pace, count in paces) * (1 + loop.beside)
  saving = min(_SAVING + sum(leaf.nbytes for leaf in jax.tree.leaves(now)) / _WRITING, _SLOWEST)
  seconds += (loop.total - first) // loop.checkpoint_steps * saving
  size = _bytes(program(first, index))
  console.say(f'{told}, {loop.total - first} steps: about {metrics.duration(seconds)}' +
              ('' if size is None else f', {size / 2 ** 20:,.0f} MiB'))
  return paces[0][0], seconds


def advance(loop: Loop, now, saved, console, stop):
  """Takes the state `now`, which has its `step`, to the end of the loop or to a stop.

  Returns the state and the Pace, or None if there was no step. Raises Diverged when the loss or any of the parameters
  stop being finite; the checkpoints then hold the last good state.

  Args:
    loop: what to do.
    now: the state to start from; it is given away.
    saved: checkpoint.Checkpoints.
    console: metrics.Console.
    stop: signals.Stop, entered.
  """
  first = int(now.step)
  if first >= loop.total or (loop.stopped and loop.stopped(now)):
    return now, None
  programs, last = {} if loop.programs is None else loop.programs, time.monotonic()

  def program(at, index):
    """The compiled step `at` for batches as large as `index`; the last batch of an epoch may be smaller."""
    nonlocal last
    step = loop.step(at)
    key = id(step), str(jax.tree.map(jnp.shape, index))
    if key not in programs:
      again = any(of == key[0] for of, _ in programs)
      console.say('compiling the step …' if not programs else 'compiling the step for the last batch of an epoch …'
                  if again else 'compiling the step of the next stage …')
      began = time.monotonic()
      named = loop.identity and loop.identity(at)
      programs[key] = kept.compiled(step, (now, loop.held, index), named, signals.interruptible)
      last = time.monotonic()
      console.say(f'compiled in {last - began:.1f} s')
      console.waited(last - began)
    return programs[key]

  if loop.before:
    now = loop.before(first, now)
  index = loop.index(first)
  began = time.monotonic()
  program(first, index)
  compiling = time.monotonic() - began
  pace, seconds = _rehearsed(loop, program, now, index, console)
  if loop.budget:
    last_batch = loop.after is not None  # that of an epoch may be smaller, and is a program of its own
    loop.budget.decide(first, loop.total - first, seconds, compiling if last_batch else 0.0)
  if loop.rehearsal:
    raise Rehearsed(loop.total - first, pace, seconds, _bytes(program(first, index)))
  times, noted, pending, last = [], 0, None, time.monotonic()
  votes, written = hosts.Votes(now.step), time.monotonic()

  def settle(final=False):
    """Fetches and writes the metrics of the step before: the device is at work on the next one meanwhile. Those of the
    `final` step are noted in any case.
    """
    nonlocal pending, last, noted
    if pending is None:
      return
    (at, values), pending = pending, None
    loss = float(values['loss'])
    norms = {name.removeprefix('norm_'): float(v) for name, v in values.items() if name.startswith('norm_')}
    times.append(time.monotonic() - last)
    last = time.monotonic()
    if not all(map(math.isfinite, (loss, *norms.values()))):
      told = ', '.join([f'loss {loss}', *(f'norm of {name} {norm}' for name, norm in norms.items())])
      raise Diverged(f'step {at}: {told}: not finite. The checkpoints hold the last good state; {loop.remedy} and give '
                     'another --workdir')
    if at % loop.log_steps == 0 or final:
      mean, noted = float(np.mean(times[noted:])), len(times)
      console.step(at, loop.total, f'loss {loss:.3f}  {loop.note(at, values, mean)}')

  with console.progress(loop.total, first, loop.budget and loop.budget.left), stop.noted():
    for at in range(first, loop.total):
      index = loop.index(at)
      if loop.before and at > first:
        now = loop.before(at, now)
      now, values = program(at, index)(now, loop.held, index)
      settle()
      pending = at + 1, values
      over = loop.budget is not None and loop.budget.over(at + 1)
      done = at + 1 == loop.total or over or (loop.stopped is not None and loop.stopped(now))
      due = loop.after is not None and (done or (at + 1) % loop.after_steps == 0)
      late = hosts.first() and 0 < loop.checkpoint_minutes <= (time.monotonic() - written) / 60
      vote = votes.cast(_STOP if stop.asked else _SAVE if late else 0)
      if done or due or vote or (at + 1) % loop.checkpoint_steps == 0:
        settle(final=done)
        if due and hosts.first():
          loop.after(at + 1, parallel.local(now))
        saved.save(at + 1, now)
        if loop.budget:
          loop.budget.save(ended=at + 1 if over and at + 1 < loop.total else None)
        hosts.report()
        last = written = time.monotonic()
      if done or vote == _STOP:
        break
  sizes = [_bytes(each) for each in programs.values()]
  return now, Pace(float(np.median(times)), None if None in sizes else max(sizes))
