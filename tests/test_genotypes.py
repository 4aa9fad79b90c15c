import json

import pytest
from conftest import ROOT, one_line

from vimnas_jax import config as config_lib
from vimnas_jax import spaces
from vimnas_jax.errors import UserError
from vimnas_jax.networks import genotypes
from vimnas_jax.spaces import Genotype

DARTS, NB201 = spaces.get('darts'), spaces.get('nb201')
ARCH = '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|'
V2 = genotypes.get('DARTS_V2')
TEXT = DARTS.write(V2)


def test_every_form_of_a_genotype(tmp_path):
  found = genotypes.get('PC_DARTS_cifar')
  (tmp_path / 'genotype.json').write_text(found.to_json() + '\n')
  (tmp_path / 'cell.json').write_text(NB201.read(ARCH).to_json())
  for text in ('PC_DARTS_cifar', DARTS.write(found), f'  {DARTS.write(found)}\n', str(tmp_path), found.to_json(),
               str(tmp_path / 'genotype.json')):
    assert genotypes.resolve(text) == found
  assert genotypes.resolve(ARCH) == genotypes.resolve(str(tmp_path / 'cell.json')) == NB201.read(ARCH)


@pytest.mark.parametrize('change', [
    lambda t: f'11/25 09:12:13 AM genotype = {t}', lambda t: f'DARTS_V2 = {t}  # second order', lambda t: f'{t!r}',
    lambda t: t.replace('), (', '),\n    (').replace('Genotype(', 'Genotype(\n'), lambda t: t.replace("'", '"'),
    lambda t: t.replace(', 0)', ', np.int64(0))').replace(', 1)', ', numpy.int32(1))').replace(', 2)', ', int(2))'),
    lambda t: t.replace(')]', '),]').replace('range(2, 6))', 'range(2, 6),)'),
    lambda t: t.replace('range(2, 6)', '[2, 3, 4, 5]'), lambda t: t.replace('range(2, 6)', 'list(range(2, 6))'),
    lambda t: t.replace(', normal_concat=range(2, 6)', '').replace(', reduce_concat=range(2, 6)', ''),
    lambda t: t.replace('normal=', '').replace('normal_concat=', '').replace('reduce=', '').replace(
        'reduce_concat=', '')])
def test_what_logs_and_programs_hold_is_read(tmp_path, change):
  text = change(TEXT)
  assert genotypes.resolve(text) == V2
  file = tmp_path / 'found.txt'
  file.write_bytes(b'\xef\xbb\xbf' + text.encode() + b'\n')  # with the mark that Windows begins text files with
  assert genotypes.resolve(str(file)) == V2


@pytest.mark.parametrize('text', [f' {ARCH} ', f'"{ARCH}"', ARCH.replace('+', ' + '), ARCH.replace('+', '+\n'),
                                  f'arch = {ARCH}', f'epoch 3: {ARCH}\n'])
def test_a_nasbench201_string_in_other_words(tmp_path, text):
  (tmp_path / 'a.txt').write_text(text)
  assert genotypes.resolve(text) == genotypes.resolve(str(tmp_path / 'a.txt')) == NB201.read(ARCH)


def test_a_notation_is_read_in_the_space_that_the_config_names():
  s4, s2 = spaces.get('s4'), spaces.get('s2')
  noisy = TEXT.replace('skip_connect', 'noise').replace('dil_conv_3x3', 'noise').replace('max_pool_3x3', 'noise')
  assert genotypes.resolve(noisy, s4).space == 's4'
  with pytest.raises(UserError, match="no op 'noise'"):
    genotypes.resolve(noisy)
  with pytest.raises(UserError, match="no op 'noise'; it has skip_connect, sep_conv_3x3"):
    genotypes.resolve(noisy, s2)
  assert genotypes.resolve('SDARTS_RS_s2', s2) == Genotype('s2', genotypes.get('SDARTS_RS_s2').cells)
  with pytest.raises(UserError, match='no op'):
    genotypes.resolve('DARTS_V2', s2)
  with pytest.raises(UserError, match="space 'darts', not to 'nb201': set config.space.name"):
    genotypes.resolve('DARTS_V2', NB201)
  with pytest.raises(UserError, match="space 'darts', not to 's2'"):
    genotypes.resolve(V2.to_json(), s2)  # it says itself of which space it is


def test_a_folder_below_the_home_directory(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'genotype.json').write_text(genotypes.get('DARTS_V1').to_json())
  assert genotypes.resolve('~/run') == genotypes.get('DARTS_V1')


def test_names_of_folders_that_are_published_names_stay_names(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'DARTS_V2').mkdir()
  assert genotypes.resolve('DARTS_V2') == V2


DEEP = '[' * 9000


@pytest.mark.parametrize('text, words', [
    ('DARTS_V3', ("'DARTS_V3' is no genotype", 'run folder', 'alike: DARTS_V1, DARTS_V2', '|op~0|', 'Genotype(norm')),
    ('', ("'' is no genotype",)), ('no/such/folder', ('run folder',)), ('x' * 5000, ('is no genotype',)),
    ('a\nb', ('is no genotype',)), ('a\0b', ('is no genotype',)), ('~nobody_at_all/x', ('is no genotype',)),
    ('|conv~0|', ('not a NAS-Bench-201 architecture',)), (f'{ARCH} {ARCH}', ('2 NAS-Bench-201 architectures',)),
    ('Genotype(normal=[])', ('8 expected',)), (f'{TEXT}\n{TEXT}', ('2 genotypes',)),
    (TEXT.replace('dil_conv_3x3', 'noise'), ("no op 'noise'",)), ('.', ('no genotype.json',)),
    (TEXT.replace('normal_concat=range(2, 6)', 'normal_concat=[4, 5]'), ('normal_concat=(4, 5)', 'range(2, 6)')),
    (TEXT.replace('reduce_concat=range(2, 6)', 'reduce_concat=range(1, 6)'), ('reduce_concat=(1, 2, 3, 4, 5)',)),
    (TEXT.replace('range(2, 6)', '[5, 4, 3, 2]'), ('normal_concat=(5, 4, 3, 2)',)),
    (TEXT.replace('range(2, 6)', 'None'), ('normal_concat=None',)),
    (TEXT.replace('range(2, 6)', '2**9**9'), ('normal_concat=None',)),  # nothing is computed
    (TEXT.replace(', 0)', ", __import__('os'))", 1), ('not a DARTS genotype',)),
    (TEXT.replace(', 0)', ', 0.0)', 1), ('not a DARTS genotype',)),
    (TEXT.replace(', 0)', ', True)', 1), ('not a DARTS genotype',)),
    (TEXT.replace(', 0)', f', {"9" * 4000})', 1), ('has no edge',)),
    (TEXT.replace(', 0)', f', {"9" * 5000})', 1), ('cannot be read to its end',)),
    (TEXT.replace("('sep_conv_3x3', 1)", "('sep_conv_3x3', 0)", 1), ('the edge 0->2 twice',)),
    (TEXT[:-30], ('cannot be read to its end',)), (f'Genotype({DEEP}', ('cannot be read to its end',)),
    (f'Genotype(normal={"-" * 15000}1)', ('genotype',)), (f'Genotype(normal={DEEP}{"]" * 9000})', ('to its end',)),
    (TEXT.replace('normal=', 'ordinary='), ('cannot be read to its end',)), ('Genotype(**{})', ('to its end',)),
    ('{"space": "darts"}', ('not a genotype in JSON',)), ('{' * 50000, ('not a genotype in JSON',))])
def test_what_is_no_genotype(tmp_path, monkeypatch, text, words):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError) as e:
    genotypes.resolve(text)
  assert all(word in one_line(e) for word in words), str(e.value)
  assert len(str(e.value)) < 500


def cells(**changed):
  return json.dumps({'space': 'darts', 'cells': {**json.loads(V2.to_json())['cells'], **changed}}).encode()


NORMAL = json.loads(V2.to_json())['cells']['normal']
NB = json.loads(NB201.read(ARCH).to_json())['cells']['cell']


def nb(edges):
  return json.dumps({'space': 'nb201', 'cells': {'cell': edges}}).encode()


@pytest.mark.parametrize('content, word', [
    (b'{"a"', 'not a genotype in JSON'), (b'\xff\xfe', 'is damaged'), (b'', 'cannot be read'),
    (b'{"space": "dart", "cells": {}}', "space 'dart'; known are darts, nb201"),
    (b'{"space": "../../x", "cells": {}}', "space '../../x'; known are"),
    (b'{"space": ["darts"], "cells": {}}', 'space is no text'), (b'{"space": "darts", "cells": []}', 'in JSON'),
    (b'{"space": "darts", "cells": {"normal": []}}', "has cells ['normal']"),
    (b'{"space": "nb201", "cells": {"cell": [["conv", 0, 1]]}}', "no op 'conv'"),
    (nb(NB[:1]), '0 edges into node 2; it needs 2'), (nb([*NB, NB[0]]), 'the edge 0->1 twice'), (nb([]), 'not whole'),
    (nb([NB[1], NB[0], *NB[2:]]), 'in another order'), (nb([['none', 0, True], *NB[1:]]), 'no [op, source, target]'),
    (nb([['none', 0, 10 ** 400], *NB[1:]]), 'no edge'), (nb([['none', 0, 1.0], *NB[1:]]), 'no [op, source, target]'),
    (cells(normal=NORMAL[:1]), '1 edges into node 2; it needs 2'), (cells(normal=NORMAL[:-1]), 'node 5; it needs 2'),
    (cells(normal=[*NORMAL, ['skip_connect', 4, 5]]), '3 edges into node 5'),
    (cells(normal=[*NORMAL[2:], *NORMAL[:2]]), 'in another order'), (cells(normal=None), 'in JSON'),
    (cells(normal=[[['sep_conv_3x3'], 0, 2], *NORMAL[1:]]), 'no [op, source, target]'),
    (cells(normal=[['sep_conv_3x3', 1.5, 2], *NORMAL[1:]]), 'no [op, source, target]'),
    (b'[' * 100000, 'cannot be read'), (b'{"a":' * 100000, 'not a genotype in JSON')])
def test_files_without_an_architecture(tmp_path, content, word):
  (tmp_path / 'g.json').write_bytes(content)
  with pytest.raises(UserError) as e:
    genotypes.resolve(str(tmp_path / 'g.json'))
  assert word in one_line(e) and len(str(e.value)) < 600


def test_all_published_genotypes_are_whole():
  assert all(DARTS.validate(genotype) is genotype for genotype in genotypes.PUBLISHED.values())


def test_what_a_config_names_may_run(tmp_path):
  config = config_lib.defaults()
  config.space.name = str(ROOT / 'examples' / 'two_nodes.py')
  assert genotypes.trusted(config) == (config.space.name,)
  config.trust = ' a.py, b.py ,c.txt'
  assert genotypes.trusted(config)[1:] == ('a.py', 'b.py')
