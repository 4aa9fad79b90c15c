"""benchmarks.votes and benchmarks.stopped: what searches on record say together, and on the way."""

import json

import numpy as np
import pytest

from benchmarks import stopped, votes
from vimnas_jax import spaces
from vimnas_jax.errors import UserError


class Table:
  """A table in which the more 3x3 convolutions a cell has, the better it is."""

  def query(self, genotype):
    count = spaces.get('nb201').write(genotype).count('nor_conv_3x3')
    return {name: {'valid': 10.0 * count, 'test': 10.0 * count + 1} for name in votes.SETS}


def test_every_group_is_looked_up(tmp_path):
  right, members = np.eye(5)[[3] * 6] * 0.8 + 0.04, []
  for edge in (0, 1, 2):
    wrong = right.copy()
    wrong[edge] = np.roll(right[edge], 1)
    members.append(wrong)
  one, two, three = (votes.of_groups(members, size, Table(), spaces.get('nb201')) for size in (1, 2, 3))
  assert (one['groups'], one['cells'], one['valid'], one['worst_valid']) == (3, 3, 50.0, 50.0)
  assert one['one_hot'] == pytest.approx(0.84) and two['groups'] == 3
  assert (three['cells'], three['valid'], three['test'], three['worst_test']) == (1, 60.0, [61.0] * 3, [61.0] * 3)

  np.savez(tmp_path / 'a.npz', cell=np.array([members[0] * 0, members[0]], np.float16))
  (tmp_path / 'b.json').write_text(json.dumps({'probs': {'cell': members[1].tolist()}}))
  np.testing.assert_allclose(votes.probabilities(tmp_path / 'a.npz'), members[0], atol=1e-3)
  np.testing.assert_allclose(votes.probabilities(tmp_path / 'b.json'), members[1])
  (tmp_path / 'c.json').write_text('{}')
  with pytest.raises(UserError, match='holds no probabilities'):
    votes.probabilities(tmp_path / 'c.json')


def test_a_search_is_read_on_its_way_and_scaled_up_as_at_its_end(tmp_path):
  logits = np.random.default_rng(0).normal(size=(6, 5))
  softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)  # noqa: E731
  scales = np.array([1, 1, 8**0.5, 8])  # of J3, which scales up by 8 from 0.6 on; phi itself stands still here
  cell = np.array([softmax(scale * logits) for scale in scales])
  path = tmp_path / 'nb201_J3_7.npz'
  np.savez(path, steps=[0, 500, 799, 999], cell=cell)
  for part in (0.5, 0.8, 1.0):
    np.testing.assert_allclose(stopped.probabilities(path, part), softmax(8 * logits), rtol=0.02, atol=1e-4)
  with pytest.raises(UserError, match='no search of a variant'):
    stopped.probabilities(tmp_path / 'nb201_Z9_7.npz', 1.0)
