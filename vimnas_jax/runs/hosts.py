"""A job of several processes, on one machine or many: how they find each other, and what only the first does.

All run the same program on their share of a batch. The first alone writes: the others' consoles are silent, and what
they would write into the run folder goes nowhere.
"""

import os
import time

import jax
import numpy as np
from jax._src.lib import _jax
from jax.experimental import multihost_utils

from vimnas_jax import files
from vimnas_jax.errors import UserError
from vimnas_jax.runs.rollcall import Place, RollCall

_CALL: RollCall | None = None  # of the job that this process belongs to
_ENVIRONMENT = {'coordinator': 'JAX_COORDINATOR_ADDRESS', 'process': 'JAX_PROCESS_ID', 'processes': 'JAX_NUM_PROCESSES'}


def place(coordinator: str | None, process: int | None, processes: int | None) -> Place | None:
  """This process's place, of the flags or the variables of _ENVIRONMENT; None for a job of one process.

  Raises UserError where only a part of it is given, or does not fit together.
  """
  given = {'coordinator': coordinator, 'process': process, 'processes': processes}
  for name, variable in _ENVIRONMENT.items():
    if given[name] is None and (text := os.environ.get(variable)):
      try:
        given[name] = text if name == 'coordinator' else int(text)
      except ValueError:
        raise UserError(f'{variable}={text!r} is no whole number: set it right, or give --{name}') from None
  if given['processes'] in (None, 1) and given['process'] in (None, 0):
    return None
  if missing := [name for name, value in given.items() if value is None]:
    raise UserError(f'of a job of several processes --{missing[0]} is missing: give --coordinator=HOST:PORT of process '
                    '0, --processes and --process to each')
  found = Place(**given)  # type: ignore[arg-type]  # none is None here
  host, _, port = found.coordinator.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 65535:
    raise UserError(f'--coordinator={found.coordinator!r}: give HOST:PORT, both as the other processes reach them, '
                    'with a port from 1 to 65534')
  if not 0 <= found.process < found.processes:
    raise UserError(f'--process={found.process} of --processes={found.processes}: give each a number of its own, from '
                    f'0 to {found.processes - 1}')
  return found


def join(where: Place, wait: float, asked: dict, say) -> None:
  """Brings the processes of a job together; call it before anything else of JAX.

  Args:
    where: this process's place.
    wait: seconds to wait for the others.
    asked: what all must agree in.
    say: says a line on the console.

  Raises:
    UserError: they do not come, cannot be reached or disagree.
  """
  global _CALL
  _CALL = RollCall(where, wait, asked, say)
  files.follow(where.process > 0)
  try:
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    _gloo_at(_CALL.here())
    jax.distributed.initialize(where.coordinator, where.processes, where.process, cluster_detection_method='deactivate',
                               initialization_timeout=int(wait), heartbeat_timeout_seconds=int(max(wait, 100)))
  except Exception as e:
    raise UserError(f'JAX could not join the processes at {where.coordinator} ({" ".join(str(e).split())[:200]}): is '
                    'the port free, and open to all hosts?') from None


def _gloo_at(address: str) -> None:
  """Has the CPUs' collectives at an address that the others reach.

  JAX would look up this host's name, of which in containers nobody knows, or only that it is 127.0.1.1.
  """
  make = _jax.make_gloo_tcp_collectives
  _jax.make_gloo_tcp_collectives = lambda **given: make(**{'hostname': address} | given)


def leave(code: int = 0, text: str = '') -> None:
  """Tells the other processes that this one ends; with a `code` other than 0 they end too, telling `text`."""
  if _CALL:
    _CALL.close(code, text)


def explain() -> None:
  """Of a computation that failed: if another process is gone, this one ends here, telling so."""
  if _CALL:
    _CALL.wait_for_the_end()


def report() -> None:
  """Measures this process's speed, so that a slow host is named."""
  if _CALL:
    _CALL.report(probe())


def first() -> bool:
  """Whether this process is the one that writes."""
  return not files.following()


def agreed(number: int) -> int:
  """What the first process says; all must ask."""
  return number if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int64(number)))


def gathered(text: str) -> list[str]:
  """What every process says, in their order; all must ask."""
  if jax.process_count() == 1:
    return [text]
  raw = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(len(raw)))
  padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
  padded[:len(raw)] = raw
  rows = np.asarray(multihost_utils.process_allgather(padded))
  return [row[:size].tobytes().decode() for row, size in zip(rows, sizes.tolist())]


def together(what: str) -> None:
  """Waits until all processes have come here, `what` for all the same."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


class Votes:
  """What any process asks for, known to all after the same step: numbers from 0, of which the largest counts.

  `placed` is an array that lies on the devices of all.
  """

  def __init__(self, placed):
    self._alone = jax.process_count() == 1
    if not self._alone:
      self._mesh, self._last = placed.sharding.mesh, None
      self._largest = jax.jit(lambda votes: votes.max(), out_shardings=placed.sharding)

  def cast(self, vote: int) -> int:
    """Gives this process's vote; returns the result: alone at once, else of the votes before these."""
    if self._alone:
      return vote
    rows = jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec(self._mesh.axis_names))
    mine = np.full(len(self._mesh.local_devices), vote, np.int32)
    before = self._last
    self._last = self._largest(jax.make_array_from_process_local_data(rows, mine, (self._mesh.size,)))
    return 0 if before is None else int(before)


def probe() -> float:
  """Seconds that this process takes for a product that takes alike machines equally long."""
  square = np.ones((512, 512), np.float32)
  product = jax.jit(lambda x: x @ x)
  x = jax.device_put(square, jax.local_devices()[0])
  product(x).block_until_ready()
  began = time.monotonic()
  for _ in range(5):
    x = product(x) * 0
  x.block_until_ready()
  return time.monotonic() - began
