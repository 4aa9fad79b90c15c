"""The CPU's kernels from outside: who may call them, with what, and what is said where they cannot be called."""
import ctypes
import importlib.metadata
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, one_line

from vimnas_jax import cpu
from vimnas_jax.cpu import dense, library, mix, normed, store, table
from vimnas_jax.cpu import interface as xla
from vimnas_jax.errors import UserError
from vimnas_jax.networks import mixing

pytestmark = pytest.mark.skipif(mixing.kernels() is None, reason='the kernels are switched off')

X, KERNEL, ONES = np.ones((2, 4, 4, 8), np.float32), np.ones((1, 1, 8, 8), np.float32), np.ones(8, np.float32)


def _fold(x):
  return mix.fold(x)[0].sum()


def _trained(x):
  return jnp.square(normed.trained(x, (KERNEL,), (1,), ONES, ONES, 1e-5)[0]).sum()


def _mixed(x):
  banks = {'nor_conv_1x1': (0,)}
  params, weights = {'nor_conv_1x1': {'kernel': KERNEL[None]}}, {'nor_conv_1x1': np.ones((1, 1), np.float32)}
  return jnp.square(mixing.mixed(x, banks, [None], params, weights, 1, True)[0]).sum()


def test_products_of_any_number_of_rows():
  """They fall into blocks of three heights, one, two or three vectors wide; a 1x1 convolution has a row for a pixel."""
  width = table.BYTES // 4
  for across in (1, 2, 3):
    kernel = np.asarray(jax.random.normal(jax.random.key(across), (1, 1, across * width, across * width)))
    for rows in (1, 2, 3, 5, 6, 7, 8, 13, 23, 31):
      x = np.asarray(jax.random.normal(jax.random.key(rows), (2, 1, rows, across * width)))
      np.testing.assert_allclose(dense.forward(x, kernel, relu=False)[0], x @ kernel[0, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('ask', [
    lambda: jax.grad(lambda x: jnp.square(jax.grad(_trained)(x)).sum())(X),
    lambda: jax.jit(jax.grad(lambda x: jnp.square(jax.grad(_mixed)(x)).sum())).lower(X),
    lambda: jax.jvp(jax.grad(_mixed), (X,), (X,)), lambda: jax.hessian(_mixed)(X),
    lambda: jax.jvp(_fold, (X,), (X,)), lambda: jax.grad(_fold)(X),
    lambda: jax.grad(lambda x: normed.evaluated(x, (KERNEL,), (1,), ONES, ONES, 1e-5, ONES, ONES).sum())(X)])
def test_a_derivative_that_kernels_do_not_have_is_told_in_one_line(ask):
  with pytest.raises(UserError, match=r'no second derivative.* kernels=False .*VIMNAS_JAX_KERNELS=0') as error:
    ask()
  one_line(error)


@pytest.mark.parametrize('ask', [
    lambda: jax.vmap(_mixed)(X[None]), lambda: jax.jit(jax.vmap(jax.grad(_trained))).lower(X[None]),
    lambda: jax.vmap(_fold)(X[None]), lambda: jax.jit(jax.vmap(jax.jit(_fold))).lower(X[None]),
    lambda: jax.vmap(lambda k: dense.forward(X, k)[0])(KERNEL[None])])
def test_a_batch_of_calls_is_told_in_one_line(ask):
  with pytest.raises(UserError, match=r'no batching rule.* kernels=False .*VIMNAS_JAX_KERNELS=0') as error:
    ask()
  one_line(error)


def test_what_kernels_do_have_goes_on():
  """A first derivative, also in a loop, after recomputation, and beside a second one of something else."""
  want = jax.grad(_mixed)(X)
  looped = jax.grad(lambda x: jax.lax.scan(lambda total, _: (total + _mixed(x), None), 0.0, None, 2)[0])
  for got in (jax.jit(jax.grad(_mixed))(X), jax.jit(jax.grad(jax.checkpoint(_mixed)))(X), jax.jit(looped)(X) / 2,
              jax.vmap(lambda v: v * jax.grad(_mixed)(X))(jnp.ones(2))[1]):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  assert jax.grad(jax.grad(lambda v: v ** 3 * jax.lax.stop_gradient(_mixed(X))))(1.0) == 6 * _mixed(X)


@pytest.mark.parametrize('args, said', [
    ((X, X), 'inner takes .* ranks are 31, .*float32 with ranks 44'), ((X[0, 0], np.ones(3)), 'float32, float64 with'),
    ((np.ones((2, 8), np.int32),), 'not of int32'), ((np.ones((2, 8), jnp.bfloat16),), 'not of bfloat16')])
def test_arguments_that_a_kernel_would_misread_are_refused(args, said):
  with pytest.raises(TypeError, match=said):
    library.call(('inner', 'fold_loop', 'finish_loop'), 8, [(8,)], *args)


def test_numba_is_not_imported_before_it_is_needed():
  code = ('import sys; import vimnas_jax.networks.supernet, vimnas_jax.networks.oneshot, vimnas_jax.networks.network; '
          'assert not {"numba", "llvmlite"} & set(sys.modules)')
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, timeout=120)


def test_the_rest_of_the_package_imports_the_door_alone():
  for path in (ROOT / 'vimnas_jax').rglob('*.py'):
    assert 'cpu' in path.relative_to(ROOT).parts or not re.search(r'import.*vimnas_jax\.cpu|from vimnas_jax\.cpu',
                                                                  path.read_text())


def test_machine_code_is_kept_for_this_jaxlib_alone(monkeypatch):
  version, fingerprint = importlib.metadata.version, store._fingerprint.__wrapped__
  before = fingerprint()
  assert fingerprint() == before
  for name in ('jaxlib', 'numba', 'llvmlite'):
    monkeypatch.setattr(importlib.metadata, 'version', lambda p, name=name: 'other' if p == name else version(p))
    assert fingerprint() != before


@pytest.mark.parametrize('major, minor, fits', [(0, 3, True), (0, 4, True), (0, 2, False), (1, 3, False),
                                                ('', 3, False)])
def test_another_interface_of_xla_is_not_called(tmp_path, monkeypatch, recwarn, major, minor, fits):
  """Which is said once."""
  header = tmp_path / 'xla' / 'ffi' / 'api' / 'c_api.h'
  header.parent.mkdir(parents=True)
  header.write_text(f'#define XLA_FFI_API_MAJOR {major}\n#define XLA_FFI_API_MINOR {minor}\n')
  monkeypatch.setattr(jax.ffi, 'include_dir', lambda: str(tmp_path))
  monkeypatch.setattr(library, 'unfit', library.unfit.__wrapped__)
  assert bool(library.unfit()) != fits
  cpu.available.cache_clear()
  try:
    with pytest.warns() if not fits else pytest.MonkeyPatch.context() as told:
      for kernels in 2 * (cpu.supernet_kernels, cpu.convolution_kernels, cpu.oneshot_kernels):
        assert (kernels() is not None) == fits
    assert fits or [w.category for w in told] == [RuntimeWarning] and 'the plain form runs' in str(told[0].message)
  finally:
    cpu.available.cache_clear()


def _structs(text):
  """{struct: ({field: offset}, size)} of XLA's header."""
  text = re.sub(r'//.*', '', text)
  sizes = dict.fromkeys(['int', 'int32_t', 'uint32_t', 'XLA_FFI_Handler_Traits'], 4)
  sizes |= dict.fromkeys(re.findall(r'typedef enum \{[^}]*\} (\w+);', text), 4)
  sizes |= {'size_t': 8, 'int64_t': 8}
  found = {}
  for name, body in re.findall(r'struct (XLA_FFI_\w+) \{(.*?)\n\}', text, re.DOTALL):
    body = re.sub(r'[\s*]*\*[\s*]*', '* ', re.sub(r'\(\*(\w+)\)\([^)]*\)', r'* \1', body))
    place, fields = 0, {}
    for kind, star, field, function in re.findall(r'(\w+)(\*?)\s+(\w+);|_XLA_FFI_API_STRUCT_FIELD\((\w+)\);', body):
      size = 8 if star or function else sizes.get(kind) or found[kind][1]
      place = -(-place // min(size, 8)) * min(size, 8)
      fields[function or field] = place
      place += size
    found[name] = fields, -(-place // 8) * 8
    sizes[name] = found[name][1]
  return found


FIELDS = {
    'CallFrame': 'FRAME extension=extension_start api ctx stage args rets attrs size=future',
    'Args': 'LIST count=size types items=args', 'Rets': 'LIST count=size types items=rets',
    'Attrs': 'ATTRS count=size types items=attrs', 'Buffer': 'BUFFER data rank dims', 'Scalar': 'SCALAR dtype value',
    'Api': 'API error_create=XLA_FFI_Error_Create error_destroy=XLA_FFI_Error_Destroy '
           'schedule=XLA_FFI_ThreadPool_Schedule num_threads=XLA_FFI_ThreadPool_NumThreads',
    'Extension_Base': 'EXTENSION type next', 'Metadata_Extension': 'EXTENSION metadata',
    'Metadata': 'METADATA size=traits', 'ThreadPool_NumThreads_Args': 'THREADS ctx num=num_threads',
    'ThreadPool_Schedule_Args': 'TASK ctx task data', 'Error_Create_Args': 'CREATE message errc',
    'Error_Destroy_Args': 'DESTROY error'}


def test_the_offsets_are_those_of_the_header():
  """Of the installed jaxlib; sizes reach to the end of the last field that is used."""
  with open(f'{jax.ffi.include_dir()}/xla/ffi/api/c_api.h', encoding='utf-8') as f:
    structs = _structs(f.read())
  for struct, words in FIELDS.items():
    prefix, *fields = words.split()
    for constant, _, field in (word.partition('=') for word in fields):
      got = getattr(xla, f'{prefix}_{constant.upper()}')
      assert got == structs[f'XLA_FFI_{struct}'][0][field or constant], (struct, constant)
  for struct, prefix, field in (('Api', 'API', 'api_version'), ('Metadata', 'METADATA', 'api_version')):
    for part in ('major', 'minor'):
      place = structs[f'XLA_FFI_{struct}'][0][field] + structs['XLA_FFI_Api_Version'][0][f'{part}_version']
      assert getattr(xla, f'{prefix}_{part.upper()}') == place
  whole = {'Args': xla.LIST_SIZE, 'Rets': xla.LIST_SIZE, 'Attrs': xla.ATTRS_SIZE, 'Buffer': xla.BUFFER_SIZE,
           'Metadata_Extension': xla.EXTENSION_SIZE, 'ThreadPool_NumThreads_Args': xla.THREADS_SIZE,
           'ThreadPool_Schedule_Args': xla.TASK_SIZE, 'Error_Destroy_Args': xla.DESTROY_SIZE}
  assert {name: structs[f'XLA_FFI_{name}'][1] for name in whole} == whole
  assert xla.CREATE_ERRC + 4 == xla.CREATE_SIZE
  assert (xla.API_ERROR_CREATE + 8, xla.API_NUM_THREADS + 8) == (xla.API_LEAST, xla.API_SIZE)


C = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
CHUNK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


class Call:
  """A call as XLA makes it, in memory of our own; there is no thread pool. Every array may be changed before `run`."""

  def __init__(self):
    def place(array):
      return array.ctypes.data
    self.said, self.freed, self.done = [], [], []
    self.functions = [C(self._create), C(self._destroy), C(lambda asked: 77),
                      CHUNK(lambda _, i: self.done.append(i) or 0)]
    create, destroy, threads, chunk = (ctypes.cast(f, ctypes.c_void_p).value for f in self.functions)
    table.TABLE[0] = chunk  # the slot of no function
    self.values = np.array([0, 3])
    self.scalars = [np.array([xla.DTYPE_S64, place(self.values[i:])]) for i in range(2)]
    self.attr_items = np.array([place(s) for s in self.scalars])
    self.buffer = np.array([xla.BUFFER_SIZE, 0, 11, 0, 0, 0])
    self.items = np.array([place(self.buffer)])
    self.types, self.attr_types = np.array([xla.TYPE_BUFFER], np.int32), np.full(2, xla.TYPE_SCALAR, np.int32)
    self.api = np.zeros(xla.API_SIZE // 8, np.int64)
    self.api[[0, 4]] = xla.API_SIZE, xla.VERSION[0] | xla.VERSION[1] << 32
    self.api[[xla.API_ERROR_CREATE // 8, xla.API_ERROR_DESTROY // 8, xla.API_NUM_THREADS // 8]] = (
        create, destroy, threads)
    self.frame = np.array([
        xla.FRAME_SIZE, 0, place(self.api), 5, xla.STAGE_EXECUTE,
        *2 * [xla.LIST_SIZE, 0, 1, place(self.types), place(self.items)],
        xla.ATTRS_SIZE, 0, 2, place(self.attr_types), 0, place(self.attr_items)])

  def _create(self, asked):
    size, _, message = (ctypes.c_int64 * 3).from_address(asked)
    code = ctypes.c_int32.from_address(asked + xla.CREATE_ERRC).value
    assert (size, code) == (xla.CREATE_SIZE, xla.FAILED_PRECONDITION)
    self.said.append(ctypes.string_at(message).decode())
    return 99

  def _destroy(self, asked):
    self.freed.append(ctypes.c_int64.from_address(asked + xla.DESTROY_ERROR).value)
    return 0

  def run(self):
    return C(library.handler())(self.frame.ctypes.data)


def test_without_a_thread_pool_one_thread_does_it_all():
  call = Call()
  assert call.run() == 0
  assert call.done == [0, 1, 2] and call.freed == [77] and not call.said


@pytest.mark.parametrize('array, index, value, said', [
    ('api', 0, xla.API_SIZE - 8, 'another version'), ('api', 4, 1 | 3 << 32, 'another version'),
    ('api', 4, 2 << 32, 'another version'), ('frame', xla.FRAME_ARGS // 8, 32, 'another version'),
    ('frame', xla.FRAME_RETS // 8, 32, 'another version'), ('frame', xla.FRAME_ATTRS // 8, 40, 'another version'),
    ('frame', xla.FRAME_STAGE // 8, 1, 'stage'), ('buffer', 0, 40, 'buffers'), ('types', 0, 2, 'buffers'),
    ('attr_types', 1, 4, 'integers'), ('frame', xla.FRAME_ATTRS // 8 + 2, 1, 'integers')])
def test_a_call_of_another_layout_is_refused(array, index, value, said):
  call = Call()
  getattr(call, array)[index] = value
  assert call.run() == 99
  assert len(call.said) == 1 and said in call.said[0] and not call.done


def test_what_the_handler_is_built_for():
  """Which XLA asks with an extension, perhaps behind others; a frame too short gets a version that XLA refuses."""
  call, metadata = Call(), np.array([36, 24, 0, 0, 0, 0])
  extension = np.array([xla.EXTENSION_SIZE, xla.TYPE_METADATA, 0, metadata.ctypes.data])
  other = np.array([24, 2, 0])
  call.frame[1] = other.ctypes.data
  assert call.run() == 0 and call.done == [0, 1, 2]
  other[2] = extension.ctypes.data
  version = metadata.view(np.int32)[[xla.METADATA_MAJOR // 4, xla.METADATA_MINOR // 4]]
  assert not version.any()
  assert call.run() == 0 and call.done == [0, 1, 2]
  assert tuple(metadata.view(np.int32)[xla.METADATA_MAJOR // 4:][:2]) == xla.VERSION
  call.frame[0] = xla.FRAME_SIZE - 8
  call.run()
  assert metadata.view(np.int32)[xla.METADATA_MAJOR // 4] == -1


def test_xla_raises_what_a_kernel_refuses():
  library.register('vimnas_jax_fold')
  f = jax.ffi.ffi_call('vimnas_jax_fold', jax.ShapeDtypeStruct((8,), np.float32))
  with pytest.raises(jax.errors.JaxRuntimeError, match='buffers and 64-bit integers alone'):
    jax.block_until_ready(f(X[0, 0], call=np.int64(0), chunks=np.float32(1)))
