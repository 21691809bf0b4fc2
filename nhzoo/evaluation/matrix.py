"""Many results of one protocol, each pair compared: who wins how often, and which pairs separate.

Pairs are told apart by `comparison`'s rule, with the p-values of all pairs adjusted together
(Holm 1979): under it at most 5 % of matrices of agents that do not differ name a pair at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from nhzoo.envs.protocols import Protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import statistics
from nhzoo.evaluation.comparison import ReadResult, Verdict, Wins, compare_scores, read_side
from nhzoo.evaluation.statistics import Interval
from nhzoo.runtime.console import ProgressCallback, no_progress


@dataclass(frozen=True)
class MatrixAgent:
    """One of the results, over all its games. `label`: its agent, or folder where two are one."""

    label: str
    folder: str
    agent: str
    revision: str | None
    games: int
    mean_score: Interval


@dataclass(frozen=True)
class Pair:
    """Two of the agents, by their numbers in `Matrix.agents`. Differences are a minus b.

    `win` is the probability that a scores more than b in a game, ties counted as half, with a 95 %
    interval: Wilson's (1927), of as many games as there are pairs, or of the fewer of both where
    games are not paired. Var(share) <= p (1 - p) / games holds in both cases (Birnbaum and Klose
    1957), so the interval errs on the wide side where there are ties.
    `difference` is that of mean scores, `p_value` its test's, `p_adjusted` that by Holm's method.
    `settled` says whether the pair separates; `more_games`, of each agent, would settle it with
    80 % power if the difference is what it seems: 0 where settled, None where it seems to be none.
    """

    a: int
    b: int
    paired: bool
    games: int
    wins: Wins
    win: Interval
    difference: Interval
    p_value: float
    p_adjusted: float
    settled: bool
    verdict: Verdict
    more_games: int | None


@dataclass(frozen=True)
class Matrix:
    """All pairs of some results of one protocol; agents are ordered best mean score first."""

    protocol: str
    protocol_games: int
    agents: tuple[MatrixAgent, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    def win(self, a: int, b: int) -> Interval | None:
        """The probability that agent a scores more than agent b; None of an agent and itself."""
        if a == b:
            return None
        pair = self.pair(a, b)
        if pair.a == a:
            return pair.win
        low, high = pair.win.low, pair.win.high
        assert low is not None and high is not None
        return Interval(1 - pair.win.estimate, 1 - high, 1 - low)

    def pair(self, a: int, b: int) -> Pair:
        """The pair of two agents, in either order."""
        return next(pair for pair in self.pairs if {pair.a, pair.b} == {a, b})

    @property
    def unsettled(self) -> tuple[Pair, ...]:
        """The pairs that do not separate, those that need the fewest more games first."""
        rest = [pair for pair in self.pairs if not pair.settled]
        return tuple(sorted(rest, key=lambda pair: pair.more_games or math.inf))

    def as_json(self) -> dict[str, Any]:
        """As one JSON object; `win_probability` is the matrix, rows against columns."""
        size = range(len(self.agents))
        cells = [[self.win(a, b) for b in size] for a in size]
        shown = [[None if cell is None else asdict(cell) for cell in row] for row in cells]
        return asdict(self) | {"win_probability": shown}


def compare_all(folders: Sequence[Path], progress: ProgressCallback = no_progress) -> Matrix:
    """Compare each pair of some result folders of one protocol.

    Summaries are recomputed from the games. Games are paired by number where two results are of the
    same machine type and NLE version. `progress` gets the number of pairs compared, and how many
    there are. InputError for folders that are no results, or of different protocols.
    """
    if len(folders) < 2:
        raise InputError("give two or more result folders")
    sides = [read_side(Path(folder)) for folder in folders]
    protocol = sides[0][0]
    for folder, (other, _) in zip(folders, sides, strict=True):
        if other.id != protocol.id:
            raise InputError(
                f"{folders[0]} played {protocol.id} and {folder} {other.id}: scores of different "
                "protocols cannot be compared; evaluate all agents under one"
            )
    found = [side for _, side in sides]
    names = [side.agent for side in found]
    labels = [side.agent if names.count(side.agent) == 1 else str(side.folder) for side in found]
    return compare_sides(protocol, found, labels, progress)


def compare_sides(
    protocol: Protocol,
    sides: Sequence[ReadResult],
    labels: Sequence[str],
    progress: ProgressCallback = no_progress,
) -> Matrix:
    """The same of results that were read; `labels` are their agents' names in the matrix."""
    known = [(side, label, side.mean_score) for side, label in zip(sides, labels, strict=True)]
    known.sort(key=lambda one: -one[2].estimate)
    found = [side for side, _, _ in known]
    agents = tuple(
        MatrixAgent(label, str(side.folder), side.agent, side.revision, len(side.rows), mean)
        for side, label, mean in known
    )
    which = list(combinations(range(len(agents)), 2))
    compared = []
    for done, (a, b) in enumerate(which, 1):
        compared.append(compare_scores(found[a], found[b], protocol))
        progress(done, len(which))
    adjusted = holm([one.p_value for one in compared])
    pairs = []
    for (a, b), one, p_adjusted in zip(which, compared, adjusted, strict=True):
        settled = one.verdict != "not settled" and p_adjusted < statistics.ALPHA
        needed = one.power.paired if one.paired else one.power.unpaired
        more: int | None = 0
        if not settled:
            # At least one: the estimate is for one pair, before what all pairs together cost.
            more = None if needed is None else max(1, needed - one.games)
        pairs.append(
            Pair(
                a=a,
                b=b,
                paired=one.paired,
                games=one.games,
                wins=one.wins,
                win=win_probability(one.wins.share, one.games),
                difference=one.difference,
                p_value=one.p_value,
                p_adjusted=p_adjusted,
                settled=settled,
                verdict=one.verdict if settled else "not settled",
                more_games=more,
            )
        )
    notes = []
    apart = sum(not pair.paired for pair in pairs)
    if apart:
        notes.append(f"{apart:,} of {len(pairs):,} pairs are of games that are not paired")
    return Matrix(protocol.id, protocol.games, agents, tuple(pairs), tuple(notes))


def win_probability(share: float, games: int) -> Interval:
    """A share of games won (0 to 1, ties as half) with Wilson's 95 % interval; never without width.

    The ends are the p with |share - p| = z sqrt(p (1 - p) / games).
    """
    z = statistics.z_alpha()
    weight = z * z / games
    middle = (share + weight / 2) / (1 + weight)
    reach = z * math.sqrt(share * (1 - share) / games + weight / (4 * games)) / (1 + weight)
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being many: below 0.05 in any of 5 % of families without an effect."""
    order = np.argsort(p_values, kind="stable")
    raised = [min(1.0, (len(order) - i) * p_values[k]) for i, k in enumerate(order)]
    found = [0.0] * len(order)
    for k, value in zip(order, np.maximum.accumulate(raised), strict=True):
        found[int(k)] = float(value)
    return found
