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
import os
import pathlib
import pickle
import statistics
import zipfile

import numpy as np

from vimnas_jax.data.opcodes import Name, keys
from vimnas_jax.data.pickles import Unpickler, bounded, one_line, passing
from vimnas_jax.errors import UserError
from vimnas_jax.files import printable
from vimnas_jax.networks import cost
from vimnas_jax.spaces import Genotype, nb201
from vimnas_jax.tabular import npz

HINT = 'give a file or folder of NAS-Bench-201 or NATS-Bench (topology) as config.oracle.nasbench201'
# data set -> where its validation, and its test accuracies are: (data set in the file, split)
SPLITS = {'cifar10': (('cifar10-valid', 'x-valid'), ('cifar10', 'ori-test')),
          'cifar100': (('cifar100', 'x-valid'), ('cifar100', 'x-test')),
          'ImageNet16-120': (('ImageNet16-120', 'x-valid'), ('ImageNet16-120', 'x-test'))}
CLASSES = {'cifar10': 10, 'cifar100': 100, 'ImageNet16-120': 120}
KINDS = ('valid', 'test', 'params', 'latency')
_SUFFIX = '.pickle.pbz2'
_MAGIC = 0x1950A86A20F9469CFC6C  # with which files of torch.save began before they were zip archives


_MOST_TIMES = 10_000  # latencies of one training


def _ordered(pairs=()):
  if type(pairs) not in (list, tuple) or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
    raise pickle.UnpicklingError('a dictionary of no pairs')
  return dict(zip(keys([key for key, _ in pairs]), [value for _, value in pairs]))


def _set(values=()):
  if type(values) not in (list, tuple):
    raise pickle.UnpicklingError('a set of no list')
  return set(keys(values))


class _Results(Unpickler):
  """Admits containers, numbers, and tensors as None, for no table needs a network's weights."""

  _NAMES = {('collections', 'OrderedDict'): _ordered, ('collections', 'defaultdict'): lambda factory=None: {},
            ('builtins', 'set'): _set, ('__builtin__', 'set'): _set}

  def find_class(self, module: str, name: str) -> Name:
    """The names that results need."""
    if call := self._NAMES.get((module, name)):
      return Name(call)
    if name == 'scalar' and module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
      return Name(self.scalar)
    if module.split('.')[0] == 'torch':
      return Name(lambda *args: None)
    return super().find_class(module, name)

  def persistent_load(self, pid):
    """The storage of a tensor: left out."""
    del pid

  def build(self, value, state):
    """As it is, where it is a tensor or a dictionary to which torch adds notes."""
    return value if value is None or type(value) is dict else super().build(value, state)


def _beside(path):
  return path.with_name(path.name.removesuffix(_SUFFIX).removesuffix('.pth') + '.table.npz')


def unread(path) -> bool:
  """Whether `arrays` would have to read the file or folder itself, which takes long."""
  path = pathlib.Path(path).expanduser()
  if path.suffix == '.npz' or not os.path.exists(path):
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
  if not os.path.exists(path):
    raise UserError(f'config.oracle.nasbench201={str(path)!r}: there is no such file or folder; {HINT}')
  if path.suffix == '.npz':
    return _kept(path)
  beside = _beside(path)
  if not unread(path):
    return _kept(beside)
  found = _table(path, _folder(path) if path.is_dir() else _file(path))
  with contextlib.suppress(OSError):  # a folder that cannot be written: it is read again next time
    npz.write(beside, {f'{name} {kind}': values for name, kinds in found.items() for kind, values in kinds.items()})
  return found


def _kept(path):
  remedy = f'is no table made of such a file ({{}}): remove it; {HINT}'
  held = npz.read(path, {f'{name} {kind}': 'f' for name in SPLITS for kind in KINDS}, remedy)
  found = {name: {kind: held[f'{name} {kind}'] for kind in KINDS} for name in SPLITS}
  for kind, most in (('valid', 100), ('test', 100), ('params', 1e12), ('latency', np.inf)):
    for values in (kinds[kind] for kinds in found.values()):
      if values.shape != (nb201.SIZE,) or not ((values >= 0) & (values <= most) | (kind == 'latency')).all():
        raise UserError(f'{printable(path)} {remedy.format(kind)}')
  return found


def _load(path, unpickler):
  try:
    return unpickler.load()
  except Exception as e:  # a damaged file can raise nearly anything
    if passing(e):
      raise _unreadable(path, e) from None
    raise UserError(f'cannot read {printable(path)} ({one_line(e)}): fetch it again; {HINT}') from None


def _unreadable(path, error):
  return UserError(f'{printable(path)} cannot be read ({error.strerror}): make it readable; {HINT}')


@contextlib.contextmanager
def _opened(path):
  """The open file, and how many bytes it has."""
  try:
    if not path.is_file():  # a pipe would be waited for
      raise UserError(f'{printable(path)} is no file: remove it; {HINT}')
    with path.open('rb') as file:
      yield file, os.fstat(file.fileno()).st_size
  except OSError as e:
    if not passing(e):
      raise
    raise _unreadable(path, e) from None


def _whole(path, file, size):
  """The one pickle of a file, or the last but one of several."""
  start = file.read(4)
  file.seek(0)
  if start[:3] == b'BZh':
    return _load(path, _Results(bz2.BZ2File(file), 'latin1', bounded(size)))
  if start[:2] == b'PK':
    try:
      with zipfile.ZipFile(file) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith('/data.pkl'))
        with archive.open(info) as data:
          return _load(path, _Results(data, 'latin1', bounded(min(info.compress_size, size))))
    except UserError:
      raise
    except Exception as e:  # a damaged archive too
      if passing(e):
        raise
      raise UserError(f'cannot read {printable(path)} ({one_line(e)}): fetch it again; {HINT}') from None
  pickles = _Results(file, 'latin1')
  if _load(path, pickles) != _MAGIC:
    raise UserError(f'{printable(path)} was not written by torch.save: {HINT}')
  for _ in ('protocol', 'sizes of numbers'):
    _load(path, pickles)
  return _load(path, pickles)


def _file(path):
  """Yields the results of every architecture in one file."""
  with _opened(path) as (file, size):
    whole = _whole(path, file, size)
  if not isinstance(whole, dict) or not isinstance(whole.get('arch2infos'), dict):
    raise UserError(f'{printable(path)} has no results of architectures (arch2infos): {HINT}')
  infos = whole.pop('arch2infos')
  while infos:
    yield infos.popitem()[1]


def _folder(path):
  """Yields the results of every architecture in a folder, a file each."""
  files = sorted(file for file in path.glob(f'*{_SUFFIX}') if file.name[:-len(_SUFFIX)].isdigit())
  if not files:
    raise UserError(f'{printable(path)} holds no 000000{_SUFFIX}: {HINT}')
  for file in files:
    with _opened(file) as (packed, size):
      info = _load(file, _Results(bz2.BZ2File(packed), 'latin1', bounded(size)))
    yield info


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
      arch, rows = _rows(info)
      place = places.pop(arch)
      for name, kinds in rows.items():
        for kind, value in {**kinds, 'params': params[name](arch)}.items():
          found[name][kind][place] = value
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as e:
      raise UserError(f'{printable(path)}, architecture {number}: not what NAS-Bench-201 holds of one ({one_line(e)}): '
                      f'fetch it again; {HINT}') from None
  if places:
    raise UserError(f'{printable(path)} lacks {len(places):,} of {nb201.SIZE:,} architectures, as '
                    f'{next(iter(places))}: fetch it again')
  return found


def _rows(info) -> tuple[str, dict[str, dict[str, float]]]:
  """(Architecture, {data set: {kind but the parameters: mean over seeds}}) of what a file holds of one.

  Raises KeyError, TypeError, ValueError or ArithmeticError on anything else.
  """
  trained = _at(info, '200' if '200' in _dict(info) else 'full', dict)
  arch, runs = _at(trained, 'arch_str', str), collections.defaultdict(list)
  for (name, _), run in _at(trained, 'all_results', dict).items():
    runs[name].append(_dict(run))
  rows = {}
  for name, splits in SPLITS.items():
    rows[name] = {}
    for kind, (where, split) in zip(KINDS, splits):
      value = statistics.fmean(_at(_at(run, 'eval_acc1es', dict), f'{split}@{_at(run, "epochs", int) - 1}', float, int)
                               for run in runs[where])
      if not 0 <= value <= 100:
        raise ValueError(f'{kind} accuracy {value}')
      rows[name][kind] = value
    times = [_at(run, 'latency', list, tuple, type(None)) or () for run in runs[splits[0][0]]]
    if any(len(of) > _MOST_TIMES for of in times):
      raise ValueError(f'more than {_MOST_TIMES:,} latencies')
    rows[name]['latency'] = statistics.fmean([statistics.fmean(of) for of in times if of] or [np.nan])
  return arch, rows


def _dict(value) -> dict:
  if not isinstance(value, dict):
    raise TypeError(f'{type(value).__name__} where a dictionary should be')
  return value


def _at(held, key, *kinds):
  if type(_dict(held)[key]) not in kinds:
    raise TypeError(f'{key} is of type {type(held[key]).__name__}')
  return held[key]
