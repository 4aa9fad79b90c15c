"""The evaluate verb: how good a trained network is, and how large and how fast."""

import contextlib
import pathlib
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vimnas_jax import data, draw, files
from vimnas_jax.data import augment, loader
from vimnas_jax.data import folder as folders
from vimnas_jax.errors import UserError
from vimnas_jax.networks import cost, genotypes
from vimnas_jax.runs import budget, feed, metrics, runfolder
from vimnas_jax.verbs import export, floor, pages, told

TOP = 5  # classes that count as a hit beside the first


class Found(NamedTuple):
  """Of a split: top-1 and top-5 accuracy in %, mean cross-entropy, counts [true class, predicted class], and what each
  image was taken for, [n]; and of how many nothing was said (NaN), which count as the class after their own.
  """

  top1: float
  top5: float
  loss: float
  confusion: np.ndarray
  predicted: np.ndarray
  unknown: int = 0


class Scores:
  """Evaluation of a network on whole splits, every image exactly once."""

  def __init__(self, net, loaded, batch: int, workers: int = 0, damaged: feed.Damaged | None = None):
    """`loaded` gives mean and std; `batch` images are evaluated at a time.

    Those that are streamed are decoded by `workers` (`loader.workers`), and what is damaged is noted in `damaged`.
    """
    self._batch, self._workers, self._damaged = batch, workers, damaged

    @jax.jit
    def scores(variables, images, labels, real):
      logits = export.apply(net, variables, augment.normalise(images, loaded.mean, loaded.std)).astype(jnp.float32)
      loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      unknown = jnp.isnan(logits).any(-1)  # of such an image nothing is said: it counts as a miss
      own = jnp.take_along_axis(logits, labels[:, None], 1)
      # as many classes as reach the true one's logit before it: ties count against the network unless it stands first
      before = (logits > own) | ((logits == own) & (jnp.arange(logits.shape[-1])[None] < labels[:, None]))
      rank = jnp.where(unknown, logits.shape[-1], before.sum(-1))
      predicted = jnp.where(unknown, (labels + 1) % logits.shape[-1], logits.argmax(-1))
      pairs = labels * logits.shape[-1] + predicted
      counts = jnp.zeros(logits.shape[-1] ** 2, jnp.int32).at[pairs].add(real.astype(jnp.int32))
      return (real * (rank < TOP)).sum(), jnp.where(real > 0, loss, 0).sum(), counts, predicted, (real * unknown).sum()

    self._scores = scores

  def of(self, variables, split) -> Found:
    """Scores of `split`. The last batch is filled up with images that do not count; nor do damaged ones."""
    top5, loss, confusion, predicted, unknown = 0, 0.0, 0, [], 0
    with contextlib.closing(self._batches(split)) as batches:
      for images, labels, real in batches:
        missing = self._batch - len(labels)
        if missing:
          images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
          labels = np.concatenate([labels, np.zeros(missing, labels.dtype)])
          real = np.concatenate([real, np.zeros(missing, bool)])
        part = jax.device_get(self._scores(variables, images, labels, real.astype(np.float32)))
        top5, loss, confusion = top5 + int(part[0]), loss + float(part[1]), confusion + part[2]
        predicted.append(part[3][real])
        unknown += int(part[4])
    if not (n := sum(map(len, predicted))):
      raise UserError(f'none of the {len(split)} images to evaluate on can be decoded: repair them')
    side = round(len(confusion) ** 0.5)
    confusion = confusion.reshape(side, side)
    return Found(100 * int(np.trace(confusion)) / n, 100 * top5 / n, loss / n, confusion, np.concatenate(predicted),
                 unknown)

  def _batches(self, split):
    """Images, labels and which of them count, a batch at a time."""
    if isinstance(split, data.Streamed):
      with contextlib.closing(loader.evaluated(split, self._batch, self._workers)) as batches:
        for batch in batches:
          self._damaged.note(batch.damaged, 'left out of the evaluation')
          yield batch.images, batch.labels, batch.real
      return
    for start in range(0, len(split), self._batch):
      labels = split.labels[start:start + self._batch]
      yield split.images[start:start + self._batch], labels, np.ones(len(labels), bool)


def measure(model: export.Model, split, name: str, folder: pathlib.Path, config, console,
            damaged: feed.Damaged | None = None) -> tuple[dict, list]:
  """Evaluates `model` on `split`, called `name`; draws folder/confusion.png.

  Returns what result.json holds of it, and images of the worst confusions as `pages.network` takes them; none of a
  split that is streamed, whose damaged images `damaged` notes.
  """
  workers = loader.workers(config.data)
  scores = Scores(model.net, model, config.eval_batch, workers, damaged).of(model.variables, split)
  draw.confusion(scores.confusion, folder / 'confusion.png', model.class_names)
  classes = len(scores.confusion)
  row = {f'{name}_images': int(scores.confusion.sum()), f'{name}_top1': round(scores.top1, 4),
         f'{name}_top5': round(scores.top5, 4) if classes > TOP else None,  # of five all are among the first five
         f'{name}_loss': round(scores.loss, 6), 'image_shape': list(model.image_shape),
         'classes': list(model.class_names) or None,
         'confusion': scores.confusion.tolist(),  # rows and per_class in the order of classes
         'per_class': [round(100 * float(r[i]) / int(r.sum()), 2) if r.sum() else None
                       for i, r in enumerate(scores.confusion)]}
  if scores.unknown:
    row[f'{name}_not_a_number'] = scores.unknown
  if damaged:
    row['damaged_images'] = damaged.names
  if config.measure_batches:
    console.say('measuring latency …')
    row['latency'] = [latency(model, batch) for batch in config.measure_batches]
  if isinstance(split, data.Streamed):
    return row, []
  return row, [(i, j, split.images[(split.labels == i) & (scores.predicted == j)][:pages.IMAGES])
               for i, j in pages.worst(scores.confusion)]


def latency(model: export.Model, batch: int, seconds: float = 2.0) -> dict:
  """Median milliseconds of one call on `batch` images already on the device, and images per second."""
  variables, key = jax.device_put(model.variables), np.random.default_rng(0)
  images = jax.device_put(key.integers(0, 256, (batch, *model.image_shape), dtype=np.uint8))
  call = jax.jit(lambda v, x: export.apply(model.net, v, augment.normalise(x, model.mean, model.std)))
  call(variables, images).block_until_ready()
  times, end = [], time.monotonic() + seconds
  while len(times) < 5 or (time.monotonic() < end and len(times) < 1000):
    begin = time.monotonic()
    call(variables, images).block_until_ready()
    times.append(time.monotonic() - begin)
  median = statistics.median(times)
  return {'batch': batch, 'milliseconds': round(1e3 * median, 4), 'images_per_second': round(batch / median, 2),
          'calls': len(times)}


def evaluate(config, workdir, command: str = '') -> dict:
  """Evaluates the network that the run folder config.genotype holds, on the test images of config.data.

  Returns the result, which is also in workdir/result.json. Raises UserError on bad input, before anything is written.
  """
  console = metrics.Console()
  with runfolder.opened(workdir) as folder:
    runfolder.check_vacant(folder)
    given = pathlib.Path(config.genotype).expanduser()
    if not config.genotype or not given.is_dir():
      raise UserError(f'config.genotype={config.genotype!r} is no folder: evaluate needs that of a finished retraining')
    model = export.read(given, genotypes.trusted(config))
    loaded = data.get(runfolder.as_begun(folder, config).data)
    _same_size(model, loaded, config)
    test, notes = matched(model, loaded, config)
    fingerprint = loaded.fingerprint()
    notes += seen(given, loaded, fingerprint)
    size = cost.count(model.space, model.genotype, cells=model.net.cells, channels=model.net.channels,
                      num_classes=model.net.num_classes, image_size=model.image_shape[:2],
                      in_channels=model.image_shape[-1], imagenet=model.net.imagenet)
    streams = isinstance(test, data.Streamed)
    runfolder.write_config(folder, config, fingerprint, export.fingerprint(given), streams)
    told.data_set(folder, loaded, console)
    for line in notes:
      console.say(line)
    damaged = feed.Damaged(folder, config.data.max_corrupt, console.say) if streams else None
    measured, mistakes = measure(model, test, 'test', folder, config, console, damaged)
    result = {'command': command, 'task': 'evaluate', 'space': model.space.name, 'data': config.data.name,
              'genotype': model.space.write(model.genotype), 'params': size.params, 'madds': size.madds,
              **measured, 'notes': [note.removeprefix('note: ') for note in notes], **runfolder.environment()}
    pages.network(folder, result, model.space, mistakes)
    files.write_json(folder / 'result.json', result)
    for line in summary(result, folder):
      console.say(line)
    return result


def matched(model: export.Model, loaded: data.Data, config) -> tuple[data.Split | data.Streamed, list[str]]:
  """The test images with labels as the network numbers its classes, by name where both have names; and notes.

  Raises UserError where a class of the data is none of the network's, or only their number is known and differs.
  """
  names, notes = model.class_names, []
  known = {files.composed(name): label for label, name in enumerate(names)} | {
      name: label for label, name in enumerate(names)}
  where = f'config.data.name={config.data.name!r}'
  if known and loaded.class_names:
    labels = [known.get(name, known.get(files.composed(name))) for name in loaded.class_names]
    if None in labels:
      strange = loaded.class_names[labels.index(None)]
      raise UserError(f'{where} has the class {strange!r}, which the network of config.genotype={config.genotype!r} '
                      f'does not know: rename or remove it; it knows {_listed(names)}')
    test = loaded.test.renumbered(np.array(labels, np.int32))
    missing = [name for label, name in enumerate(names) if label not in labels]
    if missing:
      notes.append(f'note: the network also knows {_listed(missing)}, of which the data has no images')
  else:
    if loaded.num_classes != model.net.num_classes:
      raise UserError(f'the network of config.genotype={config.genotype!r} knows {model.net.num_classes} classes, '
                      f'{where} has {loaded.num_classes}, and not both have names: evaluate it on {model.data!r}')
    test = loaded.test
    if known or loaded.class_names:
      notes.append(f'note: the {"data" if known else "export"} has no names of classes: those of the network are taken '
                   'to be those of the data, in the same order')
  if model.recipe and loaded.recipe and dict(model.recipe) != dict(loaded.recipe):
    differ = [name for name, value in model.recipe.items() if loaded.recipe.get(name) != value]
    notes.append('note: images are read otherwise than for its training: ' + ', '.join(
        f'{name} is {loaded.recipe.get(name)!r}, was {model.recipe[name]!r}' for name in differ))
  if not model.recipe and model.shrink and model.shrink != config.data.shrink:
    notes.append(f'note: images are read otherwise than for its training: of these config.data.shrink='
                 f'{config.data.shrink} averages squares of so many pixels, there it was {model.shrink}')
  return test, notes


def seen(given: pathlib.Path, loaded: data.Data, fingerprint: str) -> list[str]:
  """A note where images of a folder are for test by the order of their names, and those of the training of the network
  in `given` were others: one file more moves the test to images that it was trained on. Else none.
  """
  path = export.locate(given).parent / 'config.json'
  about = files.read_json(path) if path.is_file() else None
  known = about.get('data_fingerprint') if isinstance(about, dict) else None
  if not loaded.rule.startswith(folders.BY_NAME) or known in (None, fingerprint):
    return []
  return [f'note: {folders.BY_NAME}, and these are not the images of the training, or are read otherwise: where some '
          'of them were trained on, they may be among those for test, whose accuracy is flattered then; put images '
          'that the network has not seen into test/CLASS/* beside train/CLASS/*']


def _listed(names) -> str:
  return ', '.join(map(repr, names[:10])) + (f' and {len(names) - 10} more' if len(names) > 10 else '')


def _sized(name: str) -> bool:
  """Whether config.data.image_size says how large the images of the data set `name` are."""
  return name in ('folder', 'synthetic') or (name.startswith('tfds/') and not name.endswith('.py'))


def _same_size(model, loaded, config):
  """Raises UserError, with the field that brings the data to the network's size, where they differ."""
  if loaded.image_shape == model.image_shape:
    return
  (height, width, channels), given, fields = model.image_shape, loaded.image_shape, config.data
  by = given[0] * fields.shrink // height
  remedy = f'set config.data.name={model.data} and config.data.dir' + (
      f' and config.data.image_size={height}' if _sized(model.data) else '')
  if channels == given[-1] and height == width and _sized(fields.name):
    remedy = f'set config.data.image_size={height * fields.shrink}'
  elif channels == given[-1] and [side * fields.shrink for side in given[:2]] == [height * by, width * by]:
    remedy = f'set config.data.shrink={by}'
  raise UserError(f'the network of config.genotype={config.genotype!r} reads images of {height}x{width} pixels and '
                  f'{channels} channels, those of config.data.name={fields.name!r} have {given[0]}x{given[1]} and '
                  f'{given[2]}: {remedy}')


def summary(result, folder) -> list[str]:
  """What a user wants to know at the end, in plain lines. Raises UserError where `result` was damaged on disk."""
  name = 'test' if 'test_top1' in result else 'valid'
  try:
    top5 = result[f'{name}_top5']
    lines = [f'architecture   {result["genotype"]}',
             f'{name + " accuracy":<14} {result[f"{name}_top1"]:.2f} % top-1, ' +
             ('' if top5 is None else f'{top5:.2f} % top-5, ') + f'loss {_number(result[f"{name}_loss"])}, '
             f'{result[f"{name}_images"]:,} images',
             f'network        {result["params"]:,} parameters, {result["madds"] / 1e6:.2f} M multiply-adds (FLOPs: '
             'twice that)']
    lines += budget.line(result)
    if 'chosen' in result:
      lines.append(f'chosen         the state after step {result["chosen"]["step"]} of {result["steps"]}, by '
                   f'{result["chosen"]["valid_top1"]:.2f} % of {result["chosen"]["valid_images"]:,} validation images')
    if 'floor' in result:
      lines.append(floor.line(result['floor'], result[f'{name}_top1']))
    if result.get('seconds_per_step'):
      lines.append(f'speed          {result["seconds_per_step"]:.3f} s a training step (median)')
    lines += [f'{"batch " + str(row["batch"]):<14} {row["milliseconds"]:.2f} ms a call, '
              f'{row["images_per_second"]:,.0f} images a second' for row in result.get('latency', [])]
    more = ' and export/' if result['task'] == 'retrain' else ''
  except (KeyError, TypeError, ValueError, AttributeError) as e:
    raise UserError(f'{files.printable(folder)}/result.json is damaged ({type(e).__name__}: {str(e)[:80]}): remove it, '
                    'and the same command writes it again') from None
  return [*lines, f'everything is in {files.printable(folder)}: report.html, result.json, confusion.png{more}']


def _number(value) -> str:
  return 'not finite' if value is None or not np.isfinite(value) else f'{value:.4f}'
