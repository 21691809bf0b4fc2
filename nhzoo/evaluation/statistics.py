"""Statistics of heavy-tailed scores, seeded, so that the same input gives the same numbers.

Intervals are bootstrap intervals: bias-corrected and accelerated (BCa, Efron 1987) unless another
method is asked for. How often, in %, nominal 95 % intervals hold the mean of the 128 scores of
bc-lstm-1m, of the 171 of AutoAscend and of a lognormal (in this order) when n games are drawn from
these, in 1,000 samples each (standard errors 0.6 to 1.3), by tests/benchmarks/bench_statistics.py:

    n       BCa               percentile        Student's t       bootstrap-t
    8       87.0 87.2 80.4    85.9 86.9 78.2    92.0 91.3 83.3    94.8 94.6 89.9
    32      92.3 92.8 88.0    92.7 92.4 86.8    94.4 93.3 87.5    95.1 95.2 91.4
    128     92.4 93.3 91.1    92.9 93.8 91.5    92.9 94.3 91.4    93.6 94.2 92.4
    1,024   95.5 95.5 93.0    95.4 95.7 94.1    95.5 95.2 94.2    95.8 95.0 93.7

Most intervals that miss lie below the mean: the very long games were not among those played. From
128 games on BCa is as good as any; with fewer it is too short, and bootstrap-t, about 1.5 times as
wide at 8 games, is the one to use. Below five values nothing is resampled: a mean has Student's t
interval there, and other statistics have none. Of one value, or equal ones, there is no interval:
None, never one without width. Where most scores are equal no method helps a small sample: of
the random agent's scores, 95 % of them 0, BCa holds the mean 35 % of the time with 8 games, 73 %
with 32 and 92 % with 128 (bootstrap-t: 28, 55, 92). Of medians and interquartile means, BCa and
percentile intervals hold 90 to 95 % at 8 games and 94 to 96 % from 32 on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import scipy  # its stats, which take a while to import, when they are first needed

RESAMPLES = 10_000
LEAST_VALUES = 5
"""Values without which nothing is resampled."""

ALPHA, POWER = 0.05, 0.8
"""Error rate of a verdict, and how likely a difference should be settled, in questions of power."""

_BLOCK = 500  # resamples drawn at a time, to bound memory
_EXACT_FLIPS = 14  # differences: 16,384 sign patterns, no more than are drawn otherwise
_EXACT_SPLITS = 20_000
_ROUNDING = 1e-9  # sums that are equal but for rounding count as equal

Array = npt.NDArray[np.float64]
Values = Sequence[float] | Array
Statistic = Literal["mean", "median", "iqm"]
Ends = tuple[float, float]
Method = Literal["bca", "percentile", "t", "bootstrap-t"]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its 95 % interval, both None where there is no interval."""

    estimate: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, estimate: float, ends: Ends | None) -> Interval:
        """An estimate with its ends, if it has any."""
        return cls(float(estimate), *(ends or (None, None)))

    @property
    def ends(self) -> Ends | None:
        """The ends, None where there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class PValue:
    """Two-sided p-value of a permutation test; `exact` when every rearrangement was looked at."""

    value: float
    exact: bool


def mean_ci95(values: Values, seed: int = 0) -> Ends | None:
    """A 95 % interval for the mean: bias-corrected and accelerated bootstrap, 10,000 resamples.

    (Efron 1987.) It holds the mean of scores like AutoAscend's in 87 % of samples of 8 games, 93 %
    of 32 or 128 and 95 % of 1,024; see the module. Of two to four values it is Student's t
    interval. None of one value, or equal ones: their spread is not known.
    """
    x = _sample(values)
    if len(x) < LEAST_VALUES:
        return _student(x)
    return resampled_mean_ci95(x, seed)


def resampled_mean_ci95(values: Values, seed: int = 0) -> Ends | None:
    """The BCa interval for the mean whatever the number of values; None where it has no width."""
    x = _sample(values)
    if np.ptp(x) == 0:
        return None
    means = _replicates(x, "mean", np.random.default_rng(seed), RESAMPLES)
    centre = x.mean()
    return _bca(means, centre, centre - x)  # proportional to jackknife mean minus its average


def known_interval(value: object) -> Ends | None:
    """The interval that JSON gives as [low, high]; None for null, and for one without width.

    (Results written before there was null have the latter, of one game or of equal scores.)
    ValueError for what is neither.
    """
    if value is None:
        return None
    good = isinstance(value, (list, tuple)) and len(value) == 2
    if not good or any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in value):  # type: ignore[attr-defined]
        raise ValueError(f"not an interval: {value!r}"[:100])
    low, high = (float(x) for x in value)  # type: ignore[attr-defined]
    return (low, high) if low < high else None


def summary_ci95(summary: Mapping[str, Any]) -> Ends | None:
    """The interval of a summary's mean score, if it has one; see `known_interval`."""
    return known_interval(summary["mean_score_ci95"])


def ends_text(ends: Ends | None, form: str = ",.1f", scale: float = 1.0) -> str:
    """An interval as tables show it, "[low, high]"; "-" where there is none."""
    return "-" if ends is None else f"[{scale * ends[0]:{form}}, {scale * ends[1]:{form}}]"


def iqm(values: Values) -> float:
    """Interquartile mean: of the middle half (Agarwal et al. 2021, arXiv 2108.13264)."""
    return float(scipy.stats.trim_mean(np.asarray(values, np.float64), 0.25))


def estimate(values: Values, statistic: Statistic = "mean") -> float:
    """The mean, median or interquartile mean of `values`."""
    return float(_rows(_sample(values), statistic))


def ci95(
    values: Values,
    statistic: Statistic = "mean",
    method: Method = "bca",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Ends | None:
    """A 95 % interval for a statistic of one sample.

    `bca` and `percentile` are for all statistics, `t` (Student's) and `bootstrap-t` (Efron 1982,
    studentised by each resample's own standard error) for the mean. With the mean and `bca` this
    is `mean_ci95`. None of one value, or equal ones, and below five values of all but the mean by
    `bca` or `t`, which is Student's there.

    For the mean of fewer than 128 games use `bootstrap-t`, unless most scores are equal: of scores
    like bc-lstm-1m's, AutoAscend's and a lognormal's it holds 95, 95 and 90 % of the time at 8
    games (BCa: 87, 87, 80), 95, 95 and 91 % at 32 (BCa: 92, 93, 88). With 128 and more use `bca`
    (92, 93, 91 % at 128; 96, 96, 93 % at 1,024). Resamples of equal values have no standard error;
    `bootstrap-t` leaves them out, so it fails where most scores are equal.
    """
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}")
    if statistic != "mean" and method in ("t", "bootstrap-t"):
        raise ValueError(f"{method} is for the mean, not the {statistic}")
    x = _sample(values)
    few = len(x) < LEAST_VALUES
    if method == "t" or (few and statistic == "mean" and method == "bca"):
        return _student(x)
    if few or np.ptp(x) == 0:
        return None
    random = np.random.default_rng(seed)
    if method == "bootstrap-t":
        return _bootstrap_t(x, random, resamples)
    replicates = _replicates(x, statistic, random, resamples)
    if method == "percentile":
        low, high = np.quantile(replicates, [ALPHA / 2, 1 - ALPHA / 2])
        return _with_width(float(low), float(high))
    centre = _rows(x, statistic)
    left_out = centre - x if statistic == "mean" else _influence(_jackknife(x, statistic))
    return _bca(replicates, centre, left_out)


def paired_difference(
    a: Values, b: Values, statistic: Statistic = "mean", seed: int = 0
) -> Interval:
    """Statistic of `a` minus that of `b`, where a[i] and b[i] belong together (one game).

    Pairs are resampled. For the mean it is the interval for the mean of the differences; the
    difference of medians is not the median of the differences. Of means that do not differ the
    interval holds 0 in 85 to 87 % of samples of 8 games, 92 to 94 % of 32 and 94 to 95 % of 128
    (scores like bc-lstm-1m's and AutoAscend's). Below five pairs it is Student's t interval for the
    mean, and none for the others.
    """
    x, y = _sample(a), _sample(b)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} values cannot be paired")
    if statistic == "mean":
        return Interval.of((x - y).mean(), mean_ci95(x - y, seed))
    centre = float(_rows(x, statistic) - _rows(y, statistic))
    if len(x) < LEAST_VALUES:
        return Interval.of(centre, None)
    draws = (np.random.default_rng(seed) for _ in range(2))  # the same games for both
    first, second = (
        _replicates(z, statistic, d, RESAMPLES) for z, d in zip((x, y), draws, strict=True)
    )
    left_out = _influence(_jackknife(x, statistic) - _jackknife(y, statistic))
    return Interval.of(centre, _bca(first - second, centre, left_out))


def unpaired_difference(
    a: Values, b: Values, statistic: Statistic = "mean", seed: int = 0
) -> Interval:
    """Statistic of `a` minus that of `b`, for samples that have nothing to do with each other.

    Each is resampled by itself, so that sizes and spreads may differ, as in Welch's test. Of means
    that do not differ the interval holds 0 in 88 to 89 % of samples of 8 games and 93 to 94 % of 32
    and of 128 (scores like bc-lstm-1m's and AutoAscend's). Where a sample has less than five values
    it is Welch's t interval for the mean, and none for the others or with a single value.
    """
    x, y = _sample(a), _sample(b)
    if _swapped(x, y):  # so that the difference the other way round is the same but for its sign
        other = unpaired_difference(b, a, statistic, seed)
        turned = None if other.ends is None else (0.0 - other.ends[1], 0.0 - other.ends[0])
        return Interval.of(0.0 - other.estimate, turned)
    if min(len(x), len(y)) < LEAST_VALUES:
        ends = _welch_ends(x, y) if statistic == "mean" else None
        return Interval.of(_rows(x, statistic) - _rows(y, statistic), ends)
    return _two_samples(x, y, statistic, np.subtract, seed)


def ratio_of_means(a: Values, b: Values, seed: int = 0) -> Interval:
    """Mean of `a` over mean of `b`, both samples' uncertainty in the interval (both resampled).

    BCa is the same whether the ratio or its logarithm is taken. With AutoAscend's 171 games as `b`
    and scores like bc-lstm-1m's as `a` it holds the ratio in 87 % of samples of 8 games, 92 % of 32
    and 93 % of 128. Below five values of either there is no interval.
    `b` must not be negative or mostly 0: every resample's mean has to be positive.
    """
    x, y = _sample(a), _sample(b)
    if y.min() < 0 or np.count_nonzero(y) * 2 < len(y):
        raise ValueError("the reference has negative values, or more zeros than others")
    if min(len(x), len(y)) < LEAST_VALUES:
        return Interval.of(x.mean() / y.mean(), None)
    return _two_samples(x, y, "mean", np.divide, seed)


def sign_flip_test(differences: Values, seed: int = 0) -> PValue:
    """Whether paired differences have mean 0: a permutation test that flips their signs.

    It asks how often flipping each game's sign at random gives a mean as far from 0. (Studentising
    would change nothing: sign flips keep the sum of squares.) Exact up to 14 differences that are
    not 0, else 10,000 draws, the observed one counted among them.
    """
    d = _sample(differences)
    d = d[d != 0]
    if len(d) == 0:
        return PValue(1.0, True)
    bound = abs(d.sum()) - _ROUNDING * np.abs(d).sum()
    if len(d) <= _EXACT_FLIPS:
        bits = np.arange(1 << len(d))[:, None] >> np.arange(len(d)) & 1
        sums = (2.0 * bits - 1) @ d
        return PValue(float(np.mean(np.abs(sums) >= bound)), True)
    random, count = np.random.default_rng(seed), 0
    for size in _blocks(RESAMPLES):
        signs = random.integers(0, 2, (size, len(d)), dtype=np.int8) * 2.0 - 1
        count += int(np.count_nonzero(np.abs(signs @ d) >= bound))
    return PValue((1 + count) / (1 + RESAMPLES), False)


def permutation_test(a: Values, b: Values, seed: int = 0) -> PValue:
    """Whether two samples have the same mean: who is in which sample is permuted.

    The statistic is Welch's t, which keeps the test right for unequal spreads too, in large samples
    (Janssen 1997); with a single value on one side, the difference. Exact where there are at most
    20,000 ways to split the values, else 10,000 draws, the observed one counted among them.
    """
    x, y = _sample(a), _sample(b)
    if _swapped(x, y):
        return permutation_test(b, a, seed)
    n, pooled = len(x), np.concatenate([x, y])
    bound = float(_welch(pooled[None], n)[0]) * (1 - _ROUNDING)
    if bound == 0:
        return PValue(1.0, True)
    if math.comb(len(pooled), n) <= _EXACT_SPLITS:
        everyone = set(range(len(pooled)))
        orders = [[*c, *sorted(everyone - set(c))] for c in combinations(range(len(pooled)), n)]
        return PValue(float(np.mean(_welch(pooled[np.array(orders)], n) >= bound)), True)
    random, count = np.random.default_rng(seed), 0
    for size in _blocks(RESAMPLES):
        shuffled = random.permuted(np.tile(pooled, (size, 1)), axis=1)
        count += int(np.count_nonzero(_welch(shuffled, n) >= bound))
    return PValue((1 + count) / (1 + RESAMPLES), False)


def games_to_settle(difference: float, *deviations: float) -> int | None:
    """Games at which a mean difference of this size is found with 80 % power at the 5 % level.

    With one standard deviation, that of paired differences: pairs. With two, one per agent: games
    of each agent, unpaired. Of t tests, by the normal approximation with Guenther's (1981)
    correction. None when the difference is 0 but for rounding: no number of games settles that.
    """
    if abs(difference) <= _ROUNDING * max(deviations):
        return None
    effects = [_z_sum() * d / abs(difference) for d in deviations]
    games = sum(e * e for e in effects) + _z_alpha() ** 2 / (2 * len(deviations))
    least = 6 if len(deviations) == 1 else 4  # fewer cannot give a permutation test p < 0.05
    return max(least, math.ceil(games))


def detectable_difference(*errors: float) -> float:
    """The mean difference that games at hand settle with 80 % power at the 5 % level.

    `errors` is the standard error of the mean paired difference, or those of both means. By the
    normal approximation.
    """
    return _z_sum() * math.hypot(*errors)


def _z_alpha() -> float:
    return float(scipy.stats.norm.ppf(1 - ALPHA / 2))


def _z_sum() -> float:
    return _z_alpha() + float(scipy.stats.norm.ppf(POWER))


def _sample(values: Values) -> Array:
    x = np.asarray(values, np.float64)
    if len(x) == 0:
        raise ValueError("no values")
    return x


def _rows(x: Array, statistic: Statistic) -> Any:
    """The statistic of each row: of the last axis."""
    if statistic == "mean":
        return x.mean(axis=-1)
    if statistic == "median":
        return np.median(x, axis=-1)
    if statistic == "iqm":
        return scipy.stats.trim_mean(x, 0.25, axis=-1)
    raise ValueError(f"unknown statistic {statistic!r}")


def _blocks(total: int) -> Iterator[int]:
    for start in range(0, total, _BLOCK):
        yield min(_BLOCK, total - start)


def _replicates(
    x: Array, statistic: Statistic, random: np.random.Generator, resamples: int
) -> Array:
    """The statistic of `resamples` samples of the same size, drawn with replacement."""
    n = len(x)
    return np.concatenate(
        [_rows(x[random.integers(0, n, (size, n))], statistic) for size in _blocks(resamples)]
    )


def _jackknife(x: Array, statistic: Statistic) -> Array:
    """The statistic without each value in turn; of a single value, with it."""
    n = len(x)
    if n == 1:
        return np.array([_rows(x, statistic)])
    if statistic == "mean":
        means: Array = (x.sum() - x) / (n - 1)
        return means
    others = np.arange(n - 1)
    blocks = np.array_split(np.arange(n), max(1, n // _BLOCK))
    return np.concatenate(
        [_rows(x[others + (others >= block[:, None])], statistic) for block in blocks]
    )


def _influence(left_out: Array) -> Array:
    """Jackknife values on a scale on which those of two samples can stand together."""
    n = len(left_out)
    influence: Array = (left_out - left_out.mean()) * ((n - 1) / n)
    return influence


def _student(x: Array) -> Ends | None:
    """Student's t interval for the mean."""
    if len(x) < 2 or np.ptp(x) == 0:
        return None
    reach = scipy.stats.t.ppf(1 - ALPHA / 2, len(x) - 1) * _standard_error(x)
    return float(x.mean() - reach), float(x.mean() + reach)


def _welch_ends(x: Array, y: Array) -> Ends | None:
    """Welch's t interval for the difference of two means."""
    if min(len(x), len(y)) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    found = scipy.stats.ttest_ind(x, y, equal_var=False).confidence_interval(1 - ALPHA)
    return _with_width(float(found.low), float(found.high))


def _with_width(low: float, high: float) -> Ends | None:
    return (low, high) if low < high else None


def _bca(replicates: Array, centre: float, left_out: Array) -> Ends | None:
    """BCa interval, None where it has no width.

    `left_out`: what the statistic changes by without each value, any scale.
    """
    count = len(replicates)
    equal = np.count_nonzero(replicates == centre)
    below = (np.count_nonzero(replicates < centre) + 0.5 * equal) / count
    bias = scipy.stats.norm.ppf(np.clip(below, 1 / count, 1 - 1 / count))
    spread = (left_out**2).sum() ** 1.5
    acceleration = -(left_out**3).sum() / (6 * spread) if spread > 0 else 0.0
    z = scipy.stats.norm.ppf([0.025, 0.975])
    shifted = bias + (bias + z) / (1 - acceleration * (bias + z))
    ends: Any = np.quantile(replicates, scipy.stats.norm.cdf(shifted))
    return _with_width(float(ends[0]), float(ends[1]))


def _two_samples(
    x: Array, y: Array, statistic: Statistic, combine: Callable[..., Any], seed: int
) -> Interval:
    """BCa of a function of the statistics of two samples, each resampled by itself."""
    first, second = np.random.default_rng(seed).spawn(2)
    of_x, of_y = _rows(x, statistic), _rows(y, statistic)
    centre = float(combine(of_x, of_y))
    if np.ptp(x) == 0 and np.ptp(y) == 0:
        return Interval.of(centre, None)
    replicates = combine(
        _replicates(x, statistic, first, RESAMPLES), _replicates(y, statistic, second, RESAMPLES)
    )
    left_out = np.concatenate(
        [
            _influence(combine(_jackknife(x, statistic), of_y)),
            _influence(combine(of_x, _jackknife(y, statistic))),
        ]
    )
    return Interval.of(centre, _bca(replicates, centre, left_out))


def _bootstrap_t(x: Array, random: np.random.Generator, resamples: int) -> Ends | None:
    n, centre, error = len(x), x.mean(), _standard_error(x)
    found: list[Array] = []
    for size in _blocks(resamples):
        drawn = x[random.integers(0, n, (size, n))]
        errors = _standard_error(drawn)
        usable = errors > _ROUNDING * error
        found.append((drawn.mean(axis=-1)[usable] - centre) / errors[usable])
    t: Array = np.concatenate(found)
    low, high = (float(np.quantile(t, share)) for share in (ALPHA / 2, 1 - ALPHA / 2))
    return _with_width(float(centre - high * error), float(centre - low * error))


def _standard_error(x: Array) -> Any:
    return x.std(axis=-1, ddof=1) / math.sqrt(x.shape[-1])


def _welch(pooled: Array, n: int) -> Array:
    """|Welch's t| of the first `n` values of each row against the others; infinite without spread.

    With a single value on one side it is the absolute difference of means.
    """
    left, right = pooled[:, :n], pooled[:, n:]
    difference: Array = np.abs(left.mean(axis=1) - right.mean(axis=1))
    difference[difference <= _ROUNDING * np.abs(pooled).max(axis=1)] = 0
    if min(left.shape[1], right.shape[1]) < 2:
        return difference
    error = np.hypot(_standard_error(left), _standard_error(right))
    spread = error > _ROUNDING * np.abs(pooled).max(axis=1)
    t = np.where(difference > 0, np.inf, 0.0)
    t[spread] = difference[spread] / error[spread]
    return t


def _swapped(x: Array, y: Array) -> bool:
    """Whether two samples are not in the one order in which they are worked on."""
    return (len(y), y.tolist()) < (len(x), x.tolist())


def score_text(summary: Mapping[str, Any]) -> str:
    """A mean score and its interval, as tables show it."""
    if summary["mean_score"] is None:
        return "no score"
    return f"{summary['mean_score']:,.1f} {ends_text(summary_ci95(summary))}"
