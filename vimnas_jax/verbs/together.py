"""Searches with several seeds as one program: every step is `jax.vmap` of the step over the states of all.

For a device that one small supernet leaves idle. Nothing is shared between the seeds but the images on the device: each
has its own state, batches and randomness, as it has alone, and its own run folder. Sums are added in another order than
alone, so the bits differ from those of a run by itself.
"""

import contextlib
import copy
import shutil
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from vimnas_jax import cpu, data, files
from vimnas_jax.errors import UserError
from vimnas_jax.runs import loop, parallel, runfolder, signals
from vimnas_jax.verbs import outcome, search, subset, told, trace

FOLDER = 'together'  # in that of all: what is needed to go on
_ALONE = 'set config.at_once=False'


@flax.struct.dataclass
class States:
  """The states of several searches, which are at the same step.

  Attributes:
    step: steps done, int32 [].
    each: a search's state, all arrays with a leading axis of the searches.
  """

  step: jax.Array
  each: Any


def check(config):
  """Raises UserError where searches of a resolved `config` cannot run as one, whatever the data and the method."""
  if config.max_hours:
    raise UserError(f'config.at_once does not keep config.max_hours={config.max_hours:g}: {_ALONE}, or a number of '
                    'epochs')
  if config.finalists:
    raise UserError(f'config.at_once trains no finalists, and config.finalists={config.finalists} asks for some: '
                    f'{_ALONE}, or config.finalists=0')
  if cpu.supernet_kernels():
    raise UserError('config.at_once is for GPUs and TPUs: on a CPU one seed after the other is faster, by kernels that '
                    f'have no batching rule: {_ALONE}, or VIMNAS_JAX_KERNELS=0 before the command')


def searched(runs, folder, console, stop=None, notes=()) -> bool:
  """Searches with those of `runs` (study.Run) that are not finished, all at once, in their folders below `folder`.

  They differ in their seed alone. Returns whether all are finished, no signal having ended them; the same call goes on
  then. Raises UserError on bad input, and where the searches cannot run as one.
  """
  left = [run for run in runs if not runfolder.finished(folder / run.where, run.searched)]
  inner = folder / FOLDER
  begun = _begun(inner, runs, left)
  if not left:
    return True
  if begun:  # what they share is of these, also of those whose results are written
    left = begun
  elif own := [run.where for run in left if (folder / run.where / 'config.json').exists()]:
    raise UserError(f'{files.printable(folder / own[0])} was begun by itself: {_ALONE} to go on with it')
  config = left[0].searched
  with stop or signals.Stop() as stop, contextlib.ExitStack() as open_folders:
    loaded = data.get(config.data)
    several = _Several(left, [folder / run.where for run in left], loaded, console)
    one = several.runs[0]
    known = data.facts(loaded, {'training': one.train, 'validation': one.valid}) if data.own(loaded) else {}
    for line in (*(told.lines(loaded, known) if known else ()), *notes,
                 *told.shortage(loaded, one.train, several.total)):
      console.say(line)
    for run, place in zip(left, several.places, strict=True):
      open_folders.enter_context(runfolder.opened(place))
      runfolder.check(place, run.searched, loaded.fingerprint())
    inner.mkdir(exist_ok=True)
    files.write_json(inner / 'seeds.json', {'seeds': [run.searched.seed for run in left]})  # before they are begun
    for run, place in zip(left, several.places, strict=True):
      runfolder.write_config(place, run.searched, loaded.fingerprint())
      if known:
        files.write_json(place / data.LIST, known)
      if one.rows is not None:
        subset.write(place, run.searched, loaded, one.rows)
    console.say(f'{len(left)} seeds at once: {config.method.name} on {config.space.name} with {config.data.name}: '
                f'{len(one.train)} images, {one.total} steps of {config.batch_size}, {one.weights:,} weights each')
    done = loop.to_the_end(several, inner, console, stop, lambda now, pace: several.write(now, pace, left, console))
    if done is not None:
      shutil.rmtree(inner, ignore_errors=True)
  return done is not None


def _begun(inner, runs, left):
  """Those of `runs` that were begun at once, in the order of then, where some of them are `left`; else [].

  Raises UserError where they are not those that are asked.
  """
  path = inner / 'seeds.json'
  begun = files.read_json(path, 'restore it, or give another --workdir').get('seeds', []) if path.exists() else []
  asked, unfinished = {run.searched.seed: run for run in runs}, {run.searched.seed for run in left}
  if all((inner.parent / f'seed_{seed}' / 'result.json').exists() for seed in begun):  # a kill left the folder
    shutil.rmtree(inner, ignore_errors=True)
    return []
  if not left:
    return []
  if not unfinished <= set(begun) <= set(asked):
    raise UserError(f'{files.printable(inner.parent)} has begun to search with seeds {begun} at once, and '
                    f'{list(asked)} are asked: give the former first, or another --workdir')
  return [asked[seed] for seed in begun]


class _Several:
  """Searches that differ in their seed, as one run of runs/loop.py."""

  def __init__(self, runs, places, loaded, console):
    self.config, self.places = runs[0].searched, places
    one = search.prepared(self.config, loaded, console)
    self._refuse(one)
    self.runs = [copy.copy(one) for _ in runs]  # parts that hang on the seed are made when they are asked for
    for run, own in zip(self.runs, runs, strict=True):
      run.config, run.together = own.searched, len(runs)
    self.total, self._steps = one.total, {}

  def _refuse(self, one):
    if one.mesh.size > 1:
      raise UserError(f'config.at_once is for one device, here are {one.mesh.size}: set config.devices=1')
    if one.streams:
      raise UserError(f'config.at_once needs the images of {self.config.data.name!r} in memory: {_ALONE}, or '
                      'config.data.stream=False')
    if one.constraint:
      raise UserError(f'config.at_once knows no config.limit: {_ALONE}')
    if one.method.depths or one.method.stopped or not one.total:
      raise UserError(f'config.at_once: searches of method {self.config.method.name!r} may end at different steps, or '
                      f'have none: {_ALONE}')

  def start(self):
    """Every search's state at step 0, with the bits that it has alone."""
    return States(jnp.zeros((), jnp.int32), jax.tree.map(lambda *x: jnp.stack(x), *(run.start() for run in self.runs)))

  def abstract(self, step=0):
    """Shapes, types and placement of a state, after whatever `step`."""
    one = self.runs[0]
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parallel.replicated(one.mesh)),
        States(jax.ShapeDtypeStruct((), jnp.int32), jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((len(self.runs), *x.shape), x.dtype), one.abstract(step))))

  def finished(self, now) -> bool:
    """Whether the state `now` is that of the end."""
    return int(now.step) >= self.total

  def _step(self, at):
    """The jitted step `at` of all: `f(states, data, index) -> (states, metrics)`."""
    name = self.runs[0].phase(at).name
    if name not in self._steps:
      step = self.runs[0].step(at)

      def all_at_once(now, held, index):
        each, values = jax.vmap(lambda own, index: step(own, held, index))(now.each, index)
        told = {field: value.max() for field, value in values.items() if field.startswith('norm_')}
        return States(now.step + 1, each), {'loss': values['loss'].mean(), **told, 'each': values}

      self._steps[name] = jax.jit(all_at_once, donate_argnums=0)
    return self._steps[name]

  def advance(self, now, folder, saved, console, stop):
    """Takes `now` to the end of the plan or to a stop. Returns the state and the loop.Pace, or None."""
    del folder
    first, config = int(now.step), self.config
    if self.finished(now):
      return now, None
    held, index = self.runs[0].batches()
    others = [index, *(run.batches(with_images=False)[1] for run in self.runs[1:])]
    lines = [trace.Trace(run, place, first, console.say) for run, place in zip(self.runs, self.places, strict=True)]
    if first == 0:
      for own, line in zip(self._apart(now.each), lines, strict=True):
        line.start(jax.tree.map(jnp.asarray, own))

    def note(at, values, seconds):
      said = [line.note(at, own, seconds / len(lines)) for own, line in zip(self._apart(values['each']), lines,
                                                                            strict=True)]
      return ' | '.join(said)

    try:
      return loop.advance(loop.Loop(
          self.total, self._step, held, lambda at: jax.tree.map(lambda *x: jnp.stack(x), *(own(at) for own in others)),
          note, config.log_steps, config.checkpoint_steps, 'lower config.theta.lr or config.phi.lr',
          config.checkpoint_minutes), now, saved, console, stop)
    finally:
      for line in lines:
        line.close()

  def _apart(self, tree):
    """A tree with a leading axis of the searches, as one for each of them."""
    tree = jax.device_get(tree)
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(len(self.runs))]

  def write(self, now, pace, runs, console) -> list[dict]:
    """Writes the results into the run folders; returns them."""
    share = pace and loop.Pace(pace.seconds / len(runs), pace.bytes)
    results = []
    for run, place, own, each in zip(self.runs, self.places, runs, self._apart(now.each), strict=True):
      if runfolder.finished(place, run.config):  # before a kill
        continue
      results.append(outcome.write(place, run, jax.tree.map(jnp.asarray, each), share, own.command))
      for line in outcome.summary(results[-1], place, run.space):
        console.say(line)
    return results
