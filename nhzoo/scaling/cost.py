"""Training FLOPs per sample at each size, so that optima are found on the real cost.

6 x params is wrong for small agents: tables are looked up, not multiplied, and convolutions use a
weight many times. Where the rows say that FLOPs are not proportional to params x samples, N_opt is
solved on the cost itself.

The cost of nhzoo's own policies is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import signal

from nhzoo.errors import InputError
from nhzoo.policy.config import PolicyConfig, flop_model
from nhzoo.training.run_table import LedgerRow, RunRow

Array = npt.NDArray[np.float64]

NOT_PROPORTIONAL = 1.2
"""FLOPs / (params x samples) may vary by this factor along the sizes and count as constant."""


@dataclass(frozen=True)
class Cost:
    """FLOPs a sample: `factor` x params, or read off a table (straight in logs, ends go on).

    `origin` says where it is from.
    """

    origin: str
    factor: float | None = None
    params: tuple[float, ...] = ()
    per_sample: tuple[float, ...] = ()

    def of(self, params: Array | float) -> Array:
        """FLOPs a sample at each size."""
        ln_n = np.log(np.asarray(params, np.float64))
        if self.factor is not None:
            return np.asarray(self.factor * np.exp(ln_n))
        x, y = np.log(self.params), np.log(self.per_sample)
        low = y[0] + (ln_n - x[0]) * (y[1] - y[0]) / (x[1] - x[0])
        high = y[-1] + (ln_n - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
        inner = np.interp(ln_n, x, y)
        found = np.where(ln_n < x[0], low, np.where(ln_n > x[-1], high, inner))
        return np.asarray(np.exp(np.clip(found, -700.0, 700.0)))

    def samples(self, flops: float, params: Array | float) -> Array:
        """How many samples `flops` buys at each size."""
        return np.asarray(flops / self.of(params))

    def slope(self, params: float) -> float:
        """Slope d ln cost / d ln params: 1 where cost is proportional to size."""
        if self.factor is not None:
            return 1.0
        near = self.of(np.array([params * 0.98, params * 1.02]))
        return float(np.log(near[1] / near[0]) / math.log(1.02 / 0.98))

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "origin": self.origin,
            "factor": self.factor,
            "params": list(self.params),
            "flops_per_sample": list(self.per_sample),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Cost:
        """The inverse; KeyError, TypeError, ValueError or InputError for what is none."""
        factor = value["factor"]
        return checked(
            cls(
                str(value["origin"]),
                None if factor is None else float(factor),
                tuple(float(n) for n in value["params"]),
                tuple(float(f) for f in value["flops_per_sample"]),
            )
        )


def checked(cost: Cost) -> Cost:
    """The cost, or an InputError when its table is none."""
    if cost.factor is not None:
        if not (math.isfinite(cost.factor) and cost.factor > 0):
            raise InputError("a cost's factor must be larger than zero")
        return cost
    n, f = np.array(cost.params), np.array(cost.per_sample)
    if len(n) < 2 or len(n) != len(f) or not (np.diff(n) > 0).all() or not (n > 0).all():
        raise InputError("a cost's table needs two sizes or more, rising")
    if not (np.isfinite(f).all() and (f > 0).all()):
        raise InputError("a cost's table needs FLOPs larger than zero")
    return cost


def proportional(factor: float = 6.0) -> Cost:
    """So many times params FLOPs a sample: 6 for cloning, 2 + 6 = 8 for an actor and a learner.

    (Kaplan et al. 2020, arXiv 2001.08361, sec. 2.1: 2 forward, 4 backward.)
    """
    return Cost(f"{factor:g} x params x samples", factor)


def from_function(
    per_sample: Callable[[int], float],
    low: float,
    high: float,
    *,
    per_update: Callable[[int], float] | None = None,
    samples_per_update: float = 256.0,
    origin: str,
    places: int = 321,
) -> Cost:
    """A cost tabulated from `per_sample(params)`, and `per_update(params)` over its samples.

    Widths are whole numbers, so costs go in steps, by some % at small sizes; where the loss is flat
    a step of 1 % would move an optimum by 20 %. So they are smoothed by local parabolas.
    """
    sizes = sorted({round(n) for n in np.geomspace(low, high, places)})
    costs = [
        float(per_sample(n)) + (per_update(n) / samples_per_update if per_update else 0.0)
        for n in sizes
    ]
    window = min(31, len(sizes) - 1 + len(sizes) % 2)  # a third of a decade each way
    smooth = np.exp(signal.savgol_filter(np.log(costs), window, min(2, window - 1)))
    return checked(Cost(origin, None, tuple(map(float, sizes)), tuple(map(float, smooth))))


def from_rows(params: Array, samples: Array, flops: Array) -> Cost:
    """The cost that the rows themselves show: a factor, or a curve where it is not constant.

    The curve is a parabola of ln(FLOPs a sample) in ln params (a line below four sizes), tabulated
    over the rows' sizes; beyond, its ends go on.
    """
    ratio = flops / (params * samples)
    if spread(params, samples, flops) <= NOT_PROPORTIONAL:
        factor = float(np.exp(np.median(np.log(ratio))))
        return Cost(f"{factor:.4g} x params x samples, as in the rows", factor)
    x, y = np.log(params), np.log(flops / samples)
    sizes = len(np.unique(np.round(x, 3)))
    curve = np.polynomial.Polynomial.fit(x, y, 2 if sizes >= 4 else 1)
    places = np.linspace(x.min(), x.max(), 33)
    return checked(
        Cost(
            "FLOPs a sample as in the rows",
            None,
            tuple(float(n) for n in np.exp(places)),
            tuple(float(f) for f in np.exp(curve(places))),
        )
    )


def spread(params: Array, samples: Array, flops: Array) -> float:
    """By what factor FLOPs / (params x samples) varies between small and large sizes.

    Of the rows' trend, so that a row whose checkpoint came late does not count.
    """
    x, y = np.log(params), np.log(flops / (params * samples))
    if np.ptp(x) < 0.1:
        return 1.0
    slope = np.polyfit(x - x.mean(), y, 1)[0]
    return float(np.exp(abs(slope) * np.ptp(x)))


SAMPLES_PER_UPDATE = 256


def policy_cost(rows: Sequence[RunRow] = ()) -> Cost:
    """FLOPs a frame of each size, forward and backward, and the optimizer's share.

    An update costs the same however many frames it is of: as many as the median of `rows`.
    """
    updates = [r.batch * r.time * r.accumulate for r in rows if isinstance(r, LedgerRow)]
    each = median(updates or [SAMPLES_PER_UPDATE])
    return from_function(
        lambda n: PolicyConfig.for_params(n).train_flops,
        10_000,
        500_000_000,
        per_update=lambda n: PolicyConfig.for_params(n).update_flops,
        samples_per_update=each,
        origin=f"nhzoo's policies, every layer and the optimizer, {each:g} frames an update",
    )


def is_ours(rows: Sequence[RunRow]) -> bool:
    """Whether all rows count FLOPs as this version of nhzoo does."""
    return bool(rows) and {row.flop_model_hash for row in rows} == {flop_model()}
