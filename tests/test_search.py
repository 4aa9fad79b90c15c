"""The command that searches: what it writes and says, and what it refuses; most as children of one process."""

import json
import os
import re
import subprocess
import sys

import markup
import pytest
from conftest import ONE_EDGE, ROOT, SLOW
from processes import ENV, STEPS, TINY, commands, result, run

from vimnas_jax.runs import runfolder

BAD = {
    'misspelt key': (['--config.sead=1'], 'sead'),
    'unlike any key': (['--config.nosuchthing=1'],
                       'config.nosuchthing is no field (every field is in docs/config.md)'),
    'unlike any of a method': (['--config.method.foo=1'],
                               "no field 'foo' (every field is in docs/config.md or the file of a method of your own)"),
    'field of another room': (['--config.data.dri=x'], 'config.data.dri is no field: did you mean --config.data.dir?'),
    'field as a flag': (['--max_hours=1'], "flag 'max_hours': did you mean --config.max_hours?"),
    'unknown space': (['--config.space.name=dart'], "'dart'"),
    'unknown method': (['--config.method.name=vim'], "'vim'"),
    'unknown data': (['--config.data.name=cifar'], "'cifar'"),
    'foreign field': (['--config.method.name=darts', '--config.method.variant=small'], 'variant'),
    'data not there': (['--config.data.name=cifar10', '--config.data.dir=/nowhere'], '/nowhere'),
    'small images': (['--config.data.image_size=2'], 'side 2'),
    'empty class': (['--config.data.num_train=3'], 'num_train=3'),
    'batch too large': (['--config.batch_size=1024'], '1024'),
    'negative rate': (['--config.theta.lr=-0.1'], '-0.1'),
    'bad portion': (['--config.train_portion=0'], 'train_portion'),
    'no type': (['--config.batch_size=many'], 'many'),
    'no file': (['--config=configs/none.py'], 'none.py'),
    'no file with words': (['--config=configs/none.py:smoke'], 'none.py'),
    'no name': (['--config=folders'], "did you mean 'folder'?"),
    'bad argument': (['--config=configs/quickstart.py:fast'], 'fast'),
    'unwritable': (['--workdir=/proc/x'], '/proc/x'),
}


SMALL = [*TINY, f'--config.space.name={ONE_EDGE}']

# Of the network that compiles soonest, in which all overflows.
SKIP = '|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|'
OVERFLOW = ['--config=configs/retrain_nb201_c10.py', *TINY[1:4], *TINY[5:6], '--config.log_steps=1',
            '--config.theta.lr=1e30', '--config.theta.clip=0', f'--config.genotype={SKIP}', '--config.network.cells=1',
            '--config.network.channels=2', '--config.checkpoint_steps=1']


@pytest.fixture(scope='session')
def told(tmp_path_factory):
  """(folder, {name: (exit code, output)}) of every command here; the run folders are named like the commands."""
  folder = tmp_path_factory.mktemp('told')
  lines = {'whole': SMALL, 'again': [*SMALL, f'--workdir={folder}/whole'],
           'changed': [*SMALL, '--config.theta.lr=0.1', f'--workdir={folder}/whole'], 'overflow': OVERFLOW,
           'in use': SMALL, **{name: [*TINY, *flags] for name, (flags, _) in BAD.items()}}
  lines = {name: [f'--workdir={folder}/{name}', *line] for name, line in lines.items()}  # the last --workdir counts
  with runfolder.opened(folder / 'in use'):
    return folder, dict(zip(lines, commands(*lines.values()), strict=True))


def test_run_folder(told):
  workdir, (code, out) = told[0] / 'whole', told[1]['whole']
  assert code == 0, out
  names = {p.name for p in workdir.iterdir()}
  assert names == {'config.json', 'metrics.jsonl', 'arch.jsonl', 'genotype.json', 'result.json', 'report.html',
                   'cell_normal.png', 'weights.png', 'film.gif', 'phi.png', 'checkpoints'}
  found = result(workdir)
  assert found['genotype'] in (page := markup.read(workdir)).said and f'Only {STEPS} steps' in page.said
  assert page.links.count('film.gif') == 2 and (workdir / 'film.gif').read_bytes().startswith(b'GIF89a')
  assert found['steps'] == STEPS and found['genotype'] in out and f'{found["params"]:,}' in out
  assert 'compiled in' in out and found['space'] == ONE_EDGE
  rows = [json.loads(line) for line in (workdir / 'arch.jsonl').read_text().splitlines()]
  assert [r['step'] for r in rows] == list(range(STEPS + 1)) and rows[-1]['genotype'] == found['genotype']
  config = json.loads((workdir / 'config.json').read_text())
  assert config['config']['phi']['momentum'] == 0.9 and 'jax' in config['versions'] and config['data_fingerprint']
  assert 'I1' not in re.findall(r'^\w\d', out, re.M)


def test_finished_run_is_told_again_and_a_changed_one_refused(told):
  code, out = told[1]['again']
  assert code == 0 and 'holds the finished run' in out and result(told[0] / 'whole')['genotype'] in out
  code, out = told[1]['changed']
  assert code == 2 and 'config.theta.lr=0.025, not 0.1' in out and out.count('\n') == 1


def test_an_overflow_is_one_line_and_code_1(told):
  code, out = told[1]['overflow']
  assert code == 1 and re.search(r'error: step \d+: loss', out) and out.strip().splitlines()[-1].startswith('error')
  assert not (told[0] / 'overflow' / 'result.json').exists()


def test_the_second_process_in_a_folder_is_refused(told):
  code, out = told[1]['in use']
  assert code == 2 and f'in use by another run (process {os.getpid()}' in out and out.count('\n') == 1


@pytest.mark.parametrize('name', BAD)
def test_bad_input_is_one_line_and_code_2(told, name):
  code, out = told[1][name]
  assert code == 2 and out.count('\n') == 1 and BAD[name][1] in out
  assert out.startswith('error: ') and '\\' not in out
  assert not (told[0] / name).exists()


@pytest.mark.parametrize('name', ['foreign field', *(pytest.param(name, marks=SLOW)
                                                     for name in ('misspelt key', 'batch too large'))])
def test_bad_input_of_a_process_of_its_own(tmp_path, name):
  """As a user starts it."""
  code, out = run(tmp_path / 'run', *BAD[name][0])
  assert code == 2 and out.count('\n') == 1 and BAD[name][1] in out and out.startswith('error: ')
  assert not list(tmp_path.iterdir())


def test_a_field_of_no_configuration_asks_for_one():
  """The field is right, so nothing else is meant by it."""
  for flags in (['--config.task=report'], ['--config.seed', '3']):
    done = subprocess.run([sys.executable, '-m', 'vimnas_jax.main', *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'did you mean' not in done.stderr
    assert f'{flags[0].partition("=")[0]} changes a field of a configuration, and none is named' in done.stderr


def test_a_python_without_the_packages_is_told_so():
  command = [sys.executable, '-S', '-m', 'vimnas_jax.main', *TINY]
  bare = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert bare.returncode == 2 and bare.stderr.count('\n') == 1 and 'pip install -r requirements.txt' in bare.stderr


@SLOW
def test_four_devices_go_the_way_of_one(told, tmp_path):
  """As whole processes, in single precision: for so few steps that rounding has not been amplified."""
  four = {**ENV, 'XLA_FLAGS': f'{ENV["XLA_FLAGS"]} --xla_force_host_platform_device_count=4'}
  code, out = run(tmp_path, *SMALL[-1:], env=four)
  assert code == 0, out
  assert result(tmp_path)['device'].startswith('4 x')
  for name, fields in (('metrics', ('loss', 'norm_theta')), ('arch', ('one_hot', 'entropy'))):
    rows = [[json.loads(line) for line in (d / f'{name}.jsonl').read_text().splitlines()[:4]]
            for d in (tmp_path, told[0] / 'whole')]
    for ours, one in zip(*rows, strict=True):
      assert [ours[f] for f in fields] == pytest.approx([one[f] for f in fields], rel=1e-3)


@SLOW
@pytest.mark.parametrize('flags', [['--config.theta.lr=1e30', '--config.theta.clip=0'], ['--config.phi.lr=1e38']])
def test_divergence_keeps_the_last_good_state(tmp_path, flags):
  """Of theta as of phi, which may be so in the very last step too."""
  code, out = run(tmp_path, *flags, '--config.checkpoint_steps=1')
  assert code == 1 and re.search(r'error: step \d+: loss', out) and out.strip().splitlines()[-1].startswith('error')
  assert not (tmp_path / 'result.json').exists()


