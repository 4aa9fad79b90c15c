"""NAS-Bench-101 (Ying et al., ICML 2019) as an oracle for the spaces of NAS-Bench-1Shot1.

The benchmark trained every module (modules.py) three times for 108 epochs on 40,000 images of CIFAR-10, validated on
10,000 and tested on 10,000. Its file nasbench_only108.tfrecord, 499 MB, is the user's to fetch from
https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord (sha256
4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1). It is read once, and what the three spaces need of it
is left beside it, in a few megabytes.
"""

import base64
import contextlib
import dataclasses
import functools
import json
import pathlib
import struct
from collections.abc import Mapping, Set

import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.files import printable
from vimnas_jax.spaces import Genotype, oneshot
from vimnas_jax.tabular import modules, npz, tfrecord
from vimnas_jax.tabular.types import Figure, Tabular

EPOCHS, REPEATS = 108, 3
_MOST_PARAMS = 1 << 53  # which a float holds exactly
# The least error of a single training among the architectures of a space, from which the benchmark's authors count
# regret; an error is a mean over three, so that the best architecture has some regret left.
BEST = {'oneshot1': {'test': 0.05448716878890991, 'valid': 0.049278855323791504},
        'oneshot2': {'test': 0.057592153549194336, 'valid': 0.051582515239715576},
        'oneshot3': {'test': 0.05338543653488159, 'valid': 0.04847759008407593}}
_ARRAYS = {'hashes': 'U', 'valid': 'f', 'test': 'f', 'seconds': 'f', 'params': 'i'}


@dataclasses.dataclass(frozen=True)
class Table:
  """What the benchmark measured; `load` makes it.

  Attributes:
    path: where it comes from.
    place: fingerprint -> row of the arrays.
    valid: validation accuracy of every training, [modules, 3], from 0 to 1.
    test: test accuracy, the same.
    seconds: time of every training, on the benchmark's accelerators, [modules, 3].
    params: trainable parameters, [modules].
  """

  path: str
  place: Mapping[str, int]
  valid: np.ndarray
  test: np.ndarray
  seconds: np.ndarray
  params: np.ndarray

  def query(self, genotype: Genotype) -> dict:
    """What training the architecture gives.

    Returns:
      {valid_error, test_error (mean of three trainings, 0 to 1), valid_regret, test_regret (the error less BEST of the
      space), params, seconds (mean)}.

    Raises:
      UserError: if the table does not have it.
    """
    fingerprint = modules.module_hash(*oneshot.module(genotype))
    if fingerprint not in self.place:
      raise UserError(f'{printable(self.path)} has no module {fingerprint} ({oneshot.write(genotype)}): the table is '
                      'incomplete; give nasbench_only108.tfrecord as config.oracle.nasbench101')
    i, answer = self.place[fingerprint], {}
    for kind in ('valid', 'test'):
      answer[f'{kind}_error'] = float(1 - getattr(self, kind)[i].mean())
      answer[f'{kind}_regret'] = answer[f'{kind}_error'] - BEST[genotype.space][kind]
    return answer | {'params': int(self.params[i]), 'seconds': float(self.seconds[i].mean())}


def load(path: str, say=None) -> Table:
  """The table of config.oracle.nasbench101: nasbench_only108.tfrecord, or what an earlier call left beside it (.npz).

  Raises UserError if the file is missing, damaged, cut short or another one. `say` is called with a line before
  something takes long.
  """
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    raise UserError(f'config.oracle.nasbench101={str(path)!r}: there is no such file; fetch '
                    'nasbench_only108.tfrecord from storage.googleapis.com/nasbench')
  if say and _unread(path):
    say(f'reading {path}, once: a minute or two …')
  return _load(path)


def _beside(path):
  return path.with_name(path.name.removesuffix('.tfrecord') + '.oneshot.npz')


def _unread(path) -> bool:
  beside = _beside(path)
  return path.suffix != '.npz' and not (beside.is_file() and beside.stat().st_mtime >= path.stat().st_mtime)


@functools.cache
def _load(path) -> Table:
  beside = _beside(path)
  if not _unread(path):
    return _read(path if path.suffix == '.npz' else beside)
  arrays = extract(path, modules.needed())
  with contextlib.suppress(OSError):  # a folder that cannot be written: it is read again next time
    npz.write(beside, arrays)
  return _table(path, arrays)


def extract(path, wanted: Set[str]) -> dict[str, np.ndarray]:
  """The modules `wanted`, by their fingerprints, of the benchmark's file: the arrays of a Table and the fingerprints.

  Raises UserError if the file is damaged, another one, lacks one of them, or has not three trainings of one.
  """
  found: dict[str, list] = {}
  for number, record in enumerate(tfrecord.records(path)):
    try:
      fingerprint, epochs, _, _, packed = json.loads(record)
      if not isinstance(fingerprint, str) or len(fingerprint) != 32:
        raise ValueError('no fingerprint')
      if fingerprint in wanted and epochs == EPOCHS:
        found.setdefault(fingerprint, []).append(_metrics(base64.b64decode(packed)))
    except (ValueError, TypeError, KeyError, IndexError, struct.error, RecursionError):  # nested without end
      raise UserError(f'{printable(path)}, record {number}: no row of NAS-Bench-101: {record[:60]!r}; give '
                      'nasbench_only108.tfrecord as config.oracle.nasbench101') from None
  if not found:
    raise UserError(f'{printable(path)} has no module of the three spaces trained for {EPOCHS} epochs: give '
                    'nasbench_only108.tfrecord as config.oracle.nasbench101')
  for fingerprint, rows in found.items():
    if len(rows) != REPEATS or len({row[3] for row in rows}) != 1:
      raise UserError(f'{printable(path)}: module {fingerprint} has {len(rows)} trainings, not {REPEATS} of one '
                      'network: the file is incomplete; fetch it again')
  if missing := wanted - found.keys():
    raise UserError(f'{printable(path)} lacks {len(missing):,} of {len(wanted):,} modules of the three spaces, as '
                    f'{min(missing)}: the file is incomplete; fetch it again')
  names = sorted(found)
  rows = np.array([found[name] for name in names])  # [modules, repeats, 4]
  return {'hashes': np.array(names), 'valid': rows[..., 0], 'test': rows[..., 1], 'seconds': rows[..., 2],
          'params': rows[:, 0, 3].astype(np.int64)}


def _metrics(message: bytes) -> tuple[float, float, float, int]:
  """(Validation accuracy, test accuracy, seconds, parameters) after the last epoch, of a ModelMetrics message.

  ModelMetrics: 1 repeated EvaluationData, 2 trainable parameters. EvaluationData, one at the start, half-way and at the
  end: 2 training time, 4 validation accuracy, 5 test accuracy, doubles.
  """
  fields = _fields(message)
  end = _fields(fields[1][-1])
  seconds, valid, test = (struct.unpack('<d', end[field][-1])[0] for field in (2, 4, 5))
  params = fields[2][-1]
  if not (0 <= valid <= 1 and 0 <= test <= 1 and 0 <= seconds < np.inf):
    raise ValueError('no accuracies')
  if not isinstance(params, int) or params > _MOST_PARAMS:
    raise ValueError('no number of parameters')
  return valid, test, seconds, params


def _fields(message: bytes) -> dict[int, list]:
  """{field: its values} of a protobuf message: bytes, or an int of a varint. Raises ValueError or IndexError."""
  at, fields = 0, {}

  def varint():
    nonlocal at
    value = 0
    for shift in range(0, 70, 7):  # 64 bits take ten bytes
      byte = message[at]
      at, value = at + 1, value | (byte & 0x7F) << shift
      if byte < 0x80:
        return value
    raise ValueError('a number without end')

  while at < len(message):
    key = varint()
    if key & 7 == 0:
      value = varint()
    else:
      size = {1: 8, 5: 4}.get(key & 7) or (varint() if key & 7 == 2 else -1)
      if size < 0 or at + size > len(message):
        raise ValueError('no protobuf message')
      value, at = message[at:at + size], at + size
    fields.setdefault(key >> 3, []).append(value)
  return fields


def _read(path) -> Table:
  remedy = ('is no table made of nasbench_only108.tfrecord ({}): remove it, and give that file as '
            'config.oracle.nasbench101')
  try:
    return _table(path, npz.read(path, _ARRAYS, remedy))
  except ValueError as e:
    raise UserError(f'{printable(path)} {remedy.format(e)}') from None


def _table(path, arrays) -> Table:
  size = len(arrays['hashes'])
  if any(arrays[name].shape != (size, REPEATS) for name in ('valid', 'test', 'seconds')) or any(
      arrays[name].shape != (size,) for name in ('hashes', 'params')):
    raise ValueError('shapes')
  for name, most in (('valid', 1), ('test', 1), ('seconds', 1e12), ('params', _MOST_PARAMS)):
    if not ((arrays[name] >= 0) & (arrays[name] <= most)).all():
      raise ValueError(name)
  place = dict(zip(arrays['hashes'].tolist(), range(size)))
  return Table(str(path), place, *(arrays[name] for name in list(_ARRAYS)[1:]))


def _summary(figures):
  if figures:
    yield ', '.join(
        f'{label} error {100 * figures[kind + "_error"]:.2f} % (regret {100 * figures[kind + "_regret"]:.2f})'
        for kind, label in (('valid', 'validation'), ('test', 'test')))


BENCHMARK = Tabular(
    name='NAS-Bench-101', key='nasbench101', fields=('nasbench101',), data=('cifar10',),
    covers=lambda space: space.name in oneshot.NAMES, load=lambda config, say: load(config.nasbench101, say),
    summary=_summary, figures=tuple(Figure((kind,), f'{kind.replace("_", " ")} %', scale=100)
                                    for kind in ('valid_error', 'test_error', 'test_regret')),
    regrets=('test', 'valid'), cost=modules.genotype_cost)
