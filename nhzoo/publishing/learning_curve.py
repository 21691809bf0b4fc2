"""Learning curves of entries, `curve.csv`: written from a run's log, read, shown in cards."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nhzoo.errors import InputError
from nhzoo.runtime import files

CLONED = ("samples", "flops", "train_loss", "validation_loss")
PLAYED = ("samples", "flops", "mean_score", "games")
"""The columns of an agent that was cloned, and of one that learnt by playing."""

_SHOWN_ROWS = 10  # of the card's table
_SPREAD = 1.2  # samples of a row that is kept over those of the one before


@dataclass(frozen=True)
class Curve:
    """`fields` is `CLONED` or `PLAYED`; rows have a number or None for each, samples first."""

    fields: tuple[str, ...]
    rows: tuple[tuple[float | None, ...], ...]


def read_curve(path: Path) -> Curve | None:
    """A `curve.csv`; None when there is no such file. InputError for one of another form."""
    if not path.is_file():
        return None
    text = files.read_bounded(path, files.MEGABYTE).decode("utf-8", "replace")
    lines = list(csv.reader(io.StringIO(text)))
    fields = tuple(lines[0]) if lines else ()
    if fields not in (CLONED, PLAYED):
        known = " or ".join(",".join(names) for names in (CLONED, PLAYED))
        raise InputError(f"{path}: its first line has to be {known}")
    try:
        rows = tuple(tuple(float(x) if x else None for x in line) for line in lines[1:])
    except ValueError:
        raise InputError(f"{path}: holds something that is no number") from None
    for row in rows:
        if len(row) != len(fields) or row[0] is None:
            raise InputError(f"{path}: a line has not {len(fields)} numbers")
        if not all(value is None or math.isfinite(value) for value in row):
            raise InputError(f"{path}: holds something that is no number")
    return Curve(fields, rows) if rows else None


def cloned_csv(log: Path) -> bytes:
    """The `log.jsonl` of a run of cloning: all validations, and of the rest a few dozen."""
    rows = files.read_jsonl(log)
    lines, next_at = [], 0.0
    for row in rows:
        if row["frames"] >= next_at or "validation_loss" in row or row is rows[-1]:
            held_out = row.get("validation_loss")
            shown = f"{held_out:.5g}" if held_out else ""
            lines.append((row["frames"], f"{row['flops']:.6g}", f"{row['loss']:.5g}", shown))
            next_at = row["frames"] * _SPREAD
    return _csv(CLONED, lines)


def played_csv(log: Path) -> bytes:
    """That of a run that learnt by playing: the mean score of the games ended since the row before.

    A few dozen rows; where no game ended there is no score.
    """
    rows = files.read_jsonl(log)
    lines, next_at, before, games, score = [], 0.0, 0, 0, 0.0
    for row in rows:
        ended = int(row["games"]) - before  # its score is the mean of these
        before += ended
        games += ended
        score += ended * float(row.get("score") or 0.0)
        if row["frames"] >= next_at or row is rows[-1]:
            mean = f"{score / games:.5g}" if games else ""
            lines.append((row["frames"], f"{row['flops']:.6g}", mean, games))
            next_at, games, score = row["frames"] * _SPREAD, 0, 0.0
    return _csv(PLAYED, lines)


def table_rows(curve: Curve) -> list[tuple[float | None, ...]]:
    """A few of the curve's rows, evenly spread on a logarithmic scale of samples."""
    rows, last = curve.rows, curve.rows[-1]
    first = max(1.0, rows[0][0] or 1.0)
    spread = max((last[0] or first) / first, 1.0)
    shown: dict[tuple[float | None, ...], None] = {}
    for place in range(_SHOWN_ROWS):
        wanted = first * spread ** (place / (_SHOWN_ROWS - 1))
        later = [row for row in rows if (row[0] or 0) >= wanted * 0.999] or [last]
        near = [row for row in later if (row[0] or 0) <= wanted * 1.3 and row[3] is not None]
        shown[(near or later)[0]] = None
    return list(shown)


def _csv(fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    lines = [",".join(fields), *(",".join(map(str, row)) for row in rows)]
    return ("\n".join(lines) + "\n").encode()
