"""Return against compute and against loss: straight lines in logs, with heavy-tailed errors.

Mean scores of runs scatter more than their games explain, and now and then one is far off. So each
point's variance is that of its games plus one of runs, found by the method of moments (Paule and
Mandel 1982; for weights 1/((se/R)^2 + tau^2) DerSimonian and Laird 1986), and residuals follow
Student's t with 4 degrees of freedom, by iterative reweighting (Lange et al. 1989).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from nhzoo.scaling.intervals import (
    RESAMPLES,
    Interval,
    Spread,
    clustered,
    resampled_runs,
    too_few,
)
from nhzoo.scaling.run_points import Points
from nhzoo.scaling.run_selection import Selection

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
    slope_interval: Interval

    def at(
        self, ln_x: float, interval: float, noise: bool = True, ln_x_sd: float = 0.0
    ) -> Interval:
        """Log R at ln x; with `noise` the interval of one more run. `ln_x_sd`: how unsure x is."""
        spread = Spread(np.array([self.level, self.slope]), self.dof, np.array(self.covariance))
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
        slope = Interval(**value["slope_interval"])
        return cls(**{**value, "covariance": ((a, b), (c, d)), "slope_interval": slope})


def fit_returns(chosen: Selection, interval: float, seed: int = 0) -> tuple[ReturnLaw, ...]:
    """Both laws, as far as there are four points with a positive return for them.

    Against compute: the best mean return of each budget; of rows without budgets, as learning
    curves are, those that no cheaper one reaches. Where runs have several rows its covariance is
    that of whole runs resampled. Against loss: every row that is fitted, or every row where there
    are no profiles; not of kind rl, whose loss is one over the return. Where runs have several rows
    there is no law of the loss of less than five runs.
    """
    rows = chosen.all_points
    known = rows.take(np.nan_to_num(rows.mean_return) > 0)
    found = []
    if len(best := _frontier(known, chosen.profiles)) >= LEAST_POINTS:
        law = _line("compute", best.flops, best, interval)
        if clustered(known.clusters):
            law = _of_runs(law, known, chosen.profiles, interval, seed)
        found.append(law)
    fitted = chosen.points.take(np.nan_to_num(chosen.points.mean_return) > 0)
    if len(fitted) < LEAST_POINTS:
        fitted = known
    if len(fitted) >= LEAST_POINTS and chosen.kinds != ("rl",):
        law = _line("loss", fitted.loss, fitted, interval)
        found.append(None if too_few(fitted.clusters) else law)
    return tuple(law for law in found if law is not None)


def _frontier(known: Points, profiles: bool) -> Points:
    """The rows that did best: of each budget, or of all that spent no more."""
    if not profiles:
        order = np.lexsort((-known.mean_return, known.flops))
        best = np.maximum.accumulate(known.mean_return[order])
        return known.take(order[np.diff(best, prepend=0.0) > 0])
    chosen = []
    for label in np.unique(known.budget):
        mine = np.flatnonzero(known.budget == label)
        chosen.append(int(mine[known.mean_return[mine].argmax()]))
    return known.take(np.array(chosen, np.intp))


def _of_runs(
    law: ReturnLaw | None, known: Points, profiles: bool, interval: float, seed: int
) -> ReturnLaw | None:
    """The law with the covariance of its line through frontiers of whole runs, resampled."""
    runs = int(known.clusters.max()) + 1
    if law is None or runs < _LEAST_RUNS:
        return None
    draws = []
    for weights in resampled_runs(known.clusters, RESAMPLES, np.random.default_rng(seed)):
        best = _frontier(known.take(weights > 0), profiles)
        if len(best) >= 3 and np.ptp(np.log(best.flops)) > 0.7:
            games = np.nan_to_num(best.se_return / best.mean_return) ** 2
            x = np.log(best.flops) - law.centre
            draws.append(robust_line(x, np.log(best.mean_return), games)[0])
    if len(draws) < RESAMPLES // 2:
        return None
    drawn = np.cov(np.array(draws).T)
    theta, dof = np.array([law.level, law.slope]), max(1, runs - 2)
    slope = Spread(theta, dof, drawn).interval(lambda t: t[:, 1], interval)
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
    spread = Spread(theta, len(y) - 2, covariance)
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
    design = np.stack([np.ones_like(x), x], 1)
    tau2 = max(1e-12, float(np.var(y - np.polyval(np.polyfit(x, y, 1), x))))
    weight = 1 / (variance + tau2)
    for _ in range(50):
        inverse = np.linalg.inv((design.T * weight) @ design)
        theta = inverse @ (design.T @ (weight * y))
        rest = y - design @ theta
        tail = (_TAIL + 1) / (_TAIL + rest**2 / (variance + tau2))
        before, tau2 = tau2, _between(rest**2 * tail, variance, len(y) - 2)
        weight = tail / (variance + tau2)
        if abs(tau2 - before) <= 1e-10 * before:
            break
    # A t-distributed error tells (nu + 1) / (nu + 3) of what a normal one of its scale would.
    information: Array = (design.T / (variance + tau2)) @ design * (_TAIL + 1) / (_TAIL + 3)
    return theta, np.asarray(np.linalg.inv(information), np.float64), math.sqrt(tau2)


def _between(squares: Array, variance: Array, dof: int) -> float:
    """tau^2 with sum(squares / (variance + tau^2)) = dof, at least a trace."""
    low, high = 1e-12, max(1e-11, 10 * float(squares.max()) * len(squares) / max(1, dof))

    def excess(logarithm: float) -> float:
        return float((squares / (variance + math.exp(logarithm))).sum()) - dof

    first, last = math.log(low), math.log(high)
    if not excess(first) > 0 or math.isinf(high):
        return low
    return math.exp(float(optimize.brentq(excess, first, last, xtol=1e-14, rtol=1e-14)))
