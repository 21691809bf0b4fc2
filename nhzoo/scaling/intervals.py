"""Uncertainty of a fitted law: covariances (delta method), bootstrap draws, and their intervals.

One run a row: the delta method with a t quantile, or rows resampled within their budget. One run in
several rows, as when checkpoints are fitted: whole runs are resampled, for its rows share what went
well or badly with it (on the published NetHack runs resampled rows give an interval for the
exponent a third as wide as resampled runs). Below five runs there is no interval: resamples of so
few are nearly alike, and their percentiles a point.

The scatter of rows says nothing of an error that all rows share: that of the games that all were
measured on, or of the seeds that all were trained with. `common_error` is this second component.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

LEVEL = 0.9
RESAMPLES = 400
LEAST_CLUSTERS = 5
"""Runs without which whole runs are not resampled: laws have no interval then."""

_LEAST_CELLS = 3  # of several seeds, for a variance between seeds
_LEAST_DRAWS = 0.5  # of resamples that must give a value, or there is no interval


@dataclass(frozen=True)
class LawInterval:
    """A value and the ends of its interval (90 % unless said otherwise)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CommonError:
    """A relative error of the loss that all rows share: its `sd`, with `dof` (0: as if known).

    `source`: seeds (from cells trained with several), loss_se (what rows state beyond their
    scatter), or none.
    """

    sd: float = 0.0
    dof: int = 0
    source: str = "none"

    def reach(self, level: float) -> float:
        """How far an interval of it goes each way."""
        if not self.sd:
            return 0.0
        quantile = stats.t.ppf(0.5 + level / 2, self.dof) if self.dof else _normal(level)
        return self.sd * float(quantile)


def _normal(level: float) -> float:
    return float(stats.norm.ppf(0.5 + level / 2))


def common_error(
    cell: Labels, loss: Array, loss_se: Array, seed: Array, noise: float
) -> CommonError:
    """Estimate the error that the losses of all rows share; columns [n], `cell` a size and budget.

    Of seeds, where two or more were trained in three or more of the same cells: the variance
    between seeds by analysis of variance, if it is clearly there (nine times in ten), over the
    seeds that a law rests on. Else of `loss_se`: what it exceeds `noise`, the relative scatter of
    rows, by. Were errors of measuring independent, rows would scatter by at least `loss_se`.
    """
    table = _cells_by_seeds(cell, np.log(loss), seed)
    if table is not None:
        cells, seeds = table.shape
        rest = table - table.mean(1, keepdims=True)
        means = rest.mean(0)
        dof = (cells - 1) * (seeds - 1)
        within = float(((rest - means) ** 2).sum()) / dof
        between = cells * float((means**2).sum()) / (seeds - 1)
        if between <= within * float(stats.f.ppf(0.9, seeds - 1, dof)):
            return CommonError(source="seeds")
        used = seed[np.isfinite(seed)]
        shares = np.unique(used, return_counts=True)[1] / len(used)
        variance = (between - within) / cells * float((shares**2).sum())
        return CommonError(variance**0.5, seeds - 1, "seeds")
    stated = (loss_se / loss)[np.isfinite(loss_se)]
    if 2 * len(stated) < len(loss) or not len(stated) or not np.isfinite(noise):
        return CommonError()
    beyond = float((stated**2).mean()) - noise**2
    return CommonError(max(0.0, beyond) ** 0.5, 0, "loss_se")


def _cells_by_seeds(cell: Labels, y: Array, seed: Array) -> Array | None:
    """The values of cells that have every seed that three or more have: [cells, seeds], or None."""
    known = {(int(c), float(s)): float(v) for c, s, v in zip(cell, seed, y, strict=True) if s == s}
    names, counts = np.unique([s for _, s in known], return_counts=True)
    seeds = names[counts >= _LEAST_CELLS]
    cells = [c for c in np.unique(cell) if all((int(c), float(s)) in known for s in seeds)]
    if len(seeds) < 2 or len(cells) < _LEAST_CELLS:
        return None
    return np.array([[known[int(c), float(s)] for s in seeds] for c in cells])


@dataclass(frozen=True)
class Estimate:
    """Estimated parameters [p] with their covariance [p, p] or draws [B, p]."""

    theta: Array
    dof: int
    covariance: Array | None = None
    draws: Array | None = None

    def reach(self, level: float) -> float:
        """Standard deviations that an interval reaches each way: a quantile of Student's t."""
        return float(stats.t.ppf(0.5 + level / 2, max(1, self.dof)))

    def interval(
        self, quantity: Callable[[Array], Array], level: float = LEVEL, noise: float = 0.0
    ) -> LawInterval | None:
        """Interval of quantity(theta), which maps [B, p] to [B].

        `noise`: standard deviation of one more observation, for a prediction interval. Percentiles
        of draws are stretched by t over normal quantiles: plain ones are too short for few runs.
        None where the quantity, or too many of its draws, are not finite, and where the interval
        would have no width (a parameter on its bound, say).
        """
        value = float(quantity(self.theta[None])[0])
        reach = self.reach(level)
        if not np.isfinite(value):
            return None
        if self.draws is not None:
            values = quantity(self.draws)
            values = values[np.isfinite(values)]
            if len(values) < _LEAST_DRAWS * len(self.draws) or len(values) < 20:
                return None
            low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
            stretch = reach / _normal(level)
            down, up = (max(0.0, float(x)) * stretch for x in (value - low, high - value))
        else:
            if self.covariance is None or not np.isfinite(self.covariance).all():
                return None
            deviation = np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
            step = np.diag(np.clip(1e-3 * deviation, 1e-7, 1e-3))
            ahead, back = quantity(self.theta + step), quantity(self.theta - step)
            slope = (ahead - back) / (2 * np.diag(step))
            slope = np.where(deviation > 0, slope, 0.0)
            variance = float(slope @ self.covariance @ slope)
            if not np.isfinite(variance):
                return None
            down = up = reach * max(0.0, variance) ** 0.5
        extra = reach * noise
        low, high = value - float(np.hypot(down, extra)), value + float(np.hypot(up, extra))
        return LawInterval(value, low, high) if low < high else None

    @property
    def failures(self) -> float:
        """The share of draws that gave no parameters."""
        if self.draws is None:
            return 0.0
        return float(1 - np.isfinite(self.draws).all(1).mean())


def exponential(interval: LawInterval | None) -> LawInterval | None:
    """From logs; ends stay finite. None where they are too far off to differ."""
    if interval is None:
        return None
    plain = LawInterval(*(float(np.exp(min(x, 700.0))) for x in vars(interval).values()))
    return plain if plain.low < plain.high else None


def union(intervals: list[LawInterval], value: float) -> LawInterval:
    """Around `value`, what any of the intervals holds."""
    low = min([value, *(i.low for i in intervals)])
    return LawInterval(value, low, max([value, *(i.high for i in intervals)]))


def clustered(runs: Labels) -> bool:
    """Whether some run has several rows, so that runs are what is independent."""
    return len(runs) > len(np.unique(runs))


def too_few(runs: Labels) -> bool:
    """Whether rows are of several to a run, and of too few runs for an interval."""
    return clustered(runs) and len(np.unique(runs)) < LEAST_CLUSTERS


def resampled_runs(runs: Labels, draws: int, random: np.random.Generator) -> Array:
    """Weights [draws, n]: how often the run of each row was drawn."""
    clusters = int(runs.max()) + 1
    counts = random.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
    return counts[:, runs].astype(np.float64)


def resampled_pairs(groups: Labels, draws: int, random: np.random.Generator) -> Array:
    """Weights [draws, n]: rows drawn with replacement within their group (budget)."""
    weights = np.zeros((draws, len(groups)))
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        chance = np.full(len(mine), 1 / len(mine))
        weights[:, mine] = random.multinomial(len(mine), chance, size=draws)
    return weights
