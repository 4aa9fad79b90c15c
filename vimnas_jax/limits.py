"""What values the fields of a configuration may have: the checks that need neither data nor network."""

import importlib.util
import math

from vimnas_jax.errors import UserError
from vimnas_jax.files import flatten

SCHEDULES = ('cosine', 'cosine_epoch', 'linear_epoch', 'step_epoch')  # of theta's rate: optim.py
_ABOVE = ('batch_size', 'accumulate', 'space.channels', 'log_steps', 'checkpoint_steps', 'theta.lr', 'eval_epochs',
          'eval_batch', 'checkpoint_keep', 'network.cells', 'network.channels', 'data.max_pixels', 'phi.eps',
          'phi.until', 'finalist_shrink')
_AT_LEAST = ('epochs', 'pretrain.epochs', 'theta.lr_end', 'theta.weight_decay', 'theta.momentum', 'theta.clip',
             'phi.lr', 'phi.lr_end', 'phi.steps', 'phi.momentum', 'phi.weight_decay', 'phi.clip', 'phi.graph_lr',
             'phi.graph_weight_decay', 'phi.graph_noise', 'data.pad', 'data.cutout', 'data.limit', 'supernet_images',
             'devices', 'seed', 'network.auxiliary', 'theta.warmup', 'data.seed', 'checkpoint_minutes',
             'checkpoint_hours', 'max_hours', 'data.workers', 'data.max_corrupt', 'finalists', 'finalist_epochs',
             'finalist_margin', 'limit.params', 'limit.madds', 'limit.latency_ms', 'limit.weight')
_OPEN = 'data.workers',  # None lets the code choose
_MOST = {'seed': 2**32 - 1, 'epochs': 1e6, 'pretrain.epochs': 1e6, 'finalist_epochs': 1e6,
         'finalists': 1000, 'finalist_margin': 100, 'data.smallest': 1, 'data.jitter': 1,
         'data.hue': 0.5, 'phi.fall': 1, 'phi.until': 1, 'data.validation': 0.9,
         'max_hours': 1e5}  # JAX folds longer seeds together
_COUNTS = 2**31  # steps, images and pixels beyond it are no run but a slip


def check(c):
  """Raises UserError, naming the field, unless every value of a configuration, all defaults filled in, is in range."""
  flat = {name: value for name, value in flatten(c.to_dict()).items() if not name.startswith(('study.', 'report.'))}
  for name, value in flat.items():
    if isinstance(value, float) and not math.isfinite(value):
      raise UserError(f'config.{name}={value!r} must be a finite number')
    if isinstance(value, int) and abs(value) >= _COUNTS and name not in ('seed', 'data.seed'):
      raise UserError(f'config.{name}={value!r} must be below {_COUNTS}')
  for name in (*_ABOVE, *_AT_LEAST):
    value = flat.get(name, 1)
    if value is None and name in _OPEN:
      continue
    if value is None:
      raise UserError(f'config.{name}=None: give a number')
    if value < 0 or (value == 0 and name in _ABOVE):
      raise UserError(f'config.{name}={value!r} must be {"above" if name in _ABOVE else "at least"} 0')
  for name, most in _MOST.items():
    if not 0 <= flat[name] <= most:
      raise UserError(f'config.{name}={flat[name]!r} must be from 0 to {most:.10g}')
  choices = {'dtype': (c.dtype, ('float32', 'bfloat16')), 'phi.optimizer': (c.phi.optimizer, ('sgd', 'adam')),
             'pretrain.sampling': (c.pretrain.sampling, ('noise', 'uniform', 'single_path')),
             'phi.schedule': (c.phi.schedule, ('linear', 'exponential')),
             'norm': (c.norm, ('global', 'device')),
             'theta.schedule': (c.theta.schedule, SCHEDULES), 'then': (c.then, ('', 'retrain')),
             'choose': (c.get('choose', 'best'), ('best', 'consensus'))}
  for name, (value, allowed) in choices.items():
    if value not in allowed:
      raise UserError(f'config.{name}={value!r}: choose one of {", ".join(allowed)}')
  for name in ('network.drop_path', 'label_smoothing', 'theta.momentum', 'phi.momentum'):
    if not 0 <= flat[name] < 1:
      raise UserError(f'config.{name}={flat[name]} must be at least 0 and below 1')
  if c.phi.schedule == 'exponential' and not (c.phi.lr and c.phi.lr_end):
    raise UserError(f'config.phi.lr={c.phi.lr} and config.phi.lr_end={c.phi.lr_end} must be above 0 for '
                    "config.phi.schedule='exponential': give both, or 'linear'")
  _check_search_parts(c)
  if c.tensorboard and importlib.util.find_spec('tensorboardX') is None:
    raise UserError('config.tensorboard=True needs the package tensorboardX: pip install -r '
                    'requirements-tensorboard.txt, or leave it False: metrics.jsonl has the same numbers')
  if not 0 < c.train_portion <= 1:
    raise UserError(f'config.train_portion={c.train_portion} must lie above 0 and be at most 1')
  if c.theta.warmup and c.theta.schedule == 'cosine':
    raise UserError(f'config.theta.warmup={c.theta.warmup} is for the schedules by epochs: set config.theta.schedule='
                    f'cosine_epoch, or config.theta.warmup=0')
  if any(isinstance(n, bool) or not isinstance(n, int) or not 0 < n < _COUNTS for n in c.measure_batches):
    raise UserError(f'config.measure_batches={tuple(c.measure_batches)!r} must be whole numbers above 0, or ()')
  for name in ('limit.cells', 'limit.channels'):
    if flat.get(name) is not None and flat[name] < 1:
      raise UserError(f'config.{name}={flat[name]} must be above 0')
  for seed in c.get('seeds') or ():
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _MOST['seed']:
      raise UserError(f'config.seeds: {seed!r} is no whole number from 0 to {_MOST["seed"]}: give others')
    if list(c.seeds).count(seed) > 1:
      raise UserError(f'config.seeds: {seed} stands there twice: give each seed once')


def _check_search_parts(c):
  parts = c.data.search_parts
  if parts is None or c.task in ('retrain', 'evaluate', 'predict'):
    return
  if len(parts) != 2 or any(isinstance(part, bool) or not isinstance(part, int | float) for part in parts) or \
      not (min(parts) > 0 and sum(parts) <= 1):
    raise UserError(f'config.data.search_parts={tuple(parts)!r}: give two shares above 0, of the images for the '
                    'weights and of those for the architecture, together at most 1, as (0.1, 0.025)')
  if c.data.limit:
    raise UserError(f'config.data.limit={c.data.limit} does not go with config.data.search_parts={tuple(parts)!r}: set '
                    'config.data.limit=0')
