"""A short while of every fuzz target; `python -m tests.fuzz.run all --seconds 600` takes its time."""

import importlib.util
import os
import subprocess
import sys

import pytest
from conftest import ROOT

GROUPS = (('cifar', 'imagenet16', 'nats_simple', 'nats_zip', 'nats_legacy', 'nats_packed', 'nasbench101_records',
           'nasbench101_npz', 'natsbench_npz', 'csv', 'split'),
          ('image', 'tfds', 'genotype_text', 'genotype_file', 'export_model', 'export_weights', 'export_program',
           'json', 'metrics'))


@pytest.mark.skipif(importlib.util.find_spec('atheris') is None, reason='atheris is missing: requirements-dev.txt')
@pytest.mark.parametrize('names', GROUPS, ids=('own', 'other'))
def test_no_file_does_more_than_be_refused(names, tmp_path):
  environment = {key: value for key, value in os.environ.items() if key != 'XLA_FLAGS'}
  done = subprocess.run([sys.executable, '-m', 'tests.fuzz.run', *names, '--seconds', '1', '--runs', '100',
                         '--keep', str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True,
                        timeout=300)
  assert done.returncode == 0, done.stdout + done.stderr[-2000:]
  assert done.stdout.count('no fault') == len(names)
