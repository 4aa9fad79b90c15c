"""benchmarks.asked: what the gradient asks of logits that stand still."""

import numpy as np
import pytest
from conftest import ONE_EDGE

from benchmarks import asked
from vimnas_jax import config as config_lib
from vimnas_jax import data, methods, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.runs import parallel
from vimnas_jax.verbs import search


def tiny(**fields):
  c = config_lib.defaults()
  c.data.name, c.data.image_size, c.data.num_train = 'synthetic', 8, 64
  c.space.name, c.space.cells, c.space.channels, c.batch_size, c.epochs, c.trust = ONE_EDGE, 1, 8, 8, 4.0, ONE_EDGE
  c.update_from_flattened_dict({**asked.STILL, **fields})
  config = config_lib.resolve(c)
  space = spaces.get(ONE_EDGE)
  return search._Run(config, space, methods.get(config.method, space), data.get(config.data), parallel.mesh(1, 8, 1))


def test_logits_that_stand_still_sum_the_gradient_up():
  one = tiny()
  at, found, losses = asked.sums(one, 16)
  assert at.tolist() == [13, 16] and found['cell'].shape == (2, 1, 2) and len(losses) == 2
  assert abs(found['cell'][-1].sum()) < 1e-3 * np.abs(found['cell'][-1]).max()  # of a softmax
  _, moved, _ = asked.sums(tiny(**{'phi.lr': 0.5, 'phi.lr_end': 0.5}), 1, 0.5)  # a step of a search
  np.testing.assert_allclose(moved['cell'], asked.sums(one, 1)[1]['cell'], rtol=1e-3)
  assert np.abs(moved['cell']).max() > 1e-4
  ops = one.space.cells['cell'].ops[0]
  _, alone, _ = asked.sums(one, 2, among=ops[:1])  # of the other nothing is told, and one alone has nobody to yield to
  np.testing.assert_array_equal(alone['cell'][..., 0], alone['cell'][..., 1])
  assert np.abs(alone['cell']).max() < 0.05 * np.abs(asked.sums(one, 2)[1]['cell']).max()


def test_what_is_asked_is_told_by_parts():
  space = spaces.get('nb201')
  want = np.zeros((8, 6, 5))
  want[:4, :, 3], want[4:, :, 1] = np.arange(1, 5)[:, None], np.arange(1, 5)[:, None]
  want[4:, :, 3] = 4
  lines = list(asked.table(space, np.arange(1, 9), {'cell': want}, np.ones(8), lambda genotype: {'valid': 1}))
  assert len(lines) == 10 and "'valid'" in lines[0]
  assert lines[0].startswith('steps 0 to 2, loss 1.000: |nor_conv_3x3~0|+')
  assert 'skip_connect~2|' in lines[6] and 'steps 0 to 8' in lines[8]
  assert 'nor_conv_3x3 +1.600' in lines[1] and 'steadiness' not in lines[1] and 'steadiness' in lines[9]
  rng = np.random.default_rng(0)
  chance, steady = rng.normal(size=(2, 400, 6, 5)), np.ones((400, 6, 5))
  assert asked.steadiness(np.cumsum(chance[0], 0)) == pytest.approx((2 / np.pi) ** 0.5, rel=0.4)
  assert asked.steadiness(np.cumsum(chance[1] + steady, 0)) > 10


def test_inputs_that_are_asked_for_are_told_and_kept():
  """Of four steps' sums of the DARTS space: node 5 is to have its inputs 1 and 3."""
  space = spaces.get('darts')
  want = {name: np.zeros((4, *cell.shape)) for name, cell in space.cells.items()}
  for i, (source, target) in enumerate(space.cells['normal'].edges):
    if target == 5 and source not in (1, 3):
      want['normal'][:, i, 0] = np.arange(1, 5)  # none
  lines = list(asked.table(space, np.arange(1, 5), want, np.ones(4), lambda genotype: {}, kept=True))
  assert lines[-3].startswith('  normal, inputs: 3 from 0 ')
  assert '5 from 0 -1.600, 1 +2.400, 2 -1.600, 3 +2.400' in lines[-3]
  kept = asked.read(space, {name: rows[-1] for name, rows in want.items()}, kept=True).cells['normal']
  assert {source for _, source, target in kept if target == 5} == {1, 3}


def test_inputs_are_not_asked_for_where_all_are_kept():
  with pytest.raises(UserError, match='--kept'):
    asked.main(['--space', 'nb201', '--data', 'nowhere', '--out', 'nowhere', '--kept'])
  with pytest.raises(UserError, match='leaves out none'):
    asked.main(['--data', 'nowhere', '--out', 'nowhere', '--kept', '--among', 'sep_conv_3x3,dil_conv_3x3'])
