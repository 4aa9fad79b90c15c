import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import one_line

from vimnas_jax.errors import Diverged, UserError
from vimnas_jax.runs import checkpoint

STATE = {'a': jnp.arange(6.0).reshape(2, 3), 'n': jnp.array([1, 2], jnp.int32)}
LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), STATE)


def state(step):
  return {'a': STATE['a'] + step, 'n': STATE['n']}


@pytest.fixture
def saved(tmp_path):
  saved = checkpoint.Checkpoints(tmp_path)
  for step in (3, 6):
    saved.save(step, state(step))
  saved.close()
  return tmp_path / 'checkpoints'


def restored(root, warnings=None):
  again = checkpoint.Checkpoints(root.parent)
  try:
    return again.restore(lambda step: LIKE,
                         (lambda line: warnings.append(line)) if warnings is not None else pytest.fail)
  finally:
    again.close()


def largest(folder):
  return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: (p.stat().st_size, str(p)))


def test_the_newest_is_restored_bit_for_bit(saved):
  assert checkpoint.digest(restored(saved)) == checkpoint.digest(state(6))
  assert restored(saved.parent / 'none' / 'checkpoints') is None


@pytest.mark.parametrize('damage', [lambda raw: raw[:len(raw) // 2], lambda raw: b'',
                                    lambda raw: raw[:-20] + b'?' * 20])
def test_a_damaged_one_is_set_aside_and_not_deleted(saved, damage):
  victim, warnings = largest(saved / '6'), []
  raw = victim.read_bytes()
  victim.write_bytes(damage(raw))
  found = restored(saved, warnings)
  assert checkpoint.digest(found) == checkpoint.digest(state(3))
  assert len(warnings) == 1 and '\n' not in warnings[0] and 'damaged_6_0' in warnings[0]
  assert sorted(p.name for p in saved.iterdir()) == ['3', 'damaged_6_0']
  victim = saved / 'damaged_6_0' / victim.relative_to(saved / '6')
  victim.write_bytes(raw)  # who mends it can have it back
  (saved / 'damaged_6_0').rename(saved / '6')
  assert checkpoint.digest(restored(saved)) == checkpoint.digest(state(6))


def test_a_passing_read_error_changes_nothing(saved, monkeypatch):
  """No permission, or one EIO: the run stops in one line, and goes on when the disk is back."""
  before = {p: p.read_bytes() for p in saved.rglob('*') if p.is_file()}
  again = checkpoint.Checkpoints(saved.parent)
  with monkeypatch.context() as patched:
    patched.setattr(checkpoint.Checkpoints, '_fault', lambda *args: 'OSError: [Errno 5]')

    def failing(self, mode='r', *args, **kwargs):
      raise OSError(5, 'Input/output error', str(self))

    patched.setattr('pathlib.Path.open', failing)
    with pytest.raises(UserError, match=r'cannot be read \(Input/output error\): nothing was changed') as error:
      again.restore(lambda step: LIKE, pytest.fail)
    one_line(error)
  assert {p: p.read_bytes() for p in saved.rglob('*') if p.is_file()} == before
  assert checkpoint.digest(restored(saved)) == checkpoint.digest(state(6))


def test_an_error_that_has_passed_is_none(saved, monkeypatch):
  again, real, faults = checkpoint.Checkpoints(saved.parent), checkpoint.Checkpoints._fault, ['EIO']
  monkeypatch.setattr(checkpoint.Checkpoints, '_fault',
                      lambda self, *args: faults.pop() if faults else real(self, *args))
  assert checkpoint.digest(again.restore(lambda step: LIKE, pytest.fail)) == checkpoint.digest(state(6))
  again.close()


@pytest.mark.skipif(os.name == 'nt' or os.geteuid() == 0, reason='root reads everything')
def test_no_permission_changes_nothing(saved):
  largest(saved / '6').chmod(0)
  with pytest.raises(UserError, match='Permission denied'):
    restored(saved)
  assert (saved / '6').exists()


def test_another_network_is_refused_and_kept(saved):
  again = checkpoint.Checkpoints(saved.parent)
  with pytest.raises(UserError, match='another network, or of another version') as error:
    again.restore(lambda step: {'b': LIKE['a']}, pytest.fail)
  again.close()
  one_line(error)
  assert sorted(p.name for p in saved.iterdir()) == ['3', '6']


def test_what_is_not_finite_is_not_saved(tmp_path):
  saved = checkpoint.Checkpoints(tmp_path)
  for bad in (np.nan, np.inf):
    with pytest.raises(Diverged, match='not finite'):
      saved.save(1, {'a': STATE['a'].at[1, 1].set(bad), 'n': STATE['n']})
  assert saved.steps() == []
  saved.close()


def test_a_folder_that_a_failed_save_makes_late_does_not_stop_the_next(tmp_path, monkeypatch):
  """A thread of orbax goes on for a moment after another of the same save has failed."""
  made, late = os.makedirs, []

  def makedirs(path, *args, **kwargs):
    if str(path).endswith(f'state{checkpoint.TEMPORARY}') and not late:
      late.append(path)
      made(path)
    return made(path, *args, **kwargs)

  monkeypatch.setattr(os, 'makedirs', makedirs)
  saved = checkpoint.Checkpoints(tmp_path)
  saved.save(1, state(1))
  saved.close()
  assert late and checkpoint.digest(restored(tmp_path / 'checkpoints')) == checkpoint.digest(state(1))
