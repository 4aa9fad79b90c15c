"""Data parallelism: the batch is split over the mesh's one axis, everything else is on every device."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vimnas_jax.errors import UserError


def mesh(devices: int, batch_size: int, parts: int = 1) -> Mesh:
  """A mesh over `devices` devices (0: all). Raises UserError where each of a batch's parts cannot be shared equally."""
  found = jax.devices()
  count = devices or len(found)
  if count > len(found):
    raise UserError(f'config.devices={devices}, but this machine has {len(found)}: lower it, or set 0 for all')
  if (used := len({device.process_index for device in found[:count]})) < jax.process_count():
    raise UserError(f'config.devices={devices}: the first {count} are those of {used} of {jax.process_count()} '
                    'processes, and none may be without: set 0 for all, or start fewer processes')
  if batch_size % (count * parts):
    over = f'{count} devices' + (f' times {parts} parts (config.accumulate, config.method.separate)' if parts > 1
                                 else '')
    raise UserError(f'config.batch_size={batch_size} does not divide over {over}: choose a multiple of '
                    f'{count * parts}, or set config.devices')
  return Mesh(np.array(found[:count]), ('data',), axis_types=(AxisType.Auto,))


def replicated(on: Mesh) -> NamedSharding:
  """Whole on every device."""
  return NamedSharding(on, PartitionSpec())


def batch(on: Mesh, images: int | None = None) -> NamedSharding:
  """The leading axis split over the devices; `images` that cannot be shared out equally are whole on each."""
  return replicated(on) if images and images % on.size else NamedSharding(on, PartitionSpec('data'))


def known(on: Mesh):
  """A context for tracing: what is computed inside may ask which devices share a batch (cpu/shards.py)."""
  return jax.sharding.use_abstract_mesh(on.abstract_mesh)


def check_rows(samples: int, devices: int) -> None:
  """Raises UserError unless each of so many devices can have its own of the `samples` rows of ξ, or all the one."""
  if samples > 1 and samples % devices:
    raise UserError(f"config.norm='device': {samples} rows of ξ do not go round {devices} devices: make "
                    'config.method.samples 1 or a multiple of the devices')


def each_device(loss):
  """`loss(theta, weights, key, images, labels)`, means over a batch, with every device running its own images alone.

  BatchNorm then sees those, so nothing is exchanged but the results. Of mixing weights with a row for every device, or
  several, each takes its own.
  """
  def shared(theta, weights, key, images, labels):
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
      return loss(theta, weights, key, images, labels)
    for x in jax.tree.leaves(weights):
      check_rows(len(x) if x.ndim else 1, mesh.size)
    axis, own, whole = mesh.axis_names, PartitionSpec(mesh.axis_names), PartitionSpec()

    def local(theta, weights, key, images, labels):
      found = loss(theta, weights, jax.random.fold_in(key, jax.lax.axis_index(axis)), images, labels)
      return jax.tree.map(lambda mean: jax.lax.pmean(mean, axis), found)

    rows = jax.tree.map(lambda x: own if x.ndim and len(x) > 1 else whole, weights)
    return jax.shard_map(local, mesh=mesh, in_specs=(whole, rows, whole, own, own), out_specs=whole,
                         check_vma=False)(theta, weights, key, images, labels)

  return shared


def put(tree, on: NamedSharding):
  """Arrays of the host, which every process has whole and alike, as arrays laid out so."""
  def place(x):
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, on, lambda index: x[index])

  return jax.tree.map(place, tree) if jax.process_count() > 1 else jax.device_put(tree, on)


def fed(tree, on: Mesh, images: int):
  """A batch of `images` in all, of which `tree` has this process's rows (`rows`), laid out over the devices."""
  where = batch(on, images)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(where, x, (images, *x.shape[1:])), tree)


def local(tree):
  """Arrays that lie whole on every device, as arrays of this process alone: what one process computes by itself."""
  return tree if jax.process_count() == 1 else jax.device_put(jax.device_get(tree), jax.local_devices()[0])


def rows(on: Mesh, images: int) -> slice:
  """Which of the `images` of a batch lie on this process's devices; all where the batch is whole on each."""
  index = batch(on, images).addressable_devices_indices_map((images,)).values()
  starts, ends = zip(*((part[0].start or 0, images if part[0].stop is None else part[0].stop) for part in index))
  return slice(min(starts), max(ends))
