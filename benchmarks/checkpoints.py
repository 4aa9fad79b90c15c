"""What a checkpoint costs a run: steps of a search with one after every so many beside steps without, in turn.

  python -m benchmarks.checkpoints --config nb201_c10 --out benchmarks/checkpoints.json

Every other round of steps begins with `Checkpoints.save`, whose thread writes beside the steps of that round.
`seconds_each` is the difference of the medians of both kinds of round: what the save itself takes, and what its thread
takes from the steps beside it.
"""

import argparse
import json
import pathlib
import shlex
import statistics
import sys
import tempfile
import time

import jax

from benchmarks.step import Parser, run
from vimnas_jax import api, data
from vimnas_jax import config as config_lib
from vimnas_jax.runs import checkpoint, metrics, runfolder
from vimnas_jax.verbs import search


def main(argv) -> int:
  """Prints the seconds that a checkpoint costs and writes all as JSON."""
  parser = Parser(prog='python -m benchmarks.checkpoints', description=__doc__,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--config', default='nb201_c10')
  parser.add_argument('--steps', type=int, default=10, help='in a round')
  parser.add_argument('--rounds', type=int, default=8, help='of each kind')
  parser.add_argument('--out', default='')
  args = parser.parse_args(argv)
  config = api.configure(args.config, {'data.name': 'synthetic', 'data.image_size': 32, 'devices': 1})
  config = config_lib.resolve(config)
  asked = search.prepared(config, data.get(config.data), metrics.Console())
  held, index = asked.batches()
  now = asked.start()
  first = index(0)
  step = asked.step(0).lower(now, held, first).compile()
  with tempfile.TemporaryDirectory() as folder:
    saved = checkpoint.Checkpoints(folder, config.checkpoint_keep, config.checkpoint_hours)
    seconds, at = {'with': [], 'without': []}, 0
    for _ in range(args.rounds):
      for kind in ('with', 'without'):
        began = time.perf_counter()
        if kind == 'with':
          saved.save(at + 1, now)
        for _ in range(args.steps):
          now, values = step(now, held, first)
        jax.block_until_ready(values)
        seconds[kind].append(time.perf_counter() - began)
        at += args.steps
    saved.close()
    size = sum(p.stat().st_size for p in pathlib.Path(folder).rglob('*') if p.is_file()) / len(saved.steps())
  medians = {kind: statistics.median(values) for kind, values in seconds.items()}
  each, a_step = medians['with'] - medians['without'], medians['without'] / args.steps
  record = {'command': f'python -m benchmarks.checkpoints {shlex.join(argv)}', 'seconds_each': round(each, 4),
            'seconds_a_step': round(a_step, 4), 'megabytes': round(size / 1e6, 1),
            'share_at_checkpoint_steps': round(each / (config.checkpoint_steps * a_step), 5),
            'checkpoint_steps': config.checkpoint_steps, 'rounds': seconds, **runfolder.environment()}
  print(f'{each:.3f} s a checkpoint of {size / 1e6:.1f} MB, beside {a_step:.3f} s a step: '
        f'{100 * record["share_at_checkpoint_steps"]:.2f} % at one every {config.checkpoint_steps} steps')
  if args.out:
    pathlib.Path(args.out).write_text(json.dumps(record, indent=1), encoding='utf-8')
  return 0


if __name__ == '__main__':
  sys.exit(run(main))
