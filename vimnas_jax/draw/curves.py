"""How a training or a search went."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vimnas_jax.draw.base import FAINT, INK, PALE, blank, distinct, save
from vimnas_jax.errors import UserError


def curves(lines: dict[str, tuple[Sequence[float], Sequence[float]]], path, ylabel: str = 'accuracy, %') -> Figure:
  """Draws one line per entry of `lines`, label -> (epochs, values). Raises UserError if there is none."""
  if not lines:
    raise UserError('no curve to draw')
  figure = blank(5.6, 3.6)
  axes = figure.add_axes((0.12, 0.15, 0.85, 0.73))
  for (label, (x, y)), color in zip(lines.items(), ('#9cc3f0', '#12407a', '#f0a030', '#8c4a00', '#1d9a50'),
                                    strict=False):
    axes.plot(x, y, color=color, linewidth=1.6, label=label, marker='.' if len(x) < 30 else '')
  axes.set_xlabel('epoch', color=INK)
  axes.set_ylabel(ylabel, color=INK)
  axes.grid(True, color=PALE)
  axes.spines[:].set_color(FAINT)
  axes.tick_params(labelsize=9, labelcolor=INK, color=FAINT)
  _above(axes)
  return save(figure, path)


def regret(experiments: dict[str, tuple[Sequence[float], np.ndarray]], path, kind: str = 'test') -> Figure:
  """Draws regret over epochs on a logarithmic axis, mean over seeds with standard error: figure 4 of the paper.

  What is below half of the smallest mean above 0, such as a mean of 0, is drawn there; the label says so.

  Args:
    experiments: label -> (epochs [t], regrets [seeds, t], not below 0), t > 0.
    path: the file to write.
    kind: 'test' or 'valid', which errors they come from.

  Raises:
    UserError: if there is no experiment, or a shape does not fit.
  """
  if not experiments or any(np.shape(r)[1:] != (len(x),) or not np.size(r) for x, r in experiments.values()):
    raise UserError('regret is drawn from regrets [seeds, t] at epochs [t], t > 0, of at least one experiment; got '
                    f'{[(label, len(x), np.shape(r)) for label, (x, r) in experiments.items()]}')
  bands = {}
  for label, (_, regrets) in experiments.items():
    mean, seeds = np.mean(regrets, 0), len(regrets)
    error = np.std(regrets, 0, ddof=1) / seeds ** 0.5 if seeds > 1 else np.zeros_like(mean)
    bands[label] = mean - error, mean, mean + error
  floor = min((value / 2 for _, mean, _ in bands.values() for value in mean if value > 0), default=1e-3)
  lifted = any(np.min(values) < floor for band in bands.values() for values in band)
  names = distinct(experiments, 24)
  lines = -(-len(experiments) // 2)  # of the legend
  figure = blank(5.6, 3.35 + 0.23 * lines)
  left = 0.17 if lifted else 0.14  # of two lines of the label, or one
  axes = figure.add_axes((left, 0.5 / (3.35 + 0.23 * lines), 0.97 - left, 2.75 / (3.35 + 0.23 * lines)))
  hues = ('#12407a', '#f0a030', '#1d9a50', '#b8336a', '#7a1f76', '#8c4a00', '#17becf', '#7b8794')
  for (label, (x, _)), color in zip(experiments.items(), itertools.cycle(hues)):
    low, mean, high = (np.maximum(values, floor) for values in bands[label])
    axes.plot(x, mean, color=color, linewidth=1.6, label=names[label], marker='.' if len(x) < 30 else '',
              gid='mean')
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0, gid='error')
  axes.set_yscale('log')
  axes.set_xlabel('epoch', color=INK)
  axes.set_ylabel(f'{"validation" if kind == "valid" else kind} regret' +
                  f'\n(what is below {floor:.2g} is drawn there)' * lifted, color=INK)
  axes.grid(True, which='both', color=PALE)
  axes.spines[:].set_color(FAINT)
  axes.tick_params(which='both', labelsize=9, labelcolor=INK, color=FAINT)
  _above(axes)
  return save(figure, path)


def _above(axes):
  """The legend, over the axes, where it hides no line."""
  axes.legend(frameon=False, labelcolor=INK, loc='lower left', bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.1,
              borderpad=0.1, fontsize=9, handlelength=1.5, columnspacing=1.2, labelspacing=0.25)
