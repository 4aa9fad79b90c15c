"""Evaluates the network that a retraining left, on the test images of the data that it was trained on or of others.

  vimnas-jax --config=evaluate --config.genotype=RUN
  vimnas-jax --config=evaluate --config.genotype=RUN --config.data.dir=DIR --workdir=runs/evaluate_DIR

RUN is the run folder of a retraining, or of a search that went on to one. How images are read is taken from there; so
is where they lie, unless config.data.dir says otherwise. A folder holds the evaluation of one network on one data set.
"""

from ml_collections.config_dict import placeholder

from vimnas_jax.config import defaults, with_arguments


def smoke(config):
  config.measure_batches = ()


def get_config(arg=''):
  config = defaults()
  config.task = 'evaluate'
  for field, value in config.data.to_dict().items():
    if value is not None:
      config.data[field] = placeholder(type(value))  # None: as in RUN
  return with_arguments(config, arg, smoke)
