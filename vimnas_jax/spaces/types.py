"""What a search space is: frozen data and the rule that reads an architecture off it. No Flax here.

A cell is a directed acyclic graph: nodes `0 .. inputs - 1` are fed from outside, every further node is the sum of its
incoming edges, and every edge carries a mixture of candidate operations. A network is a list of stages.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.spaces.topology import OUTPUT, Topology

Edge = tuple[str, int, int]  # of an architecture: (op, source, target)


@dataclasses.dataclass(frozen=True)
class Cell:
  """One cell type.

  Attributes:
    inputs: how many nodes are fed from outside (2 in the DARTS space, 1 in NAS-Bench-201).
    edges: (source, target) of each edge, node by node: ordered by target, in the package's own spaces then by source.
    ops: the names of the candidate operations of each edge, none twice; the same number on every edge of a cell type.
    output: the nodes that are concatenated along channels to give the cell's output.
    preprocess: whether each input first passes a 1x1 convolution to the cell's width.
    rows: what the rows of the architecture parameters are called, if they are no edges.
  """

  inputs: int
  edges: tuple[tuple[int, int], ...]
  ops: tuple[tuple[str, ...], ...]
  output: tuple[int, ...]
  preprocess: bool = False
  rows: tuple[str, ...] = ()

  def __post_init__(self):
    if len(self.edges) != len(self.ops) or len({len(names) for names in self.ops}) != 1:
      raise UserError(f'a cell needs one list of candidate ops per edge, all of one length: {len(self.edges)} edges, '
                      f'lists of length {[len(names) for names in self.ops]}')
    if any(source >= target for source, target in self.edges):
      raise UserError(f'every edge of a cell must lead from a lower node to a higher one: {self.edges}')

  @property
  def nodes(self) -> int:
    """Number of nodes, inputs included."""
    return max(target for _, target in self.edges) + 1

  @property
  def shape(self) -> tuple[int, int]:
    """(edges, ops): the shape of the architecture parameters of this cell type."""
    return len(self.edges), len(self.ops[0])

  @property
  def skips(self) -> bool:
    """Whether an edge that leaves an input, and has the stride of the cell, has a skip connection."""
    return any(source < self.inputs and 'skip_connect' in names for (source, _), names in zip(self.edges, self.ops))

  def label(self, row: int) -> str:
    """How a row of the architecture parameters is called."""
    return self.rows[row] if self.rows else '{}->{}'.format(*self.edges[row])


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of a network's macro-architecture, executed in order.

  Attributes:
    kind: 'stem' (3x3 convolution and BatchNorm), 'cell', 'residual' (the ResNet block between the stages of
      NAS-Bench-201) or 'head' (global average pool and a linear layer). NAS-Bench-1Shot1 has a 'pool' (2x2 maximum of
      stride 2, padded by 1) between its stacks and in its head a 1x1 convolution to `channels`. On ImageNet
      two stems: 'stem0' (3x3 convolution to half the width, BatchNorm, ReLU, 3x3 convolution, BatchNorm) and 'stem1'
      (ReLU, 3x3 convolution, BatchNorm); every convolution has stride 2.
    channels: the width of the stage; of a cell, the width of one node.
    cell: for kind 'cell', the name of its type.
    stride: by what height and width shrink: a cell's is 1 or 2, that of 'residual' 2, of 'stem' and 'head' 1.
    shrunk: for a cell with two inputs, whether the previous cell had stride 2, so that the older input is twice as
      large and passes a FactorizedReduce.
    norm: for kind 'head', whether BatchNorm and ReLU come before the pool.
    auxiliary: for a cell, whether the auxiliary head of the evaluation network, if it has one, reads its output.
  """

  kind: str
  channels: int = 0
  cell: str = ''
  stride: int = 1
  shrunk: bool = False
  norm: bool = False
  auxiliary: bool = False


@dataclasses.dataclass(frozen=True)
class Genotype:
  """A discrete architecture: for each cell type the kept edges as (op, source, target), in the space's own order."""

  space: str
  cells: Mapping[str, tuple[Edge, ...]]

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Genotype) and self.space == other.space and dict(self.cells) == dict(other.cells)

  def __hash__(self) -> int:
    return hash((self.space, tuple(sorted(self.cells.items()))))

  @property
  def unordered(self) -> tuple[tuple[str, tuple[Edge, ...]], ...]:
    """Its edges by cell, the same in whatever order those into a node stand: the stronger one stands first in DARTS."""
    return tuple((name, tuple(sorted(edges))) for name, edges in sorted(self.cells.items()))

  def to_json(self) -> str:
    """JSON text: {"space": ..., "cells": {name: [[op, source, target], ...]}}."""
    return json.dumps({'space': self.space, 'cells': {name: [list(e) for e in edges]
                                                      for name, edges in self.cells.items()}})

  @classmethod
  def from_json(cls, text: str) -> 'Genotype':
    """Reads what `to_json` wrote. Raises UserError on anything else."""
    try:
      raw = json.loads(text)
      cells = {name: tuple(_edge(*edge) for edge in edges) for name, edges in raw['cells'].items()}
      if not isinstance(raw['space'], str):
        raise TypeError('space is no text')
      return cls(raw['space'], cells)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
      raise UserError(f'not a genotype in JSON ({type(e).__name__}: {str(e)[:80]}): {text[:60]!r}; expected '
                      '{"space": …, "cells": {name: [[op, source, target], …]}}') from None


def _edge(op: Any, source: Any, target: Any) -> Edge:
  if type(op) is not str or type(source) is not int or type(target) is not int:  # 1.5 or true would pass for 1
    raise TypeError(f'{[op, source, target]!r:.60} is no [op, source, target]')
  return op, source, target


@dataclasses.dataclass(frozen=True)
class Space:
  """A search space.

  Attributes:
    name: the name that config.space.name chooses.
    cells: cell types by name.
    macro: `macro(cells, channels)` gives the stages of the search network.
    decode: `decode(space, {cell: [edges, ops]})` reads the discrete architecture off probabilities.
    write: a genotype in the field's own notation.
    read: the inverse of `write`; raises UserError.
    pool_norm: whether pooling is followed by BatchNorm while searching (DARTS: yes; NAS-Bench-201: no).
    min_size: the smallest image side, in pixels, that the macro's strides allow.
    imagenet_macro: `imagenet_macro(cells, channels)` gives the stages of the evaluation network for ImageNet, or None.
    imagenet_search: `imagenet_search(cells, channels)` gives the stages of the search network for ImageNet, or None.
    topology: how the graph of the cell is searched, where it is; the rows of a cell are then its blocks.
    kept: how many edges an architecture keeps into every node; None: every edge of the cell.
    repeats: whether it may keep an edge twice, with two operations, as the cells of NASNet do.
    own_ops: operations that the space brings, `networks.operation.Op` by name; {} where all are of the package.
  """

  name: str
  cells: Mapping[str, Cell]
  macro: Callable[[int, int], tuple[Stage, ...]]
  decode: Callable[['Space', Mapping[str, np.ndarray]], Genotype]
  write: Callable[[Genotype], str]
  read: Callable[[str], Genotype]
  pool_norm: bool
  min_size: int
  imagenet_macro: Callable[[int, int], tuple[Stage, ...]] | None = None
  imagenet_search: Callable[[int, int], tuple[Stage, ...]] | None = None
  topology: Topology | None = None
  kept: int | None = None
  repeats: bool = False
  own_ops: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def restricted(self) -> tuple[str, ...]:
    """The cells whose nodes keep a part of their inputs, with a `none` on every edge that can say which."""
    if self.kept is None or self.repeats:
      return ()
    return tuple(name for name, cell in self.cells.items() if all('none' in ops for ops in cell.ops))

  def stages(self, cells: int, channels: int, *, imagenet: bool = False, side: int | None = None) -> tuple[Stage, ...]:
    """The stages of the evaluation network.

    Args:
      cells: as for `macro`.
      channels: as for `macro`; on ImageNet also the width of both stems.
      imagenet: whether the network is the one for ImageNet.
      side: the shorter side of its images in pixels, if it is to be checked.

    Raises:
      UserError: the space has no such network, or the images are smaller than the strides allow.
    """
    if self.topology:
      raise UserError(f'the networks of space {self.name!r} are trained in NAS-Bench-101, not here: look them up there '
                      'with config.oracle.nasbench101')
    macro = self.imagenet_macro if imagenet else self.macro
    if macro is None:
      raise UserError(f'space {self.name!r} has no ImageNet network: set '
                      'config.network.imagenet=False')
    stages = macro(cells, channels)
    least = math.prod(stage.stride for stage in stages)
    if side is not None and side < least:
      kind = 'ImageNet network' if imagenet else 'network'
      raise UserError(f'images of {side} pixels are too small: the {kind} of space {self.name!r} shrinks them {least} '
                      f'times; give images of at least {least} pixels' +
                      (', or set config.network.imagenet=False' if imagenet else ''))
    return stages

  def on_imagenet(self) -> 'Space':
    """The space with the search network for ImageNet. Raises UserError if it has none."""
    if self.imagenet_search is None:
      raise UserError(f'config.space.imagenet=True: space {self.name!r} has no search network for ImageNet (the DARTS '
                      'space and S1 to S4 have): set config.space.imagenet=False')
    return dataclasses.replace(self, macro=self.imagenet_search, min_size=32)

  @property
  def choices(self) -> Mapping[str, int]:
    """{row of the searched graph: number of its candidates}; {} where the graph is given."""
    return self.topology.choices if self.topology else {}

  def graph(self, name: str) -> Cell:
    """The cell as its architectures have it: where the graph is searched, with every edge that they may have."""
    if not self.topology:
      return self.cells[name]
    last = self.topology.blocks + 1
    edges = tuple((source, target) for target in range(1, last + 1) for source in range(target))
    return Cell(1, edges, ((*self.topology.ops, OUTPUT),) * len(edges), (last,))

  def operations(self, genotype: Genotype) -> list[str]:
    """The operations that an architecture runs, each as often as it does."""
    if not self.topology:
      return [op for edges in genotype.cells.values() for op, _, _ in edges]
    blocks = {target: op for op, _, target in genotype.cells['cell'] if op != OUTPUT}
    return [blocks[node] for node in sorted(blocks)]

  @property
  def noisy(self) -> bool:
    """Whether an operation is `noise`, so that the networks need an rng of that name."""
    return any('noise' in ops for cell in self.cells.values() for ops in cell.ops)

  def genotype(self, probs: Mapping[str, np.ndarray]) -> Genotype:
    """The architecture that `probs` ({cell: [edges, ops]}, {choice: [1, candidates]}; rows sum to 1) stands for.

    Ties go to the lower index.
    """
    shapes = {name: cell.shape for name, cell in self.cells.items()}
    shapes |= {name: (1, count) for name, count in self.choices.items()}
    for name, shape in shapes.items():
      found = np.shape(probs[name]) if name in probs else ()
      if found != shape:
        raise UserError(f'probabilities of cell {name!r} have shape {found}, space {self.name!r} needs {shape}')
    return self.decode(self, {name: np.asarray(probs[name], np.float64) for name in shapes})

  def validate(self, genotype: Genotype) -> Genotype:
    """Returns `genotype`. Raises UserError if it belongs to another space, uses what this space lacks, or is not whole:
    every node keeps `kept` edges, or the cell every edge, each once, in the order of the nodes that they lead to.
    """
    if genotype.space != self.name:
      raise UserError(f'the genotype belongs to space {genotype.space!r:.100}, not to {self.name!r}: set '
                      f'config.space.name={genotype.space:.100} or give another genotype')
    if set(genotype.cells) != set(self.cells):
      raise UserError(f'the genotype has cells {sorted(genotype.cells)!r:.100}, space {self.name!r} has '
                      f'{sorted(self.cells)}')
    for name in self.cells:
      cell = self.graph(name)
      for op, source, target in genotype.cells[name]:
        if (source, target) not in cell.edges:
          raise UserError(f'cell {name!r} of space {self.name!r} has no edge {source!r:.20}->{target!r:.20}')
        ops = cell.ops[cell.edges.index((source, target))]
        if op not in ops:
          raise UserError(f'edge {source}->{target} of cell {name!r} has no op {op[:60]!r}; it has {", ".join(ops)}')
      if not self.topology:
        self._whole(name, cell, [edge[1:] for edge in genotype.cells[name]])
    if self.topology:
      self.topology.check(genotype.cells['cell'])
    return genotype

  def _whole(self, name: str, cell: Cell, edges: list[tuple[int, int]]) -> None:
    where = f'the genotype is not whole: cell {name!r} of space {self.name!r}'
    twice = [edge for edge in cell.edges if edges.count(edge) > 1]
    if twice and not self.repeats:
      raise UserError(f'{where} has the edge {twice[0][0]}->{twice[0][1]} twice; give it once')
    for node in range(cell.inputs, cell.nodes):
      into = sum(target == node for _, target in cell.edges)
      wanted, found = min(self.kept or into, into), sum(target == node for _, target in edges)
      if found != wanted:
        raise UserError(f'{where} has {found} edges into node {node}; it needs {wanted}')
    targets = [target for _, target in edges]
    if targets != sorted(targets) or (self.kept is None and edges != list(cell.edges)):
      raise UserError(f'{where} has its edges in another order; give them node by node, as in '
                      f'{" ".join(map("{0[0]}->{0[1]}".format, cell.edges))}')
