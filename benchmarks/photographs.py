"""Writes the photographs of results/photographs: tiles of six photographs that scikit-image and scikit-learn ship.

  python -m benchmarks.photographs DIR

DIR/{train,val,test}/CLASS/*.png: up to 150 tiles of 32x32 of each photograph, none of which overlap; a quarter is for
test, 15 % choose. The classes are astronaut, cat, coffee, flower, motorcycle and temple.
"""

import argparse
import pathlib

import numpy as np
import skimage
from PIL import Image
from sklearn.datasets import load_sample_images

SIDE, MOST = 32, 150


def main():
  """Writes the tiles and prints their numbers."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('dir', type=pathlib.Path)
  out, shipped = parser.parse_args().dir, pathlib.Path(skimage.__file__).parent / 'data'
  temple, flower = load_sample_images().images
  files = {'astronaut': 'astronaut.png', 'coffee': 'coffee.png', 'cat': 'chelsea.png',
           'motorcycle': 'motorcycle_left.png'}
  photographs = {name: np.asarray(Image.open(shipped / file).convert('RGB')) for name, file in files.items()}
  rng = np.random.default_rng(0)
  for name, image in {**photographs, 'temple': temple, 'flower': flower}.items():
    tiles = [image[top:top + SIDE, left:left + SIDE] for top in range(0, image.shape[0] - SIDE + 1, SIDE)
             for left in range(0, image.shape[1] - SIDE + 1, SIDE)]
    order = rng.permutation(len(tiles))[:MOST]
    for k, at in enumerate(order):
      part = 'test' if k < len(order) * 0.25 else 'val' if k < len(order) * 0.4 else 'train'
      path = out / part / name / f'{name}_{k:03d}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(tiles[at]).save(path)
    print(f'{name}: {len(order)} of {len(tiles)} tiles')


if __name__ == '__main__':
  main()
