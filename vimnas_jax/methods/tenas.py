"""TE-NAS: Chen, Gong and Wang, Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired
Perspective, ICLR 2021. Nothing is trained: config.epochs, config.theta and config.phi count for nothing.

  1. a small network mixes all operations that are left, alike; at first these are all but `none`;
  2. kappa is the condition number of its neural tangent kernel at random weights: of the gradients of the sum of an
     image's logits by all kernels and BatchNorm scales, over a batch of `images` training images;
  3. R is the number of its linear regions: of the different patterns of signs at its ReLUs over `batches` batches of
     `inputs` random inputs of 3x3 numbers, with one channel, no stem and no head;
  4. for every operation that is left it is seen, as a mean over `repeats` starts, by what part kappa and R fall without
     it; operations are ranked by how much kappa falls, the most first, and by how little R does; ranks are added;
  5. every edge loses its `prune` first operations; again from 2, until each edge has one;
  6. where a node keeps a part of its edges, each loses the first of them by the same ranks until these are left.

From the authors' code: parts are rounded to three digits, equals share a rank, and a kernel without a condition number
has 1e5. On NAS-Bench-201 the kernel is that of a network of one cell a group, 3 channels wide, the regions those of one
cell; elsewhere both are of the smallest part of the search network that has every kind of cell, 1 channel wide
(`channels`). Decided here: a step that ties goes to the larger fall of kappa; one edge of a node a round in 6; the
linear layer starts as the convolutions do. Images come from the validation half, which no weight has seen either. An
architecture of a searched graph (NAS-Bench-1Shot1) is refused. Signs are read as in methods/untrained.py: every ReLU of
this package's operations; of one's own operations those before it and after its normalisations.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import indicators, updates
from vimnas_jax.methods.indicators import Masks
from vimnas_jax.methods.types import END, Method

FIELDS = {
    'images': 72,  # of the tangent kernel
    'channels': 3,  # of its network
    'inputs': 1000,  # of a batch whose regions are counted
    'batches': 3,  # of those
    'repeats': 3,  # starts that a part is averaged over
    'prune': 1,  # operations that an edge loses in a round
}
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.0, 'momentum': 0.0, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 0
BRIEF = {'images': 4, 'channels': 1, 'inputs': 20, 'batches': 1, 'repeats': 1, 'prune': 3}
PUBLISHED = {'nb201': {'method.images': 72, 'method.channels': 3, 'method.prune': 1},
             'darts': {'method.images': 14, 'method.channels': 1, 'method.prune': 3},
             'imagenet': {'method.images': 24, 'method.channels': 1, 'method.prune': 2}}
DIGITS = 3

Choice = tuple[str, int, int]  # cell, edge, operation


def without(masks: Masks, choice: Choice) -> Masks:
  """The masks with an operation less."""
  name, edge, op = choice
  left = masks[name].copy()
  left[edge, op] = False
  return {**masks, name: left}


def ranked(falls: dict[Choice, tuple[float, float]]) -> list[Choice]:
  """What is to go, first to last, by {operation: parts by which kappa and R fall without it}."""
  places = []
  for values in ([-kappa for kappa, _ in falls.values()], [r for _, r in falls.values()]):
    order = {value: place for place, value in enumerate(sorted(set(values)))}
    places.append([order[value] for value in values])
  total = {choice: sum(own) for choice, own in zip(falls, zip(*places))}
  return sorted(falls, key=lambda choice: (total[choice], -falls[choice][0]))


def pruned(masks: Masks, targets: dict[str, np.ndarray], kept: dict[str, int],
           measured: Callable[[Masks], list[tuple[float, int]]], prune: int) -> Masks:
  """The masks of one architecture.

  Args:
    masks: all that may be left.
    targets: {cell: the node that each edge leads into, [edges]}.
    kept: {cell: edges that a node keeps}.
    measured: `measured(masks)`: [(kappa, R), ...] of every start.
    prune: operations that an edge loses in a round.
  """
  def falls(choices):
    whole = np.array(measured(masks), float)
    parts = {choice: ((whole - np.array(measured(without(masks, choice)), float)) / whole).mean(0).round(DIGITS)
             for choice in choices}
    return {choice: (float(kappa), float(r)) for choice, (kappa, r) in parts.items()}

  def left(name, edge):
    return int(masks[name][edge].sum())

  while choices := [(name, int(e), int(o)) for name, mask in masks.items() for e, o in np.argwhere(mask)
                    if left(name, e) > 1]:
    gone: dict[tuple[str, int], int] = {}
    most = {(name, e): min(prune, left(name, e) - 1) for name, e, _ in choices}
    for choice in ranked(falls(choices)):
      if gone.get(choice[:2], 0) < most[choice[:2]]:
        masks, gone[choice[:2]] = without(masks, choice), gone.get(choice[:2], 0) + 1
  while choices := [(name, int(e), int(o)) for name, mask in masks.items() for e, o in np.argwhere(mask)
                    if mask[targets[name] == targets[name][e]].sum() > kept[name]]:
    nodes = set()
    for choice in ranked(falls(choices)):
      node = choice[0], targets[choice[0]][choice[1]]
      if node not in nodes:
        masks = without(masks, choice)
        nodes.add(node)
  return masks


def make(config: ConfigDict) -> Method:
  """TE-NAS with the fields of config.method. Raises UserError on a bad field."""
  for field in FIELDS:
    if config[field] < (2 if field == 'images' else 1):
      raise UserError(f'config.method.{field}={config[field]} must be at least {2 if field == "images" else 1}')

  def init(key, space):
    del key
    if space.topology:
      raise UserError(f"config.method.name='tenas': the graph of space {space.name!r} is searched too, and this method "
                      'prunes operations alone: choose another config.method.name or config.space.name')
    return {'params': {}, 'fixed': {name: jnp.full(cell.shape, 1 / cell.shape[1])
                                    for name, cell in space.cells.items()}}

  def sample(phi, key, clock):
    del key, clock
    return {name: rows[None] for name, rows in phi['fixed'].items()}, {}

  def derive(rate, phi, key):
    del phi
    space = rate.space
    masks = {name: np.array([[op != 'none' for op in ops] for ops in cell.ops]) for name, cell in space.cells.items()}
    masks = {name: mask | ~mask.any(1, keepdims=True) for name, mask in masks.items()}  # an edge of `none` alone
    targets = {name: np.array([target for _, target in cell.edges]) for name, cell in space.cells.items()}
    kept = {name: space.kept or len(cell.edges) for name, cell in space.cells.items()}
    left = pruned(masks, targets, kept, indicators.measure(config, rate, key), config.prune)
    return {name: mask.astype(np.float32) for name, mask in left.items()}

  return Method(init, sample, lambda phi, clock=END: phi['fixed'], updates.theta_only(), trains=False, derive=derive)
