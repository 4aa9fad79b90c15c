"""benchmarks.redrawn: what a cell's prediction owes to which convolutions it has."""

import json
import random

import numpy as np
import pytest

from benchmarks import redrawn
from vimnas_jax.networks import genotypes
from vimnas_jax.tabular import nasbench301


class Counting:
  """A surrogate that likes separable convolutions of 5x5, and one pool."""

  def predict(self, cells):
    ops = [[op for edges in cell.cells.values() for op, _, _ in edges] for cell in cells]
    return np.array([each.count('sep_conv_5x5') + 10 * each.count('max_pool_3x3') for each in ops], float)


def test_convolutions_are_drawn_anew_and_all_else_stays():
  cell = genotypes.get('DARTS_V1')
  other = redrawn.redrawn(cell, random.Random(0))
  assert other != cell
  for name, edges in cell.cells.items():
    for (op, *ends), (new, *kept) in zip(edges, other.cells[name]):
      assert ends == kept and (new in redrawn.CONVOLUTIONS if op in redrawn.CONVOLUTIONS else new == op)


def test_a_row_tells_luck_from_the_rest(monkeypatch, tmp_path, capsys):
  cell = genotypes.get('DARTS_V1')
  ops = [op for edges in cell.cells.values() for op, _, _ in edges]
  convolutions = sum(op in redrawn.CONVOLUTIONS for op in ops)
  found = redrawn.row(Counting(), cell)
  rest = 10 * ops.count('max_pool_3x3')
  assert found['predicted'] == ops.count('sep_conv_5x5') + rest
  assert found['redrawn'] == pytest.approx(rest + convolutions / 4, abs=0.3)
  assert found['std'] == pytest.approx((convolutions * 3 / 16) ** 0.5, rel=0.2)
  assert found['beyond'] == pytest.approx((found['predicted'] - found['redrawn']) / found['std'], abs=0.01)
  for i, name in enumerate(('DARTS_V1', 'DARTS_V2')):
    (tmp_path / str(i)).mkdir()
    (tmp_path / str(i) / 'genotype.json').write_text(genotypes.get(name).to_json())
  monkeypatch.setattr(nasbench301, 'load', lambda folder: Counting())
  runs = [str(tmp_path / '0'), str(tmp_path / '1')]
  assert redrawn.main(['--nasbench301', 'x', '--out', str(tmp_path / 'out.json'), *runs]) == 0
  written = json.loads((tmp_path / 'out.json').read_text())
  assert written['runs'][runs[0]] == found and written['mean']['redrawn'] == pytest.approx(
      np.mean([row['redrawn'] for row in written['runs'].values()]), abs=1e-3)
  assert 'mean predicted' in capsys.readouterr().out
  drawn = {name: found['mean'] for name, found in written['drawn'].items()}
  assert len(drawn) == 9 and drawn['separable convolutions, any inputs'] == pytest.approx(4 + 2, abs=0.3)
  assert drawn['all operations, any inputs'] == pytest.approx(8 / 7 + 2 + 80 / 7, abs=0.7)


def test_inputs_are_drawn_as_they_are_called():
  seen, drawn = {}, []

  class Noting:
    def predict(self, cells):
      drawn[:] = cells
      return np.zeros(len(cells))

  for name, inputs in redrawn.INPUTS.items():
    redrawn.drawn(Noting(), redrawn.CONVOLUTIONS, inputs)
    seen[name] = {(source, node) for cell in drawn for _, source, node in cell.cells['normal']}
  assert seen['inputs of the cell'] == {(source, node) for node in range(2, 6) for source in (0, 1)}
  assert seen['nearest inputs'] == {(node - back, node) for node in range(2, 6) for back in (1, 2)}
  assert seen['any inputs'] == {(source, node) for node in range(2, 6) for source in range(node)}
