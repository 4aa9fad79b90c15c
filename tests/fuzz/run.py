"""Fuzzes readers: python -m tests.fuzz.run TARGET ... --seconds 60; `all` is every target.

A target passes where its reader returns, or raises UserError in one line. Anything else, ten seconds, or a gibibyte
more than the process began with, is a fault: its input is kept under --keep, and the exit code is 1.
"""

import argparse
import os
import pathlib
import re
import resource
import shutil
import sys
import tempfile

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import atheris

with atheris.instrument_imports(include=[f'vimnas_jax.{name}' for name in (
    'data', 'tabular', 'files', 'runs.metrics', 'networks.genotypes', 'spaces', 'verbs.export')]):
  from . import targets

from vimnas_jax.errors import UserError


def checked(call, data: bytes):
  """`call(data)`, which may raise nothing but a UserError of one line that a terminal takes."""
  try:
    call(data)
  except UserError as e:
    text = str(e)
    if not text.strip() or not text.isprintable():
      raise AssertionError(f'no printable line: {text!r}') from e


def _fuzz(name, seconds, runs, keep):
  call, whole = targets.TARGETS[name]
  corpus = targets.ROOM / 'corpus'
  corpus.mkdir(exist_ok=True)
  for i, content in enumerate(whole()):
    (corpus / f'{name}{i}').write_bytes(content)
    checked(call, content)
  base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
  atheris.Setup([name, f'-max_total_time={seconds}', f'-runs={runs}', '-timeout=10',
                 f'-rss_limit_mb={base + 1024}', '-max_len=65536', f'-artifact_prefix={keep}/{name}-',
                 '-len_control=20', '-print_final_stats=1', str(corpus)],
                lambda data: checked(call, data))
  atheris.Fuzz()


def _stalled(name, keep) -> bool:
  """Whether what took too long takes less than ten seconds of the processor: then it was the machine that stood."""
  found = list(pathlib.Path(keep).glob(f'{name}-timeout-*'))
  for path in found:
    child = os.fork()
    if not child:
      call, whole = targets.TARGETS[name]
      list(whole())
      used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
      resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 11,) * 2)
      try:
        checked(call, path.read_bytes())
      except BaseException:
        os._exit(1)
      os._exit(0)
    if os.waitpid(child, 0)[1]:
      return False
    path.unlink()
  return bool(found)


def _report(name, log, status, keep) -> bool:
  text = log.read_text(errors='replace')
  count = re.findall(r'stat::number_of_executed_units: *(\d+)|#(\d+)', text)
  count = next((a or b for a, b in reversed(count)), '0')
  fine = status == 0 or 'libFuzzer: timeout' in text and _stalled(name, keep)
  print(f'{name}: {count} executions, {"no fault" if fine else "FAULT"}', flush=True)
  if not fine:
    at = max(text.find('=== Uncaught'), text.find('== ERROR'), text.find('Traceback'), 0)
    print(text[at:at + 6000], flush=True)
  return fine


def main(arguments=None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('target', nargs='+', choices=[*targets.TARGETS, 'all'])
  parser.add_argument('--seconds', type=int, default=60)
  parser.add_argument('--runs', type=int, default=-1, help='at most so many, if not -1')
  parser.add_argument('--keep', default=tempfile.gettempdir())
  told = parser.parse_args(arguments)
  fine = True
  pathlib.Path(told.keep).mkdir(parents=True, exist_ok=True)
  for name in targets.TARGETS if 'all' in told.target else told.target:
    room = targets.ROOM / name  # each has its own, and its own process, which ends with libFuzzer
    room.mkdir()
    log = room / 'log'
    child = os.fork()
    if not child:
      targets.ROOM = room
      with log.open('wb') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
      try:
        _fuzz(name, told.seconds, told.runs, pathlib.Path(told.keep))
      except BaseException as e:
        import traceback
        traceback.print_exception(e)
      os._exit(1)
    _, status = os.waitpid(child, 0)
    fine &= _report(name, log, status, told.keep)
    shutil.rmtree(room)
  targets.done()
  return not fine


if __name__ == '__main__':
  sys.exit(main())
