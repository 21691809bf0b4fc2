"""Statistics of heavy-tailed scores: bootstrap intervals and permutation tests, seeded.

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
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
_EXACT = 20_000  # rearrangements, up to which all are looked at
_DIGITS = 9
_ROUNDING = 10.0**-_DIGITS  # sums that are equal but for rounding count as equal

Array = npt.NDArray[np.float64]
Values = Sequence[float] | Array
Statistic = Literal["mean", "median", "iqm"]
Ends = tuple[float, float]
Method = Literal["bca", "percentile", "t", "bootstrap-t"]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its 95 % interval; both ends are None without an interval."""

    estimate: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, estimate: float, ends: Ends | None) -> Interval:
        """An estimate with its ends, if it has any."""
        return cls(float(estimate), *(ends or (None, None)))

    @property
    def ends(self) -> Ends | None:
        """The ends; None without an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class PValue:
    """Two-sided p-value of a permutation test; `exact` when every rearrangement was looked at."""

    value: float
    exact: bool


def mean_ci95(values: Values, seed: int = 0) -> Ends | None:
    """Compute the 95 % interval of a mean by the BCa bootstrap, with 10,000 resamples.

    (Efron 1987.) It holds the mean of scores like AutoAscend's in 87 % of samples of 8 games, 93 %
    of 32 or 128 and 95 % of 1,024; see the module. Of two to four values it is Student's t
    interval. None of one value, or equal ones: their spread is not known.
    """
    x = _sample(values)
    if len(x) < LEAST_VALUES:
        return _student(x)
    return resampled_mean_ci95(x, seed)


def resampled_mean_ci95(values: Values, seed: int = 0) -> Ends | None:
    """The BCa interval of the mean for any number of values; None where it has no width."""
    return _bootstrap([_sample(values)], _STATISTICS["mean"], seed)


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
    return float(_named(statistic)(_sample(values)))


def ci95(
    values: Values,
    statistic: Statistic = "mean",
    method: Method = "bca",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Ends | None:
    """Compute a 95 % interval for a statistic of one sample.

    `bca` and `percentile` are for all statistics, `t` (Student's) and `bootstrap-t` (Efron 1982,
    studentised by each resample's own standard error) for the mean. With the mean and `bca` this
    is `mean_ci95`. None of one value, or equal ones, and below five values of all but the mean by
    `bca` or `t`, which is Student's there. Where no value left out changes the statistic (a median
    of ties), `bca` has no acceleration and gives the percentile interval.

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
    if method == "bootstrap-t":
        return _bootstrap_t(x, seed, resamples)
    return _bootstrap([x], _named(statistic), seed, method, resamples)


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
    difference = _combined(np.subtract, statistic)
    ends = None
    if len(x) >= LEAST_VALUES:
        ends = _bootstrap([x, y], difference, seed, paired=True)
    return Interval.of(difference(x, y), ends)


def unpaired_difference(
    a: Values, b: Values, statistic: Statistic = "mean", seed: int = 0
) -> Interval:
    """Statistic of `a` minus that of `b`, for independent samples.

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
    difference = _combined(np.subtract, statistic)
    if min(len(x), len(y)) >= LEAST_VALUES:
        ends = _bootstrap([x, y], difference, seed)
    else:
        ends = _welch_ends(x, y) if statistic == "mean" else None
    return Interval.of(difference(x, y), ends)


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
    ratio = _combined(np.divide, "mean")
    few = min(len(x), len(y)) < LEAST_VALUES
    return Interval.of(ratio(x, y), None if few else _bootstrap([x, y], ratio, seed))


def sign_flip_test(differences: Values, seed: int = 0) -> PValue:
    """Whether paired differences have mean 0: a permutation test that flips their signs.

    It asks how often flipping each game's sign at random gives a mean as far from 0. (Studentising
    would change nothing: sign flips keep the sum of squares.) Exact up to 14 differences that are
    not 0, else 10,000 draws, the observed one counted among them.
    """
    d = _sample(differences)
    d = d[d != 0]
    if len(d) < 2:
        return PValue(1.0, True)
    scale = np.abs(d).sum()

    def distance(flipped: Array, axis: int = -1) -> Any:
        return np.abs(flipped.sum(axis=axis) / scale).round(_DIGITS)

    return _permuted([d], distance, "samples", 2 ** len(d), seed)


def permutation_test(a: Values, b: Values, seed: int = 0) -> PValue:
    """Whether two samples have the same mean: who is in which sample is permuted.

    The statistic is Welch's t, which keeps the test right for unequal spreads too, in large samples
    (Janssen 1997); with a single value on one side, the difference. Exact where there are at most
    20,000 ways to split the values, else 10,000 draws, the observed one counted among them.
    """
    x, y = _sample(a), _sample(b)
    if _swapped(x, y):
        return permutation_test(b, a, seed)
    if len(x) == 1:  # as far from the mean as any one of them
        pooled = np.concatenate([x, y])
        alone = np.abs(pooled - pooled.mean())
        bound = alone[0] - _ROUNDING * np.abs(pooled).max()
        return PValue(float(np.mean(alone >= bound)), True)
    observed = _welch(x, y)
    if observed == 0:
        return PValue(1.0, True)

    def distance(left: Array, right: Array, axis: int = -1) -> Any:
        return (_welch(left, right) / observed).round(_DIGITS)

    return _permuted([x, y], distance, "independent", math.comb(len(x) + len(y), len(x)), seed)


def games_to_settle(difference: float, *deviations: float) -> int | None:
    """Games at which a mean difference of this size is found with 80 % power at the 5 % level.

    With one standard deviation, that of paired differences: pairs. With two, one per agent: games
    of each agent, unpaired. Of t tests, by the normal approximation with Guenther's (1981)
    correction. None when the difference is 0 but for rounding: no number of games settles that.
    """
    if abs(difference) <= _ROUNDING * max(deviations):
        return None
    effects = [_z_sum() * d / abs(difference) for d in deviations]
    games = sum(e * e for e in effects) + z_alpha() ** 2 / (2 * len(deviations))
    least = 6 if len(deviations) == 1 else 4  # fewer cannot give a permutation test p < 0.05
    return max(least, math.ceil(games))


def detectable_difference(*errors: float) -> float:
    """The mean difference that games at hand settle with 80 % power at the 5 % level.

    `errors` is the standard error of the mean paired difference, or those of both means. By the
    normal approximation.
    """
    return _z_sum() * math.hypot(*errors)


def z_alpha() -> float:
    """Standard deviations from the middle of a normal distribution to the ends of 95 % of it."""
    return float(scipy.stats.norm.ppf(1 - ALPHA / 2))


def _z_sum() -> float:
    return z_alpha() + float(scipy.stats.norm.ppf(POWER))


def _sample(values: Values) -> Array:
    x = np.asarray(values, np.float64)
    if len(x) == 0:
        raise ValueError("no values")
    return x


def _iqm(x: Array, axis: int = -1) -> Any:
    return scipy.stats.trim_mean(x, 0.25, axis=axis)


_STATISTICS: dict[str, Callable[..., Any]] = {"mean": np.mean, "median": np.median, "iqm": _iqm}


def _named(statistic: str) -> Callable[..., Any]:
    if statistic not in _STATISTICS:
        raise ValueError(f"unknown statistic {statistic!r}")
    return _STATISTICS[statistic]


def _combined(combine: Callable[..., Any], statistic: str) -> Callable[..., Any]:
    """A function of the statistics of two samples, each along `axis`."""
    of = _named(statistic)
    return lambda x, y, axis=-1: combine(of(x, axis=axis), of(y, axis=axis))


def _bootstrap(
    samples: Sequence[Array],
    statistic: Callable[..., Any],
    seed: int,
    method: Literal["bca", "percentile"] = "bca",
    resamples: int = RESAMPLES,
    paired: bool = False,
) -> Ends | None:
    """A bootstrap interval, None where it has no width: every resample gives the same."""
    if all(np.ptp(x) == 0 for x in samples):
        return None
    found = _resampled(samples, statistic, seed, method, resamples, paired)
    low, high = found.confidence_interval
    if not math.isfinite(low + high):  # no value left out changes a median of ties: no BCa
        low, high = np.quantile(found.bootstrap_distribution, [ALPHA / 2, 1 - ALPHA / 2])
    return _with_width(float(low), float(high))


def _resampled(
    samples: Sequence[Array],
    statistic: Callable[..., Any],
    seed: int,
    method: Literal["bca", "percentile"],
    resamples: int,
    paired: bool = False,
) -> Any:
    with warnings.catch_warnings():  # of samples without spread: what has no value is NaN
        warnings.simplefilter("ignore")
        return scipy.stats.bootstrap(
            samples,
            statistic,
            n_resamples=resamples,
            batch=_BLOCK,
            vectorized=True,
            paired=paired,
            method="BCa" if method == "bca" else "percentile",
            rng=np.random.default_rng(seed),
        )


def _permuted(
    samples: Sequence[Array],
    statistic: Callable[..., Any],
    kind: Literal["samples", "independent"],
    rearrangements: int,
    seed: int,
) -> PValue:
    """How often a statistic is as great as seen: of all rearrangements if few, else of 10,000."""
    exact = rearrangements <= _EXACT
    found = scipy.stats.permutation_test(
        samples,
        statistic,
        permutation_type=kind,
        vectorized=True,
        n_resamples=rearrangements if exact else RESAMPLES,
        batch=_BLOCK,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return PValue(float(found.pvalue), exact)


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


def _bootstrap_t(x: Array, seed: int, resamples: int) -> Ends | None:
    centre, error = x.mean(), _standard_error(x)

    def t(drawn: Array, axis: int = -1) -> Any:
        errors = _standard_error(drawn)
        usable = errors > _ROUNDING * error
        return np.where(usable, drawn.mean(axis=-1) - centre, np.nan) / np.where(usable, errors, 1)

    drawn = _resampled([x], t, seed, "percentile", resamples).bootstrap_distribution
    low, high = np.nanquantile(drawn, [ALPHA / 2, 1 - ALPHA / 2])
    return _with_width(float(centre - high * error), float(centre - low * error))


def _standard_error(x: Array) -> Any:
    return x.std(axis=-1, ddof=1) / math.sqrt(x.shape[-1])


def _welch(left: Array, right: Array) -> Array:
    """|Welch's t| along the last axis; 1e200 without spread, 0 without a difference."""
    scale = max(np.abs(left).max(), np.abs(right).max())
    difference: Array = np.abs(left.mean(axis=-1) - right.mean(axis=-1))
    difference = np.where(difference <= _ROUNDING * scale, 0.0, difference)
    error = np.hypot(_standard_error(left), _standard_error(right))
    spread = error > _ROUNDING * scale
    t = np.where(difference > 0, 1e200, 0.0)
    return np.where(spread, difference / np.where(spread, error, 1), t)


def _swapped(x: Array, y: Array) -> bool:
    """Whether two samples are not in the one order in which they are worked on."""
    return (len(y), y.tolist()) < (len(x), x.tolist())


def score_text(summary: Mapping[str, Any]) -> str:
    """A mean score and its interval, as tables show it."""
    if summary["mean_score"] is None:
        return "no score"
    return f"{summary['mean_score']:,.1f} {ends_text(summary_ci95(summary))}"
