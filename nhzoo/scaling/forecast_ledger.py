"""Every forecast ever frozen, a folder each, with its grade when its run has been trained.

`FOLDER/NAME/forecast.json` is the forecast, `FOLDER/NAME/grade.json` what came of it. Neither is
ever changed: a forecast that a later one replaced before it was graded stays, as superseded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nhzoo.errors import InputError
from nhzoo.runtime import files
from nhzoo.scaling.forecasting import Forecast, read_forecast
from nhzoo.scaling.grading import SPENT, Grade

MOST = 1_000
"""Forecasts read of one folder."""


@dataclass(frozen=True)
class FrozenForecast:
    """One forecast. `superseded_by` names the later one of the same budget; `grade` as graded."""

    name: str
    said: Forecast
    superseded_by: str | None
    grade: dict[str, Any] | None

    @property
    def status(self) -> str:
        """`open`, `superseded`, `hit` or `missed`."""
        if self.grade is not None:
            return "hit" if self.grade["hit"] else "missed"
        return "open" if self.superseded_by is None else "superseded"


def read_forecasts(folder: Path) -> list[FrozenForecast]:
    """All of a folder, oldest first; none where there is no folder.

    InputError when one was changed after it was frozen, or a grade is another forecast's.
    """
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if (path / "forecast.json").is_file())
    if len(paths) > MOST:
        raise InputError(f"{folder}: holds {len(paths):,} forecasts, {MOST:,} are the most")
    read = [(path, read_forecast(path / "forecast.json"), _grade(path)) for path in paths]
    read.sort(key=lambda entry: (entry[1].created, entry[0].name))
    result = []
    for i, (path, said, grade) in enumerate(read):
        if grade is not None and grade["forecast_sha256"] != said.sha256:
            raise InputError(f"{path / 'grade.json'}: is the grade of another forecast; remove it")
        later = [
            other.name
            for other, one, _ in read[i + 1 :]
            if grade is None and abs(math.log(one.flops / said.flops)) <= SPENT
        ]
        result.append(FrozenForecast(path.name, said, later[-1] if later else None, grade))
    return result


def write_grade(path: Path, grade: Grade) -> None:
    """Write a grade; InputError where another one is, for a grade is never changed either."""
    value = grade.as_json()
    value["sha256"] = files.content_hash(value)
    if path.exists() and files.read_json(path) != files.parse_json(files.dump_json(value), "it"):
        raise InputError(f"{path}: holds another grade, and none is ever changed; give another")
    files.atomic_write(path, files.dump_json(value))


def _grade(folder: Path) -> dict[str, Any] | None:
    path = folder / "grade.json"
    if not path.exists():
        return None
    value = files.read_json(path)
    if value.get("sha256") != files.content_hash(value):
        raise InputError(f"{path}: was changed after it was written (its sha256 does not fit)")
    if not isinstance(value.get("hit"), bool) or not isinstance(value.get("loss"), dict):
        raise InputError(f"{path}: not a grade; make it with nhzoo grade --out")
    return value
