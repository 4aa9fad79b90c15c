import io
import json
import sys

import pytest
from conftest import one_line

from vimnas_jax.errors import UserError
from vimnas_jax.runs import metrics


def test_a_resume_drops_later_lines_and_a_line_that_was_cut_short(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "lo')
  assert [row['step'] for row in metrics.read(path)] == [1, 2, 3]
  lines = metrics.Lines(path, 2)
  lines.write(step=3, loss=float('nan'), probs={'a': [1.0, float('inf')]})
  lines.close()
  rows = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
  assert rows == [{'step': 1}, {'step': 2}, {'step': 3, 'loss': None, 'probs': {'a': [1.0, None]}}]


def test_a_kill_in_the_middle_of_the_rewrite_loses_no_line(tmp_path, monkeypatch):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"step": 1}\n{"step": 2}\n')

  def killed(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr('os.fsync', killed)
  with pytest.raises(KeyboardInterrupt):
    metrics.Lines(path, 1)
  assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize('line', ['{"step": 2', '5', '{}', '{"step": "2"}', '\x00\x00', '[' * 99999])
def test_a_damaged_line_is_named(tmp_path, line):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"step": 1}\n' + line + '\n{"step": 3}\n')
  with pytest.raises(UserError, match='line 2 is damaged') as error:
    metrics.Lines(path, 9)
  one_line(error)
  assert path.read_text().count('\n') == 3


def test_a_console_that_is_gone_or_knows_few_characters_stops_no_run(monkeypatch, capfd):
  class Gone(io.TextIOBase):
    def write(self, text):
      raise BrokenPipeError

    def fileno(self):
      return 99999

  closed = io.StringIO()
  closed.close()
  for stream in (Gone(), closed, None):
    monkeypatch.setattr(sys, 'stdout', stream)
    metrics.Console().say('…')
  ascii_only = io.TextIOWrapper(io.BytesIO(), 'ascii')
  monkeypatch.setattr(sys, 'stdout', ascii_only)
  metrics.Console().say('φ → one')
  ascii_only.flush()
  assert ascii_only.buffer.getvalue() == b'\\u03c6 \\u2192 one\n'


def test_a_line_that_is_no_terminal_has_the_time_left(monkeypatch, capsys):
  now = [100.0]
  monkeypatch.setattr(metrics.time, 'monotonic', lambda: now[0])
  console = metrics.Console(seconds=10.0)
  with console.progress(100, 20):  # a run that goes on after step 20
    for step, moment in ((21, 102.0), (22, 104.0), (40, 160.0), (100, 300.0)):
      now[0] = moment
      console.step(step, 100, 'loss 1')
  assert capsys.readouterr().out.splitlines() == [
      'step 21/100  loss 1  about 3 min left', 'step 40/100  loss 1  about 3 min left', 'step 100/100  loss 1']
  now[0] = 400.0
  with console.progress(100, 0, lambda: 450 - now[0]):  # a clock ends it 50 seconds after its start
    now[0] = 422.0
    console.waited(20.0)
    console.step(4, 100, 'loss 1')  # 2 seconds of steps: 48 to come, and 28 are left
  assert capsys.readouterr().out.splitlines() == ['step 4/100  loss 1  about 28 s left']
