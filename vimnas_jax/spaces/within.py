"""The most probable architecture whose costs keep within limits, found exactly; and all architectures, the most
probable first.

An architecture is a choice for every edge, or, where nodes keep a given number of edges, for every node: which edges,
and their operations other than `none`. It is as probable as the product of what these score; that of the highest
product is the one that the space's own rule reads off. Costs add up. The choices are joined one after the other, and
of all beginnings only those are gone on with that no other beats in score and in every cost: the best is among them.
"""

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vimnas_jax.spaces.types import Genotype, Space

_LEAST = 1e-30  # what a score of 0 counts as: among those the fewest are taken
_Choice = tuple[tuple[str, int, int], ...]  # (cell, edge, op) of every edge that a group keeps


def best(space: Space, scores: Mapping[str, np.ndarray], costs: Mapping[str, np.ndarray],
         limits: Sequence[float]) -> Genotype | None:
  """The architecture of the highest product of scores whose costs are at most `limits`; None if there is none.

  Args:
    space: the search space; its graph is given.
    scores: {cell: [edges, ops]}, none below 0, such as probabilities.
    costs: {cell: [edges, ops, k]}, what an operation on an edge adds to each of k costs.
    limits: [k], less what all architectures cost.
  """
  no_choice: _Choice = ()
  groups = [_thinned(*group) for group in _groups(space, scores, costs)]
  least = np.cumsum([np.min(cost, 0) for _, cost, _ in groups][::-1], 0)[::-1]
  least = np.concatenate([least[1:], np.zeros((1, least.shape[1]))])  # of all groups still to come
  score, cost, choices = np.zeros(1), np.zeros((1, len(limits))), [no_choice]
  for (more, added, kinds), rest in zip(groups, least):
    score = (score[:, None] + more[None]).ravel()
    cost = (cost[:, None] + added[None]).reshape(-1, len(limits))
    fits = np.flatnonzero((cost + rest <= np.asarray(limits)).all(1))
    if not len(fits):
      return None
    kept = fits[_unbeaten(score[fits], cost[fits])]
    choices = [(*choices[i // len(more)], *kinds[i % len(more)]) for i in kept]
    score, cost = score[kept], cost[kept]
  return _genotype(space, scores, choices[int(score.argmax())])


def ranked(space: Space, scores: Mapping[str, np.ndarray]) -> Iterator[Genotype]:
  """All architectures, those of a higher product of scores before those of a lower one. Arguments as for `best`."""
  free = {name: np.zeros((*cell.shape, 0)) for name, cell in space.cells.items()}
  groups = []
  for score, _, choices in _groups(space, scores, free):
    order = np.argsort(-score, kind='stable')
    groups.append((score[order], [choices[i] for i in order]))

  def entry(at):
    return -sum(score[i] for (score, _), i in zip(groups, at, strict=True)), at

  heap = [entry((0,) * len(groups))]
  while heap:
    _, at = heapq.heappop(heap)
    chosen = itertools.chain(*(kinds[i] for (_, kinds), i in zip(groups, at, strict=True)))
    yield _genotype(space, scores, tuple(chosen))
    last = max((i for i, which in enumerate(at) if which), default=0)
    for i in range(last, len(groups)):  # every one has one way to it, from one that is at least as probable
      if at[i] + 1 < len(groups[i][1]):
        heapq.heappush(heap, entry((*at[:i], at[i] + 1, *at[i + 1:])))


def one_hot(space: Space, genotype: Genotype) -> dict[str, np.ndarray]:
  """Mixing weights {cell: float32 [edges, ops]} that leave an architecture alone: 1 for what it keeps, 0 elsewhere."""
  weights = {}
  for name, cell in space.cells.items():
    weights[name] = np.zeros(cell.shape, np.float32)
    for op, source, target in genotype.cells[name]:
      edge = cell.edges.index((source, target))
      weights[name][edge, cell.ops[edge].index(op)] = 1
  return weights


def _genotype(space, scores, chosen: _Choice) -> Genotype:
  weights = {name: np.zeros(cell.shape) for name, cell in space.cells.items()}
  for name, edge, op in chosen:
    weights[name][edge, op] = max(scores[name][edge, op], _LEAST)  # the space puts the strongest first
  return space.genotype(weights)


def _groups(space, scores, costs):
  """(Scores [n], costs [n, k], choices [n]) of every edge, or of every node where nodes keep some edges."""
  for name, cell in space.cells.items():
    logs = np.log(np.maximum(np.asarray(scores[name], np.float64), _LEAST))
    cost = np.asarray(costs[name], np.float64)

    def of(edges, name=name, cell=cell, logs=logs, cost=cost):
      for ops in itertools.product(*(
          [op for op, word in enumerate(cell.ops[edge]) if space.kept is None or word != 'none'] for edge in edges)):
        pairs = list(zip(edges, ops))
        yield (sum(logs[pair] for pair in pairs), sum(cost[pair] for pair in pairs),
               tuple((name, edge, op) for edge, op in pairs))

    if space.kept is None:
      parts: list[list[tuple[int, ...]]] = [[(edge,)] for edge in range(len(cell.edges))]
    else:
      into = [[i for i, (_, target) in enumerate(cell.edges) if target == node]
              for node in range(cell.inputs, cell.nodes)]
      parts = [list(itertools.combinations(edges, min(space.kept, len(edges)))) for edges in into]
    for sets in parts:
      found = [option for edges in sets for option in of(edges)]
      yield np.array([f[0] for f in found]), np.array([f[1] for f in found]), [f[2] for f in found]


def _thinned(score, cost, choices):
  kept = _unbeaten(score, cost)
  return score[kept], cost[kept], [choices[i] for i in kept]


def _unbeaten(score: np.ndarray, cost: np.ndarray) -> np.ndarray:
  """Indices of the rows that no other has a score as high and costs as low as; of equals the first.

  Args:
    score: [n].
    cost: [n, k].
  """
  order = np.lexsort((*cost.T[::-1], -score))  # the highest score first, of these the lowest costs
  if cost.shape[1] == 1:
    sorted_cost = cost[order, 0]
    before = np.minimum.accumulate(np.concatenate([[np.inf], sorted_cost[:-1]]))
    return order[sorted_cost < before]
  kept = np.empty((0, cost.shape[1]))
  found = []
  for i in order:
    if not (kept <= cost[i]).all(1).any():
      kept = np.concatenate([kept, cost[i:i + 1]])
      found.append(i)
  return np.array(found)
