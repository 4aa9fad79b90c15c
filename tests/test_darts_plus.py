"""DARTS+: what it counts, when it stops, and a run that ends early."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ONE_EDGE, SLOW
from test_papers import SPACE, VALID_XI, XI, first_adam_step, make, same, setup

import vimnas_jax
from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Clock, darts_plus

KEY = jax.random.key(3)


@pytest.mark.parametrize('name', ['darts', 's1', 'nb201'])
def test_it_counts_the_skip_connections_that_would_be_derived(name):
  made, space = make('darts_plus'), spaces.get(name)
  own = made.init(KEY, space)['fixed']['cells']
  assert set(own) == ({'cell'} if name == 'nb201' else {'normal'})
  (cell, rule), = [(cell, of['rule']) for cell, of in own.items()]
  count, rng, seen = jax.jit(darts_plus.skips), np.random.default_rng(0), set()
  for _ in range(40):
    alphas = {key: jnp.array(rng.normal(size=of.shape), jnp.float32) for key, of in space.cells.items()}
    found = space.genotype({key: jax.nn.softmax(alpha) for key, alpha in alphas.items()})
    wanted = sum(op == 'skip_connect' for op, *_ in found.cells[cell])
    assert int(count(alphas[cell], rule)) == wanted
    seen.add(wanted)
  assert len(seen) > 2
  tied = jnp.zeros(space.cells[cell].shape)
  found = space.genotype({key: np.full(of.shape, 1 / of.shape[1]) for key, of in space.cells.items()})
  assert int(count(tied, rule)) == sum(op == 'skip_connect' for op, *_ in found.cells[cell])


def steps_to_stop(made, space, alphas, steps):
  """After how many of `steps` steps it is stopped, alpha of the cell being alphas(step) after each; None for never."""
  after = jax.jit(lambda phi, alpha, step: made.after({**phi, 'params': {**phi['params'], 'cell': alpha}},
                                                      Clock(step, steps)))
  phi, told = made.init(KEY, space), None
  for step in range(1, steps + 1):
    phi = after(phi, jnp.array(alphas(step), jnp.float32), step)
    if made.stopped(phi) and told is None:
      told = step
  return told


def chosen(*ops):
  return lambda _: np.eye(5)[list(ops)] + 1e-3 * np.arange(5)


def test_it_stops_at_two_skip_connections_but_not_before_its_first_turns():
  made = make('darts_plus', stop_by='skips')
  assert steps_to_stop(made, SPACE, chosen(1, 1, 3, 3, 3, 3), 100) == 20  # ten turns of two steps
  assert steps_to_stop(made, SPACE, chosen(1, 3, 3, 3, 3, 3), 100) is None
  late = steps_to_stop(made, SPACE, lambda step: chosen(*([1] * 3 if step >= 51 else [3] * 3), 2, 2, 2)(0), 100)
  assert late == 52  # where a turn ends
  assert steps_to_stop(make('darts_plus', stop_by='skips', skips=3), SPACE, chosen(1, 1, 3, 3, 3, 3), 100) is None
  assert steps_to_stop(made, SPACE, chosen(1, 1, 3, 3, 3, 3), 7) == 2  # a search of fewer steps than turns


def test_it_stops_when_the_ranking_of_what_has_weights_is_stable():
  rng = np.random.default_rng(0)
  made = make('darts_plus', stop_by='ranking')

  def alphas(step):  # the convolutions, 2 and 3, change places up to turn 20; the others always do
    rows = rng.normal(size=(6, 5))
    rows[:, 2:4] = [0.0, 1.0]
    if step <= 40 and step % 4 in (1, 2):
      rows[5, 2:4] = [1.0, 0.0]
    return rows

  assert steps_to_stop(made, SPACE, alphas, 100) == 2 * (20 + 10)
  assert steps_to_stop(make('darts_plus', stop_by='ranking', stable=35), SPACE, alphas, 100) is None


def test_its_update_is_that_of_darts(x64):
  _, step, now, batch, loss, config = setup('darts_plus')
  train_key, valid_key = (jax.random.split(KEY, 4)[i] for i in (XI, VALID_XI))
  g_phi = jax.jit(jax.grad(lambda p: loss(now.theta, p, 'valid_', valid_key)))(now.phi['params'])
  params = first_adam_step(now.phi['params'], g_phi, config)
  g_theta = jax.jit(jax.grad(lambda theta: loss(theta, params, '', train_key)))(now.theta)
  after, metrics = step(now, batch, KEY)
  same(after.phi['params'], params, rtol=1e-6)
  norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(g_theta)))
  assert float(metrics['grad_theta']) == pytest.approx(float(norm), rel=1e-6)
  assert metrics['stopped'] == 0.0 and 'skips/cell' in metrics


@SLOW
def test_a_search_ends_early_and_stays_ended(tmp_path, capsys):
  """One skip connection is enough here, after half of ten turns; the run resumed says the same."""
  config = vimnas_jax.configure('nb201_c10', {
      'data.name': 'synthetic', 'data.image_size': 8, 'data.num_train': 64, 'space.name': ONE_EDGE, 'space.cells': 1,
      'space.channels': 8, 'method.name': 'darts_plus', 'method.skips': 1, 'method.turns': 10, 'method.first': 5,
      'method.stop_by': 'skips', 'phi.lr': 0.0}, batch_size=4, devices=1, log_steps=100, checkpoint_steps=100)
  for seed in range(9):  # one at whose start the edge is a skip connection
    config.seed = seed
    if jax.random.normal(jax.random.fold_in(jax.random.split(jax.random.key(seed), 3)[1], 0), (1, 2)).argmax() == 0:
      break
  result = vimnas_jax.search(config, tmp_path / 'run')
  assert result['steps'] == 4 < result['planned_steps'] and 'skip_connect' in result['genotype']
  assert '4 of 8 steps: the method was at its end' in capsys.readouterr().out
  assert vimnas_jax.search(config, tmp_path / 'run') == result


@pytest.mark.parametrize('space, fields, told', [
    ('s4', {}, 'no skip connection and no edge with two.*set another config.method.name'),
    ('oneshot2', {'stop_by': 'skips'}, "stop_by='skips'.*no skip"),
    ('s2', {'stop_by': 'ranking'}, 'has no edge with two operations.*set config.method.stop_by=either')])
def test_a_space_on_which_it_can_not_stop_is_told(space, fields, told):
  with pytest.raises(UserError, match=told) as error:
    make('darts_plus', **fields).init(KEY, spaces.get(space))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('fields', [{'stop_by': 'epochs'}, {'skips': 0}, {'turns': 0}, {'first': -1}])
def test_bad_fields_are_told(fields):
  with pytest.raises(UserError, match=next(iter(fields))):
    make('darts_plus', **fields)
