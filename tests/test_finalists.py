"""config.finalists: some architectures of the distribution are trained for a short time, and one is taken."""

import itertools
import json
import pathlib

import markup
import numpy as np
import pytest
from conftest import ONE_EDGE, one_line

from vimnas_jax import config as config_lib
from vimnas_jax import data, spaces
from vimnas_jax.errors import Diverged, UserError
from vimnas_jax.runs import loop, metrics, parallel, runfolder, signals
from vimnas_jax.spaces import within
from vimnas_jax.verbs import finalists, pages, retrain, search, seeds


@pytest.fixture
def tiny():
  c = config_lib.defaults()
  c.data.name, c.data.image_size, c.data.num_train = 'synthetic', 8, 40
  c.space.name, c.space.cells, c.space.channels, c.batch_size, c.log_steps = ONE_EDGE, 1, 8, 8, 1
  c.devices, c.method.variant, c.method.samples, c.trust = 1, 'small', 2, ONE_EDGE
  c.finalists, c.finalist_epochs = 2, 2.0
  return c


@pytest.mark.parametrize('name', ['nb201', 'darts', 's1', 'simple'])
def test_the_most_probable_come_first(name):
  """In order, each once: all of a small space, and of NAS-Bench-201 what sorting every cell puts first."""
  space, rng = spaces.get(ONE_EDGE if name == 'simple' else name), np.random.default_rng(0)
  scores = {cell: rng.dirichlet(np.full(rows.shape[1], 0.3), rows.shape[0]) for cell, rows in space.cells.items()}
  count = 10_000 if name == 'simple' else 300
  found = list(itertools.islice(within.ranked(space, scores), count))
  shares = [np.prod([scores[cell][space.cells[cell].edges.index(tuple(edge))][
      space.cells[cell].ops[space.cells[cell].edges.index(tuple(edge))].index(op)]
      for cell, edges in g.cells.items() for op, *edge in edges]) for g in found]
  assert all(a >= b * (1 - 1e-9) for a, b in itertools.pairwise(shares))
  assert len({space.write(genotype) for genotype in found}) == len(found)
  assert space.write(found[0]) == space.write(space.genotype(scores))
  for genotype in found[:50]:
    assert space.read(space.write(genotype)).cells == genotype.cells
  if name == 'nb201':
    every = sorted((np.prod([scores['cell'][e, op] for e, op in enumerate(ops)])
                    for ops in itertools.product(range(5), repeat=6)), reverse=True)
    np.testing.assert_allclose(shares, every[:count], rtol=1e-9)
  if name == 'simple':
    assert len(found) == np.prod([len(ops) for cell in space.cells.values() for ops in cell.ops])


def test_another_than_the_first_must_be_better_by_the_margin(tiny, tmp_path, capsys, monkeypatch):
  assert finalists.taken([30.0, 32.0, 32.0], 0.0) == 1 and finalists.taken([30.0, 30.0], 0.0) == 0
  assert finalists.taken([30.0, 32.0, 33.0], 3.0) == 2 and finalists.taken([30.0, 32.9], 3.0) == 0
  figures = [30.0, 32.0, 30.0, 32.0]
  monkeypatch.setattr(retrain.evaluate.Scores, 'of', lambda *_: retrain.evaluate.Found(
      figures.pop(0), None, 1.0, np.eye(4, dtype=int), np.zeros(20, int)))
  tiny.finalist_margin = 3.0
  facts = search.search(config_lib.resolve(tiny), tmp_path)['finalists']
  assert facts['chosen'] == 1 and facts['margin'] == 3
  assert 'finalist 1 of 2, the most probable, which none beat by 3;' in capsys.readouterr().out
  told = ' '.join(' '.join(markup.Whole((tmp_path / 'report.html').read_text(), tmp_path).text).split())
  assert 'none is better than this one, the most probable, by 3 points' in told and 'right on most' not in told
  tiny.finalist_margin = 1.0  # another choice, without another training
  assert search.search(config_lib.resolve(tiny), tmp_path)['finalists']['chosen'] == 2 and len(figures) == 2
  assert 'its finalists are compared anew' in capsys.readouterr().out
  told = ' '.join(' '.join(markup.Whole((tmp_path / 'report.html').read_text(), tmp_path).text).split())
  assert 'this one is right on most validation images' in told


def test_finalists_on_smaller_images_are_those_of_a_search_on_smaller_images(tiny, tmp_path, capsys):
  """The images, the padding and the cut-out: trained by hand on shrunk data, a finalist has the same accuracy."""
  tiny.data.pad, tiny.data.cutout, tiny.finalist_shrink = 2, 4, 2
  config = config_lib.resolve(tiny)
  facts = search.search(config, tmp_path)['finalists']
  assert facts['shrink'] == 2 and 'on 20 images of 4x4' in capsys.readouterr().out
  told = ' '.join(' '.join(markup.Whole((tmp_path / 'report.html').read_text(), tmp_path).text).split())
  assert 'on images whose sides were divided by 2' in told
  training = finalists.training(config)
  assert (training.data.shrink, training.data.pad, training.data.cutout) == (2, 1, 2)
  loaded = data.get(training.data)
  assert loaded.image_shape[:2] == (4, 4)
  space = spaces.get(ONE_EDGE)
  run = finalists._Trial(training, space, space.read(facts['rows'][0]['genotype']), loaded,
                         parallel.mesh(1, training.batch_size), parts=data.halves(loaded, 0.5))
  (tmp_path / 'own').mkdir()
  with signals.Stop() as stop:
    loop.to_the_end(run, tmp_path / 'own', metrics.Console(), stop, lambda now, pace: {})
  own, row = (metrics.read(place / 'curve.jsonl')[-1] for place in (tmp_path / 'own', tmp_path / 'finalists' / '1'))
  assert (own['loss'], own['top1']) == (row['loss'], row['top1'])
  tiny.finalist_shrink = 1  # asked of the search that is over, they are others
  with pytest.raises(UserError, match='another finalist') as e:
    search.search(config_lib.resolve(tiny), tmp_path)
  assert 'finalists away' in one_line(e)


def test_the_best_by_validation_is_taken_and_all_are_told(tiny, tmp_path, capsys, monkeypatch):
  figures = iter([30.0, 40.0])
  monkeypatch.setattr(retrain.evaluate.Scores, 'of', lambda *_: retrain.evaluate.Found(
      next(figures), None, 1.0, np.eye(4, dtype=int), np.zeros(20, int)))
  result = search.search(config_lib.resolve(tiny), tmp_path)
  facts = result['finalists']
  assert [row['valid_top1'] for row in facts['rows']] == [30.0, 40.0] and facts['chosen'] == 2
  assert facts['epochs_in_all'] == 4 and facts['train_images'] == 20 and facts['valid_images'] == 20
  assert result['genotype'] == facts['rows'][1]['genotype'] != facts['rows'][0]['genotype']
  space = spaces.get(ONE_EDGE)
  assert (tmp_path / 'genotype.json').read_text().strip() == space.read(result['genotype']).to_json()
  probs = {name: np.array(rows) for name, rows in result['probs'].items()}
  assert space.write(space.genotype(probs)) == facts['rows'][0]['genotype']  # what the search gives without
  assert result['params'] == facts['rows'][1]['params']
  said = capsys.readouterr().out
  assert '30.00, 40.00 % of 20 validation images' in said and 'finalist 2 of 2, not the most probable' in said
  assert 'they cost 4 epochs of their networks' in said
  assert 'of 4 images' not in said  # the last of an epoch of 20 are left out
  page = markup.Whole((tmp_path / 'report.html').read_text(), tmp_path)
  assert '2, taken' in page.text and 'chose. So short a training' in ' '.join(page.text)
  again = search.search(config_lib.resolve(tiny), tmp_path)
  assert again == json.loads((tmp_path / 'result.json').read_text()) == json.loads(json.dumps(result))


def test_a_stop_among_finalists_loses_nothing(tiny, tmp_path, monkeypatch):
  """Stopped in the training of the second, the same command goes on there and ends as one that was left alone."""
  straight = search.search(config_lib.resolve(tiny), tmp_path / 'straight')
  stop, trained = signals.Stop(), []
  start = retrain.Training.start

  def starting(run):
    trained.append(run)
    stop.asked = stop.asked or len(trained) == 2
    return start(run)

  monkeypatch.setattr(retrain.Training, 'start', starting)
  assert search.search(config_lib.resolve(tiny), tmp_path / 'cut', stop=stop) is None and len(trained) == 2
  first = (tmp_path / 'cut' / 'finalists' / '1' / 'trained.json').stat().st_mtime_ns
  assert not (tmp_path / 'cut' / 'result.json').exists()
  resumed = search.search(config_lib.resolve(tiny), tmp_path / 'cut')
  assert (tmp_path / 'cut' / 'finalists' / '1' / 'trained.json').stat().st_mtime_ns == first
  assert resumed['seconds_per_step'] > 0 and resumed['seconds_estimated'] is not None and resumed['bytes_per_step']
  for result in (straight, resumed):
    for row in result['finalists']['rows']:
      del row['seconds_per_step']
    del result['finalists']['seconds_estimated']
  assert resumed['finalists'] == straight['finalists'] and resumed['genotype'] == straight['genotype']


def test_a_finalist_that_diverges_is_out(tiny, tmp_path, monkeypatch):
  count = itertools.count()

  def advance(*args):
    if next(count) == 1:  # the search itself is 0
      raise Diverged('step 1: loss nan')
    return real(*args)

  real = loop.advance
  monkeypatch.setattr(loop, 'advance', advance)
  rows = search.search(config_lib.resolve(tiny), tmp_path)['finalists']['rows']
  assert rows[0]['valid_top1'] == 0 and rows[1]['valid_top1'] > 0


def test_a_distribution_that_has_decided_has_one_finalist(tiny, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(finalists, '_MOST', 0)
  facts = search.search(config_lib.resolve(tiny), tmp_path)['finalists']
  assert len(facts['rows']) == facts['chosen'] == 1 and facts['asked'] == 2 and facts['epochs_in_all'] == 2
  said = capsys.readouterr().out
  assert 'hold 1 different ones\n' in said and 'finalist 1 of 1; they cost' in said


def test_limits_are_kept_by_every_finalist():
  space = spaces.get('nb201')
  scores = {'cell': np.full((6, 5), 0.2)}
  light = lambda genotype: sum(op == 'nor_conv_3x3' for op, _, _ in genotype.cells['cell']) < 2  # noqa: E731
  first = space.genotype({'cell': np.eye(5)[[0] * 6]})
  found = finalists.leading(space, scores, first, 6, light)
  assert len(found) == 6 and found[0] == first and all(map(light, found))
  assert len({space.write(genotype) for genotype in found}) == 6


def test_an_architecture_with_its_edges_in_another_order_is_no_other_finalist():
  """Which of the two edges of a node is the stronger one may differ in what is read off and in what ranks the rest."""
  space, rng = spaces.get('darts'), np.random.default_rng(0)
  scores = {name: rng.random(cell.shape) for name, cell in space.cells.items()}
  best = space.genotype(scores)
  first = spaces.Genotype(best.space, {name: (edges[1], edges[0], *edges[2:]) for name, edges in best.cells.items()})
  found = finalists.leading(space, scores, first, 4)
  assert found[0] == first != best and best not in found and len({g.unordered for g in found}) == len(found) == 4


@pytest.mark.parametrize('changes, word', [
    ('finalists=1', 'give 2 or more'), ('finalists=-1', 'at least 0'), ('finalists=2 train_portion=1.0', '0.5'),
    ('finalists=2 finalist_epochs=0.1', 'of 2 steps trains none'), ('finalist_margin=-1.0', 'at least 0'),
    ('finalists=2 finalist_shrink=3', 'finalist_shrink=3 does not divide images of 8x8'),
    ('finalists=2 finalist_shrink=0', 'above 0'), ('finalist_shrink=-2', 'above 0'),
    ('finalists=2 finalist_shrink=8 space.name=nb201', 'finalist_shrink=8, of images of 8x8: images of 1 pixels'),
    ('finalists=2 method.name=pdarts method.variant=None method.samples=None', 'scores of its own'),
    ('finalists=2 max_hours=1.0 train_portion=1.0', 'max_hours=0 and config.train_portion=0.5'),
    ('finalists=2 max_hours=1.0', 'max_hours=1'),
    ('finalists=2 space.name=oneshot1', 'NAS-Bench-101'),
    ('finalists=2 method.name=rsps method.variant=None method.samples=None', 'trials of its own'),
    ('finalists=2 seeds=(0,1) choose=consensus supernet_images=8', 'mean of all seeds'),
    ('finalists=2 seeds=(0,1) at_once=True supernet_images=8', 'no finalists')])
def test_what_has_no_finalists_is_told_before_anything_runs(tiny, tmp_path, changes, word):
  c = config_lib.changed(tiny, changes)
  with pytest.raises(UserError) as e:
    if c.seeds:
      seeds.search(c, tmp_path)
    else:
      search.search(config_lib.resolve(c), tmp_path)
  assert word in one_line(e) and not list(tmp_path.iterdir())


def test_a_page_warns_less_where_images_have_chosen():
  space = spaces.get('nb201')
  result = {'steps': 500, 'unchanged_steps': 400, 'one_hot': 0.5, 'dead': {}}
  told = ' '.join(pages.checks.of_search(result, space, None))
  assert 'little better than a guess' in told
  told = ' '.join(pages.checks.of_search(result | {'finalists': {'rows': [{'valid_top1': 50.0}] * 2}}, space, None))
  assert 'little better than a guess' not in told and 'Validation images chose' in told


def test_of_seeds_that_of_the_best_finalist_is_taken(tiny, tmp_path):
  tiny.seeds, tiny.supernet_images = (0, 1), 8
  _, rule = seeds.planned(tiny, tmp_path, '')
  assert 'finalist' in rule.words
  assert rule.of({'finalists': {'chosen': 2, 'rows': [{'valid_top1': 90.0}, {'valid_top1': 91.0}]}}) == 91.0


def test_test_images_do_not_choose_where_search_parts_leave_train_portion_at_1(tiny, tmp_path, monkeypatch):
  tiny.train_portion, tiny.data.search_parts, tiny.data.num_test = 1.0, (0.5, 0.3), 7
  asked, of = [], retrain.evaluate.Scores.of
  monkeypatch.setattr(retrain.evaluate.Scores, 'of', lambda self, variables, split: asked.append(len(split)) or of(
      self, variables, split))
  facts = search.search(config_lib.resolve(tiny), tmp_path)['finalists']
  assert asked == [12, 12] and facts['valid_images'] == 12 and facts['train_images'] == 20


def test_finalists_are_trained_when_a_search_is_over_and_count_no_more_when_they_are_not_asked(tiny, tmp_path, capsys):
  tiny.finalists = 0
  before = search.search(config_lib.resolve(tiny), tmp_path)
  assert 'finalists' not in before
  tiny.finalists = 2
  result = search.search(config_lib.resolve(tiny), tmp_path)
  assert 'its finalists are trained now' in capsys.readouterr().out
  assert len(result['finalists']['rows']) == 2 and result['state_sha256'] == before['state_sha256']
  assert result['seconds_per_step'] == before['seconds_per_step']
  held = json.loads((tmp_path / 'config.json').read_text())['config']
  assert held['finalists'] == 2
  tiny.finalist_epochs = 3.0
  with pytest.raises(UserError, match='another finalist') as e:  # those of two epochs lie there
    search.search(config_lib.resolve(tiny), tmp_path)
  assert 'finalists away' in one_line(e)
  (tmp_path / 'finalists').rename(tmp_path / 'away')
  again = search.search(config_lib.resolve(tiny), tmp_path)
  assert again['finalists']['epochs'] == 3 and again['seconds_per_step'] == before['seconds_per_step']
  tiny.finalists = 0
  assert search.search(config_lib.resolve(tiny), tmp_path) == before
  assert json.loads((tmp_path / 'result.json').read_text()) == json.loads(json.dumps(before))


def test_a_finished_run_is_not_finished_where_other_finalists_are_asked(tiny, tmp_path):
  config = config_lib.resolve(tiny)
  runfolder.write_config(tmp_path, config, 'data')
  (tmp_path / 'result.json').write_text('{}')
  assert runfolder.finished(tmp_path, config)
  tiny.finalists = 3
  assert not runfolder.finished(tmp_path, config_lib.resolve(tiny))
  tiny.finalists, tiny.finalist_epochs = 0, 7.0
  assert not runfolder.finished(tmp_path, config_lib.resolve(tiny))


def test_the_folder_of_another_finalist_is_refused(tiny, tmp_path):
  (tmp_path / 'finalists' / '1').mkdir(parents=True)
  (tmp_path / 'finalists' / '1' / 'asked.json').write_text('{"genotype": "another"}')
  with pytest.raises(UserError, match='holds the training of another finalist'):
    search.search(config_lib.resolve(tiny), tmp_path)


def test_a_finalist_is_known_by_its_cells(tmp_path):
  """Not by the path of a space of one's own."""
  again = tmp_path / 'again.py'
  again.write_text(pathlib.Path(ONE_EDGE).read_text())

  def claim(path, op):
    space = spaces.get(str(path))
    genotype = space.genotype({'cell': np.eye(2)[[op]]})
    finalists._own(tmp_path / '1', space, {'genotype': space.write(genotype), 'epochs': 1})

  claim(ONE_EDGE, 0)
  claim(again, 0)
  with pytest.raises(UserError, match='another finalist'):
    claim(again, 1)
