"""What all pictures share: colours, type and the figure itself."""

import functools
import itertools
import pathlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from vimnas_jax import files
from vimnas_jax.draw import palette

DPI = 120
INK, QUIET, FAINT, PALE = '#1f2933', '#7b8794', '#cbd2d9', '#eceff2'

# family of ops -> (line, fill) in `cell`; hues that stay apart for colour-blind readers
FAMILIES = {'separable': ('#1f5fa8', '#dce9f7'), 'dilated': ('#8e3b8a', '#f3e1f2'),
            'convolution': ('#1f5fa8', '#dce9f7'), 'pooling': ('#b86a00', '#fcebd0'), 'skip': ('#1d7a46', '#dbf1e3'),
            'none': (QUIET, 'white'), 'other': (INK, PALE)}
_PREFIXES = {'sep_': 'separable', 'dil_': 'dilated', 'nor_': 'convolution', 'conv': 'convolution',
             'max': 'pooling', 'avg_': 'pooling', 'skip': 'skip', 'none': 'none'}
TEXT = {'ha': 'center', 'va': 'center', 'color': INK}


def family(op: str) -> str:
  """The family, a key of FAMILIES, that gives an op its colour."""
  return next((name for prefix, name in _PREFIXES.items() if op.startswith(prefix)), 'other')


def pens(ops: Iterable[str]) -> dict[str, dict[str, Any]]:
  """What matplotlib draws the line of each op with: the colours and dashes of palette.SLOTS."""
  found: dict[str, dict[str, Any]] = {}
  for op, place in palette.slots(ops).items():
    slot = palette.SLOTS[place]
    dash = (0, tuple(map(float, slot.dash.split()))) if slot.dash else '-'
    found[op] = {'color': slot.light, 'linewidth': 1.5, 'linestyle': dash}
  return found


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
  """Rising places moved until no two are closer than `gap`; as far as there is room, from `low` to `high`."""
  moved: list[float] = []
  for place in places:
    moved.append(max(place, low, moved[-1] + gap if moved else low))
  most = high
  for i in range(len(moved) - 1, -1, -1):
    moved[i] = max(min(moved[i], most), low)
    most = moved[i] - gap
  return moved


def blank(width: float, height: float) -> Figure:
  """An empty figure of so many inches."""
  picture = Figure(figsize=(width, height), dpi=DPI, facecolor='white')
  FigureCanvasAgg(picture)
  return picture


def save(picture: Figure, path) -> Figure:
  """Writes the file, whole or not at all; its folder is made if need be. Returns the figure."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.aside(path) as part, warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Glyph')  # a name in a script that the font lacks is drawn as boxes
    picture.savefig(part, dpi=DPI, format=path.suffix[1:] or 'png')  # the name that is written to has no such suffix
  return picture


def longest(texts: Iterable[str], size: float) -> float:
  """How many inches the longest of some lines of text takes, at so many points."""
  picture = blank(1, 1)
  renderer = picture.canvas.get_renderer()  # type: ignore[attr-defined]
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Glyph')
    return max((picture.text(0, 0, text, fontsize=size).get_window_extent(renderer).width / DPI for text in texts),
               default=0.0)


def plain(text: str, most: int = 60) -> str:
  """A name from outside as it may be drawn: one line, of at most so many characters, and no formula."""
  text = files.printable(text)
  text = text if len(text) <= most else f'{text[:most - 1]}…'
  return text.replace('$', r'\$')


def distinct(names: Iterable[str], most: int) -> dict[str, str]:
  """Names from outside as they may be drawn beside each other: {name: text}, no text being that of another name.

  Each is as by `plain`, but those of more than `most` characters are shortened, all at one place: the middle, or the
  nearest to it that tells them apart. Those that no cut tells apart are numbered.
  """
  whole = {name: files.printable(name) for name in names}

  def cut(text, head, room=most):
    return text if len(text) <= room else f'{text[:head]}…{text[len(text) - (room - head - 1):]}'

  middle = most // 2
  heads = sorted(range(most), key=lambda head: abs(head - middle))
  drawn = next((found for found in ({name: cut(text, head) for name, text in whole.items()} for head in heads)
                if len({*found.values()}) == len(found)), {})
  for name, text in whole.items() if not drawn else ():
    numbered = (cut(text, middle - 3, most - len(end)) + end for end in (f' #{n}' for n in itertools.count(2)))
    drawn[name] = next(text for text in itertools.chain((cut(text, middle),), numbered) if text not in drawn.values())
  return {name: text.replace('$', r'\$') for name, text in drawn.items()}


@functools.cache
def _glyphs() -> frozenset[int]:
  return frozenset(get_font(findfont(FontProperties())).get_charmap())


def drawable(text: str) -> bool:
  """Whether the font has every character of a line of text; others are drawn as boxes, one like another."""
  return all(ord(c) in _glyphs() for c in text)


def heading(name: str) -> str:
  """How a cell is called above its picture."""
  return 'cell' if name == 'cell' else f'{name} cell'
