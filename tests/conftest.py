import os
import pathlib

# The tests compile much and compute little: unoptimised machine code is there sooner, and says the same.
QUICK = '--xla_backend_optimization_level=0'
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {QUICK} --xla_force_host_platform_device_count=4'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / 'shared' / 'data'

jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


@pytest.fixture
def cifar_dir():
  if not (SHARED / 'tfds' / 'cifar10').exists():
    pytest.skip('no CIFAR-10 in ../shared/data/tfds')
  return str(SHARED / 'tfds')
