"""What the field has measured already, one benchmark a file.

A benchmark's file has BENCHMARK, a `Tabular`, and is named here; fields.py documents the fields of config.oracle that
name its files.
"""

from vimnas_jax.errors import UserError
from vimnas_jax.files import printable
from vimnas_jax.spaces import Space
from vimnas_jax.tabular import nasbench101, nasbench201, nasbench301
from vimnas_jax.tabular.types import Figure, Table, Tabular

__all__ = ['BENCHMARKS', 'COLUMNS', 'FIELDS', 'Figure', 'Table', 'Tabular', 'check', 'network', 'of', 'rater']

BENCHMARKS = (nasbench201.BENCHMARK, nasbench101.BENCHMARK, nasbench301.BENCHMARK)
FIELDS = tuple(field for benchmark in BENCHMARKS for field in benchmark.fields)  # of config.oracle
COLUMNS = tuple((benchmark, figure) for benchmark in BENCHMARKS for figure in benchmark.figures)  # of a report


def of(space: Space, oracle) -> list[Tabular]:
  """The benchmarks that cover `space` and can answer: config.oracle names their files, or they need none."""
  return [benchmark for benchmark in BENCHMARKS
          if benchmark.covers(space) and (benchmark.always or benchmark.given(oracle))]


def check(space: Space, oracle, say=None):
  """Loads what a search of `space` will be looked up in, so that bad files are told before it, not after.

  `say` is called with a line before something takes long. Raises UserError as `Tabular.load`, or if config.oracle
  names files that are of no use to `space`.
  """
  for benchmark in BENCHMARKS:
    field = benchmark.given(oracle)
    if field and benchmark.knows and not benchmark.covers(space):
      raise UserError(f'config.oracle.{field}={printable(oracle[field])!r} knows the cells of {benchmark.knows}, not '
                      f'those of {space.name!r}: leave it out')
  for benchmark in of(space, oracle):
    benchmark.load(oracle, say)


class Rater:
  """The validation accuracy of whole architectures, in %, as a benchmark has it: `Method.derive`."""

  def __init__(self, benchmark: Tabular, table: Table, space: Space, data: str):
    self._benchmark, self._table, self.space, self._data = benchmark, table, space, data

  def __call__(self, weights, i: int = 0) -> float:
    """That of the architecture that `weights` {cell: [edges, ops]} stand for."""
    del i
    figures = self._table.query(self.space.genotype(weights))
    return self._benchmark.accuracy(figures, self._data)

  def batch(self, i: int):
    """Raises UserError: a table has no images."""
    raise self._lacks('images')

  @property
  def num_classes(self) -> int:
    """Raises UserError: nor does it know the classes of the data."""
    raise self._lacks('classes')

  def _lacks(self, what: str) -> UserError:
    return UserError(f'config.method.name: {self._benchmark.name}, which this method asks, has no {what} to give: '
                     'derive from accuracies alone, or leave Method.asks out')


def rater(space: Space, oracle, data: str) -> Rater:
  """The first benchmark that has every accuracy of `space` and can answer; figures of the data set `data`.

  Raises UserError if there is none, or it has no figures of `data`.
  """
  for benchmark in of(space, oracle):
    if benchmark.accuracy and benchmark.rates(space):
      if not benchmark.known(data):
        raise UserError(f'config.method.name: this method asks {benchmark.name} for accuracies, which has those of '
                        f'{", ".join(benchmark.data)}, not of config.data.name={data!r}: choose another method')
      return Rater(benchmark, benchmark.load(oracle, None), space, benchmark.known(data))
  known = [benchmark.name for benchmark in BENCHMARKS if benchmark.rates(space)]
  raise UserError(f'config.method.name: this method asks a benchmark for accuracies, and there is none for space '
                  f'{space.name!r}: ' + (f'give the files of {" or ".join(known)} with config.oracle' if known else
                                         'choose another method or config.space.name'))


def network(space: Space) -> Tabular | None:
  """The benchmark that trained the networks of `space`, where there are none but its own; None for other spaces."""
  return next((benchmark for benchmark in BENCHMARKS if benchmark.cost and benchmark.covers(space)), None)
