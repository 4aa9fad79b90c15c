"""Hours that a run may take: what is decided, kept across a kill, and ended in time."""

import json
import types
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ONE_EDGE, SLOW, Cut, one_line
from ml_collections import ConfigDict
from test_search_resume import asked

from vimnas_jax import config as config_lib
from vimnas_jax import methods
from vimnas_jax.errors import UserError
from vimnas_jax.runs import budget, checkpoint, loop, metrics, parallel, signals, state, steps
from vimnas_jax.verbs import outcome, search


@pytest.fixture
def clock(monkeypatch):
  """Seconds that pass only as a test says: clock[0]."""
  now = [100.0]
  monkeypatch.setattr(budget.time, 'monotonic', lambda: now[0])
  return now


def config(hours=1.0, epochs=10.0):
  return ConfigDict({'max_hours': hours, 'epochs': epochs, 'pretrain': {'epochs': 2.0}})


def made(folder, **fields):
  found = budget.of(folder, config(**fields))
  found.told = lambda text: None
  return found


def test_without_a_limit_there_is_none(tmp_path):
  assert budget.of(tmp_path, config(0.0)) is None and not list(tmp_path.iterdir())


def test_what_fits_stays_and_what_does_not_is_shortened_once(tmp_path, clock):
  fits = made(tmp_path)
  fits.decide(0, 100, 3000, 10)
  assert fits.fitted().epochs == 10 and not fits.facts()['shortened']
  (tmp_path / 'b').mkdir()
  long = made(tmp_path / 'b')
  clock[0] += 540  # of an hour, of which a minute is for the end: 3000 s are left
  with pytest.raises(budget.Shortened):
    long.decide(0, 1000, 12000, 50)
  part = 0.9 * (3000 - 50) / 12000
  assert long.fitted().epochs == pytest.approx(10 * part) and long.fitted().pretrain.epochs == pytest.approx(2 * part)
  long.decide(0, 200, 1e9, 50)  # of the shorter run: it is decided
  again = made(tmp_path / 'b')  # after a kill
  assert again.fitted().epochs == long.fitted().epochs and again.facts()['seconds_spent'] == pytest.approx(540)
  again.decide(0, 200, 1e9, 50)
  assert again.facts()['shortened'] and again.facts()['epochs_asked'] == 10


def test_a_plan_has_some_steps_and_a_run_with_steps_behind_it_keeps_its_plan(tmp_path, clock):
  none, said = made(tmp_path, hours=0.001), []
  none.told = said.append
  none.decide(5, 1000, 1e6, 1)
  assert none.fitted().epochs == 10
  with pytest.raises(budget.Shortened):
    none.decide(0, 1000, 1e6, 1)
  assert none.fitted().epochs == pytest.approx(10 * 10 / 1000)
  assert 'max_hours=0.001 is too short: 1 s of compiling' in said[-1]
  hours = float(said[-1].split('--config.max_hours=')[1].split()[0])  # for a hundred steps of a thousand seconds
  assert hours == pytest.approx(100 * 1000 / 0.9 / 0.85 / 3600, rel=0.01)


def test_time_is_up_and_that_is_remembered(tmp_path, clock):
  one = made(tmp_path)
  clock[0] += 2000
  one.save()
  assert not one.over(5)
  two = made(tmp_path)  # time in between does not count
  clock[0] += 1500
  assert not two.over(5)
  clock[0] += 100
  assert two.over(5) and not two.over(0)
  two.save(ended=5)
  assert made(tmp_path).ended(5) and not made(tmp_path).ended(4)
  row = {'budget': two.facts(), 'steps': 5, 'planned_steps': 9, 'epochs': 10}
  assert budget.line(row) == ['length         time was up after step 5 of 9, its schedule unfinished']
  assert budget.line(row | {'pretrain_steps': 4}) == budget.line(row)
  assert 'nothing was searched: this architecture' in budget.line(row | {'pretrain_steps': 5})[0]
  assert budget.line({}) == []


def test_a_retraining_has_what_the_search_left(tmp_path, clock):
  search = budget.of(tmp_path, config(), budget.SEARCH)
  clock[0] += 900
  search.save()
  (tmp_path / 'retrain').mkdir()
  assert json.loads((tmp_path / 'plan.json').read_text())['limit_seconds'] == 1200
  assert made(tmp_path / 'retrain')._plan['limit_seconds'] == 2700
  (tmp_path / 'plan.json').write_text('{"seconds_spent": "x", "epochs": []}')
  with pytest.raises(UserError, match='plan.json is damaged') as e:
    made(tmp_path)
  one_line(e)


@flax.struct.dataclass
class State:
  step: Any
  total: Any


class Run:
  """Adds up the indices of its steps."""

  def __init__(self, limit, epochs):
    self.config = ConfigDict({'checkpoint_keep': 2, 'checkpoint_hours': 0.0, 'dry_run': False})
    self.limit, self.total, self.programs = limit, round(epochs * 10), {}
    self._step = jax.jit(lambda state, held, index: (State(state.step + 1, state.total * 3 + index[0]),
                                                     {'loss': jnp.float32(1)}), donate_argnums=0)

  def start(self):
    return jax.device_put(State(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)),
                          parallel.replicated(parallel.mesh(1, 1)))

  def abstract(self, step=0):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.start())

  def finished(self, now):
    return int(now.step) >= self.total or self.limit.ended(int(now.step))

  def advance(self, now, folder, saved, console, stop):
    if self.finished(now):
      return now, None
    return loop.advance(loop.Loop(self.total, lambda at: self._step, (), lambda at: jnp.asarray([at]),
                                  lambda *_: '', 10, 5, '', budget=self.limit,
                                  programs=self.programs), now, saved, console, stop)


def test_a_loop_ends_in_time_with_a_result_and_goes_on_with_its_plan(tmp_path, monkeypatch):
  limit = made(tmp_path, hours=1.0, epochs=4.0)
  monkeypatch.setattr(limit, 'over', lambda step: step >= 13)
  told = []
  console = metrics.Console()
  monkeypatch.setattr(console, 'say', told.append)
  with signals.Stop(listens=False) as stop:
    ended = loop.to_the_end(Run(limit, 4.0), tmp_path, console, stop, lambda now, pace: (int(now.step), int(now.total)))
  want = 0
  for at in range(13):
    want = int(jnp.int32(want * 3 + at))
  assert ended == (13, want) and checkpoint.Checkpoints(tmp_path).steps()[0] == 13
  assert any('s a step (measured), 40 steps: about' in line for line in told), told
  with signals.Stop(listens=False) as stop:  # the same command again: it is at its end
    again = loop.to_the_end(Run(made(tmp_path, epochs=4.0), 4.0), tmp_path, console, stop,
                            lambda now, pace: (int(now.step), pace))
  assert again == (13, None)


def test_what_is_compiled_for_a_plan_serves_a_shorter_one(tmp_path, monkeypatch):
  limit, told, console = made(tmp_path, epochs=4.0), [], metrics.Console()
  monkeypatch.setattr(console, 'say', told.append)
  decide = limit.decide
  monkeypatch.setattr(limit, 'decide', lambda step, steps, *_: decide(step, steps, 7200.0, 0.0))
  run = Run(limit, 4.0)
  with signals.Stop(listens=False) as stop:
    with pytest.raises(budget.Shortened):
      loop.to_the_end(run, tmp_path, console, stop, lambda now, pace: None)
    assert 'compiling the step …' in told
    run.total = round(limit.fitted().epochs * 10)
    told.clear()
    assert loop.to_the_end(run, tmp_path, console, stop, lambda now, pace: int(now.step)) == run.total < 20
  assert not any('compil' in line for line in told), told


def test_a_search_that_was_ended_early_tells_the_probabilities_that_it_had(tmp_path, monkeypatch):
  """Not those of its planned end, to which phi would have been scaled up by then; after a step with no line else."""
  c = config_lib.defaults()
  c.data.name, c.data.image_size, c.data.num_train = 'synthetic', 8, 80
  c.space.name, c.space.cells, c.space.channels, c.batch_size, c.log_steps = ONE_EDGE, 1, 8, 8, 4
  c.devices, c.method.variant, c.method.samples, c.trust = 1, 'small', 2, ONE_EDGE
  c.method.sharpen, c.phi.lr, c.phi.steps, c.epochs, c.max_hours = 50.0, 1.0, 0, 2.0, 1.0
  c.pretrain.epochs = 0.0
  monkeypatch.setattr(budget.Budget, 'over', lambda self, step: step >= 6)
  result = search.search(config_lib.resolve(c), tmp_path)
  assert result['budget']['ended_after_step'] == result['steps'] == 6 < result['planned_steps']
  last = metrics.read(tmp_path / 'arch.jsonl')[-1]
  assert last['step'] == 6 and result['one_hot'] == pytest.approx(last['one_hot'], abs=1e-4) and last['one_hot'] < 0.9
  for name, rows in last['probs'].items():
    np.testing.assert_allclose(result['probs'][name], rows, atol=2e-5)


@pytest.mark.parametrize('at, says', [
    (3, 'nothing was searched'), (6, 'nothing was searched'), (7, ''), (20, '')])
def test_a_search_that_ended_before_phi_moved_says_so(at, says):
  """Steps of theta alone before the search, and within it, as PC-DARTS has them."""
  run = types.SimpleNamespace(phases=(steps.Phase('pretrain', 4, None), steps.Phase('search_0', 6, None),
                                      steps.Phase('search', 20, None, own=True)))
  run.phase = lambda step: next(phase for phase in run.phases if step < phase.end)
  result = {'steps': at, 'planned_steps': 20, 'pretrain_steps': 4, 'phi_moved': outcome._moved(run, at),
            'budget': {'shortened': False, 'ended_after_step': at if at < 20 else None}}
  assert (says in ' '.join(budget.line(result))) and ('nothing' in ' '.join(budget.line(result))) == bool(says)


def test_a_later_stage_that_ended_before_phi_moved_says_that():
  """Of a supernet that grows: the stage before has moved it."""
  run = types.SimpleNamespace(phases=(
      steps.Phase('search_0', 10, None, own=True), steps.Phase('search_1', 16, None, depth=1),
      steps.Phase('search', 30, None, depth=1, own=True)))
  run.phase = lambda step: next(phase for phase in run.phases if step < phase.end)
  assert [outcome._moved(run, at) for at in (0, 5, 10, 12, 16, 17)] == [False, True, True, 'before', 'before', True]
  result = {'steps': 12, 'planned_steps': 30, 'pretrain_steps': 0, 'phi_moved': 'before',
            'budget': {'shortened': False, 'ended_after_step': 12}}
  assert 'its last stage had not moved phi yet' in budget.line(result)[0] and 'nothing' not in budget.line(result)[0]


def test_r_darts_ended_by_the_clock_takes_the_best_search_that_was_finished():
  method = methods.get(ConfigDict({'name': 'rdarts_l2', **methods.fields('rdarts_l2')}))
  best, now = ({'w': 1}, {'cell': 2}), ({'w': 3}, {'cell': 4})
  held = state.SearchState(0, now[0], {'params': now[1], 'fixed': {'best': best, 'error': 0.3}}, (), (), None)
  taken = method.early(held)
  assert (taken.theta, taken.phi['params']) == best and taken.phi['fixed'] == held.phi['fixed']
  held.phi['fixed']['error'] = np.float32(2)  # none was finished
  assert method.early(held) is held


@SLOW
def test_a_shortened_search_goes_on_after_a_kill_to_the_same_bits(tmp_path, monkeypatch):
  """The plan is decided in the first folder; in the second it is killed, and kept, whatever the clock says then."""
  config, told, decide = asked(), metrics.Console.step, budget.Budget.decide
  config.max_hours = 1.0
  monkeypatch.setattr(budget.Budget, 'decide', lambda self, step, steps, *_: decide(self, step, steps, 2 * 3600.0, 0.0))
  whole = search.search(config, tmp_path / 'whole')
  assert whole['steps'] == whole['planned_steps'] == 10 and whole['budget']['shortened']  # 59 / 120 * 0.9
  assert json.loads((tmp_path / 'whole' / 'config.json').read_text())['config']['epochs'] == 0.5

  def step(self, at, *args):
    told(self, at, *args)
    if at == 8:
      raise Cut

  with monkeypatch.context() as patched:
    patched.setattr(metrics.Console, 'step', step)
    with pytest.raises(Cut):
      search.search(config, tmp_path / 'cut')
  monkeypatch.setattr(budget.Budget, 'decide', lambda self, *_: decide(self, 0, 9, 1e9, 0.0))  # what is decided stays
  again = search.search(config, tmp_path / 'cut')
  assert [again[field] for field in ('state_sha256', 'genotype', 'steps')] == [
      whole[field] for field in ('state_sha256', 'genotype', 'steps')]
