"""The games of the site: which of an agent's are shown, and the files of their recordings.

A recording is a script that hands its data over: a page opened from a disk may load nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nhzoo.errors import NhzooError
from nhzoo.evaluation import results
from nhzoo.evaluation.outcomes import cause_group
from nhzoo.evaluation.results import Row
from nhzoo.publishing.asciicast import Cast, CastTask
from nhzoo.publishing.report import Result, choose_games
from nhzoo.runtime import files
from nhzoo.runtime.console import ProgressCallback, no_progress
from nhzoo.runtime.pool import run_items

RULE: Final = (
    "Chosen by a rule, not by hand: the best, the median and the worst game by score, and of the "
    "commonest way to die the game nearest to its median score."
)
SHARED: Final = 0
"""The game that is shown of every agent of a board's best, to be seen beside others'."""

PER_AGENT: Final = 4
MAX_STEPS: Final = 20_000
MAX_PACKED: Final = 600_000
"""Steps and deflated bytes of one recording at most; a longer game keeps its start and its end."""

TOTAL: Final = 512 * files.MEGABYTE
"""Deflated bytes of all recordings at most: with many agents each recording is shorter."""

Windows = tuple[tuple[int, int], ...]
"""The steps that a recording shows, as (first, last)."""

_FORMAT = 1  # of the recordings; another one has them made anew
_DATA = re.compile(rb'\A// ([0-9a-f]{64})\nnhzooGame\("([A-Za-z0-9+/=]+)"\);\n\Z')


@dataclass(frozen=True)
class ShownGame:
    """A game to record: of which row of the board, as what, and where it comes from."""

    row_id: str
    label: str
    result: Result
    row: Row

    @property
    def path(self) -> str:
        """Its file, from the site's root."""
        return f"agents/games/{self.row_id}/{self.row['index']}.js"


@dataclass(frozen=True)
class Recording:
    """A recording that is in its file, with the steps it shows; or the reason why there is none."""

    game: ShownGame
    windows: Windows = ()
    reason: str = ""


def shown_games(row_id: str, result: Result, shared: bool = False) -> list[ShownGame]:
    """The games of a result that are shown, by `RULE`; only those whose keys are there.

    With `shared` also game `SHARED`, which may be one of them.
    """
    labels = choose_games(result.rows)
    labels |= _typical_death(result.rows, labels)
    rows = {row["index"]: row for row in result.rows}
    there = [i for i in labels if results.trace_path(result.folder, i).is_file()][:PER_AGENT]
    if shared and SHARED not in there and rows.get(SHARED, {"steps": 0})["steps"] > 0:
        there += [SHARED] if results.trace_path(result.folder, SHARED).is_file() else []
        labels[SHARED] = f"Game {SHARED}, shown of every agent"
    return [ShownGame(row_id, labels[i], result, rows[i]) for i in there]


def _typical_death(rows: Sequence[Row], chosen: Collection[int]) -> dict[int, str]:
    """Of the commonest cause the game nearest to its median score that is not `chosen` already."""
    died: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["score"]):
        if row["end_status"] == "death" and row["steps"] > 0:
            died[cause_group(row["cause"])].append(row)
    if not died:
        return {}
    cause = min(died, key=lambda cause: (-len(died[cause]), cause))
    median = died[cause][(len(died[cause]) - 1) // 2]["score"]
    free = [row for row in died[cause] if row["index"] not in chosen]
    nearest = sorted(free, key=lambda row: (abs(row["score"] - median), row["index"]))[:1]
    return {row["index"]: f"Typical death ({cause})" for row in nearest}


def record(
    games: Sequence[ShownGame],
    out: Path,
    workers: int | None,
    progress: ProgressCallback = no_progress,
) -> list[Recording]:
    """Replay games and write their files; those of an earlier build that fit are kept as they are.

    A game that does not go as its row says is no error here: it has a reason instead of a file.
    """
    most = min(MAX_PACKED, max(20_000, TOTAL // max(1, len(games))))
    found: dict[int, Recording] = {}
    for i, game in enumerate(games):
        if windows := _kept(out / game.path, _key(game, most)):
            found[i] = Recording(game, windows)
    items = [(i, game.result.cast_item(game.row)) for i, game in enumerate(games) if i not in found]
    args = (MAX_STEPS, most)
    for i, outcome in run_items(CastTask, args, items, workers):
        game = games[i]
        if isinstance(outcome, Cast):
            data = base64.b64encode(outcome.packed)
            written = b'// %s\nnhzooGame("%s");\n' % (_key(game, most).encode(), data)
            files.atomic_write(out / game.path, written, sync=False)
            found[i] = Recording(game, outcome.windows)
        else:
            found[i] = Recording(game, reason=str(outcome))
        progress(len(found), len(games))
    return [found[i] for i in range(len(games))]


def _key(game: ShownGame, most: int) -> str:
    """What decides the bytes of a recording."""
    facts = [_FORMAT, MAX_STEPS, most, game.result.agent, game.result.protocol.id, game.row]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _kept(path: Path, key: str) -> Windows:
    """The steps that the recording of an earlier build shows; none if it is not the same one."""
    if not path.is_file():
        return ()
    try:
        found = _DATA.match(files.read_bounded(path, 8 * files.MEGABYTE))
        if found is None or found[1].decode() != key:
            return ()
        unpacked = files.inflate(base64.b64decode(found[2]), 256 * files.MEGABYTE, str(path))
        about = files.parse_json(unpacked.partition(b"\n")[0], str(path))["nhzoo"]
        return tuple((int(first), int(last)) for first, last in about["windows"])
    except (NhzooError, KeyError, TypeError, ValueError, binascii.Error):
        return ()
