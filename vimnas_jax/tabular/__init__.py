"""What the field has measured already, one benchmark a file.

A benchmark's file has BENCHMARK, a `Tabular`, and is named here; config.py documents the fields of config.oracle that
name its files.
"""

from vimnas_jax.errors import UserError
from vimnas_jax.files import printable
from vimnas_jax.spaces import Space
from vimnas_jax.tabular import nasbench101, nasbench201, nasbench301
from vimnas_jax.tabular.types import Figure, Table, Tabular

__all__ = ['BENCHMARKS', 'COLUMNS', 'FIELDS', 'Figure', 'Table', 'Tabular', 'check', 'network', 'of']

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


def network(space: Space) -> Tabular | None:
  """The benchmark that trained the networks of `space`, where there are none but its own; None for other spaces."""
  return next((benchmark for benchmark in BENCHMARKS if benchmark.cost and benchmark.covers(space)), None)
