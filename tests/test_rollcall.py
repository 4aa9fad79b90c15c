import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from vimnas_jax.errors import UNFINISHED, UserError
from vimnas_jax.runs import hosts
from vimnas_jax.runs.rollcall import Place

MEMBER = '''
import sys, time
from vimnas_jax.errors import UserError
from vimnas_jax.runs.rollcall import Place, RollCall

number, count, port, wait, asked, then = sys.argv[1:]
try:
  call = RollCall(Place(f'localhost:{port}', int(number), int(count)), float(wait), {'config.seed': asked},
                  lambda text: print(text, flush=True))
except UserError as e:
  print(f'error: {e}', flush=True)
  sys.exit(2)
print('all are here', flush=True)
if then == 'slow':
  call.report(0.5)
elif then != 'leave':
  call.report(0.1)
if then == 'leave':
  call.close()
elif then.startswith('fail'):
  time.sleep(0.5)
  call.close(2, 'no data under DIR')
  time.sleep(10 if then == 'fail slowly' else 0)
  sys.exit(2)
else:
  time.sleep(20)
'''


@pytest.fixture
def job(tmp_path):
  """`start(then, ...)` starts members of a job, each with what it does then; all are killed at the end."""
  sys.path.insert(0, str(ROOT / 'launch'))
  from local import free_port
  sys.path.remove(str(ROOT / 'launch'))
  port, started = free_port(), []
  script = tmp_path / 'member.py'
  script.write_text(MEMBER)

  def start(*then, wait=10, count=None, asked='0', first=0):
    for i, what in enumerate(then, first):
      started.append(subprocess.Popen(
          [sys.executable, script, str(i), str(count or len(then)), str(port), str(wait),
           asked if i else '0', what], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
          env={'PYTHONPATH': str(ROOT)}))
    return started

  yield start
  for process in started:
    process.kill()
    process.wait()
    process.stdout.close()


def here(*processes):
  """Waits until each has said that all are here."""
  for process in processes:
    assert process.stdout.readline() == 'all are here\n'


def ended(process, seconds=8):
  """(exit code, what it printed) of a process that ends within so many seconds."""
  out, _ = process.communicate(timeout=seconds)
  return process.returncode, out


@pytest.mark.parametrize('victim', [0, 2])
def test_a_process_that_is_killed_is_named_and_ends_the_job(job, victim):
  processes = job('stay', 'stay', 'stay')
  here(*processes)
  processes[victim].kill()
  for i, process in enumerate(processes):
    if i != victim:
      code, out = ended(process)
      assert code == UNFINISHED
      assert re.fullmatch(rf'process {victim} on \S+ \(pid {processes[victim].pid}\) is gone: start all .*\n', out)


def test_one_that_stands_still_is_named_and_ends_the_job(job):
  processes = job('stay', 'stay', wait=7)
  here(*processes)
  processes[1].send_signal(signal.SIGSTOP)
  code, out = ended(processes[0], 20)
  assert code == UNFINISHED and re.search(r'process 1 on \S+ \(pid \d+\) has not answered for \d s: waiting up', out)
  assert out.splitlines()[-1].startswith('process 1 on ') and 'start all processes again' in out


def test_the_error_of_one_is_the_error_of_all(job):
  processes = job('stay', 'fail', 'stay')
  here(*processes)
  for process in processes:
    code, out = ended(process)
    assert code == 2
    if process is not processes[1]:
      assert re.search(r'^error: process 1 on \S+ \(pid \d+\) ended: no data under DIR$', out, re.M)


def test_who_leaves_as_it_should_ends_nobody(job):
  processes = job('stay', 'leave')
  here(*processes)
  assert ended(processes[1])[0] == 0
  time.sleep(0.5)
  assert processes[0].poll() is None


def test_a_slow_host_is_named_once(job):
  processes = job('stay', 'stay', 'slow')
  here(*processes)
  line = processes[0].stdout.readline()
  assert re.fullmatch(r'process 2 on \S+ \(pid \d+\) computes 5.0 times more slowly than the median of 3 '
                      r'processes: .*\n', line)


def test_who_does_not_come_is_named(job):
  code, out = ended(job('stay', count=3, wait=1)[0])
  assert code == 2 and re.match(r'error: process 1, 2 of 3 did not come to localhost:\d+ within 1 s: start every', out)


def test_a_coordinator_that_cannot_be_reached_is_named(job):
  code, out = ended(job('stay', count=2, wait=1, first=1)[0])
  assert code == 2
  assert re.match(r'error: no answer from process 0 at localhost:\d+ within 1 s \(.*\): start it there', out)


def test_processes_that_disagree_are_told_in_what(job):
  for process in job('stay', 'stay', asked='1'):
    code, out = ended(process)
    assert code == 2 and "has config.seed='1', process 0 has '0': start all with one command" in out


@pytest.mark.parametrize(('given', 'word'), [
    ((None, 1, 2), '--coordinator is missing'), (('host:1', None, 2), '--process is missing'),
    (('host', 0, 2), "--coordinator='host': give HOST:PORT"), (('host:65535', 0, 2), 'from 1 to 65534'),
    (('host:80', 2, 2), '--process=2 of --processes=2')])
def test_a_place_that_does_not_fit_is_refused(given, word):
  with pytest.raises(UserError, match=re.escape(word)):
    hosts.place(*given)


def test_a_place_comes_from_flags_or_the_environment(monkeypatch):
  assert hosts.place(None, None, None) is None and hosts.place(None, 0, 1) is None
  for name, value in (('COORDINATOR_ADDRESS', 'host:80'), ('PROCESS_ID', '1'), ('NUM_PROCESSES', '4')):
    monkeypatch.setenv(f'JAX_{name}', value)
  assert hosts.place(None, None, None) == Place('host:80', 1, 4)
  assert hosts.place(None, 3, None) == Place('host:80', 3, 4)
  monkeypatch.setenv('JAX_PROCESS_ID', 'one')
  with pytest.raises(UserError, match="JAX_PROCESS_ID='one' is no whole number"):
    hosts.place(None, None, None)


@pytest.mark.parametrize('which', [0, 1])
def test_a_process_that_fails_keeps_its_exit_code_when_the_others_end_before_it(job, which):
  processes = job(*('fail slowly' if i == which else 'stay' for i in range(2)))
  here(*processes)
  code, out = ended(processes[1 - which])
  assert code == 2 and f'process {which} on ' in out and 'no data under DIR' in out
  assert ended(processes[which]) == (2, '')
