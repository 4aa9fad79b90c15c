import base64
import itertools
import json
import os
import struct

import numpy as np
import pytest
from conftest import one_line

from vimnas_jax import draw, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.spaces import Genotype, oneshot
from vimnas_jax.tabular import modules, nasbench101, tfrecord

C3, C1, MP = 'conv3x3-bn-relu', 'conv1x1-bn-relu', 'maxpool3x3'
INCEPTION = ('0111010/0000001/0000001/0000100/0000001/0000001/0000000',
             ('input', C1, C3, C3, C3, MP, 'output'))
# space: parents of every node, ops of the blocks, adjacency, vertices and edges left, fingerprint, parameters
MAPPED = {
    'oneshot1': ({1: (0,), 2: (0, 1), 3: (0, 1), 4: (0, 3), 5: (3, 4)}, (C3, C3, C3, C3),
                 '0101100000100000000000000101000000100000000000000', (5, 7),
                 '0c09a1268008c046c2e991fd71de10b4', 8_294_794),
    'oneshot2': ({1: (0,), 2: (1,), 3: (0, 2), 4: (1, 3), 5: (0, 2, 4)}, (C3, C3, C1, MP),
                 '0101001001010000010010000100000000100000000000000', (6, 9),
                 '571a70d9753d5a3d3dac7386e02fbc73', 6_667_274),
    'oneshot3': ({1: (0,), 2: (1,), 3: (2,), 4: (0, 3), 5: (1, 4), 6: (0, 5)}, (C3, C1, C3, MP, C3),
                 '0100101001001000010000000100000001000000010000000', (7, 9),
                 '7dd6dde1212d14c42d8a103aa95919fc', 31_552_906)}


def rows(text):
  return np.array([[int(digit) for digit in row] for row in text.split('/')])


def mapped(name):
  parents, ops, *_ = MAPPED[name]
  return oneshot.make_genotype(name, oneshot.reached(parents, len(parents)), ops)


@pytest.mark.parametrize('matrix, ops, fingerprint', [
    (*INCEPTION, '28cfc7874f6d200472e1a9dcd8650aa0'),
    ('01/00', ('input', 'output'), '043721b9c7fe8c5fad811d47d83132ec'),
    ('010/001/000', ('input', C3, 'output'), 'b49ac8c578b4561d79ac7087988f1c61'),
    ('0101/0010/0001/0000', ('input', C3, C3, 'output'), 'b5fb4f6193360330b6ff6a52cbf0cad7')])
def test_fingerprints_of_the_benchmark(matrix, ops, fingerprint):
  assert modules.module_hash(rows(matrix), ops) == fingerprint
  # an interior vertex more that leads nowhere is pruned
  wider = np.insert(np.insert(rows(matrix), 1, 0, 0), 1, 0, 1)
  wider[0, 1] = 1
  assert modules.module_hash(wider, (ops[0], MP, *ops[1:])) == fingerprint


def test_isomorphic_modules_share_a_fingerprint():
  matrix, ops = rows(INCEPTION[0]), INCEPTION[1]
  found = {modules.module_hash(matrix[np.ix_(order, order)], [ops[v] for v in order])
           for order in ([0, *middle, 6] for middle in itertools.permutations(range(1, 6)))
           if not np.tril(matrix[np.ix_(order, order)]).any()}
  assert found == {'28cfc7874f6d200472e1a9dcd8650aa0'}


def test_parameters_of_the_benchmark():
  assert modules.count(rows(INCEPTION[0]), INCEPTION[1]).params == 2_694_282
  assert modules.count(rows('01/00'), ('input', 'output')).params == (
      3 * 9 * 128 + 256 + 2 * 128 ** 2 + 128 ** 2 + 2 * 384 + 128 * 256 + 2 * 256 ** 2 + 3 * 512 + 256 * 512
      + 2 * 512 ** 2 + 3 * 1024 + 5130)


@pytest.mark.parametrize('name', MAPPED)
def test_golden_mappings(name):
  space, genotype = spaces.get(name), mapped(name)
  _, _, adjacency, (vertices, edges), fingerprint, params = MAPPED[name]
  text = space.write(genotype)
  assert text.split()[0] == adjacency and space.read(text) == space.validate(genotype)
  matrix, ops = modules.prune(*oneshot.module(genotype))
  assert (len(ops), matrix.sum()) == (vertices, edges)
  assert modules.module_hash(*oneshot.module(genotype)) == fingerprint
  assert modules.genotype_cost(genotype).params == params


def test_different_modules_of_a_space():
  """By graphs and operations as by every genotype; 2,685, as counted elsewhere."""
  slow = {modules.module_hash(*oneshot.module(genotype)) for genotype in oneshot.everything('oneshot1')}
  assert len(slow) == 2_685 and modules.needed(('oneshot1',)) == slow


def crc32c(data):
  """Bit by bit, from the definition."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value):
  out = b''
  while value > 0x7F:
    out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
  return out + bytes([value])


def message(valid, test, seconds, params):
  def evaluation(*values):
    body = b''.join(bytes([field << 3 | 1]) + struct.pack('<d', value) for field, value in enumerate(values, 1))
    body += b'\x32' + varint(7) + b'ckpt/42'  # the path of a checkpoint
    return b'\x0a' + varint(len(body)) + body

  return (evaluation(0.0, 0.0, 0.1, 0.1, 0.1) + evaluation(54.0, seconds / 2, 0.9, 0.8, 0.8)
          + evaluation(108.0, seconds, 1.0, valid, test) + b'\x10' + varint(params) + b'\x19' + struct.pack('<d', 3e3))


def line(fingerprint, metrics, epochs=108):
  return json.dumps([fingerprint, epochs, '0100', 'input,output', base64.b64encode(metrics).decode()]).encode()


def write(path, contents):
  with path.open('wb') as file:
    for data in contents:
      length = struct.pack('<Q', len(data))
      file.write(length + struct.pack('<I', crc32c(length)) + data + struct.pack('<I', crc32c(data)))
  return path


def trainings(fingerprint, errors=((0.06, 0.07), (0.05, 0.06), (0.07, 0.08)), params=8_294_794):
  return [line(fingerprint, message(1 - valid, 1 - test, 1000.0 + i, params)) for i, (valid, test) in enumerate(errors)]


@pytest.fixture
def small(tmp_path, monkeypatch):
  """A file with two modules of space 1, one of another space's, and one trained for fewer epochs."""
  first = MAPPED['oneshot1'][4]
  other = modules.module_hash(*oneshot.module(next(oneshot.everything('oneshot1'))))
  monkeypatch.setattr(modules, 'needed', lambda: frozenset({first, other}))
  nasbench101._load.cache_clear()
  yield write(tmp_path / 'nasbench_only108.tfrecord', [
      *trainings(first), *trainings('0' * 32), *trainings(other, params=5), line(first, message(0.1, 0.1, 1.0, 5), 4)])
  nasbench101._load.cache_clear()


def test_reading_once_then_from_the_table_beside_it(small):
  said = []
  table = nasbench101.load(str(small), said.append)
  answer = table.query(mapped('oneshot1'))
  assert answer == pytest.approx({
      'valid_error': 0.06, 'test_error': 0.07, 'valid_regret': 0.06 - 0.049278855323791504,
      'test_regret': 0.07 - 0.05448716878890991, 'params': 8_294_794, 'seconds': 1001.0})
  assert len(table.place) == 2 and len(said) == 1
  stamp = small.stat().st_mtime_ns
  small.write_bytes(b'no longer read')
  os.utime(small, ns=(stamp, stamp))
  beside = small.parent / 'nasbench_only108.oneshot.npz'
  for path in (small, beside):
    nasbench101._load.cache_clear()
    assert nasbench101.load(str(path), said.append).query(mapped('oneshot1')) == answer
  assert nasbench101.load(str(small)) is nasbench101.load(str(small), said.append) and len(said) == 1
  with pytest.raises(UserError, match='has no module 571a70d9753d5a3d3dac7386e02fbc73.*incomplete') as error:
    table.query(mapped('oneshot2'))
  one_line(error)


def test_bad_files(small, tmp_path):
  raw = bytearray(small.read_bytes())

  def fails(content, word, name='bad.tfrecord'):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=word) as error:
      nasbench101.load(str(path))
    assert str(path) in one_line(error)
    nasbench101._load.cache_clear()

  flipped = raw.copy()
  flipped[200] ^= 1
  fails(flipped, 'record 0: the checksum of its contents')
  fails(raw[:-3], 'record 9: the file ends within it')
  fails(raw[:-len(raw) + 6], 'record 0: the file ends within it')
  fails(b'PK\x03\x04' * 10, 'record 0: the checksum of its length.*no file of records')
  fails(b'', 'cannot be read')
  fails(b'PK\x03\x04', 'is no table made of', 'bad.npz')
  with pytest.raises(UserError, match='no such file'):
    nasbench101.load(str(tmp_path / 'none.tfrecord'))

  def records(contents, word):
    fails(write(tmp_path / 'written', contents).read_bytes(), word)

  first = MAPPED['oneshot1'][4]
  records([b'{"a": 1}'], 'record 0: no row')
  records([b'\xff\xfe'], 'record 0: no row')
  records([*trainings(first), b'[1, 2, 3, 4, 5]'], 'record 3: no row')
  records([line(first, b'\x0a\xff')], 'record 0: no row')
  records([line(first, message(2.0, 0.5, 1.0, 5))], 'record 0: no row')
  records(trainings('0' * 32), 'no module of the three spaces')
  records(trainings(first)[:2], f'module {first} has 2 trainings')
  records(trainings(first), 'lacks 1 of 2 modules .* incomplete')


def test_checksums():
  assert tfrecord.masked_crc32c(b'123456789') == crc32c(b'123456789') == (
      ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def test_many_records_and_no_numba_give_the_same(small, monkeypatch):
  table = nasbench101.load(str(small))
  monkeypatch.setattr(tfrecord, '_AT_ONCE', 2)
  monkeypatch.setattr(tfrecord, '_scanner', lambda: tfrecord._scan(tfrecord._masked, tfrecord._number))
  again = nasbench101.extract(small, modules.needed())
  assert set(again['hashes']) == set(table.place) and np.array_equal(again['test'], table.test)
  assert len(list(tfrecord.records(small))) == 10


def test_a_folder_that_cannot_be_written(small, monkeypatch):
  monkeypatch.setattr(np, 'savez_compressed', lambda *a, **k: (_ for _ in ()).throw(OSError('read-only')))
  assert len(nasbench101.load(str(small)).place) == 2


def test_bad_modules():
  for matrix, ops, word in ((rows('00/00'), ('input', 'output'), 'no way'),
                            (rows('01/10'), ('input', 'output'), 'upper triangular'),
                            (rows('01/00'), ('input', C3, 'output'), '3 operations')):
    with pytest.raises(UserError, match=word):
      modules.prune(matrix, ops)


def test_regret_is_drawn_as_mean_and_standard_error(tmp_path):
  figure = draw.regret({'VIM-NAS': ([0, 1, 2], np.array([[0.1, 0.01, 0.004], [0.1, 0.03, 0.004]])),
                        'random': ([0], np.array([[0.2]]))}, tmp_path / 'r.png')
  axes = figure.axes[0]
  mean = axes.lines[0].get_ydata()
  np.testing.assert_allclose(mean, [0.1, 0.02, 0.004])
  assert axes.get_yscale() == 'log' and (tmp_path / 'r.png').stat().st_size > 5000
  band = axes.collections[0].get_paths()[0].vertices[:, 1]
  assert np.isclose(band, 0.01).any() and np.isclose(band, 0.03).any()  # 0.02 -+ sqrt(2) 0.01 / sqrt(2)
  assert axes.get_ylabel() == 'test regret'
  figure = draw.regret({'a': ([0, 1, 2], np.array([[0.1, 0.0, 0.0], [0.1, 0.0, 0.02]])),
                        'b': ([0, 1], np.array([[0.2, 0.2]]))}, tmp_path / 'r.png')
  (axes,) = figure.axes  # the best of the space is found: a mean of 0, which a logarithm has not
  np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.1, 0.005, 0.01])
  assert 0.001 < axes.get_ylim()[0] < 0.005 and 'what is below 0.005 is drawn there' in axes.get_ylabel()
  assert axes.yaxis.label.get_window_extent().x0 >= 0
  zeros = draw.regret({'a': ([0, 1], np.zeros((2, 2)))}, tmp_path / 'zeros.png').axes[0]
  np.testing.assert_allclose(zeros.lines[0].get_ydata(), 1e-3)
  for bad in ({}, {'a': ([0, 1], np.ones((2, 3)))}, {'a': ([], np.ones((2, 0)))}):
    with pytest.raises(UserError, match='regret is drawn'):
      draw.regret(bad, tmp_path / 'r.png')


def test_the_picture_of_a_cell(tmp_path):
  genotype = mapped('oneshot2')
  figure = draw.cell(genotype, 'cell', spaces.get('oneshot2'), tmp_path / 'cell.png')
  texts = [text.get_text() for text in figure.axes[0].texts]
  assert texts.count(MP) == 2 and 'out' in texts and texts.count('output') == 3
  assert isinstance(genotype, Genotype)


def test_lengths_and_numbers_without_end(small, tmp_path, monkeypatch):
  path, first = tmp_path / 'own.tfrecord', MAPPED['oneshot1'][4]

  def refused(content, word):
    path.write_bytes(content)
    with pytest.raises(UserError, match=word) as error:
      list(nasbench101.extract(path, frozenset({first})))
    assert one_line(error).isprintable()

  for plain in (False, True):
    if plain:
      monkeypatch.setattr(tfrecord, '_scanner', lambda: tfrecord._scan(tfrecord._masked, tfrecord._number))
    for size in (2**63, 2**64 - 16, 2**64 - 1, 2**63 - 1, 2**40, 1000):
      length = struct.pack('<Q', size)
      refused(length + struct.pack('<I', crc32c(length)) + bytes(40), 'record 0: the file ends within it')
  monkeypatch.setattr(tfrecord, 'MOST', 100)
  refused(write(path, [b'a' * 101]).read_bytes(), 'it has more than')
  monkeypatch.setattr(tfrecord, 'MOST', 1 << 28)
  for content in (b'[' * 100_000, line(first, b'\x10' + b'\xff' * 100), line(first, message(0.5, 0.5, float('nan'), 5)),
                  line(first, message(float('nan'), 0.5, 1.0, 5)), line(first, message(0.5, 0.5, 1.0, 2**60)),
                  json.dumps([first, 108, '', '', 'é']).encode(), json.dumps([first, 108, '', '', 5]).encode(),
                  json.dumps([first, 108, '', '', 'A']).encode(), b'[1e999, 2, 3, 4, 5]', b'1' * 5000):
    refused(write(path, [content]).read_bytes(), 'record 0: no row')


def test_windows_give_the_same_records(small, monkeypatch):
  whole = list(tfrecord.records(small))
  for window in (1, 13, 100, 5000):
    monkeypatch.setattr(tfrecord, '_WINDOW', window)
    assert list(tfrecord.records(small)) == whole


def test_tables_of_other_shapes(tmp_path):
  path = tmp_path / 'own.npz'
  good = {'hashes': np.array(['0' * 32]), 'valid': np.full((1, 3), 0.5), 'test': np.full((1, 3), 0.5),
          'seconds': np.ones((1, 3)), 'params': np.array([5])}
  np.savez_compressed(path, **good)
  assert nasbench101._read(path).params.tolist() == [5]
  for name, value in (('valid', np.full((1, 3), np.nan)), ('valid', np.ones((1, 2))), ('params', np.array([-1])),
                      ('params', np.array([0.5])), ('hashes', np.array(['a', 'b'])), ('hashes', np.array([b'a'])),
                      ('test', np.full((1, 3), 1.5)), ('hashes', np.array([['a']]))):
    np.savez_compressed(path, **{**good, name: value})
    with pytest.raises(UserError, match='is no table made of nasbench_only108.tfrecord .*: remove it') as error:
      nasbench101._read(path)
    one_line(error)
