"""A result as one page: what was measured, how the games went, and some of them to watch.

The page is a single file that asks nothing of the network. Names, causes and whatever else comes
from outside are text in it, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template

from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.results import Row
from nhzoo.evaluation.statistics import summary_ci95
from nhzoo.publishing.asciicast import MAX_STEPS, Cast, CastTask, no_recording
from nhzoo.publishing.html import asset, count, interval, number, table, text
from nhzoo.publishing.report_parts import (
    STATUS_WORDS,
    Result,
    about_game,
    causes_table,
    doubts,
    embed,
    ends_table,
    facts_list,
    player,
    read,
    result_charts,
    roles_table,
    summary_cards,
)
from nhzoo.runtime import files
from nhzoo.runtime.pool import Crashed, run_tasks


def write_report(
    folder: Path,
    out: Path | None = None,
    games: Sequence[int] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the page of a result folder to `out` (`<folder>/report.html`), and return its path.

    `games` are those to watch: by default the best, the median and the worst by score. They are
    replayed, and CheckFailed is raised when one does not go as the result says. `progress` gets
    the number of games replayed, and how many there are.
    """
    folder = Path(folder)
    result = read(folder)
    chosen = choose_games(result.rows) if games is None else _asked(result, games)
    casts = _record(result, list(chosen), workers, progress)
    labels = {game: f"{name} (game {game})" if name else "" for game, name in chosen.items()}
    out = Path(out) if out is not None else folder / "report.html"
    files.atomic_write(out, _page(result, casts, labels).encode())
    return out


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
    progress: Callable[[int, int], None],
) -> list[Cast]:
    rows = {row["index"]: row for row in result.rows}
    for game in games:
        results.read_trace(result.folder, game)  # what is missing is said before any work is done
    exempt = result.claims.get("exempt") is True
    args = (result.folder, result.protocol, exempt, result.agent, MAX_STEPS)
    items = [(game, rows[game]) for game in games]
    done: dict[int, Cast] = {}
    for key, outcome in run_tasks(CastTask, args, items, workers or os.cpu_count() or 1):
        assert isinstance(key, int)
        if isinstance(outcome, Crashed):
            outcome = str(outcome)
        if not isinstance(outcome, Cast):
            raise no_recording(result.folder, key, outcome)
        done[key] = outcome
        progress(len(done), len(games))
    return [done[game] for game in games]


def _page(result: Result, casts: Sequence[Cast], labels: dict[int, str]) -> str:
    summary, agent = result.summary, result.agent
    script = asset("tables.js") + asset("player.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    lead = f"{count(len(result.rows), 'game')}, no score: all of them crashed."
    if summary["mean_score"] is not None:
        lead = (
            f"{count(len(result.rows), 'game')}, mean score {number(summary['mean_score'])} "
            f"(95 % interval {interval(summary_ci95(summary))}), median "
            f"{number(summary['median_score'])}."
        )
    return Template(asset("report.html")).substitute(
        policy=text(policy),
        title=text(f"{agent} on {result.protocol.id}"),
        style=asset("report.css"),
        script=script,
        agent=text(agent),
        protocol=text(result.protocol.id),
        lead=lead,
        warnings="".join(f'<p class="warning">{text(line)}</p>' for line in doubts(result)),
        cards=summary_cards(summary),
        player=_player(result, casts, labels),
        charts=result_charts(result) + ends_table(result.rows),
        causes=causes_table(result.rows),
        roles=roles_table(result.rows),
        games=_games(result.rows, [cast.game for cast in casts]),
        facts=facts_list(result, len(casts)),
        casts=_embedded(result, casts),
    )


def _player(result: Result, casts: Sequence[Cast], labels: dict[int, str]) -> str:
    if not casts:
        return '<p class="note">No game has a step to watch: all of them crashed at the start.</p>'
    rows = {row["index"]: row for row in result.rows}
    choices = [
        (game, f"{labels[game] or f'Game {game}'}: {number(rows[game]['score'])}")
        for game in (cast.game for cast in casts)
    ]
    return player(choices, about_game(rows[casts[0].game], casts[0].windows))


def _embedded(result: Result, casts: Sequence[Cast]) -> str:
    rows = {row["index"]: row for row in result.rows}
    return embed(
        [
            {
                "game": cast.game,
                "about": about_game(rows[cast.game], cast.windows),
                "died": rows[cast.game]["end_status"] == "death",
                "data": base64.b64encode(cast.packed()).decode(),
            }
            for cast in casts
        ]
    )


def _games(rows: Sequence[Row], shown: Sequence[int]) -> str:
    """One line a game, and no more than is needed: a page may have thousands."""
    numbers = ("score", "turns", "steps", "max_depth", "experience_level")
    body = []
    for row in rows:
        index = row["index"]
        game = f"<td>{index}</td>"
        if index in shown:
            watch = f'<button type="button" data-game="{index}">Watch</button>'
            game = f'<td data-value="{index}">{index} {watch}</td>'
        data = "".join(f"<td>{number(row[name])}</td>" for name in numbers)
        body.append(
            f"<tr>{game}{data}<td>{row['progression']:.2%}</td>"
            f'<td class="t">{STATUS_WORDS[row["end_status"]]}</td>'
            f'<td class="t long">{text(row["cause"])}</td></tr>'
        )
    head = ("Game", "Score", "Turns", "Steps", "Deepest", "Level", "Progression", "<End", "<Cause")
    return table("All games", head, body, sortable=True)
