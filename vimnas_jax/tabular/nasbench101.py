"""NAS-Bench-101 (Ying et al., ICML 2019) as an oracle for the spaces of NAS-Bench-1Shot1.

A module is an adjacency matrix, upper triangular, of up to seven vertices, and their operations, 'input' first and
'output' last. The benchmark trained every module three times for 108 epochs on 40,000 images of CIFAR-10, validated on
10,000 and tested on 10,000. Its file nasbench_only108.tfrecord, 499 MB, is the user's to fetch from
https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord (sha256
4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1). It is read once, and what the three spaces need of it
is left beside it, in a few megabytes.
"""

import base64
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import struct
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.files import printable
from vimnas_jax.networks.cost import Cost
from vimnas_jax.spaces import Genotype, oneshot
from vimnas_jax.tabular import npz, tfrecord

LABELS = ('conv3x3-bn-relu', 'conv1x1-bn-relu', 'maxpool3x3')  # the order of the labels in a hash
EPOCHS, REPEATS = 108, 3
_MOST_PARAMS = 1 << 53  # which a float holds exactly
# The least error of a single training among the architectures of a space, from which the benchmark's authors count
# regret; an error is a mean over three, so that the best architecture has some regret left.
BEST = {'oneshot1': {'test': 0.05448716878890991, 'valid': 0.049278855323791504},
        'oneshot2': {'test': 0.057592153549194336, 'valid': 0.051582515239715576},
        'oneshot3': {'test': 0.05338543653488159, 'valid': 0.04847759008407593}}
_ARRAYS = {'hashes': 'U', 'valid': 'f', 'test': 'f', 'seconds': 'f', 'params': 'i'}


def prune(matrix, ops: Sequence[str]) -> tuple[np.ndarray, list[str]]:
  """The module without vertices that are on no way from input to output. Raises UserError if there is no way."""
  matrix = np.asarray(matrix, int)
  last = len(matrix) - 1
  if matrix.shape != (len(ops), len(ops)) or np.tril(matrix).any():
    raise UserError(f'a module is an upper triangular matrix with an operation per vertex; this has shape '
                    f'{matrix.shape} and {len(ops)} operations')
  forward, backward, edges = {0}, {last}, np.argwhere(matrix).tolist()
  for source, target in edges:  # by source: what leads to it is known
    if source in forward:
      forward.add(target)
  for source, target in reversed(edges):
    if target in backward:
      backward.add(source)
  kept = sorted(forward & backward)
  if 0 not in kept or last not in kept:
    raise UserError('no way leads from the input of the module to its output')
  return matrix[np.ix_(kept, kept)], [ops[vertex] for vertex in kept]


def module_hash(matrix, ops: Sequence[str]) -> str:
  """The fingerprint under which the benchmark stores the module, the same for all isomorphic ones."""
  matrix, ops = prune(matrix, ops)
  return _fingerprint(*_neighbours(matrix.tolist()), ops)


def _neighbours(matrix: list[list[int]]):
  """The vertices that every vertex is fed from, and those that it feeds."""
  vertices = range(len(matrix))
  return ([[w for w in vertices if matrix[w][v]] for v in vertices],
          [[w for w in vertices if matrix[v][w]] for v in vertices])


def _fingerprint(into, out, ops) -> str:
  labels = [-1, *map(LABELS.index, ops[1:-1]), -2]
  hashes = [_md5(str((len(after), len(before), label))) for before, after, label in zip(into, out, labels)]
  for _ in labels:
    hashes = [_md5('|'.join((''.join(sorted([hashes[w] for w in before])), ''.join(sorted([hashes[w] for w in after])),
                             own))) for before, after, own in zip(into, out, hashes)]
  return _md5(str(sorted(hashes)))


def _md5(text: str) -> str:
  return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def count(matrix, ops: Sequence[str], num_classes: int = 10) -> Cost:
  """Trainable parameters and multiply-adds (32x32 pixels) of the network in which the benchmark trains the module.

  Stem of 128 channels, three stacks of three modules, width doubled and sides halved between them.
  """
  matrix, ops = prune(matrix, ops)
  params, madds, width, side = 9 * 3 * 128 + 2 * 128, 9 * 3 * 128 * 32 * 32, 128, 32
  for stack, channels in enumerate((128, 256, 512)):
    side = 32 >> stack
    for _ in range(3):
      for weights, norms in _convolutions(matrix, ops, width, channels):
        params, madds = params + weights + 2 * norms, madds + weights * side * side
      width = channels
  return Cost(params + width * num_classes + num_classes, madds + width * num_classes)


def _convolutions(matrix, ops, width: int, channels: int) -> Iterator[tuple[int, int]]:
  """(Weights, channels normalised) of every convolution of a module between so many channels."""
  last, widths = len(ops) - 1, _widths(matrix, channels)
  for vertex in range(1, last):
    if matrix[0, vertex]:
      yield width * widths[vertex], widths[vertex]
    kernel = {'conv3x3-bn-relu': 9, 'conv1x1-bn-relu': 1, 'maxpool3x3': 0}[ops[vertex]]
    if kernel:
      yield kernel * widths[vertex] ** 2, widths[vertex]
  if matrix[0, last]:
    yield width * channels, channels


def _widths(matrix, channels: int) -> list[int]:
  """Channels of every vertex: those that feed the output share its width, others take the widest of their targets."""
  last = len(matrix) - 1
  feeding = np.flatnonzero(matrix[1:, last]) + 1
  widths = [0] * len(matrix)
  for place, vertex in enumerate(feeding.tolist()):
    widths[vertex] = channels // len(feeding) + (place < channels % len(feeding))
  for vertex in range(last - 1, 0, -1):
    if not widths[vertex]:
      widths[vertex] = max(widths[target] for target in np.flatnonzero(matrix[vertex]) if target != last)
  return widths


def genotype_cost(genotype: Genotype) -> Cost:
  """`count` of the module that a genotype of the three spaces stands for."""
  return count(*oneshot.module(genotype))


@functools.cache
def needed(names: tuple[str, ...] = oneshot.NAMES) -> frozenset[str]:
  """The fingerprints of all modules that the spaces can derive: 66,111 of all three, which takes 20 seconds."""
  found = set()
  for parents in {tuple(parents.items()) for name in names for parents in _numbered(name)}:
    size = len(parents) + 1
    into = [[], *(list(sources) for _, sources in parents)]
    out = [[v for v in range(size) if w in into[v]] for w in range(size)]
    for ops in itertools.product(oneshot.OPS, repeat=size - 2):
      found.add(_fingerprint(into, out, ('input', *ops, 'output')))
  return frozenset(found)


def _numbered(name: str) -> Iterator[dict[int, tuple[int, ...]]]:
  """The graphs of a space, {vertex: sources}, their vertices numbered without gaps."""
  for parents in oneshot.graphs(name):
    number = {node: place for place, node in enumerate((0, *sorted(parents)))}
    yield {number[node]: tuple(sorted(number[source] for source in sources)) for node, sources in
           sorted(parents.items())}


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
    fingerprint = module_hash(*oneshot.module(genotype))
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
  arrays = extract(path, needed())
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
