"""Requests to stop: Ctrl-C, SIGTERM and SIGUSR1."""

import contextlib
import signal
import threading
from collections.abc import Callable

from vimnas_jax.errors import Stopped

# those that this system has: Windows lacks SIGUSR1
SIGNALS = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1', 'SIGINT') if hasattr(signal, name))


class Stop:
  """While it is entered, a signal raises Stopped, or, inside `noted()`, only sets `asked` for a loop to poll.

  In a thread other than the main one, and where `listens` is False, no signal is touched; who holds the object may set
  `asked` there. It may be entered again while it is entered: a command of several runs has one for all, so that what
  came in the last step of one is known before the next.
  """

  def __init__(self, listens: bool = True):
    self.asked = False
    self._listens = listens
    self._patient, self._before, self._entered = False, {}, 0

  def __enter__(self):
    self._entered += 1
    if self._entered == 1 and self._listens and threading.current_thread() is threading.main_thread():
      self._before = {s: signal.signal(s, self._note) for s in SIGNALS}
    return self

  def __exit__(self, *exc):
    self._entered -= 1
    if self._entered:
      return
    for s, handler in self._before.items():
      signal.signal(s, signal.SIG_DFL if handler is None else handler)  # None: it was set outside Python

  def _note(self, number, frame):
    del frame
    self.asked = True
    if not self._patient:
      raise Stopped(signal.Signals(number).name)

  def ends(self, say: Callable[[str], object]) -> bool:
    """Whether a signal has come before something that is still to do, which then is left; `say` is told so."""
    if self.asked:
      say('stopped, all saved: run the same command to go on')
    return self.asked

  @contextlib.contextmanager
  def noted(self):
    """Inside the block a signal does not interrupt."""
    self._patient = True
    try:
      yield
    finally:
      self._patient = False


def interruptible(function):
  """Calls `function()`, which may spend minutes outside Python, so that a signal gets through meanwhile.

  A signal leaves the call running: end the process without waiting for it (os._exit).
  """
  done = {}

  def call():
    try:
      done['value'] = function()
    except BaseException as e:  # handed on to the caller
      done['error'] = e

  thread = threading.Thread(target=call, daemon=True)
  thread.start()
  thread.join()
  if 'error' in done:
    raise done['error']
  return done['value']
