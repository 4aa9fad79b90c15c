"""Every field of a configuration, its default and its meaning; docs/config.md is made from this page."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from vimnas_jax import methods

TASKS = {
    'search': 'finds an architecture',
    'study': 'searches with several methods and seeds, then reports',
    'report': 'compares the runs that are there',
    'retrain': 'trains, evaluates and exports the network of an architecture',
    'evaluate': 'evaluates what a retraining left',
    'predict': 'names what is on images with what a retraining left',
}
OWN: dict[str, type] = {}  # of methods of one's own that were named: field -> type


def defaults() -> ConfigDict:
  """The full configuration of a search. A config file starts from this and changes what it must."""
  c = ConfigDict()
  c.task = 'search'  # what is done, one of the tasks above
  c.dry_run = False  # True: says what the command comes to and what it would take, and stops; nothing is written
  c.then = ''  # task that a search, or every search of a study, goes on with: 'retrain', of what it found, in the
  #              folder `retrain` of its run folder; '' for none
  c.then_changes = ''  # 'field=value field=value': what that task changes in its own defaults (`retraining`)
  c.genotype = ''  # retrain: a run folder, a genotype file, a published name or its notation; evaluate, predict: a run
  #                 folder
  c.images = ''  # predict: an image, or a folder of images at any depth
  c.max_hours = 0.0  # search, retrain: hours that it may take, with what follows; epochs are lowered to fit before it
  #                    starts, and it ends in time with what it has (runs/budget.py); 0 sets no limit. With several
  #                    seeds each has an equal share; of a study every run has all of it
  c.trust = ''  # paths of .py files, separated by commas, that may be executed although only a data file, such as a
  #               genotype.json, names them
  c.seed = 0  # root of all randomness: initialisation, xi, batch order, augmentation; below 2^32
  c.seeds = ()  # search: runs it with each of these, in workdir/seed_N, and takes one architecture of what they find
  #               (`choose`); `seed` counts for nothing then. () is one run, with `seed`
  c.choose = 'best'  # search with several seeds: 'best' takes the best of what they find by validation, each of them
  #                    with what follows (verbs/seeds.py); 'consensus' reads one architecture off the mean of their
  #                    distributions, which what follows is about (verbs/consensus.py)
  c.at_once = False  # search with several seeds: True runs them as one program, for a GPU or TPU that one small
  #                    supernet leaves idle (verbs/together.py)
  c.batch_size = 64  # images of one step, over all devices
  c.epochs = 1.0  # epochs of the search proper; 0 reads the architecture off the initial phi
  c.train_portion = placeholder(float)  # part of the training set that is trained on; the rest is the validation half.
  #                                       None: half for a search, all for a retraining
  c.dtype = 'float32'  # type the supernet computes in, 'float32' or 'bfloat16'; parameters stay float32
  c.remat = False  # search: True: the backward pass recomputes every cell; less memory, a forward pass more
  c.accumulate = 1  # search: parts that a batch goes through the supernet in, one after the other; BatchNorm sees one
  c.finalists = 0  # search: above 0, so many architectures, the most probable ones at its end, are trained from scratch
  #                 for a short time, and the one that validation images find best is taken (verbs/finalists.py)
  c.finalist_epochs = 4.0  # of each of them, at the search's width and depth, on the images that it trained on
  c.finalist_shrink = 1  # their images are the search's averaged over squares of so many pixels: 2 makes an epoch
  #                        some four times as fast; padding of the crop and cut-out shrink with them
  c.finalist_margin = 0.0  # points of validation accuracy by which another than the most probable must be better
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
  for field, kind in {**methods.field_types(), **OWN}.items():
    c.method[field] = placeholder(kind)  # documented in methods/; None takes the method's own default

  c.when = ConfigDict()  # {method, or method in space: {field: value}}: what a config file sets where these are the
  #                        chosen ones and the field, one whose default is None, has no other value (`words.when`)

  c.pretrain = ConfigDict()  # training of theta alone, before phi moves (the paper names the stage, not its length)
  c.pretrain.epochs = placeholder(float)  # None takes the method's default
  c.pretrain.sampling = 'noise'  # 'noise': softmax of xi alone; 'uniform': equal weights; 'single_path': random one-hot

  c.network = ConfigDict()  # task 'retrain': the network that the architecture becomes
  c.network.cells = 20  # as space.cells
  c.network.channels = 36  # as space.channels
  c.network.imagenet = False  # DARTS: True takes the stems and the auxiliary head for images of 224 pixels
  c.network.auxiliary = 0.4  # weight of the auxiliary head's loss; 0 leaves the head out
  c.network.drop_path = 0.2  # probability at the end of the ramp that an image loses a path
  c.label_smoothing = 0.0  # retrain: share of the target that is spread over all classes
  c.eval_epochs = 1.0  # retrain: every so many epochs the images that choose are evaluated, without any those for test
  c.eval_batch = 256  # images of one evaluation call
  c.measure_batches = (1, 64)  # batch sizes whose latency is measured after an evaluation

  c.theta = ConfigDict()  # optimiser of the supernet, or of the network that is retrained: SGD with momentum
  c.theta.lr = 0.025  # learning rate at the start
  c.theta.lr_end = 0.001  # at the end; 'linear_epoch' and 'step_epoch' have their own way and end
  c.theta.schedule = 'cosine'  # one of limits.SCHEDULES; the way from lr to lr_end
  c.theta.warmup = 0  # epochs of rising rate, half of all where there are no more; the schedules by epochs alone
  c.theta.momentum = 0.9  # share of the last step that the next one keeps
  c.theta.nesterov = False  # Nesterov's form of momentum
  c.theta.weight_decay = 3e-4  # L2, added to the gradient
  c.theta.clip = 5.0  # global norm of the gradient; 0 switches clipping off

  c.phi = ConfigDict()  # optimiser of the method's own parameters; None takes the method's default
  c.phi.optimizer = placeholder(str)  # 'sgd' or 'adam'
  c.phi.lr = placeholder(float)  # at the first step of the search proper
  c.phi.lr_end = placeholder(float)  # where the rate goes from there; None: as lr, where lr is given
  c.phi.steps = placeholder(int)  # length of a search, in steps, that the rates are meant for: with another they go in
  #                                 inverse proportion; 0: they are as they are; None: 0 where lr is given
  c.phi.schedule = placeholder(str)  # the way from lr to lr_end: 'linear', or 'exponential' (by equal factors)
  c.phi.fall = placeholder(float)  # the last part of the search, 0 to 1, in which the rate falls to 0
  c.phi.until = placeholder(float)  # the part of the search after which phi stands still; the rate falls before
  c.phi.momentum = placeholder(float)  # of Adam: beta 1
  c.phi.weight_decay = placeholder(float)  # L2, added to the gradient
  c.phi.eps = placeholder(float)  # of Adam: added to what it divides by
  c.phi.clip = 0.0  # as theta.clip
  c.phi.graph_lr = 3e-4  # NAS-Bench-1Shot1: rate of the Adam that moves the graph beside phi; this is the benchmark's
  c.phi.graph_weight_decay = 1e-3  # its L2, added to the gradient, the benchmark's
  c.phi.graph_noise = 0.0  # standard deviation of noise that the graph's rows take in every step, as xi; 0: none
  c.phi.graph_sets = False  # True: it mixes inputs by how probable they are among those kept; False: by softmax

  c.data = ConfigDict()
  c.data.name = 'cifar10'  # one of data.NAMES, or the path of a .py file with data of your own (data/userdata.py)
  c.data.dir = ''  # where the data lies: a TFDS data dir, an archive or its folder
  c.data.download = False  # whether a missing official archive may be downloaded into data.dir
  c.data.split = ''  # a split file of NAS-Bench-201 (data/splits.py), which then says what a search validates with,
  #                    not train_portion; '' for none
  c.data.limit = 0  # search, retrain: use only so many training images, and of those that choose a state; 0 uses
  #                   all. Of a folder, every class in its share
  c.data.image_size = 16  # side of the images of 'synthetic'; to which those of 'folder' are brought, and those of
  #                         'tfds/NAME' where they have many sizes: images of one size stay as they are
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
  c.data.cutout = 0  # side of the square that is cut out, an odd one less a pixel, as DARTS cuts; 0 switches it off
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
