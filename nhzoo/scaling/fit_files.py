"""The file of a fit: all that was found and the rows it rests on, under a hash.

A forecast or a figure needs nothing else.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nhzoo.errors import InputError
from nhzoo.runtime import files
from nhzoo.scaling.backtest import Holdout
from nhzoo.scaling.fitting import PARAMETERS, Fit, Vertex, Window
from nhzoo.scaling.intervals import Interval, Spread
from nhzoo.scaling.intrinsic import Intrinsic
from nhzoo.scaling.laws import Law
from nhzoo.scaling.returns import ReturnLaw
from nhzoo.scaling.run_diagnostics import Diagnostic
from nhzoo.scaling.run_points import Points, floats
from nhzoo.scaling.run_selection import Budget
from nhzoo.scaling.training_cost import Cost

Array = npt.NDArray[np.float64]

SCHEMA = 1
_LIMIT = 256 * files.MEGABYTE


def fit_json(fit: Fit) -> dict[str, Any]:
    """The file's content, `sha256` of all else last."""
    value: dict[str, Any] = {
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
        "vertices": [asdict(v) for v in fit.vertices],
        "budgets": [asdict(b) for b in fit.budgets],
        "outliers": list(fit.outliers),
        "laws": [_law_json(law) for law in fit.laws],
        "points": fit.points.as_json(),
        "others": fit.others.as_json(),
    }
    value["sha256"] = files.content_hash(value)
    return value


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
    files.atomic_write(path, files.dump_json(fit_json(fitted)))


def read_fit(path: Path) -> Fit:
    """A fit from its file; InputError when it is damaged, altered or of another version."""
    value = files.read_json(path, _LIMIT)
    if value.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a fit of this version; make it with nhzoo fit")
    if value.get("sha256") != files.content_hash(value):
        raise InputError(f"{path}: was changed after it was written; make it anew with nhzoo fit")
    try:
        return Fit(
            source=str(value["source"]),
            data_sha256=str(value["data_sha256"]),
            options=dict(value["options"]),
            cost=Cost.from_json(value["cost"]),
            points=Points.from_json(value["points"]),
            others=Points.from_json(value["others"]),
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
            windows=tuple(
                Window(w["window"], w["points"], _interval_of(w["vp"]), _interval_of(w["parabola"]))
                for w in value["windows"]
            ),
            diagnostics=tuple(Diagnostic(**d) for d in value["diagnostics"]),
            outliers=tuple(value["outliers"]),
            flop_model=value["flop_model"],
            kind=str(value["kind"]),
            unique_limit=value["unique_limit"],
            intrinsic=_intrinsic_of(value.get("intrinsic")),
            version=str(value["nhzoo"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a fit ({type(error).__name__}: {error})") from None


def _interval_of(value: Any) -> Interval | None:
    return None if value is None else Interval(**value)


def _intrinsic_of(value: Any) -> Intrinsic | None:
    if value is None:
        return None
    known = {name: Interval(**value[name]) for name in ("x", "y", "exponent")}
    return Intrinsic(**{**value, **known})


def _law_of(value: dict[str, Any]) -> Law:
    def rows(name: str) -> Array | None:
        if value[name] is None:
            return None
        return np.array([floats(row) for row in value[name]], np.float64)

    theta = floats(value["theta"])
    if value["form"] not in PARAMETERS or len(theta) != len(PARAMETERS[value["form"]]):
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
