"""What a network confuses."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vimnas_jax.draw.base import FAINT, INK, QUIET, TEXT, blank, distinct, drawable, longest, save
from vimnas_jax.errors import UserError

_SIDE, _LEAST, _DIGIT = 9.0, 0.125, 0.075  # inches: of many classes in all; a cell; a digit in it
_NAMED, _NUMBERED = 110, 0.26  # classes up to which they are named; inches from which a cell has its number


def confusion(counts: np.ndarray, path, names: Sequence[str] = ()) -> Figure:
  """Draws how many images of each class, a row, were taken for which, a column; shades are shares of the row.

  A cell has its number where there is room for it, as with up to about 30 classes. The names of the classes, or their
  numbers, stand on both axes, of up to 110 classes; a name in a script that the font lacks gives way to its class's
  number. A class without images is a pale row.

  Args:
    counts: [true class, predicted class].
    path: the file to write.
    names: of the classes; none, or one each.

  Raises:
    UserError: on other shapes.
  """
  counts = np.asarray(counts)
  if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not len(counts):
    raise UserError(f'a confusion matrix is square, this one has shape {counts.shape}')
  if len(names) not in (0, len(counts)):
    raise UserError(f'a confusion matrix of {len(counts)} classes has as many names, or none; got {len(names)}')
  classes, images, right = len(counts), int(counts.sum()), int(np.trace(counts))
  digits = len(f'{int(counts.max()):,}')
  unit = max(_LEAST if classes <= _NAMED else 0.0, min(0.75, max(0.12 + _DIGIT * digits, 0.32), _SIDE / classes))
  unit = max(unit, 2.2 / classes)  # of two or three classes
  numbered = unit >= max(_NUMBERED, 0.06 + 0.9 * _DIGIT * digits)
  shown = distinct(names, 22)
  labels = [shown[name] if drawable(shown[name]) else f'class {i}' for i, name in enumerate(names)] or [
      str(i) for i in range(classes)]
  size = min(9.0, max(5.0, 72 * unit * 0.75))  # points of a name
  if classes > _NAMED:
    labels = []
  beside = longest(labels, size)  # inches of the longest name
  level = classes <= 12 and beside < unit - 0.08
  below = (size / 60 if level else beside) + 0.4
  side, left, top = unit * classes, beside + 0.45, 0.62
  width, height = max(left + side + 0.8, 3.9), top + side + below
  figure = blank(width, height)
  axes = figure.add_axes((left / width, below / height, side / width, side / height))
  share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  image = axes.imshow(share, cmap='Blues', vmin=0, vmax=1, interpolation='nearest', aspect='auto')
  axes.set_xticks(range(len(labels)), labels, rotation=0 if level else 90)
  axes.set_yticks(range(len(labels)), labels)
  if numbered:
    for (row, column), count in np.ndenumerate(counts):
      if count:
        axes.text(column, row, f'{int(count):,}', fontsize=min(9.0, 72 * unit * 0.42), ha='center', va='center',
                  gid='count', color='white' if share[row, column] > 0.5 else INK)
  axes.tick_params(labelsize=size, labelcolor=INK, color=FAINT, length=2 if classes <= 40 else 0, pad=2)
  axes.spines[:].set_color(FAINT)
  figure.text((left + side / 2) / width, 0.16 / height, 'predicted class', fontsize=10, **TEXT)
  figure.text(0.16 / width, (below + side / 2) / height, 'true class', fontsize=10, rotation=90, **TEXT)
  part = f' ({100 * right / images:.2f} %)' if images else ''
  figure.text(0.1 / width, 1 - 0.2 / height, f'{right:,} of {images:,} images right{part}', fontsize=10, color=INK,
              va='center')
  figure.text(0.1 / width, 1 - 0.42 / height, 'numbers: images; shades: shares of the true class' if numbered else
              'shades: shares of the true class', fontsize=8, color=QUIET, va='center')
  bar = figure.add_axes(((left + side + 0.18) / width, below / height, 0.12 / width, side / height))
  figure.colorbar(image, cax=bar, ticks=[0, 0.5, 1])
  bar.set_yticklabels(['0 %', '50 %', '100 %'])
  bar.tick_params(labelsize=8, length=2, labelcolor=INK)
  return save(figure, path)
