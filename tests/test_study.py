import json
import os
import pathlib
import shutil
import types

import markup
import pytest
from conftest import ONE_EDGE, SLOW

from vimnas_jax import config as config_lib
from vimnas_jax import data, spaces
from vimnas_jax.errors import Diverged, UserError
from vimnas_jax.runs import metrics, runfolder, signals
from vimnas_jax.verbs import report, search, study


@pytest.fixture
def tiny():
  c = config_lib.defaults()
  c.task, c.data.name, c.data.image_size, c.data.num_train = 'study', 'synthetic', 8, 32
  c.space.name, c.space.cells, c.space.channels, c.batch_size, c.log_steps = 'nb201', 1, 8, 8, 1
  c.devices = 1
  c.study.members = ('small method.variant=small method.samples=2', 'random method.name=random epochs=0')
  c.study.seeds = (0, 3)
  return c


def test_a_study_runs_every_member_with_every_seed_and_goes_on(tiny, tmp_path):
  tiny.space.name = ONE_EDGE
  rows = study.study(tiny, tmp_path, 'python -m vimnas_jax.main --config=c.py --workdir=x')
  assert list(rows) == ['small', 'random'] and all(row['seeds'] == [0, 3] for row in rows.values())
  found = {(name, seed): json.loads((tmp_path / name / f'seed_{seed}' / 'result.json').read_text())
           for name in rows for seed in (0, 3)}
  assert all(result['seed'] == seed for (_, seed), result in found.items())
  assert found['random', 0]['method'] == 'random' and found['random', 0]['steps'] == 0
  assert found['small', 3]['command'] == (
      'python -m vimnas_jax.main --config=c.py --config.task=search --config.method.variant=small '
      f'--config.method.samples=2 --config.seed=3 --workdir={tmp_path}/small/seed_3')
  held = json.loads((tmp_path / 'small' / 'seed_3' / 'config.json').read_text())['config']
  assert held['method']['samples'] == 2 and 'study' not in held
  names = {p.name for p in tmp_path.iterdir()}
  assert names == {*rows, 'report.html', 'report.md', 'report.json', 'first_edge.png', 'distributions.png',
                   'comparison.png'}
  page = markup.read(tmp_path)
  assert found['random', 3]['genotype'] in page.said and 'small/seed_0/report.html' in page.links
  text = (tmp_path / 'report.md').read_text()
  assert found['small', 0]['genotype'] in text and '(small/seed_0/phi.png)' in text
  assert '(small/seed_0/film.gif)' in text and 'small/seed_0/film.gif' in page.links

  kept = tmp_path / 'small' / 'seed_0' / 'result.json'
  before = kept.stat().st_mtime_ns
  os.remove(tmp_path / 'small' / 'seed_3' / 'result.json')
  again = study.study(tiny, tmp_path, 'python -m vimnas_jax.main --config=c.py --workdir=x')
  assert again['small']['genotypes'] == rows['small']['genotypes'] and kept.stat().st_mtime_ns == before
  tiny.batch_size = 4
  with pytest.raises(UserError, match='batch_size=8, not 4'):
    study.study(tiny, tmp_path)

  other = tmp_path / 'other' / 'small' / 'seed_0'  # of the same name, elsewhere; and one of other settings
  shutil.copytree(tmp_path / 'small' / 'seed_0', other)
  changed = tmp_path / 'other' / 'small' / 'seed_1'
  shutil.copytree(tmp_path / 'small' / 'seed_0', changed)
  text = (changed / 'config.json').read_text()
  (changed / 'config.json').write_text(text.replace('"batch_size": 8', '"batch_size": 16'))
  apart = report.compare([tmp_path / 'small' / 'seed_0', other, changed, tmp_path / 'small' / 'seed_3'], tmp_path / 'r',
                         trust=[tiny.space.name])
  assert {name: len(row['seeds']) for name, row in apart.items()} == {
      'small': 2, 'other/small/seed_0': 1, 'other/small/seed_1': 1}
  shutil.rmtree(tmp_path / 'other')

  c = config_lib.resolve(config_lib.changed(tiny, f'task=report report.runs={tmp_path}'))
  alike = report.report(c, tmp_path / 'again')
  assert {name: row['params'] for name, row in alike.items()} == {name: row['params'] for name, row in rows.items()}


@SLOW
def test_a_study_retrains_what_it_finds_and_spaces_stand_side_by_side(tiny, tmp_path):
  """Random cells of two spaces, their supernets and networks scored; one of them trained."""
  tiny.study.members, tiny.study.seeds, tiny.supernet_images = ('random method.name=random epochs=0',), (0,), 20
  tiny.data.num_train = 64
  tiny.then = 'retrain'
  tiny.then_changes = 'network.cells=1 network.channels=8 epochs=1 batch_size=8 measure_batches=() eval_batch=32'
  rows = study.study(tiny, tmp_path / 'nb201', 'the command')
  run = tmp_path / 'nb201' / 'random' / 'seed_0'
  found, trained = (json.loads((at / 'result.json').read_text()) for at in (run, run / 'retrain'))
  assert found['supernet']['images'] == 16 and trained['genotype'] == found['genotype']
  assert rows['random']['supernet_mixed']['values'] == [found['supernet']['mixed']]
  assert found['supernet']['mixed'] == found['supernet']['derived']  # random cells are one-hot
  assert rows['random']['retrained'] == {**rows['random']['retrained'], 'values': [trained['test_top1']],
                                         'images': 'test'}
  before = (run / 'retrain' / 'result.json').stat().st_mtime_ns
  study.study(tiny, tmp_path / 'nb201', 'the command')
  assert (run / 'retrain' / 'result.json').stat().st_mtime_ns == before

  tiny.then, tiny.space.name, tiny.space.cells = '', 's2', 3
  study.study(tiny, tmp_path / 's2', 'the command')
  c = config_lib.resolve(config_lib.changed(tiny, f'task=report report.runs={tmp_path}'))
  both = report.report(c, tmp_path / 'both')  # the retraining is no search
  assert {space: list(own) for space, own in both.items()} == {'nb201': ['random'], 's2': ['random']}
  names = {p.name for p in (tmp_path / 'both').iterdir()}
  assert names == {'nb201', 's2', 'comparison.png', 'report.html', 'report.md', 'report.json'}
  assert f'| {trained["test_top1"]:.2f} |' in (tmp_path / 'both' / 'report.md').read_text()
  tiny.supernet_images = 1000
  with pytest.raises(UserError, match='supernet_images=1000'):
    study.study(tiny, tmp_path / 'more')


def test_a_run_that_goes_on_has_its_images_where_it_began_with_them(tiny, tmp_path, monkeypatch):
  """Streamed or in memory: the choice is by what memory there is, which is another on the next day."""
  tiny.task, read, began = 'search', [], []
  config = config_lib.resolve(tiny)
  (tmp_path / 'b').mkdir()
  runfolder.write_config(tmp_path / 'b', config, 'data', streamed=True)
  runs = [study.Run(where, '', config, None) for where in 'ab']
  (tmp_path / 'c').mkdir()
  runfolder.write_config(tmp_path / 'c', config, 'former data')
  (tmp_path / 'c' / 'result.json').write_text('{}')

  class Loaded:
    train, fingerprint = None, 'data'.strip

  monkeypatch.setattr(study.data, 'get', lambda fields: read.append(fields.stream) or Loaded)
  monkeypatch.setattr(search, 'search', lambda config, place, command, loaded, stop, **more: began.append(
      place.name) or {})
  stop = signals.Stop()
  assert study.carry_out(runs, tmp_path, metrics.Console(), stop)
  assert read == [None, True] and began == ['a', 'b']
  with pytest.raises(UserError, match='another fingerprint'):  # the data of what is finished are compared
    study.carry_out([study.Run('c', '', config, None), *runs], tmp_path, metrics.Console(), stop)
  longer = config_lib.resolve(config_lib.changed(tiny, 'epochs=7'))  # as other images choose them, where nobody did
  with pytest.raises(UserError, match='another fingerprint'):
    study.carry_out([study.Run('c', '', longer, None)], tmp_path, metrics.Console(), stop)


def test_a_run_that_diverges_stops_no_other(tmp_path, monkeypatch, capsys):
  calls, config = [], config_lib.resolve(config_lib.changed(config_lib.defaults(), 'data.name=synthetic'))
  monkeypatch.setattr(study.data, 'get', lambda fields: types.SimpleNamespace(train=None))

  def verb(config, place, command, loaded, stop, **more):
    calls.append(str(place.relative_to(tmp_path)))
    if place.name == 'b':
      raise Diverged('step 3: loss nan: not finite')
    return {}

  monkeypatch.setattr(search, 'search', verb)
  monkeypatch.setattr(study.retrain, 'retrain', verb)
  runs = [study.Run(name, '', config, config) for name in 'abc']
  with pytest.raises(Diverged) as error:
    study.carry_out(runs, tmp_path, metrics.Console(), signals.Stop())
  assert calls == ['a', 'a/retrain', 'b', 'c', 'c/retrain']
  assert str(error.value).startswith('1 of 3 runs did not stay finite and would not if run again: b; ')
  assert 'b is left out: step 3: loss nan' in capsys.readouterr().out


def test_images_that_are_read_otherwise_are_read_again():
  c = config_lib.defaults().data
  same, other = c.copy_and_resolve_references(), c.copy_and_resolve_references()
  same.update({'pad': 1, 'search_parts': (0.5, 0.5)})
  other.smallest = 0.3  # what is streamed is cut by it as it is read
  assert data.key(same) == data.key(c) != data.key(other)
  c.name = same.name = 'mine.py'  # which is given every field
  assert data.key(same) != data.key(c)


def test_the_command_of_a_run_has_the_folder_of_that_run():
  for given in ("--workdir='A B'", "--workdir 'A B'", "-workdir 'A B'"):
    told = study.as_command(f'python -m x --config=quickstart {given} --config.seed=1', 'epochs=2.0',
                            pathlib.Path('r/s'))
    assert told == ('python -m x --config=quickstart --config.seed=1 --config.task=search --config.epochs=2.0 '
                    '--workdir=r/s')


def test_agreement_counts_edges_in_common():
  space = spaces.get('nb201')
  a = '|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|'
  b = '|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|skip_connect~1|skip_connect~2|'
  assert report.agreement(space, [a]) is None and report.agreement(space, [a, a]) == 1
  assert report.agreement(space, [a, b, b]) == pytest.approx((0.5 + 0.5 + 1) / 3)


@pytest.mark.parametrize('members, word', [((), 'members'), (('a', 'a'), "'a'"), (('method.name=darts',), 'name'),
                                           (('../x',), 'folder'), (('..',), 'folder'), (('.',), 'folder'),
                                           (('report.md',), 'folder'), (('a sead=1',), 'sead'),
                                           (('b', 'a task=retrain'), 'sets task, which is of all members: leave it'),
                                           (('a dry_run=True',), 'sets dry_run, .*: give --config.dry_run'),
                                           (('a epochs=1 seed=7',), 'sets seed, .*: set config.study.seeds'),
                                           (('a seeds=(1,2)',), 'sets seeds, .*: set config.study.seeds'),
                                           (('a study.seeds=(1,)',), 'sets study.seeds'),
                                           (('a batch_size=many',), 'many'), (('a seed',), "'seed'"),
                                           (('a method.name=darts method.variant=small',), 'variant')])
def test_bad_members_are_told_before_anything_runs(tiny, tmp_path, members, word):
  tiny.study.members = members
  with pytest.raises(UserError, match=word) as error:
    study.study(tiny, tmp_path)
  assert '\n' not in str(error.value) and not list(tmp_path.iterdir())


def test_a_report_needs_runs(tmp_path):
  for runs, word in (('', 'no folder'), (f'{tmp_path}/none', 'none'), (str(tmp_path), 'no finished search')):
    c = config_lib.defaults()
    c.task, c.report.runs = 'report', runs
    with pytest.raises(UserError, match=word):
      report.report(config_lib.resolve(c), tmp_path)
