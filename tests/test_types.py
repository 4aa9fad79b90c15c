"""What mypy does not ask for: that all that is public says its types."""

import ast
import tomllib

from conftest import ROOT

FILES = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['mypy']['files']


def public(node, name):
  """(name, function) of every public function and method of a module or class."""
  for child in node.body:
    if isinstance(child, ast.ClassDef) and not child.name.startswith('_'):
      yield from public(child, f'{name}.{child.name}')
    if isinstance(child, ast.FunctionDef) and (child.name.endswith('__') or not child.name.startswith('_')):
      yield f'{name}.{child.name}', child


def lacking(function):
  """The parameters of a function that have no annotation, and 'return' where its result has none."""
  given = function.args
  every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
  found = [arg.arg for arg in every if arg.annotation is None and arg.arg not in ('self', 'cls')]
  return found if function.returns or function.name in ('__init__', '__post_init__') else [*found, 'return']


def test_public_functions_are_annotated_where_mypy_looks():
  paths = [path for name in FILES for path in ([ROOT / name] if name.endswith('.py') else (ROOT / name).rglob('*.py'))]
  functions = {name: lacking(function) for path in paths for name, function in
               public(ast.parse(path.read_text()), str(path.relative_to(ROOT)))}
  assert len(functions) > 100 and not {name: words for name, words in functions.items() if words}


def test_the_types_are_the_users_too():
  assert (ROOT / 'vimnas_jax' / 'py.typed').is_file()
