"""The table of runs: one row a run and checkpoint, CSV or JSONL, anybody's to write and fit.

Our trainer's rows have more columns, all of them, and a `schema_version`; rows of the trainer
before that have none, and are read like anybody's.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nhzoo import files
from nhzoo.errors import InputError

SCHEMA = 2
MOST_ROWS = 100_000
_LIMIT = 256 * files.MEGABYTE
_READ_OFF = 1_000  # sizes and samples from here on may have a fraction, which is rounded away


@dataclass(frozen=True)
class RunRow:
    """What scaling laws are fitted to. `params` is what the user says it is; ours counts all.

    `samples` and `flops` are those of training (all frames seen, every layer); `loss` is on data
    that was held out. `flops_budget` groups runs that were to spend the same. Rows of one FLOPs
    formula have one `flop_model_hash`, whatever their sizes.
    """

    run_id: str
    params: int
    samples: int
    flops: float
    loss: float
    flops_budget: float | None = None
    loss_se: float | None = None
    mean_return: float | None = None
    se_return: float | None = None
    n_episodes: int | None = None
    unique_samples: int | None = None
    kind: str | None = None
    lr: float | None = None
    lr_tuned: bool | None = None
    seed: int | None = None
    width: int | None = None
    depth: int | None = None
    flop_model_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class LedgerRow(RunRow):
    """A row by our trainer.

    `checkpoint`: measured on the way, when the learning rate had not yet fallen; the last row of a
    run is none. `batch` x `time` x `accumulate` frames make an update, of all `world_size`
    processes together; `threads` are each one's. Of runs that learn by playing (kind rl) `samples`
    are steps of games, `mean_return` is the mean score of their latest games and `loss` one over
    it, `batch` counts games; `start` is the entry that a run began from.
    `energy_joules` is what the CPU packages of the whole machine took, whatever else ran there;
    None where it cannot be read.
    """

    schema_version: int = SCHEMA
    checkpoint: bool
    updates: int
    accuracy: float | None
    validation_frames: int
    batch: int
    time: int
    accumulate: int
    data: str
    data_sha256: str | None
    config_hash: str
    git_revision: str | None
    seconds: float
    energy_joules: float | None
    machine: str
    cpu: str
    device: str
    precision: str
    threads: int
    world_size: int
    torch: str
    actors: int | None = None
    start: str | None = None


def read_runs(path: Path, incomplete: list[str] | None = None) -> list[RunRow]:
    """The rows of a table of runs, `.csv` or else JSONL. Unknown columns are ignored.

    InputError names row (the first is 1) and column of what cannot be read, and columns that look
    like a misspelt one. Rows of our trainer come as `LedgerRow`. Whole numbers of others may have a
    fraction from 1,000 up, as sizes read off a figure have; it is rounded away. With a list
    `incomplete`, rows that lack a needed value are left out, and said there.
    """
    many = files.read_bounded(path, _LIMIT).count(b"\n") - (path.suffix.lower() == ".csv")
    if many > MOST_ROWS:
        raise InputError(
            f"{path}: {many:,} rows; up to {MOST_ROWS:,} are read, so keep one row a run"
        )
    rows = _csv(path) if path.suffix.lower() == ".csv" else files.read_jsonl(path, _LIMIT)
    if not rows:
        raise InputError(f"{path}: holds no row; a table of runs has one row a run")
    _check_columns(rows[0], path)
    found = []
    for number, row in enumerate(rows, 1):
        empty = [name for name in _needed() if row.get(name) in (None, "")]
        if incomplete is not None and empty:
            incomplete.append(f"{path}, row {number}, column {empty[0]}: is missing")
            continue
        found.append(parse_row(row, f"{path}, row {number}"))
    if not found:
        raise InputError(f"{path}: holds no complete row")
    return found


def parse_row(values: Mapping[str, Any], where: str) -> RunRow:
    """One row from its columns; text is read as numbers where numbers are needed (CSV)."""
    kind: type[RunRow] = RunRow
    version = values.get("schema_version")
    if version not in (None, ""):
        if str(version) != str(SCHEMA):
            raise InputError(f"{where}, column schema_version: {version!r} is not known here")
        kind = LedgerRow
    ours = kind is LedgerRow
    return kind(**{f.name: _value(f, values.get(f.name), where, ours) for f in fields(kind)})


def _needed() -> list[str]:
    return [field.name for field in fields(RunRow) if field.default is MISSING]


def _check_columns(row: Mapping[str, Any], path: Path) -> None:
    """InputError when a column that is needed is not there, with what it may be misspelt as."""
    needed = _needed()
    for name in needed:
        if name not in row:
            known = {field.name for field in fields(LedgerRow)}
            near = difflib.get_close_matches(name, [str(c) for c in row if c not in known], 1, 0.6)
            hint = f"; is {near[0]!r} meant?" if near else ""
            raise InputError(
                f"{path}, row 1, column {name}: is missing{hint} (needed are {', '.join(needed)})"
            )


def append_row(path: Path, row: LedgerRow) -> bool:
    """Add a row to the JSONL table at `path`, whole or not at all; many may do so at once.

    What is already there of the same run, configuration and moment stays, and nothing is added:
    returns False then.
    """
    with files.lock_file(path):
        held = path.read_bytes()
        text = held if held.endswith(b"\n") or not held else held + b"\n"
        rows = files.read_jsonl(path, _LIMIT)
        if any(_same(other, row) for other in rows):
            return False
        files.atomic_write(path, text + files.dump_jsonl([asdict(row)]))
    return True


def write_rows(path: Path, rows: Sequence[LedgerRow]) -> None:
    """Write a JSONL table, whole or not at all, over what is there."""
    files.atomic_write(path, files.dump_jsonl([asdict(row) for row in rows]))


def config_hash(config: Mapping[str, Any]) -> str:
    """16 hex digits that name what a run was asked to be."""
    text = json.dumps(config, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flop_model_hash(architecture: str, version: int, sizes: Mapping[str, int]) -> str:
    """16 hex digits that name how FLOPs are counted, the same for every size of network.

    `sizes`: FLOPs a frame of reference networks, so that a changed formula or rule for the widths
    shows even where nobody thought of its `version`.
    """
    return config_hash({"architecture": architecture, "version": version, "sizes": dict(sizes)})


def _same(values: Mapping[str, Any], row: LedgerRow) -> bool:
    names = ("run_id", "config_hash", "updates", "checkpoint")
    return all(values.get(name) == getattr(row, name) for name in names)


def _csv(path: Path) -> list[dict[str, Any]]:
    try:
        text = files.read_bounded(path, _LIMIT).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text), strict=True)
        rows = list(reader)
        head = reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV table ({error})") from None
    if len(set(head)) != len(head):
        raise InputError(f"{path}: two columns have one name")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InputError(f"{path}, row {number}: has not the {len(head)} columns of the head")
    return rows


def _value(field: Field[Any], value: Any, where: str, ours: bool) -> Any:
    """A column's value as its field's type; None where it may be absent and is."""
    where = f"{where}, column {field.name}"
    kind, _, optional = str(field.type).partition(" | ")
    if value is None or value == "":
        if optional:
            return None
        if field.default is not MISSING and field.name != "schema_version":
            return field.default
        raise InputError(f"{where}: is missing")
    if kind == "str":
        if not isinstance(value, str):
            raise InputError(f"{where}: must be text, is {value!r}")
        return value
    if kind == "bool":
        known = {"true": True, "false": False, "1": True, "0": False}
        if str(value).lower() not in known:
            raise InputError(f"{where}: must be true or false, is {value!r}")
        return known[str(value).lower()]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: must be a number, is {value!r}")
    if field.name in ("params", "samples", "flops") and number <= 0:
        raise InputError(f"{where}: must be larger than zero, is {value!r}")
    if kind == "float":
        return number
    if number != int(number) and number >= _READ_OFF and not ours:
        number = round(number)  # read off a figure
    if number != int(number):
        raise InputError(f"{where}: must be a whole number, is {value!r}")
    return int(number)
