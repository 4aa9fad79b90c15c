"""Methods of one's own: a file that is named, brings its fields, and is searched, resumed and told apart like any."""

import json
import shutil

import pytest
from conftest import ONE_EDGE, ROOT, one_line

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import fields, main, methods
from vimnas_jax.errors import UserError

GUMBEL = str(ROOT / 'examples' / 'gumbel.py')
TINY = {'data.name': 'synthetic', 'data.image_size': 8, 'data.num_train': 64, 'space.cells': 1, 'space.channels': 8}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
  """What a test names is no field of the configurations of others."""
  monkeypatch.setattr(fields, 'OWN', {})


def configured(path, fields=(), **more):
  return vimnas_jax.configure('nb201_c10', {**TINY, 'method.name': str(path), **dict(fields)}, batch_size=16, devices=1,
                              **more)


def test_the_example_is_searched_and_its_temperature_falls(tmp_path):
  config = configured(GUMBEL, {'method.tau': 2.0, 'space.name': ONE_EDGE}, epochs=2.0, log_steps=1)
  result = vimnas_jax.search(config, tmp_path / 'run')
  assert result['method'] == GUMBEL and result['steps'] == 4 and result['pretrain_steps'] == 0
  rows = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  taus = [2.0 * 0.15 ** (step / 4) for step in range(4)]
  assert [row['tau'] for row in rows] == pytest.approx(taus, rel=1e-4)
  assert all(row['grad_phi'] > 0 for row in rows)
  held = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert held['config']['method'] == {'name': GUMBEL, 'tau': 2.0, 'tau_end': 0.3, 'samples': 4}
  assert held['config']['phi']['lr'] == 0.5 and held['method_fingerprint'] == methods.fingerprint(GUMBEL)


def test_an_edited_method_is_refused_and_a_moved_one_goes_on(tmp_path):
  own = tmp_path / 'own.py'
  shutil.copy(GUMBEL, own)
  first = vimnas_jax.search(configured(own, epochs=0.0), tmp_path / 'run')
  own.write_text(own.read_text().replace('# of alpha', '# of the architecture'))  # a comment changes nothing
  moved = own.rename(tmp_path / 'moved.py')
  assert vimnas_jax.search(configured(moved, epochs=0.0), tmp_path / 'run') == first
  moved.write_text(moved.read_text().replace('1e-3 *', '1e-2 *'))
  with pytest.raises(UserError, match='its code has changed') as error:
    vimnas_jax.search(configured(moved, epochs=0.0), tmp_path / 'run')
  one_line(error)


def test_its_fields_are_taken_wherever_a_method_is_named(tmp_path, monkeypatch):
  path = tmp_path / 'mine.py'
  path.write_text("FIELDS = {'strange': 1.5}\n" + (ROOT / 'examples' / 'gumbel.py').read_text().replace(
      "FIELDS = {", "FIELDS = {'strange': 1.5,"))
  assert 'strange' not in config_lib.defaults().method
  changed = config_lib.changed(config_lib.defaults(), f'method.name={path} method.strange=2.5')
  assert config_lib.resolve(changed).method.strange == 2.5
  worded = vimnas_jax.configure(f'nb201_c10:method={path}')
  assert config_lib.resolve(worded).method.strange == 1.5
  monkeypatch.setattr(fields, 'OWN', {})
  main._with_shipped(['x', '--config=quickstart', '--config.method.name', str(path), '--config.method.strange=3'])
  assert 'strange' in config_lib.defaults().method


BODY = 'from vimnas_jax.methods import Method\n'


@pytest.mark.parametrize('text, word', [
    ('def make(config', 'cannot be read'), ('FIELDS = {"a": [1]}', 'FIELDS'), ('FIELDS = dict(a=1)', 'written out'),
    ('OPTIMIZER = {"speed": 1}', 'OPTIMIZER'), ('PRETRAIN = "one"', 'PRETRAIN'), ('FIELDS = {"name": 1}', 'FIELDS'),
    ('OPTIMIZER = {"lr": "fast"}', "'fast'"), ('FIELDS = {3: 1}', 'FIELDS'), ('FIELDS: dict = {"a": [1]}', 'FIELDS'),
    (BODY, 'no function make'), ('1 / 0', 'line 1 .ZeroDivisionError'),
    ('def make(config):\n  return 3', 'gives int'),
    ('def make(config):\n  raise KeyError("x\\ny")', 'make fails, line 2 .KeyError')])
def test_unfit_files_are_told_in_one_line(tmp_path, text, word):
  path = tmp_path / 'unfit.py'
  path.write_text(text)
  with pytest.raises(UserError, match=word) as error:
    config_lib.resolve(configured(path))
  assert 'unfit.py' in one_line(error)


@pytest.mark.parametrize('old, new, word', [
    ("return {'params': alpha, 'fixed': {}}", 'return alpha', 'init gives a dict of cell'),
    ("return weights, {'tau': tau}", 'return weights', 'sample gives a dict of cell'),
    ("{'tau': tau}", "{'loss': tau}", "sample logs 'loss'"),
    ("{'tau': tau}", "{'all': alpha}", "sample logs 'all'"),
    ('(config.samples, *alpha.shape)', '(3, *alpha.shape)', r'sample gives an array of shape \(3, 6, 5\)'),
    ('samples=config.samples, logits', 'samples=2, logits', r'must be \(2, 6, 5\): \(Method.samples, edges, oper'),
    ('samples=config.samples, logits', 'samples=config.samples, penalty=lambda phi, weights: 0.0, logits',
     r'penalty\(phi, weights, clock\) fails .TypeError'),
    ('samples=config.samples, logits', 'samples=config.samples, penalty=lambda *_: config, logits',
     'penalty'),
    ('jax.random.gumbel(', 'jax.random.gumble(', 'sample fails, line [0-9]+ .AttributeError'),
    ('weights = {}', 'weights = {} if clock.progress > 0.5 else {}', 'sample fails, line [0-9]+ .TracerBool'),
    ('{name: jax.nn.softmax(alpha)', '{name + "x": jax.nn.softmax(alpha)', 'probs gives nothing for cell'),
    ('config.tau * (', 'config.taau * (', 'taau')])
def test_functions_that_do_not_fit_are_told_before_the_search(tmp_path, old, new, word):
  text = (ROOT / 'examples' / 'gumbel.py').read_text()
  assert text.count(old) == 1, old
  path = tmp_path / 'unfit.py'
  path.write_text(text.replace(old, new))
  with pytest.raises(UserError, match=word) as error:
    vimnas_jax.search(configured(path), tmp_path / 'run')
  assert 'unfit.py' in one_line(error) and not (tmp_path / 'run').exists()


def test_a_file_may_have_dataclasses_and_annotations(tmp_path):
  path = tmp_path / 'typed.py'
  path.write_text('from __future__ import annotations\nimport dataclasses\n\n\n@dataclasses.dataclass\nclass A:\n'
                  '  b: int = 1\n\n\n' + (ROOT / 'examples' / 'gumbel.py').read_text().replace(
                      'FIELDS = {', 'FIELDS: dict = {').replace('OPTIMIZER = {', 'OPTIMIZER: dict = {'))
  config = config_lib.resolve(configured(path))
  assert config.method.tau == 3.0 and config.phi.lr == 0.5


def test_docstrings_do_not_tell_methods_apart(tmp_path):
  path = tmp_path / 'own.py'
  path.write_text((ROOT / 'examples' / 'gumbel.py').read_text().replace('A method of one', 'One method of one'))
  assert methods.fingerprint(str(path)) == methods.fingerprint(GUMBEL)


def test_members_of_a_study_name_fields_in_any_order():
  changed = config_lib.changed(config_lib.defaults(), f'method.tau=2.5 method.name={GUMBEL}')
  assert config_lib.resolve(changed).method.tau == 2.5
  with pytest.raises(UserError, match="'method.temp=5' changes no field") as error:
    config_lib.changed(config_lib.defaults(), f'method.name={GUMBEL} method.temp=5')
  assert '\\' not in one_line(error)


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(UserError, match='no such file') as error:
    configured(tmp_path / 'none.py')
  one_line(error)


REINFORCE = str(ROOT / 'examples' / 'reinforce.py')


def test_the_example_with_a_step_of_its_own_goes_on_where_it_stopped(tmp_path):
  config = configured(REINFORCE, {'space.name': ONE_EDGE}, epochs=2.0, log_steps=1, checkpoint_steps=2)
  result = vimnas_jax.search(config, tmp_path / 'run')
  rows = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  assert rows[0]['baseline'] == 0 and rows[1]['baseline'] == pytest.approx(0.1 * rows[0]['reward'])
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '4')
  (tmp_path / 'run' / 'result.json').unlink()
  assert vimnas_jax.search(config, tmp_path / 'run')['state_sha256'] == result['state_sha256']


def test_a_search_that_its_method_ends_says_after_which_step(tmp_path):
  text, step = (ROOT / 'examples' / 'reinforce.py').read_text(), "Step(update, ('train', 'valid'))"
  path = tmp_path / 'ends.py'
  path.write_text(text.replace(step, f"{step}, stopped=lambda phi: phi['fixed']['baseline'] > 0"))
  config = configured(path, {'space.name': ONE_EDGE}, epochs=8.0, log_steps=5, checkpoint_steps=20)
  result = vimnas_jax.search(config, tmp_path / 'run')
  assert result['stopped'] == result['steps'] < result['planned_steps'] == 16
  last = json.loads((tmp_path / 'run' / 'arch.jsonl').read_text().splitlines()[-1])
  assert last['step'] == result['steps'] and last['genotype'] == result['genotype']


@pytest.mark.parametrize('old, new, word', [
    ("Step(update, ('train', 'valid'))", 'Step(update)', 'the step fails, line [0-9]+ .KeyError: .valid'),
    ("'loss': loss, ", '', "the step does not log 'loss'"),
    ("'reward': reward,", "'reward': params,", "the step logs 'reward', which is not a single number"),
    ("phi={'params': params, 'fixed': fixed}", "phi={'params': params}", 'the step gives a phi of other names'),
    ("'baseline': jnp.float32(0)", "'baseline': 0", 'the step gives a phi of other'),
    ('return -(reward - baseline)', 'return -(reward - basline)', 'the step fails, line [0-9]+ .NameError'),
    ('return state.replace(', 'return 0, state.replace(', 'the step gives 3 values')])
def test_steps_that_do_not_fit_are_told_before_the_search(tmp_path, old, new, word):
  text = (ROOT / 'examples' / 'reinforce.py').read_text()
  assert text.count(old) == 1, old
  path = tmp_path / 'unfit.py'
  path.write_text(text.replace(old, new))
  with pytest.raises(UserError, match=word) as error:
    vimnas_jax.search(configured(path), tmp_path / 'run')
  assert 'unfit.py' in one_line(error) and not (tmp_path / 'run' / 'config.json').exists()
