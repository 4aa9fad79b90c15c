"""How an image file becomes an array: one recipe, for training, for evaluation and for whoever predicts later.

A recipe is a dict of JSON values. `read` opens regular files of FORMATS alone, none of which starts another program or
reaches a network, and decodes nothing that has more pixels than allowed. An image is shown as any viewer shows it:
upright and in its colours (colours.py). Of several frames the first is taken.
"""

import contextlib
import logging
import os
import stat
import threading
import warnings

import numpy as np

from vimnas_jax.data import colours, crops
from vimnas_jax.data.colours import Unfit
from vimnas_jax.errors import UserError
from vimnas_jax.files import printable

FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM', 'AVIF', 'JPEG2000', 'QOI', 'PCX', 'SGI', 'ICO', 'PSD')
SUFFIXES = ('.png', '.apng', '.jpg', '.jpeg', '.jpe', '.jfif', '.webp', '.gif', '.bmp', '.tif', '.tiff', '.ppm', '.pgm',
            '.pbm', '.pnm', '.avif', '.jp2', '.mpo', '.qoi', '.pcx', '.sgi', '.ico', '.psd', '.tga')
MAX_PIXELS = 64_000_000  # as config.data.max_pixels
MAX_SIDE = 8000  # to which images are brought
LARGE = 8_000_000  # of images of more pixels than this one at a time is decoded, however many threads read
MOMENTS = {'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
_PHOTOGRAPH = 256 / 224  # ImageNet's evaluation: the shorter side, over the side of the cut
_TURNS = {2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_270',
          7: 'TRANSVERSE', 8: 'ROTATE_90'}  # EXIF's orientation -> what brings it upright
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as Pillow's mode L
_ORIENTATION = 0x0112  # the tag of EXIF
_KINDS = {stat.S_ISFIFO: 'a FIFO', stat.S_ISSOCK: 'a socket', stat.S_ISCHR: 'a device', stat.S_ISBLK: 'a device',
          stat.S_ISDIR: 'a folder'}


class Damaged(UserError):
  """A file that is read without an error and holds no image that is wanted; `reason` is that alone."""

  def __init__(self, name, reason, remedy):
    super().__init__(f'cannot read the image {name}{reason}: {remedy}')
    self.reason = reason.lstrip(': ').removeprefix('(').removesuffix(')')


class TooLarge(Unfit):
  """An image of more pixels than are allowed."""


_one_large = threading.Lock()
_counting = threading.Lock()
_readers, _before = 0, None


def recipes(config) -> tuple[dict, dict]:
  """The recipes of training and of test images that `config` (`image_size`, `photographs`) asks for.

  Raises:
    UserError: a number is out of range.
  """
  side, held = config.image_size, config.photographs
  if not 0 < side <= MAX_SIDE:
    raise UserError(f'config.data.image_size={side} must be from 1 to {MAX_SIDE}')
  if not held:
    return (_recipe(side, side, 'bicubic'),) * 2
  if held > MAX_SIDE:
    raise UserError(f'config.data.photographs={held} must be at most {MAX_SIDE}')
  if held < side:
    raise UserError(f'config.data.photographs={held} is less than config.data.image_size={side}: set '
                    f'config.data.photographs={round(side * _PHOTOGRAPH)}, or 0')
  return _recipe(held, 0, 'bilinear'), _recipe(side, round(side * _PHOTOGRAPH), 'bilinear')


def streamed(config) -> dict:
  """The recipe of images that are read one batch at a time and not cut at random (`image_size`, `photographs`,
  `smallest`): where training takes random parts, that of ImageNet's evaluation. Raises what `recipes` raises.
  """
  side = config.image_size
  plain = recipes(config)[1]
  return _recipe(side, round(side * _PHOTOGRAPH), 'bilinear') if config.smallest else plain


def _recipe(side, shorter, resampling):
  return {'rule': 1, 'mode': 'RGB', 'side': side, 'shorter_side': shorter, 'fit': 'centre' if shorter else 'squeeze',
          'resampling': resampling, 'orientation': 'exif', 'transparency': 'black', 'wide': '8 bits'}


def check_recipe(recipe):
  """Raises UserError unless `recipe`, which may come from a file, is one that `recipes` gives."""
  try:
    side, shorter, resampling = (recipe[key] for key in ('side', 'shorter_side', 'resampling'))
    known = (dict(recipe) == _recipe(side, shorter, resampling) and resampling in ('bicubic', 'bilinear') and
             type(side) is type(shorter) is int and 0 < side <= MAX_SIDE and
             (shorter == 0 or side <= shorter <= 2 * side))
  except (KeyError, TypeError, ValueError):
    known = False
  if not known:
    raise UserError(f'no way to read an image that is known here: {printable(recipe)[:200]}: take the recipe of this '
                    'version, as data.get gives it in Data.recipe')


def read(path, recipe, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """The image in the file `path` as `recipe` makes it an array: uint8 [side, side, 3].

  Raises:
    UserError: no regular file, no image of FORMATS, too large, damaged, of unknown range, or a failed read.
  """
  return _read(path, recipe, max_pixels)[0]


def read_with_aspect(path, recipe, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, float]:
  """As `read`, and width / height of the upright image."""
  return _read(path, recipe, max_pixels)


def _read(path, recipe, max_pixels):
  check_recipe(recipe)
  name = printable(path)
  try:
    if reason := irregular(path):
      raise Unfit(f'it is {reason}: remove it')
    with open(path, 'rb') as file:
      return decode(file, recipe, max_pixels, suffix=os.path.splitext(path)[1])
  except Unfit as e:
    reason, _, remedy = str(e).rpartition(': ')
    raise Damaged(name, f': {reason}', remedy) from None
  except MemoryError:
    raise UserError(f'cannot read the image {name}: out of memory; lower config.data.max_pixels={max_pixels} to find '
                    'such images') from None
  except OSError as e:
    if e.errno is None:  # Pillow's own, on damage
      raise _damaged(name, e) from None
    raise UserError(f'cannot read the image {name} ({e.strerror}): make it readable, and run again') from None
  except Exception as e:  # Pillow raises many kinds for a damaged file
    raise _damaged(name, e) from None


def _damaged(name, e):
  reason = printable(' '.join(str(e).split())[:100])
  return Damaged(name, f' ({type(e).__name__}: {reason})', 'repair or remove it')


def read_for(path, recipe, shape, max_pixels: int = MAX_PIXELS, shrink: int = 1) -> np.ndarray:
  """The image in the file `path` as a network that was trained with `recipe` reads it: uint8 `shape`, [h, w, c].

  Without a recipe, {}, images were arrays from the start: the file is then brought to the size that these had, cut at
  the centre, and where c is 1 to grey. Squares of `shrink` pixels, which config.data.shrink averaged, are averaged.
  Raises UserError as `read`.
  """
  h, w, channels = shape
  if h != w or channels not in (1, 3):
    raise UserError(f'the network reads images of {h}x{w} pixels and {channels} channels, which image files are not '
                    'brought to: give it arrays from Python')
  image = read(path, recipe or _recipe(shrink * h, shrink * h, 'bicubic'), max_pixels)
  by = image.shape[0] // h
  if by > 1:
    image = np.rint(image.reshape(h, by, w, by, 3).mean((1, 3), dtype=np.float32)).astype(np.uint8)
  if image.shape[:2] != (h, w):
    raise UserError(f'the network reads images of {h}x{w} pixels, and its recipe makes {image.shape[0]}x'
                    f'{image.shape[1]} of a file: export it again')
  return image if channels == 3 else np.rint(image @ np.float32(_GREY))[..., None].astype(np.uint8)


def irregular(path) -> str:
  """What a path is if it is no regular file, a word such as 'a FIFO'; '' if it is one. Raises OSError."""
  mode = os.stat(path).st_mode  # opening alone would wait for the other end of a FIFO
  return '' if stat.S_ISREG(mode) else next((word for test, word in _KINDS.items() if test(mode)), 'no file')


def is_image(path) -> bool:
  """Whether the regular file `path` begins as an image of FORMATS does, whatever its suffix. Raises OSError."""
  try:
    with open(path, 'rb') as file, unlimited():
      _open(file, '')
    return True
  except OSError as e:
    if e.errno is not None:
      raise
    return False
  except Exception:  # a file of another kind that happens to begin alike
    return False


def shorter_side(path) -> int:
  """Pixels of the shorter side of the image in a file, by its header; 0 where it has none that can be read."""
  try:
    with open(path, 'rb') as file:
      return side_of(file, os.path.splitext(path)[1])
  except OSError:  # told where it is read whole
    return 0


def side_of(file, suffix: str = '') -> int:
  """`shorter_side` of an open file."""
  try:
    with unlimited():
      return min(_open(file, suffix).size)
  except Exception:
    return 0


def decode(file, recipe, max_pixels: int = MAX_PIXELS, suffix: str = '') -> tuple[np.ndarray, float]:
  """The image in an open file as `recipe` makes it an array, and its width / height.

  Raises whatever Pillow raises on damage, and what `read` turns into one line.
  """
  least = 2 * (recipe['shorter_side'] or recipe['side'])
  with opened(file, max_pixels, suffix, least) as (image, raw):
    return _fit(image, raw, recipe)


def part(file, side: int, smallest: float, u, max_pixels: int = MAX_PIXELS, suffix: str = '') -> np.ndarray:
  """A random part (crops.py) of the upright image in an open file, uint8 [side, side, 3], by the numbers `u`.

  Raises what `decode` raises.
  """
  with opened(file, max_pixels, suffix, crops.sufficient(side, smallest)) as (image, raw):
    return np.asarray(crops.resized(_upright(image, raw), (side, side), smallest, u))


@contextlib.contextmanager
def opened(file, max_pixels: int, suffix: str = '', least: int = 0):
  """Gives (the loaded image of Pillow's in an open file, how its pixels lie there).

  Args:
    file: open for reading.
    max_pixels: an image of more is refused, undecoded.
    suffix: of the file's name.
    least: pixels of the shorter side that suffice, for images that can be decoded at a fraction; 0 for all.
  """
  with unlimited():
    image = openable(file, max_pixels, suffix)
    with _one_large if image.width * image.height > LARGE else contextlib.nullcontext():
      if least and min(image.size) >= least:
        image.draft('RGB', (least, least))  # a large JPEG is decoded at a fraction of its size
      raw = colours.layout(image)
      image.load()  # the orientation of a PNG may lie behind its pixels, and Pillow itself turns a TIFF
      yield image, raw


@contextlib.contextmanager
def unlimited():
  """Takes Pillow's own limit of pixels away while any thread reads, for ours is asked instead; and its remarks.

  Around the reading of many images it spares doing so for each.
  """
  from PIL import Image
  global _readers, _before
  with _counting:
    if not _readers:
      _before = Image.MAX_IMAGE_PIXELS, warnings.catch_warnings()
      Image.MAX_IMAGE_PIXELS = None
      _before[1].__enter__()
      warnings.simplefilter('ignore')
    _readers += 1
  try:
    yield
  finally:
    with _counting:
      _readers -= 1
      if not _readers:
        Image.MAX_IMAGE_PIXELS = _before[0]
        _before[1].__exit__()


def openable(file, max_pixels: int, suffix: str = ''):
  """Pillow's image in an open file, not loaded yet; arguments are those of `opened`. To be called within `unlimited`.

  Raises what `opened` raises.
  """
  image = _open(file, suffix)
  pixels = image.width * image.height
  if pixels > max_pixels:
    raise TooLarge(f'{image.width}x{image.height} are {pixels} pixels, more than config.data.max_pixels='
                   f'{max_pixels}: scale it down, or raise config.data.max_pixels')
  return image


def _open(file, suffix):
  from PIL import Image
  Image.init()
  if (logger := logging.getLogger('PIL')).level != logging.CRITICAL:  # to set it, even to what it is, costs time
    logger.setLevel(logging.CRITICAL)  # damage is told in one line of ours
  # TGA by its suffix alone: its files begin with nothing of their own
  formats = (*FORMATS, *(('TGA',) if suffix.lower() == '.tga' else ()))
  formats = [name for name in formats if name in Image.OPEN]  # an older Pillow has no AVIF
  try:
    return Image.open(file, formats=formats)
  except Image.UnidentifiedImageError:
    raise Unfit(f'it is damaged, or none of {", ".join(formats)}: repair or remove it') from None


def _fit(image, raw, recipe):
  from PIL import Image, ImageOps
  side, shorter = recipe['side'], recipe['shorter_side']
  image = _upright(image, raw)
  aspect, how = image.width / image.height, Image.Resampling[recipe['resampling'].upper()]
  if recipe['fit'] == 'squeeze':
    image = image.resize((side, side), how)
  elif shorter == side:
    image = ImageOps.fit(image, (side, side), how)
  else:  # as torchvision scales the shorter side and cuts, without the part that is cut away
    scale = min(image.size) / shorter
    whole = [max(shorter, int(length / scale)) for length in image.size]
    start = [round((length - side) / 2) for length in whole]
    ratio = [length / scaled for length, scaled in zip(image.size, whole)]
    box = [s * r for s, r in zip(start, ratio)] + [min((s + side) * r, n)
                                                   for s, r, n in zip(start, ratio, image.size)]
    image = image.resize((side, side), how, box)
  return np.asarray(image), aspect


def _upright(image, raw):
  from PIL import Image
  turn = _turn(image)
  image = colours.rgb(image, raw)
  return image.transpose(Image.Transpose[turn]) if turn else image


def _turn(image):
  try:
    return _TURNS.get(image.getexif().get(_ORIENTATION))
  except Exception:  # damaged EXIF: as in any viewer, it says nothing
    return None


def moments(images) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and standard deviation of each channel of uint8 [n, h, w, c], pixel values scaled to 0 .. 1."""
  pixels = images.reshape(-1, images.shape[-1])

  def blocks():  # one at a time: a float copy of everything would take eight times the memory
    return (b.astype(np.float64) / 255 for b in np.array_split(pixels, max(1, len(pixels) // 10**6)))

  mean = sum(b.sum(0) for b in blocks()) / len(pixels)
  std = np.sqrt(sum(np.square(b - mean).sum(0) for b in blocks()) / len(pixels))
  return tuple(mean.tolist()), tuple(np.maximum(std, 1e-3).tolist())
