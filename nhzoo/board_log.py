"""The log of the leaderboard: what was accepted, removed or rescored, when and why. It only grows.

Each line holds the SHA-256 of the line before and of itself, so a changed, missing or moved line is
noticed. Whoever writes all of it anew makes another last hash: that one is on the site and in the
repository's history.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nhzoo import files
from nhzoo.errors import CheckFailed, InputError

NAME = "log.jsonl"
EVENTS = ("accept", "remove", "rescore", "rerun", "commit", "reveal")
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
    """Every line, oldest first; CheckFailed when one was changed, moved or taken out."""
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
    return line


def _sealed(line: LogLine) -> LogLine:
    values = {name: getattr(line, name) for name in _FIELDS}
    return LogLine(**values | {"sha256": files.content_hash(values)})


def _bytes(line: LogLine) -> bytes:
    return files.dump_json({n: getattr(line, n) for n in _FIELDS}, indent=None).rstrip(b"\n")


def _line(raw: bytes, where: str) -> LogLine:
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
