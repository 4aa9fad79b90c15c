"""SI-VDNAS: Wang et al., SI-VDNAS: Semi-Implicit Variational Dropout for Hierarchical One-shot Neural Architecture
Search, IJCAI 2020.

Every alpha of an edge's operation is a Gaussian whose noise grows with its mean, as in variational dropout, and whose
dropout rate is itself drawn:
  1. draw log delta ~ N(nu, r^2), then alpha ~ N(mu, mu^2 delta); mu, nu and log r (`mean`, `log_delta`, `log_spread`)
     are learned for every edge and operation;
  2. the supernet mixes the operations of an edge by softmax(alpha);
  3. mu, nu and r descend the loss of a validation batch, plus `sparsity` times the divergence of alpha's Gaussian from
     a log-uniform prior, which falls as delta grows: what the data do not need is dropped more and more;
  4. theta descends the loss of a training batch, with a draw of its own;
  5. the architecture is read off softmax(mu).

There is no code of the authors: this is built from the paper's rule. Left open and decided here: delta's distribution,
a log-normal one, drawn by reparametrisation; the divergence is the mean over delta, by quadrature, of that at a given
delta (Molchanov et al., ICML 2017), which bounds that of the mixture from above; it is weighted as in an evidence lower
bound, once per data set, hence 1 / 25,000 per image; where mu, nu and r begin; Adam as for DARTS, its decay left to the
prior. Not here: the paper's second level, in which whole edges are dropped.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.alpha import log_softmax
from vimnas_jax.methods.types import END, Method
from vimnas_jax.methods.vimnas import log_uniform_kl
from vimnas_jax.networks import initial

FIELDS = {
    'delta': 0.25,  # median dropout rate at the start: the variance of alpha in squares of its mean
    'spread': 0.5,  # standard deviation of log delta at the start
    'sparsity': 4e-5,  # weight of the divergence
    'samples': 1,  # draws per step, each serving an equal group of the batch
}
OPTIMIZER = {'optimizer': 'adam', 'lr': 3e-4, 'momentum': 0.5, 'weight_decay': 0.0}
PRETRAIN = 0.0
PASSES = 2
PUBLISHED = {'darts': {'epochs': 50.0}}
WIDEST = 8.0  # bound of log delta, on either side: beyond it the divergence is flat, and exp may overflow


def expected_kl(nu: jax.Array, r: jax.Array) -> jax.Array:
  """Mean of the divergence over log delta ~ N(nu, r^2), elementwise."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(9)
  shares = (weights / weights.sum()).tolist()
  return jnp.stack([w * log_uniform_kl(nu + x * r) for x, w in zip(nodes.tolist(), shares, strict=True)]).sum(0)


def make(config: ConfigDict) -> Method:
  """SI-VDNAS with the fields of config.method. Raises UserError on a bad field."""
  if not (config.delta > 0 and config.spread > 0 and config.samples > 0):
    raise UserError(f'config.method.delta={config.delta}, spread={config.spread} and samples={config.samples} must be '
                    'above 0')
  if config.sparsity < 0:
    raise UserError(f'config.method.sparsity={config.sparsity} must not be below 0')

  def init(key, space):
    return {'params': {name: {'mean': 1e-3 * initial.normal(jax.random.fold_in(key, i), cell.shape),
                              'log_delta': jnp.full(cell.shape, jnp.log(config.delta)),
                              'log_spread': jnp.full(cell.shape, jnp.log(config.spread))}
                       for i, (name, cell) in enumerate(space.cells.items())}, 'fixed': {}}

  def drawn(phi, key):
    """{cell: (alpha, log delta)}, [samples, edges, ops] each."""
    found = {}
    for i, (name, own) in enumerate(phi['params'].items()):
      rate_key, noise_key = jax.random.split(jax.random.fold_in(key, i))
      shape = config.samples, *own['mean'].shape
      log_delta = own['log_delta'][None] + jnp.exp(own['log_spread'])[None] * initial.normal(rate_key, shape)
      log_delta = jnp.clip(log_delta, -WIDEST, WIDEST)
      noise = jnp.exp(0.5 * log_delta) * initial.normal(noise_key, shape)
      found[name] = own['mean'][None] * (1 + noise), log_delta
    return found

  def sample(phi, key, clock):
    del clock
    both = drawn(phi, key)
    rate = jnp.concatenate([log_delta.ravel() for _, log_delta in both.values()]).mean()
    return {name: jax.nn.softmax(alpha) for name, (alpha, _) in both.items()}, {'log_delta': rate}

  def penalty(phi, weights, clock):
    del weights, clock
    return config.sparsity * sum(expected_kl(own['log_delta'], jnp.exp(own['log_spread'])).sum()
                                 for own in phi['params'].values())

  def probs(phi, clock=END):
    del clock
    return {name: jax.nn.softmax(own['mean']) for name, own in phi['params'].items()}

  def logs(phi, clock=END):
    del clock
    return {name: log_softmax(own['mean']) for name, own in phi['params'].items()}

  return Method(init, sample, probs, updates.bilevel(), penalty=penalty, samples=config.samples, logs=logs,
                logits=lambda phi: {name: own['mean'] for name, own in phi['params'].items()})
