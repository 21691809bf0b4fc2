"""Statistics of heavy-tailed scores: intervals by the bootstrap, seeded, so the same every time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

RESAMPLES = 10_000
_BLOCK = 500  # resamples drawn at a time, to bound memory


def mean_ci95(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """A 95 % interval for the mean: bias-corrected and accelerated bootstrap, 10,000 resamples.

    (Efron 1987.) Of one value, or equal ones, the interval is that value.
    """
    x = np.asarray(values, np.float64)
    n = len(x)
    if n == 0:
        raise ValueError("no values")
    if n == 1 or np.ptp(x) == 0:
        return float(x[0]), float(x[0])
    random = np.random.default_rng(seed)
    means = np.concatenate(
        [x[random.integers(0, n, (_BLOCK, n))].mean(axis=1) for _ in range(RESAMPLES // _BLOCK)]
    )
    centre = x.mean()
    below = (np.count_nonzero(means < centre) + 0.5 * np.count_nonzero(means == centre)) / RESAMPLES
    bias = stats.norm.ppf(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    left_out = centre - x  # proportional to jackknife mean minus its average
    spread = (left_out**2).sum() ** 1.5
    acceleration = -(left_out**3).sum() / (6 * spread) if spread > 0 else 0.0
    z = stats.norm.ppf([0.025, 0.975])
    shifted = bias + (bias + z) / (1 - acceleration * (bias + z))
    low, high = np.quantile(means, stats.norm.cdf(shifted))
    return float(low), float(high)


def iqm(values: Sequence[float]) -> float:
    """Interquartile mean: of the middle half (Agarwal et al. 2021, arXiv 2108.13264)."""
    return float(stats.trim_mean(np.asarray(values, np.float64), 0.25))
