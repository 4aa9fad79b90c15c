import numpy as np
import pytest

from vimnas_jax import cost, genotypes, oracle, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.spaces import nb201

DARTS, NB201 = spaces.get('darts'), spaces.get('nb201')

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


def test_every_published_genotype_is_checked():
  assert set(CIFAR) == set(genotypes.PUBLISHED)


@pytest.mark.parametrize('name', CIFAR)
def test_published_cells_in_the_cifar_network(name):
  params, millions, params100 = CIFAR[name]
  found = cost.count(DARTS, genotypes.get(name), cells=20, channels=36, num_classes=10)
  assert (found.params, round(found.madds / 1e6, 3)) == (params, millions)
  found = cost.count(DARTS, genotypes.get(name), cells=20, channels=36, num_classes=100)
  assert found.params == params + 51_930
  assert params100 in (None, found.params)


@pytest.mark.parametrize('name, cells, params, millions', [
    ('DARTS_V2', 20, 710_682, 114.568), ('DARTS_V2', 8, 246_106, 43.445),
    ('ALL_SEP', 20, 1_007_738, 156.060), ('ALL_SEP', 8, 411_002, 64.048),
    ('ALL_SKIP', 20, 317_050, 49.826), ('ALL_SKIP', 8, 143_226, 24.660)])
def test_small_evaluation_networks(name, cells, params, millions):
  found = cost.count(DARTS, genotypes.get(name), cells=cells, channels=16, num_classes=10)
  assert (found.params, round(found.madds / 1e6, 3)) == (params, millions)
  found = cost.count(DARTS, genotypes.get(name), cells=cells, channels=16, num_classes=100)
  assert found.params == params + 23_130


def nb(*ops):
  return nb201.read('|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|'.format(*ops))


@pytest.mark.parametrize('genotype, params, millions, decimals', [
    (nb(*['nor_conv_3x3'] * 6), 1_531_546, 220.119680, 6),
    (nb(*['nor_conv_1x1'] * 6), 241_306, 31.376, 3),
    (nb(*['skip_connect'] * 6), 73_306, 7.783040, 6),
    (nb(*['none'] * 6), 73_306, 7.783040, 6),
    (nb(*['avg_pool_3x3'] * 6), 73_306, 7.783040, 6),
    (nb('nor_conv_3x3', 'none', 'nor_conv_3x3', 'skip_connect', 'none', 'skip_connect'), 559_386, 78.56, 2)])
def test_nas_bench_201_networks(genotype, params, millions, decimals):
  found = cost.count(NB201, genotype, cells=5, channels=16, num_classes=10)
  assert (found.params, round(found.madds / 1e6, decimals)) == (params, millions)
  for classes, more in ((100, 5850), (120, 7150)):
    assert cost.count(NB201, genotype, cells=5, channels=16, num_classes=classes).params == params + more


def test_nas_bench_201_on_images_of_16_pixels():
  all3 = nb(*['nor_conv_3x3'] * 6)
  small = cost.count(NB201, all3, cells=5, channels=16, num_classes=120, image_size=16).madds
  assert round(small / 1e6, 3) == 55.037


def test_all_15625_cells_have_the_size_of_the_benchmark():
  """The package stores params / 1e6 as float64, and `oracle.load` refuses a size that is not one exactly."""
  tables = oracle.load().tables
  params = np.array([cost.count(NB201, genotype, cells=5, channels=16, num_classes=10).params
                     for genotype in nb201.everything()])
  for name, classes in (('cifar10', 10), ('cifar100', 100), ('ImageNet16-120', 120)):
    np.testing.assert_array_equal(tables[name].params, params + 65 * (classes - 10))


def test_supernets():
  assert cost.supernet(DARTS, cells=8, channels=16, num_classes=10) == 1_930_618
  assert cost.supernet(DARTS, cells=8, channels=16, num_classes=100) == 1_953_748
  assert cost.supernet(NB201, cells=5, channels=16, num_classes=10) == 1_686_106


def test_one_input_channel_saves_two_thirds_of_the_stem():
  genotype = genotypes.get('DARTS_V2')
  grey, colour = (cost.count(DARTS, genotype, cells=8, channels=16, num_classes=10, in_channels=c) for c in (1, 3))
  assert colour.params - grey.params == 2 * 9 * 48
  assert colour.madds - grey.madds == 2 * 9 * 48 * 32 * 32
  grey, colour = (cost.supernet(NB201, cells=5, channels=16, num_classes=10, in_channels=c) for c in (1, 3))
  assert colour - grey == 2 * 9 * 16


def test_errors():
  genotype = genotypes.get('DARTS_V2')
  with pytest.raises(UserError, match="belongs to space 'darts'"):
    cost.count(NB201, genotype, cells=5, channels=16, num_classes=10)
  with pytest.raises(UserError, match='images of 2 pixels are too small'):
    cost.count(DARTS, genotype, cells=20, channels=36, num_classes=10, image_size=2)


def test_genotypes_are_valid_and_unknown_names_list_the_known():
  for genotype in genotypes.PUBLISHED.values():
    assert DARTS.read(DARTS.write(DARTS.validate(genotype))) == genotype
  assert genotypes.get('DARTS_V2').cells['normal'][-1] == ('dil_conv_3x3', 2, 5)
  with pytest.raises(UserError, match="'DARTS_V3'.*DARTS_V1, DARTS_V2"):
    genotypes.get('DARTS_V3')
