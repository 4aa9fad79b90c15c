"""Searches that are interrupted, damaged, or shared by devices end as one that is left alone."""

import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ONE_EDGE, SLOW, Cut, fixed
from processes import ENV, STEPS, result, rows, run, start

from configs import nb201_c10, quickstart
from vimnas_jax import config as config_lib
from vimnas_jax import data, methods, spaces
from vimnas_jax.errors import UNFINISHED
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.runs import metrics, optim, parallel, state
from vimnas_jax.runs import steps as steps_lib
from vimnas_jax.verbs import search


def asked():
  """The search of TINY in the smallest space."""
  c = nb201_c10.get_config()
  c.update_from_flattened_dict({
      'data.name': 'synthetic', 'data.image_size': 8, 'space.name': ONE_EDGE, 'space.cells': 1, 'space.channels': 8,
      'batch_size': 8, 'epochs': 0.5, 'pretrain.epochs': 0.1875, 'log_steps': 1, 'checkpoint_steps': 7, 'phi.lr': 0.1,
      'devices': 1})
  return config_lib.resolve(c)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('whole')
  assert search.search(asked(), folder)['steps'] == STEPS
  return folder


def same(workdir, whole):
  for field in ('state_sha256', 'genotype'):
    assert result(workdir)[field] == result(whole)[field]
  for name in ('metrics.jsonl', 'arch.jsonl'):
    assert rows(workdir / name) == rows(whole / name)


@pytest.mark.parametrize('cuts', [[(4, Cut), (10, signal.SIGTERM), (17, Cut)], [(3, signal.SIGINT)]],
                         ids=['often', 'once'])
def test_interrupted_here_equals_uninterrupted(whole, tmp_path, monkeypatch, capsys, cuts):
  """Before the first checkpoint, in pretraining and after it: cut off as by a kill, or asked to stop."""
  told = metrics.Console.step
  for number, (steps, how) in enumerate(cuts):
    def step(self, at, *args, steps=steps, how=how):
      told(self, at, *args)
      if at == steps:
        if how is Cut:
          raise Cut
        signal.raise_signal(how)

    with monkeypatch.context() as patched:
      patched.setattr(metrics.Console, 'step', step)
      if how is Cut:
        with pytest.raises(Cut):
          search.search(asked(), tmp_path)
      else:
        assert search.search(asked(), tmp_path) is None
        assert 'run the same command' in capsys.readouterr().out
    assert not (tmp_path / 'result.json').exists(), number
  search.search(asked(), tmp_path)
  assert 'resuming' in capsys.readouterr().out
  same(tmp_path, whole)


@pytest.mark.parametrize('how', ['flipped', *(pytest.param(how, marks=SLOW) for how in ('truncated', 'half-saved'))])
def test_damaged_checkpoint_falls_back(whole, tmp_path, capsys, how):
  workdir = tmp_path / 'copy'
  shutil.copytree(whole, workdir)
  newest = max((workdir / 'checkpoints').iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
  assert newest.name == str(STEPS)
  (workdir / 'result.json').unlink()
  files = [p for p in newest.rglob('*') if p.is_file() and 'state' in str(p)]
  big = max(files, key=lambda p: p.stat().st_size)
  if how == 'truncated':
    big.write_bytes(big.read_bytes()[:big.stat().st_size // 2])
  elif how == 'flipped':
    raw = bytearray(big.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    big.write_bytes(raw)
  else:  # as a kill in the middle of a save leaves it
    newest.rename(newest.with_name(newest.name + '.orbax-checkpoint-tmp'))
  search.search(asked(), workdir)
  out = capsys.readouterr().out
  assert ('is damaged' in out) == (how != 'half-saved'), out
  assert f'after step {STEPS - 1} of' in out
  same(workdir, whole)


@pytest.mark.parametrize('how', [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW)])
def test_a_signal_gets_through_while_xla_compiles(tmp_path, how):
  """In a process of its own, which says so and ends with its code."""
  process = start(tmp_path / 'run', f'--config.space.name={ONE_EDGE}',
                  env={**ENV, 'JAX_ENABLE_COMPILATION_CACHE': 'false'})
  for line in process.stdout:
    if line.startswith('compiling'):
      break
  time.sleep(0.2)
  process.send_signal(how)
  out = process.communicate(timeout=60)[0]
  assert process.returncode == UNFINISHED
  assert out == f'stopped by {how.name}, nothing lost: run the same command to go on\n'


def wait_for(process, workdir, steps):
  path = workdir / 'metrics.jsonl'
  for _ in range(3000):
    if path.exists() and len(path.read_text().splitlines()) >= steps:
      return
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.02)
  raise AssertionError('the run does not get on')


@SLOW
@pytest.mark.parametrize('cuts', [
    [(4, signal.SIGTERM), (10, signal.SIGKILL)], [(3, signal.SIGKILL)],
    [(3, signal.SIGTERM), (8, signal.SIGUSR1), (13, signal.SIGKILL)]])
def test_interrupted_processes_equal_an_uninterrupted_one(tmp_path, cuts):
  whole, tmp_path = tmp_path / 'whole', tmp_path / 'cut'
  code, out = run(whole)
  assert code == 0, out
  for steps, how in cuts:
    process = start(tmp_path)
    wait_for(process, tmp_path, steps)
    process.send_signal(how)
    out = process.communicate(timeout=120)[0]
    if how != signal.SIGKILL:
      assert process.returncode == UNFINISHED and 'run the same command' in out, out
    assert not (tmp_path / 'result.json').exists()
  code, out = run(tmp_path)
  assert code == 0 and ('resuming' in out or cuts[0][0] < 7), out
  same(tmp_path, whole)


@pytest.mark.parametrize('several', [2, pytest.param(4, marks=SLOW), pytest.param(8, marks=SLOW)])
def test_devices_find_what_one_finds(x64, several):
  """On real images, in double precision, leaf by leaf after steps that move theta and phi.

  Whole searches in single precision may end otherwise: what rounding does grows from step to step, and may tip a choice
  that is close.
  """
  config = quickstart.get_config()
  config.space.channels = 4
  config = config_lib.resolve(config)
  loaded, method = data.get(config.data), methods.get(config.method)
  space = spaces.get(ONE_EDGE)
  net = Supernet(space=space, cells=1, channels=4, num_classes=10, dtype=jnp.float64, param_dtype=jnp.float64)
  plan = steps_lib.Plan(0, 100, config.pretrain.sampling)
  tx = optim.theta(config.theta, plan.steps), optim.phi(config.phi, plan.search_steps)
  step = steps_lib.search_steps(net, method, space, plan, fixed(*tx),
                                lambda key, x: x.astype(jnp.float64) / 16)['search']
  held = {'images': loaded.train.images, 'labels': loaded.train.labels}
  order = np.random.default_rng(0).permutation(len(loaded.train)).astype(np.int32)
  if several > jax.device_count():
    pytest.skip(f'{several} devices are asked for: TESTS_DEVICES={several} before the command')
  ends = []
  for devices in (1, several):
    mesh = parallel.mesh(devices, 64)
    whole = parallel.replicated(mesh)
    now = jax.jit(lambda: state.create(state.root(1), net, method, space, *tx, loaded.image_shape),
                  out_shardings=whole)()
    first = jax.device_get(now)
    advance = jax.jit(steps_lib.on_device(step, parallel.batch(mesh)), out_shardings=whole)
    here = jax.device_put(held, whole)
    for i in range(3):
      now, metrics = advance(now, here, {'train': jax.device_put(order[64 * i:64 * (i + 1)], parallel.batch(mesh))})
    assert len(metrics['loss'].devices()) == devices
    ends.append(jax.device_get((now, metrics)))
  for name in ('theta', 'phi'):
    started, ended = (jax.tree.leaves(getattr(at, name)) for at in (first, ends[0][0]))
    assert max(np.abs(a - b).max() for a, b in zip(started, ended, strict=True)) > 1e-3
  for (path, a), b in zip(jax.tree.leaves_with_path(ends[1]), jax.tree.leaves(ends[0]), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9 * max(1.0, np.abs(b).max()),
                               err_msg=jax.tree_util.keystr(path))


