"""What of a cell's prediction is due to which convolutions it has, and what to the rest.

    python -m benchmarks.redrawn --nasbench301 FOLDER --out FILE RUN [RUN ...]

RUN is the folder of a search in the DARTS space. Of its cells the inputs, pools and skip connections are kept, and
every convolution is drawn anew among the four of the space, 300 times. The mean of what NAS-Bench-301 predicts for
these is what inputs and kinds of operations are worth. What the found cell is beyond it, in standard deviations of
theirs, is worth of its convolutions, or luck: where a search cannot tell them apart it is 0 in the mean of many. Beside
them stand cells of which all is drawn, the operations of the normal cell from one of KINDS and its inputs from one of
INPUTS, the reduction cell of convolutions. FILE gets both tables as JSON.
"""

import argparse
import pathlib
import random

import numpy as np

from benchmarks.step import Parser, run
from vimnas_jax import files
from vimnas_jax.spaces import Genotype, darts
from vimnas_jax.tabular import nasbench301

CONVOLUTIONS = ('sep_conv_3x3', 'sep_conv_5x5', 'dil_conv_3x3', 'dil_conv_5x5')
KINDS = {'all operations': ('max_pool_3x3', 'avg_pool_3x3', 'skip_connect', *CONVOLUTIONS),
         'convolutions': CONVOLUTIONS, 'separable convolutions': CONVOLUTIONS[:2]}
INPUTS = {'any inputs': lambda draw, node: sorted(draw.sample(range(node), 2)),
          'inputs of the cell': lambda _, node: (0, 1),
          'nearest inputs': lambda _, node: (node - 2, node - 1)}
DRAWS, SEED = 300, 0


def redrawn(genotype: Genotype, draw: random.Random) -> Genotype:
  """`genotype` with other convolutions in the places of its own."""
  return Genotype(genotype.space, {
      name: tuple((draw.choice(CONVOLUTIONS) if op in CONVOLUTIONS else op, source, target)
                  for op, source, target in edges) for name, edges in genotype.cells.items()})


def row(surrogate, genotype: Genotype) -> dict[str, float]:
  """What is predicted for a cell, and of its like the mean, standard deviation and where the cell lies among them."""
  draw = random.Random(SEED)
  own, *others = surrogate.predict([genotype, *(redrawn(genotype, draw) for _ in range(DRAWS))])
  mean, std = float(np.mean(others)), float(np.std(others))
  return {'predicted': round(float(own), 3), 'redrawn': round(mean, 3), 'std': round(std, 3),
          'beyond': round((float(own) - mean) / std, 2) if std else 0.0}


def drawn(surrogate, ops, inputs) -> dict[str, float]:
  """Mean and standard deviation of what is predicted for cells of `ops` on what `inputs(draw, node)` gives."""
  draw = random.Random(SEED)

  def cell(ops, inputs):
    return tuple((draw.choice(ops), source, node) for node in range(darts.INPUTS, darts.NODES)
                 for source in inputs(draw, node))

  any_inputs = INPUTS['any inputs']
  found = surrogate.predict([Genotype('darts', {'normal': cell(ops, inputs), 'reduce': cell(CONVOLUTIONS, any_inputs)})
                             for _ in range(DRAWS)])
  return {'mean': round(float(np.mean(found)), 3), 'std': round(float(np.std(found)), 3)}


def main(argv) -> int:
  """Prints and writes the table."""
  parser = Parser(prog='python -m benchmarks.redrawn', description=__doc__,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--nasbench301', required=True, help='as config.oracle.nasbench301')
  parser.add_argument('--out', required=True, type=pathlib.Path)
  parser.add_argument('runs', nargs='+', type=pathlib.Path)
  args = parser.parse_args(argv)
  surrogate, rows = nasbench301.load(args.nasbench301), {}
  for folder in args.runs:
    genotype = Genotype.from_json(files.read_text(folder / 'genotype.json'))
    rows[str(folder)] = row(surrogate, genotype)
    print(folder, *(f'{name} {value:g}' for name, value in rows[str(folder)].items()), flush=True)
  mean = {name: round(float(np.mean([each[name] for each in rows.values()])), 3) for name in next(iter(rows.values()))}
  print('mean', *(f'{name} {value:g}' for name, value in mean.items()))
  kinds = {f'{kind}, {source}': drawn(surrogate, ops, inputs) for kind, ops in KINDS.items()
           for source, inputs in INPUTS.items()}
  for name, found in kinds.items():
    print(f'{name}: {found["mean"]:.2f} ± {found["std"]:.2f}')
  files.write_json(args.out, {'draws': DRAWS, 'runs': rows, 'mean': mean, 'drawn': kinds})
  return 0


if __name__ == '__main__':
  run(main)
