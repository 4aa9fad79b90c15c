import ast

from conftest import ROOT

# A module imports only from rows above its own. Modules of one row may import each other inside their folder.
ROWS = [['errors', 'provenance'], ['files'], ['npz'], ['spaces', 'photometric'],
        ['genotypes', 'data', 'augment', 'metrics', 'parallel', 'checkpoint', 'cost', 'oracle', 'nasbench101',
         'nasbench301', 'natsbench', 'tfrecord', 'draw', 'ops', 'initial', 'runfolder', 'signals', 'cpu'], ['mixing'],
        ['methods', 'supernet', 'network'], ['oneshot'], ['optim', 'state'], ['limits'], ['config'], ['steps', 'loop'],
        ['export'], ['standing', 'records'], ['outcome', 'evaluate', 'tables'],
        ['search', 'report', 'retrain'], ['study'], ['main']]
# a service may use these services
ALLOWED = {('oracle', 'cost'), ('nasbench101', 'cost'), ('nasbench101', 'tfrecord'), ('oracle', 'natsbench'),
           ('natsbench', 'data'), ('natsbench', 'cost')}


def test_imports_point_one_way():
  row = {name: i for i, names in enumerate(ROWS) for name in names}
  package, seen = ROOT / 'vimnas_jax', set()
  for path in sorted(package.rglob('*.py')):
    room = path.relative_to(package).parts[0].removesuffix('.py')
    if room == '__init__':
      continue
    seen.add(room)
    for node in ast.walk(ast.parse(path.read_text())):
      names = []
      if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'vimnas_jax':
        names = [node.module.split('.')[1]] if '.' in node.module else [a.name for a in node.names]
      elif isinstance(node, ast.Import):
        names = [a.name.split('.')[1] for a in node.names if a.name.startswith('vimnas_jax.')]
      for name in names:
        assert name == room or row[name] < row[room] or (room, name) in ALLOWED, f'{path}: imports {name}'
      if isinstance(node, ast.Import | ast.ImportFrom):
        roots = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        assert not any((r or '').split('.')[0] in ('tensorflow', 'torch', 'clu') for r in roots), path
        assert room == 'main' or not any((r or '').split('.')[0] == 'absl' for r in roots), path
  assert seen == set(row)
