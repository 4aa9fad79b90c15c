"""Where a search step spends its time on a CPU, by kind of operation.

  python -m benchmarks.profile --space darts --out benchmarks/profile_darts.json

The step runs on one core, so that the times of its parts add up to the step. XLA's profiler times every kernel that it
starts; the name under which JAX wrote it tells what it is for. `--form plain` profiles the form without the kernels of
`vimnas_jax/cpu`, `--form reference` one module per operation.
"""

import argparse
import collections
import glob
import gzip
import json
import os
import re
import shlex
import sys
import tempfile
import time

from vimnas_jax.main import allocator

# The first that matches an operation's name names its kind.
KINDS = [('convolutions forward (kernels)', r'^(stage|dense|winograd)_forward$'),
         ('convolutions backward (kernels)', r'^(stage|dense|winograd)_backward$'),
         ('pools and identity (kernels)', r'^pools_'),
         ('mixing forward (kernels)', r'^(mix|(block|read)_forward)$'),
         ('weighted sums of gradients (kernels)', r'^read_backward$'),
         ('BatchNorm and mixing weights, sums (kernels)', r'^(sums|block_sums|projections_sums)$'),
         ('BatchNorm and mixing weights, coefficients (kernels)', r'^(statistics|coefficients|inner|fold)$'),
         ('parameters laid out and moved (kernels)', r'^(pour|turn|squares|descend)$'),
         ('sums of gradients, weights repacked', r'/kernels/|^winograd_points$'),
         ('pool', r'(max|avg)_pool'), ('skip', r'skip_connect'), ('depthwise', r'depthwise'),
         ('convolution, one by one', r'(sep|dil|nor)_conv'), ('preprocess', r'preprocess'),
         ('residual block', r'residual'), ('phi', r'/phi/'), ('augmentation', r'augment'), ('optimiser', r'optimiser'),
         ('stem, head, rest', r'')]


def main():
  """Prints the table and writes it as JSON."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--space', default='darts')
  parser.add_argument('--cells', type=int)
  parser.add_argument('--channels', type=int, default=16)
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--side', type=int, default=32)
  parser.add_argument('--form', default='fused', choices=('fused', 'plain', 'reference'))
  parser.add_argument('--out', default='')
  args = parser.parse_args()
  allocator()
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before XLA counts the cores
  from benchmarks import worker
  from vimnas_jax.networks import mixing
  if args.form == 'plain':
    mixing.kernels = lambda: None
  spec = {'space': args.space, 'cells': args.cells or {'nb201': 5}.get(args.space, 8), 'channels': args.channels,
          'batch': args.batch, 'side': args.side, 'dtype': 'float32', 'form': args.form, 'steps': 3}
  compiled, step, matmul = worker.build(spec)
  step()
  times = sorted(worker.times(step, 3))
  traced, events = trace(step)
  table = by_kind(compiled.as_text(), events)
  record = {'command': 'python -m benchmarks.profile ' + shlex.join(sys.argv[1:]), 'spec': spec, 'cores': 1,
            'step_s': times[1], 'traced_step_s': traced, 'matmul_gflops': matmul(),
            'ms': {kind: round(ms, 2) for kind, ms in table.most_common()}}
  whole = sum(table.values())
  print(f'{times[1]:.3f} s a step on one core ({traced:.3f} s under the profiler, of which {whole / 1e3:.3f} s seen); '
        f'a dense product runs at {record["matmul_gflops"]:.0f} GFLOP/s there')
  for kind, ms in table.most_common():
    print(f'{ms:9.1f} ms {100 * ms / whole:5.1f} %  {kind}')
  if args.out:
    with open(args.out, 'w', encoding='utf-8') as f:
      json.dump(record, f, indent=1)


def trace(step):
  """(seconds of one `step()`, the events that XLA's profiler saw in it)."""
  import jax
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder, create_perfetto_trace=True):
      begin = time.perf_counter()
      step()
      seconds = time.perf_counter() - begin
    with gzip.open(glob.glob(f'{folder}/**/perfetto_trace.json.gz', recursive=True)[0]) as f:
      return seconds, json.load(f)['traceEvents']


def named(text: str) -> dict[str, str]:
  """{instruction: the kernel that it calls, or else the name under which JAX wrote it} of a compiled program."""
  names = {}
  for line in text.splitlines():
    found = re.match(r'\s*(?:ROOT )?%?([\w.\-]+) = ', line)
    if found:
      target = re.search(r'custom_call_target="vimnas_jax_(\w+)"', line)
      name = re.search(r'op_name="([^"]*)"', line)
      names[found[1]] = target[1] if target else name[1] if name else ''
  return names


def own_times(names, events) -> collections.Counter:
  """Milliseconds of each of the instructions `names` in a trace of one execution on one thread."""
  spans = [(event['ts'], event['ts'] + event['dur'], event['name']) for event in events
           if event.get('ph') == 'X' and event['name'] in names]
  spans.sort(key=lambda span: (span[0], -span[1]))  # a loop's span holds those of its body: count what is innermost
  own, stack = [span[1] - span[0] for span in spans], []
  for i, (begin, end, _) in enumerate(spans):
    while stack and spans[stack[-1]][1] <= begin:
      stack.pop()
    if stack:
      own[stack[-1]] -= end - begin
    stack.append(i)
  table = collections.Counter()
  for (_, _, name), duration in zip(spans, own):
    table[name] += duration / 1e3
  return table


def by_kind(text: str, events, kinds=tuple(KINDS)) -> collections.Counter:
  """Milliseconds of each of `kinds`, (kind, pattern of an operation's name): `text` is the compiled program, `events`
  a trace of one execution on one thread.
  """
  names, table = named(text), collections.Counter()
  for name, ms in own_times(names, events).items():
    table[next(kind for kind, pattern in kinds if re.search(pattern, names[name]))] += ms
  return table


if __name__ == '__main__':
  main()
