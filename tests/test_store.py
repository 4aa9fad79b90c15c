"""Machine code on disk, and how processes share the work of compiling it."""

import concurrent.futures
import ctypes
import sys
import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SLOW

from vimnas_jax import spaces
from vimnas_jax.cpu import ahead, library, store, table
from vimnas_jax.networks import mixing
from vimnas_jax.networks.oneshot import OneShot
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.runs import state

pytestmark = pytest.mark.skipif(mixing.kernels() is None, reason='the kernels are switched off')


@pytest.fixture
def anew(tmp_path, monkeypatch):
  """The library as in a new process that compiles nothing really, with a new folder; gives what it asks others for."""
  asked = []
  monkeypatch.setattr(store, 'folder', lambda: tmp_path / 'kernels')
  monkeypatch.setattr(store, '_compiled', lambda name, vector, dtype: (name, b'code'))
  monkeypatch.setattr(store, 'load', lambda symbol, code: len(symbol))
  monkeypatch.setattr(ahead, 'working', lambda folder: False)
  monkeypatch.setattr(ahead, 'ask', asked.append)
  monkeypatch.setattr(library, 'TABLE', np.zeros_like(table.TABLE))
  for name in ('_ASKED', '_NEEDED', '_PENDING'):
    monkeypatch.setattr(library, name, type(getattr(library, name))())
  return asked


def test_what_is_needed_is_asked_for_at_once_and_in_the_table_in_the_end(anew, tmp_path):
  with library.foretelling():
    library.need(('mix', 'mix_set'), 8, 'float32')
  assert anew == [('mix', 8, 'float32'), ('mix_set', 8, 'float32')] and not library.needed()['functions']
  library.finish()
  assert not library.TABLE.any() and not (tmp_path / 'kernels').exists()
  library.need(('mix', 'sums'), 8, 'float32')
  assert anew[2:] == [('sums', 8, 'float32')]
  assert library.needed()['functions'] == [('mix', 8, 'float32'), ('sums', 8, 'float32')]
  library.finish()
  assert [library.TABLE[table.slot(name, 8, 'float32')] for name in ('mix', 'mix_set', 'sums')] == [3, 0, 4]
  assert sorted(file.name for file in (tmp_path / 'kernels').iterdir()) == ['mix_float32x8', 'sums_float32x8']


@pytest.mark.parametrize('line', [0, 1, 2])
def test_what_is_damaged_is_compiled_again(anew, line):
  function = 'mix', 8, 'float32'
  assert store.kept(function) == store.read(function) == ('mix', b'code')
  lines = store.path(function).read_bytes().split(b'\n')
  lines[line] = bytes([lines[line][0] ^ 1]) + lines[line][1:]
  store.path(function).write_bytes(b'\n'.join(lines))
  assert store.read(function) is None and store.kept(function) == ('mix', b'code')


def test_what_others_compile_is_waited_for(anew, tmp_path, monkeypatch):
  monkeypatch.setattr(library, 'IMPORTING', library._waited + 60)
  monkeypatch.delitem(sys.modules, 'numba', raising=False)
  monkeypatch.setattr(ahead, 'working', lambda folder: True)
  monkeypatch.setattr(store, '_compiled', lambda name, vector, dtype: pytest.fail('it compiles itself'))
  library.need(('mix', 'sums'), 8, 'float32')
  beside = threading.Timer(0.2, lambda: _write(tmp_path / 'kernels', 'sums_float32x8', 'mix_float32x8'))
  beside.start()
  library.finish()
  beside.join()
  assert not library._PENDING and library.TABLE.any()


def _write(folder, *names):
  folder.mkdir()
  for name in names:
    (folder / f'{name}.new').write_bytes(b'symbol\n' + store._check(b'symbol', b'code') + b'\ncode')
    (folder / f'{name}.new').rename(folder / name)


def test_a_program_whose_trace_was_foretold_has_its_kernels():
  """JAX may keep what it has traced: then nothing of it is traced again, and lowering has to say what it needs."""
  x = jnp.ones((2, 4, 4, 8))
  f = jax.jit(lambda x: mixing.mixed(x, {'avg_pool_3x3': (0,)}, [None], {'avg_pool_3x3': {}},
                                     {'avg_pool_3x3': jnp.ones((1, 1))}, 1, False)[0])
  with library.foretelling():
    traced = f.trace(x)
  for functions in library._CALLED.values():
    if any(name == 'pools_forward' for name, *_ in functions):
      for function in functions:
        table.TABLE[table.slot(*function)] = 0
  y = traced.lower().compile()(x)
  np.testing.assert_allclose(y, x, rtol=1e-6)


def test_what_follows_a_chunk_is_asked_for_with_it(tmp_path, monkeypatch):
  monkeypatch.setattr(table, 'BYTES', 32)
  told = []
  monkeypatch.setattr(store, 'folder', lambda: tmp_path / 'kernels')
  monkeypatch.setattr(ahead, '_processes', lambda folder: [types.SimpleNamespace(
      stdin=types.SimpleNamespace(write=told.append, flush=lambda: None))])
  ahead.ask(('mix', 8, 'float32'))
  assert told == ['mix 8 float32\ncoefficients 8 float32\nsums 8 float32\n']
  _write(tmp_path / 'kernels', 'mix_float32x8')
  ahead.ask(('mix', 8, 'float32'))
  assert len(told) == 1
  assert ahead.following('dense_forward', 4, 'float32') == [
      ('dense_forward', 8, 'float32'), ('dense_backward', 4, 'float32'), ('dense_backward', 8, 'float32')]
  assert ahead.following('mix', 4, 'float64') == [('coefficients', 4, 'float64'), ('sums', 4, 'float64')]
  assert ahead.following('statistics', 2, 'float32') == ahead.following('activate', 4, 'float32') == []


@SLOW
def test_another_process_compiles_what_is_asked_for(tmp_path, monkeypatch):
  monkeypatch.setattr(ahead, '_cores', lambda: 2)
  monkeypatch.setattr(store, 'folder', lambda: tmp_path / f'kernels-{store._fingerprint()}')
  ahead._processes.cache_clear()
  try:
    ahead.ask(('pools_forward', 8, 'float32'))
    until = time.monotonic() + 120
    while not (found := store.read(('pools_backward', 8, 'float32'))) and time.monotonic() < until:
      time.sleep(0.1)
    assert found and all(found) and store.read(('pools_forward', 8, 'float32'))
  finally:
    for process in ahead._processes(str(tmp_path)):
      ahead._end(process)
    ahead._processes.cache_clear()


def test_machine_code_on_disk(tmp_path, monkeypatch):
  """It is kept, read back, and compiled again where the file is damaged; no folder to write to is no error."""
  monkeypatch.setattr(store, 'folder', lambda: tmp_path / 'kernels')
  function = 'scale_loop', 8, 'float32'
  first = store.kept(function)
  (file,) = (tmp_path / 'kernels').iterdir()
  assert store.kept(function) == store.read(function) == first
  file.write_bytes(file.read_bytes()[:-7])
  assert store.read(function) is None
  address = store.load(*store.kept(function))
  weight, inverse, out = np.full(1, 3, np.float32), np.arange(16, dtype=np.float32), np.zeros(16, np.float32)
  call = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 5)(address)
  call(weight.ctypes.data, inverse.ctypes.data, out.ctypes.data, 2)
  np.testing.assert_array_equal(out, 3 * inverse)
  monkeypatch.setattr(store, 'folder', lambda: file / 'no folder')
  assert store.kept(function)[1]
  monkeypatch.setattr(store, 'folder', lambda: None)
  assert store.kept(function)[1] and store.read(function) is None


def test_one_of_two_processes_compiles(tmp_path, monkeypatch):
  """The other reads what it wrote, or compiles too where the lock is held for long or there are no locks."""
  fcntl = pytest.importorskip('fcntl')
  compiled, tried = [], threading.Event()

  def compile(*function):
    compiled.append(function)
    return 'symbol', b'code'

  def taken(fcntl, file):
    tried.set()
    return lock(fcntl, file)

  lock = store._taken
  monkeypatch.setattr(store, 'folder', lambda: tmp_path / 'kernels')
  monkeypatch.setattr(store, '_compiled', compile)
  monkeypatch.setattr(store, '_taken', taken)
  ask = ('scale_loop', 8, 'float32')
  assert store.kept(ask) == ('symbol', b'code') and compiled == [ask]
  (file,) = (tmp_path / 'kernels').iterdir()  # the lock is gone
  written = file.read_bytes()

  file.unlink()
  tried.clear()
  beside = file.with_name(f'{file.name}.lock')
  with open(beside, 'wb') as held, concurrent.futures.ThreadPoolExecutor(1) as pool:
    fcntl.flock(held, fcntl.LOCK_EX)
    assert store.kept(ask, patience=0) is None and beside.exists()
    tried.clear()
    waiting = pool.submit(store.kept, ask)
    assert tried.wait(20) and not waiting.done()
    file.write_bytes(written)
    held.close()
    assert waiting.result(20) == ('symbol', b'code') and len(compiled) == 1

  file.unlink()
  with open(beside, 'wb') as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    store.kept(ask, patience=1e-3)
  assert len(compiled) == 2 and file.exists()

  def unlocked(*_):
    raise OSError('no locks available')

  file.unlink()
  monkeypatch.setattr(store, '_taken', unlocked)
  store.kept(ask)
  file.unlink()
  monkeypatch.setitem(sys.modules, 'fcntl', None)  # as on Windows
  store.kept(ask)
  assert len(compiled) == 4 and file.exists()


@pytest.mark.parametrize('name, form, cells', [
    ('darts', Supernet, 4), pytest.param('nb201', Supernet, 2, marks=SLOW),
    pytest.param('oneshot1', OneShot, 4, marks=SLOW)])
def test_what_is_foretold_is_what_a_supernet_calls(anew, name, form, cells):
  space = spaces.get(name)
  net = form(space=space, cells=cells, channels=8, num_classes=3)
  state.foretell(net, space, (8, 8, 3), 2)
  foretold = set(anew)
  assert len(foretold) > 20 and not library.needed()['functions']
  rows = {key: jnp.ones((2, *cell.shape)) for key, cell in space.cells.items()}
  rows |= {key: jnp.ones((1, count)) for key, count in space.choices.items()}

  def gradients(key):
    theta = state.weights(key, net, space, (8, 8, 3))
    return jax.grad(lambda *args: net.apply({'params': args[0]}, jnp.ones((4, 8, 8, 3)), args[1]).sum(), (0, 1))(
        theta, rows)

  jax.eval_shape(gradients, jax.random.key(0))
  assert set(library.needed()['functions']) <= foretold
