"""Forecasts: size, data, loss and return of a budget, frozen before the run is trained.

The file names the fit and the rows it rests on by their hashes, and itself by its own, so that what
is graded later is what was said before.

The return of the optimal size is the mean of two laws in logs, each weighted by the inverse square
of its interval's width: against compute, and against the forecast loss. The law against compute is
of the best runs of their budgets, so of another size only the law against loss speaks.

`compute_for` is the compute that a return takes: its law solved for a score.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from nhzoo import __version__
from nhzoo.errors import CheckFailed, InputError
from nhzoo.runtime import files
from nhzoo.scaling.backtest import Baselines, baselines, chosen_loss, worst_error
from nhzoo.scaling.diagnostics import MANY_EPOCHS, MOST_EPOCHS
from nhzoo.scaling.families.predicting import best_size, predict, regret
from nhzoo.scaling.fitting import Fit, fit_json
from nhzoo.scaling.intervals import LawInterval, union
from nhzoo.scaling.laws import surface_of
from nhzoo.scaling.returns import ReturnLaw

SCHEMA = 1
FAR, TOO_FAR = 10.0, 100.0
"""Times the largest budget: from where on a forecast warns, and from where on it is refused."""

HALF_LIFE = 15.4
"""R* of Muennighoff et al. 2023 (arXiv 2305.16264), eq. 5: epochs after the first fade with it."""


@dataclass(frozen=True)
class DataLimit:
    """The limit on unique samples, and its effect.

    `epochs` of the forecast run; `effective_samples` it is worth, U + U R* (1 - exp(-R / R*)) with
    R the epochs after the first; `reached_at` the FLOPs at which the optimum sees all data 4 times;
    `params_at_4_epochs` the size that would see it 4 times (None where the optimum sees it less).
    """

    unique_samples: float
    epochs: float
    effective_samples: float
    reached_at: float | None
    params_at_4_epochs: float | None


@dataclass(frozen=True)
class Forecast:
    """Size, data, loss and return of a run of `flops`. Intervals are 90 %, or `interval`.

    `loss` is a prediction interval of one run: the union of the methods', widened to the worst
    hold-out; `mean_loss` that of the mean of such runs, without their scatter. `regret` is the
    share of the FLOPs that this size wastes against the best one. `sizes`, `losses`: what each
    method says. `baselines`: what less thought would say.
    """

    flops: float
    params: int
    samples: int
    loss: LawInterval
    ret: LawInterval | None
    warnings: tuple[str, ...]
    interval: float
    params_interval: LawInterval
    samples_interval: LawInterval
    extrapolation: float
    sizes: dict[str, LawInterval]
    losses: dict[str, LawInterval]
    returns: dict[str, LawInterval]
    baselines: Baselines
    data_limit: DataLimit | None
    widened_by: float
    flops_per_sample: float
    flop_model: str | None
    kind: str
    source: str
    data_sha256: str
    fit_sha256: str
    created: str
    version: str = __version__
    sha256: str = ""
    mean_loss: LawInterval | None = None
    regret: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As one JSON object; `sha256` of the rest comes last."""
        value = asdict(self)
        by_method = {_METHODS_OF[name]: value.pop(name) for name in _METHODS_OF}
        del value["sha256"]
        named = {_NAMES.get(name, name): item for name, item in value.items()}
        named["warnings"] = list(self.warnings)
        return files.seal({**named, "by_method": by_method, "schema": SCHEMA})


_NAMES = {"ret": "return", "version": "nhzoo"}
_METHODS_OF = {"sizes": "params", "losses": "loss", "returns": "return"}
"""Names in the file of a forecast's fields, and of what its methods say."""


def forecast(
    fit: Fit,
    flops: float,
    *,
    params: int | None = None,
    data_limit: float | None = None,
    epochs: float | None = None,
    force: bool = False,
) -> Forecast:
    """Forecast the optimal size for `flops`, its data, loss and return, with intervals.

    `params`: another size than the optimal one; the loss is then that of the optimum times the cost
    of the deviation on the surface. `data_limit`: unique samples available (default: the largest of
    the rows). `epochs`: most epochs over them; where the optimum would need more, the size is the
    smallest that does not. CheckFailed, with the reason, if the fit does not allow a forecast;
    `force` overrides the limits of distance and repetition, not those of the fit.
    """
    if not (math.isfinite(flops) and flops > 0):
        raise InputError(f"--flops {flops}: must be a number larger than zero")
    if data_limit is not None and not (math.isfinite(data_limit) and data_limit >= 1):
        raise InputError(f"--data-limit {data_limit}: must be 1 or more")
    if epochs is not None and not (math.isfinite(epochs) and epochs > 0):
        raise InputError(f"--epochs {epochs}: must be a number larger than zero")
    if epochs is not None and params is not None:
        raise InputError("--epochs finds a size and --params names one: give one of them")
    level = float(fit.options["interval"])
    if not fit.laws:
        reasons = sorted({d.code for d in fit.errors}) or ["no law"]
        raise CheckFailed(f"no forecast: the fit has no law ({', '.join(reasons)}); add runs")
    warnings = []
    factor = flops / fit.largest
    if factor > TOO_FAR and not force:
        raise CheckFailed(
            f"no forecast: {flops:.3g} FLOPs is {factor:,.0f} times the largest budget fitted "
            f"({fit.largest:.3g}), {TOO_FAR:.0f} times or {TOO_FAR * fit.largest:.3g} FLOPs is the "
            "most; train larger budgets, or --force"
        )
    if factor > FAR:
        warnings.append(
            f"extrapolation: {factor:,.0f} times the largest budget fitted, {FAR:.0f} is far"
        )
    predicted = predict(fit.laws, flops, fit.cost, level)
    if predicted.size is None or predicted.loss is None:
        missing = "size" if predicted.size is None else "loss"
        raise CheckFailed(
            f"no forecast: no law gives the {missing} with an interval at {flops:.3g} FLOPs "
            f"({', '.join(sorted({d.code for d in fit.errors})) or 'too few runs'}); add runs"
        )
    unique = data_limit or fit.unique_limit
    size = params or _rounded(predicted.size.value)
    if epochs is not None:
        if unique is None:
            raise InputError("--epochs: the rows do not say how much data there is; --data-limit")
        size = _least_size(fit, flops, size, epochs * unique)
    if not (math.isfinite(size) and 1 <= size < 1e18):
        raise CheckFailed(f"no forecast: the optimal size at {flops:.3g} FLOPs is {size:.3g}")
    samples = float(fit.cost.samples(flops, size))
    if samples < 1:
        raise CheckFailed(f"no forecast: {flops:.3g} FLOPs buy less than one sample of that size")
    chosen = chosen_loss(fit.holdouts, predicted.losses, predicted.loss)
    loss, penalty = _off_optimum(fit, chosen, predicted.size.value, size, flops)
    optimal = size == _rounded(predicted.size.value) or 1 / 1.001 <= penalty <= 1.001
    if surface_of(fit.laws) is None:
        optimal = predicted.size.low <= size <= predicted.size.high
    wasted = None
    if (surface := surface_of(fit.laws)) is not None:
        wasted = regret(surface, flops, size, fit.cost)
    if not optimal and penalty > 1.001:
        lost = "" if wasted is None else f", as {wasted:.0%} fewer FLOPs would at the best size"
        warnings.append(
            f"size: {size:,} parameters instead of {predicted.size.value:,.0f} raise the loss by "
            f"{penalty - 1:.1%}{lost}, says the surface"
        )
    mean = None
    if predicted.mean is not None:
        low, high = (end * penalty for end in (predicted.mean.low, predicted.mean.high))
        mean = LawInterval(loss.value, min(low, loss.value), max(high, loss.value))
    worst = worst_error(fit.holdouts, factor)
    loss = union(
        [loss, LawInterval(loss.value, loss.value / (1 + worst), loss.value * (1 + worst))],
        loss.value,
    )
    limit = _data_limit(fit, flops, size, samples, unique)
    if limit is not None and limit.epochs > MOST_EPOCHS and not force:
        raise CheckFailed(
            f"no forecast: {samples:.3g} samples are {limit.epochs:.1f} times the "
            f"{limit.unique_samples:.3g} unique ones, {MOST_EPOCHS:.0f} is the most; record more "
            "data (--data-limit says how much there is), or --force"
        )
    if limit is not None and limit.epochs > 1:
        loss = _repeated(fit, loss, size, samples, limit)
    if limit is not None and limit.epochs > MANY_EPOCHS:
        warnings.append(
            f"data_exhausted: every sample is seen {limit.epochs:.1f} times; the loss will be "
            "higher than the law says"
            + (
                ""
                if limit.params_at_4_epochs is None
                else f"; {limit.params_at_4_epochs:,.0f} parameters would see it 4 times"
            )
        )
    warnings += [f"{d.code}: {d.message}" for d in fit.diagnostics if d.level != "note"]
    returns = _returns(fit, flops, loss, level, optimal)
    if fit.returns and not returns:
        warnings.append(
            "return: none is forecast, as this size is not the optimal one and no law of the "
            "return against loss was fitted"
        )
    low, high = (
        float(fit.cost.samples(flops, n)) for n in (predicted.size.high, predicted.size.low)
    )
    known = fit.vertices
    naive = baselines(
        fit.laws,
        np.array([v.flops for v in known]),
        np.log([v.size.value for v in known]),
        np.log([v.loss.value for v in known]),
        flops,
        fit.cost,
    )
    result = Forecast(
        flops=float(flops),
        params=int(size),
        samples=int(samples),
        loss=loss,
        ret=_combined(returns),
        warnings=tuple(dict.fromkeys(warnings)),
        interval=level,
        params_interval=predicted.size,
        samples_interval=LawInterval(
            float(fit.cost.samples(flops, predicted.size.value)), min(low, high), max(low, high)
        ),
        extrapolation=factor,
        sizes=predicted.sizes,
        losses=predicted.losses,
        returns=returns,
        baselines=naive,
        data_limit=limit,
        widened_by=worst,
        flops_per_sample=float(fit.cost.of(size)),
        flop_model=fit.flop_model,
        kind=fit.kind,
        source=fit.source,
        data_sha256=fit.data_sha256,
        fit_sha256=str(fit_json(fit)["sha256"]),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        mean_loss=mean,
        regret=wasted,
    )
    return _of_json(result.as_json())


def _rounded(size: float) -> int:
    """Three digits of it: the valley is flat, and a card reads better."""
    if not math.isfinite(size) or size >= 1e18 or size < 1:
        return 0
    power: int = 10 ** max(0, math.floor(math.log10(size)) - 2)
    return round(size / power) * int(power)


def _off_optimum(
    fit: Fit, loss: LawInterval, optimal: float, size: float, flops: float
) -> tuple[LawInterval, float]:
    surface = surface_of(fit.laws)
    if surface is None:
        return loss, 1.0
    at, best = (float(surface.at(n, fit.cost.samples(flops, n))) for n in (size, optimal))
    ratio = at / best if best > 0 and math.isfinite(at) else 1.0
    return LawInterval(*(value * ratio for value in vars(loss).values())), ratio


def _data_limit(
    fit: Fit, flops: float, size: float, samples: float, unique: float | None
) -> DataLimit | None:
    if unique is None:
        return None
    epochs = samples / unique
    after = max(0.0, epochs - 1)
    worth = samples
    if epochs > 1:
        worth = unique * (1 + HALF_LIFE * (1 - math.exp(-after / HALF_LIFE)))
    reached = None
    grid = np.geomspace(
        min(float(fit.points.flops.min()), flops), max(flops, fit.largest) * 1e3, 121
    )
    for c in grid:
        best = best_size(fit.laws, float(c), fit.cost)
        if float(fit.cost.samples(float(c), best)) >= MANY_EPOCHS * unique:
            reached = float(c)
            break
    needed = None
    if epochs > MANY_EPOCHS:
        needed = float(_least_size(fit, flops, size, MANY_EPOCHS * unique)) or None
    return DataLimit(unique, epochs, worth, reached, needed)


def _least_size(fit: Fit, flops: float, size: float, samples: float) -> int:
    """The least size from `size` on whose budget buys no more than `samples`; 0 where none does."""
    sizes = np.geomspace(size, size * 1e6, 4_001)
    enough = sizes[fit.cost.samples(flops, sizes) <= samples]
    if not len(enough):
        return 0
    least = float(enough[0])
    power = int(10 ** max(0, math.floor(math.log10(least)) - 2))
    return math.ceil(least / power - 1e-9) * power


def _repeated(
    fit: Fit, loss: LawInterval, size: float, samples: float, limit: DataLimit
) -> LawInterval:
    """Raise the interval's upper end by what the surface says that repetition costs."""
    surface = surface_of(fit.laws)
    if surface is None:
        return loss
    fresh = float(surface.at(size, samples))
    worn = float(surface.at(size, limit.effective_samples))
    return LawInterval(loss.value, loss.low, loss.high * max(1.0, worn / fresh))


def _returns(
    fit: Fit, flops: float, loss: LawInterval, level: float, optimal: bool
) -> dict[str, LawInterval]:
    """What each law says of the return; that against compute only of the optimal size."""
    result = {}
    for law in fit.returns:
        if law.of == "compute":
            if not optimal:
                continue
            found = law.at(math.log(flops), level)
        else:
            found = union(
                [law.at(math.log(max(x, 1e-300)), level) for x in vars(loss).values()],
                law.at(math.log(loss.value), level).value,
            )
        result[law.of] = LawInterval(*(math.exp(min(x, 700.0)) for x in vars(found).values()))
    return result


def _combined(returns: dict[str, LawInterval]) -> LawInterval | None:
    """The laws' mean in logs, weighted by precision, with the union of their intervals."""
    if not returns:
        return None
    logs = np.log([[max(x, 1e-300) for x in vars(i).values()] for i in returns.values()])
    weights = np.maximum(logs[:, 2] - logs[:, 1], 1e-9) ** -2.0
    return union(list(returns.values()), float(np.exp(weights @ logs[:, 0] / weights.sum())))


def write_forecast(path: Path, result: Forecast) -> None:
    """Write a forecast, atomically; InputError if the file has another, which may be frozen."""
    if path.exists():
        raise InputError(f"{path}: is there already, and a forecast is never changed; give another")
    files.atomic_write(path, files.dump_json(result.as_json()))


def read_forecast(path: Path) -> Forecast:
    """Read a forecast from its file; InputError if it was changed after it was frozen."""
    return files.read_sealed(
        path, 4 * files.MEGABYTE, SCHEMA, _of_json, "a forecast", "nhzoo forecast"
    )


def _of_json(value: dict[str, Any]) -> Forecast:
    limit = value["data_limit"]
    by_method = value["by_method"]
    return Forecast(
        flops=float(value["flops"]),
        params=int(value["params"]),
        samples=int(value["samples"]),
        loss=LawInterval(**value["loss"]),
        ret=None if value["return"] is None else LawInterval(**value["return"]),
        warnings=tuple(str(w) for w in value["warnings"]),
        interval=float(value["interval"]),
        params_interval=LawInterval(**value["params_interval"]),
        samples_interval=LawInterval(**value["samples_interval"]),
        extrapolation=float(value["extrapolation"]),
        sizes={name: LawInterval(**i) for name, i in by_method["params"].items()},
        losses={name: LawInterval(**i) for name, i in by_method["loss"].items()},
        returns={name: LawInterval(**i) for name, i in by_method["return"].items()},
        baselines=Baselines(**value["baselines"]),
        data_limit=None if limit is None else DataLimit(**limit),
        widened_by=float(value["widened_by"]),
        flops_per_sample=float(value["flops_per_sample"]),
        flop_model=value["flop_model"],
        kind=str(value["kind"]),
        source=str(value["source"]),
        data_sha256=str(value["data_sha256"]),
        fit_sha256=str(value["fit_sha256"]),
        created=str(value["created"]),
        version=str(value["nhzoo"]),
        sha256=str(value["sha256"]),
        mean_loss=LawInterval(**value["mean_loss"]) if value.get("mean_loss") else None,
        regret=value.get("regret"),  # forecasts of before have neither
    )


_FARTHEST = 700.0  # ln C beyond which there is no end


@dataclass(frozen=True)
class ComputeToTarget:
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


def compute_for(fit: Fit, target: float, *, force: bool = False) -> ComputeToTarget:
    """Compute the FLOPs at which the fit's law of return reaches the return `target`.

    InputError for an invalid target; CheckFailed if there is no such law, if it does not rise, or
    if the FLOPs are beyond 100 times the largest budget fitted, which `force` overrides.
    """
    if not (math.isfinite(target) and target > 0):
        raise InputError(f"--return {target}: must be a number larger than zero")
    law = next((law for law in fit.returns if law.of == "compute"), None)
    if law is None:
        raise CheckFailed(
            "no forecast: the fit has no law of return against compute, as fewer than 4 budgets "
            "reached a mean_return that no cheaper run reached; add larger runs, or more games"
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
    if factor > TOO_FAR and not force:
        most = math.exp(law.at(math.log(TOO_FAR * law.high), level).value)
        raise CheckFailed(
            f"no forecast: by the law a return of {target:,.0f} takes {flops:.3g} FLOPs, "
            f"{factor:,.3g} times the largest budget fitted ({law.high:.3g}); {TOO_FAR:.0f} times "
            f"is the most, which is a return of {most:,.0f}; train larger budgets, or --force"
        )
    warnings = [f"{d.code}: {d.message}" for d in fit.diagnostics if d.level != "note"]
    if factor > FAR:
        warnings.insert(
            0,
            f"extrapolation: {factor:.3g} times the largest budget fitted, {FAR:.0f} is far; this "
            "is where the line leads, if it stays one",
        )
    size = best_size(fit.laws, flops, fit.cost) if fit.laws else math.nan
    return ComputeToTarget(
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
