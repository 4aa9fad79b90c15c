"""Seconds and memory of one search step, next to the unfused form and to a plain PyTorch port.

    pip install -r requirements-bench.txt
    python -m benchmarks.step --space darts --out benchmarks/step_darts
    python -m benchmarks.step --space nb201 --out benchmarks/step_nb201

Forms: `fused` is the search step as it ships (method vimnas); `reference` the same step with one operation at a time
and XLA's own convolutions (tests/reference.py); `torch` the port in torch_net.py; `shifted`, `taps` and `mixed`, on a
GPU, `fused` with the depthwise convolutions of benchmarks.depthwise that are called so. Every measurement is a process
of its own, the forms taking turns, round after round. JAX runs with the allocator settings that `vimnas_jax.main` gives
itself; PyTorch runs without and with them (`torch_malloc`), and is quoted at its better, for time and for memory. Its
step has neither augmentation nor phi, which JAX's has: the mixing weights are a softmax of plain logits.

Writes OUT.json (everything) and OUT.png, and prints a table.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import report
from vimnas_jax import isa, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.main import MALLOC
from vimnas_jax.networks import cost
from vimnas_jax.runs import provenance

PLAIN = ('shifted', 'taps', 'mixed')  # depthwise.FORMS, whose module imports JAX
FORMS = ('fused', *PLAIN, 'reference', 'torch')
# PyTorch's own names for what --xla_cpu_max_isa=AVX2 in XLA_FLAGS asks of XLA and of the kernels
NARROW = {'ATEN_CPU_CAPABILITY': 'avx2', 'ONEDNN_MAX_CPU_ISA': 'AVX2', 'MKL_ENABLE_INSTRUCTIONS': 'AVX2'}
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'torch')


class Parser(argparse.ArgumentParser):
  """Raises UserError where argparse would end the process."""

  def error(self, message):  # noqa: D102
    raise UserError(message)


def parse(argv) -> argparse.Namespace:
  """The checked options. Raises UserError."""
  parser = Parser(prog='python -m benchmarks.step', description=__doc__,
                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--space', default='darts', help=', '.join(spaces.NAMES))
  parser.add_argument('--out', required=True, help='where the results go, without suffix')
  parser.add_argument('--cells', type=int, help='default: 5 (per group) for nb201, 9 for oneshot1 to 3, else 8')
  parser.add_argument('--channels', type=int, default=16)
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--side', type=int, default=32, help='height and width of the images, in pixels')
  parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'), help='of JAX; PyTorch: float32')
  parser.add_argument('--remat', action='store_true', help="config.remat: compute cells again on ours' way back")
  parser.add_argument('--device', default='cpu', choices=('cpu', 'gpu'))
  parser.add_argument('--forms', default='fused,reference,torch', help='some of ' + ','.join(FORMS))
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--steps', type=int, default=5, help='timed steps of a process, after one to warm up')
  parser.add_argument('--reference-rounds', type=int, default=1)
  parser.add_argument('--reference-steps', type=int, default=1)
  parser.add_argument('--threads', type=int, default=os.cpu_count(), help='default: all')
  parser.add_argument('--torch-layout', default='nchw', choices=('nchw', 'channels_last'))
  parser.add_argument('--torch-compile', action='store_true', help='torch.compile of the port')
  parser.add_argument('--cache', help='folder of compiled programs, which is kept; default: one that is not')
  args = parser.parse_args(argv)
  args.forms = args.forms.split(',')
  space = spaces.get(args.space)
  if args.cells is None:
    args.cells = 5 if args.space == 'nb201' else 9 if space.topology else 8
  if space.topology and 'reference' in args.forms:
    raise UserError(f'--forms: space {space.name!r} has no form of one operation at a time; choose fused,torch')
  for name in ('cells', 'channels', 'batch', 'side', 'rounds', 'steps', 'reference_rounds', 'reference_steps',
               'threads'):
    if getattr(args, name) < 1:
      raise UserError(f'--{name.replace("_", "-")}={getattr(args, name)} must be at least 1')
  if unknown := [form for form in args.forms if form not in FORMS]:
    raise UserError(f'--forms: {unknown[0]!r} is no form; choose some of {",".join(FORMS)}')
  if args.device == 'cpu' and (own := [form for form in args.forms if form in PLAIN]):
    raise UserError(f'--forms: {own[0]} is for --device gpu; a CPU has its own form')
  if args.side < space.min_size:
    raise UserError(f'--side={args.side}: space {space.name!r} needs at least {space.min_size}')
  if args.channels % 2:
    raise UserError(f'--channels={args.channels} must be even: a FactorizedReduce halves them')
  if args.batch < 2:
    raise UserError('--batch=1: BatchNorm needs at least 2 images')
  space.macro(args.cells, args.channels)  # raises on too few cells
  installed({'torch', 'matplotlib'} & {*args.forms, 'matplotlib'})
  writable(args.out)
  return args


def installed(packages):
  """Raises UserError if one of `packages` is missing."""
  for package in packages:
    try:
      importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      which = 'onnx' if 'onnx' in package else 'bench'
      raise UserError(f'{package} is not installed: pip install -r requirements-{which}.txt') from None


def writable(out):
  """Makes the folder of the file `out`. Raises UserError if nothing can be written there."""
  folder = pathlib.Path(out).parent
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as e:
    raise UserError(f'--out={out}: cannot write there ({e.strerror})') from None


def environment() -> dict:
  """Versions, machine and git revision, as far as they can be had; imports neither JAX nor PyTorch."""
  return {**provenance.software(PACKAGES), 'cpu': provenance.machine(), 'load': os.getloadavg()[0]}


def sources() -> str:
  """SHA-256 of all that is measured."""
  root, digest = pathlib.Path(__file__).parents[1], hashlib.sha256()
  for path in sorted([*root.glob('vimnas_jax/**/*.py'), *root.glob('benchmarks/*.py'), root / 'tests/reference.py']):
    digest.update(path.read_bytes())
  return digest.hexdigest()


def schedule(args):
  """Yields (round, form) in the order of measurement."""
  for turn in range(args.rounds):
    for form in FORMS:
      if form in args.forms and (form != 'reference' or turn < args.reference_rounds):
        yield turn, form
        if form == 'torch' and sys.platform == 'linux' and args.device == 'cpu':
          yield turn, 'torch_malloc'


def measure(args, turn, form, cache) -> dict:
  """The record of one fresh process. Raises UserError if it fails."""
  spec = {name: getattr(args, name) for name in ('space', 'cells', 'channels', 'batch', 'side', 'dtype', 'remat',
                                                 'device', 'threads')}
  spec |= {'form': form, 'round': turn, 'layout': args.torch_layout, 'torch_compile': args.torch_compile,
           'steps': args.reference_steps if form == 'reference' else args.steps}
  return fresh('benchmarks.worker', spec, cache)


def fresh(module, spec, cache) -> dict:
  """What a fresh process of `module` measures, told `spec` (form, round, device, threads and what `module` wants);
  `cache` is the folder of compiled programs. Raises UserError if it fails.
  """
  form = spec['form']
  env = {k: v for k, v in os.environ.items() if k not in (*MALLOC, 'PYTHONDONTWRITEBYTECODE')}
  env['PYTHONPYCACHEPREFIX'] = str(pathlib.Path(cache, 'bytecode'))  # Python compiles its modules the first time alone
  env |= MALLOC if form != 'torch' and sys.platform == 'linux' else {}
  env |= NARROW if isa.narrow() else {}
  env |= {'JAX_PLATFORMS': 'cuda' if spec['device'] == 'gpu' else 'cpu', 'JAX_COMPILATION_CACHE_DIR': cache,
          'NPROC': str(spec['threads']), 'OMP_NUM_THREADS': str(spec['threads']), 'TF_CPP_MIN_LOG_LEVEL': '3'}
  done = subprocess.run([sys.executable, '-m', module, json.dumps(spec | {'started': time.time()})], env=env,
                        capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[1])
  lines = done.stdout.strip().splitlines()
  record = json.loads(lines[-1]) if done.returncode == 0 and lines else {
      'error': (done.stderr.strip().splitlines() or ['no message'])[-1] + f' (exit code {done.returncode})'}
  if 'error' in record:
    raise UserError(f'form {form!r}, round {spec["round"]}: {record["error"]}')
  return record


def main(argv) -> int:
  """Measures, writes and prints. Returns the exit code."""
  args = parse(argv)
  found = {'command': 'python -m benchmarks.step ' + shlex.join(argv), 'args': vars(args), **environment(),
           'sources_sha256': sources(), 'malloc': MALLOC, 'madds_per_image': cost.supernet_madds(
               spaces.get(args.space), cells=args.cells, channels=args.channels, num_classes=10,
               image_size=args.side)}
  found['gflop_per_step'] = 3 * 2 * found['madds_per_image'] * args.batch / 1e9  # forward, and twice that backward
  if found['load'] > 0.5:
    print(f'warning: load average {found["load"]:.1f}: other work slows some forms more than others', file=sys.stderr)
  records = []
  with tempfile.TemporaryDirectory() as cache:
    for turn, form in schedule(args):
      load = os.getloadavg()[0]
      record = measure(args, turn, form, args.cache or cache) | {'load_before': load}
      records.append(record)
      print(f'round {turn} {form:<13} {statistics.median(record["step_s"]):8.3f} s a step', file=sys.stderr,
            flush=True)
  found['sources_changed'] = sources() != found['sources_sha256']
  if found['sources_changed']:
    print('warning: the sources changed while they were measured: rounds are of different code', file=sys.stderr)
  found |= {'records': records, **report.summarise(records, found['gflop_per_step'])}
  for line in report.table(found):
    print(line)
  pathlib.Path(args.out + '.json').write_text(json.dumps(found, indent=1) + '\n')
  report.draw(found, args.out + '.png')
  return 0


def run(main):
  """Ends the process with the exit code of `main(arguments)`; what the user can mend becomes one line."""
  try:
    sys.exit(main(sys.argv[1:]))
  except UserError as error:
    print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print('stopped, nothing written', file=sys.stderr)
    sys.exit(130)


if __name__ == '__main__':
  run(main)
