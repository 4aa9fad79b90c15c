"""runs/kept.py: compiled steps that are read by the next process instead of being traced."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ONE_EDGE, QUICK, ROOT, SLOW
from jax.experimental.compilation_cache import compilation_cache

from vimnas_jax import config as config_lib
from vimnas_jax import cpu, files, methods
from vimnas_jax.runs import kept, signals

if not cpu.available():
  pytest.skip('the kernels are needed', allow_module_level=True)


@jax.jit
def step(state, held):
  moved = {'at': state['at'] + 1, 'x': jnp.sin(state['x']) * held}
  return moved, {'loss': moved['x'].sum(), 'probs': {'cell': moved['x'][None]}}


def arguments():
  return {'at': jnp.int32(3), 'x': jnp.arange(5.0)}, jnp.float32(2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setattr(kept, '_ALLOWED', ['a config file'])
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', str(tmp_path))
  compilation_cache.reset_cache()  # JAX's own, which keeps to its first folder
  yield tmp_path / 'steps'
  jax.config.update('jax_compilation_cache_dir', before)
  compilation_cache.reset_cache()


def test_a_step_is_read_the_second_time_and_says_the_same(folder):
  first = kept.compiled(step, arguments(), 'name')
  assert isinstance(first, jax.stages.Compiled) and len([*folder.iterdir()]) == 1
  second = kept.compiled(step, arguments(), 'name')
  assert isinstance(second, kept._Kept) and second.memory_analysis() is not None
  want = first(*arguments())
  for _ in range(2):
    found = second(*arguments())
    assert jax.tree.structure(found) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, found, want)
  assert [*folder.iterdir()]  # it was not made anew


def test_what_is_damaged_or_fails_is_made_anew(folder):
  want = kept.compiled(step, arguments(), 'name')(*arguments())
  file, = folder.iterdir()
  whole = file.read_bytes()
  file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
  assert isinstance(kept.compiled(step, arguments(), 'name'), jax.stages.Compiled)
  file.write_bytes(whole)
  program = kept.compiled(step, arguments(), 'name')

  def fails(*args):
    raise RuntimeError('Function pad_slice_fusion.43 not found')

  program._program = fails
  for _ in range(2):
    jax.tree.map(np.testing.assert_array_equal, program(*arguments()), want)
  assert not file.exists()


def test_a_step_is_traced_where_its_settings_hold(folder):
  with jax.enable_x64(True):
    args = {'at': jnp.int32(3), 'x': jnp.arange(5.0, dtype='float64')}, jnp.float64(2)
    for _ in range(2):
      state, values = kept.compiled(step, args, 'name', signals.interruptible)(*args)
      assert state['x'].dtype == values['loss'].dtype == np.float64
    assert len([*folder.iterdir()]) == 1


def test_all_that_decides_a_step_is_in_its_name(folder, monkeypatch):
  def path(name='name', args=None):
    return kept._path(name, args or arguments())

  found = {path(), path('other'), path(args=({'at': jnp.int32(3), 'x': jnp.arange(6.0)}, jnp.float32(2)))}
  with jax.default_matmul_precision('highest'):
    found.add(path())
  monkeypatch.setenv('XLA_FLAGS', os.environ.get('XLA_FLAGS', '') + ' --xla_cpu_enable_fast_math=true')
  found.add(path())
  monkeypatch.undo()
  monkeypatch.setattr(kept, '_ALLOWED', ['another config file'])
  found.add(path())
  monkeypatch.setattr(kept, '_surroundings', lambda: ('other sources', '', '', '', ''))
  found.add(path())
  assert len(found) == 7 and None not in found
  assert path(None) is None
  monkeypatch.setattr(kept, '_ALLOWED', [])  # the package is called by other code, which may have changed it
  assert path() is None


def test_nothing_is_kept_where_the_sources_have_changed_since_the_process_began(folder, monkeypatch):
  kept._surroundings()
  monkeypatch.setattr(kept.provenance, 'sources', lambda: 'of now')
  kept.compiled(step, arguments(), 'name')
  assert not folder.exists()
  monkeypatch.setattr(kept, '_ALLOWED', [])
  kept.allow('', 'of before')
  assert not kept._ALLOWED
  kept.allow('', 'of now')
  assert kept._ALLOWED


def test_modules_that_a_configuration_imports_count(tmp_path, monkeypatch):
  monkeypatch.setattr(kept, '_ALLOWED', [])
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / 'tweaks_of_mine.py').write_text('RATE = 1')
  kept.allow('import tweaks_of_mine')
  importlib.import_module('tweaks_of_mine')
  assert (tmp_path / 'tweaks_of_mine.py').resolve() in kept._others()
  kept.allow('import tweaks_of_mine')
  (tmp_path / 'tweaks_of_mine.py').write_text('RATE = 2')
  kept.allow('import tweaks_of_mine')
  assert len({*kept._ALLOWED}) == 3
  assert not [path for path in kept._others() if 'site-packages' in path.parts or path.parent.name == 'runs']


def test_a_cache_that_may_only_be_read_is_read(folder, monkeypatch):
  kept.compiled(step, arguments(), 'name')

  def refused(*_, **__):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(pathlib.Path, 'touch', refused)
  monkeypatch.setattr(pathlib.Path, 'unlink', refused)
  assert isinstance(kept.compiled(step, arguments(), 'name'), kept._Kept)


def test_a_run_is_named_by_its_configuration_unless_code_of_ones_own_is_in_it():
  def name(changes='', *more):
    return kept.identity(config_lib.resolve(config_lib.changed(config_lib.defaults(), changes)), *more)

  same = name('space.name=nb201', 'search')
  assert same == name('space.name=nb201 seed=3 data.dir=/there checkpoint_steps=7', 'search')
  for changes, stage in (('space.name=nb201', 'pretrain'), ('space.name=darts', 'search'),
                         ('space.name=nb201 method.samples=4', 'search'), ('space.name=nb201 remat=True', 'search')):
    assert name(changes, stage) != same
  assert name(f'space.name={ONE_EDGE}', 'search') is None


# What no step is made of: where things lie, when they are kept, what begins a run and what follows it.
ELSEWHERE = {
    'seed', 'dry_run', 'then', 'max_hours', 'log_steps', 'tensorboard', 'devices', 'trust', 'genotype', 'eval_batch',
    'supernet_images', 'data.dir', 'data.download', 'data.split', 'data.max_pixels', 'data.workers', 'data.max_corrupt',
    'checkpoint_steps', 'checkpoint_minutes', 'checkpoint_keep', 'checkpoint_hours', 'finalists', 'finalist_epochs',
    'finalist_shrink', 'finalist_margin', 'oracle.nasbench101', 'oracle.nasbench201', 'oracle.nasbench301',
    'oracle.test_csv'}


def test_every_other_field_of_a_configuration_is_in_its_name():
  """Those of all methods too: of a field that is left out the program of another configuration would be read."""
  flat = files.flatten(config_lib.defaults().to_dict()) | {f'method.{field}': 1 for field in methods.field_types()}

  def name(**changes):
    return kept.identity(types.SimpleNamespace(to_dict=lambda: flat | changes))

  assert {field for field in flat if name(**{field: 'another'}) == name()} == ELSEWHERE and len(flat) > 150


@pytest.mark.parametrize('stays, size, threads', [('0', 1 << 22, 1), ('0', 0, 0), ('', 1 << 22, 0)])
def test_memory_is_cleared_meanwhile_where_it_stays_with_the_process(monkeypatch, stays, size, threads):
  monkeypatch.setenv('MALLOC_MMAP_MAX_', stays)
  started = []
  monkeypatch.setattr(threading.Thread, 'start', lambda self, start=threading.Thread.start: (started.append(self),
                                                                                             start(self)))
  memory = kept._Memory(size)
  memory.release()
  memory.release()
  assert len(started) == threads and not any(thread.is_alive() for thread in started)


@SLOW
def test_a_second_process_ends_as_the_first_did(tmp_path):
  found = []
  for at in ('first', 'second'):
    env = os.environ | {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'), 'XLA_FLAGS': QUICK}  # one device
    done = subprocess.run([sys.executable, '-m', 'vimnas_jax.main', '--config=quickstart:smoke', '--config.seed=1',
                           f'--workdir={tmp_path / at}'], cwd=ROOT, env=env, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
    found.append(json.loads((tmp_path / at / 'result.json').read_text()))
    found[-1] |= {'kept': sorted((path.name, path.stat().st_size) for path in (tmp_path / 'cache/steps').iterdir())}
  assert found[0]['kept'] == found[1]['kept'] and len(found[0]['kept']) == 1
  assert found[0]['probs'] == found[1]['probs'] and found[0]['genotype'] == found[1]['genotype']
  first, second = (pathlib.Path(tmp_path, at, 'arch.jsonl').read_text() for at in ('first', 'second'))
  assert first == second
