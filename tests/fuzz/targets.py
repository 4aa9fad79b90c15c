"""What the fuzzer calls: NAME -> (function of bytes, function that gives whole files), one for every reader.

Where a checksum or a packing would hide what is inside, the first byte says whether the rest is a file as it is, or
what is put in a whole one.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
import shutil
import tempfile
import zipfile

import numpy as np

from vimnas_jax import files
from vimnas_jax.data import cifar, imagenet16, pixels, splits, tfds, types
from vimnas_jax.networks import genotypes
from vimnas_jax.runs import metrics
from vimnas_jax.spaces import nb201
from vimnas_jax.tabular import nasbench101, nasbench201, natsbench, tfrecord
from vimnas_jax.verbs import export

from . import seeds

MEMORY = pathlib.Path('/dev/shm')
ROOM = pathlib.Path(tempfile.mkdtemp(prefix='fuzz', dir=MEMORY if MEMORY.is_dir() else None))


def _small():
  """A benchmark of as many architectures as the seeds have, its parameters counted once."""
  genotype = [nb201.read(arch) for arch in seeds.ARCHS]
  nb201.everything = lambda: iter(genotype)
  nb201.SIZE = nasbench201.SIZE = len(genotype)
  natsbench._params = lambda classes: lambda arch: 73_306
  tfrecord._scanner = lambda: tfrecord._scan(tfrecord._masked, tfrecord._number)  # numba takes no traced code


def _at(name, content):
  path = ROOM / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


def _cifar(data):
  source = dataclasses.replace(cifar.SOURCES['cifar10'], train=('a',), test=('b',))
  cifar._read_batches(lambda name: io.BytesIO(data), ROOM, source)


def _imagenet16(data):
  _at('val_data', data)
  imagenet16._read(ROOM, {'val_data': hashlib.md5(data).hexdigest()})


def _nats(name, wrap=lambda payload: payload):
  def call(data):
    path = _at(name, wrap(data[1:]) if data[:1] == b'w' else data[1:])
    try:
      natsbench.arrays(path)
    finally:
      for made in ROOM.glob('*.table.npz'):
        made.unlink()

  return call


def _zipped(payload):
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    archive.writestr('archive/data.pkl', payload)
  return file.getvalue()


def _nats_simple(data):
  folder = ROOM / 'simple'
  _at('simple/000000.pickle.pbz2', seeds.packed(data[1:]) if data[:1] == b'w' else data[1:])
  _at('simple/000001.pickle.pbz2', SECOND)
  try:
    natsbench.arrays(folder)
  finally:
    (ROOM / 'simple.table.npz').unlink(missing_ok=True)


def _records(data):
  path = _at('own.tfrecord', b''.join(map(seeds.framed, data[1:].split(b'\n'))) if data[:1] == b'w' else data[1:])
  nasbench101.extract(path, frozenset({seeds.MODULE}))


def _npz(read, names):
  def call(data):
    if data[:1] == b'w':  # the same array under every name
      file = io.BytesIO()
      with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name in names:
          archive.writestr(f'{name}.npy', data[1:])
      data = b' ' + file.getvalue()
    read(_at('own.npz', data[1:]))

  return call


def _split(data):
  try:  # its own lists are taken for the official ones
    lists = {key: hashlib.md5(','.join(json.loads(data)[key][1]).encode()).hexdigest() for key in ('train', 'valid')}
  except Exception:
    lists = {'train': '', 'valid': ''}
  splits.FILES['cifar10'] = ('cifar-split.txt', lists)
  part = types.Split(np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int32))
  splits.apply(types.Data('cifar10', part, part, 2, (0.5,), (0.5,)), _at('split.txt', data))


def _image(data):
  recipe = pixels._recipe(8, 8, 'bicubic')
  pixels.read(_at('own.tga' if data[:1] == b't' else 'own.png', data[1:]), recipe)


def _tfds(data):
  info, _, features = data.partition(b'\0')
  folder = ROOM / 'own' / '1.0.0'
  _at('own/1.0.0/dataset_info.json', info)
  _at('own/1.0.0/features.json', features)
  tfds.read(folder, (pixels._recipe(8, 8, 'bicubic'),) * 2)


def _tfds_seeds():
  folder = ROOM / 'own' / '1.0.0'
  folder.mkdir(parents=True, exist_ok=True)
  return seeds.tfds(folder)


def _notation(data):
  text = data.decode('utf-8', 'replace')
  if not genotypes._file(text.strip()):  # a file of this machine is none of the fuzzer's
    genotypes.resolve(text)


def _exported(name):
  def call(data):
    folder = ROOM / 'export'
    _at(f'export/{name}', data)
    (export.load_program if name == 'network.jaxexport' else export.read)(folder)

  def whole():
    folder = ROOM / 'export'
    seeds.export(folder)
    told = json.loads((folder / 'model.json').read_bytes())
    for checksum in ('sha256', 'content_sha256'):  # or nothing else is ever looked at
      told.pop(checksum, None)
    _at('export/model.json', json.dumps(told).encode())
    return [(folder / name).read_bytes()]

  return call, whole


def _either(whole, payloads):
  return lambda: [b' ' + content for content in whole()] + [b'w' + content for content in payloads()]


def _wrapped(whole, payload):
  return _either(lambda: [whole()], lambda: [payload()])


SECOND = seeds.packed(seeds.nats_simple(seeds.ARCHS[1])[1])
TARGETS = {
    'cifar': (_cifar, seeds.cifar),
    'imagenet16': (_imagenet16, seeds.imagenet16),
    'nats_simple': (_nats_simple, _either(lambda: map(seeds.packed, seeds.nats_simple()), seeds.nats_simple)),
    'nats_zip': (_nats('own.pth', _zipped), _wrapped(seeds.nats_zip, seeds.nats)),
    'nats_legacy': (_nats('own.pth'), lambda: [b' ' + seeds.nats_legacy()]),
    'nats_packed': (_nats('own.pickle.pbz2', seeds.packed), _wrapped(seeds.nats_packed, lambda: seeds.nats(4))),
    'nasbench101_records': (_records, _wrapped(lambda: 3 * seeds.framed(seeds.record()),
                                               lambda: b'\n'.join(3 * [seeds.record()]))),
    'nasbench101_npz': (_npz(nasbench101._read, nasbench101._ARRAYS), _wrapped(seeds.table101, seeds.member)),
    'natsbench_npz': (_npz(natsbench._kept, [f'{name} {kind}' for name in natsbench.SPLITS
                                             for kind in natsbench.KINDS]), _wrapped(seeds.table201, seeds.member)),
    'csv': (lambda data: nasbench201._read_csv(_at('own.csv', data)), lambda: [seeds.accuracies()]),
    'split': (_split, lambda: [seeds.split()]),
    'image': (_image, lambda: [b' ' + image for image in seeds.images()[:-1]] + [b't' + seeds.images()[-1]]),
    'tfds': (_tfds, _tfds_seeds),
    'genotype_text': (_notation, seeds.notations),
    'genotype_file': (lambda data: genotypes.resolve(str(_at('genotype.json', data))), seeds.genotype_files),
    'export_model': _exported('model.json'),
    'export_weights': _exported('weights.safetensors'),
    'export_program': _exported('network.jaxexport'),
    'json': (lambda data: files.read_json(_at('result.json', data)), lambda: [b'{"a": [1, null, "b", 1e3, true]}']),
    'metrics': (lambda data: metrics.read(_at('metrics.jsonl', data)), lambda: [seeds.rows()]),
}


def done():
  shutil.rmtree(ROOM, ignore_errors=True)


_small()
