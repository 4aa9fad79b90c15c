"""The methods that make DARTS robust, against their papers' rules written out anew."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_papers import VALID_XI, XI, Net, first_adam_step, fresh, make, same, setup

from vimnas_jax.errors import UserError
from vimnas_jax.methods import curvature, darts_es, rdarts, sdarts
from vimnas_jax.runs.state import SearchState


def projected(rows):
  """Rows as probabilities, one after the other."""
  found = np.clip(rows, 0, 1)
  for row, before in zip(found, rows, strict=True):
    if row.sum() == 0:
      row[before.argmax()] = 1
    row /= row.sum()
  return found


def test_the_attack_of_sdarts_is_seven_projected_steps(x64):
  """Equal to a loop, within the ball, at a loss that is not lower; theta then descends there."""
  made, step, now, batch, loss, config = setup('sdarts_adv')
  now = now.replace(step=jnp.int32(4))  # e = 0.03 + 0.27 * 4 / 9
  key, width = jax.random.key(3), 0.15
  train_key, valid_key = (jax.random.split(key, 4)[i] for i in (XI, VALID_XI))
  g_phi = jax.jit(jax.grad(loss, 1), static_argnums=2)(now.theta, now.phi['params'], 'valid_', valid_key)
  params = first_adam_step(now.phi['params'], g_phi, config)
  clean = np.asarray(jax.nn.softmax(params['cell']))

  def at(theta, rows):
    return loss(theta, {}, '', train_key, lambda phi, key, clock: ({'cell': rows[None]}, {}))

  value, slope, by_theta = jax.jit(at), jax.jit(jax.grad(at, 1)), jax.jit(jax.grad(at))
  drawn = jax.random.uniform(jax.random.fold_in(train_key, 0), (6, 5), minval=-width, maxval=width)
  rows = start = projected(clean + np.asarray(drawn))
  for _ in range(7):
    rows = rows + 2 * width / 7 * np.sign(slope(now.theta, rows))
    far = np.minimum(np.maximum(rows - clean, -width), width)
    rows = projected(clean + far)
    assert (np.abs(far) <= width + 1e-12).all() and np.abs(far).max() > 0.9 * width
  assert value(now.theta, rows) > value(now.theta, clean) and value(now.theta, rows) > value(now.theta, start)
  g_theta = by_theta(now.theta, jnp.array(rows))
  after, metrics = step(now, batch, key)
  assert float(metrics['epsilon']) == pytest.approx(width)
  assert float(metrics['loss']) == pytest.approx(float(value(now.theta, rows)), rel=1e-7)
  assert float(metrics['grad_theta']) == pytest.approx(float(optax.tree.norm(g_theta)), rel=1e-6)
  same(after.phi['params'], params, rtol=1e-6)


def test_an_attack_that_lowers_the_loss_is_taken_back(x64):
  p = {'cell': jnp.array([[[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]])}

  def loss(rows):
    return (rows['cell'] * jnp.array([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])).sum()

  @jax.jit
  def found(sign):  # -1: with a gradient that points the wrong way
    return sdarts.attacked(lambda rows: (loss(rows), jax.tree.map(lambda g: sign * g, jax.grad(loss)(rows))), p, p,
                           jnp.array(0.1), 7)

  assert loss(found(1.0)) > loss(p) + 0.1
  np.testing.assert_array_equal(found(-1.0)['cell'], p['cell'])


def test_rdarts_is_four_searches_of_which_the_best_stays(x64):
  """Each written out: new theta, the same alpha, three times the weight decay, the whole cosine; errors by the way."""
  made, step, now, batch, loss, _ = setup('rdarts_l2', {'lr': 1.0}, total=12, unrolled='', judged=0.7)
  start, ends = now.phi['params'], []

  @jax.jit
  def by_hand(theta, params, trace, mean, square, keys, i, search):
    g = jax.tree.map(lambda g, p: g + 1e-3 * p, jax.grad(loss, 1)(theta, params, 'valid_', keys[VALID_XI]), params)
    mean = jax.tree.map(lambda m, g: 0.5 * m + 0.5 * g, mean, g)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, g)
    params = jax.tree.map(lambda p, m, v: p - 3e-4 * m / (1 - 0.5 ** (i + 1)) / (
        jnp.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8), params, mean, square)
    g = jax.grad(loss)(theta, params, '', keys[XI])
    scale = jnp.minimum(1.0, 5 / optax.tree.norm(g))
    trace = jax.tree.map(lambda t, g, w: 0.9 * t + scale * g + 3e-4 * 3.0 ** search * w, trace, g, theta)
    rate = 0.001 + 0.5 * 0.999 * (1 + jnp.cos(jnp.pi * i / 3))
    theta = jax.tree.map(lambda w, t: w - rate * t, theta, trace)
    logits = Net().apply({'params': theta}, batch['valid_images'] / 255, {'cell': jax.nn.softmax(params['cell'])[None]})
    return theta, params, trace, mean, square, 1 - (logits.argmax(-1) == batch['valid_labels']).mean()

  for search in range(4):
    theta, zeros, errors = now.theta, jax.tree.map(jnp.zeros_like, (now.theta, start, start)), []
    values = theta, start, *zeros
    for i in range(3):
      key = jax.random.key(3 * search + i)
      keys = jax.random.split(key, 4)
      if search and not i:
        values = fresh(jax.random.fold_in(keys[XI], 4)), start, *zeros
      *values, error = by_hand(*values, keys, i, search)
      errors += [float(error)] if i else []  # the last two of three
      now, metrics = step(now, batch, key)
      assert int(metrics['search']) == search
      if search < 3 or i < 2:
        same((now.theta, now.phi['params']), tuple(values[:2]), rtol=1e-5, atol=1e-8)
    ends.append((np.mean(errors), *values[:2]))
  best = min(ends, key=lambda end: end[0])
  assert len({end[0] for end in ends}) >= 3 and best is not ends[3]
  assert float(metrics['best_error']) == pytest.approx(best[0])
  same((now.theta, now.phi['params']), best[1:], rtol=1e-5, atol=1e-8)


def test_pretraining_is_no_part_of_the_way_of_rdarts_rate(x64):
  """After as many steps of theta alone as all four searches have, the first begins at the whole rate, as the others."""
  _, step, now, batch, _, config = setup('rdarts_l2', {'lr_end': 0.0, 'weight_decay': 0.0}, total=8, before=8,
                                         unrolled='')
  now = now.replace(step=jnp.int32(8), opt_theta=optax.tree.set(now.opt_theta, count=jnp.int32(8)))
  after, metrics = step(now, batch, jax.random.key(0))
  way = optax.tree.norm(jax.tree.map(jnp.subtract, after.theta, now.theta))
  assert float(way) == pytest.approx(config.theta.lr * min(float(metrics['grad_theta']), config.theta.clip), rel=1e-5)
  assert int(optax.tree.get(after.opt_theta, 'count')) == 1


def test_drop_path_is_a_mask_of_images_and_edges(x64):
  rows = jnp.array(np.random.default_rng(0).dirichlet(np.ones(5), (1, 6)))
  graph = jnp.array([[0.3, 0.7]])
  draw = rdarts.dropped(lambda phi, key, clock: ({'cell': rows, 'graph': graph}, {}), ('cell',), 4000, 0.4)
  weights, _ = draw(None, jax.random.key(0), None)
  assert weights['graph'] is graph and weights['cell'].shape == (4000, 6, 5)
  kept = np.asarray(weights['cell']).any(-1)
  np.testing.assert_allclose(weights['cell'], kept[..., None] * np.asarray(rows) / 0.6, rtol=1e-9)
  np.testing.assert_allclose(kept.mean(0), 0.6, atol=0.03)
  assert np.abs(np.corrcoef(kept.T) - np.eye(6)).max() < 0.06  # edges by themselves
  made, step, now, batch, _, _ = setup('rdarts_dp', total=8, unrolled='')
  rates = [float(step(now.replace(step=jnp.int32(i)), batch, jax.random.key(0))[1]['drop_path']) for i in range(8)]
  np.testing.assert_allclose(rates, [0, 0, 0, 0.1, 0, 0.2, 0, 0.3], atol=1e-9)


def test_the_largest_eigenvalue_is_that_of_the_whole_hessian(x64):
  """At the theta and alpha after the step, on its validation batch; and of matrices that are known."""
  made, step, now, batch, loss, _ = setup('darts_es', total=2, iterations=30, unrolled='', evaluations=1)
  key = jax.random.key(3)
  after, metrics = step(now, batch, key)
  hessian = jax.jit(jax.hessian(lambda flat: loss(after.theta, {'cell': flat.reshape(6, 5)}, 'valid_',
                                                  jax.random.split(key, 4)[VALID_XI])))(
      after.phi['params']['cell'].ravel())
  largest = float(np.linalg.eigvalsh(hessian)[-1])
  assert largest > 1e-3 and float(metrics['eigenvalue']) == pytest.approx(largest + 1e-3, rel=1e-5)
  found = jax.jit(lambda matrix, n: curvature.largest_eigenvalue(lambda v: matrix @ v, jnp.ones(4), n),
                  static_argnums=1)
  turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
  for values in ([-9.0, -1.0, 2.0, 3.0], [-4.0, -3.0, -2.0, -1.0]):
    matrix = jnp.array(turn @ np.diag(values) @ turn.T)
    assert float(found(matrix, 4)) == pytest.approx(max(values), rel=1e-9)
  assert float(found(matrix, 3)) < -1.0  # fewer steps find less


def recorded(values, wait):
  """(evaluation that ends a recorded sequence, evaluation that is gone back to) by the rule in lists, or None."""
  averages = {}
  for j in range(len(values)):
    if j >= 2:
      averages[j - 2] = np.mean(values[max(j - 4, 0):j + 1])  # of the middle of its window
      back = j - 2 - 4
      if back >= wait and back in averages and averages[j - 2] / averages[back] > 1.3:
        return j, back
  return None


@pytest.mark.parametrize('wait, values, want', [
    (5, [0.2] * 11 + [0.6] * 9, (11, 5)), (5, [0.2] * 14 + [0.6] * 9, (14, 8)), (0, [0.2] * 4 + [0.6] * 9, (6, 0)),
    (5, [0.2 * 1.02 ** i for i in range(25)], None), (5, [0.1] * 4 + [0.9] * 21, None),
    (5, [0.2 * 1.1 ** i for i in range(25)], (11, 5))])
def test_the_search_stops_on_a_recorded_sequence(wait, values, want):
  assert recorded(values, wait) == want
  kept, over = jnp.zeros(9), jax.jit(darts_es.too_far, static_argnums=3)
  for j, value in enumerate(values):
    kept = jnp.append(kept[1:], value)
    if over(kept, j + 1, wait, 1.3):
      break
  assert ((j, j - darts_es.KEPT + 1) if want else None) == want and (want or j == len(values) - 1)


@pytest.mark.parametrize('name', ['darts_es', 'darts_ada'])
def test_a_search_that_went_too_far_goes_back(x64, name):
  """Two steps an evaluation, at the first of them; a rule that always says so strikes as soon as it may."""
  fields = {'unrolled': '', 'iterations': 2, 'ridge': 9.0, 'ratio': 0.1}
  made, step, now, batch, loss, _ = setup(name, {'lr': 1.0, 'clip': 0.0}, total=50, **fields)
  after, gradient = [now], jax.jit(jax.grad(loss), static_argnums=2)
  for i in range(26 if name == 'darts_es' else 40):
    now, metrics = step(now, batch, jax.random.key(i))
    after.append(now)
    if made.stopped and made.stopped(now.phi):
      break
  raised = [int(at.phi['fixed']['raised']) for at in after]
  if name == 'darts_es':
    assert len(after) - 1 == 23 and raised == [0] * 23 + [1]  # evaluation 11 (from 0) follows step 23
    same(now.phi['params'], after[11].phi['params'])  # that of evaluation 5 was done after step 11
    assert float(jnp.abs(now.phi['params']['cell'] - after[22].phi['params']['cell']).max()) > 1e-4
    return
  assert raised == [0] * 23 + [1] * 14 + [2] * 4  # seven more evaluations, then no third time
  for to, of in ((23, 11), (37, 25)):
    same((after[to].theta, after[to].phi['params'], after[to].opt_phi),
         (after[of].theta, after[of].phi['params'], after[of].opt_phi))
    same(optax.tree.get(after[to].opt_theta, 'trace'), optax.tree.get(after[of].opt_theta, 'trace'))
    assert int(optax.tree.get(after[to].opt_theta, 'count')) == to
  for at, times in ((21, 1), (24, 10), (39, 100)):  # what the momentum takes up beside the gradient
    keys = jax.random.split(jax.random.key(at), 4)
    g = gradient(after[at].theta, after[at + 1].phi['params'], '', keys[XI])
    want = jax.tree.map(lambda t, g, w, times=times: 0.9 * t + g + times * 3e-4 * w,
                        optax.tree.get(after[at].opt_theta, 'trace'), g, after[at].theta)
    same(optax.tree.get(after[at + 1].opt_theta, 'trace'), want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('name, fields, told', [
    ('darts_es', {'evaluations': 0}, 'evaluations=0'),
    ('sdarts_adv', {'attack': -1}, 'attack=-1'), ('rdarts_l2', {'searches': 0}, 'searches=0'),
    ('rdarts_l2', {'judged': 0.0}, 'judged=0.0'), ('rdarts_dp', {'drop_path': 0.4}, 'drop_path=0.4')])
def test_bad_fields_of_the_robust_are_told(name, fields, told):
  with pytest.raises(UserError, match=told):
    make(name, **fields)



def test_rates_go_on_where_a_search_goes_back():
  """Those of theta and of phi, by a schedule or none; what an optimiser has averaged goes back."""
  params = {'w': jnp.ones(2)}
  sgd, adam = optax.sgd(optax.linear_schedule(1.0, 0.0, 9), 0.9), optax.adam(optax.linear_schedule(1.0, 0.0, 9))

  def after(tx, steps):
    state = tx.init(params)
    for i in range(steps):
      state = tx.update({'w': jnp.full(2, i + 1.0)}, state, params)[1]
    return state

  def state(steps, phi):
    return SearchState(jnp.int32(steps), params, {'params': params, 'fixed': {}}, after(sgd, steps), after(phi, steps),
                       None)

  for phi, own in ((adam, 'mu'), (optax.adam(0.1), 'mu'), (sgd, 'trace')):
    now, snapshot = state(5, phi), darts_es._snapshot(state(2, phi), True)
    back = darts_es._back(now, snapshot, {})
    for got, of, name in ((back.opt_theta, sgd, 'trace'), (back.opt_phi, phi, own)):
      same(optax.tree.get(got, name), optax.tree.get(after(of, 2), name))
      counts = [s.count for s in jax.tree.leaves(got, is_leaf=darts_es._scheduled) if darts_es._scheduled(s)]
      assert [int(count) for count in counts] == ([] if of is not sgd and of is not adam else [5])
