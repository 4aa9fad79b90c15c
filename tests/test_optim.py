import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vimnas_jax.runs import optim


def _moves(tx, steps, gradients=None):
  state, moves, update_ = tx.init(jnp.zeros(1)), [], jax.jit(tx.update)
  for i in range(steps):
    update, state = update_(jnp.ones(1) if gradients is None else jnp.full(1, gradients[i]), state, jnp.zeros(1))
    moves.append(-float(update[0]))
  return moves


@pytest.mark.parametrize('optimizer, first', [('sgd', [1, 1.5, 2, 2.5, 3, 3]), ('adam', [1, 1.5, 2, 2.5, 3, 3])])
def test_the_rate_of_phi_goes_in_a_line_and_stays(optimizer, first):
  config = ConfigDict({'optimizer': optimizer, 'lr': 1.0, 'lr_end': 3.0, 'momentum': 0.0, 'weight_decay': 0.0,
                       'clip': 0.0, 'schedule': 'linear', 'fall': 0.0})
  np.testing.assert_allclose(_moves(optim.phi(config, 4), 6), first, rtol=1e-5)
  config.lr_end = 1.0
  np.testing.assert_allclose(_moves(optim.phi(config, 4), 6), np.ones(6), rtol=1e-5)


@pytest.mark.parametrize('optimizer, clip', [('sgd', 2.0), ('sgd', 0.0), ('adam', 2.0), ('adam', 0.0)])
def test_phi_moves_by_clipped_gradients_with_its_momentum(optimizer, clip):
  """Momentum is the first beta of Adam, whose second one is 0.999."""
  config = ConfigDict({'optimizer': optimizer, 'lr': 0.5, 'lr_end': 0.5, 'momentum': 0.6, 'weight_decay': 0.0,
                       'clip': clip, 'schedule': 'linear', 'fall': 0.0, 'eps': 1e-3})
  gradients, want, m, v = [1.0, 8.0, -0.5, -3.0], [], 0.0, 0.0
  for t, g in enumerate(np.clip(gradients, -clip, clip) if clip else gradients, 1):
    if optimizer == 'sgd':
      m = 0.6 * m + g
      want.append(0.5 * m)
    else:
      m, v = 0.6 * m + 0.4 * g, 0.999 * v + 0.001 * g ** 2
      want.append(0.5 * m / (1 - 0.6 ** t) / (np.sqrt(v / (1 - 0.999 ** t)) + 1e-3))
  np.testing.assert_allclose(_moves(optim.phi(config, 4), 4, gradients), want, rtol=1e-4)


def test_the_rate_of_phi_rises_by_factors_and_falls_to_nothing():
  config = ConfigDict({'lr': 0.01, 'lr_end': 1.0, 'schedule': 'exponential', 'fall': 0.0})
  np.testing.assert_allclose(optim.phi_rate(config, 4)(np.arange(6)), [0.01, 10**-1.5, 0.1, 10**-0.5, 1, 1], rtol=1e-5)
  config.fall = 0.5
  np.testing.assert_allclose(optim.phi_rate(config, 8)(np.arange(10)),
                             [0.01, 10**-1.5, 0.1, 10**-0.5, 1, 0.5 + 8**-0.5, 0.5, 0.5 - 8**-0.5, 0, 0], atol=1e-6)
  config.update(lr=2.0, lr_end=2.0, schedule='linear')
  np.testing.assert_allclose(optim.phi_rate(config, 8)(np.arange(10)),
                             2 * np.array([1, 1, 1, 1, 1, 0.5 + 8**-0.5, 0.5, 0.5 - 8**-0.5, 0, 0]), atol=1e-6)


def test_phi_stands_still_after_a_part_of_the_search():
  config = ConfigDict({'optimizer': 'sgd', 'lr': 0.01, 'lr_end': 0.1, 'schedule': 'linear', 'fall': 0.25, 'steps': 0,
                       'momentum': 0.9, 'weight_decay': 0.1, 'clip': 0.0})
  whole = optim.phi_rate(config, 80)(np.arange(80))
  config.until = 0.8
  np.testing.assert_allclose(optim.phi_rate(config, 100)(np.arange(100)), [*whole, *np.zeros(20)], rtol=1e-5, atol=1e-9)
  moves = _moves(optim.phi(config, 10), 10)
  assert (np.abs(moves[:8]) > 0).all() and not np.any(moves[8:])
  config.update(lr_end=0.01, fall=0.0)
  np.testing.assert_allclose(optim.phi_rate(config, 10)(np.arange(10)), [0.01] * 8 + [0] * 2)


def test_rates_meant_for_a_longer_search_are_greater_in_proportion():
  config = ConfigDict({'lr': 0.01, 'lr_end': 0.1, 'schedule': 'linear', 'fall': 0.3, 'steps': 80})
  whole, half = optim.phi_rate(config, 80)(np.arange(80)), optim.phi_rate(config, 40)(np.arange(40))
  np.testing.assert_allclose(half, 2 * whole[::2], rtol=1e-6)
  config.update(lr_end=0.01, fall=0.0)
  assert optim.phi_rate(config, 20) == 0.04
  config.steps = 0
  assert optim.phi_rate(config, 20) == 0.01


def test_theta_goes_on_a_cosine_with_decay_and_clipping():
  config = ConfigDict({'lr': 0.2, 'lr_end': 0.1, 'momentum': 0.0, 'nesterov': False, 'weight_decay': 0.0, 'clip': 0.5,
                       'schedule': 'cosine'})
  want = [0.5 * (0.1 + 0.05 * (1 + np.cos(np.pi * t / 4))) for t in (0, 1, 2, 3, 4, 4)]
  np.testing.assert_allclose(_moves(optim.theta(config, 4), 6), want, rtol=1e-5)


def test_schedules_by_epochs():
  config = ConfigDict({'lr': 0.5, 'lr_end': 0.0, 'schedule': 'linear_epoch', 'warmup': 5})
  rate = optim.rate(config, 2500, 10)
  found = jax.jit(jax.vmap(rate))(10 * np.arange(250) + 9)
  np.testing.assert_allclose(found[:5], [0.1, 0.2, 0.3, 0.4, 0.5], rtol=1e-6)
  np.testing.assert_allclose(found[5:245], [0.5 * (245 - e) / 245 for e in range(5, 245)], rtol=1e-5)
  np.testing.assert_allclose(found[245:], [0.5 * (250 - e) / (245 * 5) for e in range(245, 250)], rtol=1e-5)
  config = ConfigDict({'lr': 0.025, 'lr_end': 0.0, 'schedule': 'cosine_epoch', 'warmup': 0})
  rate = optim.rate(config, 600 * 3, 3)
  want = [0.025 * 0.5 * (1 + np.cos(np.pi * e / 600)) for e in (0, 0, 0, 1, 299, 599)]
  np.testing.assert_allclose([float(rate(s)) for s in (0, 1, 2, 3, 899, 1799)], want, rtol=1e-4)


@pytest.mark.parametrize('schedule', ['linear_epoch', 'cosine_epoch', 'step_epoch'])
def test_the_rate_of_a_plan_as_short_as_its_warmup_falls_too(schedule):
  """As one that config.max_hours has shortened: it rose to the last step."""
  config = ConfigDict({'lr': 0.5, 'lr_end': 0.0, 'schedule': schedule, 'warmup': 5})
  for epochs in (1, 3, 4, 5, 6, 12):
    rate = jax.jit(lambda step, steps: optim.rate(config, steps, 3)(step))
    found = [float(rate(3 * epoch, 3 * epochs)) for epoch in range(epochs)]
    rising = 5 if epochs > 5 else epochs // 2
    np.testing.assert_allclose(found[:rising], [0.5 * (e + 1) / rising for e in range(rising)], rtol=1e-6)
    assert max(found) == pytest.approx(0.5) and (epochs == 1 or found[-1] < 0.5)


def test_the_rate_of_darts_on_imagenet_falls_by_three_per_cent_an_epoch():
  rate = optim.rate(ConfigDict({'lr': 0.1, 'lr_end': 0.0, 'schedule': 'step_epoch', 'warmup': 0}), 2500, 10)
  found = jax.jit(jax.vmap(rate))(10 * np.arange(250) + 7)
  np.testing.assert_allclose(found, 0.1 * 0.97 ** np.arange(250), rtol=1e-5)


def test_a_proximal_step_maps_what_the_step_leads_to():
  """With the rate that the step had, and to zeros that are exact."""
  config = ConfigDict({'optimizer': 'sgd', 'lr': 0.1, 'lr_end': 0.3, 'momentum': 0.0, 'weight_decay': 0.0, 'clip': 0.0,
                       'schedule': 'linear', 'fall': 0.0})
  tx = optim.proximal(optim.phi(config, 2), optim.phi_rate(config, 2),
                      lambda p, rate: jnp.sign(p) * jnp.maximum(jnp.abs(p) - 0.5 * rate, 0))
  params = jnp.array([0.7, -0.3, 0.05])
  state, grads = tx.init(params), jnp.array([-1.0, 1.0, 0.1])
  for want in ([0.75, -0.35, 0.0], [0.85, -0.45, 0.0]):  # rates 0.1, 0.2; thresholds 0.05, 0.1
    update, state = jax.jit(tx.update)(grads, state, params)
    params = params + update
    np.testing.assert_allclose(params, want, rtol=1e-6)
  assert float(params[2]) == 0.0
