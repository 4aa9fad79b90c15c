"""What a passing fault of the disk does to a run: it goes on, or stops in one line, and loses nothing either way."""

import gc
import json
import logging
import shutil
import threading

import flax.struct
import jax
import jax.numpy as jnp
import pytest
from conftest import SLOW
from faults import KINDS, Disk

from vimnas_jax import config as config_lib
from vimnas_jax import files, main
from vimnas_jax.errors import Diverged, UserError
from vimnas_jax.runs import checkpoint, loop, metrics, runfolder, signals

TOTAL = 3


@flax.struct.dataclass
class State:
  step: jax.Array
  w: jax.Array


@jax.jit
def _step(state, held, index):
  w = state.w * 1.25 + held[index]
  return State(state.step + 1, w), {'loss': w.sum(), 'norm_w': jnp.abs(w).max()}


class Run:
  """A run as small as one can be, through all that touches the disk."""

  total = TOTAL
  step = staticmethod(lambda at: _step)
  config = config_lib.defaults()

  def start(self):
    return State(jnp.zeros((), jnp.int32), jnp.arange(3.0))

  def finished(self, now):
    return int(now.step) >= TOTAL

  def abstract(self, step=0):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.start())

  def advance(self, now, folder, saved, console, stop):
    log = metrics.Lines(folder / 'metrics.jsonl', int(now.step))

    def note(at, values, seconds):
      del seconds
      log.write(step=at, loss=float(values['loss']))
      return ''

    try:
      return loop.advance(loop.Loop(TOTAL, self.step, jnp.arange(8.0), jnp.int32, note, 1, 2, 'lower it'), now, saved,
                          console, stop)
    finally:
      log.close()


class Quiet(metrics.Console):
  def say(self, text):
    assert '\n' not in text


def run(workdir):
  def write(now, seconds):
    del seconds
    result = {'state': checkpoint.digest(now), 'rows': len(metrics.read(folder / 'metrics.jsonl'))}
    files.write_json(folder / 'result.json', result)
    return result

  with signals.Stop() as stop, runfolder.opened(workdir) as folder:
    files.write_json(folder / 'config.json', {'seed': 0})
    return loop.to_the_end(Run(), folder, Quiet(), stop, write)


def lines(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


@pytest.fixture(autouse=True)
def no_tracebacks():
  """Of orbax, which logs whole ones for what it raises besides; `main` does the same."""
  loggers = [logging.getLogger(name) for name in ('absl', 'asyncio')]
  levels = [logger.level for logger in loggers]
  for logger in loggers:
    logger.setLevel(logging.CRITICAL + 1)
  yield
  for logger, level in zip(loggers, levels, strict=True):
    logger.setLevel(level)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The run without faults: its folder, and how often it does what to the disk."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  with Disk(workdir).works() as disk:
    run(workdir)
  assert all(disk.calls[kind] >= least for kind, least in zip(KINDS, (10, 1, 8, 3, 3), strict=True)), disk.calls
  return workdir, disk.calls


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # tasks that orbax does not wait for
@pytest.mark.parametrize('begun', [False, True], ids=['new', 'resumed'])
@pytest.mark.parametrize('most', [5, pytest.param(None, marks=SLOW)], ids=['some', 'all'])
@pytest.mark.parametrize('kind', KINDS)
def test_every_fault_stops_in_one_line_or_not_at_all(whole, tmp_path, kind, begun, most):
  """Of all calls, or of about `most` in even distances."""
  stopped, at = 0, 0
  every = max(1, whole[1][kind] // most) if most else 1
  while True:
    workdir = tmp_path / f'{at}' / 'run'
    if begun:  # the last checkpoint but one, with lines beyond it
      _copy(whole[0], workdir)
    with Disk(workdir, kind, at).works() as disk:
      try:
        run(workdir)
      except (UserError, OSError) as e:
        assert '\n' not in main._line(e) and str(e), disk.failed
        stopped += 1
    if not disk.failed:  # there are not so many calls
      break
    run(workdir)
    where = disk.failed
    assert files.read_json(workdir / 'result.json') == files.read_json(whole[0] / 'result.json'), where
    assert lines(workdir) == lines(whole[0]), where
    assert not [p for p in workdir.rglob('*') if p.name.endswith('.part') or p.name.startswith('damaged')], where
    at += every
  assert at and (stopped or most), (at, stopped)  # some may all be such as do not stop it
  gc.collect()  # what was not waited for is told here and not in another test


def test_a_run_in_a_thread_ends_alike(whole, tmp_path):
  """Where signals cannot be had, as in a notebook's or a server's thread."""
  found = []
  thread = threading.Thread(target=lambda: found.append(run(tmp_path / 'run')))
  thread.start()
  thread.join()
  assert found == [files.read_json(whole[0] / 'result.json')]


def _copy(source, workdir):
  shutil.copytree(source, workdir)
  (workdir / 'result.json').unlink()
  shutil.rmtree(workdir / 'checkpoints' / str(TOTAL))


@pytest.mark.parametrize('last, where', [(2, 'loss'), (TOTAL, 'loss'), (TOTAL, 'w')])
def test_a_state_that_is_not_finite_ends_the_run_with_the_last_good_one_kept(whole, tmp_path, monkeypatch, last, where):
  """In the last step of all, too."""
  @jax.jit
  def diverging(state, held, index):
    now, values = _step(state, held, index)
    bad = jnp.where(now.step == last, jnp.inf, 0.0)
    return State(now.step, now.w + (bad if where == 'w' else 0)), values | ({'loss': bad} if where == 'loss' else {})

  workdir = tmp_path / 'run'
  with monkeypatch.context() as patched:
    patched.setattr(Run, 'step', staticmethod(lambda at: diverging))
    with pytest.raises(Diverged, match=f'step {last}.*not finite') as error:
      run(workdir)
  assert '\n' not in str(error.value) and not (workdir / 'result.json').exists()
  run(workdir)  # what was kept is good to go on from
  assert files.read_json(workdir / 'result.json') == files.read_json(whole[0] / 'result.json')
