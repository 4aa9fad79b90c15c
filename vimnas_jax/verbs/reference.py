"""What can be asked: tasks, configurations and fields, read from the source that defines them.

`python -m vimnas_jax.verbs.reference > docs/config.md` writes the page; `--help` prints the short form.
"""

import ast
import inspect
import io
import pathlib
import textwrap
import tokenize
from typing import NamedTuple

from vimnas_jax import fields, methods
from vimnas_jax.files import flatten


class Field(NamedTuple):
  """A field of a configuration, as 'data.dir', its default as Python writes it, and what it means."""

  name: str
  default: str
  meaning: str


def comments(source: str) -> dict[int, str]:
  """{line, from 1: the comment that begins on it after code, with the lines of comment alone that follow it}."""
  lines = source.splitlines()
  found: dict[int, list[str]] = {}
  last = 0
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      row, column = token.start
      alone = not lines[row - 1][:column].strip()
      if not alone:
        last = row
        found[row] = []
      if not alone or (last and last + len(found[last]) == row):
        found[last].append(token.string.lstrip('#').strip())
  return {row: ' '.join(text) for row, text in found.items()}


def of_config() -> list[Field]:
  """Every field but those of methods, in the order of fields.py."""
  source = inspect.getsource(fields)
  said = comments(source)
  defaults = flatten(fields.defaults().to_dict())
  listed = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Assign):
      names = [ast.unparse(target) for top in node.targets
               for target in (top.elts if isinstance(top, ast.Tuple) else [top])]
      for name in names:
        field = name.removeprefix('c.')
        if name != field and field in defaults:
          text = said.get(node.end_lineno or 0, '')
          listed.append((node.lineno, Field(field, repr(defaults[field]), text)))
  return [field for _, field in sorted(listed, key=lambda each: each[0])]


def of_method(name: str) -> list[Field]:
  """The fields that a method adds to config.method, with its own defaults."""
  source = methods.source(name)
  said, meanings = comments(source), {}
  for node in ast.parse(source).body:
    value = getattr(node, 'value', None)
    if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(value, ast.Dict):
      for key, each in zip(value.keys, value.values, strict=True):
        if isinstance(key, ast.Constant) and each.end_lineno in said:
          meanings.setdefault(key.value, said[each.end_lineno])
  return [Field(field, repr(default), meanings.get(field, '')) for field, default in methods.fields(name).items()]


def configurations() -> dict[str, str]:
  """{name that --config takes: the first line of what its file says}."""
  here = pathlib.Path(__file__).parent.parent
  folder = next(f for f in (here / 'configs', here.parent / 'configs') if f.is_dir())  # installed; a checkout
  return {path.stem: (ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or '').split('\n')[0]
          for path in sorted(folder.glob('*.py')) if path.stem != '__init__'}


def overview() -> str:
  """What `--help` prints beside the flags: tasks, configurations, methods, and the names of all fields."""
  rooms: dict[str, list[str]] = {}
  for field in of_config():
    room, _, leaf = field.name.rpartition('.')
    rooms.setdefault(room, []).append(f'{leaf}={field.default}')
  width = max(map(len, configurations()))
  return '\n'.join([
      'tasks (--config.task, which a configuration sets):',
      *(f'  {name:10}{text}' for name, text in fields.TASKS.items()), '',
      'configurations (--config):', *(f'  {name:{width}}  {text}' for name, text in configurations().items()), '',
      'methods (--config=NAME:method=METHOD):', *_wrapped(methods.NAMES), '',
      'fields and defaults (--config.FIELD=VALUE; --config.dry_run shows what a command comes to):',
      *(line for room, names in rooms.items() for line in ((f'  {room}.' if room else '  config:'),
                                                          *_wrapped(names, '    '))), '',
      'Every field with its meaning: docs/config.md.'])


def _wrapped(words, indent='  ') -> list[str]:
  lines = textwrap.wrap('  '.join(words), 110, break_long_words=False, break_on_hyphens=False)
  return [indent + line for line in lines]


def _table(rows: list[Field], prefix: str) -> list[str]:
  def cell(text):
    return text.replace('|', '\\|')

  return ['| field | default | meaning |', '|---|---|---|',
          *(f'| `{prefix}{row.name}` | `{cell(row.default)}` | {cell(row.meaning)} |' for row in rows)]


def markdown() -> str:
  """docs/config.md, whole."""
  lines = ['# Every field', '',
           'Set on the command line as `--config.FIELD=VALUE`, from Python as `vimnas_jax.configure(NAME, {FIELD: '
           'VALUE})`.', '`None` takes what the meaning says. `--config.dry_run` shows what a command comes to. This',
           'page is made from [`vimnas_jax/fields.py`](../vimnas_jax/fields.py) and the files of',
           '[`vimnas_jax/methods/`](../vimnas_jax/methods) by `python -m vimnas_jax.verbs.reference`.', '']
  lines += ['## Tasks', '', '| `config.task` | |', '|---|---|',
            *(f'| `{name}` | {text} |' for name, text in fields.TASKS.items()), '']
  rooms: dict[str, list[Field]] = {}
  for field in of_config():
    rooms.setdefault(field.name.rpartition('.')[0], []).append(field)
  for room, rows in rooms.items():
    lines += [f'## {f"config.{room}" if room else "config"}', '', *_table(rows, 'config.'), '']
  lines += ['## config.method, by method', '', 'What a method is: [methods](methods.md).', '']
  for name in methods.NAMES:
    rows = of_method(name)
    lines += [f'### {name}', '', *(_table(rows, 'config.method.') if rows else ['It has no fields.']), '']
  lines += ['## Configurations', '', '| `--config=` | |', '|---|---|',
            *(f'| [`{name}`](../configs/{name}.py) | {text} |' for name, text in configurations().items()), '']
  return '\n'.join(lines)


if __name__ == '__main__':
  print(markdown(), end='')
