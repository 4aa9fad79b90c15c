"""What the pages of all verbs have: the network's cost, the cells, where a run was made, its command and its files."""

import base64
import io
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import PIL.Image

from vimnas_jax import files, tabular
from vimnas_jax.draw import page as html
from vimnas_jax.draw import palette, svg
from vimnas_jax.draw.base import heading
from vimnas_jax.errors import UserError
from vimnas_jax.runs import metrics
from vimnas_jax.spaces import Genotype, Space

FILE = 'report.html'
POINTS = 150  # of a curve
SIDE = 64  # pixels of the longer side of a picture
# of a network whose parameters are counted
SIZE = 'at the width and depth of the search' + ''.join(
    f', in NAS-Bench-1Shot1 of that which {benchmark.name} trained' for benchmark in tabular.BENCHMARKS
    if benchmark.cost)
PARTS = {'test': 'test', 'valid': 'validation'}
_FILES = {
    'result.json': 'every figure, with the command and the versions', 'config.json': 'what was asked, field by field',
    'genotype.json': 'the architecture, as retrain takes it', 'data.json': 'the images: classes, counts, what was left '
    'out', 'damaged.json': 'images that could not be decoded, and why', 'plan.json': 'the plan that fits into the time',
    'arch.jsonl': 'probabilities of all operations, by step',
    'metrics.jsonl': 'loss and accuracy of training batches, by step', 'curve.jsonl': 'accuracy on whole splits',
    'events.out.tfevents.vimnas_jax': 'the same numbers as metrics.jsonl, for TensorBoard',
    'weights.png': 'the probabilities of all edges as a picture', 'film.gif': 'the same as a film',
    'phi.png': 'feature maps of φ, before and after',
    'cell_normal.png': 'the cell as a picture', 'cell_reduce.png': 'the reduction cell as a picture',
    'curve.png': 'the accuracy as a picture', 'confusion.png': 'the confusion as a picture',
    'export': 'the network, to be loaded elsewhere', 'checkpoints': 'the state that a run goes on from',
    'best.safetensors': 'the state that was kept', 'predictions.csv': 'the classes of every image',
    'seeds.md': 'all seeds as a table',
    'report.md': 'the same comparison as text', 'report.json': 'every figure of the comparison',
    'comparison.png': 'the measures as a picture', 'first_edge.png': 'the first edge of every experiment',
    'distributions.png': 'all edges at the start and at the end', 'regret_test.png': 'test regret over epochs',
    'regret_valid.png': 'validation regret over epochs', 'retrain/report.html': 'the network of this cell, trained'}


def name_of(text: Any) -> str:
  """The name of a space, method or data set as a page has it: of a file its last part."""
  return pathlib.PurePath(str(text)).name if str(text).endswith('.py') else str(text)


def images_of(folder: pathlib.Path, result: Mapping) -> str:
  """What a page calls the data of a run: their name, and where they are a folder of one's own, its name."""
  if result.get('data') != 'folder':
    return name_of(result.get('data', 'the data'))
  try:
    config = files.read_json(folder / 'config.json')['config']
    own = pathlib.PurePath(config['data']['dir']).name
  except (UserError, KeyError, TypeError):
    own = ''
  return f'the images of {own!r}' if own else 'a folder of images'


def data(folder: pathlib.Path, result: Mapping) -> Any:
  """What the images of a run are, as far as its folder says so: a line below the answer, None where it does not."""
  facts = account(folder)
  parts, brought = facts.get('images'), 'image_shape' in facts
  shape = facts['image_shape'] if brought else result.get('image_shape')
  classes = result.get('classes') if isinstance(result.get('classes'), list) else facts.get('classes')
  told = [counted(len(classes), 'class')] if isinstance(classes, list) and classes else []
  if isinstance(parts, dict):
    told += [f'{counted(n, f"{name} image")}' for name, n in parts.items() if html.real(n) and n]
    used = facts.get('used')
    if isinstance(used, dict) and html.real(used.get('training')) and used['training'] != parts.get('training'):
      apart = f', {html.number(used["validation"])} set apart' if html.real(used.get('validation')) and (
          used['validation']) else ''
      told.insert(1 + bool(classes), f'of which {html.number(used["training"])} are trained on{apart}')
    if isinstance(used, dict) and html.real(used.get('choosing')) and used['choosing'] != parts.get('validation'):
      told.append(f'{html.number(used["choosing"])} of those for validation choose')
  if isinstance(shape, list) and len(shape) == 3:
    told.append(f'{"brought to" if brought else "of"} {shape[0]}x{shape[1]} pixels')
  return html.tag('p', f'The images: {", ".join(told)}.') if told else None


def account(folder: pathlib.Path) -> Mapping:
  """What data.json of a run folder says of its images, {} where there is none, or none that can be read."""
  try:
    facts = files.read_json(folder / 'data.json') if (folder / 'data.json').exists() else {}
  except UserError:
    return {}
  return facts if isinstance(facts, dict) else {}


def decides(result: Mapping) -> bool:
  """Whether a method chooses by probabilities at all: neither by trials nor by a draw."""
  return not (result.get('derived') or result.get('drawn'))


def otherwise(result: Mapping) -> bool:
  """Whether an architecture is not what the probabilities of the last step say: it was drawn, found by trials, that of
  an earlier search, or put in place by a limit.
  """
  limit = result.get('limit')
  changed = isinstance(limit, Mapping) and (limit.get('repaired') or limit.get('drawn_again'))
  return bool(not decides(result) or result.get('taken') or changed)


def counted(count: Any, what: str) -> str:
  """'1 step', '1,200 steps', '2 classes', '– steps'."""
  return f'{html.number(count)} {what}' + ('' if count == 1 else 'es' if what.endswith(('s', 'rch', 'tch')) else 's')


def operations(space: Space) -> list[str]:
  """All candidates of a space, in its order."""
  return list(dict.fromkeys(op for cell in space.cells.values() for ops in cell.ops for op in ops))


def architecture(space: Space, result: Mapping) -> Genotype | None:
  """That of a result; None where it is none of this space."""
  try:
    return Genotype(space.name, space.read(result['genotype']).cells)
  except (UserError, KeyError, TypeError, AttributeError):
    return None


def edges(space: Space, result: Mapping) -> Any:
  """Those of the architecture of a result, whatever their order; its text where it is none of this space."""
  genotype = architecture(space, result)
  return result.get('genotype') if genotype is None else genotype.unordered


def weights(space: Space, probs: Mapping | None) -> dict[str, dict[tuple[str, int, int], float]]:
  """{cell: {(op, source, target): probability}} of {cell: [edges, ops]}; {} where rows are no edges."""
  found: dict[str, dict] = {}
  for name, cell in space.cells.items():
    rows = fitting(probs, name, cell.shape)
    if rows is not None and not cell.rows:
      found[name] = {(op, *cell.edges[e]): float(rows[e][o]) for e, ops in enumerate(cell.ops)
                     for o, op in enumerate(ops)}
  return found


def fitting(probs: Any, name: str, shape: tuple[int, int]) -> np.ndarray | None:
  """Probabilities of a cell, [edges, ops]; NaN where there is no number. None where they are not of that shape."""
  try:
    rows = np.array(probs[name], float)  # None becomes NaN
  except (KeyError, TypeError, ValueError):
    return None
  return rows if rows.shape == shape else None


def cells(space: Space, genotype: Genotype | None, probs: Mapping | None = None) -> list[Any]:
  """The cells of an architecture, each in a box of its own, with a legend."""
  if genotype is None:
    return [html.tag('p', 'The architecture cannot be read: it is none of this space.')]
  places = palette.slots([*operations(space), *(op for edges in genotype.cells.values() for op, _, _ in edges)])
  used = {op for edges in genotype.cells.values() for op, _, _ in edges}
  known = weights(space, probs)
  drawn = []
  for name in space.cells:
    title = heading(name).capitalize()
    drawn.append(html.tag('figure', html.tag('figcaption', title) if len(space.cells) > 1 else None, html.box(
        svg.cell(genotype, name, space, places, known.get(name)), f'{title}, drawn')))
  return [html.legend({op: place for op, place in places.items() if op in used}), drawn]


def finalists(result: Mapping) -> list[Mapping]:
  """The finalists of a search, one after the other; [] without any that can be read."""
  facts = result.get('finalists')
  rows = facts.get('rows') if isinstance(facts, Mapping) else None
  return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def compared(result: Mapping) -> bool:
  """Whether validation images chose the architecture of a search among others."""
  return sum(bool(html.real(row.get('valid_top1')) and row['valid_top1']) for row in finalists(result)) > 1


def benchmarks(result: Mapping) -> list[Any]:
  """What the benchmarks of the field say of a result: a line of words and a table for each that knows it."""
  parts: list[Any] = []
  for benchmark in tabular.BENCHMARKS:
    if benchmark.key not in result:
      continue
    figures = result[benchmark.key] or {}
    whose = benchmark.predicts or result.get(f'{benchmark.key}_of') or benchmark.whose(str(result.get('data', '')))
    rows = [(figure.heading, html.number(_scaled(figure, figures), figure.digits)) for figure in benchmark.figures
            if figure.of(figures) is not None]
    parts += [html.tag('h3', benchmark.name), html.paragraphs(f'{whose[:1].upper()}{whose[1:]}.'),
              html.bullets([line.removeprefix(benchmark.name).strip() for line in benchmark.lines(result)
                            if not line.endswith(f'{whose}:')]) if figures else html.paragraphs('It knows no figure.')]
    if rows:
      parts.append(html.more('As a table', html.table(f'{benchmark.name}: figures of this cell', ('figure', 'value'),
                                                      rows)))
  return parts


def _scaled(figure, figures):
  value = figure.of(figures)
  return figure.scale * value if html.real(value) else None


def cost(result: Mapping, where: str) -> list[Any]:
  """What the network and the run take; `where` says at which size parameters are counted."""
  rows: list[tuple] = [('Parameters', html.number(result.get('params')), where),
                       ('Multiply-adds', millions(result.get('madds')), 'of one image; FLOPs are twice that')]
  rows += [(f'Latency, batch of {html.number(row.get("batch"))}', html.number(row.get('milliseconds'), 2, 'ms'),
            f'{html.number(row.get("images_per_second"), 0)} images a second, median of '
            f'{html.number(row.get("calls"))} calls on this device') for row in result.get('latency') or ()]
  if 'seconds_per_step' in result:
    rows.append(('A step', html.number(result['seconds_per_step'], 3, 's'), 'median'))
  estimated = result.get('seconds_estimated')
  if estimated is None and html.real(result.get('seconds_per_step')) and html.real(result.get('steps')):
    estimated = result['seconds_per_step'] * result['steps']
  if html.real(estimated):
    rows.append(('All steps', metrics.duration(estimated), 'without compiling'))
  if 'bytes_per_step' in result:
    size = result['bytes_per_step']
    rows.append(('Memory of a step', html.number(size / 2 ** 20 if html.real(size) else None, 0, 'MiB'),
                 'as XLA accounts for it, the images included' + (
                     f'; of {number} seeds at once' if (number := html.number(result.get('together'))) != html.NOTHING
                     else '')))
  limit = result.get('limit')
  for name, words in (('params', 'parameters'), ('madds', 'multiply-adds'), ('latency_ms', 'milliseconds')):
    if isinstance(limit, Mapping) and isinstance(own := limit.get(name), Mapping):
      rows.append((f'Limit, {words}', html.number(own.get('found')), f'of {html.number(own.get("limit"))}'))
  if budget := result.get('budget'):
    spent = budget.get('seconds_spent')
    rows.append(('Time limit', html.number(budget.get('max_hours'), 2, 'h'),
                 f'{metrics.duration(spent)} spent' if html.real(spent) else ''))
  return [html.facts(rows)]


def millions(value: Any) -> str:
  """A number of multiply-adds."""
  return html.number(value / 1e6, 2, 'M') if html.real(value) else html.NOTHING


def again(result: Mapping) -> list[Any]:
  """The command and the environment of a run."""
  rows = [('Device', result.get('device')), ('Machine', result.get('machine')), ('Revision', result.get('git')),
          ('Seed', result.get('seed')), ('State, SHA-256', result.get('state_sha256'))]
  versions = result.get('versions')
  rows += list(versions.items()) if isinstance(versions, dict) else []
  return [command(result.get('command')), html.more('Environment', html.facts(
      [(name, html.NOTHING if value is None else str(value)) for name, value in rows if name != 'State, SHA-256' or
       value]))]


def command(text: Any) -> Any:
  """A command that can be copied."""
  if not text:
    return html.paragraphs('The command is not known: it was started from a program.')
  # each word is kept together, where there is room for it: `--` at the end of a line would not be seen to belong
  words = [part for word in str(text).split(' ') for part in (' ', html.tag('span', word, class_='word'))][1:]
  return [html.tag('pre', html.tag('code', words), id='command', tabindex='0', role='region', aria_label='Command'),
          html.tag('button', 'Copy the command', type='button', class_='copy', data_of='command', hidden=True),
          html.tag('span', role='status')]


def picture(image, text) -> Any:
  """An image, uint8 [h, w, c], inside the page; None where it has channels that no picture has."""
  if image.shape[-1] not in (1, 3):
    return None
  picture = PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  large = max(picture.size) > SIDE
  if large:
    picture.thumbnail((SIDE, SIDE))
  held = io.BytesIO()
  picture.save(held, 'JPEG' if large else 'PNG', **({'quality': 85} if large else {}))
  kind = 'jpeg' if large else 'png'
  return html.tag('img', src=f'data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode()}', alt=text)


def beside(folder: pathlib.Path, written: Iterable[str] = ('result.json',)) -> list[Any]:
  """Links to the files of a run folder; `written` are those that are about to be written."""
  rows = [(name, what) for name, what in _FILES.items() if name in written or (folder / name).exists()]
  return [html.tag('ul', [html.tag('li', html.link(name, f'{name}/' if '.' not in name else name), f': {what}')
                          for name, what in rows])]


def curve(name: str, x: list, lines: Iterable[tuple[str, list, int]], x_name: str, *, y=None, marks=(),
          digits=3) -> Any:
  """A chart of lines (name, values, slot), of neighbours averaged where there are many, with a caption that says so."""
  drawn, size, at = [], 1, []
  for label, values, slot in lines:
    at, means, size = svg.averaged(x, values, POINTS)
    drawn.append(svg.Line(label, means, slot, label))
  text = name if size == 1 else f'{name} (each point is the mean of {size} records)'
  return html.tag('figure', html.tag('figcaption', text),
                  svg.chart(name, at, drawn, x_name, y=y, marks=marks, digits=digits))


def accuracy(network: Mapping | None) -> tuple[str, str]:
  """(accuracy, of how many images and how sure) of a trained network; NOTHING and '' where it is not known."""
  part = 'test' if network and 'test_top1' in network else 'valid'
  top1, count = (network or {}).get(f'{part}_top1'), (network or {}).get(f'{part}_images')
  if not html.real(top1) or not html.real(count) or not count:
    return html.NOTHING, ''
  low, high = wilson(top1, count)
  return html.number(top1, 2, '%'), (f'{counted(count, f"{PARTS[part]} image")} (95 % confidence interval: '
                                     f'{low:.1f} to {high:.1f} %)')


def accuracy_tile(network: Mapping | None) -> list[tuple]:
  """A tile with the accuracy of the network of a cell, [] where none was trained."""
  value, how = accuracy(network)
  part = 'test' if network and 'test_top1' in network else 'valid'
  told = f'of its network, trained from scratch: {how}'
  return [(f'{PARTS[part].capitalize()} accuracy', value, told)] if how else []


def wilson(right: float, count: int) -> tuple[float, float]:
  """The 95 % interval, in %, of a share of `right` % of `count` independent images (Wilson, 1927)."""
  z, p = 1.96, right / 100
  centre = p + z * z / (2 * count)
  reach = z * (p * (1 - p) / count + z * z / (4 * count * count)) ** 0.5
  return tuple(round(100 * (centre + sign * reach) / (1 + z * z / count), 10) for sign in (-1, 1))
