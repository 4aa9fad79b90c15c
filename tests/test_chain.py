"""Runs that follow one another: a signal in the last step of one, config.then, results whose state is gone."""

import json
import signal
import types

import pytest
from conftest import ONE_EDGE, one_line

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import files
from vimnas_jax.errors import Stopped, UserError
from vimnas_jax.runs import budget, loop, metrics, runfolder, signals
from vimnas_jax.verbs import chain, finalists, seeds, study


@pytest.fixture
def asked():
  c = config_lib.defaults()
  c.data.name, c.data.image_size, c.data.num_train = 'synthetic', 8, 64
  c.space.name, c.space.cells, c.space.channels, c.batch_size, c.trust = ONE_EDGE, 1, 4, 8, ONE_EDGE
  c.then, c.then_changes, c.supernet_images = 'retrain', 'epochs=3 network.cells=1 network.channels=4', 16
  return c


class Verbs:
  """Stands for the search and the retraining; during the last step of `last`, a folder's name, comes a signal."""

  def __init__(self, monkeypatch, last=''):
    self.calls, self._last = [], last
    monkeypatch.setattr(chain.search, 'search', self.search)
    monkeypatch.setattr(chain.retrain, 'retrain', self.retrain)

  def _run(self, config, workdir, command, stop, more):
    self.calls.append((str(workdir), config.task, config.epochs, command, more))
    with stop as stop, stop.noted():
      if str(workdir).endswith(self._last) and self._last:
        signal.raise_signal(signal.SIGTERM)
    return {'task': config.task}

  def search(self, config, workdir, command='', loaded=None, stop=None, notes=(), share=1.0, following=None):
    return self._run(config, workdir, command, stop, (tuple(notes), share))

  def retrain(self, config, workdir, command='', loaded=None, stop=None):
    return self._run(config, workdir, command, stop, config.genotype)


def test_one_stop_may_be_entered_again_and_the_last_to_leave_restores():
  before = signal.getsignal(signal.SIGTERM)
  with signals.Stop() as stop:
    with stop, stop.noted():
      signal.raise_signal(signal.SIGTERM)
    assert stop.asked and signal.getsignal(signal.SIGTERM) == stop._note
    with pytest.raises(Stopped):  # between runs it interrupts
      signal.raise_signal(signal.SIGTERM)
  assert signal.getsignal(signal.SIGTERM) == before


def test_what_is_found_is_trained_also_from_a_program(asked, tmp_path, monkeypatch):
  verbs = Verbs(monkeypatch)
  result = vimnas_jax.search(asked, tmp_path)
  assert result == {'task': 'search', 'retrained': {'task': 'retrain'}}
  (where, _, _, command, more), (inner, task, epochs, same, genotype) = verbs.calls
  assert (where, more) == (str(tmp_path), ((), budget.SEARCH)) and command.startswith('vimnas_jax')
  assert (inner, task, epochs, genotype, same) == (str(tmp_path / 'retrain'), 'retrain', 3, str(tmp_path), command)
  assert vimnas_jax.search(config_lib.changed(asked, "then=''"), tmp_path) == {'task': 'search'}
  assert verbs.calls[2][-1] == ((), 1.0) and len(verbs.calls) == 3
  with pytest.raises(UserError, match='nothing=1'):
    vimnas_jax.search(config_lib.changed(asked, 'then_changes=nothing=1'), tmp_path)
  assert len(verbs.calls) == 3  # told before the search begins


def test_a_signal_in_the_last_step_of_a_search_ends_the_command(asked, tmp_path, monkeypatch, capsys):
  verbs = Verbs(monkeypatch, last=tmp_path.name)
  assert chain.searched(asked, tmp_path) is None
  assert [call[0] for call in verbs.calls] == [str(tmp_path)]
  assert 'stopped, all saved: run the same command to go on' in capsys.readouterr().out


@pytest.mark.parametrize('last, runs', [('seed_0', ['seed_0']), ('seed_0/retrain', ['seed_0', 'seed_0/retrain']),
                                        ('seed_3/retrain', ['seed_0', 'seed_0/retrain', 'seed_3', 'seed_3/retrain'])])
def test_a_signal_in_the_last_step_of_a_run_starts_no_other(asked, tmp_path, monkeypatch, last, runs):
  verbs = Verbs(monkeypatch, last=last)
  planned, _ = seeds.planned(config_lib.changed(asked, 'seeds=(0,3)'), tmp_path, '')
  with signals.Stop() as stop:
    monkeypatch.setattr(study.data, 'get', lambda fields: types.SimpleNamespace(train=None))
    done = study.carry_out(planned, tmp_path, metrics.Console(), stop)
  assert [call[0] for call in verbs.calls] == [str(tmp_path / where) for where in runs]
  assert done == (last == 'seed_3/retrain')  # all was done when it came


@pytest.mark.parametrize('changes, says', [
    ('then_changes=batch_size=512', 'config.batch_size=512 exceeds the 64 training images'),
    ('then_changes=\'batch_size=8 network.auxiliary=0.4 network.cells=3 data.cutout=0\'', 'auxiliary')])
def test_a_training_that_cannot_begin_is_told_before_the_search(asked, tmp_path, monkeypatch, changes, says):
  monkeypatch.setattr(loop, 'to_the_end', lambda *_: pytest.fail('it searches'))
  if 'auxiliary' in changes:
    asked.space.name, asked.space.cells = 'darts', 3
  with pytest.raises(UserError) as error:
    chain.searched(config_lib.changed(asked, changes), tmp_path / 'run')
  told = one_line(error)
  assert told.startswith('config.then=retrain: ') and says in told and 'config.then_changes' in told
  assert not (tmp_path / 'run').exists()


class NoSearch:
  """A run whose state is gone."""

  def __init__(self, config):
    self.config = config

  def abstract(self, step=0):
    raise AssertionError('there is no checkpoint')

  def start(self):
    raise AssertionError('it begins again')


def test_a_finished_run_without_its_checkpoints_is_not_run_again(asked, tmp_path, capsys):
  files.write_json(tmp_path / 'result.json', {'steps': 7})
  result = loop.to_the_end(NoSearch(config_lib.resolve(asked)), tmp_path, metrics.Console(), signals.Stop(), None)
  assert result == {'steps': 7} and 'holds the finished run' in capsys.readouterr().out


def test_finalists_of_a_search_without_its_checkpoints_are_refused(asked, tmp_path):
  config = config_lib.resolve(config_lib.changed(asked, 'finalists=2 train_portion=0.5'))
  files.write_json(tmp_path / 'result.json', {'steps': 7})
  with pytest.raises(UserError) as error:
    finalists.renew(tmp_path, config, metrics.Console())
  assert 'no checkpoint of its search' in one_line(error) and 'config.finalists=2' in one_line(error)
  assert json.loads((tmp_path / 'result.json').read_text()) == {'steps': 7}
  files.write_json(tmp_path / 'result.json', {'steps': 0})  # of a method without a step
  finalists.renew(tmp_path, config, metrics.Console())
  assert not (tmp_path / 'result.json').exists()


def test_architectures_of_folders_are_compared_by_their_edges(tmp_path):
  one, same = '{"space": "a", "cells": {"c": [["x", 0, 1]]}}', '{"cells": {"c": [["x",0,1]]},\n "space": "b.py"}'
  (tmp_path / 'retrain').mkdir()
  assert runfolder.architecture(tmp_path) is None and runfolder.follows(tmp_path)
  files.write(tmp_path / 'genotype.json', one)
  assert runfolder.architecture(tmp_path) == {'c': (('x', 0, 1),)} and runfolder.follows(tmp_path)
  files.write(tmp_path / 'retrain' / 'genotype.json', same)
  assert runfolder.follows(tmp_path)
  files.write(tmp_path / 'retrain' / 'genotype.json', one.replace('"x"', '"y"'))
  assert not runfolder.follows(tmp_path)
