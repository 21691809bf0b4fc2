"""Rows of a table of runs as columns of numbers.

Everything is float64: 6 x params x samples leaves int64 above 9.2e18.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Points:
    """Columns of n rows, [n] float64 each, NaN where a row has no value.

    `budget` is the nominal compute that groups rows, `flops` what was really spent, `row` the row's
    number in the table (the first is 1).
    """

    run: tuple[str, ...]
    row: Array
    params: Array
    samples: Array
    flops: Array
    budget: Array
    loss: Array
    loss_se: Array
    mean_return: Array
    se_return: Array
    unique: Array
    lr: Array
    seed: Array

    def __len__(self) -> int:
        return len(self.run)

    def take(self, index: Mask | npt.NDArray[np.intp]) -> Points:
        """The rows that a mask or a list of positions names."""
        places = np.flatnonzero(index) if index.dtype == bool else index
        columns = {f.name: getattr(self, f.name)[places] for f in fields(self) if f.name != "run"}
        return Points(run=tuple(self.run[int(i)] for i in places), **columns)

    @property
    def clusters(self) -> npt.NDArray[np.intp]:
        """Which rows are of one run: [n], numbers from 0."""
        return np.unique(np.array(self.run), return_inverse=True)[1]

    def as_json(self) -> dict[str, list[Any]]:
        """The columns as JSON lists, null where a row has no value."""
        result: dict[str, list[Any]] = {"run": list(self.run)}
        for field in fields(self):
            if field.name != "run":
                column = getattr(self, field.name).tolist()
                result[field.name] = [None if math.isnan(x) else x for x in column]
        return result

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Points:
        """The inverse; KeyError, TypeError or ValueError for what is none."""
        columns = {f.name: floats(value[f.name]) for f in fields(cls) if f.name != "run"}
        points = cls(run=tuple(str(run) for run in value["run"]), **columns)
        if any(len(column) != len(points) for column in columns.values()):
            raise ValueError("columns of unequal length")
        return points


def floats(values: Sequence[Any]) -> Array:
    """A float64 array of JSON numbers, NaN for null."""
    return np.array([math.nan if x is None else float(x) for x in values], np.float64)
