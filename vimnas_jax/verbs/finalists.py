"""Finalists of a search: some of what its distribution holds, trained from scratch for a short time; one is taken.

The first is what the search would give without: the architecture that is read off the probabilities. The others are
the most probable after it, so that edges that are decided stay and those that are not differ. All are trained alike, on
the images that the search trained its weights on, which config.finalist_shrink makes smaller, with the same seed. The
one that is right on most images of the validation half is taken, of equals the first, if it is better than the first by
config.finalist_margin; else the first. Test images are not asked.

A network is that of the search's width and depth: SGD with Nesterov's momentum 0.9 from a rate of 0.05 along a cosine
to 0, weight decay 3e-4, no auxiliary head, no drop path. What all cost, in epochs of such networks, is told.
"""

import dataclasses
import itertools

import jax

from vimnas_jax import config as config_lib
from vimnas_jax import data, files, methods, spaces
from vimnas_jax.errors import Diverged, UserError
from vimnas_jax.runs import checkpoint, loop, metrics
from vimnas_jax.spaces import within
from vimnas_jax.verbs import retrain

FOLDER, _ASKED, _FILE = 'finalists', 'asked.json', 'trained.json'
_PACE = 'pace.json'  # in the run folder, so that it stays where the finalists are moved away
_MOST = 10_000  # among which others than the first are looked for, the most probable
_LIKE_THE_SEARCH = ('seed', 'dtype', 'devices', 'batch_size', 'eval_batch', 'trust', 'train_portion', 'log_steps',
                    'checkpoint_steps', 'checkpoint_minutes', 'checkpoint_keep')


def check(config):
  """Raises UserError where a resolved `config` of a search cannot have finalists, whatever its images."""
  if not config.finalists:
    return
  where, space = f'config.finalists={config.finalists}', spaces.get(config.space.name)
  if config.finalists == 1:
    raise UserError(f'{where}: one has none to be compared with: give 2 or more, or 0 for none')
  if space.topology:
    raise UserError(f'{where}: the networks of space {space.name!r} are those of NAS-Bench-101, trained there: set it '
                    'to 0, and look them up with config.oracle.nasbench101')
  method = methods.get(config.method, space)
  if method.derive or method.scores:
    how = 'trials' if method.derive else 'scores'
    raise UserError(f'{where} are chosen by probabilities, and method {config.method.name!r} finds its architecture by '
                    f'{how} of its own: set it to 0')
  if config.max_hours:
    also = ' and config.train_portion=0.5' if config.train_portion == 1 and config.data.search_parts is None else ''
    raise UserError(f'{where} have no share of config.max_hours={config.max_hours:g}: set config.max_hours=0{also}, or '
                    'config.finalists=0')
  if jax.process_count() > 1:
    raise UserError(f'{where} are trained by one process, here are {jax.process_count()}: set it to 0, or start one')


def check_parts(run):
  """Raises UserError where the images of a search give finalists nothing to learn, or none to choose by."""
  if not run.config.finalists:
    return
  where, epochs = f'config.finalists={run.config.finalists}', run.config.finalist_epochs
  if not len(run.valid):
    raise UserError(f'{where} are chosen by validation images, and config.train_portion={run.config.train_portion:g} '
                    'leaves none: set config.train_portion=0.5')
  if run.config.finalist_shrink > 1:
    _check_shrink(run.config, run.loaded)
  if round(epochs * run.per_epoch) < 1:
    raise UserError(f'{where}: config.finalist_epochs={epochs:g} of {run.per_epoch} steps trains none: raise it')


def _check_shrink(config, loaded):
  (height, width, _), by = loaded.image_shape, config.finalist_shrink
  where = f'config.finalist_shrink={by}'
  if isinstance(loaded.train, data.Streamed) or loaded.side:
    what = 'streamed' if isinstance(loaded.train, data.Streamed) else 'held larger than the network is given them'
    raise UserError(f'{where} averages images that are held in memory as they are trained on, these are {what}: set it '
                    'to 1')
  if height % by or width % by:
    raise UserError(f'{where} does not divide images of {height}x{width}: choose a divisor, or 1')
  try:
    spaces.get(config.space.name).stages(config.space.cells, config.space.channels, imagenet=config.space.imagenet,
                                         side=min(height, width) // by)
  except UserError as e:
    raise UserError(f'{where}, of images of {height}x{width}: {e}') from None


def renew(folder, config, console):
  """Takes result.json away from `folder` where the finalists in it are not those that `config` asks for: it is written
  anew with them, without another search.
  """
  path = folder / 'result.json'
  if not path.exists():
    return
  result = files.read_json(path, 'remove it, and the same command writes it again')
  facts = result.get('finalists')
  had = (facts.get('asked'), facts.get('epochs'), facts.get('shrink', 1), facts.get('margin')) if isinstance(
      facts, dict) else None
  asked = (config.finalists, config.finalist_epochs, config.finalist_shrink,
           config.finalist_margin) if config.finalists else None
  if had == asked:
    return
  how = 'count no more' if not asked else 'are compared anew' if had and had[:3] == asked[:3] else 'are trained now'
  if result.get('steps') and not checkpoint.Checkpoints(folder).steps():
    raise UserError(f'{files.printable(folder)} has its result and no checkpoint of its search, of which '
                    f'config.finalists={config.finalists} would be: set it as it was, or give another --workdir')
  console.say(f'the search is over, and its finalists {how}')
  took = {name: result.get(name) for name in ('seconds_per_step', 'bytes_per_step')}
  files.write_json(folder / _PACE, took)
  path.unlink(missing_ok=True)


def pace(folder, now, config) -> loop.Pace | None:
  """What the steps of the search took: `now`, which is kept where there are finalists, or where that is None, as of a
  search that was over before, what was kept.
  """
  path = folder / _PACE
  if now is not None:
    if config.finalists:
      files.write_json(path, {'seconds_per_step': now.seconds, 'bytes_per_step': now.bytes})
    return now
  kept = files.read_json(path, 'remove it') if path.exists() else {}
  return loop.Pace(kept['seconds_per_step'], kept.get('bytes_per_step')) if kept.get('seconds_per_step') else None


def training(config):
  """The resolved configuration of a finalist's training, of that of its search."""
  c = config_lib.defaults()
  c.task = 'retrain'
  for field in _LIKE_THE_SEARCH:
    c[field] = config[field]
  c.space.update(config.space.to_dict())
  by = config.finalist_shrink
  c.data.update({**config.data.to_dict(), 'search_parts': None, 'shrink': config.data.shrink * by,
                 'pad': config.data.pad // by, 'cutout': config.data.cutout // by})
  c.epochs = c.eval_epochs = config.finalist_epochs
  c.theta.lr, c.theta.lr_end, c.theta.nesterov, c.theta.weight_decay = 0.05, 0.0, True, 3e-4
  c.network.cells, c.network.channels, c.network.imagenet = (
      config.space.cells, config.space.channels, config.space.imagenet)
  c.network.auxiliary, c.network.drop_path = 0.0, 0.0
  c.measure_batches = ()
  return config_lib.resolve(c)


def leading(space, scores, first, count, keeps=None):
  """`first`, and the most probable of all other architectures by `scores`, in their order; `count` in all, if there are
  as many among the 10,000 most probable ones. `keeps(genotype)` says which may be; None: all.
  """
  found = {first.unordered: first}
  for genotype in itertools.islice(within.ranked(space, scores), _MOST):
    if len(found) == count:
      break
    if keeps is None or keeps(genotype):
      found.setdefault(genotype.unordered, genotype)
  return list(found.values())


def chosen(run, genotypes, folder, rated, console, stop):
  """Trains `genotypes` in `folder`/finalists, resuming what is there; the best by validation and the facts, or None if
  a signal ended it, all saved.

  Args:
    run: the parts of the search: config, loaded, train, valid, mesh, damaged, constraint.
    genotypes: those of `leading`.
    folder: the run folder.
    rated: `rated(genotype)`: what a row has of an architecture besides.
    console: metrics.Console.
    stop: signals.Stop, entered.

  Raises UserError where a folder holds the training of another finalist.
  """
  config, space = training(run.config), spaces.get(run.config.space.name)
  by, loaded, parts, rows = run.config.finalist_shrink, run.loaded, (run.train, run.valid), []
  if by > 1:
    parts = tuple(split.shrunk(by) for split in parts)
  loaded = dataclasses.replace(loaded, valid=None, **({'train': parts[0], 'test': parts[1]} if by > 1 else {}))
  height, width, _ = loaded.image_shape
  console.say(f'{len(genotypes)} finalists, {config.epochs:g} epochs each on {len(run.train):,} images of '
              f'{height}x{width}')
  if len(genotypes) < run.config.finalists:
    console.say(f'note: config.finalists={run.config.finalists}, and the {_MOST:,} most probable architectures hold '
                f'{len(genotypes)} different ones' + (' within the limit' if run.constraint else ''))
  for number, genotype in enumerate(genotypes, 1):
    place = folder / FOLDER / str(number)
    trial = _Trial(config, space, genotype, loaded, run.mesh, damaged=run.damaged, parts=parts)
    _own(place, space, {'genotype': space.write(genotype), 'epochs': config.epochs, 'steps': trial.total,
                        **({'shrink': by} if by > 1 else {})})
    if not (place / _FILE).exists():
      if stop.ends(console.say):
        return None
      console.say(f'finalist {number} of {len(genotypes)}: {space.write(genotype)}')
      if _trained(trial, place, console, stop) is None:
        return None
    row = files.read_json(place / _FILE, 'remove its folder, and the same command trains it again')
    if not isinstance(row.get('valid_top1'), int | float):
      raise UserError(f'{files.printable(place / _FILE)} is damaged (valid_top1 is missing): remove its folder, and '
                      'the same command trains it again')
    rows.append({**row, **rated(genotype)})
  best = taken([row['valid_top1'] for row in rows], run.config.finalist_margin)
  seconds = [row['seconds_per_step'] and row['seconds_per_step'] * row['steps'] for row in rows]
  return genotypes[best], {
      'asked': run.config.finalists, 'epochs': config.epochs, 'shrink': by, 'margin': run.config.finalist_margin,
      'epochs_in_all': config.epochs * len(rows),
      'seconds_estimated': None if None in seconds else round(sum(seconds), 1),  # median step times steps, no compiling
      'train_images': len(run.train), 'valid_images': len(run.valid), 'chosen': best + 1, 'rows': rows}


def taken(scores, margin: float) -> int:
  """Which of `scores` [n], validation accuracies, is taken: the highest, of equals the first, if it is above the first
  of all by at least `margin`, else that.
  """
  best = max(range(len(scores)), key=lambda i: scores[i])
  return best if round(scores[best] - scores[0], 6) >= margin else 0  # 64.1 - 63.1 is below 1


def _own(place, space, asked: dict):
  """Makes `place` the folder of the finalist that is `asked`. Raises UserError where it is that of another."""
  path = place / _ASKED
  had = files.read_json(path, 'remove its folder') if path.exists() else None
  if had is not None and (not isinstance(had, dict) or {**had, 'genotype': asked['genotype']} != asked or
                          space.read(str(had.get('genotype'))).cells != space.read(asked['genotype']).cells):
    raise UserError(f'{files.printable(place)} holds the training of another finalist than {asked["genotype"]} for '
                    f'{asked["epochs"]:g} epochs on such images: move {files.printable(place.parent)} away, and the '
                    'same command trains those of now')
  place.mkdir(parents=True, exist_ok=True)
  files.write_json(path, asked)


class _Trial(retrain.Training):
  """The training of a finalist, in whole batches: all its steps are one program, and what is left out of an epoch is in
  the next.
  """

  def take(self, config):
    self.per_epoch = len(self.train) // config.batch_size
    super().take(config)

  def order(self, epoch):
    return super().order(epoch)[:self.per_epoch]


def _trained(run, place, console, stop) -> dict | None:
  """Trains a finalist and writes its row into `place`; returns it, None if a signal ended its training."""
  facts = {'genotype': run.space.write(run.genotype), 'steps': run.total}

  def write(now, pace):
    del now
    last = metrics.read(place / 'curve.jsonl')[-1]
    row = {**facts, 'valid_top1': round(last['top1'], 4), 'valid_loss': last['loss'],
           'seconds_per_step': pace and round(pace.seconds, 4)}
    files.write_json(place / _FILE, row)
    return row

  try:
    return loop.to_the_end(run, place, console, stop, write)
  except Diverged:  # it is no reason to lose the others
    console.say('this finalist is out: its loss or its weights did not stay finite')
    row = {**facts, 'valid_top1': 0.0, 'valid_loss': None, 'seconds_per_step': None}
    files.write_json(place / _FILE, row)
    return row


def lines(facts: dict) -> list[str]:
  """What a user is told of the finalists at the end of a search."""
  rows = facts['rows']
  took, scores = facts['seconds_estimated'], ', '.join(f'{row["valid_top1"]:.2f}' for row in rows)
  first = ', the most probable' + (f', which none beat by {facts["margin"]:g}' if facts.get('margin') else '')
  other = '' if len(rows) == 1 else first if facts['chosen'] == 1 else (
      f', not the most probable, {rows[0]["genotype"]}')
  return [f'finalists      {scores} % of {facts["valid_images"]:,} validation images, after {facts["epochs"]:g} epochs '
          'each' + (f', sides divided by {facts["shrink"]}' if facts['shrink'] > 1 else ''),
          f'chosen         finalist {facts["chosen"]} of {len(rows)}{other}; they cost {facts["epochs_in_all"]:g} '
          'epochs of their networks' + ('' if took is None else f', about {metrics.duration(took)}')]
