"""What is installed: pyproject.toml and the requirements say the same, and configurations are found by name."""

import json
import signal
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

import vimnas_jax
from vimnas_jax import api, main
from vimnas_jax.errors import UserError

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def requirements(name):
  """What requirements`name`.txt asks for, with what it includes."""
  found = []
  for line in (ROOT / f'requirements{name}.txt').read_text().splitlines():
    line = line.partition('#')[0].strip()
    found += requirements(line.removeprefix('-r requirements').removesuffix('.txt')) if line[:2] == '-r' else [line]
  return [line for line in found if line]


@pytest.mark.parametrize('extra', ['', 'cuda', 'nb301', 'tensorboard', 'bench', 'onnx', 'dev', 'browser'])
def test_extras_are_the_requirements(extra):
  more = PROJECT['optional-dependencies'].get(extra, [])
  assert sorted({*PROJECT['dependencies'], *more}) == sorted({*requirements(extra and f'-{extra}')})


def test_every_file_of_requirements_is_an_extra():
  names = {path.stem.partition('-')[2] for path in ROOT.glob('requirements-*.txt')}
  assert names == set(PROJECT['optional-dependencies'])


def test_configurations_that_come_with_the_package_are_named(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = str(ROOT / 'configs' / 'darts_c10.py')
  for name in ('darts_c10', 'darts_c10.py', 'configs/darts_c10.py'):
    assert api.shipped(name) == path and api.shipped(f'{name}:smoke,strict') == f'{path}:smoke,strict'
  for other in ('none', 'other/darts_c10.py', './darts_c10.py', '', ':smoke'):
    assert api.shipped(other) == other
  (tmp_path / 'darts_c10.py').write_text('')  # the user's own comes first
  assert api.shipped('darts_c10.py') == 'darts_c10.py'
  words = ['x', '--config=darts_c10', '--config.seed=1', '--config', 'nb201_c10:smoke', '-config=quickstart']
  assert main._with_shipped(words) == ['x', f'--config={path}', '--config.seed=1', '--config',
                                       f'{ROOT}/configs/nb201_c10.py:smoke', f'-config={ROOT}/configs/quickstart.py']


def test_importing_the_package_imports_little_and_touches_nothing():
  code = ('import os, signal, sys; before = dict(os.environ), signal.getsignal(signal.SIGTERM); import vimnas_jax; '
          'assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before; '
          'heavy = {"jax", "numpy", "absl", "matplotlib"} & set(sys.modules); assert not heavy, heavy')
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
  assert set(vimnas_jax.__all__) <= set(dir(api)) and not hasattr(vimnas_jax, 'nothing')


def test_configure_names_what_is_wrong():
  config = vimnas_jax.configure('nb201_c10:method=darts', {'data.dir': 'DIR'}, seed=3)
  assert (config.method.name, config.data.dir, config.seed, config.space.name) == ('darts', 'DIR', 3, 'nb201')
  paths = vimnas_jax.configure(ROOT / 'configs' / 'retrain_c10.py', {'data.dir': ROOT / 'x'}, genotype=ROOT / 'y')
  assert (paths.task, paths.data.dir, paths.genotype) == ('retrain', f'{ROOT}/x', f'{ROOT}/y')
  for name, fields, word in (('none', {}, "'none'"), (ROOT / 'none.py', {}, 'none.py'),
                             ('quickstart', {'sead': 1}, 'sead'),
                             ('quickstart', {'batch_size': 'many'}, 'many'), ('quickstart:fast', {}, 'fast')):
    with pytest.raises(UserError, match=word) as error:
      vimnas_jax.configure(name, fields)
    assert '\n' not in str(error.value)


def test_a_search_by_the_interface_leaves_signals_alone(tmp_path):
  config = vimnas_jax.configure('nb201_c10', {
      'data.name': 'synthetic', 'data.image_size': 8, 'data.num_train': 64, 'space.cells': 1, 'space.channels': 8,
      'pretrain.epochs': 0.0, 'method.name': 'random'}, batch_size=16, epochs=0.0, devices=1)
  before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
  seen = []
  signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
  try:
    result = vimnas_jax.search(config, tmp_path / 'run')
    signal.raise_signal(signal.SIGTERM)
  finally:
    signal.signal(signal.SIGTERM, before[1])
  assert seen and signal.getsignal(signal.SIGINT) == before[0]
  assert json.loads((tmp_path / 'run' / 'result.json').read_text()) == result and result['space'] == 'nb201'
  assert vimnas_jax.search(config, tmp_path / 'run') == result  # finished: told again
