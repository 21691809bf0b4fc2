"""V-trace against the paper's own sum, in float64 and plain loops, and its closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nhzoo.training.rl.objectives import vtrace


def by_the_paper(log_ratios, discounts, rewards, values, bootstrap, rho_bar, c_bar, lam):
    """Equation 1: v_s = V(x_s) + sum_t (prod gamma c) delta_t, every product written out."""
    time, batch = rewards.shape
    targets, advantages = np.empty((time, batch)), np.empty((time, batch))
    for b in range(batch):
        following = [*values[1:, b], bootstrap[b]]
        ratio = [math.exp(x) for x in log_ratios[:, b]]
        for s in range(time):
            total = values[s, b]
            for t in range(s, time):
                weight = 1.0
                for i in range(s, t):
                    weight *= discounts[i, b] * lam * min(c_bar, ratio[i])
                delta = rewards[t, b] + discounts[t, b] * following[t] - values[t, b]
                total += weight * min(rho_bar, ratio[t]) * delta
            targets[s, b] = total
        after = [*targets[1:, b], bootstrap[b]]
        for s in range(time):
            step = rewards[s, b] + discounts[s, b] * after[s] - values[s, b]
            advantages[s, b] = min(rho_bar, ratio[s]) * step
    return targets, advantages


def drawn(time, batch, seed, ended=0.2):
    random = np.random.default_rng(seed)
    log_ratios = random.normal(0, 1.5, (time, batch))
    discounts = np.where(random.random((time, batch)) < ended, 0.0, 0.97)
    rewards, values = random.normal(size=(2, time, batch))
    return log_ratios, discounts, rewards, values, random.normal(size=batch)


def tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(0, 1000),
    st.floats(0, 3),
    st.floats(0, 3),
    st.floats(0, 1),
)
def test_it_is_the_papers_sum(time, batch, seed, rho_bar, c_bar, lam):
    given_ = drawn(time, batch, seed)
    found = vtrace(*tensors(given_), rho_bar, c_bar, lam)
    targets, advantages = by_the_paper(*given_, rho_bar, c_bar, lam)
    np.testing.assert_allclose(found.targets, targets, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.advantages, advantages, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bars", [(1.0, 1.0), (2.0, 5.0)])
def test_on_policy_it_is_the_return_to_the_end_of_the_unroll(bars):
    _, discounts, rewards, values, bootstrap = drawn(9, 3, 0)
    found = vtrace(*tensors((np.zeros((9, 3)), discounts, rewards, values, bootstrap)), *bars)
    returns, after = np.empty((9, 3)), bootstrap
    for t in range(8, -1, -1):
        returns[t] = after = rewards[t] + discounts[t] * after
    np.testing.assert_allclose(found.targets, returns)
    np.testing.assert_allclose(found.advantages, returns - values)


def test_the_limits_of_clipping():
    given_ = log_ratios, discounts, rewards, values, bootstrap = drawn(7, 3, 1)
    following = np.concatenate([values[1:], bootstrap[None]])
    delta = rewards + discounts * following - values
    nothing = vtrace(*tensors(given_), rho_bar=0.0)
    np.testing.assert_array_equal(nothing.targets, values)
    np.testing.assert_array_equal(nothing.advantages, 0 * values)
    one_step = vtrace(*tensors(given_), c_bar=0.0)
    ratios = np.minimum(1, np.exp(log_ratios))
    np.testing.assert_allclose(one_step.targets, values + ratios * delta)
    free = vtrace(*tensors(given_), rho_bar=math.inf, c_bar=math.inf)  # importance sampling
    np.testing.assert_allclose(
        free.targets, by_the_paper(*given_, math.inf, math.inf, 1.0)[0], rtol=1e-9
    )


def test_nothing_is_learnt_of_a_step_that_is_left_out_and_nothing_goes_through_it():
    log_ratios, discounts, rewards, values, bootstrap = drawn(6, 2, 2, ended=0.0)
    discounts[3], rewards[3] = 0.0, values[3]
    found = vtrace(*tensors((log_ratios, discounts, rewards, values, bootstrap)))
    np.testing.assert_array_equal(found.targets[3], values[3])
    np.testing.assert_array_equal(found.advantages[3], 0 * values[3])
    cut = vtrace(*tensors((log_ratios[:3], discounts[:3], rewards[:3], values[:3], values[3])))
    np.testing.assert_array_equal(found.targets[:3], cut.targets)


def test_no_gradient_leaves_it():
    given_ = [tensor.requires_grad_() for tensor in tensors(drawn(4, 2, 3))]
    found = vtrace(*given_)
    assert not found.targets.requires_grad and not found.advantages.requires_grad
