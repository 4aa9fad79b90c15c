"""Whether several devices find what one finds: whole searches of the handwritten digits, seed by seed.

  python -m benchmarks.agreement --out benchmarks/agreement.json

The devices are virtual ones of this machine's CPU. Where an edge ends with another operation, the margin is told by
which the first operation led the second on one device: a near tie, or not.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile


def main():
  """Prints a line for each seed and writes all as JSON."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--devices', type=int, default=4)
  parser.add_argument('--seeds', type=int, default=10)
  parser.add_argument('--epochs', type=float, default=0.0, help='0: those of the quickstart')
  parser.add_argument('--out', default='')
  args = parser.parse_args()
  os.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={args.devices}'
  import numpy as np

  import vimnas_jax
  from vimnas_jax import api
  from vimnas_jax.runs import runfolder
  api.compile_cache()
  record = {'command': f'python -m benchmarks.agreement {shlex.join(sys.argv[1:])}', 'devices': args.devices,
            'seeds': []}
  for seed in range(args.seeds):
    found = {}
    for devices in (1, args.devices):
      config = vimnas_jax.configure('quickstart', {'devices': devices, 'seed': seed})
      if args.epochs:
        config.epochs = args.epochs
      with tempfile.TemporaryDirectory() as folder:
        found[devices] = vimnas_jax.search(config, f'{folder}/run')
    one, many = found[1], found[args.devices]
    tipped = []
    for cell, rows in one['probs'].items():
      ours, theirs = np.array(rows), np.array(many['probs'][cell])
      for edge in np.flatnonzero(ours.argmax(1) != theirs.argmax(1)):
        second, first = np.sort(ours[edge])[-2:]
        tipped.append({'cell': cell, 'edge': int(edge), 'margin': round(float(first - second), 4)})
    record['seeds'].append({
        'seed': seed, 'same': one['genotype'] == many['genotype'], 'one_hot': [one['one_hot'], many['one_hot']],
        'largest_difference': round(max(float(np.abs(np.array(rows) - np.array(many['probs'][cell])).max())
                                        for cell, rows in one['probs'].items()), 6), 'tipped': tipped})
    print(json.dumps(record['seeds'][-1]), flush=True)
  same = sum(each['same'] for each in record['seeds'])
  record['same'] = same
  print(f'{same} of {args.seeds} seeds find the same architecture on 1 and {args.devices} devices')
  if args.out:
    with open(args.out, 'w', encoding='utf-8') as f:
      json.dump(record | runfolder.environment(), f, indent=1)


if __name__ == '__main__':
  main()
