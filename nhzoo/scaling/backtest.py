"""Backtest: forecast the top budgets from those below, to measure a forecast's error.

Rolling origin: the top one, two and three budgets are left out in turn while three remain, and each
is forecast. The error of the loss grows with how far out the budget lies; a forecast's interval is
widened to the worst error seen at its factor or nearer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nhzoo.scaling import isoflop
from nhzoo.scaling.cost import Cost
from nhzoo.scaling.families.predicting import predict
from nhzoo.scaling.intervals import LawInterval
from nhzoo.scaling.isoflop import bare_power_law
from nhzoo.scaling.laws import DEFAULT_METHODS, LEAST_BUDGETS, Law, fit_laws, surface_of
from nhzoo.scaling.runs import Points

Array = npt.NDArray[np.float64]

_RESAMPLES = 100


@dataclass(frozen=True)
class Holdout:
    """One budget forecast from the budgets below. Errors are forecast / observed - 1.

    `left_out` budgets were not fitted, `factor` is how many times the largest fitted budget this
    one is. Observed are the parabola's minimum and vertex. `*_hit`: the observed value was inside
    the interval, a prediction's for the loss. Baselines: see `Baselines`.
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
    coupled_error: float | None = None


CHOSEN = {"vp": "surface_error", "frontier": "frontier_error", "coupled": "coupled_error"}
"""Methods that give a loss, and where their errors on held-out budgets are."""


def chosen_loss(
    tests: Sequence[Holdout], losses: Mapping[str, LawInterval], loss: LawInterval
) -> LawInterval:
    """`loss` with the value of the method that did best on the budgets held out, of `losses`."""
    names = [name for name in CHOSEN if name in losses]
    known = [t for t in tests if all(getattr(t, CHOSEN[n]) is not None for n in names)]
    if not known or len(names) < 2:
        return loss
    off = {name: sum(abs(getattr(t, CHOSEN[name])) for t in known) for name in names}
    best = min(names, key=lambda name: (off[name], name != "frontier"))
    return LawInterval(losses[best].value, loss.low, loss.high)


def rolling(
    points: Points,
    cost: Cost,
    most: int,
    level: float,
    seed: int = 0,
    methods: Sequence[str] = DEFAULT_METHODS,
) -> tuple[Holdout, ...]:
    """Forecast up to `most` of the top budgets, each from all below it and from fewer."""
    labels, budget = np.unique(points.budget, return_inverse=True)
    if len(labels) <= LEAST_BUDGETS or most < 1:
        return ()
    seen = isoflop.parabolas(points.params, points.loss, points.flops, budget)
    result = []
    for left_out in range(1, min(most, len(labels) - LEAST_BUDGETS) + 1):
        kept = points.take(budget < len(labels) - left_out)
        laws = fit_laws(kept, methods=methods, resamples=_RESAMPLES, seed=seed)
        known = np.isfinite(seen.vertex[0]) & np.isfinite(seen.vertex_var)
        below = known & (np.arange(len(labels)) < len(labels) - left_out)
        for k in range(len(labels) - left_out, len(labels)):
            if not known[k]:
                continue
            flops = float(seen.compute[k])
            loss, size = float(np.exp(seen.minimum[0, k])), float(np.exp(seen.vertex[0, k]))
            predicted = predict(laws.laws, flops, cost, level)
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
                    loss_error=_error(predicted.loss, loss),
                    loss_hit=_hit(predicted.loss, loss),
                    surface_error=_error(predicted.losses.get("vp"), loss),
                    frontier_error=_error(predicted.losses.get("frontier"), loss),
                    size_error=_error(predicted.size, size),
                    size_hit=_hit(predicted.size, size),
                    last_size_error=_off(naive.last_size, loss),
                    power_law_error=_off(naive.power_law, loss),
                    last_loss_error=_off(naive.last_loss, loss),
                    coupled_error=_error(predicted.losses.get("coupled"), loss),
                )
            )
    return tuple(result)


def _off(value: float | None, observed: float) -> float | None:
    return None if value is None else value / observed - 1


def _error(interval: LawInterval | None, observed: float) -> float | None:
    return None if interval is None else _off(interval.value, observed)


def _hit(interval: LawInterval | None, observed: float) -> bool | None:
    return None if interval is None else interval.low <= observed <= interval.high


def worst_error(holdouts: Sequence[Holdout], factor: float) -> float:
    """The largest absolute error of the loss at `factor` or nearer (of all, when it is beyond)."""
    errors = [(h.factor, abs(h.loss_error)) for h in holdouts if h.loss_error is not None]
    near = [error for at, error in errors if at <= factor * 1.001]
    return max(near or [error for _, error in errors], default=0.0)


@dataclass(frozen=True)
class Baselines:
    """Naive forecasts of the loss, as baselines.

    `last_size`: the size that was best at the last budget, trained longer (on the surface).
    `power_law`: k C^-g through the minima, without a floor. `last_loss`: the last budget's loss.
    """

    last_size: float | None
    power_law: float | None
    last_loss: float | None


def baselines(
    laws: Sequence[Law], compute: Array, vertices: Array, minima: Array, flops: float, cost: Cost
) -> Baselines:
    """Of the budgets' `compute`, ln N `vertices` and ln L `minima`, [m] each, finite."""
    if not len(compute):
        return Baselines(None, None, None)
    last = int(compute.argmax())
    surface, kept = surface_of(laws), None
    if surface is not None:
        size = float(np.exp(vertices[last]))
        kept = float(surface.at(size, cost.samples(flops, size)))
    bare = None
    if len(compute) >= 2:
        level, exponent = bare_power_law(compute, minima)
        bare = float(np.exp(level - exponent * np.log(flops)))
    return Baselines(kept, bare, float(np.exp(minima[last])))
