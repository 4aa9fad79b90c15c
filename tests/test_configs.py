"""Every configuration that comes with the package, and every space: a step of each, and among the slow tests a run."""

import importlib
import pathlib

import jax
import numpy as np
import pytest
from conftest import ROOT, SLOW
from PIL import Image
from processes import run

from configs import darts_c10, nb201_c10, simplified_c10
from vimnas_jax import api, data, methods, spaces
from vimnas_jax import config as config_lib
from vimnas_jax.errors import UserError
from vimnas_jax.files import flatten
from vimnas_jax.networks import genotypes
from vimnas_jax.runs import loop, metrics, parallel
from vimnas_jax.verbs import retrain, search, study

OF_A_NETWORK = ('evaluate', 'predict')  # what they need a trained network for is in test_predict.py and test_sizing.py
CONFIGS = sorted(p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem not in OF_A_NETWORK)
SPACES = ['oneshot_c10:space2,decided', 'oneshot_c10:space3', 'simplified_c10:s3', 'simplified_c10:s4']  # s2: ablation


def smoke(config, tmp_path):
  """What follows --config= for a run of seconds, and fields beside, {field: value}."""
  config, _, space = config.partition(':')
  name = f'configs/{config}.py:smoke' + (space and f',{space}')
  wide = 'retrain_c10', 'retrain_simplified', 'retrain_imagenet'  # the auxiliary head and the stems want it
  side = 32 if config in wide else 8
  if config in ('retrain_imagenet', 'darts_imagenet'):  # photographs, of many sizes
    for i in range(40):
      path = tmp_path / 'data' / ('ant', 'bee')[i % 2] / f'{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new('RGB', (30 + i, 70 - i), (40 * (i % 2), 6 * i, 90)).save(path)
    return name, {'data.dir': f'{tmp_path}/data'}
  if config == 'quickstart':
    return name, {}
  return name, {'data.name': 'synthetic', 'data.image_size': side, 'data.num_train': 32, 'batch_size': 8,
                'space.channels': 4}  # the least of the kernels


@SLOW
@pytest.mark.parametrize('config', CONFIGS + SPACES)
def test_every_config_and_space_has_a_smoke_run(tmp_path, config):
  """That of quickstart is every day's in test_retrain.py."""
  name, fields = smoke(config, tmp_path)
  flags = [f'--config={name}', *(f'--config.{field}={value}' for field, value in fields.items())]
  code, out = run(tmp_path / 'run', tiny=flags)
  assert code == 0 and ('test accuracy' if config.startswith('retrain') else 'one-hotness') in out, out


class Silent(metrics.Console):
  def say(self, text):
    assert '\n' not in text


def traced(config, folder, monkeypatch, genotype=None):
  """The search or retraining of `config`, whose step has been traced with the batch that it would take as its second.

  The step gives back a state such as it took. `genotype` is what a retraining trains, if not the config's.
  """
  seen = []

  def advance(asked, now, *_):
    for at in {asked.step(at): at for at in range(1, asked.total)}.values():  # a step of every stage
      state = now if asked.before is None else run.abstract(at + 1)  # of its own supernet, where that grows
      after, values = jax.eval_shape(asked.step(at), state, asked.held, asked.index(at))
      jax.tree.map(lambda a, b: None if (a.shape, a.dtype) == (b.shape, b.dtype) else pytest.fail(f'{a} {b}'), state,
                   after)
    seen.append(values)
    return after, 0.0

  monkeypatch.setattr(loop, 'advance', advance)
  loaded, space = data.get(config.data), spaces.get(config.space.name)
  if config.task == 'search':
    run = search.prepared(config, loaded, Silent())
  else:
    genotype = genotype or genotypes.resolve(config.genotype, space, genotypes.trusted(config))
    run = retrain.Training(config, space, genotype, loaded, parallel.mesh(config.devices, config.batch_size))
  if config.epochs:  # random cells take no step
    run.finished = lambda now: False  # what has no numbers cannot say
    run.advance(run.abstract().replace(step=np.ones((), np.int32)), folder, None, Silent(), None)
    (values,) = seen
    assert values['loss'].shape == values['accuracy'].shape == ()
  return run


# More members, or spaces, of what others trace.
LONG = ('ablation_darts', 'compare_simplified', 'compare_nb201', 'compare_all', 'oneshot_c10:space2,decided',
        'oneshot_c10:space3', 'darts_c10', 'simplified_c10:s3', 'folder')


@pytest.mark.parametrize('config', [pytest.param(config, marks=SLOW) if config in LONG else config
                                    for config in CONFIGS + SPACES])
def test_every_config_and_space_has_a_step(tmp_path, monkeypatch, config):
  """Of the smoke run, which is traced and neither compiled nor run, and of the retraining that may follow."""
  name, fields = smoke(config, tmp_path)
  path, _, words = name.partition(':')
  asked = importlib.import_module(f'configs.{pathlib.Path(path).stem}').get_config(words)
  unknown = flatten(asked.to_dict()).keys() - flatten(config_lib.defaults().to_dict()).keys()
  assert not [field for field in unknown if not field.startswith('when.')]  # a file may misspell one unnoticed
  # of 8 channels, whose kernels most tests share
  asked.update_from_flattened_dict(fields | {'devices': 1, 'space.channels': 8, 'network.channels': 8})
  asked.then_changes = asked.then_changes.replace('network.channels=4', 'network.channels=8')
  asked, _ = api.sized(asked)
  if asked.task == 'study':
    runs = [own for _, _, *both in study.members(asked, tmp_path) for own in both]
  else:
    runs = [config_lib.resolve(asked)]
    runs.append(config_lib.following(asked, asked.then_changes, tmp_path) if asked.then else None)
  found = None
  for own in filter(None, runs):
    if own.task == 'search' and methods.get(own.method).asks == 'benchmark':
      with pytest.raises(UserError, match="not of config.data.name='synthetic'"):  # no table knows these images
        search.prepared(own, data.get(own.data), Silent())
      continue
    run = traced(own, tmp_path, monkeypatch, found)
    if own.task == 'search':
      shapes = {name: cell.shape for name, cell in run.space.cells.items()}
      shapes |= {row: (1, count) for row, count in run.space.choices.items()}
      probs = {name: np.random.default_rng(0).dirichlet(np.ones(shape[-1]), shape[0]) for name, shape in shapes.items()}
      found = run.space.validate(run.space.genotype(probs))


@pytest.mark.parametrize('of', [nb201_c10, darts_c10, simplified_c10])
def test_half_searches_on_smaller_images_and_trains_on_whole_ones(of):
  asked = of.get_config('half')
  asked.then = 'retrain'
  config, whole = config_lib.resolve(asked), config_lib.resolve(of.get_config())
  assert (config.data.shrink, config.data.pad) == (2, 2)
  for mine in ('', 'epochs=50'):  # what a user changes beside them leaves the images whole
    following = config_lib.following(config_lib.changed(asked, f"then_changes='{mine}'"), mine, 'runs/x')
    assert (following.data.shrink, following.data.pad, following.epochs == 50) == (1, 4, bool(mine))
  following = config_lib.following(asked, 'data.shrink=2 data.pad=1', 'runs/x')
  assert (following.data.shrink, following.data.pad) == (2, 1)
  config.data.shrink, config.data.pad = 1, 4
  assert config.to_dict() == whole.to_dict()
  assert whole.pretrain.epochs == (3.0 if of is nb201_c10 else 0.0)  # elsewhere an older theta asks for pools
