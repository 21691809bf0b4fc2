"""The report of a result: one page with its figures, how games went, and some to watch.

The page is a single file that asks nothing of the network. Names, causes and whatever else comes
from outside are text in it, never markup.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from nhzoo.envs.protocols import Protocol
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.outcomes import kaplan_meier
from nhzoo.evaluation.results import END_STATUSES, Row
from nhzoo.evaluation.statistics import mean_ci95, summary_ci95
from nhzoo.publishing import charts
from nhzoo.publishing.asciicast import STATUS_TEXT, Cast, CastItem, CastTask, end_text
from nhzoo.publishing.html import count, interval, number, render, single_file
from nhzoo.runtime import files
from nhzoo.runtime.console import ProgressCallback, clean, no_progress
from nhzoo.runtime.pool import run_items

TOP_CAUSES: Final = 15
STATUS_WORDS: Final = STATUS_TEXT | {"step_cap": "step cap"}


@dataclass(frozen=True)
class Result:
    """A result folder, read and checked."""

    folder: Path
    claims: dict[str, Any]
    rows: list[Row]
    protocol: Protocol
    summary: dict[str, Any]

    @property
    def agent(self) -> str:
        """Its name, as text."""
        return clean(str(self.claims.get("agent")))

    def cast_item(self, row: Row) -> CastItem:
        """What `CastTask` records a game by."""
        exempt = self.claims.get("exempt") is True
        return CastItem(self.folder, self.protocol, exempt, self.agent, row)


def read(folder: Path) -> Result:
    """A finished result; InputError unless all of it can be read."""
    claims, protocol, rows = results.read_result(folder)
    return Result(folder, claims, rows, protocol, results.summarize(rows))


def doubts(result: Result) -> list[str]:
    """What a reader has to know first: games that failed, and what does not fit together."""
    found = results.fault_lines(results.faults(result.rows), len(result.rows))
    claimed = result.claims.get("summary")
    for name in ("episodes", "mean_score", "median_score", "mean_progression"):
        value = claimed.get(name) if isinstance(claimed, dict) else None
        given = result.summary[name]
        if given is None or not isinstance(value, (int, float)):
            same = value is given
        else:
            same = math.isclose(value, given, rel_tol=1e-9)
        if not same:
            found.append(
                f"result.json says that {name} is {value!r}; its games give {given!r}, shown here."
            )
    shard, games = result.claims.get("shard"), len(result.rows)
    first, step = (0, 1) if shard is None else results.parse_shard(str(shard))
    if [row["index"] for row in result.rows] != list(range(first, first + step * games, step)):
        which = f"0 to {games - 1}" if shard is None else f"those of shard {shard}"
        found.append(f"The games are not {which}: some were left out.")
    return found


def summary_cards(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The figures of a summary as (name, value, note), the mean score in front."""
    if summary["mean_score"] is None:
        scores = [("Mean score", "none", "every game crashed")]
    else:
        ends = f"95 % {interval(summary_ci95(summary))}"
        scores = [
            ("Mean score", number(summary["mean_score"]), ends),
            ("Median score", number(summary["median_score"]), ""),
            ("IQM score", number(summary["iqm_score"]), "interquartile mean"),
            ("Progression", f"{100 * summary['mean_progression']:.2f} %", "BALROG's"),
        ]
    failed = count(summary["crashed"], "crash", "crashes")
    failed += f", {summary['voided']:,} voided" if summary["voided"] else ""
    return [
        *scores,
        ("Turns", number(summary["mean_turns"]), "mean"),
        ("Steps", number(summary["mean_steps"]), "mean"),
        ("Deepest level", str(summary["max_depth"]), f"at the end {summary['mean_depth']:.2f}"),
        ("Experience level", f"{summary['mean_experience_level']:.2f}", "mean, at the end"),
        ("Ascensions", str(summary["ascensions"]), failed),
    ]


def player_game(
    row: Row, label: str, windows: Sequence[tuple[int, int]], **source: str
) -> dict[str, Any]:
    """What `player.html` needs of a game; `source` is its recording (`data`) or the file (`src`).

    `windows` are the steps shown, as (first, last).
    """
    score = number(row["score"])
    about = f"Game {row['index']}: score {score}, turn {row['turns']:,}, {end_text(row)}."
    if len(windows) > 1:
        (_, head), (tail, last) = windows
        about += f" Shown are steps 0 to {head:,} and {tail:,} to {last:,}."
    facts = {"game": row["index"], "label": f"{label}: {score}", "about": about}
    return facts | {"died": row["end_status"] == "death"} | source


def result_charts(result: Result) -> list[Markup]:
    """Scores, survival and depth, as figures."""
    rows, summary = result.rows, result.summary
    scores = [float(row["score"]) for row in rows]
    died = [row["end_status"] == "death" for row in rows]
    mean = summary["mean_score"]
    return [
        *([] if mean is None else [charts.score_chart(scores, mean, summary["median_score"])]),
        charts.survival_chart(kaplan_meier([row["turns"] for row in rows], died), len(rows)),
        charts.depth_chart([row["max_depth"] for row in rows]),
    ]


@dataclass(frozen=True)
class Shares:
    """Counts of `total`, each with a bar as long as its share of the largest one.

    `rest` is a last line without a bar.
    """

    counts: Sequence[tuple[str, int]]
    total: int
    rest: tuple[str, int] | None = None

    @property
    def lines(self) -> list[tuple[str, int, str, str]]:
        """Label, count, share, and the length of the bar in per cent ("" for none)."""
        most = max((amount for _, amount in self.counts), default=1)
        drawn = [(*line, f"{100 * line[1] / most:.1f}") for line in self.counts]
        drawn += [(*self.rest, "")] if self.rest else []
        return [(label, n, f"{n / self.total:.1%}", bar) for label, n, bar in drawn]


def ends(rows: Sequence[Row]) -> Shares:
    """How the games ended."""
    counts = Counter(row["end_status"] for row in rows)
    found = [(STATUS_WORDS[status], counts[status]) for status in END_STATUSES if counts[status]]
    return Shares(found, len(rows))


def causes(rows: Sequence[Row]) -> Shares:
    """The commonest causes, without what the character was doing meanwhile (", while praying")."""
    died = [row for row in rows if row["end_status"] == "death"]
    named = Counter(row["cause"].partition(", while ")[0] or "not known" for row in died)
    ranked = sorted(named.items(), key=lambda item: (-item[1], item[0]))
    others = ranked[TOP_CAUSES:]
    rest = (count(len(others), "other cause"), sum(deaths for _, deaths in others))
    return Shares(ranked[:TOP_CAUSES], len(died), rest if others else None)


def characters(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """One line for each character, or role where the rows name it: its name and its figures."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        role = row.get("role")
        name = role if isinstance(role, str) and role else row["character"]
        groups.setdefault("drawn for each game (@)" if name == "@" else name, []).append(row)
    found: list[tuple[str, ...]] = []
    for name, group in sorted(groups.items()):
        scores = [float(row["score"]) for row in group]
        found.append(
            (
                name,
                f"{len(group):,}",
                number(float(np.mean(scores))),
                interval(mean_ci95(scores)),
                number(float(np.median(scores))),
                f"{np.mean([row['turns'] for row in group]):,.0f}",
                f"{max(row['max_depth'] for row in group):,}",
                f"{np.mean([row['end_status'] == 'death' for row in group]):.0%}",
            )
        )
    return found


def facts_list(result: Result, replayed_games: int) -> list[tuple[str, str]]:
    """What was measured, and where; `replayed_games` were replayed for the page."""
    claims, protocol = result.claims, result.protocol
    versions = files.as_object(claims.get("versions"))
    speed = (claims.get("summary") or {}).get("env_steps_per_second")
    replayed = "No game was replayed for this page"
    if replayed_games:
        of = f"{replayed_games:,} of {count(len(result.rows), 'game')}"
        replayed = f"{of} replayed for this page, as recorded"
    facts = [
        ("Agent", result.agent),
        ("Revision", claims.get("revision")),
        ("Weights, SHA-256", claims.get("weights_sha256")),
        ("Parameters", claims.get("params")),
        ("Temperature", claims.get("temperature")),
        ("Patience, screens", claims.get("patience")),
        ("Least share of the best action", claims.get("min_p")),
        (
            "Protocol",
            f"{protocol.id}: {protocol.character}, {protocol.games:,} games, "
            f"{protocol.step_cap:,} steps, stalled after {protocol.no_progress:,} without a turn",
        ),
        ("Verified", f"{replayed}; nhzoo verify replays all of them"),
        ("Shard", claims.get("shard")),
        ("Limits", claims.get("limits")),
        (
            "Exempt",
            "yes: a clock decides how games end, so the same bytes are not promised"
            if claims.get("exempt") is True
            else "no: the same command gives the same bytes",
        ),
        ("Machine", " ".join(str(claims.get(name, "?")) for name in ("system", "machine"))),
        ("Device", f"{claims.get('device', '?')}, {claims.get('cpu_capability', '?')}"),
        ("Batch, workers", f"{claims.get('batch', '?')}, {claims.get('workers', '?')}"),
        ("Speed", f"{speed:,.0f} steps a second" if isinstance(speed, (int, float)) else None),
        ("Versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
    ]
    return [
        (name, f"{value:,}" if isinstance(value, int) else str(value))
        for name, value in facts
        if value is not None and value != ""
    ]


def write_report(
    folder: Path,
    out: Path | None = None,
    games: Sequence[int] | None = None,
    workers: int | None = None,
    progress: ProgressCallback = no_progress,
    beside: Path | None = None,
) -> Path:
    """Write the page of a result folder to `out` (`<folder>/report.html`), and return its path.

    `games` are those to watch: by default the best, the median and the worst by score. They are
    replayed, and CheckFailed is raised when one does not go as the result says. `progress` gets
    the number of games replayed, and how many there are. With `beside`, a second result folder of
    the same protocol, the first of the games that it has too is shown with its own side by side.
    """
    folder = Path(folder)
    result = read(folder)
    chosen = choose_games(result.rows) if games is None else _asked(result, games)
    other = None if beside is None else _other(result, read(Path(beside)), list(chosen))
    casts = _record(result, list(chosen), workers, progress)
    labels = {game: f"{name} (game {game})" if name else "" for game, name in chosen.items()}
    pair = [] if other is None else _pair(result, casts, *other, workers)
    out = Path(out) if out is not None else folder / "report.html"
    files.atomic_write(out, _page(result, casts, labels, pair).encode())
    return out


def _other(result: Result, other: Result, games: Sequence[int]) -> tuple[Result, int]:
    """A second result, and the first of `games` that it has as well."""
    if other.protocol.id != result.protocol.id:
        raise InputError(
            f"--beside {other.folder}: played {other.protocol.id}, not {result.protocol.id}; game "
            "numbers are of one protocol"
        )
    playable = {row["index"] for row in other.rows if row["steps"] > 0 and row["keys"] > 0}
    for game in games:
        if game in playable:
            return other, game
    asked = ", ".join(map(str, games)) or "to watch"
    raise InputError(f"--beside {other.folder}: has none of the games {asked}; name one by --game")


def _pair(
    result: Result, casts: Sequence[Cast], other: Result, game: int, workers: int | None
) -> list[dict[str, Any]]:
    """What `beside.html` needs of both agents' recordings of a game."""
    own = next(cast for cast in casts if cast.game == game)
    theirs = _record(other, [game], workers, no_progress)[0]
    found = []
    for one, cast in ((result, own), (other, theirs)):
        row = next(row for row in one.rows if row["index"] == game)
        packed = base64.b64encode(cast.packed).decode()
        found.append(player_game(row, one.agent, cast.windows, data=packed))
    return found


def choose_games(rows: Sequence[Row]) -> dict[int, str]:
    """The best, the (lower) median and the worst game by score that have steps to watch."""
    playable = [row for row in rows if row["keys"] > 0 and row["steps"] > 0]
    ranked = sorted(playable, key=lambda row: (row["score"], -row["index"]))
    if not ranked:
        return {}
    places = (("Best", -1), ("Median", (len(ranked) - 1) // 2), ("Worst", 0))
    names: dict[int, str] = {}
    for name, place in places:
        game = ranked[place]["index"]
        names[game] = f"{names[game]}, {name.lower()}" if game in names else name
    return names


def record_games(folder: Path, games: Sequence[int], workers: int | None = None) -> list[Cast]:
    """Recordings of some games of a result folder, each replayed and checked in a worker."""
    return _record(read(folder), games, workers, lambda done, total: None)


def _asked(result: Result, games: Sequence[int]) -> dict[int, str]:
    known = {row["index"] for row in result.rows}
    for game in games:
        if game not in known:
            raise InputError(f"{result.folder}: has no game {game}; choose from episodes.jsonl")
    return dict.fromkeys(games, "")


def _record(
    result: Result,
    games: Sequence[int],
    workers: int | None,
    progress: ProgressCallback,
) -> list[Cast]:
    rows = {row["index"]: row for row in result.rows}
    for game in games:
        results.read_trace(result.folder, game)  # what is missing is said before any work is done
    items = [(game, result.cast_item(rows[game])) for game in games]
    done: dict[int, Cast] = {}
    for key, outcome in run_items(CastTask, (), items, workers):
        if not isinstance(outcome, Cast):
            raise CheckFailed(f"{result.folder}: game {key} cannot be shown: {outcome}")
        done[key] = outcome
        progress(len(done), len(games))
    return [done[game] for game in games]


def _page(
    result: Result,
    casts: Sequence[Cast],
    labels: dict[int, str],
    pair: Sequence[Mapping[str, Any]],
) -> str:
    rows = {row["index"]: row for row in result.rows}
    return render(
        "report.html",
        **single_file("tables.js", "player.js", *(["beside.js"] if pair else [])),
        pair=pair,
        agent=result.agent,
        protocol=result.protocol.id,
        summary=result.summary,
        ends95=summary_ci95(result.summary),
        doubts=doubts(result),
        cards=summary_cards(result.summary),
        charts=result_charts(result),
        ends=ends(result.rows),
        causes=causes(result.rows),
        characters=characters(result.rows),
        rows=result.rows,
        status_words=STATUS_WORDS,
        facts=facts_list(result, len(casts)),
        casts=[
            player_game(
                rows[cast.game],
                labels[cast.game] or f"Game {cast.game}",
                cast.windows,
                data=base64.b64encode(cast.packed).decode(),
            )
            for cast in casts
        ],
    )
