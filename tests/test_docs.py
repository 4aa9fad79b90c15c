"""The commands of the pages: their configurations, words and fields are taken; slowly, they are run at smoke size."""

import ast
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, SLOW
from PIL import Image
from processes import ENV

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax.files import flatten

PAGES = ('README.md', 'CONTRIBUTING.md', *(f'docs/{name}.md' for name in (
    'guide', 'faq', 'methods', 'compare', 'recipe', 'results', 'scale', 'spaces')), 'results/README.md',
         'benchmarks/README.md')
STANDS_FOR = {'my_method.py': 'examples/gumbel.py', 'my_space.py': 'examples/two_nodes.py', 'my_data.py': 'x.py',
              'method=NAME': 'method=darts', '=FILE.py': '=x.py'}
OTHERS = ('benchmarks.', 'launch/', 'tests.')  # programs with flags of their own, beside those of a configuration


def commands(page):
  """Every line of code of a page that has --config in it, a `…` at its start as the page has it."""
  text = (ROOT / page).read_text(encoding='utf-8')
  blocks = [re.sub(r'\\\n\s*', ' ', block) for block in re.findall(r'```[a-z]*\n(.*?)```', text, re.S)]
  spans = [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', re.sub(r'```.*?```', '', text, flags=re.S))]
  return [line for line in (*(line for block in blocks for line in block.splitlines()), *spans) if '--config' in line]


def flags(line):
  """(Value of --config or '', {field: text}) of a command line."""
  for words, others in STANDS_FOR.items():
    line = line.replace(words, others)
  named, fields = '', {}
  for word in shlex.split(line.rpartition('&&')[2]):
    if word.startswith('--config='):
      named = word.removeprefix('--config=')
    elif word.startswith('--config.'):
      field, equals, value = word.removeprefix('--config.').partition('=')
      fields[field] = value if equals else 'True'
  return named, fields


def test_pages_have_commands():
  counts = {page: len(commands(page)) for page in PAGES if (ROOT / page).exists()}
  assert counts['README.md'] > 20 and counts['docs/guide.md'] > 40 and len(counts) == len(PAGES), counts
  line = '.venv/bin/python -m vimnas_jax.main --config=quickstart:smoke --config.seed=3 --config.remat'
  assert flags(line) == ('quickstart:smoke', {'seed': '3', 'remat': 'True'})


@pytest.mark.parametrize('page', PAGES)
def test_commands_name_configurations_and_fields_that_there_are(page, monkeypatch):
  monkeypatch.chdir(ROOT)
  known = {name for name in flatten(config_lib.defaults().to_dict()) if not name.startswith('method.')}
  for line in commands(page):
    if any(program in line for program in OTHERS):
      continue
    named, fields = flags(line)
    own = fields.get('method.name', '')
    config = vimnas_jax.configure(named or f'nb201_c10:method={own}' if own.endswith('.py') else named or 'nb201_c10')
    for field, text in fields.items():
      if field == 'method.FIELD' or field == 'phi.FIELD':
        continue
      assert field in known or field in flatten(config.to_dict()), line
      if text in ('', 'True') and '=' not in line.partition(field)[2][:1]:
        continue  # a field that is named, not set
      try:
        value = ast.literal_eval(text)
      except (ValueError, SyntaxError):
        value = text
      if value != '':
        config.update_from_flattened_dict({field: value})
    if named not in ('', 'folder', 'evaluate') and 'NAME' not in line:  # these read what there is
      config_lib.resolve(config)


def pictures(folder):
  """A folder of 3 classes x 24 pictures of 40 pixels, in train/, val/ and test/."""
  draw = np.random.default_rng(0)
  for part, count in (('train', 24), ('val', 8), ('test', 8)):
    for i, name in enumerate(('rose', 'daisy', 'tulip')):
      (folder / part / name).mkdir(parents=True)
      for k in range(count):
        image = draw.integers(0, 120, (40, 40, 3), dtype=np.uint8)
        image[..., i] += 100
        Image.fromarray(image).save(folder / part / name / f'{k}.png')
  return folder


@SLOW
def test_commands_of_the_readme_and_the_guide_run(tmp_path, cifar_dir):
  """Each as it stands, but for the word smoke, data of this machine, and less to do where smoke leaves much."""
  flowers = pictures(tmp_path / 'flowers')
  photo = flowers / 'test' / 'rose' / '0.png'
  for name in ('examples', 'configs'):
    os.symlink(ROOT / name, tmp_path / name)
  ran, failed = set(), []
  for page in ('README.md', 'docs/guide.md'):
    for line in commands(page):
      line = line.rpartition('&&')[2]
      named, fields = flags(line)
      if not line.strip().startswith(('vimnas-jax', '.venv/bin/python -m vimnas_jax', '…', '--config=')):
        continue
      if any(word in line for word in ('NAME', 'FILE', 'task=report', 'NATS')):
        continue
      named = named or 'nb201_c10'
      if named.startswith('compare_all'):
        continue  # every method by its command: an hour
      named += (',' if ':' in named else ':') + 'smoke'
      fields = {field: value.replace('PHOTO_OR_FOLDER', str(flowers / 'test')).replace('PHOTO', str(photo)).replace(
          '~/flowers', str(flowers)) for field, value in fields.items()}
      photographs = 'imagenet' in named or fields.get('data.name') == 'folder'
      if fields.get('data.dir') == 'DIR' or (named.split(':')[0] == 'nb201_c10' and 'data.dir' not in fields):
        fields['data.dir'] = str(flowers) if photographs else str(cifar_dir)
      if fields.get('limit.cells'):
        fields['limit.params'] = '8e5'
      if fields.get('then') == 'retrain' and 'then_changes' not in fields:
        fields['then_changes'] = 'epochs=1 network.cells=3 network.channels=4 batch_size=16 data.limit=64'
      workdir = re.search(r'--workdir=(\S+)', line)
      words = [f'--config={named}', *(f'--config.{field}={value}' for field, value in fields.items()),
               *([workdir[0]] if workdir else [])]
      if tuple(words) in ran:
        continue
      ran.add(tuple(words))
      done = subprocess.run([sys.executable, '-m', 'vimnas_jax.main', *words], cwd=tmp_path, text=True, timeout=900,
                            env={**ENV, 'PYTHONPATH': str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
      print(done.returncode, shlex.join(words), done.stdout[-300:] if done.returncode else '', flush=True)
      if done.returncode:
        failed.append((line, done.stdout[-300:]))
  assert len(ran) > 25 and not failed, failed
