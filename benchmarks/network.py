"""Seconds and memory of a genotype's network, training step and inference, next to a plain PyTorch port.

    pip install -r requirements-bench.txt
    python -m benchmarks.network --out benchmarks/network_darts
    python -m benchmarks.network --profile step --out benchmarks/network_profile

Forms: `ours` is the step of `verbs.retrain` (which augments its images too) and the network as it is exported;
`torch` the port in torch_network.py, its step without augmentation; `torch_malloc` the port with the allocator settings
that our command line gives itself. The training step is forward, backward, clipping and SGD with momentum. Every
measurement is a process of its own, the forms taking turns, round after round. PyTorch is quoted at its better, each
figure for itself.

Writes OUT.json (everything) and OUT.png, and prints a table. `--profile step` or `--profile inference` writes
OUT.json alone: our step, or an inference of --batch images, by kind of operation, on one core.
"""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import sys
import tempfile

from benchmarks import report
from benchmarks.step import Parser, environment, fresh, installed, run, sources, writable
from vimnas_jax import spaces
from vimnas_jax.draw import INK
from vimnas_jax.errors import UserError
from vimnas_jax.main import MALLOC, allocator
from vimnas_jax.networks import cost, genotypes

FORMS = ('ours', 'torch')
WHATS = ('step', 'inference')
CLASSES = 10
# The first that matches an operation's name names its kind: see benchmarks/profile.py.
KINDS = [('convolutions with ReLU, forward (kernels)', r'^(stage|dense|winograd)_forward$'),
         ('convolutions with ReLU and BatchNorm, backward (kernels)', r'^(stage|dense|winograd)_backward$'),
         ('sums for BatchNorm, backward (kernel)', r'^sums$'), ('sums of gradients (kernel)', r'^fold$'),
         ('pools', r'_pool_3x3'), ('skip connections of stride 2', r'skip_connect'),
         ('BatchNorm of the cells', r'/(norm\d|preprocess\d_norm)/'),
         ('1x1 convolutions of separable ones', r'(sep|dil)_conv.*dot_general'),
         ('depthwise kernels, gradient', r'transpose.*(sep|dil)_conv_\dx\d/while'),
         ('depthwise convolutions and ReLU, backward', r'transpose.*(sep|dil)_conv'),
         ('depthwise convolutions and ReLU, forward', r'(sep|dil)_conv'), ('dense convolutions of cells', r'nor_conv'),
         ('preprocess', r'preprocess'), ('residual blocks', r'residual'), ('auxiliary head', r'auxiliary'),
         ('augmentation', r'augment'), ('sums and concatenation in cells', r'cell_\d+'),
         ('stem and head', r'Network'), ('optimiser, rest', r'')]


def parse(argv) -> argparse.Namespace:
  """The checked options. Raises UserError."""
  parser = Parser(prog='python -m benchmarks.network', description=__doc__,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--out', required=True, help='where the results go, without suffix')
  parser.add_argument('--genotype', default='DARTS_V2', help='a published name, a file, a run folder or its notation')
  parser.add_argument('--cells', type=int, help='default: 5 (per group) for NAS-Bench-201, else 8')
  parser.add_argument('--channels', type=int, default=16)
  parser.add_argument('--batch', type=int, default=64, help='images of a training step')
  parser.add_argument('--batches', default='1,64,256', help='images of an inference')
  parser.add_argument('--side', type=int, default=32, help='height and width of the images, in pixels')
  parser.add_argument('--auxiliary', type=float, default=0.0, help='weight of the auxiliary head; 0 leaves it out')
  parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'), help='of JAX; PyTorch: float32')
  parser.add_argument('--device', default='cpu', choices=('cpu', 'gpu'))
  parser.add_argument('--forms', default=','.join(FORMS), help='some of ' + ','.join(FORMS))
  parser.add_argument('--what', default=','.join(WHATS), help='some of ' + ','.join(WHATS))
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--steps', type=int, default=10, help='timed steps of a process, after one to warm up')
  parser.add_argument('--seconds', type=float, default=3.0, help='how long every inference is repeated')
  parser.add_argument('--threads', type=int, default=os.cpu_count(), help='default: all')
  parser.add_argument('--torch-layout', default='nchw', choices=('nchw', 'channels_last'))
  parser.add_argument('--profile', choices=WHATS, help='profile this of ours instead')
  args = parser.parse_args(argv)
  args.forms, args.what = args.forms.split(','), args.what.split(',')
  try:
    args.batches = [int(batch) for batch in args.batches.split(',')]
  except ValueError:
    raise UserError(f'--batches={args.batches}: give whole numbers, as 1,64,256') from None
  genotype = genotypes.resolve(args.genotype)
  if args.cells is None:
    args.cells = 5 if genotype.space == 'nb201' else 8
  for name in ('cells', 'channels', 'batch', 'side', 'rounds', 'steps', 'threads', 'seconds'):
    if getattr(args, name) <= 0:
      raise UserError(f'--{name}={getattr(args, name)} must be above 0')
  for name, known in (('forms', FORMS), ('what', WHATS)):
    if unknown := [form for form in getattr(args, name) if form not in known]:
      raise UserError(f'--{name}: {unknown[0]!r} is unknown; choose some of {",".join(known)}')
  if args.batch < 2 or min(args.batches) < 1:
    raise UserError('--batch must be at least 2, as BatchNorm needs it, those of --batches at least 1')
  if args.channels % 2:
    raise UserError(f'--channels={args.channels} must be even: a FactorizedReduce halves them')
  spaces.get(genotype.space).stages(args.cells, args.channels, side=args.side)  # raises on what does not fit
  installed({'torch', 'matplotlib'} & {*args.forms, 'matplotlib'})
  writable(args.out)
  return args


def specification(args) -> dict:
  """What a worker is told, but for form, round and what."""
  names = ('genotype', 'cells', 'channels', 'batch', 'batches', 'side', 'auxiliary', 'dtype', 'device', 'steps',
           'seconds', 'threads')
  return {name: getattr(args, name) for name in names} | {'layout': args.torch_layout}


def schedule(args):
  """Yields (round, what, form) in the order of measurement."""
  forms = [form for form in FORMS if form in args.forms]
  if 'torch' in forms and sys.platform == 'linux':
    forms.append('torch_malloc')
  for turn in range(args.rounds):
    for what in args.what:
      for form in forms:
        yield turn, what, form


def summarise(records) -> dict:
  """{measure: {form: median, smallest, largest}}: 'step' and 'inference N' in seconds, memory in GiB."""
  found = {}

  def put(measure, form, values):
    found.setdefault(measure, {})[form] = {'median': statistics.median(values), 'min': min(values), 'max': max(values)}

  for what, form in dict.fromkeys((r['what'], r['form']) for r in records):
    own = [r for r in records if (r['what'], r['form']) == (what, form)]
    peaks = [(r['device_peak_bytes'] or r['peak_rss_bytes']) / report.GIB for r in own]
    if what == 'step':
      put('step', form, [s for r in own for s in r['step_s']])
    else:
      for batch in own[0]['inference_s']:
        put(f'inference {batch}', form, [s for r in own for s in r['inference_s'][batch]])
    put(f'memory of {what}', form, peaks[1:] or peaks)  # the first process compiles
  return found


def ratios(measures) -> dict:
  """{measure: PyTorch's better median over ours}, where both were measured; 2 means that ours needs half."""
  found = {}
  for measure, forms in measures.items():
    torch = [figures['median'] for form, figures in forms.items() if form.startswith('torch')]
    if torch and 'ours' in forms:
      found[measure] = min(torch) / forms['ours']['median']
  return found


def _say(measure, value):
  return f'{value:.2f} GiB' if measure.startswith('memory') else f'{1e3 * value:.4g} ms'


def table(found) -> list[str]:
  """Lines of text: a row for every measure, a column for every form."""
  forms = list(dict.fromkeys(form for measure in found['measures'].values() for form in measure))
  lines = [title(found), f'{"":<22}' + ''.join(f'{form:>14}' for form in forms) + f'{"PyTorch / ours":>18}']
  for measure, figures in found['measures'].items():
    cells = ''.join(f'{_say(measure, figures[form]["median"]) if form in figures else "-":>14}' for form in forms)
    ratio = found['ratios'].get(measure)
    lines.append(f'{measure:<22}{cells}' + (f'{ratio:>18.2f}' if ratio else ''))
  return [*lines, f'medians; a step is {found["gflop_per_step"]:.4g} GFLOP, a dense float32 product runs at '
          f'{found["matmul_gflops"]:.0f} GFLOP/s here']


def title(found) -> str:
  """What was measured, where."""
  a = found['args']
  name = a['genotype'] if len(a['genotype']) < 30 else 'one architecture'
  device = found['records'][0]['device'] if a['device'] == 'gpu' else found['cpu']
  return f'{name}, {a["cells"]} cells, C = {a["channels"]}, {a["side"]}x{a["side"]}, {a["dtype"]}, {device}'


def draw(found, path):
  """A panel of bars for every measure, into the file `path`."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  measures, batch = found['measures'], found['args']['batch']
  rows = -(-len(measures) // 2)
  figure = Figure(figsize=(10, 0.7 + 1.7 * rows), dpi=120, facecolor='white', layout='constrained')
  FigureCanvasAgg(figure)
  figure.suptitle(title(found) + '\n(in brackets: how many times less than the better PyTorch run)', fontsize=10,
                  color=INK)
  panels = figure.subplots(rows, 2, squeeze=False).flat
  for (measure, forms), axes in zip(measures.items(), panels, strict=False):
    memory = measure.startswith('memory')
    values = [figures['median'] * (1 if memory else 1e3) for figures in forms.values()]
    ratio = found['ratios'].get(measure)
    texts = [_say(measure, figures['median']) + (f'   ({ratio:.2f}x)' if ratio and form == 'ours' else '')
             for form, figures in forms.items()]
    label = f'training step of {batch} images, ms' if measure == 'step' else measure + (
        ', GiB' if memory else ' images, ms')
    report.bars(axes, label, forms, values, texts)
    axes.invert_yaxis()
  for axes in panels:
    axes.set_axis_off()
  figure.savefig(path, dpi=120)


def profile(args, argv) -> int:
  """Prints and writes where our step or inference spends its time."""
  allocator()
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before XLA counts the cores
  from benchmarks import network_worker, profile, worker
  spec = specification(args) | {'what': args.profile}
  compiled, call = (network_worker.build_step(spec) if args.profile == 'step' else
                    network_worker.build_inference(spec, args.batch))
  call()
  seconds = statistics.median(worker.times(call, 3))
  traced, events = profile.trace(call)
  found = profile.by_kind(compiled.as_text(), events, KINDS)
  whole = sum(found.values())
  print(f'{seconds:.3f} s on one core ({traced:.3f} s under the profiler, of which {whole / 1e3:.3f} s seen)')
  for kind, ms in found.most_common():
    print(f'{ms:9.1f} ms {100 * ms / whole:5.1f} %  {kind}')
  pathlib.Path(args.out + '.json').write_text(json.dumps(
      {'command': 'python -m benchmarks.network ' + shlex.join(argv), 'spec': spec, **environment(), 'cores': 1,
       'seconds': seconds, 'traced_seconds': traced, 'ms': {kind: round(ms, 2) for kind, ms in found.most_common()}},
      indent=1) + '\n')
  return 0


def main(argv) -> int:
  """Measures, writes and prints. Returns the exit code."""
  args = parse(argv)
  if args.profile:
    return profile(args, argv)
  genotype = genotypes.resolve(args.genotype)
  size = cost.count(spaces.get(genotype.space), genotype, cells=args.cells, channels=args.channels,
                    num_classes=CLASSES, image_size=args.side)
  found = {'command': 'python -m benchmarks.network ' + shlex.join(argv), 'args': vars(args), **environment(),
           'sources_sha256': sources(), 'malloc': MALLOC, 'params': size.params, 'madds_per_image': size.madds,
           'gflop_per_step': 3 * 2 * size.madds * args.batch / 1e9}  # forward, and twice that backward
  if found['load'] > 0.5:
    print(f'warning: load average {found["load"]:.1f}: other work slows some forms more than others', file=sys.stderr)
  records = []
  with tempfile.TemporaryDirectory() as cache:
    for turn, what, form in schedule(args):
      load = os.getloadavg()[0]
      record = fresh('benchmarks.network_worker', specification(args) | {'form': form, 'what': what, 'round': turn},
                     cache) | {'load_before': load}
      records.append(record)
      times = {'step': record['step_s']} if what == 'step' else record['inference_s']
      print(f'round {turn} {what:<10} {form:<13} ' + ', '.join(
          f'{name}: {1e3 * statistics.median(values):.4g} ms' for name, values in times.items()), file=sys.stderr,
            flush=True)
  measures = summarise(records)
  found |= {'sources_changed': sources() != found['sources_sha256'], 'measures': measures, 'ratios': ratios(measures),
            'matmul_gflops': max(r['matmul_gflops'] for r in records), 'records': records}
  for line in table(found):
    print(line)
  pathlib.Path(args.out + '.json').write_text(json.dumps(found, indent=1) + '\n')
  draw(found, args.out + '.png')
  return 0


if __name__ == '__main__':
  run(main)
