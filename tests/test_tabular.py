"""What every benchmark is to those who ask, whichever it is."""

import json

import numpy as np
import pytest
from conftest import SHARED, one_line

from vimnas_jax import config as config_lib
from vimnas_jax import spaces, tabular
from vimnas_jax.errors import UserError
from vimnas_jax.spaces import oneshot
from vimnas_jax.tabular import modules
from vimnas_jax.tabular.types import Figure
from vimnas_jax.verbs import records, tables

NAMES = [benchmark.name for benchmark in tabular.BENCHMARKS]
COVERED = {'NAS-Bench-201': ['nb201'], 'NAS-Bench-101': ['oneshot1', 'oneshot2', 'oneshot3'],
           'NAS-Bench-301': ['darts', 's1', 's2', 's3', 's4']}


def oracle(**fields):
  c = config_lib.defaults().oracle
  c.update(fields)
  return c


def some(space):
  """An architecture of `space`, without the operation `none`."""
  rng = np.random.default_rng(0)
  probs = {name: np.array([[rng.uniform() * (op not in ('none', 'noise')) for op in ops] for ops in cell.ops])
           for name, cell in space.cells.items()}
  return space.genotype(probs | {name: rng.uniform(size=(1, count)) for name, count in space.choices.items()})


@pytest.fixture(params=NAMES)
def answering(request, tmp_path):
  """(Benchmark, config.oracle, a space that it covers), with files where it needs them."""
  benchmark = tabular.BENCHMARKS[NAMES.index(request.param)]
  space, fields = spaces.get(COVERED[benchmark.name][0]), {}
  if benchmark.key == 'nasbench301':
    if not (SHARED / 'nasbench301').exists():
      pytest.skip('no surrogate in ../shared/data/nasbench301')
    pytest.importorskip('onnxruntime')
    fields = {'nasbench301': str(SHARED / 'nasbench301')}
  if benchmark.key == 'nasbench101':
    path, accuracies = tmp_path / 'table.npz', np.full((1, 3), 0.9)
    np.savez(path, hashes=[modules.module_hash(*oneshot.module(some(space)))], valid=accuracies, test=accuracies,
             seconds=accuracies, params=np.arange(1))
    fields = {'nasbench101': str(path)}
  return benchmark, oracle(**fields), space


def test_names_keys_and_fields_are_their_own_and_documented():
  assert list(COVERED) == NAMES and len({benchmark.key for benchmark in tabular.BENCHMARKS}) == len(NAMES)
  assert sorted(tabular.FIELDS) == sorted(config_lib.defaults().oracle) and len(set(tabular.FIELDS)) == 4
  known = {name for name, (_, _, absent) in records._FIELDS.items() if absent}
  assert known >= {benchmark.key for benchmark in tabular.BENCHMARKS}
  assert all(name in tables.LEGEND.replace('\n', ' ') for name in NAMES)
  assert 'of the search, in NAS-Bench-1Shot1 of that which NAS-Bench-101 trained.' in tables.LEGEND.replace('\n', ' ')


@pytest.mark.parametrize('name', NAMES)
def test_spaces_that_it_covers(name):
  benchmark = tabular.BENCHMARKS[NAMES.index(name)]
  assert [space for space in spaces.NAMES if benchmark.covers(spaces.get(space))] == COVERED[name]


def test_what_it_answers_is_shown_with_its_name_and_fits_a_result(answering):
  benchmark, asked, space = answering
  genotype = some(space)
  assert tabular.of(space, asked) == [benchmark]
  said = []
  tabular.check(space, asked, said.append)
  answer = benchmark.answer(asked, genotype, 'folder')
  figures = answer[benchmark.key]
  assert figures == benchmark.load(asked, None).query(genotype) == json.loads(json.dumps(figures)) and not said
  fits, _, absent = records._FIELDS[benchmark.key]
  assert fits(figures) and absent and not fits([]) and not fits({'cifar10': 'good'})
  assert all(figure.optional or isinstance(figure.of(figures), float) for figure in benchmark.figures)
  assert any(figure.of(figures) for figure in benchmark.figures)
  assert all(f'{kind}_regret' in figures for kind in benchmark.regrets)
  lines = list(benchmark.lines(answer | {'data': 'folder'}))
  assert lines and all(line.startswith(f'{benchmark.name}  ') and line.isprintable() for line in lines)
  data = [name.replace('-', '').lower() for name in benchmark.data]
  assert all(name in ' '.join(lines).replace('-', '').lower() for name in data)
  assert bool(benchmark.predicts) != ('not on yours (folder)' in lines[0])
  assert not benchmark.remark or benchmark.remark(benchmark.load(asked, None)).startswith(f'{benchmark.name} ')
  assert (tabular.network(space) == benchmark) == (benchmark.cost is not None)


def test_a_run_without_files_is_looked_up_where_none_is_needed():
  found = {name: [benchmark.name for benchmark in tabular.of(spaces.get(name), oracle())] for name in spaces.NAMES}
  assert found == {name: ['NAS-Bench-201'] if name == 'nb201' else [] for name in spaces.NAMES}
  assert tabular.of(spaces.get('darts'), {}) == []  # as a report that is given no files
  for name in ('darts', 'oneshot1'):
    tabular.check(spaces.get(name), oracle())
  assert not [line for benchmark in tabular.BENCHMARKS for line in benchmark.lines({'data': 'cifar10'})]


def test_files_of_a_benchmark_that_does_not_cover_the_space():
  for name, fields in (('darts', {'nasbench101': 'none', 'test_csv': 'none'}), ('oneshot1', {'nasbench201': 'none'})):
    assert tabular.of(spaces.get(name), oracle(**fields)) == []
    tabular.check(spaces.get(name), oracle(**fields))  # they are for other members of a study
  for name in ('nb201', 'oneshot2'):
    with pytest.raises(UserError, match=f"nasbench301='DIR' .* not those of '{name}'") as error:
      tabular.check(spaces.get(name), oracle(nasbench301='DIR'))
    one_line(error)


@pytest.mark.parametrize('space, field', [('nb201', 'test_csv'), ('nb201', 'nasbench201'), ('oneshot3', 'nasbench101'),
                                          ('s2', 'nasbench301')])
def test_bad_files_are_told_in_a_line_before_a_search(tmp_path, space, field):
  with pytest.raises(UserError, match='none') as error:
    tabular.check(spaces.get(space), oracle(**{field: str(tmp_path / 'none')}))
  one_line(error)


def test_networks_that_only_a_benchmark_has():
  found = {name: tabular.network(spaces.get(name)) for name in spaces.NAMES}
  assert {name: benchmark.name for name, benchmark in found.items() if benchmark} == dict.fromkeys(
      oneshot.NAMES, 'NAS-Bench-101')


def test_a_figure_finds_its_place():
  row, deep, flat = {}, Figure(('cifar10', 'valid'), ''), Figure(('valid',), '')
  assert deep.of(row) is deep.of({'cifar10': {}}) is deep.of({'cifar10': 5}) is flat.of(row) is None
  deep.put(row, 1)
  flat.put(row, 2)
  assert row == {'cifar10': {'valid': 1}, 'valid': 2} and (deep.of(row), flat.of(row)) == (1, 2)
