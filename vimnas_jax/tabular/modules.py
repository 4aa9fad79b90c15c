"""Modules of NAS-Bench-101 (Ying et al., ICML 2019): the fingerprint that the benchmark stores one under, and its size.

A module is an adjacency matrix, upper triangular, of up to seven vertices, and their operations, 'input' first and
'output' last.
"""

import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from vimnas_jax.errors import UserError
from vimnas_jax.networks.cost import Cost
from vimnas_jax.spaces import Genotype, oneshot

LABELS = ('conv3x3-bn-relu', 'conv1x1-bn-relu', 'maxpool3x3')  # the order of the labels in a hash


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
