"""What a configuration file says beyond fields: the words after the colon of --config=FILE:WORDS, and values for one
method alone.
"""

import functools

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from vimnas_jax import fields, methods
from vimnas_jax.errors import UserError

_APPLIED = ':applied'  # in config.when: a word of settings of one method that was given, that method, and where
_IN = ' in '  # in config.when: between a method and the space where it has values of its own
_AFTER = ':after'  # in config.when: {field: value} of the retraining after a search, dots as colons


def admit(name: str, config: ConfigDict | None = None):
  """Makes the fields of the method in the file `name` fields of config.method: in configurations that are made from
  now on, and in `config`. Nothing happens with another name. Raises UserError where the file is unfit.
  """
  if not str(name).endswith('.py'):
    return
  fields.OWN.update(methods.field_types(name))
  if config is not None:
    with config.unlocked():
      for field, kind in methods.field_types(name).items():
        if field not in config.method or config.method[field] is None:
          config.method[field] = placeholder(kind)


def when(config: ConfigDict, method: str, values: dict, space: str = ''):
  """Lets a config file give fields of config a value for one method alone, or for it in one space: {field: value}, dots
  in the names.

  It counts where that method, and that space, is the chosen one, however it was chosen, and the user has set the field
  to nothing else; so the fields must be those whose default is None: of config.method and config.phi, pretrain.epochs,
  train_portion. What is said of a method later counts in all spaces, also where one had a value of its own.
  """
  given = {field.replace('.', ':'): value for field, value in values.items()}
  if not space:
    for name in [name for name in config.when if name.startswith(method + _IN)]:
      config.when[name] = {field: value for field, value in config.when[name].items() if field not in given}
  place = method + _IN + space if space else method
  config.when[place] = {**config.when.get(place, {}), **given}


def chosen(config: ConfigDict) -> dict:
  """{field: value}, dots as colons, of the chosen method in the chosen space, as `when` has it."""
  name = config.method.name
  return {**config.when.get(name, {}), **config.when.get(name + _IN + config.space.name, {})}


def _where(c) -> str:
  """Of which space published settings are, as methods.published takes it."""
  return 'imagenet' if c.space.imagenet else c.space.name


def check_applied(c):
  """Raises UserError where settings of one method were applied by a word, and another was chosen after that, or
  another space, for which its published ones are others.
  """
  here = _where(c)
  word, name, where = c.when.get(_APPLIED, ('', c.method.name, here))
  if name != c.method.name:
    remedy = f':method={c.method.name},published' + (', or leave strict out' if word == 'strict' else '')
    raise UserError(f'config.method.name={c.method.name!r}: --config=…:{word} has applied the settings of method '
                    f'{name!r}: name the method in the word, {remedy}')
  if word == 'published' and here != where and not here.endswith('.py') and (
      methods.published(name, here) != methods.published(name, where)):
    field = 'space.imagenet' if 'imagenet' in (here, where) else 'space.name'
    raise UserError(f'config.{field}={c.space[field[6:]]!r}: --config=…:published has applied the settings of method '
                    f'{name!r} for {where!r}, and those for {here!r} are others: name a configuration file of that '
                    'space in --config, as nb201_c10, darts_c10, darts_imagenet or oneshot_c10:space1')


def apply_when(c):
  """Gives the chosen method its values of `when`, in place, where the user has set none."""
  flat = {field.replace(':', '.'): value for field, value in chosen(c).items()}
  if c.phi.lr is not None:  # the user's: the other end of the file's way is none of its own
    flat = {field: value for field, value in flat.items() if field not in ('phi.lr_end', 'phi.steps')}
  for field, value in flat.items():
    *rooms, leaf = field.split('.')
    at = functools.reduce(getattr, rooms, c)
    if at.get(leaf) is None:
      at[leaf] = value
  del c['when']


def in_spaces(names) -> dict:
  """Words for `with_arguments`, {word: function}: each word of `names`, {word: space}, chooses its space."""
  def choosing(space):
    def choose(config):
      config.space.name = space
    return choose

  return {word: choosing(space) for word, space in names.items()}


def half(config: ConfigDict):
  """Searches on images of half the side, with borders in proportion, and trains on whole ones."""
  config.data.shrink, config.data.pad = 2, 2
  config.when.update({_AFTER: {'data:shrink': 1, 'data:pad': 4}})  # also beside config.then_changes of the user's


def after(config: ConfigDict) -> dict:
  """{field: value} of the retraining after a search, as `half` asks for."""
  return {field.replace(':', '.'): value for field, value in config.when.get(_AFTER, {}).items()}


def with_arguments(config: ConfigDict, arg: str, smoke, **others) -> ConfigDict:
  """Applies what follows the colon of --config=FILE:ARG: words separated by commas.

  'smoke' turns the configuration, by `smoke(config)`, into a run of seconds through the same code; 'method=NAME'
  chooses the method, and 'published' takes the settings with which its authors searched this space; 'strict' is VIM-NAS
  as the paper's text has it, without this project's recipe (docs/recipe.md).
  `others` are further words, word=function, that a file has of its own. In whatever order they are given, the method
  comes first, then `others` as they stand, then 'strict' and 'published', and 'smoke' last.
  """
  last = {'strict': 1, 'published': 1, 'smoke': 2}
  words = sorted(filter(None, arg.split(',')), key=lambda word: -1 if word.startswith('method=') else
                 0 if word in others else last.get(word, 0))
  for word in words:
    if word in ('strict', 'published') and word not in others:
      config.when[_APPLIED] = (word, config.method.name, _where(config))
    if word == 'smoke':
      smoke(config)
      _brief(config)
    elif word in others:
      others[word](config)
    elif word == 'strict':
      strict(config)
    elif word == 'published':
      for field, value in methods.published(config.method.name, _where(config)).items():
        config.update_from_flattened_dict({field: value})
    elif word.startswith('method='):
      name = word.removeprefix('method=')
      methods.fields(name)  # raises on an unknown name
      admit(name, config)
      config.method.name = name
    else:
      raise UserError(f'--config=…:{word}: after the colon goes {", ".join(("smoke", *others))}, strict, published or '
                      f'method=NAME ({", ".join(methods.NAMES)})')
  if 'strict' in words and config.method.name != 'vimnas':
    raise UserError(f'--config=…:strict is VIM-NAS as its paper has it, and config.method.name={config.method.name!r}: '
                    'leave it out, or give published')
  return config


def _brief(config):
  """Lets every method do as little beside its steps as its BRIEF says, also where `published` has set more."""
  for name in methods.NAMES:
    if least := methods.brief(name):
      when(config, name, {f'method.{field}': value for field, value in least.items()})
  for field, value in methods.brief(config.method.name).items():
    if config.method[field] is not None:
      config.method[field] = value


def strict(config: ConfigDict):
  """Gives VIM-NAS the form of the paper's text, and an epoch on the spaces that are in it."""
  when(config, 'vimnas', methods.STRICT)
  config.update_from_flattened_dict(methods.STRICT_THETA)
  config.pretrain.epochs = None  # that of STRICT counts
  if not (config.space.imagenet or config.space.name.endswith('.py')):  # neither is in the paper's text
    config.epochs = methods.published('vimnas', config.space.name)['epochs']
