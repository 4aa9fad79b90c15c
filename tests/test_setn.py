"""SETN: its two draws, its update, and the architectures that it tries at the end."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import one_line
from test_papers import VALID_XI, XI, make, same, setup

from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, rsps, setn


def test_theta_moves_on_a_uniform_path_and_then_alpha_on_the_mixture(x64):
  made, step, now, batch, loss, config = setup('setn', {'clip': 0.0})
  key = jax.random.key(3)
  train_key, valid_key = (jax.random.split(key, 4)[i] for i in (XI, VALID_XI))
  params, clock = now.phi['params'], Clock(0, 9)
  np.testing.assert_allclose(made.sample(now.phi, key, clock)[0]['cell'][0], jax.nn.softmax(params['cell']), rtol=1e-9)
  draw = jax.jit(jax.vmap(lambda i: made.sample_theta(now.phi, jax.random.key(i), clock)[0]['cell'][0]))
  share = np.asarray(draw(jnp.arange(3000)).mean(0))  # though alpha is far from uniform
  np.testing.assert_allclose(share, 0.2, atol=0.03)
  assert float(jnp.ptp(jax.nn.softmax(params['cell']))) > 0.15
  g_theta = jax.grad(loss)(now.theta, params, '', train_key, made.sample_theta)
  theta = jax.tree.map(lambda w, g: w - 0.025 * (g + 3e-4 * w), now.theta, g_theta)
  g_phi = jax.grad(loss, 1)(theta, params, 'valid_', valid_key)
  after, metrics = step(now, batch, key)
  same(after.theta, theta, rtol=1e-8)
  assert float(metrics['grad_phi']) == pytest.approx(float(optax.tree.norm(g_phi)), rel=1e-8)
  moment = optax.tree.get(after.opt_phi, 'mu')['cell'] / (1 - config.phi.momentum)
  np.testing.assert_allclose(moment, g_phi['cell'] + 1e-3 * params['cell'], rtol=1e-8, atol=1e-12)


def test_the_most_probable_architectures_of_nas_bench_201_against_all_of_them():
  space, log_p = spaces.get('nb201'), np.log(np.random.default_rng(0).dirichlet(np.ones(5), 6))
  found = setn.most_probable({'cell': log_p}, rsps.rules(space), 100)
  every = np.array(list(itertools.product(range(5), repeat=6)))
  order = np.argsort(-log_p[np.arange(6), every].sum(1), kind='stable')[:100]
  np.testing.assert_array_equal([weights['cell'].argmax(1) for weights in found], every[order])
  assert all((weights['cell'].sum(1) == 1).all() for weights in found)


def test_the_most_probable_architectures_where_nodes_keep_two_edges_against_all_of_them():
  """Of two small cells: nodes of two and of three edges, with three operations of which the first is `none`."""
  rng = np.random.default_rng(1)
  rules = {name: {'allowed': jnp.array([[False, True, True]] * 5), 'targets': jnp.array([2, 2, 3, 3, 3]),
                  'kept': jnp.array(2)} for name in ('a', 'b')}
  log_p = {name: np.log(rng.dirichlet(np.ones(3), 5)) for name in rules}
  ops = [(1, 2)] * 5
  of_cell = {}
  for name, rows in log_p.items():
    kinds = {}
    for pair in itertools.combinations((2, 3, 4), 2):
      edges = (0, 1, *pair)
      for chosen in itertools.product(*(ops[e] for e in edges)):
        kinds[tuple(zip(edges, chosen))] = sum(rows[e, o] for e, o in zip(edges, chosen))
    of_cell[name] = kinds
  wanted = sorted(((a + b, one, two) for (one, a), (two, b) in itertools.product(
      of_cell['a'].items(), of_cell['b'].items())), reverse=True)
  assert len(wanted) == (4 * 12) ** 2
  found = setn.most_probable(log_p, rules, 60)
  for weights, (total, one, two) in zip(found, wanted):
    got = [tuple(zip(*map(np.ndarray.tolist, np.nonzero(weights[name])))) for name in rules]
    assert got == [one, two], total
  assert len(setn.most_probable(log_p, rules, 10_000)) == len(wanted)  # all there are


@pytest.mark.parametrize('name', ['nb201', 'darts', 's2', 'oneshot1'])
def test_the_first_that_is_tried_is_what_the_space_reads_off_alpha(name):
  made, space = make('setn', tries=7), spaces.get(name)
  phi = made.init(jax.random.key(0), space)
  phi = {**phi, 'params': jax.tree.map(lambda alpha: 1000 * alpha, phi['params'])}
  tried = []

  def rate(weights, i):
    tried.append(weights)
    return [10, 30, 50, 20, 50, 0, 40][i]

  best = made.derive(rate, phi, None)
  rows = {row: np.full((1, count), 1 / count) for row, count in space.choices.items()}
  read = [space.genotype({**weights, **rows}) for weights in tried]
  first = space.genotype(jax.device_get({**made.probs(phi), **rows}))
  assert {name: set(edges) for name, edges in read[0].cells.items()} == {
      name: set(edges) for name, edges in first.cells.items()}  # which may have another order
  assert best is tried[2] and len({str(weights) for weights in tried}) == 7


def test_bad_fields_are_told():
  with pytest.raises(UserError, match='tries=0') as error:
    make('setn', tries=0)
  one_line(error)
