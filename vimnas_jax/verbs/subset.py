"""Small parts of a large training set for a search: some images of every class, which subset.json then lists."""

import pathlib

import numpy as np

from vimnas_jax import data, files
from vimnas_jax.data import parts, types
from vimnas_jax.errors import UserError

NAME = 'subset.json'
_PARTS = 'weights', 'architecture'


def rows(config, loaded: data.Data, recorded: dict | None, say) -> tuple[np.ndarray, np.ndarray] | None:
  """Which training images are for the weights and which for the architecture, as config.data.search_parts says.

  Args:
    config: the resolved configuration.
    loaded: the data.
    recorded: what `read` gives.
    say: tells a line.

  Returns:
    Rows of loaded.train; None where config.data.search_parts is None.

  Raises:
    UserError: what data.shares raises, or a record that does not fit.
  """
  if config.data.search_parts is None:
    return None
  shares = tuple(config.data.search_parts)
  if not loaded.train.known:
    if recorded is not None:  # to draw them again, every label would have to be read again
      return _again(recorded, loaded, shares)
    say(f'reading all {len(loaded.train):,} records once, for their labels …')
  return data.shares(loaded, shares)


def read(folder: pathlib.Path) -> dict | None:
  """What subset.json in a run folder holds, or None where there is none. Raises UserError where it is damaged."""
  path = folder / NAME
  return files.read_json(path, 'remove it, and it is written again') if path.exists() else None


def _again(recorded, loaded, shares):
  try:
    found = [np.asarray(recorded[part]['rows'], np.int64) for part in _PARTS]
    fits = all(part.ndim == 1 and len(part) and part.min() >= 0 and part.max() < len(loaded.train) for part in found)
    if not fits or tuple(recorded['search_parts']) != shares or recorded['data_fingerprint'] != loaded.fingerprint():
      raise ValueError('it is of other data, or of other shares')
  except (KeyError, TypeError, ValueError, OverflowError) as e:
    raise UserError(f'{NAME} of this run folder does not fit ({type(e).__name__}: {str(e)[:80]}): remove it, and it is '
                    'written again') from None
  return tuple(found)


def write(folder: pathlib.Path, config, loaded: data.Data, chosen):
  """Writes subset.json unless it is there: the images of either part by their numbers and, of a folder, their names."""
  if (folder / NAME).exists():
    return
  named = isinstance(loaded.train, data.Streamed) and loaded.train.named
  files.write_json(folder / NAME, {
      'search_parts': list(config.data.search_parts), 'rule': types.DRAWN, 'seed': parts.SEED,
      'data_fingerprint': loaded.fingerprint(),
      **{part: {'images': len(which), 'rows': which.tolist(),
                **({'names': [loaded.train.name(i) for i in which]} if named else {})}
         for part, which in zip(_PARTS, chosen)}})
