"""The colours of an image as any viewer shows them: wide values scaled to 8 bits, transparency over black.

What cannot be known, such as the range of floating point values, is refused. Colour profiles are not applied.
"""

import numpy as np

_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


class Unfit(Exception):
  """An image that is whole but is not read; its text says why and what helps."""


def layout(image) -> str:
  """How the pixels of an image that is not loaded yet lie in its file, in Pillow's words, such as 'L;2'."""
  args = image.tile[0][3] if image.tile else ''
  return str(args[0] if isinstance(args, tuple | list) and args else args)


def rgb(image, raw: str = ''):
  """A loaded image of Pillow's, of any mode, in mode RGB: wide values in 8 bits, over black where it is transparent.

  Args:
    image: as it was opened, not yet changed.
    raw: its `layout`, taken before it was loaded.

  Raises Unfit on a mode whose range is not known.
  """
  from PIL import Image
  if image.mode == 'I' or image.mode.startswith('I;'):
    return _wide(image).convert('RGB')
  if image.mode in ('RGBa', 'La'):  # premultiplied, which is over black already
    bands = image.split()
    return Image.merge('RGB', bands[:3] if len(bands) == 4 else bands[:1] * 3)
  if image.mode == 'LAB':
    from PIL import ImageCms
    return ImageCms.profileToProfile(image, ImageCms.createProfile('LAB'), ImageCms.createProfile('sRGB'),
                                     outputMode='RGB')
  if image.mode in ('1', 'L', 'RGB'):
    key = _transparent(image.info.pop('transparency', None), raw)
    if key is None:
      return image.convert('RGB')
    image.info['transparency'] = key
  elif image.mode in ('RGBX', 'CMYK', 'YCbCr', 'HSV'):
    return image.convert('RGB')
  elif image.mode not in ('P', 'PA', 'LA', 'RGBA'):
    raise Unfit(f'its values (mode {image.mode}) have no range that is known: save it with 8 bits a channel')
  image = image.convert('RGBA')
  if image.getchannel('A').getextrema()[0] < 255:
    image = Image.alpha_composite(Image.new('RGBA', image.size, (0, 0, 0, 255)), image)
  return image.convert('RGB')


def _transparent(key, raw):
  """The transparent colour of a file on the scale of the pixels that Pillow gives; None where there is none."""
  if key is None:
    return None
  scale = {'L;2': 85, 'L;4': 17}.get(raw, 1)  # Pillow scales such pixels, but not this
  shift = 8 if ';16' in raw else 0
  scaled = tuple(scale * (value >> shift) for value in (key if isinstance(key, tuple) else (key,)))
  return None if max(scaled) > 255 else scaled if isinstance(key, tuple) else scaled[0]


def _wide(image):
  """Grey values of 16 bits, or of the fewer that a TIFF names, as an image of 8 bits."""
  from PIL import Image
  tags = getattr(image, 'tag_v2', {})
  if image.mode == 'I' and image.format not in ('PNG', 'PPM'):  # of these Pillow knows the range
    raise Unfit(f'its values (mode {image.mode}, {image.format}) have no range that is known: save it with 8 or 16 '
                 'bits, unsigned')
  top = 2 ** tags.get(_BITS, (16,))[0] - 1
  values = np.asarray(image).astype(np.uint32)
  if 'transparency' in image.info:
    values[values == image.info['transparency']] = 0
  if tags.get(_PHOTOMETRIC) == 0:
    values = top - np.minimum(values, top)  # 0 is white there, which Pillow heeds for 8 bits alone
  return Image.fromarray(((values * 255 + top // 2) // top).clip(0, 255).astype(np.uint8))
