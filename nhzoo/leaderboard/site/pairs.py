"""Agents of one board against each other: the matrix of who wins how often, and games side by side.

Of the best `MOST` ranked rows. Side by side is game `SHARED` of the protocol, which every whole
result has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nhzoo.envs.protocols import Protocol
from nhzoo.errors import NhzooError
from nhzoo.evaluation.comparison import ReadResult, read_side
from nhzoo.evaluation.matrix import Matrix, Pair, compare_sides
from nhzoo.leaderboard.board import BoardRow
from nhzoo.leaderboard.site.games import SHARED, Recording
from nhzoo.leaderboard.site.page import Page
from nhzoo.publishing.html import interval, number
from nhzoo.publishing.report import player_game

MOST: Final = 15
"""Rows in the matrix and on the page of games at most: 105 pairs, compared at every build."""

_SHOWN: Final = 20  # pairs of those that do not separate


@dataclass(frozen=True)
class Pairs:
    """What `pairs.html` shows of a board; `path` is the page of games, "" without one."""

    matrix: Matrix
    path: str
    most: int = MOST

    @property
    def lines(self) -> list[tuple[str, list[dict[str, Any] | None]]]:
        """Each agent's name and its cells: share and interval in per cent, and who is better."""
        size = range(len(self.matrix.agents))
        return [(self.matrix.agents[a].label, [self._cell(a, b) for b in size]) for a in size]

    def _cell(self, a: int, b: int) -> dict[str, Any] | None:
        win = self.matrix.win(a, b)
        if win is None or win.ends is None:
            return None
        low, high = (f"{100 * end:.0f}" for end in win.ends)
        settled = self.matrix.pair(a, b).settled
        better = "" if not settled else "wins" if a < b else "loses"
        return {"share": f"{100 * win.estimate:.0f}", "ends": f"{low} to {high}", "better": better}

    @property
    def rest(self) -> list[tuple[str, ...]]:
        """The pairs that do not separate, fewest games to go first."""
        return [self._rest(pair) for pair in self.matrix.unsettled[:_SHOWN]]

    def _rest(self, pair: Pair) -> tuple[str, ...]:
        agents = self.matrix.agents
        return (
            f"{agents[pair.a].label} and {agents[pair.b].label}",
            number(pair.difference.estimate),
            interval(pair.difference.ends),
            f"{pair.games:,}",
            "–" if pair.more_games is None else f"{pair.more_games:,}",
        )


def best(rows: Sequence[BoardRow], protocol: Protocol) -> list[BoardRow]:
    """The rows of a protocol that are compared, best first."""
    return [row for row in rows if row.protocol == protocol.id and row.rank is not None][:MOST]


def pairs_of(
    rows: Sequence[BoardRow], protocol: Protocol, recorded: Mapping[str, Sequence[Recording]]
) -> Pairs | None:
    """Compare the best rows of a protocol; None of less than two that can be compared."""
    sides: list[ReadResult] = []
    labels: list[str] = []
    chosen = best(rows, protocol)
    names = [row.agent for row in chosen]
    for row in chosen:
        try:
            found, side = read_side(row.folder)
        except NhzooError:
            continue  # its own page says what is wrong with it
        if found.id == protocol.id:
            sides.append(side)
            labels.append(row.agent if names.count(row.agent) == 1 else row.id)
    if len(sides) < 2:
        return None
    shown = len(_shared(chosen, recorded)) > 1
    path = f"protocols/{protocol.id}-beside.html" if shown else ""
    return Pairs(compare_sides(protocol, sides, labels), path)


def beside_page(
    rows: Sequence[BoardRow], protocol: Protocol, recorded: Mapping[str, Sequence[Recording]]
) -> Page | None:
    """The page of game `SHARED` side by side; None of less than two recordings of it."""
    found = _shared(best(rows, protocol), recorded)
    if len(found) < 2:
        return None
    games = [
        player_game(one.game.row, row.agent, one.windows, src=f"../{one.game.path}")
        for row, one in found
    ]
    values = {"protocol": protocol, "games": games, "shared": SHARED}
    return Page(f"protocols/{protocol.id}-beside.html", "beside_page.html", values)


def _shared(
    rows: Sequence[BoardRow], recorded: Mapping[str, Sequence[Recording]]
) -> list[tuple[BoardRow, Recording]]:
    return [
        (row, one)
        for row in rows
        for one in recorded.get(row.id, ())
        if one.game.row["index"] == SHARED and one.windows
    ]
