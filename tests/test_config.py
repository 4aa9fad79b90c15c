import ast
import itertools
import pathlib
import re

import pytest
from conftest import ROOT, one_line
from ml_collections import ConfigDict

import vimnas_jax
from configs import (
  ablation_darts,
  darts_c10,
  darts_imagenet,
  folder,
  nb201_c10,
  oneshot_c10,
  quickstart,
  retrain_imagenet,
  retrain_simplified,
  simplified_c10,
)
from vimnas_jax import config as config_lib
from vimnas_jax import methods
from vimnas_jax.errors import UserError
from vimnas_jax.files import flatten
from vimnas_jax.verbs import sizing, study

# Sections that are handed on whole: the code that takes them, and as what, if not as `config`.
HANDED = {'theta': ('runs/optim.py', ''), 'phi': ('runs/optim.py', ''), 'data': ('data/', ''),
          'method': ('methods/', ''), 'oracle': ('tabular/', ''), 'network': ('verbs/retrain.py', 'net.')}


def read_in(path):
  """What a source reads of configurations, as 'theta.lr' of `config.theta.lr`; comments and messages do not count."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    names = []
    if isinstance(node, ast.Call) and getattr(node.func, 'attr', '') == 'get' and node.args:
      node = ast.Subscript(node.func.value, node.args[0])  # config.get('trust', '')
    while isinstance(node, ast.Attribute) or (isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)):
      names.insert(0, node.attr if isinstance(node, ast.Attribute) else str(node.slice.value))
      node = node.value
    if isinstance(node, ast.Name) and names:
      names = names if node.id == 'self' else [node.id, *names]
      if names[0] in ('config', 'c', 'asked', 'searched', 'net'):
        found |= {'.'.join(names[names[0] != 'net':n]) for n in range(2, len(names) + 1)}
  return found


def test_every_field_is_read():
  package = ROOT / 'vimnas_jax'
  files = [path for path in package.rglob('*.py') if path.name != 'limits.py']  # checks alone are no use of a field
  reads = {path.relative_to(package).as_posix(): read_in(path) for path in files}
  reads['config.py'] = reads['fields.py'] = set()

  def used(field):
    section, _, leaf = field.rpartition('.')
    place, prefix = HANDED.get(section, ('', None))
    return any(field in found or (prefix is not None and path.startswith(place) and f'{prefix}{leaf}' in found)
               for path, found in reads.items())

  fields = flatten(config_lib.defaults().to_dict())
  assert not [field for field in fields if not used(field)]
  for section in {field.rpartition('.')[0] for field in fields}:  # a field that is new and read nowhere is found
    assert not used(f'{section}.invented'.lstrip('.')), section
  for name in methods.NAMES:
    for field in methods.fields(name):
      assert any(field in found for path, found in reads.items() if path.startswith('methods/')), field


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


def test_published_settings_are_fields_with_values_that_they_may_have():
  families, seen = {'darts': 'darts', 'nb201': 'nb201', 'oneshot': 'oneshot1', 's2': 's2', 'imagenet': 'darts'}, set()
  for name in methods.NAMES:
    for family, space in families.items():
      config = config_lib.defaults()
      config.space.name, config.space.imagenet = space, family == 'imagenet'
      try:
        settings = methods.published(name, family if family == 'imagenet' else space)
      except UserError:
        continue
      found = config_lib.resolve(config_lib.with_arguments(config, f'method={name},published', None))
      flat = flatten(found.to_dict())
      assert {field: flat[field] for field in settings} == settings and settings
      seen |= {(name, family)}
  assert {('vimnas', 'nb201'), ('snas', 'darts'), ('data', 's2'), ('gdas', 'oneshot'),
          ('pcdarts', 'imagenet'), ('rsps', 'nb201'), ('rsps', 'oneshot'), ('tenas', 'imagenet')} <= seen
  config = config_lib.defaults()
  config.space.name = 'nb201'
  with pytest.raises(UserError, match=r"method 'snas' there are published settings for darts, not for 'nb201'"):
    config_lib.with_arguments(config, 'method=snas,published', None)


@pytest.mark.parametrize('config, method, want', [
    ('darts_c10', 'snas', {'method.resource': 1e-2, 'train_portion': 1.0}),  # of the command for 8 cells
    ('darts_c10', 'gdas', {'theta.nesterov': True, 'theta.weight_decay': 5e-4, 'batch_size': 256}),
    ('darts_c10', 'darts_noise', {'epochs': 1.0, 'method.samples': 1, 'pretrain.epochs': 1.0, 'phi.lr': 0.025}),
    ('nb201_c10', 'darts', {'method.phi_first': False, 'theta.nesterov': True}),
    ('nb201_c10', 'darts_second', {'method.phi_first': True, 'method.unrolled': 'finite', 'theta.nesterov': True}),
    ('nb201_c10', 'sdarts_rs', {'theta.nesterov': False, 'theta.weight_decay': 3e-4, 'epochs': 100.0}),
    ('darts_c10', 'bayesnas', {'theta.lr': 0.1, 'theta.lr_end': 0.1, 'phi.momentum': 0.9, 'phi.weight_decay': 0.0}),
    ('darts_c10', 'dsonas', {'theta.lr': 0.1, 'theta.lr_end': 0.1, 'theta.weight_decay': 1e-4}),
    ('darts_c10', 'asng', {'data.cutout': 16, 'theta.lr_end': 0.0}),
    ('darts_c10', 'rdarts_l2', {'data.cutout': 0, 'epochs': 200.0}), ('darts_c10', 'rdarts_dp', {'data.cutout': 16}),
    ('nb201_c10', 'rsps', {'epochs': 250.0, 'batch_size': 64, 'theta.nesterov': True, 'theta.weight_decay': 5e-4,
                           'theta.clip': 5.0, 'method.tries': 100}),
    ('oneshot_c10', 'rsps', {'epochs': 50.0, 'batch_size': 64, 'theta.clip': 0.25, 'method.tries': 1000}),
    ('oneshot_c10', 'enas', {'batch_size': 64, 'theta.clip': 0.25, 'method.layers': 1, 'method.turns': 0})])
def test_published_settings_are_those_of_the_authors_code(config, method, want):
  found = flatten(config_lib.resolve(vimnas_jax.configure(f'{config}:method={method},published')).to_dict())
  assert {field: found[field] for field in want} == want


@pytest.mark.parametrize('field, value', [
    ('epochs', -1.0), ('batch_size', 0), ('theta.lr', float('nan')), ('dtype', 'float16'), ('task', 'find'),
    ('phi.optimizer', 'lion'), ('pretrain.sampling', 'none'), ('data.pad', -1), ('train_portion', 1.5),
    ('epochs', float('inf')), ('pretrain.epochs', float('inf')), ('epochs', 1e9), ('seed', 2**32), ('seed', 2**63),
    ('seed', -1), ('theta.clip', float('nan')), ('theta.momentum', 1.0), ('network.drop_path', 1.0),
    ('batch_size', 2**40), ('data.smallest', 1.5), ('data.hue', -0.1), ('theta.warmup', 5), ('measure_batches', (0,)),
    ('method.samples', 0), ('method.gamma', float('inf'))])
def test_bad_values_name_the_field(field, value):
  """Seeds beyond 32 bits would be folded together by JAX; warm-up is not of the schedule 'cosine'."""
  config = config_lib.defaults()
  with config.unlocked():
    config.update_from_flattened_dict({field: value})
  with pytest.raises(UserError, match=re.escape(f'config.{field}=')):
    config_lib.resolve(config)


def test_what_a_config_sets_for_one_method_does_not_fail_another():
  """However the method is chosen; and what the user sets comes first."""
  for choose in (lambda c: None, lambda c: c.method.update({'name': 'random'})):
    config = quickstart.get_config()
    choose(config)
    config_lib.resolve(config)
  for name, first in (('darts', False), ('darts_noise', True)):
    config = nb201_c10.get_config()
    config.method.name = name
    assert config_lib.resolve(config).method.phi_first is first
  config = nb201_c10.get_config('method=darts')
  config.method.phi_first = True
  assert config_lib.resolve(config).method.phi_first and 'when' not in config_lib.resolve(config)


def test_the_strict_form_is_the_papers():
  found = config_lib.resolve(nb201_c10.get_config('strict'))
  assert (found.method.last, found.method.samples, found.phi.lr, found.pretrain.epochs) == ('relu', 1, 0.025, 0.0)
  assert (found.method.centred, found.method.networks, found.method.sharpen) == (False, 1, 1.0)
  assert (found.phi.lr_end, found.phi.steps, found.phi.fall, found.epochs) == (0.025, 0, 0.0, 1.0)
  assert found.theta.weight_decay == 3e-4 and not found.theta.nesterov
  published = config_lib.resolve(nb201_c10.get_config('published'))
  assert published.to_dict() == found.to_dict()
  for made in (darts_imagenet, folder):  # no epoch of theta alone, also where the file, or its images, say one
    asked = made.get_config('strict')
    asked.data.update({'name': 'digits', 'image_size': 8, 'search_parts': None})
    assert config_lib.resolve(sizing.sized(asked)[0]).pretrain.epochs == 0
  with pytest.raises(UserError, match='strict is VIM-NAS as its paper has it'):
    nb201_c10.get_config('strict,method=gdas')
  ablation = ablation_darts.get_config('strict')
  for member in ablation.study.members:
    found = config_lib.resolve(config_lib.changed(ablation, f'task=search {member.partition(" ")[2]}'))
    assert (found.pretrain.epochs, found.epochs, found.method.get('samples', 1)) == (0.0, 1.0, 1)
  usual = config_lib.resolve(nb201_c10.get_config())
  assert (usual.phi.lr, usual.phi.lr_end, usual.phi.steps) == (0.01, 0.1, 780)
  for made in (nb201_c10, quickstart, darts_c10):
    own = made.get_config()
    own.phi.lr = 0.05
    own = config_lib.resolve(own)
    assert (own.phi.lr, own.phi.lr_end, own.phi.steps) == (0.05, 0.05, 0)
  assert usual.theta.weight_decay == 5e-4 and usual.theta.nesterov


def test_the_crop_fits_the_data_unless_it_is_set():
  config = nb201_c10.get_config()
  assert config_lib.resolve(config).data.pad == 4
  config.data.name = 'imagenet16-120'
  assert config_lib.resolve(config).data.pad == 2
  config.data.pad = 0
  assert config_lib.resolve(config).data.pad == 0


@pytest.mark.parametrize('space, nesterov', [('darts', False), ('nb201', True)])
def test_a_retraining_has_its_authors_optimiser_and_not_that_of_the_search(space, nesterov):
  config = config_lib.defaults()
  config.space.name, config.data.name = space, 'synthetic'
  config.theta.nesterov, config.theta.warmup, config.theta.clip, config.theta.momentum = not nesterov, 5, 1.0, 0.5
  theta = config_lib.following(config, '', 'there').theta
  assert (theta.nesterov, theta.warmup, theta.momentum) == (nesterov, 0, 0.9)
  assert theta.clip == (0.0 if space == 'nb201' else 5.0)
  assert config_lib.following(config, 'theta.warmup=3', 'there').theta.warmup == 3


def test_a_retraining_after_a_search_on_imagenet_is_that_of_imagenet():
  after = config_lib.following(darts_imagenet.get_config(), '', 'runs/imagenet').to_dict()
  alone = config_lib.resolve(config_lib.changed(retrain_imagenet.get_config(), 'genotype=runs/imagenet')).to_dict()
  assert after['space'].pop('imagenet') and not alone['space'].pop('imagenet')  # which a training does not read
  assert after == alone


def test_evaluations_keep_no_field_that_they_do_not_read():
  one, many = (config_lib.resolve(config_lib.changed(config_lib.defaults(), f'task={task} genotype=x')) for task in (
      'evaluate', 'predict'))
  assert not {'dtype', 'devices', 'batch_size', 'train_portion', 'seed'} & {*one, *many}
  assert 'eval_batch' in one and 'eval_batch' not in many


def test_the_part_that_is_trained_on_follows_the_task():
  assert config_lib.resolve(nb201_c10.get_config()).train_portion == 0.5
  config = quickstart.get_config()
  config.train_portion = 0.8
  assert config_lib.resolve(config).train_portion == 0.8
  assert config_lib.following(config, '', 'there').train_portion == 1.0


def test_values_with_spaces_in_changes():
  config = config_lib.changed(config_lib.defaults(), "'data.dir=/my photos' seed=3")
  assert config.data.dir == '/my photos' and config.seed == 3
  with pytest.raises(UserError, match='quotation'):
    config_lib.changed(config_lib.defaults(), "'seed=3")


def test_the_order_of_words_does_not_matter():
  for name, words in (('darts_c10', 'method=pcdarts,published'), ('oneshot_c10', 'space3,method=gdas,published'),
                      ('nb201_c10', 'half,strict'), ('nb201_c10', 'method=rsps,published,smoke'),
                      ('compare_all', 'darts,smoke')):
    one, *others = ({**config_lib.resolve(vimnas_jax.configure(f'{name}:{",".join(order)}')).to_dict()}
                    for order in itertools.permutations(words.split(',')))
    assert all(other == one for other in others) and 'when' not in one, words


@pytest.mark.parametrize('name, changes, says', [
    ('nb201_c10:method=darts', {'space.name': 'darts'}, "space.name='darts'.* for 'nb201', and those for 'darts'"),
    ('darts_c10:method=pcdarts', {'space.imagenet': True}, "space.imagenet=True.* for 'darts', .* 'imagenet' are"),
    ('darts_c10:method=snas', {'space.name': 'nb201'}, "settings for darts, not for 'nb201'"),
    ('darts_c10:method=gdas', {'space.name': 's2'}, ''), ('oneshot_c10:space1', {'space.name': 'oneshot3'}, '')])
def test_published_settings_of_one_space_are_not_taken_to_another(name, changes, says):
  asked = vimnas_jax.configure(f'{name},published', changes)
  if not says:  # they are the same there
    assert config_lib.resolve(asked).space.name == changes['space.name']
    return
  with pytest.raises(UserError, match=says) as error:
    config_lib.resolve(asked)
  one_line(error)


@pytest.mark.parametrize('word', ['strict', 'published'])
def test_settings_of_one_method_are_not_mixed_into_another(word):
  """The word is read first; the flag comes after it."""
  for space in ('darts_c10', 'nb201_c10'):
    asked = vimnas_jax.configure(f'{space}:{word}', {'method.name': 'darts'})
    with pytest.raises(UserError, match=rf":{word} has applied the settings of method 'vimnas': .*"
                                        ':method=darts,published') as error:
      config_lib.resolve(asked)
    one_line(error)
    with pytest.raises(UserError, match='unknown method'):
      config_lib.resolve(vimnas_jax.configure(f'{space}:{word}', {'method.name': 'dart'}))
    config_lib.resolve(vimnas_jax.configure(f'{space}:{word}', {'method.name': 'vimnas'}))
    config_lib.following(vimnas_jax.configure(f'{space}:{word}'), '', 'there')
  members = study.members(vimnas_jax.configure(f'compare_simplified:{word}'), pathlib.Path('there'))
  assert next(members)[2].method.name == 'vimnas'
  with pytest.raises(UserError, match="config.method.name='darts'"):
    list(members)


@pytest.mark.parametrize('made', [darts_c10, simplified_c10, nb201_c10, oneshot_c10, darts_imagenet, quickstart])
def test_a_smoke_run_is_one_of_seconds_with_any_method_and_its_published_settings(made):
  """Whatever the order of the words; gdas had its 250 epochs."""
  known, usual = 0, made.get_config('smoke')
  for name in methods.NAMES:
    words = ['smoke', f'method={name}']
    try:
      methods.published(name, 'imagenet' if usual.space.imagenet else usual.space.name)
      words, known = [*words, 'published'], known + 1
    except UserError:
      pass
    found = config_lib.resolve(made.get_config(','.join(words)))
    assert found.epochs <= 1 and found.pretrain.epochs <= 3
    assert found.batch_size == usual.batch_size or made is quickstart
    assert found.data.limit == usual.data.limit and found.space.to_dict() == usual.space.to_dict()
    assert {field: found.method[field] for field in methods.brief(name)} == methods.brief(name)
    assert found.method.get('tries', 0) <= 3 and found.method.get('images', 0) <= 4
  assert known
  later = made.get_config('smoke')  # the method as a flag
  later.method.name = 'rsps'
  assert config_lib.resolve(later).method.tries == 3


def test_what_follows_a_search_is_its_retraining():
  for change in ('task=evaluate', 'dry_run=True', 'genotype=x'):  # the first was a fault of this package
    with pytest.raises(UserError, match=f'config.then_changes sets {change.partition("=")[0]},'):
      config_lib.following(config_lib.defaults(), f'epochs=1 {change}', 'there')


@pytest.mark.parametrize('words, size', [
    ('s1', (20, 36)), ('s4', (20, 36)), ('s1,rdarts', (20, 36)), ('rdarts,s2', (20, 16)), ('s3,rdarts', (20, 36)),
    ('s4,rdarts', (20, 16)), ('rdarts,c100,s1', (8, 16)), ('s3,c100', (20, 36)), ('short,s2', (8, 16)),
    ('short,rdarts,s2', (8, 16)), ('s2,rdarts,smoke', (3, 4)), ('short,smoke', (3, 4))])
def test_both_settings_of_s1_to_s4(words, size):
  found = retrain_simplified.get_config(words)
  assert (found.network.cells, found.network.channels) == size and found.data.pad is None
  if 'smoke' in words:
    assert (found.epochs, found.batch_size, found.data.limit) == (1, 16, 64)
    return
  assert found.space.name == re.search(r's\d', words)[0] and found.epochs == (20 if 'short' in words else 600)
  assert found.data.name == ('cifar100' if 'c100' in words else 'cifar10')


@pytest.mark.parametrize('field, value, word', [('thetta.lr', 0.1, 'theta.lr'), ('batchsize', 8, 'batch_size'),
                                                ('data.sahpe', 3, 'data.'), ('zzz', 1, 'every field')])
def test_what_a_file_misspells_is_told(field, value, word):
  """The flags are checked by their parser; a file may assign to whatever it likes."""
  config = config_lib.defaults()
  section, _, leaf = field.rpartition('.')
  if section and section not in config:
    config[section] = ConfigDict()
  (config[section] if section else config)[leaf] = value
  with pytest.raises(UserError, match=word) as error:
    config_lib.resolve(config)
  assert f'config.{field} is no field' in one_line(error)
