import errno
import io
import json
import os
import socket
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from conftest import data_config, one_line
from PIL import Image, ImageOps

from vimnas_jax.data import colours, pixels
from vimnas_jax.errors import UserError


def recipe(side=4, photographs=0):
  return pixels.recipes(data_config('folder', image_size=side, photographs=photographs))


def first_row(path, side=4, **limits):
  """The grey values of the first row, of an image whose channels agree."""
  got = pixels.read(path, recipe(side)[0], **limits)
  assert got.dtype == np.uint8 and got.shape == (side, side, 3)
  assert (got == got[..., :1]).all()
  return got[0, :, 0].tolist()


def png(depth, color, row, trns=None, palette=None, size=(4, 4), extra=()):
  """A PNG, written by hand where Pillow writes none such: every row is `row`."""
  def chunk(kind, body):
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
  parts = [(b'IHDR', struct.pack('>IIBBBBB', *size, depth, color, 0, 0, 0)), (b'PLTE', palette), (b'tRNS', trns),
           *extra, (b'IDAT', zlib.compress((b'\0' + row) * size[1])), (b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(kind, body) for kind, body in parts if body is not None)


def tiff(values, photometric, bits=16, sample=1):
  """A grey TIFF of 4x4, written by hand."""
  tags = {256: 4, 257: 4, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: 4, 279: len(values), 339: sample}
  tags[273] = 8 + 2 + 12 * len(tags) + 4
  return (b'II*\0' + struct.pack('<IH', 8, len(tags)) +
          b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags.items()) + bytes(4) + values)


SIXTEEN = np.array([[0, 32768, 65535, 8192]] * 4, np.uint16)


@pytest.mark.parametrize('name, content, want', [
    ('a.png', png(16, 0, SIXTEEN[0].astype('>u2').tobytes()), [0, 128, 255, 32]),
    ('a.tif', tiff(SIXTEEN.tobytes(), 1), [0, 128, 255, 32]),
    ('white_is_0.tif', tiff(SIXTEEN.tobytes(), 0), [255, 127, 0, 223]),
    ('12.tif', tiff(bytes([0, 8, 0, 255, 244, 0] * 4), 1, 12), [0, 128, 255, 64]),
    ('a.pgm', b'P5 4 4 65535\n' + SIXTEEN.astype('>u2').tobytes(), [0, 128, 255, 32]),
    ('10.pgm', b'P5 4 4 1023\n' + np.array([[0, 512, 1023, 128]] * 4, '>u2').tobytes(), [0, 128, 255, 32])])
def test_wide_grey_is_scaled(tmp_path, name, content, want):
  (tmp_path / name).write_bytes(content)
  np.testing.assert_allclose(first_row(tmp_path / name), want, atol=1)


def test_a_ramp_of_16_bits(tmp_path):
  Image.fromarray(np.repeat((np.arange(8) * 8192).astype(np.uint16)[None], 8, 0)).save(tmp_path / 'ramp.png')
  np.testing.assert_allclose(first_row(tmp_path / 'ramp.png', 8), np.arange(8) * 32, atol=1)


@pytest.mark.parametrize('name, content, mode', [
    ('float.tif', np.ones((4, 4), np.float32), 'F'), ('int.tif', np.ones((4, 4), np.int32), 'I'),
    ('signed.tif', tiff(SIXTEEN.tobytes(), 1, sample=2), 'I')])
def test_an_unknown_range_is_refused(tmp_path, name, content, mode):
  path = tmp_path / name
  if isinstance(content, bytes):
    path.write_bytes(content)
  else:
    Image.fromarray(content).save(path)
  with pytest.raises(UserError, match=rf'{name}: its values \(mode {mode}') as e:
    first_row(path)
  one_line(e)


@pytest.mark.parametrize('content, want', [
    (png(1, 0, bytes([0b01010000]), trns=b'\0\1'), [0, 0, 0, 0]),
    (png(2, 0, bytes([0b00011011]), trns=b'\0\3'), [0, 85, 170, 0]),
    (png(4, 0, bytes([0x0f, 0xf7]), trns=b'\0\x0f'), [0, 0, 0, 119]),
    (png(8, 0, bytes([10, 200, 10, 200]), trns=b'\0\xc8'), [10, 0, 10, 0]),
    (png(8, 0, bytes([10, 200, 10, 200]), trns=b'\1\xc8'), [10, 200, 10, 200]),
    (png(16, 0, SIXTEEN[0].astype('>u2').tobytes(), trns=b'\xff\xff'), [0, 128, 0, 32]),
    (png(8, 2, bytes([7, 7, 7, 255, 255, 255] * 2), trns=b'\0\xff' * 3), [7, 0, 7, 0]),
    (png(16, 2, bytes([7, 7] * 3 + [255] * 6) * 2, trns=b'\xff' * 6), [7, 0, 7, 0]),
    (png(8, 3, bytes([0, 1, 0, 1]), b'\0\x80', bytes([200] * 3 + [100] * 3)), [0, 50, 0, 50]),
    (png(8, 4, bytes([200, 0, 200, 128, 200, 255, 9, 0])), [0, 100, 200, 0]),
    (png(16, 4, bytes([200, 0, 0, 0, 200, 0, 255, 255] * 2)), [0, 200, 0, 200]),
    (png(8, 6, bytes([255, 255, 255, 0, 255, 255, 255, 255] * 2)), [0, 255, 0, 255])])
def test_transparency_is_over_black(tmp_path, content, want):
  (tmp_path / 'a.png').write_bytes(content)
  np.testing.assert_allclose(first_row(tmp_path / 'a.png'), want, atol=1)


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'PA', 'RGBa', 'La', 'P'])
def test_hidden_colours_are_black_in_every_mode(mode):
  image = Image.new('RGBA', (2, 2), (255, 255, 255, 0))
  if mode == 'P':
    image = Image.new('P', (2, 2), 0)
    image.putpalette([255] * 768)
    image.info['transparency'] = 0
  elif mode == 'PA':
    image = Image.new('PA', (2, 2), (255, 0))
  else:
    image = image.convert('LA').convert('La') if mode == 'La' else image.convert(mode)
  assert image.mode == mode and np.asarray(colours.rgb(image)).max() == 0


@pytest.mark.parametrize('mode', ['CMYK', 'YCbCr', 'LAB', 'HSV', '1', 'RGBX'])
def test_other_modes_show_their_colours(mode):
  image = Image.new('RGB', (2, 2), (255, 255, 255) if mode == '1' else (250, 10, 10))
  if mode == 'LAB':
    from PIL import ImageCms
    made = [ImageCms.createProfile(name) for name in ('sRGB', 'LAB')]
    other = ImageCms.profileToProfile(image, *made, outputMode='LAB')
  else:
    other = image.convert(mode)
  got = colours.rgb(other)
  assert got.mode == 'RGB'
  np.testing.assert_allclose(np.asarray(got).astype(int), np.asarray(image).astype(int), atol=8)


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'webp'])
@pytest.mark.parametrize('orientation', range(1, 10))
def test_photographs_stand_upright(tmp_path, orientation, suffix):
  seen = np.zeros((32, 32, 3), np.uint8)
  seen[:16] = 120
  seen[:16, :16] = 255
  back = {2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_90',
          7: 'TRANSVERSE', 8: 'ROTATE_270'}.get(orientation)  # 9 is no orientation
  image = Image.fromarray(seen)
  tag = Image.Exif()
  tag[0x0112] = orientation
  path = tmp_path / f'phone.{suffix}'
  (image.transpose(Image.Transpose[back]) if back else image).save(path, exif=tag, quality=95)
  got = pixels.read(path, recipe(32)[0]).astype(int)
  np.testing.assert_allclose(got, seen, atol=8)


def test_damaged_exif_says_nothing(tmp_path):
  Image.new('L', (8, 8), 200).save(tmp_path / 'a.jpg', exif=b'Exif\0\0MM\0*\0\0\0\x08\xff\xffjunk')
  assert first_row(tmp_path / 'a.jpg') == [200] * 4


@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('size', [(5, 5), (33, 70), (300, 200)])
def test_plain_images_are_scaled_and_cut_as_ever(tmp_path, size, mode):
  noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
  for suffix in ('png', 'jpg'):
    Image.fromarray(noise).convert(mode).save(tmp_path / f'a.{suffix}')
    for side in (4, 48):
      file = Image.open(tmp_path / f'a.{suffix}')
      if min(size) >= 2 * side:
        file.draft('RGB', (2 * side, 2 * side))
      want = np.asarray(ImageOps.fit(file.convert('RGB'), (side, side), Image.Resampling.BICUBIC))
      np.testing.assert_array_equal(pixels.read(tmp_path / f'a.{suffix}', recipe(side)[0]), want)


@pytest.mark.parametrize('size', [(50, 37), (37, 50), (32, 32), (20, 90)])
def test_the_test_images_of_imagenet(tmp_path, size):
  """Shorter side to 256/224, bilinear, and the centre, as torchvision's Resize and CenterCrop."""
  noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
  image = Image.fromarray(noise)
  image.save(tmp_path / 'a.png')
  training, testing = recipe(28, photographs=32)
  whole = [32 if n == min(size) else int(32 * n / min(size)) for n in size]
  left, top = (round((n - 28) / 2) for n in whole)
  want = image.resize(whole, Image.Resampling.BILINEAR).crop((left, top, left + 28, top + 28))
  np.testing.assert_allclose(pixels.read(tmp_path / 'a.png', testing).astype(int), np.asarray(want).astype(int), atol=1)
  held, aspect = pixels.read_with_aspect(tmp_path / 'a.png', training)
  assert held.shape == (32, 32, 3) and aspect == size[0] / size[1]
  np.testing.assert_array_equal(held, image.resize((32, 32), Image.Resampling.BILINEAR))


def test_recipes_that_cannot_be():
  for fields, says in (({'image_size': 0}, 'image_size=0'), ({'image_size': 28, 'photographs': 27}, 'photographs=32')):
    with pytest.raises(UserError, match=says) as e:
      pixels.recipes(data_config('folder', **fields))
    one_line(e)


@pytest.mark.parametrize('change', [{'side': 0}, {'side': '4'}, {'side': 10**6}, {'shorter_side': 3}, {'rule': 2},
                                    {'resampling': 'open'}, {'more': 1}, {'fit': 'squeeze'}])
def test_a_recipe_goes_through_a_file_and_is_checked(tmp_path, change):
  (tmp_path / 'a.png').write_bytes(png(8, 0, bytes([9] * 4)))
  for photographs in (0, 6):
    for one in recipe(4, photographs):
      again = json.loads(json.dumps(one))
      np.testing.assert_array_equal(pixels.read(tmp_path / 'a.png', again), 9)
  for bad in (recipe()[0] | change, {}, [], None):
    with pytest.raises(UserError, match='no way to read an image') as e:
      pixels.read(tmp_path / 'a.png', bad)
    one_line(e)


def refused(path, says, **limits):
  with pytest.raises(UserError, match=says) as e:
    pixels.read(path, recipe()[0], **limits)
  assert 'cannot read the image' in one_line(e)
  return str(e.value)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
  (tmp_path / 'bomb.png').write_bytes(png(8, 6, b'', size=(30000, 30000)))
  refused(tmp_path / 'bomb.png', r'bomb.png: 30000x30000 are 900000000 pixels, more than config.data.max_pixels=640')
  (tmp_path / 'a.png').write_bytes(png(8, 0, bytes(100), size=(100, 100)))
  refused(tmp_path / 'a.png', 'max_pixels=9999', max_pixels=9999)
  limit = Image.MAX_IMAGE_PIXELS
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    Image.MAX_IMAGE_PIXELS = 10  # ours counts alone, and Pillow's is as it was afterwards
    try:
      assert first_row(tmp_path / 'a.png', max_pixels=10000) == [0] * 4 and Image.MAX_IMAGE_PIXELS == 10
    finally:
      Image.MAX_IMAGE_PIXELS = limit


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
  monkeypatch.setattr(pixels, 'LARGE', 10)
  inside, most, fit = [], [], pixels._fit

  def counting(*args):
    inside.append(1)
    most.append(len(inside))
    found = fit(*args)
    inside.pop()
    return found

  monkeypatch.setattr(pixels, '_fit', counting)
  Image.new('RGB', (500, 500)).save(tmp_path / 'a.png')
  threads = [threading.Thread(target=first_row, args=(tmp_path / 'a.png',)) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert most == [1] * 8


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
  os.mkfifo(tmp_path / 'fifo.png')
  with socket.socket(socket.AF_UNIX) as end:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    end.bind('socket.png')
  (tmp_path / 'folder.png').mkdir()
  (tmp_path / 'device.png').symlink_to('/dev/zero')
  for name in ('fifo', 'socket', 'folder', 'device'):
    refused(tmp_path / f'{name}.png', rf'{name}.png: it is a (?i:{name}): remove it')


@pytest.mark.parametrize('content', [b'', b'text', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n',
                                     b'\xd7\xcd\xc6\x9a' + bytes(100), png(8, 2, bytes(12))[:45],
                                     png(8, 2, b'', size=(0, 0)), tiff(bytes(32), 1, sample=9),
                                     png(8, 0, b'\0', size=(9, 9)),
                                     png(8, 0, bytes(4), extra=[(b'zTXt', b'a\0\0' + zlib.compress(bytes(10**7)))])])
def test_damage_and_other_formats_are_one_line(tmp_path, content, caplog):
  (tmp_path / 'a\n.png').write_bytes(content)
  assert r'a\n.png' in refused(tmp_path / 'a\n.png', 'repair or remove it')
  assert pixels.is_image(tmp_path / 'a\n.png') in (False, content.startswith(b'\x89PNG'))
  assert not caplog.text


@pytest.mark.parametrize('when', ['open', 'read'])
def test_a_failed_read_is_no_damage(tmp_path, monkeypatch, when):
  Image.new('RGB', (4, 4)).save(tmp_path / 'a.png')

  class Failing(io.BytesIO):
    def read(self, *args):
      raise OSError(errno.EIO, 'Input/output error')

  def failing(*args, **kwargs):
    if when == 'open':
      raise PermissionError(errno.EACCES, 'Permission denied')
    return Failing()

  monkeypatch.setattr('builtins.open', failing)
  says = {'open': 'Permission denied', 'read': 'Input/output error'}[when]
  text = refused(tmp_path / 'a.png', rf'{says}\): make it readable')
  assert 'damage' not in text and 'repair' not in text
