"""Choices that nothing but an order made."""

import numpy as np
import pytest

from vimnas_jax import spaces
from vimnas_jax.verbs import outcome


def drawn(space, seed=0):
  rng = np.random.default_rng(seed)
  return {name: rng.dirichlet(np.ones(cell.shape[1]), cell.shape[0]) for name, cell in space.cells.items()}


@pytest.mark.parametrize('name', ['darts', 's1', 's2', 's4', 'nb201'])
def test_scores_that_differ_are_no_ties(name):
  space = spaces.get(name)
  for seed in range(5):
    scores = drawn(space, seed)
    assert outcome.ties(space, scores, space.genotype(scores)) == []
    one_hot = {cell: (rows == rows.max(1, keepdims=True)).astype(np.float32) for cell, rows in scores.items()}
    found = outcome.ties(space, one_hot, space.genotype(one_hot))
    assert bool(found) == bool(space.kept)  # every edge has decided, and none is before another


def test_inputs_and_operations_that_tie_are_named():
  space = spaces.get('darts')
  scores = {name: np.round(rows, 3) * 0.5 for name, rows in drawn(space, 1).items()}
  into = [e for e, (_, target) in enumerate(space.cells['normal'].edges) if target == 4]
  scores['normal'][into] = 0.01
  scores['normal'][into, 4] = 0.75  # three edges of the same operation, two of which are kept
  reduce = space.genotype(scores).cells['reduce'][0]
  edge = space.cells['reduce'].edges.index(reduce[1:])
  scores['reduce'][edge] = 0.8  # all operations of an edge that is kept
  assert outcome.ties(space, scores, space.genotype(scores)) == ['normal: node 4', f'reduce: node {reduce[2]}']
  scores['normal'][into[0], 4] += 1e-15
  scores['normal'][into[1], 4] += 2e-15
  scores['reduce'][edge, 3] += 1e-15
  assert outcome.ties(space, scores, space.genotype(scores)) == []


def test_of_a_graph_that_is_searched_nothing_is_said():
  space = spaces.get('oneshot1')
  scores = {name: np.ones(cell.shape) for name, cell in space.cells.items()} | {
      name: np.ones((1, count)) for name, count in space.choices.items()}
  assert outcome.ties(space, scores, space.genotype(scores)) == []
