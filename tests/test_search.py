import importlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUICK, ROOT, SLOW
from PIL import Image

from configs import quickstart
from vimnas_jax import config as config_lib
from vimnas_jax import data, methods, spaces
from vimnas_jax.errors import UNFINISHED
from vimnas_jax.files import flatten
from vimnas_jax.networks import genotypes
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.runs import loop, metrics, optim, parallel, runfolder, state
from vimnas_jax.runs import steps as steps_lib
from vimnas_jax.verbs import retrain, search, study

TINY = ['--config=configs/nb201_c10.py', '--config.data.name=synthetic', '--config.data.image_size=8',
        '--config.space.cells=1', '--config.space.channels=4', '--config.batch_size=8', '--config.epochs=0.5',
        '--config.pretrain.epochs=0.1875',
        '--config.log_steps=1', '--config.checkpoint_steps=7', '--config.phi.lr=0.1']
STEPS = 22


@pytest.fixture(scope='session')
def env(tmp_path_factory):
  return {**os.environ, 'XLA_FLAGS': QUICK,
          'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2'}


def start(env, workdir, *flags, tiny=TINY):
  return subprocess.Popen([sys.executable, '-m', 'vimnas_jax.main', *tiny, *flags, f'--workdir={workdir}'], cwd=ROOT,
                          env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(env, workdir, *flags, tiny=TINY):
  process = start(env, workdir, *flags, tiny=tiny)
  try:
    out = process.communicate(timeout=300)[0]
  finally:
    process.kill()  # or a failure here would fail a later test, for a process still running
  return process.returncode, out


COMMANDS = '''
import json, os, sys
from vimnas_jax import main; from vimnas_jax.verbs import search, study, report, retrain, evaluate  # once for all
for flags in json.loads(sys.argv.pop()):
  read, write = os.pipe()
  child = os.fork()
  if not child:
    os.dup2(write, 1)
    os.dup2(write, 2)
    os.close(read)
    os.close(write)
    sys.argv = ['vimnas_jax/main.py', *flags]
    main._streams()
    main.app.run(main._run, flags_parser=main._parse)
    os._exit(99)
  os.close(write)
  with open(read, encoding='utf-8') as pipe:
    out = pipe.read()
  print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), out]), flush=True)
'''


def commands(env, *flags):
  """[(exit code, output)] of commands of TINY and more flags, each a child of one process that has imported all."""
  done = subprocess.run([sys.executable, '-W', 'ignore', '-c', COMMANDS, json.dumps([[*TINY, *own] for own in flags])],
                        cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=True)
  return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def result(workdir):
  return json.loads((workdir / 'result.json').read_text())


@pytest.fixture(scope='session')
def whole(env, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  code, out = run(env, workdir)
  assert code == 0, out
  return workdir, out


def test_run_folder(whole):
  workdir, out = whole
  names = {p.name for p in workdir.iterdir()}
  assert names == {'config.json', 'metrics.jsonl', 'arch.jsonl', 'genotype.json', 'result.json', 'cell_normal.png',
                   'weights.png', 'phi.png', 'checkpoints'}
  found = result(workdir)
  assert found['steps'] == STEPS and found['genotype'] in out and f'{found["params"]:,}' in out
  assert 'compiled in' in out and found['oracle']['cifar10']['valid_rank'] >= 1
  rows = [json.loads(line) for line in (workdir / 'arch.jsonl').read_text().splitlines()]
  assert [r['step'] for r in rows] == list(range(STEPS + 1)) and rows[-1]['genotype'] == found['genotype']
  config = json.loads((workdir / 'config.json').read_text())
  assert config['config']['phi']['momentum'] == 0.9 and 'jax' in config['versions'] and config['data_fingerprint']
  assert 'I1' not in re.findall(r'^\w\d', out, re.M)


def wait_for(process, workdir, steps):
  path = workdir / 'metrics.jsonl'
  for _ in range(3000):
    if path.exists() and len(path.read_text().splitlines()) >= steps:
      return
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.02)
  raise AssertionError('the run does not get on')


@pytest.mark.parametrize('cuts', [
    [(4, signal.SIGTERM), (10, signal.SIGKILL)],
    pytest.param([(3, signal.SIGKILL)], marks=SLOW),
    pytest.param([(3, signal.SIGTERM), (8, signal.SIGUSR1), (13, signal.SIGKILL)], marks=SLOW)])
def test_interrupted_equals_uninterrupted(env, whole, tmp_path, cuts):
  for steps, how in cuts:
    process = start(env, tmp_path)
    wait_for(process, tmp_path, steps)
    process.send_signal(how)
    out = process.communicate(timeout=120)[0]
    if how != signal.SIGKILL:
      assert process.returncode == UNFINISHED and 'run the same command' in out, out
    assert not (tmp_path / 'result.json').exists()
  code, out = run(env, tmp_path)
  assert code == 0 and ('resuming' in out or cuts[0][0] < 7), out
  assert result(tmp_path)['state_sha256'] == result(whole[0])['state_sha256']
  assert result(tmp_path)['genotype'] == result(whole[0])['genotype']
  timeless = [[{k: v for k, v in json.loads(line).items() if k != 'seconds'}
               for line in (d / name).read_text().splitlines()] for name in ('metrics.jsonl', 'arch.jsonl')
              for d in (tmp_path, whole[0])]
  assert timeless[0] == timeless[1] and timeless[2] == timeless[3]


@pytest.mark.parametrize('how', [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW)])
def test_a_signal_gets_through_while_xla_compiles(env, tmp_path, how):
  process = start({**env, 'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache')}, tmp_path / 'run')
  for line in process.stdout:
    if line.startswith('compiling'):
      break
  time.sleep(0.2)
  process.send_signal(how)
  out = process.communicate(timeout=20)[0]
  assert process.returncode == UNFINISHED
  assert out == f'stopped by {how.name}, nothing lost: run the same command to go on\n'


def test_finished_run_is_told_again_and_a_changed_one_refused(env, whole, tmp_path):
  workdir = tmp_path / 'copy'
  shutil.copytree(whole[0], workdir)
  again, changed = commands(env, [f'--workdir={workdir}'], [f'--workdir={workdir}', '--config.theta.lr=0.1'])
  code, out = again
  assert code == 0 and 'holds the finished run' in out and result(workdir)['genotype'] in out
  code, out = changed
  assert code == 2 and 'config.theta.lr=0.025, not 0.1' in out and out.count('\n') == 1


@pytest.mark.parametrize('how', ['truncated', *(pytest.param(how, marks=SLOW) for how in ('flipped', 'half-saved'))])
def test_damaged_checkpoint_falls_back(env, whole, tmp_path, how):
  workdir = tmp_path / 'copy'
  shutil.copytree(whole[0], workdir)
  newest = max((workdir / 'checkpoints').iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
  assert newest.name == str(STEPS)
  (workdir / 'result.json').unlink()
  files = [p for p in newest.rglob('*') if p.is_file() and 'state' in str(p)]
  big = max(files, key=lambda p: p.stat().st_size)
  if how == 'truncated':
    big.write_bytes(big.read_bytes()[:big.stat().st_size // 2])
  elif how == 'flipped':
    raw = bytearray(big.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    big.write_bytes(raw)
  else:  # as a kill in the middle of a save leaves it
    newest.rename(newest.with_name(newest.name + '.orbax-checkpoint-tmp'))
  code, out = run(env, workdir)
  assert code == 0, out
  assert ('is damaged' in out) == (how != 'half-saved'), out
  assert f'after step {STEPS - 1} of' in out
  assert result(workdir)['state_sha256'] == result(whole[0])['state_sha256']


@SLOW
def test_four_devices_go_the_way_of_one(env, whole, tmp_path):
  """As whole processes, in single precision: for so few steps that rounding has not been amplified."""
  four = {**env, 'XLA_FLAGS': f'{env["XLA_FLAGS"]} --xla_force_host_platform_device_count=4'}
  code, out = run(four, tmp_path)
  assert code == 0, out
  assert result(tmp_path)['device'].startswith('4 x')
  for name, fields in (('metrics', ('loss', 'norm_theta')), ('arch', ('one_hot', 'entropy'))):
    rows = [[json.loads(line) for line in (d / f'{name}.jsonl').read_text().splitlines()[:4]]
            for d in (tmp_path, whole[0])]
    for ours, one in zip(*rows, strict=True):
      assert [ours[f] for f in fields] == pytest.approx([one[f] for f in fields], rel=1e-3)


def test_two_devices_find_what_one_finds(x64):
  """On real images, in double precision, leaf by leaf after steps that move theta and phi.

  Whole searches in single precision may end otherwise: what rounding does grows from step to step, and may tip a choice
  that is close.
  """
  config = quickstart.get_config()
  config.space.channels = 4
  config = config_lib.resolve(config)
  loaded, method = data.get(config.data), methods.get(config.method)
  space = spaces.get(str(ROOT / 'examples' / 'two_nodes.py'))  # which compiles soonest
  net = Supernet(space=space, cells=1, channels=4, num_classes=10, dtype=jnp.float64, param_dtype=jnp.float64)
  plan = steps_lib.Plan(0, 100, config.pretrain.sampling)
  tx = optim.theta(config.theta, plan.steps), optim.phi(config.phi, plan.search_steps)
  step = steps_lib.search_steps(net, method, space, plan, *tx, lambda key, x: x.astype(jnp.float64) / 16)['search']
  held = {'images': loaded.train.images, 'labels': loaded.train.labels}
  order = np.random.default_rng(0).permutation(len(loaded.train)).astype(np.int32)
  ends = []
  for devices in (1, 2):
    mesh = parallel.mesh(devices, 64)
    whole = parallel.replicated(mesh)
    now = jax.jit(lambda: state.create(state.root(1), net, method, space, *tx, loaded.image_shape),
                  out_shardings=whole)()
    first = jax.device_get(now)
    advance = jax.jit(steps_lib.on_device(step, parallel.batch(mesh)), out_shardings=whole)
    here = jax.device_put(held, whole)
    for i in range(3):
      now, metrics = advance(now, here, {'train': jax.device_put(order[64 * i:64 * (i + 1)], parallel.batch(mesh))})
    assert len(metrics['loss'].devices()) == devices
    ends.append(jax.device_get((now, metrics)))
  for name in ('theta', 'phi'):
    started, ended = (jax.tree.leaves(getattr(at, name)) for at in (first, ends[0][0]))
    assert max(np.abs(a - b).max() for a, b in zip(started, ended, strict=True)) > 1e-3
  for (path, a), b in zip(jax.tree.leaves_with_path(ends[1]), jax.tree.leaves(ends[0]), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9 * max(1.0, np.abs(b).max()),
                               err_msg=jax.tree_util.keystr(path))


@SLOW
@pytest.mark.parametrize('flags', [['--config.theta.lr=1e30', '--config.theta.clip=0'], ['--config.phi.lr=1e38']])
def test_divergence_keeps_the_last_good_state(env, tmp_path, flags):
  """Of theta as of phi, which may be so in the very last step too."""
  code, out = run(env, tmp_path, *flags, '--config.checkpoint_steps=1')
  assert code == 1 and re.search(r'error: step \d+: loss', out) and out.strip().splitlines()[-1].startswith('error')
  assert not (tmp_path / 'result.json').exists()


def test_an_overflow_is_one_line_and_code_1(env, tmp_path):
  """As a whole process, of the network that compiles soonest."""
  skip = '|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|'
  code, out = run(env, tmp_path, '--config.theta.lr=1e30', '--config.theta.clip=0', f'--config.genotype={skip}',
                  '--config.network.cells=1', '--config.network.channels=2', '--config.checkpoint_steps=1',
                  tiny=['--config=configs/retrain_nb201_c10.py', *TINY[1:4], *TINY[5:6], '--config.log_steps=1'])
  assert code == 1 and re.search(r'error: step \d+: loss', out) and out.strip().splitlines()[-1].startswith('error')
  assert not (tmp_path / 'result.json').exists()


def test_the_second_process_in_a_folder_is_refused(env, tmp_path):
  with runfolder.opened(tmp_path):
    code, out = run(env, tmp_path)
  assert code == 2 and f'in use by another run (process {os.getpid()}' in out and out.count('\n') == 1


BAD = {
    'misspelt key': (['--config.sead=1'], 'sead'),
    'unlike any key': (['--config.nosuchthing=1'],
                       "no field 'nosuchthing' (every field is in vimnas_jax/config.py or the file of a method of your "
                       'own)'),
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
    'bad argument': (['--config=configs/quickstart.py:fast'], 'fast'),
    'unwritable': (['--workdir=/proc/x'], '/proc/x'),
}


def test_bad_input_is_one_line_and_code_2(env, tmp_path):
  """Every one as a child of one process, and three in processes of their own, as a user starts them."""
  asked = {name: [f'--workdir={tmp_path / name}', *flags] for name, (flags, _) in BAD.items()}
  found = dict(zip(BAD, commands(env, *asked.values()), strict=True))
  alone = ('misspelt key', 'foreign field', 'batch too large')
  started = [start(env, tmp_path / name, *BAD[name][0]) for name in alone]
  own = [(process.communicate(timeout=120)[0], process.returncode) for process in started]
  for name, (code, out) in [*found.items(), *((name, (code, out)) for name, (out, code) in zip(alone, own))]:
    assert code == 2 and out.count('\n') == 1 and BAD[name][1] in out, f'{name}: {code} {out}'
    assert out.startswith('error: ') and '\\' not in out, f'{name}: {out}'
  assert not list(pathlib.Path(tmp_path).iterdir())


def test_a_python_without_the_packages_is_told_so():
  command = [sys.executable, '-S', '-m', 'vimnas_jax.main', *TINY]
  bare = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert bare.returncode == 2 and bare.stderr.count('\n') == 1 and 'pip install -r requirements.txt' in bare.stderr


CONFIGS = sorted(p.stem for p in (ROOT / 'configs').glob('*.py'))
SPACES = ['oneshot_c10:space2', 'oneshot_c10:space3', 'simplified_c10:s3', 'simplified_c10:s4']  # s2: ablation_darts
REALLY = 'quickstart',  # the others really run among the slow tests, a retraining in test_retrain.py


def smoke(config, tmp_path):
  """What follows --config= for a run of seconds, and fields beside, {field: value}."""
  config, _, space = config.partition(':')
  name = f'configs/{config}.py:smoke' + (space and f',{space}')
  wide = 'retrain_c10', 'retrain_simplified', 'retrain_imagenet'  # the auxiliary head and the stems want it
  side = 32 if config in wide else 8
  if config == 'retrain_imagenet':  # photographs, of many sizes
    for i in range(40):
      path = tmp_path / 'data' / ('ant', 'bee')[i % 2] / f'{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new('RGB', (30 + i, 70 - i), (40 * (i % 2), 6 * i, 90)).save(path)
    return name, {'data.dir': f'{tmp_path}/data'}
  if config == 'quickstart':
    return name, {}
  return name, {'data.name': 'synthetic', 'data.image_size': side, 'data.num_train': 32, 'batch_size': 8,
                'space.channels': 4}  # the least of the kernels, soonest compiled


@pytest.mark.parametrize('config', [pytest.param(config, marks=() if config in REALLY else SLOW)
                                    for config in CONFIGS + SPACES])
def test_every_config_and_space_has_a_smoke_run(env, tmp_path, config):
  name, fields = smoke(config, tmp_path)
  flags = [f'--config={name}', *(f'--config.{field}={value}' for field, value in fields.items())]
  code, out = run(env, tmp_path / 'run', tiny=flags)
  assert code == 0 and ('test accuracy' if config.startswith('retrain') else 'one-hotness') in out, out


class Silent(metrics.Console):
  def say(self, text):
    assert '\n' not in text


def traced(config, folder, monkeypatch, genotype=None):
  """The search or retraining of `config`, whose step has been traced with the batch that it would take as its second.

  The step gives back a state such as it took. `genotype` is what a retraining trains, if not the config's.
  """
  seen = []

  def advance(asked, now, *_):
    after, values = jax.eval_shape(asked.step, now, asked.held, asked.index(1))
    jax.tree.map(lambda a, b: None if (a.shape, a.dtype) == (b.shape, b.dtype) else pytest.fail(f'{a} {b}'), now, after)
    seen.append(values)
    return after, 0.0

  monkeypatch.setattr(loop, 'advance', advance)
  loaded, space = data.get(config.data), spaces.get(config.space.name)
  if config.task == 'search':
    run = search._checked(config, loaded, Silent())
  else:
    genotype = genotype or genotypes.resolve(config.genotype, space, genotypes.trusted(config))
    run = retrain.Training(config, space, genotype, loaded, parallel.mesh(config.devices, config.batch_size))
  if config.epochs:  # random cells take no step
    run.advance(run.abstract().replace(step=np.ones((), np.int32)), folder, None, Silent(), None)
    (values,) = seen
    assert values['loss'].shape == values['accuracy'].shape == ()
  return run


@pytest.mark.parametrize('config', CONFIGS + SPACES)
def test_every_config_and_space_has_a_step(tmp_path, monkeypatch, config):
  """Of the smoke run, which is traced and neither compiled nor run, and of the retraining that may follow."""
  name, fields = smoke(config, tmp_path)
  path, _, words = name.partition(':')
  asked = importlib.import_module(f'configs.{pathlib.Path(path).stem}').get_config(words)
  unknown = flatten(asked.to_dict()).keys() - flatten(config_lib.defaults().to_dict()).keys()
  assert not [field for field in unknown if not field.startswith('when.')]  # a file may misspell one unnoticed
  asked.update_from_flattened_dict(fields | {'devices': 1})
  if asked.task == 'study':
    runs = [own for _, _, *both in study.members(asked, tmp_path) for own in both]
  else:
    runs = [config_lib.resolve(asked)]
    runs.append(config_lib.following(asked, asked.then_changes, tmp_path) if asked.then else None)
  found = None
  for own in filter(None, runs):
    run = traced(own, tmp_path, monkeypatch, found)
    if own.task == 'search':
      shapes = {name: cell.shape for name, cell in run.space.cells.items()}
      shapes |= {row: (1, count) for row, count in run.space.choices.items()}
      probs = {name: np.random.default_rng(0).dirichlet(np.ones(shape[-1]), shape[0]) for name, shape in shapes.items()}
      found = run.space.validate(run.space.genotype(probs))
