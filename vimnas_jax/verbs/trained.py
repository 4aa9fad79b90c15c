"""What a training ended with: its export, the evaluation, the pictures, result.json and report.html."""

import jax

from vimnas_jax import data, draw, files
from vimnas_jax.runs import checkpoint, metrics
from vimnas_jax.verbs import best, evaluate, export, floor, pages


def write(folder, run, now, pace, command, console) -> dict:
  """Exports and evaluates the final state `now`, or the one that validation images chose; returns the result.

  `run` is a retrain.Training, `pace` what its steps took, a loop.Pace, or None.
  """
  kept, variables = best.read(folder) if best.kept(folder) else (None, jax.device_get(run.variables(now)))
  model = export.Model(run.space, run.genotype, run.net, variables, run.loaded.image_shape,
                       run.loaded.mean, run.loaded.std, run.config.data.name, run.loaded.class_names,
                       run.loaded.recipe, shrink=run.config.data.shrink)
  console.say('exporting …')
  export.write(folder / 'export', model)
  curve = metrics.read(folder / 'curve.jsonl')
  rows = metrics.read(folder / 'metrics.jsonl')
  draw.curves({'training batches': ([r['epoch'] for r in rows], [100 * r['accuracy'] for r in rows]),
               run.watched_name: ([r['epoch'] for r in curve], [r['top1'] for r in curve])}, folder / 'curve.png')
  for name in run.space.cells:
    draw.cell(run.genotype, name, run.space, folder / f'cell_{"normal" if name == "cell" else name}.png')
  measured, mistakes = evaluate.measure(model, run.test, run.test_name, folder, run.config, console, run.damaged)
  result = {
      'command': command, 'task': 'retrain', 'space': run.space.name, 'data': run.config.data.name,
      'genotype': run.space.write(run.genotype), 'seed': run.config.seed,
      'steps': int(now.step), 'planned_steps': run.total, 'epochs': run.config.epochs,
      'train_images': len(run.train), 'params': run.size.params, 'madds': run.size.madds,
      'seconds_per_step': pace and round(pace.seconds, 4), 'bytes_per_step': pace and pace.bytes,
      **measured, 'state_sha256': checkpoint.digest(now)}
  if run.limit:
    run.limit.save()
    result['budget'] = run.limit.facts()
  if kept:
    result['chosen'] = {'step': kept.step, 'valid_top1': round(kept.top1, 4), 'valid_loss': round(kept.loss, 6),
                        'valid_images': len(run.watched)}
  if data.own(run.loaded) and run.train.aspects is None and run.train.known and run.test.known:
    result['floor'] = floor.measure(run.loaded, run.train, run.test)
  result |= run.environment
  pages.network(folder, result, run.space, mistakes)
  files.write_json(folder / 'result.json', result)
  return result
