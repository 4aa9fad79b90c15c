"""The files of NAS-Bench-201 and of NATS-Bench's topology space, as their authors publish them, without PyTorch.

Read are `NAS-Bench-201-v1_0-e61699.pth` and `NAS-Bench-201-v1_1-096897.pth` (Dong and Yang, ICLR 2020),
`NATS-tss-v1_0-3ffb9.pickle.pbz2` and the folder `NATS-tss-v1_0-3ffb9-simple` (Dong et al., TPAMI 2021). The first read
leaves a table of some hundred kilobytes beside them, which later ones take. The folder is read file by file, in little
memory; the others are one pickle each, of several gigabytes.

A file holds, for each architecture and for its trainings of 200 epochs (`full` or `200`), a result for every data set
and seed. A result's `eval_acc1es` has accuracies in % under 'SPLIT@EPOCH', its `latency` is a list of seconds. Its
`params` are not read: for 204 architectures some seeds carry the size of another one (github.com/D-X-Y/NATS-Bench issue
36), for 94 of them as many as or more than have their own; parameters are counted instead.
"""

import bz2
import collections
import contextlib
import pathlib
import statistics
import zipfile
import zlib

import numpy as np

from vimnas_jax import cost
from vimnas_jax.data.pickles import Unpickler, one_line
from vimnas_jax.errors import UserError
from vimnas_jax.spaces import Genotype, nb201

HINT = 'give a file or folder of NAS-Bench-201 or NATS-Bench (topology) as config.oracle.nasbench201'
# data set -> where its validation, and its test accuracies are: (data set in the file, split)
SPLITS = {'cifar10': (('cifar10-valid', 'x-valid'), ('cifar10', 'ori-test')),
          'cifar100': (('cifar100', 'x-valid'), ('cifar100', 'x-test')),
          'ImageNet16-120': (('ImageNet16-120', 'x-valid'), ('ImageNet16-120', 'x-test'))}
CLASSES = {'cifar10': 10, 'cifar100': 100, 'ImageNet16-120': 120}
KINDS = ('valid', 'test', 'params', 'latency')
_SUFFIX = '.pickle.pbz2'
_MAGIC = 0x1950A86A20F9469CFC6C  # with which files of torch.save began before they were zip archives


def _scalar(dtype, raw):
  return np.frombuffer(raw, dtype, 1)[0].item()


def _no_tensor(*args):
  """What stands for a network's weights, which no table needs."""


class _Results(Unpickler):
  """Admits containers, numbers, and tensors as None."""

  def find_class(self, module, name):
    """The names that results need."""
    if (module, name) in (('collections', 'OrderedDict'), ('collections', 'defaultdict')):
      return getattr(collections, name)
    if name == 'scalar' and module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
      return _scalar
    if (module, name) == ('numpy', 'dtype'):
      return lambda code, align=False, copy=False: np.dtype(np.dtype(code), copy=True)
    if (module, name) in (('builtins', 'set'), ('__builtin__', 'set')):
      return set
    if module.split('.')[0] == 'torch':
      return _no_tensor
    return super().find_class(module, name)

  def persistent_load(self, pid):
    """The storage of a tensor: left out."""
    del pid


def _beside(path):
  return path.with_name(path.name.removesuffix(_SUFFIX).removesuffix('.pth') + '.table.npz')


def unread(path) -> bool:
  """Whether `arrays` would have to read the file or folder itself, which takes long."""
  path = pathlib.Path(path).expanduser()
  if path.suffix == '.npz' or not path.exists():
    return False
  beside = _beside(path)
  return not (beside.is_file() and beside.stat().st_mtime >= path.stat().st_mtime)


def arrays(path) -> dict[str, dict[str, np.ndarray]]:
  """{data set: {kind of KINDS: [15,625]}} in the order of `nb201.everything()`: accuracies in % after 200 epochs and
  latency in seconds, means over seeds, and parameters.

  `path` is one of the files or the folder, or the .npz that an earlier call left beside it. Raises UserError if there
  is nothing, or it is damaged, incomplete or something else.
  """
  path = pathlib.Path(path).expanduser()
  if not path.exists():
    raise UserError(f'config.oracle.nasbench201={str(path)!r}: there is no such file or folder; {HINT}')
  if path.suffix == '.npz':
    return _kept(path)
  beside = _beside(path)
  if not unread(path):
    return _kept(beside)
  found = _table(path, _folder(path) if path.is_dir() else _file(path))
  part = beside.with_name(f'{beside.name}.part')
  try:
    with part.open('wb') as file:
      np.savez_compressed(file, **{f'{name} {kind}': values for name, kinds in found.items()
                                   for kind, values in kinds.items()})
    part.replace(beside)
  except OSError:  # a folder that cannot be written: it is read again next time
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)
  return found


def _kept(path):
  try:
    with path.open('rb') as file, np.load(file) as held:
      found = {name: {kind: held[f'{name} {kind}'] for kind in KINDS} for name in SPLITS}
    if any(values.shape != (nb201.SIZE,) for kinds in found.values() for values in kinds.values()):
      raise ValueError('shapes')
    return found
  except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
    raise UserError(f'{path} is no table made of such a file ({type(e).__name__}): remove it; {HINT}') from None


def _load(path, file):
  try:
    return _Results(file, encoding='latin1').load()
  except Exception as e:  # a damaged file can raise nearly anything
    raise UserError(f'cannot read {path} ({one_line(e)}): fetch it again; {HINT}') from None


def _opened(path, how):
  try:
    return how(path, 'rb')
  except OSError as e:
    raise UserError(f'cannot read {path} ({e.strerror}): make it readable; {HINT}') from None


def _file(path):
  """Yields the results of every architecture in one file."""
  with _opened(path, open) as file:
    start = file.read(4)
    file.seek(0)
    if start[:3] == b'BZh':
      with bz2.BZ2File(file) as unpacked:
        whole = _load(path, unpacked)
    elif start[:2] == b'PK':
      try:
        with zipfile.ZipFile(file) as archive:
          name = next(name for name in archive.namelist() if name.endswith('/data.pkl'))
          with archive.open(name) as data:
            whole = _load(path, data)
      except (zipfile.BadZipFile, StopIteration, OSError) as e:
        raise UserError(f'cannot read {path} ({one_line(e)}): fetch it again; {HINT}') from None
    else:
      if _load(path, file) != _MAGIC:
        raise UserError(f'{path} was not written by torch.save: {HINT}')
      for _ in ('protocol', 'sizes of numbers'):
        _load(path, file)
      whole = _load(path, file)
  if not isinstance(whole, dict) or not isinstance(whole.get('arch2infos'), dict):
    raise UserError(f'{path} has no results of architectures (arch2infos): {HINT}')
  infos = whole.pop('arch2infos')
  while infos:
    yield infos.popitem()[1]


def _folder(path):
  """Yields the results of every architecture in a folder, a file each."""
  files = sorted(file for file in path.glob(f'*{_SUFFIX}') if file.name[:-len(_SUFFIX)].isdigit())
  if not files:
    raise UserError(f'{path} holds no 000000{_SUFFIX}: {HINT}')
  for file in files:
    with _opened(file, bz2.open) as unpacked:
      yield _load(file, unpacked)


def _params(classes):
  """f(architecture as text) = its parameters with N = 5, C = 16: a sum over its edges."""
  count = {op: cost.count(nb201.make(), Genotype('nb201', {'cell': tuple((op, *edge) for edge in nb201.EDGES)}),
                          cells=5, channels=16, num_classes=classes).params for op in nb201.OPS}
  own = {op: (params - count['none']) // len(nb201.EDGES) for op, params in count.items()}
  return lambda arch: count['none'] + sum(own[op] for op, *_ in nb201.read(arch).cells['cell'])


def _table(path, results):
  params = {name: _params(classes) for name, classes in CLASSES.items()}
  places = {nb201.write(genotype): i for i, genotype in enumerate(nb201.everything())}
  found = {name: {kind: np.full(nb201.SIZE, np.nan) for kind in KINDS} for name in SPLITS}
  for number, info in enumerate(results):
    try:
      trained = info['200'] if '200' in info else info['full']
      arch, runs = trained['arch_str'], collections.defaultdict(list)
      for (name, _), run in trained['all_results'].items():
        runs[name].append(run)
      place = places.pop(arch)
      for name, splits in SPLITS.items():
        rows = {kind: [run['eval_acc1es'][f'{split}@{run["epochs"] - 1}'] for run in runs[where]]
                for kind, (where, split) in zip(KINDS, splits)}
        own = runs[splits[0][0]]
        rows['params'] = [params[name](arch)]
        rows['latency'] = [statistics.fmean(run['latency']) for run in own if run['latency']] or [np.nan]
        for kind, values in rows.items():
          found[name][kind][place] = statistics.fmean(values)
          if kind in ('valid', 'test') and not 0 <= found[name][kind][place] <= 100:
            raise ValueError(f'{kind} accuracy {found[name][kind][place]}')
    except (KeyError, TypeError, ValueError, AttributeError, statistics.StatisticsError) as e:
      raise UserError(f'{path}, architecture {number}: not what NAS-Bench-201 holds of one ({one_line(e)}): fetch it '
                      f'again; {HINT}') from None
  if places:
    raise UserError(f'{path} lacks {len(places):,} of {nb201.SIZE:,} architectures, as {next(iter(places))}: fetch it '
                    'again')
  return found
