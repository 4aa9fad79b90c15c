"""How fast images are read from the disk, decoded and handed over, in what memory, and whether a resume gives the same.

  python -m benchmarks.streaming --data-dir DIR --files 20000 --out benchmarks/streaming.json

Makes a folder of classes and an ArrayRecord set of TFDS, both as ImageNet lies on a disk, below --work: JPEG files of
CIFAR-10 images (DIR is a TFDS data dir) scaled up and of scikit-learn's (and, if it is installed, scikit-image's)
photographs, cropped and scaled, with grain. Three in four have ImageNet's commonest size, 500x375, either way up, the
others sides from 64 to 500. An epoch of training crops of 224 pixels is then read from both. Images a second of a core
are counted by the processor time of whoever decodes, so that a machine that is shared says the same.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import shlex
import shutil
import sys
import tempfile
import threading
import time

import numpy as np
import psutil
from PIL import Image

from vimnas_jax import config, data, files
from vimnas_jax.data import loader, records
from vimnas_jax.runs import provenance

PACKAGES = ('vimnas_jax', 'grain', 'array_record', 'tensorflow-datasets', 'pillow', 'numpy')
CLASSES, QUALITY, SIDE, SHARDS = 100, 95, 224, 4
GRAIN = 14  # of film, in grey values: with it files are nearly as large as ImageNet's, 110 KB in the mean
RATES = 500, 1000, 2000, 5000  # images a second that a GPU may take


def photographs(data_dir):
  """Real images as arrays: photographs first, then CIFAR-10's test images."""
  from sklearn.datasets import load_sample_images
  found = list(load_sample_images().images)
  if importlib.util.find_spec('skimage'):
    from skimage import data as more
    found += [getattr(more, name)() for name in ('astronaut', 'coffee', 'chelsea', 'rocket')]
  c = config.defaults()
  c.data.dir = data_dir
  return found, data.get(c.data).test.images


def encoded(rng, whole, small):
  """A JPEG file of ImageNet's kind: its bytes and its size."""
  w, h = (500, 375) if rng.random() < 0.75 else rng.integers(64, 501, 2).tolist()
  w, h = (h, w) if rng.random() < 0.3 else (w, h)
  if rng.random() < 0.2:
    image = Image.fromarray(small[rng.integers(len(small))])
  else:
    image = whole[rng.integers(len(whole))]
    high, wide = image.shape[:2]
    y, x = int(rng.integers(high // 3)), int(rng.integers(wide // 3))
    image = Image.fromarray(image[y:y + 2 * high // 3, x:x + 2 * wide // 3])
  file = io.BytesIO()
  image = np.asarray(image.resize((w, h), Image.Resampling.BICUBIC)).astype(np.int16)
  image = np.clip(image + rng.integers(-GRAIN, GRAIN + 1, image.shape, np.int16), 0, 255).astype(np.uint8)
  Image.fromarray(image).save(file, 'JPEG', quality=QUALITY)
  return file.getvalue(), w * h


def make(work, count, data_dir):
  """Writes WORK/tree and WORK/tfds; returns what the files are like."""
  from array_record.python import array_record_module
  with records.quiet():
    from tensorflow_datasets import features as kinds
  features = kinds.FeaturesDict({'image': kinds.Image(shape=(None, None, 3), encoding_format='jpeg'),
                                 'label': kinds.ClassLabel(num_classes=CLASSES), 'file_name': kinds.Text()})
  version = work / 'tfds' / 'imagenet2012' / '5.1.0'
  version.mkdir(parents=True)
  features.save_config(version)
  rng, sizes, pixels, splits = np.random.default_rng(0), [], [], []
  whole, small = photographs(data_dir)
  for part, folder, images in (('train', 'train', count), ('validation', 'val', max(CLASSES, count // 20))):
    shards = [version / f'imagenet2012-{part}.array_record-{i:05}-of-{SHARDS:05}' for i in range(SHARDS)]
    writers = [array_record_module.ArrayRecordWriter(str(path), 'group_size:1') for path in shards]
    for label in range(CLASSES):
      (work / 'tree' / folder / f'n{label:08}').mkdir(parents=True)
    for i in range(images):
      label, (image, size) = i % CLASSES, encoded(rng, whole, small)
      name = f'n{label:08}_{i}.JPEG'
      (work / 'tree' / folder / f'n{label:08}' / name).write_bytes(image)
      example = {'image': io.BytesIO(image), 'label': label, 'file_name': name}
      writers[i * SHARDS // images].write(features.serialize_example(features.encode_example(example)))
      sizes.append(len(image))
      pixels.append(size)
    for writer in writers:
      writer.close()
    lengths = np.bincount(np.arange(images) * SHARDS // images, minlength=SHARDS)
    splits.append({'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}', 'name': part, 'numBytes': '1',
                   'shardLengths': [str(n) for n in lengths]})
  (version / 'dataset_info.json').write_text(json.dumps(
      {'fileFormat': 'array_record', 'name': 'imagenet2012', 'splits': splits, 'version': '5.1.0'}), encoding='utf-8')
  return {'mean_kilobytes': round(np.mean(sizes) / 1e3, 1), 'mean_pixels': round(np.mean(pixels))}


def loaded(work, name):
  """The data set, ('folder' or 'tfds/imagenet2012'), streamed for training crops; seconds that it took to open."""
  c = config.defaults().data
  c.name, c.dir = name, str(work / ('tree' if name == 'folder' else 'tfds'))
  c.stream, c.image_size, c.smallest, c.moments = True, SIDE, 0.08, 'imagenet'
  begin = time.monotonic()
  found = data.get(c)
  found.fingerprint()
  return found, time.monotonic() - begin


class Memory(threading.Thread):
  """Samples the resident memory of this process and its children, in MB, until `done` is set."""

  def __init__(self):
    super().__init__(daemon=True)
    self.done, self.samples = threading.Event(), []

  def run(self):
    """Samples four times a second."""
    while not self.done.wait(0.25):
      total = 0
      for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
          total += process.memory_full_info().pss  # what processes share counts once
        except psutil.Error:
          continue
      self.samples.append(total / 1e6)


def decoders(workers):
  """Processor seconds of whoever decodes."""
  processes = psutil.Process().children(recursive=True) if workers else [psutil.Process()]
  return sum(sum(process.cpu_times()[:2]) for process in processes)


def rows(split, batch, epochs, seed=0):
  """Batches of some epochs, as `loader.pieces` takes them."""
  drawn = np.concatenate([np.random.default_rng([seed, epoch]).permutation(len(split)) for epoch in range(epochs)])
  return [(step, 0, 0, drawn[start:start + batch].astype(np.int32))
          for step, start in enumerate(range(0, len(drawn) - batch + 1, batch))]


def measure(split, batch, workers, epochs):
  """Reads some epochs; returns the figures, and a hash of every batch."""
  hashes, memory, steps = [], Memory(), rows(split, batch, epochs)
  with loader.Loader(loader.pieces([split], steps), workers) as ahead:
    for i, (*_, places) in enumerate(steps):
      hashes.append(hashlib.sha256(ahead.take(len(places)).images).hexdigest())
      if i == 1:  # all are at work
        begin, cpu = time.monotonic(), decoders(workers)
        memory.start()
    seconds, cpu = time.monotonic() - begin, decoders(workers) - cpu
    memory.done.set()
    memory.join()
  images, parts = (len(steps) - 2) * batch, np.array_split(memory.samples, 4)
  return {'workers': workers, 'images': images, 'seconds': round(seconds, 1),
          'images_per_second': round(images / seconds, 1), 'images_per_core_second': round(images / cpu, 1),
          'peak_megabytes_by_quarter': [round(max(part)) for part in parts]}, hashes


def resumed(split, batch, hashes, places):
  """Whether a run that begins at each of these steps has the batches that the whole one had there."""
  steps = rows(split, batch, 1)
  same = []
  for at in places:
    with loader.Loader(loader.pieces([split], steps[at:at + 2]), 0) as ahead:
      same += [hashlib.sha256(ahead.take(batch).images).hexdigest() == hashes[at + i] for i in range(2)]
  return all(same)


def main(argv):
  """Makes the files, measures, prints a line for each, and writes the JSON file."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--data-dir', required=True)
  parser.add_argument('--files', type=int, default=20_000)
  parser.add_argument('--batch', type=int, default=128)
  parser.add_argument('--workers', type=int, default=1)
  parser.add_argument('--work', default='', help='where the files go; by default a temporary folder')
  parser.add_argument('--out', required=True)
  args = parser.parse_args(argv)
  work, load = pathlib.Path(args.work or tempfile.mkdtemp()), os.getloadavg()[0]
  try:
    begin = time.monotonic()
    words = ['DIR' if word == args.data_dir else word for word in argv]
    result = {'command': shlex.join(['python', '-m', 'benchmarks.streaming', *words]), 'files': args.files,
              **make(work, args.files, args.data_dir), 'side': SIDE, 'batch': args.batch}
    print(f'{args.files} files in {time.monotonic() - begin:.0f} s', flush=True)
    result['rows'], whole = [], None
    for name, workers, epochs in (('folder', args.workers, 2), ('folder', 0, 1),
                                  ('tfds/imagenet2012', args.workers, 2)):
      found, opening = loaded(work, name)
      figures, hashes = measure(found.train, args.batch, workers, epochs)
      figures |= {'source': name, 'opened_in_seconds': round(opening, 2)}
      if name == 'folder':
        whole = whole or hashes
        figures['same_batches'] = hashes == whole[:len(hashes)]
        if not workers:
          places = np.random.default_rng(1).integers(0, len(hashes) - 2, 4).tolist()
          result['resumed_at'], result['resumed_same'] = places, resumed(found.train, args.batch, hashes, places)
      result['rows'].append(figures)
      print(figures, flush=True)
    rate = min(row['images_per_core_second'] for row in result['rows'])
    result['cores_for_images_per_second'] = {str(rate_of): int(np.ceil(rate_of / rate)) for rate_of in RATES}
    result |= {**provenance.software(PACKAGES), 'cpu': provenance.machine(), 'load': load}
    files.write_json(args.out, result)
    print({key: result[key] for key in ('resumed_same', 'cores_for_images_per_second')})
  finally:
    if not args.work:
      shutil.rmtree(work)


if __name__ == '__main__':
  main(sys.argv[1:])
