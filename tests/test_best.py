import numpy as np
import pytest
from conftest import SLOW, one_line
from test_retrain import tiny

from vimnas_jax.errors import UserError
from vimnas_jax.verbs import best, export, retrain


def variables(value):
  return {'params': {'a': {'b': np.full(3, value, np.float32)}}, 'batch_stats': {'c': np.zeros(2, np.float32)}}


def test_the_most_accurate_state_is_kept(tmp_path):
  assert best.kept(tmp_path) is None
  kept = None
  for step, top1, loss in ((10, 50.0, 1.0), (20, 40.0, 0.1), (30, 50.0, 0.9), (40, 50.0, 0.9), (50, 49.0, 0.0)):
    kept = best.offer(tmp_path, kept, best.Kept(step, top1, loss), variables(step))
  assert kept == best.kept(tmp_path) == (30, 50.0, 0.9)  # as accurate with less loss; the first of equal ones
  found, tree = best.read(tmp_path)
  assert found == kept and (tree['params']['a']['b'] == 30).all()
  raw = (tmp_path / best.FILE).read_bytes()
  for damaged in (raw[:20], raw.replace(b'kept', b'lost'), b''):
    (tmp_path / best.FILE).write_bytes(damaged)
    with pytest.raises(UserError, match='best.safetensors is damaged') as e:
      best.kept(tmp_path)
    one_line(e)


def test_a_state_whose_loss_is_not_finite_is_kept_for_want_of_another(tmp_path):
  """Its logits are NaN, which are taken for the first class: right on most images where most are of that."""
  kept = None
  for step, top1, loss, best_step in ((10, 60.0, np.nan, 10), (20, 5.0, 3.0, 20), (30, 60.0, np.inf, 20),
                                      (40, 5.0, 2.0, 40), (50, 5.0, np.nan, 40)):
    kept = best.offer(tmp_path, kept, best.Kept(step, top1, loss), variables(step))
    assert kept.step == best.kept(tmp_path).step == best_step


def test_two_ways_to_set_images_apart_are_refused(tmp_path):
  with pytest.raises(UserError, match='config.train_portion=0.5 and config.data.validation=0.25 both') as e:
    retrain.retrain(tiny(train_portion=0.5, **{'data.validation': 0.25}), tmp_path)
  one_line(e)


@SLOW
def test_test_images_are_asked_once_and_the_chosen_state_is_exported(tmp_path, monkeypatch):
  asked, of = [], retrain.evaluate.Scores.of

  def counted(self, weights, split):
    asked.append(len(split))
    return of(self, weights, split)

  monkeypatch.setattr(retrain.evaluate.Scores, 'of', counted)
  result = retrain.retrain(tiny(measure_batches=(), **{'data.validation': 0.25}), tmp_path)
  assert asked == [16, 16, 16, 37]  # 16 of 64 choose, after each of three epochs; 37 are for test
  kept, tree = best.read(tmp_path)
  assert result['chosen'] == {'step': kept.step, 'valid_top1': kept.top1, 'valid_loss': round(kept.loss, 6),
                              'valid_images': 16}
  head = export.read(tmp_path).variables['params']['head']
  np.testing.assert_array_equal(head, tree['params']['head'])
