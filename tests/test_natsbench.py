import bz2
import collections
import io
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
from conftest import one_line

from vimnas_jax.errors import UserError
from vimnas_jax.spaces import nb201
from vimnas_jax.tabular import nasbench201, natsbench

ARCHS = [nb201.write(genotype) for genotype in nb201.everything()]
SEEDS = (777, 888)


class Weights:
  """Pickles as a tensor does: a call of torch's with a storage."""

  def __reduce__(self):
    return _rebuild_tensor_v2, (Storage(), 0, (2,), (1,))


def _rebuild_tensor_v2(*args):
  raise AssertionError('a tensor was made')


_rebuild_tensor_v2.__module__ = 'torch._utils'


class Storage:
  pass


def dump(value):
  """As torch writes it: tensors by torch._utils, storages by persistent ids."""
  modules = {'torch': types.ModuleType('torch'), 'torch._utils': types.ModuleType('torch._utils')}
  modules['torch._utils']._rebuild_tensor_v2 = _rebuild_tensor_v2
  held = {name: sys.modules.get(name) for name in modules}
  sys.modules.update(modules)
  try:
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=2)
    pickler.persistent_id = lambda obj: ('storage', '0') if isinstance(obj, Storage) else None
    pickler.dump(value)
    return file.getvalue()
  finally:
    for name, module in held.items():
      if module is None:
        del sys.modules[name]
      else:
        sys.modules[name] = module


def result(arch, dataset, seed, weights=None):
  """One training: accuracies that are a function of the architecture's number, the data set and the seed."""
  base = ARCHS.index(arch) / 200 + SEEDS.index(seed)
  splits = ('x-valid', 'ori-test') if dataset == 'cifar10-valid' else ('ori-test',) if dataset == 'cifar10' else (
      'x-valid', 'x-test', 'ori-test')
  accuracies = {f'{split}@{epoch}': np.float64(base + i + (0 if epoch == 199 else 5))
                for i, split in enumerate(splits) for epoch in (0, 199)}
  return {'name': 'infer.tiny', 'seed': seed, 'epochs': 200,  'params': 0.02, 'flop': 7.78,
          'latency': [0.01, 0.03], 'eval_names': list(splits), 'eval_acc1es': accuracies, 'net_state_dict': weights}


def info(arch, keys, weights=None):
  all_results = collections.OrderedDict(
      ((dataset, seed), result(arch, dataset, seed, weights))
      for dataset in ('cifar10-valid', 'cifar10', 'cifar100', 'ImageNet16-120') for seed in SEEDS)
  own = {'arch_index': 0, 'arch_str': arch, 'all_results': all_results, 'dataset_seed': {}, 'clear_net_done': True}
  return {keys[0]: {'arch_str': arch, 'all_results': {}}, keys[1]: own}


def whole(keys):
  return {'meta_archs': ARCHS, 'evaluated_indexes': set(range(len(ARCHS))), 'total_archs': len(ARCHS),
          'arch2infos': {i: info(arch, keys) for i, arch in enumerate(ARCHS)}}


@pytest.fixture(scope='module')
def small():
  """A space of eleven architectures, or the files would be gigabytes."""
  with pytest.MonkeyPatch.context() as patch:
    chosen = list(nb201.everything())[:11]
    patch.setattr(nb201, 'everything', lambda: iter(chosen))
    patch.setattr(nb201, 'SIZE', 11)
    patch.setitem(globals(), 'ARCHS', ARCHS[:11])
    yield


# of the benchmark: 73,306 with no weights in the cell, 28,000 for a 1x1 and 243,040 for a 3x3 convolution on an edge
PARAMS = {name: [73_306 + 65 * (classes - 10) + 28_000 * arch.count('1x1') + 243_040 * arch.count('3x3~')
                 - 243_040 * arch.count('pool_3x3~') for arch in ARCHS[:11]]
          for name, classes in (('cifar10', 10), ('cifar100', 100), ('ImageNet16-120', 120))}


def expected(found):
  number = np.arange(11) / 200 + 0.5  # mean over both seeds
  for name, kinds in found.items():
    np.testing.assert_allclose(kinds['valid'], number, err_msg=name)
    np.testing.assert_allclose(kinds['test'], number + (name != 'cifar10'))
    np.testing.assert_allclose(kinds['latency'], 0.02)
    np.testing.assert_array_equal(kinds['params'], PARAMS[name])


def write_zip(path):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', dump(whole(('less', 'full'))))
    archive.writestr('archive/data/0', b'\0' * 8)


def write_legacy(path):
  content = whole(('less', 'full'))
  content['arch2infos'][3] = info(ARCHS[3], ('less', 'full'), {'w': Weights()})
  path.write_bytes(b''.join(map(dump, (natsbench._MAGIC, 1001, {'little_endian': True}, content, ['0']))) + b'\0' * 8)


def write_bz2(path):
  path.write_bytes(bz2.compress(pickle.dumps(whole(('12', '200')), 4)))


def write_folder(path):
  path.mkdir()
  (path / 'meta.pickle.pbz2').write_bytes(bz2.compress(pickle.dumps({'meta_archs': ARCHS}, 4)))
  for i, arch in enumerate(ARCHS):
    (path / f'{i:06d}.pickle.pbz2').write_bytes(bz2.compress(pickle.dumps(info(arch, ('12', '200')), 4)))


FORMS = {'NAS-Bench-201-v1_1-096897.pth': write_zip, 'NAS-Bench-201-v1_0-e61699.pth': write_legacy,
         'NATS-tss-v1_0-3ffb9.pickle.pbz2': write_bz2, 'NATS-tss-v1_0-3ffb9-simple': write_folder}


@pytest.mark.parametrize('name', FORMS)
def test_every_form_gives_the_table_and_keeps_it(small, tmp_path, name):
  path = tmp_path / name
  FORMS[name](path)
  assert natsbench.unread(path)
  expected(natsbench.arrays(path))
  [kept] = tmp_path.glob('*.table.npz')
  assert not natsbench.unread(path)
  if path.is_file():
    stamp = path.stat().st_mtime_ns
    path.write_bytes(b'no longer read')
    os.utime(path, ns=(stamp, stamp))
  expected(natsbench.arrays(path))
  expected(natsbench.arrays(kept))


def test_the_oracle_answers_from_it(small, tmp_path):
  path = tmp_path / 'NATS-tss-v1_0-3ffb9-simple'
  write_folder(path)
  said = []
  found = nasbench201.load(None, path, said.append)
  assert len(said) == 1 and str(path) in said[0]
  answer = found.query(nb201.read(ARCHS[10]))
  assert answer['cifar10'] == {'params': PARAMS['cifar10'][10], 'latency': pytest.approx(0.02), 'valid_rank': 1,
                               'valid': pytest.approx(0.55), 'valid_regret': 0, 'test': pytest.approx(0.55),
                               'test_rank': 1, 'test_regret': 0}
  with pytest.raises(UserError, match='set one of them'):
    nasbench201.load('a.csv', path)


def test_bad_files_are_one_line(small, tmp_path):
  good = tmp_path / 'good.pickle.pbz2'
  write_bz2(good)
  raw = good.read_bytes()
  content = whole(('12', '200'))
  del content['arch2infos'][4]
  broken = whole(('12', '200'))
  broken['arch2infos'][5]['200']['all_results']['cifar10', 888]['eval_acc1es']['ori-test@199'] = 301.0
  incomplete = whole(('12', '200'))
  del incomplete['arch2infos'][5]['200']['all_results']['cifar100', 777], incomplete['arch2infos'][5]['200'][
      'all_results']['cifar100', 888]
  evil = b'cos\nsystem\n(S"false"\ntR.'
  cases = {'cut': (raw[:len(raw) // 2], 'cannot read'), 'text': (b'hello there', 'cannot read'),
           'lacks': (bz2.compress(pickle.dumps(content)), 'lacks 1 of 11'), 'evil': (bz2.compress(evil), 'os.system'),
           'above': (bz2.compress(pickle.dumps(broken)), 'accuracy'),
           'without': (bz2.compress(pickle.dumps(incomplete)), 'architecture'),
           'other': (bz2.compress(pickle.dumps({'a': 1})), 'arch2infos'), 'zip': (b'PK\3\4', 'cannot read'),
           'magic': (pickle.dumps(7), 'torch.save')}
  for name, (content, word) in cases.items():
    path = tmp_path / f'{name}.pickle.pbz2'
    path.write_bytes(content)
    with pytest.raises(UserError, match=word) as error:
      natsbench.arrays(path)
    assert 'nasbench201' in one_line(error) or 'fetch it again' in one_line(error)
  assert not list(tmp_path.glob('*.npz'))
  (tmp_path / 'x.npz').write_bytes(b'PK')
  for path, word in ((tmp_path / 'none', 'no such file'), (tmp_path / 'x.npz', 'no table'), (tmp_path, 'holds no')):
    with pytest.raises(UserError, match=word):
      natsbench.arrays(path)


def refused(path, word, content=None):
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UserError, match=word) as error:
    natsbench.arrays(path)
  assert one_line(error).isprintable()


def test_files_that_reach_outside_or_unpack_without_end(small, tmp_path):
  path = tmp_path / 'own.pickle.pbz2'
  objects = b'cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n(S"O8"\nI0\nI1\ntRS"12345678"\n\x86R.'
  refused(path, 'array of type', bz2.compress(objects))
  for bomb in (b'N' * 3_000_000, b']' * 3_000_000):
    packed = bz2.compress(bomb)
    assert len(packed) < 200
    refused(path, 'unpacks to more than|more containers', packed)
  refused(path, 'memo index', bz2.compress(b'\x80\x02Nr\xff\xff\xff\x7f.'))
  zipped = tmp_path / 'own.pth'
  with zipfile.ZipFile(zipped, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', b'N' * 20_000_000)
  refused(zipped, 'unpacks to more than')
  nested = whole(('less', 'full'))
  nested['arch2infos'][3]['full']['arch_str'] = 'HERE'
  deep = b'N' + b'\x85' * 5000  # tuples in one another, which end in a hash
  refused(path, 'arch_str is of type tuple', bz2.compress(pickle.dumps(nested, 3).replace(b'X\4\0\0\0HERE', deep)))
  for key, value in (('epochs', 'x'), ('epochs', 10**80), ('latency', [0.1] * 10_001), ('latency', 'abc'),
                     ('eval_acc1es', []), ('latency', [10**400])):
    broken = whole(('less', 'full'))
    broken['arch2infos'][3]['full']['all_results']['cifar10-valid', 777][key] = value
    refused(path, 'architecture ', bz2.compress(pickle.dumps(broken)))


def test_what_cannot_be_read_is_no_damage(small, tmp_path, monkeypatch):
  path = tmp_path / 'own.pickle.pbz2'
  write_bz2(path)

  def failing(self, *args):
    raise OSError(5, 'Input/output error')

  monkeypatch.setattr(bz2.BZ2File, 'read', failing)
  refused(path, r'cannot be read \(Input/output error\): make it readable')
  os.mkfifo(tmp_path / 'pipe')
  refused(tmp_path / 'pipe', 'is no file')


def test_damaged_tables(small, tmp_path):
  path = tmp_path / 'own.npz'
  names = [f'{name} {kind}' for name in natsbench.SPLITS for kind in natsbench.KINDS]

  def table(values=None, raw=None):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
      for name in names:
        file = io.BytesIO()
        np.save(file, np.ones(11) if values is None else values, allow_pickle=True)
        archive.writestr(f'{name}.npy', file.getvalue() if raw is None else raw)

  table()
  assert natsbench.arrays(path)['cifar10']['valid'].shape == (11,)
  for values in (np.full(11, np.nan), np.full(11, 101.0), -np.ones(11), np.ones(10), np.ones(11, int),
                 np.array([None] * 11), np.array('a')):
    table(values)
    refused(path, 'is no table made of such a file .*: remove it')
  head = b'\x93NUMPY\x01\x00'
  large = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999,), }".ljust(117) + b'\n'
  for raw in (b'', head, head + b'\xff\xff' + b'(' * 65_535, head + b'\x76\0' + large,
              b'\x93NUMPY\x02\x00\xff\xff\xff\xff'):
    table(raw=raw)
    refused(path, 'is no table made of such a file .*: remove it')
