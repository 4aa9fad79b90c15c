"""Interruptions of a real search, too long for every run of the tests.

  python -m tests.soak --kills 20 --workdir runs/soak
  python -m tests.soak --faults --workdir runs/soak
  python -m tests.soak --kills 20 --processes 2 --workdir runs/soak

searches the handwritten digits once to its end and once more, killed (SIGKILL) at so many random moments, from the
start of Python to the last picture, and started again each time. With `--faults`, in a search of one epoch, every
open, read, write, rename and look at a folder that the search does below its work folder fails once, each in a search
of its own (`faults.py`), and the search is started again. With `--processes` a search of configs/darts_imagenet.py, in
small, streams JPEG files as so many processes on this machine; one of them, drawn at random, is killed each time, and
the others must end by themselves. Always the end must have the same bits, and metrics.jsonl and arch.jsonl every line
once. Exit code 0 if it has.
"""

import argparse
import itertools
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time

from tests import faults

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLAGS = ('--config=configs/quickstart.py:smoke', '--config.epochs=8', '--config.log_steps=1',
         '--config.checkpoint_steps=5')
STREAMED = ('--config=configs/darts_imagenet.py:smoke', '--config.data.stream=True', '--config.batch_size=16',
            '--config.space.name=s2', '--config.epochs=4', '--config.log_steps=1', '--config.checkpoint_steps=5')
BOUND = 60  # seconds in which the other processes must end


def command(workdir, processes=1):
  """The search, in `workdir`."""
  if processes == 1:
    return [sys.executable, '-m', 'vimnas_jax.main', *FLAGS, f'--workdir={workdir}']
  return [sys.executable, 'launch/local.py', f'--processes={processes}', '--', *STREAMED,
          f'--config.data.dir={workdir.parent / "data"}', f'--workdir={workdir}']


def photographs(folder, count=400):
  """Writes train/CLASS/*.JPEG and val/CLASS/*.JPEG: the handwritten digits in many sizes."""
  import numpy as np
  from PIL import Image
  from sklearn.datasets import load_digits
  digits, rng = load_digits(), np.random.default_rng(0)
  for i in range(count):
    path = folder / ('val' if i % 5 == 4 else 'train') / f'n{digits.target[i]}' / f'{i}.JPEG'
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray((digits.images[i] * 15.9).astype(np.uint8)).convert('RGB')
    image.resize(tuple(int(side) for side in rng.integers(40, 90, 2))).save(path)


def timeless(path):
  """The rows of a file of lines, without what differs from run to run."""
  return [{k: v for k, v in json.loads(line).items() if k != 'seconds'} for line in path.read_text().splitlines()]


def differences(whole, workdir):
  """What differs between two finished runs, in words."""
  found = [name for name in ('metrics.jsonl', 'arch.jsonl') if timeless(whole / name) != timeless(workdir / name)]
  ours, theirs = (json.loads((at / 'result.json').read_text()) for at in (workdir, whole))
  return found + [key for key in ('state_sha256', 'genotype', 'probs', 'last_loss') if ours[key] != theirs[key]]


def finish(workdir, processes=1):
  """Runs the command to its end; returns what it printed. Raises if it ends in anything but success."""
  done = subprocess.run(command(workdir, processes), cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def kill(process, processes, rng):
  """Kills the search, or one process of it; returns whether it ended as it should."""
  if processes == 1:
    process.kill()
    process.wait()
    return True
  listed = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True, check=False)
  if pids := listed.stdout.split():
    subprocess.run(['kill', '-9', rng.choice(pids)], check=False)
  try:
    return process.wait(BOUND) in (0, 75)
  except subprocess.TimeoutExpired:
    process.terminate()
    process.wait()
    return False


def kill_often(workdir, kills, longest, rng, processes=1):
  """Starts the search again and again; kills it at a moment within `longest` seconds; says where it was each time.

  Returns how often the processes that were left did not end by themselves.
  """
  stuck = 0
  for number in range(1, kills + 1):
    process = subprocess.Popen(command(workdir, processes), cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    after = rng.uniform(0, longest)
    time.sleep(after)
    ended = process.poll()
    stuck += not kill(process, processes, rng)
    lines = workdir / 'metrics.jsonl'
    at = lines.read_text().count('\n') if lines.exists() else 0
    print(f'kill {number}: after {after:.1f} s, {at} lines{"" if ended is None else ", finished before"}', flush=True)
    if ended is not None:  # begin again: a finished run has nothing to lose
      shutil.rmtree(workdir)
  return stuck


def fail_everywhere(base):
  """A search for every call to the disk, which fails there, and one that goes on from it; prints what is wrong."""
  import jax

  from configs import quickstart
  from vimnas_jax import config as config_lib
  from vimnas_jax import main
  from vimnas_jax.errors import UserError
  from vimnas_jax.verbs import search
  jax.config.update('jax_compilation_cache_dir', str(base / 'cache'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
  config = quickstart.get_config('smoke')
  config.log_steps, config.checkpoint_steps = 1, 15
  config, wrong, calls = config_lib.resolve(config), 0, 0
  workdir, whole = base / 'faulty', base / 'whole'
  search.search(config, whole)
  for kind in faults.KINDS:
    for number in itertools.count():
      shutil.rmtree(workdir, ignore_errors=True)
      how = 'goes on'
      with faults.Disk(workdir, kind, number).works() as disk:
        try:
          search.search(config, workdir)
        except (UserError, OSError) as e:
          how = main._line(e)
        except Exception as e:  # anything else is a traceback to the user
          how, wrong = f'TRACEBACK {type(e).__name__}: {e}', wrong + 1
      if not disk.failed:
        break
      calls += 1
      try:
        search.search(config, workdir)
        found = differences(whole, workdir)
      except Exception as e:
        found = [f'{type(e).__name__}: {e}']
      wrong += bool(found)
      print(f'FAULT {disk.failed.replace(str(workdir), "")}: {how}; then '
            f'{"the same bits" if not found else "DIFFERS: " + ", ".join(found)}', flush=True)
  print(f'FAULT {calls} calls, {wrong} wrong')
  return wrong


def main():
  """See above."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/soak'))
  parser.add_argument('--processes', type=int, default=1)
  parser.add_argument('--faults', action='store_true')
  args = parser.parse_args()
  base = args.workdir.absolute()
  shutil.rmtree(base, ignore_errors=True)
  if args.faults:
    return fail_everywhere(base) > 0
  if args.processes > 1:
    photographs(base / 'data')
  finish(base / 'warm', args.processes)  # compiles
  began = time.monotonic()
  finish(base / 'whole', args.processes)
  took = time.monotonic() - began
  print(f'a whole search takes {took:.1f} s')
  stuck = kill_often(base / 'cut', args.kills, took, random.Random(args.seed), args.processes)
  finish(base / 'cut', args.processes)
  wrong = differences(base / 'whole', base / 'cut') + ['processes that did not end'] * bool(stuck)
  print(f'differs: {", ".join(wrong)}' if wrong else 'same bits, every line once')
  return bool(wrong)


if __name__ == '__main__':
  sys.exit(main())
