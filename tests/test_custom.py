import jax
import numpy as np
import pytest
from conftest import ROOT, SLOW, one_line

from vimnas_jax import config as config_lib
from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import genotypes, ops
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.runs import runfolder
from vimnas_jax.verbs import export, retrain, search

EXAMPLE = (ROOT / 'examples' / 'two_nodes.py').read_text()
OPS = (*ops.OPS, 'none', 'noise')


@SLOW  # test_own_operation.py takes such a space all the way in every run
def test_the_example_searches_and_its_network_is_trained_and_exported(tmp_path):
  c = config_lib.defaults()
  c.space.name, c.space.cells, c.space.channels = str(ROOT / 'examples' / 'two_nodes.py'), 1, 8
  c.devices = 1
  c.data.name, c.data.num_train, c.data.image_size, c.batch_size = 'synthetic', 64, 8, 8
  found = search.search(config_lib.resolve(c), tmp_path)
  following = config_lib.following(c, 'epochs=1 batch_size=8 measure_batches=() eval_batch=32', tmp_path)
  space = spaces.get(found['space'])
  genotype = space.validate(space.read(found['genotype']))
  assert [edge[1:] for edge in genotype.cells['cell']] == [(0, 1), (0, 2), (1, 2)]
  assert (tmp_path / 'cell_normal.png').exists() and found['params'] > 0

  trained = retrain.retrain(following, tmp_path / 'retrain')
  assert trained['genotype'] == found['genotype'] and trained['params'] == found['params']
  model = export.read(tmp_path / 'retrain' / 'export', [space.name])
  assert model.space.name == space.name and model(np.zeros((3, 8, 8, 3), np.uint8)).shape == (3, 4)
  genotypes.resolve(str(tmp_path / 'retrain'), trust=[space.name])
  with pytest.raises(UserError, match='--config.trust='):
    genotypes.resolve(str(tmp_path / 'retrain'))
  own = tmp_path / 'retrain' / 'export' / 'space.py'  # the file goes with what needs it
  assert own.read_text() == EXAMPLE
  assert export.read(tmp_path / 'retrain' / 'export', [own]).space.name == space.name


def test_an_edited_space_is_refused_under_the_same_folder(tmp_path):
  path = tmp_path / 'space.py'
  c = config_lib.defaults()
  c.space.name, c.space.cells, c.space.channels = str(path), 1, 4
  path.write_text(EXAMPLE)
  (tmp_path / 'run').mkdir()
  runfolder.write_config(tmp_path / 'run', c, 'data')
  path.write_text(EXAMPLE + '# a remark\n')
  runfolder.write_config(tmp_path / 'run', c, 'data')
  (tmp_path / 'run' / 'result.json').write_text('{}')
  path.write_text(EXAMPLE.replace('max_pool_3x3', 'avg_pool_3x3'))
  for ask in (lambda: runfolder.write_config(tmp_path / 'run', c, 'data'),
              lambda: runfolder.finished(tmp_path / 'run', c)):
    with pytest.raises(UserError, match='space.py as it was: cells, stages or operations have changed since') as error:
      ask()
    one_line(error)


BAD = {
    'no make': ('def make', 'def built', 'has no function make()'),
    'macro': ("Stage('stem', channels)", "Stage('stem', channel)", "macro(1, 4) fails (NameError: name 'channel'"),
    'syntax': ('def make():', 'def make(:', 'SyntaxError'),
    'no space': ('return custom.space(', 'return str(', 'TypeError'),
    'another type': ('return custom.space(', 'return print(', 'not a Space'),
    'unknown op': ("'sep_conv_3x3'", "'conv_9x9'", "no operation 'conv_9x9'"),
    'backward edge': ('(1, 2))', '(2, 1))', 'lower node'),
    'lonely node': ('(0, 1), (0, 2), (1, 2)', '(0, 2), (0, 3), (2, 3)', 'node 1'),
    'bad output': ('output=(2,)', 'output=(5,)', 'output=(5,)'),
    'three inputs': ('inputs=1', 'inputs=2', 'two with preprocess'),
    'no stem': ("Stage('stem', channels)", "Stage('residual', channels)", 'begin with stem'),
    'no such cell': ("cell='cell')] * cells\n  wide", "cell='sell')] * cells\n  wide", "'sell'"),
    'width': ("Stage('residual', 2 * channels, stride=2), ", '', 'channels after'),
    'stride': ('stride=2', 'stride=3', 'stage 2, a residual, has stride=3; it can have 2 alone'),
    'no stride': (', stride=2)', ')', 'stage 2, a residual, has stride=1; it can have 2 alone'),
    'stride of a cell': ("[Stage('cell', channels, cell='cell')]", "[Stage('cell', channels, cell='cell', stride=4)]",
                         'stage 1, a cell, has stride=4; it can have 1 or 2 alone'),
    'stride of the stem': ("Stage('stem', channels)", "Stage('stem', channels, stride=2)",
                           'stage 0, a stem, has stride=2; it can have 1 alone'),
    'stride of the head': ("'head', norm", "'head', stride=2, norm", 'stage 4, a head, has stride=2; it can have 1'),
    'no channels': ("Stage('stem', channels)", "Stage('stem')", 'stage 0, a stem, has channels=0; give at least 1'),
    'negative node': ('(0, 2), (1, 2))', '(-1, 2), (1, 2))', 'edge (-1, 2)'),
    'edge twice': ('(0, 2), (1, 2))', '(1, 2), (1, 2))', 'an edge stands twice'),
    'order': ('((0, 1), (0, 2), (1, 2))', '((0, 2), (0, 1), (1, 2))',
              'the edges ((0, 2), (0, 1), (1, 2)) must stand node by node, by rising target, and their ops with them: '
              '((0, 1), (0, 2), (1, 2))'),
    'op twice': ("'max_pool_3x3')", "'nor_conv_3x3')", 'edge 0->1 has an operation twice: skip_connect, nor_conv_3x3'),
    'unused cell': ("{'cell': Cell", "{'more': Cell(inputs=1, edges=EDGES, ops=(OPS,) * 3, output=(2,)), 'cell': Cell",
                    "no stage of macro(1, 4) is a cell 'more'"),
}


@pytest.mark.parametrize('what', BAD)
def test_every_way_of_getting_it_wrong_is_one_clear_line(tmp_path, what):
  old, new, word = BAD[what]
  assert old in EXAMPLE
  path = tmp_path / 'space.py'
  path.write_text(EXAMPLE.replace(old, new))
  with pytest.raises(UserError) as error:
    spaces.custom.check(spaces.get(str(path)), 1, 4, OPS)
  assert word in str(error.value) and '\n' not in str(error.value)


def test_a_cell_of_two_inputs_after_a_halving_one(tmp_path):
  path = tmp_path / 'space.py'
  own = '''from vimnas_jax.spaces import Cell, Stage, custom

def macro(cells, channels):
  halving = Stage('cell', channels, cell='cell', stride=2)
  return Stage('stem', channels), halving, Stage('cell', channels, cell='cell', shrunk=SHRUNK), Stage('head')

def make():
  edges = (0, 2), (1, 2)
  ops = ('skip_connect', 'sep_conv_3x3'),
  return custom.space({'cell': Cell(inputs=2, edges=edges, ops=ops * 2, output=(2,), preprocess=True)}, macro)
'''
  path.write_text(own.replace('SHRUNK', 'True'))
  spaces.custom.check(spaces.get(str(path)), 1, 4, OPS)
  with pytest.raises(UserError, match='stage 2, a cell of 5 channels, has shrunk=True.* an even number') as error:
    path.write_text(own.replace("Stage('cell', channels, cell='cell', sh", "Stage('cell', 5, cell='cell', sh")
                    .replace('SHRUNK', 'True'))
    spaces.custom.check(spaces.get(str(path)), 1, 4, OPS)
  one_line(error)
  path.write_text(own.replace('SHRUNK', 'False'))
  with pytest.raises(UserError, match='needs shrunk=True: the cell before it has stride 2'):
    spaces.custom.check(spaces.get(str(path)), 1, 4, OPS)


HALVING = EXAMPLE.replace("channels, cell='cell')", "channels, cell='cell', stride=2)")


def test_an_odd_width_is_refused_where_two_convolutions_give_half_of_it_each(tmp_path):
  path = tmp_path / 'space.py'
  for text in (EXAMPLE, HALVING.replace('skip_connect', 'avg_pool_3x3')):
    path.write_text(text)
    spaces.custom.check(spaces.get(str(path)), 1, 5, OPS)
  path.write_text(HALVING.replace('edges=EDGES', 'edges=[*EDGES]'))
  spaces.custom.check(spaces.get(str(path)), 1, 6, OPS)
  with pytest.raises(UserError, match='stage 1, a cell of 5 channels, has a skip_connect of stride 2') as error:
    spaces.custom.check(spaces.get(str(path)), 1, 5, OPS)
  one_line(error)


@pytest.mark.parametrize('op, channels, options', [('skip_connect', 12, {'partial': 4}),
                                                   ('avg_pool_3x3', 3, {'auxiliary': True})])
def test_a_method_that_makes_it_odd_is_refused(tmp_path, op, channels, options):
  path = tmp_path / 'space.py'
  path.write_text(HALVING.replace('skip_connect', op))
  space = spaces.get(str(path))
  spaces.custom.check(space, 1, channels, OPS)
  net = Supernet(space=space, cells=1, channels=channels, num_classes=2, **options)
  with pytest.raises(UserError, match='config.space.channels: .*stride 2 is two convolutions.*, here of 3: ') as error:
    jax.eval_shape(net.init, jax.random.key(0), np.zeros((2, 8, 8, 3)), {'cell': np.zeros((1, 3, 4))})
  one_line(error)


def test_no_such_file():
  with pytest.raises(UserError, match='no such file'):
    spaces.get('none.py')


@pytest.mark.parametrize('name', ['darts', 'nb201', 's1', 's4'])
def test_the_spaces_of_the_package_pass_too(name):
  spaces.custom.check(spaces.get(name), 5, 16, OPS)
