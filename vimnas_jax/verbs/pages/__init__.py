"""report.html: what a run found, how good and how sure it is, on one page beside its files, for eyes, ears and paper.

A page is made of what lies in the run folder and of the result that is about to be written there; fields that an older
result lacks are shown as not known.
"""

import pathlib
from collections.abc import Mapping

from vimnas_jax import files
from vimnas_jax.errors import UserError
from vimnas_jax.spaces import Space
from vimnas_jax.verbs.pages import compared, searched, tested
from vimnas_jax.verbs.pages.shared import FILE, name_of
from vimnas_jax.verbs.pages.tested import IMAGES, worst

__all__ = ['FILE', 'IMAGES', 'comparison', 'name_of', 'network', 'search', 'worst']


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
    if searched_for.get('genotype') == result.get('genotype'):
      files.write(above / FILE, searched.page(above, searched_for, space, result))
  except (UserError, KeyError, TypeError, ValueError, AttributeError, IndexError):
    return  # a result of another time, or an edited one: no reason to fail what has just been trained


def comparison(folder: pathlib.Path, spaces: Mapping[str, tuple[Mapping, Mapping]], places: Mapping[str, str],
               command: str = '') -> None:
  """Writes the page of runs side by side: {space: (rows, groups)} as `report` has them, and {space: its folder}."""
  files.write(folder / FILE, compared.page(folder, spaces, places, command))
