"""NAS-Bench-301 (Zela et al., Surrogate NAS Benchmarks, ICLR 2022) as an oracle for the DARTS space, S1, S2 and S3.

Nobody has trained all 10^18 cells of that space. NAS-Bench-301 trained some 60,000 of them on CIFAR-10, for 100 epochs
in a network of 8 cells, and models were fitted to these records. The model read here is YAHPO Gym's (Pfisterer et al.,
AutoML 2022; Apache-2.0): the files nb301/model_v2.onnx and nb301/encoding_v2.json of github.com/slds-lmu/yahpo_data.
What it answers is a prediction. Published cells that train to within 0.5 of each other lie as close here: read means
over seeds, and percentiles among random cells, not hundredths.

An input is 34 categories, in the order of the keys of the encoding, and an epoch. 28 of them are the operations of the
14 edges of each cell, the others which two inputs the nodes 3, 4 and 5 of each cell keep.
"""

import dataclasses
import functools
import pathlib
import random
from typing import Any

import numpy as np

from vimnas_jax import files
from vimnas_jax.errors import UserError
from vimnas_jax.networks import genotypes
from vimnas_jax.spaces import Genotype, darts
from vimnas_jax.tabular.types import Figure, Tabular

EPOCH = 98  # the last that the model knows; it counts from 1
RANDOM, SEED = 20_000, 1  # cells that a percentile is among
BATCH = 2_000
LANDMARKS = ('DARTS_V1', 'DARTS_V2', 'PDARTS', 'PC_DARTS_cifar')  # published cells that a prediction is shown beside
_PREFIX = 'NetworkSelectorDatasetInfo_COLON_darts_COLON_'
_CELLS = {'normal': 'normal', 'reduce': 'reduce'}
_OPS = tuple(op for op in darts.OPS if op != 'none')
_NAMES = (('surrogate.onnx', 'encoding.json'), ('model_v2.onnx', 'encoding_v2.json'))
_FETCH = 'give the folder that holds model_v2.onnx and encoding_v2.json (nb301 of github.com/slds-lmu/yahpo_data)'


def covers(space) -> bool:
  """Whether the surrogate knows cells of `space`: the graph of DARTS, and an operation on every edge that it has."""
  return set(space.cells) == set(_CELLS) and all(
      cell.edges == darts.EDGES and all(set(ops) & set(_OPS) for ops in cell.ops) for cell in space.cells.values())


def knows(genotype: Genotype) -> bool:
  """Whether every operation of a genotype of the DARTS graph is one of the surrogate's: not `noise`."""
  return all(op in _OPS for edges in genotype.cells.values() for op, _, _ in edges)


def gaps(space) -> bool:
  """Whether some cells of `space` have operations that the surrogate does not know: S4 has noise."""
  return any(set(ops) - set(darts.OPS) for cell in space.cells.values() for ops in cell.ops)


@dataclasses.dataclass(frozen=True)
class Surrogate:
  """The model in memory; `load` makes it.

  Attributes:
    session: the model, as onnxruntime runs it.
    encoding: {category: {value: number}}, in the order of the model's input.
  """

  session: Any
  encoding: dict[str, dict[str, int]]

  def predict(self, genotypes) -> np.ndarray:
    """Predicted validation accuracies, % [n], of genotypes of the DARTS graph. Raises UserError on one with `noise`."""
    rows = np.array([self._row(genotype) for genotype in genotypes], np.int32).reshape(-1, len(self.encoding))
    found = []
    for at in range(0, len(rows), BATCH):
      part = rows[at:at + BATCH]
      (values,) = self.session.run(['output'], {'x_cat': part, 'x_cont': np.full((len(part), 1), EPOCH, np.float32)})
      found.append(100 * np.asarray(values, np.float64)[:, 0])
    return np.concatenate(found) if found else np.zeros(0)

  @functools.cached_property
  def random(self) -> np.ndarray:
    """Predicted accuracies, % [20,000], sorted, of random cells of the DARTS space."""
    draw = random.Random(SEED)
    return np.sort(self.predict([random_genotype(draw) for _ in range(RANDOM)]))

  def query(self, genotype: Genotype) -> dict[str, float]:
    """{'valid': predicted validation accuracy, %, 'percentile': share, in %, of random cells that it exceeds}.

    {} for a cell that the surrogate does not know.
    """
    if not knows(genotype):
      return {}
    (valid,) = self.predict([genotype])
    return {'valid': round(float(valid), 4),
            'percentile': round(100 * float(np.searchsorted(self.random, valid)) / RANDOM, 2)}

  def _row(self, genotype):
    if foreign := {op for edges in genotype.cells.values() for op, _, _ in edges} - {*_OPS}:
      raise UserError(f'NAS-Bench-301 knows no {", ".join(sorted(foreign))}: it cannot judge this cell')
    row = dict.fromkeys(self.encoding, 0)
    for name, edges in genotype.cells.items():
      for op, source, target in edges:
        key = f'{_PREFIX}edge_{name}_{darts.EDGES.index((source, target))}'
        row[key] = self.encoding[key][op]
      for node in range(darts.INPUTS + 1, darts.NODES):
        key = f'{_PREFIX}inputs_node_{name}_{node}'
        row[key] = self.encoding[key]['_'.join(str(source) for source in sorted(s for _, s, t in edges if t == node))]
    return [row[key] for key in self.encoding]


def random_genotype(draw: random.Random) -> Genotype:
  """A random cell pair: two of the inputs of every node, and one of the 7 operations on each, all equally probable."""
  cells = {}
  for name in _CELLS:
    cells[name] = tuple((draw.choice(_OPS), source, node) for node in range(darts.INPUTS, darts.NODES)
                        for source in sorted(draw.sample(range(node), 2)))
  return Genotype('darts', cells)


@functools.cache
def load(folder: str) -> Surrogate:
  """The surrogate of config.oracle.nasbench301, read once.

  Raises UserError if onnxruntime is missing, or the files are missing or not those of the DARTS space.
  """
  path = pathlib.Path(folder).expanduser()
  shown = f'config.oracle.nasbench301={files.printable(folder)!r}'
  pair = next(((path / model, path / encoding) for model, encoding in _NAMES
               if (path / model).is_file() and (path / encoding).is_file()), None)
  if pair is None:
    raise UserError(f'{shown}: no model is there; {_FETCH}')
  try:
    import onnxruntime
  except ImportError:
    raise UserError(f'{shown} needs the package onnxruntime: pip install -r requirements-nb301.txt') from None
  encoding = files.read_json(pair[1], _FETCH)
  if not _is_encoding(encoding):
    raise UserError(f'{shown}: {pair[1].name} is not the encoding of the DARTS space; {_FETCH}')
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = options.inter_op_num_threads = 1  # small, and sums of one order
  options.log_severity_level = 4
  try:
    session = onnxruntime.InferenceSession(files.read_bytes(pair[0]), options, providers=['CPUExecutionProvider'])
    surrogate = Surrogate(session, encoding)
    values = surrogate.predict([random_genotype(random.Random(SEED))])
    if not (values.shape == (1,) and 0 <= values[0] <= 100):
      raise ValueError(f'it answers {values}')
  except Exception as e:  # onnxruntime has many kinds of its own
    if isinstance(e, UserError):
      raise
    raise UserError(f'{shown}: {pair[0].name} is not the model of the DARTS space '
                    f'({files.printable(" ".join(str(e).split()))[:120]}); {_FETCH}') from None
  return surrogate


def _is_encoding(encoding) -> bool:
  if not isinstance(encoding, dict):
    return False
  edges = {f'{_PREFIX}edge_{name}_{e}': _OPS for name in _CELLS for e in range(len(darts.EDGES))}
  inputs = {f'{_PREFIX}inputs_node_{name}_{node}': tuple(f'{a}_{b}' for a in range(node) for b in range(a + 1, node))
            for name in _CELLS for node in range(darts.INPUTS + 1, darts.NODES)}
  wanted = edges | inputs
  return set(encoding) == set(wanted) and all(
      isinstance(values, dict) and all(isinstance(v, int) for v in values.values()) and set(wanted[key]) <= set(values)
      for key, values in encoding.items())


def _summary(figures):
  if figures:
    yield (f'predicts for this cell, trained on CIFAR-10, a validation accuracy of {figures["valid"]:.2f} %, above '
           f'{figures["percentile"]:.1f} % of {RANDOM:,} random cells')
  else:
    yield 'has no prediction for this cell: it knows no noise'


def _remark(surrogate):
  figures = {name: surrogate.query(genotypes.get(name)) for name in LANDMARKS}
  cells = ', '.join(f'{name} {row["valid"]:.2f} % (percentile {row["percentile"]:.1f})'
                    for name, row in figures.items())
  return f'NAS-Bench-301 predicts for published cells: {cells}.'


BENCHMARK = Tabular(
    name='NAS-Bench-301', key='nasbench301', fields=('nasbench301',), data=('cifar10',), covers=covers,
    load=lambda config, say: load(config.nasbench301), summary=_summary,
    figures=(Figure(('valid',), 'predicted valid %'), Figure(('percentile',), 'percentile', digits=1)),
    knows='darts, s1, s2 and s3', remark=_remark, accuracy=lambda figures, data: figures['valid'], gaps=gaps,
    predicts='what its surrogate, a model fitted to trained cells, predicts on CIFAR-10, and the share of random cells '
             'of the DARTS space that lie below')
