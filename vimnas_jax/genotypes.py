"""Architectures by name or notation; those of the DARTS space that papers have published.

Each is written `op:source ...` for the normal cell, then for the reduction cell; pairs 2i and 2i + 1 lead into node
i + 2, and the four intermediate nodes are concatenated. Sources: the files that define genotypes in the repositories
quark0/darts, yuhuixu1993/PC-DARTS, chenxin061/pdarts, xiaomi-automl/FairDARTS, XinbangZhang/DATA-NAS,
D-X-Y/AutoDL-Projects (GDAS), xiangning-chen/SmoothDARTS and Meituan-AutoML/DARTS-. Searches in the spaces S1 to S4
(suffix s1 to s4) gave cells that belong to the full DARTS space as well; those with a noise operation are left out.
"""

import os
import pathlib
from types import MappingProxyType

from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.spaces import Genotype

_OPS = {'max': 'max_pool_3x3', 'avg': 'avg_pool_3x3', 'skip': 'skip_connect', 's3': 'sep_conv_3x3',
        's5': 'sep_conv_5x5', 'd3': 'dil_conv_3x3', 'd5': 'dil_conv_5x5'}

_CELLS = {
    # Liu et al., DARTS (ICLR 2019): first and second order
    'DARTS_V1': ('s3:1 s3:0 skip:0 s3:1 skip:0 s3:1 s3:0 skip:2',
                 'max:0 max:1 skip:2 max:0 max:0 skip:2 skip:2 avg:0'),
    'DARTS_V2': ('s3:0 s3:1 s3:0 s3:1 s3:1 skip:0 skip:0 d3:2',
                 'max:0 max:1 skip:2 max:1 max:0 skip:2 skip:2 max:1'),
    # Xu et al., PC-DARTS (ICLR 2020): searched on CIFAR-10 and on ImageNet
    'PC_DARTS_cifar': ('s3:1 skip:0 s3:0 d3:1 s5:0 s3:1 avg:0 d3:1', 's5:1 max:0 s5:1 s5:2 s3:0 s3:3 s3:1 s3:2'),
    'PC_DARTS_image': ('skip:1 s3:0 s3:0 skip:1 s3:1 s3:3 s3:1 d5:4', 's3:0 skip:1 d5:2 max:1 s3:2 s3:1 s5:0 s3:3'),
    # Chen et al., P-DARTS (ICCV 2019)
    'PDARTS': ('skip:0 d3:1 skip:0 s3:1 s3:1 s3:3 s3:0 d5:4', 'avg:0 s5:1 s3:0 d5:2 max:0 d3:1 d3:1 d5:3'),
    # Xie et al., SNAS (ICLR 2019): the FairDARTS and the DATA repository disagree
    'SNAS_FairDARTS': ('s3:0 s3:1 skip:0 d3:1 skip:1 skip:0 skip:0 s3:1',
                       'max:0 max:1 max:1 skip:2 skip:2 max:1 max:0 d5:2'),
    'SNAS_DATA': ('s3:0 s3:1 skip:0 d3:1 skip:0 skip:1 skip:0 s3:1',
                  'max:0 max:1 skip:2 max:1 skip:2 max:1 max:0 d3:2'),
    # Dong and Yang, GDAS (CVPR 2019)
    'GDAS_V1': ('skip:0 skip:1 skip:0 s5:2 s3:3 skip:0 s5:4 s3:3', 's5:0 s3:1 s5:2 s5:1 d5:2 s3:1 s5:0 s5:2'),
    # Chen and Hsieh, SmoothDARTS (ICML 2020), CIFAR-10: RS and ADV; PC = PC-DARTS as they searched it. s5 = full space
    'SDARTS_RS_s1': ('d5:1 d3:0 s3:1 skip:2 d3:3 s3:2 s3:0 d3:2', 'max:0 d3:1 d5:2 max:1 d5:3 s3:1 d5:2 d5:3'),
    'SDARTS_ADV_s1': ('d5:1 d3:0 s3:1 skip:2 s3:2 d3:3 s3:0 d3:2', 'max:0 d3:1 d5:2 max:0 d5:3 d3:2 d5:4 d5:2'),
    'SDARTS_RS_s2': ('s3:0 s3:1 s3:2 skip:1 s3:3 skip:0 s3:1 skip:2', 's3:0 s3:1 s3:1 s3:0 s3:2 s3:1 s3:2 s3:3'),
    'SDARTS_ADV_s2': ('s3:1 skip:0 s3:2 s3:0 s3:3 s3:2 s3:4 s3:1', 'skip:0 skip:1 s3:0 s3:2 s3:3 s3:0 s3:4 s3:3'),
    'SDARTS_RS_s3': ('s3:1 s3:0 s3:1 s3:0 s3:1 s3:2 s3:4 skip:0', 'skip:0 s3:1 s3:2 s3:0 s3:2 s3:3 s3:0 s3:4'),
    'SDARTS_ADV_s3': ('s3:1 s3:0 s3:0 s3:2 s3:1 s3:0 s3:1 skip:0', 's3:1 s3:0 s3:2 s3:0 s3:2 s3:0 s3:1 s3:3'),
    'SDARTS_RS_s4': ('s3:1 s3:0 s3:2 s3:1 s3:3 s3:2 s3:4 s3:2', 's3:0 s3:1 s3:0 s3:2 s3:0 s3:3 s3:0 s3:4'),
    'SDARTS_ADV_s4': ('s3:1 s3:0 s3:2 s3:1 s3:3 s3:2 s3:3 s3:4', 's3:1 s3:0 s3:2 s3:1 s3:2 s3:3 s3:3 s3:4'),
    'SDARTS_RS_s5': ('s3:1 s3:0 s5:1 skip:0 s3:3 skip:1 s3:1 d3:2', 'max:0 s3:1 skip:2 max:0 d5:3 max:0 s3:2 s5:3'),
    'SDARTS_ADV_s5': ('s3:0 s3:1 s3:1 skip:0 s5:0 d3:3 d3:4 skip:0',
                      'max:0 s5:1 skip:2 max:0 skip:3 skip:2 skip:2 s5:4'),
    'SDARTS_PC_s1': ('d5:1 d3:0 d5:0 s3:1 skip:2 max:0 skip:2 skip:0',
                     'max:0 max:1 max:1 max:0 s3:1 max:0 d5:2 max:0'),
    'SDARTS_PC_s2': ('skip:1 s3:0 skip:0 skip:2 skip:3 s3:0 skip:3 skip:4',
                     's3:0 s3:1 s3:1 s3:2 s3:2 s3:3 s3:4 s3:2'),
    'SDARTS_PC_s3': ('s3:1 s3:0 s3:2 s3:1 s3:3 s3:2 skip:4 s3:2', 's3:0 s3:1 s3:0 s3:2 s3:0 s3:3 s3:0 s3:4'),
    # Chu et al., DARTS- (ICLR 2021), CIFAR-10. s0 = full space
    'DARTS_minus_s0': ('s3:0 s5:1 s3:1 d3:2 skip:1 s3:0 skip:1 s3:0',
                       's3:0 max:1 skip:2 max:0 skip:2 skip:3 skip:2 skip:3'),
    'DARTS_minus_s1': ('skip:1 d3:0 s3:1 d3:2 skip:0 s3:1 skip:1 d3:3',
                       'max:0 max:1 max:1 max:0 skip:2 max:0 max:1 skip:3'),
    'DARTS_minus_s2': ('s3:1 s3:0 s3:1 s3:0 s3:1 s3:0 skip:1 s3:0',
                       's3:1 s3:0 s3:1 skip:2 skip:2 skip:3 skip:2 skip:3'),
    'DARTS_minus_s3': ('s3:1 s3:0 s3:1 s3:0 s3:1 s3:0 skip:1 s3:0',
                       's3:1 s3:0 s3:1 skip:2 skip:2 skip:3 skip:2 skip:3'),
    # no search: the two ends of the space, for calibration
    'ALL_SEP': ('s3:0 s3:1 s3:0 s3:1 s3:0 s3:1 s3:0 s3:1',) * 2,
    'ALL_SKIP': ('skip:0 skip:1 skip:0 skip:1 skip:0 skip:1 skip:0 skip:1',) * 2,
}


def _cell(text: str):
  pairs = (pair.split(':') for pair in text.split())
  return tuple((_OPS[op], int(source), 2 + i // 2) for i, (op, source) in enumerate(pairs))


PUBLISHED = MappingProxyType({
    name: Genotype('darts', {'normal': _cell(normal), 'reduce': _cell(reduce)})
    for name, (normal, reduce) in _CELLS.items()})


def get(name: str) -> Genotype:
  """The published genotype called `name`. Raises UserError, which lists all names, if there is none."""
  if name not in PUBLISHED:
    raise UserError(f'no published genotype is called {name!r}; choose one of {", ".join(PUBLISHED)}')
  return PUBLISHED[name]


def resolve(text: str) -> Genotype:
  """The genotype that `text` stands for.

  Tried in this order: a published name, a NAS-Bench-201 string `|op~0|+...`, a DARTS `Genotype(normal=[...], ...)`, a
  run folder with its genotype.json, a file with a genotype in JSON. Raises UserError if it is none of them, or what is
  there is no architecture of a known space.
  """
  text = text.strip()
  if text in PUBLISHED:
    return PUBLISHED[text]
  if text.startswith('|'):
    return spaces.get('nb201').read(text)
  if text.startswith('Genotype('):
    darts = spaces.get('darts')
    return darts.validate(darts.read(text))
  path = os.path.expanduser(text)
  if text and os.path.isdir(path):
    path = os.path.join(path, 'genotype.json')
    if not os.path.isfile(path):
      raise UserError(f'{text} holds no genotype.json: it is no folder of a finished search; give another one')
  if not os.path.isfile(path):
    raise UserError(f'{text[:120]!r} is no genotype: neither a run folder or a file, nor a NAS-Bench-201 string '
                    '(|op~0|+...), a DARTS Genotype(normal=[...], ...) or a published name, which are '
                    f'{", ".join(PUBLISHED)}')
  try:
    genotype = Genotype.from_json(pathlib.Path(path).read_text())
  except (OSError, UnicodeDecodeError, UserError) as e:
    raise UserError(f'{path} cannot be read: {e}') from None
  if genotype.space not in spaces.NAMES and not genotype.space.endswith('.py'):
    raise UserError(f'{path} has a genotype of space {genotype.space!r}; known are {", ".join(spaces.NAMES)}, and '
                    'files of your own, FILE.py')
  return spaces.get(genotype.space).validate(genotype)
