"""A method's step as a pure function of (state, batch, key), and the stages that a search has.

How many steps there are is no constant of the step's program: a search that is made shorter compiles nothing anew.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vimnas_jax.methods import Batch, Clock, Method, Problem, Step, updates
from vimnas_jax.methods.random import one_hot
from vimnas_jax.networks import initial, leaves
from vimnas_jax.runs import optim, parallel
from vimnas_jax.runs.state import SearchState
from vimnas_jax.spaces import Space

DEAD = 1e-6  # a row of logits whose spread is below this has no gradient that tells its operations apart


@dataclasses.dataclass(frozen=True)
class Plan:
  """The fixed facts of a run: its lengths in steps, how theta is pretrained, in how many parts a batch goes, and
  whether every device normalises its own images.
  """

  pretrain_steps: int
  search_steps: int
  pretrain_sampling: str
  parts: int = 1
  per_epoch: int = 1
  per_device: bool = False

  @property
  def steps(self) -> int:
    """Steps in all."""
    return self.pretrain_steps + self.search_steps

  def clock(self, step) -> Clock:
    """The method's clock after `step` steps of the run; it stands at 0 or below while theta is pretrained."""
    return Clock(step - self.pretrain_steps, self.search_steps, self.per_epoch)


class Lengths(NamedTuple):
  """What a step asks of the plan's lengths, in steps: numbers, or scalars int32 [] of its program.

  Attributes:
    pretrain: theta alone.
    search: the search.
    theta: the schedule of theta.
    phi: those in which phi moves.
  """

  pretrain: jax.Array | int
  search: jax.Array | int
  theta: jax.Array | int
  phi: jax.Array | int


def lengths(method: Method, plan: Plan) -> tuple[Lengths, ...]:
  """Those of a `plan`, for every depth. Phi moves in the method's own step, not in those before it.

  Of a supernet that grows every depth has both schedules for itself. An `update` that does not move both in every step
  has a function `moves(steps) -> (theta, phi)`: in how many of so many of its steps each of them moves; of one whose
  optimiser starts anew on the way, in how many from one start to the next.
  """
  depths = max(len(method.depths), 1)
  thetas, phis = [plan.pretrain_steps, *[0] * (depths - 1)], [0] * depths
  for stage in _stages(method, plan):
    theta, phi = stage.end - stage.start, 0
    if stage.step is method.step:
      theta, phi = getattr(stage.step.update, 'moves', lambda steps: (steps, steps))(theta)
    thetas[stage.depth] += theta
    phis[stage.depth] += phi
  return tuple(Lengths(plan.pretrain_steps, plan.search_steps, *both) for both in zip(thetas, phis))


class _Stage(NamedTuple):
  number: int
  start: int
  end: int
  step: Step
  depth: int


def _stages(method, plan) -> list[_Stage]:
  """Those of the search, in order, counted in steps from its start."""
  steps = [*((round(part * plan.search_steps), step) for part, step in method.before), (plan.search_steps, method.step)]
  depths = [round(part * plan.search_steps) for part, _ in method.depths] or [plan.search_steps]
  found, last = [], 0
  for i, end in enumerate(sorted({end for end, _ in steps} | set(depths))):
    if end > last:
      found.append(_Stage(i, last, end, next(step for until, step in steps if until >= end),
                          next(depth for depth, until in enumerate(depths) if until >= end)))
      last = end
  return found


@dataclasses.dataclass(frozen=True)
class Phase:
  """A stage of a run: its steps are alike and are one program.

  Attributes:
    name: 'pretrain', 'search_0' and so on for what a method does before its own step, and 'search'.
    end: the step after its last one.
    step: how it learns.
    after: as Method.after, or None.
    depth: which of Method.depths it belongs to, 0 where there are none.
    own: whether it is of the method's own step, in which phi moves.
  """

  name: str
  end: int
  step: Any
  after: Any = None
  depth: int = 0
  own: bool = False


def phases(method: Method, space: Space, plan: Plan) -> tuple[Phase, ...]:
  """The stages of a run in order: theta alone, where the plan has that, then what the method says.

  Two that have one `step` are one program.
  """

  def sample(phi, key, clock):
    weights, info = method.sample(phi, key, clock)  # of a searched graph the rows are wanted
    return {**weights, **pretrain_weights(plan.pretrain_sampling, space, key, method.samples)}, info

  last, found = max(len(method.depths) - 1, 0), []
  for stage in _stages(method, plan):
    whole = stage.step is method.step and stage.depth == last
    found.append(Phase('search' if whole else f'search_{stage.number}', plan.pretrain_steps + stage.end, stage.step,
                       method.after, stage.depth, stage.step is method.step))
  if not plan.pretrain_steps:
    return tuple(found)
  if found and found[0].step.after:
    joint = found[0].step.after(sample)
    return Phase('pretrain', plan.pretrain_steps, joint), dataclasses.replace(found[0], step=joint), *found[1:]
  return Phase('pretrain', plan.pretrain_steps, updates.theta_only(sample)), *found


def pretrain_weights(sampling: str, space: Space, key, samples: int):
  """Mixing weights {cell: [samples, edges, ops]} before phi takes part; see config.pretrain.sampling."""
  weights = {}
  for i, (name, cell) in enumerate(space.cells.items()):
    cell_key, shape = jax.random.fold_in(key, i), (samples, *cell.shape)
    if sampling == 'noise':
      weights[name] = jax.nn.softmax(initial.normal(cell_key, shape))
    elif sampling == 'uniform':
      weights[name] = jnp.full(shape, 1 / shape[-1])
    else:
      weights[name] = jax.vmap(lambda k, cell=cell: one_hot(k, cell.shape))(jax.random.split(cell_key, samples))
  return weights


def loss_of(net, method: Method, space: Space, per_device: bool = False) -> Callable[..., Any]:
  """`Problem.loss` of a supernet: `loss(theta, weights, key, images, labels) -> (loss, accuracy)`."""
  loss = _loss(net, method, space)
  return parallel.each_device(loss) if per_device else loss


def _loss(net, method, space):
  def forward(theta, images, weights, key):
    """Logits; group i of a method whose samples go separately is every so many-th image: every device has its share."""
    groups = []
    separate = max(map(len, jax.tree.leaves(weights))) if method.separate else 1  # a device may have a part of the rows
    for i in range(separate):
      noisy = space.noisy or method.options.dropout
      rngs = {'noise': jax.random.fold_in(key, len(space.cells) + i)} if noisy else None
      own = weights if separate == 1 else jax.tree.map(  # a graph's rows serve all
          lambda rows, i=i: rows[i:i + 1] if len(rows) > 1 else rows, weights)
      groups.append(net.apply({'params': theta}, images[i::separate], own, rngs=rngs))
    return groups[0] if separate == 1 else jnp.stack(groups, 1).reshape(len(images), -1)

  def loss(theta, weights, key, images, labels):
    logits = forward(theta, images, weights, key)
    return (optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(),
            (logits.argmax(-1) == labels).mean())

  return loss


class Optimisers(NamedTuple):
  """What moves theta and phi.

  Attributes:
    theta: the optimiser of theta.
    phi: that of phi['params'].
    unrolled: that of theta without clipping, for steps that are looked ahead.
    decayed: as Problem.decayed.
  """

  theta: optax.GradientTransformation
  phi: optax.GradientTransformation
  unrolled: optax.GradientTransformation
  decayed: Callable[..., optax.GradientTransformation]


def optimisers(config, method: Method, length: Lengths, per_epoch: int = 1) -> Optimisers:
  """Those of a search of such a length, as config.theta and config.phi say."""

  def theta(times=1.0, turns=1, clip=True):
    own = ConfigDict({**config.theta, 'weight_decay': times * config.theta.weight_decay})
    return optim.theta(own, length.theta if turns == 1 else -(-length.search // turns), per_epoch, clip=clip)

  return Optimisers(theta(), phi_optimiser(config, method, length.phi), theta(clip=False), theta)


def phi_optimiser(config, method: Method, steps: jax.Array | int) -> optax.GradientTransformation:
  """That of phi['params'], as config.phi says and the method makes of it, for the `steps` in which phi moves."""
  tx = optim.phi(config.phi, steps)
  if method.proximal:
    tx = optim.proximal(tx, optim.phi_rate(config.phi, steps), method.proximal)
  return method.optimizer(tx)


def search_steps(net, method: Method, space: Space, plan: Plan, tx: Callable[[Lengths], Optimisers], augment,
                 fresh=None, depth: int = 0) -> dict[str, Callable[..., Any]]:
  """The step of every phase of a `depth`, {its name: function}; see `search_step`. `fresh` is that of Problem."""
  def plain(*args):
    return loss_of(net.clone(kernels=False), method, space, plan.per_device)(*args)

  loss = loss_of(net, method, space, plan.per_device)

  def problem(length):
    own = tx(length)
    return Problem(space, loss, own.theta, own.phi, own.unrolled, plan.parts, plain, fresh, own.decayed)

  made = {}
  for phase in phases(method, space, plan):
    if phase.depth == depth:
      shared = (step for other, step in made.values() if other.step is phase.step and other.after is phase.after)
      made[phase.name] = phase, next(shared, None) or search_step(method, problem, plan, phase, augment)
  return {name: step for name, (_, step) in made.items()}


def search_step(method: Method, problem: Callable[[Lengths], Problem], plan: Plan, phase: Phase,
                augment) -> Callable[..., Any]:
  """Builds `step(state, batch, key, given=None) -> (state, metrics)`, a pure function.

  It is to be jitted with `state` donated. `given` is what `lengths` gives; None: those of `plan`.

  A batch is {'images': uint8 [n, h, w, c], 'labels': int32 [n]}; for a phase that validates also 'valid_images' and
  'valid_labels'. `augment(key, images)` gives float images. Metrics are scalars, and 'probs' {cell: [edges, ops]}, with
  methods that have them 'logs' and 'scores', and 'dead' {cell: bool [edges]} after the step.
  """

  def step(state: SearchState, batch, key, given=None):
    length = (given or lengths(method, plan))[phase.depth]
    now = dataclasses.replace(plan, pretrain_steps=length.pretrain, search_steps=length.search)
    xi_key, image_key, valid_xi_key, valid_image_key = jax.random.split(key, 4)
    batches = {'train': Batch(augment(image_key, batch['images']), batch['labels'], xi_key)}
    if 'valid' in phase.step.batches:
      batches['valid'] = Batch(augment(valid_image_key, batch['valid_images']), batch['valid_labels'], valid_xi_key)
    state, metrics = phase.step.update(method, problem(length), state, batches, now.clock(state.step))
    clock = now.clock(state.step + 1)
    if phase.after:
      state = state.replace(phi=phase.after(state.phi, clock))
    if method.stopped:
      metrics['stopped'] = method.stopped(state.phi).astype(jnp.float32)
    metrics |= {name: read(state.phi, clock) for name, read in (('logs', method.logs), ('scores', method.scores))
                if read}
    metrics |= {'norm_theta': leaves.norm(state.theta), 'norm_phi': leaves.norm(state.phi['params']),
                'probs': method.probs(state.phi, clock), 'dead': dead_rows(method, state.phi)}
    return state.replace(step=state.step + 1), metrics

  return step


def dead_rows(method: Method, phi):
  """{cell: bool [edges]}: edges for which phi puts out one value for all operations; {} for a method without phi."""
  outputs = method.outputs or method.logits
  return {name: jnp.ptp(rows, axis=-1) < DEAD for name, rows in outputs(phi).items()} if outputs else {}


def on_device(step, mesh_batch):
  """Wraps a step for data that lives on the device: `f(state, data, index) -> (state, metrics)`.

  `data` is {'images', 'labels', 'valid_images', 'valid_labels'}, whole sets, and may have 'lengths', as `lengths` gives
  them; `index` {'train': int32 [n], 'valid': int32 [n]} picks the batch. `mesh_batch` is the sharding of a batch.
  """

  def run(state, data, index):
    batch = {}
    for part, prefix in (('train', ''), ('valid', 'valid_')):
      if part in index:
        batch |= {prefix + kind: jax.lax.with_sharding_constraint(data[prefix + kind][index[part]], mesh_batch)
                  for kind in ('images', 'labels')}
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    with parallel.known(mesh_batch.mesh):
      return step(state, batch, key, data.get('lengths'))

  return run


def fed(step, mesh_batch):
  """Wraps a step for batches that come from the host: `f(state, data, batch) -> (state, metrics)`.

  `data` may have 'lengths', as `lengths` gives them; `mesh_batch` is the sharding of a batch, which it has already.
  """

  def run(state, data, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    with parallel.known(mesh_batch.mesh):
      return step(state, batch, key, data.get('lengths'))

  return run
