"""The table of benchmarks/gpu.sh: `python -m benchmarks.gpu OUT` reads what it left in OUT and prints Markdown."""

import json
import pathlib

from benchmarks.step import run
from vimnas_jax.errors import UserError

MIB = 2 ** 20


def _told(form: str, value: float | None) -> str:
  return '–' if value is None else format(value, form)


def _forms(out, name):
  path = out / f'{name}.json'
  return json.loads(path.read_text())['forms'] if path.exists() else {}


def steps(out: pathlib.Path) -> list[str]:
  """A row for every form of every step that was measured. Compiling is that of several side by side, on all cores."""
  rows = ['| step | form | s a step | peak GiB | compiling, s | as fast as PyTorch compiled, times |',
          '|---|---|---|---|---|---|']
  for path in sorted(out.glob('step_*.json')):
    name = path.stem.removeprefix('step_')
    cold, compiled = _forms(out, f'cold_{name}'), _forms(out, f'compiled_{name}')
    forms = {'ours' if form == 'fused' else 'PyTorch, as it is': figures
             for form, figures in _forms(out, path.stem).items()}
    if 'ours' in forms and 'fused' in cold:
      forms['ours']['cold_compile_s'] = cold['fused']['cold_compile_s']
    if compiled:
      forms['PyTorch, compiled'] = {**compiled['torch'], 'cold_compile_s': _forms(out, f'cold_torch_{name}').get(
          'torch', {}).get('cold_start_s')}
    for form, figures in forms.items():
      ratio = compiled['torch']['step_s'] / figures['step_s'] if compiled else None
      rows.append(f'| {name} | {form} | {figures["step_s"]:.4f} | {figures["peak_gib"]:.2f} | '
                  f'{_told(".1f", figures["cold_compile_s"])} | {_told(".2f", ratio)} |')
  return rows


def searches(out: pathlib.Path) -> list[str]:
  """A row for every search that was finished."""
  rows = ['| search | steps | s a step | minutes | MiB of a step | one-hotness | architecture |',
          '|---|---|---|---|---|---|---|']
  for path in sorted([*out.glob('*/result.json'), *out.glob('four_seeds/seed_*/result.json')]):
    found = json.loads(path.read_text())
    if found.get('task') == 'seeds' or not found.get('seconds_per_step'):
      continue
    size = found.get('bytes_per_step')
    architecture = found['genotype'].replace('|', '\\|')
    rows.append(f'| {path.parent.relative_to(out)} | {found["steps"]} | {found["seconds_per_step"]:.4f} | '
                f'{found["seconds_estimated"] / 60:.2f} | {_told(",.0f", size and size / MIB)} | '
                f'{found["one_hot"]:.3f} | `{architecture}` |')
  return rows


def main(argv) -> int:
  """Prints the page. Raises UserError where there is nothing."""
  if len(argv) != 1 or not (out := pathlib.Path(argv[0])).is_dir():
    raise UserError('python -m benchmarks.gpu OUT: a folder that benchmarks/gpu.sh has filled')
  device = (out / 'device.txt').read_text().strip() if (out / 'device.txt').exists() else 'unknown'
  tables = [table for table in (steps(out), searches(out)) if len(table) > 2]
  print('\n\n'.join([f'# {device}', *map('\n'.join, tables),
                     "A seed of four at once has a quarter of a step's time, and the memory of the whole."]))
  return 0


if __name__ == '__main__':
  run(main)
