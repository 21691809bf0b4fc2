"""What a set of laws says of a budget: size and loss, with the union of the laws' intervals.

The surface is wrong where size and data interact, the parabola where profiles are lopsided; they
err in different directions, so all of them give the interval. Which law gives the value of the loss
is chosen by the budgets held out (`backtest.chosen_loss`), never by how well it fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nhzoo.scaling.cost import Cost
from nhzoo.scaling.intervals import LawInterval, union
from nhzoo.scaling.laws import Law, LossLaw, SizeLaw, SurfaceLaw

SIZE_METHODS = ("vp", "parabola", "cubic", "coupled")
LOSS_METHODS = ("frontier", "vp", "coupled")
FALLBACKS = ("huber", "joint", "argmin")


@dataclass(frozen=True)
class Prediction:
    """Size and loss at a budget; `sizes`, `losses` of each method. None where none can say.

    `loss` and `losses` are of one more run, `mean` is of the mean of many: without their scatter.
    """

    size: LawInterval | None
    loss: LawInterval | None
    sizes: dict[str, LawInterval]
    losses: dict[str, LawInterval]
    mean: LawInterval | None = None


def predict(laws: Sequence[Law], flops: float, cost: Cost, level: float) -> Prediction:
    """Size from the surface and the parabolas, loss from the frontier and the surface.

    The first of these that is there gives the value, all give the interval (other methods only
    where neither is there). Loss intervals are of one more run: they hold the residual scatter.
    """
    sizes = {
        law.method: size
        for law in laws
        if isinstance(law, SizeLaw) and (size := law.size(flops, cost, level)) is not None
    }
    losses, means = (
        {
            law.method: loss
            for law in laws
            if isinstance(law, LossLaw)
            and (loss := law.loss(flops, cost, level, one_run=one_run)) is not None
        }
        for one_run in (True, False)
    )
    return Prediction(
        _union(sizes, SIZE_METHODS),
        _union(losses, LOSS_METHODS),
        sizes,
        losses,
        _union(means, LOSS_METHODS),
    )


def best_size(laws: Sequence[Law], flops: float, cost: Cost) -> float:
    """The size of `predict` alone, without its interval; NaN where none can say."""
    by_method = {law.method: law for law in laws if isinstance(law, SizeLaw)}
    for name in (*SIZE_METHODS, *FALLBACKS):
        if name in by_method:
            law = by_method[name]
            size = float(law.ln_size(law.estimate.theta[None], flops, cost)[0])
            if np.isfinite(size):
                return float(np.exp(min(size, 700.0)))
    return float("nan")


def regret(surface: SurfaceLaw, flops: float, size: float, cost: Cost) -> float | None:
    """The share of `flops` that a size other than the optimal one wastes, by the surface.

    The optimum reaches the same loss with 1 - regret of them. None where it is not known.
    """
    reached = float(surface.at(size, cost.samples(flops, size)))
    low, high = math.log(1e-6), 0.0

    def best(ln_share: float) -> float:
        theta = surface.estimate.theta[None]
        return float(np.exp(surface.ln_loss(theta, flops * math.exp(ln_share), cost)[0]))

    if not (math.isfinite(reached) and best(low) > reached):
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if best(middle) > reached else (low, middle)
    return 1 - math.exp(high)


def _union(found: dict[str, LawInterval], methods: Sequence[str]) -> LawInterval | None:
    names = [name for name in methods if name in found]
    names = names or [name for name in FALLBACKS if name in found][:1]
    if not names:
        return None
    return union([found[name] for name in names], found[names[0]].value)
