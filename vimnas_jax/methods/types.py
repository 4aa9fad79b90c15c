"""What a method is: pure functions, as optax writes its transforms."""

from collections.abc import Callable
from typing import Any, NamedTuple

PyTree = Any


class Method(NamedTuple):
  """How the architecture is represented, sampled and learned.

  `phi` is {'params': what the optimiser moves, 'fixed': what stays, such as eps}.

  Attributes:
    init: `init(key, space) -> phi`.
    sample: `sample(phi, key, progress) -> (weights, info)`: mixing weights {cell: [samples, edges, ops]} of one step
      and scalars worth logging. `progress`, the part of the search that is done, from 0 and below 1, is the only clock
      it sees. In a bilevel step it is called twice, with a key for each batch.
    probs: `probs(phi, progress=1.0) -> {cell: [edges, ops]}`, noise-free; the architecture is read off these.
    penalty: `penalty(phi, weights) -> scalar`, added to the loss of phi.
    bilevel: whether phi descends the loss of a second batch, from the validation half.
    second: names within phi['params'] of what descends the loss of such a batch although the rest does not.
    phi_first: bilevel only: whether phi moves before theta within a step, the default.
    samples: architectures per step, each serving an equal group of the batch.
    separate: whether every group goes through the supernet by itself, so that BatchNorm sees one architecture.
    features: `features(phi) -> {cell: [channels, edges, ops]}`, maps of phi worth drawing, or None.
    logits: `logits(phi) -> {cell: [edges, ops]}` before the softmax, or None.
    outputs: `outputs(phi) -> {cell: [edges, ops]}`, what phi itself puts out; where all values of a row are equal the
      edge is dead. None: these are the logits.
    optimizer: `optimizer(tx) -> tx`: the optimiser of phi['params'], made from the one that config.phi describes.
  """

  init: Callable[..., PyTree]
  sample: Callable[..., tuple[PyTree, dict]]
  probs: Callable[..., PyTree]
  penalty: Callable[..., Any]
  bilevel: bool = False
  second: tuple[str, ...] = ()
  phi_first: bool = True
  samples: int = 1
  separate: bool = False
  features: Callable[[PyTree], PyTree] | None = None
  logits: Callable[[PyTree], PyTree] | None = None
  outputs: Callable[[PyTree], PyTree] | None = None
  optimizer: Callable[[Any], Any] = lambda tx: tx

  @property
  def validates(self) -> bool:
    """Whether a step takes a batch of the validation half."""
    return self.bilevel or bool(self.second)


def no_penalty(phi, weights):
  """Nothing to add to the loss."""
  del phi, weights
  return 0.0
