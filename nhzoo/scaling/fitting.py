"""Fit scaling laws to a table of runs: choose rows, fit, compute intervals and diagnostics.

`fit` is what `nhzoo fit` does. Its file holds all that was found and the rows it rests on, under a
hash: a forecast or a figure needs nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nhzoo import __version__
from nhzoo.errors import InputError
from nhzoo.runtime import files
from nhzoo.scaling import diagnostics as law_checks
from nhzoo.scaling import parametric
from nhzoo.scaling import returns as return_laws
from nhzoo.scaling.backtest import Holdout, rolling
from nhzoo.scaling.cost import Cost, from_rows
from nhzoo.scaling.intervals import (
    LEVEL,
    RESAMPLES,
    CommonError,
    Estimate,
    LawInterval,
    exponential,
)
from nhzoo.scaling.laws import (
    DEFAULT_METHODS,
    METHODS,
    Law,
    Laws,
    LossLaw,
    SizeLaw,
    fit_laws,
    law_from_json,
    surface_of,
)
from nhzoo.scaling.returns import NOISY, Intrinsic, ReturnLaw, fit_intrinsic
from nhzoo.scaling.runs import (
    WINDOW,
    Budget,
    Diagnostic,
    Duplicates,
    Metric,
    Points,
    Selection,
    select,
)
from nhzoo.training.run_table import RunRow

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Vertex:
    """The optimum of one budget's parabola; `size`, `loss` with 90 % intervals."""

    budget: float
    flops: float
    size: LawInterval
    loss: LawInterval
    coefficients: tuple[float, float, float]
    centre: float


@dataclass(frozen=True)
class Window:
    """The exponents of the size with another window: it is part of the result.

    Intervals are the delta method's, so of rows, not of runs.
    """

    window: float
    points: int
    vp: LawInterval | None
    parabola: LawInterval | None


_CLEARLY = 1.1  # times its interval, before a forecast is said to hang on the floor


@dataclass(frozen=True)
class FloorProfile:
    """The surface's floor E with its profile likelihood interval, and what hangs on it.

    The likelihood holds the rows' common error as well. `loss` is the surface's at the optimum of
    `flops`, 10 times the largest budget, with the interval of the rows' scatter alone;
    `loss_at_low` and `loss_at_high` the same where E is held at the ends and the rest fitted anew.
    """

    value: float
    low: float
    high: float
    flops: float
    loss: LawInterval
    loss_at_low: float
    loss_at_high: float


@dataclass(frozen=True)
class Fit:
    """The result of a fit. `points` are the rows fitted, `others` the rows left out.

    `reference` is the geometric middle of the fitted rows' FLOPs: where an exponent that is not
    constant is stated. `outliers` are rows (numbers in the table) that Huber's loss downweights
    below 0.3. `unique_limit` is the largest number of unique samples that any row names.
    `intrinsic` is of kind rl alone.
    """

    source: str
    data_sha256: str
    options: dict[str, Any]
    cost: Cost
    points: Points
    others: Points
    budgets: tuple[Budget, ...]
    laws: tuple[Law, ...]
    vertices: tuple[Vertex, ...]
    returns: tuple[ReturnLaw, ...]
    holdouts: tuple[Holdout, ...]
    windows: tuple[Window, ...]
    diagnostics: tuple[Diagnostic, ...]
    outliers: tuple[int, ...]
    flop_model: str | None
    kind: str
    unique_limit: float | None
    intrinsic: Intrinsic | None = None
    floor: FloorProfile | None = None
    version: str = __version__

    @property
    def reference(self) -> float:
        """See the class."""
        return float(np.exp(np.log(self.points.flops).mean())) if len(self.points) else math.nan

    @property
    def largest(self) -> float:
        """FLOPs of the largest budget fitted."""
        return float(self.points.flops.max()) if len(self.points) else math.nan

    def law(self, method: str) -> Law | None:
        """The law of a method, or None."""
        return next((law for law in self.laws if law.method == method), None)

    def exponent(self, method: str) -> LawInterval | None:
        """Of N_opt ~ C^a, at `reference`; None where the method says nothing of it."""
        law, level = self.law(method), self.options["interval"]
        return law.slope(self.reference, self.cost, level) if isinstance(law, SizeLaw) else None

    def size(self, method: str, flops: float) -> LawInterval | None:
        """N_opt at a budget; None where the method says nothing of it."""
        law, level = self.law(method), self.options["interval"]
        return law.size(flops, self.cost, level) if isinstance(law, SizeLaw) else None

    def loss(self, method: str, flops: float, one_run: bool = False) -> LawInterval | None:
        """L_opt at a budget, see `LossLaw.loss`; None where the method says nothing of it."""
        law, level = self.law(method), self.options["interval"]
        return law.loss(flops, self.cost, level, one_run) if isinstance(law, LossLaw) else None

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """Diagnostics of level error."""
        return tuple(d for d in self.diagnostics if d.level == "error")

    def estimates(self) -> dict[str, Any]:
        """The estimates of each method: exponents, parameters, residuals, with intervals.

        `low` and `high` are None where there is no interval.
        """
        result: dict[str, Any] = {}
        for law in self.laws:
            entry: dict[str, Any] = {"points": law.points, "residual_sd": law.noise}
            if isinstance(law, SizeLaw):
                a = self.exponent(law.method)
                entry["exponent_params"] = _known(
                    a, law.exponent(law.estimate.theta[None], self.reference, self.cost)
                )
                if (found := entry["exponent_params"]) is not None:
                    slope = self.cost.slope(self._middle_size())
                    value = 1 - slope * found["value"]
                    ends: Sequence[float | None] = (None, None)
                    if a is not None:  # a cost that falls with size turns them round
                        ends = sorted(1 - slope * end for end in (a.low, a.high))
                    entry["exponent_samples"] = {"value": value, "low": ends[0], "high": ends[1]}
            for i, name in enumerate(law.parameters):
                logged = name not in ("E", "exponent")
                parameter = law.parameter(i, self.options["interval"])
                if logged:
                    parameter = exponential(parameter)
                value = law.estimate.theta[i]
                entry[name] = _known(parameter, np.exp(min(value, 700.0)) if logged else value)
            result[law.method] = entry
        return result

    def _middle_size(self) -> float:
        return float(np.exp(np.log(self.points.params).mean()))


def _known(interval: LawInterval | None, value: Any) -> dict[str, float | None] | None:
    """An interval as JSON, or the value alone, None where it is not finite."""
    if interval is not None:
        return asdict(interval)
    plain = float(np.squeeze(value))
    return {"value": plain, "low": None, "high": None} if math.isfinite(plain) else None


def _data_hash(points: Points) -> str:
    """The hash of what laws are fitted to: the horizon is looked at only."""
    columns = points.as_json()
    del columns["horizon"]
    return files.content_hash(columns)


def fit(
    rows: Sequence[RunRow],
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    cost: Cost | None = None,
    window: float = WINDOW,
    duplicates: Duplicates = "auto",
    only: str = "*",
    flop_model: str | None = None,
    checkpoints: bool = False,
    metric: Metric = "loss",
    interval: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    holdout: int = 3,
    source: str = "the table",
) -> Fit:
    """Fit scaling laws to rows of a table of runs, chosen by `runs.select`.

    `methods`: of `laws.METHODS`. `cost`: FLOPs a sample at each size; by default as in the rows.
    `holdout`: at most so many of the top budgets are forecast from those below. The same rows,
    options and seed give the same fit. InputError for rows that cannot be used; rows that can be
    used but not fitted give a `Fit` without laws, whose diagnostics say why.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise InputError(f"--methods {','.join(unknown)}: known are {', '.join(METHODS)}")
    if not 0.5 <= interval < 1:
        raise InputError(f"--interval {interval}: must be from 0.5 to below 1")
    if resamples < 50:
        raise InputError(f"--resamples {resamples}: 50 are the least")

    def choose(window: float) -> Selection:
        return select(
            rows,
            window=window,
            duplicates=duplicates,
            only=only,
            flop_model=flop_model,
            checkpoints=checkpoints,
            metric=metric,
            where=source,
        )

    chosen = choose(window)
    points = chosen.points
    shown_rows = points if len(points) else chosen.all_points
    shown = cost or from_rows(shown_rows.params, shown_rows.samples, shown_rows.flops)
    found = fit_laws(
        points, profiles=chosen.profiles, methods=methods, resamples=resamples, seed=seed
    )
    vertices = _vertices(found.profiles, chosen, interval)
    returns = return_laws.fit_returns(chosen, interval, seed)
    if metric == "return":  # the loss is one over it
        returns = tuple(law for law in returns if law.of == "compute")
    performance, refusal = _intrinsic(chosen, interval, resamples, seed)
    floor, unknown_floor = _floor(points, found, shown, interval)
    held_out = (*DEFAULT_METHODS, *(name for name in ("coupled",) if name in methods))
    tests = rolling(points, shown, holdout, interval, seed, held_out) if chosen.profiles else ()
    checks = law_checks.check(chosen, found, shown, tests, returns, cost is not None)
    surface = found.surface
    outliers = points.row[surface.weights < 0.3] if surface is not None else np.empty(0)
    unique = chosen.all_points.unique
    fitted = set(points.row)
    left_out = np.array([row not in fitted for row in chosen.all_points.row], bool)
    return Fit(
        source=source,
        data_sha256=_data_hash(chosen.all_points),
        options={
            "methods": list(methods),
            "window": window,
            "duplicates": duplicates,
            "only": only,
            "flop_model": flop_model,
            "checkpoints": checkpoints,
            "metric": metric,
            "interval": interval,
            "resamples": resamples,
            "seed": seed,
            "holdout": holdout,
            "resampling": found.resampling,
        },
        cost=shown,
        points=points,
        others=chosen.all_points.take(left_out),
        budgets=chosen.budgets,
        laws=found.laws,
        vertices=vertices,
        returns=returns,
        holdouts=tests,
        windows=tuple(
            _window(w, choose(w), shown, interval)
            for w in (window / 2, window * 2)
            if chosen.profiles and found.laws and w > 1
        ),
        diagnostics=(*chosen.diagnostics, *checks, *unknown_floor, *refusal),
        outliers=tuple(int(row) for row in outliers),
        flop_model=chosen.flop_models[0] if len(chosen.flop_models) == 1 else None,
        kind=chosen.kinds[0],
        unique_limit=float(np.nanmax(unique)) if np.isfinite(unique).any() else None,
        intrinsic=performance,
        floor=floor,
    )


def _intrinsic(
    chosen: Selection, level: float, resamples: int, seed: int
) -> tuple[Intrinsic | None, list[Diagnostic]]:
    """The law of intrinsic performance, of runs that learnt by playing; or why there is none."""
    if chosen.kinds != ("rl",):
        return None, []
    where = "column mean_return"
    try:
        law = fit_intrinsic(chosen.all_points, level, resamples, seed)
    except InputError as error:
        reason, _, remedy = str(error).partition("; ")
        return None, [Diagnostic("no_intrinsic", "warning", where, None, reason, remedy)]
    if law.residual_sd <= NOISY:
        return law, []
    noisy = Diagnostic(
        "intrinsic_noise",
        "warning",
        where,
        law.residual_sd,
        f"intrinsic performance scatters by {law.residual_sd:.0%}: its frontier is of lucky runs, "
        "and its exponent comes out too low",
        "more seeds, and more games for each return",
    )
    return law, [noisy]


def _floor(
    points: Points, found: Laws, cost: Cost, level: float
) -> tuple[FloorProfile | None, list[Diagnostic]]:
    """The profile of the surface's floor; a finding where the forecast hangs on it."""
    law = surface_of(found.laws)
    if found.surface is None or law is None or law.method != "vp":
        return None, []
    flops = 10 * float(points.flops.max())
    loss = replace(law, common=CommonError()).loss(flops, cost, level)
    own = float(found.surface.covariance[0, 0])
    if loss is None or not own > 0:
        return None, []
    reach, variance = law.estimate.reach(level), own
    if (drawn := law.estimate.draws) is not None:  # rows of one run share errors
        low, high = np.nanquantile(drawn[:, 0], [0.05, 0.95])
        variance = max(own, ((high - low) / 2 / 1.645) ** 2)
    variance += (found.surface.floor * law.common.reach(level) / reach) ** 2
    columns = (points.params, points.samples, points.loss)
    low, high, theta = parametric.floor_profile(found.surface, *columns, reach, variance / own)
    with np.errstate(invalid="ignore", over="ignore"):
        ends = np.exp(law.ln_loss(theta, flops, cost))
    if not np.isfinite(ends).all():
        return None, []
    profile = FloorProfile(found.surface.floor, low, high, flops, loss, *map(float, ends))
    if np.ptp(ends) <= _CLEARLY * (loss.high - loss.low):
        return profile, []
    return profile, [
        Diagnostic(
            "floor_undetermined",
            "warning",
            "surface, E",
            float(ends.max() / ends.min() - 1),
            f"the floor may be {low:.3g} to {high:.3g}, and with it the loss at 10 times the "
            f"largest budget {ends.min():.4g} to {ends.max():.4g}, more than the rows' scatter "
            f"allows ([{loss.low:.4g}, {loss.high:.4g}])",
            "the loss far out is not known: add larger budgets, seeds or games to measure on",
        )
    ]


def _window(window: float, chosen: Selection, cost: Cost, level: float) -> Window:
    points = chosen.points
    laws = fit_laws(points, resamples=0)
    middle = float(np.exp(np.log(points.flops).mean())) if len(points) else 1.0
    sizes = (law for law in laws.laws if isinstance(law, SizeLaw))
    slopes = {law.method: law.slope(middle, cost, level) for law in sizes}
    return Window(window, len(points), slopes.get("vp"), slopes.get("parabola"))


def _vertices(profiles: Any, chosen: Selection, level: float) -> tuple[Vertex, ...]:
    if profiles is None:
        return ()
    result = []
    for k, budget in enumerate(chosen.used):
        if not np.isfinite(profiles.vertex[0, k]) or not np.isfinite(profiles.vertex_var[k]):
            continue
        ends = []
        for value, variance in (
            (profiles.vertex[0, k], profiles.vertex_var[k]),
            (profiles.minimum[0, k], profiles.minimum_var[k]),
        ):
            one = Estimate(np.array([value]), profiles.dof, covariance=np.array([[variance]]))
            ends.append(exponential(one.interval(lambda theta: theta[:, 0], level)))
        if ends[0] is None or ends[1] is None:
            continue
        a, b, c = (float(x) for x in profiles.coefficients[k])
        centre = float(profiles.centre[k])
        flops = float(profiles.compute[k])
        result.append(Vertex(budget.label, flops, ends[0], ends[1], (a, b, c), centre))
    return tuple(result)


SCHEMA = 1
_LIMIT = 256 * files.MEGABYTE


def fit_json(fit: Fit) -> dict[str, Any]:
    """The content of `fit.json`; `sha256` of the rest comes last."""
    value = {
        "schema": SCHEMA,
        "nhzoo": fit.version,
        "source": fit.source,
        "data_sha256": fit.data_sha256,
        "options": fit.options,
        "cost": fit.cost.as_json(),
        "flop_model": fit.flop_model,
        "kind": fit.kind,
        "unique_limit": fit.unique_limit,
        "estimates": fit.estimates(),
        "diagnostics": [asdict(d) for d in fit.diagnostics],
        "holdouts": [asdict(h) for h in fit.holdouts],
        "windows": [asdict(w) for w in fit.windows],
        "returns": [law.as_json() for law in fit.returns],
        "intrinsic": None if fit.intrinsic is None else asdict(fit.intrinsic),
        "floor": None if fit.floor is None else asdict(fit.floor),
        "vertices": [asdict(v) for v in fit.vertices],
        "budgets": [asdict(b) for b in fit.budgets],
        "outliers": list(fit.outliers),
        "laws": [law.as_json() for law in fit.laws],
        "points": fit.points.as_json(),
        "others": fit.others.as_json(),
    }
    return files.seal(value)


def write_fit(path: Path, fitted: Fit) -> None:
    """Write a fit to `fit.json`, atomically."""
    files.atomic_write(path, files.dump_json(fit_json(fitted)))


def read_fit(path: Path) -> Fit:
    """Read a fit from its file; InputError if it is damaged, altered or of another version."""
    return files.read_sealed(path, _LIMIT, SCHEMA, _fit_of, "a fit", "nhzoo fit")


def _fit_of(value: dict[str, Any]) -> Fit:
    return Fit(
        source=str(value["source"]),
        data_sha256=str(value["data_sha256"]),
        options=dict(value["options"]),
        cost=Cost.from_json(value["cost"]),
        points=Points.from_json(value["points"]),
        others=Points.from_json(value["others"]),
        budgets=tuple(Budget(**b) for b in value["budgets"]),
        laws=tuple(law_from_json(law) for law in value["laws"]),
        vertices=tuple(
            Vertex(
                float(v["budget"]),
                float(v["flops"]),
                LawInterval(**v["size"]),
                LawInterval(**v["loss"]),
                tuple(v["coefficients"]),
                float(v["centre"]),
            )
            for v in value["vertices"]
        ),
        returns=tuple(ReturnLaw.from_json(law) for law in value["returns"]),
        holdouts=tuple(Holdout(**h) for h in value["holdouts"]),
        windows=tuple(
            Window(**{**w, "vp": _interval_of(w["vp"]), "parabola": _interval_of(w["parabola"])})
            for w in value["windows"]
        ),
        diagnostics=tuple(Diagnostic(**d) for d in value["diagnostics"]),
        outliers=tuple(value["outliers"]),
        flop_model=value["flop_model"],
        kind=str(value["kind"]),
        unique_limit=value["unique_limit"],
        intrinsic=_intrinsic_of(value.get("intrinsic")),
        floor=_floor_of(value.get("floor")),  # fits of before have none
        version=str(value["nhzoo"]),
    )


def _interval_of(value: Any) -> LawInterval | None:
    return None if value is None else LawInterval(**value)


def _floor_of(value: Any) -> FloorProfile | None:
    return (
        None if value is None else FloorProfile(**{**value, "loss": LawInterval(**value["loss"])})
    )


def _intrinsic_of(value: Any) -> Intrinsic | None:
    if value is None:
        return None
    known = {name: LawInterval(**value[name]) for name in ("x", "y", "exponent")}
    return Intrinsic(**{**value, **known})
