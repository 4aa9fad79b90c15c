import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import markup
import numpy as np
import pytest
from conftest import ONE_EDGE, QUICK, ROOT, SLOW, Cut

from vimnas_jax import config as config_lib
from vimnas_jax import data
from vimnas_jax.errors import UserError
from vimnas_jax.runs import metrics
from vimnas_jax.verbs import evaluate, export, retrain

CELL = '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|'
STEPS = 24


def tiny(**fields):
  c = config_lib.defaults()
  c.space.name, c.data.name, c.data.image_size, c.data.num_train, c.data.num_test = 'nb201', 'synthetic', 8, 64, 37
  c = config_lib.retraining(c)
  c.genotype, c.epochs, c.batch_size, c.network.cells, c.network.channels = CELL, 3.0, 8, 1, 8
  c.eval_epochs, c.eval_batch, c.log_steps, c.checkpoint_steps, c.measure_batches = 1.0, 10, 1, 10, (2,)
  c.update_from_flattened_dict(fields)
  return config_lib.resolve(c)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp('trained')
  with pytest.MonkeyPatch.context() as patched:
    real = export.Model

    def model(space, genotype, net, variables, *args, **more):
      assert {type(leaf) for leaf in jax.tree.leaves(variables)} == {np.ndarray}  # latency is of one device
      return real(space, genotype, net, variables, *args, **more)

    patched.setattr(export, 'Model', model)
    return folder, retrain.retrain(tiny(), folder, 'the command')


def test_a_trained_network_is_evaluated_and_exported(trained):
  folder, result = trained
  assert {p.name for p in folder.iterdir()} == {
      'config.json', 'genotype.json', 'metrics.jsonl', 'curve.jsonl', 'checkpoints', 'export', 'result.json',
      'report.html', 'curve.png', 'confusion.png', 'cell_normal.png'}
  page = markup.read(folder)
  assert f'{result["test_top1"]:.2f} % of 37 test images' in page.said and 'the command' in page.said
  assert [value[:21] for name, value in page.attributes if name == 'src'][:1] == ['data:image/png;base64']
  assert {p.name for p in (folder / 'export').iterdir()} == set(export.FILES)
  assert result['steps'] == STEPS and result['genotype'] == CELL and result['command'] == 'the command'
  confusion = np.array(result['confusion'])
  assert confusion.sum() == result['test_images'] == 37  # no multiple of 10: every image once, none twice
  assert np.trace(confusion) / 37 * 100 == pytest.approx(result['test_top1'], abs=1e-3)
  curve = [json.loads(line) for line in (folder / 'curve.jsonl').read_text().splitlines()]
  assert [row['step'] for row in curve] == [8, 16, 24]
  assert curve[-1]['top1'] == pytest.approx(result['test_top1'], abs=1e-3)
  assert result['latency'][0]['batch'] == 2 and result['latency'][0]['milliseconds'] > 0


def test_scores_against_numpy():
  loaded = data.get(tiny().data)
  rng = np.random.default_rng(0)
  table = rng.normal(size=(256, 7)).round(1).astype(np.float32)  # rounded: with ties

  class Net:
    def apply(self, variables, images, train, rngs):
      return variables[(images[:, 0, 0, 0] * loaded.std[0] * 255 + loaded.mean[0] * 255).round().astype(int)]

  split = data.Split(rng.integers(0, 256, (23, 8, 8, 3), np.uint8), rng.integers(0, 7, 23).astype(np.int32))
  found = evaluate.Scores(Net(), loaded, 10).of(table, split)
  logits = table[split.images[:, 0, 0, 0]]
  order = np.argsort(-logits, 1, kind='stable')
  assert found.top1 == pytest.approx(100 * (order[:, 0] == split.labels).mean())
  assert found.top5 == pytest.approx(100 * (order[:, :5] == split.labels[:, None]).any(1).mean())
  shifted = logits - logits.max(1, keepdims=True)
  loss = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(23), split.labels]
  assert found.loss == pytest.approx(loss.mean(), rel=1e-5)
  want = np.zeros((7, 7), int)
  np.add.at(want, (split.labels, order[:, 0]), 1)
  np.testing.assert_array_equal(found.confusion, want)


def test_logits_that_are_no_numbers_are_no_hits():
  """Of no class, the first one neither."""
  class Net:
    def apply(self, variables, images, train, rngs):
      return jnp.full((len(images), 7), jnp.nan)

  split = data.Split(np.zeros((20, 8, 8, 3), np.uint8), np.arange(20, dtype=np.int32) % 7)
  found = evaluate.Scores(Net(), data.get(tiny().data), 10).of({}, split)
  assert (found.top1, found.top5) == (0, 0) and np.isnan(found.loss) and found.confusion.sum() == 20 == found.unknown


FLAGS = ['--config=configs/retrain_nb201_c10.py', f'--config.genotype={CELL}', '--config.data.name=synthetic',
         '--config.data.image_size=8', '--config.data.num_train=64', '--config.data.num_test=37', '--config.epochs=3',
         '--config.batch_size=8', '--config.network.cells=1', '--config.network.channels=8', '--config.eval_batch=10',
         '--config.log_steps=1', '--config.checkpoint_steps=5', '--config.measure_batches=(2,)']
ENV = {**os.environ, 'XLA_FLAGS': QUICK}


def run(workdir):
  return subprocess.Popen([sys.executable, '-m', 'vimnas_jax.main', *FLAGS, f'--workdir={workdir}'], cwd=ROOT, env=ENV,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('whole')
  process = run(folder)
  out = process.communicate(timeout=300)[0]
  assert process.returncode == 0, out
  return json.loads((folder / 'result.json').read_text())


@SLOW
def test_interrupted_here_equals_uninterrupted(trained, tmp_path, monkeypatch):
  """In the middle of epochs of eight steps: cut off after one, asked to stop in the next."""
  config, told = tiny(measure_batches=()), metrics.Console.step

  def step(self, at, *args):
    told(self, at, *args)
    if at == 11:
      raise Cut
    if at == 13:
      signal.raise_signal(signal.SIGTERM)

  with monkeypatch.context() as patched:
    patched.setattr(metrics.Console, 'step', step)
    with pytest.raises(Cut):
      retrain.retrain(config, tmp_path)
    patched.setattr(metrics.Console, 'step', lambda self, at, *args: at != 11 and step(self, at, *args))
    assert retrain.retrain(config, tmp_path) is None and not (tmp_path / 'result.json').exists()
  again = retrain.retrain(config, tmp_path)
  for field in ('state_sha256', 'confusion', 'test_loss'):
    assert again[field] == trained[1][field], field
  rows = [[json.loads(line)['loss'] for line in (at / 'metrics.jsonl').read_text().splitlines()]
          for at in (tmp_path, trained[0])]
  assert rows[0] == rows[1] and len(rows[0]) == STEPS


@SLOW
@pytest.mark.parametrize('cut', [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_equals_uninterrupted(whole, tmp_path, cut):
  """In the middle of an epoch of eight steps."""
  process, lines = run(tmp_path), tmp_path / 'metrics.jsonl'
  while process.poll() is None and not (lines.exists() and len(lines.read_text().splitlines()) >= 11):
    time.sleep(0.01)
  process.send_signal(cut)
  out = process.communicate(timeout=120)[0]
  assert not (tmp_path / 'result.json').exists(), out
  process = run(tmp_path)
  out = process.communicate(timeout=300)[0]
  assert process.returncode == 0 and 'resuming' in out, out
  again = json.loads((tmp_path / 'result.json').read_text())
  for field in ('state_sha256', 'confusion', 'test_loss'):
    assert again[field] == whole[field], field


@SLOW
def test_bfloat16_training_stays_near_float32(trained, tmp_path):
  """The same batches, rounded otherwise."""
  found = retrain.retrain(tiny(dtype='bfloat16'), tmp_path)
  assert json.loads((tmp_path / 'export' / 'model.json').read_text())['dtype'] == 'bfloat16'
  half, full = (np.array([json.loads(line)['loss'] for line in (at / 'metrics.jsonl').read_text().splitlines()])
                for at in (tmp_path, trained[0]))
  assert 0 < np.abs(half - full).mean() < 0.05 * full.mean()
  assert found['test_loss'] == pytest.approx(trained[1]['test_loss'], rel=0.1)


LOADER = '''
import sys, numpy as np
from vimnas_jax.verbs import export
images = np.load(sys.argv[2])
np.savez(sys.argv[3], model=export.read(sys.argv[1])(images), program=export.load_program(sys.argv[1])(images))
assert not [m for m in sys.modules if m.split('.')[0] in ('tensorflow_datasets', 'orbax', 'ml_collections', 'sklearn')]
'''


@SLOW
def test_a_fresh_process_gives_the_same_logits(trained, tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
  np.save(tmp_path / 'images.npy', images)
  paths = [str(p) for p in (trained[0] / 'export', tmp_path / 'images.npy', tmp_path / 'out.npz')]
  subprocess.run([sys.executable, '-c', LOADER, *paths], cwd=ROOT, check=True, timeout=300)
  found = np.load(paths[2])
  here = export.read(trained[0] / 'export')
  np.testing.assert_array_equal(found['model'], here(images))
  np.testing.assert_allclose(found['program'], found['model'], rtol=1e-5, atol=1e-6)
  assert here(images[:2]).shape == export.load_program(trained[0] / 'export')(images[:2]).shape == (2, 4)


def test_evaluate_repeats_the_figures_and_refuses_what_does_not_fit(trained, tmp_path):
  def config(**fields):
    return tiny(task='evaluate', genotype=str(trained[0]), measure_batches=(), **fields)

  result = evaluate.evaluate(config(), tmp_path / 'a')
  assert [result[k] for k in ('test_top1', 'confusion')] == [trained[1][k] for k in ('test_top1', 'confusion')]
  with pytest.raises(UserError, match='holds a run with'):
    evaluate.evaluate(config(), trained[0])
  for fields, word in (({'data.num_classes': 5}, "the class '4'"),
                       ({'data.image_size': 16}, 'set config.data.image_size=8')):
    with pytest.raises(UserError, match=word):
      evaluate.evaluate(config(**fields), tmp_path / 'b')
    assert not (tmp_path / 'b').exists()  # nothing is written by what is refused
  shutil.copytree(trained[0], tmp_path / 'moved')
  again = evaluate.evaluate(tiny(task='evaluate', genotype=f'{tmp_path}/moved/', measure_batches=()), tmp_path / 'a')
  assert again['confusion'] == result['confusion']  # the same network, whatever its folder is called
  assert result['classes'] == ['0', '1', '2', '3'] and result['test_top5'] is None


@pytest.mark.parametrize('fields, word', [
    ({'genotype': ''}, 'genotype'), ({'genotype': 'DARTS_V3'}, 'DARTS_V3'), ({'genotype': 'DARTS_V2'}, "'darts'"),
    ({'genotype': CELL.replace('skip_connect', 'sep_conv_3x3')}, 'sep_conv_3x3'), ({'data.image_size': 2}, '2'),
    ({'batch_size': 128}, '128'), ({'network.auxiliary': 0.4}, 'auxiliary')])
def test_bad_input(tmp_path, fields, word):
  with pytest.raises(UserError, match=word) as error:
    retrain.retrain(tiny(**fields), tmp_path)
  assert '\n' not in str(error.value)


def test_another_architecture_in_the_same_folder_is_refused(trained):
  other = CELL.replace('nor_conv_1x1', 'none')
  with pytest.raises(UserError, match='config.genotype'):
    retrain.retrain(tiny(genotype=other), trained[0])


@SLOW
@pytest.mark.parametrize('space, changes', [
    (ONE_EDGE, 'epochs=1 data.limit=1408 eval_batch=359 measure_batches=()'), ('nb201', 'epochs=8')])
def test_a_search_goes_on_to_an_exported_network(tmp_path, space, changes):
  """The first command of the README, in short, on real images: the handwritten digits."""
  out = subprocess.run(
      [sys.executable, '-m', 'vimnas_jax.main', '--config=configs/quickstart.py:smoke', '--config.then=retrain',
       f'--config.then_changes=network.cells=1 network.channels=8 batch_size=64 {changes}',
       f'--config.space.name={space}', '--config.space.channels=8', f'--workdir={tmp_path}'],
      cwd=ROOT, env=ENV, capture_output=True, text=True, check=False)
  assert out.returncode == 0 and 'one-hotness' in out.stdout, out.stdout + out.stderr
  found = json.loads((tmp_path / 'result.json').read_text())
  result = json.loads((tmp_path / 'retrain' / 'result.json').read_text())
  assert result['genotype'] == found['genotype'] and result['test_images'] == 359
  assert (tmp_path / 'retrain' / 'export' / 'network.jaxexport').exists()
