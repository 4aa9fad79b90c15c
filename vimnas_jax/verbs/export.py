"""A trained network on disk, as others use it: genotype, weights, and a program that needs none of this code.

The folder holds `model.json` (what the network is), `weights.safetensors` (parameters and running statistics, names
joined by '/') and `network.jaxexport` (a jax.export artefact: uint8 images [b, h, w, c] in, logits [b, classes] out,
any b, for cpu, cuda and tpu; the weights and the normalisation are inside). Of a space of one's own it holds its file
too, as `space.py`. `model.json` has the SHA-256 of the others, and of itself.
"""

import dataclasses
import functools
import hashlib
import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from vimnas_jax import files, spaces
from vimnas_jax.data import augment, pixels
from vimnas_jax.errors import UserError
from vimnas_jax.networks import cost, ops
from vimnas_jax.networks.network import Network
from vimnas_jax.runs import runfolder
from vimnas_jax.spaces import Genotype, Space

FILES = ('model.json', 'weights.safetensors', 'network.jaxexport')
PLATFORMS = ('cpu', 'cuda', 'tpu')
BATCH = 16  # images that are predicted at a time
_SIZES = ('cells', 'channels', 'num_classes', 'imagenet')
_MOST = {'cells': 1000, 'channels': 1 << 16, 'num_classes': 1 << 20}  # beyond them nothing is built
_REMEDY = 'export the network again'


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
    class_names: of the logits, in their order; () where they are not known.
    recipe: how an image file becomes an array, as data.Data has it; {} where images were arrays from the start.
    shrink: squares of so many pixels of those arrays were averaged (config.data.shrink); 0 where an older
      export does not say.
    code: the file of a space of one's own, if it came with the export; None takes the one that space.name names.
  """

  space: Space
  genotype: Genotype
  net: Network
  variables: Any
  image_shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  data: str
  class_names: tuple[str, ...] = ()
  recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  code: bytes | None = None
  shrink: int = 1

  def __repr__(self):
    return (f'<Model of space {self.space.name!r}, data {self.data!r}: images {self.image_shape}, classes '
            f'{", ".join(self.class_names) or "without names"}>')

  def __call__(self, images):
    """Logits [n, classes] of uint8 images [n, h, w, c]. Traceable. Raises UserError on arrays of another kind."""
    self._check(images, 4)
    return apply(self.net, self.variables, augment.normalise(images, self.mean, self.std))

  @functools.cached_property
  def _probabilities(self):
    return jax.jit(lambda images: jax.nn.softmax(self(images).astype(jnp.float32)))

  def probabilities(self, images) -> np.ndarray:
    """Float32 [n, classes], rows that sum to 1, of uint8 images [n, h, w, c], BATCH at a time. Raises as a call."""
    self._check(images, 4)
    rows = []
    for start in range(0, len(images), BATCH):
      part = np.asarray(images[start:start + BATCH])
      full = np.concatenate([part, np.zeros((-len(part) % BATCH, *part.shape[1:]), np.uint8)])  # one program for all
      rows.append(np.asarray(self._probabilities(full))[:len(part)])
    return np.concatenate(rows)

  def _check(self, images, rank):
    """Raises UserError on what the network was not trained on, as pixels scaled to 0 .. 1: its logits mean nothing."""
    shape, dtype = getattr(images, 'shape', ()), getattr(images, 'dtype', type(images).__name__)
    if len(shape) != rank or shape[-3:] != self.image_shape or dtype != np.uint8:
      raise UserError(f'{"an image is" if rank == 3 else "images are"} {dtype} of shape {shape}; this network reads '
                      f'uint8 {self.image_shape if rank == 3 else ("n", *self.image_shape)}: pixels from 0 to 255')

  def read(self, path, max_pixels: int = pixels.MAX_PIXELS) -> np.ndarray:
    """The image in a file as the network was trained to see it, uint8 [h, w, c]. Raises UserError on a bad file."""
    return pixels.read_for(path, self.recipe, self.image_shape, max_pixels, self.shrink or 1)

  def named(self, probabilities, top: int = 3) -> list[tuple[str, float]]:
    """The `top` likeliest (class, probability) of one row of `probabilities`, the likeliest first."""
    order = np.argsort(-probabilities, kind='stable')[:top]
    return [(self.class_names[i] if self.class_names else str(i), float(probabilities[i])) for i in order]

  def predict(self, image, top: int = 3) -> list:
    """What is on an image: the `top` likeliest (class, probability), as [('tulip', 0.97), ...].

    Args:
      image: the path of a file, or uint8 [h, w, c]; or a list or tuple of such, for a list of what is on each.
      top: how many.

    Raises:
      UserError: a file is no image that can be read, or an array of another shape.
    """
    if isinstance(image, list | tuple):
      return [self.predict(each, top) for each in image]
    if not hasattr(image, 'shape') and pathlib.Path(image).is_dir():
      raise UserError(f'{files.printable(image)} is a folder: give an image or a list of them; '
                      '--config=predict --config.images=FOLDER names what is in a folder')
    given = np.asarray(image) if hasattr(image, 'shape') else self.read(image)
    self._check(given, 3)
    return self.named(self.probabilities(given[None])[0], top)


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
  shape = jax.ShapeDtypeStruct((jax.export.symbolic_shape('b')[0], *model.image_shape), jnp.uint8)
  with ops.portable():
    program = jax.export.export(jax.jit(model), platforms=PLATFORMS)(shape)
  parts = {'weights.safetensors': safetensors.numpy.save(arrays), 'network.jaxexport': bytes(program.serialize())}
  if model.space.name.endswith('.py'):  # a space of one's own: its file goes along
    parts['space.py'] = model.code or files.read_bytes(pathlib.Path(model.space.name).expanduser())
  for name, content in parts.items():
    files.write(folder / name, content)
  facts = {
      'space': model.space.name, 'genotype': json.loads(model.genotype.to_json()),
      **{name: getattr(net, name) for name in _SIZES}, 'dtype': jnp.dtype(net.dtype).name,
      'image_shape': list(model.image_shape), 'mean': list(model.mean), 'std': list(model.std), 'data': model.data,
      'class_names': list(model.class_names), 'recipe': dict(model.recipe), 'shrink': model.shrink,
      'sha256': {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}}
  files.write_json(folder / 'model.json', facts | {'content_sha256': _digest(facts)})


def _digest(facts) -> str:
  """Of what model.json says, however it is laid out."""
  content = {name: value for name, value in facts.items() if name != 'content_sha256'}
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def locate(folder) -> pathlib.Path:
  """The export of a run folder, that of the retraining after a search there, or `folder` itself if it is one.

  Raises UserError if there is none.
  """
  folder = pathlib.Path(folder)
  inside = (folder / 'export', folder / 'retrain' / 'export')
  place = next((place for place in inside if place.is_dir()), folder)
  if place == inside[1] and not runfolder.follows(folder):
    raise UserError(f'{files.printable(place.parent)} holds the network of another architecture than its search has '
                    'found since: give that folder itself for the old network, or move it away and train the new one')
  folder = place
  for name in FILES[:2]:
    if not (folder / name).is_file():
      raise UserError(f'{files.printable(folder)} holds no exported network ({name} is missing): give the folder '
                      '`export` of a finished retraining')
  return folder


def fingerprint(folder) -> str:
  """SHA-256 of the weights of an export, or of that of a run folder: the same wherever it lies."""
  return hashlib.sha256(files.read_bytes(locate(folder) / 'weights.safetensors')).hexdigest()


def read(folder, trusted: Iterable = ()) -> Model:
  """The model that `write` wrote into `folder`, or into the folder `export` in it.

  Args:
    folder: where it is.
    trusted: Python files that may be executed. An export of a space of one's own has its code, `space.py`, which is
      executed if one of them has the same content; [folder / 'space.py'] trusts the export.

  Raises:
    UserError: a file is missing, cannot be read, is damaged or of another network, or is code that nobody asked for.
      All is checked before a network is built.
  """
  folder = locate(folder)
  facts, where = _facts(folder), files.printable(folder / 'model.json')
  raw = {name: files.read_bytes(folder / name) for name in ('weights.safetensors', 'network.jaxexport', 'space.py')
         if (folder / name).is_file()}
  for name, content in raw.items():
    _same(folder / name, content, facts)
  try:
    brought = facts['space'].endswith('.py')
    if brought:
      path = str(folder / 'space.py')
      named = spaces.named(path, files.printable(folder), [str(path) for path in trusted])
      space = dataclasses.replace(named, name=facts['space'])
    else:
      space = spaces.named(facts['space'], where)
    genotype = space.validate(Genotype.from_json(json.dumps(facts['genotype'])))
    size = {name: facts[name] for name in _SIZES}
    counted = cost.count(space, genotype, **size, image_size=tuple(facts['image_shape'][:2]),
                         in_channels=facts['image_shape'][-1])
  except UserError as e:
    raise UserError(str(e) if '--config.trust' in str(e) else f'{where} is damaged ({e}): {_REMEDY}') from None
  net = Network(space=space, genotype=genotype, **size, dtype=jnp.dtype(facts['dtype']), kernels=True)
  image_shape = tuple(facts['image_shape'])
  variables = _variables(folder / 'weights.safetensors', raw['weights.safetensors'], net, image_shape, counted.params)
  return Model(space, genotype, net, variables, image_shape, tuple(facts['mean']), tuple(facts['std']), facts['data'],
               tuple(facts.get('class_names', ())), facts.get('recipe', {}),
               raw.get('space.py'), facts.get('shrink') or _shrink(folder))


def _shrink(folder) -> int:
  """config.data.shrink of the training that an older export came from, where its run folder still has the export; 0
  where it is not known.
  """
  try:
    found = files.read_json(folder.parent / 'config.json').get('data')
  except (OSError, UserError):  # none, or one of another program
    return 0
  by = found.get('shrink') if isinstance(found, dict) else None
  return by if _count(pixels.MAX_SIDE, by) else 0


def _facts(folder) -> dict:
  """What model.json says, its types and sizes checked."""
  path = folder / 'model.json'
  facts = files.read_json(path, _REMEDY)
  try:
    changed = 'content_sha256' in facts and facts['content_sha256'] != _digest(facts)
  except RecursionError:  # nested too deep to be written again: no model.json of ours
    changed = True
  if changed:
    raise UserError(f'{files.printable(path)} is damaged (it is not as it was written): {_REMEDY}')
  for name, (fits, wanted) in _FIELDS.items():
    if (name in facts or name not in _NEWER) and not (name in facts and fits(facts[name])):
      raise UserError(f'{files.printable(path)} is damaged ({name}={facts.get(name)!r:.60}, it must be {wanted}): '
                      f'{_REMEDY}')
  channels, names = facts['image_shape'][-1], facts.get('class_names')
  if len(facts['mean']) != channels or len(facts['std']) != channels or min(facts['std']) <= 0:
    raise UserError(f'{files.printable(path)} is damaged (mean={facts["mean"]!r:.60} and std={facts["std"]!r:.60} need '
                    f'{channels} numbers, std above 0): {_REMEDY}')
  if names and (len(names) != facts['num_classes'] or len(set(names)) != len(names)):
    raise UserError(f'{files.printable(path)} is damaged ({len(names)} names, {len(set(names))} of them different, for '
                    f'{facts["num_classes"]} classes): {_REMEDY}')
  return facts


def _count(most, value) -> bool:
  return type(value) is int and 1 <= value <= most


def _all(kind, value) -> bool:
  return isinstance(value, list) and all(type(v) in kind and (type(v) is str or math.isfinite(v)) for v in value)


_NEWER = ('class_names', 'recipe', 'sha256', 'shrink')  # older exports lack them
_FIELDS = {
    'space': (lambda v: isinstance(v, str), 'text'), 'genotype': (lambda v: isinstance(v, dict), 'an object'),
    **{name: (functools.partial(_count, most), f'a whole number from 1 to {most}') for name, most in _MOST.items()},
    'imagenet': (lambda v: isinstance(v, bool), 'true or false'),
    'dtype': (lambda v: v in ('float32', 'bfloat16', 'float64'), 'float32 or bfloat16'),
    'image_shape': (lambda v: _all((int,), v) and len(v) == 3 and all(1 <= n <= _MOST['channels'] for n in v),
                    '[height, width, channels]'),
    'mean': (lambda v: _all((int, float), v), 'finite numbers'),
    'std': (lambda v: _all((int, float), v) and v, 'finite numbers'),
    'data': (lambda v: isinstance(v, str), 'text'), 'class_names': (lambda v: _all((str,), v), 'a list of names'),
    'recipe': (lambda v: isinstance(v, dict), 'an object'),
    'shrink': (functools.partial(_count, pixels.MAX_SIDE), f'a whole number from 1 to {pixels.MAX_SIDE}'),
    'sha256': (lambda v: isinstance(v, dict), 'an object')}


def _same(path, content, facts):
  """Raises UserError where model.json has another digest of a file."""
  wanted = facts.get('sha256', {}).get(path.name) if isinstance(facts.get('sha256'), dict) else None
  if wanted is not None and wanted != hashlib.sha256(content).hexdigest():
    raise UserError(f'{files.printable(path)} is damaged or of another export (its SHA-256 is not the one in '
                    f'model.json): {_REMEDY}')


def _variables(path, content, net, image_shape, params):
  """The tree of the weights. Raises UserError unless they are finite and exactly what `net` has."""
  shown = files.printable(path)
  try:
    flat = safetensors.numpy.load(content)
  except Exception as e:  # the library's own error, and what numpy says of types that it lacks
    raise UserError(f'{shown} is damaged ({str(e)[:80]}): {_REMEDY}') from None
  held = sum(a.size for name, a in flat.items() if name.startswith('params/'))
  if held != params:  # so that what is built next is no larger than the file
    raise UserError(f'{shown} has {held:,} parameters, the network of model.json {params:,}: these weights are of '
                    f'another network; {_REMEDY}')
  wanted = jax.eval_shape(lambda: net.init(dict.fromkeys(('params', 'noise'), jax.random.key(0)),
                                           jnp.zeros((1, *image_shape)), False))
  wanted = flatten_dict(dict(wanted), sep='/')
  for name in sorted(wanted.keys() | flat.keys()):
    like, found = (of.get(name) for of in (wanted, flat))
    if like is None or found is None or (like.shape, like.dtype) != (found.shape, found.dtype):
      words = [f'{a.dtype} of shape {a.shape}' if a is not None else 'nothing' for a in (like, found)]
      raise UserError(f'{shown}: {name} should be {words[0]}, found {words[1]}: these weights are of another network '
                      f'than model.json says; {_REMEDY}')
    if not np.isfinite(found).all() or (name.startswith('batch_stats/') and name.endswith('/var') and found.min() < 0):
      raise UserError(f'{shown} is damaged ({name} has numbers that are not finite, or a variance below 0): {_REMEDY}')
  return unflatten_dict(flat, sep='/')


def load_program(folder):
  """The exported program as a function: uint8 images [b, h, w, c] -> logits; it needs jax and flatbuffers.

  Raises UserError if it is missing, cannot be read, or is damaged.
  """
  path = pathlib.Path(folder) / 'network.jaxexport'
  content = files.read_bytes(path)
  if path.with_name('model.json').is_file():
    _same(path, content, files.read_json(path.with_name('model.json'), _REMEDY))
  try:
    return jax.export.deserialize(bytearray(content)).call
  except Exception as e:  # flatbuffers and MLIR raise many kinds for bytes that are not theirs
    raise UserError(f'{files.printable(path)} is damaged ({type(e).__name__}: {str(e)[:80]!r}): {_REMEDY}') from None
