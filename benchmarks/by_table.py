"""What methods that ask NAS-Bench-201 find, over many seeds, beside the rows that papers print.

  python -m benchmarks.by_table --seeds 500 --test_csv DIR/test_accuracy.csv

Every seed searches with the validation accuracies of CIFAR-10; what it finds is looked up on all three data sets.
"""

import argparse
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from vimnas_jax import methods, spaces, tabular
from vimnas_jax.tabular import nasbench201

# Mean and standard deviation in %, (validation, test) of each of nasbench201.DATASETS: table 3 of the VIM-NAS paper.
PRINTED = {
    'random': (((90.93, 0.36), (93.70, 0.36)), ((70.60, 1.37), (70.65, 1.38)), ((42.92, 2.00), (42.96, 2.15))),
    'reinforce': (((91.09, 0.37), (93.85, 0.37)), ((70.05, 1.67), (70.17, 1.61)), ((43.04, 2.18), (43.16, 2.28))),
}


def main():
  """Prints a line for each method: ours, then the printed one."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--seeds', type=int, default=500)
  parser.add_argument('--budgets', default='108', help='architectures that a search looks up, separated by commas')
  parser.add_argument('--lr', default='0.5', help="REINFORCE's rates, separated by commas")
  parser.add_argument('--test_csv', default='')
  args = parser.parse_args()
  space = spaces.get('nb201')
  oracle = ConfigDict({'test_csv': args.test_csv, 'nasbench201': ''})
  rate, table = tabular.rater(space, oracle, 'cifar10'), nasbench201.load(args.test_csv or None)
  kinds = ('valid', 'test') if args.test_csv else ('valid',)
  print('mean and standard deviation, %, of ' + ', '.join(f'{d} {k}' for d in table.tables for k in kinds))
  for name, printed in PRINTED.items():
    rates = [{'lr': float(lr)} for lr in args.lr.split(',')] if name == 'reinforce' else [{}]
    for fields in ({'budget': int(budget), **more} for budget in args.budgets.split(',') for more in rates):
      method = methods.get(ConfigDict({'name': name, **methods.fields(name), **fields}), space)
      start, figures = time.monotonic(), []
      for seed in range(args.seeds):
        init_key, key = jax.random.split(jax.random.key(seed))
        weights = method.derive(rate, method.init(init_key, space), key)
        answer = table.query(space.genotype(jax.device_get(weights)))
        figures.append([answer[data][kind] for data in table.tables for kind in kinds])
      rows = zip(np.mean(figures, 0), np.std(figures, 0))
      told = ', '.join(f'{field}={value}' for field, value in fields.items())
      print(f'{name}, {told}, {args.seeds} seeds, {time.monotonic() - start:.0f} s: ' +
            ', '.join(f'{mean:.2f} ± {std:.2f}' for mean, std in rows), flush=True)
    print(f'{name}, printed: ' + ', '.join(f'{mean:.2f} ± {std:.2f}' for own in printed
                                           for mean, std in own[:len(kinds)]))


if __name__ == '__main__':
  main()
