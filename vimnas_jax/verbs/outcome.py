"""What a search found: how decided it is, its pictures, its result, and what to tell the user."""

import jax
import numpy as np

from vimnas_jax import draw, files, spaces, tabular
from vimnas_jax.errors import UserError
from vimnas_jax.networks import cost
from vimnas_jax.runs import budget, checkpoint, metrics, signals, steps
from vimnas_jax.verbs import constraints, finalists, pages, standing

DIGITS = 15  # of probabilities: what several searches agree on is read off them


class Unchanged:
  """For how many steps the architecture has been the same, in whatever order its edges stand, across a resume."""

  def __init__(self, rows, space):
    self._edges, self._since, text = None, 0, None
    for row in rows:
      if row['genotype'] != text:
        text = row['genotype']
        self.since(row['step'], space.read(text))

  def since(self, step, genotype) -> int:
    """Steps since `genotype` became what it is at `step`."""
    if genotype.unordered != self._edges:
      self._edges, self._since = genotype.unordered, step
    return step - self._since


def ties(space, scores, genotype) -> list[str]:
  """Where nothing but the order of edges, or of operations, chose: ['normal: node 3', …].

  `genotype` is what the space reads off `scores`, {cell: [edges, ops]}; of a searched graph nothing is said.
  """
  if space.topology:
    return []
  earlier, later = {}, {}
  for name, cell in space.cells.items():  # equal scores have one rank; the last of them is put first in turn
    rank = np.unique(np.asarray(scores[name], float), return_inverse=True)[1].reshape(cell.shape)
    place = np.arange(rank.size).reshape(rank.shape)
    earlier[name], later[name] = (2 * rank.size * rank + way * place for way in (-1, 1))
  least = min(rows.min() for rows in (*earlier.values(), *later.values()))
  one, other = (space.genotype({name: rows - least for name, rows in each.items()}) for each in (earlier, later))
  if one.unordered != genotype.unordered:  # it reads more than which of two scores is higher
    return []
  targets = {name: sorted({target for op, source, target in set(other.cells[name]) - set(one.cells[name])})
             for name in space.cells}
  return [f'{name}: node {target}' for name, own in targets.items() for target in own]


def one_hotness(probs, space) -> float:
  """Mean over all edges (blocks, where the graph is searched beside) of the largest probability: 1 when all decided."""
  return round(float(np.mean(np.concatenate([np.max(probs[name], 1) for name in space.cells]))), 5)


def entropy(probs, space) -> float:
  """Mean entropy of an edge's operations, in nats: 0 when every edge has decided."""
  rows = [-(p * np.log(np.maximum(p, 1e-30))).sum(1) for p in (probs[name].astype(np.float64) for name in space.cells)]
  return round(float(np.mean(np.concatenate(rows))), 5)


def dead_edges(dead) -> dict:
  """{cell: bool [edges]} as {cell: [edge, ...]}."""
  return {name: [int(e) for e in np.flatnonzero(d)] for name, d in dead.items()}


def dead_warnings(dead, space, step, pretraining):
  """One (key, line) for every edge, and every phi, that `dead` {cell: [edge, ...]} names at `step`.

  A whole cell that is dead while `pretraining` says nothing of its edges: none has been trained.
  """
  for name, edges in dead.items():
    whole = len(edges) == len(space.cells[name].edges)
    for e in () if whole and pretraining else edges:
      row = space.cells[name].label(e) if space.cells[name].rows else f'edge {space.cells[name].label(e)}'
      yield (name, e), (f'warning: {row} of cell {name!r} is dead at step {step}: phi gives all its operations the '
                        'same value, so its choice is a tie')
    if whole:
      yield (name, 'all'), (f'warning: phi of cell {name!r} is dead at step {step}: it is constant and its gradient '
                            'vanishes; its architecture is no choice. Try another config.seed or a lower config.phi.lr')


def write(folder, run, now, pace, command, console=None, stop=None) -> dict | None:
  """Writes genotype.json, the pictures, report.html and result.json of the final state `now`; returns the result.

  Where config.finalists asks for it some architectures are trained before, and None is returned if a signal ended that,
  all saved.

  `run` has the parts of the search: space, method, config, plan, phases, phase(step), per_epoch, limit, constraint,
  size, image_shape, class_names, damaged, environment, together, start(); for finalists loaded, train, valid and mesh
  too.
  `pace` is what its steps took, a loop.Pace, or None.
  `console`, a metrics.Console, and `stop`, an entered signals.Stop, are for finalists alone.
  """
  space, method, config, final_state = run.space, run.method, run.config, now
  ended = int(now.step) < run.plan.steps  # by the clock, or by the method itself
  if method.early and ended:
    now = method.early(now)
  clock = run.plan.clock(int(now.step))
  probs = exact(*jax.device_get((method.probs(now.phi, clock), method.logs and method.logs(now.phi, clock))))
  scores = _scores(run, now, probs)
  genotype, limits, final, ranked = space.genotype(scores), None, None, not (method.derive or method.drawn)
  tied, read_off = ties(space, scores, genotype), space.write(genotype)
  ranking = jax.device_get(method.odds(now.phi, clock)) if method.odds else scores
  if run.constraint:
    own = genotype
    if method.drawn:
      draws = _Draws(run)
      genotype = signals.interruptible(lambda: run.constraint.drawn(draws, own))
    again = genotype is not own
    probs = draws.probs if again else probs
    genotype, limits = run.constraint.chosen(ranking, genotype, probs, ranked)
    limits['drawn_again'] = again
  pace = finalists.pace(folder, pace, config)
  if config.finalists:
    keeps = run.constraint and run.constraint.keeps
    network, size = spaces.get(config.space.name), {**run.size, 'imagenet': config.space.imagenet}  # that is trained
    final = finalists.chosen(run, finalists.leading(space, ranking, genotype, config.finalists, keeps), folder,
                             lambda one: rated(network, one, config, run.image_shape[:2], size), console, stop)
    if final is None:
      return None
    genotype = final[0]
    if run.constraint and final[1]['chosen'] > 1:
      genotype, limits = run.constraint.chosen(ranking, genotype, probs)
  files.write(folder / 'genotype.json', genotype.to_json() + '\n')
  rows = metrics.read(folder / 'metrics.jsonl')
  arch = metrics.read(folder / 'arch.jsonl')
  for name in space.cells:
    draw.cell(genotype, name, space, folder / f'cell_{"normal" if name == "cell" else name}.png')
  if arch:
    at = [row['step'] for row in arch]
    trace = {name: np.array([row['probs'][name] for row in arch], float) for name in arch[0]['probs']}
    draw.weights(at, trace, space, folder / 'weights.png')
    read = [spaces.Genotype(space.name, space.read(row['genotype']).cells) for row in arch]
    draw.film(at, trace, read, np.array([row['one_hot'] for row in arch], float), space, folder / 'film.gif',
              f'{pages.name_of(config.method.name)} searches {pages.name_of(space.name)} on '
              f'{pages.name_of(config.data.name)}')
  if method.features:
    draw.feature_maps(jax.device_get(method.features(run.start().phi)), jax.device_get(method.features(now.phi)),
                      space, folder / 'phi.png')
  result = {
      'command': command, 'space': space.name, 'method': config.method.name, 'data': config.data.name,
      'classes': list(run.class_names), 'image_shape': list(run.image_shape),
      'seed': config.seed, 'steps': int(now.step), 'planned_steps': run.plan.steps,
      'pretrain_steps': run.plan.pretrain_steps, 'steps_per_epoch': run.per_epoch,
      'epochs': config.epochs, 'genotype': space.write(genotype), 'one_hot': one_hotness(probs, space),
      'entropy': entropy(probs, space), 'unchanged_steps': arch[-1]['unchanged'] if arch else 0,
      'dead': dead_edges(jax.device_get(steps.dead_rows(method, now.phi))),
      'probs': {name: np.round(p.astype(float), DIGITS).tolist() for name, p in probs.items()},
      **rated(space, genotype, config, run.image_shape[:2], run.size),
      'last_loss': float(np.mean([row['loss'] for row in rows[-10:]])) if rows else None,
      'seconds_per_step': pace and round(pace.seconds, 4),
      'seconds_estimated': pace and round(estimated(rows, int(now.step), pace.seconds), 1),
      'bytes_per_step': pace and pace.bytes,
      'state_sha256': checkpoint.digest(final_state),
  }
  if run.together > 1:
    result['together'] = run.together  # seeds in one program: seconds_per_step is this one's share
  if tied and space.write(genotype) == read_off:
    result['ties'] = tied
  if method.stopped and bool(method.stopped(now.phi)):
    result['stopped'] = int(now.step)  # by the method itself, after that step
  if now is not final_state or (method.early and not ended):
    result['taken'] = 'the best of the searches that were finished'
  if method.drawn:
    result['drawn'] = True
  if ended and (moved := _moved(run, int(now.step))) is not True:
    result['phi_moved'] = moved
  if method.derive:
    result['derived'] = True  # found by trying architectures: the probabilities have not decided
  if space.topology:
    result['graph_margins'] = {name: round(margin, 5) for name, margin in space.topology.margins(probs).items()}
  if config.supernet_images:
    weights = standing.mixed(run, now, probs)
    result['supernet'] = standing.accuracies(run, now.theta, weights, genotype, config.supernet_images)
  if run.damaged:
    result['damaged_images'] = run.damaged.names  # with those that were met just now
  if limits:
    result['limit'] = limits
  if final:
    result['finalists'] = final[1]
  if run.limit:
    result['budget'] = run.limit.facts()
  result |= run.environment
  pages.search(folder, result, space)
  files.write_json(folder / 'result.json', result)
  return result


def rated(space, genotype, config, image_size: tuple[int, int], size) -> dict:
  """Size and multiply-adds of a genotype's network, and what the benchmarks that config.oracle names say of it.

  Where a benchmark trained a network of its own for every architecture it is that; elsewhere the network of `size`,
  cost.count's arguments, on images of `image_size`, (height, width).
  """
  elsewhere = tabular.network(space)
  whole = elsewhere.cost(genotype) if elsewhere else cost.count(space, genotype, image_size=image_size, **size)
  found = {'params': whole.params, 'madds': whole.madds}
  for benchmark in tabular.of(space, config.oracle):
    found |= benchmark.answer(config.oracle, genotype, config.data.name)
  return found


def estimated(rows, steps: int, median: float) -> float:
  """Seconds that `steps` steps took without compiling, by the lines of metrics.jsonl, each of the mean step since the
  one before; what no line is of counts at the `median` step.
  """
  ends = [row['step'] for row in rows]
  spans = [end - start for start, end in zip([0, *ends], ends)]
  return sum(row['seconds'] * span for row, span in zip(rows, spans)) + median * (steps - sum(spans))


def _moved(run, steps: int) -> bool | str:
  """Whether phi has moved within the first `steps` steps; 'before', where it has in a supernet that has since grown."""
  depth = run.phase(steps - 1).depth if steps else 0
  starts = (0, *(phase.end for phase in run.phases))
  moved = {phase.depth for phase, start in zip(run.phases, starts) if phase.own and start < steps}
  return depth in moved or ('before' if moved else False)


def exact(probs, logs):
  """`probs` {cell: [edges, ops]} in float64, by their logarithms where `logs` has these.

  In float32 probabilities above 0.99999997 are all 1: which inputs a node keeps, the edges with the most probable
  operations, would hang on their order.
  """
  return {name: np.exp(np.asarray(logs[name], np.float64)) if logs and name in logs else rows
          for name, rows in probs.items()}


class _Draws:
  """`draws(i)`: the architecture number `i`, from 1, that a method draws in place of its own; `probs` of the last."""

  def __init__(self, run):
    key, method = jax.random.key(run.config.seed), run.method
    self._space, self.probs = run.space, None

    @jax.jit
    def drawn(i):
      phi = method.init(jax.random.fold_in(key, i), run.space)
      return (method.scores or method.probs)(phi), method.probs(phi)

    self._drawn = drawn

  def __call__(self, i):
    scores, self.probs = jax.device_get(self._drawn(i))
    return self._space.genotype(scores)


def _scores(run, now, probs):
  """What the architecture of the final state `now` is read off: the method's scores, its own derivation, or `probs`."""
  if run.method.derive:
    rate = (standing.Rater(run, now.theta) if run.method.asks == 'supernet' else
            tabular.rater(run.space, run.config.oracle, run.config.data.name))
    rate = constraints.Limited(rate, run.constraint) if run.constraint else rate
    key = jax.random.fold_in(jax.random.key(run.config.seed), 0)
    return signals.interruptible(lambda: jax.device_get(run.method.derive(rate, now.phi, key)))  # it may take minutes
  scores = run.method.scores
  return jax.device_get(scores(now.phi, run.plan.clock(int(now.step)))) if scores else probs


def summary(result, folder, space) -> list[str]:
  """What a user wants to know at the end of a search of `space`, in plain lines.

  Raises UserError where `result` was damaged on disk.
  """
  try:
    lines = _lines(result, space)
  except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
    raise UserError(f'{files.printable(folder)}/result.json is damaged ({type(e).__name__}: {str(e)[:80]}): remove it, '
                    'and the same command writes it again') from None
  return [*lines, f'everything is in {files.printable(folder)}: report.html, result.json, genotype.json and the '
          'pictures']


def _lines(result, space):
  elsewhere = tabular.network(space)
  where = f'in {elsewhere.name}' if elsewhere else 'at the search width and depth'
  chooser = 'block' if space.topology else 'edge'
  lines = [f'architecture   {result["genotype"]}',
           f'one-hotness    {result["one_hot"]:.4f} (1 = every {chooser} has decided), ' +
           ('the architecture comes of trials at the end, not of these' if result.get('derived') else
            'the architecture was drawn, not decided by these' if result.get('drawn') else
            f'of {result["taken"]}' if result.get('taken') else
            f'unchanged for the last {result["unchanged_steps"]} steps')]
  if space.topology:
    lines.insert(1, 'cell           ' + spaces.oneshot.describe(space.read(result['genotype'])))
    lines.append('graph          by how much probability the weakest input kept leads the strongest left out: ' +
                 ', '.join(f'{name} {margin:.2g}' for name, margin in result['graph_margins'].items()))
  if tied := result.get('ties'):
    lines.append('ties           scores are equal, and the order of edges and operations chose, in ' +
                 ', '.join(tied[:4]) + (f' and {len(tied) - 4} more' if len(tied) > 4 else ''))
  lines += [f'network        {result["params"]:,} parameters, {result["madds"] / 1e6:.2f} M multiply-adds {where}']
  if 'limit' in result:
    lines += constraints.lines(result['limit'])
  if 'finalists' in result:
    lines += finalists.lines(result['finalists'])
  lines += budget.line(result)
  if result['steps'] < result.get('planned_steps', 0) and result.get('budget', {}).get('ended_after_step') is None:
    lines.append(f'length         {result["steps"]} of {result["planned_steps"]} steps: the method was at its end')
  if result['seconds_per_step']:
    lines.append(f'speed          {result["seconds_per_step"]:.3f} s a step (median)' + (
        f', {result["bytes_per_step"] / 2 ** 20:,.0f} MiB' if result.get('bytes_per_step') else ''))
  if 'supernet' in result:
    row = result['supernet']
    lines.append(f'supernet       {row["mixed"]:.2f} % of {row["images"]:,} validation images with all it has' + (
        f', {row["derived"]:.2f} % with the architecture alone' if 'derived' in row else ''))
  for benchmark in tabular.BENCHMARKS:
    lines += benchmark.lines(result)
  first = result.get('finalists', {}).get('chosen', 1) == 1
  if dead := {name: edges for name, edges in result['dead'].items() if edges}:
    named = ', '.join(f'{space.cells[name].label(e)} of {name!r}' for name, edges in dead.items() for e in edges)
    lines.append(f'dead edges     {named}: phi gives all their operations the same value' +
                 ('; the first of them was taken' if first else ''))
  return lines
