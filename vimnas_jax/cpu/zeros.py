"""What a derivative leaves out: gradients that nobody asks for, of arguments that are not differentiated.

A pass for phi alone, as over a validation batch, needs no gradient of a kernel. Which arguments are differentiated JAX
tells a `jax.custom_vjp` that is defined with symbolic_zeros=True.
"""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero


def _is_primal(x):
  return isinstance(x, CustomVJPPrimal)


def perturbed(tree):
  """() where any array of `tree`, arguments of a forward rule, is differentiated, else None: a static note to keep."""
  told = [leaf.perturbed for leaf in jax.tree.leaves(tree, is_leaf=_is_primal) if _is_primal(leaf)]
  return () if any(told) or not told else None


def values(tree):
  """The arrays of arguments of a forward rule."""
  return jax.tree.map(lambda leaf: leaf.value if _is_primal(leaf) else leaf, tree, is_leaf=_is_primal)


def arrays(tree):
  """Gradients of outputs as arrays, those that nothing depends on among them."""
  def full(leaf):
    return jnp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, SymbolicZero) else leaf
  return jax.tree.map(full, tree, is_leaf=lambda leaf: isinstance(leaf, SymbolicZero))
