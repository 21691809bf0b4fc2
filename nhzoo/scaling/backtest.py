"""Backtest: forecast the top budgets from those below, to measure a forecast's error.

Rolling origin: the top one, two and three budgets are left out in turn while three remain, and each
is forecast. The error of the loss grows with how far out the budget lies; a forecast's interval is
widened to the worst error seen at its factor or nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nhzoo.scaling import isoflop
from nhzoo.scaling.cost import Cost
from nhzoo.scaling.laws import LEAST_BUDGETS, baselines, fit_laws, predict
from nhzoo.scaling.runs import Points

_RESAMPLES = 100


@dataclass(frozen=True)
class Holdout:
    """One budget forecast from the budgets below. Errors are forecast / observed - 1.

    `left_out` budgets were not fitted, `factor` is how many times the largest fitted budget this
    one is. Observed are the parabola's minimum and vertex. `*_hit`: the observed value was inside
    the interval, a prediction's for the loss. Baselines: see `predictions.Baselines`.
    """

    left_out: int
    flops: float
    factor: float
    observed_loss: float
    observed_size: float
    loss_error: float | None
    loss_hit: bool | None
    surface_error: float | None
    frontier_error: float | None
    size_error: float | None
    size_hit: bool | None
    last_size_error: float | None
    power_law_error: float | None
    last_loss_error: float | None


def rolling(
    points: Points, cost: Cost, most: int, level: float, seed: int = 0
) -> tuple[Holdout, ...]:
    """Forecast up to `most` of the top budgets, each from all below it and from fewer."""
    labels, budget = np.unique(points.budget, return_inverse=True)
    if len(labels) <= LEAST_BUDGETS or most < 1:
        return ()
    seen = isoflop.parabolas(points.params, points.loss, points.flops, budget)
    result = []
    for left_out in range(1, min(most, len(labels) - LEAST_BUDGETS) + 1):
        kept = points.take(budget < len(labels) - left_out)
        laws = fit_laws(kept, resamples=_RESAMPLES, seed=seed)
        known = np.isfinite(seen.vertex[0]) & np.isfinite(seen.vertex_var)
        below = known & (np.arange(len(labels)) < len(labels) - left_out)
        for k in range(len(labels) - left_out, len(labels)):
            if not known[k]:
                continue
            flops = float(seen.compute[k])
            loss, size = float(np.exp(seen.minimum[0, k])), float(np.exp(seen.vertex[0, k]))
            said = predict(laws.laws, flops, cost, level)
            naive = baselines(
                laws.laws,
                seen.compute[below],
                seen.vertex[0, below],
                seen.minimum[0, below],
                flops,
                cost,
            )
            result.append(
                Holdout(
                    left_out=left_out,
                    flops=flops,
                    factor=flops / float(kept.flops.max()),
                    observed_loss=loss,
                    observed_size=size,
                    loss_error=_error(said.loss, loss),
                    loss_hit=_hit(said.loss, loss),
                    surface_error=_error(said.losses.get("vp"), loss),
                    frontier_error=_error(said.losses.get("frontier"), loss),
                    size_error=_error(said.size, size),
                    size_hit=_hit(said.size, size),
                    last_size_error=_off(naive.last_size, loss),
                    power_law_error=_off(naive.power_law, loss),
                    last_loss_error=_off(naive.last_loss, loss),
                )
            )
    return tuple(result)


def _off(value: float | None, observed: float) -> float | None:
    return None if value is None else value / observed - 1


def _error(interval: object, observed: float) -> float | None:
    return _off(getattr(interval, "value", None), observed)


def _hit(interval: object, observed: float) -> bool | None:
    if interval is None:
        return None
    return bool(getattr(interval, "low") <= observed <= getattr(interval, "high"))  # noqa: B009


def worst_error(holdouts: Sequence[Holdout], factor: float) -> float:
    """The largest absolute error of the loss at `factor` or nearer (of all, when it is beyond)."""
    errors = [(h.factor, abs(h.loss_error)) for h in holdouts if h.loss_error is not None]
    near = [error for at, error in errors if at <= factor * 1.001]
    return max(near or [error for _, error in errors], default=0.0)
