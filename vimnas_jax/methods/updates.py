"""The few kinds of step that papers are made of; a method's file composes them.

  single_level        theta and phi descend the loss of one batch, from one backward pass (VIM-NAS, SNAS)
  bilevel             phi descends the loss of a validation batch, theta that of a training batch (DARTS, GDAS, ...)
  bilevel(unrolled=)  phi's gradient goes through a step of theta (DARTS, second order)
  theta_only          theta descends, phi stands still (pretraining, random search with weight sharing)

Each is `Step`, whose `update(method, problem, state, batches, clock)` is a pure function; types.py says what these are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vimnas_jax.errors import UserError
from vimnas_jax.methods.types import Batch, Clock, Info, Method, Phi, Problem, PyTree, Sample, State, Step, Update
from vimnas_jax.networks import leaves
from vimnas_jax.networks.mixing import Mixture, whole

UNROLLED = ('', 'exact', 'finite')
_RADIUS = 0.01  # DARTS: the length of the difference that stands for the second derivative


def in_parts(f: Callable[..., PyTree], parts: int) -> Callable[..., PyTree]:
  """`f(*fixed, images, labels)`, a tree of means over a batch, computed over `parts` equal parts in turn.

  Memory is that of one part. Every part sees the same `fixed`, hence the same xi. Part i takes every `parts`-th image,
  so that each device of a batch-sharded mesh holds an equal share of it.
  """
  if parts == 1:
    return f

  def averaged(*args):
    *fixed, images, labels = args
    batch = tuple(jnp.swapaxes(a.reshape(-1, parts, *a.shape[1:]), 0, 1) for a in (images, labels))
    shapes = jax.eval_shape(f, *fixed, *jax.tree.map(lambda a: a[0], batch))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, f(*fixed, *part)), None), zeros, batch)
    return jax.tree.map(lambda a: a / parts, total)

  return averaged


def objective(method: Method, problem: Problem, clock: Clock, sample: Sample | None = None,
              penalised: bool = True) -> Callable[..., tuple[jax.Array, tuple[jax.Array, jax.Array, Info]]]:
  """`f(theta, params, fixed, key, images, labels) -> (loss of phi, (loss, accuracy, info))` of a method at `clock`.

  `sample` stands for method.sample where it is given; without `penalised` the penalty is left out.
  """
  draw, penalty = sample or method.sample, method.penalty if penalised else None

  def f(theta, params, fixed, key, images, labels):
    phi: Phi = {'params': params, 'fixed': fixed}
    with jax.named_scope('phi'):
      weights, info = draw(phi, key, clock)
    loss, accuracy = problem.loss(theta, weights, key, images, labels)
    return loss + penalty(phi, weights, clock) if penalty else loss, (loss, accuracy, info)

  return f


@jax.named_scope('optimiser')
def moved(tx: optax.GradientTransformation, grads: PyTree, params: PyTree, opt: PyTree) -> tuple[PyTree, PyTree]:
  """(Parameters, optimiser state) after one step of `tx`, by its own `move` if it has one (runs.optim.Momentum)."""
  if hasattr(tx, 'move'):
    return tx.move(grads, params, opt)
  updates, opt = tx.update(grads, opt, params)
  return optax.apply_updates(params, updates), opt


def _of(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
  return batch.key, batch.images, batch.labels


def _report(found: tuple[jax.Array, jax.Array, Info], g_theta: PyTree, g_phi: PyTree = None) -> dict[str, Any]:
  loss, accuracy, info = found
  norms = {'grad_theta': leaves.norm(g_theta)} | ({} if g_phi is None else {'grad_phi': leaves.norm(g_phi)})
  return {'loss': loss, 'accuracy': accuracy, **norms, **info}


def validation_gradients(method: Method, problem: Problem, state: State, batches: Mapping[str, Batch], clock: Clock,
                         names: tuple[str, ...]) -> dict[str, PyTree]:
  """Gradients of the parts `names` of phi['params'] over the validation batch, theta as it is."""
  grad = in_parts(jax.grad(objective(method, problem, clock), 1, has_aux=True), problem.parts)
  found, _ = grad(state.theta, state.phi['params'], state.phi['fixed'], *_of(batches['valid']))
  return {name: found[name] for name in names}


def single_level(second: tuple[str, ...] = (), pretrain: Sample | None = None) -> Step:
  """Theta and phi descend the loss of the training batch, both gradients from one backward pass.

  Args:
    second: parts of phi['params'] for which a second pass follows, over the validation batch and the same theta.
    pretrain: mixing weights as `Method.sample` gives them, with which theta alone is trained while the clock stands
      below 0; or None.
  """

  def update(method, problem, state, batches, clock):
    searching = clock.step >= 0
    if pretrain:
      method = _switched(method, pretrain, searching)
    grad = in_parts(jax.value_and_grad(objective(method, problem, clock), (0, 1), has_aux=True), problem.parts)
    params, fixed = state.phi['params'], state.phi['fixed']
    (_, found), (g_theta, g_phi) = grad(state.theta, params, fixed, *_of(batches['train']))
    if second:
      g_phi = {**g_phi, **validation_gradients(method, problem, state, batches, clock, second)}
    theta, opt_theta = moved(problem.tx_theta, g_theta, state.theta, state.opt_theta)
    params, opt_phi = moved(problem.tx_phi, g_phi, params, state.opt_phi)
    if pretrain:
      params, opt_phi = jax.tree.map(lambda new, old: jnp.where(searching, new, old), (params, opt_phi),
                                     (state.phi['params'], state.opt_phi))
    return state.replace(theta=theta, phi={'params': params, 'fixed': fixed}, opt_theta=opt_theta,
                         opt_phi=opt_phi), _report(found, g_theta, g_phi)

  return Step(update, ('train', 'valid') if second else ('train',), beside=single_level,
              after=None if second else lambda sample: single_level(pretrain=sample))


def _switched(method: Method, pretrain: Sample, searching: jax.Array) -> Method:
  """The method, drawing by `pretrain` unless it is `searching`, a bool []."""

  def sample(phi, key, clock):
    weights, info = method.sample(phi, key, clock)
    others = pretrain(phi, key, clock)[0]
    return {name: _either(searching, own, others[name]) for name, own in weights.items()}, info

  own_penalty = method.penalty
  return method._replace(sample=sample, penalty=own_penalty and (
      lambda phi, weights, clock: jnp.where(searching, own_penalty(phi, weights, clock), 0.0)))


_MISSING = {'past': 1.0, 'shift': 0.0, 'skip': 0.0, 'dropout': 0.0}  # what a Mixture that does not say it has


def _either(searching: jax.Array, own: jax.Array | Mixture, other: jax.Array | Mixture) -> jax.Array | Mixture:
  """Mixing weights `own` when `searching`, else `other`, each with what a Mixture means where it says nothing."""
  if not isinstance(own, Mixture) and not isinstance(other, Mixture):
    return jnp.where(searching, own, other)
  one, two, more = whole(own), whole(other), {}
  for name, missing in _MISSING.items():
    a, b = getattr(one, name), getattr(two, name)
    if a is not None or b is not None:
      more[name] = jnp.where(searching, missing if a is None else a, missing if b is None else b)
  return Mixture(jnp.where(searching, one.ops, two.ops), **more)


def graph_beside(update: Update) -> Callable[[tuple[str, ...]], Step]:
  """`Step.beside` of an `update` that leaves phi['params'] as they are."""

  def beside(names):
    def both(method, problem, state, batches, clock):
      g_phi = {name: jax.tree.map(jnp.zeros_like, rows) for name, rows in state.phi['params'].items()}
      g_phi |= validation_gradients(method, problem, state, batches, clock, names)
      params, opt_phi = moved(problem.tx_phi, g_phi, state.phi['params'], state.opt_phi)
      after, metrics = update(method, problem, state, batches, clock)
      return after.replace(phi={**after.phi, 'params': params}, opt_phi=opt_phi), {
          **metrics, 'grad_phi': optax.tree.norm(g_phi)}

    return Step(both, ('train', 'valid'))

  return beside


def theta_only(sample: Sample | None = None) -> Step:
  """Theta descends the loss of the training batch; phi stands still. `sample` is used in place of the method's own."""

  def update(method, problem, state, batches, clock):
    f = objective(method, problem, clock, sample or method.sample_theta, penalised=False)
    grad = in_parts(jax.value_and_grad(f, has_aux=True), problem.parts)
    (_, found), g_theta = grad(state.theta, state.phi['params'], state.phi['fixed'], *_of(batches['train']))
    theta, opt_theta = moved(problem.tx_theta, g_theta, state.theta, state.opt_theta)
    return state.replace(theta=theta, opt_theta=opt_theta), _report(found, g_theta)

  return Step(update, ('train',), graph_beside(update))


def bilevel(phi_first: bool = True, unrolled: str = '') -> Step:
  """Phi descends the loss of the validation batch, theta that of the training batch, each with a draw of its own.

  Args:
    phi_first: whether phi moves before theta within a step.
    unrolled: '' leaves theta as it is in phi's gradient. Otherwise the gradient is that of the validation loss after a
      step of theta on the training batch (Liu, Simonyan and Yang, ICLR 2019, equation 6), by momentum SGD without
      clipping: 'exact' differentiates through that step, which takes second derivatives, hence a supernet without the
      CPU's kernels; 'finite' has a difference of two gradients for them (equation 8), as the authors' code.

  Raises:
    UserError: `unrolled` is another word.
  """
  if unrolled not in UNROLLED:
    raise UserError(f'unrolled={unrolled!r}: choose one of {", ".join(map(repr, UNROLLED))}')

  def move_phi(method, problem, state, batches, clock):
    f = objective(method, problem, clock)
    params, fixed = state.phi['params'], state.phi['fixed']
    if unrolled:
      g_phi = _unrolled(method, problem, state, batches, clock, f, exact=unrolled == 'exact')
    else:
      grad = in_parts(jax.grad(f, 1, has_aux=True), problem.parts)
      g_phi, _ = grad(state.theta, params, fixed, *_of(batches['valid']))
    params, opt_phi = moved(problem.tx_phi, g_phi, params, state.opt_phi)
    return state.replace(phi={'params': params, 'fixed': fixed}, opt_phi=opt_phi), g_phi

  def update(method, problem, state, batches, clock):
    if phi_first:
      state, g_phi = move_phi(method, problem, state, batches, clock)
    f = objective(method, problem, clock, method.sample_theta)
    grad = in_parts(jax.value_and_grad(f, has_aux=True), problem.parts)
    (_, found), g_theta = grad(state.theta, state.phi['params'], state.phi['fixed'], *_of(batches['train']))
    theta, opt_theta = moved(problem.tx_theta, g_theta, state.theta, state.opt_theta)
    state = state.replace(theta=theta, opt_theta=opt_theta)
    if not phi_first:
      state, g_phi = move_phi(method, problem, state, batches, clock)
    return state, _report(found, g_theta, g_phi)

  def beside(names):
    del names  # all of phi descends the validation loss already
    return bilevel(phi_first, unrolled)

  return Step(update, ('train', 'valid'), beside)


def _unrolled(method: Method, problem: Problem, state: State, batches: Mapping[str, Batch], clock: Clock,
              f: Callable[..., PyTree], exact: bool) -> PyTree:
  """The gradient of phi['params'] through one step of theta."""
  params, fixed = state.phi['params'], state.phi['fixed']
  train, valid = _of(batches['train']), _of(batches['valid'])
  inner = objective(method, problem, clock, penalised=False)
  inner_grad = in_parts(jax.grad(inner, (0, 1), has_aux=True), problem.parts)
  outer_grad = in_parts(jax.grad(f, (0, 1), has_aux=True), problem.parts)

  def after(g_theta):
    return moved(problem.tx_unrolled, g_theta, state.theta, state.opt_theta)[0]

  if exact:
    def loss(params):
      (g_theta, _), _ = inner_grad(state.theta, params, fixed, *train)
      return in_parts(f, problem.parts)(after(g_theta), params, fixed, *valid)[0]

    return jax.grad(loss)(params)
  (g_theta, _), _ = inner_grad(state.theta, params, fixed, *train)
  theta, pull = jax.vjp(after, g_theta)
  (g_after, g_phi), _ = outer_grad(theta, params, fixed, *valid)
  (way,) = pull(g_after)  # by how much the outer loss rises with theta's gradient
  length = _RADIUS / jnp.maximum(optax.tree.norm(way), 1e-30)

  def beside(distance):
    theta = jax.tree.map(lambda w, v: w + distance * v, state.theta, way)
    return inner_grad(theta, params, fixed, *train)[0][1]

  sides = beside(length), beside(-length)
  return jax.tree.map(lambda g, plus, minus: g + (plus - minus) / (2 * length), g_phi, *sides)
