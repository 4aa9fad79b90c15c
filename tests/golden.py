"""Golden counts of published architectures, and spaces for those whose operations the DARTS space lacks."""

import dataclasses

from vimnas_jax import spaces
from vimnas_jax.spaces import Cell, Genotype

DARTS = spaces.get('darts')

# name: (parameters for 10 classes, million multiply-adds for 10 classes, parameters for 100 classes or None)
CIFAR = {
    'DARTS_V1': (3_169_414, 500.988, 3_221_344),
    'DARTS_V2': (3_349_342, 528.359, 3_401_272),
    'PC_DARTS_cifar': (3_634_678, 556.671, 3_686_608),
    'PC_DARTS_image': (3_721_510, 570.467, 3_773_440),
    'PDARTS': (3_433_798, 532.174, 3_485_728),
    'SNAS_FairDARTS': (2_661_382, 422.218, 2_713_312),
    'SNAS_DATA': (2_657_926, 421.776, None),
    'GDAS_V1': (3_368_782, 519.429, 3_420_712),
    'ALL_SEP': (4_701_718, 711.665, 4_753_648),
    'ALL_SKIP': (1_580_950, 248.506, 1_632_880),
    'SDARTS_RS_s1': (3_405_502, 529.271, None),
    'SDARTS_ADV_s1': (3_377_206, 526.368, None),
    'SDARTS_RS_s2': (3_622_150, 547.436, None),
    'SDARTS_ADV_s2': (4_281_382, 650.618, None),
    'SDARTS_RS_s3': (4_311_622, 653.770, None),
    'SDARTS_ADV_s3': (4_341_862, 656.922, None),
    'SDARTS_RS_s4': (4_701_718, 711.665, None),
    'SDARTS_ADV_s4': (4_701_718, 711.665, None),
    'SDARTS_RS_s5': (3_606_166, 562.394, None),
    'SDARTS_ADV_s5': (3_344_806, 526.755, None),
    'SDARTS_PC_s1': (2_406_502, 385.668, None),
    'SDARTS_PC_s2': (2_542_582, 383.207, None),
    'SDARTS_PC_s3': (4_341_862, 656.922, None),
    'DARTS_minus_s0': (3_454_318, 546.551, 3_506_248),
    'DARTS_minus_s1': (2_629_630, 418.873, None),
    'DARTS_minus_s2': (4_058_902, 627.892, None),
    'DARTS_minus_s3': (4_058_902, 627.892, None),
}

# name: (parameters, million multiply-adds), 14 cells, 48 channels, 224 x 224 pixels, 1000 classes
IMAGENET = {
    'DARTS_V1': (4_510_432, 505.865),
    'DARTS_V2': (4_718_752, 529.912),
    'PC_DARTS_cifar': (5_270_560, 571.137),
    'PC_DARTS_image': (5_342_464, 581.627),
    'PDARTS': (4_944_352, 542.819),
    'SNAS_FairDARTS': (3_939_328, 438.042),
    'SNAS_DATA': (3_934_720, 437.591),
    'GDAS_V1': (4_969_216, 537.598),
    'SDARTS_RS_s5': (5_120_320, None),
    'SDARTS_ADV_s5': (4_768_864, None),
    'DARTS_minus_s0': (4_860_256, 546.074),
}

# name: parameters of 20 cells with 16 channels, and of 8 cells with 16 channels
SMALL = {
    'SDARTS_RS_s1': (731_162, 285_850),
    'SDARTS_ADV_s1': (724_986, 279_674),
    'SDARTS_RS_s2': (769_850, 331_706),
    'SDARTS_ADV_s2': (914_362, 370_490),
    'SDARTS_RS_s3': (921_402, 377_530),
    'SDARTS_ADV_s3': (928_442, 384_570),
    'SDARTS_RS_s4': (1_007_738, 411_002),
    'SDARTS_ADV_s4': (1_007_738, 411_002),
    'SDARTS_PC_s1': (514_362, 194_042),
    'SDARTS_PC_s2': (531_962, 252_410),
    'DARTS_minus_s1': (552_090, 193_242),
    'DARTS_minus_s2': (866_682, 322_810),
    'DARTS_minus_s3': (866_682, 322_810),
}


def short(text):
  """A cell in short notation: `op:source ...`, two edges per node."""
  names = {'s3': 'sep_conv_3x3', 's5': 'sep_conv_5x5', 's7': 'sep_conv_7x7', 'c71': 'conv_7x1_1x7',
           'max': 'max_pool_3x3', 'avg': 'avg_pool_3x3', 'skip': 'skip_connect', 'noise': 'noise'}
  pairs = [pair.split(':') for pair in text.split()]
  return tuple((names[op], int(source), 2 + i // 2) for i, (op, source) in enumerate(pairs))


def wider(normal, reduce, outputs):
  """A genotype with operations or nodes that the DARTS space lacks, and a space that has them."""
  genotype = Genotype('darts', {'normal': short(normal), 'reduce': short(reduce)})
  cells = {}
  for name, output in zip(('normal', 'reduce'), outputs):
    names = tuple(dict.fromkeys(op for op, _, _ in genotype.cells[name]))
    edges = tuple((source, target) for target in range(2, max(output) + 1) for source in range(target))
    cells[name] = Cell(2, edges, (names,) * len(edges), output, preprocess=True)
  return dataclasses.replace(DARTS, cells=cells, repeats=True), genotype


NASNET_A = wider('s5:1 s3:0 s5:0 s3:0 avg:1 skip:0 avg:0 avg:0 s3:1 skip:1',
                 's5:1 s7:0 max:1 s7:0 avg:1 s5:0 skip:3 avg:2 s3:2 max:1', ((2, 3, 4, 5, 6), (4, 5, 6)))
AMOEBANET_A = wider('avg:0 max:1 s3:0 s5:2 s3:0 avg:3 s3:1 skip:1 skip:0 avg:1',
                    'avg:0 s3:1 max:0 s7:2 s7:0 avg:1 max:0 max:1 c71:0 s3:5', ((4, 5, 6), (3, 4, 6)))
NOISY = wider('s3:0 s3:1 s3:0 s3:1 s3:0 s3:1 s3:0 noise:3', 's3:0 s3:1 s3:0 s3:1 s3:1 s3:0 s3:1 s3:0',
              ((2, 3, 4, 5),) * 2)  # DARTS-, cifar10_s4_best
NOISY_PC = wider('s3:0 s3:1 s3:0 s3:1 s3:0 s3:1 s3:0 noise:3', 's3:0 s3:1 s3:1 s3:2 s3:3 s3:1 s3:2 s3:0',
                 ((2, 3, 4, 5),) * 2)  # SmoothDARTS, c10_s4_pcdarts
