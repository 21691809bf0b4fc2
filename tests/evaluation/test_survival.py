"""The survival estimator against a worked example from the literature, and its edges."""

from __future__ import annotations

import numpy as np
import pytest

from nhzoo.evaluation.outcomes import kaplan_meier

# Weeks of remission under 6-mercaptopurine (Freireich et al. 1963), the textbooks' example.
DIED = [6, 6, 6, 7, 10, 13, 16, 22, 23]
CENSORED = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]


def test_the_textbooks_example():
    times = DIED + CENSORED
    curve = kaplan_meier(times, [True] * len(DIED) + [False] * len(CENSORED))
    assert curve.times == [6, 7, 10, 13, 16, 22, 23]
    assert curve.at_risk == [21, 17, 15, 12, 11, 7, 6]
    assert curve.deaths == [3, 1, 1, 1, 1, 1, 1]
    # By hand: 18/21, times 16/17, times 14/15, and so on.
    factors = [18 / 21, 16 / 17, 14 / 15, 11 / 12, 10 / 11, 6 / 7, 5 / 6]
    assert curve.alive == pytest.approx(np.cumprod(factors))
    assert [round(alive, 3) for alive in curve.alive] == [
        *(0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448)
    ]
    assert curve.median == 23
    assert curve.censored == sorted(CENSORED)
    assert curve.end == 35


def test_the_interval_by_hand():
    """Of 4, one dies at 1: S = 3/4, Greenwood's sum 1/12, log(-log) scale."""
    curve = kaplan_meier([1, 2, 2, 2], [True, False, False, False])
    spread = 1.959964 * np.sqrt(1 / 12) / abs(np.log(0.75))
    assert curve.low[0] == pytest.approx(0.75 ** np.exp(spread), rel=1e-6)
    assert curve.high[0] == pytest.approx(0.75 ** np.exp(-spread), rel=1e-6)
    assert 0 < curve.low[0] < 0.75 < curve.high[0] < 1


def test_without_censoring_it_is_the_share_that_is_left():
    times = np.random.default_rng(0).integers(1, 30, 200)
    curve = kaplan_meier(times.tolist(), [True] * 200)
    for time, alive in zip(curve.times, curve.alive, strict=True):
        assert alive == pytest.approx(np.mean(times > time))
    assert curve.alive[-1] == 0
    assert curve.low[-1] == 0
    assert all(a >= b for a, b in zip(curve.alive, curve.alive[1:], strict=False))


def test_nobody_dies_and_everybody_dies():
    assert kaplan_meier([3, 4], [False, False]).times == []
    assert kaplan_meier([3, 4], [False, False]).median is None
    one = kaplan_meier([5], [True])
    assert (one.alive, one.low, one.high, one.median) == ([0.0], [0.0], [1.0], 5)


def test_a_death_counts_before_a_censoring_at_the_same_time():
    assert kaplan_meier([2, 2], [True, False]).at_risk == [2]


@pytest.mark.parametrize(("times", "died"), [([], []), ([1.0], []), ([1.0], [True, False])])
def test_what_does_not_fit_is_refused(times, died):
    with pytest.raises(ValueError, match="outcomes"):
        kaplan_meier(times, died)
