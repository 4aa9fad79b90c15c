"""The public interface, for programs and notebooks: `import vimnas_jax`.

  config = vimnas_jax.configure('quickstart', seed=3)
  result = vimnas_jax.search(config, 'runs/quickstart')

Each verb takes a configuration as `configure` makes it and the folder for what it writes, and goes on where an earlier
call stopped. Programs compiled by JAX are kept between processes, as by the command line, unless
jax_compilation_cache_dir is set. Signals stay what they are unless `signals=True`: then SIGINT, SIGTERM and SIGUSR1
stop a run after its step, all saved.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vimnas_jax import config as config_lib
from vimnas_jax.errors import UserError
from vimnas_jax.files import AnyPath, cache, close, printable
from vimnas_jax.userfile import Source

if TYPE_CHECKING:
  from ml_collections import ConfigDict

  from vimnas_jax.runs.signals import Stop
  from vimnas_jax.verbs.export import Model


_HERE = pathlib.Path(__file__).parent
_FOLDERS = _HERE / 'configs', _HERE.parent / 'configs'  # of configurations: installed; a checkout


def shipped(value: str) -> str:
  """The value of --config with the name of a file that comes with the package, as darts_c10, as its path."""
  name, colon, words = value.partition(':')
  head, base = os.path.split(name)
  if base and head in ('', 'configs') and not os.path.exists(name):
    for folder in _FOLDERS:
      path = folder / f'{base.removesuffix(".py")}.py'
      if path.is_file():
        return f'{path}{colon}{words}'
  return value


def located(value: str) -> str:
  """As `shipped`. Raises UserError where there is no such file."""
  found = shipped(value)
  name = found.partition(':')[0]
  if not os.path.isfile(name):
    known = sorted({path.stem for folder in _FOLDERS for path in folder.glob('*.py')})
    raise UserError(f'{printable(name)!r} is no configuration{close(pathlib.Path(name).stem, known)}: give a file, or '
                    'the name of one that comes with the package, as quickstart')
  return found


def configure(name: AnyPath, changes: Mapping[str, Any] | None = None, **fields: Any) -> ConfigDict:
  """A configuration: that of a file of configs/, or of one's own, with some fields changed.

  Args:
    name: as --config takes it: a path or the name of a file that comes with the package, and words after a colon, as
      'nb201_c10:method=darts,smoke'.
    changes: {field: value}, for fields in rooms, as {'data.dir': 'DIR', 'phi.lr': 0.1}. Paths may be pathlib's.
    **fields: the same for fields that have no room, as seed=1.

  Returns:
    An ml_collections.ConfigDict. Every field is in docs/config.md.

  Raises:
    UserError: there is no such file or field, or a value is of another type.
  """
  path, _, words = located(os.fsdecode(name)).partition(':')
  loader = Source('vimnas_jax_configuration', path)
  spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
  if not path.endswith('.py') or spec is None:
    raise UserError(f'{printable(name)!r} is no configuration: give a file, or the name of one that comes with the '
                    'package, as quickstart')
  asked = {field: os.fsdecode(value) if isinstance(value, os.PathLike) else value
           for field, value in {**(changes or {}), **fields}.items()}
  config_lib.admit(asked.get('method.name', ''))
  module = importlib.util.module_from_spec(spec)
  loader.exec_module(module)
  config = module.get_config(words).lock()
  for field, value in asked.items():
    try:
      config.update_from_flattened_dict({field: value})
    except (KeyError, AttributeError, TypeError, ValueError) as e:
      raise UserError(f'config.{field}={value!r}: there is no such field, or it takes another type '
                      f'({str(e).splitlines()[0][:120]})') from None
  return config


def search(config: ConfigDict, workdir: AnyPath, signals: bool = False) -> dict[str, Any] | None:
  """Searches an architecture. Returns what is in workdir/result.json; None if it was stopped, all saved.

  Where config.then asks for it, what is found is trained in workdir/retrain, and 'retrained' has the result of that.
  With config.seeds it searches with each of them, and returns the result of all, whose 'genotype' is the best one's
  (verbs/seeds.py) or, with config.choose='consensus', that which they agree on and which alone is retrained
  (verbs/consensus.py). Raises UserError on bad input, Diverged where a number stops being finite, OSError where the
  disk fails.
  """
  from vimnas_jax.verbs import chain, seeds
  asked, notes = _asked(config, 'search')
  return (seeds.search if asked.seeds else chain.searched)(asked, workdir, _words(), _stop(signals), notes)


def retrain(config: ConfigDict, workdir: AnyPath, signals: bool = False) -> dict[str, Any] | None:
  """Trains the architecture config.genotype from scratch, evaluates and exports it; as `search` otherwise."""
  from vimnas_jax.verbs import retrain as verb
  return verb.retrain(_resolved(config, 'retrain'), workdir, _words(), stop=_stop(signals))


def evaluate(config: ConfigDict, workdir: AnyPath) -> dict[str, Any]:
  """Evaluates the trained network of the run folder config.genotype. Returns what is in workdir/result.json."""
  from vimnas_jax.verbs import evaluate as verb
  return verb.evaluate(_resolved(config, 'evaluate'), workdir, _words())


def report(config: ConfigDict, workdir: AnyPath) -> dict[str, Any]:
  """Compares the finished searches below config.report.runs, and writes report.md and pictures into `workdir`."""
  from vimnas_jax.verbs import report as verb
  return verb.report(_resolved(config, 'report'), workdir)


def predict(config: ConfigDict, workdir: AnyPath) -> list[dict[str, Any]]:
  """Names what is on config.images with the network of the run folder config.genotype; writes predictions.csv."""
  from vimnas_jax.verbs import predict as verb
  return verb.predict(_resolved(config, 'predict'), workdir)


def plan(config: ConfigDict, workdir: AnyPath = '') -> list[dict[str, Any]]:
  """What `config` comes to and would take, as config.dry_run says it on the command line: see `verbs.plan.plan`."""
  from vimnas_jax.verbs import plan as verb
  compile_cache()
  asked, notes = sized(config_lib.changed(config, 'dry_run=True'))
  return verb.plan(asked, workdir, notes)


def load(folder: AnyPath, trusted: Iterable[AnyPath] = ()) -> Model:
  """The network of a run folder, or of its folder `export`: `load(RUN).predict('photo.jpg')` is [('tulip', 0.97), ...].

  Called, it takes uint8 images [n, h, w, c] and gives logits [n, classes]; see `verbs.export.read`.
  """
  from vimnas_jax.verbs import export
  try:
    return export.read(folder, trusted)
  except UserError as e:  # there is no command line here
    raise UserError(re.sub('--config.trust=(PATH(?= )|.*)', lambda given: f'trusted=[{given[1]!r}]', str(e))) from None


def compile_cache() -> None:
  """Keeps compiled programs between processes; JAX_COMPILATION_CACHE_DIR chooses another place."""
  import jax
  if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # jax makes its options as it runs
    jax.config.update('jax_compilation_cache_dir', str(cache()))


def sized(config: ConfigDict) -> tuple[ConfigDict, tuple[str, ...]]:
  """`config` with what it left open to be chosen by the images, and lines about it; see `verbs.sizing.sized`."""
  from vimnas_jax.verbs import sizing
  return sizing.sized(config)


def _asked(config: ConfigDict, task: str) -> tuple[ConfigDict, tuple[str, ...]]:
  """`config` for a verb, with what the images chose, and lines about that; not yet resolved."""
  if config.dry_run:
    raise UserError('config.dry_run: call vimnas_jax.plan(config) for that')
  compile_cache()
  return sized(config_lib.changed(config, f'task={task}'))


def _resolved(config: ConfigDict, task: str) -> ConfigDict:
  return config_lib.resolve(_asked(config, task)[0])


def _stop(signals: bool) -> Stop:
  from vimnas_jax.runs.signals import Stop
  return Stop(listens=signals)


def _words() -> str:
  """What result.json says of how it came about."""
  return f'vimnas_jax {importlib.import_module("vimnas_jax").__version__}, called from {os.path.basename(sys.argv[0])}'
