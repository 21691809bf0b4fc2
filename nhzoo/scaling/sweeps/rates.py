"""The law of the best learning rate: ln lr = c + n ln N + d ln D, from runs at several rates.

A cell, one size at one budget, that was trained at three rates or more has a best one: the vertex
of the parabola of its loss against ln lr. The law goes through these by least squares. A cell whose
lowest loss is at its first or last rate only says on which side the best one lies; it is left out.
The form is that of Step Law (Li et al., arXiv 2503.04715), there of language models; Porian et al.
(arXiv 2406.19146) show what a rate that is not tuned does to a law of sizes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
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
_NAMES = ("c", "n", "d")
_SAME = 0.02  # sizes and budgets nearer than that (ln) are one


@dataclass(frozen=True)
class BestRate:
    """The best rate of a cell. `curvature`: how much loss ln(lr / best)^2 costs."""

    params: float
    samples: float
    flops: float
    lr: float
    loss: float
    curvature: float
    rates: int


@dataclass(frozen=True)
class RateLaw:
    """`c`, `n` and `d` of ln lr = c + n ln N + d ln D with their covariance [3, 3].

    `rms`: of the cells' ln lr about the law.
    """

    theta: tuple[float, float, float]
    covariance: tuple[tuple[float, ...], ...]
    rms: float
    cells: tuple[BestRate, ...]
    diagnostics: tuple[Diagnostic, ...]
    source: str
    version: str = __version__

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
        """The best rate of a size and its samples, with the interval of one more cell."""
        at = np.array([1.0, math.log(params), math.log(samples)])
        found = self._estimate.interval(lambda theta: theta @ at, LEVEL, self.rms)
        return None if found is None else LawInterval(*(math.exp(x) for x in vars(found).values()))

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        value = {"schema": SCHEMA, "nhzoo": self.version, "source": self.source}
        value |= {name: asdict(found) for name in _NAMES if (found := self.parameter(name))}
        value |= {
            "theta": list(self.theta),
            "covariance": [list(row) for row in self.covariance],
            "rms": self.rms,
            "cells": [asdict(cell) for cell in self.cells],
            "diagnostics": [asdict(finding) for finding in self.diagnostics],
        }
        return files.seal(value)


@dataclass(frozen=True)
class RateGrade:
    """A cell's best rate against what a law had said of it.

    `cost`: the share by which the law's rate raises the loss over the best.
    """

    params: float
    samples: float
    forecast: LawInterval
    observed: float
    cost: float

    @property
    def hit(self) -> bool:
        """Whether it lies in the interval."""
        return self.forecast.low <= self.observed <= self.forecast.high


def best_rates(rows: Sequence[RunRow]) -> tuple[list[BestRate], list[Diagnostic]]:
    """The best rate of each cell that has one, and what is wrong with the others."""
    found, findings = [], []
    for cell in _cells(rows):
        where = f"{cell[0].params:,} parameters, {cell[0].flops:.3g} FLOPs"
        by_rate: dict[float, list[float]] = defaultdict(list)
        for row in cell:
            if row.lr and row.loss is not None:
                by_rate[row.lr].append(row.loss)
        rates = np.array(sorted(by_rate))
        if len(rates) < LEAST_RATES:
            findings.append(
                Diagnostic(
                    *("too_few_rates", "note", where, len(rates)),
                    f"{len(rates)} learning rates, {LEAST_RATES} are the least; the cell is left "
                    "out",
                    "train it at more: nhzoo sweep plan --rates 0.5,1,2",
                )
            )
            continue
        losses = np.array([np.mean(by_rate[rate]) for rate in rates])
        best = int(losses.argmin())
        if best in (0, len(rates) - 1):
            end = "lowest" if best == 0 else "highest"
            findings.append(
                Diagnostic(
                    *("edge_rate", "error", where, float(rates[best])),
                    f"the {end} rate, {rates[best]:.3g}, is the best, so which would be is not "
                    "known; the cell is left out",
                    f"add a {'lower' if best == 0 else 'higher'} one",
                )
            )
            continue
        x = np.log(rates)
        near = slice(best - 1, best + 2)  # a parabola is right near its vertex only
        bent, slope, height = np.polyfit(x[near], losses[near], 2)
        vertex = -slope / (2 * bent)
        found.append(
            BestRate(
                params=_middle(row.params for row in cell),
                samples=_middle(row.samples for row in cell),
                flops=_middle(row.flops for row in cell),
                lr=math.exp(vertex),
                loss=float(height + slope * vertex / 2),
                curvature=float(bent),
                rates=len(rates),
            )
        )
    return found, findings


def fit_rates(rows: Sequence[RunRow], source: str = "the table") -> RateLaw:
    """Fit the law to the cells of a table of runs; InputError where they do not carry one."""
    cells, findings = best_rates(rows)
    x = np.array([[1.0, math.log(cell.params), math.log(cell.samples)] for cell in cells])
    y = np.log([cell.lr for cell in cells])
    if len(cells) <= len(_NAMES) or np.linalg.matrix_rank(x - x.mean(0), tol=0.1) < 2:
        reasons = "".join(f"; {finding}" for finding in findings[:3])
        raise InputError(
            f"{source}: {len(cells)} cells have a best learning rate; a law needs 4 or more, of "
            f"several sizes and several samples{reasons}"
        )
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
    )


def grade_rates(law: RateLaw, rows: Sequence[RunRow], source: str) -> list[RateGrade]:
    """What the law had said of the cells of another table; InputError when it has none."""
    cells, findings = best_rates(rows)
    grades = []
    for cell in cells:
        forecast = law.rate(cell.params, cell.samples)
        if forecast is not None:
            cost = cell.curvature * math.log(forecast.value / cell.lr) ** 2 / cell.loss
            grades.append(RateGrade(cell.params, cell.samples, forecast, cell.lr, cost))
    if not grades:
        reasons = "".join(f"; {finding}" for finding in findings[:3])
        raise InputError(f"{source}: no cell has a best learning rate to hold the law to{reasons}")
    return grades


def write_rates(path: Path, law: RateLaw) -> None:
    """Freeze a law in a file; CheckFailed where there is one already."""
    if path.exists():
        raise CheckFailed(f"{path}: is frozen already and stays; name another file")
    files.atomic_write(path, files.dump_json(law.as_json()))


def read_rates(path: Path) -> RateLaw:
    """Read a frozen law; InputError if the file is none, or was changed."""
    what, maker = "a law of learning rates", "nhzoo sweep rates -o"
    return files.read_sealed(path, 16 * files.MEGABYTE, SCHEMA, _law_of, what, maker)


def _law_of(value: dict[str, Any]) -> RateLaw:
    c, n, d = (float(x) for x in value["theta"])
    return RateLaw(
        (c, n, d),
        tuple(tuple(float(x) for x in row) for row in value["covariance"]),
        float(value["rms"]),
        tuple(BestRate(**cell) for cell in value["cells"]),
        tuple(Diagnostic(**finding) for finding in value["diagnostics"]),
        str(value["source"]),
        str(value["nhzoo"]),
    )


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
