"""Reports of run folders that are made by hand: what is refused, where it is written, and whose figures are told."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT, one_line

from vimnas_jax import config as config_lib
from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.tabular import nasbench101, nasbench201
from vimnas_jax.verbs import outcome, pages, report

CELL = '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|'
NB201 = spaces.get('nb201')
EXAMPLE = ROOT / 'examples' / 'two_nodes.py'


def result_of(space, text, **changes):
  probs = {name: np.full(cell.shape, 1 / cell.shape[1]).tolist() for name, cell in space.cells.items()}
  return {'space': space.name, 'method': 'vimnas', 'data': 'folder', 'seed': 0, 'steps': 8, 'pretrain_steps': 0,
          'epochs': 1.0, 'genotype': text, 'one_hot': 0.5, 'unchanged_steps': 3, 'params': 10, 'madds': 10,
          'seconds_per_step': 0.1, 'probs': probs, 'dead': {}} | changes


def made(folder, of=NB201, text=CELL, **changes):
  folder.mkdir(parents=True)
  result = result_of(of, text) | changes
  (folder / 'result.json').write_text(json.dumps(result))
  (folder / 'config.json').write_text('{"config": {"seed": 0}}')
  row = {'step': 0, 'genotype': text, 'probs': result['probs']}
  (folder / 'arch.jsonl').write_text(json.dumps(row) + '\n' + json.dumps(row | {'step': 8}) + '\n')
  return folder


def own(path):
  space = spaces.get(str(path))
  return space, space.genotype({name: np.full(c.shape, 0.25) for name, c in space.cells.items()}).to_json()


ORACLE = {'cifar10': {'valid': 87.81, 'valid_rank': 6841, 'valid_regret': 3.8}}


def test_a_benchmark_is_named_beside_its_figures(tmp_path):
  rows = report.compare([made(tmp_path / 'a' / 'seed_0', oracle=ORACLE)], tmp_path / 'r')
  assert rows['a']['oracle']['cifar10']['valid']['mean'] == 87.81
  assert 'NAS-Bench-201 cifar10 valid %' in (tmp_path / 'r' / 'report.md').read_text(encoding='utf-8')
  lines = [line for line in outcome.summary(result_of(NB201, CELL, oracle=ORACLE), tmp_path, NB201) if '87.81' in line]
  assert [line.startswith('NAS-Bench-201  on cifar10: validation') for line in lines] == [True]
  told = ' '.join(outcome.summary(result_of(NB201, CELL, oracle=ORACLE), tmp_path, NB201))
  assert 'trained on its own data sets, not on yours (folder)' in told
  assert not any('not on yours' in nasbench101.BENCHMARK.whose(name) for name in ('cifar10', 'tfds/cifar10'))
  with pytest.raises(UserError, match='result.json is damaged'):
    outcome.summary({}, tmp_path, NB201)


@pytest.mark.parametrize('name, content, word', [
    ('result.json', '{"space"', 'damaged'), ('result.json', '[]', 'damaged'), ('config.json', '', 'damaged'),
    ('config.json', '{"config": []}', 'config is missing'), ('config.json', '\0', 'damaged'),
    ('arch.jsonl', '{}\n', 'line 1'), ('arch.jsonl', '{"step": 0, "genotype": 1, "probs": {}}\n', 'line 1'),
    ('arch.jsonl', json.dumps({'step': 0, 'genotype': CELL, 'probs': {'cell': [[1, 2]]}}) + '\n', 'line 1'),
    ('arch.jsonl', json.dumps({'step': 0, 'genotype': CELL, 'probs': {'cell': [[float('nan')] * 5] * 6}}) + '\n', '1'),
    ('retrain/result.json', '{}', 'params is missing'),
    ('retrain/result.json', '{"params": 1}', 'test_top1 is missing')])
def test_a_damaged_file_is_named(tmp_path, name, content, word):
  run = made(tmp_path / 'a' / 'seed_0')
  (run / 'retrain').mkdir()
  (run / name).write_text(content)
  with pytest.raises(UserError, match=word) as error:
    report.compare([run], tmp_path / 'r')
  assert name in one_line(error)


@pytest.mark.parametrize('changes, word', [
    ({'space': '../../x'}, "space '../../x'"), ({'space': 7}, 'space=7'), ({'space': 'darts'}, 'its genotype'),
    ({'genotype': CELL[:20]}, 'its genotype'), ({'genotype': None}, 'genotype=None'), ({'seed': '0'}, "seed='0'"),
    ({'one_hot': float('nan')}, 'one_hot=nan'), ({'one_hot': None}, 'one_hot=None'), ({'params': -1}, 'params=-1'),
    ({'epochs': float('inf')}, 'epochs=inf'), ({'steps': True}, 'steps=True'), ({'oracle': []}, r'oracle=\[\]'),
    ({'oracle': {'cifar10': {'valid': 'good'}}}, 'oracle='), ({'supernet': {'mixed': [1]}}, 'supernet='),
    ({'nasbench101': {'valid_error': 1}}, 'nasbench101='), ({'seconds_per_step': 'x'}, 'seconds_per_step=')])
def test_a_figure_that_is_none_is_named(tmp_path, changes, word):
  run = made(tmp_path / 'a' / 'seed_0', **changes)
  with pytest.raises(UserError, match=word) as error:
    report.compare([run], tmp_path / 'r')
  assert 'result.json' in one_line(error) and len(str(error.value)) < 600
  assert not (tmp_path / 'r').exists()


def test_a_run_and_a_seed_count_once(tmp_path):
  for name, seed in (('a', 0), ('b', 1), ('c', 0)):  # c is a again, in another folder
    made(tmp_path / 'runs' / name, seed=seed)
  c = config_lib.resolve(config_lib.changed(config_lib.defaults(), (
      f'task=report report.runs={tmp_path}/runs,{tmp_path}/runs/b,{tmp_path}/runs/../runs')))
  rows = report.report(c, tmp_path / 'r')
  assert {name: row['seeds'] for name, row in rows.items()} == {'runs': [0, 1], 'c': [0]}


def asked(folder, seed=0, **fields):
  """A run folder whose configuration has other fields."""
  run = made(folder, seed=seed)
  (run / 'config.json').write_text(json.dumps({'config': {'seed': seed, **fields}}))
  return run


def test_no_experiment_takes_the_name_of_another(tmp_path):
  runs = [asked(tmp_path / name / f'{part}{seed}', seed, epochs=epochs) for name, part, epochs in (
      ('trial #1', 'a', 1.0), ('trial #1', 'b', 2.0), ('trial', 'c', 1.0), ('x', 'a', 1.0), ('x', 'b', 2.0),
      ('x #2', 'c', 1.0)) for seed in (0, 1)]
  rows = report.compare(runs, tmp_path / 'r')
  assert sorted(rows) == ['trial', 'trial #1', 'trial #1 #2', 'x', 'x #2', 'x #2 #2']


def test_a_report_is_not_written_over_a_run(tmp_path):
  run = made(tmp_path / 'runs' / 'a')
  (run / 'report.html').write_text('its own')
  c = config_lib.resolve(config_lib.changed(config_lib.defaults(), f'task=report report.runs={tmp_path}/runs'))
  with pytest.raises(UserError, match='holds a run, whose report.html would be replaced: give another --workdir'):
    report.report(c, run)
  assert (run / 'report.html').read_text() == 'its own' and not (run / 'report.json').exists()


def test_test_accuracies_are_looked_up_for_runs_that_had_none(tmp_path, monkeypatch):
  run, asked = made(tmp_path / 'runs' / 'a'), []

  class Table:
    def query(self, genotype):
      asked.append(NB201.write(genotype))
      return {'cifar10': {'valid': 87.81, 'test': 91.5}}

  monkeypatch.setattr(nasbench201, 'load', lambda csv, api, say: Table())
  oracle = config_lib.changed(config_lib.defaults(), 'oracle.test_csv=FILE').oracle
  (row,) = report.compare([run], tmp_path / 'r', oracle).values()
  assert row['oracle']['cifar10']['test']['mean'] == 91.5 and asked == [CELL]
  assert 'oracle' not in report.compare([run], tmp_path / 's')['runs'] and len(asked) == 1


def test_code_that_a_run_names_runs_only_where_it_is_trusted(tmp_path):
  evil, mine = tmp_path / 'evil.py', tmp_path / 'mine' / 'two_nodes.py'
  mine.parent.mkdir()
  shutil.copy(EXAMPLE, mine)
  space, genotype = own(EXAMPLE)
  run = made(tmp_path / 'a' / 'seed_0', space, genotype, space=str(evil))
  for content in (None, f'import pathlib\npathlib.Path({str(tmp_path / "ran")!r}).touch()\n' + EXAMPLE.read_text()):
    if content:
      evil.write_text(content)
    with pytest.raises(UserError, match='config.trust=') as error:
      report.compare([run], tmp_path / 'r', trust=[str(mine)])
    assert 'evil.py' in one_line(error) and not (tmp_path / 'ran').exists()
  shutil.copy(EXAMPLE, evil)  # the same bytes as the file that the user names
  c = config_lib.resolve(config_lib.changed(config_lib.defaults(), f'task=report report.runs={tmp_path} trust={mine}'))
  assert list(report.report(c, tmp_path / 'r')) == ['a']


@pytest.mark.parametrize('changes, prints, apart', [
    ({}, {}, False), ({'finalists': 4, 'finalist_epochs': 1.0}, {}, True), ({'finalists': 0}, {}, False),
    ({'finalist_margin': 3.0}, {}, False), ({'data': {'dir': 'elsewhere'}}, {}, False), ({'epochs': 2.0}, {}, True),
    ({}, {'data_fingerprint': 'b'}, True), ({}, {'data_fingerprint': 'b', 'streamed': True}, False),
    ({'phi': {'until': 0.8}}, {}, True), ({'phi': {'until': 1.0}}, {}, False), ({'trust': 'x'}, {}, False),
    ({'space': {'name': 'b.py'}}, {}, False), ({'space': {'name': 'b.py'}}, {'space_fingerprint': 'b'}, True)])
def test_runs_are_one_experiment_where_only_the_seed_differs(tmp_path, changes, prints, apart):
  """Whether finalists were trained counts, though they may be asked for later; a field that one run is too old to have
  does where it is known what it did; so do data of other contents, and not how a file of one's own is called."""
  runs = [made(tmp_path / 'a' / f'seed_{seed}', seed=seed) for seed in (0, 1)]
  config = {'seed': 0, 'epochs': 1.0, 'data': {'dir': 'x'}, 'space': {'name': 'a.py'}}
  about = {'data_fingerprint': 'a', 'space_fingerprint': 'a', 'streamed': False}
  (runs[0] / 'config.json').write_text(json.dumps({'config': config, **about}))
  (runs[1] / 'config.json').write_text(json.dumps({'config': config | {'seed': 1} | changes, **about | prints}))
  assert list(report.compare(runs, tmp_path / 'r')) == (['a/seed_0', 'a/seed_1'] if apart else ['a'])
  told = report.across(runs, tmp_path / 'c', chosen=pages.Chosen(1, 'a rule', {0: 40.0, 1: 41.0}))
  assert list(told) == ['a']  # seeds of one command are one, however they were begun


def test_what_finalists_cost_and_how_long_runs_were_is_told_of_all(tmp_path):
  facts = {'rows': [{'valid_top1': 40.0}] * 4, 'epochs_in_all': 4.0, 'chosen': 1}
  runs = [made(tmp_path / 'a' / f'seed_{seed}', seed=seed, finalists=facts, steps=8 - 4 * seed, planned_steps=8)
          for seed in (0, 1)]
  row = report.compare(runs, tmp_path / 'r')['a']
  assert row['finalist_epochs']['mean'] == 4 and row['epochs'] == 0.75
  assert 'finalists, epochs' in (tmp_path / 'r' / 'report.md').read_text()
  told = (tmp_path / 'r' / 'report.html').read_text()
  assert 'finalists, epochs on top' in told and 'had decided before their end' not in told


def test_what_seeds_agree_on_is_counted_over_all_and_the_first_are_shown(tmp_path):
  other = CELL.replace('nor_conv_3x3~0', 'none~0')
  runs = [made(tmp_path / 'a' / f'seed_{seed}', text=other if seed > 11 else CELL, seed=seed) for seed in range(14)]
  report.compare(sorted(runs, key=str), tmp_path / 'r')  # as text: 0, 1, 10, 11, 12, 13, 2, ...
  told = (tmp_path / 'r' / 'report.html').read_text()
  assert '12 of 14<' in told
  assert told.count('; 12 of 14 seeds are shown') == 2
  table = told[told.index('what each seed took'):]
  table = table[:table.index('</table>')]
  assert [f'seed {seed}<' in table for seed in range(14)] == [True] * 12 + [False] * 2
  assert table.index('seed 2<') < table.index('seed 10<')


def test_what_was_not_recorded_is_not_drawn_as_the_start(tmp_path, monkeypatch):
  """Of a run of 8 steps without arch.jsonl the end alone is known; of one without a step the end is the start."""
  drawn = {}
  monkeypatch.setattr(report.draw, 'distributions', lambda runs, path: drawn.update(runs))
  runs = [made(tmp_path / name / f'seed_{seed}', seed=seed, steps=0 if name == 'none' else 8)
          for name in ('all', 'some', 'none') for seed in (0, 1)]
  for run in runs:
    if run.parent.name != 'some' or run.name == 'seed_0':
      (run / 'arch.jsonl').unlink()
  report.compare(runs, tmp_path / 'r')
  assert drawn['all'][0] is None and drawn['all'][1]['cell'].shape == (6, 5)
  assert all(drawn[name][0]['cell'].shape == (6, 5) for name in ('some', 'none'))  # seed 1 of `some` was recorded
  assert 'are those of one seed of each experiment' in (tmp_path / 'r' / 'report.md').read_text()


def test_test_and_validation_accuracies_do_not_stand_in_one_column(tmp_path):
  for name, part in (('a', 'test'), ('b', 'valid')):
    run = made(tmp_path / name / 'seed_0')
    (run / 'retrain').mkdir()
    (run / 'retrain' / 'result.json').write_text(json.dumps({'params': 7, f'{part}_top1': 80.0 + (part == 'valid')}))
  rows = report.compare([tmp_path / name / 'seed_0' for name in 'ab'], tmp_path / 'r')
  assert rows['a']['retrained']['mean'] == 80 and 'retrained' not in rows['b']
  assert rows['b']['retrained_valid']['mean'] == 81
  told = (tmp_path / 'r' / 'report.md').read_text()
  assert 'retrained, test %' in told and 'retrained, validation %' in told


def test_equal_rows_share_the_first_place(tmp_path):
  runs = [made(tmp_path / name / f'seed_{seed}', seed=seed, oracle=ORACLE, data='cifar10') for name in 'ab'
          for seed in (0, 1)]
  report.compare(runs, tmp_path / 'r')
  assert 'within what the seeds differ by' in (tmp_path / 'r' / 'report.html').read_text()


def test_spaces_of_one_name_do_not_write_over_each_other(tmp_path):
  files = [tmp_path / name / 'report.md.py' for name in ('one', 'two')]
  for number, path in enumerate(files):
    path.parent.mkdir()
    path.write_text(EXAMPLE.read_text() + f'# {number}\n')
  runs = [made(tmp_path / f'run{n}' / 'seed_0', *own(path)) for n, path in enumerate(files)]
  report.across([*runs, made(tmp_path / 'nb' / 'seed_0')], tmp_path / 'r', trust=list(map(str, files)))
  assert {p.name for p in (tmp_path / 'r').iterdir()} == {
      'report_md', 'report_md_2', 'nb201', 'report.html', 'report.md', 'report.json', 'comparison.png'}


def test_names_from_outside_are_written_and_drawn(tmp_path):
  name = 'a|$x_$ \u4e2d'
  rows = report.compare([made(tmp_path / name / 'seed_0')], tmp_path / 'r')
  text = (tmp_path / 'r' / 'report.md').read_bytes().decode()
  assert list(rows) == [name] and 'a\\|$x_$ \u4e2d' in text
