"""Which instructions the kernels use, and what a result says of them."""

import os
import pathlib
import subprocess
import sys

import pytest
from conftest import ROOT
from llvmlite import binding

from vimnas_jax import isa
from vimnas_jax.runs import provenance

FLAG = '--xla_cpu_max_isa='
ASKED = '''
from numba import cfunc, types
from vimnas_jax.cpu import table
from vimnas_jax.cpu.source import frame, loops
found, count = loops.loop('product_1_8_set', 16, 'float32')
text = cfunc(types.int64(*[types.int64] * count), **frame.OPTIONS)(found)._library.get_asm_str()
print(table.BYTES, '+avx512' in table.FEATURES.flatten(), 'zmm' in text, 'ymm' in text or 'vfmadd' not in text)
'''
CPUINFO = pytest.mark.skipif(not pathlib.Path('/proc/cpuinfo').exists(), reason='no /proc/cpuinfo')


@CPUINFO
def test_a_machine_is_told_with_its_vectors(monkeypatch):
  """As the compiler of the kernels knows them."""
  monkeypatch.delenv('XLA_FLAGS')
  found = binding.get_host_cpu_features()
  vectors = next((name for flag, name in (('avx512f', 'AVX-512'), ('avx2', 'AVX2')) if found.get(flag)), '')
  assert provenance.machine().endswith(f', {vectors}' if vectors else provenance.processor())


@CPUINFO
@pytest.mark.skipif(not binding.get_host_cpu_features().get('avx512f'), reason='this machine has no AVX-512')
def test_a_machine_that_was_asked_for_less_says_so(monkeypatch):
  for asked in ('AVX2', 'AVX', 'SSE4_2'):
    monkeypatch.setenv('XLA_FLAGS', FLAG + asked)
    assert provenance.machine().endswith(f', {asked} of AVX-512')


@pytest.mark.parametrize('flags, narrow', [
    ('', False), (FLAG + 'AVX2', True), (f'--xla_other=1 {FLAG}avx2', True), (FLAG + 'AVX', True),
    (FLAG + 'SSE4_2', True), (FLAG + 'AVX512', False), (FLAG + 'AMX', False), (f'{FLAG}AVX2 {FLAG}AVX512', False)])
def test_xlas_flag_holds_for_the_kernels(monkeypatch, flags, narrow):
  monkeypatch.setenv('XLA_FLAGS', flags)
  assert isa.narrow() == narrow
  features = {'avx2': True, 'fma': True, 'avx512f': True, 'avx512vl': True, 'amx-bf16': False}
  assert isa.allowed(features) == (features | {'avx512f': False, 'avx512vl': False} if narrow else features)


def test_nothing_wider_is_compiled_than_was_asked_for():
  done = subprocess.run([sys.executable, '-c', ASKED], cwd=ROOT, capture_output=True, text=True, check=True,
                        env={**os.environ, 'XLA_FLAGS': FLAG + 'AVX2'})
  assert done.stdout.split() == ['32', 'False', 'False', 'True']
