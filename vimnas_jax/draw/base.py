"""What all pictures share: colours, type and the figure itself."""

import itertools
import pathlib
import warnings

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vimnas_jax import files

DPI = 120
INK, QUIET, FAINT, PALE = '#1f2933', '#7b8794', '#cbd2d9', '#eceff2'

# family of ops -> (line, fill) in `cell`; hues that stay apart for colour-blind readers
FAMILIES = {'separable': ('#1f5fa8', '#dce9f7'), 'dilated': ('#8e3b8a', '#f3e1f2'),
            'convolution': ('#1f5fa8', '#dce9f7'), 'pooling': ('#b86a00', '#fcebd0'), 'skip': ('#1d7a46', '#dbf1e3'),
            'none': (QUIET, 'white'), 'other': (INK, PALE)}
_PREFIXES = {'sep_': 'separable', 'dil_': 'dilated', 'nor_': 'convolution', 'conv': 'convolution',
             'max': 'pooling', 'avg_': 'pooling', 'skip': 'skip', 'none': 'none'}
# op -> its line in `weights`: the family's hue, dark for the smaller kernel
_COLORS = {'none': '#9aa5b1', 'max_pool_3x3': '#8c4a00', 'avg_pool_3x3': '#f0a030', 'skip_connect': '#1d9a50',
           'sep_conv_3x3': '#12407a', 'sep_conv_5x5': '#56a0e8', 'dil_conv_3x3': '#7a1f76', 'dil_conv_5x5': '#e078d0',
           'nor_conv_1x1': '#56a0e8', 'nor_conv_3x3': '#12407a', 'maxpool3x3': '#8c4a00',
           'conv1x1-bn-relu': '#56a0e8', 'conv3x3-bn-relu': '#12407a'}
_SPARE = ('#d62728', '#17becf', '#bcbd22', '#5f4b3a')
TEXT = {'ha': 'center', 'va': 'center', 'color': INK}


def family(op: str) -> str:
  """The family, a key of FAMILIES, that gives an op its colour."""
  return next((name for prefix, name in _PREFIXES.items() if op.startswith(prefix)), 'other')


def colors(ops) -> dict[str, str]:
  """A colour for the line of each op."""
  spare = itertools.cycle(_SPARE)
  return {op: _COLORS.get(op) or next(spare) for op in ops}


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


def plain(text: str, most: int = 60) -> str:
  """A name from outside as it may be drawn: one line, of at most so many characters, and no formula."""
  text = files.printable(text)
  text = text if len(text) <= most else f'{text[:most - 1]}…'
  return text.replace('$', r'\$')


def heading(name: str) -> str:
  """How a cell is called above its picture."""
  return 'cell' if name == 'cell' else f'{name} cell'
