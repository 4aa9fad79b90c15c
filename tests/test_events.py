"""Scalars for TensorBoard: what is in the event file, read back by the format's own words."""

import json
import struct

import pytest
from conftest import ONE_EDGE, SLOW, one_line

import vimnas_jax
from vimnas_jax import config as config_lib
from vimnas_jax.errors import UserError
from vimnas_jax.runs import events, metrics


def scalars(folder):
  """{(step, name): value} of the event file, in float32; the lengths and checksums frame every record."""
  event_pb2 = pytest.importorskip('tensorboardX.proto.event_pb2', reason='install requirements-tensorboard.txt')
  from tensorboardX.record_writer import masked_crc32c
  data, at, rows = (folder / events.FILE).read_bytes(), 0, []
  while at < len(data):
    (size,) = struct.unpack_from('<Q', data, at)
    record = data[at + 12:at + 12 + size]
    assert struct.unpack_from('<I', data, at + 8)[0] == masked_crc32c(data[at:at + 8])
    assert struct.unpack_from('<I', data, at + 12 + size)[0] == masked_crc32c(record)
    rows.append(event_pb2.Event.FromString(record))
    at += 16 + size
  assert rows[0].file_version == 'brain.Event:2'
  found = [((row.step, value.tag), value.simple_value) for row in rows[1:] for value in row.summary.value]
  assert len(dict(found)) == len(found)
  return dict(found)


def recorded(folder):
  return {(row['step'], name): struct.unpack('f', struct.pack('f', value))[0] for row in metrics.read(
      folder / 'metrics.jsonl') for name, value in row.items() if name != 'step' and isinstance(value, int | float)}


def test_the_event_file_has_the_lines_that_are_there_also_after_a_resume(tmp_path):
  pytest.importorskip('tensorboardX', reason='install requirements-tensorboard.txt')
  path = tmp_path / 'metrics.jsonl'
  for first, steps in ((0, (1, 2, 3)), (2, (3, 4))):  # killed after step 3, the checkpoint before that
    lines = metrics.Lines(path, first, tensorboard=True)
    for step in steps:
      lines.write(step=step, stage='search', loss=first + 1 / step, accuracy=float('nan') if step == 1 else 0.5)
    lines.close()
  assert scalars(tmp_path) == recorded(tmp_path) and (4, 'accuracy') in scalars(tmp_path)
  assert (1, 'accuracy') not in scalars(tmp_path) and scalars(tmp_path)[3, 'loss'] == pytest.approx(2 + 1 / 3)
  assert len(list(tmp_path.iterdir())) == 2
  (tmp_path / 'more').mkdir()
  metrics.Lines(tmp_path / 'more' / 'metrics.jsonl', 0).close()
  assert not (tmp_path / 'more' / events.FILE).exists()


@SLOW
def test_a_search_writes_it_where_it_is_asked_for(tmp_path):
  pytest.importorskip('tensorboardX', reason='install requirements-tensorboard.txt')
  config = vimnas_jax.configure('quickstart', {
      'space.name': ONE_EDGE, 'data.name': 'synthetic', 'data.image_size': 8, 'data.num_train': 64, 'space.channels': 4,
      'tensorboard': True}, batch_size=16, epochs=2.0, log_steps=1, devices=1)
  vimnas_jax.search(config, tmp_path)
  assert scalars(tmp_path) == recorded(tmp_path) and len(recorded(tmp_path)) > 8
  assert json.loads((tmp_path / 'config.json').read_text())['config']['tensorboard'] is True


def test_a_missing_package_is_told_before_anything_is_written(tmp_path, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(UserError, match='pip install -r requirements-tensorboard.txt') as error:
    vimnas_jax.search(vimnas_jax.configure('quickstart', tensorboard=True), tmp_path / 'run')
  assert one_line(error) and not (tmp_path / 'run').exists()
  asked = config_lib.changed(config_lib.defaults(), 'task=evaluate genotype=x')
  assert 'tensorboard' not in config_lib.resolve(asked)  # it has no steps
