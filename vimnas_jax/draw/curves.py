"""How a training or a search went, and what a network confuses."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vimnas_jax.draw.base import FAINT, INK, PALE, blank, plain, save
from vimnas_jax.errors import UserError


def curves(lines: dict[str, tuple[Sequence[float], Sequence[float]]], path, ylabel: str = 'accuracy, %') -> Figure:
  """Draws one line per entry of `lines`, label -> (epochs, values). Raises UserError if there is none."""
  if not lines:
    raise UserError('no curve to draw')
  figure = blank(5.6, 3.6)
  axes = figure.add_axes((0.12, 0.15, 0.85, 0.8))
  for (label, (x, y)), color in zip(lines.items(), ('#9cc3f0', '#12407a', '#f0a030', '#8c4a00', '#1d9a50'),
                                    strict=False):
    axes.plot(x, y, color=color, linewidth=1.6, label=label, marker='.' if len(x) < 30 else '')
  axes.set_xlabel('epoch', color=INK)
  axes.set_ylabel(ylabel, color=INK)
  axes.grid(True, color=PALE)
  axes.spines[:].set_color(FAINT)
  axes.tick_params(labelsize=9, labelcolor=INK, color=FAINT)
  axes.legend(frameon=False, labelcolor=INK)
  return save(figure, path)


def regret(experiments: dict[str, tuple[Sequence[float], np.ndarray]], path, kind: str = 'test') -> Figure:
  """Draws regret over epochs on a logarithmic axis, mean over seeds with standard error: figure 4 of the paper.

  Args:
    experiments: label -> (epochs [t], regrets [seeds, t], above 0), t > 0.
    path: the file to write.
    kind: 'test' or 'valid', which errors they come from.

  Raises:
    UserError: if there is no experiment, or a shape does not fit.
  """
  if not experiments or any(np.shape(r)[1:] != (len(x),) or not np.size(r) for x, r in experiments.values()):
    raise UserError('regret is drawn from regrets [seeds, t] at epochs [t], t > 0, of at least one experiment; got '
                    f'{[(label, len(x), np.shape(r)) for label, (x, r) in experiments.items()]}')
  figure = blank(5.6, 3.6)
  axes = figure.add_axes((0.14, 0.15, 0.83, 0.8))
  hues = ('#12407a', '#f0a030', '#1d9a50', '#b8336a', '#7a1f76', '#8c4a00', '#17becf', '#7b8794')
  for (label, (x, regrets)), color in zip(experiments.items(), itertools.cycle(hues)):
    mean, seeds = np.mean(regrets, 0), len(regrets)
    error = np.std(regrets, 0, ddof=1) / seeds ** 0.5 if seeds > 1 else np.zeros_like(mean)
    axes.plot(x, mean, color=color, linewidth=1.6, label=plain(label), marker='.' if len(x) < 30 else '',
              gid='mean')
    axes.fill_between(x, np.maximum(mean - error, 1e-6), mean + error, color=color, alpha=0.2, linewidth=0, gid='error')
  axes.set_yscale('log')
  axes.set_xlabel('epoch', color=INK)
  axes.set_ylabel(f'{"validation" if kind == "valid" else kind} regret', color=INK)
  axes.grid(True, which='both', color=PALE)
  axes.spines[:].set_color(FAINT)
  axes.tick_params(which='both', labelsize=9, labelcolor=INK, color=FAINT)
  axes.legend(frameon=False, labelcolor=INK)
  return save(figure, path)


def confusion(counts: np.ndarray, path, names: Sequence[str] = ()) -> Figure:
  """Draws counts [true class, predicted class] as shares of each row; the numbers too, of up to 20 classes.

  A class without images is a pale row. `names` of the classes, up to 40, stand on both axes. Raises UserError on other
  shapes.
  """
  counts = np.asarray(counts)
  if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not len(counts):
    raise UserError(f'a confusion matrix is square, this one has shape {counts.shape}')
  if len(names) not in (0, len(counts)):
    raise UserError(f'a confusion matrix of {len(counts)} classes has as many names, or none; got {len(names)}')
  names = [plain(name, 18) for name in names] if len(names) <= 40 else []
  share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  side = min(max(3.4, 0.42 * len(counts)), 9.0)
  room = 0.4 + 0.07 * max(map(len, names), default=0)  # inches beside and below the axes
  width, height = side + 0.5 + room, side + 0.1 + room
  figure = blank(width, height)
  axes = figure.add_axes(((room + 0.4) / width, room / height, (side - 0.1) / width, (side - 0.1) / height))
  axes.imshow(share, cmap='Blues', vmin=0, vmax=1, interpolation='nearest')
  if names:
    axes.set_xticks(range(len(counts)), names, rotation=90)
    axes.set_yticks(range(len(counts)), names)
  elif len(counts) <= 20:
    axes.set_xticks(range(len(counts)))
    axes.set_yticks(range(len(counts)))
  if len(counts) <= 20:
    for (row, column), value in np.ndenumerate(share):
      if value >= 0.005:
        axes.text(column, row, f'{100 * value:.0f}', ha='center', va='center', fontsize=8,
                  color='white' if value > 0.5 else INK)
  axes.set_xlabel('predicted class', color=INK)
  axes.set_ylabel('true class', color=INK)
  axes.tick_params(labelsize=8, labelcolor=INK, color=FAINT)
  axes.spines[:].set_color(FAINT)
  return save(figure, path)
