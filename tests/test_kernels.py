import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import ROOT, SLOW
from llvmlite import binding

from vimnas_jax import isa
from vimnas_jax.cpu import bank, mix, table
from vimnas_jax.networks import mixing
from vimnas_jax.networks.ops import OPS, max_pool

pytestmark = pytest.mark.skipif(mixing.kernels() is None, reason='the kernels are switched off')

# edge: its operations; not every edge carries every one, as in S1
BANKS = {'sep_conv_3x3': (0, 1, 2), 'dil_conv_5x5': (1,), 'nor_conv_3x3': (0, 2), 'max_pool_3x3': (0, 1, 2),
         'nor_conv_1x1': (2,), 'avg_pool_3x3': (0, 2), 'skip_connect': (1, 2)}
FORMS = {'sep_conv_5x5': (0, 1), 'dil_conv_3x3': (0, 1), 'avg_pool_3x3': (0, 1)}


def _inputs(banks, c, stride, side, samples, dtype, scale=1.0, shift=0.0, n=8):
  keys = iter(jax.random.split(jax.random.key(0), 40))
  x = shift + scale * jax.random.normal(next(keys), (n, side, side + 1, c), dtype)
  params = {op: {name: jax.random.normal(next(keys), (len(own), *shape), dtype) / fan_in ** 0.5
                 for name, (shape, fan_in) in OPS[op].shapes(c, stride).items()} for op, own in banks.items()}
  weights = {op: jax.random.uniform(next(keys), (samples, len(own)), dtype) for op, own in banks.items()}
  return x, params, weights, next(keys)


def _plain(banks, into, stride, x, params, weights, pool_norm):
  outputs = [0.0 if y is None else y for y in into]
  for op, own in banks.items():
    for i, e in enumerate(own):
      y = reference.op(op, x, jax.tree.map(lambda a, i=i: a[i], params[op]), stride, pool_norm)
      w = jnp.repeat(weights[op][:, i], x.shape[0] // len(weights[op]))
      outputs[e] += w[:, None, None, None] * y
  return outputs


def _compare(banks, edges, stride, x, params, weights, key, tolerance, pool_norm=True):
  shapes = jax.eval_shape(lambda: _plain(banks, [None] * edges, stride, x, params, weights, pool_norm))
  probes = [jax.random.normal(key, s.shape, s.dtype) for s in shapes]
  into = [None, *probes[:0:-1]]  # what the first edge adds to is not there yet

  def total(form):
    def f(x, params, weights, into):
      outputs = form(x, params, weights, into)
      return sum((probe * y).sum() for probe, y in zip(probes, outputs)), outputs
    return jax.jit(jax.value_and_grad(f, (0, 1, 2, 3), has_aux=True))(x, params, weights, into)

  got = total(lambda x, p, w, into: mixing.mixed(x, banks, into, p, w, stride, pool_norm))
  want = total(lambda x, p, w, into: _plain(banks, into, stride, x, p, w, pool_norm))
  for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1e-3, float(jnp.abs(b).max())),
                               err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize('stride, side, samples, n', [
    (1, 5, 1, 17), (2, 7, 4, 8), *(pytest.param(*case, marks=SLOW) for case in ((1, 8, 2, 8), (2, 6, 1, 17)))])
@pytest.mark.parametrize('banks, c', [(BANKS, 4), pytest.param(FORMS, 24, marks=SLOW)])
def test_kernels_equal_one_operation_at_a_time(x64, banks, c, stride, side, samples, n):
  """Also of 17 images, odd and more than the 16 parts that threads share."""
  banks = {op: own for op, own in banks.items() if stride == 1 or 'nor' not in op}
  x, params, weights, key = _inputs(banks, c, stride, side, samples, jnp.float64, n=n)
  assert all(bank.fits(op, c, x.dtype, stride) for op in banks)
  _compare(banks, 2 if c == 24 else 3, stride, x, params, weights, key, 1e-10, pool_norm=samples == 1)


@pytest.mark.parametrize('n', [1, 33, *(pytest.param(n, marks=SLOW) for n in (16, 17, 64))])
def test_batches_that_threads_share_in_equal_and_unequal_parts(x64, n):
  """Fewer images than parts, as many, and more, where parts have one image more than others."""
  banks = {'sep_conv_3x3': (0, 1), 'nor_conv_3x3': (0,), 'max_pool_3x3': (1,), 'avg_pool_3x3': (0,)}
  x, params, weights, key = _inputs(banks, 4, 1, 5, 1, jnp.float64, n=n)
  _compare(banks, 2, 1, x, params, weights, key, 1e-10)


def test_the_vectors_are_as_long_as_asked_for():
  bits = os.environ.get('TESTS_VECTOR_BITS')
  machine = 512 if binding.get_host_cpu_features().get('avx512f') and not isa.narrow() else 256
  assert int(bits or machine) == 8 * table.BYTES


@pytest.mark.parametrize('stride', [1, 2])
def test_tied_pixels_share_the_gradient(x64, stride):
  x, _, weights, key = _inputs({'max_pool_3x3': (0,)}, 4, 1, 5, 1, jnp.float64)
  x = jnp.round(x)

  def total(form):
    return jax.grad(lambda x: (form(x) * jax.random.normal(key, (4,))[None, None, None]).sum())(x)

  banks, params = {'max_pool_3x3': (0,)}, {'max_pool_3x3': {}}
  got = total(lambda x: mixing.mixed(x, banks, [None], params, weights, stride, False)[0])
  want = total(lambda x: weights['max_pool_3x3'][0, 0] * max_pool(x, stride))
  np.testing.assert_allclose(got, want, atol=1e-12)


@SLOW
@pytest.mark.parametrize('c', [8, pytest.param(12, marks=SLOW)])
def test_single_precision(c):
  x, params, weights, key = _inputs(BANKS | FORMS, c, 1, 8, 1, jnp.float32)
  _compare(BANKS | FORMS, 3, 1, x, params, weights, key, 1e-4)


@pytest.mark.parametrize('stride', [1, pytest.param(2, marks=SLOW)])
def test_an_edge_that_has_no_operation_in_kernels(x64, stride):
  """The first of three that leave a node, of which the others have what all share."""
  banks = {'sep_conv_7x7': (0,), 'skip_connect': (1, 2), 'max_pool_3x3': (2,), 'avg_pool_3x3': (1,)}
  x, params, weights, key = _inputs(banks, 4, stride, 5, 2, jnp.float64)
  _compare(banks, 3, stride, x, params, weights, key, 1e-10)


def test_one_hot_weights(x64):
  x, params, weights, key = _inputs(BANKS, 4, 1, 5, 1, jnp.float64)
  weights = {op: jnp.zeros_like(w) for op, w in weights.items()} | {'dil_conv_5x5': jnp.ones((1, 1))}
  _compare(BANKS, 3, 1, x, params, weights, key, 1e-10)


@pytest.mark.parametrize('op', ['nor_conv_1x1', 'nor_conv_3x3', 'dil_conv_3x3', 'sep_conv_3x3'])
def test_nearly_constant_channels(op):
  """A variance far below the square of the mean, and below BatchNorm's epsilon: float32 against float64."""
  banks = {op: (0, 1)}
  x, params, weights, _ = _inputs(banks, 8, 1, 9, 1, jnp.float32, 1e-3, 30.0)

  def run(x, params, weights):
    y = jax.jit(lambda x, p, w: mixing.mixed(x, banks, [None] * 2, p, w, 1, True))(x, params, weights)
    return np.asarray(jnp.stack(y)[:, :, 3:-3, 3:-3])  # away from the padding, which varies

  got = run(x, params, weights)
  with jax.enable_x64(True):
    want = run(*jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), (x, params, weights)))
  assert np.isfinite(got).all()
  np.testing.assert_allclose(got, want, atol=2e-2 * np.abs(want).max())


def test_variance_is_never_negative():
  x = np.float32(1e4 + 1e-3 * np.random.default_rng(0).standard_normal((6, 5, 4, 8))).astype(np.float64)
  own = x.mean((1, 2), keepdims=True).astype(np.float32)  # what rounding to single precision moves is not the kernel's
  moments = np.stack([own[:, 0, 0], np.square(x - own).sum((1, 2))], 1).astype(np.float32)
  mean, inverse = jax.jit(lambda m: mix.statistics(m, 20, 1e-12, 8))(moments)
  assert np.isfinite(inverse).all()
  np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-6)
  np.testing.assert_allclose(np.asarray(inverse, np.float64) ** -2, x.var((0, 1, 2)) + 1e-12, atol=1e-6)


def test_nan_is_not_swallowed():
  x, params, weights, _ = _inputs(FORMS, 8, 1, 6, 1, jnp.float32)
  y = mixing.mixed(x.at[0, 0, 0, 0].set(jnp.nan), FORMS, [None] * 2, params, weights, 1, True)
  assert jnp.isnan(y[0]).any()
  pool, ones = {'max_pool_3x3': (0,)}, {'max_pool_3x3': jnp.ones((1, 1))}
  (y,) = mixing.mixed(x.at[0, 3, 3, 0].set(jnp.nan), pool, [None], {'max_pool_3x3': {}}, ones, 1, False)
  assert jnp.isnan(y[0, 2:5, 2:5, 0]).all()


def test_same_bits_from_call_to_call():
  x, params, weights, _ = _inputs(BANKS, 8, 1, 8, 1, jnp.float32)
  f = jax.jit(jax.grad(lambda p: sum(jnp.square(y).sum()
                                     for y in mixing.mixed(x, BANKS, [None] * 3, p, weights, 1, True))))
  first, *others = [f(params) for _ in range(5)]
  for other in others:
    jax.tree.map(np.testing.assert_array_equal, first, other)


def test_no_vector_reaches_over_two_maps_that_lie_side_by_side():
  """Those of narrow edges, whose skip connections of stride 2 are one convolution from twice as many channels."""
  banks = {'skip_connect': (0, 1)}
  x, params, weights, key = _inputs(banks, 4, 2, 6, 1, jnp.float32)
  _compare(banks, 2, 2, x, params, weights, key, 1e-4)


@pytest.mark.parametrize('c, dtype', [(16, jnp.bfloat16), (6, jnp.float32)])
def test_what_kernels_do_not_fit_runs_op_by_op(c, dtype):
  assert not bank.fits('sep_conv_3x3', c, dtype, 1)
  x, params, weights, _ = _inputs({'sep_conv_3x3': (0,)}, c, 1, 6, 1, dtype)
  (y,) = mixing.mixed(x, {'sep_conv_3x3': (0,)}, [None], params, weights, 1, True)
  assert y.shape == x.shape and y.dtype == dtype


@SLOW
@pytest.mark.skipif('TESTS_OPTIMISED' in os.environ, reason='this is the run that it starts')
@pytest.mark.parametrize('bits', [256, 512])
def test_all_that_is_here_holds_of_optimised_machine_code(bits):
  """Which users run; conftest has the compilers leave it unoptimised. With vectors of either length: where a machine
  has no 512 bits, LLVM makes two of 256 of them, and the code for sixteen channels is tested all the same.
  """
  done = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-n', '0',
                         '-m', '', 'tests/test_kernels.py'], cwd=ROOT, capture_output=True, text=True, timeout=1800,
                        env={**os.environ, 'TESTS_OPTIMISED': '1', 'TESTS_VECTOR_BITS': str(bits)})
  assert done.returncode == 0 and ' passed' in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
