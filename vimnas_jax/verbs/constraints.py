"""Limits of what a search may find, config.limit: a penalty while it searches, and an exact choice at its end.

They hold for one network: the one that config.then=retrain trains, else the one at the width and depth of the search;
config.limit.cells and channels name another. Images are those of the search.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.methods import Batch, Clock, Method, Problem, resources
from vimnas_jax.networks import cost
from vimnas_jax.runs.state import SearchState
from vimnas_jax.spaces import Genotype, Space, within
from vimnas_jax.verbs import latencies

LATENCIES = latencies.FILE  # in the run folder: what its limit of latency was computed from
MOST_PROBABLE, FEWEST = 'the most probable', 'the fewest edges changed, to what costs least,'
DRAWS = 100_000  # random architectures of which one is to keep the limits
_WORDS = {'params': ('parameters', 1, ',.0f'), 'madds': ('multiply-adds', 1e6, ',.2f'),
          'latency_ms': ('latency', 1, '.3f')}
_UNITS = {'params': '', 'madds': ' M', 'latency_ms': ' ms'}


class Constraint:
  """The limits of one search.

  Attributes:
    resources: a resources.Resource for each.
    table: the latencies they were computed from, or None.
  """

  def __init__(self, config, space: Space, loaded, say, run=None):
    """`run` is the latency.json of the run folder, or None. Raises UserError where no architecture keeps the limits,
    and for spaces whose graph is searched.
    """
    asked = _asked(config)
    if space.topology:
      raise UserError(f'config.limit.{next(iter(asked))}: what an architecture of space {space.name!r} costs hangs on '
                      'its graph, which is searched too: set it to 0, or choose another config.space.name')
    if config.limit.latency_ms and jax.process_count() > 1:
      raise UserError(f'config.limit.latency_ms={config.limit.latency_ms:g} is for one process, here are '
                      f'{jax.process_count()}, whose measurements differ: set it to 0, or start one')
    self.space, self._weight = space, config.limit.weight
    self.size = {'cells': config.limit.cells, 'channels': config.limit.channels, 'num_classes': loaded.num_classes,
                 'imagenet': config.limit.imagenet}
    self.image_shape, self.table = loaded.image_shape, None
    self._timed = self.size | {'dtype': config.dtype}
    shares = cost.shares(space, **self.size, image_size=loaded.image_shape[:2], in_channels=loaded.image_shape[-1])
    self.resources = []
    for name, limit in asked.items():
      if name == 'latency_ms':
        self.table = latencies.Table(say, run)
        fixed, rows = latencies.rows(self.table, space, shares, self._timed, self.image_shape)
        self.table.save()
      else:
        fixed = getattr(shares.fixed, name)
        rows = {cell: np.array([[getattr(op, name) for op in edge] for edge in edges])
                for cell, edges in shares.rows.items()}
      self.resources.append(resources.Resource(name, limit, fixed, rows))
    self._check()

  def _check(self):
    for each in self.resources:
      most = max(float(rows.max()) for rows in each.rows.values()) or 1.0
      cheapest = within.best(self.space, {name: np.exp(-rows / most) for name, rows in each.rows.items()},
                             *self._sums([each._replace(limit=np.inf)]))
      assert cheapest is not None  # there is no limit
      if self._costs(cheapest, each) > each.limit:
        least = _said(each.name, self._costs(cheapest, each))
        raise UserError(f'config.limit.{each.name}={each.limit:g}: no network of space {self.space.name!r} with '
                        f'{self._network()} keeps it, the smallest has {least}: raise it, or make the network smaller')
    if self._best({name: np.ones(cell.shape) for name, cell in self.space.cells.items()}) is None:
      raise UserError(f'config.limit: no network of space {self.space.name!r} with {self._network()} keeps all limits '
                      'at once: raise one of them')

  def save(self, folder):
    """Keeps the latencies in the run folder, so that the run goes on with the same."""
    if self.table:
      self.table.save(folder / LATENCIES)

  def _network(self):
    return f'cells={self.size["cells"]}, channels={self.size["channels"]}'

  def _best(self, scores):
    return within.best(self.space, scores, *self._sums(self.resources))

  def _sums(self, limited):
    rows = {name: np.stack([each.rows[name] for each in limited], -1) for name in self.space.cells}
    return rows, [each.limit - each.fixed for each in limited]

  def _costs(self, genotype, each) -> float:
    return each.fixed + latencies.of_genotype(self.space, genotype, each.rows)

  def keeps(self, genotype: Genotype) -> bool:
    """Whether the network of an architecture keeps all limits."""
    return all(self._costs(genotype, each) <= each.limit * (1 + 1e-9) for each in self.resources)  # of sums of floats

  def applied(self, method: Method) -> tuple[Method, str]:
    """The method with the penalty, and a line where that moves nothing, else ''."""
    if not self._weight:
      return method, ''
    if not _moves(method, self.space):
      return method, ('note: config.limit: no gradient moves the probabilities of this method, so that it searches '
                      'without the limit; the architecture is chosen within it at the end')
    return resources.limited(method, self.space, self.resources, self._weight), ''

  def drawn(self, draw, genotype: Genotype) -> Genotype:
    """`genotype`, or where that exceeds a limit the first of `draw(1)`, `draw(2)`, … that keeps all; `genotype` if none
    of DRAWS does.
    """
    others = (draw(i) for i in range(1, DRAWS + 1))
    return genotype if self.keeps(genotype) else next(filter(self.keeps, others), genotype)

  def chosen(self, scores, genotype: Genotype, probs, ranked: bool = True) -> tuple[Genotype, dict]:
    """The most probable architecture within the limits, and what result.json holds of it as 'limit'.

    Args:
      scores: {cell: [edges, ops]}, by whose products architectures are ranked.
      genotype: the space's own choice.
      probs: {cell: [edges, ops]}, the noise-free probabilities.
      ranked: whether scores say more than what was chosen: else the fewest edges change, to what costs least.
    """
    kept = self.keeps(genotype)
    found = genotype if kept else self._best(scores)
    fits = found is not None and self.keeps(found)
    taken = found if fits else genotype
    facts = {'network': {name: self.size[name] for name in ('cells', 'channels', 'imagenet')}, 'kept': kept or fits,
             'repaired': None if kept or not fits else {
                 'from': self.space.write(genotype), 'to': self.space.write(taken),
                 'rule': MOST_PROBABLE if ranked else FEWEST}}
    for each in self.resources:
      mean = jax.jit(lambda probs, each=each: resources.expected(self.space, probs, each.fixed, each.rows))(probs)
      whole = each.name != 'latency_ms'
      own = self._costs(taken, each)
      facts[each.name] = {'limit': each.limit, 'expected': round(float(mean), 3),
                          'found': int(own) if whole else round(own, 4)}
      if not whole:
        facts[each.name] |= {'measured': latencies.measured(self.space, taken, self._timed, self.image_shape),
                             'device': self.table.device}
    return taken, facts


class Limited:
  """A `methods.types.Rate`, of which only what keeps the limits of a search is asked."""

  def __init__(self, rate, constraint: Constraint):
    self._rate, self.unlimited, self._constraint = rate, rate, constraint

  def keeps(self, weights) -> bool:
    """Whether the architecture that `weights` {cell: [edges, ops]} stand for keeps all limits."""
    return self._constraint.keeps(self._rate.space.genotype(jax.device_get(weights)))

  def __call__(self, weights, i: int) -> float:
    """Its accuracy in %, or 0."""
    return self._rate(weights, i) if self.keeps(weights) else 0.0

  def __getattr__(self, name):
    return getattr(self._rate, name)


def lines(facts: dict) -> list[str]:
  """What a user is told of the limits at the end of a search."""
  size = facts['network']
  said = [f'limit          {_WORDS[name][0]} {_said(name, facts[name]["found"])} of {_said(name, facts[name]["limit"])}'
          f' (cells={size["cells"]}, channels={size["channels"]})' +
          (f'; measured {facts[name]["measured"]:.3f} ms' if 'measured' in facts[name] else '')
          for name in _WORDS if name in facts]
  if facts.get('drawn_again'):
    said.append('limit          what was drawn at first exceeds it: this is the next one that does not')
  if not facts['kept']:
    said.append('limit          no architecture within it was found: this one exceeds it')
  if facts['repaired']:
    said.append(f'repaired       from {facts["repaired"]["from"]} to {facts["repaired"]["to"]}, '
                f'{facts["repaired"]["rule"]} within the limit')
  return said


def _asked(config) -> dict[str, float]:
  limits = {'params': config.limit.params, 'madds': config.limit.madds, 'latency_ms': config.limit.latency_ms}
  return {name: limit for name, limit in limits.items() if limit}


def _said(name, value) -> str:
  _, scale, form = _WORDS[name]
  return f'{value / scale:{form}}{_UNITS[name]}'


def _hangs(method: Method, space: Space) -> bool:
  """Whether the probabilities of a method have a gradient along its parameters: learned relevances have none.

  What cannot be told of a method of one's own is taken to be so.
  """
  @jax.jit
  def gradients(key):
    phi, clock = method.init(key, space), Clock(0, 1)

    def of(params):
      found = method.probs({**phi, 'params': params}, clock)
      return sum((row * jax.random.normal(key, row.shape)).sum() for row in found.values())  # any direction

    return jax.grad(of)(phi['params'])

  try:
    return any(np.any(np.asarray(each)) for seed in range(3) for each in jax.tree.leaves(
        gradients(jax.random.key(seed))))
  except Exception:  # whatever the file of a method of one's own does
    return True


def _moves(method: Method, space: Space) -> bool:
  """Whether a penalty on the probabilities moves a method."""
  return _asks(method, space) and _hangs(method, space)


def _asks(method: Method, space: Space) -> bool:
  """Whether a method has parameters, and its step asks for the penalty.

  The step is traced with a loss that needs no supernet. What cannot be told of a method of one's own is taken to be so.
  """
  asked = []

  def penalty(phi, weights, clock):
    del weights, clock
    asked.append(bool(jax.tree.leaves(phi['params'])))
    return jnp.zeros(())

  def loss(theta, *args):
    del args
    return theta['w'].sum(), jnp.zeros(())

  def step(key):
    tx, theta, phi = optax.sgd(0.1), {'w': jnp.zeros(1)}, method.init(key, space)
    state = SearchState(jnp.zeros((), jnp.int32), theta, phi, tx.init(theta), tx.init(phi['params']),
                        jax.random.key_data(key))
    state = state.replace(phi=method.carry(state)) if method.carry else state
    batch = Batch(jnp.zeros((method.samples, 4, 4, 3)), jnp.zeros(method.samples, jnp.int32), key)
    problem = Problem(space, loss, tx, tx, tx, 1, loss, lambda key: theta, lambda *args, **kwargs: tx)
    watched = method._replace(penalty=penalty)
    return watched.step.update(watched, problem, state, {'train': batch, 'valid': batch}, Clock(0, 1))[1]

  try:
    jax.eval_shape(step, jax.random.key(0))
  except Exception:  # whatever the file of a method of one's own does
    return True
  return any(asked)


def of(config, space: Space, loaded, say, run=None) -> Constraint | None:
  """The constraint that the resolved `config` asks for, None if it sets no limit; `run` as for `Constraint`."""
  if not _asked(config):
    return None
  if config.limit.imagenet:
    space = spaces.get(config.space.name)
  return Constraint(config, space, loaded, say, run)
