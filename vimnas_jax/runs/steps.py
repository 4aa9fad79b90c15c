"""One pure step of a search."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vimnas_jax.methods import Method
from vimnas_jax.methods.random import one_hot
from vimnas_jax.runs.state import SearchState
from vimnas_jax.spaces import Space

DEAD = 1e-6  # a row of logits whose spread is below this has no gradient that tells its operations apart


@dataclasses.dataclass(frozen=True)
class Plan:
  """The fixed facts of a run: its lengths in steps, how theta is pretrained, and in how many parts a batch goes."""

  pretrain_steps: int
  search_steps: int
  pretrain_sampling: str
  parts: int = 1

  @property
  def steps(self) -> int:
    """Steps in all."""
    return self.pretrain_steps + self.search_steps


def pretrain_weights(sampling: str, space: Space, key, samples: int):
  """Mixing weights {cell: [samples, edges, ops]} before phi takes part; see config.pretrain.sampling."""
  weights = {}
  for i, (name, cell) in enumerate(space.cells.items()):
    cell_key, shape = jax.random.fold_in(key, i), (samples, *cell.shape)
    if sampling == 'noise':
      weights[name] = jax.nn.softmax(jax.random.normal(cell_key, shape))
    elif sampling == 'uniform':
      weights[name] = jnp.full(shape, 1 / shape[-1])
    else:
      weights[name] = jax.vmap(lambda k, cell=cell: one_hot(k, cell.shape))(jax.random.split(cell_key, samples))
  return weights


def in_parts(f, parts: int):
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


def search_step(net, method: Method, space: Space, plan: Plan, tx_theta, tx_phi, augment) -> Callable[..., Any]:
  """Builds `step(state, batch, key) -> (state, metrics)`, a pure function to be jitted with `state` donated.

  A batch is {'images': uint8 [n, h, w, c], 'labels': int32 [n]}; where `method.validates` also 'valid_images' and
  'valid_labels'. `augment(key, images)` gives float images. Metrics are scalars, and 'probs' {cell: [edges, ops]} and
  'dead' {cell: bool [edges]} after the step.

  A single-level method gets the gradients of theta and phi from one backward pass; for the parts of phi that
  `method.second` names a second pass follows, over the validation batch and the same theta.
  """
  separate = method.samples if method.separate else 1

  def at(step):
    return jnp.clip((step - plan.pretrain_steps) / max(plan.search_steps, 1), 0.0, 1.0)

  def forward(theta, images, weights, key):
    """Logits; group i of a method whose samples go separately is every so many-th image: every device has its share."""
    groups = []
    for i in range(separate):
      rngs = {'noise': jax.random.fold_in(key, len(space.cells) + i)} if space.noisy else None
      own = weights if separate == 1 else {name: rows[i:i + 1] if len(rows) > 1 else rows  # a graph's rows serve all
                                           for name, rows in weights.items()}
      groups.append(net.apply({'params': theta}, images[i::separate], own, rngs=rngs))
    return groups[0] if separate == 1 else jnp.stack(groups, 1).reshape(len(images), -1)

  def loss_fn(theta, params, fixed, step, key, images, labels):
    phi = {'params': params, 'fixed': fixed}
    searching, progress = step >= plan.pretrain_steps, at(step)
    with jax.named_scope('phi'):
      weights, info = method.sample(phi, key, progress)
    if plan.pretrain_steps:
      before = pretrain_weights(plan.pretrain_sampling, space, key, method.samples)
      weights |= {name: jnp.where(searching, weights[name], other) for name, other in before.items()}
    logits = forward(theta, images, weights, key)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    accuracy = (logits.argmax(-1) == labels).mean()
    return loss + jnp.where(searching, method.penalty(phi, weights), 0.0), (loss, accuracy, info)

  def step(state: SearchState, batch, key):
    fixed = state.phi['fixed']
    searching = state.step >= plan.pretrain_steps
    xi_key, image_key, valid_xi_key, valid_image_key = jax.random.split(key, 4)
    train = state.step, xi_key, augment(image_key, batch['images']), batch['labels']

    @jax.named_scope('optimiser')
    def move_theta(grads, theta, opt):
      updates, opt = tx_theta.update(grads, opt, theta)
      return optax.apply_updates(theta, updates), opt

    @jax.named_scope('optimiser')
    def move_phi(grads, params, opt):
      updates, new = tx_phi.update(grads, opt, params)
      moved = optax.apply_updates(params, updates), new
      return jax.tree.map(lambda a, b: jnp.where(searching, a, b), moved, (params, opt))

    theta, params, opt_theta, opt_phi = state.theta, state.phi['params'], state.opt_theta, state.opt_phi
    if method.validates:
      valid = state.step, valid_xi_key, augment(valid_image_key, batch['valid_images']), batch['valid_labels']
      grad_phi = in_parts(jax.grad(loss_fn, 1, has_aux=True), plan.parts)
    if method.bilevel:
      grad_theta = in_parts(jax.value_and_grad(loss_fn, 0, has_aux=True), plan.parts)
      if method.phi_first:
        g_phi, _ = grad_phi(theta, params, fixed, *valid)
        params, opt_phi = move_phi(g_phi, params, opt_phi)
      (_, (loss, accuracy, info)), g_theta = grad_theta(theta, params, fixed, *train)
      theta, opt_theta = move_theta(g_theta, theta, opt_theta)
      if not method.phi_first:
        g_phi, _ = grad_phi(theta, params, fixed, *valid)
        params, opt_phi = move_phi(g_phi, params, opt_phi)
    else:
      grad = in_parts(jax.value_and_grad(loss_fn, (0, 1), has_aux=True), plan.parts)
      (_, (loss, accuracy, info)), (g_theta, g_phi) = grad(theta, params, fixed, *train)
      if method.second:
        other, _ = grad_phi(theta, params, fixed, *valid)
        g_phi = {**g_phi, **{name: other[name] for name in method.second}}
      theta, opt_theta = move_theta(g_theta, theta, opt_theta)
      params, opt_phi = move_phi(g_phi, params, opt_phi)

    phi = {'params': params, 'fixed': fixed}
    metrics = {'loss': loss, 'accuracy': accuracy, 'grad_theta': optax.tree.norm(g_theta),
               'grad_phi': optax.tree.norm(g_phi), 'norm_theta': optax.tree.norm(theta),
               'norm_phi': optax.tree.norm(params), **info,
               'probs': method.probs(phi, at(state.step + 1)), 'dead': dead_rows(method, phi)}
    return SearchState(state.step + 1, theta, phi, opt_theta, opt_phi, state.key), metrics

  return step


def dead_rows(method: Method, phi):
  """{cell: bool [edges]}: edges for which phi puts out one value for all operations; {} for a method without phi."""
  outputs = method.outputs or method.logits
  return {name: jnp.ptp(rows, axis=-1) < DEAD for name, rows in outputs(phi).items()} if outputs else {}


def on_device(step, mesh_batch):
  """Wraps a step for data that lives on the device: `f(state, data, index) -> (state, metrics)`.

  `data` is {'images', 'labels', 'valid_images', 'valid_labels'}, whole sets; `index` {'train': int32 [n], 'valid':
  int32 [n]} picks the batch. `mesh_batch` is the sharding of a batch.
  """

  def run(state, data, index):
    batch = {}
    for part, prefix in (('train', ''), ('valid', 'valid_')):
      if part in index:
        batch |= {prefix + kind: jax.lax.with_sharding_constraint(data[prefix + kind][index[part]], mesh_batch)
                  for kind in ('images', 'labels')}
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    return step(state, batch, key)

  return run
