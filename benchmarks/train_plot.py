"""What two runs of `benchmarks.train_network` say: a picture of both and result.json."""

import importlib.metadata
import json
import statistics

import numpy as np

from vimnas_jax import files
from vimnas_jax.draw.base import FAINT, INK, PALE, blank, save
from vimnas_jax.errors import UserError
from vimnas_jax.runs import metrics, runfolder

_LINES = {'ours': ('ours', '#1f5fa8', '-'), 'torch': ('PyTorch', '#f0a030', '--')}
FIRST = (1, 5, 10, 100)  # steps over which losses are compared
WINDOW = 0.25  # epochs over which the training loss is averaged


def smoothed(values, window: int):
  """Means of `window` values in a row, [len(values) - window + 1]."""
  return np.convolve(values, np.ones(window) / window, 'valid')


def differences(ours, theirs) -> dict:
  """Largest difference of the loss over the first so many steps: 'loss' absolute, 'relative' to ours."""
  a, b = ({row['step']: row['loss'] for row in rows} for rows in (ours, theirs))
  found = {}
  for count in FIRST:
    steps = [step for step in range(1, count + 1) if step in a and step in b]
    if len(steps) == count:
      found[f'first_{count}'] = {'loss': max(abs(a[s] - b[s]) for s in steps),
                                 'relative': max(abs(a[s] - b[s]) / abs(a[s]) for s in steps)}
  return found


def plot(out, command) -> int:
  """Draws out/curves.png and writes out/result.json of the forms that are in `out`. Raises UserError if none is."""
  rows = {form: metrics.read(out / form / 'metrics.jsonl') for form in _LINES}
  curves = {form: metrics.read(out / form / 'curve.jsonl') for form in _LINES}
  forms = [form for form in _LINES if rows[form]]
  if not forms:
    raise UserError(f'{out} holds no run: train with --form first')
  figure = blank(10, 3.8)
  loss, accuracy = figure.subplots(1, 2)
  figure.subplots_adjust(0.07, 0.14, 0.98, 0.96, 0.2)
  for form in forms:
    label, color, style = _LINES[form]
    steps = next((row['step'] / row['epoch'] for row in rows[form][::-1] if row['epoch']), 1)
    window = max(1, min(round(WINDOW * steps), len(rows[form]) // 4))
    loss.plot(smoothed([row['epoch'] for row in rows[form]], window),
              smoothed([row['loss'] for row in rows[form]], window), color=color, linestyle=style, linewidth=1.6,
              label=label)
    if curves[form]:
      accuracy.plot([row['epoch'] for row in curves[form]], [row['top1'] for row in curves[form]], color=color,
                    linestyle=style, linewidth=1.6, marker='.', label=label)
  for axes, name in ((loss, f'training loss, mean of {WINDOW} epochs'), (accuracy, 'test accuracy, %')):
    axes.set_xlabel('epoch', color=INK)
    axes.set_ylabel(name, color=INK)
    axes.grid(True, color=PALE)
    axes.spines[:].set_color(FAINT)
    axes.tick_params(labelsize=9, labelcolor=INK, color=FAINT)
  loss.legend(frameon=False, labelcolor=INK)
  save(figure, out / 'curves.png')
  result = {'command': command, **runfolder.environment()}
  if 'torch' in forms:
    result['versions']['torch'] = importlib.metadata.version('torch')
  result['forms'] = {form: _facts(out / form, rows[form], curves[form]) for form in forms}
  result['first_steps'] = differences(rows['ours'], rows['torch'])
  if all(curves.values()):
    steps = sorted({row['step'] for row in curves['ours']} & {row['step'] for row in curves['torch']})
    tops = [{row['step']: row['top1'] for row in curves[form]} for form in _LINES]
    result['test_top1'] = [{'step': step, 'ours': round(tops[0][step], 4), 'torch': round(tops[1][step], 4)}
                           for step in steps]
  files.write_json(out / 'result.json', result)
  for form, facts in result['forms'].items():
    print(f'{form:<6} {facts["steps"]} steps, {facts["seconds_per_step"]:.4g} s a step (median), test accuracy '
          + (f'{facts["test_top1"]:.2f} %' if curves[form] else 'not measured yet'))
  for name, found in result['first_steps'].items():
    print(f'{name.replace("_", " ")} steps: losses differ by at most {found["loss"]:.1e}')
  return 0


def _facts(folder, rows, curve) -> dict:
  """Of one run: how far it is, its seconds, its last accuracies, and its own config and result."""
  seconds = [row['seconds'] for row in rows]
  held = json.loads((folder / 'config.json').read_text())
  facts = {'steps': rows[-1]['step'], 'seconds_of_steps': round(sum(seconds), 1),
           'seconds_per_step': statistics.median(seconds),
           'last_100_losses': statistics.fmean(row['loss'] for row in rows[-100:]),
           'test_top1': curve[-1]['top1'] if curve else None, 'test_top5': curve[-1]['top5'] if curve else None,
           'test_loss': curve[-1]['loss'] if curve else None, 'config': held['config'],
           'started_at': held.get('git'), 'machine': held.get('machine')}
  path = folder / 'result.json'
  return facts | ({'command': json.loads(path.read_text())['command']} if path.exists() else {})
