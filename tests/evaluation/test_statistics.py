"""Intervals, tests and power: small cases by hand, invariances, coverage, the committed results."""

from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nhzoo.evaluation import statistics
from nhzoo.evaluation.statistics import (
    ci95,
    detectable_difference,
    ends_text,
    estimate,
    games_to_settle,
    iqm,
    known_interval,
    mean_ci95,
    paired_difference,
    permutation_test,
    ratio_of_means,
    sign_flip_test,
    unpaired_difference,
)
from tests import ROOT

RESULTS = sorted((ROOT / "leaderboard" / "results").glob("*/monk-lite-v1"))

scores = st.lists(st.integers(0, 5_000).map(float), min_size=2, max_size=12)
some = settings(max_examples=10, deadline=None, derandomize=True)


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.parent.name)
def test_committed_intervals_stay_what_they_were(folder):
    claimed = json.loads((folder / "result.json").read_text())["summary"]
    rows = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    values = [row["score"] for row in rows]
    assert mean_ci95(values) == pytest.approx(tuple(claimed["mean_score_ci95"]), rel=1e-12)
    assert iqm(values) == pytest.approx(claimed["iqm_score"], rel=1e-12)
    assert ci95(values) == mean_ci95(values)


def test_a_median_of_ties_has_an_interval():
    """No value left out changes it, so there is no BCa interval, but resamples differ."""
    assert ci95([1.0] * 3 + [2.0] * 6 + [5.0] * 4, "median") == (2.0, 5.0)
    one, other = [1.0] * 3 + [2.0] * 6 + [5.0] * 4, [2.0] * 7 + [3.0]
    low, high = unpaired_difference(one, other, "median").ends
    assert low <= 0 <= high and low < high


def test_estimates_by_hand():
    values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0]
    assert estimate(values) == 15.125
    assert estimate(values, "median") == 3.5
    assert estimate(values, "iqm") == iqm(values) == 3.5  # the mean of 2, 3, 4, 5
    with pytest.raises(ValueError, match="unknown statistic"):
        estimate(values, "mode")


def test_student_interval_by_hand():
    """Of 1, 2, 3, 4, 5: mean 3, standard error sqrt(2.5 / 5), t with 4 degrees 2.776."""
    reach = 2.7764451 * math.sqrt(0.5)
    assert ci95([1, 2, 3, 4, 5], method="t") == pytest.approx((3 - reach, 3 + reach), abs=1e-6)


@pytest.mark.parametrize("method", ["bca", "percentile", "t", "bootstrap-t"])
def test_one_value_and_equal_values_have_no_interval(method):
    for equal in ([7.0], [0.1] * 3, [0.1] * 5, [127.0] * 128):
        assert ci95(equal, method=method) is None
        assert mean_ci95(equal) is None
    low, high = ci95([0.0] * 7 + [5.0], method=method)
    assert np.isfinite([low, high]).all() and low <= 5 / 8 <= high


def test_what_is_refused():
    with pytest.raises(ValueError, match="no values"):
        ci95([])
    with pytest.raises(ValueError, match="unknown method"):
        ci95([1, 2], method="normal")
    with pytest.raises(ValueError, match="is for the mean"):
        ci95([1, 2], "median", "t")
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1, 2], [1])
    with pytest.raises(ValueError, match="more zeros"):
        ratio_of_means([1, 2], [0, 0, 1])


@some
@given(scores, st.integers(-1000, 1000), st.integers(1, 50))
def test_intervals_shift_and_scale(values, shift, scale):
    for statistic, method in [
        ("mean", "bca"),
        ("median", "bca"),
        ("iqm", "percentile"),
        ("mean", "bootstrap-t"),
    ]:
        ends = ci95(values, statistic, method, resamples=500)
        moved = ci95([scale * v + shift for v in values], statistic, method, resamples=500)
        if ends is None:
            assert moved is None
            continue
        low, high = ends
        assert low < high
        expected = (scale * low + shift, scale * high + shift)
        assert moved == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale * 5_000)


@pytest.mark.slow
@some
@given(scores, scores)
def test_differences_change_sign_when_swapped(a, b):
    n = min(len(a), len(b))
    for statistic in ("mean", "median", "iqm"):
        pairs = [
            (paired_difference(a[:n], b[:n], statistic), paired_difference(b[:n], a[:n], statistic))
        ]
        if a != b:  # else there is no telling which way round they are
            pairs.append(
                (unpaired_difference(a, b, statistic), unpaired_difference(b, a, statistic))
            )
        for one, other in pairs:
            assert one.estimate == pytest.approx(-other.estimate)
            if one.ends is None:
                assert other.ends is None
                continue
            assert one.ends == pytest.approx((-other.high, -other.low), abs=1e-6)
            assert one.low < one.high
    assert sign_flip_test(np.subtract(a[:n], b[:n])) == sign_flip_test(np.subtract(b[:n], a[:n]))
    assert permutation_test(a, b) == permutation_test(b, a)


@some
@given(scores, st.integers(1, 1000), st.integers(1, 50))
def test_p_values_do_not_depend_on_units(values, shift, scale):
    half = len(values) // 2
    a, b = np.array(values[:half]), np.array(values[half:])
    moved = permutation_test(scale * a + shift, scale * b + shift)
    assert moved.value == pytest.approx(permutation_test(a, b).value)
    assert sign_flip_test(scale * a) == sign_flip_test(a)


def test_sign_flips_by_hand():
    """Of 1, 2, 3 the signs give sums of at least 6 two times of eight; zeros change nothing."""
    assert sign_flip_test([1, 2, 3]) == statistics.PValue(0.25, True)
    assert sign_flip_test([1, 0, 2, 0, 3]).value == 0.25
    assert sign_flip_test([-1, 2, 3]).value == 0.5  # 6, 4 and their opposites
    assert sign_flip_test([0, 0]).value == sign_flip_test([5]).value == 1.0
    assert sign_flip_test([0.1, 0.2, 0.3, 0.6]).value == 2 / 16


@some
@given(st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=8))
def test_sign_flips_count_what_they_say(values):
    observed = abs(sum(values))
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in product((-1, 1), repeat=len(values))
    ]
    assert sign_flip_test(values).value == pytest.approx(np.mean(np.array(sums) >= observed))


def test_drawn_p_values_agree_with_exact_ones():
    random = np.random.default_rng(4)
    d = random.normal(0.5, size=14)
    exact = sign_flip_test(d)
    a, b = random.normal(size=8), random.normal(1, size=8)
    exact_split = permutation_test(a, b)
    assert exact.exact and exact_split.exact
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_EXACT", 0)
        drawn, drawn_split = sign_flip_test(d), permutation_test(a, b)
    assert not drawn.exact and not drawn_split.exact
    assert drawn.value == pytest.approx(exact.value, abs=0.02)
    assert drawn_split.value == pytest.approx(exact_split.value, abs=0.02)


def test_permutations_by_hand():
    """(1, 2) against (8, 9): of the 6 splits, it and its mirror image are the furthest."""
    assert permutation_test([1, 2], [8, 9]) == statistics.PValue(2 / 6, True)
    assert permutation_test([3], [4]).value == 1.0
    assert permutation_test([1, 1, 1], [2, 2, 2]).value == 2 / 20
    assert permutation_test([5, 5], [5, 5, 5]).value == 1.0


def test_differences_by_hand():
    same = paired_difference([1.0, 5.0, 9.0], [1.0, 5.0, 9.0])
    assert (same.estimate, same.low, same.high) == (0, None, None)
    always = paired_difference([11.0, 15.0, 19.0], [1.0, 5.0, 9.0])
    assert (always.estimate, always.ends) == (10, None)
    for statistic in ("median", "iqm"):
        always = paired_difference([11.0, 15.0, 19.0], [1.0, 5.0, 9.0], statistic)
        assert (always.estimate, always.ends) == (10, None)
        one = paired_difference([3.0], [1.0], statistic)
        assert (one.estimate, one.ends) == (2, None)
    flat = unpaired_difference([2.0, 2.0], [5.0])
    assert (flat.estimate, flat.ends) == (-3, None)
    single = unpaired_difference([2.0], [5.0, 7.0])
    assert (single.estimate, single.ends) == (-4, None)


def test_below_five_values_means_have_students_interval_and_nothing_is_resampled():
    """Of 1, 2, 3: standard error sqrt(1 / 3), t with 2 degrees 4.303; Welch's of two such: 4."""
    reach = 4.3026527 * math.sqrt(1 / 3)
    assert mean_ci95([1, 2, 3]) == pytest.approx((2 - reach, 2 + reach), abs=1e-6)
    assert ci95([1, 2, 3]) == mean_ci95([1, 2, 3])
    assert ci95([1, 2, 3], "median") is None
    assert ci95([1, 2, 3], method="percentile") is None
    paired = paired_difference([2, 4, 6], [1, 2, 3])
    assert paired.ends == pytest.approx((2 - reach, 2 + reach), abs=1e-6)
    assert paired_difference([2, 4, 6], [1, 2, 3], "iqm").ends is None
    welch = unpaired_difference([1, 2, 3], [11, 12, 13])
    reach = 2.7764451 * math.sqrt(2 / 3)
    assert welch.ends == pytest.approx((-10 - reach, -10 + reach), abs=1e-6)
    assert unpaired_difference([1, 2, 3], [11, 12, 13], "median").ends is None
    ratio = ratio_of_means([1, 2, 3], [4.0] * 50)
    assert (ratio.estimate, ratio.ends) == (0.5, None)


def test_intervals_are_read_from_json_of_before_and_now():
    assert known_interval(None) is None
    assert known_interval([127.0, 127.0]) is None  # of before: one game, or equal scores
    assert known_interval([1, 2.5]) == (1.0, 2.5)
    for junk in ([1], [1, "2"], "12", [True, 2], {"low": 1}):
        with pytest.raises(ValueError, match="not an interval"):
            known_interval(junk)
    assert ends_text(None) == "-"
    assert ends_text((0.5, 0.75), scale=100) == "[50.0, 75.0]"


def test_ratio():
    random = np.random.default_rng(5)
    a, b = random.lognormal(6, 1, 128), random.lognormal(9, 1, 171)
    both = ratio_of_means(a, b)
    assert both.estimate == pytest.approx(a.mean() / b.mean())
    alone = np.array(mean_ci95(a)) / b.mean()  # as if the expert's mean were known
    assert both.low < alone[0] < both.estimate < alone[1] < both.high
    doubled = ratio_of_means(2 * a, 4 * b)
    assert (doubled.low, doubled.high) == pytest.approx((both.low / 2, both.high / 2))


@pytest.mark.parametrize("effect", [0.2, 0.5, 1.0])
def test_power_against_the_noncentral_t(effect):
    """The smallest numbers of games whose t tests have 80 % power."""

    def smallest(degrees, scale):
        for n in range(2, 1000):
            limit = stats.t.ppf(0.975, degrees(n))
            if stats.nct.sf(limit, degrees(n), effect * math.sqrt(n / scale)) >= 0.8:
                return n
        raise AssertionError

    assert games_to_settle(effect, 1.0) == pytest.approx(smallest(lambda n: n - 1, 1), abs=1)
    unpaired = games_to_settle(effect, 1.0, 1.0)
    assert unpaired == pytest.approx(smallest(lambda n: 2 * n - 2, 2), abs=1)


def test_power_by_hand():
    """(1.960 + 0.842)^2 = 7.849; a gap of 10 % at a coefficient of variation of 0.76 takes 908."""
    assert games_to_settle(0.1, 0.76, 0.76) == 908
    assert games_to_settle(-0.1, 0.76, 0.76) == 908
    assert games_to_settle(0.0, 1.0) is None
    assert games_to_settle(5.0, 0.0) == 6  # 2 / 2^6 is the first p-value below 0.05
    assert games_to_settle(5.0, 0.0, 0.0) == 4  # 2 of 70 splits
    assert detectable_difference(0.5) == pytest.approx(2.8016 * 0.5, abs=1e-4)
    assert detectable_difference(3.0, 4.0) == pytest.approx(2.8016 * 5, abs=1e-3)


@pytest.mark.slow
def test_coverage_of_heavy_tails():
    """Loose and seeded: the figures are those of tests/benchmarks/bench_statistics.py."""
    random = np.random.default_rng(6)
    held = dict.fromkeys(["bca", "bootstrap-t", "paired", "unpaired", "median"], 0)
    for _ in range(100):
        a, b = np.exp(random.normal(size=(2, 64)))
        for method in ("bca", "bootstrap-t"):
            low, high = ci95(a, method=method, resamples=500)
            held[method] += low <= np.exp(0.5) <= high
        low, high = ci95(a, "median", resamples=500)
        held["median"] += low <= 1 <= high
        for kind, between in (("paired", paired_difference), ("unpaired", unpaired_difference)):
            interval = between(a, b)
            held[kind] += interval.low <= 0 <= interval.high
    assert all(82 <= count <= 100 for count in held.values()), held
