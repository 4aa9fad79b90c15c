"""What a report makes one experiment, and how it calls it."""

from test_report import EXAMPLE, asked, made, own

from vimnas_jax.verbs import experiments, records, report


def reported(tmp_path, runs):
  """Rows and report.md."""
  return report.compare(runs, tmp_path / 'r'), (tmp_path / 'r' / 'report.md').read_text()


def test_a_run_beside_others_of_another_kind_is_called_by_its_folder(tmp_path):
  """As in runs/darts_c10 and runs/nb201_c10, or in a sweep over fields: the parent says nothing of them."""
  def names(*places):
    folders = [asked(tmp_path / f'{len(places)}' / place, seed, epochs=float(epochs))
               for place, seed, epochs in places]
    return list(experiments.named(records.read(folders))['nb201'])

  assert names(('runs/one', 0, 1)) == ['runs']
  assert names(('runs/one', 0, 1), ('runs/two', 0, 2)) == ['one', 'two']
  assert names(('runs/one', 0, 1), ('runs/two', 0, 2), ('more/one', 0, 1), ('more/three', 0, 2)) == [
      'runs/one', 'two', 'more/one', 'three']
  assert names(('a/small/seed_0', 0, 1), ('a/small/seed_1', 0, 2), ('b/small/seed_0', 0, 1)) == [
      'a/small/seed_0', 'a/small/seed_1', 'small']
  assert names(('x #2/c', 0, 1), ('x/a', 0, 1), ('x/b', 1, 1), ('x/x #2', 1, 2), ('x #2/d', 0, 2)) == [
      'c', 'x', 'x #2', 'd']
  space, genotype = own(EXAMPLE)  # of another space
  both = [made(tmp_path / 'spaces' / 'mine', space, genotype), made(tmp_path / 'spaces' / 'nb201')]
  assert {name for rows in experiments.named(records.read(both, [str(EXAMPLE)])).values() for name in rows} == {
      'mine', 'nb201'}


def test_a_method_is_named_where_methods_differ(tmp_path):
  runs = [made(tmp_path / name / 'x', method=name) for name in ('vimnas', 'darts')]
  assert '| vimnas | vimnas | 1 |' in reported(tmp_path, runs)[1]
  assert '| method |' not in reported(tmp_path / 'one', runs[:1])[1]
