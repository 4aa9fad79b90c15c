"""The ways a run ends early on purpose."""


UNFINISHED = 75  # exit code of a run that a signal ended early, all saved: EX_TEMPFAIL, on which schedulers requeue


class UserError(Exception):
  """Bad input. The message is one line: the value, the place, the remedy. `main` exits with code 2."""


class Diverged(Exception):
  """The loss or the parameters stopped being finite. `main` exits with code 1."""


class Stopped(KeyboardInterrupt):
  """A signal came while there was nothing to save. `main` exits with UNFINISHED."""
