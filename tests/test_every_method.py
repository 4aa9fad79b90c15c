"""Every method: a search that was cut off ends as one that was not, whatever the method carries from step to step."""

import shutil

import pytest
from conftest import ONE_EDGE, SLOW, Cut
from processes import result, rows

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import methods
from vimnas_jax.runs import metrics
from vimnas_jax.verbs import search

TINY = {'data.name': 'synthetic', 'data.image_size': 8, 'space.name': ONE_EDGE, 'space.cells': 1, 'space.channels': 4,
        'batch_size': 32, 'data.num_train': 256, 'epochs': 4.0, 'pretrain.epochs': 0.5, 'log_steps': 1,
        'checkpoint_steps': 3, 'devices': 1}
OWN = {'tenas': {'method.images': 8, 'method.inputs': 20, 'method.repeats': 1}, 'rsps': {'method.tries': 3},
       'setn': {'method.tries': 3}, 'reinforce': {'space.name': 'nb201'},
       'darts_es': {'method.evaluations': 12}, 'darts_ada': {'method.evaluations': 12}}
STEPLESS = ('tenas', 'reinforce')


@SLOW
@pytest.mark.parametrize('name', methods.NAMES)
def test_a_search_that_was_cut_off_ends_with_the_same_bits(tmp_path, monkeypatch, capsys, name):
  config = config_lib.resolve(vimnas_jax.configure(f'nb201_c10:method={name}', {**TINY, **OWN.get(name, {})}))
  want = search.search(config, tmp_path / 'whole')
  if name in STEPLESS:
    assert want['steps'] == 0
    assert search.search(config, tmp_path / 'again')['state_sha256'] == want['state_sha256']
    return
  told, cuts = metrics.Console.step, [want['steps'] * part // 9 * 3 + 2 for part in (1, 2)]
  assert 2 <= cuts[0] < cuts[1] < want['steps']  # no checkpoint was written there: steps are lost, and done again

  def step(self, at, *args):
    told(self, at, *args)
    if cuts and at == cuts[0]:
      cuts.pop(0)
      raise Cut

  monkeypatch.setattr(metrics.Console, 'step', step)
  for _ in range(2):
    with pytest.raises(Cut):
      search.search(config, tmp_path / 'cut')
  found = search.search(config, tmp_path / 'cut')
  assert capsys.readouterr().out.count('resuming') == 2
  for field in ('state_sha256', 'genotype', 'steps'):
    assert found[field] == want[field] == result(tmp_path / 'cut')[field], field
  for lines in ('metrics.jsonl', 'arch.jsonl'):
    assert rows(tmp_path / 'cut' / lines) == rows(tmp_path / 'whole' / lines)
  shutil.rmtree(tmp_path)
