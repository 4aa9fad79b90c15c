"""From a folder of photographs to a trained network: search, training, test and export in one command.

  vimnas-jax --config=folder --config.data.dir=~/flowers
  vimnas-jax --config=predict --config.genotype=runs/folder --config.images=PHOTO_OR_FOLDER

The folder holds a folder of images for every class, or train/, val/ and test/ that do (data/folder.py has the rules).
`val` chooses the state of the network that is kept; where there is none, a fifth of the training images does, drawn
class by class. The test images are asked once, at the end. Images that cannot be read are left out and named.

Size of the images, batch, epochs and the network's size are chosen by the number and size of the images
(verbs/sizing.py); what you set yourself is taken. Of the retraining: --config.then_changes='epochs=50'. It takes
three hours at most (--config.max_hours). A set of TFDS: --config.data.name=tfds/NAME --config.data.dir=DIR.
"""

from ml_collections.config_dict import placeholder

from vimnas_jax.config import defaults, when, with_arguments


def smoke(config):
  config.batch_size, config.epochs = 8, 1.0
  config.network.cells, config.network.channels = 1, 4
  config.then_changes = 'epochs=2 eval_epochs=1 measure_batches=()'


def get_config(arg=''):
  config = defaults()
  config.then = 'retrain'
  config.max_hours = 3.0
  config.space.name = 'nb201'
  # with wider maps few images are learned by any operation: docs/recipe.md, section 15
  config.space.cells, config.space.channels = 1, 4
  config.data.name = 'folder'
  config.data.validation = 0.2
  config.data.damaged = 'skip'
  config.checkpoint_steps = 100
  config.batch_size, config.epochs = placeholder(int), placeholder(float)  # None: chosen by the images
  config.data.image_size, config.data.shrink = placeholder(int), placeholder(int)
  config.network.cells, config.network.channels = placeholder(int), placeholder(int)
  config.theta.weight_decay, config.theta.nesterov = 5e-4, True
  # as for the handwritten digits of the quickstart: few images are learned soon, and the gradient is small then
  # (the bound of the recipe has not been tried on photographs)
  when(config, 'vimnas', {'train_portion': 1.0, 'method.samples': 4, 'method.bound': 0.0, 'method.sharpen': 6.0,
                          'method.sharpen_last': 1.0, 'phi.lr': 0.05, 'phi.lr_end': 0.5, 'phi.steps': 780,
                          'phi.fall': 0.3, 'phi.until': 1.0})
  return with_arguments(config, arg, smoke)
