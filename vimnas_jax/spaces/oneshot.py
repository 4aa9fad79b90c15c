"""The three spaces of NAS-Bench-1Shot1 (Zela, Siems and Hutter, ICLR 2020): parts of NAS-Bench-101 that a one-shot
network spans, so that what a search finds can be looked up (nasbench101.py).

A cell has four blocks, in space 3 five, of one operation each. The architecture distribution of a method is over
these operations, blocks x 3; from where the blocks and the output take their inputs are parameters beside it, as in
the benchmark (topology.py). An architecture keeps every block's most probable operation and every node's strongest
parents; blocks that do not lead to the output fall away.

Architectures are written in the notation of NAS-Bench-101: the adjacency matrix of seven nodes, row by row, and their
operations. In spaces 1 and 2 the sixth node is empty, and an empty node is called a 1x1 convolution, as the benchmark
does.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.spaces.topology import OUTPUT, Topology, reached
from vimnas_jax.spaces.types import Cell, Genotype, Space, Stage

OPS = ('maxpool3x3', 'conv3x3-bn-relu', 'conv1x1-bn-relu')  # in the benchmark's order, not that of NAS-Bench-101
PARENTS = {'oneshot1': (1, 2, 2, 2, 2), 'oneshot2': (1, 1, 2, 2, 3), 'oneshot3': (1, 1, 1, 2, 2, 2)}
NAMES = tuple(PARENTS)
VERTICES, FILLER = 7, 'conv1x1-bn-relu'


def macro(cells: int, channels: int) -> tuple[Stage, ...]:
  """Stem, then `cells` cells in three stacks of widths C, 2C, 4C; pools before the cells cells/3 and 2 cells/3."""
  if cells < 3:
    raise UserError(f'config.space.cells={cells}: NAS-Bench-1Shot1 needs at least 3 cells, one per stack')
  stages, width = [Stage('stem', channels)], channels
  for index in range(cells):
    if index in (cells // 3, 2 * cells // 3):
      width *= 2
      stages.append(Stage('pool', stride=2))
    stages.append(Stage('cell', width, cell='cell'))
  return (*stages, Stage('head', width))


def decode(space: Space, probs: Mapping[str, np.ndarray]) -> Genotype:
  """Every block's most probable op and every node's strongest parents; ties go to the lower index."""
  assert space.topology is not None  # `make` gives one to every space of this file
  best = probs['cell'].argmax(1)
  return make_genotype(space.name, space.topology.kept(probs), [OPS[o] for o in best])


def make_genotype(name: str, parents: Mapping[int, Iterable[int]], ops: Sequence[str]) -> Genotype:
  """The genotype of {node: parents} and the ops of all blocks: an edge into a block carries the block's op."""
  last = len(PARENTS[name])
  return Genotype(name, {'cell': tuple((OUTPUT if node == last else ops[node - 1], source, node)
                                       for node, sources in sorted(parents.items()) for source in sorted(sources))})


def module(genotype: Genotype) -> tuple[np.ndarray, tuple[str, ...]]:
  """The genotype as a module of NAS-Bench-101: adjacency matrix, int [7, 7], and the seven operations."""
  last = len(PARENTS[genotype.space])
  place = {node: node for node in range(last)} | {last: VERTICES - 1}
  matrix, ops = np.zeros((VERTICES, VERTICES), int), ['input', *[FILLER] * (VERTICES - 2), 'output']
  for op, source, target in genotype.cells['cell']:
    matrix[place[source], place[target]] = 1
    if target != last:
      ops[target] = op
  return matrix, tuple(ops)


def write(genotype: Genotype) -> str:
  """`0101… input,op,op,op,op,op,output`: 49 digits and seven operations."""
  matrix, ops = module(genotype)
  return f'{"".join(map(str, matrix.ravel()))} {",".join(ops)}'


def describe(genotype: Genotype) -> str:
  """In words: which blocks lead to the output, with their operations and where they take their input from."""
  last, ops = len(PARENTS[genotype.space]), {}
  parents: dict[int, list[str]] = {}
  for op, source, target in genotype.cells['cell']:
    parents.setdefault(target, []).append('input' if source == 0 else f'block {source}')
    ops[target] = '' if target == last else f' ({op})'
  words = [('output' if node == last else f'block {node}{ops[node]}') + ' <- ' + ', '.join(parents[node])
           for node in sorted(parents)]
  idle = [str(block) for block in range(1, last) if block not in parents]
  return '; '.join(words) + (f'; without a way to the output: {", ".join(idle)}' if idle else '')


def read(text: str, name: str) -> Genotype:
  """The inverse of `write` for the space called `name`. Raises UserError unless `text` is one of its architectures."""
  found = re.fullmatch(rf'([01]{{{VERTICES ** 2}}}) input,(.*),output', text.strip())
  ops = found[2].split(',') if found else []
  if not found or len(ops) != VERTICES - 2 or not set(ops) <= set(OPS):
    raise UserError(f'not an architecture of {name}: {text[:120]!r}; expected 49 digits and input,op,op,op,op,op,'
                    f'output with ops {", ".join(OPS)}')
  last, edges = len(PARENTS[name]), np.argwhere(np.array(list(found[1])).reshape(VERTICES, VERTICES) == '1')
  node = {place: place for place in range(last)} | {VERTICES - 1: last}
  parents: dict[int, list[int]] = {}
  for source, target in edges.tolist():
    if source not in node or target not in node or source >= target:
      raise UserError(f'not an architecture of {name}: {text[:120]!r} has an edge {source}->{target}; edges lead from '
                      f'a lower to a higher of the nodes {", ".join(map(str, node))}')
    parents.setdefault(node[target], []).append(node[source])
  genotype = make_genotype(name, parents, ops)
  topology(name).check(genotype.cells['cell'])
  return genotype


def topology(name: str) -> Topology:
  """Where the blocks of the space called `name` may take their inputs from."""
  return Topology(PARENTS[name], OPS)


def graphs(name: str, chained: bool = False) -> Iterator[dict[int, tuple[int, ...]]]:
  """All graphs {node: parents} that `decode` can give.

  `chained` keeps those whose used nodes form one chain, each a parent of the next: 49, 65 and 234 of the 66, 190 and
  876. These are what the benchmark's authors enumerate and count as the architectures without loose ends.
  """
  last, unique = len(PARENTS[name]), set()
  choices = (itertools.combinations(range(node), count) for node, count in enumerate(PARENTS[name], 1))
  for chosen in itertools.product(*choices):
    unique.add(tuple(reached(dict(enumerate(chosen, 1)), last).items()))
  for items in sorted(unique):
    nodes = [node for node, _ in items]
    if not chained or all(a in dict(items)[b] for a, b in zip(nodes, nodes[1:])):
      yield dict(items)


def everything(name: str, chained: bool = False) -> Iterator[Genotype]:
  """All genotypes that `decode` can give: 3,702, 12,474 and 135,900; `chained`: 2,487, 3,609 and 24,066."""
  blocks = len(PARENTS[name]) - 1
  for parents in graphs(name, chained):
    used = [node for node in parents if node <= blocks]
    for ops in itertools.product(OPS, repeat=len(used)):
      by_block = dict(zip(used, ops))
      yield make_genotype(name, parents, [by_block.get(node, FILLER) for node in range(1, blocks + 1)])


def make(name: str) -> Space:
  """The space called `name`, one of NAMES."""
  blocks = len(PARENTS[name]) - 1
  cell = Cell(1, tuple((node - 1, node) for node in range(1, blocks + 1)), (OPS,) * blocks,
              tuple(range(1, blocks + 1)), rows=tuple(f'block {node}' for node in range(1, blocks + 1)))
  return Space(name, {'cell': cell}, macro, decode, write, functools.partial(read, name=name), pool_norm=False,
               min_size=1, topology=topology(name))
