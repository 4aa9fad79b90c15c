"""The command line: `python -m vimnas_jax.main --config=configs/quickstart.py --workdir=runs/quickstart`.

Exit codes: 0 done; 1 the loss or a parameter stopped being finite; 2 bad input, or a file that cannot be read or
written; 70 a fault of this package; 75 (EX_TEMPFAIL) stopped by a signal, all saved: the same command goes on.
"""

import logging as stdlib_logging
import os
import pathlib
import shlex
import sys
import traceback

from vimnas_jax import files
from vimnas_jax.errors import UNFINISHED, Diverged, Stopped, UserError

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # XLA's own remarks are not for the user

NOT_INSTALLED = 'pip install -r requirements.txt, or run the Python that has it, as .venv/bin/python'
FAULT = 70  # EX_SOFTWARE

try:
  from absl import app, flags, logging
  from ml_collections import config_flags
except ModuleNotFoundError as missing:
  print(f'error: {missing}: {NOT_INSTALLED}', file=sys.stderr)
  sys.exit(2)

_CONFIG = config_flags.DEFINE_config_file('config', None, 'A file, or the name of one of configs/, as darts_c10; then '
                                          'fields: --config.seed=1.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where everything goes; a second start there goes on. Default: '
                               'runs/ and the name of the config file.')
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, for a job of several processes; it '
                                   'takes the port after it too. Default: JAX_COORDINATOR_ADDRESS.')
_PROCESSES = flags.DEFINE_integer('processes', None, 'How many processes the job has. Default: JAX_NUM_PROCESSES, or '
                                  '1.')
_PROCESS = flags.DEFINE_integer('process', None, 'Which of them this is, from 0. Default: JAX_PROCESS_ID.')
_WAIT = flags.DEFINE_float('wait', 300.0, 'Seconds to wait for the other processes to come, and for one that does not '
                           'answer.', lower_bound=1.0)


# Of glibc's allocator, which reads them when a process starts. A step takes and gives back gigabytes: kept mapped, in
# huge pages, they cost no page faults (figures in docs/results.md). See also cpu.run_here.
MALLOC = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1', 'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(1 << 40)}


_ALONE: list[bool] = []  # whether this process is the command's, in which no code of others has changed the package


def main(argv):
  """Dispatches on config.task. Returns the exit code."""
  logging.set_verbosity(logging.FATAL)  # orbax tells every file it writes, and of what fails whole tracebacks
  stdlib_logging.getLogger('asyncio').setLevel(stdlib_logging.CRITICAL)  # the same, of orbax's tasks
  from vimnas_jax import config as config_lib  # after the flags: importing jax code takes seconds
  if argv[1:]:
    raise UserError(f'{argv[1]!r} is no flag: fields are set as --config.name=value')
  if _CONFIG.value is None:
    raise UserError('no configuration: give --config=quickstart, or another name or file')
  try:
    asked = _CONFIG.value
  except OSError:  # of FILE:WORDS the file is opened only now
    raise UserError(f'--config: cannot read {_config_file()}: give a file, or the name of one that comes with the '
                    'package, as quickstart') from None
  from vimnas_jax.runs import provenance
  begun = provenance.sources()
  text = files.read_text(_config_file()) if os.path.isfile(_config_file()) else ''
  from vimnas_jax import api
  asked, notes = api.sized(asked)
  config = config_lib.resolve(asked)
  _join(config, several=bool(asked.seeds))
  api.compile_cache()
  if _ALONE:
    from vimnas_jax.runs import kept
    kept.allow(text, begun)
  command = shlex.join(['python', '-m', 'vimnas_jax.main', *sys.argv[1:]])
  return UNFINISHED if _dispatch(asked, config, _workdir(), command, notes) is None else 0


def _join(config, several=False):
  """Brings the processes of a job together, where it has several; `several` seeds are not for those."""
  from vimnas_jax import cpu
  from vimnas_jax.runs import hosts, runfolder
  place = hosts.place(_COORDINATOR.value, _PROCESS.value, _PROCESSES.value)
  if place is None:
    cpu.run_here()
    return
  if config.dry_run:
    raise UserError(f'--processes={place.processes}: config.dry_run is for one process: leave those flags out')
  if config.task == 'search' and several:
    raise UserError(f'--processes={place.processes}: config.seeds is for one process: start each seed by itself, '
                    'with config.seed')
  if config.task not in ('search', 'retrain'):
    raise UserError(f'--processes={place.processes}: the task {config.task!r} is for one process: start it once, '
                    'without that flag')
  fields = {f'config.{name}': str(value) for name, value in files.flatten(config.to_dict()).items()
            if name not in runfolder.FREE}
  asked = {'vimnas_jax': sys.modules['vimnas_jax'].__version__, **fields}
  hosts.join(place, _WAIT.value, asked, lambda text: print(text, flush=True))


def _dispatch(asked, config, workdir, command, notes=()):
  """What the task gives: None if a signal ended it early. `config` is `asked`, resolved."""
  from vimnas_jax.verbs import chain, evaluate, plan, predict, report, retrain, seeds, study
  if asked.dry_run:
    return plan.plan(asked, workdir, notes)
  if config.task == 'study':
    return study.study(asked, workdir, command)
  if config.task == 'report':
    return report.report(config, workdir, command)
  if config.task == 'retrain':
    return retrain.retrain(config, workdir, command)
  if config.task == 'evaluate':
    return evaluate.evaluate(config, workdir, command)
  if config.task == 'predict':
    return predict.predict(config, workdir, command)
  return (seeds.search if asked.seeds else chain.searched)(asked, workdir, command, notes=notes)


def _config_file() -> str:
  """What --config names, without its words."""
  for i, arg in enumerate(sys.argv):
    if arg.lstrip('-').startswith('config='):
      return arg.split('=', 1)[1].split(':')[0]
    if arg in ('-config', '--config') and i + 1 < len(sys.argv):
      return sys.argv[i + 1].split(':')[0]
  return ''


def _workdir() -> str:
  if _WORKDIR.value is not None:
    return os.path.expanduser(_WORKDIR.value)
  return os.path.join('runs', os.path.splitext(os.path.basename(_config_file()))[0])


def _line(e: BaseException) -> str:
  if isinstance(e, AttributeError) and e.args and isinstance(e.args[0], KeyError):  # as ml_collections says it
    return f'no field {_line(e.args[0])} (every field is in docs/config.md or the file of a method of your own)'
  if isinstance(e, ModuleNotFoundError):
    return f'{e}: {NOT_INSTALLED}'
  if isinstance(e, OSError) and e.strerror and not isinstance(e, UserError):
    where = f'{files.printable(os.fsdecode(e.filename))}: ' if isinstance(e.filename, str | bytes) else ''
    return f'{where}{e.strerror}: make room or make it accessible, then run the same command again'
  text = e.args[0] if isinstance(e, KeyError) and e.args else e  # str of a KeyError is the repr of its message
  text = '. '.join(' '.join(line.split()) for line in str(text).splitlines() if line.strip()) or type(e).__name__
  return files.printable(text)


def _tell(text):
  """Prints the one line of an error, whatever became of the terminal."""
  try:
    print(f'error: {text}', file=sys.stderr)
    sys.stderr.flush()
  except (OSError, ValueError, AttributeError):
    pass


def _with_shipped(argv):
  """`argv` with `api.located` applied to the value of --config, however it is written.

  A method of one's own that is named there brings its fields, which the parser then takes.
  """
  argv = list(argv)
  for i, arg in enumerate(argv):
    flag, equals, value = arg.partition('=')
    if flag.lstrip('-') == 'config.method.name':
      from vimnas_jax import config as config_lib
      config_lib.admit(value if equals else (argv[i + 1:] or [''])[0])
    if flag in ('-config', '--config'):
      from vimnas_jax import api
      if equals:
        argv[i] = f'{flag}={api.located(value)}'
      elif i + 1 < len(argv):
        argv[i + 1] = api.located(argv[i + 1])
  return argv


_FLAGS = (_CONFIG, _WORKDIR, _COORDINATOR, _PROCESSES, _PROCESS, _WAIT)


def _help() -> str:
  """What `--help` prints."""
  from vimnas_jax.verbs import reference
  told = [f'  --{flag.name}: {flags.FLAGS[flag.name].help}' for flag in _FLAGS]
  return '\n'.join([__doc__.strip(), '', 'flags:', *told, '', reference.overview()])


def _parse(argv):
  """Absl's own parser, with one line and exit code 2 on a bad flag."""
  if {'-h', '-help', '--help'} & set(argv[1:]):
    print(_help())
    sys.exit(0)
  try:
    return flags.FLAGS(_with_shipped(argv))
  except flags.UnrecognizedFlagError as e:
    if e.flagname.startswith('config.') and not any(arg.lstrip('-').partition('=')[0] == 'config' for arg in argv[1:]):
      _tell(f'--{files.printable(e.flagname)} changes a field of a configuration, and none is named: give --config '
            'too, such as --config=nb201_c10 (--help lists them)')
      sys.exit(2)
    from vimnas_jax import config as config_lib
    close = config_lib.nearest(e.flagname).replace(' config.', ' --config.')
    _tell(_line(e) + (close if 'did you' in close else ''))
    sys.exit(2)
  except (flags.Error, AttributeError, KeyError, OSError, ValueError, TypeError, SyntaxError, ImportError,
          UserError) as e:
    _tell(_no_field(argv, e) or _line(e))
    sys.exit(2)


def _no_field(argv, e) -> str:
  """What is said of the first flag that sets a field which there is not, where `e` was raised for one; or ''."""
  from vimnas_jax import config as config_lib
  known = files.flatten(config_lib.defaults().to_dict())
  if isinstance(e, AttributeError | KeyError):
    for name in (arg.lstrip('-').partition('=')[0] for arg in argv[1:] if arg.startswith('-')):
      field = name.removeprefix('config.')
      if field != name and field not in known and not field.startswith('method.'):
        return f'{files.printable(name)} is no field{config_lib.nearest(field)}'.replace(' config.', ' --config.')
  return ''


def _run(argv):
  try:
    code = main(argv)
  except KeyboardInterrupt:
    _leave(UNFINISHED, 'it was stopped')
    raise
  except Exception as e:
    code = _told(e)
    _leave(code, _line(e))
  else:
    _leave(code)
  sys.exit(code)


def _leave(code, text=''):
  """Tells the other processes of a job, if there are any, how this one ends."""
  if 'vimnas_jax.runs.hosts' in sys.modules:
    from vimnas_jax.runs import hosts
    hosts.leave(code, text)


def _told(e) -> int:
  """Prints the one line of an error; returns the exit code."""
  if isinstance(e, UserError | OSError):
    _tell(_line(e))
    return 2
  if isinstance(e, Diverged):
    _tell(_line(e))
    return 1
  if isinstance(e, MemoryError) or 'RESOURCE_EXHAUSTED' in str(e):  # XLA's word
    _tell(f'out of memory ({_line(e)[:100]}): lower config.batch_size; a search also has config.remat '
          'and config.accumulate')
    return 2
  if 'vimnas_jax.runs.hosts' in sys.modules:
    from vimnas_jax.runs import hosts
    hosts.explain()  # ends here if it failed because another process is gone
  # whatever was not foreseen: one line, and the rest where it can be read
  _tell(f'{type(e).__name__}: {_line(e)[:300]} (a fault of this package; {_kept_traceback(e)})')
  return FAULT


def _kept_traceback(e) -> str:
  """Writes the traceback into the work folder, or prints it where there is none; says where it is."""
  text = ''.join(traceback.format_exception(e))
  path = pathlib.Path(_workdir()) / 'traceback.txt'
  try:
    if path.parent.is_dir():
      files.write(path, text)
      return f'its traceback is in {files.printable(path)}'
  except OSError:
    pass
  print(text, file=sys.stderr)
  return 'its traceback is above'


def _streams():
  """A console that is closed, or has fewer characters than we print, is no reason to fail."""
  for name in ('stdout', 'stderr'):
    stream = getattr(sys, name)
    if stream is None:  # closed by whoever started us
      setattr(sys, name, open(os.devnull, 'w', encoding='utf-8'))  # noqa: SIM115 (for the life of the process)
    elif hasattr(stream, 'reconfigure'):
      stream.reconfigure(errors='backslashreplace')


def allocator():
  """On Linux starts the process again with MALLOC, unless it has it or another choice; call it before heavy imports."""
  if sys.platform == 'linux' and not MALLOC.keys() & os.environ.keys():
    os.execve(sys.executable, sys.orig_argv, os.environ | MALLOC)


def run():
  """The command `vimnas-jax`, and `python -m vimnas_jax.main`: parses the command line, runs, and ends the process."""
  allocator()
  _streams()
  _ALONE.append(True)
  try:
    app.run(_run, flags_parser=_parse)
  except KeyboardInterrupt as e:
    print(f'stopped by {e if isinstance(e, Stopped) else "SIGINT"}, nothing lost: run the same command to go on')
    sys.stdout.flush()
    os._exit(UNFINISHED)  # at once: a compiler may still be at work in a thread


if __name__ == '__main__':
  run()
