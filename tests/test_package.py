"""What is installed: pyproject.toml and the requirements say the same, and configurations are found by name."""

import tomllib

import pytest
from conftest import ROOT

from vimnas_jax import main

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def requirements(name):
  """What requirements`name`.txt asks for, with what it includes."""
  found = []
  for line in (ROOT / f'requirements{name}.txt').read_text().splitlines():
    line = line.partition('#')[0].strip()
    found += requirements(line.removeprefix('-r requirements').removesuffix('.txt')) if line[:2] == '-r' else [line]
  return [line for line in found if line]


@pytest.mark.parametrize('extra', ['', 'cuda', 'nb301', 'bench', 'onnx', 'dev'])
def test_extras_are_the_requirements(extra):
  more = PROJECT['optional-dependencies'].get(extra, [])
  assert sorted({*PROJECT['dependencies'], *more}) == sorted(requirements(extra and f'-{extra}'))


def test_every_file_of_requirements_is_an_extra():
  names = {path.stem.partition('-')[2] for path in ROOT.glob('requirements-*.txt')}
  assert names == set(PROJECT['optional-dependencies'])


def test_configurations_that_come_with_the_package_are_named(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = str(ROOT / 'configs' / 'darts_c10.py')
  for name in ('darts_c10', 'darts_c10.py', 'configs/darts_c10.py'):
    assert main._shipped(name) == path and main._shipped(f'{name}:smoke,strict') == f'{path}:smoke,strict'
  for other in ('none', 'other/darts_c10.py', './darts_c10.py', '', ':smoke'):
    assert main._shipped(other) == other
  (tmp_path / 'darts_c10.py').write_text('')  # the user's own comes first
  assert main._shipped('darts_c10.py') == 'darts_c10.py'
  words = ['x', '--config=darts_c10', '--config.seed=1', '--config', 'nb201_c10:smoke', '-config=quickstart']
  assert main._with_shipped(words) == ['x', f'--config={path}', '--config.seed=1', '--config',
                                       f'{ROOT}/configs/nb201_c10.py:smoke', f'-config={ROOT}/configs/quickstart.py']
