"""The table of runs: one row for each run and checkpoint, as CSV or JSONL.

Our trainer's rows have more columns, all of them, and a `schema_version`; rows of the trainer
before that have none, and are read like anybody's.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nhzoo.errors import InputError
from nhzoo.runtime import files
from nhzoo.training import table_reader
from nhzoo.training.table_reader import is_missing

SCHEMA = 2
_LIMIT = 256 * files.MEGABYTE
_SKIP = "--skip-incomplete leaves such rows out"
_SHOWN = 60  # characters of a value that is refused
_READ_OFF = 1_000  # sizes and samples from here on may have a fraction, which is rounded away


@dataclass(frozen=True)
class RunRow:
    """What scaling laws are fitted to. `params` is what the user says it is; ours counts all.

    `samples` and `flops` are those of training (all frames seen, every layer); `loss` is on data
    that was held out, None only for our rows of kind rl, see `LedgerRow`. `flops_budget` groups
    runs that were to spend the same. `batch`: games (or samples) in a batch. `horizon`: steps of
    games that recurrent state was carried in training. Rows of one FLOPs formula have one
    `flop_model_hash`, whatever their sizes.
    """

    run_id: str
    params: int
    samples: int
    flops: float
    loss: float | None
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
    horizon: int | None = None
    flop_model_hash: str | None = None
    batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class LedgerRow(RunRow):
    """A row by our trainer.

    `checkpoint`: measured on the way, when the learning rate had not yet fallen; the last row of a
    run is none. `batch` x `time` x `accumulate` frames make an update, of all `world_size`
    processes together; `threads` are each one's. Of runs that learn by playing (kind rl) `samples`
    are steps of games, `mean_return` is the mean score of their latest games and `loss` one over
    it (both None until a game has ended with a score), `batch` counts games; `start` is the
    entry that a run began from. `validation` names the dataset of the held-out games, where it is
    not `data`. `energy_joules` is what the CPU packages of the whole machine took, whatever else
    ran there; None where it cannot be read.
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
    validation: str | None = None


def read_runs(
    path: Path, incomplete: list[str] | None = None, notes: list[str] | None = None
) -> list[RunRow]:
    """The rows of a table of runs: CSV, JSON or JSON Lines, see `table_reader`.

    Unknown columns are ignored. InputError names line and column of what cannot be read, and
    columns that look like a misspelt one. Rows of our trainer come as `LedgerRow`. Whole numbers of
    others may have a fraction from 1,000 up, as sizes read off a figure have; it is rounded away.
    With a list `incomplete`, rows that lack a needed value are left out, and said there; `notes`
    takes what else a reader should know.
    """
    return [row for _, row in _rows(path, incomplete, notes)]


def read_arms(
    path: Path,
    column: str,
    only: str = "*",
    incomplete: list[str] | None = None,
    notes: list[str] | None = None,
) -> dict[str, list[RunRow]]:
    """The rows of `read_runs` whose run_id is like `only`, by their value in any `column`.

    InputError where the table has no such column, or a row has no value there.
    """
    found: dict[str, list[RunRow]] = {}
    columns: set[str] = set()
    for cells, row in _rows(path, incomplete, notes):
        columns |= cells.cells.keys()
        if not fnmatchcase(row.run_id, only):
            continue
        value = cells.cells.get(column)
        if is_missing(value) and column in columns:
            raise InputError(
                f"{cells.where}, column {column}: is missing; name the arm of each row, or leave "
                "rows out with --only"
            )
        found.setdefault(str(value).strip(), []).append(row)
    if column not in columns:
        near = difflib.get_close_matches(column, sorted(columns), 1, 0.6)
        hint = f"; is {near[0]!r} meant?" if near else f"; it has {', '.join(sorted(columns))}"
        raise InputError(f"{path}: has no column {column!r}{hint}")
    if not found:
        raise InputError(f"{path}: no run_id is like {only!r}; give another pattern with --only")
    return found


def _rows(
    path: Path, incomplete: list[str] | None, notes: list[str] | None
) -> list[tuple[table_reader.TableRow, RunRow]]:
    rows = table_reader.read_table(path, _COLUMNS, _TEXT, notes)
    _check_columns(rows, path)
    found = []
    for row in rows:
        empty = [name for name in _needed(row.cells) if is_missing(row.cells.get(name))]
        if incomplete is not None and empty:
            incomplete.append(f"{row.where}, column {empty[0]}: is missing")
            continue
        found.append((row, parse_row(row.cells, row.where)))
    if not found:
        first = (incomplete or [str(path)])[0]
        raise InputError(f"{first}, and no row is complete; give each {', '.join(_needed({}))}")
    return found


def parse_row(values: Mapping[str, Any], where: str) -> RunRow:
    """One row from its columns; text is read as numbers where numbers are needed (CSV)."""
    kind: type[RunRow] = RunRow
    version = values.get("schema_version")
    if not is_missing(version):
        if str(version) not in (str(SCHEMA), f"{SCHEMA}.0"):
            raise InputError(
                f"{where}, column schema_version: {version!r} is not known here, {SCHEMA} is; "
                "remove the column from tables of your own"
            )
        kind = LedgerRow
    ours = kind is LedgerRow
    row = kind(**{f.name: _value(f, values.get(f.name), where, ours) for f in fields(kind)})
    if row.loss is None and row.kind != "rl":
        raise InputError(f"{where}, column loss: is missing; give it, or {_SKIP}")
    return row


def _needed(values: Mapping[str, Any]) -> list[str]:
    """The columns that a row cannot do without: a run that learns by playing needs no loss."""
    played = values.get("kind") == "rl" and not is_missing(values.get("schema_version"))
    return [
        n for n in ("run_id", "params", "samples", "flops", "loss") if n != "loss" or not played
    ]


def _check_columns(rows: Sequence[table_reader.TableRow], path: Path) -> None:
    """InputError when a column that is needed is in no row, with what it may be misspelt as."""
    there = {name for row in rows for name in row.cells}
    needed = _needed(rows[0].cells)
    for name in needed:
        if name not in there:
            others = {c.casefold(): c for c in sorted(there) if c not in _COLUMNS}
            near = difflib.get_close_matches(name, list(others), 1, 0.6)
            hint = f"; is {others[near[0]]!r} meant?" if near else ""
            raise InputError(
                f"{path}, column {name}: is missing{hint} (needed are {', '.join(needed)}, in "
                "plain numbers)"
            )


def append_row(path: Path, row: RunRow) -> bool:
    """Add a row to the JSONL table at `path`, whole or not at all; many may do so at once.

    What is already there of the same run stays, and nothing is added: returns False then. Rows of
    our trainer are also told apart by their configuration and moment.
    """
    with files.lock_file(path):
        content = path.read_bytes()
        text = content if content.endswith(b"\n") or not content else content + b"\n"
        rows = files.read_jsonl(path, _LIMIT)
        if any(_same(other, row) for other in rows):
            return False
        files.atomic_write(path, text + files.dump_jsonl([asdict(row)]))
    return True


def write_rows(path: Path, rows: Sequence[RunRow]) -> None:
    """Write a JSONL table, whole or not at all, over what is there."""
    files.atomic_write(path, files.dump_jsonl([asdict(row) for row in rows]))


def config_hash(config: Mapping[str, Any]) -> str:
    """16 hex digits that name what a run was asked to be."""
    text = json.dumps(config, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _same(values: Mapping[str, Any], row: RunRow) -> bool:
    names = ["run_id"]
    if isinstance(row, LedgerRow):
        names += ["config_hash", "updates", "checkpoint"]
    return all(values.get(name) == getattr(row, name) for name in names)


def _value(field: Field[Any], value: Any, where: str, ours: bool) -> Any:
    """A column's value as its field's type; None where it may be absent and is."""
    where = f"{where}, column {field.name}"
    kind, _, optional = str(field.type).partition(" | ")
    if is_missing(value):
        if optional and (field.name != "loss" or ours):
            return None
        if field.default is not MISSING and field.name != "schema_version":
            return field.default
        problem = "is missing" if value in (None, "") else f"is missing ({value!r})"
        raise InputError(f"{where}: {problem}; give it, or {_SKIP}")
    if kind == "str":
        return _text(value, where)
    if kind == "bool":
        known = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
        if str(value).lower() not in known:
            raise InputError(f"{where}: must be true or false, is {value!r}")
        return known[str(value).lower()]
    return _number(field.name, kind, value, where, ours)


def _text(value: Any, where: str) -> str:
    """Text; numbers that name a run are read as their digits."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"{where}: must be text, is {value!r}")
    return str(value)


def _number(name: str, kind: str, value: Any, where: str, ours: bool) -> float | int:
    shown = repr(value) if len(repr(value)) <= _SHOWN else f"{repr(value)[:_SHOWN]}..."
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        remedy = ""
        if isinstance(value, str) and value[:1].isdigit():
            remedy = "; write it without unit, percent sign or separators, as 1018000000 or 1.018e9"
        raise InputError(f"{where}: must be a number, is {shown}{remedy}") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{where}: must be finite, is {shown}; leave the row out or correct it")
    if name in ("params", "samples", "flops", "loss") and number <= 0:
        raise InputError(
            f"{where}: must be larger than zero, is {shown}; leave the row out or correct it"
        )
    if name in ("flops_budget", "loss_se", "se_return", "unique_samples") and number < 0:
        raise InputError(f"{where}: must not be negative, is {shown}; leave it empty or correct it")
    if kind == "float":
        return number
    if number != int(number) and number >= _READ_OFF and not ours:
        number = round(number)  # read off a figure
    if number != int(number):
        raise InputError(f"{where}: must be a whole number, is {shown}")
    return int(number)


_COLUMNS = frozenset(field.name for field in fields(LedgerRow))
_TEXT = frozenset(f.name for f in fields(LedgerRow) if str(f.type).partition(" | ")[0] == "str")
