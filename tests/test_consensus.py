"""config.choose='consensus': one architecture of several seeds."""

import json
import pathlib

import markup
import numpy as np
import pytest
from conftest import ONE_EDGE, SLOW, one_line

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import files, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import cost
from vimnas_jax.runs import loop, runfolder
from vimnas_jax.verbs import consensus, plan, seeds, study


@pytest.fixture
def tiny():
  c = config_lib.defaults()
  c.data.name, c.data.image_size, c.data.num_train = 'synthetic', 8, 32
  c.space.name, c.space.cells, c.space.channels, c.batch_size, c.log_steps = ONE_EDGE, 1, 8, 8, 1
  c.devices, c.seeds, c.method.variant, c.method.samples, c.trust = 1, (0, 3), 'small', 2, ONE_EDGE
  c.choose = 'consensus'
  return c


def left(folder, config, seed, space, probs, **more):
  """What the run of a seed leaves, as far as a consensus reads it."""
  runfolder.write_config(folder, config, 'data')
  genotype = space.genotype(probs)
  files.write(folder / 'genotype.json', genotype.to_json() + '\n')
  files.write_json(folder / 'result.json', {
      'space': space.name, 'method': 'vimnas', 'data': 'synthetic', 'genotype': space.write(genotype), 'seed': seed,
      'steps': 1, 'pretrain_steps': 0, 'unchanged_steps': 0, 'params': 7, 'one_hot': 0.9, 'epochs': 1.0,
      'classes': ['a', 'b'], 'image_shape': [8, 8, 3],
      'probs': {name: p.tolist() for name, p in probs.items()}, **more})


def of_three(tiny, tmp_path, monkeypatch, space, rows, **more):
  """The result of three seeds whose distributions are `rows`, without any search."""
  tiny.space.name, tiny.seeds = space.name, (0, 3, 5)

  def done(runs, folder, *_):
    for run, probs in zip(runs, rows, strict=True):
      left(folder / run.where, run.searched, run.searched.seed, space, probs,
           **{name: values[run.searched.seed] for name, values in more.items()})
    return True

  for seed in tiny.seeds:
    (tmp_path / f'seed_{seed}').mkdir(parents=True, exist_ok=True)
    (tmp_path / f'seed_{seed}' / 'config.json').unlink(missing_ok=True)
  monkeypatch.setattr(study, 'carry_out', done)
  return seeds.search(tiny, tmp_path, 'told by a program')


def test_a_consensus_of_a_search_on_imagenet_has_the_size_of_its_network(tiny, tmp_path, monkeypatch):
  tiny.space.imagenet, tiny.space.cells, tiny.data.image_size = True, 3, 32
  space = spaces.get('darts')
  rows = [{name: np.full(cell.shape, 1 / cell.shape[1]) for name, cell in space.cells.items()}] * 3
  monkeypatch.setattr(consensus.pages, 'comparison', lambda *_: None)
  result = of_three(tiny, tmp_path, monkeypatch, space, rows, image_shape={seed: [32, 32, 3] for seed in (0, 3, 5)})
  size = {'cells': 3, 'channels': 8, 'num_classes': 2}
  of = cost.count(space.on_imagenet(), space.genotype(rows[0]), image_size=(32, 32), **size)
  assert (result['params'], result['madds']) == (of.params, of.madds)
  assert result['params'] != cost.count(space, space.genotype(rows[0]), image_size=(32, 32), **size).params


def near(space, ops, most=0.9):
  """A distribution of 'cell' that prefers the operations of indices `ops`."""
  shape = space.cells['cell'].shape
  probs = np.full(shape, (1 - most) / (shape[1] - 1))
  probs[np.arange(len(ops)), ops] = most
  return {'cell': probs}


def test_what_seeds_err_in_apart_the_others_outvote(tiny, tmp_path, monkeypatch):
  """Three seeds, each wrong on an edge of its own: no seed has the cell that all have."""
  space = spaces.get('nb201')
  right = np.array([3, 3, 3, 1, 3, 3])
  rows = [near(space, np.where(np.arange(6) == wrong, 0, right)) for wrong in (1, 3, 5)]
  result = of_three(tiny, tmp_path, monkeypatch, space, rows)
  told = space.write(space.genotype(near(space, right)))
  assert result['genotype'] == told and told not in [row['genotype'] for row in result['per_seed']]
  assert (tmp_path / 'genotype.json').read_text() == space.genotype(near(space, right)).to_json() + '\n'
  one_hot = (3 * 0.9 + 3 * (2 * 0.9 + 0.025) / 3) / 6
  assert abs(result['one_hot'] - one_hot) < 1e-4 and result['agreement'] == pytest.approx(4 / 6)
  assert result['params'] > 1000  # of the cell of all, not of a seed's
  assert json.loads((tmp_path / 'result.json').read_text()) == json.loads(json.dumps(result))
  text = (tmp_path / 'seeds.md').read_text()
  assert '| **all** |' in text and '[5](seed_5)' in text and '67 % of the edges' in text
  page = (tmp_path / 'report.html').read_text()
  assert told in page and 'Of all seeds.' in page and 'Found alone by' in page and 'flatters' not in page
  with pytest.raises(UserError, match='several seeds'):
    runfolder.check(tmp_path, config_lib.resolve(config_lib.changed(tiny, 'seeds=() choose=best')))

  (tmp_path / 'seed_5' / 'result.json').write_text(
      (tmp_path / 'seed_5' / 'result.json').read_text().replace('0.9', '"much"'))
  monkeypatch.setattr(study, 'carry_out', lambda *_: True)
  with pytest.raises(UserError, match='damaged'):
    seeds.search(tiny, tmp_path)


def test_a_seed_that_has_the_edges_in_another_order_has_found_it_alone(tiny, tmp_path, monkeypatch):
  """One seed is surer of another edge of a node than all are in the mean."""
  space, rows, tiny.space.cells = spaces.get('s2'), [], 3
  for sure in ((0.9, 0.8), (0.9, 0.8), (0.7, 0.8)):
    probs = np.full(space.cells['normal'].shape, 0.5)
    probs[:2, 1] = sure
    probs[:2, 0] = 1 - probs[:2, 1]
    rows.append({'normal': probs, 'reduce': probs})
  result = of_three(tiny, tmp_path, monkeypatch, space, rows)
  assert len({row['genotype'] for row in result['per_seed']}) == 2 and result['agreement'] == 1
  assert 'Found alone by 3 of 3 seeds' in markup.read(tmp_path).said


def test_an_export_of_another_architecture_goes_and_a_retraining_of_another_is_refused(tiny, tmp_path, monkeypatch):
  space, cells = spaces.get('nb201'), [near(spaces.get('nb201'), [op] * 6) for op in (3, 1)]
  (tmp_path / 'export').mkdir()
  of_three(tiny, tmp_path, monkeypatch, space, [cells[0]] * 3)
  assert not (tmp_path / 'export').exists()  # it was there before the genotype was
  network = tmp_path / 'retrain'
  (network / 'export').mkdir(parents=True)
  files.write(network / 'genotype.json', space.genotype(cells[0]).to_json() + '\n')
  files.write(network / 'export' / 'model.json', 'of the first')
  files.write_json(network / 'config.json', {'config': {'data': {'dir': 'of the training'}}})
  of_three(tiny, tmp_path, monkeypatch, space, [cells[0]] * 3)
  assert (tmp_path / 'export' / 'model.json').read_text() == 'of the first'
  about = files.read_json(tmp_path / 'config.json')  # an evaluation of the folder asks it for the images
  assert about == {'config': {'data': {'dir': 'of the training'}}, 'seeds': [0, 3, 5], 'choose': 'consensus'}
  before = (tmp_path / 'result.json').read_text()
  tiny.then = 'retrain'
  with pytest.raises(UserError, match='retrain holds the network of another.*move it away'):
    of_three(tiny, tmp_path, monkeypatch, space, [cells[1]] * 3)
  assert (tmp_path / 'result.json').read_text() == before  # and all is as it was
  tiny.then = ''
  result = of_three(tiny, tmp_path, monkeypatch, space, [cells[1]] * 3)
  assert result['genotype'] == space.write(space.genotype(cells[1])) and not (tmp_path / 'export').exists()
  assert (network / 'export').exists()


def test_a_network_of_the_same_edges_in_another_order_is_that_of_the_architecture(tiny, tmp_path, monkeypatch):
  """As where one more seed makes the other edge of a node the stronger one."""
  space, network, tiny.space.cells = spaces.get('s2'), tmp_path / 'retrain', 3
  probs = np.full(space.cells['normal'].shape, 0.5)
  probs[:2] = (0.2, 0.8), (0.1, 0.9)
  first = space.genotype(dict.fromkeys(space.cells, probs))
  (network / 'export').mkdir(parents=True)
  files.write(network / 'genotype.json', first.to_json() + '\n')
  files.write(network / 'export' / 'model.json', 'of the first')
  files.write_json(network / 'config.json', {'config': {}})
  probs[:2] = (0.1, 0.9), (0.2, 0.8)
  monkeypatch.setattr(consensus.report, 'across', lambda *_: {'all': {'agreement': 1.0}})
  tiny.then, asked = 'retrain', []
  monkeypatch.setattr(consensus.retrain, 'retrain', lambda config, folder, *_, **kwargs: asked.append(folder) or {})
  result = of_three(tiny, tmp_path, monkeypatch, space, [dict.fromkeys(space.cells, probs)] * 3)
  assert result['genotype'] == space.write(first) != space.write(space.genotype(dict.fromkeys(space.cells, probs)))
  assert asked == [network] and (tmp_path / 'genotype.json').read_text() == first.to_json() + '\n'
  assert (tmp_path / 'export' / 'model.json').read_text() == 'of the first'


def test_a_searched_graph_has_a_mean_too(tiny, tmp_path, monkeypatch):
  space = spaces.get('oneshot1')
  key = np.random.default_rng(0)

  def drawn():
    shapes = {name: cell.shape for name, cell in space.cells.items()}
    shapes |= {name: (1, count) for name, count in space.choices.items()}
    return {name: key.dirichlet(np.ones(shape[1]), shape[0]) for name, shape in shapes.items()}

  rows = [drawn() for _ in range(3)]
  result = of_three(tiny, tmp_path, monkeypatch, space, rows)
  mean = {name: np.mean([row[name] for row in rows], 0) for name in rows[0]}
  assert result['genotype'] == space.write(space.genotype(mean))


@SLOW
def test_searches_agree_and_the_network_of_all_is_trained(tiny, tmp_path, capsys):
  tiny.then, tiny.data.num_train = 'retrain', 64
  tiny.then_changes = 'network.cells=1 network.channels=8 epochs=1 batch_size=8 measure_batches=() eval_batch=32'
  result = vimnas_jax.search(tiny, tmp_path)
  rows = [json.loads((tmp_path / f'seed_{seed}' / 'result.json').read_text())['probs'] for seed in (0, 3)]
  mean = {name: np.mean([row[name] for row in rows], 0) for name in rows[0]}
  np.testing.assert_allclose(result['probs']['cell'], mean['cell'], atol=1e-5)
  space = spaces.get(ONE_EDGE)
  assert result['genotype'] == space.write(space.genotype(mean))
  assert not (tmp_path / 'seed_0' / 'retrain').exists()
  trained = json.loads((tmp_path / 'retrain' / 'result.json').read_text())
  assert trained['genotype'] == result['genotype'] and 'consensus      ' in capsys.readouterr().out
  assert vimnas_jax.load(tmp_path, [tmp_path / 'export' / 'space.py']).genotype == space.genotype(mean)
  assert result['retrained']['test_top1'] == trained['test_top1']
  page, text = ((tmp_path / name).read_text() for name in ('report.html', 'seeds.md'))
  assert 'Search with 2 seeds' in page and 'Test accuracy' in page and f'{trained["test_top1"]:.2f} %' in text
  kept = (tmp_path / 'retrain' / 'result.json').stat().st_mtime_ns
  assert vimnas_jax.search(tiny, tmp_path)['genotype'] == result['genotype']
  assert (tmp_path / 'retrain' / 'result.json').stat().st_mtime_ns == kept


def test_hours_are_shared_with_the_training_of_what_all_found(tiny, tmp_path):
  tiny = config_lib.changed(tiny, 'max_hours=3.0')
  assert [run.searched.max_hours for run in seeds.planned(tiny, tmp_path, '')[0]] == [1.5, 1.5]
  both = config_lib.changed(tiny, 'then=retrain')
  runs, rule = seeds.planned(both, tmp_path, '')
  assert rule is None and [run.searched.max_hours for run in runs] == [0.5, 0.5]
  assert [run.following for run in runs] == [None, None]
  following = consensus.following(both, tmp_path)
  assert following.max_hours == pytest.approx(2.0) and following.genotype == str(tmp_path)


def test_a_seed_of_a_consensus_is_the_run_by_itself(tiny, tmp_path):
  one = config_lib.resolve(config_lib.changed(tiny, 'seeds=() choose=best seed=3'))
  assert seeds.planned(tiny, tmp_path, '')[0][1].searched.to_dict() == one.to_dict()


@pytest.mark.parametrize('changes, says', [
    ('seeds=()', 'is for several seeds'), ('seeds=(4,)', 'is for several seeds'), ('choose=mean', 'choose one of best'),
    ('limit.params=1e5', 'config.limit.params=100000'), ('method.name=rsps', 'by trials'),
    ('method.name=pdarts', 'by scores'), ('choose=None', 'choose one of best'),
    ('task=study', 'is for the task search'), ('task=retrain', 'is for the task search'),
    ("then=retrain then_changes='epochs=-1'", 'epochs=-1')])
def test_what_has_no_consensus_is_told_before_anything_runs(tiny, tmp_path, changes, says):
  if 'method' in changes:
    tiny.method = config_lib.defaults().method
  with pytest.raises(UserError, match=says) as error:
    config = config_lib.changed(tiny, changes)
    config_lib.resolve(config)
    vimnas_jax.search(config, tmp_path / 'run')
  one_line(error)
  assert not (tmp_path / 'run').exists()




def test_a_dry_run_tells_the_training_too(tiny, tmp_path, monkeypatch):
  monkeypatch.setattr(plan, '_rehearse', lambda *_: loop.Rehearsed(1, 1.0, 1.0, None))
  told = plan.plan(config_lib.changed(tiny, 'then=retrain'), tmp_path / 'run')
  assert [(row['task'], pathlib.Path(row['workdir']).name) for row in told] == [
      ('search', 'seed_0'), ('search', 'seed_3'), ('retrain', 'retrain')]


def test_a_member_of_a_study_has_no_consensus(tiny, tmp_path):
  tiny.seeds, tiny.choose, tiny.study.members = (), 'best', ('a choose=consensus',)
  with pytest.raises(UserError, match="'a choose=consensus' sets choose"):
    list(study.members(tiny, tmp_path))
