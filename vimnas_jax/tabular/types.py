"""What a benchmark of the field is: a tuple of functions, and what is told of its figures."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from vimnas_jax.networks.cost import Cost
from vimnas_jax.spaces import Genotype, Space


class Table(Protocol):
  """A benchmark's figures in memory."""

  def query(self, genotype: Genotype) -> dict:
    """{figure: value} of an architecture of a space that the benchmark covers, or {data set: {figure: value}}.

    Ranks, regrets and percentiles are figures as others are. {} for an architecture that it does not know all the
    same. Raises UserError if the files lack it.
    """


class Figure(NamedTuple):
  """A figure that a report has a column for.

  Attributes:
    path: its place in what `Table.query` gives: ('valid',), or with a data set ('cifar10', 'valid').
    heading: of the column, after the benchmark's name.
    scale: a report shows the figure times this.
    digits: after the point.
    optional: whether the benchmark may know an architecture and not this figure of it.
  """

  path: tuple[str, ...]
  heading: str
  scale: int = 1
  digits: int = 2
  optional: bool = False

  def of(self, figures: dict) -> Any:
    """Its value among those of a benchmark, None where there is none."""
    for name in self.path:
      figures = figures.get(name) if isinstance(figures, dict) else None
    return figures

  def put(self, figures: dict, value):
    """Sets its value among those of a benchmark."""
    *rooms, last = self.path
    for name in rooms:
      figures = figures.setdefault(name, {})
    figures[last] = value


class Tabular(NamedTuple):
  """A benchmark of the field; none of its files is read before `load`.

  Attributes:
    name: as its authors call it. Whatever is shown of it begins so.
    key: the field of result.json, and of a report's rows, that has its figures.
    fields: the fields of config.oracle that name its files.
    data: the data sets that its figures are of.
    covers: `covers(space)`: whether it knows architectures of a space.
    load: `load(config.oracle, say) -> Table`, read once per process; `say`, which may be None, is called with a line
      before something takes long. Raises UserError, in a line, if a file is missing, damaged or another one.
    summary: `summary(figures)`: the lines at the end of a search, without the name.
    figures: the columns of a report.
    always: whether it answers without any file of the user's. Then every result has its figures, and a report takes
      them from there; figures of others a report looks up itself, whether the runs had the files or not.
    knows: the spaces that it covers, in words, if a search of another space is refused when its files are given; ''
      does without them there.
    predicts: '' if it trained the architecture itself; else what its figures are, in words.
    regrets: kinds, as 'test', of whose KIND_regret a report draws the course over a search.
    remark: `remark(table)`: a line that a report has beside its table, or None.
    accuracy: `accuracy(figures, data)`: the validation accuracy, in %, on one of `data` that is among figures of
      `Table.query`; None if methods that ask a table may not ask this one.
    gaps: `gaps(space)`: whether it has no accuracy of some architectures of a space that it covers; None: of none.
    cost: `cost(genotype)`: parameters and multiply-adds of the network that the benchmark trained, where its spaces
      have no network outside it; None where networks.cost counts.
  """

  name: str
  key: str
  fields: tuple[str, ...]
  data: tuple[str, ...]
  covers: Callable[[Space], bool]
  load: Callable[..., Table]
  summary: Callable[[dict], Iterator[str]]
  figures: tuple[Figure, ...]
  always: bool = False
  knows: str = ''
  predicts: str = ''
  regrets: tuple[str, ...] = ()
  remark: Callable[[Any], str] | None = None
  cost: Callable[[Genotype], Cost] | None = None
  accuracy: Callable[[dict, str], float] | None = None
  gaps: Callable[[Space], bool] | None = None

  def given(self, oracle) -> str:
    """The first field of config.oracle that names a file of the benchmark, '' if there is none."""
    return next((field for field in self.fields if oracle.get(field)), '')

  def answer(self, oracle, genotype: Genotype, data: str) -> dict:
    """What result.json says of it for an architecture found on config.data.name=`data`: its figures, and whose."""
    answer = {self.key: self.load(oracle, None).query(genotype)}
    return answer if self.predicts else answer | {f'{self.key}_of': self.whose(data)}

  def rates(self, space: Space) -> bool:
    """Whether it has the accuracy of every architecture of a space, so that one may be chosen by it."""
    return self.accuracy is not None and self.covers(space) and not (self.gaps and self.gaps(space))

  def known(self, data: str) -> str:
    """Which of its data sets config.data.name=`data` is, '' if it has no figures of that."""
    name = data.removeprefix('tfds/').split('/')[0].lower()
    return next((each for each in self.data if each.lower() == name), '')

  def whose(self, data: str) -> str:
    """Whose the figures are, in words: never those of config.data.name=`data`."""
    trained = 'data sets' if len(self.data) > 1 else self.data[0]
    return (f'figures of the benchmark for this cell, trained on its own {trained}' +
            ('' if self.known(data) else f', not on yours ({data})'))

  def lines(self, result: dict) -> Iterator[str]:
    """What the end of a search tells of the benchmark: each line names it, the first whose figures these are."""
    if self.key not in result:
      return
    figures = result[self.key]
    if figures and not self.predicts:
      yield f'{self.name:<15}{result.get(f"{self.key}_of") or self.whose(result.get("data", ""))}:'
    for line in self.summary(figures):
      yield f'{self.name:<15}{line}'
