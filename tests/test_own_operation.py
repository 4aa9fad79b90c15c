"""Operations of one's own: they come with the file of a space, and are searched, trained, counted and refused."""

import pathlib

import jax
import numpy as np
import pytest
from conftest import ROOT, SLOW, one_line

from vimnas_jax import config as config_lib
from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import cost, genotypes, operation, ops, own_operation
from vimnas_jax.networks.network import Network
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.runs import runfolder
from vimnas_jax.spaces import Genotype
from vimnas_jax.verbs import evaluate, export, retrain, search

PATH = str(ROOT / 'examples' / 'own_operation.py')
EXAMPLE = pathlib.Path(PATH).read_text()
EDGES = ((0, 1), (0, 2), (1, 2))
SIZE = {'cells': 1, 'channels': 8, 'num_classes': 4}


def all_own(name):
  return Genotype(name, {'cell': tuple(('se_conv_3x3', *edge) for edge in EDGES)})


@SLOW
def test_the_example_is_searched_trained_exported_and_evaluated(tmp_path):
  c = config_lib.defaults()
  c.space.name, c.space.cells, c.space.channels, c.devices = PATH, 1, 4, 1
  c.data.name, c.data.num_train, c.data.image_size, c.batch_size = 'synthetic', 64, 8, 16
  found = search.search(config_lib.resolve(c), tmp_path)
  space = spaces.get(PATH)
  space.validate(space.read(found['genotype']))

  (tmp_path / 'genotype.json').write_text(all_own(PATH).to_json())  # so that it is the own one that is trained
  following = config_lib.following(c, 'epochs=1 batch_size=16 measure_batches=() eval_batch=32', tmp_path)
  trained = retrain.retrain(following, tmp_path / 'retrain')
  assert trained['genotype'].count('se_conv_3x3') == 3 and trained['madds'] > 0
  with pytest.raises(UserError, match='--config.trust='):  # a genotype file names the code
    genotypes.resolve(str(tmp_path / 'retrain'))
  model = export.read(tmp_path / 'retrain', [PATH])
  counted = cost.count(space, all_own(PATH), cells=1, channels=4, num_classes=4, image_size=8)
  assert sum(x.size for x in jax.tree.leaves(model.variables['params'])) == counted.params == trained['params']

  c.task, c.genotype, c.trust, c.measure_batches = 'evaluate', str(tmp_path / 'retrain'), PATH, ()
  c.space.name = 'nb201'
  again = evaluate.evaluate(config_lib.resolve(c), tmp_path / 'evaluation')
  assert again['test_loss'] == pytest.approx(trained['test_loss'], rel=1e-4)
  c.trust = ''
  with pytest.raises(UserError, match='--config.trust=') as error:
    evaluate.evaluate(config_lib.resolve(c), tmp_path / 'other')
  one_line(error)


@pytest.mark.parametrize('mix', [0, 1])
def test_a_bank_of_edges_is_each_of_them(mix):
  op = spaces.get(PATH).own_ops['se_conv_3x3']
  keys = jax.random.split(jax.random.key(mix), 5)
  x = jax.random.normal(keys[4], (2, 6, 5, 8))
  params = {name: jax.random.normal(key, (3, *shape))
            for key, (name, (shape, _)) in zip(keys, op.shapes(8, 1 + mix).items())}
  together = op.apply(x, params, 1 + mix, ops.normalise)
  each = [op.apply(x, {name: value[i:i + 1] for name, value in params.items()}, 1 + mix, ops.normalise)
          for i in range(3)]
  np.testing.assert_allclose(together, np.concatenate(each, -1), rtol=1e-5, atol=1e-5)


def test_its_costs_are_those_of_the_networks():
  space = spaces.get(PATH)
  for form, counted in ((Supernet(space=space, **SIZE), cost.supernet(space, **SIZE)),
                        (Network(space=space, genotype=all_own(PATH), **SIZE),
                         cost.count(space, all_own(PATH), **SIZE).params)):
    more = (True,) if isinstance(form, Network) else ({'cell': np.full((1, 3, 3), 1 / 3, np.float32)},)
    made = jax.eval_shape(lambda form=form, more=more: form.init(jax.random.key(0), np.zeros((2, 8, 8, 3)), *more))
    assert sum(x.size for x in jax.tree.leaves(made['params'])) == counted
  counted = operation.count(space.own_ops['se_conv_3x3'], 8, 1, 64)
  assert counted == (((9 * 8, 64), (8 * 8, 64), (8 * 2, 1), (2 * 8, 1)), 8)


@pytest.mark.parametrize('name', ops.OPS)
@pytest.mark.parametrize('stride', [1, 2])
def test_the_operations_of_the_package_pass_too(name, stride, tmp_path):
  own_operation.check(str(tmp_path / 'space.py'), 'own', ops.OPS[name], 8, stride)


def test_edited_code_is_refused_under_the_same_folder(tmp_path):
  path = tmp_path / 'space.py'
  c = config_lib.defaults()
  c.space.name, c.space.cells, c.space.channels = str(path), 1, 4
  path.write_text(EXAMPLE)
  runfolder.write_config(tmp_path, c, 'data')
  path.write_text(EXAMPLE.replace('# node 0 is', '# the node 0 is'))  # a comment changes nothing
  runfolder.write_config(tmp_path, c, 'data')
  path.write_text(EXAMPLE.replace('return y * gates', 'return y + gates'))
  with pytest.raises(UserError, match='space.py as it was: cells, stages or operations have changed') as error:
    runfolder.write_config(tmp_path, c, 'data')
  one_line(error)


BAD = {
    'width': ('return y * gates', 'return y[..., :-1] * gates[:, :-1]', 'apply gives a map of (1, 8, 7, 3)'),
    'side': ('return y * gates', 'return y[:, 1:] * gates', 'stride 1 and 1 edge; it must be (1, 8, 7, 4)'),
    'bank': ('@ops.per_edge', '@lambda f: lambda x, p, *more: f(x, {k: v[0] for k, v in p.items()}, *more)',
             'wrap a function of one edge in ops.per_edge'),
    'nothing': ('return y * gates[:, None, None]', 'y * gates[:, None, None]', 'apply fails'),
    'no array': ('ops.Op(shapes, apply,', 'ops.Op(shapes, lambda *args: None,', 'apply gives NoneType'),
    'type': ('return y * gates', 'return jnp.float32(1) * y * gates', 'end it with .astype(x.dtype)'),
    'error': ("@ p['squeeze']", "@ p['squeze']", "apply fails, line 38 (KeyError: 'squeze')"),
    'norm': ('jnp.mean(y, (1, 2))', 'norm(jnp.mean(y, (1, 2)))', 'it takes [n, h, w, c]'),
    'missing function': ('ops.Op(shapes, apply, uses=uses)', 'ops.Op(shapes)', 'missing 1 required positional'),
    'no function': ('ops.Op(shapes, apply,', 'ops.Op(shapes, 3,', 'apply fails (TypeError'),
    'no op': ('ops.Op(shapes, apply, uses=uses)', 'apply', 'is function, not an Op'),
    'shapes': ("((3, 3, c), 9)", '(3, 3, c)', "gives (3, 3, 4) for 'depthwise'; it must be (shape, fan-in)"),
    'no shapes': ("return {'depthwise'", "return\n  {'depthwise'", 'shapes fails (AttributeError'),
    'parameter': ("'excite': (", "'norm1': (", "parameter 'norm1'"),
    'uses': ('return 1 if', 'return 0.5 if', "uses('squeeze', 1, 64) gives 0.5"),
    'gradient': ('gates = jax', 'y = jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(y.shape, y.dtype), y)\n  '
                 'gates = jax', 'the gradient of apply fails'),
    'collision': ('se_conv_3x3', 'sep_conv_3x3', 'has an operation of that name: give yours another one'),
    'no such name': ("{'se_conv_3x3':", "{'se_conv':", "no operation 'se_conv_3x3'; choose from se_conv,"),
    'name': ('se_conv_3x3', 'se/conv', 'letters, digits and _'),
}


@pytest.mark.parametrize('what', BAD)
def test_every_way_of_getting_it_wrong_is_one_clear_line(tmp_path, what):
  old, new, word = BAD[what]
  assert old in EXAMPLE
  path = tmp_path / 'space.py'
  path.write_text(EXAMPLE.replace(old, new))
  with pytest.raises(UserError) as error:  # as a search checks it
    space = spaces.get(str(path))
    spaces.custom.check(space, 1, 4, (*ops.OPS, 'none', 'noise'))
    cost.supernet(space, cells=1, channels=4, num_classes=4)
  assert word in one_line(error) and 'space.py' in str(error.value)
