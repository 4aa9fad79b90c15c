"""Cells whose graph is searched too: where every block takes its inputs from, beside which operation it runs.

Node 0 is the cell's input, nodes 1 to `blocks` are blocks of one operation each, the last node is the output. What
a block or the output takes from whom is no part of a method's architecture distribution: it is an ordinary parameter
per node, a row over all lower nodes, of which the architecture keeps the strongest.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vimnas_jax.errors import UserError

OUTPUT = 'output'  # the op that the edges into the output carry in a genotype


@dataclasses.dataclass(frozen=True)
class Topology:
  """How many inputs every node keeps.

  Attributes:
    parents: for nodes 1, 2, … and the output, the number of lower nodes that it takes its inputs from.
    ops: the operations that a block chooses from.
  """

  parents: tuple[int, ...]
  ops: tuple[str, ...]

  def __post_init__(self):
    if not all(1 <= count <= node for node, count in enumerate(self.parents, 1)):
      raise UserError(f'a node has from 1 to all of its lower nodes as parents: {self.parents}')

  @property
  def blocks(self) -> int:
    """Number of blocks."""
    return len(self.parents) - 1

  @property
  def choices(self) -> Mapping[str, int]:
    """{name of the row: number of its candidates}. A node that takes all its lower nodes has no row."""
    rows = {f'inputs_{node}': node for node in range(1, self.blocks + 1) if self.parents[node - 1] < node}
    return rows | {OUTPUT: self.blocks + 1}

  @property
  def keeps(self) -> Mapping[str, int]:
    """{name of the row: how many of its candidates the architecture keeps}."""
    counts = {self.row(node): count for node, count in enumerate(self.parents, 1)}
    return {name: counts[name] for name in self.choices}

  def kept(self, probs: Mapping[str, np.ndarray]) -> dict[int, tuple[int, ...]]:
    """{node: its parents}, read off `probs` {row: [1, candidates]}, of the nodes that lead to the output.

    Every node keeps the strongest of its row; ties go to the lower node.
    """
    strongest = {}
    for node, count in enumerate(self.parents, 1):
      row = probs.get(self.row(node))
      order = range(node) if row is None else np.argsort(-np.asarray(row)[0], kind='stable')
      strongest[node] = tuple(sorted(int(n) for n in order[:count]))
    return reached(strongest, self.blocks + 1)

  def margins(self, probs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """{row: by how much the weakest parent that is kept leads the strongest that is not}; 0 is a tie, and where
    k are kept 1 / k the most.
    """
    found = {}
    for node, count in enumerate(self.parents, 1):
      if (name := self.row(node)) in self.choices:
        falling = -np.sort(-np.asarray(probs[name], np.float64)[0])
        found[name] = float(falling[count - 1] - falling[count])
    return found

  def row(self, node: int) -> str:
    """The name of a node's row of `choices`, if it has one."""
    return OUTPUT if node == self.blocks + 1 else f'inputs_{node}'

  def check(self, edges: Iterable[tuple[str, int, int]]) -> None:
    """Raises UserError unless `edges` (op, source, target) are an architecture: one op per block, every node with its
    number of parents, and none that does not lead to the output.
    """
    parents: dict[int, list[int]] = {}
    ops: dict[int, set[str]] = {}
    for op, source, target in edges:
      parents.setdefault(target, []).append(source)
      ops.setdefault(target, set()).add(op)
    last = self.blocks + 1
    for node, sources in parents.items():
      name = 'the output' if node == last else f'block {node}'
      if (not 1 <= node <= last or not set(sources) <= set(range(node)) or len(set(sources)) != len(sources)
          or len(sources) != self.parents[node - 1]):
        raise UserError(f'{name} takes its input from {sorted(sources)}: it needs {self.parents[min(node, last) - 1]} '
                        'lower nodes')
      allowed = {OUTPUT} if node == last else set(self.ops)
      if len(ops[node]) != 1 or not ops[node] <= allowed:
        raise UserError(f'{name} has the ops {", ".join(sorted(ops[node]))}: it needs one of '
                        f'{", ".join(sorted(allowed))}')
    if last not in parents or set(reached(parents, last)) != set(parents):
      raise UserError(f'nodes {sorted(parents)} have inputs: these must be the output, {last}, and all that lead to it')


def reached(parents: Mapping[int, Sequence[int]], last: int) -> dict[int, tuple[int, ...]]:
  """The part of {node: parents} from which `last` is reached, in the order of nodes."""
  used = {last}
  for node in range(last, 0, -1):
    if node in used:
      used |= set(parents.get(node, ()))
  return {node: tuple(parents[node]) for node in sorted(used - {0}) if node in parents}
