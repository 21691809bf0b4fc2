"""Laws of the best learning rate, batch or horizon: ln lr = c + n ln N + d ln D.

A cell, one size at one budget, that was trained at three values or more has a best one: the vertex
of the parabola of its loss against the value's log. The law goes through these by least squares. A
cell whose lowest loss is at its first or last value only says on which side the best one lies; it
is left out. The form is that of Step Law (Li et al., arXiv 2503.04715), there of language models;
Porian et al. (arXiv 2406.19146) show what a rate that is not tuned does to a law of sizes. The
budgets at the top are held out in turn, so that a law shows what its forecasts are worth.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nhzoo import __version__
from nhzoo.errors import CheckFailed, InputError
from nhzoo.runtime import files
from nhzoo.scaling.intervals import LEVEL, Estimate, LawInterval
from nhzoo.scaling.runs import Diagnostic
from nhzoo.training.run_table import RunRow

Array = npt.NDArray[np.float64]

SCHEMA = 1
LEAST_RATES = 3
COLUMNS = {"lr": "learning rate", "batch": "batch", "horizon": "horizon"}
"""Columns of a table that a law can be of, and what they are called."""
_NAMES = ("c", "n", "d")
_SAME = 0.02  # sizes and budgets nearer than that (ln) are one


@dataclass(frozen=True)
class BestRate:
    """The best value of a cell. `curvature`: how much loss ln(value / best)^2 costs."""

    params: float
    samples: float
    flops: float
    value: float
    loss: float
    curvature: float
    rates: int


@dataclass(frozen=True)
class RateGrade:
    """A cell's best value against what a law had said of it.

    `cost`: the share by which the law's value raises the loss over the best. `constant_cost`: the
    same of one value for all, the middle of those that the law was fitted to.
    """

    params: float
    samples: float
    forecast: LawInterval
    observed: float
    cost: float
    constant_cost: float = math.nan

    @property
    def hit(self) -> bool:
        """Whether it lies in the interval."""
        return self.forecast.low <= self.observed <= self.forecast.high


@dataclass(frozen=True)
class RateLaw:
    """`c`, `n` and `d` of ln value = c + n ln N + d ln D with their covariance [3, 3].

    `column` names what the value is. `rms`: of the cells' ln value about the law. `holdouts`: the
    cells of the largest budget, forecast from the others.
    """

    theta: tuple[float, float, float]
    covariance: tuple[tuple[float, ...], ...]
    rms: float
    cells: tuple[BestRate, ...]
    diagnostics: tuple[Diagnostic, ...]
    source: str
    version: str = __version__
    column: str = "lr"
    holdouts: tuple[RateGrade, ...] = ()

    @property
    def _estimate(self) -> Estimate:
        return Estimate(np.array(self.theta), self._dof, np.array(self.covariance))

    @property
    def _dof(self) -> int:
        return len(self.cells) - len(_NAMES)

    def parameter(self, name: str) -> LawInterval | None:
        """`c`, `n` or `d` with its 90 % interval."""
        place = _NAMES.index(name)
        return self._estimate.interval(lambda theta: theta[:, place])

    def rate(self, params: float, samples: float) -> LawInterval | None:
        """The best value for a size and its samples, with the interval of one more cell."""
        at = np.array([1.0, math.log(params), math.log(samples)])
        found = self._estimate.interval(lambda theta: theta @ at, LEVEL, self.rms)
        return None if found is None else LawInterval(*(math.exp(x) for x in vars(found).values()))

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        value = {"schema": SCHEMA, "nhzoo": self.version, "source": self.source}
        value |= {
            "column": self.column,
            "holdouts": [asdict(h) | {"hit": h.hit} for h in self.holdouts],
        }
        value |= {name: asdict(found) for name in _NAMES if (found := self.parameter(name))}
        value |= {
            "theta": list(self.theta),
            "covariance": [list(row) for row in self.covariance],
            "rms": self.rms,
            "cells": [asdict(cell) for cell in self.cells],
            "diagnostics": [asdict(finding) for finding in self.diagnostics],
        }
        return files.seal(value)


def best_rates(
    rows: Sequence[RunRow], column: str = "lr"
) -> tuple[list[BestRate], list[Diagnostic]]:
    """The best value of each cell that has one, and what is wrong with the others.

    Seeds of one value are averaged. Where the rows of a value differ in another of the `COLUMNS`,
    those that do best count.
    """
    found, findings = [], []
    name, others = COLUMNS[column], [other for other in COLUMNS if other != column]
    for cell in _cells(rows):
        where = f"{cell[0].params:,} parameters, {cell[0].flops:.3g} FLOPs"
        by_value: dict[float, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in cell:
            if (at := getattr(row, column)) and row.loss is not None:
                by_value[float(at)][tuple(getattr(row, o) for o in others)].append(row.loss)
        values = np.array(sorted(by_value))
        if len(values) < LEAST_RATES:
            findings.append(
                Diagnostic(
                    *("too_few_rates", "note", where, len(values)),
                    f"{len(values)} values of the {name}, {LEAST_RATES} are the least; the cell is "
                    "left out",
                    "train it at more"
                    + (": nhzoo sweep plan --rates 0.5,1,2" if column == "lr" else ""),
                )
            )
            continue
        losses = np.array([min(map(np.mean, by_value[value].values())) for value in values])
        best = int(losses.argmin())
        if best in (0, len(values) - 1):
            end = "lowest" if best == 0 else "highest"
            findings.append(
                Diagnostic(
                    *("edge_rate", "error", where, float(values[best])),
                    f"the {end} {name}, {values[best]:.3g}, is the best, so which would be is not "
                    "known; the cell is left out",
                    f"add a {'lower' if best == 0 else 'higher'} one",
                )
            )
            continue
        x = np.log(values)
        near = slice(best - 1, best + 2)  # a parabola is right near its vertex only
        bent, slope, height = np.polyfit(x[near], losses[near], 2)
        vertex = -slope / (2 * bent)
        found.append(
            BestRate(
                params=_middle(row.params for row in cell),
                samples=_middle(row.samples for row in cell),
                flops=_middle(row.flops for row in cell),
                value=math.exp(vertex),
                loss=float(height + slope * vertex / 2),
                curvature=float(bent),
                rates=len(values),
            )
        )
    return found, findings


def fit_rates(rows: Sequence[RunRow], source: str = "the table", column: str = "lr") -> RateLaw:
    """Fit the law of a column to the cells of a table; InputError where they do not carry one."""
    if column not in COLUMNS:
        raise InputError(f"--optimum {column}: give {', '.join(COLUMNS)}")
    cells, findings = best_rates(rows, column)
    law = _law(cells, findings, source, column)
    if law is None:
        reasons = "".join(f"; {finding}" for finding in findings[:3])
        raise InputError(
            f"{source}: {len(cells)} cells have a best {COLUMNS[column]}; a law needs 4 or more, "
            f"of several sizes and several samples{reasons}"
        )
    top = max(cell.flops for cell in cells)
    below = [cell for cell in cells if cell.flops < top * math.exp(-_SAME)]
    known = _law(below, (), source, column)
    held = [cell for cell in cells if cell not in below]
    return replace(law, holdouts=tuple(_grades(known, held)) if known else ())


def _law(
    cells: Sequence[BestRate], findings: Sequence[Diagnostic], source: str, column: str
) -> RateLaw | None:
    """The law through some cells; None where they are too few or too alike."""
    x = np.array([[1.0, math.log(cell.params), math.log(cell.samples)] for cell in cells])
    y = np.log([cell.value for cell in cells])
    if len(cells) <= len(_NAMES) or np.linalg.matrix_rank(x - x.mean(0), tol=0.1) < 2:
        return None
    theta, *_ = np.linalg.lstsq(x, y)
    off = y - x @ theta
    variance = float(off @ off) / (len(y) - len(_NAMES))
    covariance = variance * np.linalg.inv(x.T @ x)
    return RateLaw(
        (float(theta[0]), float(theta[1]), float(theta[2])),
        tuple(tuple(row) for row in covariance.tolist()),
        math.sqrt(variance),
        tuple(cells),
        tuple(findings),
        source,
        column=column,
    )


def _grades(law: RateLaw, cells: Sequence[BestRate]) -> list[RateGrade]:
    middle = _middle(cell.value for cell in law.cells)
    grades = []
    for cell in cells:
        forecast = law.rate(cell.params, cell.samples)
        if forecast is not None:
            cost, constant = (
                cell.curvature * math.log(value / cell.value) ** 2 / cell.loss
                for value in (forecast.value, middle)
            )
            grades.append(
                RateGrade(cell.params, cell.samples, forecast, cell.value, cost, constant)
            )
    return grades


def grade_rates(law: RateLaw, rows: Sequence[RunRow], source: str) -> list[RateGrade]:
    """What the law had said of the cells of another table; InputError when it has none."""
    cells, findings = best_rates(rows, law.column)
    grades = _grades(law, cells)
    if not grades:
        reasons = "".join(f"; {finding}" for finding in findings[:3])
        raise InputError(
            f"{source}: no cell has a best {COLUMNS[law.column]} to hold the law to{reasons}"
        )
    return grades


def write_rates(path: Path, law: RateLaw) -> None:
    """Freeze a law in a file; CheckFailed where there is one already."""
    if path.exists():
        raise CheckFailed(f"{path}: is frozen already and stays; name another file")
    files.atomic_write(path, files.dump_json(law.as_json()))


def read_rates(path: Path) -> RateLaw:
    """Read a frozen law; InputError if the file is none, or was changed."""
    what, maker = "a law of a hyperparameter", "nhzoo fit --optimum lr -o"
    return files.read_sealed(path, 16 * files.MEGABYTE, SCHEMA, _law_of, what, maker)


def _law_of(value: dict[str, Any]) -> RateLaw:
    c, n, d = (float(x) for x in value["theta"])
    column = str(value.get("column", "lr"))  # laws of before are of it
    if column not in COLUMNS:
        raise ValueError(f"a law of {column[:64]}")
    return RateLaw(
        (c, n, d),
        tuple(tuple(float(x) for x in row) for row in value["covariance"]),
        float(value["rms"]),
        tuple(_best(cell) for cell in value["cells"]),
        tuple(Diagnostic(**finding) for finding in value["diagnostics"]),
        str(value["source"]),
        str(value["nhzoo"]),
        column,
        tuple(_grade(grade) for grade in value.get("holdouts", ())),
    )


def _best(cell: dict[str, Any]) -> BestRate:
    renamed = {"value" if name == "lr" else name: value for name, value in cell.items()}
    return BestRate(**renamed)


def _grade(grade: dict[str, Any]) -> RateGrade:
    given = {name: value for name, value in grade.items() if name != "hit"}
    return RateGrade(**given | {"forecast": LawInterval(**given["forecast"])})


def _cells(rows: Sequence[RunRow]) -> list[list[RunRow]]:
    """Rows of one size and budget each, smallest first."""
    done = [row for row in rows if not getattr(row, "checkpoint", False)]
    cells: list[list[RunRow]] = []
    for row in sorted(done, key=lambda row: (row.flops_budget or row.flops, row.params)):
        last = cells[-1][0] if cells else None
        if last and _near(last.params, row.params) and _near(_budget(last), _budget(row)):
            cells[-1].append(row)
        else:
            cells.append([row])
    return cells


def _budget(row: RunRow) -> float:
    return row.flops_budget or row.flops


def _near(one: float, other: float) -> bool:
    return abs(math.log(one / other)) < _SAME


def _middle(values: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log(list(values)))))
