"""What a page answers first: what was asked of what, what was found, how good it is and how sure that is."""

import json

import numpy as np
import pytest
from markup import read
from test_page import EVIL, NB201, made, recorded, result_of

from vimnas_jax import spaces
from vimnas_jax.verbs import outcome, pages, predict, report
from vimnas_jax.verbs.pages import checks, ranked, shared

NETWORK = {'task': 'retrain', 'steps': 500, 'test_images': 100, 'test_top1': 75.0, 'test_loss': 1.0}
FACTS = {'images': {'training': 60, 'validation': 0, 'test': 20}, 'image_shape': [8, 8, 3], 'left_out': [
    {'file': f'{EVIL}{i}', 'reason': 'no image'} for i in range(5)], 'in_training': [
        {'file': f'{EVIL}.png', 'training': 'train/a/1.png'}]}


def test_a_search_tells_of_its_images_and_of_its_network(tmp_path):
  folder = made(tmp_path / 'run', 0, classes=['a', 'b'])
  result = json.loads((folder / 'result.json').read_text())
  (folder / 'data.json').write_text(json.dumps(FACTS))
  (folder / 'retrain').mkdir()
  (folder / 'retrain' / 'result.json').write_text(json.dumps(NETWORK | {'genotype': result['genotype']}))
  pages.search(folder, result, NB201)
  said = read(folder).said
  assert 'retrain/result.json' in read(folder).links  # its page is not there
  first = said[:said.index(' Every edge in a table ')]
  for words in ('right on 75.00 % of 100 test images (95 % confidence interval: 65.7 to 82.5 %)',
                'Its network: only 100 images',
                'The images: 2 classes, 60 training images, 20 test images, brought to 8x8 pixels.',
                '1 image for test or validation in training too, which accuracies count: ',
                '5 files of the data left out: ', 'and 2 more, in data.json'):
    assert words in first, words
  (folder / 'data.json').write_text('[]')
  (folder / 'retrain' / 'result.json').write_text(json.dumps({'genotype': result['genotype'], 'test_top1': None}))
  pages.search(folder, result, NB201)
  assert 'its accuracy is no number' in read(folder).said and 'The images: 2 classes.' in read(folder).said


def test_several_seeds_tell_which_was_taken_and_why(tmp_path):
  runs = [made(tmp_path / f'seed_{seed}', seed, supernet={'images': 100, 'mixed': 9.0, 'derived': 40.0 + seed})
          for seed in (0, 1)]
  pages.search(runs[1], json.loads((runs[1] / 'result.json').read_text()), NB201)
  for name in ('result.json', 'seeds.md'):  # they are written after the page
    (tmp_path / name).write_text('')
  report.across(runs, tmp_path, command='vimnas-jax <b>', chosen=pages.Chosen(1, 'a <rule>', {0: 40.0, 1: 41.0}))
  page = read(tmp_path)
  assert 'Search with 2 seeds' in page.said and 'Seed 1, by a <rule>: 41.00 % (seed 0: 40.00 %)' in page.said
  genotype = json.loads((runs[1] / 'result.json').read_text())['genotype']
  assert page.said.index(genotype) < page.said.index('Experiments in nb201') and 'seed 1 (chosen)' in page.said
  assert 'seed_1/report.html' in page.links and 'seeds.md' in page.links and 'vimnas-jax <b>' in page.said
  assert 'flatters the chosen seed' in page.said and 'Of the seed that was chosen' in page.said


def test_searches_that_share_a_fault_share_a_line():
  good, short = result_of(), result_of(steps=20, one_hot=0.5, unchanged_steps=1)
  skips = '|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|'
  assert checks.of_searches([('a', good, NB201)]) == []
  told = checks.of_searches([('a', good, NB201), ('b', short, NB201), ('c', good | {'genotype': skips}, NB201)])
  assert told[0].startswith('c: Collapse') and [line[:22] for line in told[1:]] == ['1 of 3 searches (b) to', (
      '1 of 3 searches (b) en'), '1 of 3 searches (b) st']
  assert checks.of_searches([('b', short, NB201)])[0].startswith('The search took fewer than 100')
  assert checks.of_searches([('b', short | {'derived': True, 'steps': 0}, NB201)]) == []


def test_figures_of_other_images_are_called_so():
  spread = {'mean': 90.0, 'std': None, 'runs': 1}
  figures = {'cifar10': {'valid': spread}, 'cifar100': {'valid': spread | {'mean': 70.0}}}
  first = [(each.words, each.whose) for each in ranked.measures({'a': {'data': 'cifar100', 'oracle': figures}})]
  assert first[0] == ('NAS-Bench-201, cifar100 valid %', '')  # those of the data that was searched
  rows = {name: {'data': 'digits', 'oracle': figures} for name in 'ab'}
  assert ranked.measures(rows)[0].whose == 'NAS-Bench-201'
  assert 'do not say which suits yours' in ranked.answer({'nb201': (rows, {})})


@pytest.mark.parametrize('count', [1, 60])
def test_named_photographs_are_shown_the_least_sure_first(tmp_path, count):
  rng = np.random.default_rng(0)
  rows = [{'file': f'{EVIL}{i}.png', 'class': 'cat' if i % 3 else EVIL, 'probability': 0.3 + 0.01 * i,
           'top': [('cat', 0.3 + 0.01 * i), ('dog', 0.2)]} for i in range(count)]
  shown = [(row, rng.integers(0, 256, (9, 7, 3), np.uint8)) for row in rows[:pages.SHOWN]]
  (tmp_path / predict.TABLE).write_text('')
  pages.predictions(tmp_path, rows, shown, [(EVIL, 'no image')] * 7, {
      'images': EVIL, 'classes': 3, 'space': 'nb201', 'command': EVIL, 'network': NETWORK})
  text, page = (tmp_path / pages.FILE).read_text(), read(tmp_path)
  assert '<script>alert' not in text and text.count('<img') == min(count, pages.SHOWN)
  assert ('20 of 60 images no class' in page.said) == (count == 60) and '7 files skipped: ' in page.said
  assert '75.00 %' in page.said and 'knows 3 classes' in page.said
  assert ('cat on 40, ' in page.said) == (count == 60)


def test_words_of_a_command_stay_together():
  (pre, *_) = shared.command('python --config="a b"')
  assert pre.count('<span class="word">') == 3 and '> <' in pre
  assert shared.counted(1, 'class') == '1 class' and shared.counted(2, 'search') == '2 searches'
  assert shared.counted(2, 'epoch') == '2 epochs' and shared.counted(3, 'batch') == '3 batches'


def test_an_architecture_that_stands_is_unchanged_in_whatever_order_its_edges_are(tmp_path):
  """Of two decided edges into a node now this, now that one is the stronger by a hair, and stands first."""
  space = spaces.get('s2')
  result = result_of(space, dead={})
  text, one = result['genotype'], space.read(result['genotype'])
  other = spaces.Genotype('s2', {name: (edges[1], edges[0], *edges[2:]) for name, edges in one.cells.items()})
  assert space.write(other) != text and other.unordered == one.unordered
  recorded(tmp_path, space, 20, text)
  rows = (tmp_path / 'arch.jsonl').read_text().splitlines()
  rows[1::2] = [row.replace(json.dumps(text), json.dumps(space.write(other))) for row in rows[1::2]]
  (tmp_path / 'arch.jsonl').write_text('\n'.join(rows) + '\n')
  history = outcome.Unchanged(map(json.loads, rows), space)
  assert history.since(100, one) == 100 and history.since(105, space.read(text.replace('skip', 'sep', 1))) == 0
  pages.search(tmp_path, result, space)
  assert 'The architecture did not change between records.' in read(tmp_path).said


REPAIRED = {'kept': True, 'drawn_again': False, 'repaired': {'from': 'a', 'to': 'b', 'rule': 'the most probable'}}


@pytest.mark.parametrize('more, answer, warned', [
    ({'drawn': True}, 'this one was drawn at random:', ''),
    ({'derived': True}, 'then tried architectures, and took this one:', ''),
    ({'taken': 'the best of its searches'}, '; this is the best of its searches:', ''),
    ({'limit': REPAIRED}, 'a limit put this one in the place of what it ended with:',
     'exceeds the limit: the most probable within it was taken.'),
    ({'drawn': True, 'limit': REPAIRED | {'repaired': None, 'drawn_again': True}}, 'this one was drawn at random:',
     'this is the next one that does not.'),
    ({'limit': {'kept': False, 'repaired': None}}, '', 'this one exceeds it.'),
    ({'ties': ['normal: node 3', 'normal: node 4']}, '', 'operations chose, in normal: node 3, normal: node 4.'),
    ({'stopped': 700, 'planned_steps': 1000, 'unchanged_steps': 0}, '', 'ended the search after step 700 of 1,000.')])
def test_what_else_than_probabilities_had_a_say_is_told(tmp_path, more, answer, warned):
  """Of what was drawn, tried or put in place it is not said that the search had decided for it, or not."""
  folder = made(tmp_path / 'run', 0)
  result = json.loads((folder / 'result.json').read_text()) | {'one_hot': 1.0, 'unchanged_steps': 500} | more
  pages.search(folder, result, NB201)
  said = read(folder).said
  assert answer in said and warned in said
  if answer:
    assert 'had decided before its end' not in said and 'was decided before its end' not in said
    assert 'One-hotness 1.000' not in said and 'It was not these probabilities that chose' in said
  assert 'still changed in the last tenth' not in said


def test_memory_of_seeds_at_once_is_called_that_of_all(tmp_path):
  folder = made(tmp_path / 'run', 0)
  result = json.loads((folder / 'result.json').read_text()) | {'bytes_per_step': 2 ** 30, 'seconds_per_step': 1.0}
  for more in ({}, {'together': 4}):
    pages.search(folder, result | more, NB201)
    assert ('; of 4 seeds at once' in read(folder).said) == bool(more)


def test_low_one_hotness_is_told_where_probabilities_had_a_word():
  """Of a cell that a limit changed, or of the best of several searches, as of any other; not of trials and draws."""
  low = result_of(one_hot=0.3, unchanged_steps=0)
  for more, warns in (({'limit': REPAIRED}, True), ({'taken': 'the best of all'}, True), ({'drawn': True}, False),
                      ({'derived': True}, False)):
    told = ' '.join(checks.of_search(low | more, NB201, None))
    assert ('Low one-hotness: 0.300' in told) == warns and 'still changed' not in told
    told = ' '.join(checks.of_searches([('a', low | more, NB201)]))
    assert ('one-hotness below' in told) == warns and 'still changed' not in told
