"""How a training went, and what its network confuses."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vimnas_jax.draw.base import FAINT, INK, PALE, blank, save
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


def confusion(counts: np.ndarray, path) -> Figure:
  """Draws counts [true class, predicted class] as shares of each row; the numbers too, of up to 20 classes."""
  counts = np.asarray(counts)
  if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not len(counts):
    raise UserError(f'a confusion matrix is square, this one has shape {counts.shape}')
  share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  side = min(max(3.4, 0.42 * len(counts)), 9.0)
  figure = blank(side + 1.0, side + 0.6)
  axes = figure.add_axes((0.9 / (side + 1), 0.5 / (side + 0.6), (side - 0.1) / (side + 1), (side - 0.1) / (side + 0.6)))
  axes.imshow(share, cmap='Blues', vmin=0, vmax=1, interpolation='nearest')
  if len(counts) <= 20:
    axes.set_xticks(range(len(counts)))
    axes.set_yticks(range(len(counts)))
    for (row, column), value in np.ndenumerate(share):
      if value >= 0.005:
        axes.text(column, row, f'{100 * value:.0f}', ha='center', va='center', fontsize=8,
                  color='white' if value > 0.5 else INK)
  axes.set_xlabel('predicted class', color=INK)
  axes.set_ylabel('true class', color=INK)
  axes.tick_params(labelsize=8, labelcolor=INK, color=FAINT)
  axes.spines[:].set_color(FAINT)
  return save(figure, path)
