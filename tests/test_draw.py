import itertools

import numpy as np
import pytest
from conftest import SLOW
from matplotlib.image import imread
from matplotlib.text import Text

from vimnas_jax import draw, spaces
from vimnas_jax.draw import graph as drawing
from vimnas_jax.draw import palette, traces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import genotypes
from vimnas_jax.spaces import nb201

DARTS, NB201 = spaces.get('darts'), spaces.get('nb201')
NB_CELL = nb201.read('|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|')


def artists(figure, gid):
  return figure.findobj(lambda artist: artist.get_gid() == gid)


def check_png(path, least, most):
  """A readable picture between `least` and `most` pixels (height, width), with ink on it, none at its border."""
  pixels = imread(path)[..., :3]
  assert all(low <= n <= high for low, n, high in zip(least, pixels.shape, most)), pixels.shape
  ink = (pixels < 0.9).any(-1)
  assert 0.005 < ink.mean() < 0.9
  assert not (ink[:2].any() or ink[-2:].any() or ink[:, :2].any() or ink[:, -2:].any())


def check_texts(figure):
  """No text is clipped by the figure, nor overlaps another."""
  figure.draw_without_rendering()
  hidden = {id(label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()
            for label in (tick.label1, tick.label2)
            if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())}
  texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text() and id(t) not in hidden]
  boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
  assert boxes
  for text, box in boxes:
    assert box.x0 >= 0 and box.y0 >= 0, text
    assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, text
  x0, y0, x1, y1 = np.array([box.extents for _, box in boxes]).T
  meet = (x0[:, None] < x1) & (x0 < x1[:, None]) & (y0[:, None] < y1) & (y0 < y1[:, None])
  assert not (pairs := np.argwhere(np.triu(meet, 1))).size, [tuple(boxes[i][0] for i in pair) for pair in pairs]


def cells():
  for i, (name, genotype) in enumerate(genotypes.PUBLISHED.items()):
    for j, cell in enumerate(('normal', 'reduce')):
      yield pytest.param(genotype, cell, DARTS, id=f'{name}-{cell}', marks=SLOW if (i + j) % 4 else ())
  yield pytest.param(NB_CELL, 'cell', NB201, id='nb201')


@pytest.mark.parametrize('genotype, name, space', list(cells()))
def test_cell_elements_and_layout(genotype, name, space, monkeypatch):
  monkeypatch.setattr(drawing, 'save', lambda figure, path: figure)  # layout alone; files are tested below
  figure = draw.cell(genotype, name, space, 'unused')
  edges, graph = genotype.cells[name], space.cells[name]
  assert sorted(t.get_text() for t in artists(figure, 'op')) == sorted(op for op, _, _ in edges)
  assert len(artists(figure, 'edge')) == len(edges)
  assert len(artists(figure, 'node')) == graph.nodes + (len(graph.output) > 1)
  assert len(artists(figure, 'concat')) == (len(graph.output) if len(graph.output) > 1 else 0)
  check_texts(figure)
  renderer = figure.canvas.get_renderer()
  nodes = [n.get_window_extent(renderer) for n in artists(figure, 'node')]
  labels = [t.get_bbox_patch().get_window_extent(renderer) for t in artists(figure, 'op')]
  assert not any(a.overlaps(b) for a, b in itertools.product(labels, nodes))
  assert not any(a.overlaps(b) for a, b in itertools.combinations(labels, 2))
  for label, edge in itertools.product(artists(figure, 'op'), artists(figure, 'edge')):
    vertical = [x for x, _ in edge.get_path().vertices[[0, -1]]] if len(edge.get_path().vertices) > 2 else []
    box = label.get_bbox_patch().get_window_extent(renderer).transformed(label.axes.transData.inverted())
    assert not any(box.x0 < x < box.x1 for x in vertical)  # nothing rises through a label


def test_lanes_never_meet():
  edges = [('none', s, t) for t in range(2, 6) for s in range(t)]
  lanes = drawing.lanes_of(edges)
  for i, j in itertools.combinations(range(len(edges)), 2):
    (_, a, b), (_, c, d) = edges[i], edges[j]
    assert lanes[i] != lanes[j] or b <= c or d <= a


def test_cell_files(tmp_path):
  figure = draw.cell(genotypes.get('DARTS_V2'), 'normal', DARTS, tmp_path / 'new' / 'normal.png')
  check_png(tmp_path / 'new' / 'normal.png', (400, 900), (900, 1700))
  assert artists(figure, 'title')[0].get_text() == 'normal cell'
  figure = draw.cell(NB_CELL, 'cell', NB201, tmp_path / 'cell.png', title='found after one epoch')
  check_png(tmp_path / 'cell.png', (300, 600), (700, 1200))
  assert artists(figure, 'title')[0].get_text() == 'found after one epoch'
  draw.cell(NB_CELL, 'cell', NB201, tmp_path / 'cell.svg')
  assert '<svg' in (tmp_path / 'cell.svg').read_text()


def test_an_edge_without_operation_is_dotted(tmp_path):
  figure = draw.cell(NB_CELL, 'cell', NB201, tmp_path / 'cell.png')
  dotted = [edge for edge in artists(figure, 'edge') if edge.get_linestyle() not in ('-', 'solid')]
  assert len(dotted) == 1


def test_cell_errors(tmp_path):
  with pytest.raises(UserError, match="no cell 'cell'; it has normal, reduce"):
    draw.cell(genotypes.get('DARTS_V2'), 'cell', DARTS, tmp_path / 'x.png')
  with pytest.raises(UserError, match="belongs to space 'nb201'"):
    draw.cell(NB_CELL, 'normal', DARTS, tmp_path / 'x.png')


def history(space, steps):
  rng = np.random.default_rng(0)
  raw = {name: np.exp(rng.normal(size=(steps, *graph.shape))) for name, graph in space.cells.items()}
  return {name: values / values.sum(-1, keepdims=True) for name, values in raw.items()}


@pytest.mark.parametrize('space, least, most', [(DARTS, (900, 1200), (1300, 1700)), (NB201, (350, 800), (500, 1000))])
def test_weights(space, least, most, tmp_path):
  probs = history(space, 20)
  figure = draw.weights(np.arange(20) * 50, probs, space, tmp_path / 'weights.png')
  check_png(tmp_path / 'weights.png', least, most)
  panels = artists(figure, 'panel')
  wanted = [f'{name if len(space.cells) > 1 else "edge"} {s}→{t}' for name, graph in space.cells.items()
            for s, t in graph.edges]
  assert [panel.get_title() for panel in panels] == wanted
  ops = [palette.short(op) for op in next(iter(space.cells.values())).ops[0]]
  for panel, values in zip(panels, np.concatenate([*probs.values()], 1).swapaxes(0, 1)):
    lines = [line for line in panel.lines if line.get_gid() == 'line']
    np.testing.assert_array_equal(np.stack([line.get_ydata() for line in lines], -1), values)
    assert panel.get_ylim()[0] <= 0 and panel.get_ylim()[1] >= 1
    looks = dict(zip(ops, (line.get_color() for line in lines), strict=True))
    assert len(set(looks.values())) == len(ops)
    names = [text for text in panel.texts if text.get_gid() == 'name']
    strokes = [line for line in panel.lines if line.get_gid() == 'to name']
    shown = [text.get_text() for text in names]
    assert ops[values[-1].argmax()] == shown[-1]  # from below, as the lines end
    assert space is DARTS or sorted(shown) == sorted(ops)
    for text, stroke in zip(names, strokes, strict=True):
      place, name = stroke.get_ydata(), text.get_text()
      assert place[1] == text.get_position()[1]
      if 'other' not in name:
        assert place[0] == values[-1, ops.index(name)] and stroke.get_color() == looks[name]
  assert not figure.legends
  check_texts(figure)


def test_of_many_lines_those_are_named_that_mattered(monkeypatch):
  monkeypatch.setattr(traces, 'save', lambda figure, path: figure)
  probs = {name: np.full((20, *cell.shape), 0.05) for name, cell in DARTS.cells.items()}
  probs['normal'][10, 3, 2] = 0.4  # rose, and fell again
  probs['normal'][:, :, 5] = 0.65
  figure = draw.weights(np.arange(20), probs, DARTS, 'unused')
  named = [sorted(text.get_text() for text in panel.texts) for panel in artists(figure, 'panel')[:14]]
  assert named[3] == ['6 others', 'avg pool', 'sep 5×5']
  assert all(names == ['7 others', 'sep 5×5'] for i, names in enumerate(named) if i != 3)


def test_weights_of_one_step(tmp_path):
  draw.weights([0], history(NB201, 1), NB201, tmp_path / 'weights.png')
  check_png(tmp_path / 'weights.png', (350, 800), (500, 1000))


def test_weights_errors(tmp_path):
  with pytest.raises(UserError, match=r"cell 'cell' have shape \(3, 6, 5\), expected \(4, 6, 5\)"):
    draw.weights(range(4), history(NB201, 3), NB201, tmp_path / 'x.png')
  with pytest.raises(UserError, match="cell 'normal' have shape"):
    draw.weights(range(3), history(NB201, 3), DARTS, tmp_path / 'x.png')
  with pytest.raises(UserError, match='at least one step'):
    draw.weights([], history(NB201, 0), NB201, tmp_path / 'x.png')


def maps(space, channels=14, seed=0):
  rng = np.random.default_rng(seed)
  return {name: np.maximum(rng.normal(size=(channels, *graph.shape)), 0) for name, graph in space.cells.items()}


@pytest.mark.parametrize('space, least, most', [
    pytest.param(DARTS, (900, 1600), (1300, 2000), marks=SLOW), (NB201, (500, 700), (900, 1200))])
def test_feature_maps(space, least, most, tmp_path):
  before, after = maps(space), maps(space, seed=1)
  figure = draw.feature_maps(before, after, space, tmp_path / 'maps.png')
  check_png(tmp_path / 'maps.png', least, most)
  images = [axes.images[0] for axes in artists(figure, 'map')]
  wanted = [values for both in (before, after) for cell in both.values() for values in cell]
  assert len(images) == len(wanted) == 2 * 14 * len(space.cells)
  for image, values in zip(images, wanted):
    np.testing.assert_array_equal(image.get_array(), values)
    assert image.norm is images[0].norm  # one scale for all
  cell = next(iter(space.cells.values()))
  firsts = artists(figure, 'map')[:14]
  edges = [f'{s}→{t}' for s, t in cell.edges]
  assert [[t.get_text() for t in axes.get_yticklabels()] for axes in firsts] == [edges, *[[]] * 6, edges, *[[]] * 6]
  ops = [palette.short(op) for op in cell.ops[0]]
  assert [[t.get_text() for t in axes.get_xticklabels()] for axes in firsts] == [*[[]] * 7, ops, *[[]] * 6]
  check_texts(figure)


@pytest.mark.parametrize('channels', [1, 3])
def test_feature_maps_of_other_sizes(channels, tmp_path):
  figure = draw.feature_maps(maps(NB201, channels), maps(NB201, channels), NB201, tmp_path / 'maps.png')
  assert len(artists(figure, 'map')) == 2 * channels
  check_texts(figure)


def test_columns_that_differ_from_edge_to_edge_are_numbered(tmp_path):
  space = spaces.get('s1')
  figure = draw.feature_maps(maps(space, 2), maps(space, 2), space, tmp_path / 'maps.png')
  assert [t.get_text() for t in artists(figure, 'map')[1].get_xticklabels()] == ['op 1', 'op 2']
  check_texts(figure)


def test_feature_maps_of_zeros(tmp_path):
  zeros = {'cell': np.zeros((14, 6, 5))}
  draw.feature_maps(zeros, zeros, NB201, tmp_path / 'maps.png')
  assert (tmp_path / 'maps.png').exists()


def test_feature_maps_errors(tmp_path):
  with pytest.raises(UserError, match='need the same cells'):
    draw.feature_maps(maps(NB201), maps(DARTS), NB201, tmp_path / 'x.png')
  with pytest.raises(UserError, match='need the same cells'):
    draw.feature_maps({'cell': np.zeros((6, 5))}, {'cell': np.zeros((6, 5))}, NB201, tmp_path / 'x.png')
  with pytest.raises(UserError, match='need the same cells'):
    draw.feature_maps({}, {}, NB201, tmp_path / 'x.png')
  with pytest.raises(UserError, match='darts'):
    draw.feature_maps(maps(NB201), maps(NB201), DARTS, tmp_path / 'x.png')


def test_first_edges_and_distributions_show_every_run(tmp_path):
  runs = {label: (range(1, 6), history(DARTS, 5)) for label in ('a', 'b', 'c', 'd')}
  figure = draw.first_edges(runs, DARTS, tmp_path / 'first.png')
  panels = [a for a in figure.axes if a.get_gid() == 'panel']
  assert len(panels) == 8 and panels[1].get_title() == 'a, reduce cell'
  check_texts(figure)
  legend = figure.legends[0].get_window_extent()
  names = [palette.short(op) for op in DARTS.cells['normal'].ops[0]]
  assert [text.get_text() for text in figure.legends[0].get_texts()] == names
  assert not any(legend.overlaps(panel.get_tightbbox()) for panel in panels)
  flat = {name: np.full((5, *cell.shape), 1 / 8) for name, cell in DARTS.cells.items()}
  low = draw.first_edges({'flat': (range(5), flat), 'a': runs['a']}, DARTS, tmp_path / 'low.png')
  tops = [panel.get_yticks()[-1] for panel in low.axes]
  assert tops[:2] == [0.25, 0.25] and all(max(line.get_ydata().max() for line in panel.lines) <= top
                                          for panel, top in zip(low.axes, tops))
  np.testing.assert_array_equal(panels[0].lines[2].get_ydata(), runs['a'][1]['normal'][:, 0, 2])
  pairs = {label: tuple({name: p[i] for name, p in probs.items()} for i in (0, -1))
           for label, (_, probs) in runs.items()}
  figure = draw.distributions(pairs, tmp_path / 'pairs.png')
  maps = [a for a in figure.axes if a.get_gid() == 'map']
  assert len(maps) == 16
  np.testing.assert_array_equal(maps[-1].images[0].get_array(), pairs['d'][1]['reduce'])
  figure = draw.distributions(pairs | {'b': (None, pairs['b'][1])}, tmp_path / 'pairs.png')
  empty = artists(figure, 'not recorded')
  assert len(empty) == 2 and len(artists(figure, 'map')) == 14 and not any(axes.images for axes in empty)
  check_texts(figure)
  with pytest.raises(UserError, match='no run'):
    draw.first_edges({}, DARTS, tmp_path / 'x.png')
  with pytest.raises(UserError, match='shape'):
    draw.first_edges({'a': ([1], history(NB201, 1))}, DARTS, tmp_path / 'x.png')
  with pytest.raises(UserError, match='one space'):
    draw.distributions({}, tmp_path / 'x.png')


def test_names_that_are_cut_stay_apart(tmp_path):
  """Runs of a study are called after what they change, and often differ in their last letters, or first, alone."""
  long = [f'{first}_{"nb201_c10_half_" * 3}seed_{last}' for first in 'ab' for last in (1, 2)]
  for names, most in ((long, 24), (long, 6), (long[:2], 12), (['x' * 40 + f'{n}' + 'y' * 40 for n in range(9)], 20),
                      (['a\n', 'a\\n', 'a'], 9), (['b' * 9 + '\n' + 'c' * 9, 'b' * 9 + '\\n' + 'c' * 9], 9)):
    shown = draw.base.distinct(names, most)
    assert list(shown) == names and len({*shown.values()}) == len(names)
    assert all(len(text) <= most and (len(name) > most - 3 or '…' not in text) for name, text in shown.items())
  assert draw.base.distinct([long[0], '$x'], 24) == {long[0]: 'a_nb201_c10_…half_seed_1', '$x': r'\$x'}
  figure = draw.first_edges({name: (range(3), history(DARTS, 3)) for name in long}, DARTS, tmp_path / 'first.png')
  titles = [panel.get_title() for panel in artists(figure, 'panel')]
  assert len({*titles}) == 8 and all(title.endswith((', normal cell', ', reduce cell')) for title in titles)
  assert max(map(len, titles)) <= 29
  check_texts(figure)
  pair = {cell: probs[0] for cell, probs in history(DARTS, 1).items()}
  figure = draw.distributions(dict.fromkeys(long, (pair, pair)), tmp_path / 'd.png')
  assert len({text.get_text() for text in figure.texts}) == 4 + 4 + 1
  check_texts(figure)
  figure = draw.comparison({'a': {'s1': {name: [1.0] for name in long}}}, tmp_path / 'c.png')
  assert len({label.get_text() for label in figure.axes[0].get_yticklabels()}) == 4
  check_texts(figure)


def test_confusion_has_the_names_of_the_classes(tmp_path):
  names = ['cat', r'$\frac', 'a name that is far too long', 'fox\n']
  figure = draw.confusion(np.array([[5, 1, 0, 0], [0, 3, 1, 0], [0, 0, 0, 0], [1, 0, 0, 9]]), tmp_path / 'c.png', names)
  axes = figure.axes[0]
  for axis in (axes.xaxis, axes.yaxis):
    shown = [label.get_text().replace('\\$', '$') for label in axis.get_ticklabels()]
    assert shown == ['cat', r'$\frac', 'a name that…r too long', r'fox\n']
  check_png(tmp_path / 'c.png', (400, 400), (900, 900))
  check_texts(figure)
  with pytest.raises(UserError, match='4 classes has as many names'):
    draw.confusion(np.eye(4), tmp_path / 'x.png', ['a'])
  # a font without them would draw boxes, all alike
  figure = draw.confusion(np.eye(3), tmp_path / 'c.png', ['bl\u00fcte', '\u534a\u5206', '\u5c4b\u6839'])
  assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ['bl\u00fcte', 'class 1', 'class 2']


@pytest.mark.parametrize('classes, most, numbered', [
    (2, 5, True), (3, 12_345, True), (10, 999, True), pytest.param(30, 40, True, marks=SLOW), (40, 12_345, False),
    pytest.param(100, 90, False, marks=SLOW), (300, 9, False)])
def test_confusion_of_few_and_of_many_classes(tmp_path, classes, most, numbered):
  counts = np.zeros((classes, classes), int)
  counts[np.arange(classes), (np.arange(classes) + 1) % classes] = 1
  np.fill_diagonal(counts, most)
  figure = draw.confusion(counts, tmp_path / 'c.png', ['Wwwwwwwwwwww'] * classes)
  shown = [int(text.get_text().replace(',', '')) for text in artists(figure, 'count')]
  assert shown == (counts[counts > 0].tolist() if numbered else [])
  np.testing.assert_allclose(figure.axes[0].images[0].get_array(), counts / (most + 1))
  assert len(figure.axes[0].get_xticks()) == (classes if classes <= 110 else 0)
  assert f'{classes * most:,} of {classes * (most + 1):,} images right' in figure.texts[2].get_text()
  check_png(tmp_path / 'c.png', (300, 400), (2100, 2100))
  if classes < 100:  # of 100 the lines of text are 9 pixels apart: they are compared by that alone
    check_texts(figure)
  else:
    assert classes != 100 or max(t.get_fontsize() for t in figure.axes[0].get_yticklabels()) < 9 / 120 * 100


def panels_of(experiments, seeds=2, spaces=('nb201',)):
  rng = np.random.default_rng(0)
  return {title: {space: {f'method {i}': (scale * rng.random(seeds)).tolist() for i in range(experiments)}
                  for space in spaces} for title, scale in (('trained from scratch, %', 100), ('one-hotness', 1),
                                                            ('pools', 5), ('a', 1), ('b', 3000))}


@pytest.mark.parametrize('experiments, groups', [
    (1, ('a',)), pytest.param(31, ('nb201',), marks=SLOW), (3, ('s1', 's2', 's3'))])
def test_bars_begin_at_zero_and_say_their_values(tmp_path, experiments, groups):
  panels = panels_of(experiments, 3, groups)
  figure = draw.comparison(panels, tmp_path / 'c.png')
  assert [axes.get_title(loc='left') for axes in figure.axes] == list(panels)
  for axes, of in zip(figure.axes, panels.values()):
    means = [np.mean(values) for row in of.values() for values in row.values()]
    bars = artists(axes, 'mean')
    assert axes.get_xlim()[0] == 0 and all(bar.get_x() == 0 for bar in bars)
    np.testing.assert_allclose([bar.get_width() for bar in bars], means)
    told = [float(text.get_text().replace(',', '')) for text in artists(axes, 'value')]
    np.testing.assert_allclose(told, means, atol=0.5 if max(means) > 500 else 0.005)
    assert len(artists(axes, 'seeds')) == len(means)
  assert not figure.legends
  check_texts(figure)
  check_png(tmp_path / 'c.png', (100, 300), (2000, 1700))


def test_comparison_of_nothing(tmp_path):
  with pytest.raises(UserError, match='needs a measure'):
    draw.comparison({}, tmp_path / 'c.png')


def test_a_picture_is_whole_or_the_one_before(tmp_path, monkeypatch):
  path = tmp_path / 'cell.png'
  path.write_bytes(b'before')
  monkeypatch.setattr('matplotlib.figure.Figure.savefig', lambda self, part, **_: part.write_bytes(b'ha') and 1 / 0)
  with pytest.raises(ZeroDivisionError):
    draw.cell(NB_CELL, 'cell', NB201, path)
  assert path.read_bytes() == b'before' and [p.name for p in tmp_path.iterdir()] == ['cell.png']


def test_the_legend_of_a_regret_hides_nothing(tmp_path):
  runs = {f'WWW experiment with a long name {i}': (range(1, 4), np.full((2, 3), 0.1)) for i in range(5)}
  figure = draw.regret(runs, tmp_path / 'regret.png')
  figure.draw_without_rendering()
  [axes], legend = figure.axes, figure.axes[0].get_legend().get_window_extent()
  assert legend.y0 >= axes.get_window_extent().y1 and legend.y1 <= figure.bbox.height
  assert legend.x0 >= 0 and legend.x1 <= figure.bbox.width
