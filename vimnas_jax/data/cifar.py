"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 50,000 training and 10,000 test images of 32x32x3.

Read from what lies in config.data.dir: a TFDS data folder, else the official archive, else the folder that the archive
unpacks to. The archive is checksummed on every read. CIFAR-100 uses its 100 fine labels.
"""

import dataclasses
import gzip
import io
import pathlib
import tarfile
import zlib

import numpy as np

from vimnas_jax.data import tfds
from vimnas_jax.data.pickles import Unpickler, labels_in, md5, one_line, passing
from vimnas_jax.data.types import Data, Split
from vimnas_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a CIFAR set comes from (https://www.cs.toronto.edu/~kriz/cifar.html) and how its archive is laid out."""

  title: str
  url: str
  md5: str
  folder: str
  train: tuple[str, ...]
  test: tuple[str, ...]
  labels: bytes
  class_names: tuple[str, ...]
  mean: tuple[float, ...]
  std: tuple[float, ...]

  @property
  def num_classes(self) -> int:
    """How many classes there are."""
    return len(self.class_names)

  @property
  def archive(self) -> str:
    """File name of the archive."""
    return self.url.rpartition('/')[2]


# In the order of the labels, as batches.meta and meta of the archives have them.
_NAMES_10 = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
_NAMES_100 = (
    'apple', 'aquarium_fish', 'baby', 'bear', 'beaver', 'bed', 'bee', 'beetle', 'bicycle', 'bottle', 'bowl', 'boy',
    'bridge', 'bus', 'butterfly', 'camel', 'can', 'castle', 'caterpillar', 'cattle', 'chair', 'chimpanzee', 'clock',
    'cloud', 'cockroach', 'couch', 'crab', 'crocodile', 'cup', 'dinosaur', 'dolphin', 'elephant', 'flatfish', 'forest',
    'fox', 'girl', 'hamster', 'house', 'kangaroo', 'keyboard', 'lamp', 'lawn_mower', 'leopard', 'lion', 'lizard',
    'lobster', 'man', 'maple_tree', 'motorcycle', 'mountain', 'mouse', 'mushroom', 'oak_tree', 'orange', 'orchid',
    'otter', 'palm_tree', 'pear', 'pickup_truck', 'pine_tree', 'plain', 'plate', 'poppy', 'porcupine', 'possum',
    'rabbit', 'raccoon', 'ray', 'road', 'rocket', 'rose', 'sea', 'seal', 'shark', 'shrew', 'skunk', 'skyscraper',
    'snail', 'snake', 'spider', 'squirrel', 'streetcar', 'sunflower', 'sweet_pepper', 'table', 'tank', 'telephone',
    'television', 'tiger', 'tractor', 'train', 'trout', 'tulip', 'turtle', 'wardrobe', 'whale', 'willow_tree', 'wolf',
    'woman', 'worm')

# Mean and std: those of the DARTS code (CIFAR-10) and of common practice (CIFAR-100), of the training pixels.
SOURCES = {
    'cifar10': Source(
        'CIFAR-10', 'https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz', 'c58f30108f718f92721af3b95e74349a',
        'cifar-10-batches-py', tuple(f'data_batch_{i}' for i in range(1, 6)), ('test_batch',), b'labels', _NAMES_10,
        (0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)),
    'cifar100': Source(
        'CIFAR-100', 'https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz', 'eb9058c3a382ffc7106e4002c42a8d85',
        'cifar-100-python', ('train',), ('test',), b'fine_labels', _NAMES_100,
        (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def _read_batch(file, source: Source) -> Split:
  """One pickled batch: {b'data': uint8 [n, 3072], channel-major; labels: list of n}."""
  batch = Unpickler(file, 'bytes').load()
  pixels, labels = batch[b'data'], labels_in(batch[source.labels], source.num_classes)
  if pixels.dtype != np.uint8 or pixels.ndim != 2 or labels.shape != pixels.shape[:1]:
    raise ValueError(f'images {pixels.dtype} {pixels.shape}, labels {labels.shape}')
  return Split(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels)  # [n, h, w, c]


def _read_batches(opener, where: pathlib.Path, source: Source) -> tuple[Split, Split]:
  """(train, test) by `opener`, which gives an open file for a batch's name."""
  splits = []
  for names in (source.train, source.test):
    parts = []
    for name in names:
      try:
        with opener(name) as file:
          parts.append(_read_batch(file, source))
      except Exception as e:  # a damaged pickle can raise nearly anything
        if passing(e):
          raise UserError(f'{where}, batch {name!r}, cannot be read ({passing(e)}): make it readable') from None
        raise UserError(f'cannot read batch {name!r} of {source.title} from {where} ({one_line(e)}); delete it and '
                        'set config.data.download=True, or set config.data.dir to an intact copy') from None
    images = np.ascontiguousarray(np.concatenate([part.images for part in parts]))  # [n, h, w, c]
    splits.append(Split(images, np.concatenate([part.labels for part in parts])))
  return tuple(splits)


def _read_archive(path: pathlib.Path, source: Source) -> tuple[Split, Split]:
  found = md5(path)
  if found != source.md5:
    raise UserError(f'{path} is damaged or is no {source.title} archive: its md5 is {found}, not {source.md5}; delete '
                    f'it and set config.data.download=True, or fetch {source.url} again')
  try:
    files = {}
    with tarfile.open(path, 'r|*') as tar:  # one pass: the batches lie in no order, and gzip cannot step back
      for member in tar:
        folder, _, name = member.name.rpartition('/')
        if member.isfile() and folder == source.folder and name in source.train + source.test:
          files[name] = tar.extractfile(member).read()
  except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, OSError) as e:
    raise UserError(f'cannot unpack {path} ({one_line(e)}); delete it and set config.data.download=True') from None
  return _read_batches(lambda name: io.BytesIO(files[name]), path, source)



def _read(root: pathlib.Path, config, source: Source) -> tuple[Split, Split]:
  """(train, test) from what lies at `root`, fetched first if nothing does. Raises FileNotFoundError."""
  if version := tfds.find(root, config.name):
    return tuple(tfds.read(version)[0])
  archive = root if root.is_file() or root.name.endswith('.tar.gz') else root / source.archive
  folder = next((f for f in (root / source.folder, root) if (f / source.train[0]).is_file()), None)
  if config.download and not archive.is_file() and not folder:
    from vimnas_jax.data.download import download  # urllib takes a while to import
    download(archive, source)
  if archive.is_file():
    return _read_archive(archive, source)
  if folder:
    return _read_batches(lambda name: (folder / name).open('rb'), folder, source)
  raise FileNotFoundError(root)


def in_tfds(config) -> bool:
  """Whether `load` takes a TFDS data folder, whose images are in an order of their own."""
  return bool(config.dir and tfds.find(pathlib.Path(config.dir).expanduser(), config.name))


def load(config) -> Data:
  """CIFAR-10 or CIFAR-100, uint8 [n, 32, 32, 3], in the order of the files.

  Args:
    config: `name` ('cifar10' or 'cifar100'), `dir` (a TFDS data folder, the archive, or a folder that holds the
      archive or what it unpacks to) and `download` (whether to fetch the archive into `dir` if none of these is there).

  Raises:
    UserError: nothing there, nothing to be fetched, or a damaged file.
  """
  source = SOURCES[config.name]
  remedy = f'set config.data.dir to a folder where {source.archive} or its TFDS ArrayRecord files lie, or'
  if not config.dir:
    raise UserError(f'no {source.title}: config.data.dir is empty; {remedy} to any folder with '
                    'config.data.download=True')
  root = pathlib.Path(config.dir).expanduser()
  try:
    train, test = _read(root, config, source)
  except FileNotFoundError:
    raise UserError(f'no {source.title} under {root}: {remedy} config.data.download=True') from None
  except OSError as e:
    raise UserError(f'cannot read {root} ({one_line(e)}); set config.data.dir to a folder that can be read') from None
  return Data(config.name, train, test, source.num_classes, source.mean, source.std,
              class_names=source.class_names)
