"""A search with one seed, and the training that config.then asks for after it."""

import pathlib

from vimnas_jax import config as config_lib
from vimnas_jax.runs import budget, metrics, signals
from vimnas_jax.verbs import retrain, search

FOLDER = 'retrain'  # of the training, in the run folder of the search


def searched(asked, workdir, command: str = '', stop: signals.Stop | None = None, notes=()) -> dict | None:
  """Searches as `asked` says, then trains what it has found where config.then asks for it, in `workdir`/retrain.

  Each goes on from what its folder holds. Returns the result of the search, with that of the training as 'retrained';
  None if a signal ended either early, all saved. Raises UserError on bad input, before the search begins, and Diverged
  when a loss stops being finite.

  Args:
    asked: a configuration as its file made it, not yet resolved.
    workdir: the run folder.
    command: what result.json says of how it came about.
    stop: signals.Stop, or None.
    notes: lines that are said after those of the data.
  """
  following = config_lib.following(asked, asked.then_changes, workdir) if asked.then else None
  with stop or signals.Stop() as stop:
    result = search.search(config_lib.resolve(asked), workdir, command, stop=stop, notes=notes,
                           share=1.0 if following is None else budget.SEARCH, following=following)
    if result is None or following is None:
      return result
    if stop.ends(metrics.Console().say):
      return None
    trained = retrain.retrain(following, pathlib.Path(workdir).expanduser() / FOLDER, command, stop=stop)
    return trained and {**result, 'retrained': trained}
