"""How long a run waits for CIFAR-10 of TFDS: the first time, when its images are decoded, and later, from the copy.

  python -m benchmarks.decoding --data DIR --out benchmarks/decoding.json

DIR is the data folder of TFDS. Every measurement is a fresh process, with a cache of its own.
"""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

from benchmarks.step import Parser, environment, run
from vimnas_jax.errors import UserError

LOAD = '''
import sys, time
from vimnas_jax import api, config, data
asked = config.resolve(api.configure('darts_c10', {'data.dir': sys.argv[1]})).data
began = time.perf_counter()
data.get(asked)
print(time.perf_counter() - began)
'''


def loaded(folder: str, cache: str) -> float:
  """Seconds of a fresh process that loads the set in `folder`, with its copies in `cache`. Raises UserError."""
  done = subprocess.run([sys.executable, '-c', LOAD, folder], capture_output=True, text=True,
                        cwd=pathlib.Path(__file__).parents[1], env={**os.environ, 'XDG_CACHE_HOME': cache})
  if done.returncode:
    raise UserError((done.stderr.strip().splitlines() or ['no message'])[-1])
  return float(done.stdout.splitlines()[-1])


def main(argv) -> int:
  """Measures, prints and writes. Returns the exit code."""
  parser = Parser(prog='python -m benchmarks.decoding', description=__doc__,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data', required=True, help='the data folder of TFDS')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', default='')
  args = parser.parse_args(argv)
  told = shlex.join('DIR' if each == args.data else each for each in argv)
  record = {'command': f'python -m benchmarks.decoding {told}', **environment(), 'first': [], 'again': []}
  for _ in range(args.rounds):
    with tempfile.TemporaryDirectory() as cache:
      for kind in ('first', 'again'):
        record[kind].append(round(loaded(args.data, cache), 3))
  medians = {kind: statistics.median(record[kind]) for kind in ('first', 'again')}
  print(f'{medians["first"]:.2f} s the first time, {medians["again"]:.2f} s after (medians of {args.rounds})')
  if args.out:
    pathlib.Path(args.out).write_text(json.dumps(record | {'medians': medians}, indent=1) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  sys.exit(run(main))
