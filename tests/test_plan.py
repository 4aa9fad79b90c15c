"""What can be asked for, and what a command would do: the reference, the help and the dry run."""

import re
import subprocess
import sys

import pytest
from conftest import ONE_EDGE, ROOT, one_line

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import methods
from vimnas_jax.errors import UserError
from vimnas_jax.files import flatten
from vimnas_jax.verbs import reference

TINY = {'data.name': 'synthetic', 'data.image_size': 8, 'space.name': ONE_EDGE, 'space.cells': 1, 'space.channels': 4,
        'method.name': 'darts_noise'}


def test_every_field_has_a_meaning_and_the_page_is_that_of_the_source():
  listed = {field.name: field for field in reference.of_config()}
  known = flatten(config_lib.defaults().to_dict())
  assert set(listed) == {name for name in known if not name.startswith('method.')} | {'method.name'}
  assert all(field.meaning for field in listed.values())
  assert listed['seed'].meaning.startswith('root of all randomness')
  assert listed['data.photographs'].meaning.endswith('256 goes with 224')  # of a comment of several lines the last
  for name in methods.NAMES:
    rows = reference.of_method(name)
    assert [row.name for row in rows] == list(methods.fields(name))
    assert all(row.meaning for row in rows), name
  assert {row.name: row.default for row in reference.of_method('darts_second')}['unrolled'] == "'finite'"
  assert (ROOT / 'docs' / 'config.md').read_text(encoding='utf-8') == reference.markdown(), (
      'python -m vimnas_jax.verbs.reference > docs/config.md')


def test_comments_belong_to_the_line_that_they_follow():
  assert reference.comments('a = 1  # one\n#  more\n# still\n\n# alone\nb = 2\nc = "#"  # two\n') == {
      1: 'one more still', 7: 'two'}


def test_help_lists_tasks_configurations_methods_and_fields():
  done = subprocess.run([sys.executable, '-m', 'vimnas_jax.main', '--help'], cwd=ROOT, text=True, capture_output=True)
  assert done.returncode == 0 and not done.stderr
  for word in ('quickstart', 'predict', 'tenas', 'checkpoint_steps=50', '--workdir', 'Exit codes'):
    assert word in done.stdout, word


def test_a_dry_run_times_a_step_and_writes_nothing(tmp_path, capsys):
  config = vimnas_jax.configure('quickstart', {**TINY, 'then': 'retrain'}, seeds=(3, 4), supernet_images=64,
                                train_portion=0.5, epochs=10.0)
  runs = vimnas_jax.plan(config, tmp_path / 'run')
  assert [(run['workdir'], run['task']) for run in runs] == [
      (str(tmp_path / 'run' / f'seed_{seed}' / retrained), task) for seed in (3, 4)
      for retrained, task in (('', 'search'), ('retrain', 'retrain'))]
  first = runs[0]
  assert first['steps'] == (1 + 10) * (256 // 64) and first['seconds'] >= first['steps'] * first['seconds_a_step'] > 0
  assert first['fields']['phi.lr'] == 0.025 and first['fields']['seed'] == 3 and 'data.flip' in first['fields']
  assert runs[1]['fields']['epochs'] == 15.0 and 'seconds' not in runs[1]
  assert not list(tmp_path.iterdir())
  said = capsys.readouterr().out
  assert re.search(r'compiled in .* s\n.* s a step \(measured\), 44 steps: about', said)
  assert said.endswith('4 runs; the first alone was timed\na dry run: nothing was written\n')


def test_a_dry_run_of_a_study_names_every_run_and_of_a_method_without_steps_has_no_time(tmp_path, capsys):
  config = vimnas_jax.configure('quickstart', {**TINY, 'method.name': 'tenas'})
  [run] = vimnas_jax.plan(config, tmp_path)
  assert run['steps'] == 0 and run['bytes'] is None
  capsys.readouterr()
  config.task, config.study.members, config.study.seeds = 'study', ('a method.name=tenas', 'b log_steps=5'), (0, 1)
  runs = vimnas_jax.plan(config, tmp_path)
  assert [run['workdir'].removeprefix(str(tmp_path)) for run in runs] == ['/a/seed_0', '/a/seed_1', '/b/seed_0',
                                                                          '/b/seed_1']
  assert f'{tmp_path}/a/seed_1: search, with seed=1\n' in capsys.readouterr().out
  assert not list(tmp_path.iterdir())


def test_a_dry_run_refuses_what_the_run_would(tmp_path):
  config = vimnas_jax.configure('quickstart', TINY, batch_size=60)
  with pytest.raises(UserError) as error:
    vimnas_jax.plan(config, tmp_path / 'run')
  assert 'config.batch_size=60 is no multiple of config.method.samples=8' in one_line(error)
  with pytest.raises(UserError, match=r'call vimnas_jax\.plan'):
    vimnas_jax.search(vimnas_jax.configure('quickstart', TINY, dry_run=True), tmp_path / 'run')
  assert not list(tmp_path.iterdir())
