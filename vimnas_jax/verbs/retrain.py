"""The retrain verb: an architecture in, a trained, evaluated and exported network out."""

import dataclasses
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vimnas_jax import cpu, data, files, spaces
from vimnas_jax.data import augment, loader
from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.networks import cost, genotypes, initial, leaves, ops
from vimnas_jax.networks.network import Network
from vimnas_jax.runs import budget, feed, loop, metrics, optim, parallel, runfolder, signals, state
from vimnas_jax.verbs import best, evaluate, told, trained


@flax.struct.dataclass
class TrainState:
  """All that a training carries.

  Attributes:
    step: steps done, int32 [].
    params: parameters of the network.
    stats: running statistics of BatchNorm.
    opt: optimiser state.
    key: root of all randomness within steps, uint32 [2].
  """

  step: jax.Array
  params: Any
  stats: Any
  opt: Any
  key: jax.Array


def retrain(config, workdir, command: str = '', loaded: data.Data | None = None,
            stop: signals.Stop | None = None) -> dict | None:
  """Trains the network of config.genotype from scratch, resuming what `workdir` holds; evaluates and exports it.

  Returns the result, which is also in workdir/result.json; None if a signal ended it early, all saved. Raises
  UserError on bad input and Diverged when the loss stops being finite.
  """
  console = metrics.Console()
  cpu.expect()
  with stop or signals.Stop() as stop, runfolder.opened(workdir) as folder:
    runfolder.check_vacant(folder)
    space = spaces.get(config.space.name)
    genotype = genotypes.resolve(config.genotype, space, genotypes.trusted(config))
    _same_architecture(folder, space, genotype)
    limit = budget.of(folder, config)
    loaded = data.get(runfolder.as_begun(folder, config).data) if loaded is None else loaded
    feed.check_alike(loaded)
    damaged = feed.Damaged(folder, config.data.max_corrupt, console.say)
    mesh = parallel.mesh(config.devices, config.batch_size)
    if limit:
      limit.told = console.say
    run = Training(limit.fitted() if limit else config, space, genotype, loaded, mesh, limit, damaged)
    run.abstract()  # traces the network: what does not fit is told now, before anything is written
    runfolder.write_config(folder, config, loaded.fingerprint(), genotypes.fingerprint(genotype), run.streams)
    files.write(folder / 'genotype.json', genotype.to_json() + '\n')
    told.data_set(folder, loaded, console, run.used)
    console.say(f'{space.write(genotype)} on {config.data.name}: {run.size.params:,} parameters, '
                f'{run.size.madds / 1e6:.2f} M multiply-adds, {run.total} steps of {config.batch_size}')
    try:
      result = loop.to_the_end(run, folder, console, stop,
                               lambda now, pace: trained.write(folder, run, now, pace, command, console))
    except budget.Shortened:
      run.take(limit.fitted())
      result = loop.to_the_end(run, folder, console, stop,
                               lambda now, pace: trained.write(folder, run, now, pace, command, console))
    for line in evaluate.summary(result, folder) if result else ():
      console.say(line)
    return result


def check(config, loaded: data.Data):
  """Raises UserError where the training of what a search on `loaded` finds cannot begin, whatever that is.

  `config` is that of the training, resolved; the network is traced, nothing is written.
  """
  space = spaces.get(config.space.name)
  rows = {name: np.ones(cell.shape) for name, cell in space.cells.items()}
  some = space.genotype(rows | {name: np.ones((1, count)) for name, count in space.choices.items()})
  try:
    Training(config, space, some, loaded, parallel.mesh(config.devices, config.batch_size)).abstract()
  except UserError as e:
    raise UserError(f'config.then=retrain: {e} (its own fields are set by config.then_changes)') from None


def _same_architecture(folder, space, genotype):
  if runfolder.architecture(folder) not in (None, dict(genotype.cells)):
    remedy = 'give another --workdir'
    if folder.name == 'retrain' and not runfolder.follows(folder.parent):
      remedy = f'move {files.printable(folder)} away, and the same command trains this one'
    raise UserError(f'{files.printable(folder / "genotype.json")} holds another architecture than config.genotype, '
                    f'which is {space.write(genotype)}: {remedy}')


class Training:
  """The parts of one training, and how it goes from a state to the end.

  `parts`, (train, valid), are images that a search has cut: trained on and evaluated on, in place of any others.
  """

  def __init__(self, config, space, genotype, loaded, mesh, limit=None, damaged=None, parts=None):
    self.limit = limit
    self.config, self.space, self.genotype, self.loaded, self.mesh = config, space, genotype, loaded, mesh
    if config.train_portion == 1:  # of all images: config.data.split says what a search validates with
      loaded = dataclasses.replace(loaded, search=None)
    self.train, valid = parts or data.halves(loaded, config.train_portion, config.data.limit, whole=True)
    if loaded.valid and config.train_portion < 1:
      raise UserError(f'config.train_portion={config.train_portion:g} and config.data.validation='
                      f'{config.data.validation:g} both set images apart: set config.train_portion=1')
    self.streams = isinstance(self.train, data.Streamed)
    self.damaged = damaged if self.streams else None
    whole = config.train_portion == 1 and not parts
    self.test, self.test_name = (loaded.test, 'test') if whole else (valid, 'valid')
    self.watched, self.watched_name = self.test, self.test_name
    self.used = {'training': self.train} if whole else {'training': self.train, 'validation': valid}
    if loaded.valid:
      self.watched, self.watched_name = data.limited(loaded.valid, config.data.limit, loaded.num_classes), 'valid'
      self.used['choosing'] = self.watched
    if len(self.train) < config.batch_size:
      raise UserError(f'config.batch_size={config.batch_size} exceeds the {len(self.train)} training images: lower it')
    self._prepare = augment.of(config.data, loaded)
    self.per_epoch = math.ceil(len(self.train) / config.batch_size)
    net = config.network
    spaces.check(space, net.cells, net.channels, (*ops.OPS, 'none', 'noise'))  # that of the search was checked there
    size = {'cells': net.cells, 'channels': net.channels, 'num_classes': loaded.num_classes}
    self.net = Network(space=space, genotype=genotype, **size, auxiliary=net.auxiliary > 0, imagenet=net.imagenet,
                       dtype=jnp.dtype(config.dtype), kernels=True)
    self.size = cost.count(space, genotype, **size, image_size=loaded.image_shape[:2],
                           in_channels=loaded.image_shape[-1], imagenet=net.imagenet)
    self.programs = {}
    self.take(config)
    self._create = jax.jit(self._init, out_shardings=parallel.replicated(mesh))
    self.step = jax.jit(self._step, donate_argnums=0, out_shardings=parallel.replicated(mesh))
    self.environment = runfolder.environment()

  def take(self, config):
    """Makes this the training of `config`, which differs in its epochs from that it was made with.

    Programs that are compiled are kept: the epochs are no constants of theirs.
    """
    self.config, self.total = config, round(config.epochs * self.per_epoch)

  def _tx(self, steps):
    return optim.theta(self.config.theta, steps, self.per_epoch)

  def _init(self, key):
    key, step_key = jax.random.split(jax.random.wrap_key_data(key))
    rngs = dict(zip(('params', 'drop_path', 'noise'), jax.random.split(key, 3), strict=True))
    images = jnp.zeros((2, *self.loaded.image_shape))
    variables = initial.from_one_draw(lambda: self.net.init(rngs, images, True), rngs['params'])
    params = variables['params']
    return TrainState(jnp.zeros((), jnp.int32), params, variables['batch_stats'], self._tx(self.total).init(params),
                      jax.random.key_data(step_key))

  def start(self):
    """The state at step 0; everything in it is a function of config.seed."""
    return self._create(state.root(self.config.seed))

  def abstract(self, step=0):
    """Shapes, types and placement of a state, after whatever `step`."""
    del step
    return loop.abstract(self._create, state.root(self.config.seed), self.mesh)

  def finished(self, now) -> bool:
    """Whether the state `now` is that of the end."""
    return int(now.step) >= self.total or (self.limit is not None and self.limit.ended(int(now.step)))

  def _step(self, state, held, index):
    """One step: `(state, data on the device, indices [n]) -> (state, metrics)`.

    Of images that are streamed, `index` is the batch itself, {'images', 'labels'}, and none are held. Held are also the
    plan's `steps`, int32 [], and `epochs`, float32 [].
    """
    c = self.config
    if self.streams:
      images, labels = index['images'], index['labels']
    else:
      mesh_batch = parallel.batch(self.mesh, len(index))
      images, labels = (jax.lax.with_sharding_constraint(held[kind][index], mesh_batch)
                        for kind in ('images', 'labels'))
    image_key, path_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(state.key),
                                                                         state.step), 3)
    images = self._prepare(image_key, images, held['aspects'][index] if 'aspects' in held else None)
    # the ramp of DARTS: constant within an epoch, 0 in the first
    part = (state.step // self.per_epoch) / jnp.maximum(held['epochs'], 1)
    rate = c.network.drop_path * part if c.network.drop_path else 0.0

    def loss_fn(params):
      out, changed = self.net.apply({'params': params, 'batch_stats': state.stats}, images, True, rate,
                                    rngs={'drop_path': path_key, 'noise': noise_key}, mutable=['batch_stats'])
      logits, second = out if c.network.auxiliary else (out, None)
      targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), c.label_smoothing)
      loss = optax.softmax_cross_entropy(logits, targets).mean()
      total = loss
      if second is not None:
        total = total + c.network.auxiliary * optax.softmax_cross_entropy(second, targets).mean()
      return total, (loss, (logits.argmax(-1) == labels).mean(), changed['batch_stats'])

    with parallel.known(self.mesh):
      (_, (loss, accuracy, stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    params, opt = updates.moved(self._tx(held['steps']), grads, state.params, state.opt)
    return TrainState(state.step + 1, params, stats, opt, state.key), {
        'loss': loss, 'accuracy': accuracy, 'grad_theta': leaves.norm(grads), 'norm_theta': leaves.norm(params),
        'norm_stats': leaves.norm(stats)}

  def order(self, epoch):
    """Batches of an epoch, `per_epoch` of int32 [n], the last of what is left: a function of (seed, epoch)."""
    key = jax.random.fold_in(jax.random.key(self.config.seed), 1 + epoch)
    drawn = np.asarray(jax.random.permutation(key, len(self.train)), np.int32)
    return np.split(drawn, range(self.config.batch_size, len(drawn), self.config.batch_size))

  def variables(self, state):
    """What the network is applied with."""
    return {'params': state.params, 'batch_stats': state.stats}

  def batches(self):
    """(what lies on the devices for all steps, `index(at)` of loop.Loop)."""
    held = {'steps': np.int32(self.total), 'epochs': np.float32(self.config.epochs)}
    whole = parallel.replicated(self.mesh)
    if self.streams:
      return parallel.put(held, whole), feed.Feed({'train': self.train}, self.order, self.per_epoch, self.total,
                                                  self.mesh, self.config, self.damaged)
    held |= {'images': self.train.images, 'labels': self.train.labels}
    if self.train.aspects is not None:
      held['aspects'] = self.train.aspects
    return parallel.put(held, whole), loop.batches(self.order, self.per_epoch, self.mesh)

  def advance(self, now, folder, saved, console, stop):
    """Takes `now` to the end or to a stop. Returns the state and the loop.Pace, or None."""
    first = int(now.step)
    if self.finished(now):
      return now, None
    held, index = self.batches()
    log = metrics.Lines(folder / 'metrics.jsonl', first, self.config.tensorboard)
    curve = metrics.Lines(folder / 'curve.jsonl', first)
    scores = evaluate.Scores(self.net, self.loaded, self.config.eval_batch, loader.workers(self.config.data),
                             self.damaged)
    kept = best.kept(folder) if self.loaded.valid else None

    every = max(1, round(self.config.eval_epochs * self.per_epoch))

    def note(at, values, seconds):
      log.write(step=at, epoch=round(at / self.per_epoch, 4), seconds=round(seconds, 4),
                **{k: float(v) for k, v in jax.device_get(values).items()})
      whole = at % self.per_epoch or self.per_epoch * self.config.batch_size <= len(self.train)
      few = 0 if whole else len(self.train) % self.config.batch_size  # the last batch of an epoch
      return f'accuracy {float(values["accuracy"]):.3f}' + (f' of {few} images' if few else '')

    def after(at, state):
      nonlocal kept
      found = scores.of(self.variables(state), self.watched)
      if self.loaded.valid:
        kept = best.offer(folder, kept, best.Kept(at, found.top1, found.loss), self.variables(state))
      curve.write(step=at, epoch=round(at / self.per_epoch, 4), top1=found.top1, top5=found.top5, loss=found.loss)
      console.say(f'step {at}/{self.total}  {self.watched_name} accuracy {found.top1:.2f} %')

    try:
      reached = loop.advance(loop.Loop(
          self.total, lambda at: self.step, held, index, note,
          self.config.log_steps, self.config.checkpoint_steps, 'lower config.theta.lr', self.config.checkpoint_minutes,
          after, every, budget=self.limit, beside=len(self.watched) / (3 * self.config.batch_size * every),
          rehearsal=self.config.dry_run, feeding=index.seconds if self.streams else None, programs=self.programs),
          now, saved, console, stop)  # an evaluation is a third of a step
      if self.damaged:
        self.damaged.gather()
      return reached
    finally:
      log.close()
      curve.close()
      if self.streams:
        index.close()
