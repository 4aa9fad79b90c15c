"""Opens the ArrayRecord files of a TFDS set, without TensorFlow, and decodes images whose size is fixed."""

import contextlib
import io
import logging
import pathlib
import warnings

import numpy as np

from vimnas_jax.data import colours, crops, pixels
from vimnas_jax.errors import UserError
from vimnas_jax.files import printable

MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}  # channels of images of a fixed size -> Pillow's mode


@contextlib.contextmanager
def quiet():
  """Keeps the remarks of TFDS (missing OpenCV, missing credentials) off the console."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logger.setLevel(level)


@contextlib.contextmanager
def readable(path: pathlib.Path):
  """Turns whatever goes wrong while the set in the version folder `path` is read into one line, a UserError."""
  where = printable(path)
  try:
    yield
  except UserError:
    raise
  except MemoryError:
    raise UserError(f'the images of {where} do not fit into memory: lower config.data.image_size, or set '
                    'config.data.dir to a smaller set') from None
  except Exception as e:  # TFDS and array_record raise whatever they please
    if isinstance(e, OSError) and e.errno is not None and not isinstance(e, FileNotFoundError):
      raise UserError(f'cannot read the TFDS data in {where} ({e.strerror}): make it readable, and run again; or set '
                      'config.data.dir elsewhere') from None
    reason = printable(' '.join(str(e).split())[:200])
    raise UserError(f'cannot read the TFDS data in {where} ({type(e).__name__}: {reason}); prepare it again with '
                    'file_format=array_record, or set config.data.dir elsewhere') from None


def undecoded(path: pathlib.Path, part: str):
  """The split `part` of the set in the version folder `path`: `[i]` gives {'image': bytes, 'label': int}."""
  with quiet():
    import tensorflow_datasets as tfds  # slow to import, so only when asked for
    return tfds.builder_from_directory(path).as_data_source(part, decoders={'image': tfds.decode.SkipDecoding()})


def parsed(record: bytes) -> tuple[bytes, int]:
  """(The encoded image, the label) of a record as it lies in the file. Raises LookupError where it has not both."""
  from tensorflow_datasets.proto import tf_example_pb2
  found = tf_example_pb2.Example.FromString(record).features.feature
  image, label = found['image'].bytes_list.value, found['label'].int64_list.value
  if len(image) != 1 or len(label) != 1:
    raise LookupError('a record has no image, or no label')
  return image[0], label[0]


def exact(record: bytes, shape: tuple[int, int, int]) -> np.ndarray:
  """An encoded image of a fixed size: uint8 of `shape`, in the colours that its channels ask for."""
  with pixels.opened(io.BytesIO(record), shape[0] * shape[1]) as (image, raw):
    return _array(image, raw, shape)


def exact_within(record: bytes, shape: tuple[int, int, int]) -> np.ndarray:
  """The same, of one image of many, read one after the other within one `pixels.unlimited`."""
  image = pixels.openable(io.BytesIO(record), shape[0] * shape[1])
  raw = colours.layout(image)
  image.load()
  return _array(image, raw, shape)


def _array(image, raw, shape):
  if image.size != (shape[1], shape[0]):
    raise ValueError(f'it is {image.height}x{image.width}, not {shape[0]}x{shape[1]}')
  mode = MODES[shape[-1]]
  if image.mode != mode or 'transparency' in image.info:
    image = image.convert('RGBA') if mode == 'RGBA' and image.mode in ('P', 'PA', 'LA') else \
        colours.rgb(image, raw).convert(mode)
  return np.asarray(image).reshape(shape)


def part(image: np.ndarray, smallest: float, u: np.ndarray) -> np.ndarray:
  """A random part (crops.py) of an image that `exact` gave, of its own shape."""
  from PIL import Image
  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  return np.asarray(crops.resized(picture, image.shape[:2], smallest, u)).reshape(image.shape)
