"""A search as two processes on this machine, over XLA's collectives between CPUs."""

import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ONE_EDGE, ROOT, SLOW
from processes import ENV, STEPS, TINY, result, rows
from test_streamed import damage, tree

SMALL = [*TINY, f'--config.space.name={ONE_EDGE}']


def start(workdir, *flags, processes=2, job=SMALL):
  return subprocess.Popen([sys.executable, 'launch/local.py', f'--processes={processes}', '--', *job, *flags,
                           f'--workdir={workdir}', '--wait=60'], cwd=ROOT, env=ENV, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


def run(workdir, *flags, processes=2, job=SMALL):
  """(Exit code, output) of a job."""
  process = start(workdir, *flags, processes=processes, job=job)
  try:
    out = process.communicate(timeout=300)[0]
  finally:
    process.terminate()
  return process.returncode, out


@pytest.fixture(scope='session')
def whole(tmp_path_factory):
  """(Run folder, output) of a job of two processes that nothing disturbs."""
  workdir = tmp_path_factory.mktemp('hosts') / 'whole'
  code, out = run(workdir)
  assert code == 0, out
  return workdir, out


def same(workdir, other, losses=None):
  """Whether two runs ended alike: with the same bits, or losses as close as given."""
  ours, theirs = result(workdir), result(other)
  assert ours['genotype'] == theirs['genotype'] and ours['steps'] == theirs['steps'] == STEPS
  lines = [rows(at / 'metrics.jsonl') for at in (workdir, other)]
  assert [row['step'] for row in lines[0]] == [row['step'] for row in lines[1]] == [*range(1, STEPS + 1)]
  if losses is None:
    assert ours['state_sha256'] == theirs['state_sha256'] and lines[0] == lines[1]
  else:
    assert [row['loss'] for row in lines[0][:4]] == pytest.approx([row['loss'] for row in lines[1][:4]], rel=losses)


@SLOW
def test_two_processes_have_one_writer_and_one_console(whole):
  workdir, out = whole
  assert [line for line in out.splitlines() if line.startswith('1: ') and 'Gloo' not in line] == []
  assert result(workdir)['device'].startswith('2 x') and result(workdir)['processes'] == 2
  assert not list(workdir.glob('*.part')) and (workdir / 'weights.png').exists()


@SLOW
def test_two_and_four_processes_go_the_way_of_one(whole, tmp_path):
  """The same losses as one process finds, up to rounding."""
  for name, processes in (('one', 1), ('four', 4)):
    code, out = run(tmp_path / name, processes=processes)
    assert code == 0, out
    same(tmp_path / name, whole[0], losses=1e-3)


def kill(process, number, workdir):
  """Kills one process of a job when the first lines are written."""
  until = time.monotonic() + 200
  while not (workdir / 'metrics.jsonl').exists() or (workdir / 'metrics.jsonl').read_text().count('\n') < 8:
    assert time.monotonic() < until and process.poll() is None
    time.sleep(0.02)
  pattern = f'--workdir={workdir} .*--process={number}$'
  [pid] = subprocess.run(['pgrep', '-f', '--', pattern], capture_output=True, text=True, check=True).stdout.split()
  subprocess.run(['kill', '-9', pid], check=True)
  return pid


@SLOW
@pytest.mark.skipif(not shutil.which('pgrep'), reason='there is no pgrep')
@pytest.mark.parametrize('victim', [0, 1])
def test_a_job_that_loses_a_process_ends_and_goes_on_to_the_same_bits(whole, tmp_path, victim):
  process = start(tmp_path)
  pid = kill(process, victim, tmp_path)
  out, _ = process.communicate(timeout=20)
  assert process.returncode == 75
  assert re.search(rf'^{1 - victim}: process {victim} on \S+ \(pid {pid}\) is gone: start all', out, re.M), out
  code, out = run(tmp_path)
  assert code == 0 and 'resuming' in out
  same(tmp_path, whole[0])


@SLOW
def test_a_signal_to_one_stops_all_at_one_step_and_another_number_goes_on(whole, tmp_path):
  process = start(tmp_path)
  while not (tmp_path / 'metrics.jsonl').exists() or not (tmp_path / 'metrics.jsonl').read_text():
    time.sleep(0.02)
  [pid] = subprocess.run(['pgrep', '-f', '--', f'--workdir={tmp_path} .*--process=1$'], capture_output=True, text=True,
                         check=True).stdout.split()
  subprocess.run(['kill', f'-{int(signal.SIGTERM)}', pid], check=True)
  out, _ = process.communicate(timeout=60)
  assert process.returncode == 75 and 'all saved' in out, out
  code, out = run(tmp_path, processes=1)
  assert code == 0, out
  same(tmp_path, whole[0], losses=1e-3)


@SLOW
@pytest.mark.skipif(not shutil.which('pgrep'), reason='there is no pgrep')
def test_a_streamed_job_that_loses_a_process_ends_with_the_bits_of_one_in_memory(tmp_path):
  """Each process has a worker that decodes its rows."""
  root = tree(tmp_path / 'images', (171, 171, 171), 4, side=64, suffix='jpg')
  images = ['--config.data.name=folder', f'--config.data.dir={root}']
  code, out = run(tmp_path / 'held', *images, '--config.data.stream=False')
  assert code == 0, out
  streamed = [*images, '--config.data.stream=True', '--config.data.workers=1']
  process = start(tmp_path / 'streamed', *streamed)
  kill(process, 1, tmp_path / 'streamed')
  out, _ = process.communicate(timeout=30)  # which waits for all that hold its pipe, workers among them
  assert process.returncode == 75 and 'is gone: start all' in out, out
  code, out = run(tmp_path / 'streamed', *streamed)
  assert code == 0 and 'resuming' in out, out
  same(tmp_path / 'streamed', tmp_path / 'held')


@SLOW
@pytest.mark.skipif(not shutil.which('pgrep'), reason='there is no pgrep')
def test_a_streamed_training_of_two_processes_goes_on_after_a_kill_and_goes_the_way_of_one(tmp_path):
  """With a last batch of six of eight images in every epoch."""
  root = tree(tmp_path / 'images', (26, 26, 26), 5, side=48, suffix='jpg')
  job = ['--config=configs/retrain_imagenet.py:smoke', f'--config.data.dir={root}', '--config.data.stream=True',
         '--config.data.workers=1', '--config.epochs=3', '--config.log_steps=1', '--config.checkpoint_steps=4',
         '--config.theta.warmup=0', '--config.theta.lr=0.05', '--config.measure_batches=()']
  for name, processes in (('two', 2), ('one', 1)):
    code, out = run(tmp_path / name, processes=processes, job=job)
    assert code == 0, out
  process = start(tmp_path / 'cut', job=job)
  kill(process, 1, tmp_path / 'cut')
  out, _ = process.communicate(timeout=30)
  assert process.returncode == 75 and 'is gone: start all' in out, out
  code, out = run(tmp_path / 'cut', job=job)
  assert code == 0 and 'resuming' in out, out
  cut, two, one = (result(tmp_path / name) for name in ('cut', 'two', 'one'))
  assert cut['state_sha256'] == two['state_sha256'] and cut['confusion'] == two['confusion']
  assert two['steps'] == one['steps'] == 30 and two['processes'] == 2
  losses = [[row['loss'] for row in rows(tmp_path / name / 'metrics.jsonl')] for name in ('two', 'one')]
  assert len(losses[0]) == 30 and losses[0][:10] == pytest.approx(losses[1][:10], rel=1e-3)


@SLOW
def test_damage_that_each_process_meets_is_told_and_counted_by_all(tmp_path):
  root = tree(tmp_path / 'images', (171, 171, 171), 4, side=16, suffix='jpg')
  damage(root, *(f'ant/{i}.jpg' for i in range(100, 171)))
  streamed = ['--config.data.name=folder', f'--config.data.dir={root}', '--config.data.stream=True',
              '--config.data.workers=0']
  code, out = run(tmp_path / 'run', *streamed)
  assert code == 0, out
  noted = [set(re.findall(rf'^{i}: note: (train/ant/\d+.jpg) is damaged', out, re.M)) for i in (0, 1)]
  assert noted[0] and noted[1] and result(tmp_path / 'run')['damaged_images'] == sorted(noted[0] | noted[1])
  code, out = run(tmp_path / 'fewer', *streamed, '--config.data.max_corrupt=3')
  assert code == 2 and 'more than config.data.max_corrupt=3' in out, out


def test_processes_that_are_asked_different_things_do_not_begin(tmp_path):
  from test_rollcall import ended
  sys.path.insert(0, str(ROOT / 'launch'))
  from local import free_port
  sys.path.remove(str(ROOT / 'launch'))
  port = free_port()
  job = [subprocess.Popen([sys.executable, '-m', 'vimnas_jax.main', *SMALL, f'--config.seed={i}', f'--process={i}',
                           '--processes=2', f'--coordinator=localhost:{port}', f'--workdir={tmp_path}/run'],
                          cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
         for i in range(2)]
  for process in job:
    code, out = ended(process, 60)
    assert code == 2 and "has config.seed='1', process 0 has '0'" in out
  assert not (tmp_path / 'run').exists()
