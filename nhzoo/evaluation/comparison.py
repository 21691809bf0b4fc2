"""Comparison of two results of one protocol: which agent scores higher, and how certain that is.

Game i of a protocol is the same dungeon for every agent, so games are compared in pairs. Where the
dungeons are not the same (another machine type or NLE version), whole samples are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy import stats

from nhzoo.envs.protocols import Protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results, statistics
from nhzoo.evaluation.results import Row
from nhzoo.evaluation.statistics import Interval, Statistic

Verdict = Literal["a scores higher", "b scores higher", "not settled"]

FEW_GAMES = 100
"""Under so many games a BCa interval for a mean score is too short; see `statistics`."""


@dataclass(frozen=True)
class Side:
    """One of the two results, over the games that are compared. `mean_progression` is 0 to 1.

    `left_out` counts its games that the other result lacks.
    """

    folder: str
    agent: str
    revision: str | None
    machine: str | None
    nle: str | None
    games: int
    left_out: int
    mean_score: Interval
    median_score: float
    iqm_score: float
    mean_progression: float


@dataclass(frozen=True)
class Wins:
    """Games in which a scored more, as much, or less than b; unpaired: pairs of one game of each.

    `share` counts ties as half: 0.5 when neither wins more often.
    """

    won: int
    tied: int
    lost: int
    share: float


@dataclass(frozen=True)
class Power:
    """How many games settle a mean difference of the size seen: 80 % power, 5 % level.

    Games of each agent, None where that cannot be said (no difference; no pairs; one game). The
    size seen is itself uncertain, and with it these. `detectable` is the difference of mean scores
    that the compared games settle with that power, None of one game.
    """

    paired: int | None
    unpaired: int | None
    protocol_games: int
    detectable: float | None
    text: str


@dataclass(frozen=True)
class NoWorse:
    """Whether it is excluded that a is worse than b by more than `share` of b's mean score.

    `share` is from 0 to below 1. `difference` is a's mean score minus (1 - `share`) times b's, with
    its 95 % interval; `p_value` is the comparison's test of these scores. It `holds` by
    the rule of the verdict: the whole interval is above 0 and `p_value` below 0.05. One side alone
    counts, so errors are half as frequent as the verdict's. It holds as well where both results
    have the same games. `games`: of each agent, paired where these are, with which it would hold in
    80 % of comparisons if the difference is what it seems; None where it seems to be none.
    """

    share: float
    difference: Interval
    p_value: float
    holds: bool
    games: int | None
    text: str


@dataclass(frozen=True)
class Comparison:
    """The comparison of two results of one protocol. All differences are a minus b.

    `difference` has the mean, median and interquartile mean of scores, `progression` that of mean
    progression (0 to 1), each with a 95 % BCa bootstrap interval (Student's t of means below five
    games; none where nothing differs). `p_value` is that of `test`.
    The verdict is for the side with the higher mean only when the interval of the mean difference
    leaves out 0 and `p_value` is below 0.05; the latter keeps small samples honest. Where the means
    do not differ, up to 6 % of verdicts are for a side, from 8 games to 128, paired or not (8 % of
    8 pairs of which one side has twice the spread; tests/benchmarks/bench_statistics.py).

    `reason` says why games are not paired, `notes` what else a reader should know. `no_worse` is
    there where it was asked for. JSON through `as_json`.
    """

    protocol: str
    a: Side
    b: Side
    paired: bool
    reason: str
    verdict: Verdict
    difference: dict[Statistic, Interval]
    progression: Interval
    p_value: float
    test: str
    correlation: float | None
    rank_correlation: float | None
    wins: Wins
    power: Power
    notes: list[str]
    no_worse: NoWorse | None

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class ReadResult:
    """A result folder, read and checked; `rows` by the number of the game."""

    folder: Path
    agent: str
    revision: str | None
    machine: str | None
    nle: str | None
    rows: dict[int, Row]

    @property
    def mean_score(self) -> Interval:
        """Of all its games."""
        scores = _column(list(self.rows.values()), "score")
        return Interval.of(scores.mean(), statistics.mean_ci95(scores))


@dataclass(frozen=True)
class ScoreComparison:
    """The part of a comparison that is about mean scores; `games`: pairs, or the fewer of both."""

    paired: bool
    games: int
    verdict: Verdict
    difference: Interval
    p_value: float
    wins: Wins
    power: Power


def compare_scores(a: ReadResult, b: ReadResult, protocol: Protocol) -> ScoreComparison:
    """Compare the scores of two results of a protocol; for the rest, see `compare`."""
    common = sorted(a.rows.keys() & b.rows.keys())
    paired = not _unpaired_because(a, b, common)
    x, y = (_column([r.rows[i] for i in (common if paired else r.rows)], "score") for r in (a, b))
    between = statistics.paired_difference if paired else statistics.unpaired_difference
    difference, (p_value, _) = between(x, y, "mean"), _test(x, y, paired)
    return ScoreComparison(
        paired,
        min(len(x), len(y)),
        _verdict(difference, p_value),
        difference,
        p_value,
        _wins(x, y, paired),
        _power(x, y, paired, protocol),
    )


def compare(a: Path, b: Path, no_worse: float | None = None) -> Comparison:
    """Compare two result folders under the same protocol.

    Summaries are recomputed from the games. `nhzoo verify` checks that the games were played. With
    `no_worse`, a share, it also says whether a is no worse than b by more: see `NoWorse`.
    """
    if no_worse is not None and not 0 <= no_worse < 1:
        raise InputError(f"no worse by {no_worse:g}: give a share from 0 to below 1, as 0.05")
    (protocol_a, first), (protocol_b, second) = read_side(Path(a)), read_side(Path(b))
    if protocol_a.id != protocol_b.id:
        raise InputError(
            f"{a} played {protocol_a.id} and {b} {protocol_b.id}: scores of different protocols "
            "cannot be compared; evaluate both agents under one"
        )
    protocol = protocol_a
    common = sorted(first.rows.keys() & second.rows.keys())
    reason = _unpaired_because(first, second, common)
    paired = not reason
    rows_a, rows_b = ([r.rows[i] for i in (common if paired else r.rows)] for r in (first, second))
    scores_a, scores_b = _column(rows_a, "score"), _column(rows_b, "score")
    between = statistics.paired_difference if paired else statistics.unpaired_difference
    difference = {name: between(scores_a, scores_b, name) for name in get_args(Statistic)}
    p_value, test = _test(scores_a, scores_b, paired)
    verdict = _verdict(difference["mean"], p_value)
    return Comparison(
        protocol=protocol.id,
        a=_side(first, rows_a),
        b=_side(second, rows_b),
        paired=paired,
        reason=reason,
        verdict=verdict,
        difference=difference,
        progression=between(_column(rows_a, "progression"), _column(rows_b, "progression")),
        p_value=p_value,
        test=test,
        correlation=_correlation(scores_a, scores_b) if paired else None,
        rank_correlation=_rank_correlation(scores_a, scores_b) if paired else None,
        wins=_wins(scores_a, scores_b, paired),
        power=_power(scores_a, scores_b, paired, protocol),
        notes=_notes(first, second, rows_a, rows_b),
        no_worse=None
        if no_worse is None
        else _no_worse(scores_a, scores_b, paired, no_worse, rows_a == rows_b),
    )


def _no_worse(
    a: statistics.Array, b: statistics.Array, paired: bool, share: float, same: bool
) -> NoWorse:
    b = (1 - share) * b
    between = statistics.paired_difference if paired else statistics.unpaired_difference
    difference = between(a, b, "mean")
    p_value, _ = _test(a, b, paired)
    holds = same or _verdict(difference, p_value) == "a scores higher"
    games = None
    if difference.estimate > 0 and min(len(a), len(b)) > 1:
        spreads = [a - b] if paired else [a, b]
        games = statistics.games_to_settle(
            difference.estimate, *(float(x.std(ddof=1)) for x in spreads)
        )
    measured = (
        f"a's mean score minus {100 * (1 - share):g} % of b's is {difference.estimate:,.1f} "
        f"{statistics.ends_text(difference.ends)} (p = {p_value:.2g})"
    )
    if same:
        measured = "the games of both results are the same"
    worse = f"a is worse than b by more than {100 * share:g} %"
    text = f"{measured}: it {'is' if holds else 'cannot be'} excluded that {worse}"
    if not holds and games:
        text += f"; if the difference is real, {games:,} games of each would settle it"
    return NoWorse(share, difference, p_value, holds, games, text)


def read_side(folder: Path) -> tuple[Protocol, ReadResult]:
    """A result folder whose games may be compared; InputError if they may not."""
    result, protocol, rows = results.read_result(folder)
    results.need_score(rows, folder)
    for row in rows:
        _check_game(row, protocol, folder)
    versions = result.get("versions")
    nle = versions.get("nle") if isinstance(versions, dict) else None
    return protocol, ReadResult(
        folder,
        str(result.get("agent")),
        _text(result.get("revision")),
        _text(result.get("machine")),
        _text(nle),
        {row["index"]: row for row in rows},
    )


def _check_game(row: Row, protocol: Protocol, folder: Path) -> None:
    """Only games that are the protocol's may be paired by their index."""
    index = row["index"]
    spec = protocol.game(index)
    if (row["core"], row["disp"], row["character"]) != (spec.core, spec.disp, spec.character):
        raise InputError(
            f"{folder}: game {index} has not the seeds and character of {protocol.id}; "
            "nhzoo verify says more"
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _unpaired_because(a: ReadResult, b: ReadResult, common: Sequence[int]) -> str:
    """Why games of one index are not the same game, "" when they are."""
    for what, of_a, of_b in (
        ("machine type", a.machine, b.machine),
        ("NLE version", a.nle, b.nle),
    ):
        if of_a is None or of_b is None:
            return f"a result does not name its {what}, so its dungeons may be other ones"
        if of_a != of_b:
            return f"seeds give other dungeons: {what} {of_a} and {of_b}"
    return "" if common else "the results have no game in common"


def _column(rows: Sequence[Row], name: str) -> statistics.Array:
    return np.array([row[name] for row in rows], np.float64)


def _side(result: ReadResult, rows: Sequence[Row]) -> Side:
    scores = _column(rows, "score")
    return Side(
        folder=str(result.folder),
        agent=result.agent,
        revision=result.revision,
        machine=result.machine,
        nle=result.nle,
        games=len(rows),
        left_out=len(result.rows) - len(rows),
        mean_score=Interval.of(scores.mean(), statistics.mean_ci95(scores)),
        median_score=statistics.estimate(scores, "median"),
        iqm_score=statistics.estimate(scores, "iqm"),
        mean_progression=float(_column(rows, "progression").mean()),
    )


def _test(a: statistics.Array, b: statistics.Array, paired: bool) -> tuple[float, str]:
    if paired:
        p, name = statistics.sign_flip_test(a - b), "sign flips of paired differences"
    else:
        p, name = statistics.permutation_test(a, b), "permutations of Welch's t"
    return p.value, f"{name}, {'all' if p.exact else f'{statistics.RESAMPLES:,} drawn'}"


def _verdict(difference: Interval, p_value: float) -> Verdict:
    ends = difference.ends
    if p_value >= statistics.ALPHA or (ends and ends[0] <= 0 <= ends[1]):
        return "not settled"
    return "a scores higher" if difference.estimate > 0 else "b scores higher"


def _correlation(a: statistics.Array, b: statistics.Array) -> float | None:
    """Pearson's, None where one side has no spread."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    x, y = (z - z.mean() for z in (a, b))
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # squares of any score stay within range
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def _rank_correlation(a: statistics.Array, b: statistics.Array) -> float | None:
    """Spearman's: Pearson's of ranks, which single very long games do not decide."""
    return _correlation(stats.rankdata(a), stats.rankdata(b))


def _wins(a: statistics.Array, b: statistics.Array, paired: bool) -> Wins:
    if paired:
        won, lost, total = int((a > b).sum()), int((a < b).sum()), len(a)
    else:
        ordered = np.sort(b)
        won = int(np.searchsorted(ordered, a, "left").sum())
        lost = int((len(b) - np.searchsorted(ordered, a, "right")).sum())
        total = len(a) * len(b)
    tied = total - won - lost
    return Wins(won, tied, lost, (won + tied / 2) / total)


def _power(a: statistics.Array, b: statistics.Array, paired: bool, protocol: Protocol) -> Power:
    difference = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        text = "one game does not say how many would settle a difference"
        return Power(None, None, protocol.games, None, text)
    separate = [float(x.std(ddof=1)) for x in (a, b)]
    together = [float((a - b).std(ddof=1))] if paired else separate
    errors = [d / len(x) ** 0.5 for d, x in zip(together, (a, b), strict=False)]
    pairs = statistics.games_to_settle(difference, *together) if paired else None
    unpaired = statistics.games_to_settle(difference, *separate)
    text = _power_text(difference, pairs, unpaired, protocol)
    detectable = statistics.detectable_difference(*errors)
    return Power(pairs, unpaired, protocol.games, detectable, text)


def _power_text(
    difference: float, paired: int | None, unpaired: int | None, protocol: Protocol
) -> str:
    if unpaired is None:
        return "the mean scores are equal: no number of games settles that"

    def games(count: int) -> str:
        more = f", more than the {protocol.games:,} of {protocol.id}"
        return f"{count:,}{more if count > protocol.games else ''}"

    size = f"a difference of {abs(difference):,.1f} takes"
    if paired is None:
        return f"{size} {games(unpaired)} games of each agent (80 % power, 5 % level)"
    return (
        f"{size} {games(paired)} paired games, or {games(unpaired)} unpaired ones of each agent "
        "(80 % power, 5 % level)"
    )


def _notes(a: ReadResult, b: ReadResult, rows_a: Sequence[Row], rows_b: Sequence[Row]) -> list[str]:
    notes = []
    for side, result, rows in (("a", a, rows_a), ("b", b, rows_b)):
        left_out = len(result.rows) - len(rows)
        if left_out:
            notes.append(f"{left_out:,} games of {side} are left out: the other result lacks them")
    fewest = min(len(rows_a), len(rows_b))
    if fewest == 1:
        notes.append("one game: there are no intervals")
    elif fewest < statistics.LEAST_VALUES:
        notes.append(
            f"only {fewest} games: intervals of means are Student's t, of other figures there are "
            "none"
        )
    elif fewest < FEW_GAMES:
        notes.append(
            f"only {fewest} games: intervals of means are too short (those of 95 % hold about 87 % "
            "of the time with 8 games, 92 % with 32)"
        )
    if list(a.rows.values()) == list(b.rows.values()):
        notes.append("the games of both results are the same")
    for side, rows in (("a", rows_a), ("b", rows_b)):
        for line in results.fault_lines(results.faults(rows), len(rows)):
            notes.append(f"{side}: {line}")
    return notes
