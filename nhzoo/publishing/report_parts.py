"""What pages say of a result: figures, charts, deaths, characters, and what does not fit."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

import numpy as np

from nhzoo.envs.protocols import Protocol
from nhzoo.evaluation import results
from nhzoo.evaluation.results import END_STATUSES, Row
from nhzoo.evaluation.statistics import mean_ci95, summary_ci95
from nhzoo.evaluation.survival import kaplan_meier
from nhzoo.publishing import charts
from nhzoo.publishing.asciicast import end_text
from nhzoo.publishing.html import asset, count, interval, number, share_table, table, text
from nhzoo.runtime.console import clean

TOP_CAUSES: Final = 15
STATUS_WORDS = dict(
    zip(END_STATUSES, ("died", "ascended", "step cap", "stalled", "crashed", "voided"), strict=True)
)


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


def summary_cards(summary: Mapping[str, Any]) -> str:
    """The figures of a summary, the mean score in front."""
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
    cards = [
        *scores,
        ("Turns", number(summary["mean_turns"]), "mean"),
        ("Steps", number(summary["mean_steps"]), "mean"),
        ("Deepest level", str(summary["max_depth"]), f"at the end {summary['mean_depth']:.2f}"),
        ("Experience level", f"{summary['mean_experience_level']:.2f}", "mean, at the end"),
        ("Ascensions", str(summary["ascensions"]), failed),
    ]
    return "".join(
        f"<div{' class=wide' if place == 0 else ''}><dt>{name}</dt><dd>{value}"
        f"{f'<small>{note}</small>' if note else ''}</dd></div>"
        for place, (name, value, note) in enumerate(cards)
    )


def about_game(row: Row, windows: Sequence[tuple[int, int]]) -> str:
    """How a game went, and which of its steps are shown."""
    score, turns = number(row["score"]), f"{row['turns']:,}"
    told = f"Game {row['index']}: score {score}, turn {turns}, {end_text(row)}."
    if len(windows) == 1:
        return told
    (_, head), (tail, last) = windows
    return f"{told} Shown are steps 0 to {head:,} and {tail:,} to {last:,}."


def result_charts(result: Result) -> str:
    """Scores, survival and depth, as figures."""
    rows, summary = result.rows, result.summary
    scores = [float(row["score"]) for row in rows]
    died = [row["end_status"] == "death" for row in rows]
    scored = summary["mean_score"] is not None
    return "".join(
        (
            charts.score_chart(scores, summary["mean_score"], summary["median_score"])
            if scored
            else "",
            charts.survival_chart(kaplan_meier([row["turns"] for row in rows], died), len(rows)),
            charts.depth_chart([row["max_depth"] for row in rows]),
        )
    )


def ends_table(rows: Sequence[Row]) -> str:
    """How the games ended, as a figure."""
    counts = Counter(row["end_status"] for row in rows)
    found = [(STATUS_WORDS[status], counts[status]) for status in END_STATUSES if counts[status]]
    ends = share_table("How the games ended", ("End", "Games"), found, len(rows))
    return f"<figure><h3>Ends</h3>{ends}</figure>"


def causes_table(rows: Sequence[Row]) -> str:
    """The commonest causes, without what the character was doing meanwhile (", while praying")."""
    died = [row for row in rows if row["end_status"] == "death"]
    if not died:
        return '<p class="note">No game ended by death.</p>'
    named = Counter(row["cause"].partition(", while ")[0] or "not known" for row in died)
    ranked = sorted(named.items(), key=lambda item: (-item[1], item[0]))
    others = ranked[TOP_CAUSES:]
    rest = (count(len(others), "other cause"), sum(deaths for _, deaths in others))
    return share_table(
        "Causes of death",
        ("Cause", "Deaths"),
        ranked[:TOP_CAUSES],
        len(died),
        rest if others else None,
    )


def roles_table(rows: Sequence[Row]) -> str:
    """One line for each character, or role where the rows name it."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        role = row.get("role")
        name = role if isinstance(role, str) and role else row["character"]
        groups.setdefault("drawn for each game (@)" if name == "@" else name, []).append(row)
    body = []
    for name, group in sorted(groups.items()):
        scores = [float(row["score"]) for row in group]
        cells = (
            f"{len(group):,}",
            number(float(np.mean(scores))),
            interval(mean_ci95(scores)),
            number(float(np.median(scores))),
            f"{np.mean([row['turns'] for row in group]):,.0f}",
            f"{max(row['max_depth'] for row in group):,}",
            f"{np.mean([row['end_status'] == 'death' for row in group]):.0%}",
        )
        data = "".join(f"<td>{cell}</td>" for cell in cells)
        body.append(f'<tr><th scope="row">{text(name)}</th>{data}</tr>')
    head = ("<Character", "Games", "Mean score", "95 % interval", "Median", "Turns", "Deepest")
    return table("By character", (*head, "Died"), body)


def facts_list(result: Result, replayed_games: int) -> str:
    """What was measured, and where; `replayed_games` were replayed for the page."""
    claims, protocol = result.claims, result.protocol
    versions = claims.get("versions")
    versions = versions if isinstance(versions, dict) else {}
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
    return "".join(
        f"<dt>{name}</dt><dd>{text(f'{value:,}' if isinstance(value, int) else value)}</dd>"
        for name, value in facts
        if value is not None and value != ""
    )


def player(choices: Sequence[tuple[int, str]], about: str) -> str:
    """The player of `player.js`: a button for each (game, label), the first one pressed."""
    buttons = "".join(
        f'<button type="button" data-game="{game}" aria-pressed="{str(not place).lower()}">'
        f"{text(label)}</button>"
        for place, (game, label) in enumerate(choices)
    )
    return Template(asset("player.html")).substitute(choices=buttons, about=text(about))


def embed(value: object) -> str:
    """JSON that no `</script>` can be in."""
    written = json.dumps(value)
    for char in "<>&":
        written = written.replace(char, f"\\u{ord(char):04x}")
    return written
