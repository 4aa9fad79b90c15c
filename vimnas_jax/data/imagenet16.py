"""ImageNet16-120 (Chrabaszcz et al., 2017; Dong and Yang, 2020): ImageNet at 16x16, its first 120 classes.

Read from the official pickles of the down-sampled ImageNet, `train_data_batch_1` to `_10` and `val_data`, each
checksummed on every read: 151,700 training and 6,000 validation images. NAS-Bench-201 halves the latter by a list
(splits.py): where its file `imagenet-16-120-test-split.txt` lies beside them, the test images are the 3,000 of its
`xtest`, otherwise all 6,000.
"""

import pathlib

import numpy as np

from vimnas_jax.data import pickles
from vimnas_jax.data.types import Data, Split
from vimnas_jax.errors import UserError

CLASSES = 120
_MD5 = ('27846dcaa50de8e21a7d1a35f30f0e91', 'c7254a054e0e795c69120a5727050e3f', '4333d3df2e5ffb114b05d2ffc19b1e87',
        '1620cdf193304f4a92677b695d70d10f', '348b3c2fdbb3940c4e9e834affd3b18d', '6e765307c242a1b3d7d5ef9139b48945',
        '564926d8cbf8fc4818ba23d2faac7564', 'f4755871f718ccb653440b9dd0ebac66', 'bb6dd660c38c58552125b1a92f86b5d4',
        '8f03f34ac4b42271a294f91bf480f29b')
TRAIN = {f'train_data_batch_{i}': md5 for i, md5 in enumerate(_MD5, 1)}
TEST = {'val_data': '3410e3017fdaefba8d5073aaa65e4bd6'}
MEAN, STD = (122.68 / 255, 116.66 / 255, 104.01 / 255), (63.22 / 255, 61.26 / 255, 65.09 / 255)


def load(config) -> Data:
  """ImageNet16-120, uint8 [n, 16, 16, 3], in the order of the files.

  Args:
    config: `dir`, the folder of the pickles.

  Raises:
    UserError: nothing there, or a damaged file.
  """
  root = pathlib.Path(config.dir).expanduser()
  if not config.dir or not root.is_dir():
    raise UserError(f'no ImageNet16 under {config.dir!r}: set config.data.dir to the folder of train_data_batch_1 to '
                    'train_data_batch_10 and val_data (image-net.org, downsampled, 16x16)')
  train, test = (_read(root, files) for files in (TRAIN, TEST))
  return Data(config.name, train, test, CLASSES, MEAN, STD, class_names=tuple(map(str, range(1, CLASSES + 1))))


def _read(root, files) -> Split:
  parts = []
  for name, md5 in files.items():
    path = root / name
    if not path.is_file():
      raise UserError(f'no {name} under {root}: set config.data.dir to the folder that holds all of '
                      f'{", ".join((*TRAIN, *TEST))}')
    try:
      found = pickles.md5(path)
    except OSError as e:
      raise UserError(f'cannot read {path} ({e.strerror}): make it readable') from None
    if found != md5:
      raise UserError(f'{path} is damaged: its md5 is {found}, not {md5}; fetch it again')
    try:
      with path.open('rb') as file:
        batch = pickles.Unpickler(file, 'latin1').load()
      pixels, labels = batch['data'], pickles.labels_in(batch['labels'], 1001)
      if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * 16 * 16):
        raise ValueError(f'images {pixels.dtype} {pixels.shape}, labels {labels.shape}')
    except Exception as e:  # a damaged pickle can raise nearly anything
      if pickles.passing(e):
        raise UserError(f'{path} cannot be read ({pickles.passing(e)}): make it readable') from None
      raise UserError(f'cannot read {path} ({pickles.one_line(e)}): fetch it again') from None
    own = labels <= CLASSES  # 1 .. 1000
    parts.append(Split(pixels[own].reshape(-1, 3, 16, 16).transpose(0, 2, 3, 1), (labels[own] - 1).astype(np.int32)))
  return Split(np.ascontiguousarray(np.concatenate([part.images for part in parts])),
               np.concatenate([part.labels for part in parts]))
