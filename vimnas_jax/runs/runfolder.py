"""The folder of one run: who writes to it, what it was asked, with what, and whether a second start asks the same."""

import contextlib
import copy
import json
import os
import pathlib
import platform
import re

import jax

from vimnas_jax import data, files, methods, spaces, tabular
from vimnas_jax.errors import UserError
from vimnas_jax.runs import hosts, provenance

# Fields that may change between two starts of one run: they do not change what it computes, or what they name is
# compared by its contents.
FREE = ('dry_run', 'data.dir', 'data.download', 'data.split', 'data.max_pixels', 'data.workers', 'data.max_corrupt',
        'checkpoint_steps', 'checkpoint_minutes', 'checkpoint_keep', 'checkpoint_hours', 'devices', 'trust', 'genotype',
        'tensorboard', 'eval_batch', 'finalists', 'finalist_epochs', 'finalist_shrink', 'finalist_margin',
        *(f'oracle.{field}' for field in tabular.FIELDS))
# What may be asked of a search that is over; what older runs had.
LATE = {'finalists': 0, 'finalist_epochs': None, 'finalist_shrink': 1, 'finalist_margin': None}
# Of runs older than these fields.
BEFORE = {'limit.params': 0.0, 'limit.madds': 0.0, 'limit.latency_ms': 0.0, 'method.bound': 0.0,
          'phi.until': 1.0, 'phi.graph_lr': 3e-4, 'method.sharpen_last': 1.0, 'phi.graph_weight_decay': 1e-3,
          'phi.graph_noise': 0.0, 'phi.graph_sets': False, 'method.node_inputs': 'all', 'method.reg': 0.0}
# Told in this order, before what follows of them; of BEFORE too, a limit before its network.
_ORDER = {'task': 0, 'space.name': 1, 'method.name': 2}
PACKAGES = ('vimnas_jax', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
LOCK = '.lock'
_TABLES = {'report.json': 'a comparison', 'predictions.csv': 'predictions'}  # of what keeps no config.json


@contextlib.contextmanager
def opened(workdir):
  """Gives the folder as a path, created if need be, which no other process or call may write to meanwhile.

  Of a job of several processes the first opens it. Where nothing was written to a new folder, it goes again. Raises
  UserError if the folder cannot be written, its path is not UTF-8 (checkpoints cannot be written there), or another run
  is at work in it.
  """
  if not workdir:
    raise UserError('no place for the results: give --workdir=DIR')
  path = pathlib.Path(workdir).expanduser()
  if not hosts.first():
    hosts.together('the run folder is open')
    yield path
    return
  shown = files.printable(path)
  try:
    str(path).encode()
  except UnicodeEncodeError:
    raise UserError(f'--workdir={shown} is not UTF-8, which checkpoints need: give another folder') from None
  new = []
  try:
    for folder in (*reversed(path.parents), path):
      if not folder.exists():
        folder.mkdir(exist_ok=True)
        new.insert(0, folder)
    lock, ours = _lock(path / LOCK)
  except OSError as e:
    _remove(new)
    raise UserError(f'--workdir={shown} cannot be written ({e.strerror}): give another folder') from None
  with lock:
    if not ours:
      raise UserError(f'--workdir={shown} is in use by another run{_owner(lock)}: wait for its end, or give another '
                      'folder')
    with contextlib.suppress(OSError):  # a help to whoever is refused, no more; a full disk is told by what comes next
      lock.truncate(0)
      lock.write(f'{os.getpid()} {platform.node()}\n'.encode())
      lock.flush()
    for left in path.glob(f'*.*{files.PART}'):  # by a kill in the middle of a write; others' own are left alone
      if not re.fullmatch(rf'.+\.\d+{re.escape(files.PART)}', left.name):
        continue
      with contextlib.suppress(OSError):
        left.unlink()
    hosts.together('the run folder is open')
    try:
      yield path
    finally:
      with contextlib.suppress(OSError):
        (path / LOCK).unlink()
      _remove(new)


def _remove(folders):
  """Removes the folders, innermost first, as far as they are empty."""
  for folder in folders:
    with contextlib.suppress(OSError):
      folder.rmdir()


def _lock(path):
  """The open file `path`, and whether its lock, which ends with the file or the process, is ours."""
  while True:
    file = path.open('a+b')
    try:
      ours = _locked(file)
      if not ours or _is(path, file):
        return file, ours
    except BaseException:
      file.close()
      raise
    file.close()  # it was removed by its owner before we had the lock: there may be another of that name


def _is(path, file) -> bool:
  try:
    return os.path.samestat(path.stat(), os.fstat(file.fileno()))
  except FileNotFoundError:
    return False


def _locked(file) -> bool:
  try:
    import fcntl
  except ImportError:  # Windows
    import msvcrt
    try:
      file.seek(1 << 30)  # a byte beyond the text, which others may go on reading
      msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
      return True
    except OSError:
      return False
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:
    return True  # a file system without locks: nothing can be told there
  return True


def _owner(file) -> str:
  try:
    file.seek(0)
    number, _, node = file.read(200).decode().strip().partition(' ')
    return f' (process {int(number)} on {files.printable(node)})'
  except (OSError, ValueError):
    return ''


def check(folder: pathlib.Path, config, fingerprint: str | None = None, genotype: str | None = None) -> dict:
  """What config.json holds, compared with what is asked now; {} where there is none yet, in a folder that is vacant.

  Args:
    folder: the run folder.
    config: the resolved configuration.
    fingerprint: that of the data; None compares none.
    genotype: contents that stand for config.genotype, however it is spelled; None compares none.

  Raises:
    UserError: the folder holds a run of another configuration (it names the field), another architecture, another
      space under the same name, or other data; or config.json is damaged; or the folder is none for a run, see
      `check_vacant`.
  """
  path = folder / 'config.json'
  check_vacant(folder)
  if not path.exists():
    return {}
  stored = files.read_json(path, 'restore it, or give an empty --workdir')
  if not isinstance(stored.get('config'), dict) or not isinstance(stored.get('data_fingerprint'), str):
    raise UserError(f'{files.printable(path)} is damaged (config or data_fingerprint is missing): restore it, or give '
                    'an empty --workdir')
  if 'seeds' in stored:
    raise UserError(f'{files.printable(folder)} holds the runs of several seeds: give config.seeds, or another '
                    '--workdir')
  fields, space = config.to_dict(), _own_space(config)
  flat = files.flatten(stored['config'])
  asked = files.flatten(json.loads(json.dumps(fields)))
  differ = []  # (name, what it was, what is asked)
  for name, value in sorted(asked.items(), key=lambda item: (_ORDER.get(item[0], len(_ORDER)), item[0] not in BEFORE)):
    by_content = str(flat.get(name)).endswith('.py') and (
        (name == 'space.name' and space) or (name == 'method.name' and _own_method(config))
        or (name == 'data.name' and value.endswith('.py')))
    known = flat.get(name, BEFORE.get(name, value))
    if name not in FREE and not by_content and known != value:
      differ.append((name, known, value))
  other_data = fingerprint and stored['data_fingerprint'] != fingerprint
  # other images choose other epochs (verbs/sizing.py): what nobody set is not to be set back
  if differ and not (other_data and all(name == 'data.pad' or not name.startswith('data.') for name, _, _ in differ)):
    name, known, value = differ[0]
    there = flat.get('data.dir')
    elsewhere = f' (its data lay in {there})' if there and there != asked.get('data.dir') else ''
    raise UserError(f'{files.printable(folder)} holds a run with config.{name}={known!r}, not {value!r}{elsewhere}: '
                    'set it back, or give another --workdir')
  method = _own_method(config)
  if method and stored.get('method_fingerprint', method) != method:
    raise UserError(f'{files.printable(folder)} holds a run with {config.method.name} as it was: its code has changed '
                    'since; set it back, or give another --workdir')
  if space and stored.get('space_fingerprint', space) != space:
    raise UserError(f'{files.printable(folder)} holds a run with {config.space.name} as it was: cells, stages or '
                    'operations have changed since; set them back, or give another --workdir')
  known = stored.get('genotype')  # an older run has only the text
  if genotype and (known != genotype if known else flat.get('genotype') != fields.get('genotype')):
    raise UserError(f'{files.printable(folder)} holds a run with another architecture than config.genotype='
                    f'{config.genotype!r}: give the one it began with, or another --workdir')
  if other_data:
    raise UserError(f'{files.printable(folder)} holds a run on other data (config.data.name={config.data.name!r}, '
                    'another fingerprint): point config.data.dir at the same data, or give another --workdir')
  return stored


def check_vacant(folder: pathlib.Path, mine: str = ''):
  """Raises UserError where `folder` holds a report, a study or predictions, whose page a run would be written over.

  A run's own folder may have such files beside its config.json, as that of several seeds has. `mine` is the one file of
  _TABLES that may lie there.
  """
  if (folder / 'config.json').exists():
    return
  for name, words in _TABLES.items():
    if name != mine and (folder / name).exists():
      raise UserError(f'{files.printable(folder)} holds {words} ({name}), whose report.html would be replaced: give '
                      'another --workdir')


def check_free(folder: pathlib.Path, mine: str = 'report.json'):
  """Raises UserError where `folder` is that of a run, or has another table than `mine`, of which the page would be
  written over.
  """
  if (folder / 'config.json').exists():
    raise UserError(f'{files.printable(folder)} holds a run, whose report.html would be replaced: give another '
                    '--workdir')
  check_vacant(folder, mine)


def check_apart(folder: pathlib.Path, config):
  """Raises UserError where a run in `folder` would be a class of the images that it reads."""
  if where := data.within(config.data, folder):
    raise UserError(f'--workdir={files.printable(folder)} lies in {files.printable(where)}, where every folder is a '
                    'class of images: give another --workdir, outside of it')


def as_begun(folder: pathlib.Path, config):
  """`config`, with images streamed or held in memory as the run in `folder` began, where the choice is left open.

  Raises UserError as `check_apart`.
  """
  check_apart(folder, config)
  path = folder / 'config.json'
  if config.data.stream is not None or not path.exists():
    return config
  begun = files.read_json(path, 'restore it, or give an empty --workdir').get('streamed', False)
  config = copy.deepcopy(config)
  config.data.stream = begun is True
  return config


def write_config(folder: pathlib.Path, config, fingerprint: str, genotype: str | None = None,
                 streamed: bool = False) -> list[str]:
  """Writes config.json, or checks it against the one that is there; arguments and errors as those of `check`.

  `streamed` is written down for `as_begun`.
  Returns the fields of the oracle in which they differ. It is called when all else has been checked: what is refused
  leaves no config.json.
  """
  if stored := check(folder, config, fingerprint, genotype):
    if late := _late(stored, config):
      files.write_json(folder / 'config.json', {**stored, 'config': {**stored['config'], **late}})
    flat = files.flatten(stored['config'])
    return [name for name, value in files.flatten(config.to_dict()).items()
            if name.startswith('oracle.') and flat.get(name) != value]
  space = _own_space(config)
  files.write_json(folder / 'config.json', {
      'config': config.to_dict(), 'data_fingerprint': fingerprint, **({'space_fingerprint': space} if space else {}),
      **({'method_fingerprint': method} if (method := _own_method(config)) else {}),
      **({'genotype': genotype} if genotype else {}), 'streamed': streamed, **environment()})
  return []


def _late(stored, config) -> dict:
  """The fields of LATE, with what is asked now, where a search was begun with others; else {}."""
  asked = {name: config[name] for name in LATE if name in config}
  if not asked or not (asked['finalists'] or stored['config'].get('finalists')):
    return {}
  return asked if any(stored['config'].get(name, before) != asked[name] for name, before in LATE.items()) else {}


def _own_space(config) -> str | None:
  """The fingerprint of a space of one's own, which lies in a file that may be edited."""
  c = config.space
  return spaces.custom.fingerprint(spaces.get(c.name), c.cells, c.channels) if c.name.endswith('.py') else None


def _own_method(config) -> str | None:
  """The fingerprint of a method of one's own, likewise."""
  return methods.fingerprint(config.method.name) if 'method' in config else None


def finished(folder: pathlib.Path, config) -> bool:
  """Whether `folder` holds a finished run, no other finalists being asked. Raises UserError if it is one of another
  configuration.
  """
  if not (folder / 'result.json').exists():
    return False
  if not (stored := check(folder, config)):
    raise UserError(f'{files.printable(folder)} has a result.json and no config.json: restore it, or remove the folder')
  return not _late(stored, config)


def follows(folder: pathlib.Path) -> bool:
  """Whether the training in `folder`/retrain is of the architecture that the search in `folder` holds, which finalists
  may have changed since; also where there is none of either. Raises UserError where a file is damaged.
  """
  found, trained = architecture(folder), architecture(folder / 'retrain')
  return found is None or trained is None or found == trained


def architecture(folder: pathlib.Path) -> dict | None:
  """The cells of the architecture that `folder` holds; None without one. Raises UserError where its file is damaged."""
  path = folder / 'genotype.json'
  return dict(spaces.Genotype.from_json(files.read_text(path)).cells) if path.exists() else None


def environment() -> dict:
  """Versions, device and git revision, as far as they can be had."""
  devices = jax.devices()
  return {**provenance.software(PACKAGES), 'device': f'{len(devices)} x {devices[0].device_kind}',
          **({'processes': jax.process_count()} if jax.process_count() > 1 else {}),
          'machine': provenance.machine()}
