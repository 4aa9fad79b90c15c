"""The constants that methods begin with, against those of their papers and their authors' code, and of docs/recipe.md.

What a paper leaves open is not here. Parts of a search stand for epochs: of 50, unless it is said otherwise.
"""

import pytest
from ml_collections import ConfigDict

from vimnas_jax import api, methods
from vimnas_jax import config as config_lib

DARTS = ('adam', 3e-4, 0.5, 1e-3)  # of alpha: Adam with betas 0.5 and 0.999

# method: (optimiser of phi, its rate, momentum or beta 1, weight decay; or None), fields of its own
PAPERS = {
    'darts': (DARTS, {'unrolled': '', 'bilevel': True, 'phi_first': True, 'noise': 0.0}),
    'darts_second': (DARTS, {'unrolled': 'finite', 'bilevel': True, 'noise': 0.0}),
    'darts_noise': (('sgd', 0.025, 0.9, 0.0), {'noise': 1.0, 'bilevel': False}),
    'darts_plus': (DARTS, {'skips': 2, 'stable': 10, 'turns': 50}),
    'darts_minus': (DARTS, {'beta': 1.0, 'beta_fall': 'linear'}),
    'darts_es': (DARTS, {'evaluations': 25, 'earliest': 5, 'ratio': 1.3, 'ridge': 1e-3, 'adaptive': False}),
    'darts_ada': (DARTS, {'evaluations': 25, 'ratio': 1.3, 'adaptive': True, 'factor': 10.0}),
    'snas': (DARTS, {'tau': 1.0, 'tau_end': 0.03, 'samples': 1}),
    'data': (('adam', 3e-4, 0.5, 0.0), {'draws': 7, 'probabilities': 'relu', 'tau': 5.0, 'tau_end': 5 - 400 / 150}),
    'fairdarts': (('adam', 3e-3, 0.9, 1e-3), {'zero_one': 10.0, 'threshold': 0.85}),
    'gdas': (DARTS, {'tau': 10.0, 'tau_end': 0.1, 'samples': 1, 'phi_first': False}),
    'pdarts': (('adam', 6e-4, 0.5, 1e-3), {  # stages of 25 epochs, 8, 5 and 3 operations
        'grows': 6, 'second': 5 / 8, 'third': 3 / 8, 'frozen': 10 / 25, 'dropout_first': 0.0, 'dropout_second': 0.4,
        'dropout_third': 0.7, 'skips': 2}),
    'pcdarts': (('adam', 6e-4, 0.5, 1e-3), {'partial': 4, 'warm_up': 15 / 50}),
    'sdarts_rs': (DARTS, {'attack': 0, 'epsilon_start': 0.03, 'epsilon': 0.3}),
    'sdarts_adv': (DARTS, {'attack': 7, 'epsilon_start': 0.03, 'epsilon': 0.3}),
    'rdarts_l2': (DARTS, {'searches': 4, 'factor': 3.0, 'drop_path': 0.0, 'unrolled': 'finite'}),
    'rdarts_dp': (DARTS, {'searches': 4, 'factor': 1.0, 'drop_path': 0.2, 'unrolled': 'finite'}),
    'sgas': (DARTS, {'first': 10, 'every': 5, 'turns': 50}),
    'setn': (DARTS, {'tries': 100}),
    'rsps': (None, {'tries': 100}),
    'enas': (('adam', 1e-3, 0.0, 0.0), {'hidden': 32, 'layers': 2, 'temperature': 5.0, 'tanh': 2.5, 'entropy': 1e-4,
                                        'decay': 0.99, 'aggregate': 20, 'turns': 250, 'tries': 100}),
    'reinforce': (None, {'lr': 0.5, 'decay': 0.9}),
    'tenas': (None, {'images': 72, 'channels': 3, 'inputs': 1000, 'batches': 3, 'repeats': 3, 'prune': 1}),
    'asng': (None, {'draws': 2, 'alpha': 1.5, 'delta': 1.0}),
    'dsonas': (None, {'sparsity': 1e-3}),
    'bayesnas': (None, {'sparsity': 0.01}),
    # L3 of section 18: E of section 11 with theta an epoch older (12), a bound and 8 in place of 6 (17), and 18's own
    'vimnas': (('sgd', 0.01, 0.9, 0.0), {
        'variant': 'base', 'samples': 8, 'separate': False, 'eps_scale': 1.0, 'last': 'linear', 'gamma': 1.0,
        'centred': True, 'networks': 32, 'apart': 0.0, 'bound': 1.5, 'sharpen': 8.0, 'sharpen_from': 0.6,
        'sharpen_last': 2.0, 'node_inputs': 'kept', 'bilevel': False}),
}


@pytest.mark.parametrize('name', PAPERS)
def test_a_method_begins_with_the_constants_of_its_paper(name):
  (optimiser, fields), found = PAPERS[name], methods.optimizer(ConfigDict({'name': name}))
  if optimiser:
    assert tuple(found[field] for field in ('optimizer', 'lr', 'momentum', 'weight_decay')) == optimiser
  if name != 'vimnas':
    assert (found['lr_end'], found['fall'], found['until'], found['steps']) == (found['lr'], 0.0, 1.0, 0)
  assert found['eps'] == (1e-3 if name == 'enas' else 1e-8)
  own = methods.fields(name)
  assert {field: own[field] for field in fields} == pytest.approx(fields, rel=1e-4)


def test_phi_and_theta_of_vimnas_go_the_way_of_the_recipe():
  """Theta alone for three epochs; phi from 0.01 to 0.1 over 780 steps, of which it stands still in the last fifth."""
  found = methods.optimizer(ConfigDict({'name': 'vimnas'}))
  assert {field: found[field] for field in ('lr_end', 'steps', 'schedule', 'fall', 'until')} == {
      'lr_end': 0.1, 'steps': 780, 'schedule': 'linear', 'fall': 0.1, 'until': 0.8}
  assert methods.pretrain('vimnas') == 3.0


def test_the_strict_form_of_vimnas_has_what_its_paper_says():
  """One xi, the last ReLU, phi's rate of 0.025, no stage before, and none of what the recipe adds."""
  want = {'method.samples': 1, 'method.last': 'relu', 'method.centred': False, 'method.networks': 1,
          'method.bound': 0.0, 'method.sharpen': 1.0, 'method.sharpen_last': 1.0, 'method.node_inputs': 'all',
          'phi.optimizer': 'sgd', 'phi.lr': 0.025, 'phi.lr_end': 0.025, 'phi.fall': 0.0, 'phi.until': 1.0,
          'pretrain.epochs': 0.0}
  assert {field: methods.STRICT[field] for field in want} == want


@pytest.mark.parametrize('name', ['darts_c10', 'darts_imagenet'])
def test_the_darts_space_has_the_form_of_the_recipe_and_decides_first(name):
  """Section 27: the fields of the method as they are, from scratch; lengths and rates alone differ."""
  config = config_lib.resolve(api.configure(name, {}))
  assert {field: value for field, value in methods.fields('vimnas').items() if config.method[field] != value} == {
      'sharpen_from': 0.6}
  rates = config.phi.lr, config.phi.lr_end, config.phi.steps, config.phi.fall, config.phi.until
  assert rates == (25.6, 25.6, 0, 0.5, 0.2)
  assert (config.pretrain.epochs, config.method.sharpen_from) == (0.0, 0.05)


def test_s1_to_s3_have_the_form_of_the_recipe_and_decide_early():
  """Section 26: the fields of the method as they are, from scratch; lengths and rates alone differ."""
  config = config_lib.resolve(api.configure('simplified_c10:s3', {}))
  assert {field: value for field, value in methods.fields('vimnas').items() if config.method[field] != value} == {
      'sharpen_from': 0.6}
  rates = config.phi.lr, config.phi.lr_end, config.phi.steps, config.phi.fall, config.phi.until
  assert rates == (6.4, 6.4, 0, 0.5, 0.4)
  assert (config.epochs, config.pretrain.epochs, config.method.sharpen_from) == (1.0, 0.0, 0.1)
  last, other = (config_lib.resolve(config_lib.changed(api.configure(*given), changes)) for given, changes in (
      (('simplified_c10:s4', {}), ''), (('simplified_c10', {}), 'space.name=s4')))
  assert last == other
  one_shot = config_lib.resolve(api.configure('oneshot_c10:space1', {}))
  for late, theta in ((last, 3.0), (one_shot, 1.0)):  # section 27: the same form, slowly after epochs of theta alone
    assert {field: value for field, value in methods.fields('vimnas').items() if late.method[field] != value} == {
        'node_inputs': 'kept'}  # where no edge can be left out
    assert (late.phi.lr, late.phi.lr_end, late.phi.steps, late.phi.until, late.pretrain.epochs) == (
        0.01, 0.1, 780, 0.8, theta)
  for word, space in (('s4,strict', 's4'), ('s3,strict', 's3')):  # said later, it counts in all spaces
    strict = config_lib.resolve(api.configure(f'simplified_c10:{word}', {}))
    assert strict.space.name == space and (strict.phi.lr, strict.method.last) == (0.025, 'relu')
