"""One process of `benchmarks.network`: builds one form of a genotype's network, times it, prints one line of JSON.

`benchmarks.network` starts it, as `python -m benchmarks.network_worker JSON`.
"""

import json
import sys
import time

from benchmarks import worker
from benchmarks.worker import CLASSES, MATMUL, gflops, peak, times

MEAN, STD = (0.5,) * 3, (0.25,) * 3
LEAST = 5  # calls of an inference that are timed however long they take


def main(spec: dict) -> dict:
  """The record of one run; `spec` is what `benchmarks.network` wrote."""
  measure = _torch if spec['form'].startswith('torch') else _ours
  try:
    return {'form': spec['form'], 'what': spec['what'], 'round': spec['round'], **measure(spec)}
  except (ImportError, RuntimeError) as e:
    return {'error': f'{type(e).__name__}: {" ".join(str(e).split())[:300]}'}


def images_of(spec, batch):
  """Uniform noise, uint8 [batch, side, side, 3], and labels, int32 [batch]."""
  return worker.noise({**spec, 'batch': batch})


def timed(call, seconds):
  """Seconds of each call, after one to warm up, until `seconds` have passed and at least LEAST were made."""
  call()
  found, end = [], time.monotonic() + seconds
  while len(found) < LEAST or time.monotonic() < end:
    found += times(call, 1)
  return found


def training(spec):
  """Our training, as `vimnas_jax.verbs.retrain` runs it, on noise: `retrain.Training`."""
  import numpy as np

  from vimnas_jax import config, data, spaces
  from vimnas_jax.networks import genotypes
  from vimnas_jax.runs import parallel
  from vimnas_jax.verbs import retrain
  genotype = genotypes.resolve(spec['genotype'])
  c = config.defaults()
  c.space.name = genotype.space
  c = config.retraining(c)
  c.batch_size, c.epochs, c.dtype, c.network.cells = spec['batch'], 600.0, spec['dtype'], spec['cells']
  c.network.channels, c.network.auxiliary, c.network.drop_path = spec['channels'], spec['auxiliary'], 0.0
  images, labels = images_of(spec, spec['batch'])
  split = data.Split(images, labels.astype(np.int32))
  loaded = data.Data('noise', split, split, CLASSES, MEAN, STD)
  c = config.resolve(c)
  return retrain.Training(c, spaces.get(c.space.name), genotype, loaded, parallel.mesh(1, c.batch_size))


def build_step(spec):
  """(compiled program, function that runs a training step and returns its loss)."""
  import jax
  import jax.numpy as jnp
  run = training(spec)
  now, held, index = run.start(), run.batches()[0], jnp.arange(spec['batch'], dtype=jnp.int32)
  compiled = run.step.lower(now, held, index).compile()

  def call():
    nonlocal now
    now, metrics = jax.block_until_ready(compiled(now, held, index))
    return metrics['loss']

  return compiled, call


def build_inference(spec, batch):
  """(compiled program, function that classifies `batch` normalised images once)."""
  import jax

  from vimnas_jax.data import augment
  from vimnas_jax.verbs import export
  run = training({**spec, 'auxiliary': 0.0})
  variables = run.variables(run.start())
  images = augment.normalise(jax.device_put(images_of(spec, batch)[0]), MEAN, STD)
  compiled = jax.jit(lambda v, x: export.apply(run.net, v, x)).lower(variables, images).compile()
  return compiled, lambda: jax.block_until_ready(compiled(variables, images))


def _ours(spec):
  import jax
  import jax.numpy as jnp

  from vimnas_jax import cpu
  cpu.run_here()  # as the command line does
  begin, record = time.perf_counter(), {}
  if spec['what'] == 'step':
    compiled, call = build_step(spec)
    record |= {'compile_s': time.perf_counter() - begin, 'first_step_s': times(call, 1)[0],
               'start_s': time.time() - spec['started'], 'step_s': times(call, spec['steps']), 'loss': float(call()),
               'xla_temp_bytes': getattr(compiled.memory_analysis(), 'temp_size_in_bytes', None)}
  else:
    record['inference_s'] = {str(batch): timed(build_inference(spec, batch)[1], spec['seconds'])
                             for batch in spec['batches']}
  stats = jax.devices()[0].memory_stats() or {}
  record |= {'peak_rss_bytes': peak(), 'device_peak_bytes': stats.get('peak_bytes_in_use'),
             'device': jax.devices()[0].device_kind}
  a, multiply = jnp.ones((MATMUL, MATMUL), jnp.float32) / 3, jax.jit(jnp.matmul)
  return record | {'matmul_gflops': gflops(lambda: jax.block_until_ready(multiply(a, a)))}


def _torch(spec):
  import torch

  from benchmarks import torch_network
  from vimnas_jax import spaces
  from vimnas_jax.networks import genotypes
  device, wait = worker.torch_ready(spec)
  genotype = genotypes.resolve(spec['genotype'])
  training = spec['what'] == 'step'
  net = torch_network.Network(spaces.get(genotype.space), genotype, spec['cells'], spec['channels'], CLASSES,
                              auxiliary=training and spec['auxiliary'] > 0).to(device).train(training)
  layout = torch.channels_last if spec['layout'] == 'channels_last' else torch.contiguous_format
  net = net.to(memory_format=layout)

  def prepared(batch):
    images, labels = images_of(spec, batch)
    images = torch.tensor(images.transpose(0, 3, 1, 2), device=device).float().div(255).sub(MEAN[0]).div(STD[0])
    return images.contiguous(memory_format=layout), torch.tensor(labels, dtype=torch.int64, device=device)

  loss, record = None, {}
  if training:
    step = torch_network.train_step(net, torch.optim.SGD(net.parameters(), 0.025, 0.9, weight_decay=3e-4), 5.0,
                                    spec['auxiliary'])
    batch = prepared(spec['batch'])

    def call():
      nonlocal loss
      loss, *_ = step(*batch)
      wait()

    record |= {'compile_s': None, 'first_step_s': times(call, 1)[0], 'start_s': time.time() - spec['started'],
               'step_s': times(call, spec['steps']), 'loss': float(loss), 'xla_temp_bytes': None}
  else:
    record['inference_s'] = {}
    for size in spec['batches']:
      images, _ = prepared(size)

      def infer(images=images):
        with torch.inference_mode():
          net(images)
        wait()

      record['inference_s'][str(size)] = timed(infer, spec['seconds'])
  record['peak_rss_bytes'] = peak()
  return record | worker.torch_device_record(device, wait)


if __name__ == '__main__':
  print(json.dumps(main(json.loads(sys.argv[1]))))
