"""Pages: markup that is whole, names that cannot break it, colours that can be read, and what is warned of."""

import base64
import io
import json
import re

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT
from markup import Whole, read

from vimnas_jax import spaces
from vimnas_jax.draw import base, page, palette, svg
from vimnas_jax.verbs import pages, report
from vimnas_jax.verbs.pages import checks, shared, tested

NB201, DARTS = spaces.get('nb201'), spaces.get('darts')
CELL = '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|'
EVIL = '<script>alert("x")</script>&\'|\u2028\x1b'

def probs_of(space, hot=0.9, seed=0):
  rng, found = np.random.default_rng(seed), {}
  for name, cell in space.cells.items():
    found[name] = np.full(cell.shape, (1 - hot) / (cell.shape[1] - 1))
    found[name][np.arange(cell.shape[0]), rng.integers(0, cell.shape[1], cell.shape[0])] = hot
  return {name: rows.tolist() for name, rows in found.items()}


def result_of(space=NB201, **changes):
  probs = probs_of(space)
  genotype = space.write(space.genotype({k: np.array(v) for k, v in probs.items()}))
  return {'command': 'python -m vimnas_jax.main --config="a <b>"', 'space': space.name, 'method': 'vimnas',
          'data': 'folder', 'seed': 0, 'steps': 400, 'planned_steps': 400, 'pretrain_steps': 0, 'epochs': 1.0,
          'genotype': genotype, 'one_hot': 0.95, 'entropy': 0.1, 'unchanged_steps': 300, 'dead': {'cell': []},
          'probs': probs, 'params': 1234567, 'madds': 2_500_000, 'seconds_per_step': 0.1, 'bytes_per_step': 2 ** 30,
          'versions': {'jax': '1'}, 'git': None, 'device': '1 x cpu', 'machine': 'x'} | changes


def recorded(folder, space, count, genotype):
  rows = [{'step': 5 * i, 'one_hot': i / count, 'entropy': 1 - i / count, 'genotype': genotype,
           'probs': probs_of(space, 0.3 + 0.6 * i / count)} for i in range(count)]
  (folder / 'arch.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(
      {'step': i, 'loss': None if i % 7 == 0 else 2 / (i + 1), 'accuracy': 0.5}) + '\n' for i in range(count)))


@pytest.mark.parametrize('name', ['nb201', 's2', 'oneshot3', str(ROOT / 'examples' / 'two_nodes.py')])
def test_the_page_of_a_search_is_whole(tmp_path, name):
  space = spaces.get(name)
  probs = {name: np.array(p) for name, p in probs_of(space).items()}
  probs |= {choice: np.full((1, n), 1 / n) for choice, n in space.choices.items()}
  result = result_of(NB201) | {'space': name, 'probs': {k: v.tolist() for k, v in probs.items()},
                               'genotype': space.write(space.genotype(probs)), 'data': 'cifar10'}
  if space.topology:
    result['graph_margins'] = space.topology.margins(probs)
  recorded(tmp_path, space, 20, result['genotype'])
  pages.search(tmp_path, result, space)
  found = read(tmp_path)
  edges = sum(len(cell.edges) for cell in space.cells.values())
  assert found.svgs >= edges + len(space.cells) + 4
  for words in ('Search on cifar10', result['genotype'], '0.95', '300 steps', '75 % of all steps', '1,234,567',
                'no sign of collapse', '--config="a <b>"', '0.100 s', '1,024 MiB'):
    assert words in found.said, words
  assert found.said.count('leads since step') == 1
  assert ('a tie): inputs_' in found.said) == ('graph_margins' in result)


def test_a_long_search_stays_small(tmp_path):
  result = result_of(DARTS)
  recorded(tmp_path, DARTS, 600, result['genotype'])
  pages.search(tmp_path, result, DARTS)
  found = read(tmp_path)
  assert 'Of 600 records' in found.said and (tmp_path / pages.FILE).stat().st_size < 6e5


def test_names_from_outside_stay_text(tmp_path):
  folder = tmp_path / 'a b#?<i>'
  folder.mkdir()
  confusion = [[5, 3], [1, 6]]
  result = {'task': 'evaluate', 'space': 'nb201', 'data': EVIL, 'genotype': CELL, 'command': EVIL, 'params': 1,
            'madds': 1, 'test_images': 15, 'test_top1': 100 * 11 / 15, 'test_top5': None, 'test_loss': 0.5,
            'classes': [EVIL, 'b'], 'confusion': confusion, 'per_class': [62.5, 85.71], 'versions': {EVIL: EVIL},
            'device': EVIL, 'latency': [{'batch': 1, 'milliseconds': 2.5, 'images_per_second': 400, 'calls': 9}]}
  images = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), np.uint8)
  pages.network(folder, result, NB201, [(0, 1, images)])
  text = (folder / pages.FILE).read_text(encoding='utf-8')
  found = read(folder)
  assert '<script>alert' not in text and text.count('<script') == 1 and '\u2028' not in text
  assert '<script>alert("x")</script>&\'|\\u2028\\x1b' in found.said
  shown = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
  assert len(shown) == 2
  np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(shown[1])))), images[1])
  assert '2.50 ms' in found.said and '73.33 %' in found.said and '37.5 %' in found.said

  result = result_of(data=EVIL, method=EVIL, command=EVIL)
  pages.search(folder, result, NB201)
  assert '<script>alert' not in (folder / pages.FILE).read_text(encoding='utf-8')
  read(folder)
  assert page.link('a b#?"<i>/ü.html') == '<a href="a%20b%23%3F%22%3Ci%3E/%C3%BC.html">a b#?&quot;&lt;i&gt;/ü.html</a>'


def test_old_and_empty_results_are_shown_as_far_as_they_go(tmp_path):
  pages.search(tmp_path, {'space': 'nb201', 'genotype': CELL, 'one_hot': float('nan'), 'params': None}, NB201)
  found = read(tmp_path)
  assert 'not recorded on the way' in found.said and found.said.count(page.NOTHING) > 4
  pages.search(tmp_path, {}, DARTS)
  assert 'cannot be read' in read(tmp_path).said
  for result in ({}, {'test_top1': None, 'test_loss': None, 'confusion': [[1, 2]], 'classes': 3, 'latency': None}):
    pages.network(tmp_path, result, NB201)
    assert 'That is not known' in read(tmp_path).said
  recorded(tmp_path, NB201, 3, CELL)
  with (tmp_path / 'arch.jsonl').open('a') as file:
    file.write('{"step": 99, "probs": {"cell": [[1]]}}\n{"step": 100, "probs": {"cell": null}, "one_hot": null}\n')
  pages.search(tmp_path, result_of(), NB201)
  read(tmp_path)


@pytest.mark.parametrize('space, edges, words', [
    (NB201, ['skip_connect'] * 6, 'all edges of the cell are skip connections'),
    (NB201, ['none'] * 6, 'nothing reaches'),
    (NB201, ['avg_pool_3x3'] * 6, 'are pools'), (NB201, ['skip_connect'] * 4 + ['nor_conv_3x3'] * 2, '4 of 6 edges'),
    (NB201, ['none', 'none', 'nor_conv_3x3', 'none', 'nor_conv_3x3', 'nor_conv_3x3'], 'nothing reaches'),
    (NB201, ['skip_connect', 'avg_pool_3x3'] * 3, 'no operation with weights'), (NB201, ['nor_conv_3x3'] * 6, None)])
def test_a_collapse_is_told(space, edges, words):
  cell = space.cells['cell']
  genotype = spaces.Genotype(space.name, {'cell': tuple((op, *edge) for op, edge in zip(edges, cell.edges))})
  told = checks.collapsed('cell', space, genotype)
  assert [words in line for line in told] == ([True] if words else [])


@pytest.mark.parametrize('changes, words', [
    ({}, None), ({'unchanged_steps': 39}, 'last tenth'), ({'one_hot': 0.5}, 'Low one-hotness: 0.500'),
    ({'one_hot': None}, 'no number'), ({'dead': {'cell': [1]}}, "0->2 of 'cell'"), ({'steps': 40}, 'Only 40 steps'),
    ({'supernet': {'mixed': 60.0, 'derived': 20.0}}, 'falls from 60.00 to 20.00'), ({'steps': 0, 'one_hot': 0.1}, None),
    ({'derived': True, 'one_hot': 0.2}, None), ({'damaged_images': [f'<{i}>' for i in range(7)]}, '<4> and 2 more'),
    ({'dead': 'x', 'supernet': None}, None),
    ({'budget': {'shortened': False, 'ended_after_step': 300}}, 'Time was up after step 400'),
    ({'steps': 40, 'unchanged_steps': 1, 'one_hot': 0.3}, 'Only 40 steps'),  # and not what follows from it
    ({'budget': {'shortened': False, 'ended_after_step': 300}, 'one_hot': 0.3}, 'Time was up after step 400')])
def test_signs_of_an_undecided_search_are_told(changes, words):
  result = result_of(**changes)
  genotype = NB201.genotype({'cell': np.eye(5)[[3, 3, 2, 3, 3, 3]]})
  told = checks.of_search(result, NB201, genotype)
  assert [words in line for line in told] == ([True] if words else [])


def test_signs_of_a_bad_network_are_told():
  good = {'task': 'retrain', 'steps': 500, 'test_images': 1000, 'test_top1': 90.0, 'test_loss': 0.1,
          'classes': ['a', 'b'], 'per_class': [90.0, 90.0], 'floor': {'top1': 50.0}}
  assert checks.of_network(good, 'test') == []
  for changes, words in (({'test_images': 20}, 'Only 20 images'), ({'per_class': [0, None]}, 'Never recognised: a'),
                         ({'floor': {'top1': 95.0}}, 'Colour alone'), ({'test_top1': 51.0}, 'guessing'),
                         ({'test_loss': None}, 'no finite number'), ({'steps': 9}, 'Only 9 steps')):
    assert any(words in line for line in checks.of_network(good | changes, 'test')), words
  able = good | {'test_top1': 74.0, 'floor': {'top1': 80.0}, 'per_class': [90.0, 58.0]}
  assert ['Colour alone' in line for line in checks.of_network(able, 'test')] == [True]
  for right, words in ((66.6667, 'is no better.'), (66.6, 'is worse.'), (66.7, '')):  # 28 of 42 images are 66.67 %
    told = checks.of_network(good | {'test_top1': right, 'floor': {'top1': 66.67}, 'per_class': [80.0, 60.0]}, 'test')
    assert [words in line for line in told] == [True] * bool(words), told
  guess = good | {'test_top1': 51.0, 'floor': {'top1': 95.0}, 'per_class': [100.0, 0]}
  assert [line.endswith('with 2 classes.') for line in checks.of_network(guess, 'test')] == [True]


def test_the_interval_is_that_of_wilson():
  low, high = shared.wilson(90.0, 100)  # 0.8256 to 0.9448, as in the literature's tables
  assert (round(low, 2), round(high, 2)) == (82.56, 94.48)
  assert shared.wilson(100.0, 10)[1] == pytest.approx(100) and shared.wilson(0.0, 10)[0] == pytest.approx(0)


def test_the_worst_pairs_come_first():
  assert tested.worst(np.array([[9, 1, 0], [4, 9, 2], [0, 0, 9]])) == [(1, 0), (1, 2), (0, 1)]
  assert tested.worst(np.eye(3, dtype=int)) == [] and tested.worst(np.zeros((0, 0), int)) == []


def luminance(colour):
  parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)] if isinstance(colour, str) else [v / 255 for v in colour]
  linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
  return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(a, b):
  high, low = sorted((luminance(a), luminance(b)), reverse=True)
  return (high + 0.05) / (low + 0.05)


def rgb(colour):
  return np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)], float)


def test_text_and_lines_can_be_read_on_light_and_dark():
  for theme, kind in ((palette.LIGHT, 'light'), (palette.DARK, 'dark')):
    grounds = [theme['paper'], theme['panel'], theme['warn-panel']]
    for ground in grounds:
      for name in ('ink', 'warn', 'link', 'quiet') if ground != theme['warn-panel'] else ('ink', 'warn', 'link'):
        assert contrast(theme[name], ground) >= 4.5, (kind, name, ground)
    assert contrast(theme['good'], theme['paper']) >= 4.5
    for slot in palette.SLOTS:
      assert contrast(getattr(slot, kind), theme['paper']) >= 3, (kind, slot)
    shade = np.array([float(v) for v in palette.SHADE.split()])
    for share in np.linspace(0, palette.DENSEST, 9):
      mixed = share * shade + (1 - share) * rgb(theme['paper'])
      assert contrast(theme['ink'], mixed) >= 4.5, (kind, share)


# Machado, Oliveira and Fernandes (2009), severity 1, in linear RGB
SEEN = {'all': np.eye(3), 'protan': np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                                              [-0.003882, -0.048116, 1.051998]]),
        'deutan': np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                            [-0.011820, 0.042940, 0.968881]]),
        'tritan': np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]])}


def lab(colour, seen):
  v = rgb(colour) / 255
  linear = np.clip(seen @ np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4), 0, 1)
  xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
  f = np.cbrt(xyz / [0.9505, 1, 1.089])
  return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize('seen', SEEN)
def test_operations_of_a_space_differ_for_colour_blind_readers(seen):
  """CIE76 in Lab; a just noticeable difference is 2.3. Lines differ by dashes too, and are named where they end."""
  for name in ('darts', 'nb201', 's4', 'oneshot1'):
    slots = [palette.SLOTS[i] for i in palette.slots(shared.operations(spaces.get(name))).values()]
    for kind in ('light', 'dark'):
      for i, a in enumerate(slots):
        for b in slots[:i]:
          apart = np.linalg.norm(lab(getattr(a, kind), SEEN[seen]) - lab(getattr(b, kind), SEEN[seen]))
          assert apart >= 17, (name, kind, a, b, apart)


def test_own_operations_have_slots_of_their_own():
  places = palette.slots(['none', 'mine', 'skip_connect', 'yours', *(f'op{i}' for i in range(9))])
  assert places['none'] == 0 and places['mine'] == 8 and places['yours'] == 9 and max(places.values()) < len(
      palette.SLOTS)


def test_charts_keep_what_they_draw():
  assert svg.thinned(3, 9) == [0, 1, 2] and svg.thinned(100, 3) in ([0, 50, 99], [0, 49, 99])
  assert svg.averaged([1, 2, 3, 4, 5], [1, 3, None, 5, 7], 3) == ([1.5, 3.5, 5], [2, 5, 7], 2)
  assert svg.ticks(0, 1, 2) == [0, 0.5, 1] and svg.ticks(3, 3) == [3]
  drawn = svg.chart('x', [0, 10], [svg.Line('a', [None, 0.5], 1, 'a'), svg.Line('b<', [float('inf')] * 2, 2)], y=(0, 1))
  assert drawn.count('<path') == 5 and 'NaN' not in drawn and '<circle' in drawn
  assert 'nothing was recorded' in svg.chart('x', [], [])
  named = base.apart([10, 11, 12, 99], 11.5, 10, 100)
  assert all(b - a >= 11 for a, b in zip(named, named[1:])) and named[-1] <= 100


def made(folder, seed, **changes):
  folder.mkdir(parents=True)
  result = result_of(seed=seed, probs=probs_of(NB201, seed=seed), **changes)
  result['genotype'] = NB201.write(NB201.genotype({'cell': np.array(result['probs']['cell'])}))
  (folder / 'result.json').write_text(json.dumps(result))
  (folder / 'config.json').write_text(json.dumps({'config': {'seed': seed}}))
  recorded(folder, NB201, 4, result['genotype'])
  return folder


def test_runs_by_themselves_and_side_by_side(tmp_path):
  runs = [made(tmp_path / name / f'seed_{seed}', seed, supernet={'images': 100, 'mixed': 40.0 + seed, 'derived': 9.0})
          for name in ('plain', '<b>&"x"') for seed in (0, 1)]
  pages.search(runs[0], json.loads((runs[0] / 'result.json').read_text()), NB201)
  assert 'Search on a folder of images' in read(runs[0]).said
  (runs[1] / 'config.json').write_text(json.dumps({'config': {'seed': 1, 'data': {'dir': '/x/<i>'}}}))
  pages.search(runs[1], json.loads((runs[1] / 'result.json').read_text()), NB201)
  assert "Search on the images of '<i>'" in read(runs[1]).said
  (runs[1] / 'config.json').write_text(json.dumps({'config': {'seed': 1}}))
  report.compare(runs, tmp_path / 'r')
  text = (tmp_path / 'r' / pages.FILE).read_text(encoding='utf-8')
  found = Whole(text)
  assert '<b>&' not in text and found.said.count('seed 1') >= 4 and '40.50 ± 0.71' in found.said
  head = re.search(r'<thead>.*?</thead>', text)[0]
  assert head.index('supernet') < head.index('agreement') < head.index('one-hotness')
  assert '--w:40.5%' in text  # a bar from zero
  assert 'within what the seeds differ by' in found.said


def test_the_page_of_a_search_has_the_accuracy_of_its_network(tmp_path):
  space, above = NB201, made(tmp_path / 'run', 0)
  found = json.loads((above / 'result.json').read_text())
  pages.search(above, found, space)
  assert 'not measured yet' in read(above).said
  (above / 'retrain').mkdir()
  network = {'task': 'retrain', 'genotype': found['genotype'], 'test_images': 100, 'test_top1': 75.0, 'test_loss': 1.0}
  pages.network(above / 'retrain', network, space)
  assert '75.00 %' in read(above).said and 'the search above' in read(above / 'retrain').said
  pages.network(above / 'retrain', network | {'genotype': CELL, 'test_top1': 1.0}, space)
  assert '75.00 %' in read(above).said
