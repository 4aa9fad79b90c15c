"""The lines that a search writes while it runs: metrics.jsonl, and arch.jsonl with the architecture's probabilities."""

import jax
import numpy as np

from vimnas_jax.runs import metrics, steps
from vimnas_jax.verbs import outcome


class Trace:
  """Both files of a search, and its warnings. Close it."""

  def __init__(self, run, folder, first: int, say):
    """`run` has space, method, config, plan and phase(at); `first` steps are behind it; `say` tells a line."""
    self._run, self._say, self._warned = run, say, set()
    self._log = metrics.Lines(folder / 'metrics.jsonl', first, run.config.tensorboard)
    self._arch = metrics.Lines(folder / 'arch.jsonl', first or -1)  # a fresh start writes its step 0 itself
    self._history = outcome.Unchanged(metrics.read(folder / 'arch.jsonl'), run.space)

  def architecture(self, at, probs, dead, scores=None, logs=None) -> float:
    """Writes the probabilities {cell: [edges, ops]} after `at` steps; returns their one-hotness."""
    space, probs = self._run.space, outcome.exact(probs, logs)
    genotype = space.genotype(scores or probs)
    hot = outcome.one_hotness(probs, space)
    rows = outcome.dead_edges(dead)
    for what, line in outcome.dead_warnings(rows, space, at, at <= self._run.plan.pretrain_steps):
      if what not in self._warned:
        self._warned.add(what)
        self._say(line)
    self._arch.write(step=at, one_hot=hot, entropy=outcome.entropy(probs, space),
                     genotype=space.write(genotype), unchanged=self._history.since(at, genotype), dead=rows,
                     probs={k: np.round(v.astype(float), 5).tolist() for k, v in probs.items()})
    return hot

  def start(self, now):
    """Writes the probabilities of the state `now` at step 0."""
    method, clock = self._run.method, self._run.plan.clock(0)
    probs, *more = jax.device_get((method.probs(now.phi, clock), steps.dead_rows(method, now.phi),
                                   *(read and read(now.phi, clock) for read in (method.scores, method.logs))))
    self.architecture(0, probs, *more)

  def note(self, at, values, seconds) -> str:
    """`note` of loop.Loop."""
    values = jax.device_get(values)
    hot = self.architecture(at, values.pop('probs'), values.pop('dead'), values.pop('scores', None),
                            values.pop('logs', None))
    self._log.write(step=at, stage=self._run.phase(at - 1).name, seconds=round(seconds, 4),
                    **{k: float(v) for k, v in values.items()})
    return f'accuracy {float(values["accuracy"]):.3f}  one-hot {hot:.3f}'

  def close(self):
    """Closes both files."""
    self._log.close()
    self._arch.close()
