"""Scaling laws of a table of runs: choose the rows, fit, say how sure and what is wrong.

`fit` is what `nhzoo fit` does; a `Fit` is written to and read from `fit.json`, which holds the rows
it rests on, so that a forecast or a plot needs nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nhzoo import __version__, files, law_checks, return_laws
from nhzoo.diagnostics import Diagnostic
from nhzoo.errors import InputError
from nhzoo.holdouts import Holdout, rolling
from nhzoo.law_intervals import LEVEL, RESAMPLES, Interval, Spread, exponential
from nhzoo.laws import DEFAULT_METHODS, METHODS, Law, fit_laws
from nhzoo.ledger import RunRow
from nhzoo.return_laws import ReturnLaw
from nhzoo.run_points import WINDOW, Budget, Duplicates, Metric, Points, Selection, select
from nhzoo.training_cost import Cost, from_rows

Array = npt.NDArray[np.float64]

SCHEMA = 1
_LIMIT = 256 * files.MEGABYTE


@dataclass(frozen=True)
class Vertex:
    """The optimum of one budget's parabola; `size`, `loss` with 90 % intervals."""

    budget: float
    flops: float
    size: Interval
    loss: Interval
    coefficients: tuple[float, float, float]
    centre: float


@dataclass(frozen=True)
class Fit:
    """All that was found. `points` are the rows fitted, `others` the rows left out.

    `reference` is the geometric middle of the fitted rows' FLOPs: where an exponent that is not
    constant is stated. `outliers` are rows (numbers in the table) that Huber's loss downweights
    below 0.3. `unique_limit` is the largest number of unique samples that any row names.
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
    diagnostics: tuple[Diagnostic, ...]
    outliers: tuple[int, ...]
    flop_model: str | None
    kind: str
    unique_limit: float | None
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

    def exponent(self, method: str) -> Interval | None:
        """Of N_opt ~ C^a, at `reference`."""
        law = self.law(method)
        if law is None:
            return None
        return law.slope(self.reference, self.cost, self.options["interval"])

    def size(self, method: str, flops: float) -> Interval | None:
        """N_opt at a budget."""
        law = self.law(method)
        return None if law is None else law.size(flops, self.cost, self.options["interval"])

    def loss(self, method: str, flops: float, one_run: bool = False) -> Interval | None:
        """L_opt at a budget, see `Law.loss`."""
        law = self.law(method)
        if law is None:
            return None
        return law.loss(flops, self.cost, self.options["interval"], one_run)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """Diagnostics of level error."""
        return tuple(d for d in self.diagnostics if d.level == "error")

    def as_json(self) -> dict[str, Any]:
        """The file's content, `sha256` last."""
        value: dict[str, Any] = {
            "schema": SCHEMA,
            "nhzoo": self.version,
            "source": self.source,
            "data_sha256": self.data_sha256,
            "options": self.options,
            "cost": self.cost.as_json(),
            "flop_model": self.flop_model,
            "kind": self.kind,
            "unique_limit": self.unique_limit,
            "estimates": self.estimates(),
            "diagnostics": [asdict(d) for d in self.diagnostics],
            "holdouts": [asdict(h) for h in self.holdouts],
            "returns": [law.as_json() for law in self.returns],
            "vertices": [asdict(v) for v in self.vertices],
            "budgets": [asdict(b) for b in self.budgets],
            "outliers": list(self.outliers),
            "laws": [_law_json(law) for law in self.laws],
            "points": _points_json(self.points),
            "others": _points_json(self.others),
        }
        value["sha256"] = content_hash(value)
        return value

    def estimates(self) -> dict[str, Any]:
        """What a reader wants of each method: exponents, parameters, residuals, with intervals."""
        result: dict[str, Any] = {}
        for law in self.laws:
            entry: dict[str, Any] = {"points": law.points, "residual_sd": law.noise}
            if law.form != "frontier":
                a = self.exponent(law.method)
                entry["exponent_params"] = None if a is None else asdict(a)
                if a is not None:
                    slope = self.cost.slope(self._middle_size())
                    ends = sorted((1 - slope * a.high, 1 - slope * a.low))
                    d = Interval(1 - slope * a.value, *ends)
                    entry["exponent_samples"] = asdict(d)
            for i, name in enumerate(_NAMES[law.form]):
                found = law.parameter(i, self.options["interval"])
                plain = found if name in ("E", "exponent") else exponential(found)
                entry[name] = None if plain is None else asdict(plain)
            result[law.method] = entry
        return result

    def _middle_size(self) -> float:
        return float(np.exp(np.log(self.points.params).mean()))


_NAMES = {
    "surface": ("E", "A", "B", "alpha", "beta"),
    "line": ("params_at_centre", "exponent"),
    "frontier": ("E", "k", "gamma"),
}


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
    """Fit scaling laws to rows of a table of runs. See `run_points.select` for the choice of rows.

    `methods`: of `laws.METHODS`. `cost`: FLOPs a sample at each size; by default as in the rows.
    `holdout`: at most so many of the top budgets are forecast from those below. The same rows,
    options and seed give the same fit. InputError for what cannot be used at all; what can be used
    but not fitted gives a `Fit` without laws whose diagnostics say why.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise InputError(f"--methods {','.join(unknown)}: known are {', '.join(METHODS)}")
    if not 0.5 <= interval < 1:
        raise InputError(f"--interval {interval}: must be from 0.5 to below 1")
    if resamples < 50:
        raise InputError(f"--resamples {resamples}: 50 are the least")
    chosen = select(
        rows,
        window=window,
        duplicates=duplicates,
        only=only,
        flop_model=flop_model,
        checkpoints=checkpoints,
        metric=metric,
        where=source,
    )
    points = chosen.points
    shown = cost or from_rows(*_columns(points if len(points) else chosen.all_points))
    found = fit_laws(
        points, profiles=chosen.profiles, methods=methods, resamples=resamples, seed=seed
    )
    vertices = _vertices(found.profiles, chosen, interval)
    returns = return_laws.fit_returns(chosen, interval) if metric == "loss" else ()
    tests = rolling(points, shown, holdout, interval, seed) if chosen.profiles else ()
    checks = law_checks.check(chosen, found, shown, tests, returns, cost is not None)
    surface = found.surface
    outliers = points.row[surface.weights < 0.3] if surface is not None else np.empty(0)
    unique = chosen.all_points.unique
    fitted = set(points.row)
    left_out = np.array([row not in fitted for row in chosen.all_points.row], bool)
    return Fit(
        source=source,
        data_sha256=data_hash(chosen.all_points),
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
        diagnostics=(*chosen.diagnostics, *checks),
        outliers=tuple(int(row) for row in outliers),
        flop_model=chosen.flop_models[0] if len(chosen.flop_models) == 1 else None,
        kind=chosen.kinds[0],
        unique_limit=float(np.nanmax(unique)) if np.isfinite(unique).any() else None,
    )


def _columns(points: Points) -> tuple[Array, Array, Array]:
    return points.params, points.samples, points.flops


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
            one = Spread(np.array([value]), profiles.dof, covariance=np.array([[variance]]))
            ends.append(exponential(one.interval(lambda theta: theta[:, 0], level)))
        if ends[0] is None or ends[1] is None:
            continue
        a, b, c = (float(x) for x in profiles.coefficients[k])
        centre = float(profiles.centre[k])
        flops = float(profiles.compute[k])
        result.append(Vertex(budget.label, flops, ends[0], ends[1], (a, b, c), centre))
    return tuple(result)


def data_hash(points: Points) -> str:
    """sha256 of the rows that were read, by their values."""
    return content_hash(_points_json(points))


def content_hash(value: dict[str, Any]) -> str:
    """sha256 of a JSON object without its `sha256`, keys sorted."""
    plain = {key: item for key, item in value.items() if key != "sha256"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _points_json(points: Points) -> dict[str, list[Any]]:
    result: dict[str, list[Any]] = {"run": list(points.run)}
    for field in fields(Points):
        if field.name != "run":
            column = getattr(points, field.name).tolist()
            result[field.name] = [None if math.isnan(x) else x for x in column]
    return result


def _law_json(law: Law) -> dict[str, Any]:
    spread = law.spread

    def plain(array: Array | None) -> Any:
        if array is None:
            return None
        return [[x if math.isfinite(x) else None for x in row] for row in array.tolist()]

    return {
        "method": law.method,
        "form": law.form,
        "theta": [x if math.isfinite(x) else None for x in spread.theta.tolist()],
        "dof": spread.dof,
        "covariance": plain(spread.covariance),
        "draws": plain(spread.draws),
        "noise": law.noise,
        "points": law.points,
        "centre": law.centre,
    }


def write_fit(path: Path, fitted: Fit) -> None:
    """Write `fit.json`, whole or not at all."""
    files.atomic_write(path, files.dump_json(fitted.as_json()))


def read_fit(path: Path) -> Fit:
    """A fit from its file; InputError when it is damaged, altered or of another version."""
    value = files.read_json(path, _LIMIT)
    if value.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a fit of this version; make it with nhzoo fit")
    if value.get("sha256") != content_hash(value):
        raise InputError(f"{path}: was changed after it was written; make it anew with nhzoo fit")
    try:
        return Fit(
            source=str(value["source"]),
            data_sha256=str(value["data_sha256"]),
            options=dict(value["options"]),
            cost=Cost.from_json(value["cost"]),
            points=_points_of(value["points"]),
            others=_points_of(value["others"]),
            budgets=tuple(Budget(**b) for b in value["budgets"]),
            laws=tuple(_law_of(law) for law in value["laws"]),
            vertices=tuple(
                Vertex(
                    float(v["budget"]),
                    float(v["flops"]),
                    Interval(**v["size"]),
                    Interval(**v["loss"]),
                    tuple(v["coefficients"]),
                    float(v["centre"]),
                )
                for v in value["vertices"]
            ),
            returns=tuple(ReturnLaw.from_json(law) for law in value["returns"]),
            holdouts=tuple(Holdout(**h) for h in value["holdouts"]),
            diagnostics=tuple(Diagnostic(**d) for d in value["diagnostics"]),
            outliers=tuple(value["outliers"]),
            flop_model=value["flop_model"],
            kind=str(value["kind"]),
            unique_limit=value["unique_limit"],
            version=str(value["nhzoo"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a fit ({type(error).__name__}: {error})") from None


def _array(value: Any) -> Array:
    return np.array([math.nan if x is None else float(x) for x in value], np.float64)


def _points_of(value: dict[str, Any]) -> Points:
    columns = {f.name: _array(value[f.name]) for f in fields(Points) if f.name != "run"}
    points = Points(run=tuple(str(run) for run in value["run"]), **columns)
    if any(len(column) != len(points) for column in columns.values()):
        raise ValueError("columns of unequal length")
    return points


def _law_of(value: dict[str, Any]) -> Law:
    def rows(name: str) -> Array | None:
        if value[name] is None:
            return None
        return np.array([_array(row) for row in value[name]], np.float64)

    theta = _array(value["theta"])
    if value["form"] not in _NAMES or len(theta) != len(_NAMES[value["form"]]):
        raise ValueError(f"law {value['method']}")
    spread = Spread(theta, int(value["dof"]), rows("covariance"), rows("draws"))
    return Law(
        str(value["method"]),
        str(value["form"]),
        spread,
        float(value["noise"]),
        int(value["points"]),
        float(value["centre"]),
    )
