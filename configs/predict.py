"""Names what is on photographs, with the network that a retraining left.

  vimnas-jax --config=predict --config.genotype=RUN --config.images=PHOTO_OR_FOLDER

RUN is the run folder of a retraining, or of a search that went on to one (`--config=folder`); no data set is needed.
The console has a table, runs/predict/predictions.csv all of it: file, class, probability, and the two classes that come
next; report.html shows those that the network is least sure of. A folder is read at any depth; a later call writes both
anew, so give another --workdir to keep them.
"""

from vimnas_jax.config import defaults, with_arguments


def smoke(config):
  """There is nothing to shorten."""


def get_config(arg=''):
  config = defaults()
  config.task = 'predict'
  return with_arguments(config, arg, smoke)
