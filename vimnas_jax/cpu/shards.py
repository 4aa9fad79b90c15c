"""A batch on several devices: every device calls a kernel for its own images, instead of each for all.

XLA knows nothing of what a custom call does and would bring the whole batch to every device. Which devices share a
batch says the mesh at the place of tracing (jax.sharding.use_abstract_mesh); without one there is one device. Parts of
a batch (table.CHUNKS) are the same however many devices there are, as long as their number divides CHUNKS, and are
summed in the same order: so sums come out with the same bits.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from vimnas_jax.cpu.table import CHUNKS

BATCH, SAMPLES, WHOLE = 'batch', 'samples', 'whole'  # what the first axis of an argument is, if it is split


def devices(images: int, samples: int = 1) -> int:
  """How many devices share a batch of `images` whose mixing weights have `samples` rows; 1 if it cannot be shared."""
  mesh = jax.sharding.get_abstract_mesh()
  count = 1 if mesh.empty else mesh.size
  return count if images % math.lcm(count, samples) == 0 else 1


def parts(images: int, samples: int = 1) -> int:
  """In how many parts the sums over a batch come."""
  count = devices(images, samples)
  return count * max(1, min(-(-CHUNKS // count), images // count))


def spread(run, kinds, outputs, args):
  """`run(outputs, chunks, *args)` on every device for its own images.

  Args:
    run: `run(outputs, chunks, *args)` gives arrays of the shapes `outputs`, computed in so many parts.
    kinds: of every argument BATCH, SAMPLES (rows that serve equal groups of the batch in turn) or WHOLE.
    outputs: shapes for the whole batch; the first axis of each is the batch's, or its parts'.
    args: for the whole batch.
  """
  images = next(len(a) for a, kind in zip(args, kinds) if kind == BATCH)
  samples = [len(a) for a, kind in zip(args, kinds) if kind == SAMPLES]
  count, chunks = devices(images, math.lcm(*samples)), parts(images, math.lcm(*samples))
  if count == 1:
    return run(outputs, chunks, *args)
  mesh = jax.sharding.get_abstract_mesh()
  split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()

  def rows(a, kind):
    """Of samples at least one row for every device; one row alone is everyone's."""
    return jnp.repeat(a, math.lcm(count, len(a)) // len(a), 0) if kind == SAMPLES and len(a) > 1 else a

  args = [rows(a, kind) for a, kind in zip(args, kinds)]
  specs = [whole if kind == WHOLE or (kind == SAMPLES and len(a) == 1) else split for a, kind in zip(args, kinds)]
  local = [(shape[0] // count, *shape[1:]) for shape in outputs]
  return jax.shard_map(lambda *a: run(local, chunks // count, *a), mesh=mesh, in_specs=tuple(specs),
                       out_specs=[split] * len(outputs), check_vma=False)(*args)
