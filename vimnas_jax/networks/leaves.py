"""What is done to all arrays of a tree at once. On a CPU one kernel does it: XLA would compile a program for each."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from vimnas_jax import cpu


def split(arrays: Sequence[jax.Array], counts: Sequence[Sequence[int]], fast: bool = True) -> list[list[jax.Array]]:
  """`jax.lax.split(array, counts of it)` of every array.

  One operation gives all parts, so that their gradients are laid side by side, not each into zeros and summed.
  `fast`: whether the CPU's kernels may be used; they have no second derivative and no batching rule.
  """
  fused = _kernels(arrays) if fast and any(len(own) > 1 for own in counts) else None
  if fused:
    with jax.named_scope('kernels'):
      return fused.split(arrays, counts)
  return [jax.lax.split(a, own) if len(own) > 1 else [a] for a, own in zip(arrays, counts)]


def laid_out(arrays: Sequence[jax.Array], shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
  """The numbers of `arrays`, of one type, one array after the other, as arrays of `shapes`.

  Has no gradient on a CPU.
  """
  def plain(*arrays):
    whole = jnp.concatenate([a.ravel() for a in arrays])
    ends = itertools.accumulate(math.prod(shape) for shape in shapes)
    return [whole[end - math.prod(shape):end].reshape(shape) for shape, end in zip(shapes, ends)]

  fused = _kernels(arrays)
  if not fused:
    return plain(*arrays)
  poured = jax.custom_batching.custom_vmap(lambda *arrays: list(fused.laid_out(arrays, shapes)))

  @poured.def_vmap
  def poured_each(size, batched, *arrays):
    del size
    return jax.vmap(plain, [0 if own else None for own in batched])(*arrays), [True] * len(shapes)

  return poured(*arrays)


def zeros_like(tree):
  """A tree of zeros, of the shapes and types of `tree`. Has no gradient on a CPU."""
  arrays, form = jax.tree.flatten(tree)
  if not _kernels(arrays):
    return jax.tree.map(jnp.zeros_like, tree)
  whole = jnp.zeros(sum(a.size for a in arrays), arrays[0].dtype)
  return form.unflatten(laid_out([whole], [a.shape for a in arrays]))


def norm(tree) -> jax.Array:
  """Euclidean norm of all numbers of a tree. Has no gradient on a CPU."""
  leaves = jax.tree.leaves(tree)
  return _norm(leaves) if _kernels(leaves) else optax.tree.norm(tree)


@jax.custom_batching.custom_vmap
def _norm(leaves):
  return jnp.sqrt(_kernels(leaves).squares(leaves).sum())


@_norm.def_vmap
def _norms(size, batched, leaves):
  del size
  return jax.vmap(optax.tree.norm, ([0 if own else None for own in batched[0]],))(leaves), True


class Descent(NamedTuple):
  """A step of SGD with momentum: clip the gradient, add weight decay, then the update rule.

  Attributes:
    rate: of the step.
    momentum: part of the trace that is kept.
    decay: of the weights.
    nesterov: whether the gradient is taken where the momentum leads to.
    clip: largest norm of the gradient; 0 for none.
  """

  rate: jax.Array
  momentum: float
  decay: float
  nesterov: bool
  clip: float


def fits(tree) -> bool:
  """Whether `descended` takes the arrays of a tree."""
  return _kernels(jax.tree.leaves(tree)) is not None


def descended(step: Descent, params, grads, trace):
  """(params, trace) after a step of `Descent`, as optax has them to rounding: trees, which `fits`. Has no gradient."""
  leaves, form = jax.tree.flatten(params)
  size = norm(grads) if step.clip else jnp.ones((), leaves[0].dtype)
  over = ~(size < step.clip) if step.clip else False  # NaN is in every array then, as with optax
  numbers = [jnp.where(over, size, 1), jnp.where(over, step.clip, 1), step.decay, step.momentum,
             1.0 if step.nesterov else 0.0, step.momentum if step.nesterov else 1.0, step.rate]
  numbers = jnp.stack([jnp.asarray(x, leaves[0].dtype) for x in numbers])
  params, trace = _descended(numbers, leaves, jax.tree.leaves(grads), jax.tree.leaves(trace))
  return form.unflatten(params), form.unflatten(trace)


@jax.custom_batching.custom_vmap
def _descended(numbers, params, grads, trace):
  return _kernels(params).descended(numbers, params, grads, trace)


@_descended.def_vmap
def _descended_each(size, batched, numbers, params, grads, trace):
  del size
  axes = jax.tree.map(lambda own: 0 if own else None, tuple(batched))
  out = jax.vmap(_plain, axes)(numbers, params, grads, trace)
  return out, jax.tree.map(lambda _: True, out)


def _plain(numbers, params, grads, trace):
  """What the kernel does, by XLA."""
  divisor, factor, decay, momentum, own, traced, rate = numbers

  def one(p, g, t):
    g = g / divisor * factor + decay * p
    t = g + momentum * t
    return p - rate * (own * g + traced * t), t

  both = [one(*each) for each in zip(params, grads, trace)]
  return [p for p, _ in both], [t for _, t in both]


def _kernels(arrays):
  """The CPU's kernels, or None where they do not take these arrays."""
  fused = cpu.leaf_kernels() if len(arrays) else None
  return fused if fused and fused.fits(arrays) else None
