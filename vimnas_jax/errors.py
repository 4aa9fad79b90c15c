"""The two ways a run ends early on purpose."""


class UserError(Exception):
  """Bad input. The message is one line: the value, the place, the remedy. `main` exits with code 2."""


class Diverged(Exception):
  """The loss or the parameters stopped being finite. `main` exits with code 1."""
