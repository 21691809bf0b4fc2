"""Return against compute and against loss: straight lines in logs, with heavy-tailed errors.

Mean scores of runs scatter more than their games explain, and now and then one is far off. So each
point's variance is that of its games plus one of runs, found by the method of moments (Paule and
Mandel 1982; for weights 1/((se/R)^2 + tau^2) DerSimonian and Laird 1986), and residuals follow
Student's t with 4 degrees of freedom, by iterative reweighting (Lange et al. 1989).

Intrinsic performance of reinforcement learning (Hilton, Tang, Schulman 2023, arXiv 2301.13442).
Returns have no natural unit. Intrinsic performance I of a return is the least compute at which any
size reaches it, so on the frontier I is the compute itself, and no monotone change of the return
alters a law of I: I^-b = (N_c / N)^x + (D_c / D)^y, 1/b = 1/x + 1/y (their eq. 1), D interactions.
The optimal size then grows as C^(y / (x + y)).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from nhzoo.errors import InputError
from nhzoo.scaling.intervals import (
    LEAST_CLUSTERS,
    LEVEL,
    RESAMPLES,
    Estimate,
    LawInterval,
    clustered,
    resampled_runs,
    too_few,
)
from nhzoo.scaling.runs import Points, Selection

Array = npt.NDArray[np.float64]

LEAST_POINTS = 4
_LEAST_RUNS = 3  # for a covariance with t of one degree of freedom or more
_TAIL = 4.0


@dataclass(frozen=True)
class ReturnLaw:
    """ln R = level + slope (ln x - centre), x compute (`of`: compute) or loss (`of`: loss).

    `covariance` [2][2] of (level, slope); `tau` is the scatter of ln R between runs beyond that of
    their games; `low`, `high` the range of x fitted; `slope_interval` as asked of the fit.
    """

    of: str
    level: float
    slope: float
    centre: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    tau: float
    dof: int
    points: int
    low: float
    high: float
    slope_interval: LawInterval

    def at(
        self, ln_x: float, interval: float, noise: bool = True, ln_x_sd: float = 0.0
    ) -> LawInterval:
        """Log R at ln x; with `noise` the interval of one more run. `ln_x_sd`: how unsure x is."""
        spread = Estimate(np.array([self.level, self.slope]), self.dof, np.array(self.covariance))
        extra = math.hypot(self.tau if noise else 0.0, self.slope * ln_x_sd)
        found = spread.interval(
            lambda theta: theta[:, 0] + theta[:, 1] * (ln_x - self.centre), interval, extra
        )
        if found is None:
            raise ValueError("a return law without covariance")
        return found

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ReturnLaw:
        """The inverse."""
        (a, b), (c, d) = value["covariance"]
        slope = LawInterval(**value["slope_interval"])
        return cls(**{**value, "covariance": ((a, b), (c, d)), "slope_interval": slope})


def fit_returns(chosen: Selection, interval: float, seed: int = 0) -> tuple[ReturnLaw, ...]:
    """Both laws, as far as there are four points with a positive return for them.

    Against compute: the running best, which is the best mean return of each budget (of rows without
    budgets, as learning curves are, each row) where no cheaper one reaches it. Where runs have
    several rows its covariance is that of whole runs resampled. Against loss: every row with a
    return, in a fitted profile or not; not of kind rl, whose loss is one over the return. Where
    runs have several rows there is no law of the loss of less than five runs.
    """
    known = _scored(chosen.all_points)
    found = []
    if len(best := known.take(_frontier(known, chosen.profiles))) >= LEAST_POINTS:
        law = _line("compute", best.flops, best, interval)
        if clustered(known.clusters):
            law = _of_runs(law, known, chosen.profiles, interval, seed)
        found.append(law)
    if len(known) >= LEAST_POINTS and chosen.kinds != ("rl",):
        law = _line("loss", known.loss, known, interval)
        found.append(None if too_few(known.clusters) else law)
    return tuple(law for law in found if law is not None)


def _scored(rows: Points) -> Points:
    """The rows with a return, each once."""
    columns = (rows.run, rows.params, rows.samples, rows.flops, rows.mean_return)
    first = {key: place for place, key in reversed(list(enumerate(zip(*columns, strict=True))))}
    once = rows.take(np.array(sorted(first.values()), np.intp))
    return once.take(np.nan_to_num(once.mean_return) > 0)


def _frontier(known: Points, profiles: bool) -> npt.NDArray[np.intp]:
    """The places of rows that did best of all that spent no more; those of one budget are equal."""
    spent = known.budget if profiles else known.flops
    order = np.lexsort((-known.mean_return, spent))
    best = np.maximum.accumulate(known.mean_return[order])
    first = np.diff(best, prepend=0.0) > 0
    return np.asarray(order[first])


def _of_runs(
    law: ReturnLaw | None, known: Points, profiles: bool, interval: float, seed: int
) -> ReturnLaw | None:
    """The law with the covariance of its line through frontiers of whole runs, resampled."""
    runs = int(known.clusters.max()) + 1
    if law is None or runs < _LEAST_RUNS:
        return None
    x, y = np.log(known.flops) - law.centre, np.log(known.mean_return)
    games = np.nan_to_num(known.se_return / known.mean_return) ** 2
    chosen = []
    for weights in resampled_runs(known.clusters, RESAMPLES, np.random.default_rng(seed)):
        places = np.flatnonzero(weights)
        best = places[_frontier(known.take(places), profiles)]
        if len(best) >= 3 and np.ptp(x[best]) > 0.7:
            chosen.append(np.isin(np.arange(len(known)), best))
    if len(chosen) < RESAMPLES // 2:
        return None
    marked = np.array(chosen)
    used = marked.any(0)  # few rows are ever the best
    x, y, games = (np.tile(column[used], (len(marked), 1)) for column in (x, y, games))
    drawn = np.cov(robust_lines(x, y, games, marked[:, used])[0].T)
    theta, dof = np.array([law.level, law.slope]), max(1, runs - 2)
    slope = Estimate(theta, dof, drawn).interval(lambda t: t[:, 1], interval)
    if slope is None:
        return None
    (a, b), (c, d) = drawn.tolist()
    return replace(law, covariance=((a, b), (c, d)), dof=dof, slope_interval=slope)


def _line(of: str, x: Array, rows: Points, interval: float) -> ReturnLaw | None:
    ln_x, y = np.log(x), np.log(rows.mean_return)
    if np.ptp(ln_x) < 1e-6:
        return None
    games = np.nan_to_num(rows.se_return / rows.mean_return) ** 2
    centre = float(ln_x.mean())
    theta, covariance, tau = robust_line(ln_x - centre, y, games)
    spread = Estimate(theta, len(y) - 2, covariance)
    slope = spread.interval(lambda t: t[:, 1], interval)
    if slope is None:
        return None
    (a, b), (c, d) = covariance.tolist()
    return ReturnLaw(
        of,
        float(theta[0]),
        float(theta[1]),
        centre,
        ((a, b), (c, d)),
        tau,
        len(y) - 2,
        len(y),
        float(x.min()),
        float(x.max()),
        slope,
    )


def robust_line(x: Array, y: Array, variance: Array) -> tuple[Array, Array, float]:
    """Fit y = level + slope x with errors of variance `variance` + tau^2, t-distributed: n >= 3.

    Gives (level, slope), their covariance and tau.
    """
    theta, covariance, tau = robust_lines(
        x[None], y[None], variance[None], np.ones((1, len(x)), bool)
    )
    return theta[0], covariance[0], float(tau[0])


def robust_lines(
    x: Array, y: Array, variance: Array, known: npt.NDArray[np.bool_]
) -> tuple[Array, Array, Array]:
    """`robust_line` of B lines at once, [B, n] each, of the points `known` (3 or more a line)."""
    points = known.sum(1)
    theta = _lines(known.astype(float), x, y)[0]
    rest = np.where(known, y - theta[:, :1] - theta[:, 1:] * x, 0.0)
    tau2 = np.maximum(1e-12, (rest**2).sum(1) / points)
    weight = known / (variance + tau2[:, None])
    active = np.arange(len(x))
    for _ in range(50):
        mine, spread = known[active], variance[active]
        theta[active] = _lines(weight[active], x[active], y[active])[0]
        rest = y[active] - theta[active, :1] - theta[active, 1:] * x[active]
        square = np.where(mine, rest**2, 0.0)
        tail = (_TAIL + 1) / (_TAIL + square / (spread + tau2[active, None]))
        before = tau2[active]
        tau2[active] = _between(square * tail, spread, points[active] - 2)
        weight[active] = mine * tail / (spread + tau2[active, None])
        active = active[np.abs(tau2[active] - before) > 1e-10 * before]
        if not len(active):
            break
    # A t-distributed error tells (nu + 1) / (nu + 3) of what a normal one of its scale would.
    information = known / (variance + tau2[:, None]) * (_TAIL + 1) / (_TAIL + 3)
    return theta, _lines(information, x, y)[1], np.sqrt(tau2)


def _lines(weight: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Weighted least squares: (level, slope) [B, 2] and the inverse of its matrix [B, 2, 2]."""
    s0, s1, s2 = (np.einsum("bn,bn->b", weight, x**k) for k in range(3))
    t0, t1 = np.einsum("bn,bn->b", weight, y), np.einsum("bn,bn,bn->b", weight, x, y)
    inverse = np.stack([s2, -s1, -s1, s0], 1) / (s0 * s2 - s1**2)[:, None]
    inverse = inverse.reshape(-1, 2, 2)
    return (inverse @ np.stack([t0, t1], 1)[:, :, None])[:, :, 0], inverse


def _between(squares: Array, variance: Array, dof: Array) -> Array:
    """tau^2 [B] with sum(squares / (variance + tau^2)) = dof, at least a trace.

    Newton's method on the reciprocal of the sum, which rises and bends down: from below it never
    goes too far.
    """
    tau2 = np.full(len(squares), 1e-12)
    active = np.flatnonzero(
        ((squares / (variance + 1e-12)).sum(1) > dof) & np.isfinite(squares).all(1) & (dof > 0)
    )
    for _ in range(200):
        part = squares[active] / (variance[active] + tau2[active, None])
        total = part.sum(1)
        slope = (part / (variance[active] + tau2[active, None])).sum(1)
        step = (1 / dof[active] - 1 / total) * total**2 / slope
        tau2[active] += np.maximum(step, 0.0)
        active = active[step > 1e-14 * tau2[active]]
        if not len(active):
            break
    return tau2


LEAST_BUDGETS, LEAST_SIZES = 4, 4
NOISY = 0.3
"""Scatter of ln I from which on the exponent is biased: the best of many noisy runs is no frontier.

Of 12 tables of 11 sizes whose runs scatter by 10 %, 10 gave an exponent low by 0.1 to 0.3.
"""
_FLOOR, _CEILING = np.log(0.02), np.log(5.0)


@dataclass(frozen=True)
class Intrinsic:
    """The law. `exponent` is that of N_opt ~ C^; `residual_sd` of ln I; intervals resample runs."""

    x: LawInterval
    y: LawInterval
    exponent: LawInterval
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
    spread = Estimate(found, int(kept.clusters.max()), draws=draws)
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
    rows, counts = points.take(weights > 0), weights[weights > 0]
    performance = intrinsic_performance(rows)
    known = np.isfinite(performance)
    return _law(rows.take(known), np.log(performance[known]), counts[known], found)


def _residuals(theta: Array, points: Points, y: Array) -> Array:
    """Differences of ln I from the law, theta = (ln N_c, ln D_c, ln x, ln y)."""
    x, d = np.exp(theta[2]), np.exp(theta[3])
    b = x * d / (x + d)
    lost = np.logaddexp(
        x * (theta[0] - np.log(points.params)), d * (theta[1] - np.log(points.samples))
    )
    return np.asarray(-lost / b - y)


def _law(points: Points, y: Array, weights: Array, start: Array | None) -> Array:
    drawn = weights > 0
    rows, target, root = points.take(drawn), y[drawn], np.sqrt(weights[drawn])
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
