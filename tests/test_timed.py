"""What benchmarks time is what the product runs: the builders of their programs, at tiny size."""

import math

from benchmarks import network_worker

SKIP = '|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|'


def test_the_step_and_the_inference_of_a_derived_network_run():
  spec = {'genotype': SKIP, 'batch': 10, 'side': 8, 'dtype': 'float32', 'cells': 1, 'channels': 4, 'auxiliary': 0.0}
  _, step = network_worker.build_step(spec)
  losses = [float(step()) for _ in range(3)]
  assert losses[0] > 0 and all(math.isfinite(loss) for loss in losses) and len(set(losses)) == 3
  _, classify = network_worker.build_inference(spec, 2)
  assert classify().shape == (2, 10)
