import contextlib
import dataclasses
import hashlib
import http.server
import io
import re
import struct
import tarfile
import threading

import numpy as np
import pytest
from conftest import agree, data_config, one_line

from vimnas_jax import data
from vimnas_jax.data import cifar
from vimnas_jax.errors import UserError

# The official archives, in small: pickle protocol 2 as Python 2's cPickle wrote it.

def py2(value):
  if isinstance(value, bytes):
    return (b'U' + bytes([len(value)]) if len(value) < 256 else b'T' + struct.pack('<i', len(value))) + value
  if isinstance(value, int):
    return b'K' + bytes([value]) if value < 256 else b'J' + struct.pack('<i', value)
  if isinstance(value, list):
    return b'](' + b''.join(map(py2, value)) + b'e'
  if isinstance(value, dict):
    return b'}(' + b''.join(py2(k) + py2(v) for k, v in value.items()) + b'u'
  none, minus_one = b'N', b'J\xff\xff\xff\xff'
  dtype = (b'cnumpy\ndtype\n' + py2(b'u1') + b'K\x00K\x01\x87R(K\x03' + py2(b'|') + 3 * none + 2 * minus_one
           + b'K\x00tb')
  return (b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85' + py2(b'b') + b'\x87R(K\x01'
          + py2(value.shape[0]) + py2(value.shape[1]) + b'\x86' + dtype + b'\x89' + py2(value.tobytes()) + b'tb')


def batch(name, images, labels):
  rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
  fields = {b'batch_label': name.encode(), b'data': rows, b'filenames': [b'%d.png' % i for i in range(len(rows))]}
  if len(labels) and max(labels) > 9 or name in ('train', 'test'):
    fields |= {b'fine_labels': labels, b'coarse_labels': [label // 5 for label in labels]}
  else:
    fields[b'labels'] = labels
  return b'\x80\x02' + py2(fields) + b'.'


def make_batches(name, seed=0):
  source, rng = cifar.SOURCES[name], np.random.default_rng(seed)
  files, wanted = {}, {'train': [], 'test': []}
  for part, names in (('train', source.train), ('test', source.test)):
    for k, file in enumerate(names):
      images = rng.integers(0, 256, (100 // len(names), 32, 32, 3), dtype=np.uint8)
      labels = [(k + i) % source.num_classes for i in range(len(images))]
      files[file] = batch(file, images, labels)
      wanted[part].append((images, labels))
  return files, {part: tuple(np.concatenate(arrays) for arrays in zip(*parts)) for part, parts in wanted.items()}


def make_archive(name, files):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as tar:
    for file in sorted(files, key=lambda f: hashlib.md5(f.encode()).digest()):  # in no order, as the real one
      info = tarfile.TarInfo(f'{cifar.SOURCES[name].folder}/{file}')
      info.size = len(files[file])
      tar.addfile(info, io.BytesIO(files[file]))
  return buffer.getvalue()


@pytest.fixture
def official(monkeypatch):
  """make(name) -> (archive bytes, {part: (images, labels)}), with the md5 table set to match."""
  def make(name='cifar10', edit=None, cut=None):
    files, wanted = make_batches(name)
    archive = make_archive(name, edit(files) if edit else files)[:cut]
    source = dataclasses.replace(cifar.SOURCES[name], md5=hashlib.md5(archive).hexdigest())
    monkeypatch.setitem(cifar.SOURCES, name, source)
    return archive, wanted
  return make


@pytest.mark.parametrize('name', ['cifar10', 'cifar100'])
@pytest.mark.parametrize('where', ['folder', 'file', 'renamed', 'unpacked', 'inside'])
def test_official_archive_round_trip(official, tmp_path, name, where):
  archive, wanted = official(name)
  source = cifar.SOURCES[name]
  path = tmp_path / ('renamed' if where == 'renamed' else source.archive)
  path.write_bytes(archive)
  if where in ('unpacked', 'inside'):
    with tarfile.open(path) as tar:
      tar.extractall(tmp_path, filter='data')
    path.unlink()
  at = {'folder': tmp_path, 'file': path, 'renamed': path, 'unpacked': tmp_path, 'inside': tmp_path / source.folder}
  got = data.get(data_config(name, dir=str(at[where])))
  agree(got, wanted)
  assert got.num_classes == source.num_classes and got.image_shape == (32, 32, 3) and len(got.train) == 100


def test_archive_wins_over_a_half_unpacked_folder(official, tmp_path):
  archive, wanted = official()
  (tmp_path / 'cifar-10-python.tar.gz').write_bytes(archive)
  (tmp_path / 'cifar-10-batches-py').mkdir()
  (tmp_path / 'cifar-10-batches-py' / 'data_batch_1').write_bytes(b'')
  agree(data.get(data_config('cifar10', dir=str(tmp_path))), wanted)


def test_bad_checksum_names_both_sums_and_the_remedy(official, tmp_path):
  archive, _ = official()
  path = tmp_path / 'cifar-10-python.tar.gz'
  path.write_bytes(archive[:-1])
  with pytest.raises(UserError) as e:
    data.get(data_config('cifar10', dir=str(tmp_path), download=True))
  text = one_line(e)
  assert hashlib.md5(archive).hexdigest() in text and hashlib.md5(archive[:-1]).hexdigest() in text
  assert str(path) in text and 'config.data.download=True' in text


def test_the_real_sums_are_in_the_table():
  assert cifar.SOURCES['cifar10'].md5 == 'c58f30108f718f92721af3b95e74349a'
  assert cifar.SOURCES['cifar100'].md5 == 'eb9058c3a382ffc7106e4002c42a8d85'


@pytest.mark.parametrize('cut', [0, 5, 3000, -2000])
def test_truncated_archive(official, tmp_path, cut):
  archive, _ = official(cut=cut)
  (tmp_path / 'cifar-10-python.tar.gz').write_bytes(archive)
  with pytest.raises(UserError, match='cannot (unpack|read batch)'):
    data.get(data_config('cifar10', dir=str(tmp_path)))


EVIL = b"\x80\x02cos\nsystem\nU\x12touch vimnas_pwned\x85R."


@pytest.mark.parametrize('content, says', [
    (b'', 'EOFError'), (b'\x80\x02garbage', ''), (EVIL, 'os.system'), (b'\x80\x02cbuiltins\neval\n.', 'builtins.eval'),
    (b'\x80\x02}.', 'KeyError'), (b'\x80\x02]K\x01.', ''),
    (b'\x80\x02cnumpy\ndtype\nU\x01O\x85R.', 'array of type'),
    (b'\x80\x02}U\x04datacnumpy\nndarray\nK\x01M\x00\x0c\x86\x85Rs.', 'it calls numpy.ndarray'),
    (b'\x80\x02Nr\xff\xff\xff\x7f.', 'memo index'), (b'\x80\x02T\xff\xff\xff\x7f.', 'ends early')])
def test_corrupt_or_hostile_pickle(official, tmp_path, monkeypatch, content, says):
  monkeypatch.chdir(tmp_path)
  archive, _ = official(edit=lambda files: {**files, 'data_batch_3': content})
  (tmp_path / 'cifar-10-python.tar.gz').write_bytes(archive)
  with pytest.raises(UserError, match='data_batch_3') as e:
    data.get(data_config('cifar10', dir=str(tmp_path)))
  assert says in one_line(e)
  assert not (tmp_path / 'vimnas_pwned').exists()


def test_a_failing_disk_is_no_damage(tmp_path, monkeypatch):
  folder = tmp_path / 'cifar-10-batches-py'
  folder.mkdir()
  (folder / 'data_batch_1').mkdir()  # which opens for nobody
  monkeypatch.setattr(cifar.pathlib.Path, 'is_file', lambda path: path.name == 'data_batch_1')
  with pytest.raises(UserError, match=r'cannot be read \(Is a directory\): make it readable') as e:
    data.get(data_config('cifar10', dir=str(tmp_path)))
  assert 'delete' not in one_line(e)


def test_missing_batch(official, tmp_path):
  archive, _ = official(edit=lambda files: {k: v for k, v in files.items() if k != 'data_batch_4'})
  (tmp_path / 'cifar-10-python.tar.gz').write_bytes(archive)
  with pytest.raises(UserError, match='data_batch_4'):
    data.get(data_config('cifar10', dir=str(tmp_path)))


def test_wrong_batch_shape(official, tmp_path):
  labels = list(range(10)) * 2
  wrong = batch('x', np.zeros((19, 32, 32, 3), np.uint8), labels)
  archive, _ = official(edit=lambda files: {**files, 'test_batch': wrong})
  (tmp_path / 'cifar-10-python.tar.gz').write_bytes(archive)
  with pytest.raises(UserError, match=r'test_batch.*\(19, 3072\), labels \(20,\)'):
    data.get(data_config('cifar10', dir=str(tmp_path)))


@pytest.mark.parametrize('name, title', [('cifar10', 'CIFAR-10'), ('cifar100', 'CIFAR-100')])
def test_nothing_there(tmp_path, name, title):
  with pytest.raises(UserError, match=re.escape(f'no {title} under {tmp_path}: set config.data.dir to ')) as e:
    data.get(data_config(name, dir=str(tmp_path)))
  assert 'or config.data.download=True' in one_line(e)
  with pytest.raises(UserError, match='config.data.dir is empty') as e:
    data.get(data_config(name, download=True))
  one_line(e)


def test_no_folder_to_download_into(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file/below'):
    data.get(data_config('cifar10', dir=str(tmp_path / 'file' / 'below'), download=True))


# Downloads, from a server of our own.

@pytest.fixture
def serve(monkeypatch):
  """serve(body, ...) points CIFAR-10 at a local server and gives the list of (Range header, bytes sent)."""
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  with contextlib.ExitStack() as stack:
    def start(body, ranges=True, breaks=0, part=None, status=None):
      log = []

      class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
          pass

        def do_GET(self):
          if status:
            log.append((self.headers['Range'], 0))
            self.send_error(status)
            return
          wanted, first = self.headers['Range'], 0
          if wanted and ranges:
            first = int(re.fullmatch(r'bytes=(\d+)-', wanted).group(1))
            if first >= len(body):
              log.append((wanted, 0))
              self.send_error(416)
              return
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {first}-{len(body) - 1}/{len(body)}')
          else:
            self.send_response(200)
          self.send_header('Content-Length', str(len(body) - first))
          self.end_headers()
          end = first + part if len(log) < breaks else len(body)
          log.append((wanted, len(body[first:end])))
          self.wfile.write(body[first:end])

      server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
      thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
      thread.start()
      stack.callback(thread.join)
      stack.callback(server.server_close)
      stack.callback(server.shutdown)
      url = f'http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz'
      monkeypatch.setitem(cifar.SOURCES, 'cifar10', dataclasses.replace(cifar.SOURCES['cifar10'], url=url))
      return log
    yield start


def get_online(path):
  return data.get(data_config('cifar10', dir=str(path), download=True))


def test_download(official, serve, tmp_path):
  archive, wanted = official()
  log = serve(archive)
  agree(get_online(tmp_path / 'new' / 'folder'), wanted)
  assert [p.name for p in (tmp_path / 'new' / 'folder').iterdir()] == ['cifar-10-python.tar.gz']
  agree(get_online(tmp_path / 'new' / 'folder'), wanted)
  assert log == [(None, len(archive))]  # the second time from disk


def test_download_goes_on_from_part(official, serve, tmp_path):
  archive, wanted = official()
  log = serve(archive)
  (tmp_path / 'cifar-10-python.tar.gz.part').write_bytes(archive[:1000])
  agree(get_online(tmp_path), wanted)
  assert log == [('bytes=1000-', len(archive) - 1000)]


def test_download_goes_on_after_broken_connections(official, serve, tmp_path):
  archive, wanted = official()
  log = serve(archive, breaks=6, part=5000)
  agree(get_online(tmp_path), wanted)
  assert [wanted for wanted, _ in log] == [None] + [f'bytes={5000 * k}-' for k in range(1, 7)]


def test_download_gives_up_and_keeps_what_it_has(official, serve, tmp_path):
  archive, wanted = official()
  log = serve(archive, breaks=100, part=0)
  (tmp_path / 'cifar-10-python.tar.gz.part').write_bytes(archive[:1000])
  with pytest.raises(UserError, match='cannot download .*run again to go on'):
    get_online(tmp_path)
  assert (tmp_path / 'cifar-10-python.tar.gz.part').read_bytes() == archive[:1000] and len(log) < 10
  serve(archive)
  agree(get_online(tmp_path), wanted)


@pytest.mark.parametrize('breaks', [0, 2])
def test_download_from_a_server_without_ranges(official, serve, tmp_path, breaks):
  archive, wanted = official()
  log = serve(archive, ranges=False, breaks=breaks, part=4000)
  (tmp_path / 'cifar-10-python.tar.gz.part').write_bytes(b'x' * 1000)
  agree(get_online(tmp_path), wanted)
  assert log[-1][1] == len(archive)


def test_download_of_a_complete_part(official, serve, tmp_path):
  archive, wanted = official()
  serve(archive)
  (tmp_path / 'cifar-10-python.tar.gz.part').write_bytes(archive)
  agree(get_online(tmp_path), wanted)


def test_download_with_a_wrong_sum_is_discarded(official, serve, tmp_path):
  archive, wanted = official()
  serve(archive)
  (tmp_path / 'cifar-10-python.tar.gz.part').write_bytes(b'x' * 1000)
  with pytest.raises(UserError, match=hashlib.md5(archive).hexdigest()) as e:
    get_online(tmp_path)
  assert hashlib.md5(b'x' * 1000 + archive[1000:]).hexdigest() in one_line(e)
  assert not (tmp_path / 'cifar-10-python.tar.gz').exists()
  agree(get_online(tmp_path), wanted)  # starts afresh


def test_download_refused(serve, tmp_path):
  log = serve(b'', status=404)
  with pytest.raises(UserError, match='404') as e:
    get_online(tmp_path)
  one_line(e)
  assert len(log) == 1


def test_two_processes_download_once(official, serve, tmp_path):
  archive, wanted = official()
  log, got = serve(archive), []
  threads = [threading.Thread(target=lambda: got.append(get_online(tmp_path))) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(got) == 4 and log == [(None, len(archive))]
  agree(got[-1], wanted)
  assert [p.name for p in tmp_path.iterdir()] == ['cifar-10-python.tar.gz']
