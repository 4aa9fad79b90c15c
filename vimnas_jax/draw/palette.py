"""Colours of a page, on white and on black: one for every operation, told apart by colour-blind readers too.

Every line has a dash beside its colour, and a label, so that no difference is told by colour alone.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Slot(NamedTuple):
  """How a line is drawn: its colour on a light and on a dark page, and its dashes, '' for none."""

  light: str
  dark: str
  dash: str = ''


LIGHT = {'paper': '#ffffff', 'panel': '#f5f7f9', 'ink': '#1a222b', 'quiet': '#55616e', 'rule': '#d5dbe1',
         'link': '#0b5394', 'warn': '#8a2a0b', 'warn-panel': '#fdf1ea', 'good': '#1b6440'}
DARK = {'paper': '#12161b', 'panel': '#1b2128', 'ink': '#e8edf2', 'quiet': '#a7b2be', 'rule': '#363f49',
        'link': '#8cc4ff', 'warn': '#ffb08a', 'warn-panel': '#33201a', 'good': '#7fd6a8'}
SHADE = '43 125 210'  # of a table's cells, under the ink, at most as dense as DENSEST
DENSEST = 0.4

SLOTS = (Slot('#818b92', '#79858a', '1 3'),     # 0 none
         Slot('#02744f', '#3dc08e'),            # 1 skip
         Slot('#073b96', '#7da7f7'),            # 2 convolution of 3x3
         Slot('#2c92e0', '#bedcff', '7 2'),     # 3 of another size
         Slot('#8a3c00', '#dc793e'),            # 4 maximum pool
         Slot('#c97e00', '#ffd47b', '7 2'),     # 5 average pool
         Slot('#77166d', '#bd61b4', '4 2'),     # 6 dilated 3x3
         Slot('#bf43a7', '#dc9ac3', '2 2'),     # 7 dilated, of another size
         Slot('#b3202c', '#ff7d7d', '9 2 2 2'), *(  # 8 and on: whatever else
             Slot(light, dark, dash) for light, dark, dash in (
                 ('#5b6b00', '#c3d64a', '9 2 2 2'), ('#00727f', '#4fd3e3', '5 2 1 2'),
                 ('#4b2fb0', '#a996ff', '9 2 2 2'), ('#5a4632', '#cbb092', '5 2 1 2'))))
_KNOWN = {'none': 0, 'output': 0, 'skip_connect': 1, 'sep_conv_3x3': 2, 'nor_conv_3x3': 2, 'conv3x3-bn-relu': 2,
          'sep_conv_5x5': 3, 'nor_conv_1x1': 3, 'conv1x1-bn-relu': 3, 'max_pool_3x3': 4, 'maxpool3x3': 4,
          'avg_pool_3x3': 5, 'dil_conv_3x3': 6, 'dil_conv_5x5': 7}
_SPARE = range(8, len(SLOTS))
_SHORT = {'none': 'none', 'output': 'output', 'skip_connect': 'skip', 'max_pool_3x3': 'max pool', 'noise': 'noise',
          'maxpool3x3': 'max pool', 'avg_pool_3x3': 'avg pool', 'conv3x3-bn-relu': 'conv 3×3',
          'conv1x1-bn-relu': 'conv 1×1', 'nor_conv_3x3': 'conv 3×3', 'nor_conv_1x1': 'conv 1×1',
          **{f'{kind}_conv_{k}x{k}': f'{kind} {k}×{k}' for kind in ('sep', 'dil') for k in (3, 5, 7)}}


def slots(ops: Iterable[str]) -> dict[str, int]:
  """{op: its place in SLOTS}; ops that are not the package's take the spare ones in turn, once round."""
  places: dict[str, int] = {}
  for op in ops:
    if op not in places:
      others = sum(place >= 8 for place in places.values())
      places[op] = _KNOWN.get(op, _SPARE[others % len(_SPARE)])
  return places


def short(op: str, most: int = 12) -> str:
  """The name of an op as there is room for it beside a line."""
  text = _SHORT.get(op, op)
  return text if len(text) <= most else f'{text[:most - 1]}…'


def css() -> str:
  """The colours as custom properties, dark ones where the reader prefers them, and a class `sN` for each slot."""
  light = ''.join(f'--{name}:{value};' for name, value in LIGHT.items())
  light += ''.join(f'--s{i}:{slot.light};' for i, slot in enumerate(SLOTS))
  dark = ''.join(f'--{name}:{value};' for name, value in DARK.items())
  dark += ''.join(f'--s{i}:{slot.dark};' for i, slot in enumerate(SLOTS))
  classes = ''.join(f'.s{i}{{--c:var(--s{i});--d:{slot.dash or "none"}}}' for i, slot in enumerate(SLOTS))
  return (f':root{{color-scheme:light dark;--shade:{SHADE};--densest:{DENSEST};{light}}}\n'
          f'@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{classes}\n')
