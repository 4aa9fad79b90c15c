"""report.html: what a run found, how good and how sure it is, on one page beside its files, for eyes, ears and paper.

A page is made of what lies in the run folder and of the result that is about to be written there; fields that an older
result lacks are shown as not known.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vimnas_jax import files
from vimnas_jax.errors import UserError
from vimnas_jax.spaces import Space
from vimnas_jax.verbs.pages import compared, predicted, searched, tested
from vimnas_jax.verbs.pages.compared import Chosen
from vimnas_jax.verbs.pages.predicted import SHOWN
from vimnas_jax.verbs.pages.ranked import naming
from vimnas_jax.verbs.pages.shared import FILE, SIZE, images_of, name_of
from vimnas_jax.verbs.pages.tested import IMAGES, worst

__all__ = ['FILE', 'IMAGES', 'SHOWN', 'SIZE', 'Chosen', 'comparison', 'images_of', 'name_of', 'naming', 'network',
           'predictions', 'search', 'worst']


def search(folder: pathlib.Path, result: Mapping, space: Space) -> None:
  """Writes the page of a search of `space` into its run folder."""
  files.write(folder / FILE, searched.page(folder, result, space))


def network(folder: pathlib.Path, result: Mapping, space: Space, mistakes=()) -> None:
  """Writes the page of a network of `space` that was trained, or evaluated.

  Where it was trained in the folder `retrain` of the search that found it, the page of that search, which then has its
  accuracy, is written anew. `mistakes` are rows (true class, predicted class, images [n, h, w, c]).
  """
  files.write(folder / FILE, tested.page(folder, result, space, mistakes))
  above = folder.parent
  if folder.name != 'retrain' or not (above / FILE).exists():
    return
  try:
    searched_for = files.read_json(above / 'result.json')
    if 'task' not in searched_for and searched_for.get('genotype') == result.get('genotype'):
      files.write(above / FILE, searched.page(above, searched_for, space, result))
  except (UserError, KeyError, TypeError, ValueError, AttributeError, IndexError):
    return  # a result of another time, or an edited one: no reason to fail what has just been trained


def comparison(folder: pathlib.Path, spaces: Mapping[str, tuple[Mapping, Mapping]], places: Mapping[str, str],
               command: str = '', chosen: Chosen | None = None, notes: Sequence[str] = ()) -> None:
  """Writes the page of runs side by side: {space: (rows, groups)} as `report` has them, and {space: its folder}.

  `command` made them; `chosen` says which of several seeds was taken, and why; `notes` are warnings.
  """
  files.write(folder / FILE, compared.page(folder, spaces, places, command, chosen, notes))


def predictions(folder: pathlib.Path, rows: Sequence[Mapping], shown: Sequence[tuple[Mapping, np.ndarray]],
                skipped: Sequence[tuple[str, str]], asked: Mapping) -> None:
  """Writes the page of photographs that were named.

  Args:
    folder: the run folder.
    rows: of every image, as `predict` has them.
    shown: (row, image [h, w, c]) of those that are shown, the least sure first.
    skipped: (file, reason) of what was not read.
    asked: 'images', what was asked about; 'classes', how many the network knows; 'space', its own; 'command'; and
      'network', the result of its training, or None.
  """
  files.write(folder / FILE, predicted.page(folder, rows, shown, skipped, asked))
