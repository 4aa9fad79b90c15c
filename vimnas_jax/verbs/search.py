"""The search verb: data and a configuration in, a run folder with an architecture out."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax import cpu, data, files, methods, spaces, tabular
from vimnas_jax.data import augment
from vimnas_jax.errors import UserError
from vimnas_jax.networks import cost, ops
from vimnas_jax.networks.oneshot import OneShot
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.runs import budget, feed, kept, loop, metrics, parallel, runfolder, signals, state, steps
from vimnas_jax.verbs import constraints, finalists, outcome, retrain, standing, subset, told, trace


def search(config, workdir, command: str = '', loaded: data.Data | None = None,
           stop: signals.Stop | None = None, notes=(),
           share: float = 1.0, following=None) -> dict | None:
  """Searches an architecture as the resolved `config` says, resuming what `workdir` holds.

  `loaded` is what data.get(config.data) gives, if it is at hand; `notes` are lines that are said after those of the
  data; `share` is the part of config.max_hours that is the search's; `following` is the configuration of the training
  of what is found, or None.
  Returns the result, which is also in workdir/result.json; None if a signal ended the run early, all saved.
  Raises UserError on bad input and Diverged when the loss stops being finite.
  """
  console = metrics.Console()
  cold = cpu.expect()
  with stop or signals.Stop() as stop, runfolder.opened(workdir) as folder:
    runfolder.check_vacant(folder)
    limit = budget.of(folder, config, share)
    loaded = data.get(runfolder.as_begun(folder, config).data) if loaded is None else loaded
    feed.check_alike(loaded)
    damaged = feed.Damaged(folder, config.data.max_corrupt, console.say)
    run = prepared(config, loaded, console, limit, damaged, subset.read(folder), folder)
    if cold:
      state.foretell(run.net, run.space, run.image_shape, run.method.samples)
    run.data = loaded.fingerprint()
    if following is not None and not (folder / 'config.json').exists() and (
        data.key(following.data) == data.key(config.data)):
      retrain.check(following, loaded)  # it is told before the search, not after
    if runfolder.check(folder, config, run.data):
      finalists.renew(folder, config, console)
    differ = runfolder.write_config(folder, config, run.data, streamed=run.streams)
    if differ and (folder / 'result.json').exists():
      console.say(f'note: config.{differ[0]} differs from what this finished run was asked, and is not asked again: '
                  'give it to a report of this run (config.task=report), or another --workdir')
    if run.constraint:
      run.constraint.save(folder)
    told.data_set(folder, loaded, console, {'training': run.train, 'validation': run.valid})
    for line in (*notes, *told.shortage(loaded, run.train, run.total)):
      console.say(line)
    if config.data.search_parts is not None:
      subset.write(folder, config, loaded, run.rows)
      console.say(f'of these {len(run.train):,} for the weights and {len(run.valid):,} for the architecture, drawn '
                  f'class by class: {files.printable(folder / subset.NAME)}')
    console.say(f'{config.method.name} on {config.space.name} with {config.data.name}: {len(run.train)} images, '
                f'{run.total} steps of {config.batch_size}, {run.weights:,} weights')
    try:
      result = loop.to_the_end(run, folder, console, stop,
                               lambda now, pace: outcome.write(folder, run, now, pace, command, console, stop))
    except budget.Shortened:
      run.take(limit.fitted())
      for line in told.shortage(loaded, run.train, run.total):
        console.say(line)
      result = loop.to_the_end(run, folder, console, stop,
                               lambda now, pace: outcome.write(folder, run, now, pace, command, console, stop))
    if limit:
      limit.save()
    for line in outcome.summary(result, folder, run.space) if result else ():
      console.say(line)
    return result


def prepared(config, loaded, console, limit=None, damaged=None, recorded=None, folder=None):
  """The parts of the search, with the epochs that fit into `limit`. Raises UserError for all that can be wrong with
  them: nothing has been written so far. `recorded` is what subset.read gives.
  """
  if limit:
    config, limit.told = limit.fitted(), console.say
  space = spaces.get(config.space.name)
  space = space.on_imagenet() if config.space.imagenet else space
  finalists.check(config)
  tabular.check(space, config.oracle, console.say)
  side = min(loaded.image_shape[:2])
  if side < space.min_size:
    raise UserError(f'config.data.name={config.data.name!r} has images of side {side}; space {space.name!r} needs at '
                    f'least {space.min_size}')
  spaces.check(space, config.space.cells, config.space.channels, (*ops.OPS, 'none', 'noise'))
  method = methods.get(config.method, space, config.phi.graph_lr,
                       config.phi.graph_weight_decay, config.phi.graph_noise, config.phi.graph_sets)
  if method.asks == 'benchmark':
    tabular.rater(space, config.oracle, config.data.name)
  constraint = constraints.of(config, space, loaded, console.say, folder and folder / constraints.LATENCIES)
  if constraint:
    method, note = constraint.applied(method)
    if note:
      console.say(note)
  mesh = parallel.mesh(config.devices, config.batch_size,
                       config.accumulate * (method.samples if method.separate else 1))
  if config.norm == 'device':
    parallel.check_rows(method.samples, mesh.size)
  if config.batch_size % (method.samples * config.accumulate):
    raise UserError(f'config.batch_size={config.batch_size} is no multiple of config.method.samples={method.samples} '
                    f'times config.accumulate={config.accumulate}')
  rows = subset.rows(config, loaded, recorded, console.say)
  run = _Run(config, space, method, loaded, mesh, limit, rows, damaged, constraint)
  share = (f'config.train_portion={config.train_portion}' if config.data.search_parts is None else
           f'config.data.search_parts={tuple(config.data.search_parts)}')
  for part, split in (('training', run.train), ('validation', run.valid if run.validates else run.train)):
    if len(split) < config.batch_size:
      raise UserError(f'config.batch_size={config.batch_size} exceeds the {len(split)} {part} images that '
                      f'{share} leaves of {config.data.name!r}: change one of them')
  if config.supernet_images:
    standing.check(config, run.valid)
  finalists.check_parts(run)
  run.abstract()  # traces the network: what does not fit is told now
  return run


class _Run:
  """The parts of one search, and how it goes from a state to the end."""

  def __init__(self, config, space, method, loaded, mesh, limit=None, rows=None, damaged=None, constraint=None):
    self.constraint, self.together = constraint, 1  # searches that share a program (together.py)
    self.data, self.loaded = '', loaded  # the fingerprint, where it is known
    self.config, self.space, self.method, self.mesh, self.limit = config, space, method, mesh, limit
    self.rows = rows
    self.train, self.valid = (data.halves(loaded, config.train_portion, config.data.limit) if rows is None else
                              map(loaded.train.take, rows))
    self.streams = isinstance(self.train, data.Streamed)
    self.damaged = damaged if self.streams else None
    self.image_shape, self.class_names = loaded.image_shape, loaded.class_names
    self.mean, self.std = loaded.mean, loaded.std
    self.per_epoch = len(self.train) // config.batch_size
    self.size = {'cells': config.space.cells, 'channels': config.space.channels, 'num_classes': loaded.num_classes,
                 'in_channels': loaded.image_shape[-1]}
    self._prepare = augment.of(config.data, loaded)
    self.phases, self.programs = (), {}
    self.take(config)
    self.environment = runfolder.environment()  # of the start: the checkout may move on while a run lasts

  def take(self, config):
    """Makes this the search of `config`, which differs in its epochs from that it was made with.

    Programs that are compiled are kept: their lengths are no constants.
    """
    method = self.method
    epochs = (config.pretrain.epochs, config.epochs) if method.trains else (0, 0)
    plan = steps.Plan(*(round(length * self.per_epoch) for length in epochs), config.pretrain.sampling,
                      config.accumulate, max(self.per_epoch, 1), config.norm == 'device')
    phases, before = steps.phases(method, self.space, plan), [phase.name for phase in self.phases]
    self.config, self.plan, self.total, self.phases = config, plan, plan.steps, phases
    if not before or [phase.name for phase in phases] != before:  # a stage of some steps may have none
      self._steps, self._starts, self.programs = {}, [], {}
      for depth, (_, more) in enumerate(method.depths or ((1.0, 0),)):
        self._add(depth, config.space.cells + more)

  def _add(self, depth, cells):
    """Adds the supernet of `cells`: its steps, and the state that it starts with."""
    config, space, method, mesh = self.config, self.space, self.method, self.mesh
    options = method.options
    self.weights = cost.supernet(space, **self.size | {'cells': cells}, partial=options.partial,
                                 auxiliary=options.auxiliary)
    form = OneShot if space.topology else Supernet
    self.net = net = form(space=space, cells=cells, channels=config.space.channels,
                          num_classes=self.size['num_classes'], dtype=jnp.dtype(config.dtype), remat=config.remat,
                          **options._asdict())
    per_epoch = self.plan.per_epoch
    programs = steps.search_steps(net, method, space, self.plan,
                                  lambda length: steps.optimisers(config, method, length, per_epoch), self._prepare,
                                  lambda key: state.weights(key, net, space, self.image_shape), depth)
    tx = steps.optimisers(config, method, steps.lengths(method, self.plan)[depth], per_epoch)
    whole, wrapped = parallel.replicated(mesh), steps.fed if self.streams else steps.on_device
    jitted = {step: jax.jit(wrapped(step, parallel.batch(mesh)), donate_argnums=0, out_shardings=whole)
              for step in programs.values()}
    self._steps |= {name: jitted[step] for name, step in programs.items()}
    start = state.grown if depth else state.create
    self._starts.append(jax.jit(lambda key_or_state: start(key_or_state, net, method, space, tx.theta, tx.phi,
                                                           self.image_shape), out_shardings=whole))

  @property
  def validates(self) -> bool:
    """Whether any phase takes batches of the validation half."""
    tries = self.method.derive is not None and self.method.asks == 'supernet'
    return tries or any('valid' in phase.step.batches for phase in self.phases)

  def phase(self, at) -> steps.Phase:
    """The stage that step `at` (from 0) belongs to."""
    return next(phase for phase in self.phases if at < phase.end)

  def _grown(self, at, now):
    """`now`, or where step `at` is the first of another supernet the state with which that starts."""
    before, depth = (self.phase(max(step, 0)).depth for step in (at - 1, at))
    return now if before == depth else self._starts[depth](now)

  def finished(self, now) -> bool:
    """Whether the state `now` is that of the end."""
    stopped = self.method.stopped
    if self.limit and self.limit.ended(int(now.step)):
      return True
    return int(now.step) >= self.total or (stopped is not None and bool(stopped(now.phi)))

  def step(self, at):
    """The jitted step `at`: `f(state, data, index) -> (state, metrics)`."""
    return self._steps[self.phase(at).name]

  def identity(self, at) -> str | None:
    """See loop.Loop; None where more than `kept` knows of decides what step `at` is."""
    if self.together > 1 or self.constraint or self.method.asks == 'benchmark' or not self.data:
      return None
    phase = self.phase(at)
    return kept.identity(self.config, phase.name, phase.depth, self.plan, self.size, self.data, self.mean, self.std)

  def start(self):
    """The state at step 0."""
    return self._starts[0](state.root(self.config.seed))

  def abstract(self, step=0):
    """Shapes, types and placement of the state after `step` steps."""
    shapes = loop.abstract(self._starts[0], state.root(self.config.seed), self.mesh)
    for start in self._starts[1:self.phase(step - 1).depth + 1] if step else ():
      shapes = loop.abstract(start, shapes, self.mesh)
    return shapes

  def order(self, epoch):
    """Batches of an epoch as indices {'train': int32 [per_epoch, n], 'valid': ...}: a function of (seed, epoch).

    What does not fill a batch is left out; it changes from epoch to epoch. The validation half repeats if it is the
    smaller one.
    """
    key = jax.random.fold_in(jax.random.key(self.config.seed), 1 + epoch)
    count, batches = self.per_epoch * self.config.batch_size, {}
    parts = {'train': self.train} | ({'valid': self.valid} if self.validates else {})
    for i, (part, split) in enumerate(parts.items()):
      part_key = jax.random.fold_in(key, i)
      drawn = [jax.random.permutation(jax.random.fold_in(part_key, turn), len(split))
               for turn in range(math.ceil(count / len(split)))]
      batches[part] = np.asarray(jnp.concatenate(drawn)[:count], np.int32).reshape(self.per_epoch, -1)
    return batches

  def batches(self, with_images=True):
    """(What lies on the devices for all steps, unless `with_images` is False; `index(at)` of loop.Loop)."""
    def parts(at):
      return self.phase(at).step.batches

    if self.streams:
      splits = {'train': self.train} | ({'valid': self.valid} if self.validates else {})
      return self._lengths(), feed.Feed(splits, self.order, self.per_epoch, self.total, self.mesh, self.config,
                                        self.damaged, parts)
    images = {'images': self.train.images, 'labels': self.train.labels} if with_images else {}
    if self.validates and with_images:
      images |= {'valid_images': self.valid.images, 'valid_labels': self.valid.labels}
    drawn = loop.batches(self.order, self.per_epoch, self.mesh)
    return parallel.put(images, parallel.replicated(self.mesh)) | self._lengths(), lambda at: drawn(at, parts(at))

  def _lengths(self):
    found = jax.tree.map(np.int32, steps.lengths(self.method, self.plan))
    return {'lengths': parallel.put(found, parallel.replicated(self.mesh))}

  def advance(self, now, folder, saved, console, stop):
    """Takes `now` to the end of the plan or to a stop. Returns the state and the loop.Pace, or None."""
    first = int(now.step)
    if self.finished(now):
      return now, None
    images, index = self.batches()
    lines = trace.Trace(self, folder, first, console.say)
    if first == 0:
      lines.start(now)
    try:
      reached = loop.advance(loop.Loop(self.plan.steps, self.step, images, index, lines.note, self.config.log_steps,
                                    self.config.checkpoint_steps, 'lower config.theta.lr or config.phi.lr',
                                    self.config.checkpoint_minutes, before=self._grown if self.method.depths else None,
                                    stopped=self.finished if self.method.stopped else None, budget=self.limit,
                                    rehearsal=self.config.dry_run, feeding=index.seconds if self.streams else None,
                                    programs=self.programs, identity=self.identity),
                          now, saved, console, stop)
      if self.damaged:
        self.damaged.gather()
      return reached
    finally:
      lines.close()
      if self.streams:
        index.close()
