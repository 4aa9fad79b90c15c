"""The folder of one run: what it was asked, with what, and whether a second start asks the same."""

import json
import pathlib
import platform

import jax

from vimnas_jax import provenance, spaces
from vimnas_jax.errors import UserError

# Fields that may change between two starts of one run: they do not change what it computes.
FREE = ('data.dir', 'data.download', 'data.split', 'oracle.test_csv', 'oracle.nasbench201', 'oracle.nasbench101',
        'checkpoint_steps', 'devices')
PACKAGES = ('vimnas_jax', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def open_folder(workdir) -> pathlib.Path:
  """Creates the folder. Raises UserError if it cannot be written."""
  if not workdir:
    raise UserError('no place for the results: give --workdir=DIR')
  path = pathlib.Path(workdir).expanduser()
  try:
    path.mkdir(parents=True, exist_ok=True)
    (path / '.write').touch()
    (path / '.write').unlink()
  except OSError as e:
    raise UserError(f'--workdir={workdir} cannot be written ({e.strerror}): give another folder') from None
  return path


def flatten(config: dict, prefix='') -> dict:
  """{'a': {'b': 1}} -> {'a.b': 1}."""
  flat = {}
  for name, value in config.items():
    flat |= flatten(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value}
  return flat


def write_config(folder: pathlib.Path, config, fingerprint: str) -> list[str]:
  """Writes config.json, or checks it against the one that is there.

  Returns the fields of the oracle in which they differ. Raises UserError, naming the field, if the folder holds a run
  of another configuration, of another space under the same name, or of other data.
  """
  path, asked = folder / 'config.json', config.to_dict()
  if path.exists():
    try:
      held = json.loads(path.read_text())
      flat, held_data = flatten(held['config']), held['data_fingerprint']
    except (ValueError, KeyError, TypeError):
      raise UserError(f'{path} is not readable: restore it, or give an empty --workdir') from None
    _same(folder, flat, asked)
    _same_space(folder, held, config)
    if held_data != fingerprint:
      raise UserError(f'{folder} holds a run on other data (config.data.name={asked["data"]["name"]!r}, another '
                      'fingerprint): point config.data.dir at the same data, or give another --workdir')
    return [name for name, value in flatten(asked).items() if name.startswith('oracle.') and flat.get(name) != value]
  own = _own_space(config)
  write_json(path, {'config': asked, 'data_fingerprint': fingerprint, **({'space_fingerprint': own} if own else {}),
                    **environment()})
  return []


def _own_space(config) -> str | None:
  """The fingerprint of a space of one's own, which lies in a file that may be edited."""
  c = config.space
  return spaces.custom.fingerprint(spaces.get(c.name), c.cells, c.channels) if c.name.endswith('.py') else None


def _same_space(folder, held, config):
  if (own := _own_space(config)) and held.get('space_fingerprint', own) != own:
    raise UserError(f'{folder} holds a run with {config.space.name} as it was: cells or stages have changed since; set '
                    'them back, or give another --workdir')


def _same(folder, flat, asked):
  for name, value in flatten(json.loads(json.dumps(asked))).items():
    if name not in FREE and flat.get(name, value) != value:
      raise UserError(f'{folder} holds a run with config.{name}={flat[name]!r}, not {value!r}: set it back, or give '
                      'another --workdir')


def finished(folder: pathlib.Path, config) -> bool:
  """Whether `folder` holds a finished run. Raises UserError if it is one of another configuration."""
  if not (folder / 'result.json').exists():
    return False
  try:
    held = json.loads((folder / 'config.json').read_text())
    flat = flatten(held['config'])
  except (OSError, ValueError, KeyError, TypeError):
    raise UserError(f'{folder}/config.json is not readable: restore it, or remove the folder') from None
  _same(folder, flat, config.to_dict())
  _same_space(folder, held, config)
  return True


def environment() -> dict:
  """Versions, device and git revision, as far as they can be had."""
  devices = jax.devices()
  return {**provenance.software(PACKAGES), 'device': f'{len(devices)} x {devices[0].device_kind}',
          'machine': f'{platform.machine()} {provenance.processor()}'.strip()}


def write_json(path: pathlib.Path, value):
  """Writes `value` as JSON, whole or not at all."""
  part = path.with_name(path.name + '.part')
  part.write_text(json.dumps(value, indent=1) + '\n')
  part.replace(path)
