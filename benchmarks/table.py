"""The table of README.md for this machine: a search step of every space, and a network's, next to PyTorch.

    pip install -r requirements-bench.txt
    python -m benchmarks.table --out DIR

Runs `benchmarks.step` for every space and `benchmarks.network` for two architectures, one after the other, twelve
minutes in all on two fast cores, and prints two tables in Markdown. What DIR holds already of these sources and this
machine is read and not measured again.
"""

import json
import pathlib

from benchmarks import network, step
from vimnas_jax.errors import UserError
from vimnas_jax.runs import provenance

SPACES = {'darts': 'DARTS space, 8 cells', 'nb201': 'NAS-Bench-201, N = 5', 's1': 'S1, 8 cells', 's2': 'S2', 's3': 'S3',
          's4': 'S4', 'oneshot1': 'NAS-Bench-1Shot1, space 1, 9 cells, batch 96'}
BEST = '|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|'
NETWORKS = {'darts': ('DARTS_V2, 8 cells', 'DARTS_V2'), 'nb201': ('NAS-Bench-201\'s best CIFAR-100 cell, N = 5', BEST)}


def of_step(label: str, found: dict) -> str:
  """A row of the first table, from what `benchmarks.step` wrote."""
  ours, torch, peak = found['forms']['fused'], found['torch_step_s'], found['torch_peak_gib']
  return (f'| {label} | {ours["step_s"]:.3f} | {torch / ours["step_s"]:.2f} x ({torch:.2f} s) | '
          f'{ours["warm_peak_gib"]:.2f} ({ours["peak_gib"]:.2f}) | {ours["warm_peak_gib"] / peak:.2f} '
          f'({ours["peak_gib"] / peak:.2f}) of {peak:.2f} | {ours["cold_compile_s"]:.0f} s | '
          f'{ours["warm_start_s"]:.1f} s |')


def of_network(label: str, found: dict) -> str:
  """A row of the second table, from what `benchmarks.network` wrote."""
  def figure(what, unit, scale):
    own = {form: measured['median'] * scale for form, measured in found['measures'][what].items()}
    best = min(value for form, value in own.items() if form != 'ours')
    return f'{_short(own["ours"])} of {_short(best)} {unit}, {best / own["ours"]:.2f} x'
  return (f'| {label} | {figure("step", "ms", 1e3)} | {figure("inference 64", "ms", 1e3)} | '
          f'{figure("memory of step", "GiB", 1)} |')


def _short(number):
  return f'{number:.0f}' if number >= 100 else f'{number:.3g}'


def measured(main, out: pathlib.Path, argv) -> dict:
  """What is in OUT.json, after `main(argv)` where it is not there. Raises UserError."""
  path = out.with_name(out.name + '.json')
  if not path.exists():
    main([*argv, '--out', str(out)])
  try:
    found = json.loads(path.read_text())
    same = (found['sources_sha256'], found['cpu']) == (step.sources(), provenance.machine())
  except (OSError, ValueError, KeyError):
    raise UserError(f'{path} cannot be read: remove it') from None
  if not same:
    raise UserError(f'{path} is of other sources or of another machine: remove it, or choose another --out')
  return found


def main(argv) -> int:
  """Measures what is missing and prints the tables. Returns the exit code."""
  parser = step.Parser(prog='python -m benchmarks.table', description=__doc__)
  parser.add_argument('--out', required=True, type=pathlib.Path, help='a folder')
  parser.add_argument('--rounds', type=int, default=2, help='of every measurement')
  args = parser.parse_args(argv)
  if args.rounds < 2:
    raise UserError(f'--rounds={args.rounds} must be at least 2: what a warm start takes is told by the second')
  rounds = str(args.rounds)
  steps, networks = [], []
  for name, label in SPACES.items():
    more = ['--batch', '96'] if name == 'oneshot1' else []
    steps.append(of_step(label, measured(step.main, args.out / f'step_{name}', [
        '--space', name, '--forms', 'fused,torch', '--rounds', rounds, '--steps', '3', *more])))
  for name, (label, genotype) in NETWORKS.items():
    networks.append(of_network(label, measured(network.main, args.out / f'network_{name}', [
        '--genotype', genotype, '--rounds', rounds, '--steps', '6', '--seconds', '2'])))
  print('\n| | s a step | against PyTorch | peak GiB, warm (compiling) | of PyTorch\'s | compiling | warm start |\n' +
        '|---' * 7 + '|')
  print('\n'.join(steps))
  print('\n| network | training step | 64 images | memory, training |\n|---|---|---|---|')
  print('\n'.join(networks))
  return 0


if __name__ == '__main__':
  step.run(main)
