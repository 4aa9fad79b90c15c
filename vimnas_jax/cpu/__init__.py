"""Kernels for the CPU, as XLA custom calls: what XLA's own code does many times slower than the machine could.

This is their only door: the rest of the package asks here for the kernels that it has a use for, and gets None where
the plain form is to run: on another backend; where the environment variable VIMNAS_JAX_KERNELS is 0; without numba; or
with a jaxlib whose interface the kernels do not know. The variable is read once, when they are first asked for. Nothing
of numba or LLVM is imported before.
"""

import functools
import importlib.util
import os
import warnings

import jax


@functools.cache
def available() -> bool:
  """Whether the kernels run on this machine's CPU; warns, once, if something other than the user stands against it."""
  if os.environ.get('VIMNAS_JAX_KERNELS', '1') == '0':
    return False
  missing = [name for name in ('numba', 'llvmlite') if not importlib.util.find_spec(name)]
  if missing:
    reason = f'there is no {" and no ".join(missing)}'
  else:
    from vimnas_jax.cpu import library
    reason = library.unfit()
  if reason:
    warnings.warn(f'the plain form runs instead of the CPU kernels, several times slower: {reason}', RuntimeWarning,
                  stacklevel=3)
  return not reason


def run_here():
  """Has JAX run a CPU's programs in the thread that calls them; to be called before any device is asked for.

  In threads of its own glibc maps the memory of every step anew, gigabytes at times, however it is set: much of a
  step goes into clearing pages. What the main thread takes and gives back stays mapped (main.MALLOC).
  """
  jax.config.update('jax_cpu_enable_async_dispatch', False)


def supernet_kernels():
  """All operations of the edges that leave a node, mixed: bank.py, with `fits` and `mixed`."""
  if not _wanted():
    return None
  from vimnas_jax.cpu import bank
  return bank


def convolution_kernels():
  """A convolution with its own BatchNorm: normed.py, with `fits`, `fits_image`, `of_image`, `calls`, `trained` and
  `evaluated`.
  """
  if not _wanted():
    return None
  from vimnas_jax.cpu import normed
  return normed


def leaf_kernels():
  """Many small arrays in one call: leaves.py, with `fits`, `split`, `squares` and `descended`."""
  if not _wanted():
    return None
  from vimnas_jax.cpu import leaves
  return leaves


def oneshot_kernels():
  """A cell of the one-shot network: oneshot.py, with `mixed`; it fits what `convolution_kernels` fits."""
  if not _wanted():
    return None
  from vimnas_jax.cpu import oneshot
  return oneshot


def expect() -> bool:
  """Says that kernels will be needed: where none are kept yet, what compiles them beside this process starts now.

  Returns whether that is so: then what names them early is worth its time.
  """
  if not _wanted():
    return False
  from vimnas_jax.cpu import library
  return library.expect()


def foretelling():
  """A context in which what is traced only names its kernels, for the processes that `expect` has started."""
  from vimnas_jax.cpu import library
  return library.foretelling()


def needed() -> dict:
  """The kernels that this process has needed so far, as JSON, for `prepare`."""
  from vimnas_jax.cpu import library
  return library.needed()


def prepare(found: dict):
  """Has all that `needed` gave in another process ready for programs that were compiled there."""
  from vimnas_jax.cpu import library
  library.prepare(found)


def features() -> str:
  """What this machine's processor can do, in the compiler's words."""
  from vimnas_jax.cpu import table
  return table.FEATURES.flatten()


def _wanted():
  return jax.default_backend() == 'cpu' and available()
