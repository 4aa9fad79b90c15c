import os
import shutil
import subprocess
import sys
import threading

import pytest
from conftest import ROOT, one_line

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax import files
from vimnas_jax.errors import UserError
from vimnas_jax.runs import provenance, runfolder

HOLD = '''
import sys, time
from vimnas_jax.runs import runfolder
with runfolder.opened(sys.argv[1]) as folder:
  print('held', flush=True)
  time.sleep(60)
'''


def asked(**fields):
  c = config_lib.defaults()
  c.task, c.space.name, c.data.name = 'retrain', 'nb201', 'synthetic'
  c.update_from_flattened_dict(fields)
  return config_lib.resolve(c)


@pytest.mark.skipif(shutil.which('git') is None, reason='no git')
def test_the_revision_is_that_of_this_package_and_of_no_repository_around_it(tmp_path, monkeypatch):
  git = ['git', '-c', 'user.name=x', '-c', 'user.email=x', '-C', str(tmp_path)]
  place = tmp_path / 'site-packages' / 'provenance.py'
  place.parent.mkdir()
  for name in ('.gitignore', 'mine.txt'):
    (tmp_path / name).write_text('site-packages\n')
  for command in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'mine']):
    subprocess.run([*git, *command], check=True)
  place.write_text('')
  monkeypatch.setattr(provenance, '__file__', str(place))
  assert provenance.software(())['git'] is None
  subprocess.run([*git, 'add', '-f', str(place)], check=True)
  assert len(provenance.software(())['git'].partition('-')[0]) == 40


def test_what_a_kill_left_is_removed_and_files_of_others_are_not(tmp_path):
  for name in ('result.json.123.part', 'movie.mp4.part', 'cifar-10-python.tar.gz.part', '.part', 'a.x1.part'):
    (tmp_path / name).write_text('x')
  with runfolder.opened(tmp_path):
    pass
  assert sorted(path.name for path in tmp_path.iterdir()) == ['.part', 'a.x1.part', 'cifar-10-python.tar.gz.part',
                                                             'movie.mp4.part']


def test_a_folder_has_one_writer_and_its_lock_dies_with_the_process(tmp_path):
  other = subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path / 'a')], cwd=ROOT, stdout=subprocess.PIPE,
                           text=True)
  assert other.stdout.readline() == 'held\n'
  with pytest.raises(UserError, match=rf'in use by another run \(process {other.pid} on ') as error, \
      runfolder.opened(tmp_path / 'a'):
    pass
  one_line(error)
  other.kill()
  other.wait()
  other.stdout.close()
  with runfolder.opened(tmp_path / 'a'), pytest.raises(UserError, match='in use'), runfolder.opened(tmp_path / 'a'):
    pass  # nor has one process two
  assert (tmp_path / 'a').exists()  # made by the one that was killed


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path):
  with pytest.raises(ZeroDivisionError), runfolder.opened(tmp_path / 'a' / 'b'):
    1 / 0  # noqa: B018
  assert not list(tmp_path.iterdir())
  with runfolder.opened(tmp_path / 'a' / 'b') as folder:
    (folder / 'x').touch()
    (folder / 'result.json.77.part').touch()
  with runfolder.opened(tmp_path / 'a' / 'b') as folder:
    assert {p.name for p in folder.iterdir()} == {'x', '.lock'}
  assert {p.name for p in folder.iterdir()} == {'x'}


def test_folders_that_cannot_be(tmp_path):
  (tmp_path / 'file').touch()
  for place, word in ((tmp_path / 'file', 'cannot be written'), (tmp_path / 'file' / 'x', 'cannot be written'),
                      ('', 'no place'), (os.fsdecode(bytes(tmp_path) + b'/\xff'), 'UTF-8')):
    with pytest.raises(UserError, match=word) as error, runfolder.opened(place):
      pass
    one_line(error).encode()
  assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_identity_is_by_content(tmp_path):
  with runfolder.opened(tmp_path) as folder:
    runfolder.write_config(folder, asked(**{'data.dir': '/here'}), 'f', 'cell 1')
    runfolder.write_config(folder, asked(**{'data.dir': '/elsewhere', 'trust': 'a.py'}), 'f', 'cell 1')
    for config, fingerprint, genotype, word in ((asked(seed=1), 'f', 'cell 1', r'config.seed=0, not 1'),
                                                (asked(), 'g', 'cell 1', 'other data'),
                                                # as other images choose them, where nobody did
                                                (asked(**{'epochs': 7.0, 'data.pad': 3}), 'g', 'cell 1', 'other data'),
                                                (asked(**{'data.image_size': 7}), 'g', 'cell 1', 'data.image_size=16'),
                                                (asked(**{'data.dir': '/elsewhere', 'data.pad': 3}), 'f', 'cell 1',
                                                 r'not 3 \(its data lay in /here\)'),
                                                (asked(), 'f', 'cell 2', 'another architecture')):
      with pytest.raises(UserError, match=word) as error:
        runfolder.write_config(folder, config, fingerprint, genotype)
      one_line(error)


def test_another_method_or_space_is_told_before_what_follows_of_it(tmp_path):
  runfolder.write_config(tmp_path, asked(**{'task': 'search', 'method.name': 'darts', 'space.name': 'nb201'}), 'f')
  for space, method, word in (('nb201', 'vimnas', "config.method.name='darts', not 'vimnas'"),
                              ('darts', 'vimnas', "config.space.name='nb201', not 'darts'")):
    with pytest.raises(UserError, match=word):
      runfolder.check(tmp_path, asked(**{'task': 'search', 'method.name': method, 'space.name': space}))


def test_a_run_is_no_class_of_the_images_that_it_reads(tmp_path):
  """As where somebody is in the folder of the photographs, and `runs` would be a class of them."""
  photos = tmp_path / 'photos'
  for name in ('ant', 'bee'):
    (photos / name).mkdir(parents=True)
  (tmp_path / 'link').symlink_to(photos)
  config = asked(**{'data.name': 'folder', 'data.dir': str(tmp_path / 'link')})
  for place in (photos, photos / 'runs' / 'folder', photos / 'ant' / 'x'):
    with pytest.raises(UserError, match='photos, where every folder is a class of images: give another --workdir') as e:
      runfolder.as_begun(place, config)
    one_line(e)
    runfolder.check_apart(place, asked(**{'data.dir': str(photos)}))  # which is of another kind
  for place in (tmp_path / 'runs', photos / '.runs' / 'x'):
    runfolder.check_apart(place, config)
  for name in ('Train', 'test'):
    (photos / name).mkdir()
  runfolder.check_apart(photos / 'runs', config)  # beside the parts nothing is read
  with pytest.raises(UserError, match='photos/Train, where every folder is a class'):
    runfolder.check_apart(photos / 'Train' / 'x', config)


def test_a_run_older_than_a_field_had_what_was_done_then(tmp_path):
  for name, part, field, was in (('vimnas', 'phi', 'until', '1.0'), ('vimnas', 'method', 'bound', '0.0'),
                                 ('data', 'method', 'reg', '0.0')):
    config = asked(**{'task': 'search', 'phi.until': 0.8, 'method.name': name})
    (tmp_path / 'config.json').unlink(missing_ok=True)
    runfolder.write_config(tmp_path, config, 'f')
    older = files.read_json(tmp_path / 'config.json', '')
    del older['config'][part][field]
    files.write_json(tmp_path / 'config.json', older)
    with pytest.raises(UserError, match=rf'config\.{part}\.{field}={was}, not '):
      runfolder.check(tmp_path, config)


@pytest.mark.parametrize('name, words', [('report.json', 'a comparison'), ('predictions.csv', 'predictions')])
def test_no_run_is_written_over_a_report_or_predictions(tmp_path, name, words):
  """The page of one would be destroyed, and what wrote the folder be locked out by the run's config.json."""
  c = config_lib.defaults()
  c.space.name, c.data.name, c.genotype = 'nb201', 'synthetic', str(tmp_path)
  several = config_lib.changed(c, 'seeds=(0,1) supernet_images=8')
  for path in (tmp_path / name, tmp_path / 'report.html'):
    path.write_text('its own')
  for ask in (lambda: vimnas_jax.search(c, tmp_path), lambda: vimnas_jax.search(several, tmp_path),
              lambda: vimnas_jax.plan(c, tmp_path), lambda: vimnas_jax.plan(several, tmp_path),
              lambda: vimnas_jax.retrain(c, tmp_path), lambda: vimnas_jax.evaluate(c, tmp_path),
              lambda: runfolder.write_config(tmp_path, asked(), 'f')):
    with pytest.raises(UserError, match=f'holds {words} .*: give another --workdir') as error:
      ask()
    one_line(error)
  assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: 'its own', 'report.html': 'its own'}
  for mine in ('report.json', 'predictions.csv'):  # which are written anew, each over its own
    if mine == name:
      runfolder.check_free(tmp_path, mine)
    else:
      with pytest.raises(UserError, match=f'holds {words}'):
        runfolder.check_free(tmp_path, mine)
  (tmp_path / 'seed_0').mkdir()
  runfolder.write_config(tmp_path / 'seed_0', asked(), 'f')  # a study's members lie below its report
  (tmp_path / 'config.json').write_text('{"config": {}, "data_fingerprint": "f"}')
  runfolder.check_vacant(tmp_path)  # several seeds have a report beside theirs


OWN = (ROOT / 'examples' / 'two_nodes.py')


def test_a_space_of_ones_own_may_lie_elsewhere(tmp_path):
  moved, edited = tmp_path / 'moved.py', tmp_path / 'edited.py'
  moved.write_bytes(OWN.read_bytes())
  edited.write_text(OWN.read_text().replace("'max_pool_3x3'", "'avg_pool_3x3'"))
  with runfolder.opened(tmp_path / 'run') as folder:
    runfolder.write_config(folder, asked(**{'space.name': str(OWN)}), 'f')
    runfolder.write_config(folder, asked(**{'space.name': str(moved)}), 'f')
    with pytest.raises(UserError, match='have changed'):
      runfolder.write_config(folder, asked(**{'space.name': str(edited)}), 'f')
    with pytest.raises(UserError, match='space.name'):
      runfolder.write_config(folder, asked(), 'f')


@pytest.mark.parametrize('content', ['', '{}', '{"config": 3, "data_fingerprint": "f"}', '[]'])
def test_a_damaged_config_is_one_line(tmp_path, content):
  (tmp_path / 'config.json').write_text(content)
  (tmp_path / 'result.json').write_text('{}')
  for ask in (lambda: runfolder.write_config(tmp_path, asked(), 'f'), lambda: runfolder.finished(tmp_path, asked())):
    with pytest.raises(UserError, match='config.json is damaged') as error:
      ask()
    one_line(error)


def test_a_run_in_a_thread_has_no_signals():
  from vimnas_jax.runs import signals
  seen = []

  def enter():
    with signals.Stop() as stop, stop.noted():
      seen.append(stop.asked)

  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert seen == [False]
