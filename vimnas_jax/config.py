"""Every field of a configuration, its default and its meaning; and the checks that need no data."""

import ast
import copy
import difflib
import functools
import shlex

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from vimnas_jax import data, files, limits, methods, spaces
from vimnas_jax.errors import UserError

_OWN_FIELDS = {}  # of methods of one's own that were named: field -> type
TASKS = ('search', 'study', 'report', 'retrain', 'evaluate', 'predict')


def defaults() -> ConfigDict:
  """The full configuration of a search. A config file starts from this and changes what it must."""
  c = ConfigDict()
  c.task = 'search'  # 'search' finds an architecture; 'study' searches with several methods and seeds, then reports;
  #                    'report' compares the runs that are there; 'retrain' trains, evaluates and exports the network
  #                    of an architecture; 'evaluate' evaluates what a retraining left; 'predict' names what
  #                    is on images with it
  c.then = ''  # task that a search, or every search of a study, goes on with: 'retrain', of what it found, in the
  #              folder `retrain` of its run folder; '' for none
  c.then_changes = ''  # 'field=value field=value': what that task changes in its own defaults (`retraining`)
  c.genotype = ''  # retrain: a run folder, a genotype file, a published name or its notation; evaluate, predict: a run
  #                 folder
  c.images = ''  # predict: an image, or a folder of images at any depth
  c.max_hours = 0.0  # search, retrain: hours that it may take, with what follows; epochs are lowered to fit before it
  #                    starts, and it ends in time with what it has (runs/budget.py); 0 sets no limit. With several
  #                    seeds each has an equal share
  c.trust = ''  # paths of .py files, separated by commas, that may be executed although only a data file, such as a
  #               genotype.json, names them
  c.seed = 0  # root of all randomness: initialisation, xi, batch order, augmentation; below 2^32
  c.seeds = ()  # search: runs it with each of these, in workdir/seed_N, with what follows, and takes the best of what
  #               they find by validation (verbs/seeds.py); `seed` counts for nothing then. () is one run, with `seed`
  c.batch_size = 64  # images of one step, over all devices
  c.epochs = 1.0  # epochs of the search proper; 0 reads the architecture off the initial phi
  c.train_portion = placeholder(float)  # part of the training set that is trained on; the rest is the validation half.
  #                                       None: half for a search, all for a retraining
  c.dtype = 'float32'  # type the supernet computes in, 'float32' or 'bfloat16'; parameters stay float32
  c.remat = False  # True: the backward pass recomputes every cell; less memory, a forward pass more
  c.accumulate = 1  # parts that a batch goes through the supernet in, one after the other; BatchNorm sees one part
  c.supernet_images = 0  # search: validation images that the supernet is scored on at the end; 0 does without
  c.norm = 'global'  # search on several devices: BatchNorm by the images of all, 'global', or, 'device', by those of
  #                    each, which saves their talk and makes the result depend on how many there are; each device then
  #                    has its share of the rows of ξ, method.samples, too
  c.devices = 0  # devices to share a batch; 0 takes all there are

  c.space = ConfigDict()
  c.space.name = 'darts'  # one of spaces.NAMES, or the path of a .py file with one of your own
  c.space.cells = 8  # DARTS and NAS-Bench-1Shot1: cells in all; NAS-Bench-201: cells per group (N)
  c.space.channels = 16  # C, the width of the first cell
  c.space.imagenet = False  # DARTS, S1 to S4: True searches with the stems for photographs of 224 pixels

  c.method = ConfigDict()
  c.method.name = 'vimnas'  # one of methods.NAMES, or the path of a .py file with one of your own
  for field, kind in {**methods.field_types(), **_OWN_FIELDS}.items():
    c.method[field] = placeholder(kind)  # documented in methods/; None takes the method's own default

  c.when = ConfigDict()  # {method: {field: value}}: what a config file sets where that method is the chosen one and the
  #                        field, one whose default is None, has no other value (`when`)

  c.pretrain = ConfigDict()  # training of theta alone, before phi moves (the paper names the stage, not its length)
  c.pretrain.epochs = placeholder(float)  # None takes the method's default
  c.pretrain.sampling = 'noise'  # 'noise': softmax of xi alone; 'uniform': equal weights; 'single_path': random one-hot

  c.network = ConfigDict()  # task 'retrain': the network that the architecture becomes
  c.network.cells = 20  # as space.cells
  c.network.channels = 36  # as space.channels
  c.network.imagenet = False  # DARTS: True takes the stems and the auxiliary head for images of 224 pixels
  c.network.auxiliary = 0.4  # weight of the auxiliary head's loss; 0 leaves the head out
  c.network.drop_path = 0.2  # probability at the end of the ramp that an image loses a path
  c.label_smoothing = 0.0  # share of the target that is spread over all classes
  c.eval_epochs = 1.0  # retrain: the test images are evaluated every so many epochs
  c.eval_batch = 256  # images of one evaluation call
  c.measure_batches = (1, 64)  # batch sizes whose latency is measured after an evaluation

  c.theta = ConfigDict()  # optimiser of the supernet, or of the network that is retrained: SGD with momentum
  c.theta.lr = 0.025
  c.theta.lr_end = 0.001
  c.theta.schedule = 'cosine'  # one of limits.SCHEDULES; the way from lr to lr_end
  c.theta.warmup = 0  # epochs of rising rate; the schedules by epochs alone
  c.theta.momentum = 0.9
  c.theta.nesterov = False
  c.theta.weight_decay = 3e-4
  c.theta.clip = 5.0  # global norm of the gradient; 0 switches clipping off

  c.phi = ConfigDict()  # optimiser of the method's own parameters; None takes the method's default
  c.phi.optimizer = placeholder(str)  # 'sgd' or 'adam'
  c.phi.lr = placeholder(float)  # at the first step of the search proper
  c.phi.lr_end = placeholder(float)  # where the rate goes from there; None: as lr, where lr is given
  c.phi.schedule = placeholder(str)  # the way from lr to lr_end: 'linear', or 'exponential' (by equal factors)
  c.phi.fall = placeholder(float)  # the last part of the search, 0 to 1, in which the rate falls to 0
  c.phi.momentum = placeholder(float)  # of Adam: beta 1
  c.phi.weight_decay = placeholder(float)  # L2, added to the gradient
  c.phi.eps = placeholder(float)  # of Adam: added to what it divides by
  c.phi.clip = 0.0

  c.data = ConfigDict()
  c.data.name = 'cifar10'  # one of data.NAMES, or the path of a .py file with data of your own (data/userdata.py)
  c.data.dir = ''  # where the data lies: a TFDS data dir, an archive or its folder
  c.data.download = False  # whether a missing official archive may be downloaded into data.dir
  c.data.split = ''  # a split file of NAS-Bench-201 (data/splits.py), which then says what a search validates with,
  #                    not train_portion; '' for none
  c.data.limit = 0  # use only so many training images; 0 uses all. Of a folder, every class in its share
  c.data.image_size = 16  # side of the images of 'synthetic'; to which those of 'folder' and 'tfds/NAME' are brought
  c.data.num_train, c.data.num_test, c.data.num_classes = 512, 128, 4  # 'synthetic' only
  c.data.seed = 0  # 'synthetic' only
  c.data.max_pixels = 64_000_000  # 'folder', 'tfds/NAME': an image file of more pixels than this is refused undecoded
  c.data.photographs = 0  # retraining on 'folder', 'tfds/NAME': above 0, training images are held whole, squeezed to
  #                         squares of this side, and random parts (smallest) are taken in the shape they had; test
  #                         images are cut as on ImageNet, shorter side to 256/224 of image_size; 256 goes with 224
  c.data.validation = 0.0  # above 0, images choose the state that a retraining keeps, and those for test are asked
  #                          once, at the end: the set's own part `val`, `validation`, or this share of the training
  #                          images, drawn class by class; no search or training has them
  c.data.stream = placeholder(bool)  # 'folder', 'tfds/NAME': True reads images from the disk batch by batch, False
  #                                    holds them in memory; None streams what would take more than a quarter of it
  c.data.workers = placeholder(int)  # processes that decode streamed images; 0: threads of this one. None: one for each
  #                                    core but two, at most 32, and threads where there are four cores or fewer
  c.data.damaged = 'refuse'  # 'folder' that is held in memory: an image that cannot be read stops the run before it
  #                            begins; 'skip' leaves it out, named
  c.data.max_corrupt = 100  # images that are streamed are read only while they are trained on, so for them this counts
  #                           in place of `damaged`: so many may be damaged, they are skipped, counted and told; one
  #                           more stops the run, and 0 refuses the first
  c.data.search_parts = placeholder(tuple)  # search: shares of every class's training images for the weights and for
  #                                           the architecture, as (0.1, 0.025), in place of train_portion; None: all
  c.data.moments = 'own'  # mean and std of the normalisation: 'own' are the data set's (where it is streamed those of
  #                         2,048 of its images), 'imagenet' those of ImageNet
  c.data.shrink = 1  # images are averaged over squares of so many pixels: 2 halves their sides
  c.data.pad = placeholder(int)  # random crop after padding by so many pixels; 0 switches it off. None: 4, and 2 for
  #                                ImageNet16-120
  c.data.flip = True  # random horizontal flip
  c.data.cutout = 0  # side of the square that is cut out; 0 switches it off
  c.data.smallest = 0.0  # random parts of at least this share of an image, scaled to the whole; 0 switches it off
  c.data.jitter = 0.0  # strength of random brightness, contrast and saturation
  c.data.hue = 0.0  # largest random turn of the hue

  c.oracle = ConfigDict()
  c.oracle.test_csv = ''  # NAS-Bench-201 test accuracies, a CSV; '' reports validation accuracies only
  c.oracle.nasbench201 = ''  # instead: the benchmark's own file or folder (natsbench.py), for validation and test
  c.oracle.nasbench101 = ''  # NAS-Bench-1Shot1: nasbench_only108.tfrecord, or the .npz that a search leaves beside it;
  #                            '' reports no errors. A report draws the regret over the epochs from it
  c.oracle.nasbench301 = ''  # the DARTS space, S1 to S3: the folder of NAS-Bench-301's surrogate (nasbench301.py); ''
  #                            reports no predicted accuracies. A search needs onnxruntime then

  c.limit = ConfigDict()  # search: what its architecture may cost at most, as a network (verbs/constraints.py)
  c.limit.params = 0.0  # parameters; 0 sets no limit, here and below
  c.limit.madds = 0.0  # multiply-adds for one image of the search
  c.limit.latency_ms = 0.0  # milliseconds for one image on this device, as measured operation by operation
  c.limit.weight = 0.05  # of the penalty on what the probabilities cost in the mean (methods/resources.py); 0 searches
  #                       without, and keeps the limit by the choice at the end alone
  c.limit.cells = placeholder(int)  # of the network that the limits are of, as network.cells and network.channels.
  c.limit.channels = placeholder(int)  # None: that of the retraining where then=retrain, else that of the search
  c.limit.imagenet = False  # as network.imagenet; with then=retrain it is that of the retraining

  c.study = ConfigDict()  # task 'study'
  c.study.members = ()  # each 'NAME field=value field=value': what this member changes in the configuration
  c.study.seeds = (0,)  # every member runs once with each

  c.report = ConfigDict()  # task 'report'
  c.report.runs = ''  # folders that hold run folders, at any depth, separated by commas

  c.log_steps = 5  # a line of metrics.jsonl and arch.jsonl every so many steps
  c.checkpoint_steps = 50  # a checkpoint every so many steps
  c.checkpoint_minutes = 0.0  # above 0: also when so much time has passed since the last one
  c.checkpoint_keep = 2  # of the checkpoints the newest so many are kept
  c.checkpoint_hours = 0.0  # above 0: one in so many hours is kept beside them, for good
  c.tensorboard = False  # the numbers of metrics.jsonl as an event file beside it, too (requirements-tensorboard.txt)
  return c


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
  _apply_when(c)
  for field, value in c.method.to_dict().items():
    if field != 'name' and field not in own and value is not None:
      raise UserError(f'config.method.{field}={value!r}: method {c.method.name!r} has no such field; it has '
                      f'{", ".join(own) or "none"}')
  c.method = ConfigDict({'name': c.method.name,
                         **{field: value if c.method.get(field) is None else c.method[field]
                            for field, value in own.items()}})
  if c.phi.lr is not None and c.phi.lr_end is None:
    c.phi.lr_end = c.phi.lr
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
  limits.check(c)
  methods.get(c.method)  # its fields are checked before anything is written
  _keep_own(c)
  return c


def _check_names(c):
  """Raises UserError on a field that there is not: what a configuration file misspells would count for nothing."""
  known = files.flatten(defaults().to_dict())
  for name in files.flatten({**c.to_dict(), 'when': 0}):
    if name not in known and name != 'when' and not name.startswith('method.'):  # these are compared with the method's
      close = difflib.get_close_matches(name, known, 1)
      raise UserError(f'config.{files.printable(name)} is no field' + (f': did you mean {close[0]}?' if close else
                                                                       ' (every field is in vimnas_jax/config.py)'))


def admit(name: str, config: ConfigDict | None = None):
  """Makes the fields of the method in the file `name` fields of config.method: in configurations that are made from
  now on, and in `config`. Nothing happens with another name. Raises UserError where the file is unfit.
  """
  if not str(name).endswith('.py'):
    return
  _OWN_FIELDS.update(methods.field_types(name))
  if config is not None:
    with config.unlocked():
      for field, kind in methods.field_types(name).items():
        if field not in config.method or config.method[field] is None:
          config.method[field] = placeholder(kind)


def when(config: ConfigDict, method: str, values: dict):
  """Lets a config file give fields of config a value for one method alone: {field: value}, dots in the names.

  It counts where that method is the chosen one, however it was chosen, and the user has set the field to nothing else;
  so the fields must be those whose default is None: of config.method and config.phi, pretrain.epochs, train_portion.
  """
  for field, value in values.items():
    config.when.update({method: {**config.when.get(method, {}), field.replace('.', ':'): value}})


def _apply_when(c):
  flat = {field.replace(':', '.'): value for field, value in c.when.get(c.method.name, {}).items()}
  for field, value in flat.items():
    *rooms, leaf = field.split('.')
    at = functools.reduce(getattr, rooms, c)
    if at.get(leaf) is None:
      at[leaf] = value
  del c['when']


def _apply_limit(c, asked):
  """Fills in which network the limits are of. Raises UserError where the retraining has images of another size."""
  if not (c.limit.params or c.limit.madds or c.limit.latency_ms):
    return
  size = c.space
  if c.then:
    trained = changed(retraining(copy.deepcopy(asked).unlock()), asked.then_changes)
    size, c.limit.imagenet = trained.network, trained.network.imagenet
    if (c.limit.madds or c.limit.latency_ms) and any(
        trained.data[name] != asked.data[name] for name in ('name', 'image_size', 'shrink')):
      raise UserError('config.limit.madds and latency_ms are of images of the search, and config.then_changes sets '
                      'others: give both the same, or set config.limit.params alone')
  for name in ('cells', 'channels'):
    if c.limit[name] is None:
      c.limit[name] = size[name]


def _keep_own(c):
  """Drops what the task does not read: a run is the same, and goes on, whether alone or as part of another."""
  alone = {'search': ('study', 'report', 'network', 'genotype', 'label_smoothing', 'eval_epochs', 'eval_batch',
                      'measure_batches', 'then', 'then_changes', 'images', 'seeds'),
           'retrain': ('study', 'report', 'method', 'phi', 'pretrain', 'oracle', 'remat', 'accumulate', 'then',
                       'then_changes', 'supernet_images', 'images', 'seeds', 'limit', 'norm'),
           'evaluate': ('study', 'report', 'method', 'phi', 'pretrain', 'oracle', 'remat', 'accumulate', 'then',
                        'then_changes', 'supernet_images', 'network', 'theta', 'label_smoothing', 'eval_epochs',
                        'epochs', 'images', 'max_hours', 'seeds', 'limit', 'norm', 'tensorboard')}
  alone['predict'] = (*(field for field in alone['evaluate'] if field != 'images'), 'measure_batches', 'seed')
  for field in alone.get(c.task, ()):
    del c[field]
  if c.task in ('retrain', 'evaluate', 'predict'):
    del c.data['search_parts']


def retraining(config: ConfigDict) -> ConfigDict:
  """Turns a configuration into one that retrains as the space's authors do on CIFAR; returns it.

  DARTS and S1 to S4: 600 epochs, 20 cells, 36 channels, auxiliary head, drop path, cutout. NAS-Bench-201: its
  benchmark's own 200 epochs, N = 5, C = 16. A space of one's own: the same epochs, at the size of the search.
  """
  c = config
  c.task, c.then, c.train_portion, c.theta.lr_end = 'retrain', '', None, 0.0
  c.log_steps, c.checkpoint_steps = 50, 1000
  own = c.space.name.endswith('.py')
  if c.space.name == 'nb201' or own:
    c.epochs, c.batch_size, c.theta.lr, c.theta.nesterov, c.theta.weight_decay = 200.0, 256, 0.1, True, 5e-4
    c.theta.schedule, c.theta.clip = 'cosine_epoch', 0.0  # its schedule moves after every epoch
    c.network.cells, c.network.channels = (c.space.cells, c.space.channels) if own else (5, 16)
    c.network.auxiliary, c.network.drop_path = 0.0, 0.0
  else:
    c.epochs, c.batch_size, c.theta.lr, c.theta.weight_decay, c.theta.schedule = 600.0, 96, 0.025, 3e-4, 'cosine_epoch'
    c.data.cutout = 16
  return c


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
  c = retraining(copy.deepcopy(config).unlock())
  c.genotype = str(workdir)
  return resolve(changed(c, changes))


def changed(config: ConfigDict, changes: str) -> ConfigDict:
  """A copy of an unresolved `config` with 'field=value field=value' applied.

  Raises UserError if a field does not exist or a value is of another type.
  """
  c = copy.deepcopy(config).lock()
  try:
    words = shlex.split(changes)
  except ValueError as e:
    raise UserError(f'{changes!r}: {e}; write field=value field=value') from None
  for change in words:  # wherever the method is named, its fields may be given
    if change.startswith('method.name='):
      admit(change.removeprefix('method.name='), c)
  for change in words:
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
      raise UserError(f'{change!r} changes no field: write field=value, with a field of vimnas_jax/config.py or of the '
                      f'method and a value of its type ({" ".join(reason.split())[:120]})') from None
  return c


def in_spaces(names) -> dict:
  """Words for `with_arguments`, {word: function}: each word of `names`, {word: space}, chooses its space."""
  def choosing(space):
    def choose(config):
      config.space.name = space
    return choose

  return {word: choosing(space) for word, space in names.items()}


def with_arguments(config: ConfigDict, arg: str, smoke, **others) -> ConfigDict:
  """Applies what follows the colon of --config=FILE:ARG: words separated by commas.

  'smoke' turns the configuration, by `smoke(config)`, into a run of seconds through the same code; 'method=NAME'
  chooses the method, and 'published' after it takes the settings with which its authors searched this space; 'strict'
  is VIM-NAS as the paper's text has it, without this project's recipe (docs/recipe.md).
  `others` are further words, word=function, that a file has of its own.
  """
  for word in filter(None, arg.split(',')):
    if word == 'smoke':
      smoke(config)
    elif word in others:
      others[word](config)
    elif word == 'strict':
      when(config, 'vimnas', methods.STRICT)
      config.update_from_flattened_dict(methods.STRICT_THETA)
    elif word == 'published':
      for field, value in methods.published(
          config.method.name, 'imagenet' if config.space.imagenet else config.space.name).items():
        config.update_from_flattened_dict({field: value})
    elif word.startswith('method='):
      name = word.removeprefix('method=')
      methods.fields(name)  # raises on an unknown name
      admit(name, config)
      config.method.name = name
    else:
      raise UserError(f'--config=…:{word}: after the colon goes {", ".join(("smoke", *others))}, strict, published or '
                      f'method=NAME ({", ".join(methods.NAMES)})')
  return config
