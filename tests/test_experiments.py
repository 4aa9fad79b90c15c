"""What a report makes one experiment, how it calls it, and what it does not put on one footing."""

import json
import os

import pytest
from markup import read
from test_report import EXAMPLE, ORACLE, asked, made, own

from vimnas_jax import config as config_lib
from vimnas_jax.errors import UserError
from vimnas_jax.verbs import experiments, records, report


def trained(folder, top1=80.0, seed=0, prints='p', **fields):
  """A run folder with a finished retraining."""
  run = made(folder, seed=seed)
  (run / 'retrain').mkdir()
  (run / 'retrain' / 'result.json').write_text(json.dumps({'params': 7, 'test_top1': top1, 'data': 'folder'}))
  config = {'seed': seed, 'epochs': 600.0, 'genotype': str(run), 'space': {'cells': seed}, 'log_steps': seed} | fields
  (run / 'retrain' / 'config.json').write_text(json.dumps({'config': config, 'data_fingerprint': prints}))
  return run


def reported(tmp_path, runs):
  """(Rows, report.md, what the page says)."""
  rows = report.compare(runs, tmp_path / 'r')
  return rows, (tmp_path / 'r' / 'report.md').read_text(), read(tmp_path / 'r').said


def test_a_run_beside_others_of_another_kind_is_called_by_its_folder(tmp_path):
  """As in runs/darts_c10 and runs/nb201_c10, or in a sweep over fields: the parent says nothing of them."""
  def names(*places):
    folders = [asked(tmp_path / f'{len(places)}' / place, seed, epochs=float(epochs))
               for place, seed, epochs in places]
    return list(experiments.named(records.read(folders))['nb201'])

  assert names(('runs/one', 0, 1)) == ['runs']
  assert names(('runs/one', 0, 1), ('runs/two', 0, 2)) == ['one', 'two']
  assert names(('runs/one', 0, 1), ('runs/two', 0, 2), ('more/one', 0, 1), ('more/three', 0, 2)) == [
      'runs/one', 'two', 'more/one', 'three']
  assert names(('a/small/seed_0', 0, 1), ('a/small/seed_1', 0, 2), ('b/small/seed_0', 0, 1)) == [
      'a/small/seed_0', 'a/small/seed_1', 'small']
  assert names(('x #2/c', 0, 1), ('x/a', 0, 1), ('x/b', 1, 1), ('x/x #2', 1, 2), ('x #2/d', 0, 2)) == [
      'c', 'x', 'x #2', 'd']
  space, genotype = own(EXAMPLE)  # of another space
  both = [made(tmp_path / 'spaces' / 'mine', space, genotype), made(tmp_path / 'spaces' / 'nb201')]
  assert {name for rows in experiments.named(records.read(both, [str(EXAMPLE)])).values() for name in rows} == {
      'mine', 'nb201'}


@pytest.mark.parametrize('fields, words', [
    ({'epochs': 20.0}, 'epochs 600 (seed 0) and 20 (seed 1)'), ({'network': {'cells': 8}}, ''),
    ({'prints': 'q'}, "images a folder of images (seed 0) and a folder of images #2 (seed 1)")])
def test_networks_that_were_trained_in_unlike_ways_have_no_mean(tmp_path, fields, words):
  runs = [trained(tmp_path / 'a' / 'seed_0'), trained(tmp_path / 'a' / 'seed_1', 90.0, 1, **fields)]
  rows, text, page = reported(tmp_path, runs)
  if words:
    assert not {'retrained', 'retrained_params'} & set(rows['a']) and 'retrained, test %' not in text
    for told in (text, page):
      assert f'a: its networks were trained in different ways, {words}: there is no mean' in told
  else:  # a field that one of them is too old to have
    assert rows['a']['retrained']['mean'] == 85 and 'different ways' not in text + page


def test_experiments_that_were_trained_in_unlike_ways_are_not_ranked(tmp_path):
  runs = [trained(tmp_path / name / 'seed_0', top1, **fields) for name, top1, fields in (
      ('a', 80.0, {}), ('b', 90.0, {'epochs': 20.0, 'batch_size': 9}), ('c', 85.0, {}))]
  rows, text, page = reported(tmp_path, runs)
  assert rows['b']['trained_with'] == {'epochs': 20.0} and rows['b']['retrained']['mean'] == 90
  for told in (text, page):
    assert 'The networks were trained in different ways, epochs 600 (a, c) and 20 (b): ' in told
  assert 'No experiment comes first by trained from scratch, test %: these are figures of networks' in page
  _, text, page = reported(tmp_path / 'alike', [runs[0], runs[2]])
  assert 'different' not in text and 'c comes first by trained from scratch' in page


def clock(run, hours, epochs, steps=100, planned=100, shortened=True):
  """Lets config.max_hours have made the training in a run folder as long as that."""
  for name, change in (('config', lambda about: about['config'].update(max_hours=hours)), ('result', lambda about: about
                       .update(epochs=epochs, steps=steps, planned_steps=planned, budget={
                           'shortened': shortened, 'ended_after_step': None if steps == planned else steps}))):
    path = run / 'retrain' / f'{name}.json'
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def test_trainings_are_as_long_as_the_clock_let_them_be(tmp_path):
  """Not as long as was asked; and a limit that was not reached makes no difference."""
  runs = [trained(tmp_path / 'a' / f'seed_{seed}', 80.0, seed) for seed in range(3)]
  clock(runs[0], 3.0, 600.0, shortened=False)
  clock(runs[1], 1.5, 600.0, 95, 100, shortened=False)  # nearly as long
  rows, text, page = reported(tmp_path, runs)
  assert rows['a']['retrained']['mean'] == 80 and 'different ways' not in text + page
  clock(runs[2], 3.0, 30.0, 80, 100)
  rows, text, page = reported(tmp_path, runs)
  assert 'retrained' not in rows['a']
  assert 'trained in different ways, epochs 600 (seed 0, seed 1) and 24 (seed 2): there is no mean' in text
  clock(runs[0], 3.0, 25.0)
  clock(runs[1], 3.0, 25.5)
  assert reported(tmp_path, runs)[0]['a']['retrained']['mean'] == 80


def test_seeds_that_had_other_shares_of_a_limit_are_of_one_experiment(tmp_path):
  """As where more seeds were asked for; but where the limit shortened one of them it counts."""
  folders = [asked(tmp_path / 'a' / f'seed_{seed}', seed, max_hours=hours) for seed, hours in ((0, 1.5), (1, 1.0))]
  assert list(experiments.named(records.read(folders))['nb201']) == ['a']
  path = folders[1] / 'result.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), 'planned_steps': 40, 'budget': {
      'shortened': True, 'ended_after_step': None}}))
  assert len(experiments.named(records.read(folders))['nb201']) == 2


def test_seeds_that_the_clock_gave_other_lengths_are_told_beside_their_mean(tmp_path):
  """One search of an epoch and one of twenty are no search of ten and a half; nearly as long is as long."""
  folders = [asked(tmp_path / 'a' / f'seed_{seed}', seed, max_hours=1.5) for seed in range(3)]
  for lengths, words in (((20.0, 19.0, 1.0), 'epochs 20 (seed 0, seed 1) and 1 (seed 2)'), ((20.0, 19.0, 19.5), '')):
    for folder, epochs in zip(folders, lengths, strict=True):
      path = folder / 'result.json'
      path.write_text(json.dumps({**json.loads(path.read_text()), 'epochs': epochs, 'planned_steps': 8, 'budget': {
          'shortened': epochs < 20, 'ended_after_step': None}}))
    _, text, page = reported(tmp_path, folders)
    for told in (text, page):
      assert ('gave its searches different lengths' in told) == bool(words) and words in told


def test_a_damaged_configuration_of_a_training_is_named(tmp_path):
  run = trained(tmp_path / 'a' / 'seed_0')
  (run / 'retrain' / 'config.json').write_text('{}')
  with pytest.raises(UserError, match='retrain/config.json is damaged .config is missing.'):
    records.read([run])


def on(folder, name, prints, seed=0, **changes):
  """A run folder of a search on images of that name and fingerprint."""
  run = made(folder, seed=seed, data=name, supernet={'mixed': 40.0}, **changes)
  (run / 'config.json').write_text(json.dumps({'config': {'seed': seed, 'data': {'name': name}},
                                               'data_fingerprint': prints}))
  return run


def test_experiments_on_different_images_are_not_ranked(tmp_path):
  runs = [on(tmp_path / name / 'seed_0', f'cifar{n}', f'{n}', oracle=ORACLE) for name, n in (('a', 10), ('b', 100))]
  rows, text, page = reported(tmp_path, runs)
  assert '| experiment | data | seeds |' in text and '| b | cifar100 | 1 |' in text
  assert 'comes first by supernet, %; NAS-Bench-201, cifar10 valid %: these are figures on different images' in page
  for told in (text, page):
    assert 'searched on different images, cifar10 (a) and cifar100 (b)' in told
  assert 'a comes first' not in page and 'b comes first' not in page and rows['a']['images'] == 'cifar10'


def test_images_are_the_same_by_their_contents(tmp_path):
  """Of one name and averaged to half the side they are others; what a benchmark says of the cells may be compared."""
  runs = [on(tmp_path / 'a' / 'x', 'cifar10', 'p', oracle=ORACLE),
          on(tmp_path / 'b' / 'x', 'cifar10', 'q', oracle=ORACLE, image_shape=[16, 16, 3])]
  _, text, page = reported(tmp_path, runs)
  assert '| b | cifar10 at 16x16 | 1 |' in text
  assert 'No experiment comes first by supernet' in page and 'comes first by NAS-Bench-201, cifar10 valid %' in page
  same = [on(tmp_path / 'c' / 'x', 'folder', 'p'), on(tmp_path / 'd' / 'x', 'mine.py', 'p')]
  _, text, page = reported(tmp_path / 'same', same)
  assert '| data |' not in text and 'comes first by supernet' in page and 'different images' not in page


def test_a_method_is_named_where_methods_differ(tmp_path):
  runs = [made(tmp_path / name / 'x', method=name) for name in ('vimnas', 'darts')]
  assert '| vimnas | vimnas | 1 |' in reported(tmp_path, runs)[1]
  assert '| method |' not in reported(tmp_path / 'one', runs[:1])[1]


def test_linked_folders_are_entered_once_and_what_is_open_is_told(tmp_path, capsys):
  made(tmp_path / 'elsewhere' / 'a', seed=0)
  made(tmp_path / 'runs' / 'b', seed=1)
  os.symlink(tmp_path / 'elsewhere', tmp_path / 'runs' / 'linked')
  os.symlink(tmp_path / 'runs', tmp_path / 'runs' / 'b' / 'round')  # without end
  os.symlink(tmp_path / 'runs' / 'b', tmp_path / 'runs' / 'again')
  for place, about in (('open', {'config': {'task': 'search'}}), ('b/retrain', {'config': {'task': 'retrain'}}),
                       ('named', {'config': {'task': 'predict'}}), ('other', {'model': 1}), ('several', {
                           'config': {'task': 'search'}, 'seeds': [0]})):
    (tmp_path / 'runs' / place).mkdir()
    (tmp_path / 'runs' / place / 'config.json').write_text(json.dumps(about))
  (tmp_path / 'runs' / 'other' / 'config.json').write_text('[')
  c = config_lib.resolve(config_lib.changed(config_lib.defaults(), f'task=report report.runs={tmp_path}/runs'))
  rows = report.report(c, tmp_path / 'r')
  assert sorted(row['seeds'] for row in rows.values()) == [[0], [1]]
  told = capsys.readouterr().out, (tmp_path / 'r' / 'report.md').read_text(), read(tmp_path / 'r').said
  assert all('2 run folders are not finished and left out: ' in each for each in told)
  assert 'retrain' in told[0] and 'runs/open' in told[0] and 'predict' not in told[0]
  c.report.runs = str(tmp_path / 'runs' / 'open')
  with pytest.raises(UserError, match='no finished search below it .*; 1 run folder is not finished and left out: '):
    report.report(c, tmp_path / 's')
