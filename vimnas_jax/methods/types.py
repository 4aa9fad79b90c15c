"""What a method is: pure functions, as optax writes its transforms, that own their step.

JAX is imported when it is needed: a command that is refused, or asks for help, does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeAlias, TypedDict

from vimnas_jax.spaces import Space

if TYPE_CHECKING:
  import jax
  import optax

  from vimnas_jax.networks.mixing import Mixture

PyTree = Any
Weights: TypeAlias = 'Mapping[str, jax.Array | Mixture]'  # {cell: [samples, edges, ops] or Mixture}
Rows: TypeAlias = 'Mapping[str, jax.Array]'  # {cell: [edges, ops]}
Info: TypeAlias = 'Mapping[str, jax.Array | float]'  # scalars worth logging


class Phi(TypedDict):
  """The architecture: `params` are what the optimiser moves, `fixed` all else that the method carries, such as eps."""

  params: PyTree
  fixed: PyTree


class Clock(NamedTuple):
  """Where a search stands: steps of the search proper, after any pretraining of theta. A pure function of the step.

  Attributes:
    step: steps done, int32 [].
    steps: steps in all, a number or int32 [].
    per_epoch: steps of one epoch.
  """

  step: jax.Array | int
  steps: jax.Array | int
  per_epoch: int = 1

  @property
  def progress(self) -> jax.Array:
    """The part that is done: 0 at the first step, 1 after the last."""
    import jax.numpy as jnp
    return jnp.clip(self.step / jnp.maximum(self.steps, 1), 0.0, 1.0)

  @property
  def epoch(self) -> jax.Array:
    """Whole epochs that are done, int32 []."""
    import jax.numpy as jnp
    return jnp.maximum(self.step, 0) // self.per_epoch

  def turn(self, turns: int) -> jax.Array:
    """How many of `turns` equal parts of the search are done, int32 []."""
    import jax.numpy as jnp
    return jnp.maximum(self.step, 0) * turns // jnp.maximum(self.steps, 1)


END = Clock(1, 1)  # after the last step


class Batch(NamedTuple):
  """Images of one step, augmented, with what is drawn for them.

  Attributes:
    images: float [n, h, w, c].
    labels: int32 [n].
    key: of every random draw of a pass over this batch, xi included.
  """

  images: jax.Array
  labels: jax.Array
  key: jax.Array


class State(Protocol):
  """What a step moves: the part that methods know of the state of a run."""

  @property
  def theta(self) -> PyTree:
    """Weights of the supernet."""

  @property
  def phi(self) -> Phi:
    """The architecture."""

  @property
  def opt_theta(self) -> PyTree:
    """Optimiser state of theta."""

  @property
  def opt_phi(self) -> PyTree:
    """Optimiser state of phi['params']."""

  def replace(self, **fields: Any) -> Self:
    """The same state with other values of some fields."""


class Sample(Protocol):
  """`sample(phi, key, clock) -> (weights, info)`."""

  def __call__(self, phi: Phi, key: jax.Array, clock: Clock, /) -> tuple[Weights, Info]:
    """Draws the mixing weights of a step."""


class Read(Protocol):
  """`read(phi, clock=END) -> {cell: [edges, ops]}`."""

  def __call__(self, phi: Phi, clock: Clock = ..., /) -> Rows:
    """Reads numbers off phi, without noise."""


class Rate(Protocol):
  """Rates architectures at the end of a search.

  One of a search with config.limit also has `keeps(weights) -> bool`, counts what exceeds a limit as 0, and has the one
  that does not as `unlimited`.
  """

  def __call__(self, weights: Rows, i: int, /) -> float:
    """Accuracy in % with mixing weights {cell: [edges, ops]} on batch `i` of the validation half."""

  def batch(self, i: int, /) -> tuple[jax.Array, jax.Array]:
    """Batch `i`: normalised images [n, h, w, c] and labels [n]."""

  @property
  def space(self) -> Space:
    """The search space."""

  @property
  def num_classes(self) -> int:
    """Classes of the data."""


class Update(Protocol):
  """`update(method, problem, state, batches, clock) -> (state, metrics)`."""

  def __call__(self, method: Method, problem: Problem, state: State, batches: Mapping[str, Batch], clock: Clock,
               /) -> tuple[State, Info]:
    """Does a step."""


def _none(*args: Any) -> Any:
  raise TypeError('a step asks its Problem for what this one was made without')


class Problem(NamedTuple):
  """What a step works on; the run makes it.

  Attributes:
    space: the search space.
    loss: `loss(theta, weights, key, images, labels) -> (loss, accuracy)`: mean cross-entropy and accuracy, from 0 to 1,
      of the supernet with mixing weights as `Method.sample` gives them.
    tx_theta: the optimiser of theta.
    tx_phi: that of phi['params'].
    tx_unrolled: that of theta without clipping, its state that of tx_theta: the inner step of an unrolled update.
    parts: in how many parts, one after the other, a batch goes through the supernet.
    plain: `loss` without the CPU's kernels, which can be differentiated twice, in reverse mode.
    fresh: `fresh(key) -> theta`: weights as a search starts with.
    decayed: `decayed(times, turns=1, clip=True)`: tx_theta with so many times its weight decay, a number or a scalar of
      the program; its schedule as long as one of `turns` equal parts of the search, where there are several; without
      `clip` unclipped. Its state has the form of that of tx_theta.
  """

  space: Space
  loss: Callable[..., tuple[jax.Array, jax.Array]]
  tx_theta: optax.GradientTransformation
  tx_phi: optax.GradientTransformation
  tx_unrolled: optax.GradientTransformation
  parts: int = 1
  plain: Callable[..., tuple[jax.Array, jax.Array]] = _none
  fresh: Callable[[jax.Array], PyTree] = _none
  decayed: Callable[..., optax.GradientTransformation] = _none


class Step(NamedTuple):
  """How a method learns in one step; updates.py makes those that papers share.

  Attributes:
    update: `update(method, problem, state, batches, clock) -> (state, metrics)`. `state` has theta, phi, opt_theta and
      opt_phi; `batches` is {name: Batch}; metrics are scalars, 'loss' and 'accuracy' among them.
    batches: which batches it takes: 'train', and 'valid' for one of the validation half.
    beside: `beside(names) -> Step`: the same step in which the parts `names` of phi['params'] descend the validation
      loss, whatever the rest does: the searched graph of NAS-Bench-1Shot1. None: it cannot.
    after: `after(sample) -> Step`: the same step, which while the clock stands below 0 trains theta alone, with mixing
      weights from `sample`. Pretraining and search are then one program to compile. None: they are two, so that
      pretraining pays for no validation pass.
  """

  update: Update
  batches: tuple[str, ...] = ('train',)
  beside: Callable[[tuple[str, ...]], Step] | None = None
  after: Callable[[Sample], Step] | None = None


class Options(NamedTuple):
  """What a method wants of the supernet.

  Attributes:
    partial: one part of so many of a node's channels, the first, goes through the operations of an edge; the others go
      past them (PC-DARTS).
    auxiliary: whether every edge has a skip connection beside its operations, weighted by Mixture.skip (DARTS-).
    dropout: whether Mixture.dropout drops skip connections in part (P-DARTS).
    kernels: whether the CPU's kernels may be used. They have no second derivative and no batching rule: a method that
      differentiates a gradient, or calls `vmap` around the supernet, says False.
  """

  partial: int = 1
  auxiliary: bool = False
  dropout: bool = False
  kernels: bool = True


class Method(NamedTuple):
  """How the architecture is represented, sampled, learned and read off.

  Attributes:
    init: `init(key, space) -> phi`.
    sample: `sample(phi, key, clock) -> (weights, info)`: mixing weights of one step, {cell: [samples, edges, ops]} or
      {cell: Mixture} (networks/mixing.py), and scalars worth logging.
    probs: `probs(phi, clock=END) -> {cell: [edges, ops]}`: noise-free probabilities, rows that sum to 1.
    step: how theta and phi are moved.
    sample_theta: `sample` for the pass that moves theta, where it differs; two-level methods alone.
    logs: `logs(phi, clock=END) -> {cell: [edges, ops]}`: the logarithms of `probs`, of some cells or all: in float32
      they tell probabilities apart that are rounded to 1. None: they are not near enough to it.
    scores: `scores(phi, clock=END) -> {cell: [edges, ops]}`: what the architecture is read off, by the space's rule;
      None: `probs`.
    odds: `odds(phi, clock=END) -> {cell: [edges, ops]}`: what, multiplied over the edges that an architecture keeps, it
      is as probable as, where `probs` are not that; by it other architectures than the one read off are ranked. None:
      by what that is read off.
    before: pairs (part of the search, Step), parts rising: until that part is done this step is taken in place of
      `step`.
    drawn: whether `init` draws the architecture, and another draw is as good where a limit does not let that one be.
    trains: whether there are steps at all; without, config.epochs counts for nothing and `derive` does it all.
    depths: for a supernet that grows, pairs (part of the search, cells), parts rising to 1: until that part is done it
      has so many cells beside those of config.space.cells. With every new one theta starts anew; () for one supernet.
    grow: `grow(phi, key) -> phi`, called where a new supernet starts; or None.
    carry: `carry(state) -> phi`: phi with what it holds of the state that a search starts with, such as a place for
      snapshots; where the graph is searched too, its rows are in state.phi['params'] then. Or None.
    early: `early(state) -> state`: what is read off, and by what theta it is rated, where the clock ended a search
      before its last step: R-DARTS has searches that were finished before. None: what it has at that step.
    stopped: `stopped(phi) -> bool []`: whether the search is at its end before its last step; or None.
    penalty: `penalty(phi, weights, clock) -> scalar`, added to the loss of phi; None for nothing.
    after: `after(phi, clock) -> phi`, called at the end of every step with the clock after it: SGAS commits edges; or
      None.
    derive: `derive(rate, phi, key) -> {cell: [edges, ops]}`: scores that the architecture is read off in place of
      `probs`, found by trying architectures; `rate` is a `Rate` of the final supernet. It is no part of a program. Or
      None.
    asks: whom `rate` asks: 'supernet', or 'benchmark' for the validation accuracy that a table of the field has of the
      architecture with the largest weights, without a batch.
    samples: architectures per step, each serving an equal group of the batch.
    separate: whether every group goes through the supernet by itself, so that BatchNorm sees one architecture.
    options: what the method wants of the supernet.
    features: `features(phi) -> {cell: [channels, edges, ops]}`, maps of phi worth drawing, or None.
    logits: `logits(phi) -> {cell: [edges, ops]}` before the softmax, or None.
    outputs: `outputs(phi) -> {cell: [edges, ops]}`, what phi itself puts out; where all values of a row are equal the
      edge is dead. None: these are the logits.
    proximal: `proximal(params, rate) -> params`: what maps phi['params'] after each step of the optimiser that
      config.phi describes, whose rate that step had; or None.
    optimizer: `optimizer(tx) -> tx`: the optimiser of phi['params'], made from that one with its `proximal`.
  """

  init: Callable[[jax.Array, Space], Phi]
  sample: Sample
  probs: Read
  step: Step
  sample_theta: Sample | None = None
  logs: Read | None = None
  scores: Read | None = None
  odds: Read | None = None
  before: tuple[tuple[float, Step], ...] = ()
  drawn: bool = False
  trains: bool = True
  depths: tuple[tuple[float, int], ...] = ()
  grow: Callable[[Phi, jax.Array], Phi] | None = None
  carry: Callable[[State], Phi] | None = None
  early: Callable[[State], State] | None = None
  stopped: Callable[[Phi], jax.Array] | None = None
  penalty: Callable[[Phi, Weights, Clock], jax.Array] | None = None
  after: Callable[[Phi, Clock], Phi] | None = None
  derive: Callable[[Rate, Phi, jax.Array], Rows] | None = None
  asks: str = 'supernet'
  samples: int = 1
  separate: bool = False
  options: Options = Options()
  features: Callable[[Phi], Rows] | None = None
  logits: Callable[[Phi], Rows] | None = None
  outputs: Callable[[Phi], Rows] | None = None
  proximal: Callable[[PyTree, jax.Array | float], PyTree] | None = None
  optimizer: Callable[[optax.GradientTransformation], optax.GradientTransformation] = lambda tx: tx
