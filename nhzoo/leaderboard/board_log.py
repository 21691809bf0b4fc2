"""The log of the leaderboard: rows accepted, removed or rescored, when and why. It only grows.

Each line holds the SHA-256 of the line before and of itself, so a changed, missing or moved line is
noticed. How many lines there are, and the hash of the last, is in `head.json` beside the log: lines
that are cut off its end are missed. Whoever writes both anew makes another last hash: the one
before is on the site and in the repository's history, which the tests hold the log against.

A row is known by the digest of its games, and that of every file it has. The first is what seeds of
re-runs are drawn from, and what lines of the log from before 2026-11-29 hold. The second was added
to them by `nhzoo leaderboard seal`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nhzoo.errors import CheckFailed, InputError
from nhzoo.leaderboard.submission import MAX_MANIFEST
from nhzoo.leaderboard.submission import NAME as MANIFEST
from nhzoo.runtime import files

VERSION = 2
"""Of `whole_digest`; it is part of what is hashed."""

MOST_FILES = 250_000


def digest(folder: Path) -> str:
    """SHA-256 over those of `result.json`, `episodes.jsonl` and, if it is there, the manifest."""
    whole = hashlib.sha256()
    for name, limit in (
        ("result.json", files.MEGABYTE),
        ("episodes.jsonl", 64 * files.MEGABYTE),
        (MANIFEST, MAX_MANIFEST),
    ):
        if name != MANIFEST or (folder / name).exists():
            data = files.read_bounded(files.inside(folder, name), limit)
            whole.update(hashlib.sha256(data).digest())
    return whole.hexdigest()


def whole_digest(folder: Path) -> str:
    """SHA-256 of every file of a row: of lines "path SHA-256", sorted, after a line that names it.

    InputError for a link, or for what is no file: neither can be hashed.
    """
    found: dict[str, str] = {}
    for parent, folders, names in os.walk(folder, onerror=_raise):
        for name in (*folders, *names):
            path = Path(parent) / name
            if path.is_symlink():
                raise InputError(f"{path}: is a link; a row of the board has files alone")
        for name in names:
            path = Path(parent) / name
            with files.open_regular(path) as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = sha256
            if len(found) > MOST_FILES:
                raise InputError(f"{folder}: holds more than {MOST_FILES:,} files; remove some")
    lines = [f"nhzoo:row:{VERSION}"] + [f"{name!a} {found[name]}" for name in sorted(found)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _raise(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None


NAME = "log.jsonl"
PIN = "head.json"
EVENTS = ("accept", "remove", "rescore", "rerun", "commit", "reveal", "seal")
START = "0" * 64
"""What stands for the line before the first."""

_FIELDS = ("number", "date", "event", "id", "reason", "facts", "previous", "sha256")
_LIMIT = 64 * files.MEGABYTE
_MAX_REASON = 500


@dataclass(frozen=True)
class LogLine:
    """One line. `id` is the row's, "" for a commitment; `facts` are the event's own."""

    number: int
    date: str  # UTC, ISO 8601, to the second
    event: str
    id: str
    reason: str
    facts: Mapping[str, Any]
    previous: str
    sha256: str = field(default="")


def read_log(leaderboard: Path) -> tuple[LogLine, ...]:
    """Every line, oldest first; CheckFailed when one was changed, moved, taken out or cut off."""
    lines = _read_lines(leaderboard)
    pin = read_pin(leaderboard)
    if pin is None and lines:
        raise CheckFailed(
            f"{leaderboard / PIN}: is missing, so lines may have been cut off {NAME}; restore it "
            "from the repository's history, or run `nhzoo leaderboard seal` on a log from before it"
        )
    count, sha256 = pin or (0, START)
    if len(lines) < count or head(lines[:count]) != sha256:
        raise CheckFailed(
            f"{leaderboard / NAME}: has not the {count} lines that {PIN} counts, or others; lines "
            "are only added, restore both files from the repository's history"
        )
    return lines


def read_pin(leaderboard: Path) -> tuple[int, str] | None:
    """How many lines the log had when it was last written, and the hash of the last; or None."""
    path = leaderboard / PIN
    if not path.exists():
        return None
    value = files.read_json(path, 1_000)
    count, sha256 = value.get("lines"), value.get("sha256")
    good = type(count) is int and count >= 0 and isinstance(sha256, str)
    if not good or sorted(value) != ["lines", "sha256"]:
        raise CheckFailed(f"{path}: needs exactly lines and sha256; restore it from the history")
    assert isinstance(count, int) and isinstance(sha256, str)
    return count, sha256


def write_pin(leaderboard: Path) -> None:
    """Pin a log from before there was a pin. One that is there has to fit, and stays."""
    with files.lock_file(leaderboard / NAME):
        if read_pin(leaderboard) is None:
            _write_pin(leaderboard, _read_lines(leaderboard))
        read_log(leaderboard)


def _write_pin(leaderboard: Path, lines: tuple[LogLine, ...]) -> None:
    value = {"lines": len(lines), "sha256": head(lines)}
    files.atomic_write(leaderboard / PIN, files.dump_json(value))


def _read_lines(leaderboard: Path) -> tuple[LogLine, ...]:
    """The lines as they are, the chain checked, the pin not asked."""
    path = leaderboard / NAME
    if not path.exists():
        return ()
    data = files.read_bounded(path, _LIMIT)
    found: list[LogLine] = []
    previous = START
    for number, raw in enumerate(data.split(b"\n")[:-1]):
        line = _line(raw, f"{path}, line {number + 1}")
        if (line.number, line.previous) != (number, previous):
            raise CheckFailed(
                f"{path}, line {number + 1}: does not follow the line before; lines are only "
                "added, restore the file from the repository's history"
            )
        found.append(line)
        previous = hashlib.sha256(raw).hexdigest()
    if data and not data.endswith(b"\n"):
        raise CheckFailed(f"{path}: its last line is cut off; restore it from the history")
    return tuple(found)


def head(lines: tuple[LogLine, ...]) -> str:
    """The hash of the last line: whoever keeps it can tell later that none before was changed."""
    return hashlib.sha256(_bytes(lines[-1])).hexdigest() if lines else START


def holds(lines: tuple[LogLine, ...], kept: str) -> bool:
    """Whether a hash that was once the last is still in the chain."""
    return kept == START or any(hashlib.sha256(_bytes(line)).hexdigest() == kept for line in lines)


def append(
    leaderboard: Path, event: str, id: str, reason: str, facts: Mapping[str, Any]
) -> LogLine:
    """Add a line; those before are checked first."""
    if event not in EVENTS:
        raise ValueError(f"no event {event!r}")
    reason = reason.strip()
    if not reason or len(reason) > _MAX_REASON or not reason.isprintable():
        raise InputError(f"--reason: one line of 1 to {_MAX_REASON} printable characters")
    path = leaderboard / NAME
    with files.lock_file(path):
        lines = read_log(leaderboard)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = LogLine(len(lines), now, event, id, reason, dict(facts), head(lines))
        line = _sealed(line)
        before = files.read_bounded(path, _LIMIT)
        files.atomic_write(path, before + _bytes(line) + b"\n")
        _write_pin(leaderboard, (*lines, line))  # after a kill in between: one line more, no less
    return line


def _sealed(line: LogLine) -> LogLine:
    values = {name: getattr(line, name) for name in _FIELDS}
    return LogLine(**values | {"sha256": files.content_hash(values)})


def _bytes(line: LogLine) -> bytes:
    return files.dump_json({n: getattr(line, n) for n in _FIELDS}, indent=None).rstrip(b"\n")


def _line(raw: bytes, where: str) -> LogLine:
    if raw.endswith(b"\r"):
        raise CheckFailed(
            f"{where}: ends with CR LF, which git makes of LF under core.autocrlf; set that to "
            "false and check the file out again"
        )
    value = files.parse_json(raw, where)
    if not isinstance(value, dict) or tuple(value) != _FIELDS:
        raise CheckFailed(f"{where}: needs exactly {', '.join(_FIELDS)}, in this order")
    texts = ("date", "event", "id", "reason", "previous", "sha256")
    if not all(isinstance(value[name], str) for name in texts) or type(value["number"]) is not int:
        raise CheckFailed(f"{where}: a field is of the wrong type")
    if value["event"] not in EVENTS or not isinstance(value["facts"], dict):
        raise CheckFailed(f"{where}: {value['event']!r} is no event of the log")
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value["date"]):
        raise CheckFailed(f"{where}: has no date")
    line = LogLine(**value)
    if value["sha256"] != files.content_hash(value) or _bytes(line) != raw:
        raise CheckFailed(f"{where}: was changed after it was written; restore it from the history")
    return line
