"""The command line: `python -m vimnas_jax.main --config=configs/quickstart.py --workdir=runs/quickstart`."""

import contextlib
import os
import sys

from vimnas_jax.errors import Diverged, Stopped, UserError

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # XLA's own remarks are not for the user

NOT_INSTALLED = 'pip install -r requirements.txt, or run the Python that has it, as .venv/bin/python'

try:
  from absl import app, flags, logging
  from ml_collections import config_flags
except ModuleNotFoundError as missing:
  print(f'error: {missing}: {NOT_INSTALLED}', file=sys.stderr)
  sys.exit(2)

_CONFIG = config_flags.DEFINE_config_file('config', None, 'A file of configs/, then fields: --config.seed=1.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where everything goes; a second start there goes on. Default: '
                               'runs/ and the name of the config file.')


# Of glibc's allocator, which reads them when a process starts. A step takes and gives back gigabytes: kept mapped, in
# huge pages, they cost no page faults (figures in README.md).
MALLOC = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1', 'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(1 << 40)}


def main(argv):
  """Dispatches on config.task. Returns the exit code."""
  logging.set_verbosity(logging.WARNING)  # orbax tells every file it writes, matplotlib its list of fonts
  from vimnas_jax import config as config_lib  # after the flags: importing jax code takes seconds
  if argv[1:]:
    raise UserError(f'{argv[1]!r} is no flag: fields are set as --config.name=value')
  if _CONFIG.value is None:
    raise UserError('no configuration: give --config=configs/quickstart.py or another file of configs/')
  try:
    config = config_lib.resolve(_CONFIG.value)
  except OSError:  # of FILE:WORDS the file is opened only now
    file = sys.argv[_config_argument()].split('=', 1)[-1].split(':')[0]
    raise UserError(f'--config: cannot read {file}: give a file of configs/, as configs/quickstart.py') from None
  workdir = _WORKDIR.value
  if workdir is None:
    name = os.path.basename(sys.argv[_config_argument()].split('=', 1)[-1].split(':')[0])
    workdir = os.path.join('runs', os.path.splitext(name)[0])
  _compile_cache()
  command = 'python -m vimnas_jax.main ' + ' '.join(sys.argv[1:])
  workdir = os.path.expanduser(workdir)
  new = not os.path.exists(workdir)
  try:
    _dispatch(config, workdir, command)
  except UserError:
    if new:
      with contextlib.suppress(OSError):
        os.rmdir(workdir)  # what is refused before it has begun leaves no empty folder
    raise
  return 0


def _dispatch(config, workdir, command):
  from vimnas_jax import config as config_lib
  from vimnas_jax import evaluate, report, retrain, search, study
  if config.task == 'study':
    study.study(_CONFIG.value, workdir, command)
  elif config.task == 'report':
    report.report(config, workdir)
  elif config.task == 'retrain':
    retrain.retrain(config, workdir, command)
  elif config.task == 'evaluate':
    evaluate.evaluate(config, workdir, command)
  else:
    asked, following = _CONFIG.value, None
    if asked.then:  # checked before the search begins
      following = config_lib.following(asked, asked.then_changes, workdir)
    if search.search(config, workdir, command) is not None and following is not None:
      retrain.retrain(following, os.path.join(workdir, 'retrain'), command)


def _config_argument() -> int:
  for i, arg in enumerate(sys.argv):
    if arg.lstrip('-').startswith('config='):
      return i
    if arg in ('-config', '--config'):
      return i + 1
  return 0


def _compile_cache():
  """Keeps compiled programs between runs; JAX_COMPILATION_CACHE_DIR chooses another place."""
  import jax
  if not jax.config.jax_compilation_cache_dir:
    base = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    jax.config.update('jax_compilation_cache_dir', os.path.join(base, 'vimnas_jax'))


def _line(e: BaseException) -> str:
  if isinstance(e, AttributeError) and e.args and isinstance(e.args[0], KeyError):  # as ml_collections says it
    return f'no field {_line(e.args[0])} (every field is in vimnas_jax/config.py)'
  if isinstance(e, ModuleNotFoundError):
    return f'{e}: {NOT_INSTALLED}'
  text = e.args[0] if isinstance(e, KeyError) and e.args else e  # str of a KeyError is the repr of its message
  return '. '.join(' '.join(line.split()) for line in str(text).splitlines() if line.strip()) or type(e).__name__


def _parse(argv):
  """Absl's own parser, with one line and exit code 2 on a bad flag."""
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, KeyError, OSError, ValueError, TypeError, SyntaxError, ImportError,
          UserError) as e:
    print(f'error: {_line(e)}', file=sys.stderr)
    sys.exit(2)


def _run(argv):
  try:
    sys.exit(main(argv))
  except UserError as e:
    print(f'error: {_line(e)}', file=sys.stderr)
    sys.exit(2)
  except Diverged as e:
    print(f'error: {_line(e)}', file=sys.stderr)
    sys.exit(1)


if __name__ == '__main__':
  if sys.platform == 'linux' and not MALLOC.keys() & os.environ.keys():
    os.execve(sys.executable, sys.orig_argv, os.environ | MALLOC)  # before anything heavy is imported
  try:
    app.run(_run, flags_parser=_parse)
  except KeyboardInterrupt as e:
    print(f'stopped by {e if isinstance(e, Stopped) else "SIGINT"}, nothing lost: run the same command to go on')
    sys.stdout.flush()
    os._exit(0)  # at once: a compiler may still be at work in a thread
