import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from benchmarks import roofline, table


def entry(text):
  program = roofline.parsed(text)
  [main] = [line.split()[1].lstrip('%').split('(')[0] for line in text.splitlines() if line.startswith('ENTRY')]
  return program, [name for name, each in program.items() if each['computation'] == main]


def test_arithmetic_is_counted_from_the_compiled_program():
  def both(x, kernel, a, b):
    y = jax.lax.conv_general_dilated(x, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
                                     feature_group_count=2)
    return jax.nn.relu(y), a @ b

  shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 8, 8, 6), (3, 3, 3, 10), (5, 7), (7, 11))]
  program, names = entry(jax.jit(both).lower(*shapes).compile().as_text())
  assert sum(roofline.flops(name, program) for name in names) == 2 * 4 * 4 * 4 * 10 * 27 + 2 * 5 * 7 * 11


def test_arithmetic_of_the_kernels():
  x, packed, a, kernel = (4, 8, 8, 6), (3, 5, 18, 4), (4, 4, 4, 20), (2, 3, 3, 6, 20)
  forward = 2 * 4 * 4 * 4 * 20 * 54
  assert roofline._of_kernel('dense_forward', [x, packed, (6,), (6,)], [a, (4, 2, 20)]) == forward
  assert roofline._of_kernel('dense_backward', [x, packed, (6,), (6,), a], [x, kernel]) == 2 * forward
  assert roofline._of_kernel('dense_backward', [x, packed, (6,), (6,), a], [kernel]) == forward
  y = (4, 8, 8, 20)
  tiles = 2 * 4 * 2 * 2 * 36 * 6 * 20
  assert roofline._of_kernel('winograd_forward', [x, (36, 5, 6, 4), (6,), (6,)], [y, (4, 2, 20)]) == tiles
  assert roofline._of_kernel('winograd_backward', [x, (36, 1, 20, 6), (6,), (6,), y], [x, kernel]) == 2 * tiles
  assert roofline._of_kernel('mix', [a], [a]) == 0


@pytest.mark.parametrize('place', ['avx512', 'avx512/narrow'])
@pytest.mark.parametrize('kind, of, labels', [('step', table.of_step, table.SPACES),
                                              ('network', table.of_network,
                                               {name: label for name, (label, _) in table.NETWORKS.items()})])
def test_the_table_of_the_readme_is_what_was_measured(kind, of, labels, place):
  folder = pathlib.Path(table.__file__).parent
  told = (folder / 'README.md').read_text(encoding='utf-8')
  for name, label in labels.items():
    assert of(label, json.loads((folder / place / f'{kind}_{name}.json').read_text())) in told
