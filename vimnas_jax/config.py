"""A configuration from what a user asks to what a run does: the checks that need no data."""

import ast
import copy
import difflib
import shlex

from ml_collections import ConfigDict

from vimnas_jax import data, fields, files, limits, methods, spaces, words
from vimnas_jax.errors import UserError

TASKS = fields.TASKS
defaults = fields.defaults  # what configuration files import from here, too
admit, when, in_spaces, half, with_arguments, strict = (
    words.admit, words.when, words.in_spaces, words.half, words.with_arguments, words.strict)


def resolve(config: ConfigDict) -> ConfigDict:
  """A checked copy in which every value is the one that the run uses. Raises UserError, naming field and remedy."""
  c = ConfigDict(config.to_dict())
  _check_names(c)
  if c.task not in TASKS:
    raise UserError(f'config.task={c.task!r}: unknown task{files.close(c.task, TASKS)}; choose one of '
                    f'{", ".join(TASKS)}')
  space = spaces.get(c.space.name)
  if space.topology and c.task in ('retrain', 'evaluate'):
    raise UserError(f'config.task={c.task!r}: the networks of space {space.name!r} are those of NAS-Bench-101, trained '
                    'there: look them up with config.oracle.nasbench101')
  own = methods.fields(c.method.name)
  words.check_applied(c)
  words.apply_when(c)
  for field, value in c.method.to_dict().items():
    if field != 'name' and field not in own and value is not None:
      raise UserError(f'config.method.{field}={value!r}: method {c.method.name!r} has no such field; it has '
                      f'{", ".join(own) or "none"}')
  c.method = ConfigDict({'name': c.method.name,
                         **{field: value if c.method.get(field) is None else c.method[field]
                            for field, value in own.items()}})
  if c.method.name == 'vimnas' and not space.restricted:
    c.method.node_inputs = 'all'  # which is the same there, and what older runs have
  if c.phi.lr is not None:
    c.phi.lr_end = c.phi.lr if c.phi.lr_end is None else c.phi.lr_end
    c.phi.steps = c.phi.steps or 0
  for field, value in methods.optimizer(c.method).items():
    if c.phi[field] is None:
      c.phi[field] = value
  if c.pretrain.epochs is None:
    c.pretrain.epochs = methods.pretrain(c.method.name)
  if c.train_portion is None:
    c.train_portion = 1.0 if c.task == 'retrain' else 0.5
  if c.data.pad is None:
    c.data.pad = data.default_pad(c.data.name)
  if c.task == 'search':
    _apply_limit(c, config)
  if c.seeds and c.task != 'search':
    raise UserError(f'config.seeds={tuple(c.seeds)!r} is for the task search, not for {c.task!r}: ' +
                    ('set config.study.seeds' if c.task == 'study' else 'set config.seed'))
  if c.at_once and not c.seeds:
    raise UserError('config.at_once is for several seeds: set config.seeds, as (0, 1, 2, 3)')
  limits.check(c)
  if c.choose != 'best' and c.task != 'search':
    raise UserError(f"config.choose={c.choose!r} is for the task search, not for {c.task!r}: set config.choose='best'")
  if c.choose != 'best' and len(c.seeds) < 2:
    raise UserError(f'config.choose={c.choose!r} is for several seeds: set config.seeds, as (0, 1, 2, 3)')
  methods.get(c.method)  # its fields are checked before anything is written
  _keep_own(c)
  return c


def _check_names(c):
  """Raises UserError on a field that there is not: what a configuration file misspells would count for nothing."""
  known = files.flatten(defaults().to_dict())
  for name in files.flatten({**c.to_dict(), 'when': 0}):
    if name not in known and name != 'when' and not name.startswith('method.'):  # these are compared with the method's
      raise UserError(f'config.{files.printable(name)} is no field{nearest(name)}')


def nearest(name: str) -> str:
  """': did you mean config.FIELD?' with the one field with this last part or the nearest name, or where fields are
  listed.
  """
  known = list(files.flatten(defaults().to_dict()))
  leaf = [field for field in known if field.rpartition('.')[2] == name.rpartition('.')[2]]
  close = leaf if len(leaf) == 1 else difflib.get_close_matches(name, known, 1, 0.75)
  return f': did you mean config.{close[0]}?' if close else ' (every field is in docs/config.md)'


def _apply_limit(c, asked):
  """Fills in which network the limits are of. Raises UserError where the retraining has images of another size."""
  if not (c.limit.params or c.limit.madds or c.limit.latency_ms):
    return
  size = c.space
  if c.then:
    trained = changed(retraining(copy.deepcopy(asked).unlock()), asked.then_changes)
    size, c.limit.imagenet = trained.network, trained.network.imagenet
    if c.space.imagenet and not c.limit.imagenet:
      raise UserError('a search with config.space.imagenet=True keeps limits of networks with its stems, and '
                      'config.then_changes sets network.imagenet=False: leave that out')
    if trained.data.name != asked.data.name:
      raise UserError(f'limits are of networks with the classes of the search, and config.then_changes sets data.name='
                      f'{trained.data.name!r}: set the limits to 0, or leave that out')
    differs = next((name for name in ('image_size', 'shrink') if trained.data[name] != asked.data[name]), None)
    if differs and (c.limit.madds or c.limit.latency_ms):
      raise UserError('config.limit.madds and latency_ms are of images of the search, which has config.data.'
                      f'{differs}={asked.data[differs]!r}, and its retraining has {trained.data[differs]!r}: give both '
                      'the same by config.then_changes, or set config.limit.params alone')
    if c.limit.latency_ms and trained.dtype != c.dtype:
      raise UserError(f'config.limit.latency_ms is of networks in config.dtype={c.dtype!r}, and config.then_changes '
                      f'sets {trained.dtype!r}: give both the same')
  for name in ('cells', 'channels'):
    if c.limit[name] is None:
      c.limit[name] = size[name]


def _keep_own(c):
  """Drops what the task does not read: a run is the same, and goes on, whether alone or as part of another."""
  alone = {'search': ('study', 'report', 'network', 'genotype', 'label_smoothing', 'eval_epochs',
                      'measure_batches', 'then', 'then_changes', 'images', 'seeds', 'choose', 'at_once'),
           'retrain': ('study', 'report', 'method', 'phi', 'pretrain', 'oracle', 'remat', 'accumulate', 'then',
                       'then_changes', 'supernet_images', 'finalists', 'finalist_epochs', 'finalist_shrink',
                       'finalist_margin', 'images', 'seeds', 'choose', 'at_once', 'limit', 'norm'),
           'evaluate': ('study', 'report', 'method', 'phi', 'pretrain', 'oracle', 'remat', 'accumulate', 'then',
                        'then_changes', 'supernet_images', 'finalists', 'finalist_epochs', 'finalist_shrink',
                        'finalist_margin', 'network', 'theta', 'label_smoothing', 'eval_epochs', 'epochs', 'images',
                        'max_hours', 'seeds', 'choose', 'at_once', 'limit', 'norm', 'tensorboard', 'dtype', 'devices',
                        'batch_size', 'train_portion', 'seed')}
  alone['predict'] = (*(field for field in alone['evaluate'] if field != 'images'), 'measure_batches', 'eval_batch')
  for field in alone.get(c.task, ()):
    del c[field]
  if c.task in ('retrain', 'evaluate', 'predict'):
    del c.data['search_parts']


def retraining(config: ConfigDict) -> ConfigDict:
  """Turns a configuration into one that retrains as the space's authors do on CIFAR; returns it.

  DARTS and S1 to S4: 600 epochs, 20 cells, 36 channels, auxiliary head, drop path, cutout; after a search on ImageNet
  as `on_imagenet` says. NAS-Bench-201: its benchmark's own 200 epochs, N = 5, C = 16. A space of one's own: the same
  epochs, at the size of the search.
  """
  c = config
  c.task, c.then, c.train_portion, c.theta.lr_end = 'retrain', '', None, 0.0
  c.theta.momentum, c.theta.warmup = 0.9, 0  # those of the search may be its method's
  c.log_steps, c.checkpoint_steps = 50, 1000
  own = c.space.name.endswith('.py')
  if c.space.name == 'nb201' or own:
    c.epochs, c.batch_size, c.theta.lr, c.theta.nesterov, c.theta.weight_decay = 200.0, 256, 0.1, True, 5e-4
    c.theta.schedule, c.theta.clip = 'cosine_epoch', 0.0  # its schedule moves after every epoch
    c.network.cells, c.network.channels = (c.space.cells, c.space.channels) if own else (5, 16)
    c.network.auxiliary, c.network.drop_path = 0.0, 0.0
  else:
    c.epochs, c.batch_size, c.theta.lr, c.theta.weight_decay, c.theta.schedule = 600.0, 96, 0.025, 3e-4, 'cosine_epoch'
    c.theta.nesterov, c.theta.clip = False, 5.0
    c.data.cutout = 16
  if c.space.imagenet:
    on_imagenet(c)
  c.update_from_flattened_dict(words.after(c))
  return c


def on_imagenet(config: ConfigDict):
  """Turns a retraining on CIFAR into that of Xu et al., PC-DARTS (ICLR 2020), on photographs of 224 pixels."""
  c = config
  c.data.pad, c.data.cutout = 0, 0
  c.data.photographs, c.data.moments = 256, 'imagenet'
  c.data.smallest, c.data.jitter, c.data.hue = 0.08, 0.4, 0.2
  c.network.imagenet, c.network.cells, c.network.channels = True, 14, 48
  c.network.drop_path = 0.0
  c.epochs, c.batch_size, c.label_smoothing = 250.0, 1024, 0.1
  c.theta.lr, c.theta.schedule, c.theta.warmup = 0.5, 'linear_epoch', 5
  c.theta.weight_decay = 3e-5


def short(config: ConfigDict):
  """Turns a retraining of a DARTS cell into the schedule that ranks seeds: 20 epochs, 8 cells, 16 channels, batch 128,
  no auxiliary head, drop path or cutout.
  """
  config.network.cells, config.network.channels, config.network.auxiliary, config.network.drop_path = 8, 16, 0.0, 0.0
  config.epochs, config.batch_size, config.data.cutout, config.theta.schedule = 20.0, 128, 0, 'cosine'
  config.theta.lr = 0.05


def following(config: ConfigDict, changes: str, workdir: str) -> ConfigDict:
  """The resolved configuration of the retraining of what the search in `workdir` finds, with `changes` as `changed`
  takes them. Raises UserError on a bad change.
  """
  for field in (change.partition('=')[0] for change in _split(changes)):
    if field in ('task', 'dry_run', 'genotype', 'then', 'then_changes', 'seeds'):
      raise UserError(f'config.then_changes sets {field}, and is of the retraining of what the search finds: leave it '
                      'out')
  c = retraining(copy.deepcopy(config).unlock())
  c.genotype = str(workdir)
  return resolve(changed(c, changes))


def changed(config: ConfigDict, changes: str) -> ConfigDict:
  """A copy of an unresolved `config` with 'field=value field=value' applied.

  Raises UserError if a field does not exist or a value is of another type.
  """
  c = copy.deepcopy(config).lock()
  asked = _split(changes)
  for change in asked:  # wherever the method is named, its fields may be given
    if change.startswith('method.name='):
      admit(change.removeprefix('method.name='), c)
  for change in asked:
    field, equals, text = change.partition('=')
    try:
      value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      value = text
    try:
      if not equals:
        raise ValueError('there is no = in it')
      c.update_from_flattened_dict({field: value})
    except (KeyError, AttributeError, TypeError, ValueError) as e:
      reason = str(e.args[0] if isinstance(e, KeyError) and e.args else e).partition('Other fields')[0]
      raise UserError(f'{change!r} changes no field: write field=value, with a field of docs/config.md or of the '
                      f'method and a value of its type ({" ".join(reason.split())[:120]})') from None
  return c


def _split(changes: str) -> list[str]:
  try:
    return shlex.split(changes)
  except ValueError as e:
    raise UserError(f'{changes!r}: {e}; write field=value field=value') from None
