"""Real training of a genotype's network on CIFAR-10, ours and the plain PyTorch port, on the same batches.

    python -m benchmarks.train_network --form ours --out runs/train --epochs 20 --data-dir DIR
    python -m benchmarks.train_network --form torch --out runs/train --epochs 20 --data-dir DIR
    python -m benchmarks.train_network --plot --out runs/train

The configuration is that of configs/retrain_c10.py with DARTS_V2, 8 cells of 16 channels, without auxiliary head and
drop path, so that nothing random is left in the network; `field=value` at the end of the command changes it, as in
`data.limit=512 network.auxiliary=0.4`. `--form ours` is `vimnas_jax.verbs.retrain` itself, in OUT/ours. `--form torch`
starts from the same parameters and gets, step by step, the same images, augmented by our code with the same keys, in
OUT/torch. Each is a process of its own and goes on where it was, if it was killed; what a kill loses is at most
config.checkpoint_steps steps. `taskset -c 0 ...` and `taskset -c 1 ...` let the two run side by side, single-threaded.

Both write metrics.jsonl (every step) and curve.jsonl (test images, every config.eval_epochs epochs). `--plot` reads
them and writes OUT/curves.png and OUT/result.json: how far apart the first losses are, and the last accuracies.
"""

import os
import pathlib
import shlex
import sys
import time

from benchmarks.step import Parser, installed, run
from vimnas_jax.errors import UNFINISHED, Diverged, UserError
from vimnas_jax.main import MALLOC

FORMS = ('ours', 'torch')


def parse(argv):
  """The options. Raises UserError."""
  parser = Parser(prog='python -m benchmarks.train_network', description=__doc__.split('\n')[0])
  parser.add_argument('--form', choices=FORMS)
  parser.add_argument('--plot', action='store_true', help='draw what is in --out and write result.json')
  parser.add_argument('--out', required=True, help='folder of both runs')
  parser.add_argument('--genotype', default='DARTS_V2')
  parser.add_argument('--cells', type=int, default=8)
  parser.add_argument('--channels', type=int, default=16)
  parser.add_argument('--epochs', type=float, default=20.0)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--data-dir', default='')
  parser.add_argument('changes', nargs='*', metavar='field=value', help='of docs/config.md')
  args = parser.parse_intermixed_args(argv)
  if bool(args.form) == args.plot:
    raise UserError('give --form=ours, --form=torch or --plot')
  return args


def configuration(args):
  """The resolved configuration of both forms. Raises UserError."""
  from vimnas_jax import config
  from vimnas_jax.networks import genotypes
  c = config.defaults()
  c.space.name = genotypes.resolve(args.genotype).space
  c = config.retraining(c)
  c.genotype, c.seed, c.epochs, c.data.dir = args.genotype, args.seed, args.epochs, args.data_dir
  c.network.cells, c.network.channels, c.network.auxiliary, c.network.drop_path = args.cells, args.channels, 0.0, 0.0
  c.log_steps, c.checkpoint_steps, c.devices = 1, 50, 1
  c = config.resolve(config.changed(c, ' '.join(args.changes)))
  if c.network.drop_path:
    raise UserError(f'network.drop_path={c.network.drop_path}: the two forms would drop other paths; set it to 0')
  if c.dtype != 'float32':
    raise UserError(f'dtype={c.dtype!r}: the port computes in float32')
  return c


class Port:
  """The port as it trains: network, optimiser and the step that it has reached."""

  def __init__(self, training):
    """`training` is the `retrain.Training` whose network, optimiser and batches are taken over."""
    import jax
    import torch

    from benchmarks import torch_network
    self.run, c = training, training.config
    start = jax.device_get(training.start())
    net = c.network
    self.net = torch_network.Network(training.space, training.genotype, net.cells, net.channels,
                                     training.loaded.num_classes, auxiliary=net.auxiliary > 0, imagenet=net.imagenet,
                                     in_channels=training.loaded.image_shape[-1])
    torch_network.load(self.net, training.variables(start))
    self.optimizer = torch.optim.SGD(self.net.parameters(), c.theta.lr, c.theta.momentum, nesterov=c.theta.nesterov,
                                     weight_decay=c.theta.weight_decay)
    self.step = 0
    self._update = torch_network.train_step(self.net, self.optimizer, c.theta.clip, net.auxiliary, c.label_smoothing)
    self._key, self._rates, self._epoch, self._order = start.key, self._all_rates(), None, None
    self._augment = jax.jit(self._augmented)

  def _all_rates(self):
    import jax
    import numpy as np

    from vimnas_jax.runs import optim
    rate = jax.jit(optim.rate(self.run.config.theta, self.run.total, self.run.per_epoch))
    return np.array([rate(at) for at in range(self.run.total)], np.float64)

  def _augmented(self, key, step, images):
    """As `retrain.Training` augments the images of a step."""
    import jax

    from vimnas_jax.data import augment
    c, loaded = self.run.config, self.run.loaded
    key = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key), step), 3)[0]
    return augment.augment(key, images, mean=loaded.mean, std=loaded.std, pad=c.data.pad, flip=c.data.flip,
                           cutout=c.data.cutout, smallest=c.data.smallest, jitter=c.data.jitter, hue=c.data.hue)

  def batch(self):
    """Images [n, c, h, w] and labels [n] of the next step, PyTorch's."""
    import numpy as np
    import torch
    epoch = self.step // self.run.per_epoch
    if epoch != self._epoch:
      self._epoch, self._order = epoch, self.run.order(epoch)
    index = self._order[self.step % self.run.per_epoch]
    images = np.array(self._augment(self._key, np.int32(self.step), self.run.train.images[index]))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(self.run.train.labels[index].astype(np.int64)))

  def advance(self) -> dict:
    """One step: what metrics.jsonl holds of it. Raises Diverged."""
    import math
    images, labels = self.batch()
    for group in self.optimizer.param_groups:
      group['lr'] = float(self._rates[self.step])
    loss, logits, norm = self._update(images, labels)
    self.step += 1
    if not math.isfinite(float(loss)):
      raise Diverged(f'step {self.step}: loss {float(loss)} is not finite')
    return {'loss': float(loss), 'accuracy': float((logits.argmax(1) == labels).float().mean()),
            'grad_theta': float(norm)}

  def scores(self, split) -> dict:
    """Top-1 and top-5 accuracy in % and the mean loss of `split`, by the running statistics."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from vimnas_jax.data import augment
    top1, top5, loss, size = 0, 0, 0.0, self.run.config.eval_batch
    self.net.eval()
    with torch.inference_mode():
      for start in range(0, len(split), size):
        images = augment.normalise(split.images[start:start + size], self.run.loaded.mean, self.run.loaded.std)
        images = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(split.labels[start:start + size]).long()
        logits = self.net(images)
        best = logits.topk(min(5, logits.shape[1]), 1).indices
        top1 += int((best[:, 0] == labels).sum())
        top5 += int((best == labels[:, None]).any(1).sum())
        loss += float(F.cross_entropy(logits, labels, reduction='sum'))
    self.net.train()
    n = len(split)
    return {'top1': 100 * top1 / n, 'top5': 100 * top5 / n, 'loss': loss / n}

  def save(self, path):
    """Writes the state, whole or not at all."""
    import torch

    from vimnas_jax import files
    with files.aside(path) as part:
      torch.save({'step': self.step, 'net': self.net.state_dict(), 'optimizer': self.optimizer.state_dict()}, part)

  def restore(self, path):
    """Goes on from what `save` wrote, if it is there."""
    import torch
    if path.exists():
      held = torch.load(path, weights_only=True)
      self.net.load_state_dict(held['net'])
      self.optimizer.load_state_dict(held['optimizer'])
      self.step = held['step']


def train_port(config, folder, command) -> bool:
  """Trains the port in `folder`. Returns False if a signal ended it early, all saved."""
  import torch

  from vimnas_jax import data, files, spaces
  from vimnas_jax.networks import genotypes
  from vimnas_jax.runs import metrics, parallel, runfolder, signals
  from vimnas_jax.verbs import retrain
  torch.set_num_threads(len(os.sched_getaffinity(0)) if sys.platform == 'linux' else os.cpu_count())
  console, loaded = metrics.Console(), data.get(config.data)
  with signals.Stop() as stop, runfolder.opened(folder) as folder:
    training = retrain.Training(config, spaces.get(config.space.name), genotypes.resolve(config.genotype), loaded,
                                parallel.mesh(1, config.batch_size))
    runfolder.write_config(folder, config, loaded.fingerprint())
    port, state = signals.interruptible(lambda: Port(training)), folder / 'state.pt'
    port.restore(state)
    if port.step:
      console.say(f'resuming {folder} after step {port.step} of {training.total}')
    log, curve = (metrics.Lines(folder / f'{name}.jsonl', port.step) for name in ('metrics', 'curve'))
    every = max(1, round(config.eval_epochs * training.per_epoch))
    with console.progress(training.total, port.step), stop.noted():
      while port.step < training.total and not stop.asked:
        begin = time.monotonic()
        row = port.advance()
        row |= {'step': port.step, 'epoch': round(port.step / training.per_epoch, 4)}
        log.write(**row, seconds=round(time.monotonic() - begin, 4))
        console.step(port.step, training.total, f'loss {row["loss"]:.3f}  accuracy {row["accuracy"]:.3f}')
        done = port.step == training.total
        if done or port.step % every == 0:
          found = port.scores(training.test)
          curve.write(step=port.step, epoch=row['epoch'], **found)
          console.say(f'step {port.step}/{training.total}  {training.test_name} accuracy {found["top1"]:.2f} %')
        if done or stop.asked or port.step % config.checkpoint_steps == 0 or port.step % every == 0:
          port.save(state)
    log.close()
    curve.close()
    if port.step < training.total:
      console.say(f'stopped after step {port.step} of {training.total}, all saved: run the same command to go on')
      return False
    files.write_json(folder / 'result.json', {
        'command': command, 'form': 'torch', 'steps': training.total, 'params': training.size.params,
        'threads': torch.get_num_threads(), 'torch': torch.__version__, **runfolder.environment()})
  return True


def main(argv) -> int:
  """Trains a form, or draws both. Returns the exit code."""
  args = parse(argv)
  command, out = 'python -m benchmarks.train_network ' + shlex.join(argv), pathlib.Path(args.out)
  if args.plot:
    from benchmarks import train_plot
    installed({'matplotlib'})
    return train_plot.plot(out, command)
  from vimnas_jax import main as program
  config = configuration(args)
  program._compile_cache()
  try:
    if args.form == 'torch':
      installed({'torch'})
      done = train_port(config, out / 'torch', command)
    else:
      from vimnas_jax.verbs import retrain
      done = retrain.retrain(config, out / 'ours', command) is not None
  except Diverged as e:
    print(f'error: {e}', file=sys.stderr)
    return 1
  return 0 if done else UNFINISHED


if __name__ == '__main__':
  if sys.platform == 'linux' and not MALLOC.keys() & os.environ.keys():
    os.execve(sys.executable, sys.orig_argv, os.environ | MALLOC)  # before anything heavy is imported
  run(main)
