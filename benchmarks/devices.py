"""Time of a search step on one device with all cores beside several devices that share them, in turn, and what they
send each other.

  python -m benchmarks.devices --out benchmarks/devices.json

The devices are virtual ones of this machine's CPU: what is measured is what sharing a batch costs, not what more
machines gain. `each computes all` is the same program with the kernels' calls left to XLA, which brings the whole batch
to every device. Bytes are those of the results of all-reduces and all-gathers in a step, of the compiled program.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time

FORMS = {'1 device': (1, True), '2 devices': (2, True), '2 devices, each computes all': (2, False),
         '4 devices': (4, True), '8 devices': (8, True)}
_SIZES = {'f32': 4, 's32': 4, 'u32': 4, 'f64': 8, 'pred': 1, 'bf16': 2, 's64': 8}
_SENT = re.compile(r'= (\(?[^=]*?\)?) (all-reduce|all-gather)(?:-start)?\(')
_ARRAY = re.compile(r'([a-z0-9]+)\[([\d,]*)\]')


def sent(text: str) -> dict[str, dict[str, int]]:
  """{kind: {'calls', 'bytes'}} of the collectives in a compiled program; bytes of their results."""
  found = {kind: {'calls': 0, 'bytes': 0} for kind in ('all-reduce', 'all-gather')}
  for shapes, kind in _SENT.findall(text):
    found[kind]['calls'] += 1
    for dtype, dims in _ARRAY.findall(shapes):
      size = _SIZES[dtype]
      for dim in filter(None, dims.split(',')):
        size *= int(dim)
      found[kind]['bytes'] += size
  return found


def child(spec):
  """Compiles a step; then times as many as a line of the input says, and prints their seconds as JSON."""
  from benchmarks import worker
  if not spec['shared']:
    from vimnas_jax.cpu import shards
    shards.devices = lambda images, samples=1: 1
  compiled, call, _ = worker.build(spec)
  call()
  print(json.dumps(sent(compiled.as_text())), flush=True)
  for line in sys.stdin:
    seconds = []
    for _ in range(int(line)):
      began = time.perf_counter()
      call()
      seconds.append(time.perf_counter() - began)
    print(json.dumps(seconds), flush=True)


def main():
  """Prints the table and writes it as JSON."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--space', default='nb201')
  parser.add_argument('--cells', type=int, default=5)
  parser.add_argument('--channels', type=int, default=16)
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--steps', type=int, default=3)
  parser.add_argument('--forms', default=','.join(str(i) for i in range(len(FORMS))))
  parser.add_argument('--out', default='')
  parser.add_argument('--child', default='')
  args = parser.parse_args()
  if args.child:
    return child(json.loads(args.child))
  base = {'space': args.space, 'cells': args.cells, 'channels': args.channels, 'batch': args.batch, 'side': 32,
          'dtype': 'float32', 'form': 'jax', 'device': 'cpu'}
  children, record = {}, {'command': f'python -m benchmarks.devices {shlex.join(sys.argv[1:])}', **base, 'forms': {}}
  for name in [list(FORMS)[int(i)] for i in args.forms.split(',')]:
    devices, shared = FORMS[name]
    spec = json.dumps({**base, 'devices': devices, 'shared': shared})
    env = {**os.environ, 'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}', 'JAX_PLATFORMS': 'cpu'}
    process = subprocess.Popen([sys.executable, '-m', 'benchmarks.devices', f'--child={spec}'], env=env, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    children[name] = process
    record['forms'][name] = {'devices': devices, **json.loads(process.stdout.readline()), 'seconds': []}
  for _ in range(args.rounds):
    for name, process in children.items():
      process.stdin.write(f'{args.steps}\n')
      process.stdin.flush()
      record['forms'][name]['seconds'] += json.loads(process.stdout.readline())
  first = None
  for name, process in children.items():
    process.stdin.close()
    process.wait()
    form = record['forms'][name]
    form['median'] = statistics.median(form.pop('seconds'))
    first = first or form['median']
    print(f'{name:30} {form["median"]:7.3f} s a step  {form["median"] / first:5.2f}  '
          f'all-reduce {form["all-reduce"]["bytes"] / 1e6:6.2f} MB in {form["all-reduce"]["calls"]:4}, '
          f'all-gather {form["all-gather"]["bytes"] / 1e6:6.2f} MB in {form["all-gather"]["calls"]:4}', flush=True)
  if args.out:
    from vimnas_jax.runs import runfolder
    with open(args.out, 'w', encoding='utf-8') as f:
      json.dump(record | runfolder.environment(), f, indent=1)
  return 0


if __name__ == '__main__':
  sys.exit(main())
