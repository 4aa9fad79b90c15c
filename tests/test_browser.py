"""Every page in a real browser: nothing complains, nothing is fetched, everything can be read and reached.

It needs what requirements-browser.txt and CONTRIBUTING.md name, and skips without.
"""

import json
import shutil

import numpy as np
import pytest
from browser import broken_rules, clicked_through, hovered, looked_at, opened, started, tabbed_through
from conftest import ROOT, SLOW
from sklearn.datasets import load_digits

from vimnas_jax import spaces
from vimnas_jax.verbs import pages, report

pytestmark = SLOW
RESULTS = ROOT / 'results'
EVIL = '<script>alert("x")</script>&\'|' + 'a_very_long_name_without_a_single_space_in_it' * 2


@pytest.fixture(scope='module')
def browser():
  with started() as found:
    yield found


def searched(source, folder):
  """The page of a recorded search, beside its files."""
  shutil.copytree(source, folder)
  result = json.loads((folder / 'result.json').read_text())
  pages.search(folder, result, spaces.get(result['space']))
  return folder


def confused(folder, names, **fields):
  """The page of a network that takes scikit-learn's digits for the nearest mean digit, which some are not."""
  digits = load_digits()
  images, labels = (digits.images * 15.9).astype(np.uint8)[..., None], digits.target
  means = np.stack([images[labels == i].mean(0) for i in range(10)])
  predicted = ((images[:, None] - means) ** 2).sum((2, 3, 4)).argmin(1)
  counts = np.zeros((10, 10), int)
  np.add.at(counts, (labels, predicted), 1)
  result = json.loads((RESULTS / 'train_darts_v2' / 'ours' / 'result.json').read_text()) | {
      'confusion': counts.tolist(), 'classes': names, 'test_images': len(labels), 'data': 'folder',
      'test_top1': 100 * float(np.trace(counts)) / len(labels), 'command': f'vimnas-jax --config="{EVIL}"',
      'per_class': [round(100 * float(row[i]) / int(row.sum()), 2) for i, row in enumerate(counts)],
      'latency': [{'batch': 1, 'milliseconds': 2.5, 'images_per_second': 400.0, 'calls': 9}]} | fields
  folder.mkdir(parents=True, exist_ok=True)
  for name in ('metrics.jsonl', 'curve.jsonl', 'curve.png', 'confusion.png', 'config.json'):
    shutil.copy(RESULTS / 'train_darts_v2' / 'ours' / name, folder)
  (folder / 'result.json').write_text(json.dumps(result))
  pages.network(folder, result, spaces.get('darts'), [
      (i, j, images[(labels == i) & (predicted == j)][:pages.IMAGES]) for i, j in pages.worst(counts)])
  return folder


def compared(runs, folder, chosen=None):
  """The page of recorded runs side by side, and one for each of them."""
  for run in runs:
    result = json.loads((run / 'result.json').read_text())
    pages.search(run, result, spaces.get(result['space']))
  for name in ('result.json', 'seeds.md') if chosen else ():  # they are written after the page
    (folder / name).write_text('')
  report.across(runs, folder, command='vimnas-jax --config=x', chosen=chosen)
  return folder


def named(folder, count):
  """The page of some of scikit-learn's digits, named at random."""
  folder.mkdir()
  rng, digits = np.random.default_rng(0), (load_digits().images * 15.9).astype(np.uint8)[..., None]
  rows = [{'file': f'{EVIL if i == 1 else "digit"}/{i}.png', 'class': str(i % 7), 'probability': p, 'top': [
      (str(i % 7), p), ('8', 0.1), ('9', 0.05)]} for i, p in enumerate(rng.uniform(0.3, 1, count).tolist())]
  shown = sorted(zip(rows, digits), key=lambda pair: pair[0]['probability'])[:pages.SHOWN]
  (folder / 'predictions.csv').write_text('')
  network = json.loads((RESULTS / 'train_darts_v2' / 'ours' / 'result.json').read_text())
  pages.predictions(folder, rows, shown, [(EVIL, 'no image')] * (count > 1), {
      'images': 'digits', 'classes': 10, 'space': 'nb201', 'command': 'vimnas-jax', 'network': network})
  return folder


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """{what page: its folder}."""
  root = tmp_path_factory.mktemp('pages')
  folders = {'one cell': searched(RESULTS / 'nb201_c10' / 'seed_0', root / 'one'),
             'two cells': searched(RESULTS / 'darts_c10' / 'seed_0', root / 'two'),
             'graph': searched(RESULTS / 'oneshot_c10' / 'space1', root / 'graph'),
             'old': searched(RESULTS / 'quickstart' / 'seed_0', root / 'old'),
             'trained': confused(root / 'trained', [f'digit {i}' for i in range(10)]),
             'evaluated': confused(root / 'evaluated', [EVIL, *map(str, range(9))], task='evaluate', test_top1=9.0)}
  folders['searched and retrained'] = searched(RESULTS / 'darts_c10' / 'seed_0', root / 'both')
  genotype = json.loads((root / 'both' / 'result.json').read_text())['genotype']
  folders['retrained'] = confused(root / 'both' / 'retrain', [f'digit {i}' for i in range(10)], genotype=genotype)
  shutil.copytree(RESULTS / 'compare_nb201_16x16', root / 'study', ignore=shutil.ignore_patterns('report.*'))
  runs = sorted(path.parent for path in (root / 'study').rglob('result.json'))
  folders['study'] = compared(runs, root / 'study')
  folders['spaces'] = compared([*runs[:3], root / 'two', root / 'graph'], root / 'spaces')
  shutil.copytree(RESULTS / 'compare_nb201_16x16' / 'VIM-NAS', root / 'seeds')
  folders['seeds'] = compared(sorted((root / 'seeds').iterdir()), root / 'seeds', pages.Chosen(
      101, 'the validation accuracy on cifar10 that NAS-Bench-201 has of the architecture', {100: 90.0, 101: 91.0}))
  return folders | {'predicted': named(root / 'predicted', 70), 'one predicted': named(root / 'photo', 1)}


NAMES = ('one cell', 'two cells', 'graph', 'old', 'trained', 'evaluated', 'retrained', 'searched and retrained',
         'study', 'spaces', 'seeds', 'predicted', 'one predicted')


@pytest.mark.parametrize('name', NAMES)
def test_it_can_be_read_at_every_width_in_both_themes(browser, made, name):
  for theme in ('light', 'dark'):
    for width in (360, 768, 1600):
      with opened(browser, made[name] / pages.FILE, width, theme) as page:
        looked_at(page)
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        looked_at(page)
        assert not (broken := broken_rules(page)), '\n'.join([f'{name}, {theme}, {width}', *broken])


@pytest.mark.parametrize('name', NAMES)
def test_all_of_it_can_be_reached_and_used(browser, made, name):
  folder = made[name]
  for theme in ('light', 'dark'):
    with opened(browser, folder / pages.FILE, 768, theme) as page:
      tabbed_through(page)
  with opened(browser, folder / pages.FILE, 768) as page:
    files = clicked_through(page, folder)
    assert files
    assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
    assert hovered(page) or name in ('old', 'evaluated', 'spaces', 'predicted', 'one predicted')  # without curves


def test_a_finger_reads_a_chart_too(browser, made):
  with opened(browser, made['one cell'] / pages.FILE, 360, has_touch=True) as page:
    chart, tip = page.locator('.edges svg').first, page.locator('#tip')
    chart.tap()
    assert tip.is_visible() and 'conv_3x3' in tip.text_content()
    page.locator('h1').tap()
    assert not tip.is_visible()


def test_it_is_whole_without_its_script_and_on_paper(browser, made):
  with opened(browser, made['one cell'] / pages.FILE, java_script_enabled=False) as page:
    assert not page.locator('button').is_visible() and page.locator('h1').is_visible()
  with opened(browser, made['one cell'] / pages.FILE, theme='dark') as page:
    assert len(page.pdf()) > 10_000
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media='print')
    assert page.evaluate('getComputedStyle(document.body).backgroundColor') == 'rgb(255, 255, 255)'
    assert page.locator('details table').first.is_visible() and not page.locator('nav').is_visible()
