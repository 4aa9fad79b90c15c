"""Commands of a search as small as one can be: processes of their own, or children of one that has imported all."""

import json
import os
import subprocess
import sys

from conftest import QUICK, ROOT

TINY = ['--config=configs/nb201_c10.py', '--config.data.name=synthetic', '--config.data.image_size=8',
        '--config.space.cells=1', '--config.space.channels=8', '--config.batch_size=8', '--config.epochs=0.5',
        '--config.pretrain.epochs=0.1875', '--config.log_steps=1', '--config.checkpoint_steps=7', '--config.phi.lr=0.1']
STEPS = 22
ENV = {**os.environ, 'XLA_FLAGS': QUICK}


def start(workdir, *flags, tiny=TINY, env=ENV):
  return subprocess.Popen([sys.executable, '-m', 'vimnas_jax.main', *tiny, *flags, f'--workdir={workdir}'], cwd=ROOT,
                          env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(workdir, *flags, tiny=TINY, env=ENV):
  process = start(workdir, *flags, tiny=tiny, env=env)
  try:
    out = process.communicate(timeout=300)[0]
  finally:
    process.kill()  # or a failure here would fail a later test, for a process still running
  return process.returncode, out


COMMANDS = '''
import atexit, json, os, sys, threading, traceback
from vimnas_jax import main  # and all else, once
from vimnas_jax.verbs import search, study, report, retrain, evaluate, predict
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
    try:
      main.app.run(main._run, flags_parser=main._parse)
      code = 99
    except SystemExit as e:
      code = e.code or 0
    except BaseException:
      traceback.print_exc()
      code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to tear the interpreter down takes a second
  os.close(write)
  with open(read, encoding='utf-8') as pipe:
    out = pipe.read()
  print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), out]), flush=True)
'''


def commands(*lines):
  """[(exit code, output)] of command lines, one after the other, each a child of one process that has imported all."""
  done = subprocess.run([sys.executable, '-W', 'ignore', '-c', COMMANDS, json.dumps(lines)],
                        cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300, check=True)
  return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def result(workdir):
  return json.loads((workdir / 'result.json').read_text())


def rows(path):
  """The rows of a file of lines, without what differs from run to run."""
  return [{k: v for k, v in json.loads(line).items() if k != 'seconds'} for line in path.read_text().splitlines()]
