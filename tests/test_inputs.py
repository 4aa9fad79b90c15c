import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vimnas_jax import api, methods, spaces
from vimnas_jax import config as config_lib
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, inputs
from vimnas_jax.spaces import Cell
from vimnas_jax.verbs import outcome

OPS = ('none', 'skip_connect', 'sep_conv_3x3')
MIXED = jax.jit(inputs.mixed, static_argnums=(0, 1))  # compiled whole: one program a primitive takes longer
CELL = Cell(2, ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), (OPS,) * 5, (2, 3))


def _listed(probs, kept):
  """By hand: the mean, over all architectures whose nodes keep `kept` edges, of the edges' one-hot rows."""
  every = np.array(list(itertools.product(range(len(OPS)), repeat=len(CELL.edges))))
  counts = np.stack([(every[:, :2] > 0).sum(1), (every[:, 2:] > 0).sum(1)], 1)  # into nodes 2 and 3
  every = every[(counts == [min(kept, 2), min(kept, 3)]).all(1)]
  weights = jnp.prod(probs[np.arange(len(CELL.edges)), every], 1)
  return (weights[:, None, None] * np.eye(len(OPS))[every]).sum(0) / weights.sum()


@pytest.mark.parametrize('kept', [1, 2, 3])
def test_inputs_are_those_of_all_architectures_of_the_space(x64, kept):
  logits = 2 * jax.random.normal(jax.random.key(kept), (5, 3), float)
  wanted = jax.random.normal(jax.random.key(9), (5, 3), float)

  def of(f):
    return jax.jit(jax.value_and_grad(lambda rows: (wanted * f(jax.nn.softmax(rows))).sum()))(logits)

  (value, slope), (expected, by_hand) = of(lambda p: MIXED(CELL, kept, p)), of(lambda p: _listed(p, kept))
  np.testing.assert_allclose(value, expected, rtol=1e-10)
  np.testing.assert_allclose(slope, by_hand, rtol=1e-8, atol=1e-12)


def test_samples_go_by_themselves_and_rows_stay_probabilities():
  logits = 3 * jax.random.normal(jax.random.key(0), (4, 5, 3))
  found = MIXED(CELL, 2, jax.nn.softmax(logits))
  np.testing.assert_allclose(found[1], MIXED(CELL, 2, jax.nn.softmax(logits[1])), rtol=1e-6)
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
  np.testing.assert_allclose(found[..., 1:].sum(-1)[:, 2:].sum(-1), 2, rtol=1e-6)  # node 3 keeps two of three


def test_rows_without_a_doubt_stay_finite():
  """Where float32 has a probability of exactly 0 or 1, of `none` or of all else."""
  rows = np.zeros((5, 3), np.float32)
  rows[[0, 2, 3], 0] = 1  # none
  rows[[1, 4], 2] = 1
  found, slope = jax.jit(jax.value_and_grad(lambda p: inputs.mixed(CELL, 2, p)[..., 2].sum()))(jnp.asarray(rows))
  assert np.isfinite(found) and np.isfinite(slope).all()
  kept = np.asarray(MIXED(CELL, 2, jnp.asarray(rows)))
  np.testing.assert_allclose(kept[4], [0, 0, 1], atol=1e-6)


def test_the_strongest_two_inputs_are_read_off_where_all_edges_have_decided():
  """Edges that are all near 1 by themselves: the two that are furthest from `none` have all of it."""
  space = spaces.get('darts')
  logits = np.zeros((14, 8), np.float32)
  logits[:, 4] = 30
  logits[:, 0] = [0, 0, 0, 5, 9, 9, 0, 5, 2, 10, 9, 0, 7, 1]
  probs = jax.nn.softmax(jnp.asarray(logits))
  assert (np.asarray(probs)[:, 4] == 1).sum() > 8
  mixed = np.asarray(MIXED(space.cells['normal'], 2, probs))
  kept = space.genotype({'normal': mixed, 'reduce': mixed}).cells['normal']
  assert {(source, target) for _, source, target in kept} == {(0, 2), (1, 2), (0, 3), (1, 3), (1, 4), (3, 4), (2, 5),
                                                              (4, 5)}


def _vimnas(space, **fields):
  return methods.get(ConfigDict({'name': 'vimnas', **methods.fields('vimnas'), 'networks': 2, **fields}), space)


def test_the_method_mixes_what_the_space_keeps():
  """Two inputs a node in the DARTS space; where every edge is kept, or none can be left out, nothing changes."""
  restricted = {name: bool(spaces.get(name).restricted) for name in ('darts', 's1', 's2', 's3', 's4', 'nb201')}
  assert restricted == {'darts': True, 's1': False, 's2': False, 's3': True, 's4': False, 'nb201': False}
  space, key = spaces.get('darts'), jax.random.key(0)
  method, plain = _vimnas(space, centred=False), _vimnas(space, centred=False, node_inputs='all')
  assert inputs.within(plain, spaces.get('nb201')) is plain

  @jax.jit
  def both(key):
    phi = method.init(key, space)
    return [(each.sample(phi, key, Clock(1, 2))[0], each.probs(phi)) for each in (method, plain)]

  for found, alone in zip(*both(key)):
    for cell, rows in found.items():
      own = space.cells[cell]
      np.testing.assert_allclose(rows, MIXED(own, 2, alone[cell]), rtol=1e-4, atol=1e-7)
      assert not np.allclose(rows, alone[cell], atol=1e-3)
      into = np.array([target for _, target in own.edges])
      sums = [rows[..., into == node, 1:].sum((-1, -2)) for node in range(2, 6)]
      np.testing.assert_allclose(sums, 2 * np.ones_like(sums), rtol=1e-5)


def test_too_many_sets_are_refused_in_one_line():
  edges = tuple((source, 24) for source in range(24))
  wide = Cell(24, edges, (OPS,) * 24, (24,))
  space = dataclasses.replace(spaces.get('darts'), cells={'normal': wide}, kept=12)
  with pytest.raises(UserError, match=r"2,704,156 sets of 12.*config\.method\.node_inputs='all'"):
    _vimnas(space)


def test_logits_that_are_far_apart_make_no_ties():
  """Of node 5's inputs 3 and 4 are furthest from `none`, where float32 has hardly a probability for that."""
  space = spaces.get('darts')
  logits = np.zeros((14, 8), np.float32)
  logits[:, 4], logits[9:, 0] = 60, [14, 8, 2, -4, -10]
  share = 1 - np.asarray(MIXED(space.cells['normal'], 2, jax.nn.softmax(jnp.asarray(logits))))[9:, 0]
  np.testing.assert_allclose(share, [0, 0, 0, 1, 1], atol=0.01)


@pytest.mark.parametrize('name', ['s2', 's4'])
def test_inputs_are_read_off_where_float32_has_1_for_every_edge(name):
  """No edge can be none there, so inputs do not compete: those of the most probable operations, not the first ones."""
  space, rng = spaces.get(name), np.random.default_rng(0)
  method = _vimnas(space, variant='table', bound=0.0, sharpen=1.0, sharpen_last=1.0)
  phi, margins = jax.jit(lambda: method.init(jax.random.key(0), space))(), {}
  for cell, rows in phi['params'].items():
    margins[cell] = rng.permutation(np.linspace(20, 33, 14))
    rows['mu'] = jnp.zeros((1, 14, 2)).at[0, :, 1].set(margins[cell])
  probs, logs = method.probs(phi), method.logs(phi)
  assert all((np.asarray(rows)[:, 1] == 1).all() for rows in probs.values())
  exact = outcome.exact(probs, logs)
  found = space.genotype(exact)
  for cell, own in space.cells.items():
    np.testing.assert_allclose(exact[cell], probs[cell], rtol=1e-6)
    best = {own.edges[e] for node in range(2, 6) for e in sorted(
        (i for i, (_, target) in enumerate(own.edges) if target == node), key=lambda e: -margins[cell][e])[:2]}
    assert {(source, target) for _, source, target in found.cells[cell]} == best
  assert found.unordered != space.genotype({cell: np.asarray(rows) for cell, rows in probs.items()}).unordered


def test_where_nothing_changes_a_configuration_says_so_and_a_bad_value_is_refused():
  """Runs of NAS-Bench-201 that are older than the field go on, and are of one experiment with new ones."""
  found = {name: config_lib.resolve(api.configure(name, {})).method.node_inputs
           for name in ('nb201_c10', 'darts_c10', 'simplified_c10:s3', 'simplified_c10:s1', 'darts_c10:strict')}
  assert found == {'nb201_c10': 'all', 'darts_c10': 'kept', 'simplified_c10:s3': 'kept', 'simplified_c10:s1': 'all',
                   'darts_c10:strict': 'all'}
  with pytest.raises(UserError, match="node_inputs='two': choose one of kept, all"):
    config_lib.resolve(api.configure('darts_c10', {'method.node_inputs': 'two'}))


@pytest.mark.parametrize('kept', [1, 2])
def test_architectures_are_ranked_by_how_probable_they_are(x64, kept):
  """The product of odds over kept edges is that of all edges' probabilities, `none` included, but for one factor."""
  probs = np.asarray(jax.nn.softmax(2 * jax.random.normal(jax.random.key(kept), (5, 3), float)))
  odds = np.asarray(inputs.odds(CELL, jnp.asarray(probs)))
  assert (odds[:, 0] == 0).all() and odds.max() == 1
  every = np.array(list(itertools.product(range(3), repeat=5)))
  every = every[((every[:, :2] > 0).sum(1) == min(kept, 2)) & ((every[:, 2:] > 0).sum(1) == kept)]
  whole = np.prod(probs[np.arange(5), every], 1)
  of_kept = np.prod(np.where(every > 0, odds[np.arange(5), every], 1), 1)
  np.testing.assert_allclose(of_kept / of_kept.max(), whole / whole.max(), rtol=1e-9)


def test_odds_of_a_method_that_mixes_all_inputs_are_none_of_its_own():
  space = spaces.get('darts')
  method = _vimnas(space, centred=False)
  assert _vimnas(space, node_inputs='all').odds is None and _vimnas(spaces.get('nb201')).odds is None

  @jax.jit
  def both(key):
    phi = method.init(key, space)
    return method.probs(phi), method.odds(phi)

  probs, odds = both(jax.random.key(1))
  for name, cell in space.cells.items():
    some, inside = np.asarray(odds[name])[:, 1:], np.asarray(probs[name])[:, 1:]
    np.testing.assert_allclose(some / some.sum(1, keepdims=True), inside / inside.sum(1, keepdims=True), rtol=1e-4)
    shares = 1 - np.asarray(probs[name])[:, 0]
    for node in range(2, 6):
      into = [i for i, (_, target) in enumerate(cell.edges) if target == node]
      assert (np.argsort(some.sum(1)[into]) == np.argsort(shares[into])).all() or node == 2
