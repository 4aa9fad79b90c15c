"""VIM-NAS: Wang et al., Learning Latent Architectural Distribution in Differentiable NAS via Variational Information
Maximization, ICCV 2021.

Given fixed noise eps, weights theta and a small convolutional network phi (Algorithm 1 of the paper):
  1. draw xi ~ N(0, 1) of the shape of the architecture, edges x ops;
  2. A = phi(eps) + xi: one sample of the architecture distribution N(phi(eps), 1), all edges at once;
  3. the supernet mixes the operations of every edge by softmax(A);
  4. theta descends the loss of the batch;
  5. phi descends the same loss;
  6. after one epoch the architecture is read off softmax(phi(eps)).

phi is ConvReLUBN(3, 14, 3)-ConvReLUBN(14, 1, 3) (section 3.3), over maps whose sides are edges and ops. Variants of
sections 3.5 and 4.6: `small` (one module), `large` (five), `point` (no xi), `dropout` (a second network for sigma,
A = mu + sigma xi, with the sparsity term of variational dropout, Molchanov et al., ICML 2017). `table`, which is not
the paper's, has plain logits in phi's place, all else alike: what a search with it finds is not due to the network.

Left open by the paper and decided here: one network and one eps per cell type; convolutions pad by one, have no bias
and PyTorch's default initialisation; BatchNorm takes the statistics of the one map it sees, so that derivation and
training see the same phi; widths of `small` and `large`; sigma = softplus of the second network's output; the
sparsity term is weighted as in an evidence lower bound, once per data set, hence 1 / 25,000 per image.

Beyond the paper's text, as defaults (docs/recipe.md says why; `:strict` undoes them): eight samples of xi a step, no
ReLU before the last BatchNorm, a centred phi, the mean of several networks, a bound for every edge's row, phi(eps) held
still for the last fifth, scaled up towards the end and further there, nodes with as many inputs as an architecture
keeps (inputs.py), three epochs of theta alone; and, switched off, BatchNorm over one sample at a time.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vimnas_jax.errors import UserError
from vimnas_jax.methods import updates
from vimnas_jax.methods.alpha import log_softmax
from vimnas_jax.methods.types import END, Method
from vimnas_jax.networks import initial
from vimnas_jax.networks.ops import normalise

WIDTHS = {'base': (3, 14, 1), 'small': (3, 1), 'large': (3, 14, 14, 14, 14, 1)}
Layer = dict[str, jax.Array]  # kernel, scale and bias of a module

FIELDS = {
    'variant': 'base',  # 'base', 'small', 'large', 'point', 'dropout' or 'table'
    'samples': 8,  # draws of xi per step, each serving an equal group of the batch
    'separate': False,  # whether every group goes through the supernet by itself: BatchNorm sees one architecture
    'eps_scale': 1.0,  # standard deviation of eps
    'last': 'linear',  # activation before the last BatchNorm: 'relu', the paper's, or 'linear'
    'gamma': 1.0,  # initial scale of the last BatchNorm: the standard deviation of phi(eps) at the start
    'centred': True,  # what phi(eps) was at the start is taken from it, so that all starts from equal probabilities
    'networks': 32,  # phi(eps) is the mean of so many networks of the same form, each with its own eps and start
    'apart': 0.0,  # how far, 0 to 1, every network at first serves a group of the batch of its own
    'together': 1.0,  # part of the search after which, in a straight line, all serve the whole batch as their mean
    'bound': 1.5,  # the length that an edge's row of phi(eps), less its mean, stays below before it is scaled up: an
    #               edge that runs ahead stays open until the others have turned; 0: none
    'sharpen': 8.0,  # by how much phi(eps) has been scaled up at the end, from 1 at `sharpen_from`, by equal factors
    'sharpen_from': 0.6,  # part of the search
    'sharpen_last': 2.0,  # by how much beyond that, likewise by equal factors, from 0.8 of the search to its end. Where
    #                       phi stands still there (phi.until), this decides further what is decided, and nothing else
    'node_inputs': 'kept',  # 'kept': nodes are mixed with as many inputs as an architecture keeps of them, for which
    #                         they compete (methods/inputs.py says how, and where); 'all': with all, each by itself
    'bilevel': False,  # True: phi descends the loss of a batch of the validation half
    'sparsity': 4e-5,  # weight of the sparsity term of 'dropout'
}
# Chosen in docs/recipe.md, for two epochs of 390 steps; momentum as for theta, no decay.
OPTIMIZER = {'optimizer': 'sgd', 'lr': 0.01, 'lr_end': 0.1, 'steps': 780, 'fall': 0.1, 'until': 0.8, 'momentum': 0.9,
             'weight_decay': 0.0}
LAST = 0.8  # phi.until, of which a method does not know
PRETRAIN = 3.0
PASSES = 1
# The form above from scratch, at a rate at which phi has decided before theta is old, from when on it stands still: S1
# to S3 (section 26), and faster the DARTS space and ImageNet (section 27).
EARLY = {'phi.lr': 6.4, 'phi.fall': 0.5, 'phi.until': 0.4, 'method.sharpen_from': 0.1, 'pretrain.epochs': 0.0}
FASTER = {'phi.lr': 25.6, 'phi.fall': 0.5, 'phi.until': 0.2, 'method.sharpen_from': 0.05, 'pretrain.epochs': 0.0}
# Nearer to the text: one network, which begins anywhere, at one rate, from scratch, all inputs mixed. Studies whose
# runs are under results/ take it: slow, then firm, the DARTS space ends in skip connections and pools
# (docs/recipe.md, section 11), and so do S1 to S3 where theta is older (sections 23 and 24).
SINGLE = {'method.centred': False, 'method.networks': 1, 'method.bound': 0.0, 'method.sharpen': 1.0,
          'method.sharpen_last': 1.0, 'method.node_inputs': 'all', 'phi.lr': 0.1, 'phi.fall': 0.0, 'phi.until': 1.0,
          'pretrain.epochs': 0.0}
# What the paper's text has where the defaults above go beyond it: momentum SGD, phi's rate (its section 4.6); the
# momentum of 0.9 and no decay are by analogy with theta.
STRICT = {'method.samples': 1, 'method.last': 'relu', 'method.gamma': 1.0, 'method.centred': False,
          'method.separate': False, 'method.bound': 0.0, 'method.sharpen': 1.0, 'method.sharpen_from': 0.6,
          'method.sharpen_last': 1.0, 'method.networks': 1, 'method.node_inputs': 'all', 'phi.optimizer': 'sgd',
          'phi.lr': 0.025, 'phi.lr_end': 0.025, 'phi.steps': 0, 'phi.schedule': 'linear', 'phi.fall': 0.0,
          'phi.until': 1.0, 'phi.momentum': 0.9, 'phi.weight_decay': 0.0, 'pretrain.epochs': 0.0}
# Its section 4.1 trains theta as its DARTS search does on every space, NAS-Bench-201 included.
STRICT_THETA = {'theta.weight_decay': 3e-4, 'theta.nesterov': False}
# With STRICT, the settings and lengths of the paper's searches.
PUBLISHED = {
    'darts': {'epochs': 1.0, 'batch_size': 64},
    'nb201': {'epochs': 1.0, 'batch_size': 64, 'theta.weight_decay': 3e-4, 'theta.nesterov': False},
    'oneshot': {'epochs': 50.0, 'batch_size': 96},
}


def make(config: ConfigDict) -> Method:
  """VIM-NAS with the variant and fields of config.method. Raises UserError on a bad field."""
  variants = (*WIDTHS, 'point', 'dropout', 'table')
  if config.variant not in variants:
    raise UserError(f'config.method.variant={config.variant!r}: choose one of {", ".join(variants)}')
  if config.samples < 1:
    raise UserError(f'config.method.samples={config.samples} must be at least 1')
  if config.last not in ('relu', 'linear'):
    raise UserError(f'config.method.last={config.last!r}: choose one of relu, linear')
  if not config.gamma > 0:
    raise UserError(f'config.method.gamma={config.gamma} must be above 0')
  if config.networks < 1 or (config.apart and config.samples % config.networks):
    raise UserError(f'config.method.networks={config.networks} must be at least 1, and divide config.method.samples='
                    f'{config.samples} if they are apart')
  if not config.sharpen > 0 or not config.sharpen_last > 0 or not 0 <= config.sharpen_from < 1:
    raise UserError(f'config.method.sharpen={config.sharpen} and config.method.sharpen_last={config.sharpen_last} must '
                    f'be above 0, config.method.sharpen_from={config.sharpen_from} from 0 and below 1')
  if config.node_inputs not in ('kept', 'all'):
    raise UserError(f'config.method.node_inputs={config.node_inputs!r}: choose one of kept, all')
  if config.bound < 0:
    raise UserError(f'config.method.bound={config.bound} must be above 0, or 0 for none')
  if not 0 <= config.apart <= 1 or not 0 < config.together <= 1:
    raise UserError(f'config.method.apart={config.apart} must be from 0 to 1, config.method.together='
                    f'{config.together} above 0 and up to 1')
  if config.apart and config.variant == 'table':
    raise UserError(f'config.method.apart={config.apart} is for networks, and a table has none: set it to 0')
  widths, linear = WIDTHS.get(config.variant, WIDTHS['base']), config.last == 'linear'
  dropout, table = config.variant == 'dropout', config.variant == 'table'

  def init(key, space):
    params: dict[str, dict[str, Any]] = {}
    fixed: dict[str, dict[str, jax.Array]] = {'eps': {}, 'start': {}}
    for i, (name, cell) in enumerate(space.cells.items()):
      if table:
        params[name] = {'mu': jnp.zeros((1, *cell.shape))}
        continue
      eps_key, mu_key, sigma_key = jax.random.split(jax.random.fold_in(key, i), 3)
      eps = jax.vmap(lambda k, cell=cell: initial.normal(k, (*cell.shape, widths[0])))(each(eps_key))
      fixed['eps'][name] = config.eps_scale * eps
      params[name] = {'mu': jax.vmap(lambda k: init_network(k, widths, config.gamma))(each(mu_key))}
      if config.centred:
        fixed['start'][name] = network(params[name]['mu'], fixed['eps'][name], linear)[0]
      if dropout:
        params[name]['sigma'] = jax.vmap(lambda k: init_network(k, widths))(each(sigma_key))
    return {'params': params, 'fixed': fixed}

  def each(key):
    others = jax.vmap(lambda k: jax.random.fold_in(key, k))(jnp.arange(1, config.networks))
    return jnp.concatenate([key[None], others])

  def outputs(phi):
    if table:
      return {name: p['mu'] for name, p in phi['params'].items()}
    return {name: network(p['mu'], phi['fixed']['eps'][name], linear)[0] for name, p in phi['params'].items()}

  def every(phi):
    return {name: maps - phi['fixed']['start'].get(name, 0.0) for name, maps in outputs(phi).items()}

  def bounded(rows):
    if not config.bound:
      return rows
    rows = rows - rows.mean(-1, keepdims=True)
    return rows / jnp.sqrt(1 + jnp.square(rows / config.bound).sum(-1, keepdims=True))

  def logits(phi):
    return {name: bounded(each.mean(0)) for name, each in every(phi).items()}

  def centres(phi, progress):
    found = {}
    for name, each in every(phi).items():
      mean = each.mean(0, keepdims=True)
      apart = config.apart * jnp.maximum(1 - progress / config.together, 0)
      found[name] = bounded(mean if not config.apart else jnp.repeat(
          mean + apart * (each - mean), config.samples // config.networks, 0))
    return found

  def sharper(progress):
    found = 1
    for factor, first in ((config.sharpen, config.sharpen_from), (config.sharpen_last, LAST)):
      if factor != 1:
        found *= factor ** jnp.clip((progress - first) / (1 - first), 0.0, 1.0)
    return found

  def probs(phi, clock=END):
    return {name: jax.nn.softmax(sharper(clock.progress) * m) for name, m in logits(phi).items()}

  def logs(phi, clock=END):
    return {name: log_softmax(sharper(clock.progress) * m) for name, m in logits(phi).items()}

  def sigma(phi):
    return {name: jax.nn.softplus(network(p['sigma'], phi['fixed']['eps'][name])[0].mean(0))
            for name, p in phi['params'].items()}

  def sample(phi, key, clock):
    if config.variant == 'point':
      return {name: rows[None] for name, rows in probs(phi, clock).items()}, {}
    mu = centres(phi, clock.progress)
    scale, info, weights = sigma(phi) if dropout else {}, {}, {}
    for i, (name, m) in enumerate(mu.items()):
      m = sharper(clock.progress) * m
      xi = initial.normal(jax.random.fold_in(key, i), (config.samples, *m.shape[1:]))
      if dropout:
        xi *= scale[name][None]
        info[f'sigma/{name}'] = scale[name].mean()
      weights[name] = jax.nn.softmax(m + xi)
    return weights, info

  def penalty(phi, weights, clock):
    del weights
    mu, s, scale = logits(phi), sigma(phi), sharper(clock.progress)
    return config.sparsity * sum(dropout_kl(scale * mu[name], s[name]).sum() for name in mu)

  def features(phi):
    return {name: jnp.moveaxis(network(p['mu'], phi['fixed']['eps'][name])[1][0], -1, 0)
            for name, p in phi['params'].items()}

  step = updates.bilevel() if config.bilevel else updates.single_level()
  return Method(init, sample, probs, step, logs=logs, penalty=penalty if dropout else None,
                samples=1 if config.variant == 'point' else config.samples, separate=config.separate,
                features=None if table else features, logits=logits,
                outputs=lambda phi: {} if table else {name: maps.mean(0) for name, maps in outputs(phi).items()})


def init_network(key: jax.Array, widths: tuple[int, ...], gamma: float = 1.0) -> list[Layer]:
  """Parameters of a chain of ConvReLUBN modules with the given channel widths: 534 numbers for (3, 14, 1).

  `gamma` is the scale of the last BatchNorm.
  """
  layers = []
  for i, (c, d) in enumerate(zip(widths, widths[1:])):
    bound = (9 * c) ** -0.5
    layers.append({'kernel': initial.uniform(jax.random.fold_in(key, i), (3, 3, c, d),
                                             minval=-bound, maxval=bound),
                   'scale': (gamma if i == len(widths) - 2 else 1.0) * jnp.ones(d), 'bias': jnp.zeros(d)})
  return layers


def network(layers: list[Layer], eps: jax.Array, linear: bool = False) -> tuple[jax.Array, jax.Array]:
  """Every phi(eps) for eps [networks, edges, ops, 3] and layers stacked over networks.

  Returns the maps [networks, edges, ops] and the outputs of the first modules [networks, edges, ops, width]. `linear`
  leaves out the ReLU of the last module.
  """
  return jax.vmap(lambda layers, eps: _network(layers, eps, linear))(layers, eps)


def _network(layers: list[Layer], eps: jax.Array, linear: bool) -> tuple[jax.Array, jax.Array]:
  x, outputs = eps, []
  for i, layer in enumerate(layers):
    x = _convolved(x, layer['kernel'])
    scale, bias = (layer[name].reshape(1, 1, -1) for name in ('scale', 'bias'))
    x = x if linear and i == len(layers) - 1 else jax.nn.relu(x)
    x = normalise(x, (0, 1)) * scale + bias  # [edges, ops, width]
    outputs.append(x)
  return x[..., 0], outputs[0]


def _convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 3x3 convolution of the map x [edges, ops, c] with a border of zeros, as one product with the kernel [3, 3, c, d].

  XLA's own convolution, one for each of many networks, takes a hundred times as long on a CPU.
  """
  (rows, columns), padded = x.shape[:2], jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
  around = [padded[i:i + rows, j:j + columns] for i in range(3) for j in range(3)]
  return jnp.concatenate(around, -1) @ kernel.reshape(-1, kernel.shape[-1])


def dropout_kl(mu: jax.Array, sigma: jax.Array) -> jax.Array:
  """KL(N(mu, sigma^2) || log-uniform), elementwise."""
  return log_uniform_kl(2 * (jnp.log(sigma + 1e-8) - jnp.log(jnp.abs(mu) + 1e-8)))


def log_uniform_kl(log_alpha: jax.Array) -> jax.Array:
  """KL(N(mu, alpha mu^2) || log-uniform), elementwise, by the approximation of Molchanov et al. (2017), equation 14."""
  k1, k2, k3 = 0.63576, 1.87320, 1.48695
  return k1 - k1 * jax.nn.sigmoid(k2 + k3 * log_alpha) + 0.5 * jax.nn.softplus(-log_alpha)
