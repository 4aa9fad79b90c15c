"""The ways a run ends early on purpose."""


class UserError(Exception):
  """Bad input. The message is one line: the value, the place, the remedy. `main` exits with code 2."""


class Diverged(Exception):
  """The loss or the parameters stopped being finite. `main` exits with code 1."""


class Stopped(KeyboardInterrupt):
  """A signal came while there was nothing to save. `main` exits with code 0."""
