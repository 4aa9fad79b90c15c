import ast
import graphlib

from conftest import ROOT

# A module imports only from rooms of rows above its own, and from its own room, where there are no circles.
ROWS = [['errors', 'isa'], ['files'], ['userfile'], ['spaces'], ['data', 'cpu', 'draw'], ['networks'],
        ['methods', 'tabular'], ['limits'], ['fields'], ['words'], ['config'], ['runs'], ['verbs'], ['api'], ['main']]
PACKAGE = ROOT / 'vimnas_jax'


def imported(node):
  """The modules of the package that an import names, as 'room' or 'room.module'."""
  if isinstance(node, ast.Import):
    names = [alias.name for alias in node.names]
  elif node.level == 0 and node.module and node.module.split('.')[0] == 'vimnas_jax':
    names = [f'{node.module}.{alias.name}' for alias in node.names]
  else:
    names = []
  return ['.'.join(name.split('.')[1:3]) for name in names if name.startswith('vimnas_jax.')]


def test_imports_point_one_way():
  row = {room: i for i, rooms in enumerate(ROWS) for room in rooms}
  seen, inside = set(), {}
  for path in sorted(PACKAGE.rglob('*.py')):
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    room = parts[0]
    if room == '__init__':
      continue
    seen.add(room)
    for node in ast.walk(ast.parse(path.read_text())):
      if not isinstance(node, ast.Import | ast.ImportFrom):
        continue
      own = '.'.join(parts[:2])
      for name in imported(node):
        other, _, module = name.partition('.')
        assert other == room or row[other] < row[room], f'{path}: imports {name}'
        if other == room and name != own and any((PACKAGE / room / end).exists() for end in (f'{module}.py', module)):
          inside.setdefault(own, set()).add(name)
      roots = {(name or '').split('.')[0] for name in (
          [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])}
      assert not roots & {'tensorflow', 'torch', 'clu'}, path
      assert own in ('main', 'data.loader') or 'absl' not in roots, path  # grain reads flags
  assert seen == set(row)
  for room in seen:
    graph = {module: others for module, others in inside.items() if module.startswith(f'{room}.')
             and not module.endswith('__init__')}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises on a circle


def test_programs_take_from_the_tests_what_is_none():
  for path in sorted((ROOT / 'benchmarks').glob('*.py')):
    for node in ast.walk(ast.parse(path.read_text())):
      module = (getattr(node, 'module', None) or '') if isinstance(node, ast.ImportFrom) else ''
      for name in ([alias.name for alias in node.names] if module == 'tests' else
                   [module[6:]] if module.startswith('tests.') else []):
        taken = ast.parse((ROOT / 'tests' / f'{name}.py').read_text())
        assert 'conftest' not in [getattr(other, 'module', '') for other in ast.walk(taken)], f'{path}: tests.{name}'
