"""FairDARTS: Chu, Zhou, Zhang, Li, Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture Search,
ECCV 2020.

  1. alpha is a free number for every edge and operation but `none`, 0 at the start;
  2. an operation is mixed by its own gate, sigmoid(alpha): no operation pays for what another gains;
  3. alpha descends the loss of a validation batch, theta that of a training batch;
  4. to both losses `zero_one` times L01 is added, minus the mean over all gates of (gate - 1/2)^2, which drives every
     gate to 0 or 1, whichever is nearer, and moves no theta;
  5. gates above `threshold` are the architecture, at most two edges a node.

What a genotype of this package can express: on the DARTS space exactly two edges into every node, of one operation
each. There the rule of the space keeps the two largest gates of a node, above the threshold or not; `above` in
metrics.jsonl says how many gates are above it. Where every edge keeps one operation and `none` is one of them
(NAS-Bench-201), an edge without a gate above the threshold keeps `none`, other than the strongest into its node, so
that no node is left without an input. In the drawings and in `probs` gates are divided by their sum over the edge.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.types import END, Method

FIELDS = {
    'zero_one': 10.0,  # weight of L01
    'threshold': 0.85,  # a gate above it is open
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-3, 'momentum': 0.9, 'weight_decay': 1e-3}
PRETRAIN = 0.0
PASSES = 2
PUBLISHED = {'darts': {'epochs': 50.0, 'batch_size': 128, 'theta.lr': 0.005, 'theta.lr_end': 0.001}}


def make(config: ConfigDict) -> Method:
  """FairDARTS with the fields of config.method. Raises UserError on a bad field."""
  if config.zero_one < 0:
    raise UserError(f'config.method.zero_one={config.zero_one} must be at least 0')
  if not 0 < config.threshold < 1:
    raise UserError(f'config.method.threshold={config.threshold} must lie between 0 and 1')

  def init(key, space):
    del key
    fixed = {name: {'real': jnp.array([[op != 'none' for op in ops] for ops in cell.ops]),
                    'targets': jnp.array([target for _, target in cell.edges])} for name, cell in space.cells.items()}
    return {'params': {name: jnp.zeros(cell.shape) for name, cell in space.cells.items()}, 'fixed': fixed}

  def gates(phi):
    return {name: jnp.where(phi['fixed'][name]['real'], jax.nn.sigmoid(alpha), 0)
            for name, alpha in phi['params'].items()}

  def sample(phi, key, clock):
    del key, clock
    found = gates(phi)
    above = sum((rows > config.threshold).sum() for rows in found.values())
    return {name: rows[None] for name, rows in found.items()}, {'above': jnp.asarray(above, jnp.float32)}

  def probs(phi, clock=END):
    del clock
    tiny = 1e-12
    return {name: (rows + tiny) / (rows + tiny).sum(-1, keepdims=True) for name, rows in gates(phi).items()}

  def scores(phi, clock=END):
    del clock
    found = {}
    for name, rows in gates(phi).items():
      real, targets = phi['fixed'][name]['real'], phi['fixed'][name]['targets']
      strength, same = rows.max(-1), targets[:, None] == targets[None]
      first = strength >= jnp.where(same, strength[None], 0).max(1)  # the strongest into its node
      found[name] = jnp.where(real, rows, jnp.where(first, 0, config.threshold)[:, None])
    return found

  def penalty(phi, weights, clock):
    del clock
    real = {name: own['real'] for name, own in phi['fixed'].items()}
    total = sum((jnp.square(weights[name][0] - 0.5) * real[name]).sum() for name in real)
    return -config.zero_one * total / sum(rows.sum() for rows in real.values())

  # No `logits`: gates of one edge may well be equal, and their edge is not dead.
  return Method(init, sample, probs, updates.bilevel(), scores=scores, penalty=penalty)
