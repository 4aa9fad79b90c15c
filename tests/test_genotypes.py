import pytest
from conftest import one_line

from vimnas_jax import genotypes, spaces
from vimnas_jax.errors import UserError

DARTS, NB201 = spaces.get('darts'), spaces.get('nb201')
ARCH = '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|'


def test_every_form_of_a_genotype(tmp_path):
  found = genotypes.get('PC_DARTS_cifar')
  (tmp_path / 'genotype.json').write_text(found.to_json() + '\n')
  (tmp_path / 'cell.json').write_text(NB201.read(ARCH).to_json())
  for text in ('PC_DARTS_cifar', DARTS.write(found), f'  {DARTS.write(found)}\n', str(tmp_path),
               str(tmp_path / 'genotype.json')):
    assert genotypes.resolve(text) == found
  assert genotypes.resolve(ARCH) == genotypes.resolve(str(tmp_path / 'cell.json')) == NB201.read(ARCH)


def test_a_folder_below_the_home_directory(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'genotype.json').write_text(genotypes.get('DARTS_V1').to_json())
  assert genotypes.resolve('~/run') == genotypes.get('DARTS_V1')


def test_names_of_folders_that_are_published_names_stay_names(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'DARTS_V2').mkdir()
  assert genotypes.resolve('DARTS_V2') == genotypes.get('DARTS_V2')


@pytest.mark.parametrize('text, words', [
    ('DARTS_V3', ("'DARTS_V3' is no genotype", 'run folder', 'DARTS_V1, DARTS_V2', '|op~0|', 'Genotype(normal=')),
    ('', ("'' is no genotype",)), ('no/such/folder', ('run folder',)), ('x' * 5000, ('is no genotype',)),
    ('a\nb', ('is no genotype',)), ('|conv~0|', ('not a NAS-Bench-201 architecture',)),
    ('Genotype(normal=[])', ('8 expected',)),
    (DARTS.write(genotypes.get('DARTS_V2')).replace('dil_conv_3x3', 'noise'), ("no op 'noise'",)),
    ('.', ('no genotype.json',))])
def test_what_is_no_genotype(tmp_path, monkeypatch, text, words):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError) as e:
    genotypes.resolve(text)
  assert all(word in one_line(e) for word in words)


@pytest.mark.parametrize('content, word', [
    (b'{"a"', 'not a genotype in JSON'), (b'\xff\xfe', 'cannot be read'),
    (b'{"space": "dart", "cells": {}}', "space 'dart'; known are darts, nb201"),
    (b'{"space": "darts", "cells": {"normal": []}}', "has cells ['normal']"),
    (b'{"space": "nb201", "cells": {"cell": [["conv", 0, 1]]}}', "no op 'conv'")])
def test_files_without_an_architecture(tmp_path, content, word):
  (tmp_path / 'g.json').write_bytes(content)
  with pytest.raises(UserError) as e:
    genotypes.resolve(str(tmp_path / 'g.json'))
  assert word in one_line(e)
