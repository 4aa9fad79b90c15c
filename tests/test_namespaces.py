"""A search on two hosts: network namespaces of this machine, with names and addresses of their own and a cable."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from conftest import ROOT, SLOW
from processes import ENV
from test_hosts import SMALL, same
from test_hosts import whole as whole  # what two processes of one machine find

ADDRESS = ('10.231.77.1', '10.231.77.2')


def ip(*words):
  return subprocess.run(['ip', *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def hosts():
  """Names of two namespaces that reach each other."""
  if sys.platform != 'linux' or os.geteuid() or not shutil.which('ip') or not shutil.which('unshare'):
    pytest.skip('network namespaces need Linux, root, iproute2 and util-linux')
  names = [f'vimnas{os.getpid()}n{i}' for i in range(2)]
  try:
    for name in names:
      ip('netns', 'add', name)
    ip('-n', names[0], 'link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'cable', 'netns', names[1])
    for name, address in zip(names, ADDRESS):
      ip('-n', name, 'address', 'add', f'{address}/24', 'dev', 'cable')
      for device in ('lo', 'cable'):
        ip('-n', name, 'link', 'set', device, 'up')
  except subprocess.CalledProcessError as e:
    pytest.skip(f'no network namespaces here: {e.stderr.strip()}')
  yield names
  for name in names:
    ip('netns', 'delete', name)


def start(number, host, workdir, coordinator=f'{ADDRESS[0]}:29400', wait=60):
  """A process on a host, whose name no resolver knows."""
  return subprocess.Popen(
      ['ip', 'netns', 'exec', host, 'unshare', '--uts', 'sh', '-c', 'hostname "$0" && exec "$@"', f'node{number}',
       sys.executable, '-m', 'vimnas_jax.main', *SMALL, f'--workdir={workdir}', f'--wait={wait}',
       f'--coordinator={coordinator}', '--processes=2', f'--process={number}'],
      cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def job(hosts, workdir, **more):
  return [start(number, host, workdir, **more) for number, host in enumerate(hosts)]


def ends(processes, timeout=200):
  """[(exit code, output)]"""
  try:
    outs = [process.communicate(timeout=timeout)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  return [(process.returncode, out) for process, out in zip(processes, outs)]


@SLOW
def test_two_hosts_find_what_two_processes_find(hosts, whole, tmp_path):
  for code, out in ends(job(hosts, tmp_path)):
    assert code == 0, out
  same(tmp_path, whole[0])


@SLOW
def test_a_host_that_is_cut_off_is_named_and_the_job_goes_on(hosts, whole, tmp_path):
  processes = job(hosts, tmp_path, wait=16)
  until = time.monotonic() + 100
  while not (tmp_path / 'metrics.jsonl').exists() or (tmp_path / 'metrics.jsonl').read_text().count('\n') < 8:
    assert time.monotonic() < until and processes[0].poll() is None
    time.sleep(0.02)
  ip('-n', hosts[1], 'link', 'set', 'cable', 'down')
  (code, out), (other, theirs) = ends(processes, timeout=60)
  assert code == other == 75, out + theirs
  assert re.search(r'^process 1 on node1 \(pid \d+\) has not answered for \d+ s: waiting up to 16 s', out, re.M), out
  assert re.search(r'^process 1 on node1 \(pid \d+\) has not answered for \d+ s: start all processes again', out,
                   re.M), out
  assert re.search(r'^process 0 on node0 \(pid \d+\) has not answered for \d+ s: start all processes again', theirs,
                   re.M), theirs
  ip('-n', hosts[1], 'link', 'set', 'cable', 'up')
  for code, out in ends(job(hosts, tmp_path)):
    assert code == 0, out
  same(tmp_path, whole[0])


@SLOW
def test_a_coordinator_that_is_nowhere_is_told_by_its_address(hosts, tmp_path):
  [(code, out)] = ends([start(1, hosts[1], tmp_path, coordinator='10.231.77.9:29400', wait=5)])
  assert code == 2 and 'no answer from process 0 at 10.231.77.9:29401 within 5 s' in out, out
