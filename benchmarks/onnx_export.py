"""A trained network as ONNX, by way of the plain PyTorch port.

    pip install -r requirements-onnx.txt
    python -m benchmarks.onnx_export --export runs/x/export --out network.onnx

Reads the folder `export` of a retraining, fills torch_network.py with its weights and writes one file: uint8 images
[batch, h, w, c] named `images` in, float32 logits [batch, classes] named `logits` out, any batch, normalisation inside,
as `network.jaxexport` has them. Then onnxruntime and the JAX network classify the same random images, in two batch
sizes; exits with 1 if their logits differ by more than TOLERANCE of the largest. The file of a space of one's own is
named by --trust; operations of one's own, which the port lacks, and noise, which no two programs draw alike, are
refused.
"""

import pathlib

import numpy as np

from benchmarks.step import Parser, installed, run, writable
from vimnas_jax.errors import UserError

TOLERANCE = 1e-4
BATCHES = (1, 3)


def read(path, trust=''):
  """The network of the folder `path`; `trust` is a Python file that may be executed. Raises UserError on what the port
  does not compute.
  """
  from vimnas_jax.verbs import export
  try:
    model = export.read(path, [trust] if trust else ())
  except UserError as e:
    raise UserError(str(e).replace('--config.trust=', '--trust=')) from None
  if model.net.dtype != np.float32:
    raise UserError(f'{path} computes in {model.net.dtype}: the port computes in float32')
  for op in sorted({op for edges in model.genotype.cells.values() for op, *_ in edges}):
    if op in model.space.own_ops or op == 'noise':
      raise UserError(f'{path} has the operation {op!r}, which the port lacks: take network.jaxexport, which needs jax '
                      'and flatbuffers alone')
  return model


def module(model):
  """The port of `model` (`export.Model`) in evaluation, with the normalisation in front."""
  import torch
  from torch import nn

  from benchmarks import torch_network
  net = torch_network.Network(model.space, model.genotype, model.net.cells, model.net.channels, model.net.num_classes,
                              imagenet=model.net.imagenet, in_channels=model.image_shape[-1])
  torch_network.load(net, model.variables)

  class Whole(nn.Module):
    """uint8 images [n, h, w, c] -> logits."""

    def __init__(self):
      super().__init__()
      self.net = net
      self.register_buffer('mean', torch.tensor(model.mean, dtype=torch.float32))
      self.register_buffer('std', torch.tensor(model.std, dtype=torch.float32))

    def forward(self, images):
      x = (images.float() / 255 - self.mean) / self.std
      return self.net(x.permute(0, 3, 1, 2))

  return Whole().eval()


def write(model, path):
  """Writes `model` as ONNX into the file `path`."""
  import torch
  images = torch.zeros((2, *model.image_shape), dtype=torch.uint8)
  program = torch.onnx.export(module(model), (images,), dynamo=True, input_names=['images'], output_names=['logits'],
                              dynamic_shapes={'images': {0: torch.export.Dim('batch')}}, external_data=False,
                              verbose=False)
  program.save(path, external_data=False)


def compare(model, path) -> float:
  """Largest difference between the logits of onnxruntime and of the JAX network, relative to the largest logit."""
  import onnxruntime
  session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
  rng, worst = np.random.default_rng(0), 0.0
  for batch in BATCHES:
    images = rng.integers(0, 256, (batch, *model.image_shape), np.uint8)
    [logits] = session.run(['logits'], {'images': images})
    wanted = np.asarray(model(images), np.float32)
    worst = max(worst, float(np.abs(logits - wanted).max() / np.abs(wanted).max()))
  return worst


def main(argv) -> int:
  """Writes and checks. Returns the exit code."""
  parser = Parser(prog='python -m benchmarks.onnx_export', description=__doc__.split('\n')[0])
  parser.add_argument('--export', required=True, help='the folder `export` of a finished retraining')
  parser.add_argument('--out', required=True, help='the file to write')
  parser.add_argument('--trust', default='', help="the Python file of a space of one's own, which is executed")
  args = parser.parse_args(argv)
  installed({'torch', 'onnx', 'onnxscript', 'onnxruntime'})
  writable(args.out)
  model = read(args.export, args.trust)
  path = pathlib.Path(args.out)
  write(model, path)
  worst = compare(model, path)
  print(f'{path}: {path.stat().st_size:,} bytes; logits differ from those of JAX by {worst:.1e} of the largest')
  return int(not worst <= TOLERANCE)  # true for NaN


if __name__ == '__main__':
  run(main)
