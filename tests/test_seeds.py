import itertools
import json

import pytest
from conftest import ONE_EDGE, SLOW, one_line

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import data, files, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.runs import loop, runfolder
from vimnas_jax.verbs import export, records, report, retrain, seeds, study


@pytest.fixture
def tiny():
  c = config_lib.defaults()
  c.data.name, c.data.image_size, c.data.num_train, c.supernet_images = 'synthetic', 8, 32, 16
  c.space.name, c.space.cells, c.space.channels, c.batch_size, c.log_steps = ONE_EDGE, 1, 8, 8, 1
  c.devices, c.seeds, c.method.variant, c.method.samples, c.trust = 1, (0, 3), 'small', 2, ONE_EDGE
  return c


@SLOW
def test_every_seed_is_searched_and_the_best_by_validation_lies_on_top(tiny, tmp_path, monkeypatch):
  result = vimnas_jax.search(tiny, tmp_path)
  alone = {seed: json.loads((tmp_path / f'seed_{seed}' / 'result.json').read_text()) for seed in (0, 3)}
  assert all(found['seed'] == seed and found['supernet']['images'] == 16 for seed, found in alone.items())
  figures = [alone[seed]['supernet']['derived'] for seed in (0, 3)]
  best = (0, 3)[figures.index(max(figures))]
  assert [row['chosen_by'] for row in result['per_seed']] == result['chosen_by']['values'] == figures
  assert result['seed'] == best and result['genotype'] == alone[best]['genotype']
  assert 'validation images' in result['rule'] and result['agreement'] in (0.0, 1.0)
  top, own = ((at / 'genotype.json').read_bytes() for at in (tmp_path, tmp_path / f'seed_{best}'))
  assert top == own and json.loads((tmp_path / 'result.json').read_text()) == json.loads(json.dumps(result))
  text = (tmp_path / 'seeds.md').read_text()
  assert f'Seed {best} is the best' in text and f'**{best}**' in text and f'{figures[1]:.2f}' in text
  held = json.loads((tmp_path / 'seed_0' / 'config.json').read_text())['config']
  assert 'seeds' not in held and held['seed'] == 0

  kept = tmp_path / 'seed_3' / 'result.json'  # goes on: what is finished is not run again, what is not is
  before, mtime = kept.read_bytes(), kept.stat().st_mtime_ns
  (tmp_path / 'seed_0' / 'result.json').unlink()
  again = vimnas_jax.search(tiny, tmp_path)
  assert kept.read_bytes() == before and kept.stat().st_mtime_ns == mtime
  assert {**again, 'over_seeds': 0} == {**result, 'over_seeds': 0}

  one = config_lib.changed(tiny, 'seeds=()')
  with pytest.raises(UserError, match='several seeds'):
    vimnas_jax.search(one, tmp_path)
  with pytest.raises(UserError, match='with one seed'):
    vimnas_jax.search(tiny, tmp_path / 'seed_0')
  with pytest.raises(UserError, match='batch_size=8, not 4'):
    vimnas_jax.search(config_lib.changed(tiny, 'batch_size=4'), tmp_path)
  (tmp_path / 'seed_0' / 'result.json').unlink()
  with pytest.raises(UserError, match='other data'):  # the finished seed 3 had others than seed 0 would have now
    monkeypatch.setattr(data.Data, 'fingerprint', lambda self: 'another')
    vimnas_jax.search(tiny, tmp_path)


def test_the_best_lies_on_top_and_the_first_of_equals_is_taken(tiny, tmp_path, monkeypatch):
  """What the runs leave is written here, not searched."""
  figures, space = {0: 40.0, 3: 60.0, 5: 60.0}, spaces.get('nb201')
  cells = dict(zip(figures, itertools.islice(spaces.nb201.everything(), 3)))
  tiny.space.name, tiny.seeds = 'nb201', tuple(figures)

  def done(runs, folder, *_):
    for run in runs:
      seed = run.searched.seed
      runfolder.write_config(folder / run.where, run.searched, 'data')
      files.write(folder / run.where / 'genotype.json', cells[seed].to_json() + '\n')
      files.write_json(folder / run.where / 'result.json', {
          'space': 'nb201', 'method': 'vimnas', 'data': 'synthetic', 'genotype': space.write(cells[seed]), 'seed': seed,
          'steps': 1, 'pretrain_steps': 0, 'unchanged_steps': 0, 'params': 7, 'one_hot': 1.0, 'epochs': 1.0,
          'supernet': {'images': 16, 'mixed': 99.0 - figures[seed], 'derived': figures[seed]}})
    return True

  for seed in figures:
    (tmp_path / f'seed_{seed}').mkdir()
  monkeypatch.setattr(study, 'carry_out', done)
  monkeypatch.setattr(report, 'across', lambda *_: {'x': {'agreement': 0.5}})
  result = seeds.search(tiny, tmp_path, 'told by a program')
  assert result['seed'] == 3 and result['genotype'] == space.write(cells[3]) and result['agreement'] == 0.5
  assert result['chosen_by'] == {**result['chosen_by'], 'values': [40.0, 60.0, 60.0], 'mean': 160 / 3}
  assert (tmp_path / 'genotype.json').read_text() == cells[3].to_json() + '\n'
  text = (tmp_path / 'seeds.md').read_text()
  assert 'Seed 3 is the best' in text and '| 53.33 ± 11.55 |' in text and '50 % of the edges' in text
  assert result['command'] == 'told by a program'
  with pytest.raises(UserError, match='several seeds'):
    runfolder.check(tmp_path, config_lib.resolve(config_lib.changed(tiny, 'seeds=()')))
  (tmp_path / 'seed_5' / 'result.json').unlink()
  monkeypatch.setattr(study, 'carry_out', lambda *_: True)
  text = (tmp_path / 'seed_0' / 'result.json').read_text()
  (tmp_path / 'seed_5' / 'result.json').write_text(text.replace('derived', 'x'))
  with pytest.raises(UserError, match='seed_5: result.json lacks the accuracy'):
    seeds.search(tiny, tmp_path)


def test_the_network_of_another_architecture_is_not_counted_for_what_was_found_since(tiny, tmp_path, monkeypatch):
  """As where finalists were asked of a search whose network had been trained."""
  space, (one, other) = spaces.get('nb201'), itertools.islice(spaces.nb201.everything(), 2)
  tiny.space.name, tiny.seeds, tiny.then, tiny.supernet_images = 'nb201', (0,), 'retrain', 0
  tiny.data.validation = 0.25
  tiny.train_portion = 0.5
  place = tmp_path / 'seed_0'
  for folder, genotype in ((place, other), (place / 'retrain', one)):
    (folder / 'export').mkdir(parents=True)
    files.write(folder / 'genotype.json', genotype.to_json() + '\n')
  (place / 'export').rmdir()
  assert not runfolder.follows(place) and runfolder.follows(tmp_path)
  monkeypatch.setattr(runfolder, 'finished', lambda *_: True)
  with pytest.raises(UserError, match='another architecture than its search has found since: move it away') as e:
    seeds.search(tiny, tmp_path)
  one_line(e)
  with pytest.raises(UserError, match='another architecture than its search has found since: give that folder'):
    export.locate(place)
  with pytest.raises(UserError, match='the same command trains this one'):
    retrain._same_architecture(place / 'retrain', space, other)
  files.write_json(place / 'config.json', {'config': {}})
  result = {'space': 'nb201', 'method': 'vimnas', 'data': 'synthetic', 'genotype': space.write(other), 'seed': 0,
            'steps': 1, 'pretrain_steps': 0, 'unchanged_steps': 0, 'params': 7, 'one_hot': 1.0, 'epochs': 1.0}
  files.write_json(place / 'result.json', result)
  files.write_json(place / 'retrain' / 'result.json', {'params': 7, 'test_top1': 91.0})
  assert 'retrained' not in records.read([place])[0].result
  files.write(place / 'genotype.json', one.to_json() + '\n')
  assert records.read([place])[0].result['retrained']['test_top1'] == 91


def test_a_stop_ends_all_and_hours_are_shared(tiny, tmp_path, monkeypatch):
  calls = []

  def stopped(run, folder, *rest):
    calls.append(folder.name)
    return None

  with monkeypatch.context() as patch:
    patch.setattr(loop, 'to_the_end', stopped)
    assert seeds.search(tiny, tmp_path) is None and calls == ['seed_0']
  tmp_path /= 'limited'
  runs, rule = seeds.planned(config_lib.changed(tiny, 'max_hours=3.0'), tmp_path, 'python -m x --workdir=y')
  assert [run.searched.max_hours for run in runs] == [1.5, 1.5] and [run.searched.seed for run in runs] == [0, 3]
  assert runs[1].command == (f"python -m x --config.task=search '--config.seeds=()' --config.seed=3 "
                             f'--config.max_hours=1.5 --workdir={tmp_path}/seed_3')
  (tmp_path / 'seed_0').mkdir(parents=True)
  files.write_json(tmp_path / 'seed_0' / 'config.json', {'config': {'max_hours': 1.5}})
  runs, _ = seeds.planned(config_lib.changed(tiny, 'max_hours=3.0 seeds=(0,3,5)'), tmp_path, 'told by a program')
  assert [run.searched.max_hours for run in runs] == [1.5, 1.0, 1.0]  # a seed more, and what has begun goes on


@SLOW
def test_with_a_retraining_its_validation_chooses_and_its_export_lies_on_top(tiny, tmp_path):
  tiny.then, tiny.supernet_images, tiny.data.validation, tiny.data.num_train = 'retrain', 0, 0.25, 64
  tiny.then_changes = 'network.cells=1 network.channels=8 epochs=1 batch_size=8 measure_batches=() eval_batch=32'
  result = vimnas_jax.search(tiny, tmp_path)
  trained = [json.loads((tmp_path / f'seed_{seed}' / 'retrain' / 'result.json').read_text()) for seed in (0, 3)]
  assert result['chosen_by']['values'] == [row['chosen']['valid_top1'] for row in trained]
  assert [row['test_top1'] for row in result['per_seed']] == [row['test_top1'] for row in trained]
  best = tmp_path / f'seed_{result["seed"]}' / 'retrain' / 'export'
  assert {p.name: p.read_bytes() for p in best.iterdir()} == {p.name: p.read_bytes()
                                                            for p in (tmp_path / 'export').iterdir()}
  model = vimnas_jax.load(tmp_path, [tmp_path / 'export' / 'space.py'])
  assert spaces.get(ONE_EDGE).write(model.genotype) == result['genotype']
  c = config_lib.changed(tiny, f'seeds=() task=evaluate genotype={tmp_path} measure_batches=()')
  assert vimnas_jax.evaluate(c, tmp_path / 'e')['test_top1'] == result['per_seed'][
      (0, 3).index(result['seed'])]['test_top1']


def test_what_chooses_is_never_a_test_figure(tiny, tmp_path):
  def words(changes):
    return seeds.planned(config_lib.changed(tiny, changes), tmp_path, '')[1]

  rule = words('')
  assert rule.of({'supernet': {'mixed': 1.0, 'derived': 2.0}}) == 2.0 and 'supernet' in rule.words
  table = words('space.name=nb201 data.name=cifar10 supernet_images=0')
  assert 'NAS-Bench-201' in table.words and table.of({'oracle': {'cifar10': {'valid': 91.0, 'test': 0.0}}}) == 91.0
  assert 'supernet' in words('space.name=nb201 data.name=cifar10 data.shrink=2').words  # its images are others
  assert 'supernet' in words('space.name=nb201').words  # its data are others
  assert 'supernet' in words('then=retrain').words  # that is tested, not validated
  kept = words('then=retrain data.validation=0.2')
  assert kept.of({'retrained': {'test_top1': 0.0, 'chosen': {'valid_top1': 3.0}}}) == 3.0
  part = words("then=retrain then_changes='train_portion=0.8'")
  assert part.of({'retrained': {'valid_top1': 4.0}}) == 4.0
  with pytest.raises(UserError, match=r'config\.seeds: nothing tells.*supernet_images=1000'):
    words('supernet_images=0')
  with pytest.raises(UserError, match='or fewer where .*train_portion=0.5, as all are trained on'):
    words('supernet_images=0 train_portion=1.0')


@pytest.mark.parametrize('changes, word', [
    ('seeds=(0,0)', 'seeds: 0 stands there twice'), ('seeds=(-1,)', '-1 is no whole number'),
    ("seeds=\"(1,'a')\"", "'a' is no whole number"), ('seeds=(1.5,)', '1.5 is no whole number'),
    ('seeds=(True,)', 'True is no whole number'),
    (f'seeds=({2**32},)', f'{2**32} is no whole number from 0 to {2**32 - 1}'),
    ('task=study', 'set config.study.seeds'), ('task=retrain', 'set config.seed')])
def test_bad_seeds_are_told_before_anything_runs(tiny, tmp_path, changes, word):
  c = config_lib.changed(tiny, changes)
  with pytest.raises(UserError, match=word) as error:
    config_lib.resolve(c)
  one_line(error)
  if c.task == 'search':
    with pytest.raises(UserError, match=word):
      vimnas_jax.search(c, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_run_by_itself_is_that_of_a_seed(tiny, tmp_path):
  """The configuration of a seed's run is that of the same search with that seed alone."""
  one = config_lib.resolve(config_lib.changed(tiny, 'seeds=() seed=3'))
  (_, run), _ = seeds.planned(tiny, tmp_path, '')
  assert run.searched.to_dict() == one.to_dict()
