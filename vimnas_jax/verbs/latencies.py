"""How long operations and networks take on this device, measured once and kept: latency.json in the cache folder.

An operation is what the network of an architecture runs on an edge, BatchNorm included, for one image: compiled, called
often, the median, less that of a call that does nothing. A network's prediction is the sum of its operations and a
rest, stem, preprocessing, head and whatever is lost between: what the network of the quickest operations was measured
to take beyond the sum of those.
"""

import os
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from vimnas_jax import files, userfile
from vimnas_jax.networks import cost
from vimnas_jax.networks.network import Edge, Network
from vimnas_jax.runs import provenance
from vimnas_jax.spaces import Genotype, Space, within
from vimnas_jax.verbs import evaluate, export

FILE = 'latency.json'
_CALLS, _SECONDS = 30, 0.1  # of an operation: at least so many, for so long


def cache() -> pathlib.Path:
  """The file of this device's measurements, beside the programs that JAX keeps."""
  return files.cache() / FILE


def device() -> str:
  """What the measurements are of: the device, and on a CPU which and how many it may use."""
  first = jax.devices()[0]
  if first.platform != 'cpu':
    return first.device_kind
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  return f'{provenance.processor() or first.device_kind}, {cores} usable'


class Table:
  """Milliseconds by name: those that a run began with, those of the cache, and what is measured beside.

  Attributes:
    device: what they are of.
    used: those that were asked for.
  """

  def __init__(self, say, run: pathlib.Path | None = None):
    """`say` gets a line before something is measured; `run` is the latency.json of a run folder, which need not exist.

    Raises UserError where a file is damaged.
    """
    began = _read(run) if run and run.exists() else {}
    self._say, self._new, self.used = say, False, {}
    self.device = str(began.get('device', device()))
    stored = _read(cache()) if cache().exists() else {}
    self._rows = {name: row for name, row in stored.items() if isinstance(row, dict)}
    self._own = self._rows.setdefault(device(), {})
    self._known = {**_numbers(self._own), **_numbers(began.get('milliseconds'))}

  def milliseconds(self, name: str, measure) -> float:
    """That of `name`; `measure()` gives it where the file has none."""
    if name not in self._known:
      if not self._new:
        self._say(f'measuring how long operations take on this device ({device()}), once …')
      self._known[name] = self._own[name] = round(measure(), 6)
      self._new = True
    self.used[name] = self._known[name]
    return self._known[name]

  def save(self, run: pathlib.Path | None = None):
    """Writes what was measured into the cache, and all that was asked for into the file `run`.

    A cache that cannot be written stops nothing.
    """
    if self._new:
      self._new = False
      try:
        cache().parent.mkdir(parents=True, exist_ok=True)
        files.write_json(cache(), self._rows)
      except OSError as e:
        self._say(f'note: {files.printable(cache())} cannot be written ({e.strerror}): it is measured again next time')
    if run:
      files.write_json(run, {'device': self.device, 'milliseconds': self.used})


def _read(path) -> dict:
  return files.read_json(path, 'remove it: it is measured again')


def _numbers(rows) -> dict:
  return {name: float(ms) for name, ms in rows.items() if type(ms) in (int, float)} if isinstance(rows, dict) else {}


def rows(table: Table, space: Space, shares: cost.Shares, size: dict, image_shape) -> tuple[float, dict]:
  """(Milliseconds of what all architectures have, {cell: [edges, ops]}) of the network that `shares` are of.

  `size` has cells, channels, num_classes, imagenet and dtype, the name of a type.
  """
  found = {}
  for name, edges in shares.places.items():
    found[name] = np.array([[sum(_of(table, space, place, size['dtype']) for place in of) for of in edge]
                            for edge in edges])
  quickest = within.best(space, {name: np.ones(each.shape) for name, each in found.items()},
                         {name: each[..., None] for name, each in found.items()}, [np.inf])
  assert quickest is not None  # there is no limit
  name = f'network {_called(space)} {_told(size)} {tuple(image_shape)} {quickest.to_json()}'
  whole = table.milliseconds(name, lambda: measured(space, quickest, size, image_shape))
  return whole - of_genotype(space, quickest, found), found


def of_genotype(space: Space, genotype: Genotype, costs) -> float:
  """Sum of `costs` {cell: [edges, ops]} over what an architecture keeps."""
  return float(sum(costs[name][cell.edges.index((source, target))][
      cell.ops[cell.edges.index((source, target))].index(op)]
      for name, cell in space.cells.items() for op, source, target in genotype.cells[name]))


def measured(space: Space, genotype: Genotype, size: dict, image_shape) -> float:
  """Milliseconds of the network of `genotype` for one image, uint8 in and logits out, as after a retraining."""
  net = Network(space=space, genotype=genotype, **size | {'dtype': jnp.dtype(size['dtype'])}, kernels=True)
  rngs = dict(zip(('params', 'drop_path', 'noise'), jax.random.split(jax.random.key(0), 3)))
  shapes = jax.eval_shape(lambda: net.init(rngs, jnp.zeros((1, *image_shape)), True))
  model = export.Model(space, genotype, net, _filled(shapes), tuple(image_shape), (0.0,) * image_shape[-1],
                       (1.0,) * image_shape[-1], '', ())
  return evaluate.latency(model, 1)['milliseconds']


def _called(space) -> str:
  return userfile.fingerprint(space.name)[:16] if space.name.endswith('.py') else space.name


def _told(size: dict) -> dict:
  """`size` as it names a row: float32, which all were once, goes without saying."""
  return {field: value for field, value in size.items() if (field, value) != ('dtype', 'float32')}


def _of(table, space, place: cost.Place, dtype: str) -> float:
  if place.op in ('none', 'noise'):
    return 0.0
  own = f' of {_called(space)}' if place.op in space.own_ops else ''
  height, width = place.sides
  side = f'{height}' if height == width else f'{height}x{width}'
  name = f'{place.op}{own} channels={place.channels} side={side} stride={place.stride}'
  name += '' if dtype == 'float32' else f' {dtype}'
  return table.milliseconds(name, lambda: _operation(space, place, dtype))


def _operation(space, place, dtype) -> float:
  edge = Edge(op=place.op, stride=place.stride, own_ops=space.own_ops, dtype=jnp.dtype(dtype), kernels=True)
  x = jax.device_put(np.random.default_rng(0).normal(size=(1, *place.sides, place.channels))
                     .astype(dtype))
  variables = _filled(jax.eval_shape(lambda: edge.init(jax.random.key(0), x, True)))
  own = _median(jax.jit(lambda v, x: edge.apply(v, x, False)), variables, x)
  return max(own - _median(jax.jit(lambda v, x: x + 1), (), x), 0.0)


def _filled(shapes):
  return jax.device_put(jax.tree.map(lambda s: np.full(s.shape, 0.01, s.dtype), shapes))


def _median(call, *args) -> float:
  call(*args).block_until_ready()
  times, end = [], time.monotonic() + _SECONDS
  while len(times) < _CALLS or (time.monotonic() < end and len(times) < 1000):
    began = time.monotonic()
    call(*args).block_until_ready()
    times.append(time.monotonic() - began)
  return 1e3 * statistics.median(times)
