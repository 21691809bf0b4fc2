"""Intrinsic performance of reinforcement learning (Hilton, Tang, Schulman 2023, arXiv 2301.13442).

Returns have no natural unit. Intrinsic performance I of a return is the least compute at which any
size reaches it, so on the frontier I is the compute itself, and no monotone change of the return
alters a law of I: I^-b = (N_c / N)^x + (D_c / D)^y, 1/b = 1/x + 1/y (their eq. 1), D interactions.
The optimal size then grows as C^(y / (x + y)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from nhzoo.errors import InputError
from nhzoo.scaling.intervals import (
    LEAST_CLUSTERS,
    LEVEL,
    RESAMPLES,
    Interval,
    Spread,
    resampled_runs,
)
from nhzoo.scaling.run_points import Points

Array = npt.NDArray[np.float64]

LEAST_BUDGETS, LEAST_SIZES = 4, 4
NOISY = 0.3
"""Scatter of ln I from which on the exponent is biased: the best of many noisy runs is no frontier.

Of 12 tables of 11 sizes whose runs scatter by 10 %, 10 gave an exponent low by 0.1 to 0.3.
"""
_FLOOR, _CEILING = np.log(0.02), np.log(5.0)


@dataclass(frozen=True)
class Intrinsic:
    """The law. `exponent` is that of N_opt ~ C^; `residual_sd` of ln I; intervals resample runs."""

    x: Interval
    y: Interval
    exponent: Interval
    ln_n: float
    ln_d: float
    residual_sd: float
    points: int
    failures: float


def intrinsic_performance(points: Points) -> Array:
    """I of each row [n], FLOPs; NaN where its return is below the best of the lowest budget.

    (Less compute may reach that as well, so what it would take is not known.) The frontier is the
    best return of each budget so far; between its steps ln I is interpolated in the log of the
    return.
    """
    score = np.nan_to_num(points.mean_return)
    labels = np.unique(points.budget)
    tops = [
        int(np.flatnonzero(points.budget == b)[score[points.budget == b].argmax()]) for b in labels
    ]
    best = np.maximum.accumulate(np.maximum(score[tops], 0.0))
    first = np.flatnonzero(np.diff(np.concatenate([[0.0], best])) > 0)
    spent, reached = np.log(points.flops[tops][first]), best[first]
    result = np.full(len(points), np.nan)
    known = np.isfinite(points.mean_return) & (points.mean_return > 0)
    if len(first) >= 2:
        within = known & (points.mean_return >= reached[0])
        result[within] = np.exp(np.interp(np.log(score[within]), np.log(reached), spent))
    return result


def fit_intrinsic(
    points: Points, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Intrinsic:
    """Fit the law to rows with returns: InputError for less than 4 budgets of 4 sizes each, or, of
    learning curves, 4 sizes of 4 rows each.

    Least squares of ln I with a soft loss, for rows of one run err together and heavily.
    """
    performance = intrinsic_performance(points)
    kept = points.take(np.isfinite(performance))
    sizes = [len(np.unique(kept.params[kept.budget == b])) for b in np.unique(kept.budget)]
    moments = [len(np.unique(kept.flops[kept.params == n])) for n in np.unique(kept.params)]
    profiles = sum(count >= LEAST_SIZES for count in sizes)
    curves = sum(count >= LEAST_BUDGETS for count in moments)
    if profiles < LEAST_BUDGETS and curves < LEAST_SIZES:
        raise InputError(
            f"intrinsic performance needs {LEAST_BUDGETS} budgets of {LEAST_SIZES} sizes with "
            f"returns, or {LEAST_SIZES} sizes at {LEAST_BUDGETS} moments of their runs (there are "
            f"{curves}); add runs"
        )
    runs = len(np.unique(kept.clusters))
    if runs < LEAST_CLUSTERS:
        raise InputError(
            f"intrinsic performance needs {LEAST_CLUSTERS} runs, as whole runs are resampled "
            f"(there are {runs}); add runs"
        )
    y = np.log(performance[np.isfinite(performance)])
    weights = resampled_runs(points.clusters, resamples, np.random.default_rng(seed))
    found = _law(kept, y, np.ones(len(kept)), None)
    draws = np.array([_again(points, w, found) for w in weights])
    spread = Spread(found, int(kept.clusters.max()), draws=draws)
    x = spread.interval(lambda t: np.exp(t[:, 2]), level)
    d = spread.interval(lambda t: np.exp(t[:, 3]), level)
    exponent = spread.interval(lambda t: 1 / (1 + np.exp(t[:, 2] - t[:, 3])), level)
    if x is None or d is None or exponent is None:
        raise InputError("intrinsic performance: too few resamples can be fitted; add runs")
    rest = _residuals(found, kept, y)
    return Intrinsic(
        x,
        d,
        exponent,
        float(found[0]),
        float(found[1]),
        float(np.sqrt((rest**2).sum() / max(1, len(y) - 4))),
        len(y),
        spread.failures,
    )


def _again(points: Points, weights: Array, found: Array) -> Array:
    """The law of runs resampled, with the frontier that they make."""
    rows, held = points.take(weights > 0), weights[weights > 0]
    performance = intrinsic_performance(rows)
    known = np.isfinite(performance)
    return _law(rows.take(known), np.log(performance[known]), held[known], found)


def _residuals(theta: Array, points: Points, y: Array) -> Array:
    """Differences of ln I from the law, theta = (ln N_c, ln D_c, ln x, ln y)."""
    x, d = np.exp(theta[2]), np.exp(theta[3])
    b = x * d / (x + d)
    lost = np.logaddexp(
        x * (theta[0] - np.log(points.params)), d * (theta[1] - np.log(points.samples))
    )
    return np.asarray(-lost / b - y)


def _law(points: Points, y: Array, weights: Array, start: Array | None) -> Array:
    held = weights > 0
    rows, target, root = points.take(held), y[held], np.sqrt(weights[held])
    if len(np.unique(rows.params)) < 3:
        return np.full(4, np.nan)
    n, d = float(np.log(rows.params).mean()), float(np.log(rows.samples).mean())
    if start is None:
        level = float(target.mean())
        places = [
            np.array([n - level * b / a, d - level * b / c, np.log(a), np.log(c)])
            for a in (0.3, 0.6, 1.2)
            for c in (0.3, 0.6, 1.2)
            for b in (a * c / (a + c),)
        ]
    else:
        places = [start]
    low, high = [-1e4, -1e4, _FLOOR, _FLOOR], [1e4, 1e4, _CEILING, _CEILING]

    def weighted(theta: Array) -> Array:
        return np.asarray(root * _residuals(theta, rows, target))

    fits = [
        optimize.least_squares(
            weighted,
            np.clip(place, low, high),
            bounds=(low, high),
            loss="soft_l1",
            f_scale=0.3,
            x_scale=[1.0, 1.0, 0.1, 0.1],
            max_nfev=200,
        )
        for place in places
    ]
    return np.asarray(min(fits, key=lambda fit: float(fit.cost)).x, np.float64)
