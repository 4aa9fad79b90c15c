import numpy as np
import pytest

from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import cost, genotypes
from vimnas_jax.spaces import Genotype


def _random(space, seed):
  rng = np.random.default_rng(seed)
  probs = {name: rng.dirichlet(np.ones(c.shape[1]), c.shape[0]) for name, c in space.cells.items()}
  return probs | {name: rng.dirichlet(np.ones(count), 1) for name, count in space.choices.items()}


@pytest.mark.parametrize('name', spaces.NAMES)
def test_notations_both_ways(name):
  space = spaces.get(name)
  for seed in range(20):
    genotype = space.genotype(_random(space, seed))
    assert space.read(space.write(genotype)) == genotype
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert space.validate(genotype) is genotype


def test_darts_keeps_the_two_strongest_edges_and_never_none():
  space = spaces.get('darts')
  probs = {name: np.full((14, 8), 0.01) for name in space.cells}
  probs['normal'][:, 0] = 0.93                          # none dominates everywhere
  probs['normal'][9:14, 4] = [0.02, 0.05, 0.03, 0.05, 0.04]  # into node 5, from 0 to 4
  kept = space.genotype(probs).cells['normal'][-2:]
  assert kept == (('sep_conv_3x3', 1, 5), ('sep_conv_3x3', 3, 5))  # equal strength: the lower source first
  assert all(op != 'none' for edges in space.genotype(probs).cells.values() for op, _, _ in edges)
  assert space.genotype(probs).cells['reduce'][0] == ('max_pool_3x3', 0, 2)  # a full tie: lowest source, lowest op


def test_nb201_may_keep_none_and_breaks_ties_low():
  space = spaces.get('nb201')
  probs = np.full((6, 5), 0.2)
  probs[3] = [0, 0, 0, 0.5, 0.5]
  assert space.write(space.genotype({'cell': probs})) == (
      '|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|')


def test_published_cells_are_read_from_their_own_notation():
  space = spaces.get('darts')
  text = space.write(genotypes.get('DARTS_V2'))
  assert text.startswith("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ")
  assert space.read(text) == genotypes.get('DARTS_V2')


@pytest.mark.parametrize('name', ['SDARTS_RS_s1', 'SDARTS_ADV_s1', 'SDARTS_PC_s1', 'SDARTS_RS_s2', 'SDARTS_ADV_s2',
                                  'SDARTS_PC_s2', 'DARTS_minus_s1', 'DARTS_minus_s2', 'SDARTS_RS_s3', 'SDARTS_PC_s3',
                                  'SDARTS_RS_s4', 'SDARTS_ADV_s4'])
def test_published_cells_of_the_simplified_spaces(name):
  """Each lies in its space, goes through its notation, and is what probabilities that favour it decode to."""
  space, full = spaces.get(name[-2:]), genotypes.get(name)
  genotype = space.validate(Genotype(space.name, full.cells))
  assert space.read(space.write(genotype)) == genotype
  sizes = {'cells': 20, 'channels': 36, 'num_classes': 10}
  assert cost.count(space, genotype, **sizes) == cost.count(spaces.get('darts'), full, **sizes)
  probs = {}
  for cell, graph in space.cells.items():
    probs[cell] = np.full(graph.shape, 0.1)
    for rank, (op, *edge) in enumerate(genotype.cells[cell]):
      e = graph.edges.index(tuple(edge))
      probs[cell][e, graph.ops[e].index(op)] = 0.9 - 0.01 * rank
  assert space.genotype(probs) == genotype


def test_noise_may_be_derived_and_none_may_not():
  for name, index, allowed in (('s4', 0, True), ('s3', 0, False)):
    space = spaces.get(name)
    probs = {cell: np.full(graph.shape, 0.1) for cell, graph in space.cells.items()}
    for p in probs.values():
      p[:, index] = 0.9
    ops = {op for edges in space.genotype(probs).cells.values() for op, _, _ in edges}
    assert (ops == {'noise'}) == allowed and 'none' not in ops


@pytest.mark.parametrize('act, word', [
    (lambda: spaces.get('dart'), 'dart'),
    (lambda: spaces.get('nb201').read('|conv~0|'), 'conv'),
    (lambda: spaces.get('darts').read('Genotype(normal=[])'), '8 expected'),
    (lambda: spaces.get('nb201').validate(genotypes.get('DARTS_V1')), "'darts'"),
    (lambda: Genotype.from_json('{"a"'), 'JSON'),
    (lambda: spaces.get('darts').macro(2, 16), '3 cells'),
    (lambda: spaces.get('nb201').genotype({'cell': np.ones((6, 4))}), '(6, 5)')])
def test_bad_input_is_one_line(act, word):
  with pytest.raises(UserError) as e:
    act()
  assert word in str(e.value) and '\n' not in str(e.value)
