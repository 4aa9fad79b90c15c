import numpy as np
import pytest
from conftest import SLOW
from golden import AMOEBANET_A, CIFAR, IMAGENET, NASNET_A, NOISY, NOISY_PC, SMALL

from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import cost, genotypes
from vimnas_jax.spaces import nb201
from vimnas_jax.tabular import nasbench201

DARTS, NB201 = spaces.get('darts'), spaces.get('nb201')


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


@pytest.mark.parametrize('name', IMAGENET)
def test_published_cells_in_the_imagenet_network(name):
  params, millions = IMAGENET[name]
  found = cost.count(DARTS, genotypes.get(name), cells=14, channels=48, num_classes=1000, image_size=224, imagenet=True)
  assert found.params == params
  assert millions in (None, round(found.madds / 1e6, 3))


@pytest.mark.parametrize('name', SMALL)
def test_cells_of_s1_to_s4_in_small_networks(name):
  found = [cost.count(DARTS, genotypes.get(name), cells=cells, channels=16, num_classes=10).params for cells in (20, 8)]
  assert tuple(found) == SMALL[name]


@pytest.mark.parametrize('case, cells, channels, params, millions', [
    (NASNET_A, 20, 36, 3_830_950, 603.452), (NASNET_A, 14, 48, 5_564_320, 604.032),
    (AMOEBANET_A, 20, 36, 3_145_078, 488.932), (NOISY, 20, 36, 4_341_862, 656.922),
    (NOISY_PC, 20, 36, 4_341_862, 656.922), (NOISY, 20, 16, 928_442, None), (NOISY, 8, 16, 384_570, None)])
def test_operations_beyond_the_darts_space(case, cells, channels, params, millions):
  imagenet = {'num_classes': 1000, 'image_size': 224, 'imagenet': True} if channels == 48 else {'num_classes': 10}
  found = cost.count(*case, cells=cells, channels=channels, **imagenet)
  assert found.params == params
  assert millions in (None, round(found.madds / 1e6, 3))


def test_auxiliary_heads():
  for channels, classes, params in ((36, 10, 476_426), (36, 100, 545_636), (16, 10, 435_466)):
    assert cost.auxiliary(DARTS, cells=20, channels=channels, num_classes=classes).params == params
  size = {'cells': 14, 'channels': 48, 'num_classes': 1000, 'imagenet': True}
  assert cost.auxiliary(DARTS, **size) == (1_260_776, 4 * 128 * 768 + 4 * 128 * 768 + 768_000)
  assert cost.auxiliary(DARTS, **size, norm=True).params == 1_260_776 + 2 * 768
  with pytest.raises(UserError, match='set auxiliary=False'):
    cost.auxiliary(NB201, cells=5, channels=16, num_classes=10)


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


@pytest.mark.parametrize('every', [7, pytest.param(1, marks=SLOW)])
def test_all_15625_cells_have_the_size_of_the_benchmark(every):
  """The package stores params / 1e6 as float64, and `nasbench201.load` refuses a size that is not one exactly."""
  tables = nasbench201.load().tables
  params = np.array([cost.count(NB201, genotype, cells=5, channels=16, num_classes=10).params
                     for genotype in list(nb201.everything())[::every]])
  for name, classes in (('cifar10', 10), ('cifar100', 100), ('ImageNet16-120', 120)):
    np.testing.assert_array_equal(tables[name].params[::every], params + 65 * (classes - 10))


def test_supernets():
  assert cost.supernet(DARTS, cells=8, channels=16, num_classes=10) == 1_930_618
  assert cost.supernet(DARTS, cells=8, channels=16, num_classes=100) == 1_953_748
  assert cost.supernet(NB201, cells=5, channels=16, num_classes=10) == 1_686_106


@pytest.mark.parametrize('name, imagenet', [('nb201', False), ('darts', False), ('darts', True)])
def test_images_that_are_no_squares_cost_by_their_area(name, imagenet):
  """Exactly, but for the linear layer, where every stride divides both sides."""
  space, side = spaces.get(name), 64 if imagenet else 16
  genotype = space.genotype({cell: np.random.default_rng(0).random(rows.shape) for cell, rows in space.cells.items()})
  size = {'cells': 3, 'channels': 8, 'num_classes': 10, 'imagenet': imagenet}
  square, wide, high = (cost.count(space, genotype, image_size=sides, **size)
                        for sides in (side, (side, 3 * side), (3 * side, side)))
  assert wide == high and wide.params == square.params
  head = {madds for madds in range(100_000) if wide.madds - madds == 3 * (square.madds - madds)}
  assert len(head) == 1 and not head.pop() % 10  # times ten classes
  assert cost.count(space, genotype, image_size=(side, side), **size) == square
  shares = cost.shares(space, image_size=(side, 3 * side), **size)
  total = shares.fixed.madds + sum(
      shares.rows[cell][space.cells[cell].edges.index((source, target))][
          space.cells[cell].ops[space.cells[cell].edges.index((source, target))].index(op)].madds
      for cell, edges in genotype.cells.items() for op, source, target in edges)
  assert total == wide.madds


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
  with pytest.raises(UserError, match='31 pixels are too small.*at least 32'):
    cost.count(DARTS, genotype, cells=14, channels=48, num_classes=10, image_size=31, imagenet=True)
  with pytest.raises(UserError, match='no ImageNet network'):
    cost.count(NB201, nb(*['none'] * 6), cells=5, channels=16, num_classes=10, imagenet=True)
  with pytest.raises(UserError, match='channels=15'):
    cost.count(DARTS, genotype, cells=14, channels=15, num_classes=10, image_size=224, imagenet=True)


def test_genotypes_are_valid_and_unknown_names_list_the_known():
  for genotype in genotypes.PUBLISHED.values():
    assert DARTS.read(DARTS.write(DARTS.validate(genotype))) == genotype
  assert genotypes.get('DARTS_V2').cells['normal'][-1] == ('dil_conv_3x3', 2, 5)
  with pytest.raises(UserError, match="'DARTS_V3'.*DARTS_V1, DARTS_V2"):
    genotypes.get('DARTS_V3')
