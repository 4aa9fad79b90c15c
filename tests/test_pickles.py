"""What a pickle may make, and what it may not."""

import collections
import errno
import io
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from vimnas_jax.data import pickles

ARRAY = b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(I0\ntS"b"\n\x87R'
U1 = b'cnumpy\ndtype\nS"u1"\n\x85R(I3\nS"|"\nNNNI-1\nI-1\nI0\ntb'


def load(content, encoding='latin1', **more):
  return pickles.Unpickler(io.BytesIO(content), encoding, **more).load()


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4])
def test_what_data_sets_hold_comes_back_bit_for_bit(protocol):
  rng = np.random.default_rng(0)
  value = {'list': [1, -1, 255, 256, 65_536, -2**31, 2**31, 2**70, -2**70, True, False, None, 1.5, float('inf'), -0.0],
           'text': ['', 'a', 'ä€', 'line\nbreak', 'x' * 300, 'y' * 70_000, '\u2028'],
           'tuples': [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], ('a', 1): {}, 7: [[[[]]]]}
  value['again'] = value['list']
  found = load(pickle.dumps(value, protocol))
  assert found == value and found['again'] is found['list']
  for dtype in ('u1', '<i2', '>i4', '<i8', '<u8', '<f2', '<f4', '>f8', '?'):
    for shape in ((), (0,), (3,), (2, 3, 4)):
      array = np.asarray(rng.integers(0, 100, shape)).astype(dtype)
      for like in (array, np.asfortranarray(array)):
        got, same = load(pickle.dumps([like, like], protocol))
        assert got is same and got.dtype == like.dtype and got.flags.f_contiguous == like.flags.f_contiguous
        np.testing.assert_array_equal(got, like)


def test_bytes_of_both_pythons():
  assert load(pickle.dumps(b'\0\xff', 2)) == load(pickle.dumps(b'\0\xff', 4)) == b'\0\xff'
  assert load(b'U\x02\x00\xff.', 'bytes') == b'\0\xff' and load(b'U\x02\x00\xff.') == '\0\xff'
  assert load(b"S'a\\x00b'\n.", 'bytes') == b'a\0b'


def test_several_in_one_file_and_windows(monkeypatch):
  from vimnas_jax.data import opcodes
  values = [{'a': list(range(1000)), 'b': 'x' * 5000, 'c': np.arange(3000)}, 7, [b'y' * 3000]]
  for window in (1, 7, 1000):
    monkeypatch.setattr(opcodes, '_WINDOW', window)
    for protocol in (0, 2, 4):
      reader = pickles.Unpickler(io.BytesIO(b''.join(pickle.dumps(value, protocol) for value in values)), 'latin1')
      assert str([reader.load() for _ in values]) == str(values)


HOSTILE = {
    'ndarray with a buffer': (b'cnumpy\nndarray\n(I9\ntR.', 'numpy.ndarray'),
    'ndarray by NEWOBJ': (b'cnumpy\nndarray\n(I9\nt\x81.', 'numpy.ndarray'),
    'object dtype': (b'cnumpy\ndtype\nS"O8"\n\x85R.', 'array of type'),
    'void dtype': (b'cnumpy\ndtype\nS"V8"\n\x85R.', 'array of type'),
    'dtype with fields': (b'cnumpy\ndtype\nS"u1"\n\x85R(I3\nS"|"\nN)}I-1\nI-1\nI0\ntb.', 'plain number'),
    'dtype with flags': (b'cnumpy\ndtype\nS"u1"\n\x85R(I3\nS"|"\nNNNI-1\nI-1\nI63\ntb.', 'plain number'),
    'array longer than its data': (ARRAY + b'(I1\n(I9\nt' + U1 + b'I00\nS"ab"\ntb.', r'shape \(9,\) and 2'),
    'array below 0': (ARRAY + b'(I1\n(I-1\nI-2\nt' + U1 + b'I00\nS"ab"\ntb.', 'no shape'),
    'array of a product that overflows': (ARRAY + b'(I1\n(' + b'I4294967296\n' * 2 + b't' + U1 + b'I00\nS""\ntb.',
                                          'shape'),
    'array of a list': (ARRAY + b'(I1\n(I1\nt' + U1 + b'I00\n]tb.', 'no bytes'),
    'array of another class': (b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\n(I0\ntS"b"\n\x87R.', 'class'),
    'scalar of objects': (b'cnumpy.core.multiarray\nscalar\n.', 'asks for'),
    'memo index of 16 GB': (b'Nr\xff\xff\xff\x7f.', 'memo index'),
    'memo index in words': (b'Np99999999999\n.', 'memo index'),
    'text longer than the file': (b'\x8d' + struct.pack('<Q', 1 << 40) + b'ab.', 'EOFError|ends early'),
    'bytes longer than memory': (b'\x8e' + struct.pack('<Q', (1 << 63) - 1) + b'ab.', 'ends early'),
    'length below 0': (b'T\xff\xff\xff\xff.', 'below 0'),
    'integer of many bytes': (b'\x8b' + struct.pack('<I', 1 << 20) + bytes(1 << 20) + b'.', 'an integer of'),
    'tuple nested as a key': (b'}N' + b'\x85' * 60_000 + b'Ns.', 'a key of'),
    'tuple nested in a set': (b'\x8f(N' + b'\x85' * 60_000 + b'\x90.', 'a key of'),
    'tuples that double as a key': (b'})' + b'q\x00h\x00\x86' * 60 + b'Ns.', 'a key of'),
    'marks alone': (b'(' * 100_000, 'nested too deep'),
    'containers alone': (b']' * 1_000_000 + b'.', 'more containers than data'),
    'text copied again and again': (b'c_codecs\nencode\nq\x00X' + struct.pack('<I', 1 << 20) + b'a' * (1 << 20) +
                                    b'X\x06\0\0\0latin1\x86q\x01' + b'0h\x00h\x01R' * 100 + b'.', 'copies more'),
    'a number called': (b'I1\n)R.', 'what is no name'),
    'state for a list': (b']Nb.', 'a state for list'),
    'items of None': (b'NNNs.', 'go into NoneType'),
    'extension': (b'\x82\x01.', 'opcode 0x82'),
    'instance': (b'(ios\nsystem\n.', 'opcode 0x69'),
    'outside': (b'Pfile\n.', 'outside'),
    'nothing': (b'', 'ends early'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_pickles_take_no_memory(name):
  content, word = HOSTILE[name]
  tracemalloc.start()
  try:
    with pytest.raises((pickle.UnpicklingError, EOFError), match=word):
      load(content)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
  finally:
    tracemalloc.stop()


def test_cycles_are_read_and_let_go():
  found = load(b']q\x00h\x00a.')
  assert found[0] is found
  deep = load(b']' * 60_000 + b'a' * 59_999 + b'.')
  assert len(deep) == 1
  with pytest.raises(ValueError, match='no list of integers'):
    pickles.labels_in(found, 10)


def test_labels_are_flat_and_in_range():
  doubled = [0]
  for _ in range(60):
    doubled = [doubled, doubled]
  for bad in (doubled, [1.5], [True], [-1], [10], 'abc', None, {}, np.ones(3), np.ones((2, 2), int)):
    with pytest.raises(ValueError, match='no list of integers below 10'):
      pickles.labels_in(bad, 10)
  assert pickles.labels_in([9, 0], 10).tolist() == pickles.labels_in(np.array([9, 0], '>i2'), 10).tolist() == [9, 0]


def test_limit_of_what_is_unpacked():
  assert load(pickle.dumps(b'a' * 2000), limit=3000) == b'a' * 2000
  with pytest.raises(pickle.UnpicklingError, match='unpacks to more than 3,000 bytes'):
    load(pickle.dumps(b'a' * 3000), limit=3000)


def test_a_failing_disk_is_no_damage():
  class Failing(io.RawIOBase):
    def read(self, size=-1):
      raise OSError(errno.EIO, 'Input/output error')

  with pytest.raises(OSError) as error:
    pickles.Unpickler(Failing(), 'latin1').load()
  assert pickles.passing(error.value) == 'Input/output error'
  assert not pickles.passing(OSError('Invalid data stream')) and not pickles.passing(EOFError())


def test_ordered_dictionaries_are_for_results_alone():
  with pytest.raises(pickle.UnpicklingError, match='collections.OrderedDict'):
    load(pickle.dumps(collections.OrderedDict(a=1)))
