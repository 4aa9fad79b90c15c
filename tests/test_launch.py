import os
import runpy
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from vimnas_jax import api, config

LAUNCH = ROOT / 'launch'
SCRIPTS = sorted(path.name for path in LAUNCH.glob('*.sh'))
FLAGS = ['--config=darts_imagenet', '--config.data.dir=A B', '--workdir=runs/x']


def command(path, text):
  path.write_text(f'#!/bin/bash\n{text}\n')
  path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path):
  """A folder with the commands of a SLURM cluster of two tasks; `run(flags, **variables)` runs slurm.sh there."""
  command(tmp_path / 'scontrol',
          f'case $1 in show) echo node7; echo node8;; *) echo "$@" >> {tmp_path}/requeued;; esac')
  command(tmp_path / 'srun', 'shift; code=0\nfor i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" || code=$?; done\n'
          'exit $code')
  command(tmp_path / 'python',
          'echo "$JAX_PROCESS_ID/$JAX_NUM_PROCESSES $JAX_LOCAL_DEVICE_IDS $JAX_COORDINATOR_ADDRESS"\n'
          'printf "<%s>" "$@"; echo; exit ${CODE:-0}')

  def run(*flags, **variables):
    env = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PYTHON': str(tmp_path / 'python'), 'SLURM_NTASKS': '2',
           'SLURM_JOB_NODELIST': 'node[7-8]', 'SLURM_JOB_ID': '123', **variables}
    env = {name: value for name, value in env.items() if value}
    done = subprocess.run([LAUNCH / 'slurm.sh', *flags], env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr

  return run


@pytest.mark.parametrize('script', SCRIPTS)
def test_scripts_are_sound(script):
  check = shutil.which('shellcheck', path=f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}')
  done = subprocess.run([check, LAUNCH / script], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout
  assert os.access(LAUNCH / script, os.X_OK)


def test_slurm_starts_one_process_for_each_task(cluster):
  code, out = cluster(*FLAGS)
  assert code == 0
  words = '<-m><vimnas_jax.main><--config=darts_imagenet><--config.data.dir=A B><--workdir=runs/x>'
  assert out.splitlines() == ['0/2 0 node7:20123', words, '1/2 1 node7:20123', words]


def test_slurm_counts_nodes_where_no_number_of_tasks_was_asked_for(cluster):
  assert '1/2 1 node7:20123' in cluster(*FLAGS, SLURM_NTASKS='', SLURM_JOB_NUM_NODES='2')[1]
  assert '0/1 0 node7:20123' in cluster(*FLAGS, SLURM_NTASKS='')[1]


def test_slurm_requeues_what_was_stopped_and_nothing_else(cluster, tmp_path):
  assert cluster(*FLAGS, CODE='2')[0] == 2 and not (tmp_path / 'requeued').exists()
  assert cluster(*FLAGS, CODE='75')[0] == 75 and (tmp_path / 'requeued').read_text() == 'requeue 123\n'
  assert cluster(*FLAGS, CODE='137')[0] == 137 and (tmp_path / 'requeued').read_text() == 'requeue 123\n' * 2
  cluster(*FLAGS, CODE='137', SLURM_RESTART_COUNT='3')  # it would be killed for ever
  assert (tmp_path / 'requeued').read_text() == 'requeue 123\n' * 2


def test_a_slurm_array_is_a_sweep(cluster, tmp_path):
  _, out = cluster(*FLAGS, SLURM_ARRAY_TASK_ID='3')
  assert '<--workdir=runs/x/seed_3><--config.seed=3>' in out
  (tmp_path / 'sweep').write_text('slow --config.phi.lr=0.01\nfast --config.phi.lr=0.1 --config.epochs=2\n')
  _, out = cluster(*FLAGS, SLURM_ARRAY_TASK_ID='2', SWEEP=str(tmp_path / 'sweep'))
  assert '<--workdir=runs/x/fast><--config.phi.lr=0.1><--config.epochs=2>' in out
  (tmp_path / 'quoted').write_text("long --config.then=retrain --config.then_changes='epochs=10 batch_size=64'\n")
  assert '<--config.then_changes=epochs=10 batch_size=64>' in cluster(*FLAGS, SLURM_ARRAY_TASK_ID='1',
                                                                      SWEEP=str(tmp_path / 'quoted'))[1]
  code, out = cluster(*FLAGS, SLURM_ARRAY_TASK_ID='4', SWEEP=str(tmp_path / 'sweep'))
  assert code != 0 and 'has no line 4' in out
  code, out = cluster('--config=quickstart', SLURM_ARRAY_TASK_ID='3')  # all would search in one folder
  assert code != 0 and 'give --workdir=FOLDER' in out


def test_a_tpu_slice_starts_one_process_for_each_host(tmp_path):
  """Each host runs what `gcloud` is given, with what its metadata server says."""
  command(tmp_path / 'curl',
          'case "${@: -1}" in */agent-worker-number) echo 1;; *) echo x:y:10.0.0.5,x:y:10.0.0.6;; esac')
  command(tmp_path / 'gcloud',
          'for word in "$@"; do [[ $word == --command=* ]] && exec bash -c "${word#--command=}"; done')
  (tmp_path / 'checkout' / '.venv' / 'bin').mkdir(parents=True)
  command(tmp_path / 'checkout' / '.venv' / 'bin' / 'python',
          'echo "$JAX_PROCESS_ID/$JAX_NUM_PROCESSES $JAX_COORDINATOR_ADDRESS"; printf "<%s>" "$@"')
  env = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'ZONE': 'z', 'CHECKOUT': str(tmp_path / 'checkout')}
  done = subprocess.run([LAUNCH / 'tpu_vm.sh', 'name', *FLAGS], env=env, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout == ('1/2 10.0.0.5:21000\n<-m><vimnas_jax.main><--config=darts_imagenet><--config.data.dir=A B>'
                         '<--workdir=runs/x>')


def test_a_jobset_numbers_its_processes():
  """The fields that jobset.x-k8s.io/v1alpha2 and batch/v1 want, and numbers that fit together."""
  jobset = yaml.safe_load((LAUNCH / 'jobset.yaml').read_text())
  assert (jobset['apiVersion'], jobset['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
  [job] = jobset['spec']['replicatedJobs']
  spec = job['template']['spec']
  pod = spec['template']['spec']
  [container] = pod['containers']
  env = {each['name']: each for each in container['env']}
  assert spec['completionMode'] == 'Indexed' and pod['restartPolicy'] == 'Never' and spec['backoffLimit'] == 0
  assert int(env['JAX_NUM_PROCESSES']['value']) == spec['parallelism'] == spec['completions']
  host, port = env['JAX_COORDINATOR_ADDRESS']['value'].split(':')
  assert host == f'{jobset["metadata"]["name"]}-{job["name"]}-0-0.{jobset["metadata"]["name"]}'
  assert [each['containerPort'] for each in container['ports']] == [int(port), int(port) + 1]
  assert {mount['name'] for mount in container['volumeMounts']} == {volume['name'] for volume in pod['volumes']}


@pytest.mark.parametrize('name', ['jobset.yaml', 'sky.yaml', *SCRIPTS, 'local.py'])
def test_the_configurations_that_are_named_exist(name):
  text = (LAUNCH / name).read_text()
  named = {word.split('=')[1].split()[0].strip('\'"\\') for word in text.split() if word.startswith('--config=')}
  assert named
  for each in named:
    config.resolve(api.configure(each))


@pytest.mark.parametrize('flag', ['--processes=0', '--processes=-1', '--devices=0'])
def test_no_process_is_no_success(flag, monkeypatch, capsys):
  local = runpy.run_path(str(LAUNCH / 'local.py'))
  monkeypatch.setattr(sys, 'argv', ['local.py', flag, '--', '--config=quickstart'])
  with pytest.raises(SystemExit) as ended:
    local['main']()
  assert ended.value.code == 2 and f'{flag} starts nothing: give 1 or more' in capsys.readouterr().err


def test_of_local_processes_none_outlives_another_that_failed(tmp_path, monkeypatch):
  """Neither one that waits nor the exit code depends on the order of the processes."""
  local = runpy.run_path(str(LAUNCH / 'local.py'))
  monkeypatch.setitem(local['wait'].__globals__, 'GRACE', 0.2)
  for codes, wanted in (('00', 0), ('w3', 3), ('3w', 3), ('k0', -9), ('wk', -9), ('7s', 75), ('s7', 75)):
    ends = {'0': 'pass', '3': 'exit(3)', '7': 'exit(75)', 's': 'import time; time.sleep(0.6)',
            'k': 'import os; os.kill(os.getpid(), 9)', 'w': 'import time; time.sleep(99)'}
    processes = [subprocess.Popen([sys.executable, '-c', ends[each]]) for each in codes]
    assert local['wait'](processes) == wanted
    found = {each: process.poll() for each, process in zip(codes, processes, strict=True)}
    assert None not in found.values() and found.get('s', 0) == 0  # one that saves is left alone
