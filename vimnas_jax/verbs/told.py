"""What a user is told of a data set before a run, and data.json, which has all of it."""

import numpy as np

from vimnas_jax import data, files

STEPS, IMAGES = 100, 10  # of a search, and of every class in it: with fewer, what it finds is left to chance


def data_set(folder, loaded: data.Data, console, used=None):
  """Says what data of one's own hold, and writes it into folder/data.json; `used` as for `data.facts`."""
  if data.own(loaded):
    known = data.facts(loaded, used)
    files.write_json(folder / data.LIST, known)
    for line in lines(loaded, known):
      console.say(line)


def lines(loaded: data.Data, known: dict) -> list[str]:
  """What is said of data of one's own; `known` is what `data.facts` has of it."""
  return [*data.describe(loaded, known), *data.repeated(known)]


def shortage(loaded: data.Data, train: data.AnySplit, steps: int) -> list[str]:
  """A line where data of one's own are too few for a search of `steps` steps on the images `train`; else none."""
  if not data.own(loaded) or not steps or not train.known:
    return []
  counts = np.bincount(train.labels, minlength=loaded.num_classes)
  short = []
  if steps < STEPS:
    short.append(f'{steps} steps, where {STEPS} are the least')
  if counts.min() < IMAGES:
    short.append(f'{counts.min()} images of {loaded.name_of(int(counts.argmin()))!r}, where {IMAGES} are the least')
  if not short:
    return []
  return [f'too few images or steps for a search: {"; ".join(short)}. It goes on, but what it finds is little better '
          'than a random architecture: add images, or raise config.epochs']
