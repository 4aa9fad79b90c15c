"""One process of the benchmark: builds one form of the search step, times it, prints one line of JSON.

`benchmarks.step` starts it, as `python -m benchmarks.worker JSON`; a fresh process for every measurement keeps the
forms from sharing memory, threads and compiled programs.
"""

import json
import pathlib
import resource
import statistics
import sys
import time

MATMUL = 2048  # side of the dense product that stands for what the machine can do
CLASSES = 10


def main(spec: dict) -> dict:
  """The record of one run; `spec` is what `benchmarks.step` wrote."""
  measure = _torch if spec['form'].startswith('torch') else _jax
  try:
    return {'form': spec['form'], 'round': spec['round'], **measure(spec)}
  except (ImportError, RuntimeError) as e:
    text = ' '.join(str(e).split())
    return {'form': spec['form'], 'error': f'{type(e).__name__}: {text[:300]}'}


def times(call, count):
  """Seconds of each of `count` calls; `call` returns when its work is done."""
  times = []
  for _ in range(count):
    begin = time.perf_counter()
    call()
    times.append(time.perf_counter() - begin)
  return times


def gflops(multiply):
  """GFLOP/s of `multiply`, a product of two square matrices of side MATMUL."""
  multiply()
  return 2 * MATMUL ** 3 / statistics.median(times(multiply, 5)) / 1e9


def peak():
  """Most memory that this process has held, bytes. It starts from what the parent held, which is little."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def noise(spec):
  """Images of uniform noise, uint8 [n, h, w, 3], and labels, int32 [n], of all classes where there are so many."""
  import numpy as np
  rng = np.random.default_rng(0)
  return (rng.integers(0, 256, (spec['batch'], spec['side'], spec['side'], 3), np.uint8),
          np.arange(spec['batch'], dtype=np.int32) % CLASSES)


def build(spec):
  """The search step of a form: (compiled program, function that runs a step and returns its loss, function that gives
  the GFLOP/s of a dense product).
  """
  import jax
  import jax.numpy as jnp

  from benchmarks import depthwise
  from vimnas_jax import config, cpu, methods, spaces
  from vimnas_jax.data import augment
  from vimnas_jax.networks import ops
  from vimnas_jax.networks.oneshot import OneShot
  from vimnas_jax.networks.supernet import Supernet
  from vimnas_jax.runs import kept, parallel, state, steps

  class Reference:
    """The supernet's parameters with the forward pass of the reference form."""

    def __init__(self, net):
      from tests import reference
      self.init, self.apply = net.init, lambda variables, *inputs: reference.supernet(net, variables['params'], *inputs)

  if spec['form'] in depthwise.FORMS:
    ops.ELSEWHERE = depthwise.FORMS[spec['form']]
  cold = False
  if spec.get('devices', 1) == 1:
    cpu.run_here()  # as the command line does
    cold = cpu.expect()
  c = config.defaults()
  c.space.name, c.method.name = spec['space'], 'vimnas'
  c = config.resolve(c)
  space, plan = spaces.get(c.space.name), steps.Plan(0, 390, 'noise')
  method = methods.get(c.method, space)
  net = (OneShot if space.topology else Supernet)(
      space=space, cells=spec['cells'], channels=spec['channels'], num_classes=CLASSES,
      dtype=jnp.dtype(spec['dtype']), remat=spec.get('remat', False))
  net = Reference(net) if spec['form'] == 'reference' else net
  tx = steps.optimisers(c, method, steps.lengths(method, plan)[0])
  mesh = parallel.mesh(spec.get('devices', 1), spec['batch'])
  images, labels = noise(spec)
  data = jax.device_put({'images': images, 'labels': labels}, parallel.replicated(mesh))
  index = {'train': jnp.arange(spec['batch'])}
  if space.topology:  # the graph descends the loss of a validation batch, in a pass of its own
    data |= {'valid_images': data['images'], 'valid_labels': data['labels']}
    index['valid'] = index['train']

  def prepare(key, images):
    return augment.augment(key, images, mean=(0.5,) * 3, std=(0.25,) * 3, pad=4, flip=True, cutout=0)

  start = jax.jit(lambda: state.create(state.root(0), net, method, space, tx.theta, tx.phi, images.shape[1:]),
                  out_shardings=parallel.replicated(mesh))
  start.trace()
  if cold:
    state.foretell(net, space, images.shape[1:], method.samples)
  now = start()
  step = steps.search_steps(net, method, space, plan, lambda length: steps.optimisers(c, method, length),
                            prepare)['search']
  step = jax.jit(steps.on_device(step, parallel.batch(mesh)), donate_argnums=0,
                 out_shardings=parallel.replicated(mesh))
  kept.allow(pathlib.Path(__file__).read_text())
  asked = {name: value for name, value in spec.items() if name not in ('round', 'started')}
  compiled = kept.compiled(step, (now, data, index), f'{asked}' if spec['form'] == 'fused' else None)

  def call():
    nonlocal now
    now, metrics = jax.block_until_ready(compiled(now, data, index))
    return metrics['loss']

  a = jnp.ones((MATMUL, MATMUL), jnp.float32) / 3
  multiply = jax.jit(jnp.matmul)
  return compiled, call, lambda: gflops(lambda: jax.block_until_ready(multiply(a, a)))


def _jax(spec):
  import jax
  begin = time.perf_counter()
  compiled, call, matmul = build(spec)
  compile_s = time.perf_counter() - begin
  first = times(call, 1)[0]
  start_s = time.time() - spec['started']
  record = {'compile_s': compile_s, 'start_s': start_s, 'first_step_s': first, 'step_s': times(call, spec['steps']),
            'peak_rss_bytes': peak(), 'loss': float(call()), 'device': jax.devices()[0].device_kind}
  analysis = compiled.memory_analysis()
  record['xla_temp_bytes'] = getattr(analysis, 'temp_size_in_bytes', None)
  stats = jax.devices()[0].memory_stats() or {}
  record['device_peak_bytes'] = stats.get('peak_bytes_in_use')
  return record | {'matmul_gflops': matmul()}


def torch_ready(spec):
  """PyTorch set as `spec` asks: (its device, function that waits for the device). Raises RuntimeError without one."""
  import torch
  gpu = spec['device'] == 'gpu'
  if gpu and not torch.cuda.is_available():
    raise RuntimeError('PyTorch sees no CUDA device: leave torch out of --forms')
  if gpu:  # what the DARTS code sets, and the TF32 that JAX uses by default
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision('high')
  torch.set_num_threads(spec['threads'])
  torch.manual_seed(0)

  def wait():
    if gpu:
      torch.cuda.synchronize()

  return torch.device('cuda' if gpu else 'cpu'), wait


def torch_device_record(device, wait):
  """What a record says of PyTorch's device; to be called after the timing."""
  import torch
  gpu = device.type == 'cuda'
  held = torch.cuda.max_memory_allocated() if gpu else None
  a = torch.ones((MATMUL, MATMUL), device=device) / 3

  def multiply():
    a.matmul(a)
    wait()

  return {'device': torch.cuda.get_device_name() if gpu else 'cpu', 'device_peak_bytes': held,
          'matmul_gflops': gflops(multiply)}


def _torch(spec):
  import torch

  from benchmarks import torch_net, torch_oneshot
  from vimnas_jax import spaces

  device, wait = torch_ready(spec)
  space = spaces.get(spec['space'])
  form = torch_oneshot.OneShot if space.topology else torch_net.Supernet
  net = form(space, spec['cells'], spec['channels'], CLASSES).to(device).train()
  images, labels = noise(spec)
  images = torch.tensor(images.transpose(0, 3, 1, 2), device=device).float().div(255).sub(0.5).div(0.25)
  labels = torch.tensor(labels, dtype=torch.int64, device=device)
  if spec['layout'] == 'channels_last':
    net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
  if spec['torch_compile']:
    net = torch.compile(net)
  shapes = {name: cell.shape for name, cell in space.cells.items()} | {
      name: (count,) for name, count in space.choices.items()}
  logits = {name: torch.zeros(shape, device=device, requires_grad=True) for name, shape in shapes.items()}
  step = torch_net.train_step(net, logits, torch.optim.SGD(net.parameters(), 0.025, 0.9, weight_decay=3e-4),
                              torch.optim.SGD(list(logits.values()), 0.025), graph=tuple(space.choices))
  loss = None

  def call():
    nonlocal loss
    loss = step(images, labels)
    wait()

  first = times(call, 1)[0]
  start_s = time.time() - spec['started']
  record = {'compile_s': None, 'start_s': start_s, 'first_step_s': first, 'step_s': times(call, spec['steps']),
            'peak_rss_bytes': peak(), 'loss': float(loss), 'xla_temp_bytes': None}
  return record | torch_device_record(device, wait)


if __name__ == '__main__':
  print(json.dumps(main(json.loads(sys.argv[1]))))
