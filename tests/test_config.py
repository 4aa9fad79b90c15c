import re

import pytest
from conftest import ROOT
from ml_collections import ConfigDict

from configs import retrain_simplified
from vimnas_jax import config as config_lib
from vimnas_jax import methods
from vimnas_jax.errors import UserError
from vimnas_jax.runfolder import flatten


def test_every_field_is_read_and_explained():
  sources = {p: p.read_text() for p in (ROOT / 'vimnas_jax').rglob('*.py')}
  code = '\n'.join(text for p, text in sources.items() if p.name != 'config.py')
  text = sources[ROOT / 'vimnas_jax' / 'config.py']
  for field in flatten(config_lib.defaults().to_dict()):
    leaf = field.split('.')[-1]
    assert re.search(rf'\.{leaf}\b|[\'"]{leaf}[\'"]', code), f'nothing reads config.{field}'
    if not field.startswith('method.'):
      assert f'.{leaf}' in text, field
  for name in methods.NAMES:
    for field in methods.fields(name):
      assert re.search(rf'config\.{field}\b', code), f'nothing reads config.method.{field}'


def test_switching_the_method_takes_its_own_fields_and_optimiser():
  config = config_lib.defaults()
  config.method.name = 'darts'
  found = config_lib.resolve(config)
  assert found.method.to_dict() == {'name': 'darts', **methods.fields('darts')}
  assert (found.phi.optimizer, found.phi.lr, found.phi.momentum, found.phi.weight_decay) == ('adam', 3e-4, 0.5, 1e-3)
  config.phi.lr = 0.01
  assert config_lib.resolve(config).phi.lr == 0.01
  noise = config_lib.defaults()
  noise.method = ConfigDict({'name': 'darts_noise'})
  found = config_lib.resolve(noise)
  assert found.method.noise == 1.0 and not found.method.bilevel and found.phi.lr == 0.025


@pytest.mark.parametrize('field, value', [
    ('epochs', -1.0), ('batch_size', 0), ('theta.lr', float('nan')), ('dtype', 'float16'), ('task', 'find'),
    ('phi.optimizer', 'lion'), ('pretrain.sampling', 'none'), ('data.pad', -1), ('train_portion', 1.5)])
def test_bad_values_name_the_field(field, value):
  config = config_lib.defaults()
  with config.unlocked():
    config.update_from_flattened_dict({field: value})
  with pytest.raises(UserError, match=re.escape(f'config.{field}=')):
    config_lib.resolve(config)


@pytest.mark.parametrize('words, size', [
    ('s1', (20, 36)), ('s4', (20, 36)), ('s1,rdarts', (20, 36)), ('rdarts,s2', (20, 16)), ('s3,rdarts', (20, 36)),
    ('s4,rdarts', (20, 16)), ('rdarts,c100,s1', (8, 16)), ('s3,c100', (20, 36)), ('short,s2', (8, 16)),
    ('short,rdarts,s2', (8, 16)), ('s2,rdarts,smoke', (3, 4)), ('short,smoke', (3, 4))])
def test_both_settings_of_s1_to_s4(words, size):
  found = retrain_simplified.get_config(words)
  assert (found.network.cells, found.network.channels) == size and found.data.pad == 4
  if 'smoke' in words:
    assert (found.epochs, found.batch_size, found.data.limit) == (1, 16, 64)
    return
  assert found.space.name == re.search(r's\d', words)[0] and found.epochs == (20 if 'short' in words else 600)
  assert found.data.name == ('cifar100' if 'c100' in words else 'cifar10')
