"""Limits and methods that find their architecture by trying some, by a draw, or edge by edge."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from test_constraints import tiny  # noqa: F401 (a fixture)

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import methods, spaces
from vimnas_jax.spaces import within
from vimnas_jax.verbs import constraints

SPACE = spaces.get('nb201')
TRIES = {'rsps': {'tries': 20}, 'enas': {'tries': 20}, 'setn': {'tries': 20}, 'random': {'budget': 20},
         'reinforce': {'budget': 20}}


def convolutions(genotype):
  return sum(op == 'nor_conv_3x3' for op, *_ in genotype.cells['cell'])


def made(name, **fields):
  return methods.get(ConfigDict({'name': name, **methods.fields(name), **fields}), SPACE)


class Rate:
  """The more convolutions the better."""

  space = SPACE

  def __init__(self):
    self.asked = []

  def __call__(self, weights, i):
    self.asked.append(convolutions(SPACE.genotype(jax.device_get(weights))))
    return 10.0 * self.asked[-1]


@pytest.mark.parametrize('name', TRIES)
@pytest.mark.parametrize('most', [1, 6])
def test_only_what_keeps_the_limits_is_tried(name, most):
  """Nothing that exceeds the limit is asked for, and of the rest the best is taken."""
  method, rate = made(name, **TRIES[name]), Rate()
  limited = constraints.Limited(rate, types.SimpleNamespace(keeps=lambda genotype: convolutions(genotype) <= most))
  phi = method.init(jax.random.key(0), SPACE)
  found = convolutions(SPACE.genotype(jax.device_get(method.derive(limited, phi, jax.random.key(1)))))
  assert max(rate.asked) == found <= most and (name == 'reinforce' or len(rate.asked) == 20)
  assert limited.space is SPACE


@pytest.mark.parametrize('name', ['rsps', 'enas', 'setn', 'random'])
def test_where_nothing_that_is_tried_keeps_the_limits_they_are_rated_without(name):
  """The best of as many as without a limit: what then changes in it is told (constraints.FEWEST)."""
  method, rate, free = made(name, **TRIES[name] | ({'tries': 4} if name != 'random' else {'budget': 4})), Rate(), Rate()
  limited = constraints.Limited(rate, types.SimpleNamespace(keeps=lambda genotype: False))
  phi = method.init(jax.random.key(0), SPACE)
  found, without = (method.derive(by, phi, jax.random.key(1)) for by in (limited, free))
  assert rate.asked == free.asked and len(rate.asked) == 4
  np.testing.assert_array_equal(found['cell'], without['cell'])


def test_without_a_limit_as_many_are_tried_as_asked_for():
  asked, method = [], made('rsps', tries=7)
  method.derive(lambda weights, i: asked.append(i) or -i, method.init(jax.random.key(0), SPACE), jax.random.key(1))
  assert asked == list(range(7))


def test_a_random_architecture_is_drawn_again_until_one_keeps_the_limits(tiny, tmp_path):  # noqa: F811
  tiny.method = ConfigDict({'name': 'random', 'budget': 0})
  changes = 'epochs=0.0 limit.params=300.0 limit.cells=1 limit.channels=8'
  found = [vimnas_jax.search(config_lib.changed(tiny, f'{changes} seed={seed}'), tmp_path / str(seed))
           for seed in range(4)]
  assert all(one['limit']['kept'] and one['limit']['repaired'] is None for one in found)
  assert len({one['genotype'] for one in found}) == 1
  assert {one['limit']['drawn_again'] for one in found} == {True, False}
  assert len({str(one['probs']) for one in found}) == 1  # those of what was taken


def test_what_sgas_has_decided_is_replaced_by_what_came_next():
  method = made('sgas')
  phi = method.init(jax.random.key(0), SPACE)
  names = SPACE.cells['cell'].ops[0]
  best, next_best = names.index('nor_conv_3x3'), names.index('nor_conv_1x1')
  alpha = jnp.zeros((6, 5)).at[:, best].set(3).at[:, next_best].set(2).at[:, names.index('none')].set(2.5)
  own = {**phi['fixed']['cell'], 'alpha': alpha, 'chosen': jnp.full(6, best)}
  phi = {'params': {'cell': alpha}, 'fixed': {'cell': own}}
  costs = {'cell': np.zeros((6, 5, 1))}
  costs['cell'][:, best], costs['cell'][:, next_best] = 9, 1
  scores, odds = method.scores(phi), jax.device_get(method.odds(phi))
  assert convolutions(SPACE.genotype(jax.device_get(scores))) == 6 and (odds['cell'][:, names.index('none')] == 0).all()
  found = within.best(SPACE, odds, costs, [30])
  assert sorted(op for op, *_ in found.cells['cell']) == 3 * ['nor_conv_1x1'] + 3 * ['nor_conv_3x3']
