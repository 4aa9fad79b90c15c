"""The film of a search: frames that say what was recorded, for every kind of space, small, and the same bytes again."""

import dataclasses

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from vimnas_jax import draw, spaces
from vimnas_jax.draw import palette
from vimnas_jax.errors import UserError
from vimnas_jax.spaces import Genotype
from vimnas_jax.spaces.types import Cell

NB201 = spaces.get('nb201')


def recorded(space, count, seed=0):
  """(Steps, probabilities, architectures, one-hotness) of a search that drifts."""
  rng = np.random.default_rng(seed)
  shapes = {name: cell.shape for name, cell in space.cells.items()} | {k: (1, n) for k, n in space.choices.items()}
  raw = {name: np.exp(np.cumsum(rng.normal(size=(count, *shape)), 0) / 3) for name, shape in shapes.items()}
  probs = {name: values / values.sum(-1, keepdims=True) for name, values in raw.items()}
  genotypes = [space.genotype({name: values[i] for name, values in probs.items()}) for i in range(count)]
  return range(0, 5 * count, 5), probs, genotypes, np.linspace(0.3, 1, count)


def frames(path, every=1):
  """Every so-many-th frame as an RGB array, with its duration in milliseconds."""
  with Image.open(path) as film:
    assert film.format == 'GIF' and film.info['loop'] == 0
    for i in range(film.n_frames):
      film.seek(i)
      yield np.array(film.convert('RGB')) if i % every == 0 else None, film.info['duration']


def pixels(frame, color):
  return int((frame == tuple(bytes.fromhex(color[1:]))).all(-1).sum())


@pytest.mark.parametrize('name', ['darts', 'nb201', 's1', 'oneshot3', str(ROOT / 'examples' / 'two_nodes.py')])
def test_a_film_of_every_kind_of_space(tmp_path, name):
  space = spaces.get(name)
  values = recorded(space, 130)
  assert draw.film(*values, space, tmp_path / 'film.gif', 'a title') == 60
  shown = list(frames(tmp_path / 'film.gif', 20))
  assert len(shown) == 60 and (tmp_path / 'film.gif').stat().st_size < 1e6
  assert 2000 <= shown[-1][1] <= 3000 and sum(time for _, time in shown) < 12_000
  for frame, _ in shown[::20]:
    assert frame.shape[1] == 720 and frame.shape[0] < 720  # and nothing touches the border
    assert (frame[:3] == 255).all() and (frame[-3:] == 255).all() and (frame[:, :10] == 255).all()


def test_bars_are_as_long_as_probabilities(tmp_path):
  probs = np.zeros((3, 6, 5))
  probs[0], probs[1, :, 1], probs[2, :, 1], probs[2, :, 4] = 0.2, 1, 0.25, 0.75
  skip, pool = (NB201.genotype({'cell': np.eye(5)[[op] * 6]}) for op in (1, 4))
  draw.film([0, 5, 10], {'cell': probs}, [skip, skip, pool], [0.2, 1, 0.75], NB201, tmp_path / 'film.gif')
  (start, _), (decided, _), (end, _) = frames(tmp_path / 'film.gif')
  slots = palette.slots(NB201.cells['cell'].ops[0])
  skips, pools = (palette.SLOTS[slots[op]].light for op in ('skip_connect', 'avg_pool_3x3'))
  start, decided, end = (frame[180:] for frame in (start, decided, end))  # without the graph above, and the first edge
  full = pixels(decided, skips)
  assert full and not pixels(decided, pools) and full % 5 == 0
  assert pixels(start, skips) == pixels(start, pools) == pytest.approx(full / 5, rel=0.03)
  assert pixels(end, skips) == pytest.approx(full / 4, rel=0.03)
  assert pixels(end, pools) == pytest.approx(full * 3 / 4, rel=0.03)


def test_the_same_bytes_again(tmp_path):
  for name in ('a.gif', 'b.gif'):
    draw.film(*recorded(NB201, 9), NB201, tmp_path / name)
  assert (tmp_path / 'a.gif').read_bytes() == (tmp_path / 'b.gif').read_bytes()


def test_what_the_architecture_leaves_out_is_pale(tmp_path):
  space = spaces.get('s4')  # two edges into every node, of two to five
  values = recorded(space, 2)
  draw.film(*values, space, tmp_path / 'film.gif')
  last = list(frames(tmp_path / 'film.gif'))[-1][0]
  vivid = palette.SLOTS[8].light  # of noise
  pale = tuple(round(0.35 * c + 0.65 * 255) for c in bytes.fromhex(vivid[1:]))
  probs = np.concatenate([values[1][name][-1, :, list(space.cells['normal'].ops[0]).index('noise')]
                          for name in space.cells])
  kept = np.array([any(edge == (s, t) for _, s, t in values[2][-1].cells[name]) for name, cell in space.cells.items()
                   for edge in cell.edges])
  area = pixels(last, vivid) / probs[kept].sum()
  assert kept.sum() == 16 and (last == pale).all(-1).sum() / probs[~kept].sum() == pytest.approx(area, rel=0.2)


def test_one_record_gaps_and_long_names(tmp_path):
  steps, probs, genotypes, hot = recorded(NB201, 1)
  probs['cell'][0, 2] = np.nan
  assert draw.film(steps, probs, genotypes, [np.nan], NB201, tmp_path / 'film.gif', 'x' * 300 + '\n\x1b\udc80') == 1
  assert [time for _, time in frames(tmp_path / 'film.gif')] == [2500]


def test_many_edges_and_operations(tmp_path):
  edges = tuple((s, t) for t in range(1, 15) for s in range(t))
  ops = tuple(f'an_operation_with_a_name_{i}' for i in range(30))
  space = dataclasses.replace(NB201, cells={'cell': Cell(1, edges, (ops,) * len(edges), (14,))})
  probs = np.full((2, len(edges), 30), 1 / 30)
  genotype = Genotype('nb201', {'cell': tuple((ops[0], s, t) for s, t in edges)})
  draw.film([0, 1], {'cell': probs}, [genotype] * 2, [0.1, 0.2], space, tmp_path / 'film.gif')
  (frame, _), _ = frames(tmp_path / 'film.gif')
  assert frame.shape[0] < 2600 and (frame[:, :10] == 255).all() and (frame[:, -4:] == 255).all()


def test_errors(tmp_path):
  steps, probs, genotypes, hot = recorded(NB201, 4)
  for wrong in ((range(3), probs, genotypes[:3], hot[:3]), (steps, probs, genotypes[:3], hot), ([], {}, [], []),
                (steps, {}, genotypes, hot)):
    with pytest.raises(UserError, match=r"recorded probabilities of cell 'cell' .*, of at least one step"):
      draw.film(*wrong, NB201, tmp_path / 'film.gif')
  assert not list(tmp_path.iterdir())
