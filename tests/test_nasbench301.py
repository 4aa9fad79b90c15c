import json
import random
import shutil

import numpy as np
import pytest
from conftest import SHARED, SLOW, one_line

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import spaces, tabular
from vimnas_jax.errors import UserError
from vimnas_jax.networks import genotypes
from vimnas_jax.spaces import Genotype
from vimnas_jax.tabular import nasbench301
from vimnas_jax.verbs import seeds

FOLDER = SHARED / 'nasbench301'
PREFIX = 'NetworkSelectorDatasetInfo_COLON_darts_COLON_'


@pytest.fixture(scope='module')
def surrogate():
  if not FOLDER.exists():
    pytest.skip('no surrogate in ../shared/data/nasbench301')
  pytest.importorskip('onnxruntime')
  return nasbench301.load(str(FOLDER))


def uniform(op):
  edges = tuple((op, source, node) for node in range(2, 6) for source in (0, 1))
  return Genotype('darts', {'normal': edges, 'reduce': edges})


@pytest.mark.parametrize('name, valid', [('DARTS_V1', 92.75), ('DARTS_V2', 92.88), ('PDARTS', 92.71),
                                         ('PC_DARTS_cifar', 93.23)])
def test_published_cells(surrogate, name, valid):
  assert round(surrogate.query(genotypes.get(name))['valid'], 2) == valid


@pytest.mark.parametrize('op, valid', [('skip_connect', 88.15), ('max_pool_3x3', 88.94), ('sep_conv_3x3', 92.77),
                                       ('sep_conv_5x5', 93.25)])
def test_cells_of_one_operation(surrogate, op, valid):
  assert round(float(surrogate.predict([uniform(op)])[0]), 2) == valid


def test_random_cells_have_the_distribution_that_was_published(surrogate):
  values = surrogate.random
  assert abs(values.mean() - 92.26) < 0.02 and abs(values.std() - 0.64) < 0.02
  np.testing.assert_allclose(np.percentile(values, [50, 90, 99]), [92.37, 92.86, 93.20], atol=0.02)
  middle = surrogate.query(genotypes.get('ALL_SKIP'))['percentile']
  assert 0 < middle < 2 and surrogate.query(uniform('sep_conv_5x5'))['percentile'] > 98


def test_nothing_is_chosen_by_it_where_it_does_not_know_all_cells():
  assert [nasbench301.BENCHMARK.rates(spaces.get(name)) for name in ('darts', 's1', 's2', 's3', 's4', 'nb201')] == [
      True, True, True, True, False, False]
  oracle = config_lib.changed(config_lib.defaults(), 'oracle.nasbench301=FOLDER').oracle
  with pytest.raises(UserError) as error:
    tabular.rater(spaces.get('s4'), oracle, 'cifar10')
  assert "there is none for space 's4'" in one_line(error)
  c = config_lib.changed(config_lib.defaults(), 'space.name=s4 data.name=cifar10 oracle.nasbench301=FOLDER')
  with pytest.raises(UserError, match='nothing tells which seed'):
    seeds._rule(config_lib.resolve(config_lib.changed(c, 'supernet_images=0')), None)
  assert 'validation images' in seeds._rule(config_lib.resolve(config_lib.changed(c, 'supernet_images=64')), None).words


def test_the_order_in_which_a_node_names_its_inputs_does_not_count(surrogate):
  cell = nasbench301.random_genotype(random.Random(5))
  turned = Genotype('darts', {name: tuple(edges[i ^ 1] for i in range(8)) for name, edges in cell.cells.items()})
  other = Genotype('darts', {'normal': cell.cells['reduce'], 'reduce': cell.cells['normal']})
  values = surrogate.predict([cell, turned, other])
  assert values[0] == values[1] != values[2]


def test_rows_name_what_the_cell_has(surrogate):
  row = dict(zip(surrogate.encoding, surrogate._row(genotypes.get('DARTS_V1')), strict=True))
  read = {key.removeprefix(PREFIX): next(text for text, n in surrogate.encoding[key].items() if n == value)
          for key, value in row.items() if value}
  assert sum(key.startswith('edge') for key in read) == 16 and len(read) == 22
  assert read['edge_normal_0'] == 'sep_conv_3x3' and read['inputs_node_normal_3'] == '0_1'
  assert read['edge_reduce_11'] == 'skip_connect' and read['inputs_node_reduce_5'] == '0_2'


def test_spaces_it_covers_and_cells_it_does_not_know(surrogate):
  assert [name for name in spaces.NAMES if nasbench301.covers(spaces.get(name))] == ['darts', 's1', 's2', 's3', 's4']
  assert surrogate.query(uniform('noise')) == {}
  with pytest.raises(UserError, match='knows no noise'):
    surrogate.predict([uniform('noise')])


def test_bad_folders_are_refused_in_a_line(surrogate, tmp_path):
  with pytest.raises(UserError, match='no model is there') as error:
    nasbench301.load(str(tmp_path))
  one_line(error)
  encoding = json.loads((FOLDER / 'encoding.json').read_text())

  def folder(name, model=None, text=None):
    (tmp_path / name).mkdir()
    shutil.copy(FOLDER / 'surrogate.onnx', tmp_path / name / 'model_v2.onnx')
    if model is not None:
      (tmp_path / name / 'model_v2.onnx').chmod(0o644)
      (tmp_path / name / 'model_v2.onnx').write_bytes(model)
    (tmp_path / name / 'encoding_v2.json').write_text(json.dumps(encoding) if text is None else text)
    return str(tmp_path / name)

  assert nasbench301.load(folder('whole')).predict([uniform('skip_connect')])[0] > 88
  whole = (FOLDER / 'surrogate.onnx').read_bytes()
  less = json.dumps({key: values for key, values in encoding.items() if not key.endswith('edge_normal_0')})
  for name, model, text in (('empty', b'', None), ('cut', whole[:100_000], None), ('words', b'no model', None),
                            ('other', None, '{}'), ('list', None, '[]'), ('no_json', None, '{'), ('less', None, less)):
    with pytest.raises(UserError) as error:
      nasbench301.load(folder(name, model, text))
    assert 'v2' in one_line(error), name


@SLOW
def test_a_search_ends_with_the_prediction(surrogate, tmp_path, capsys):
  config = vimnas_jax.configure('darts_c10:smoke', {
      'data.name': 'synthetic', 'data.image_size': 8, 'data.num_train': 64, 'method.name': 'random',
      'oracle.nasbench301': str(FOLDER)}, epochs=0.0, devices=1)
  result = vimnas_jax.search(config, tmp_path / 'runs' / 'random' / 'seed_0')
  assert result['nasbench301'] == surrogate.query(spaces.get('darts').read(result['genotype']))
  assert f'a validation accuracy of {result["nasbench301"]["valid"]:.2f} %' in capsys.readouterr().out
  row = vimnas_jax.report(vimnas_jax.configure('darts_c10', {
      'report.runs': str(tmp_path / 'runs'), 'oracle.nasbench301': str(FOLDER)}), tmp_path / 'report')['random']
  assert row['nasbench301']['valid']['values'] == [result['nasbench301']['valid']]
  page = (tmp_path / 'report' / 'report.md').read_text()
  assert 'DARTS_V2 92.88 %' in page and f'{result["nasbench301"]["valid"]:.2f}' in page
