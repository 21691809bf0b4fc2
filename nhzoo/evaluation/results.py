"""Result folders: `episodes.jsonl` with one game a line, keys in `traces/`, `result.json`.

`merge` joins the shards of one evaluation, played in different places, into one result.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nhzoo.envs.game import EpisodeResult
from nhzoo.envs.protocols import Protocol, get_protocol
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation.progression import MAX_DEPTH, MAX_EXPERIENCE_LEVEL, progression
from nhzoo.evaluation.statistics import iqm, mean_ci95
from nhzoo.runtime import files

SCHEMA = 1
END_STATUSES = ("death", "ascended", "step_cap", "stalled", "crashed", "voided")
MAX_TRACE = 2_000_000  # keys of one game
_SYNC_SECONDS = 1.0

Row = dict[str, Any]

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "index": int,
    "core": int,
    "disp": int,
    "character": str,
    "score": (int, float),
    "steps": int,
    "turns": int,
    "depth": int,
    "max_depth": int,
    "experience_level": int,
    "progression": (int, float),
    "end_status": str,
    "cause": str,
    "keys": int,
    "sha256": str,
}


ROW_FIELDS = tuple(_FIELDS)
"""What every line of `episodes.jsonl` has."""

SUMMARY = (
    "episodes",
    "mean_score",
    "mean_score_ci95",
    "median_score",
    "iqm_score",
    "std_score",
    "mean_progression",
    "mean_turns",
    "mean_steps",
    "mean_depth",
    "max_depth",
    "mean_experience_level",
    "ascensions",
    "crashed",
    "voided",
)
"""What `summarize` gives, beside `faults`. Of all games crashed there is no score: its figures are
None. Older results have neither `voided`, since none of their games was, nor `faults`.
"""

_OF_SCORES = SUMMARY[1:7]
_FAULTS = {
    "crashed": "crashed",
    "voided": "were voided",
    "stalled": "went beyond the agent's time",
}
_NAMED = 10  # games that a line names

FREE = frozenset({"batch", "cpu_capability"})
"""What of an evaluation's set-up decides no bit of a result that names its numerics."""


def episode_row(protocol: Protocol, index: int, result: EpisodeResult, keys: bytes) -> Row:
    """The line of `episodes.jsonl` for game `index`; it names the role where that is drawn."""
    spec = protocol.game(index)
    values = asdict(result)
    best_level = values.pop("max_experience_level")
    reached = progression(
        min(result.max_depth, MAX_DEPTH),
        min(best_level, MAX_EXPERIENCE_LEVEL),
        ascended=result.end_status == "ascended",
    )
    if result.end_status == "voided":  # like its score
        reached = 0.0
    row = {
        "index": index,
        "core": spec.core,
        "disp": spec.disp,
        "character": spec.character,
        **values,
        "progression": reached,
        "keys": len(keys),
        "sha256": hashlib.sha256(keys).hexdigest(),
    }
    drawn = {"role": result.role} if spec.character == "@" else {}
    return {name: row[name] for name in _FIELDS} | drawn


def check_row(row: object, where: str) -> None:
    """InputError unless `row` has every field, of the right type, finite and within bounds."""
    if not isinstance(row, dict):
        raise InputError(f"{where}: a JSON object is needed")
    for name, kind in _FIELDS.items():
        value = row.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{where}: field {name!r} is missing or of the wrong type")
        if isinstance(value, (int, float)) and not -(1 << 63) < value < 1 << 63:
            raise InputError(f"{where}: field {name!r} is out of range")
    if not isinstance(row.get("role", ""), str):
        raise InputError(f"{where}: field 'role' is of the wrong type")
    if row["end_status"] not in END_STATUSES:
        raise InputError(f"{where}: end_status {row['end_status']!r} is not known")


def parse_shard(text: str) -> tuple[int, int]:
    """Parse "i/n" to (i, n): the games whose index is i modulo n."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and len(text) < 16):
        raise InputError(f"shard {text!r}: give i/n, for example 0/4")
    if not int(part) < int(parts):
        raise InputError(f"shard {text!r}: of n shards the first is 0, the last n - 1")
    return int(part), int(parts)


def trace_path(folder: Path, index: int) -> Path:
    """Where the keys of game `index` are."""
    return folder / "traces" / f"{index}.xz"


def write_trace(folder: Path, index: int, keys: bytes, sync: bool = True) -> None:
    """Store the keys of one game."""
    files.atomic_write(trace_path(folder, index), files.compress_xz(keys), sync=sync)


class GameLog:
    """Games of a result, written as they end; nothing is written without a folder.

    What `add` was given survives a kill at once, and a pulled plug after a second or so: a row
    whose trace did not reach the disk is told by its hash.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._new: list[Path] = []
        self._synced = 0.0

    def __enter__(self) -> GameLog:
        if self._folder:
            self._file = open(self._folder / "episodes.jsonl", "ab")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._folder:
            with files.naming(Path(self._file.name)), self._file:  # closed, whatever happens
                self._sync()

    def add(self, row: Row, keys: bytes) -> None:
        """Add a game."""
        if self._folder:
            write_trace(self._folder, row["index"], keys, sync=False)
            with files.naming(Path(self._file.name)):
                self._file.write(files.dump_json(row, indent=None))
                self._file.flush()
            self._new.append(trace_path(self._folder, row["index"]))
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self._sync()

    def _sync(self) -> None:
        files.sync([*self._new, Path(self._file.name)])
        self._new.clear()
        self._synced = time.monotonic()


def read_trace(folder: Path, index: int) -> bytes:
    """Read the keys of one game."""
    path = files.inside(folder, f"traces/{index}.xz")
    return files.decompress_xz(files.read_bounded(path, MAX_TRACE), MAX_TRACE, str(path))


def read_episodes(folder: Path) -> list[Row]:
    """Read and check `episodes.jsonl`: rows sorted by index, no index twice."""
    path = files.inside(folder, "episodes.jsonl")
    rows = files.read_jsonl(path)
    for number, row in enumerate(rows, 1):
        check_row(row, f"{path}, line {number}")
    rows.sort(key=lambda row: row["index"])
    for before, row in pairwise(rows):
        if before["index"] == row["index"]:
            raise InputError(f"{path}: game {row['index']} is listed twice")
    return rows


def read_result(
    folder: Path, protocol: Protocol | None = None
) -> tuple[dict[str, Any], Protocol, list[Row]]:
    """Read a finished result: its `result.json`, its protocol, and its games (at least one).

    `protocol` is needed for games that are of none of the known ones. InputError unless all can be
    read, and the protocol and the games' numbers are right.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such result folder")
    path = files.inside(folder, "result.json")
    if not path.exists():
        raise InputError(f"{folder}: has no result.json; finish the evaluation first")
    result = files.read_json(path)
    if result.get("schema_version") != SCHEMA:
        raise InputError(f"{folder}: result.json has a schema version that is not {SCHEMA}")
    named = str(result.get("protocol"))
    protocol = protocol or get_protocol(named)
    if named != protocol.id:
        raise InputError(f"{path}: is of the protocol {named[:60]!a}, not of {protocol.id}")
    rows = read_episodes(folder)
    if not rows:
        raise InputError(f"{folder}: episodes.jsonl lists no game")
    outside = [row["index"] for row in rows if not 0 <= row["index"] < protocol.games]
    if outside:
        raise InputError(f"{folder}: {protocol.id} has no game {outside[0]}")
    return result, protocol, rows


def faults(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How games ended that nobody played to an end: by `end_status`, `games` and first `reason`.

    These are crashed and voided games, and those stalled because the agent's time was up.
    """
    found = []
    for status in _FAULTS:
        mine = [row for row in rows if row["end_status"] == status]
        if status == "stalled":
            mine = [row for row in mine if row["cause"]]
        if mine:
            games, reason = [row["index"] for row in mine], mine[0]["cause"]
            found.append({"end_status": status, "games": games, "reason": reason})
    return found


def fault_lines(found: Sequence[Mapping[str, Any]], games: int) -> list[str]:
    """`faults` in words, a line each: "2 of 8 games crashed (1, 5): agent raised ..."."""
    lines = []
    for fault in found:
        named = ", ".join(map(str, fault["games"][:_NAMED]))
        more = len(fault["games"]) - _NAMED
        named += f" and {more:,} more" if more > 0 else ""
        what = f"{len(fault['games']):,} of {games:,} games {_FAULTS[fault['end_status']]}"
        lines.append(f"{what} ({named}): {fault['reason']}")
    return lines


def no_score(rows: Sequence[Row]) -> str:
    """Why these games are not a score; "" if they are."""
    if any(row["end_status"] != "crashed" for row in rows):
        return ""
    return (
        f"all {len(rows):,} games crashed, so there is no score; the first: "
        f"{rows[0]['cause'] or 'no reason is known'}"
    )


def need_score(rows: Sequence[Row], where: Path) -> None:
    """Raise CheckFailed if these games are not a score."""
    reason = no_score(rows)
    if reason:
        raise CheckFailed(f"{where}: {reason}")


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """The summary of `result.json`, but for the speed.

    `mean_score_ci95` is None where there is no interval (one game, equal scores), `std_score` of
    one game.
    """
    found = _summarize(rows)
    return found | dict.fromkeys(_OF_SCORES) if no_score(rows) else found


def completed(claimed: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A summary that may be older than `voided` and `faults`, with what it lacks of `given`."""
    return {"voided": 0, "faults": given["faults"], **claimed}


def same(claimed: Any, value: Any) -> bool:
    """Equal up to the last digits of floating point, which differ between versions of libraries."""
    if value is None or isinstance(value, str):
        return bool(claimed == value)
    if isinstance(value, dict):
        return (
            isinstance(claimed, dict)
            and claimed.keys() == value.keys()
            and all(same(claimed[name], item) for name, item in value.items())
        )
    if isinstance(value, list):
        return (
            isinstance(claimed, list)
            and len(claimed) == len(value)
            and all(same(a, b) for a, b in zip(claimed, value, strict=True))
        )
    if isinstance(value, int):
        return not isinstance(claimed, bool) and bool(claimed == value)
    if isinstance(claimed, bool) or not isinstance(claimed, (int, float)):
        return False
    if isinstance(claimed, int) and not -(1 << 63) < claimed < 1 << 63:
        return False
    return bool(abs(claimed - value) <= 1e-9 * max(1.0, abs(value)))


def _summarize(rows: Sequence[Row]) -> dict[str, Any]:
    scores = [float(row["score"]) for row in rows]

    def mean(name: str) -> float:
        return float(np.mean([row[name] for row in rows]))

    return {
        "episodes": len(rows),
        "mean_score": float(np.mean(scores)),
        "mean_score_ci95": list(ends) if (ends := mean_ci95(scores)) else None,
        "median_score": float(np.median(scores)),
        "iqm_score": iqm(scores),
        "std_score": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "mean_progression": mean("progression"),
        "mean_turns": mean("turns"),
        "mean_steps": mean("steps"),
        "mean_depth": mean("depth"),
        "max_depth": max(row["max_depth"] for row in rows),
        "mean_experience_level": mean("experience_level"),
        "ascensions": sum(row["end_status"] == "ascended" for row in rows),
        "crashed": sum(row["end_status"] == "crashed" for row in rows),
        "voided": sum(row["end_status"] == "voided" for row in rows),
        "faults": faults(rows),
    }


def environment() -> dict[str, Any]:
    """The environment that decides the bits of a result: versions, machine type, CPU capability."""
    import torch

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    packages = ("nhzoo", "nle", "torch", "numpy", "gymnasium")
    return {
        "versions": {"python": platform.python_version(), **{p: installed(p) for p in packages}},
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


_OWN = ("summary", "workers", "shard")
"""What results of the same agent under the same protocol may differ in."""


def merge(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Join results into the new folder `out` and return its `result.json`.

    They must have the same agent, protocol, versions and batch. A game that several of them have
    must be the same game. Every trace is checked against its hash.
    """
    if not folders:
        raise InputError("nothing to merge: give the folders of at least one result")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; give a new folder")
    merged: dict[int, tuple[Path, Row]] = {}
    first: dict[str, Any] = {}
    for folder in folders:
        result, _, played = read_result(folder)
        facts = {name: value for name, value in result.items() if name not in _OWN}
        first = first or facts
        free = {"source"} | (FREE if first.get("numerics") else set())  # weights decide
        differing = sorted(
            name
            for name in first | facts
            if first.get(name) != facts.get(name) and name not in free
        )
        if differing:
            name = differing[0]
            raise InputError(
                f"{folder}: is of another {name} ({facts.get(name)!r}) than {folders[0]} "
                f"({first.get(name)!r})"
            )
        for row in played:
            known = merged.setdefault(row["index"], (folder, row))
            if known[1] != row:
                raise InputError(f"{folder}: its game {row['index']} is not that of {known[0]}")
    rows = []
    for index, (folder, row) in sorted(merged.items()):
        keys = read_trace(folder, index)
        if hashlib.sha256(keys).hexdigest() != row["sha256"]:
            raise InputError(f"{folder}: the trace of game {index} is not the one that was played")
        write_trace(out, index, keys)
        rows.append(row)
    identity = files.read_json(files.inside(folders[0], "evaluation.json"))
    files.atomic_write(out / "evaluation.json", files.dump_json(identity))
    files.atomic_write(out / "episodes.jsonl", files.dump_jsonl(rows))
    summary = summarize(rows) | {"env_steps_per_second": None}
    result = first | {"workers": None, "shard": None, "summary": summary}
    files.atomic_write(out / "result.json", files.dump_json(result))
    return result
