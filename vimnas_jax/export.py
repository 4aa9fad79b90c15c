"""A trained network on disk, as others use it: genotype, weights, and a program that needs none of this code.

The folder holds `model.json` (what the network is), `weights.safetensors` (parameters and running statistics, names
joined by '/') and `network.jaxexport` (a jax.export artefact: uint8 images [b, h, w, c] in, logits [b, classes] out,
any b, for cpu, cuda and tpu; the weights and the normalisation are inside). Of a space of one's own it holds its file
too, as `space.py`.
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from vimnas_jax import augment, runfolder, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.network import Network
from vimnas_jax.spaces import Genotype, Space

FILES = ('model.json', 'weights.safetensors', 'network.jaxexport')
PLATFORMS = ('cpu', 'cuda', 'tpu')
_SIZES = ('cells', 'channels', 'num_classes', 'imagenet')


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A trained network with what it needs to read images.

  Attributes:
    space: its search space.
    genotype: its architecture.
    net: the Flax module; on a CPU its kernels are at work (`apply`).
    variables: {'params', 'batch_stats'}.
    image_shape: (height, width, channels).
    mean: of each channel, pixel values scaled to 0 .. 1.
    std: of each channel, on the same scale.
    data: name of the data set it was trained on.
  """

  space: Space
  genotype: Genotype
  net: Network
  variables: Any
  image_shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  data: str

  def __call__(self, images):
    """Logits [n, classes] of uint8 images [n, h, w, c]. Traceable."""
    return apply(self.net, self.variables, augment.normalise(images, self.mean, self.std))


def apply(net: Network, variables, images):
  """Logits of normalised float images [n, h, w, c], as in evaluation.

  With net.kernels for this machine, and without a gradient; `net.clone(kernels=False)` is an ordinary function.
  """
  return net.apply(variables, images, False, rngs={'noise': jax.random.key(0)})


def write(folder, model: Model):
  """Writes the model into `folder`, file by file, each whole or not at all; the auxiliary head is left out."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  net = model.net.clone(auxiliary=False, kernels=False)
  variables = {kind: {name: value for name, value in jax.device_get(tree).items() if name != 'auxiliary'}
               for kind, tree in model.variables.items()}
  model = dataclasses.replace(model, net=net, variables=variables)
  arrays = {name: np.ascontiguousarray(a) for name, a in flatten_dict(variables, sep='/').items()}
  _whole(folder / 'weights.safetensors', safetensors.numpy.save(arrays))
  shape = jax.ShapeDtypeStruct((jax.export.symbolic_shape('b')[0], *model.image_shape), jnp.uint8)
  program = jax.export.export(jax.jit(model), platforms=PLATFORMS)(shape)
  _whole(folder / 'network.jaxexport', bytes(program.serialize()))
  if model.space.name.endswith('.py'):  # a space of one's own: its file goes along
    _whole(folder / 'space.py', pathlib.Path(model.space.name).expanduser().read_bytes())
  runfolder.write_json(folder / 'model.json', {
      'space': model.space.name, 'genotype': json.loads(model.genotype.to_json()),
      **{name: getattr(net, name) for name in _SIZES}, 'dtype': jnp.dtype(net.dtype).name,
      'image_shape': list(model.image_shape), 'mean': list(model.mean), 'std': list(model.std), 'data': model.data})


def _whole(path, content: bytes):
  part = path.with_name(path.name + '.part')
  part.write_bytes(content)
  part.replace(path)


def read(folder) -> Model:
  """The model that `write` wrote. Raises UserError if a file is missing, damaged, or of another network."""
  folder = pathlib.Path(folder)
  for name in FILES[:2]:
    if not (folder / name).is_file():
      raise UserError(f'{folder} holds no exported network ({name} is missing): give the folder `export` of a finished '
                      'retraining')
  try:
    told = json.loads((folder / 'model.json').read_text())
    own = told['space'].endswith('.py')
    space = dataclasses.replace(spaces.custom.load(str(folder / 'space.py')), name=told['space']) if own else (
        spaces.get(told['space']))
    genotype = Genotype.from_json(json.dumps(told['genotype']))
    net = Network(space=space, genotype=genotype, **{name: told[name] for name in _SIZES},
                  dtype=jnp.dtype(told['dtype']), kernels=True)
    image_shape = tuple(told['image_shape'])
  except (ValueError, KeyError, TypeError):
    raise UserError(f'{folder}/model.json is damaged: export the network again') from None
  path = folder / 'weights.safetensors'
  try:
    flat = safetensors.numpy.load_file(path)
  except (OSError, ValueError, safetensors.SafetensorError) as e:
    raise UserError(f'{path} is damaged ({str(e)[:80]}): export the network again') from None
  wanted = jax.eval_shape(lambda: net.init(dict.fromkeys(('params', 'noise'), jax.random.key(0)),
                                           jnp.zeros((1, *image_shape)), False))
  wanted = flatten_dict(dict(wanted), sep='/')
  for name, like in wanted.items():
    if name not in flat or flat[name].shape != like.shape:
      found = flat[name].shape if name in flat else 'nothing'
      raise UserError(f'{path}: {name} should have shape {like.shape}, found {found}: these weights are of another '
                      'network than model.json says')
  return Model(space, genotype, net, unflatten_dict(flat, sep='/'), image_shape, tuple(told['mean']),
               tuple(told['std']), told['data'])


def load_program(folder):
  """The exported program as a function: uint8 images [b, h, w, c] -> logits; it needs jax and flatbuffers."""
  path = pathlib.Path(folder) / 'network.jaxexport'
  try:
    return jax.export.deserialize(bytearray(path.read_bytes())).call
  except (OSError, ValueError) as e:
    raise UserError(f'{path} cannot be read ({str(e)[:80]}): export the network again') from None
