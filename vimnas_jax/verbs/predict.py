"""The predict verb: photographs and the run folder of a retraining in, the names of their classes out."""

import csv
import io
import os
import pathlib

import numpy as np

from vimnas_jax import files
from vimnas_jax.data import pixels
from vimnas_jax.errors import UserError
from vimnas_jax.files import printable
from vimnas_jax.networks import genotypes
from vimnas_jax.runs import metrics, runfolder
from vimnas_jax.verbs import export, floor, pages

TABLE = 'predictions.csv'
TOP = 3  # classes that are told of an image
_BLOCK = 1024  # images held at a time
_SHOWN = 40  # rows of the table on the console
_SKIPPED = 10  # files left out that are named there


def predict(config, workdir, command: str = '') -> list[dict]:
  """Names what is on the images config.images with the network of the run folder config.genotype.

  Writes workdir/predictions.csv and report.html, in place of earlier ones, and a table on the console. Files that are
  no images, or cannot be read, are told and skipped. `command` is the command line that asked, '' in a program.

  Returns:
    A row for every image: 'file', 'class', 'probability', and 'top', the TOP likeliest (class, probability).

  Raises:
    UserError: no such network or images, or not one image among them, before anything is written.
  """
  console = metrics.Console()
  if not config.genotype or not pathlib.Path(config.genotype).expanduser().is_dir():
    raise UserError(f'config.genotype={config.genotype!r} is no folder: give the run folder of a finished retraining, '
                    'or of a search that went on to one')
  if not config.images or not os.path.exists(os.path.expanduser(config.images)):
    raise UserError(f'config.images={config.images!r}: no such file or folder; give an image, or a folder of images')
  with runfolder.opened(workdir) as folder:
    runfolder.check_free(folder, TABLE)
    model = export.read(pathlib.Path(config.genotype).expanduser(), genotypes.trusted(config))
    given = pathlib.Path(config.images).expanduser()
    paths, skipped = listed(given)
    if not model.recipe:
      console.say(f'note: the network was trained on arrays ({model.data}): files are brought to its '
                  f'{"x".join(map(str, model.image_shape))} by scaling and cutting at the centre' + (
                      f', and averaging squares of {model.shrink} pixels' if model.shrink > 1 else ''))
    rows, shown = [], []
    for start in range(0, len(paths), _BLOCK):
      block, images = _block(model, paths[start:start + _BLOCK], given, config.data.max_pixels, skipped)
      rows += block
      shown = sorted([*shown, *zip(block, images)], key=lambda pair: pair[0]['probability'])[:pages.SHOWN]
    if not rows:
      reasons = '; '.join(f'{name} ({reason})' for name, reason in skipped[:3])
      raise UserError(f'config.images={config.images!r} holds no image that can be read'
                      f'{f": {reasons}" if reasons else ""}: give an image, or a folder of images')
    files.write(folder / TABLE, table(rows))
    pages.predictions(folder, rows, shown, skipped, {
        'images': given.name, 'classes': len(model.class_names), 'space': model.space.name, 'command': command,
        'network': _trained(config.genotype)})
    for line in (*lines(rows, skipped), *reliance(_trained(config.genotype))):
      console.say(line)
    console.say(f'everything is in {printable(folder)}: {pages.FILE}, {TABLE}')
    return rows


def listed(given: pathlib.Path) -> tuple[list[pathlib.Path], list[tuple[str, str]]]:
  """The images at or below a path, sorted; and (name, reason) of every other file there. Hidden ones are passed over.

  Links to folders are followed, each folder once. Raises UserError where a folder cannot be read.
  """
  if not given.is_dir():
    return [given], []

  def failed(e):
    raise UserError(f'cannot read the folder {printable(e.filename)} ({e.strerror}): make it readable, and run again')

  found, skipped, seen = [], [], set()
  for root, folders, names in os.walk(given, onerror=failed, followlinks=True):
    real = os.path.realpath(root)
    if real in seen:
      folders.clear()
      skipped.append((f'{printable(pathlib.Path(root).relative_to(given))}/', 'the same folder as another, read once'))
      continue
    seen.add(real)
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    for name in sorted(name for name in names if not name.startswith('.')):
      path = pathlib.Path(root) / name
      try:
        reason = pixels.irregular(path)
        if not reason and path.suffix.lower() not in pixels.SUFFIXES and not pixels.is_image(path):
          reason = 'no image'
      except OSError as e:
        reason = e.strerror
      if reason:
        skipped.append((printable(path.relative_to(given)), reason))
      else:
        found.append(path)
  return found, skipped


def _trained(given: str) -> dict | None:
  """The result of the training that left the network in a run folder; None where it is not there, or none."""
  try:
    place = export.locate(pathlib.Path(given).expanduser()).parent
    result = files.read_json(place / 'result.json')
    if isinstance(result, dict) and result.get('task') == 'seeds':  # it was trained in the folder of a seed, or of all
      place = place if 'choose' in result else place / f'seed_{result.get("seed")}'
      result = files.read_json(place / 'retrain' / 'result.json')
  except (UserError, OSError):
    return None
  return result if isinstance(result, dict) else None


def _block(model, paths, given, max_pixels, skipped):
  """The rows of some files, and their images [h, w, c]; those that cannot be read are added to `skipped`."""
  names, images = [], []
  for path in paths:
    name = printable(path.name if path == given else path.relative_to(given))
    try:
      images.append(model.read(path, max_pixels))
      names.append(name)
    except pixels.Damaged as e:
      skipped.append((name, e.reason))
    except UserError as e:
      if 'make it readable' not in str(e):
        raise
      skipped.append((name, 'it may not be read'))
  if not images:
    return [], []
  rows = []
  for name, row in zip(names, model.probabilities(np.stack(images))):
    top = model.named(row, TOP)
    rows.append({'file': name, 'class': top[0][0], 'probability': top[0][1], 'top': top})
  return rows, images


def reliance(trained: dict | None) -> list[str]:
  """How far the names can be relied on, by the result of the training behind the network; [] where it says nothing."""
  found = trained or {}
  right, known = found.get('test_top1'), found.get('floor')
  colour = known.get('top1') if isinstance(known, dict) else None
  if not isinstance(right, int | float):
    return []
  worse = isinstance(colour, int | float) and floor.gain(known, right) <= 0
  return [f'the network named {right:.1f} % of its test images rightly' +
          (f', and colour alone names {colour:.1f} %: do not rely on it' if worse else '')]


def table(rows) -> str:
  """predictions.csv: file, class and probability, then the classes that come next with theirs."""
  width = max(len(row['top']) for row in rows)
  text = io.StringIO()
  out = csv.writer(text, lineterminator='\n')
  out.writerow(['file', 'class', 'probability', *(f'{what}_{i}' for i in range(2, width + 1)
                                                  for what in ('class', 'probability'))])
  for row in rows:
    out.writerow([row['file'], *(value for name, p in row['top'] for value in (name, f'{p:.4f}'))])
  return text.getvalue()


def lines(rows, skipped) -> list[str]:
  """The table on the console, what was skipped, and how many images each class got."""
  width = min(max(len(row['file']) for row in rows[:_SHOWN]), 60)
  told = [f'{row["file"]:<{width}}  ' + ', '.join(f'{name} {p:.1%}' for name, p in row['top'])
          for row in rows[:_SHOWN]]
  if len(rows) > _SHOWN:
    told.append(f'… and {len(rows) - _SHOWN} more in {TABLE}')
  if skipped:
    more = f' and {len(skipped) - _SKIPPED} more' if len(skipped) > _SKIPPED else ''
    told.append(f'{len(skipped)} skipped: ' + '; '.join(f'{name} ({reason})' for name, reason in skipped[:_SKIPPED]) +
                more)
  counts = {}
  for row in rows:
    counts[row['class']] = counts.get(row['class'], 0) + 1
  most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
  return [*told, f'{len(rows)} image{"" if len(rows) == 1 else "s"}: ' +
          ', '.join(f'{count} {name}' for name, count in most[:12]) + (' …' if len(most) > 12 else '')]
