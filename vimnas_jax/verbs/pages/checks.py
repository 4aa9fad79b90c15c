"""What a reader is warned of: signs that a search collapsed or has not decided, and figures that mean little."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vimnas_jax.draw.page import number, real
from vimnas_jax.runs import budget
from vimnas_jax.spaces import Genotype, Space
from vimnas_jax.verbs import floor
from vimnas_jax.verbs.pages import shared

DECIDED = 0.9  # one-hotness from which a search is called decided
SETTLED = 0.1  # share of the steps for which its architecture has to have stood
FEW_STEPS, FEW_IMAGES, GAP = 100, 200, 10.0  # GAP: points that the supernet may lose with the architecture alone
_IDLE = {'skip_connect': 'skip connections', 'none': 'none', 'noise': 'noise'}


def of_search(result: Mapping, space: Space, genotype: Genotype | None, network: Mapping | None = None) -> list[str]:
  """Warnings of a search, the gravest first, and of the network that was trained of what it found.

  Of one that was too short, that it was; not what follows from it.
  """
  told = []
  if genotype is not None:
    told += [line for name in space.cells for line in collapsed(name, space, genotype)]
  told += _dead(result, space)
  steps, unchanged, hot = result.get('steps'), result.get('unchanged_steps'), result.get('one_hot')
  told += few_steps(steps) + shortened(result) + _chosen(result)
  if real(steps) and steps and shared.decides(result) and not (few_steps(steps) or _ended(result)):
    if real(unchanged) and unchanged < SETTLED * steps and not (
        shared.otherwise(result) or result.get('stopped')):
      since = f'it has stood for only {shared.counted(unchanged, "step")} of {number(steps)}' if unchanged else (
          'it changed at the very end')
      told.append(f'The architecture still changed in the last tenth of the search: {since}. More epochs may end '
                  'elsewhere.')
    if not real(hot):
      told.append('One-hotness is not known or no number.')
    elif hot < DECIDED:
      what = ('Validation images chose between some of what was left open.' if shared.compared(result) else
              'What was taken there is little better than a guess.')
      told.append(f'Low one-hotness: {hot:.3f}, where 1 means that every edge has decided. {_open(result, space)}'
                  f'{what}')
  told += _gap(result) + damaged(result)
  if network:
    told += [f'Its network: {line[:1].lower()}{line[1:]}' for line in of_network(
        network, 'test' if 'test_top1' in network else 'valid')]
  return told


def _chosen(result: Mapping) -> list[str]:
  """What else than probabilities had a say in an architecture."""
  told, limit, tied = [], result.get('limit'), result.get('ties')
  if isinstance(limit, Mapping):
    repaired = limit.get('repaired')
    if not limit.get('kept', True):
      told.append('No architecture within the limit was found: this one exceeds it.')
    elif isinstance(repaired, Mapping):
      rule = repaired.get('rule', 'the most probable')
      told.append(f'What the search ended with exceeds the limit: {rule} within it was taken.')
    elif limit.get('drawn_again'):
      told.append('What was drawn at first exceeds the limit: this is the next one that does not.')
  if isinstance(tied, list) and tied:
    told.append(f'Scores are equal, and the order of edges and operations chose, in {", ".join(map(str, tied[:4]))}' +
                (f' and {len(tied) - 4} more.' if len(tied) > 4 else '.'))
  if real(result.get('stopped')):
    told.append(f'The method ended the search after step {number(result["stopped"])} of '
                f'{number(result.get("planned_steps"))}.')
  return told


def decided(result: Mapping) -> bool:
  """Whether a search decided by its probabilities, before its end."""
  steps, unchanged, hot = (result.get(name) for name in ('steps', 'unchanged_steps', 'one_hot'))
  return bool(real(steps) and steps and not shared.otherwise(result) and real(hot) and hot >= DECIDED
              and real(unchanged) and unchanged >= SETTLED * steps)


def of_searches(runs: Sequence[tuple[str, Mapping, Space]]) -> list[str]:
  """Warnings of searches side by side, (name, result, its space) each; what several have in common in one line."""
  told, short, open_, late = [], [], [], []
  for name, result, space in runs:
    genotype = shared.architecture(space, result)
    if genotype is not None:
      told += [f'{name}: {line}' for cell in space.cells for line in collapsed(cell, space, genotype)]
    told += [f'{name}: {line}' for line in _dead(result, space)]
    steps, unchanged, hot = result.get('steps'), result.get('unchanged_steps'), result.get('one_hot')
    if not real(steps) or not steps:
      continue
    if steps < FEW_STEPS:
      short.append(name)
    if not shared.decides(result):
      continue
    if real(hot) and hot < DECIDED and not shared.compared(result):
      open_.append(name)
    if real(unchanged) and unchanged < SETTLED * steps and not (shared.otherwise(result) or result.get('stopped')):
      late.append(name)
  more = [f'{len(told) - 12} more: they are on the page of each run.'] if len(told) > 12 else []
  return told[:12] + more + [f'{_named(names, len(runs))} {words}' for names, words in (
      (short, f'took fewer than {FEW_STEPS} steps: too few for what they end with to mean anything.'),
      (open_, f'ended with a one-hotness below {DECIDED}: there what was taken is little better than a guess.'),
      (late, 'still changed in the last tenth: more epochs may end elsewhere.')) if names]


def _named(names: Sequence[str], count: int) -> str:
  """Which runs, of so many."""
  if len(names) == count:
    return 'Every search' if count > 1 else 'The search'
  rest = f' and {len(names) - 6} more' if len(names) > 6 else ''
  return f'{len(names)} of {count} searches ({"; ".join(names[:6])}{rest})'


def collapsed(name: str, space: Space, genotype: Genotype) -> list[str]:
  """Warnings of a cell that computes nothing, or next to nothing."""
  edges = [edge for edge in genotype.cells[name] if edge[0] != 'output']
  ops = [op for op, _, _ in edges]
  title = f'cell {name!r}' if len(space.cells) > 1 else 'cell'
  if not ops:
    return []
  if not _reaches(space, name, genotype.cells[name]):
    return [f'Collapse: nothing reaches the output of the {title}: every way there has a none.']
  for idle, words in _IDLE.items():
    if set(ops) == {idle}:
      return [f'Collapse: all edges of the {title} are {words}: it learns nothing.']
  if all('pool' in op for op in ops):
    return [f'Collapse: all edges of the {title} are pools: it learns nothing.']
  idle_ops = [op for op in ops if op in _IDLE or 'pool' in op]
  if len(idle_ops) == len(ops):
    return [f'Collapse: the {title} has no operation with weights, only {", ".join(dict.fromkeys(ops))}.']
  skips = ops.count('skip_connect')
  if len(ops) > 3 and skips > len(ops) / 2:
    return [f'{skips} of {len(ops)} edges of the {title} are skip connections, a known sign of collapse.']
  return []


def _reaches(space: Space, name: str, edges: Sequence) -> bool:
  """Whether there is a way from an input to the output along edges that are not none."""
  cell = space.graph(name)
  reached = set(range(cell.inputs))
  for op, source, target in sorted(edges, key=lambda edge: edge[2]):
    if op != 'none' and source in reached:
      reached.add(target)
  return bool(reached & set(cell.output))


def _dead(result: Mapping, space: Space) -> list[str]:
  dead = result.get('dead')
  named = [f'{space.cells[name].label(e)} of {name!r}' for name, edges in dead.items() if name in space.cells
           for e in edges if isinstance(e, int) and e < len(space.cells[name].edges)] if isinstance(dead, dict) else []
  taken = '' if shared.compared(result) else ', the first was taken'
  return [f'Dead edges: {", ".join(named)}. Nothing tells their operations apart{taken}: try another config.seed or a '
          'lower config.phi.lr.'] if named else []


def _open(result: Mapping, space: Space) -> str:
  """The edges that are furthest from a decision."""
  found = []
  for name, cell in space.cells.items():
    rows = shared.fitting(result.get('probs'), name, cell.shape)
    if rows is not None and np.isfinite(rows).all():
      found += [(float(row.max()), f'{cell.label(e)}{f" of {name!r}" if len(space.cells) > 1 else ""}')
                for e, row in enumerate(rows) if row.max() < 0.5]
  found.sort()
  if not found:
    return ''
  rest = f' and {len(found) - 6} more' if len(found) > 6 else ''
  return 'No operation has half of the probability on ' + ', '.join(
      f'{edge} ({share:.2f})' for share, edge in found[:6]) + f'{rest}. '


def few_steps(steps: Any) -> list[str]:
  """A warning of a run that was too short to say anything."""
  return [f'Only {shared.counted(steps, "step")}: too few for what it ends with to mean anything.'] if (
      real(steps) and 0 < steps < FEW_STEPS) else []


def _gap(result: Mapping) -> list[str]:
  row = result.get('supernet') or {}
  mixed, derived = row.get('mixed'), row.get('derived')
  if not real(mixed) or not real(derived) or mixed - derived < GAP:
    return []
  return [f'The supernet falls from {mixed:.2f} to {derived:.2f} % where the architecture is left alone in it: the '
          'operations that were dropped did much of the work.']


def damaged(result: Mapping) -> list[str]:
  """Which images could not be decoded."""
  names = result.get('damaged_images')
  if not isinstance(names, list) or not names:
    return []
  more = f' and {len(names) - 5} more' if len(names) > 5 else ''
  return [f'{shared.counted(len(names), "damaged image")}, of which nothing was learnt: '
          f'{", ".join(map(str, names[:5]))}{more}.']


def of_data(facts: Mapping) -> list[str]:
  """Which images were trained on and count in an accuracy, and which files were not read, of what data.json says."""
  told = []
  if rows := _rows(facts, 'in_training'):
    pairs = '; '.join(f'{row.get("file")} is {row.get("training")}' for row in rows[:3])
    more = f'; and {len(rows) - 3} more, in data.json' if len(rows) > 3 else ''
    told.append(f'{shared.counted(len(rows), "image")} for test or validation in training too, which accuracies count: '
                f'{pairs}{more}.')
  for name, words in (
      ('in_both_parts', 'set apart of the training images trained on too, so that accuracies on them flatter'),
      ('in_validation', 'for test among those that choose, which flatters the test'),
      ('in_two_classes', 'of the training images in another class too: one of each is wrong')):
    if rows := _rows(facts, name):
      told.append(f'{shared.counted(len(rows), "image")} {words}: {rows[0].get("file")} is {rows[0].get("same")}'
                  f'{"; all are in data.json" if len(rows) > 1 else ""}.')
  if not (rows := _rows(facts, 'left_out')):
    return told
  named = '; '.join(f'{row.get("file")} ({row.get("reason")})' for row in rows[:3])
  more = f'; and {len(rows) - 3} more, in data.json' if len(rows) > 3 else ''
  return [*told, f'{shared.counted(len(rows), "file")} of the data left out: {named}{more}.']


def _rows(facts, name):
  rows = facts.get(name)
  return rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else []


def shortened(result: Mapping) -> list[str]:
  """What the clock did to a run."""
  try:
    lines = budget.line(result)
  except (KeyError, TypeError, ValueError):
    return []
  return [line.removeprefix('length').strip().capitalize() + '.' for line in lines]


def _ended(result: Mapping) -> bool:
  """Whether the clock ended a run before its last step."""
  facts = result.get('budget')
  return isinstance(facts, dict) and facts.get('ended_after_step') is not None


def of_network(result: Mapping, part: str) -> list[str]:
  """Warnings of a network that was tested on the images of `part`; of one that only guesses, nothing that follows."""
  told, count, top1 = [], result.get(f'{part}_images'), result.get(f'{part}_top1')
  if not real(result.get(f'{part}_loss')):
    told.append('The loss on these images is no finite number.')
  if real(unknown := result.get(f'{part}_not_a_number')):
    told.append(f'Of {shared.counted(unknown, "image")} the network says nothing (NaN): they count as taken for the '
                'class after their own.')
  if real(count) and count < FEW_IMAGES:
    where = 'test' if part == 'test' else 'validation'
    told.append(f'Only {shared.counted(count, "image")} in the {where}: the accuracy may be off by many points, as the '
                'interval says.')
  classes, values = result.get('classes') or [], result.get('per_class') or []
  never = [str(classes[i]) if i < len(classes) else f'class {i}' for i, value in enumerate(values) if value == 0]
  even = 100 / max(len(values), 1)
  guesses = bool(values) and real(top1) and top1 <= min(1.5 * even, even + 5)
  if never and not guesses:
    told.append(f'Never recognised: {", ".join(never[:10])}' + (f' and {len(never) - 10} more' if len(never) > 10
                                                               else '') + '.')
  unseen = [str(classes[i]) if i < len(classes) else f'class {i}' for i, value in enumerate(values) if value is None]
  if unseen:
    told.append(f'Without a test image: {", ".join(unseen[:10])}' + (f' and {len(unseen) - 10} more'
                                                                     if len(unseen) > 10 else '') + '.')
  if guesses:
    told.append(f'{top1:.2f} % is about what guessing gives with {len(values)} classes.')
  known = result.get('floor')
  if isinstance(known, dict) and real(known.get('top1')) and real(top1) and not guesses and (
      ahead := floor.gain(known, top1)) <= 0:
    told.append(f'Colour alone gives {known["top1"]:.2f} %: this network is {"worse" if ahead else "no better"}. Train '
                'it longer, or with more images.')
  told += few_steps(result.get('steps')) if result.get('task') == 'retrain' else []
  return told + damaged(result) + shortened(result)
