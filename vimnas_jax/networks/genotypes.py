"""Architectures by name or notation; those of the DARTS space that papers have published.

Each is written `op:source ...` for the normal cell, then for the reduction cell; pairs 2i and 2i + 1 lead into node
i + 2, and the four intermediate nodes are concatenated. Sources: the files that define genotypes in the repositories
quark0/darts, yuhuixu1993/PC-DARTS, chenxin061/pdarts, xiaomi-automl/FairDARTS, XinbangZhang/DATA-NAS,
D-X-Y/AutoDL-Projects (GDAS), xiangning-chen/SmoothDARTS and Meituan-AutoML/DARTS-. Searches in the spaces S1 to S4
(suffix s1 to s4) gave cells that belong to the full DARTS space as well; those with a noise operation are left out.
"""

import difflib
import hashlib
import pathlib
import re
from collections.abc import Iterable
from types import MappingProxyType

from vimnas_jax import files, spaces
from vimnas_jax.errors import UserError
from vimnas_jax.spaces import Genotype, Space

_OPS = {'max': 'max_pool_3x3', 'avg': 'avg_pool_3x3', 'skip': 'skip_connect', 's3': 'sep_conv_3x3',
        's5': 'sep_conv_5x5', 'd3': 'dil_conv_3x3', 'd5': 'dil_conv_5x5'}

_CELLS = {
    # Liu et al., DARTS (ICLR 2019): first and second order
    'DARTS_V1': ('s3:1 s3:0 skip:0 s3:1 skip:0 s3:1 s3:0 skip:2',
                 'max:0 max:1 skip:2 max:0 max:0 skip:2 skip:2 avg:0'),
    'DARTS_V2': ('s3:0 s3:1 s3:0 s3:1 s3:1 skip:0 skip:0 d3:2',
                 'max:0 max:1 skip:2 max:1 max:0 skip:2 skip:2 max:1'),
    # Xu et al., PC-DARTS (ICLR 2020): searched on CIFAR-10 and on ImageNet
    'PC_DARTS_cifar': ('s3:1 skip:0 s3:0 d3:1 s5:0 s3:1 avg:0 d3:1', 's5:1 max:0 s5:1 s5:2 s3:0 s3:3 s3:1 s3:2'),
    'PC_DARTS_image': ('skip:1 s3:0 s3:0 skip:1 s3:1 s3:3 s3:1 d5:4', 's3:0 skip:1 d5:2 max:1 s3:2 s3:1 s5:0 s3:3'),
    # Chen et al., P-DARTS (ICCV 2019)
    'PDARTS': ('skip:0 d3:1 skip:0 s3:1 s3:1 s3:3 s3:0 d5:4', 'avg:0 s5:1 s3:0 d5:2 max:0 d3:1 d3:1 d5:3'),
    # Xie et al., SNAS (ICLR 2019): the FairDARTS and the DATA repository disagree
    'SNAS_FairDARTS': ('s3:0 s3:1 skip:0 d3:1 skip:1 skip:0 skip:0 s3:1',
                       'max:0 max:1 max:1 skip:2 skip:2 max:1 max:0 d5:2'),
    'SNAS_DATA': ('s3:0 s3:1 skip:0 d3:1 skip:0 skip:1 skip:0 s3:1',
                  'max:0 max:1 skip:2 max:1 skip:2 max:1 max:0 d3:2'),
    # Dong and Yang, GDAS (CVPR 2019)
    'GDAS_V1': ('skip:0 skip:1 skip:0 s5:2 s3:3 skip:0 s5:4 s3:3', 's5:0 s3:1 s5:2 s5:1 d5:2 s3:1 s5:0 s5:2'),
    # Chen and Hsieh, SmoothDARTS (ICML 2020), CIFAR-10: RS and ADV; PC = PC-DARTS as they searched it. s5 = full space
    'SDARTS_RS_s1': ('d5:1 d3:0 s3:1 skip:2 d3:3 s3:2 s3:0 d3:2', 'max:0 d3:1 d5:2 max:1 d5:3 s3:1 d5:2 d5:3'),
    'SDARTS_ADV_s1': ('d5:1 d3:0 s3:1 skip:2 s3:2 d3:3 s3:0 d3:2', 'max:0 d3:1 d5:2 max:0 d5:3 d3:2 d5:4 d5:2'),
    'SDARTS_RS_s2': ('s3:0 s3:1 s3:2 skip:1 s3:3 skip:0 s3:1 skip:2', 's3:0 s3:1 s3:1 s3:0 s3:2 s3:1 s3:2 s3:3'),
    'SDARTS_ADV_s2': ('s3:1 skip:0 s3:2 s3:0 s3:3 s3:2 s3:4 s3:1', 'skip:0 skip:1 s3:0 s3:2 s3:3 s3:0 s3:4 s3:3'),
    'SDARTS_RS_s3': ('s3:1 s3:0 s3:1 s3:0 s3:1 s3:2 s3:4 skip:0', 'skip:0 s3:1 s3:2 s3:0 s3:2 s3:3 s3:0 s3:4'),
    'SDARTS_ADV_s3': ('s3:1 s3:0 s3:0 s3:2 s3:1 s3:0 s3:1 skip:0', 's3:1 s3:0 s3:2 s3:0 s3:2 s3:0 s3:1 s3:3'),
    'SDARTS_RS_s4': ('s3:1 s3:0 s3:2 s3:1 s3:3 s3:2 s3:4 s3:2', 's3:0 s3:1 s3:0 s3:2 s3:0 s3:3 s3:0 s3:4'),
    'SDARTS_ADV_s4': ('s3:1 s3:0 s3:2 s3:1 s3:3 s3:2 s3:3 s3:4', 's3:1 s3:0 s3:2 s3:1 s3:2 s3:3 s3:3 s3:4'),
    'SDARTS_RS_s5': ('s3:1 s3:0 s5:1 skip:0 s3:3 skip:1 s3:1 d3:2', 'max:0 s3:1 skip:2 max:0 d5:3 max:0 s3:2 s5:3'),
    'SDARTS_ADV_s5': ('s3:0 s3:1 s3:1 skip:0 s5:0 d3:3 d3:4 skip:0',
                      'max:0 s5:1 skip:2 max:0 skip:3 skip:2 skip:2 s5:4'),
    'SDARTS_PC_s1': ('d5:1 d3:0 d5:0 s3:1 skip:2 max:0 skip:2 skip:0',
                     'max:0 max:1 max:1 max:0 s3:1 max:0 d5:2 max:0'),
    'SDARTS_PC_s2': ('skip:1 s3:0 skip:0 skip:2 skip:3 s3:0 skip:3 skip:4',
                     's3:0 s3:1 s3:1 s3:2 s3:2 s3:3 s3:4 s3:2'),
    'SDARTS_PC_s3': ('s3:1 s3:0 s3:2 s3:1 s3:3 s3:2 skip:4 s3:2', 's3:0 s3:1 s3:0 s3:2 s3:0 s3:3 s3:0 s3:4'),
    # Chu et al., DARTS- (ICLR 2021), CIFAR-10. s0 = full space
    'DARTS_minus_s0': ('s3:0 s5:1 s3:1 d3:2 skip:1 s3:0 skip:1 s3:0',
                       's3:0 max:1 skip:2 max:0 skip:2 skip:3 skip:2 skip:3'),
    'DARTS_minus_s1': ('skip:1 d3:0 s3:1 d3:2 skip:0 s3:1 skip:1 d3:3',
                       'max:0 max:1 max:1 max:0 skip:2 max:0 max:1 skip:3'),
    'DARTS_minus_s2': ('s3:1 s3:0 s3:1 s3:0 s3:1 s3:0 skip:1 s3:0',
                       's3:1 s3:0 s3:1 skip:2 skip:2 skip:3 skip:2 skip:3'),
    'DARTS_minus_s3': ('s3:1 s3:0 s3:1 s3:0 s3:1 s3:0 skip:1 s3:0',
                       's3:1 s3:0 s3:1 skip:2 skip:2 skip:3 skip:2 skip:3'),
    # no search: the two ends of the space, for calibration
    'ALL_SEP': ('s3:0 s3:1 s3:0 s3:1 s3:0 s3:1 s3:0 s3:1',) * 2,
    'ALL_SKIP': ('skip:0 skip:1 skip:0 skip:1 skip:0 skip:1 skip:0 skip:1',) * 2,
}


def _cell(text: str):
  pairs = (pair.split(':') for pair in text.split())
  return tuple((_OPS[op], int(source), 2 + i // 2) for i, (op, source) in enumerate(pairs))


PUBLISHED = MappingProxyType({
    name: Genotype('darts', {'normal': _cell(normal), 'reduce': _cell(reduce)})
    for name, (normal, reduce) in _CELLS.items()})


def get(name: str) -> Genotype:
  """The published genotype called `name`. Raises UserError if there is none."""
  if name not in PUBLISHED:
    raise UserError(f'no published genotype is called {name!r:.80}{_alike(name)}; {len(PUBLISHED)} names are in '
                    'vimnas_jax/networks/genotypes.py')
  return PUBLISHED[name]


def trusted(config) -> tuple[str, ...]:
  """The Python files that the user lets run: a space that `config` names, and those of config.trust."""
  more = (path.strip() for path in config.get('trust', '').split(','))
  return tuple(path for path in (config.space.name, *more) if path.endswith('.py'))


def fingerprint(genotype: Genotype) -> str:
  """SHA-256 of an architecture, however its space is called: the path of a file of one's own does not count."""
  return hashlib.sha256(repr(sorted(genotype.cells.items())).encode()).hexdigest()


def resolve(text: str, space: Space | None = None, trust: Iterable[str] = ()) -> Genotype:
  """The genotype that `text` stands for, whole and fit for its space.

  It is, tried in this order: a published name; a run folder with its genotype.json; a file with a genotype in JSON or
  in the notation of its space; the notation itself, `|op~0|+...` or `Genotype(normal=[...], ...)`, also as a log or a
  Python file has it.

  Args:
    text: see above.
    space: the space that a notation, and a published name, is read in; None takes NAS-Bench-201 and DARTS.
    trust: Python files that may be executed, if a file names one of them as its space.

  Raises:
    UserError: it is none of them, or no architecture of that space.
  """
  text = text.strip()
  if text in PUBLISHED:
    found = PUBLISHED[text]
    if space is not None and set(space.cells) == set(found.cells):
      found = Genotype(space.name, found.cells)  # those of DARTS are in S1 to S4 too, if these have the operations
    return (space or spaces.get(found.space)).validate(found)
  path = _file(text)
  if path is None and _is_notation(text):
    return _read(text, space, 'config.genotype', trust)
  if path is None:
    raise UserError(f'{text[:120]!r} is no genotype: give a run folder, a file with a genotype in JSON or a notation, '
                    'a DARTS Genotype(normal=[...], ...), a NAS-Bench-201 string (|op~0|+...) or a published name, as '
                    f'DARTS_V2{_alike(text)}')
  shown = files.printable(path)
  try:
    return _read(files.read_text(path).lstrip('\ufeff').strip(), space, shown, trust)
  except UserError as e:
    raise e if shown in str(e) else UserError(f'{shown} cannot be read: {e}') from None


def _alike(name: str) -> str:
  close = sorted(difflib.get_close_matches(name[:40], PUBLISHED, 3))
  return f' (alike: {", ".join(close)})' if close else ''


def _is_notation(text):
  return text.startswith('{') or '|' in text or re.search(r'\bGenotype\s*\(', text) is not None


def _file(text) -> pathlib.Path | None:
  """The file that `text` names, that of a run folder being its genotype.json; None if there is none."""
  try:
    path = pathlib.Path(text).expanduser()
    if not text or not path.exists():
      return None
    folder, held = path.is_dir(), path / 'genotype.json'
    if folder and not held.is_file():
      raise UserError(f'{files.printable(text)} holds no genotype.json: it is no folder of a finished search; give '
                      'another one')
    if not folder and not path.is_file():
      raise UserError(f'{files.printable(text)} is no ordinary file: give one with a genotype')
  except (OSError, ValueError, RuntimeError):  # too long, a null byte, no such home: no path
    return None
  return held if folder else path


def _read(text, space, where, trust) -> Genotype:
  """The one genotype in `text`, from `where`."""
  if text.startswith('{'):
    found = Genotype.from_json(text)
    own = space is not None and space.name.endswith('.py') and found.space.endswith('.py')
    if own:  # the user's file, wherever the one lay that the genotype names
      return space.validate(Genotype(space.name, found.cells))
    return (space or spaces.named(found.space, where, trust)).validate(found)
  words = re.findall(r'\|(?:[\w ]+~ *\d *\|)+(?:\s*\+\s*\|(?:[\w ]+~ *\d *\|)+)*', text)
  if len(words) > 1:
    raise UserError(f'{len(words)} NAS-Bench-201 architectures are in {text[:60]!r}; give one')
  of = space or spaces.get('nb201' if words or text.startswith('|') else 'darts')
  return of.validate(of.read(words[0] if words else text))
