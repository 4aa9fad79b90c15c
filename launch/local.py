"""Several processes on this machine, as on as many hosts: a rehearsal of a job, or one process for each GPU.

  python launch/local.py --processes=2 -- --config=configs/quickstart.py --workdir=runs/two

What follows `--` goes to `python -m vimnas_jax.main` of each process; the output of each has its number in front.
Ctrl-C and SIGTERM reach all: they save and stop. Where one fails the others have half a minute to notice, which they
do unless it died before all had come together; then they are stopped. The exit code is that of the first that fails, 75
where the same command goes on. `--gpus` gives process i the GPU i.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time

GRACE = 30  # seconds for the others to notice that one has failed
SAVED = 75  # the exit code of one that has saved and stopped


def free_port() -> int:
  """A port that is free, as is the one after it."""
  while True:
    with socket.socket() as first, socket.socket() as second:
      first.bind(('localhost', 0))
      port = first.getsockname()[1]
      try:
        second.bind(('localhost', port + 1))
      except (OSError, OverflowError):
        continue
      return port


def show(process, number):
  """Prints what a process prints."""
  for line in process.stdout:
    print(f'{number}: {line}', end='', flush=True)


def wait(processes) -> int:
  """Waits for all, and no longer than GRACE for the others once one has failed; returns the exit code of that one."""
  failed, until = 0, None
  while None in (codes := [process.poll() for process in processes]):
    if until is None and (failed := next((code for code in codes if code not in (None, 0, SAVED)), 0)):
      until = time.monotonic() + GRACE
    elif until is not None and time.monotonic() > until:
      for number in [number for number, code in enumerate(codes) if code is None]:
        print(f'{number}: still here {GRACE} s after another process failed: stopped', flush=True)
        processes[number].kill()
        processes[number].wait()
    time.sleep(0.1)
  return failed or next(filter(None, codes), 0)


def main() -> int:
  """Starts the processes and waits for all; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--processes', type=int, default=2)
  parser.add_argument('--gpus', action='store_true', help='process i computes on GPU i alone')
  parser.add_argument('--devices', type=int, default=1, help='CPU devices of each process')
  parser.add_argument('command', nargs=argparse.REMAINDER, help='-- and the flags of vimnas_jax.main')
  asked = parser.parse_args()
  for name in ('processes', 'devices'):
    if getattr(asked, name) < 1:
      parser.error(f'--{name}={getattr(asked, name)} starts nothing: give 1 or more')
  flags = asked.command[1:] if asked.command[:1] == ['--'] else asked.command
  coordinator, processes, threads = f'localhost:{free_port()}', [], []
  for number in range(asked.processes):
    env = {**os.environ, 'PYTHONUNBUFFERED': '1',
           'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={asked.devices}'}
    if asked.gpus:
      env['JAX_LOCAL_DEVICE_IDS'] = str(number)
    processes.append(subprocess.Popen(
        [sys.executable, '-m', 'vimnas_jax.main', *flags, f'--coordinator={coordinator}',
         f'--processes={asked.processes}', f'--process={number}'],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace'))
    threads.append(threading.Thread(target=show, args=(processes[-1], number)))
    threads[-1].start()
  for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(signum, lambda signum, _: [process.send_signal(signum) for process in processes])
  code = wait(processes)
  for thread in threads:
    thread.join()
  return code if code >= 0 else SAVED


if __name__ == '__main__':
  sys.exit(main())
