"""What a set of laws says of a budget: the union of the methods' intervals, and naive baselines.

The surface is wrong where size and data interact, the parabola where profiles are lopsided; they
err in different directions, so a forecast states the union of their intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nhzoo.scaling.intervals import Interval, union
from nhzoo.scaling.isoflop import bare_power_law
from nhzoo.scaling.laws import Law
from nhzoo.scaling.parametric import losses
from nhzoo.scaling.training_cost import Cost

Array = npt.NDArray[np.float64]

SIZE_METHODS = ("vp", "parabola")
LOSS_METHODS = ("frontier", "vp")
FALLBACKS = ("huber", "joint", "argmin")


@dataclass(frozen=True)
class Prediction:
    """Size and loss at a budget; `sizes`, `losses` of each method. None where none can say."""

    size: Interval | None
    loss: Interval | None
    sizes: dict[str, Interval]
    losses: dict[str, Interval]


def predict(laws: Sequence[Law], flops: float, cost: Cost, level: float) -> Prediction:
    """Size from the surface and the parabolas, loss from the frontier and the surface.

    The first of these that is there gives the value, all give the interval (other methods only
    where neither is there). Loss intervals are of one more run: they hold the residual scatter.
    """
    sizes: dict[str, Interval] = {}
    found: dict[str, Interval] = {}
    for law in laws:
        size = law.size(flops, cost, level)
        loss = law.loss(flops, cost, level, one_run=True)
        if size is not None:
            sizes[law.method] = size
        if loss is not None:
            found[law.method] = loss
    return Prediction(_union(sizes, SIZE_METHODS), _union(found, LOSS_METHODS), sizes, found)


def best_size(laws: Sequence[Law], flops: float, cost: Cost) -> float:
    """The size of `predict` alone, without its interval; NaN where none can say."""
    by_method = {law.method: law for law in laws if law.form != "frontier"}
    for name in (*SIZE_METHODS, *FALLBACKS):
        if name in by_method:
            law = by_method[name]
            size = float(law.ln_size(law.spread.theta[None], flops, cost)[0])
            if np.isfinite(size):
                return float(np.exp(min(size, 700.0)))
    return float("nan")


def _union(found: dict[str, Interval], methods: Sequence[str]) -> Interval | None:
    names = [name for name in methods if name in found]
    names = names or [name for name in FALLBACKS if name in found][:1]
    if not names:
        return None
    return union([found[name] for name in names], found[names[0]].value)


@dataclass(frozen=True)
class Baselines:
    """What less thought would say of the loss.

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
    surface = next((law for law in laws if law.form == "surface"), None)
    kept = None
    if surface is not None:
        size = float(np.exp(vertices[last]))
        kept = float(losses(surface.spread.theta, size, cost.samples(flops, size)))
    bare = None
    if len(compute) >= 2:
        level, exponent = bare_power_law(compute, minima)
        bare = float(np.exp(level - exponent * np.log(flops)))
    return Baselines(kept, bare, float(np.exp(minima[last])))
