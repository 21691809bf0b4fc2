"""The compute that a return takes: its law solved for a score, however far away that is.

The law is a straight line in logs, so this says where such a line leads, and not that it will hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nhzoo.errors import CheckFailed, InputError
from nhzoo.scaling.fitting import Fit
from nhzoo.scaling.forecasting import FAR
from nhzoo.scaling.predictions import best_size
from nhzoo.scaling.returns import ReturnLaw

_FARTHEST = 700.0  # ln C beyond which there is no end


@dataclass(frozen=True)
class Reach:
    """FLOPs at which the mean return of the best run of a budget comes to `target`.

    `low`, `high`: the budgets for which `target` is in the law's `interval` of one more run; no
    `high` where it stays there however large they are. `params`: the optimal size, where a law says
    one. `extrapolation`: times the largest budget fitted; `beyond`: times the largest return.
    """

    target: float
    flops: float
    low: float
    high: float | None
    params: float | None
    interval: float
    extrapolation: float
    beyond: float
    warnings: tuple[str, ...]
    kind: str
    fit_data_sha256: str

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "return": self.target,
            "flops": {"value": self.flops, "low": self.low, "high": self.high},
            "params": self.params,
            "interval": self.interval,
            "extrapolation": self.extrapolation,
            "beyond": self.beyond,
            "warnings": list(self.warnings),
            "kind": self.kind,
            "fit_data_sha256": self.fit_data_sha256,
        }


def compute_for(fit: Fit, target: float) -> Reach:
    """Solve the fit's law of return against compute for a return.

    InputError for a target that is none; CheckFailed where there is no such law, or it does not
    rise.
    """
    if not (math.isfinite(target) and target > 0):
        raise InputError(f"--return {target}: must be a number larger than zero")
    law = next((law for law in fit.returns if law.of == "compute"), None)
    if law is None:
        raise CheckFailed(
            "no forecast: the fit has no law of return against compute; add runs with mean_return"
        )
    goal = math.log(target)
    if law.slope <= 0 or (goal - law.level) / law.slope + law.centre > _FARTHEST:
        raise CheckFailed(
            f"no forecast: the return grows as C^{law.slope:.3g}, which does not lead to "
            f"{target:,.0f}; add runs of larger budgets"
        )
    level = float(fit.options["interval"])
    ln_flops = law.centre + (goal - law.level) / law.slope
    low, high = _end(law, goal, ln_flops, level, -1), _end(law, goal, ln_flops, level, 1)
    flops = math.exp(ln_flops)
    known = fit.points if len(fit.points) else fit.others
    highest = float(max((r for r in known.mean_return if r == r), default=math.nan))
    factor = flops / law.high
    warnings = [f"{d.code}: {d.message}" for d in fit.diagnostics if d.level != "note"]
    if factor > FAR:
        warnings.insert(
            0,
            f"extrapolation: {factor:.3g} times the largest budget fitted, {FAR:.0f} is far; this "
            "is where the line leads, if it stays one",
        )
    size = best_size(fit.laws, flops, fit.cost) if fit.laws else math.nan
    return Reach(
        target,
        flops,
        math.exp(low) if low is not None else 0.0,
        None if high is None else math.exp(high),
        size if math.isfinite(size) else None,
        level,
        factor,
        target / highest,
        tuple(warnings),
        fit.kind,
        fit.data_sha256,
    )


def _end(law: ReturnLaw, goal: float, start: float, level: float, way: int) -> float | None:
    """Where, from `start` on, the law's interval stops holding `goal`: None for nowhere."""

    def holds(ln_x: float) -> bool:
        found = law.at(ln_x, level)
        return found.low <= goal <= found.high

    inside, step = start, 0.1
    while holds(start + way * step):
        inside = start + way * step
        step *= 1.5
        if not -_FARTHEST < start + way * step < _FARTHEST:
            return None
    outside = start + way * step
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside
