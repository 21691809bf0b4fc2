"""Statistics of a dataset: games, scores, roles, keys, repeats. Nothing is replayed."""

from __future__ import annotations

import bisect
import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from nle import nethack

from nhzoo.data.catalog import PACKED, TRACES, open_demonstrations
from nhzoo.data.nld import NldFolder, NldGame
from nhzoo.data.packed_set import PackedGame, PackedSet
from nhzoo.data.traces import Trace
from nhzoo.errors import InputError, NhzooError
from nhzoo.runtime.pool import OneByOne, run_items

COUNTED_BYTES = 256 << 20
"""Keys of ttyrecs are counted when the files have no more bytes than that; 2 MB take a second."""

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Distribution:
    """Values of the games that have one; `missing` games have none. Quantiles are by "p10", ..."""

    count: int
    missing: int
    mean: float
    median: float
    minimum: float
    maximum: float
    quantiles: dict[str, float]


@dataclass(frozen=True)
class SplitCount:
    """One split; `keys` is None where keys were not counted."""

    games: int
    keys: int | None


@dataclass(frozen=True)
class ActionCount:
    """How often one key was pressed; `action` names it as NLE does, "CompassDirection.N"."""

    action: str
    key: int
    count: int
    share: float


@dataclass(frozen=True)
class RoleRow:
    """The games of one role; `mean_score` is over those that have a score."""

    role: str
    games: int
    mean_score: float | None


@dataclass(frozen=True)
class Repeat:
    """Games that are the same: `same` is "start" (seeds and character) or "keys"."""

    same: str
    games: list[str]


@dataclass(frozen=True)
class GameLength:
    """A game and its number of keys."""

    game: str
    keys: int


@dataclass(frozen=True)
class DatasetStatistics:
    """All about one dataset; JSON through `dataclasses.asdict`.

    `keys` (as many as frames), `lengths`, `longest`, `shortest` and `actions` are None where they
    were not counted, `scores`, `turns` and `depth` (the deepest level) where no game has them.
    `score_list` has the scores in the dataset's order, for `histogram`. `capped` games were stopped
    by the recording, and score what they had by then. `left_out` maps files and
    games to why they could not be used; a game whose keys cannot be read counts in all but keys.
    """

    name: str
    kind: str
    games: int
    keys: int | None
    splits: dict[str, SplitCount]
    scores: Distribution | None
    score_list: list[float]
    turns: Distribution | None
    depth: Distribution | None
    lengths: Distribution | None
    longest: GameLength | None
    shortest: GameLength | None
    actions: list[ActionCount] | None
    roles: list[RoleRow]
    repeats: list[Repeat]
    capped: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Row:
    """What all kinds of games have to say."""

    game: str
    split: str
    role: str
    score: float | None
    turns: int | None
    depth: int | None
    start: Hashable
    capped: bool = False


@dataclass(frozen=True)
class _Keys:
    counts: tuple[int, ...]  # of each of the 256 keys
    sha256: str


def statistics(source: str | Path, workers: int | None = None) -> DatasetStatistics:
    """Count what a dataset holds, reading keys on `workers` processes (default: all).

    The score of a trace is the sum of its rewards, that of an NLD game the xlogfile's points. Keys
    of ttyrecs are counted up to COUNTED_BYTES of them; NLD-NAO has none. Of a packed set its index
    is read: games, frames, scores.
    """
    opened = open_demonstrations(source)
    left_out: dict[str, str] = {}
    if isinstance(opened, PackedSet):
        lengths = {game.game: game.frames for game in opened.games}
        rows = [_packed_row(game) for game in opened.games]
        return _sum_up(opened.name, PACKED, rows, None, lengths, left_out)
    if isinstance(opened, NldFolder):
        kind, rows = opened.kind, [_nld_row(game) for game in opened.games]
        left_out |= opened.left_out
        games: Sequence[Trace | NldGame] = opened.games
        readable = opened.has_keys and _bytes_of(opened) <= COUNTED_BYTES
        folder: Path | None = opened.folder
    else:
        kind, rows = TRACES, [_trace_row(trace) for trace in opened.traces]
        games, readable, folder = opened.traces, True, None
    pressed = _read_keys(games, folder, workers, left_out) if readable else None
    counted = {game: sum(keys.counts) for game, keys in (pressed or {}).items()}
    return _sum_up(opened.name, kind, rows, pressed, counted if readable else None, left_out)


def _sum_up(
    name: str,
    kind: str,
    rows: list[_Row],
    pressed: dict[str, _Keys] | None,
    lengths: dict[str, int] | None,
    left_out: dict[str, str],
) -> DatasetStatistics:
    splits = {}
    for split in sorted({row.split for row in rows}):
        inside = [row for row in rows if row.split == split]
        keys = None if lengths is None else sum(lengths.get(row.game, 0) for row in inside)
        splits[split] = SplitCount(len(inside), keys)
    longest = shortest = None
    if lengths:
        longest = GameLength(*max(lengths.items(), key=lambda item: item[1]))
        shortest = GameLength(*min(lengths.items(), key=lambda item: item[1]))
    return DatasetStatistics(
        name=name,
        kind=kind,
        games=len(rows),
        keys=None if lengths is None else sum(lengths.values()),
        splits=splits,
        scores=_distribution([row.score for row in rows]),
        score_list=[float(row.score) for row in rows if row.score is not None],
        turns=_distribution([row.turns for row in rows]),
        depth=_distribution([row.depth for row in rows]),
        lengths=None if not lengths else _distribution([lengths.get(row.game) for row in rows]),
        longest=longest,
        shortest=shortest,
        actions=None if pressed is None else _actions(pressed.values()),
        roles=_roles(rows),
        repeats=_repeats(rows, pressed or {}),
        capped=sum(row.capped for row in rows),
        left_out=left_out,
    )


def histogram(scores: Iterable[float], width: int = 60) -> list[str]:
    """Lines of text, one a range of scores; the ranges grow by 1, 2, 5, 10, or by tens if many.

    Each line has the range (from, and up to but without), the number of scores in it and a bar; the
    longest makes its line `width` characters wide. Zero and negative scores have lines of their
    own, ranges between that no score is in are shown, and no scores make no lines.
    """
    values = sorted(float(score) for score in scores)
    if not values:
        return []
    if not all(math.isfinite(value) for value in values):
        raise InputError("a score is not a finite number, so it has no place in a histogram")
    labels: list[str] = []
    counts: list[int] = []
    below = bisect.bisect_left(values, 0)
    positive = bisect.bisect_right(values, 0)
    for label, count in (("below 0", below), ("0", positive - below)):
        if count:
            labels.append(label)
            counts.append(count)
    edges = _edges(values[positive], values[-1]) if positive < len(values) else []
    for low, high in pairwise(edges):
        inside = bisect.bisect_left(values, high) - bisect.bisect_left(values, low)
        labels.append(f"{_short(low)} to {_short(high)}")
        counts.append(inside if low > 0 else inside - (positive - below))
    head = max(len(label) for label in labels)
    digits = max(len(f"{count:,}") for count in counts)
    room = max(1, width - head - digits - 4)
    most = max(counts)
    lines = []
    for label, count in zip(labels, counts, strict=True):
        bar = "█" * max(count * room // most, 1 if count else 0)
        lines.append(f"{label:>{head}}  {count:>{digits},}  {bar}".rstrip())
    return lines


def _edges(low: float, high: float) -> list[float]:
    """From the last edge at or below `low` to the first above `high`; 1, 2, 5, or only tens."""
    decades = range(max(0, math.floor(math.log10(high))) + 2)
    for steps in ((1, 2, 5), (1,)):
        edges = [0.0, *(float(step * 10**decade) for decade in decades for step in steps)]
        edges = edges[bisect.bisect_right(edges, low) - 1 : bisect.bisect_right(edges, high) + 1]
        if len(edges) <= 25:
            break
    return edges


def _short(value: float) -> str:
    return f"{value:,.0f}" if value < 1e15 else f"{value:.0e}"


def _distribution(given: Sequence[float | None]) -> Distribution | None:
    values = [value for value in given if value is not None]
    if not values:
        return None
    points = np.quantile(np.array(values, float), QUANTILES)
    return Distribution(
        count=len(values),
        missing=len(given) - len(values),
        mean=float(np.mean(values)),
        median=float(np.median(values)),
        minimum=float(min(values)),
        maximum=float(max(values)),
        quantiles={f"p{100 * q:g}": float(v) for q, v in zip(QUANTILES, points, strict=True)},
    )


def _actions(pressed: Iterable[_Keys]) -> list[ActionCount]:
    counts: Counter[int] = Counter()
    for keys in pressed:
        counts.update({key: count for key, count in enumerate(keys.counts) if count})
    total = counts.total()
    names: dict[int, str] = {}
    for action in nethack.ACTIONS:
        names.setdefault(int(action), f"{type(action).__name__}.{action.name}")
    return [
        ActionCount(names.get(key, f"key {bytes([key])!r}"), key, count, count / total)
        for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _roles(rows: list[_Row]) -> list[RoleRow]:
    found = []
    for role, games in Counter(row.role for row in rows).most_common():
        scores = [row.score for row in rows if row.role == role and row.score is not None]
        found.append(RoleRow(role, games, float(np.mean(scores)) if scores else None))
    return found


def _repeats(rows: list[_Row], pressed: dict[str, _Keys]) -> list[Repeat]:
    groups: dict[tuple[str, Hashable], list[str]] = {}
    for row in rows:
        if row.start is not None:
            groups.setdefault(("start", row.start), []).append(row.game)
        if row.game in pressed:
            groups.setdefault(("keys", pressed[row.game].sha256), []).append(row.game)
    return [Repeat(same, games) for (same, _), games in groups.items() if len(games) > 1]


def _trace_row(trace: Trace) -> _Row:
    role = trace.spec.character.split("-")[0]
    named = getattr(trace, "role", None) if role == "@" else role
    return _Row(
        game=trace.game,
        split=trace.split,
        role=named[:3].capitalize() if named else _UNKNOWN,
        score=trace.score,
        turns=trace.turns,
        depth=trace.max_depth,
        start=trace.spec,
        capped=trace.capped,
    )


def _nld_row(game: NldGame) -> _Row:
    return _Row(game.game, game.split, game.role, game.points, game.turns, game.maxlvl, None)


def _packed_row(game: PackedGame) -> _Row:
    return _Row(game.game, game.split, _UNKNOWN, game.score, None, None, None)


def _bytes_of(folder: NldFolder) -> int:
    return sum((folder.folder / part).stat().st_size for g in folder.games for part in g.parts)


def _read_keys(
    games: Sequence[Trace | NldGame],
    folder: Path | None,
    workers: int | None,
    left_out: dict[str, str],
) -> dict[str, _Keys]:
    """The keys of each game; games whose keys cannot be read go to `left_out`."""
    found = {}
    for key, result in run_items(CountTask, (folder,), enumerate(games), workers):
        if isinstance(result, str):
            left_out[games[key].game] = result
        else:
            found[key] = result
    return {games[key].game: found[key] for key in sorted(found)}


class CountTask(OneByOne):
    """Counts the keys of traces, or of the games of an NLD folder."""

    def __init__(self, folder: Path | None) -> None:
        self._nld = NldFolder(folder) if folder else None

    def work(self, item: Any) -> _Keys | str:
        """The counts of one game, or why its keys cannot be read."""
        try:
            keys = self._nld.keys(item) if self._nld else item.keys()
        except NhzooError as error:
            return str(error)
        counts = np.bincount(np.frombuffer(keys, np.uint8), minlength=256)
        return _Keys(tuple(int(n) for n in counts), hashlib.sha256(keys).hexdigest())
