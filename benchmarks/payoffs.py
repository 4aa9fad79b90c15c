"""What the supernet's gradient says of the operations, before any phi has decided.

  python -m benchmarks.payoffs --data-dir DIR --seed 0 --out results/recipe/payoffs_noise/seed_0

Trains theta alone on NAS-Bench-201 with A = xi (or another sampling of config.pretrain) and adds up the gradient of the
loss with respect to A, window by window. The cell of the largest sums is what a phi would choose that followed the mean
gradient slowly enough: this separates a poor gradient from a poor phi. With --around an architecture, A = logit * that
architecture + xi after the first epoch: what the gradient says of one edge where the others have nearly decided.
Writes OUT/result.json.
"""

import argparse
import pathlib
import shlex
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vimnas_jax import config, data, files, spaces, tabular
from vimnas_jax.data import augment
from vimnas_jax.networks.supernet import Supernet
from vimnas_jax.runs import optim, runfolder

SPREAD = {'noise': 1.0, 'wide_noise': 3.0, 'uniform': 0.0}  # of xi


def main(argv):
  """Runs, prints a line for every window, writes the result."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--data-dir', required=True)
  parser.add_argument('--test-csv', default='', help='as config.oracle.test_csv')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--epochs', type=float, default=2)
  parser.add_argument('--shrink', type=int, default=2, help='as config.data.shrink')
  parser.add_argument('--cells', type=int, default=5)
  parser.add_argument('--samples', type=int, default=8, help='draws of xi for a batch of 64')
  parser.add_argument('--sampling', default='noise', choices=tuple(SPREAD))
  parser.add_argument('--window', type=int, default=195, help='steps whose gradients are summed')
  parser.add_argument('--around', default='', help='an architecture of NAS-Bench-201')
  parser.add_argument('--logit', type=float, default=3.0, help='its logits, those of all others being 0')
  parser.add_argument('--out', required=True)
  args = parser.parse_args(argv)
  begin = time.monotonic()
  c = config.defaults()
  c.space.name, c.data.dir, c.data.shrink, c.data.pad = 'nb201', args.data_dir, args.shrink, 4 // args.shrink
  c.theta.weight_decay, c.theta.nesterov = 5e-4, True  # as configs/nb201_c10.py
  c.oracle.test_csv = args.test_csv
  c = config.resolve(c)
  loaded, space = data.get(c.data), spaces.get('nb201')
  (benchmark,) = tabular.of(space, c.oracle)
  table = benchmark.load(c.oracle, print)
  ((name, cell),) = space.cells.items()
  half, batch = len(loaded.train) // 2, c.batch_size
  images, labels = loaded.train.images[:half], loaded.train.labels[:half]
  total = round(args.epochs * (half // batch))
  net = Supernet(space=space, cells=args.cells, channels=16, num_classes=loaded.num_classes)
  tx = optim.theta(c.theta, total)

  def loss_fn(theta, a, x, y):
    logits = net.apply({'params': theta}, x, {name: jax.nn.softmax(a)})
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  centre = np.zeros(cell.shape, np.float32)
  if args.around:
    for op, *edge in space.read(args.around).cells[name]:
      e = cell.edges.index(tuple(edge))
      centre[e, cell.ops[e].index(op)] = args.logit

  @jax.jit
  def step(theta, opt, key, x, y, late):
    noise_key, image_key = jax.random.split(key)
    xi = SPREAD[args.sampling] * jax.random.normal(noise_key, (args.samples, *cell.shape))
    xi += late * centre[None]
    x = augment.augment(image_key, x, mean=loaded.mean, std=loaded.std, pad=c.data.pad, flip=True, cutout=0)
    loss, (g_theta, g_a) = jax.value_and_grad(loss_fn, (0, 1))(theta, xi, x, y)
    updates, opt = tx.update(g_theta, opt, theta)
    return optax.apply_updates(theta, updates), opt, loss, g_a.sum(0)

  key = jax.random.key(args.seed)
  weights = {name: jnp.full((1, *cell.shape), 1 / cell.shape[1])}
  theta = jax.jit(net.init)(key, jnp.zeros((1, *loaded.image_shape)), weights)['params']
  opt, rows, sums, losses = tx.init(theta), [], [], []
  for at in range(total):
    epoch, place = divmod(at, half // batch)
    if place == 0:
      order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), half))
    index = order[place * batch:(place + 1) * batch]
    theta, opt, loss, g_a = step(theta, opt, jax.random.fold_in(key, total + at), images[index], labels[index],
                                 jnp.float32(epoch >= 1))
    sums.append(-np.asarray(g_a, np.float64))
    losses.append(float(loss))
    if (at + 1) % args.window == 0 or at + 1 == total:
      mean = np.mean(sums, 0)
      genotype = space.genotype({name: mean})
      measured = table.query(genotype)['cifar10']
      row = {'step': at + 1, 'loss': float(np.mean(losses)), 'genotype': space.write(genotype),
             'valid': measured['valid'], 'test': measured.get('test'),
             'gradient': mean.round(7).tolist(),
             'standard_error': (np.std(sums, 0) / len(sums) ** 0.5).round(7).tolist()}
      rows.append(row)
      print(f'step {row["step"]}  loss {row["loss"]:.3f}  valid {row["valid"]:.2f}  {row["genotype"]}', flush=True)
      sums, losses = [], []
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  command = 'python -m benchmarks.payoffs ' + shlex.join(argv)
  files.write_json(out / 'result.json', {
      'command': command, 'seconds': time.monotonic() - begin, 'environment': runfolder.environment(),
      'around': args.around, 'logit': args.logit, 'ops': cell.ops[0], 'edges': cell.edges,
      'windows': rows})


if __name__ == '__main__':
  main(sys.argv[1:])
