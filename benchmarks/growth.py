"""How time and memory of a search step grow with batch, width, cells and image side.

  python -m benchmarks.growth --space nb201 --out benchmarks/growth_nb201

One fresh process per point; writes OUT.json and OUT.png, with the exponent of a power law fitted to each curve.
"""

import argparse
import json
import shlex
import statistics
import sys
import tempfile

import numpy as np

from benchmarks import step as benchmark

RANGES = {'batch': (16, 32, 64, 128, 256), 'channels': (8, 16, 32, 64), 'side': (16, 32, 64)}
CELLS = {'darts': (4, 8, 14, 20), 'nb201': (1, 2, 5, 10)}
BASE = {'batch': 64, 'channels': 16, 'side': 32}


def main():
  """Measures every point, prints it, and draws the curves."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--space', default='nb201', choices=tuple(CELLS))
  parser.add_argument('--steps', type=int, default=3)
  parser.add_argument('--only', default='', help='axes to measure, separated by commas; default: all')
  parser.add_argument('--out', required=True)
  args = parser.parse_args()
  base = BASE | {'cells': 5 if args.space == 'nb201' else 8}
  axes = RANGES | {'cells': CELLS[args.space]}
  known, curves = {}, {}
  with tempfile.TemporaryDirectory() as cache:
    for axis in args.only.split(',') if args.only else axes:
      curves[axis] = []
      for value in axes[axis]:
        point = base | {axis: value}
        key = json.dumps(point, sort_keys=True)
        if key not in known:  # equal points are measured once
          flags = [f'--{name}={number}' for name, number in point.items()]
          spec = benchmark.parse([f'--space={args.space}', f'--steps={args.steps}', f'--out={args.out}', *flags])
          found = benchmark.measure(spec, 0, 'fused', cache)
          known[key] = {'seconds': statistics.median(found['step_s']), 'gib': found['xla_temp_bytes'] / 2 ** 30,
                        **found}
        record = known[key]
        curves[axis].append({axis: value, **record})
        print(axis, value, f'{record["seconds"]:.3f} s', f'{record["gib"]:.2f} GiB', flush=True)
        save(args, curves)


def exponent(x, y) -> float:
  """The b of y = a * x ** b, by least squares on logarithms."""
  return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def save(args, curves):
  """Writes OUT.json and OUT.png."""
  fits = {axis: {what: round(exponent([p[axis] for p in points], [p[what] for p in points]), 2)
                 for what in ('seconds', 'gib')} for axis, points in curves.items() if len(points) > 1}
  with open(f'{args.out}.json', 'w', encoding='utf-8') as f:
    json.dump({'command': 'python -m benchmarks.growth ' + shlex.join(sys.argv[1:]), 'exponents': fits,
               'curves': curves}, f, indent=1)
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot as plt
  figure, rows = plt.subplots(2, max(len(curves), 1), figsize=(3 * max(len(curves), 1), 5), squeeze=False)
  for column, (axis, points) in enumerate(curves.items()):
    for row, (what, label) in enumerate((('seconds', 's per step'), ('gib', 'GiB of buffers'))):
      ax = rows[row][column]
      ax.loglog([p[axis] for p in points], [p[what] for p in points], 'o-')
      ax.set_xlabel(axis)
      ax.set_ylabel(label)
      if axis in fits:
        ax.set_title(f'exponent {fits[axis][what]:.2f}', fontsize=9)
  figure.tight_layout()
  figure.savefig(f'{args.out}.png', dpi=110)
  plt.close(figure)


if __name__ == '__main__':
  main()
