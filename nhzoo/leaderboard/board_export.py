"""The board as CSV or JSON, for other programs. Columns are only added, at the end.

`as_said` names the fields of a row that are its author's word: nobody can compute them here.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import Any

from nhzoo.leaderboard import board_log
from nhzoo.leaderboard.board import AS_SAID, Board, Row

COLUMNS = (
    "id",
    "rank",
    "agent",
    "protocol",
    "tier",
    "status",
    "episodes",
    "mean_score",
    "ci95_low",
    "ci95_high",
    "normalized",
    "mean_progression",
    "mean_depth",
    "max_depth",
    "params",
    "flops",
    "samples",
    "held_out_loss",
    "kind",
    "date",
    "revision",
    "sha256",
    "contact",
    "licence",
    "reason",
    "crashed",
    "voided",
    "author",
    "as_said",
)


def as_csv(board: Board) -> str:
    """A line a row, in the order of the board; an empty field where a thing is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in board.rows:
        values = _values(row)
        writer.writerow([_cell(values[name]) for name in COLUMNS])
    return text.getvalue()


def as_json(board: Board) -> dict[str, Any]:
    """All of it; `head` is the hash of the log's last line, `roles` the breakdown by role."""
    return {
        "schema_version": 1,
        "head": board_log.head(board.log),
        "lines": len(board.log),
        "warnings": list(board.warnings),
        "rows": [_values(row) | {"roles": dict(row.roles)} for row in board.rows],
        "references": [asdict(reference) for reference in board.references],
        "log": [asdict(line) for line in board.log],
    }


def _values(row: Row) -> dict[str, Any]:
    low, high = row.summary["mean_score_ci95"] or (None, None)
    known = {**row.summary, **vars(row), "ci95_low": low, "ci95_high": high}
    known["as_said"] = " ".join(name for name in AS_SAID if getattr(row, name) not in (None, ""))
    values = {name: known.get(name) for name in COLUMNS}
    if row.claimed:
        values["claimed_mean_score"] = row.claimed["mean_score"]
    return values


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = "".join(char if char.isprintable() else " " for char in value)
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@|%") else text
