"""Who of a job of several processes is still there: a connection from everyone to process 0, open while the job lasts.

JAX's own service needs minutes to see that a process has died, and says neither which one nor where. The kernel closes
the connections of a process that dies, so the others know at once; a host that is cut off, or stands still, misses the
beats. Whoever learns of the end says why and ends its process, wherever its main thread waits. Messages are lines of
JSON over TCP, to the port after the coordinator's.
"""

import json
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from vimnas_jax.errors import UNFINISHED, UserError

BEAT = 2.0  # seconds between two beats
SLOW = 1.5  # a host is told as slow if its probe takes so many times the median
AGAIN = ('start all processes again with the same command, and they go on from the last checkpoint')


class Place(NamedTuple):
  """Where a process stands in a job: the address of process 0 as HOST:PORT, its own number, how many there are."""

  coordinator: str
  process: int
  processes: int

  @property
  def address(self) -> tuple[str, int]:
    """Host and port of the roll call."""
    host, _, port = self.coordinator.rpartition(':')
    return host, int(port) + 1


class _Peer:
  """A process at the other end of a connection."""

  def __init__(self, connection: socket.socket):
    self._file = connection.makefile('rw', encoding='utf-8', newline='\n')
    self._connection, self._writing = connection, threading.Lock()
    self.name, self.last, self.probe, self.over, self.told = 'a process', time.monotonic(), 0.0, False, set()

  def send(self, **message: Any) -> None:
    """Sends a message, if the connection is still there."""
    try:
      with self._writing:
        self._file.write(json.dumps(message) + '\n')
        self._file.flush()
    except (OSError, ValueError):
      pass

  def receive(self) -> dict | None:
    """The next message; None when the connection has ended."""
    try:
      line = self._file.readline()
      return json.loads(line) if line else None
    except (OSError, ValueError):
      return None

  def limit(self, seconds: float | None) -> None:
    """How long a `receive` may take."""
    self._connection.settimeout(seconds)

  def here(self) -> str:
    """This host's address, as the other end knows it."""
    return str(self._connection.getsockname()[0])


class RollCall:
  """One for every process; made when all have come, or raises UserError.

  Args:
    place: this process's.
    wait: seconds to wait for the others, and for one that does not answer.
    asked: what all must agree in, {name: value}, such as the fields of the configuration.
    say: says a line on the console.
  """

  def __init__(self, place: Place, wait: float, asked: dict[str, Any], say: Callable[[str], None]):
    self._place, self._wait, self._say = place, wait, say
    self._peers: dict[int, _Peer] = {}
    self._ending, self._over, self._probe = threading.Lock(), False, 0.0
    self._failed = 0  # the exit code with which this process is about to end, and has said why
    hello = {'process': place.process, 'host': socket.gethostname(), 'pid': os.getpid(), 'asked': asked}
    if place.process:
      self._arrive(hello)
    else:
      self._gather(hello)
    for peer in self._peers.values():
      peer.limit(None)
      threading.Thread(target=self._listen, args=(peer,), daemon=True).start()
    threading.Thread(target=self._beat, daemon=True).start()

  def _gather(self, hello):
    """Process 0 waits for all others."""
    until, count = time.monotonic() + self._wait, self._place.processes
    try:
      server = socket.create_server(('', self._place.address[1]))
    except OSError as e:
      raise UserError(f'--coordinator={self._place.coordinator}: port {self._place.address[1]}, the one after it, '
                      f'cannot be opened ({e.strerror}): give another') from None
    with server:
      while len(self._peers) < count - 1:
        server.settimeout(max(0.01, until - time.monotonic()))
        try:
          connection, _ = server.accept()
        except TimeoutError:
          missing = [str(i) for i in range(1, count) if i not in self._peers]
          raise self._refused(f'process {", ".join(missing)} of {count} did not come to {self._place.coordinator} '
                              f'within {self._wait:g} s: start every process, or lower --processes') from None
        peer = _Peer(connection)
        peer.limit(10)
        theirs = peer.receive() or {}
        number = theirs.get('process')
        if not isinstance(number, int) or not 0 < number < count:
          continue  # a stranger at the port, or a process that is gone again
        peer.name = f'process {number} on {theirs.get("host")} (pid {theirs.get("pid")})'
        if number in self._peers:
          raise self._refused(f'{peer.name} and {self._peers[number].name} have one number: give every process its own '
                              '--process')
        self._peers[number] = peer
        for name, value in hello['asked'].items():
          if (other := theirs.get('asked', {}).get(name)) != value:
            raise self._refused(f'{peer.name} has {name}={other!r}, process 0 has {value!r}: start all with one '
                                'command')
    for peer in self._peers.values():
      peer.send(go=True, name=f'process 0 on {hello["host"]} (pid {hello["pid"]})')

  def _refused(self, text: str) -> UserError:
    for peer in self._peers.values():
      peer.send(end=text, code=2)
    return UserError(text)

  def _arrive(self, hello):
    """Another process reports to process 0."""
    until, (host, port) = time.monotonic() + self._wait, self._place.address
    while True:
      try:
        peer = _Peer(socket.create_connection((host, port), timeout=max(0.1, min(5, until - time.monotonic()))))
        break
      except OSError as e:
        if time.monotonic() > until:
          raise UserError(f'no answer from process 0 at {host}:{port} within {self._wait:g} s ({e.strerror or e}): '
                          f'start it there with the same --coordinator, and open ports {port - 1} and {port}') from None
        time.sleep(0.2)
    peer.limit(self._wait + 30)
    peer.send(**hello)
    answer = peer.receive() or {'end': f'process 0 at {host}:{port} ended before all had come: {AGAIN}'}
    if 'end' in answer:
      raise UserError(str(answer['end']))
    peer.name = str(answer.get('name'))
    self._peers[0] = peer

  def _listen(self, peer):
    while (message := peer.receive()) is not None:
      peer.last, peer.probe = time.monotonic(), message.get('probe', peer.probe)
      if 'end' in message:
        self._end(message['end'], message['code'], tell=False)
      if 'bye' in message:
        peer.over = True
        if message['bye']:
          self._end(f'{peer.name} ended: {message["text"]}', message['bye'])
    if not peer.over and not self._over:
      self._end(f'{peer.name} is gone: {AGAIN}')

  def _beat(self):
    while not self._over:
      for peer in self._peers.values():
        peer.send(probe=self._probe)
      time.sleep(BEAT)
      for peer in self._peers.values():
        silent = time.monotonic() - peer.last
        if peer.over:
          continue
        if silent > self._wait:
          self._end(f'{peer.name} has not answered for {silent:.0f} s: {AGAIN}')
        if silent > max(2 * BEAT, self._wait / 4) and 'silent' not in peer.told:
          peer.told.add('silent')
          self._say(f'{peer.name} has not answered for {silent:.0f} s: waiting up to {self._wait:g} s')
      if not self._place.process:
        self._name_slow()

  def _name_slow(self):
    """Says once which hosts compute more slowly than the others."""
    probes = [self._probe, *(peer.probe for peer in self._peers.values())]
    if not all(probes):
      return
    middle = statistics.median_low(probes)
    for name, peer in (('process 0', None), *((peer.name, peer) for peer in self._peers.values())):
      took, told = (peer.probe, peer.told) if peer else (self._probe, self.__dict__.setdefault('_told', set()))
      if took > SLOW * middle and 'slow' not in told:
        told.add('slow')
        self._say(f'{name} computes {took / middle:.1f} times more slowly than the median of {len(probes)} processes: '
                  'every step waits for it')

  def here(self) -> str:
    """An address of this host at which the others reach it."""
    return next(iter(self._peers.values())).here()

  def report(self, seconds: float) -> None:
    """Tells the others how long this process took for what takes all equally long."""
    self._probe = seconds

  def _end(self, text: str, code: int = UNFINISHED, tell: bool = True) -> None:
    """Ends this process, telling why."""
    with self._ending:
      if self._failed:  # the others end because of it, not the other way round
        text, code, tell = '', self._failed, False
      if tell and not self._place.process:
        for peer in self._peers.values():
          peer.send(end=text, code=code)
      try:
        if text:
          print(f'{"error: " if code != UNFINISHED else ""}{text}', file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
      except (OSError, ValueError, AttributeError):
        pass
      os._exit(code)

  def wait_for_the_end(self, seconds: float = 10.0) -> None:
    """Gives the other threads time to learn why a computation failed: if a process is gone, this one ends here."""
    time.sleep(seconds)

  def close(self, code: int = 0, text: str = '') -> None:
    """Tells the others that this process ends as it should, or with an error that ends theirs too."""
    self._over, self._failed = self._over or not code, code
    for peer in self._peers.values():
      peer.send(bye=code, text=text)
