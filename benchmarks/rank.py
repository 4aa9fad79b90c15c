"""Whether the accuracies that cells have inside the supernet rank them as full training does.

  python -m benchmarks.rank --config=configs/nb201_c10.py --config.data.dir=DIR --out=results/recipe/rank

Runs the search that the configuration describes and stops at several points to evaluate random cells, one-hot, on
validation images, with the weights as they are. Kendall's tau between these accuracies and NAS-Bench-201's validation
accuracies says whether a supernet of that age can rank; beside it the tau of parameters alone, and what the best cell
of the supernet's own ranking would be. Writes OUT/result.json.
"""

import pathlib
import shlex
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from scipy.stats import kendalltau

from vimnas_jax import config, data, files, spaces, tabular
from vimnas_jax.data import augment
from vimnas_jax.runs import metrics, runfolder
from vimnas_jax.verbs import search

_CONFIG = config_flags.DEFINE_config_file('config', None, 'As of vimnas_jax.main.')
_OUT = flags.DEFINE_string('out', None, 'The folder of result.json.')
_CELLS = flags.DEFINE_integer('cells', 300, 'Random cells to evaluate.')
_IMAGES = flags.DEFINE_integer('images', 512, 'Validation images, one batch.')
_POINTS = flags.DEFINE_integer('points', 4, 'Equal parts of the run, each followed by an evaluation.')


def main(argv):
  """Runs, prints a line for every point, writes the result."""
  begin = time.monotonic()
  c = config.resolve(_CONFIG.value)
  loaded, space = data.get(c.data), spaces.get(c.space.name)
  run = search.prepared(c, loaded, metrics.Console())
  ((name, cell),) = space.cells.items()
  (benchmark,) = tabular.of(space, c.oracle)
  table = benchmark.load(c.oracle, print)
  rng = np.random.default_rng(0)
  drawn = rng.integers(0, len(cell.ops[0]), (_CELLS.value, len(cell.edges)))
  answers = [table.query(space.genotype({name: np.eye(len(cell.ops[0]))[row]}))['cifar10'] for row in drawn]
  truth, params = (np.array([answer[kind] for answer in answers]) for kind in ('valid', 'params'))
  held = jax.device_put({'images': run.train.images, 'labels': run.train.labels})
  images = augment.augment(jax.random.key(0), jnp.asarray(run.valid.images[:_IMAGES.value]), mean=loaded.mean,
                           std=loaded.std, pad=0, flip=False, cutout=0)
  labels = jnp.asarray(run.valid.labels[:_IMAGES.value])

  @jax.jit
  def accuracy(theta, ops):
    weights = jax.nn.one_hot(ops, len(cell.ops[0]))[None]
    return (run.net.apply({'params': theta}, images, {name: weights}).argmax(-1) == labels).mean()

  now, rows = run.start(), []
  stops = [round(run.plan.steps * (i + 1) / _POINTS.value) for i in range(_POINTS.value)]
  for at in range(run.plan.steps):
    epoch, place = divmod(at, run.per_epoch)
    if place == 0:
      order = run.order(epoch)
    now, _ = run.step(at)(now, held, {part: jnp.asarray(order[part][place]) for part in run.phase(at).step.batches})
    if at + 1 in stops:
      found = np.array([float(accuracy(now.theta, jnp.asarray(row))) for row in drawn])
      best = int(found.argmax())
      rows.append({'step': at + 1, 'tau': float(kendalltau(found, truth).statistic),
                   'mean_accuracy': float(found.mean()), 'best_accuracy': float(found.max()),
                   'best_is': space.write(space.genotype({name: np.eye(len(cell.ops[0]))[drawn[best]]})),
                   'best_valid': float(truth[best]), 'accuracies': found.round(4).tolist()})
      print(f'step {at + 1}  tau {rows[-1]["tau"]:.3f}  best of {len(drawn)}: valid {rows[-1]["best_valid"]:.2f}',
            flush=True)
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  probs = jax.device_get(run.method.probs(now.phi, run.plan.clock(run.plan.steps)))
  files.write_json(out / 'result.json', {
      'command': 'python -m benchmarks.rank ' + shlex.join(argv[1:] or sys.argv[1:]),
      'seconds': time.monotonic() - begin, 'environment': runfolder.environment(), 'seed': c.seed,
      'genotype': space.write(space.genotype(probs)), 'tau_of_params': float(kendalltau(params, truth).statistic),
      'cells': [space.write(space.genotype({name: np.eye(len(cell.ops[0]))[row]})) for row in drawn],
      'valid': truth.tolist(), 'points': rows})


if __name__ == '__main__':
  app.run(main)
