import os
import pathlib
import sys

# The tests compile much and compute little: unoptimised machine code is there sooner, and says the same.
# Flags from outside, such as --xla_cpu_max_isa=AVX, count in the processes that tests start too; they are kept apart,
# as pytest's workers inherit what is set here.
_OUTER = os.environ.setdefault('OUTER_XLA_FLAGS', os.environ.get('XLA_FLAGS', ''))
_OPTIMISED = os.environ.get('TESTS_OPTIMISED') == '1'  # what one slow test asks of another run of the tests
QUICK = _OUTER if _OPTIMISED else f'{_OUTER} --xla_backend_optimization_level=0'.strip()
os.environ['XLA_FLAGS'] = f'{QUICK} --xla_force_host_platform_device_count={os.environ.get("TESTS_DEVICES", "4")}'
if _OPTIMISED:
  os.environ.pop('NUMBA_OPT', None)
else:
  os.environ['NUMBA_OPT'] = '0'  # the same for the kernels
_BITS = os.environ.get('TESTS_VECTOR_BITS', '')  # likewise
CACHE = pathlib.Path(__file__).resolve().parents[1] / '.pytest_cache' / 'compiled'  # also between runs of the tests
os.environ['JAX_COMPILATION_CACHE_DIR'] = os.environ.get('TESTS_COMPILED', str(CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')  # what tests share is small
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
if os.environ.pop('PYTHONDONTWRITEBYTECODE', ''):  # every process that a test starts would compile all of JAX again
  os.environ['PYTHONPYCACHEPREFIX'] = sys.pycache_prefix = str(CACHE.parent / 'bytecode')
  sys.dont_write_bytecode = False

import jax
import llvmlite.binding
import ml_collections
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
ONE_EDGE = str(ROOT / 'tests' / 'one_edge.py')  # the space that compiles soonest
SHARED = ROOT.parent / 'shared' / 'data'

SLOW = pytest.mark.slow  # not in every run: pytest -m slow

jax.config.update('jax_numpy_rank_promotion', 'raise')


if _BITS:  # of the kernels' vectors; LLVM makes two of one where the machine's are half as wide
  _features = llvmlite.binding.get_host_cpu_features
  _asked = type(_features())(_features(), avx512f=_BITS == '512')
  llvmlite.binding.get_host_cpu_features = lambda: _asked
  import vimnas_jax.cpu.table  # noqa: F401
  llvmlite.binding.get_host_cpu_features = _features

LONG = ('test_devices_find_what_one_finds', 'test_every_config_and_space_has', 'test_a_search_goes_on_to')
RUNS = {'told', 'trained', 'whole'}  # fixtures that take long, which tests of one worker share


# Long cases of what shorter ones test too, beside those that are marked where they stand.
LEFT_OUT = set((ROOT / 'tests' / 'slow.txt').read_text().splitlines())


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
  """The longest first, so that no worker is left alone with one at the end; those that share a run go to one worker."""
  for item in items:
    for shared in RUNS & {*item.fixturenames}:
      item.add_marker(pytest.mark.xdist_group(f'{item.path.stem} {shared}'))
    if item.nodeid.removeprefix('tests/') in LEFT_OUT:
      item.add_marker(SLOW)
  items.sort(key=lambda item: not (item.name.startswith(LONG) or RUNS & {*item.fixturenames}))


def fixed(theta, phi):
  """What steps.search_steps asks for, of optimisers whose schedules are fixed."""
  from vimnas_jax.runs.steps import Optimisers
  return lambda length: Optimisers(theta, phi, theta, None)


class Cut(Exception):
  """What a kill does to a run, in this process: no more is done."""


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


@pytest.fixture
def cifar_dir():
  if not (SHARED / 'tfds' / 'cifar10').exists():
    pytest.skip('no CIFAR-10 in ../shared/data/tfds')
  return str(SHARED / 'tfds')


def data_config(name, **fields):
  base = {'name': name, 'dir': '', 'download': False, 'num_train': 120, 'num_test': 40, 'image_size': 8,
          'num_classes': 4, 'seed': 0, 'shrink': 1, 'split': '', 'max_pixels': 64_000_000, 'photographs': 0,
          'moments': 'own', 'stream': None, 'smallest': 0.0, 'validation': 0.0, 'damaged': 'refuse'}
  return ml_collections.ConfigDict({**base, **fields})


def one_line(error):
  text = str(error.value)
  assert '\n' not in text
  return text


def agree(got, wanted):
  for part in ('train', 'test'):
    split = getattr(got, part)
    np.testing.assert_array_equal(split.images, wanted[part][0])
    np.testing.assert_array_equal(split.labels, wanted[part][1])
    assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32 and split.images.flags.c_contiguous
