import ast
import json
import os

import pytest
from conftest import ROOT, one_line

from vimnas_jax import files
from vimnas_jax.errors import UserError


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / 'a.json'
  files.write_json(path, {'a': 1})
  with pytest.raises(ZeroDivisionError), files.aside(path) as part:
    part.write_text('half')
    1 / 0  # noqa: B018
  assert files.read_json(path) == {'a': 1} and [p.name for p in tmp_path.iterdir()] == ['a.json']


def test_numbers_that_are_not_finite_are_null(tmp_path):
  files.write_json(tmp_path / 'a', {'a': [float('nan'), {'b': float('inf')}], 'c': 1.5})
  assert json.loads((tmp_path / 'a').read_text(), parse_constant=pytest.fail) == {'a': [None, {'b': None}], 'c': 1.5}


@pytest.mark.parametrize('content', [b'', b'{', b'\xff\xfe', b'[1]', b'null', b'[' * 100000, b'{"a": ' * 100000])
def test_damaged_json_is_one_line(tmp_path, content):
  (tmp_path / 'a.json').write_bytes(content)
  with pytest.raises(UserError, match='is damaged') as error:
    files.read_json(tmp_path / 'a.json')
  one_line(error)


def test_what_cannot_be_read_is_not_called_damaged(tmp_path):
  for path in (tmp_path, tmp_path / 'none'):
    with pytest.raises(UserError, match='cannot be read'):
      files.read_json(path)


def test_names_are_printable():
  assert files.printable('a\nb\x1b[0m\udcffc é') == 'a\\nb\\x1b[0m\\udcffc é'
  files.printable('\udcff').encode()


def test_every_text_file_names_its_encoding_and_is_written_in_one_place():
  """In an ASCII locale Python's default encoding is another one; a file written in place is lost in a kill."""
  for path in (ROOT / 'vimnas_jax').rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if not isinstance(node, ast.Call):
        continue
      where, call = f'{path}:{node.lineno}', ast.unparse(node.func)
      name = call.rpartition('.')[2]
      mode = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
      if call == 'open' or call.endswith(('.open', '.read_text')) and not call.startswith(OTHERS):
        binary = any('b' in text for text in mode if len(text) <= 3)
        assert binary or any(k.arg == 'encoding' for k in node.keywords), f'{where}: {call} without an encoding'
      if name in ('write_text', 'write_bytes'):
        assert path.name == 'files.py', f'{where}: write with files.write'


# what is called alike and is no text file of ours
OTHERS = ('files.', 'Image.', 'tarfile.', 'os.', 'archive.', 'bz2.')


def test_a_way_to_another_drive_is_a_uri(monkeypatch):
  assert files.relative('/a/b/c', '/a/d') == '../b/c'

  def none(*_):
    raise ValueError('path is on mount')

  monkeypatch.setattr(os.path, 'relpath', none)
  assert files.relative('/a/b c', '/d') == 'file:///a/b%20c'
