"""Small whole files of every kind, from which the fuzzer starts."""

import base64
import bz2
import collections
import io
import json
import pickle
import struct
import zipfile

import numpy as np

from vimnas_jax.networks import genotypes
from vimnas_jax.spaces import nb201
from vimnas_jax.tabular import natsbench, tfrecord

MODULE = '0c09a1268008c046c2e991fd71de10b4'
ARCHS = [nb201.write(genotype) for genotype, _ in zip(nb201.everything(), range(2))]


def cifar():
  batch = {b'data': np.zeros((2, 3072), np.uint8), b'labels': [3, 4], b'filenames': [b'a.png', b'b.png']}
  fortran = {b'data': np.asfortranarray(np.zeros((2, 3072), np.uint8)), b'labels': np.arange(2),
             b'x': ('y', 1.5, None, 2**70)}
  return [pickle.dumps(value, protocol) for value in (batch, fortran) for protocol in (0, 1, 2, 4)]


def imagenet16():
  batch = {'data': np.zeros((2, 768), np.uint8), 'labels': [1, 999], 'mean': np.zeros(768)}
  return [pickle.dumps(batch, protocol) for protocol in (0, 2, 4)]


def info(arch):
  results = collections.OrderedDict()
  for name in ('cifar10-valid', 'cifar10', 'cifar100', 'ImageNet16-120'):
    accuracies = {f'{split}@0': np.float64(50.5) for split in ('x-valid', 'x-test', 'ori-test')}
    results[name, 777] = {'seed': 777, 'epochs': 1, 'latency': [0.01], 'eval_acc1es': accuracies, 'net': None}
  return {'full': {'arch_str': arch, 'all_results': results}}


def nats(protocol=2):
  return pickle.dumps({'evaluated_indexes': {0, 1}, 'arch2infos': {i: info(arch) for i, arch in enumerate(ARCHS)}},
                      protocol)


def nats_simple(arch=ARCHS[0]):
  return [pickle.dumps(info(arch), protocol) for protocol in (2, 4)]


def nats_zip():
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    archive.writestr('archive/data.pkl', nats())
  return file.getvalue()


def nats_legacy():
  return b''.join(pickle.dumps(part, 2) for part in (natsbench._MAGIC, 1001, {'little_endian': True})) + nats()


def nats_packed():
  return bz2.compress(nats(4), 1)  # whose blocks are small, and so is what the fuzzer makes of them


def _bytes(field, content):
  size = len(content)
  return bytes([field << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + content


def record():
  """A row of NAS-Bench-101."""
  evaluation = b''.join(bytes([field << 3 | 1]) + struct.pack('<d', 0.5) for field in range(1, 6))
  metrics = _bytes(1, evaluation) + b'\x10\x85\x80\x01'
  return json.dumps([MODULE, 108, '0100', 'input,output', base64.b64encode(metrics).decode()]).encode()


def framed(content):
  """A record as TensorFlow frames it."""
  length = struct.pack('<Q', len(content))
  return b''.join((length, struct.pack('<I', tfrecord.masked_crc32c(length)), content,
                   struct.pack('<I', tfrecord.masked_crc32c(content))))


def table101():
  file = io.BytesIO()
  np.savez_compressed(file, hashes=np.array([MODULE]), valid=np.full((1, 3), 0.5), test=np.full((1, 3), 0.5),
                      seconds=np.ones((1, 3)), params=np.array([5]))
  return file.getvalue()


def table201():
  file = io.BytesIO()
  np.savez_compressed(file, **{f'{name} {kind}': np.ones(len(ARCHS)) for name in natsbench.SPLITS
                               for kind in natsbench.KINDS})
  return file.getvalue()


def member():
  file = io.BytesIO()
  np.save(file, np.ones(len(ARCHS)))
  return file.getvalue()


def accuracies():
  header = 'CIFAR10TestAccuracy200Epochs,CIFAR100TestAccuracy200Epochs,ImageNetTestAccuracy200Epochs,ArchitectureString'
  return '\r\n'.join((header, *(f'90.5,70,40,{arch}' for arch in ARCHS), '')).encode()


def split():
  return json.dumps({'train': ['int', ['0', '2']], 'valid': ['int', ['1', '3']]}).encode()


def images():
  from PIL import Image
  made = []
  for kind, mode in (('PNG', 'RGBA'), ('JPEG', 'RGB'), ('GIF', 'P'), ('BMP', 'RGB'), ('TIFF', 'L'), ('WEBP', 'RGB'),
                     ('PPM', 'RGB'), ('PNG', 'I;16'), ('TGA', 'RGB')):
    file = io.BytesIO()
    Image.new(mode, (9, 7)).save(file, kind)
    made.append(file.getvalue())
  return made


def notations():
  found = genotypes.get('DARTS_V2')
  from vimnas_jax import spaces
  return [ARCHS[0].encode(), b'DARTS_V2', spaces.get('darts').write(found).encode(), found.to_json().encode()]


def genotype_files():
  return [genotypes.get('DARTS_V2').to_json().encode(), next(nb201.everything()).to_json().encode()]


def rows():
  return b'{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null}\n'


TFDS_INFO = {
    'citation': '', 'description': '', 'fileFormat': 'array_record', 'moduleName': 'own', 'name': 'own',
    'version': '1.0.0', 'supervisedKeys': {'tuple': {'items': [{'featureKey': 'image'}, {'featureKey': 'label'}]}},
    'splits': [{'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}', 'name': name, 'numBytes': '80',
                'shardLengths': ['1']} for name in ('train', 'test')]}
TFDS_FEATURES = {
    'pythonClassName': 'tensorflow_datasets.core.features.features_dict.FeaturesDict',
    'featuresDict': {'features': {
        'image': {'pythonClassName': 'tensorflow_datasets.core.features.image_feature.Image',
                  'image': {'shape': {'dimensions': ['7', '9', '3']}, 'dtype': 'uint8', 'encodingFormat': 'png'}},
        'label': {'pythonClassName': 'tensorflow_datasets.core.features.class_label_feature.ClassLabel',
                  'classLabel': {'numClasses': '10'}}}}}


def tfds(folder):
  """The descriptions of a data set whose records it writes to `folder`."""
  from array_record.python.array_record_module import ArrayRecordWriter
  from PIL import Image
  file = io.BytesIO()
  Image.new('RGB', (9, 7)).save(file, 'PNG')
  features = (_bytes(1, b'image') + _bytes(2, _bytes(1, _bytes(1, file.getvalue()))),
              _bytes(1, b'label') + _bytes(2, _bytes(3, b'\x0a\x01\x04')))
  for part in ('train', 'test'):
    writer = ArrayRecordWriter(str(folder / f'own-{part}.array_record-00000-of-00001'), 'group_size:1')
    writer.write(_bytes(1, b''.join(_bytes(1, feature) for feature in features)))
    writer.close()
  return [json.dumps(TFDS_INFO).encode() + b'\0' + json.dumps(TFDS_FEATURES).encode()]


def export(folder):
  """An exported network in `folder`."""
  import jax

  from vimnas_jax import spaces
  from vimnas_jax.networks.network import Network
  from vimnas_jax.verbs import export as export_lib
  space, genotype = spaces.get('nb201'), nb201.read(ARCHS[1])
  net = Network(space=space, genotype=genotype, cells=1, channels=4, num_classes=2)
  shapes = jax.eval_shape(lambda: net.init({'params': jax.random.key(0), 'noise': jax.random.key(0)},
                                           np.zeros((1, 8, 8, 3), np.float32), False))
  variables = jax.tree.map(lambda like: np.zeros(like.shape, like.dtype), shapes)
  export_lib.write(folder, export_lib.Model(space, genotype, net, variables, (8, 8, 3), (0.5,) * 3, (0.5,) * 3, 'own'))


def packed(payload):
  return bz2.compress(payload, 1)
