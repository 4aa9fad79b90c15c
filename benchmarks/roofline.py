"""What bounds each kernel and each operation of XLA's in a search step on one core: arithmetic or memory.

  python -m benchmarks.roofline --space darts --out benchmarks/roofline_darts.json

For every operation that XLA's profiler sees: its multiply-adds and the bytes that it must read and write at the least
(operands and results, once), from the compiled program; its time, from the trace; and the time that this core needs for
the larger of the two, at the rate of a dense product and of a copy, both measured in the same process. What a backward
kernel computes again counts as its work. Operations of one kind and shape are one line, those with the most time above
their bound first. A share above 100 % means that operands came from the cache.
"""

import argparse
import collections
import json
import math
import os
import re
import shlex
import statistics
import sys

from benchmarks.profile import KINDS, named, own_times, trace
from vimnas_jax.main import allocator

_SHAPE = re.compile(r'\b(pred|[a-z]+\d+)\[([\d,]*)\]')
_INSTRUCTION = re.compile(r'\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*?)\)(.*)')
_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 's32': 4, 'u32': 4, 'f64': 8, 's64': 8, 'u64': 8}
COPY = 1 << 26  # float32 in the copy that stands for what memory can do


def shapes(text: str) -> list[tuple[str, tuple[int, ...]]]:
  """Every array type in a piece of HLO, in order: (dtype, dimensions)."""
  return [(dtype, tuple(int(d) for d in dims.split(',') if d)) for dtype, dims in _SHAPE.findall(text)]


def size(arrays) -> int:
  """Bytes of arrays as `shapes` gives them."""
  return sum(_BYTES.get(dtype, 4) * math.prod(dims) for dtype, dims in arrays)


def parsed(text: str) -> dict[str, dict]:
  """{instruction: {opcode, result, operands (their names), rest, computation}} of a compiled program."""
  found, computation = {}, ''
  for line in text.splitlines():
    if line and not line[0].isspace() and line.rstrip().endswith('{'):
      computation = re.match(r'(?:ENTRY )?%?([\w.\-]+)', line)[1]
    elif match := _INSTRUCTION.match(line):
      name, result, opcode, operands, rest = match.groups()
      found[name] = {'opcode': opcode, 'result': shapes(result), 'rest': rest, 'computation': computation,
                     'operands': re.findall(r'%([\w.\-]+)', operands)}
  return found


def flops(name: str, program: dict[str, dict]) -> float:
  """Arithmetic of an instruction and of what it calls: two for every multiply-add of a convolution or product."""
  each = program[name]
  operands = [program[operand]['result'][0][1] for operand in each['operands']
              if operand in program and program[operand]['result']]
  target = re.search(r'custom_call_target="vimnas_jax_(\w+)"', each['rest'])
  if target:
    return _of_kernel(target[1], operands, [dims for _, dims in each['result']])
  if each['opcode'] == 'convolution':
    out, kernel = math.prod(each['result'][0][1]), operands[1]
    features = kernel[re.search(r'dim_labels=\w+_(\w+)->', each['rest'])[1].index('o')]
    return 2 * out * math.prod(kernel) / features
  if each['opcode'] == 'dot':
    depth = [int(d) for d in re.search(r'lhs_contracting_dims=\{([\d,]*)\}', each['rest'])[1].split(',') if d]
    return 2 * math.prod(each['result'][0][1]) * math.prod(operands[0][d] for d in depth)
  called = re.findall(r'(?:calls|to_apply|body)=%?([\w.\-]+)', each['rest'])
  return sum(flops(inner, program) for inner, what in program.items() if what['computation'] in called)


def _of_kernel(target, operands, results):
  """Of the kernels of vimnas_jax/cpu (stage.py, dense.py, winograd.py); pools and sums are passes over memory."""
  if target in ('stage_forward', 'stage_backward'):
    kernel, matrix = operands[3:5]
    pixels = math.prod(results[0][:-1] if target == 'stage_forward' else operands[5][:-1])
    depthwise, pointwise = 2 * pixels * kernel[1] ** 2 * kernel[3], 2 * pixels * matrix[1] * matrix[2]
    return depthwise + pointwise if target == 'stage_forward' else 3 * depthwise + 2 * pointwise
  if target in ('dense_forward', 'dense_backward'):
    out = math.prod(results[0]) if target == 'dense_forward' else math.prod(operands[4])
    packed = operands[1]
    if target == 'dense_forward':
      return 2 * out * packed[0] * packed[2]
    depth = packed[0] ** 2 * operands[0][-1]
    return 2 * out * depth * len(results)  # of the image, the kernel, or both
  if target in ('winograd_forward', 'winograd_backward'):  # 36 points for 16 pixels; transforms are not counted
    n, h, w, d = results[0] if target == 'winograd_forward' else operands[4]
    return 2 * n * -(-h // 4) * -(-w // 4) * d * operands[0][-1] * 36 * (1 if target == 'winograd_forward' else 2)
  return 0.0


def copy_rate() -> float:
  """Bytes a second, read and written, of a copy that is too large for the cache, on this thread."""
  import numpy as np

  from benchmarks.worker import times
  a, b = np.ones(COPY, np.float32), np.ones(COPY, np.float32)
  return 2 * a.nbytes / statistics.median(times(lambda: np.copyto(b, a), 5))


def rows(text: str, events, peak: float, rate: float) -> list[dict]:
  """A record for every kind and shape of operation, the largest time above its bound first.

  Args:
    text: the compiled program.
    events: a trace of one execution on one thread.
    peak: arithmetic a second.
    rate: bytes a second.
  """
  program, names, table = parsed(text), named(text), {}
  for name, ms in own_times(names, events).items():
    each = program[name]
    kind = next(kind for kind, pattern in KINDS if re.search(pattern, names[name]))
    operands = [array for operand in each['operands'] if operand in program for array in program[operand]['result']]
    work, moved = flops(name, program), size(operands) + size(each['result'])
    what = names[name] if '/' not in names[name] and names[name] else each['opcode']
    shape = max((dims for _, dims in each['result']), key=math.prod, default=())
    row = table.setdefault((kind, what, shape, work, moved), collections.Counter())
    row.update(count=1, ms=ms, bound_ms=1e3 * max(work / peak, moved / rate))
  found = [{'kind': kind, 'operation': what, 'largest_result': shape, 'count': row['count'], 'gflop': work / 1e9,
            'megabytes': moved / 1e6, 'ms': row['ms'], 'bound_ms': row['bound_ms'],
            'bound': 'arithmetic' if work / peak > moved / rate else 'memory'}
           for (kind, what, shape, work, moved), row in table.items()]
  return sorted(found, key=lambda row: row['bound_ms'] - row['ms'])


def main():
  """Prints the largest gaps and the sums by kind, and writes all as JSON."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--space', default='darts')
  parser.add_argument('--cells', type=int)
  parser.add_argument('--channels', type=int, default=16)
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--side', type=int, default=32)
  parser.add_argument('--lines', type=int, default=25, help='of single operations to print')
  parser.add_argument('--out', default='')
  args = parser.parse_args()
  allocator()
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before XLA counts the cores
  from benchmarks import worker
  spec = {'space': args.space, 'cells': args.cells or {'nb201': 5}.get(args.space, 8), 'channels': args.channels,
          'batch': args.batch, 'side': args.side, 'dtype': 'float32', 'form': 'fused'}
  compiled, step, matmul = worker.build(spec)
  step()
  peak, rate = matmul() * 1e9, copy_rate()
  _, events = trace(step)
  found = rows(compiled.as_text(), events, peak, rate)
  print(f'one core: {peak / 1e9:.0f} GFLOP/s in a dense product, {rate / 1e9:.1f} GB/s in a copy')
  line = '{:>9} {:>9} {:>6}  {:>6} {:>9} {:>9}  {}'
  print(line.format('ms', 'bound', '%', 'times', 'GFLOP', 'MB', 'bound by; operation'))
  kinds = collections.defaultdict(collections.Counter)
  for k, row in enumerate(found):
    kinds[row['kind']].update({'ms': row['ms'], 'bound_ms': row['bound_ms'], 'count': row['count'],
                               'gflop': row['gflop'] * row['count'], 'megabytes': row['megabytes'] * row['count']})
    if k < args.lines:
      print(_line(line, row, f'{row["bound"]}; {row["operation"]} {list(row["largest_result"])} ({row["kind"]})'))
  print()
  for kind, row in sorted(kinds.items(), key=lambda item: -item[1]['ms']):
    print(_line(line, row, kind))
  whole = sum((row for row in kinds.values()), collections.Counter())
  print(_line(line, whole, 'all'))
  if args.out:
    from vimnas_jax.runs import runfolder
    with open(args.out, 'w', encoding='utf-8') as f:
      json.dump({'command': 'python -m benchmarks.roofline ' + shlex.join(sys.argv[1:]), 'spec': spec, 'cores': 1,
                 'peak_gflops': peak / 1e9, 'copy_gb_s': rate / 1e9, 'kinds': kinds, 'rows': found,
                 **runfolder.environment()}, f, indent=1)


def _line(form, row, what):
  per = row['count'] if 'kind' in row else 1
  share = 100 * row['bound_ms'] / max(row['ms'], 1e-9)
  return form.format(f'{row["ms"]:.1f}', f'{row["bound_ms"]:.1f}', f'{share:.0f}', row['count'],
                     f'{row["gflop"] * per:.2f}', f'{row["megabytes"] * per:.0f}', what)


if __name__ == '__main__':
  main()
