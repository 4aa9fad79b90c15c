"""Several seeds as one program: what each finds is what it finds alone, up to rounding."""

import json
import types

import numpy as np
import pytest
from conftest import ONE_EDGE, SLOW, Cut, one_line

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import cpu, files
from vimnas_jax.errors import UserError
from vimnas_jax.runs import loop, metrics
from vimnas_jax.verbs import outcome, together


@pytest.fixture
def tiny(monkeypatch):
  """Two seeds of a search of 8 steps, 4 of them before phi moves, in the plain form."""
  monkeypatch.setattr(cpu, 'available', lambda: False)
  c = config_lib.defaults()
  c.data.name, c.data.image_size, c.data.num_train, c.supernet_images = 'synthetic', 8, 64, 16
  c.space.name, c.space.cells, c.space.channels, c.batch_size, c.log_steps = ONE_EDGE, 1, 4, 8, 1
  c.devices, c.seeds, c.at_once, c.trust, c.checkpoint_steps = 1, (0, 3), True, ONE_EDGE, 3
  c.method.name, c.method.samples = 'darts_noise', 2
  return c


def rows(folder, name):
  return metrics.read(folder / name)


def close(folder, other):
  for name in ('metrics.jsonl', 'arch.jsonl'):
    ours, theirs = rows(folder, name), rows(other, name)
    assert [row['step'] for row in ours] == [row['step'] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
      if name == 'arch.jsonl':
        np.testing.assert_allclose(a['probs']['cell'], b['probs']['cell'], atol=1e-3)
      else:
        np.testing.assert_allclose(a['loss'], b['loss'], rtol=1e-3)


@SLOW
def test_seeds_at_once_find_what_they_find_alone(tiny, tmp_path, monkeypatch, capsys):
  found = vimnas_jax.search(tiny, tmp_path / 'at_once')
  assert '2 seeds at once: darts_noise' in capsys.readouterr().out
  alone = vimnas_jax.search(config_lib.changed(tiny, 'at_once=False'), tmp_path / 'alone')
  assert 'run 1 of 2' in capsys.readouterr().out
  for seed in (0, 3):
    close(tmp_path / 'at_once' / f'seed_{seed}', tmp_path / 'alone' / f'seed_{seed}')
    result = json.loads((tmp_path / 'at_once' / f'seed_{seed}' / 'result.json').read_text())
    assert result['together'] == 2 and result['seed'] == seed and result['seconds_per_step'] > 0
    assert (tmp_path / 'at_once' / f'seed_{seed}' / 'report.html').exists()
  assert found['seeds'] == [0, 3] and found['rule'] == alone['rule']
  assert [row['genotype'] for row in found['per_seed']] == [row['genotype'] for row in alone['per_seed']]
  assert not (tmp_path / 'at_once' / 'together').exists()
  losses = [rows(tmp_path / 'at_once' / f'seed_{seed}', 'metrics.jsonl')[0]['loss'] for seed in (0, 3)]
  assert losses[0] != losses[1]

  told, cuts = metrics.Console.step, [5]  # cut off, and gone on to the same bits

  def step(self, at, *args):
    told(self, at, *args)
    if cuts and at == cuts[0]:
      cuts.pop()
      raise Cut

  monkeypatch.setattr(metrics.Console, 'step', step)
  with pytest.raises(Cut):
    vimnas_jax.search(tiny, tmp_path / 'cut')
  with pytest.raises(UserError) as error:
    vimnas_jax.search(config_lib.changed(tiny, 'seeds=(0,3,4)'), tmp_path / 'cut')
  assert 'begun to search with seeds [0, 3] at once, and [0, 3, 4] are asked' in one_line(error)
  vimnas_jax.search(tiny, tmp_path / 'cut')
  assert 'after step 3 of' in capsys.readouterr().out
  for seed in (0, 3):
    own = [json.loads((tmp_path / where / f'seed_{seed}' / 'result.json').read_text()) for where in ('at_once', 'cut')]
    assert own[0]['state_sha256'] == own[1]['state_sha256']
  written, kills = outcome.write, [0]  # killed among the results, and gone on to the same

  def write(folder, *args):
    if folder.name == 'seed_3' and kills:
      kills.pop()
      raise Cut
    return written(folder, *args)

  monkeypatch.setattr(outcome, 'write', write)
  with pytest.raises(Cut):
    vimnas_jax.search(tiny, tmp_path / 'killed')
  assert not (tmp_path / 'killed' / 'seed_3' / 'result.json').exists()
  vimnas_jax.search(tiny, tmp_path / 'killed')
  own = [json.loads((tmp_path / where / 'seed_3' / 'result.json').read_text()) for where in ('at_once', 'killed')]
  assert own[0]['state_sha256'] == own[1]['state_sha256']
  assert not (tmp_path / 'killed' / 'together').exists()
  more = vimnas_jax.search(config_lib.changed(tiny, 'seeds=(0,3,4)'), tmp_path / 'cut')
  assert more['seeds'] == [0, 3, 4]  # those that are finished are not searched again


def test_a_kill_at_the_start_or_the_end_blocks_no_folder(tmp_path):
  runs = [types.SimpleNamespace(searched=types.SimpleNamespace(seed=seed)) for seed in (3, 0, 5)]
  inner = tmp_path / together.FOLDER
  assert together._begun(inner, runs, runs) == []
  for place in ('together', 'seed_0', 'seed_3'):
    (tmp_path / place).mkdir()
  files.write_json(inner / 'seeds.json', {'seeds': [0, 3]})
  with pytest.raises(UserError) as error:
    together._begun(inner, runs, runs)
  assert 'begun to search with seeds [0, 3] at once, and [3, 0, 5] are asked' in one_line(error)
  with pytest.raises(UserError):
    together._begun(inner, runs[2:], runs[2:])
  assert together._begun(inner, runs[:2], runs[:2]) == [runs[1], runs[0]]  # in the order of then
  files.write_json(tmp_path / 'seed_0' / 'result.json', {})  # a kill among the results: all are of what they share
  assert together._begun(inner, runs[:2], runs[:1]) == [runs[1], runs[0]] and inner.exists()
  files.write_json(tmp_path / 'seed_3' / 'result.json', {})
  assert together._begun(inner, runs, runs[2:]) == [] and not inner.exists()


@pytest.mark.parametrize('change, says', [
    ('seeds=()', 'config.at_once is for several seeds'), ('max_hours=1.0', 'does not keep config.max_hours=0.5'),
    ('method.name=darts_plus method.samples=None', 'may end at different steps'),
    ('devices=2', 'is for one device, here are 2'), ('limit.params=1e6', 'knows no config.limit')])
def test_what_cannot_run_at_once_is_refused(tiny, tmp_path, change, says):
  with pytest.raises(UserError) as error:
    vimnas_jax.search(config_lib.changed(tiny, change), tmp_path / 'run')
  assert says in one_line(error)
  assert not list(tmp_path.rglob('result.json')) and not list(tmp_path.rglob('checkpoints'))


def test_every_folder_says_which_images_it_had(tiny, tmp_path, monkeypatch):
  own = tmp_path / 'own.py'
  own.write_text('import numpy as np\n\n\ndef load(config):\n  images, labels = np.zeros((64, 8, 8, 3), np.uint8), '
                 "np.arange(64) % 2\n  return images, labels, images, labels, ['ant', 'bee']\n")
  monkeypatch.setattr(loop, 'to_the_end', lambda *args: None)  # a signal before the first step
  vimnas_jax.search(config_lib.changed(tiny, f'data.name={own} data.search_parts=(0.5,0.25)'), tmp_path / 'run')
  for seed in (0, 3):
    about, parts = (json.loads((tmp_path / 'run' / f'seed_{seed}' / name).read_text())
                    for name in ('data.json', 'subset.json'))
    assert [one['name'] for one in about['classes']] == ['ant', 'bee'] and about['images']['training'] == 64
    assert [parts[name]['images'] for name in ('weights', 'architecture')] == [32, 16]


def test_kernels_of_a_cpu_are_named(tiny, tmp_path, monkeypatch):
  monkeypatch.setattr(together.cpu, 'supernet_kernels', lambda: together)
  with pytest.raises(UserError) as error:
    vimnas_jax.search(tiny, tmp_path / 'run')
  assert 'VIMNAS_JAX_KERNELS=0' in one_line(error)
  with pytest.raises(UserError, match='VIMNAS_JAX_KERNELS=0'):  # a dry run refuses what the run would
    vimnas_jax.plan(tiny, tmp_path / 'run')
