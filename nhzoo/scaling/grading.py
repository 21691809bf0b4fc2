"""Grading of a frozen forecast against the run that was trained for it.

The ledger of forecasts holds every forecast ever frozen, a folder each.
`FOLDER/NAME/forecast.json` is the forecast, `FOLDER/NAME/grade.json` what came of it. Neither is
ever changed: a forecast that a later one replaced before it was graded stays, as superseded.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import statistics
from nhzoo.runtime import files
from nhzoo.scaling.forecasting import Forecast, read_forecast
from nhzoo.scaling.intervals import LawInterval
from nhzoo.training import run_table
from nhzoo.training.run_table import LedgerRow, RunRow

SPENT = 0.1
"""A run whose FLOPs differ from the forecast's by more is not the run that was forecast."""


@dataclass(frozen=True)
class Outcome:
    """One quantity: forecast, observed, `error` = forecast / observed - 1."""

    forecast: float
    low: float
    high: float
    observed: float
    error: float
    hit: bool


@dataclass(frozen=True)
class Rival:
    """A baseline's forecast of the loss, its error, and whether the forecast came nearer."""

    forecast: float
    error: float
    beaten: bool


@dataclass(frozen=True)
class Grade:
    """The verdict. `*_ratio`: the run's over the forecast's. `baselines`: see `predictions`."""

    run_id: str
    flops: float
    params: int
    samples: int
    flops_ratio: float
    params_ratio: float
    samples_ratio: float
    loss: Outcome
    ret: Outcome | None
    return_ci95: tuple[float, float] | None
    baselines: dict[str, Rival]
    warnings: tuple[str, ...]
    forecast_sha256: str
    fit_sha256: str
    forecast_created: str

    @property
    def hit(self) -> bool:
        """Whether everything that was measured lies in its interval."""
        return self.loss.hit and (self.ret is None or self.ret.hit)

    @property
    def beats_baselines(self) -> bool:
        """Whether the forecast of the loss came nearer than every baseline."""
        return all(rival.beaten for rival in self.baselines.values())

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        value = asdict(self)
        value["return"] = value.pop("ret")
        return {**value, "hit": self.hit, "beats_baselines": self.beats_baselines}


def grade(forecast: Forecast, run: RunRow, result: Path | None = None) -> Grade:
    """Grade a forecast against a run, and its return against a result folder or the run's own.

    CheckFailed if the run cannot be the one that was forecast (its FLOPs differ by 10 % or more).
    """
    if run.loss is None:
        raise InputError(f"{run.run_id}: has no loss, as no game of it had ended; train longer")
    spent = run.flops / forecast.flops
    if abs(math.log(spent)) > SPENT:
        raise CheckFailed(
            f"{run.run_id}: spent {run.flops:.4g} FLOPs, the forecast is for {forecast.flops:.4g}; "
            "give the run that was trained for it"
        )
    warnings = []
    for name, now, then in (
        ("params", run.params, forecast.params),
        ("samples", run.samples, forecast.samples),
    ):
        if abs(now / then - 1) > SPENT:
            warnings.append(f"{name}: {now:,} were trained, {then:,} were forecast")
    if forecast.flop_model and run.flop_model_hash and run.flop_model_hash != forecast.flop_model:
        warnings.append("flop_model_changed: the run's FLOPs were counted in another way")
    if isinstance(run, LedgerRow) and run.checkpoint:
        warnings.append("checkpoint: the run's learning rate had not yet fallen")
    observed, ci95 = _return(run, result)
    ret = None
    if observed is not None and forecast.ret is not None:
        ret = _outcome(forecast.ret, observed)
    loss = _outcome(forecast.loss, run.loss)
    rivals = {}
    for name, value in asdict(forecast.baselines).items():
        if value is not None:
            error = value / run.loss - 1
            rivals[name] = Rival(value, error, abs(error) > abs(loss.error))
    return Grade(
        run.run_id,
        run.flops,
        run.params,
        run.samples,
        spent,
        run.params / forecast.params,
        run.samples / forecast.samples,
        loss,
        ret,
        ci95,
        rivals,
        tuple(warnings),
        forecast.sha256,
        forecast.fit_sha256,
        forecast.created,
    )


def _outcome(predicted: LawInterval, observed: float) -> Outcome:
    error = predicted.value / observed - 1 if observed else math.inf
    hit = predicted.low <= observed <= predicted.high
    return Outcome(predicted.value, predicted.low, predicted.high, observed, error, hit)


def _return(run: RunRow, folder: Path | None) -> tuple[float | None, tuple[float, float] | None]:
    if folder is None:
        return run.mean_return, None
    path = folder / "result.json" if folder.is_dir() else folder
    summary = files.read_json(path, 16 * files.MEGABYTE).get("summary")
    try:
        score = float(summary["mean_score"])  # type: ignore[index]
        return score, statistics.known_interval(summary["mean_score_ci95"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: has no summary with a mean_score; give a result folder"
        ) from None


def find_run(text: str, flops: float) -> RunRow:
    """The run that TABLE:RUN_ID, a table of one run, or a zoo entry's folder names.

    Of several rows of a run it is the one at its end whose FLOPs are nearest `flops`.
    """
    table, colon, name = text.rpartition(":")
    if colon and not Path(text).exists():
        path = Path(table)
        rows = [row for row in run_table.read_runs(path) if row.run_id == name]
        if not rows:
            raise InputError(f"{path}: no row has run_id {name!r}")
    elif Path(text).is_dir():
        return _entry(Path(text))
    else:
        rows = run_table.read_runs(Path(text))
        names = sorted({row.run_id for row in rows})
        if len(names) > 1:
            raise InputError(f"{text}: holds {len(names)} runs; name one as {text}:{names[0]}")
    ends = [row for row in rows if not (isinstance(row, LedgerRow) and row.checkpoint)]
    return min(ends or rows, key=lambda row: abs(math.log(row.flops / flops)))


def _entry(folder: Path) -> RunRow:
    """What a zoo entry says of its training."""
    for name in ("runs.jsonl", "row.json"):
        if (folder / name).exists():
            return find_run(str(folder / name), 1.0)
    config = files.read_json(folder / "config.json", 4 * files.MEGABYTE)
    training = config.get("training")
    try:
        values = {
            "run_id": folder.resolve().name,
            "params": config["params"],
            "samples": training["samples"],  # type: ignore[index]
            "flops": training["flops"],  # type: ignore[index]
            "loss": training["validation"]["loss"],  # type: ignore[index]
            "kind": training.get("method"),  # type: ignore[union-attr]
        }
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{folder}: no zoo entry that says how it was trained; give TABLE:RUN_ID"
        ) from None
    return run_table.parse_row(values, str(folder / "config.json"))


MOST = 1_000
"""Forecasts read of one folder."""


@dataclass(frozen=True)
class FrozenForecast:
    """One forecast. `superseded_by` names the later one of the same budget; `grade` as graded."""

    name: str
    forecast: Forecast
    superseded_by: str | None
    grade: dict[str, Any] | None

    @property
    def status(self) -> str:
        """`open`, `superseded`, `hit` or `missed`."""
        if self.grade is not None:
            return "hit" if self.grade["hit"] else "missed"
        return "open" if self.superseded_by is None else "superseded"


def read_forecasts(folder: Path) -> list[FrozenForecast]:
    """Read all forecasts of a folder, oldest first; none if there is no folder.

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
    for i, (path, forecast, grade) in enumerate(read):
        if grade is not None and grade["forecast_sha256"] != forecast.sha256:
            raise InputError(f"{path / 'grade.json'}: is the grade of another forecast; remove it")
        later = [
            other.name
            for other, one, _ in read[i + 1 :]
            if grade is None and abs(math.log(one.flops / forecast.flops)) <= SPENT
        ]
        result.append(FrozenForecast(path.name, forecast, later[-1] if later else None, grade))
    return result


def write_grade(path: Path, grade: Grade) -> None:
    """Write a grade; InputError if there is another one, since a grade is never changed."""
    value = files.seal(grade.as_json())
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
